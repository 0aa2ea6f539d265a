"""`edpipe new --teacher`: a network to train, or weights that others trained, and what becomes of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edpipe.errors import NetworkError, ParamsError, TeacherError
from edpipe.storage.digests import sha256_file

Mode = Literal["scratch", "probe", "finetune", "unchanged"]
MODES: tuple[Mode, ...] = get_args(Mode)
PROBED_IMAGES = 1_000
"""With fewer training images the last layer alone is trained."""
TEACHER_SIDE, FULL_SIDE = 128, 224
"""Pixels that networks trained on photographs get of smaller images; the second where the first does not fit."""
FILE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".tar"})


@dataclass(frozen=True)
class FetchedTeacher:
    """Weights that are fetched, and how they are fitted."""

    model: str
    source: Literal["timm", "file"]
    mode: Literal["probe", "finetune", "unchanged"]
    reason: str
    """Why this mode, for people."""
    location: str | None = None
    sha256: str | None = None
    image_size: int | None = None
    """Side of its input, pixels; None: that of the dataset."""


def is_file(teacher: str) -> bool:
    """Whether `--teacher` names a file of weights, not a model."""
    return Path(teacher).suffix.lower() in FILE_SUFFIXES or Path(teacher).expanduser().is_file()


def fetched_teacher(teacher: str | None, model: str | None, mode: Mode | None, num_train: int) -> FetchedTeacher | None:
    """What is fetched; None where the teacher is trained here from scratch.

    Args:
        teacher: as given: a model, `timm:NAME`, or a file.
        model: `--teacher-model`, the network of a file.
        mode: `--teacher-mode`; None: by the number of images.
        num_train: training images.

    Raises:
        ParamsError: options that do not go together.
        NetworkError: an unknown model.
        TeacherError: a file that cannot be read, or a network without weights.
    """
    if teacher is not None and teacher.startswith(("http://", "https://")):
        raise ParamsError(f"--teacher {teacher}: download the file and name it here; its sha256 is then written too")
    if teacher is not None and is_file(teacher):
        return _of_file(teacher, model, mode, num_train)
    if model is not None:
        raise ParamsError(f"--teacher-model {model}: belongs to a file of weights; got --teacher {teacher}")
    if teacher is not None and teacher.startswith("timm:") and mode != "scratch":
        return _of_timm(teacher, mode, num_train)
    if mode not in (None, "scratch"):
        raise ParamsError(
            f"--teacher-mode {mode}: needs weights; give --teacher timm:NAME or a file, such as timm:resnet18"
        )
    return None


def _of_file(location: str, model: str | None, mode: Mode | None, num_train: int) -> FetchedTeacher:
    if model is None:
        raise ParamsError(
            f"--teacher {location}: a file does not say which network its weights are of; give --teacher-model, such "
            f"as resnet56 or timm:resnet18; `edpipe zoo` lists them"
        )
    if mode == "scratch":
        raise ParamsError("--teacher-mode scratch: takes no weights; give --teacher a model instead of a file")
    path = Path(location).expanduser()
    if not path.is_file():
        raise TeacherError(f"{location}: there is no such file; put the teacher's weights there or correct --teacher")
    chosen, reason = _mode(mode, num_train)
    return FetchedTeacher(model, "file", chosen, reason, str(path), sha256_file(path), _side_for(model))


def _of_timm(model: str, mode: Mode | None, num_train: int) -> FetchedTeacher:
    import timm

    from edpipe.models.zoo.names import check_model_name

    check_model_name(model)
    if not timm.is_model_pretrained(model.partition(":")[2]):
        raise TeacherError(
            f"--teacher {model}: timm has no pretrained weights for it; choose another, or --teacher-mode scratch"
        )
    chosen, reason = _mode(mode, num_train)
    if chosen == "unchanged":
        raise ParamsError(
            f"--teacher-mode unchanged: the classes of {model} are not those of your folders; use probe or finetune, "
            f"or write network.class_names into params.yaml (docs/teachers.md)"
        )
    return FetchedTeacher(model, "timm", chosen, reason, image_size=_side_for(model))


def _mode(mode: Mode | None, num_train: int) -> tuple[Literal["probe", "finetune", "unchanged"], str]:
    if mode is not None and mode != "scratch":
        return mode, "as --teacher-mode says"
    if num_train < PROBED_IMAGES:
        return "probe", f"{num_train:,} training images are fewer than {PROBED_IMAGES:,}"
    return "finetune", f"{num_train:,} training images are {PROBED_IMAGES:,} or more"


def _side_for(model: str) -> int | None:
    """Networks for photographs get larger images than students from scratch need."""
    if ":" not in model:
        return None
    from edpipe.models.probe import count_outputs
    from edpipe.models.zoo.build import build_network

    network = build_network(model, 2, 3, seed=0)
    try:
        count_outputs(network, 3, TEACHER_SIDE)
    except NetworkError:  # of one fixed size
        return FULL_SIDE
    return TEACHER_SIDE
