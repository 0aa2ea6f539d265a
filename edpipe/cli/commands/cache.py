"""`edpipe cache`: what is stored, who uses it, what it saved, and what may be deleted."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.filesize import decimal as size
from rich.table import Table
from rich.text import Text

from edpipe.errors import UsageError, printable
from edpipe.params.load import load_params
from edpipe.pipeline.cache.deletion import Deleted, delete, refuse_while_at_work
from edpipe.pipeline.cache.inventory import Entry, inventory
from edpipe.pipeline.cache.savings import Group, groups_of
from edpipe.results.measures.cost import duration

LINE_LENGTH = 200
NAMED = 3
"""Users that are named in a row; more are counted."""


def add_cache(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("--delete", action="store_true", help="delete what may be deleted, after a question")
    command.add_argument("--yes", action="store_true", help="with --delete: without the question")
    command.add_argument("--json", action="store_true", dest="is_json", help="print all of it as JSON")
    command.set_defaults(run=cache)


def cache(delete: bool, yes: bool, is_json: bool) -> None:
    """Prints a row for each kind and name, then what may be deleted.

    Raises:
        ParamsError: params.yaml is wrong.
        UsageError: words that do not go together, or a question that nobody can answer.
        BusyError: something is to be deleted while Snakemake or DVC is at work here.
        OverwriteError: something cannot be deleted.
    """
    _check_words(delete, yes, is_json)
    params = load_params()
    if delete:
        refuse_while_at_work()
    entries = inventory(params)
    groups, spare = groups_of(entries, params), [entry for entry in entries if entry.reason]
    if not is_json:
        _print(entries, groups, spare)
    deleted = _delete(spare, yes) if delete else None
    if is_json:
        print(json.dumps(_as_json(entries, groups, deleted), indent=1, ensure_ascii=False))


def _check_words(delete: bool, yes: bool, is_json: bool) -> None:
    if yes and not delete:
        raise UsageError("cache: --yes answers the question of --delete; give both, or none")
    if delete and not yes and (is_json or not sys.stdin.isatty()):
        raise UsageError(
            "cache: --delete asks first, and nobody can answer here; look at `edpipe cache`, then add --yes"
        )


def _delete(spare: Sequence[Entry], yes: bool) -> Deleted:
    """Deletes what was listed, if that is wanted."""
    if not spare or not (yes or _is_wanted(spare)):
        return Deleted()
    # Perhaps minutes later: what began meanwhile, or became needed, counts.
    refuse_while_at_work()
    still = {entry.path for entry in inventory(load_params()) if entry.reason}
    done = delete([entry for entry in spare if entry.path in still])
    print(
        f"deleted {done.num_files:,} files; {size(done.freed_bytes)} ({done.freed_bytes:,} bytes) are free",
        file=sys.stderr,
    )
    return done


def _is_wanted(spare: Sequence[Entry]) -> bool:
    files = sum(entry.num_files for entry in spare)
    print(f"delete these {files:,} files? [y/N] ", end="", flush=True, file=sys.stderr)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print(entries: Sequence[Entry], groups: Sequence[Group], spare: Sequence[Entry]) -> None:
    # In a file or a pipe, lines are as long as they need to be.
    Console(highlight=False, width=None if sys.stdout.isatty() else LINE_LENGTH).print(table_of(groups))
    for line in [*_sum_lines(entries, groups), *spare_lines(spare)]:
        print(line)


def table_of(groups: Iterable[Group]) -> Table:
    """A row for each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("kind", "name", "files", "size", "took", "forwards spent", "saved", "used by"):
        is_number = column not in ("kind", "name", "used by")
        table.add_column(column, justify="right" if is_number else "left", no_wrap=column != "used by")
    for group in groups:
        table.add_row(*(Text(printable(cell)) for cell in _cells(group)))
    return table


def _cells(group: Group) -> tuple[str, ...]:
    took = "" if group.seconds is None else duration(group.seconds)
    forwards = ["" if count is None else f"{count:,}" for count in (group.forwards_spent, group.forwards_saved)]
    counts = f"{group.num_files:,}", size(group.num_bytes)
    return str(group.kind), group.label, *counts, took, *forwards, _users(group)


def _users(group: Group) -> str:
    names = group.used_by
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more or "–"


def _sum_lines(entries: Sequence[Entry], groups: Sequence[Group]) -> list[str]:
    files, num_bytes = sum(entry.num_files for entry in entries), sum(entry.num_bytes for entry in entries)
    lines = [f"{files:,} files, {size(num_bytes)} in artifacts and results"]
    saved_s = sum(group.saved_seconds or 0 for group in groups)
    forwards = sum(group.forwards_saved or 0 for group in groups)
    if saved_s or forwards:
        lines.append(f"saved: {forwards:,} teacher forwards; about {duration(saved_s)} of work that experiments share")
    return lines


def spare_lines(spare: Sequence[Entry]) -> list[str]:
    """What may be deleted: a line for each reason, with its files below."""
    if not spare:
        return ["nothing may be deleted"]
    files, freed = sum(entry.num_files for entry in spare), sum(entry.own_bytes for entry in spare)
    lines = [f"may be deleted: {files:,} files, which frees {size(freed)}"]
    for reason, some in groupby(sorted(spare, key=lambda entry: entry.reason), key=lambda entry: entry.reason):
        members = list(some)
        lines.append(f"  {reason}:")
        lines += [f"    {entry.path}  {size(entry.num_bytes)}" for entry in members]
    if freed < sum(entry.num_bytes for entry in spare):
        lines.append("  the rest of their bytes is held by a second name of the file, as in DVC's cache (`dvc gc`)")
    return lines


def _as_json(entries: Sequence[Entry], groups: Sequence[Group], deleted: Deleted | None) -> dict[str, Any]:
    return {
        "format": "edpipe-cache",
        "format_version": 1,
        "num_files": sum(entry.num_files for entry in entries),
        "num_bytes": sum(entry.num_bytes for entry in entries),
        "groups": [asdict(group) for group in groups],
        "may_be_deleted": [
            {
                "path": str(entry.path),
                "kind": entry.place.kind,
                "num_files": entry.num_files,
                "num_bytes": entry.num_bytes,
                "freed_bytes": entry.own_bytes,
                "reason": entry.reason,
            }
            for entry in entries
            if entry.reason
        ],
        "deleted": None if deleted is None else asdict(deleted),
    }
