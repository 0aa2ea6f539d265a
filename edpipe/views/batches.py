"""Batches of views on the training device, a whole batch at a time."""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from edpipe.datasets.dataset_file import Dataset
from edpipe.params.soft_labels import PadCrop, is_finite
from edpipe.runtime.threads import num_threads
from edpipe.storage.digests import digest_bytes
from edpipe.views import crops_torch
from edpipe.views.axes import Boxes, Flips
from edpipe.views.colour import jitter_parameters, rand_augment_parameters
from edpipe.views.crops import pad_crop_of, pad_crop_parameters, resized_crop_boxes
from edpipe.views.mixing import MIX_PARTS, Mix, MixParameters, PartnerPools, mix_parameters
from edpipe.views.pixels import apply_cutmix, apply_mixup, apply_pad_crop, apply_resized_crop, gather_pad_crop
from edpipe.views.spec import ViewSpec, check_views

CANARY_SAMPLES = 8
RESIDENT_BYTES = 2**31
"""Raw images up to this size, in all, are kept on a GPU: CIFAR takes 0.18 GB, 60,000 squares of 64 pixels 0.74 GB."""
_UPLOAD_IMAGES = 4096


class ViewBatches:
    """Makes views of a dataset's samples; the pixels are the same on every device, in every batch and order.

    Args:
        dataset: whose samples.
        spec: what their views are.
        device: where batches are wanted; a GPU also keeps small raw datasets.
        pools: disjoint arrays of sample ids; a sample is mixed with one of its pool. Used only if the spec has mixing;
            every sample whose views are asked for must be in one then.

    Raises:
        ValueError: pools that are not disjoint.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: ViewSpec,
        device: torch.device,
        pools: tuple[Int64[np.ndarray, "..."], ...] = (),
    ) -> None:
        self.dataset = dataset
        self.spec = spec
        self.device = device
        self._pools = PartnerPools(pools)

    @property
    def num_workers(self) -> int:
        """Threads in which batches are worth making ahead: none where views cost next to nothing.

        Decoding and colour take the CPU's time. For a GPU, as many threads as there are. On the CPU they compete with
        the network, beside which views of 224 pixels take 4 % of one thread's time (docs/benchmarks.md): with a single
        thread nothing is won, with several one of them fills the time in which the others wait for the next batch.
        """
        is_on_cpu, augment = self.device.type == "cpu", self.spec.augment
        if self.dataset.encoding != "raw" or not isinstance(augment, PadCrop) or not is_finite(augment):
            return int(num_threads() > 1) if is_on_cpu else num_threads()
        # A GPU need not wait for a gather.
        return int(not is_on_cpu and self._resident is None)

    def views(
        self, sample_ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> UInt8[Tensor, "sample channel height width"]:
        """The given view of each sample: cropped, then jittered, then RandAugment, then mixed, as far as asked for.

        Raises:
            ValueError: a sample or a view that there is not, or a sample to be mixed that is in no pool.
        """
        if len(sample_ids) == 0:  # what a small last batch leaves for the last of several processes
            side = self.spec.image_size
            return torch.empty((0, self.dataset.channels, side, side), dtype=torch.uint8, device=self.device)
        own = self._unmixed(sample_ids, views)
        if self.spec.mixing is None:
            return own
        return self._mixed(own, sample_ids, views)

    def mix(self, sample_ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]) -> Mix:
        """What each view is made of: for mixing labels as pixels are mixed.

        Raises:
            ValueError: the spec has no mixing, a view that there is not, or a sample that is in no pool.
        """
        return self._mix_parameters(sample_ids, views).mix

    def plain(self, sample_ids: Int64[np.ndarray, " sample"]) -> UInt8[Tensor, "sample channel height width"]:
        """Each sample without augmentation, a centre square of image_size: what is evaluated."""
        if self._resident is not None:
            return self._resident[self._send(sample_ids)]
        return self._plain_on_cpu(sample_ids).to(self.device)

    def canary(
        self, sample_ids: Int64[np.ndarray, " sample"], first_view: int = 0, num_views: int | None = None
    ) -> str:
        """Digest of the pixels of a few views: differs when a library decodes, resizes or colours in another way.

        The samples are spread evenly over those given, the views go from first_view through num_views of them and
        round again; without num_views, through the rest of the spec's.

        Raises:
            ValueError: no sample, or no such views.
        """
        count = self.spec.num_views - first_view if num_views is None else num_views
        if len(sample_ids) == 0 or not 0 <= first_view < first_view + count <= self.spec.num_views:
            raise ValueError(
                f"a canary needs at least 1 sample, and views within [0, {self.spec.num_views}); "
                f"got {len(sample_ids)} samples, and {count} views from {first_view}"
            )
        rows = np.unique(np.linspace(0, len(sample_ids) - 1, CANARY_SAMPLES).astype(np.int64))
        views = first_view + np.arange(len(rows), dtype=np.int64) % count
        return digest_bytes(self.views(sample_ids[rows], views).cpu().contiguous().numpy().tobytes())

    def _unmixed(
        self, sample_ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> UInt8[Tensor, "sample channel height width"]:
        augment = self.spec.augment
        if is_finite(augment) and self._resident is not None:
            return self._pad_crops_there(sample_ids, views, self._resident)
        if isinstance(augment, PadCrop):
            crops = self._pad_crops(sample_ids, views)
        else:
            crops = self._resized_crops(sample_ids, views)
        # torchvision's operations round otherwise on a GPU.
        return self._coloured(crops, sample_ids, views).to(self.device)

    def _pad_crops(
        self, sample_ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> UInt8[Tensor, "sample channel height width"]:
        dy, dx, flip = pad_crop_parameters(self.spec, sample_ids, views)
        return apply_pad_crop(self._plain_on_cpu(sample_ids), dy, dx, flip, pad_crop_of(self.spec).padding)

    def _pad_crops_there(
        self,
        sample_ids: Int64[np.ndarray, " sample"],
        views: Int64[np.ndarray, " sample"],
        images: UInt8[Tensor, "any channel height width"],
    ) -> UInt8[Tensor, "sample channel height width"]:
        """From all images of the dataset on a device: ids and view numbers are all that is sent."""
        check_views(self.spec, views)
        ids = self._send(sample_ids)
        numbers = torch.from_numpy(np.ascontiguousarray(views)).to(images.device)
        dy, dx, flip = crops_torch.pad_crop_parameters(self.spec, ids, numbers)
        return gather_pad_crop(images[ids], dy, dx, flip, pad_crop_of(self.spec).padding)

    def _resized_crops(
        self, sample_ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> UInt8[Tensor, "sample channel height width"]:
        images = [torch.from_numpy(self.dataset.decode(int(i))) for i in sample_ids]
        sizes = np.array([image.shape[1:] for image in images], dtype=np.int64).reshape(-1, 2)
        boxes, flips = resized_crop_boxes(self.spec, sample_ids, views, sizes[:, 0], sizes[:, 1])
        return self._squares(images, boxes, flips)

    def _squares(
        self, images: list[UInt8[Tensor, "channel _ _"]], boxes: Boxes, flips: Flips
    ) -> UInt8[Tensor, "sample channel height width"]:
        """A box of each image, resized to what networks see."""
        side = self.spec.image_size
        squares = torch.empty((len(images), self.dataset.channels, side, side), dtype=torch.uint8)
        for square, image, box, flip in zip(squares, images, boxes, flips, strict=True):
            square.copy_(apply_resized_crop(image, box, bool(flip), side))
        return squares

    def _coloured(
        self,
        crops: UInt8[Tensor, "sample channel height width"],
        sample_ids: Int64[np.ndarray, " sample"],
        views: Int64[np.ndarray, " sample"],
    ) -> UInt8[Tensor, "sample channel height width"]:
        """Crops after jitter and RandAugment, an image at a time; the crops themselves if neither is asked for."""
        augment = self.spec.augment
        if augment.jitter is None and augment.rand_augment is None:
            return crops
        # Only where it is needed: torchvision takes a second to import.
        from edpipe.views.colour_pixels import apply_jitter, apply_rand_augment

        if augment.jitter is not None:
            drawn = (each.tolist() for each in jitter_parameters(self.spec, sample_ids, views))
            crops = torch.stack([apply_jitter(*each) for each in zip(crops, *drawn, strict=True)])
        if augment.rand_augment is not None:
            drawn = (each.tolist() for each in rand_augment_parameters(self.spec, sample_ids, views))
            strength = augment.rand_augment.magnitude
            crops = torch.stack(
                [apply_rand_augment(crop, *each, magnitude=strength) for crop, *each in zip(crops, *drawn, strict=True)]
            )
        return crops

    def _mix_parameters(
        self, sample_ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> MixParameters:
        return mix_parameters(self.spec, self._pools, sample_ids, views)

    def _mixed(
        self,
        own: UInt8[Tensor, "sample channel height width"],
        sample_ids: Int64[np.ndarray, " sample"],
        views: Int64[np.ndarray, " sample"],
    ) -> UInt8[Tensor, "sample channel height width"]:
        """Pictures mixed with the same view of their partners; only partners that are needed are made."""
        parameters = self._mix_parameters(sample_ids, views)
        rows = np.flatnonzero(parameters.partner_ids != sample_ids)
        if len(rows) == 0:
            return own
        there = torch.from_numpy(rows).to(own.device)
        partner = self._unmixed(parameters.partner_ids[rows], views[rows])
        mixed = own.index_select(0, there)
        # Each leaves rows of the other as they are; one that is not asked for would only cost time.
        if (parameters.own_parts < MIX_PARTS).any():
            mixed = apply_mixup(mixed, partner, parameters.own_parts[rows])
        if parameters.boxes.any():
            mixed = apply_cutmix(mixed, partner, parameters.boxes[rows])
        return own.index_copy(0, there, mixed)

    def _plain_on_cpu(self, sample_ids: Int64[np.ndarray, " sample"]) -> UInt8[Tensor, "sample channel height width"]:
        if self.dataset.encoding == "raw":
            return torch.from_numpy(self.dataset.images(sample_ids))
        images = [torch.from_numpy(self.dataset.decode(int(i))) for i in sample_ids]
        boxes = np.array([_centre_box(*image.shape[1:]) for image in images], dtype=np.int64).reshape(-1, 4)
        return self._squares(images, boxes, np.zeros(len(images), dtype=bool))

    @cached_property
    def _resident(self) -> UInt8[Tensor, "any channel height width"] | None:
        """All images of a small raw dataset, on a GPU; None elsewhere."""
        dataset = self.dataset
        num_bytes = dataset.num_samples * dataset.channels * dataset.image_size**2
        if self.device.type == "cpu" or dataset.encoding != "raw" or num_bytes > RESIDENT_BYTES:
            return None
        return _upload(dataset, self.device)

    def _send(self, sample_ids: Int64[np.ndarray, " sample"]) -> Int64[Tensor, " sample"]:
        """The ids on the device, where a wrong one would stop the whole process."""
        num_samples = self.dataset.num_samples
        if len(sample_ids) and not 0 <= sample_ids.min() <= sample_ids.max() < num_samples:
            raise ValueError(
                f"sample ids must be from 0 to {num_samples - 1}, got {sample_ids.min()} … {sample_ids.max()}"
            )
        return torch.from_numpy(np.ascontiguousarray(sample_ids)).to(self.device)


def _upload(dataset: Dataset, device: torch.device) -> UInt8[Tensor, "any channel height width"]:
    """All images of a raw dataset, sent in parts so that the host's memory holds no copy of them all."""
    shape = (dataset.num_samples, dataset.channels, dataset.image_size, dataset.image_size)
    images = torch.empty(shape, dtype=torch.uint8, device=device)
    for start in range(0, dataset.num_samples, _UPLOAD_IMAGES):
        ids = np.arange(start, min(start + _UPLOAD_IMAGES, dataset.num_samples), dtype=np.int64)
        images[start : start + len(ids)] = torch.from_numpy(dataset.images(ids))
    return images


def centre_square(
    image: UInt8[Tensor, "channel any_height any_width"], side: int
) -> UInt8[Tensor, "channel {side} {side}"]:
    """What `ViewBatches.plain` makes of an image that is stored as JPEG: the square in its centre, resized."""
    return apply_resized_crop(image, _centre_box(*image.shape[1:]), False, side)


def _centre_box(height: int, width: int) -> Int64[np.ndarray, "4"]:
    """The largest square in the middle: top, left, height, width."""
    side = min(height, width)
    return np.array([(height - side) // 2, (width - side) // 2, side, side], dtype=np.int64)
