"""Where the weights of a student's teachers came from, and under which licence, as far as it is known here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpipe.errors import EdpipeError
from edpipe.pipeline.jobs import paths
from edpipe.results.result_file import Result, SoftLabelUse
from edpipe.storage.records import read_record, record_path

UNKNOWN = "not known here"


@dataclass(frozen=True)
class TeacherOrigin:
    """One teacher, for people.

    Attributes:
        name: As teacher/subset.
        model: Of its network.
        origin: What its weights were before it was fitted here.
        licence: Of these weights.
        top1: On the test images of its own classes, 0 to 1; None: not measured.
    """

    name: str
    model: str
    origin: str
    licence: str
    top1: float | None


def teacher_origins(root: Path, result: Result, seed: int) -> list[TeacherOrigin]:
    """Every teacher whose soft labels the student of a seed learnt from, once, in order."""
    outcome = next(found for found in result.seeds if found.seed == seed)
    uses = {f"{use.teacher}/{use.subset}": use for stage in outcome.stages for use in stage.soft_labels}
    return [_origin(root, result, name, use) for name, use in uses.items()]


def _origin(root: Path, result: Result, name: str, use: SoftLabelUse) -> TeacherOrigin:
    measured = result.teachers.get(name)
    top1 = None if measured is None else measured.top1
    knobs = _network_knobs(root, result.data.dataset, use)
    if knobs is None:
        return TeacherOrigin(name, UNKNOWN, "its record is not here, or is of another teacher by now", UNKNOWN, top1)
    return TeacherOrigin(name, str(knobs["model"]), _origin_text(knobs), licence_of(knobs), top1)


def _network_knobs(root: Path, dataset: str, use: SoftLabelUse) -> dict[str, Any] | None:
    path = record_path(root / paths.teacher_path(dataset, use.teacher, use.subset))
    try:
        record = read_record(path, "weights_digest", "knobs")
    except EdpipeError:
        return None
    # Recorded beside the student (ctkd), its weights have no file of their own.
    return record["knobs"]["network"] if record["weights_digest"] == use.teacher_digest else None


def _origin_text(knobs: dict[str, Any]) -> str:
    source = knobs["source"]
    texts = {
        "train": "trained from scratch on the same images",
        "student": f"the student of experiment {knobs.get('experiment')}",
        "timm": "pretrained weights of timm",
        "torchvision": f"pretrained weights of torchvision ({knobs.get('location') or 'DEFAULT'})",
    }
    return texts.get(source, f"weights from {knobs.get('location')}, sha256 {knobs.get('sha256')}")


def licence_of(knobs: dict[str, Any]) -> str:
    """Licence of a teacher's first weights.

    Args:
        knobs: `network` of its record.
    """
    source, model = knobs["source"], str(knobs["model"]).partition(":")[2]
    if source == "train":
        return "no weights from elsewhere"
    if source == "timm":
        return _timm_licence(model)
    if source == "torchvision":
        return _torchvision_licence(model, str(knobs.get("location") or "DEFAULT"))
    return "as that student's" if source == "student" else UNKNOWN


def _timm_licence(name: str) -> str:
    import timm

    config = timm.get_pretrained_cfg(name)
    return getattr(config, "license", None) or f"{UNKNOWN}; see the model's page on the hub"


def _torchvision_licence(name: str, location: str) -> str:
    from torchvision import models

    weights = models.get_model_weights(name).__members__.get(location)
    known = None if weights is None else weights.meta.get("license")
    return str(known or f"{UNKNOWN}; torchvision names none for these weights")
