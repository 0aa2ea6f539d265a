"""A model by what a person calls it: an exported folder, a result, or an experiment."""

from pathlib import Path

from torch import nn

from edpipe.errors import ExportError, UsageError
from edpipe.export.description import Format, ModelDescription, read_description
from edpipe.export.finished import find_student, is_folder_meant, load_plugins
from edpipe.export.folder import file_of
from edpipe.export.network import (
    LoadedStudent,
    Predictor,
    TorchPredictor,
    network_with,
    read_program,
    read_safetensors,
)
from edpipe.export.onnx_file import OnnxPredictor
from edpipe.storage.weights import read_weights


def open_predictor(word: str, seed: int | None = None, form: Format | None = None) -> Predictor:
    """What predicts with a model.

    Args:
        word: an exported folder, results/<experiment>.json, or an experiment.
        seed: of a result alone; None: its first.
        form: of an exported folder alone; None: the first of safetensors, torch, onnx, int8 that it holds.

    Raises:
        UsageError: there is no such model, or the options do not belong to it.
        EdpipeError: as `find_student` and `read_description` say.
    """
    if is_folder_meant(word):
        return _predictor_of_folder(Path(word), seed, form)
    if form is not None:
        raise UsageError(f"--format {form}: belongs to an exported folder; {word} is none")
    return TorchPredictor(*_finished(word, seed))


def _predictor_of_folder(folder: Path, seed: int | None, form: Format | None) -> Predictor:
    description = _description(folder, seed)
    form, path = file_of(folder, description, form)
    if form in ("onnx", "int8"):
        return OnnxPredictor(path, description)
    if form == "torch":
        return TorchPredictor(read_program(path).module(), description)
    return TorchPredictor(network_with(description, read_safetensors(path), path), description)


def _description(folder: Path, seed: int | None) -> ModelDescription:
    load_plugins(Path())
    description = read_description(folder)
    if seed not in (None, description.seed):
        raise UsageError(f"--seed {seed}: {folder} holds the student of seed {description.seed}; leave --seed out")
    return description


def _finished(word: str, seed: int | None) -> tuple[nn.Module, ModelDescription]:
    student = find_student(word, seed)
    weights, _ = read_weights(student.path)
    return network_with(student.description, weights, student.path), student.description


def load(word: str, seed: int | None = None) -> LoadedStudent:
    """The student as a module on the CPU, in evaluation mode.

    Args:
        word: results/<experiment>.json, an experiment of this folder, or an exported folder.
        seed: one of the result's; None: its first.

    Raises:
        UsageError: there is no such model or seed.
        ExportError: a folder without safetensors or torch.
        EdpipeError: a file is missing or damaged, or two do not belong together.
    """
    if not is_folder_meant(word):
        return LoadedStudent(*_finished(word, seed)).eval()
    description = _description(Path(word), seed)
    if not {"safetensors", "torch"} & description.files.keys():
        raise ExportError(
            f"{word}: holds {' and '.join(description.files)} alone; add weights with `edpipe export "
            f"{description.experiment} --seed {description.seed} --out {word}`"
        )
    form, path = file_of(Path(word), description, "safetensors" if "safetensors" in description.files else "torch")
    weights = read_safetensors(path) if form == "safetensors" else read_program(path).state_dict
    return LoadedStudent(network_with(description, weights, path), description).eval()
