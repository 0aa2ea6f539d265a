"""A parser of one command's arguments, which says in one line what is wrong with them."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from edpipe.errors import UsageError, nearest


class CommandParser(argparse.ArgumentParser):
    """argparse's parser, but what it refuses is a UsageError of one line, not the usage and an exit."""

    def error(self, message: str) -> NoReturn:
        """Refuses the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.prog.removeprefix('edpipe ')}: {message}; `{self.prog} --help` describes the command")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[Any, list[str]]:
        """The arguments, and an empty list: each parser refuses what it does not know, and knows its own options."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._name_unknown(unknown[0].partition("=")[0]))
        return found, unknown

    def _name_unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected argument '{word}'"
        options = re.findall(r"--[a-z][a-z0-9-]*", self.format_usage())
        return f"unknown option '{word}'{nearest(word, {*options, '--help'})}"


def whole_from(least: int) -> Callable[[str], int]:
    """A type of an argument: whole numbers of at least so much.

    >>> whole_from(1)("12")
    12
    """

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return parse
