"""Teacher outputs as torchdistill cached them until 2026: a file of torch.save for each sample, by its index.

A file is `<last four digits>/<index>.pt`, the index with at least four digits, or `<index>.pt`. It holds a mapping,
whose `teacher_outputs` are the logits of one sample. Nothing in it says which image that is, of which view, or what the
columns are: a list of samples and a list of classes must be given, and the view is taken to be the image as it is.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64

from edpipe.datasets.dataset_file import Dataset
from edpipe.errors import DataError

OUTPUTS = "teacher_outputs"


@dataclass(frozen=True)
class TorchdistillCache:
    """A folder of such files, and what its indexes and columns are.

    Attributes:
        folder: Holds the files.
        index_of: Index of each sample, by the sample's id in the dataset.
        columns: Column of the outputs for each class of the teacher, in order.
        num_columns: Of the outputs.
    """

    folder: Path
    index_of: Mapping[int, int]
    columns: Int64[np.ndarray, " class"]
    num_columns: int

    def logits(self, sample_ids: Int64[np.ndarray, " row"]) -> Float32[np.ndarray, "row class"]:
        """Logits of these samples, in the teacher's classes.

        Raises:
            DataError: a file is missing, damaged, or holds something else than as many logits as there are classes.
        """
        rows = [self._outputs(self.index_of[int(sample_id)]) for sample_id in sample_ids]
        return np.stack(rows)[:, self.columns]

    def _outputs(self, index: int) -> Float32[np.ndarray, " class"]:
        path = self._path(index)
        try:
            # Without weights_only, a file could run code.
            held = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise DataError(f"{path}: cannot be read ({reason}); write this file again with torchdistill") from error
        outputs = held.get(OUTPUTS) if isinstance(held, Mapping) else None
        if not isinstance(outputs, torch.Tensor) or outputs.numel() != self.num_columns:
            raise DataError(
                f"{path}: {_kind(outputs)}, must hold {self.num_columns} logits as '{OUTPUTS}'; see --classes"
            )
        return outputs.flatten().to(torch.float32).numpy()

    def _path(self, index: int) -> Path:
        digits = f"{index:04d}"
        found = [self.folder / digits[-4:] / f"{digits}.pt", self.folder / f"{index}.pt"]
        return next((path for path in found if path.is_file()), found[0])


def _kind(outputs: object) -> str:
    if isinstance(outputs, torch.Tensor):
        return f"holds a tensor of shape {tuple(outputs.shape)}"
    return f"holds no tensor '{OUTPUTS}'"


def open_cache(
    folder: Path, samples: Sequence[str], classes: Sequence[str], dataset: Dataset, class_ids: Sequence[int]
) -> TorchdistillCache:
    """The cache of one teacher.

    Args:
        folder: of the files.
        samples: sources of the images, as the dataset names them, in the order of torchdistill's indexes; others than
            those of the dataset may be among them.
        classes: names of the classes, in the order of the outputs.
        dataset: whose samples they are.
        class_ids: of the teacher.

    Raises:
        DataError: a training sample or a class of the teacher is not in the lists, or something is listed twice.
    """
    _check_once("samples", samples)
    _check_once("classes", classes)
    index_by_source = {source: index for index, source in enumerate(samples)}
    ids = dataset.sample_ids("train", class_ids)
    sources = [bytes(source).decode(errors="replace") for source in dataset.sources[ids]]
    missing = [source for source in sources if source not in index_by_source]
    if missing:
        raise DataError(
            f"samples: '{missing[0]}' of {dataset.name} is not listed ({len(missing)} such); list the images in the "
            "order of torchdistill's indexes, by the names that the packed data set has"
        )
    column_by_name = {name: column for column, name in enumerate(classes)}
    names = [dataset.class_names[class_id] for class_id in class_ids]
    unknown = [name for name in names if name not in column_by_name]
    if unknown:
        raise DataError(
            f"classes: '{unknown[0]}' of {dataset.name} is not listed; list them in the order of the outputs"
        )
    index_of = {int(i): index_by_source[source] for i, source in zip(ids, sources, strict=True)}
    columns = np.array([column_by_name[name] for name in names], dtype=np.int64)
    return TorchdistillCache(folder, index_of, columns, len(classes))


def _check_once(what: str, listed: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in listed:
        if name in seen:
            raise DataError(f"{what}: '{name}' is listed more than once; each belongs to one place")
        seen.add(name)
