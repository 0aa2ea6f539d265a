"""An exported folder: one student in one or several formats, what it is, and a card for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.errors import CorruptFileError, ExportError, MismatchError, OverwriteError, remake
from edpipe.export import comparison, onnx_file
from edpipe.export.card import card
from edpipe.export.description import (
    CONFIG,
    FILES,
    SECTION,
    ExportedFile,
    Format,
    ModelDescription,
    read_description,
    sealed,
)
from edpipe.export.finished import FinishedStudent
from edpipe.export.hub_config import hub_config
from edpipe.export.network import ImageTransform, TorchPredictor, network_with, program_of
from edpipe.storage.atomic import write_atomically, write_text_atomically
from edpipe.storage.digests import digest_file
from edpipe.storage.weights import read_weights

CARD = "README.md"


@dataclass(frozen=True)
class Written:
    """A student on its way into a folder."""

    student: FinishedStudent
    description: ModelDescription
    network: nn.Module
    folder: Path

    def file(self, form: Format) -> Path:
        """Where the file of a format belongs."""
        return self.folder / FILES[form]


def default_folder(description: ModelDescription) -> Path:
    """Where a student is exported to if no folder is named."""
    return Path("exports") / f"{description.experiment}_seed{description.seed}"


def export_student(student: FinishedStudent, formats: Sequence[Format], out: Path | None = None) -> Path:
    """Writes the student in these formats, config.json and the card; returns the folder.

    A folder that holds the same student keeps its other formats.

    Args:
        student: whose files have been compared with their records.
        formats: int8 needs onnx, in this call or an earlier one.
        out: the folder; None: exports/<experiment>_seed<N>.

    Raises:
        ExportError: packages are missing, the network has no such form, or gives other outputs there.
        CorruptFileError: the student or, for onnx and int8, the packed images are missing or damaged.
        MismatchError: they do not belong together.
        OverwriteError: the folder holds something else, or cannot be written.
    """
    description = student.description
    folder = out or default_folder(description)
    known = _known_files(folder, description)
    if {"onnx", "int8"} & set(formats):
        onnx_file.need(onnx_file.WRITERS)
    weights, _ = read_weights(student.path)
    network = network_with(description, weights, student.path)
    written = Written(student, description, network, folder)
    new = _write_files(written, formats)
    _write_texts(written, description.model_copy(update={"files": _in_order({**known, **new})}))
    return folder


def _in_order(files: Mapping[Format, ExportedFile]) -> dict[Format, ExportedFile]:
    return {form: files[form] for form in FILES if form in files}  # type: ignore[misc]


def _known_files(folder: Path, description: ModelDescription) -> Mapping[Format, ExportedFile]:
    """Files of the same student that the folder holds already.

    Raises:
        OverwriteError: it holds something else.
    """
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise OverwriteError(f"{folder}: is a file; name a folder with --out")
    if not (folder / CONFIG).exists():
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in (*FILES.values(), CARD))
        if foreign:
            raise OverwriteError(f"{folder}: holds {foreign[0]!r} and no model; name another folder with --out")
        return {}
    found = read_description(folder)
    if (found.weights_digest, found.seed) != (description.weights_digest, description.seed):
        raise OverwriteError(
            f"{folder}: holds another student ({found.experiment} seed {found.seed}, weights "
            f"{found.weights_digest}); name another folder with --out, or remove this one"
        )
    return found.files


def _write_files(written: Written, formats: Sequence[Format]) -> dict[Format, ExportedFile]:
    """Writes the weights; each file whole or not at all, and known to config.json only when all are there."""
    dataset = _dataset_of(written.student) if {"onnx", "int8"} & set(formats) else None
    new: dict[Format, ExportedFile] = {}
    if "safetensors" in formats:
        new["safetensors"] = _write_safetensors(written)
    if "torch" in formats:
        new["torch"] = _write_program(written)
    if dataset is not None:
        new |= _write_onnx(written, dataset, with_int8="int8" in formats)
    return new


def _dataset_of(student: FinishedStudent) -> Dataset:
    """The packed images, on which ONNX files are compared.

    Raises:
        CorruptFileError: they are missing or damaged.
        MismatchError: they are not those that taught the student.
    """
    path = student.dataset_path
    if not path.is_file():
        raise CorruptFileError(
            f"{path}: the packed images are not there, and an ONNX file is compared on them; fetch them with "
            f"`dvc pull {path}`, or {remake(path)}"
        )
    dataset = open_dataset(path)
    if dataset.digest != student.result.inputs.dataset:
        raise MismatchError(
            f"{path}: packed images have digest {dataset.digest}, the student was taught from "
            f"{student.result.inputs.dataset}; {remake(path)}"
        )
    return dataset


def _write_safetensors(written: Written) -> ExportedFile:
    path = written.file("safetensors")
    tensors = {name: value.detach().contiguous() for name, value in written.network.state_dict().items()}
    with write_atomically(path) as partial:
        # The metadata that the libraries of the hub ask for.
        partial.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
    return ExportedFile(digest=digest_file(path))


def _program(written: Written) -> torch.export.ExportedProgram:
    wanted = written.description.preprocessing
    return program_of(written.network, torch.zeros(2, wanted.channels, wanted.image_size, wanted.image_size))


def _write_program(written: Written) -> ExportedFile:
    path = written.file("torch")
    with write_atomically(path) as partial:
        plain = partial.with_suffix(".pt2")  # torch warns of other endings
        torch.export.save(_program(written), plain)
        plain.rename(partial)
    return ExportedFile(digest=digest_file(path))


def _write_onnx(written: Written, dataset: Dataset, with_int8: bool) -> dict[Format, ExportedFile]:
    path = written.file("onnx")
    with write_atomically(path) as partial:
        onnx_file.write_onnx(_program(written), partial)
        found = _compared(written, dataset, partial)
    new: dict[Format, ExportedFile] = {"onnx": found.model_copy(update={"digest": digest_file(path)})}
    if with_int8:
        new["int8"] = _write_int8(written, dataset)
        new["onnx"] = new["onnx"].model_copy(update={"test_top1": _test_top1(written, dataset, "onnx")})
    return new


def _compared(written: Written, dataset: Dataset, path: Path) -> ExportedFile:
    """How far the file's logits are from the student's, both in float32.

    Raises:
        ExportError: further than allowed.
    """
    in_float32 = written.description.model_copy(update={"precision": "float32"})
    ids = comparison.spread_over(dataset.sample_ids("test"), comparison.CHECKED_IMAGES)
    pixels = comparison.plain_batches(dataset).plain(ids)
    wanted = TorchPredictor(written.network, in_float32).logits(pixels)
    found = onnx_file.OnnxPredictor(path, in_float32).logits(pixels)
    difference = comparison.largest_difference(found, wanted)
    comparison.check_difference(difference, len(ids))
    return ExportedFile(digest="", checked_images=len(ids), max_difference=difference)


def _write_int8(written: Written, dataset: Dataset) -> ExportedFile:
    path = written.file("int8")
    transform = ImageTransform(written.description.preprocessing)
    with write_atomically(path) as partial:
        onnx_file.quantise(written.file("onnx"), partial, comparison.calibration_batches(dataset, transform))
    num_train = min(comparison.CALIBRATION_IMAGES, len(dataset.sample_ids("train")))
    top1 = _test_top1(written, dataset, "int8")
    return ExportedFile(digest=digest_file(path), calibration_images=num_train, test_top1=top1)


def _test_top1(written: Written, dataset: Dataset, form: Format) -> float:
    predictor = onnx_file.OnnxPredictor(written.file(form), written.description)
    return comparison.measure(predictor, dataset, "test").top1


def _write_texts(written: Written, description: ModelDescription) -> None:
    write_text_atomically(written.folder / CARD, card(written.student, description))
    config: dict[str, Any] = {**hub_config(description, written.network), SECTION: sealed(description)}
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text_atomically(written.folder / CONFIG, text)


def file_of(folder: Path, description: ModelDescription, form: Format | None) -> tuple[Format, Path]:
    """The file of a format, compared with its digest; without a format, of the first that is there.

    Raises:
        ExportError: the folder has no such file.
        CorruptFileError: the file is missing, or not the one that was written.
    """
    if form is None:
        form = next(iter(_in_order(description.files)))
    if form not in description.files:
        raise ExportError(
            f"{folder}: has no {form}; allowed: {', '.join(description.files)}; `edpipe export` adds formats"
        )
    path = folder / FILES[form]
    if not path.is_file() or digest_file(path) != description.files[form].digest:
        state = "is not the file that was written" if path.is_file() else "is missing"
        raise CorruptFileError(f"{path}: {state}; export the student again")
    return form, path
