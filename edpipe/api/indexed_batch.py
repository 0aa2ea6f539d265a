"""Samples of a torch dataset that are made as a whole batch, and still look like a list of items."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import default_collate


class IndexedBatch(Sequence[tuple[Tensor, ...]]):
    """Items that lie together in tensors: any `collate_fn` sees a list of tuples, `collate` takes the whole tensors.

    Args:
        tensors: the first axis of each is the item.
    """

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:  # type: ignore[override]  # no slices: DataLoader has none
        return tuple(tensor[index] for tensor in self.tensors)


def collate(items: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The tensors of a batch, without a copy where the items were made together."""
    return items.tensors if isinstance(items, IndexedBatch) else tuple(default_collate(list(items)))


def epochs_and_positions(
    indices: Sequence[Any], epoch: int, num_samples: int
) -> tuple[Int64[np.ndarray, " sample"], Int64[np.ndarray, " sample"]]:
    """The epoch of each index and its position among the samples.

    Args:
        indices: positions, or (epoch, position) pairs.
        epoch: of those that are positions alone.
        num_samples: positions are from 0 to this less 1.

    Raises:
        TypeError: neither whole numbers nor pairs of them.
        IndexError: a position outside the samples, or an epoch below 0.
    """
    table = _table(indices)
    positions = table[:, -1]
    epochs = table[:, 0] if table.shape[1] == 2 else np.full_like(positions, epoch)
    wrong = np.flatnonzero((positions < 0) | (positions >= num_samples) | (epochs < 0))
    if len(wrong):
        raise IndexError(
            f"index {_shown(table[wrong[0]])}: positions are 0 to {num_samples - 1}, epochs 0 and later; "
            "give a position, or a pair (epoch, position)"
        )
    return epochs, positions


def _table(indices: Sequence[Any]) -> Int64[np.ndarray, "sample part"]:
    try:
        table = np.asarray(indices)
    except ValueError:  # positions and pairs together
        table = np.empty(0)
    if table.dtype.kind not in "iu" or not (table.ndim == 1 or table.shape[1:] == (2,)):
        raise TypeError(
            f"indices must all be whole numbers, or all pairs (epoch, position), got {str(list(indices))[:80]}"
        )
    return table.astype(np.int64).reshape(len(table), -1)


def _shown(row: Int64[np.ndarray, " part"]) -> str:
    values = row.tolist()
    return str(values[0]) if len(values) == 1 else str(tuple(values))
