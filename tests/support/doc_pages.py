"""Pages of the documentation, taken apart: fenced blocks, commands in running text, and what commands print."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?$")
RUN = ("sh", "console", "python")
"""Languages of blocks that are run. `console`: lines that begin with `$ ` are commands, the others what they print."""
READ = ("text", "json", "yaml", "toml", "diff")
PLAIN = "sh"
"""Of a block without a language, if it begins with one of these programs."""
PROGRAMS = ("edpipe", "snakemake", "dvc", "git", "make", "pip", "python")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
UNITS = {"s", "min", "h", "ms", "B", "kB", "MB", "GB", "bytes", "byte", "of", "to", "and", "student", "students"}
"""Words of an output that come and go with its numbers."""
WORD = re.compile(r"(?<![\w.])[A-Za-z_][\w./-]*")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    """Of its opening fence, from 1."""
    language: str
    title: str | None
    """The file that a reader is to save it as."""
    text: str

    @property
    def place(self):
        return f"{self.page}:{self.line}"

    @property
    def first_line(self):
        return next((line.strip() for line in self.text.splitlines() if line.strip()), "")

    @property
    def commands(self):
        """What is typed: of `sh` all lines, of `console` those behind a `$ `."""
        if self.language == "sh":
            return self.text
        return "\n".join(line[2:] for line in self.text.splitlines() if line.startswith("$ "))

    @property
    def printed(self):
        """What a `console` block says that its commands print."""
        return [line for line in self.text.splitlines() if not line.startswith("$ ")]


@cache
def pages():
    """README.md and every page of docs/ with commands, by the names that reasons and tests call them by."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def blocks_of(page, contents):
    """The fenced blocks of a page, in order.

    >>> [block.commands for block in blocks_of("a.md", "```console\\n$ ls\\na\\n```\\n")]
    ['ls']
    """
    lines, found, start = contents.splitlines(), [], None
    for number, line in enumerate(lines, 1):
        if start is None and line.lstrip().startswith("```"):
            start = number
        elif start is not None and line.strip() == "```":
            fence = FENCE.match(lines[start - 1].lstrip())
            if fence is None:
                raise ValueError(f'{page}:{start}: a fence is ``` with a language, and title="…" if it is to be saved')
            text = "\n".join(lines[start : number - 1]) + "\n"
            if not fence["language"] and not text.startswith(PROGRAMS):
                raise ValueError(f"{page}:{start}: give this block a language: {', '.join((*RUN, *READ))}")
            found.append(Block(page, start, fence["language"] or PLAIN, fence["title"], text))
            start = None
    if start is not None:
        raise ValueError(f"{page}:{start}: this block is not closed")
    return found


def all_blocks():
    return [block for page, text in pages().items() for block in blocks_of(page, text)]


def inline_commands(tool):
    """(page, command) of each command of this tool that stands in running text or in a table."""
    for page, text in pages().items():
        without_blocks = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for command in INLINE.findall(without_blocks):
            if command == tool or command.startswith(f"{tool} "):
                yield page, command


def words_of(command):
    """The words of one command as a shell takes them; without what stands behind `#`, `&&`, `|`, `;` or `>`."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="&|;>")
    lexer.whitespace_split = True
    found = []
    for word in lexer:
        if set(word) <= set("&|;>"):
            break
        found.append(word)
    return found


def spoken(line):
    """The words of a line of output, without numbers and their units."""
    return [word for word in WORD.findall(line) if word not in UNITS]


def missing_lines(shown, real):
    """Lines that a page shows and that were not printed, by their words; `…` stands for anything left out.

    >>> missing_lines(["28 of 28 jobs would run", "…", "a … d"], "3 of 3 jobs would run\\na b c d")
    []
    >>> missing_lines(["gone  1 kB"], "here  2 kB")
    ['gone  1 kB']
    """
    printed = [" ".join(spoken(line)) for line in real.splitlines()]
    return [line for line in shown if not any(_fits(line, each) for each in printed)]


def _fits(line, printed):
    parts = [re.escape(" ".join(spoken(part))) for part in line.split("…")]
    return re.fullmatch(" ?.* ?".join(parts), printed) is not None or not "".join(parts)
