"""`edpipe predict MODEL IMAGE…`: the most probable classes of images."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edpipe.errors import DataError, UsageError, printable

if TYPE_CHECKING:  # torch takes seconds, which a wrong word must not cost
    from edpipe.export.predictions import Prediction

BATCH = 256
"""Images that go through a network together, as in the pipeline's evaluation."""
MOST = 1_000_000
MODEL_HELP = "results/<experiment>.json, the name of an experiment, or a folder of `edpipe export`"


def add_predict(command: ArgumentParser) -> None:
    """The command's words."""
    add_model(command)
    command.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders with all below them, or - (stdin)")
    command.add_argument("--top", type=_count, default=1, metavar="K", help="classes for each image; default: 1")
    command.add_argument(
        "--batch-size", type=_count, default=BATCH, metavar="N", help="images at a time; default: %(default)s"
    )
    command.add_argument("--json", action="store_true", dest="is_json", help="print a JSON object for each image")
    command.set_defaults(run=predict)


def add_model(command: ArgumentParser) -> None:
    """The words that name a model."""
    command.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    command.add_argument("--seed", type=int, help="of a result; default: its first")
    command.add_argument(
        "--format",
        choices=("safetensors", "torch", "onnx", "int8"),
        dest="form",
        help="of an exported folder; default: the first of these that it holds",
    )


def predict(
    model: str,
    images: Sequence[str],
    seed: int | None = None,
    form: str | None = None,
    top: int = 1,
    batch_size: int = BATCH,
    is_json: bool = False,
) -> None:
    """Prints the classes of each image that can be read; how fast it went goes to standard error.

    Raises:
        UsageError: standard input is named twice, or there is no such model.
        DataError: a folder holds no image; or at the end, with a line for each image that could not be read.
        EdpipeError: as `open_predictor` says.
    """
    if images.count("-") > 1:
        raise UsageError("predict: - (standard input) is named twice; name it once")
    check_model(model, seed)
    from edpipe.export.images import image_names
    from edpipe.export.open_model import open_predictor
    from edpipe.export.predictions import predictions

    names = image_names(images)
    predictor = open_predictor(model, seed, form)  # type: ignore[arg-type]
    found = []
    for one in predictions(predictor, names, batch_size, top):
        found.append(one)
        if is_json:
            print(_as_json(one), flush=True)
    rows = [one for one in found if not one.problem]
    if rows and not is_json:
        _print_table(rows)
    problems = [f"{one.image}: {one.problem}; the other images were predicted" for one in found if one.problem]
    if problems:
        raise DataError(*problems)


def check_model(model: str, seed: int | None) -> None:
    """That there is such a model, before torch is imported.

    Raises:
        EdpipeError: as `find_student` and `read_description` say.
    """
    from edpipe.export.description import read_description
    from edpipe.export.finished import find_student, is_folder_meant

    if is_folder_meant(model):
        read_description(Path(model))
    else:
        find_student(model, seed)


def _as_json(one: "Prediction") -> str:
    if one.problem:
        return json.dumps({"image": one.image, "error": one.problem}, ensure_ascii=False)
    found = [{"class": name, "probability": share} for name, share in one.classes]
    return json.dumps({"image": one.image, "predictions": found}, ensure_ascii=False)


def _print_table(rows: "Sequence[Prediction]") -> None:
    """A line for each class of each image; the image is named beside its first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for row in rows:
        for rank, (name, share) in enumerate(row.classes):
            table.add_row(Text(row.image if rank == 0 else ""), Text(printable(name)), f"{share * 100:.2f} %")
    console = Console(highlight=False)
    if not console.is_terminal:  # a pipe has no width at which to cut names
        console = Console(
            highlight=False, width=console.measure(table, options=console.options.update(width=10_000)).maximum
        )
    console.print(table)


def _count(text: str) -> int:
    """A whole number from 1 to 1,000,000, for argparse."""
    number = int(text)
    if not 1 <= number <= MOST:
        raise ValueError
    return number


_count.__name__ = f"whole number from 1 to {MOST:,}"  # what argparse calls it in its error
