"""`edpipe export EXPERIMENT`: a finished student leaves the project as a folder that others can use."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from edpipe.errors import UsageError

FORMATS = ("safetensors", "onnx", "torch")


def add_export(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("experiment", help="name of an experiment, or results/<experiment>.json")
    command.add_argument("--seed", type=int, help="which student; default: the first of the experiment's seeds")
    command.add_argument(
        "--format",
        choices=FORMATS,
        action="append",
        dest="formats",
        help="may be given several times; torch: a graph that torch.export.load reads; default: safetensors",
    )
    command.add_argument("--int8", action="store_true", help="also ONNX with 8-bit integers")
    command.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write; default: exports/<experiment>_seed<N>"
    )
    command.set_defaults(run=export)


def export(experiment: str, seed: int | None, formats: Sequence[str] | None, int8: bool, out: Path | None) -> None:
    """Writes the folder, and says where it is and what it holds.

    Raises:
        UsageError: --int8 with formats of which none is onnx.
        EdpipeError: as `find_student` and `export_student` say.
    """
    wanted = _formats(formats, int8)
    from edpipe.export.finished import find_student

    student = find_student(experiment, seed)  # before torch is imported, so that a wrong word costs no waiting
    from edpipe.export.folder import export_student

    folder = export_student(student, wanted, out)  # type: ignore[arg-type]
    print("\n".join(_lines(folder)))


def _formats(formats: Sequence[str] | None, int8: bool) -> list[str]:
    """Formats in which to write.

    >>> _formats(None, False), _formats(None, True), _formats(["onnx", "torch"], True)
    (['safetensors'], ['onnx', 'int8'], ['onnx', 'torch', 'int8'])
    """
    if int8 and formats is not None and "onnx" not in formats:
        raise UsageError(f"--int8: is made from onnx, but --format is {', '.join(formats)}; add --format onnx")
    return [*(formats or (["onnx"] if int8 else ["safetensors"])), *(["int8"] if int8 else [])]


def _lines(folder: Path) -> list[str]:
    from edpipe.export.description import FILES, read_description

    description = read_description(folder)
    lines = [f"{folder}: {description.experiment} seed {description.seed}, {len(description.classes)} classes"]
    for form, file in description.files.items():
        facts = [f"{(folder / FILES[form]).stat().st_size:,} bytes"]
        if file.max_difference is not None:
            facts.append(
                f"largest difference of a logit {file.max_difference:.1e} on {file.checked_images} test images"
            )
        if file.test_top1 is not None:
            facts.append(f"test top1 {file.test_top1 * 100:.2f} %")
        lines.append(f"  {FILES[form]}: {', '.join(facts)}")
    return [*lines, f"  README.md is its model card; `edpipe predict {folder} IMAGE` uses it"]
