"""`edpipe zoo [PATTERN]`: networks that can be teachers or students, what they cost, and where they can be split."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edpipe.errors import NetworkError, printable
from edpipe.models.zoo.names import LIBRARIES, PAPERS_MODELS, check_model_name, known_names

if TYPE_CHECKING:  # torch takes seconds, which a wrong word must not cost
    from edpipe.cli.network_description import Description


OWN = "own"
MOST = 100_000
"""Pixels of a side, channels, or classes."""
COLUMNS = ("model", "parameters", "MACs", "feature stages: channels × side²")
WILDCARDS = frozenset("*?[")


def add_zoo(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("pattern", nargs="?", metavar="PATTERN", help="a name, or several by * and ?, as 'vgg*'")
    command.add_argument(
        "--library", choices=(OWN, *LIBRARIES), default=OWN, help="where to look; default: %(default)s"
    )
    command.add_argument("--image-size", type=_count, default=32, help="side in pixels; default: %(default)s")
    command.add_argument("--channels", type=_count, default=3, help="of the images; default: %(default)s")
    command.add_argument("--classes", type=_count, default=100, help="outputs; default: %(default)s")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", dest="is_json", help="print all numbers as JSON")
    form.add_argument(
        "--markdown", action="store_true", dest="is_markdown", help="print the table for docs/networks.md"
    )
    command.set_defaults(run=zoo)


def zoo(
    pattern: str | None,
    library: str,
    image_size: int,
    channels: int,
    classes: int,
    is_json: bool,
    is_markdown: bool,
) -> None:
    """Prints a row for each network of the library whose name fits.

    Raises:
        NetworkError: no name fits, a library other than the own zoo is asked for as a whole, or a network cannot be
            built.
    """
    models = models_of(pattern, library)
    import torch

    from edpipe.cli.network_description import describe

    torch.set_num_threads(1)  # one image is too small to share
    found = [describe(model, classes, channels, image_size) for model in models]
    if is_json:
        print(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    elif is_markdown:
        print("\n".join(markdown_lines(found)))
    else:
        console = Console(highlight=False)
        console.print(table_of(found))
        for one in found:
            if one.problem:
                console.print(Text(printable(f"{one.model}: {one.problem}")), soft_wrap=True)


def models_of(pattern: str | None, library: str) -> tuple[str, ...]:
    """Names of the library's networks that fit the pattern, as in params.yaml; imports that library alone.

    Raises:
        NetworkError: none fits, or there is no pattern for a library other than the own zoo.
    """
    prefix = "" if library == OWN else f"{library}:"
    if pattern is None:
        if prefix:
            raise NetworkError(
                f"zoo: {library} has hundreds of networks, and each that is listed is built; give a pattern, "
                f"for example `edpipe zoo 'resnet1*' --library {library}`"
            )
        return PAPERS_MODELS
    wanted = prefix + pattern.removeprefix(prefix)
    if not WILDCARDS & set(wanted):
        check_model_name(wanted)
        return (wanted,)
    known = known_names(library if prefix else None)
    found = tuple(model for model in known if fnmatchcase(model, wanted))
    if not found:
        raise NetworkError(
            f"zoo: no network of {library} fits {pattern!r}; there are {len(known)}, for example {known[0]!r}; "
            f"--library is one of {', '.join((OWN, *LIBRARIES))}"
        )
    return found


def table_of(found: "Sequence[Description]") -> Table:
    """A row for each network."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("parameters", "MACs") else "left", overflow="fold")
    for one in found:
        table.add_row(*map(Text, _cells(one)))
    return table


def markdown_lines(found: "Sequence[Description]") -> Iterator[str]:
    """The same table for a page."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---|---:|---:|---|"
    for one in found:
        yield f"| {' | '.join(_cells(one))} |"


def _cells(one: "Description") -> tuple[str, str, str, str]:
    macs = "–" if one.macs is None else f"{one.macs / 1e6:,.1f} M"
    return one.model, f"{one.parameters:,}", macs, _format_stages(one.stages) or "–"


def _format_stages(stages: Sequence[tuple[int, int, int]]) -> str:
    """Maps of each stage; those of another shape than square are told in full.

    >>> _format_stages([(16, 32, 32), (32, 16, 15)])
    '16×32², 32×16×15'
    """
    return ", ".join(f"{c}×{h}²" if h == w else f"{c}×{h}×{w}" for c, h, w in stages)


def _count(text: str) -> int:
    """A whole number from 1 to 100,000, for argparse; a network for more would not fit into memory."""
    number = int(text)
    if not 1 <= number <= MOST:
        raise ValueError
    return number


_count.__name__ = f"whole number from 1 to {MOST:,}"  # what argparse calls it in its error
