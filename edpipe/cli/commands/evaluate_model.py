"""`edpipe evaluate_model MODEL --dataset NAME`: measures of a student or an exported folder on packed images."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edpipe.cli.commands.predict import add_model, check_model
from edpipe.errors import MissingFileError, nearest
from edpipe.pipeline.jobs import paths

if TYPE_CHECKING:  # torch takes seconds, which a wrong word must not cost
    from edpipe.export.comparison import Measures


def add_evaluate_model(command: ArgumentParser) -> None:
    """The command's words."""
    add_model(command)
    command.add_argument("--dataset", required=True, metavar="NAME", help="a packed data set, or the path of its file")
    command.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: %(default)s")
    command.add_argument("--json", action="store_true", dest="is_json", help="print the numbers as JSON")
    command.set_defaults(run=evaluate_model)


def evaluate_model(
    model: str, dataset: str, split: str, seed: int | None = None, form: str | None = None, is_json: bool = False
) -> None:
    """Prints top1, top5, negative log-likelihood and calibration error.

    Raises:
        UsageError: there is no such model.
        CorruptFileError: the packed images are missing or damaged.
        MismatchError: they have other classes, another size or another number of channels than the model takes.
        EdpipeError: as `open_predictor` says.
    """
    check_model(model, seed)
    path = _dataset_path(dataset)
    from edpipe.datasets.dataset_file import open_dataset
    from edpipe.export.comparison import measure
    from edpipe.export.open_model import open_predictor

    packed = open_dataset(path)
    measures = measure(open_predictor(model, seed, form), packed, split)  # type: ignore[arg-type]
    if is_json:
        facts = {"model": model, "dataset": packed.name, "split": split, **asdict(measures)}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print("\n".join(_lines(measures, packed.name, split)))


def _dataset_path(word: str) -> Path:
    path = Path(word)
    if path.is_file():
        return path
    found = paths.dataset_path(word)
    if not found.is_file():
        packed = [known.stem for known in found.parent.glob("*.h5")]
        raise MissingFileError(
            f"{found}: no such packed data set; make it with `snakemake {found}`{nearest(word, packed)}"
        )
    return found


def _lines(measures: "Measures", dataset: str, split: str) -> list[str]:
    return [
        f"{dataset}, {split}: {measures.images:,} images",
        f"top1  {measures.top1 * 100:.2f} %",
        f"top5  {measures.top5 * 100:.2f} %",
        f"NLL   {measures.nll:.4f} nats",
        f"ECE   {measures.ece * 100:.2f} %",
    ]
