"""Stored logits as the training loop wants them: gathered for a whole batch, on its device."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from edpipe.soft_labels.encoding.precisions import Affine, Floats, Precision
from edpipe.soft_labels.file.store import SoftLabelStore
from edpipe.views.axes import SampleIds, Views

SHARE_OF_FREE_MEMORY = 0.5
"""Soft labels take no more of what is free on a GPU; the rest is the student's and the images'."""
_UPLOAD_ROWS = 1 << 18


class SoftLabelBatches:
    """One store's logits, resident in a GPU's memory if they fit there, else gathered from the mapped files.

    Args:
        store: of the teacher.
        device: where the batches are.
        is_resident: whether to keep the rows there, where their precision can be decoded there.
    """

    def __init__(self, store: SoftLabelStore, device: torch.device, is_resident: bool) -> None:
        self.store, self.device = store, device
        can_reside = isinstance(store.precision, Affine | Floats)
        self._parts = _upload(store, device) if is_resident and can_reside else None

    @property
    def is_resident(self) -> bool:
        """Whether batches cost no transfer of rows."""
        return self._parts is not None

    def logits(self, sample_ids: SampleIds, views: Views) -> Float[Tensor, "row class"]:
        """The teacher's logits on the given view of each sample, float32, on the device.

        Raises:
            MissingRowsError: a sample or a view is not in the store.
        """
        if self._parts is None:
            return torch.from_numpy(self.store.logits(sample_ids, views)).to(self.device)
        positions = torch.from_numpy(self.store.positions(sample_ids, views)).to(self.device)
        return decode(self.store.precision, {name: part[positions] for name, part in self._parts.items()})


def decode(precision: Precision, parts: dict[str, Shaped[Tensor, "row ..."]]) -> Float[Tensor, "row class"]:
    """What `precision.decode` gives, computed on the parts' device; equal to it bit for bit on the CPU.

    Raises:
        ValueError: rows of this precision are decoded on the CPU only.
    """
    if isinstance(precision, Floats):
        return parts["logits"].float()
    if not isinstance(precision, Affine):
        raise ValueError(f"rows of precision {type(precision).__name__} are decoded on the CPU only")
    codes = parts["logits"]
    if precision.bits == 4:
        codes = torch.stack([codes & 15, codes >> 4], dim=2).flatten(1)[:, : precision.num_classes]
    return codes.float().mul_(parts["scale"].float()[:, None]).add_(parts["zero"].float()[:, None])


def fit_in_memory(stores: Sequence[SoftLabelStore], device: torch.device) -> bool:
    """Whether all of a stage's stores together leave enough of a GPU's memory; on other devices nothing is copied."""
    if device.type != "cuda":
        return False
    num_bytes = sum(store.num_bytes for store in stores)
    return num_bytes <= SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]


def _upload(store: SoftLabelStore, device: torch.device) -> dict[str, Tensor]:
    """All rows of all files, views and samples as one axis."""
    parts = {}
    for name in store.precision.columns():
        first = store.files[0].flat(name)
        kind = torch.from_numpy(first[:1].copy()).dtype
        whole = torch.empty((store.num_forwards, *first.shape[1:]), dtype=kind, device=device)
        start = 0
        for file in store.files:
            column = file.flat(name)
            for at in range(0, len(column), _UPLOAD_ROWS):
                rows = torch.from_numpy(column[at : at + _UPLOAD_ROWS].copy())
                whole[start : start + len(rows)] = rows
                start += len(rows)
                file.let_go()
        parts[name] = whole
    return parts
