"""The commands that are no steps: they check, explain and compare, and write what is generated from params.yaml."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edpipe.cli.commands.plan import add_plan
from edpipe.cli.commands.verify import add_verify
from edpipe.cli.commands.zoo import add_zoo
from edpipe.params.load import load_params


def _add_new(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", help="of the dataset; the experiments are NAME_ed, NAME_kd and NAME_ce")
    command.add_argument("--root", required=True, help="folder of class folders, or of train and test that hold them")
    command.add_argument("--image-size", type=int, default=64, help="side of what a network sees, pixels; default: 64")
    command.add_argument("--channels", type=int, default=3, choices=(1, 3), help="1: grey, 3: colour; default: 3")
    command.add_argument("--teacher", help="model, such as timm:resnet34; default: by image size, resnet56 up to 64")
    command.add_argument("--student", help="model, such as resnet20; default: by image size, resnet20 up to 64")
    command.add_argument(
        "--pretrained", action="store_true", help="begin the teachers with timm's weights, fetched once; else from none"
    )
    command.add_argument("--epochs", type=int, help="passes over the images; default: fewer over more images")
    command.set_defaults(run=_new)


def _new(**words: Any) -> None:
    from edpipe.cli.commands.new import new

    new(**words)


def _check() -> None:
    """Everything in params.yaml, model names included."""
    from edpipe.pipeline.jobs.model_checks import check_params

    params = load_params()
    check_params(params)
    print(f"params.yaml: {len(params.experiments)} experiments, nothing wrong found")


def _add_check(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_check)


def _add_schema(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_schema)


def _schema() -> None:
    """The JSON schema of params.yaml, for editors."""
    from edpipe.params.schema import json_schema

    print(json_schema(), end="")


def _add_knobs(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_knobs)


def _knobs() -> None:
    """Every knob, in Markdown; docs/params.md holds it."""
    from edpipe.params.reference_page import reference_page

    print(reference_page(), end="")


def _add_compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("results", nargs="+", type=Path, help="results/<experiment>.json of one dataset, two or more")
    command.add_argument(
        "--base", metavar="NAME", help="experiment that the others are held against; default: the only ce, or the first"
    )
    command.add_argument(
        "--unequal-budgets", action="store_true", help="compare even if the numbers of training images differ"
    )
    command.add_argument("--per-class", action="store_true", help="also print how top1 on each class changes")
    command.add_argument("--json", type=Path, metavar="FILE", dest="json_path", help="write all numbers there as well")
    command.set_defaults(run=_compare)


def _compare(**words: Any) -> None:
    from edpipe.cli.commands.compare import compare

    compare(**words)


def _add_partition(command: argparse.ArgumentParser) -> None:
    acts = command.add_subparsers(metavar="ACT", required=True)
    show = acts.add_parser("show", help="print classes and numbers of images")
    show.add_argument("dataset", help="name in params.yaml")
    show.add_argument("partition", help="name in params.yaml")
    show.add_argument("--json", action="store_true", dest="as_json", help="print all of it as JSON")
    show.add_argument("--pictures", type=Path, metavar="FILE", help="write sample images there, as .html or .png")
    show.set_defaults(run=_show_partition)


def _show_partition(**words: Any) -> None:
    from edpipe.cli.commands.partition import show_partition

    show_partition(**words)


def _add_tracked_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--check", action="store_true", help="only say whether the file fits params.yaml")
    command.set_defaults(run=_tracked_jobs)


def _tracked_jobs(check: bool) -> None:
    from edpipe.pipeline.dvc.lists import check_tracked_jobs, write_tracked_jobs
    from edpipe.pipeline.jobs.model_checks import check_params

    params = load_params()
    check_params(params)
    if check:
        check_tracked_jobs(params)
    else:
        write_tracked_jobs(params)


def _add_code(command: argparse.ArgumentParser) -> None:
    command.add_argument("--check", action="store_true", help="only say whether the file fits the source files")
    command.set_defaults(run=_code)


def _code(check: bool) -> None:
    from edpipe.pipeline.dvc.code_file import check_code, write_code

    load_params()  # this is the project folder
    if check:
        check_code()
    else:
        write_code()


def _add_dvc_record(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_dvc_record)


def _dvc_record() -> None:
    from edpipe.pipeline.dvc.record import record_made

    record_made()


TOOLS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "new": (_add_new, "add entries for a folder of your own images to params.yaml"),
    "check": (_add_check, "check params.yaml"),
    "schema": (_add_schema, "print the JSON schema of params.yaml"),
    "knobs": (_add_knobs, "print every knob of params.yaml, for docs/params.md"),
    "partition": (_add_partition, "show the classes and images of each subset"),
    "plan": (add_plan, "say what snakemake would make, and why; or what storing soft labels costs"),
    "verify": (add_verify, "say whether what was made fits params.yaml, the code and the teachers"),
    "compare": (_add_compare, "print a table of results, and each against a base, seed by seed"),
    "zoo": (add_zoo, "list networks: parameters, MACs, and the maps of the stages that a student grows by"),
    "tracked_jobs": (_add_tracked_jobs, "write the lists that dvc.yaml runs over"),
    "code": (_add_code, "write the digest of each step's code, which dvc.yaml takes as a parameter"),
    "dvc-record": (_add_dvc_record, "hand artifacts made without DVC over to DVC"),
}
