"""Batches of views on the training device, a whole batch at a time."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from edpipe.pixels import apply_pad_crop, apply_resized_crop
from edpipe.storage.dataset_file import Dataset
from edpipe.storage.records import digest_bytes
from edpipe.views import ViewSpec, pad_crop_parameters, resized_crop_boxes

CANARY_SAMPLES = 8


class ViewBatches:
    """Makes views of a dataset's samples; holds no state but the open files."""

    def __init__(self, dataset: Dataset, spec: ViewSpec, device: torch.device) -> None:
        self.dataset = dataset
        self.spec = spec
        self.device = device

    def views(
        self, sample_ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> UInt8[Tensor, "sample channel height width"]:
        """The given view of each sample."""
        if self.spec.augment.kind == "pad_crop":
            rows, columns, flips = pad_crop_parameters(self.spec, sample_ids, views)
            return apply_pad_crop(self.plain(sample_ids), rows, columns, flips, self.spec.augment.padding)
        return self._resized(sample_ids, views)

    def plain(self, sample_ids: Int64[np.ndarray, " sample"]) -> UInt8[Tensor, "sample channel height width"]:
        """Each sample without augmentation, a centre square of image_size: what is evaluated."""
        if self.dataset.encoding == "raw":
            return torch.from_numpy(self.dataset.images(sample_ids)).to(self.device)
        images = [torch.from_numpy(self.dataset.decode(int(i))) for i in sample_ids]
        squares = [apply_resized_crop(i, _centre_box(*i.shape[1:]), False, self.spec.image_size) for i in images]
        return torch.stack(squares).to(self.device)

    def _resized(
        self, sample_ids: Int64[np.ndarray, " sample"], views: Int64[np.ndarray, " sample"]
    ) -> UInt8[Tensor, "sample channel height width"]:
        images = [torch.from_numpy(self.dataset.decode(int(i))) for i in sample_ids]
        sizes = np.array([image.shape[1:] for image in images], dtype=np.int64)
        boxes, flips = resized_crop_boxes(self.spec, sample_ids, views, sizes[:, 0], sizes[:, 1])
        crops = [
            apply_resized_crop(image, box, bool(flip), self.spec.image_size)
            for image, box, flip in zip(images, boxes, flips, strict=True)
        ]
        return torch.stack(crops).to(self.device)

    def canary(self, sample_ids: Int64[np.ndarray, " sample"]) -> str:
        """Digest of the pixels of a few views: differs when a library decodes or resizes in another way."""
        few = sample_ids[:CANARY_SAMPLES]
        views = np.arange(len(few), dtype=np.int64) % self.spec.num_views
        return digest_bytes(self.views(few, views).cpu().contiguous().numpy().tobytes())


def _centre_box(height: int, width: int) -> Int64[np.ndarray, "4"]:
    """The largest square in the middle: top, left, height, width."""
    side = min(height, width)
    return np.array([(height - side) // 2, (width - side) // 2, side, side], dtype=np.int64)
