"""docs/commands.md: every command of `edpipe` with its arguments, from the parsers that read them."""

import argparse
from collections.abc import Callable, Iterator, Sequence

from plain_text import escaped

from edpipe.cli.arguments import CommandParser
from edpipe.cli.commands import soft_label_plan, soft_labels
from edpipe.cli.main import _parser_of, _step_texts
from edpipe.cli.overview import GROUPS

HEADER = """# Commands

Written by `python docs/site/reference.py`; do not edit. `edpipe COMMAND --help` prints the same. In a usage line,
`[…]` may be left out, and `…` may be repeated. What is wrong with a command line is one line on standard error, and the
exit code is 2.
"""
FORMS: dict[str, dict[str, Callable[[Sequence[str]], None]]] = {
    "plan": {"soft-labels": soft_label_plan.plan},
    "verify": {"soft-labels": soft_labels.verify},
}
"""Commands whose first word may choose another form, with what reads the words after it."""
STEPS = "Steps, as Snakemake and DVC call them"


def commands_page() -> str:
    """The page, in Markdown: a section for each group, one for each command in it."""
    groups = GROUPS | {STEPS: _step_texts()}
    parts = [HEADER]
    for title, commands in groups.items():
        parts.append(f"\n## {title[0].upper()}{title[1:]}\n")
        for name, text in commands.items():
            parts += _command(name, text)
    return "".join(parts)


def _command(name: str, text: str) -> Iterator[str]:
    yield f"\n### edpipe {name}\n\n{escaped(text[0].upper() + text[1:])}.\n"
    yield from _described(_parser_of(name))
    for form, run in FORMS.get(name, {}).items():
        parser = _parser_of_form(run)
        yield f"\n`edpipe {name} {form}`: {parser.description}\n"
        yield from _described(parser)


def _parser_of_form(run: Callable[[Sequence[str]], None]) -> argparse.ArgumentParser:
    """The parser that such a form makes for itself, caught as it is about to read the words."""
    caught: list[argparse.ArgumentParser] = []

    class Caught(Exception):  # noqa: N818
        """Ends the call once the parser is known."""

    def catch(self: argparse.ArgumentParser, *_: object) -> None:
        caught.append(self)
        raise Caught

    original, CommandParser.parse_args = CommandParser.parse_args, catch  # type: ignore[method-assign]
    try:
        run([])
    except Caught:
        return caught[0]
    finally:
        CommandParser.parse_args = original  # type: ignore[method-assign]
    raise AssertionError("a form read its words without a parser")


def _described(parser: argparse.ArgumentParser) -> Iterator[str]:
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    inner = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    for choices in inner:
        for name, chosen in choices.choices.items():
            about = {action.dest: action.help for action in choices._choices_actions}[name] or ""
            yield f"\n`{parser.prog} {name}`: {about}.\n"
            yield from _described(chosen)
    if not inner:
        yield f"\n```text\n{' '.join([parser.prog, *map(_usage, actions)])}\n```\n"
        if actions:
            yield "\n| argument | meaning |\n|---|---|\n"
            yield from map(_row, actions)


def _usage(action: argparse.Action) -> str:
    word = _word(action).removesuffix("…")
    if action.option_strings:
        return word if action.required else f"[{word}]"
    return {None: word, "?": f"[{word}]", "*": f"[{word} …]", "+": f"{word} …", argparse.REMAINDER: f"[{word} …]"}[
        action.nargs
    ]


def _word(action: argparse.Action) -> str:
    name = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else None)
    if not action.option_strings:
        return str(name or action.dest.upper())
    takes_value = action.nargs != 0
    return f"{action.option_strings[-1]} {name or action.dest.upper()}" if takes_value else action.option_strings[-1]


def _row(action: argparse.Action) -> str:
    text = (action.help or "") % {"default": action.default}
    word = _word(action).replace("|", "\\|")
    return f"| `{word}` | {escaped(text)} |\n"
