"""`edpipe partition show`: which classes and how many images each subset has, and what they look like."""

import json
from argparse import ArgumentParser
from html import escape
from pathlib import Path
from typing import Any

from edpipe.datasets.dataset_file import SPLITS, open_dataset
from edpipe.datasets.partition_file import read_contents, read_partition
from edpipe.errors import CorruptFileError, ParamsError, printable
from edpipe.params.load import load_params
from edpipe.params.schema import entry
from edpipe.pipeline.jobs import paths
from edpipe.results.page.sample_sheet import Strip, sheet_png, strips
from edpipe.storage.atomic import write_atomically

NAMES_SHOWN = 8
"""Class names on a line; the JSON has all."""
PICTURE_SUFFIXES = (".html", ".png")


def add_partition(command: ArgumentParser) -> None:
    """The command's words."""
    acts = command.add_subparsers(metavar="ACT", required=True)
    show = acts.add_parser("show", help="print classes and numbers of images")
    show.add_argument("dataset", help="name in params.yaml")
    show.add_argument("partition", help="name in params.yaml")
    show.add_argument("--json", action="store_true", dest="as_json", help="print all of it as JSON")
    show.add_argument("--pictures", type=Path, metavar="FILE", help="write sample images there, as .html or .png")
    show.set_defaults(run=show_partition)


def show_partition(dataset: str, partition: str, as_json: bool, pictures: Path | None) -> None:
    """Prints the partition, and writes sample images of each subset if asked.

    Raises:
        ParamsError: a name that params.yaml does not have, or another kind of pictures.
        CorruptFileError: the partition is not made yet, or not sound; with pictures, also the dataset.
    """
    params = load_params()
    entry(params, "datasets", dataset)
    entry(params, "partitions", partition)
    if pictures is not None and pictures.suffix not in PICTURE_SUFFIXES:
        raise ParamsError(f"--pictures {pictures}: must end in {' or '.join(PICTURE_SUFFIXES)}")
    path = paths.partition_path(dataset, partition)
    if not path.exists():
        raise CorruptFileError(f"{path}: is not made yet; make it with `snakemake --cores 2 {path}`")
    subsets = read_contents(path)["subsets"]
    if pictures is not None:
        _write_pictures(f"{dataset} / {partition}", path, dataset, subsets, pictures)
    if as_json:
        print(
            json.dumps({"dataset": dataset, "partition": partition, "subsets": subsets}, indent=1, ensure_ascii=False)
        )
    else:
        for line in lines_of(f"{dataset} / {partition}", subsets):
            print(line)


def lines_of(title: str, subsets: list[dict[str, Any]]) -> list[str]:
    """A table for people: a line for each subset, and their sum."""
    rows: list[tuple[str, ...]] = [("subset", "classes", *SPLITS, "")]
    for subset in subsets:
        names = subset["class_names"]
        more = f" … {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        counts = (f"{subset['samples'][split]:,}" for split in SPLITS)
        rows.append((subset["name"], f"{len(names):,}", *counts, ", ".join(map(printable, names[:NAMES_SHOWN])) + more))
    sums = (f"{sum(subset['samples'][split] for subset in subsets):,}" for split in SPLITS)
    rows.append(("all", f"{sum(len(subset['class_names']) for subset in subsets):,}", *sums, ""))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [title] + [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 5)), row[5]]).rstrip()
        for row in rows
    ]


def _write_pictures(title: str, path: Path, name: str, subsets: list[dict[str, Any]], out_path: Path) -> None:
    dataset = open_dataset(paths.dataset_path(name))
    found = strips(dataset, read_partition(path, dataset))
    data = sheet_png(found) if out_path.suffix == ".png" else page(title, subsets, found).encode()
    with write_atomically(out_path) as partial:
        partial.write_bytes(data)


def page(title: str, subsets: list[dict[str, Any]], found: tuple[Strip, ...]) -> str:
    """One HTML file that needs nothing else and runs nothing."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n'
        f"<title>{escape(title)}</title>\n<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; "
        "margin: 2rem auto; padding: 0 1rem; } img { max-width: 100%; }</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n"
    ]
    for subset, strip in zip(subsets, found, strict=True):
        counts = ", ".join(f"{subset['samples'][split]:,} {split}" for split in SPLITS)
        names, shown = ", ".join(subset["class_names"]), ", ".join(strip.class_names)
        parts.append(
            f"<h2>{escape(subset['name'])}</h2>\n"
            f"<p>{len(subset['class_names']):,} classes ({counts}): {escape(names)}</p>\n"
            f'<img src="{strip.data_uri}" alt="Images of {escape(shown)}">\n'
        )
    return "".join([*parts, "</body>\n</html>\n"])
