"""Errors that a user can mend; each is shown as one line.

EdpipeError
├── UsageError         the command line: an unknown command or option, or a word missing
├── ParamsError        params.yaml is wrong: unknown knob, bad value, dangling name
├── DataError          raw images or a dataset file: missing, unreadable, empty class
│   └── UnreadableImageError  one raw file that holds no image that can be packed
├── TeacherError       a teacher cannot be fetched, does not fit, or is too weak
├── NetworkError       an unknown model, or one that cannot be split into blocks
├── MismatchError      a sound file that was made from something else than what is asked for
│   ├── OtherTeacherError     soft labels of another teacher, or of the same with other weights
│   ├── OtherDatasetError     … of another dataset
│   ├── OtherPartitionError   … of another partition, or subset
│   ├── OtherClassesError     … whose columns are other classes, or in another order
│   ├── OtherViewsError       … of other views: another augmentation, seed or image size
│   ├── PixelDriftError       … whose pixels this machine's libraries make otherwise
│   ├── OtherImagesError      … of images with other content keys
│   ├── MissingRowsError      … that lack a sample or view that is asked for
│   ├── IncompleteStoreError  a set of soft-label files with a view missing, twice, or of another set
│   ├── OtherTemperatureError sampled soft labels, which serve one temperature, at another
│   └── UnverifiedError       soft labels that are not those which were compared with the teacher
├── CorruptFileError   a file that is truncated, altered, foreign or half-written
│   ├── MissingFileError      there is no such file
│   ├── ForeignFileError      a file of another kind
│   ├── OtherVersionError     a format version that this edpipe does not read
│   ├── TruncatedFileError    shorter or longer than it was written
│   ├── AlteredHeaderError    attributes or small columns are not those that were written
│   ├── AlteredRowsError      stored rows are not those that were written
│   ├── LabelAgreementError   rows and labels do not belong together
│   └── StaleJournalError     what is left of an interrupted dump belongs to another dump
├── VerificationError  stored soft labels are not what their teacher says now
├── TrainingError      the loss is no longer a finite number, or much too large
│   └── LostProcessError      another of the processes that train together is gone
├── ExportError        a student cannot be written in a format, or read or used from one
├── OverwriteError     a path is in the way or cannot be written
└── BusyError          another tool is at work in this folder

A caller's mistake inside the package raises ValueError instead.
"""

import difflib
import json
import re
from collections.abc import Iterable

EXIT_MENDABLE = 2
"""Of a command that fails by a mistake which the user can mend: the same command would fail again."""
EXIT_LATER = 75
"""Of one that may succeed later, as the C header sysexits has it (EX_TEMPFAIL): a scheduler may start it again."""
MOST_LINES = 10
"""Of one error; who has mended these sees the next."""
LONGEST_LINE = 2000
"""Characters; of a longer line, as of a list of thousands of names, the middle is left out."""
SHOWN_OF_END = 500
"""Characters at the end of such a line, where the remedy stands."""
MOST_KNOWN = 30
"""Names that are listed where none is near."""


_REORDERING = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Characters that end a line or change the direction of writing, so that a line reads as another."""
_OBEYED = re.compile(f"[\0-\x1f\x7f-\x9f{_REORDERING}]")
_OBEYED_IN_LINES = re.compile(f"[\0-\x08\x0b-\x1f\x7f-\x9f{_REORDERING}]")


class EdpipeError(Exception):
    """Base of all errors a user can mend.

    Args:
        lines: one for each thing that is wrong: what, where, value, allowed, remedy. `str` gives the first ten.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines

    def __str__(self) -> str:
        shown = [printable(shortened(line)) for line in self.lines[:MOST_LINES]]
        num_more = len(self.lines) - len(shown)
        return "\n".join([*shown, *([f"and {num_more:,} more like these"] if num_more else [])])


class UsageError(EdpipeError):
    """The command line: an unknown command or option, a value out of range, or a word missing."""


class ParamsError(EdpipeError):
    """params.yaml is wrong; raised before any job starts."""


class DataError(EdpipeError):
    """Raw images or a dataset file cannot be used."""


class UnreadableImageError(DataError):
    """One raw file holds no image, a damaged one, or one that cannot be packed.

    Args:
        where: the file.
        reason: what is wrong with it, without its path; a record may hold it.
    """

    def __init__(self, where: object, reason: str) -> None:
        super().__init__(f"{where}: {reason}; replace or remove this file, or set unreadable: leave_aside")
        self.reason = reason


