"""The model card of an exported folder: README.md, for people and for the hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from edpipe import __version__
from edpipe.errors import printable
from edpipe.export.description import FILES, ExportedFile, Format, ModelDescription
from edpipe.export.finished import FinishedStudent
from edpipe.export.teachers import teacher_origins
from edpipe.models.zoo.names import split_name
from edpipe.results.measures.metrics import Spread
from edpipe.results.page.units import macs
from edpipe.results.page.words import method_text

TEMPLATE = Path(__file__).with_name("card.md.jinja")
MOST_CLASSES = 20
"""Names that the card lists; config.json has all."""
NUM_HARDEST = 3
WHAT: dict[Format, str] = {
    "safetensors": "weights, by name",
    "torch": "weights and graph for `torch.export.load`, which needs no other code",
    "onnx": "ONNX in float32, any batch size",
    "int8": "ONNX with 8-bit weights and activations, any batch size",
}


def card(student: FinishedStudent, description: ModelDescription) -> str:
    """The card as Markdown; equal arguments give equal cards."""
    environment = jinja2.Environment(
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "spread": spread, "interval": interval, "cell": cell}
    library, name = split_name(description.model)
    result, own = student.result, student.outcome
    last = own.stages[-1]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        description=description,
        library="timm" if library == "timm" else "edpipe",
        timm_name=name.partition(".")[0] if library == "timm" else None,
        parameters=f"{last.parameters:,}",
        macs=macs(last.macs),
        classes=_class_text(description.classes),
        reader=student.dataset_record["knobs"]["dataset"]["reader"],
        counts=_counts_text(student.dataset_record),
        method=method_text(result.method, result.setup.stages),
        images_seen=f"{result.budget.images_seen:,}",
        stages="one stage" if len(own.stages) == 1 else f"{len(own.stages)} stages",
        teachers=teacher_origins(student.root, result, student.seed),
        test_samples=f"{own.metrics.test_samples:,}",
        seeds=[seed.seed for seed in result.seeds],
        own=own.metrics,
        summary=result.summary,
        is_first=student.seed == result.seeds[0].seed,
        hardest=_hardest(student),
        files=list(_file_rows(description)),
        onnx=description.files.get("onnx"),
        int8=description.files.get("int8"),
        int8_change=_int8_change(description),
        resizing=_resizing(description),
        version=__version__,
    )


def percent(share: float | None) -> str:
    """A share from 0 to 1.

    >>> percent(0.91234), percent(None)
    ('91.23 %', '–')
    """
    return "–" if share is None else f"{share * 100:.2f} %"


def spread(found: Spread) -> str:
    """Mean and standard deviation of shares."""
    return f"{found.mean * 100:.2f} %" if found.std is None else f"{found.mean * 100:.2f} ± {found.std * 100:.2f} %"


def interval(found: Spread) -> str:
    """The 95 % interval of a mean of shares."""
    if found.low is None or found.high is None:
        return "–"
    return f"{max(found.low, 0) * 100:.2f}–{min(found.high, 1) * 100:.2f} %"


def cell(text: str) -> str:
    """Text of a table's cell, on one line; names come from elsewhere."""
    return printable(text).replace("|", "\\|")


def _class_text(classes: tuple[str, ...]) -> str:
    shown = [cell(name) for name in classes[:MOST_CLASSES]]
    more = len(classes) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more (label_names in config.json)" if more else "")


def _counts_text(record: dict[str, Any]) -> str:
    """Images of each split.

    >>> _counts_text({"counts": {"test": {"a": 1, "b": 2}, "train": {"a": 4, "b": 0}}})
    '4 train, 3 test'
    """
    counts = record.get("counts", {})
    return ", ".join(f"{sum(counts[name].values()):,} {name}" for name in ("train", "val", "test") if name in counts)


def _hardest(student: FinishedStudent) -> str:
    top1 = student.outcome.metrics.top1_by_class
    names = student.result.data.class_names
    measured = sorted((share, name) for share, name in zip(top1, names, strict=True) if share is not None)
    return ", ".join(f"{cell(name)} ({percent(share)})" for share, name in measured[:NUM_HARDEST])


def _file_rows(description: ModelDescription) -> Iterator[tuple[str, str, str, str]]:
    for form, file in description.files.items():
        yield form, FILES[form], WHAT[form], _check_text(form, file, description.precision)


def _check_text(form: Format, file: ExportedFile, precision: str) -> str:
    if form == "int8":
        return f"top1 on the test split {percent(file.test_top1)}"
    if form in ("safetensors", "torch"):
        return "the same weights"
    text = f"a logit differs by {file.max_difference:.1e} of the largest at most, on {file.checked_images} test images"
    return text + ("" if precision == "float32" else f"; both in float32, the student was evaluated in {precision}")


def _int8_change(description: ModelDescription) -> str:
    onnx, int8 = description.files.get("onnx"), description.files.get("int8")
    if onnx is None or int8 is None or onnx.test_top1 is None or int8.test_top1 is None:
        return "–"
    return f"{(int8.test_top1 - onnx.test_top1) * 100:+.2f}"


def _resizing(description: ModelDescription) -> str:
    wanted = description.preprocessing
    side = f"{wanted.image_size}×{wanted.image_size} pixels"
    if wanted.encoding == "raw":
        return f"its short side resized to {wanted.image_size} pixels (bicubic), the square in its centre"
    return (
        f"its short side resized to {wanted.stored_side or wanted.image_size} pixels (bicubic), stored as JPEG of "
        f"quality {wanted.jpeg_quality}, the largest square in its centre resized to {side} (bilinear)"
    )