class TeacherError(EdpipeError):
    """A teacher cannot be fetched, does not fit its classes, or is weaker than declared."""


class NetworkError(EdpipeError):
    """An unknown model, or one that cannot be split into body blocks and a head."""


class MismatchError(EdpipeError):
    """A sound file that was made from something else than what is asked for."""


class OtherTeacherError(MismatchError):
    """Soft labels of another teacher, or of the same with other weights."""


class OtherDatasetError(MismatchError):
    """Soft labels of another dataset."""


class OtherPartitionError(MismatchError):
    """Soft labels of another partition or subset."""


class OtherClassesError(MismatchError):
    """Soft labels whose columns are other classes, or in another order."""


class OtherViewsError(MismatchError):
    """Soft labels of other views: another augmentation, seed or image size."""


class PixelDriftError(MismatchError):
    """Soft labels of pixels that this machine's libraries make otherwise."""


class OtherImagesError(MismatchError):
    """Soft labels of images with other content keys."""


class MissingRowsError(MismatchError):
    """Soft labels that lack a sample or view that is asked for."""


class IncompleteStoreError(MismatchError):
    """A set of soft-label files in which a view is missing or there twice, or a file is of another set."""


class OtherTemperatureError(MismatchError):
    """Sampled soft labels, which serve one temperature, are asked for at another."""


class UnverifiedError(MismatchError):
    """Soft labels that are not those which were compared with the teacher."""


class CorruptFileError(EdpipeError):
    """A file that is truncated, altered, foreign or half-written."""


class MissingFileError(CorruptFileError):
    """There is no such file."""


class ForeignFileError(CorruptFileError):
    """A file of another kind."""


class OtherVersionError(CorruptFileError):
    """A format version that this edpipe does not read."""


class TruncatedFileError(CorruptFileError):
    """A file that is shorter or longer than it was written."""


class AlteredHeaderError(CorruptFileError):
    """Attributes or small columns are not those that were written."""


class AlteredRowsError(CorruptFileError):
    """Stored rows are not those that were written."""


class LabelAgreementError(CorruptFileError):
    """Rows and labels do not belong together."""


class StaleJournalError(CorruptFileError):
    """What is left of an interrupted dump belongs to another dump."""


class VerificationError(EdpipeError):
    """Stored soft labels are not what their teacher says now."""


class TrainingError(EdpipeError):
    """Training cannot go on: the loss is no longer a finite number."""


class LostProcessError(TrainingError):
    """Another of the processes that train one network together is gone."""


class ExportError(EdpipeError):
    """A student cannot be written in a format, gives other outputs there, or cannot be used from a folder."""


class OverwriteError(EdpipeError):
    """A path is in the way or cannot be written."""


class BusyError(EdpipeError):
    """Another tool is at work in this folder."""


def shortened(line: str) -> str:
    """The line; of a very long one its beginning and its end.

    >>> shortened("short"), len(shortened("x" * 1_000_000)) <= LONGEST_LINE
    ('short', True)
    """
    if len(line) <= LONGEST_LINE:
        return line
    gap = f" … ({len(line):,} characters) … "
    return line[: LONGEST_LINE - SHOWN_OF_END - len(gap)] + gap + line[-SHOWN_OF_END:]


def printable(text: str) -> str:
    r"""The text on one line, without what a terminal would obey: control characters are written as in JSON.

    For names that come from elsewhere: of classes, files and links, of a server's answer.

    >>> printable("a class"), printable("\x1b[2Jred\n")
    ('a class', '\\u001b[2Jred\\n')
    """
    return _OBEYED.sub(lambda match: json.dumps(match[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines and columns: line feeds and tabs stay."""
    return _OBEYED_IN_LINES.sub(lambda match: json.dumps(match[0])[1:-1], text)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the nearest known name, or all of them, or of very many the first.

    >>> nearest("temprature", ["temperature", "teacher"])
    "; did you mean 'temperature'?"
    >>> nearest("x", ["b", "a"])
    '; known: a, b'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = f", … ({len(known):,} in all)" if len(known) > MOST_KNOWN else ""
    return f"; known: {', '.join(known[:MOST_KNOWN]) or 'none'}{more}"


def remake(*paths: object, act: str = "make it again") -> str:
    """The end of an error line about files that a job makes: the command that makes them again.

    Args:
        paths: of artifacts of one or several jobs.
        act: what the command does to them, in the words of the line.

    >>> remake("results/digits_ed.json")
    'make it again with `snakemake --force results/digits_ed.json`'
    """
    return f"{act} with `snakemake --force {' '.join(map(str, paths))}`"
