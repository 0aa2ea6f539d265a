"""Errors that a user can mend; each is shown as one line.

EdpipeError
├── ParamsError        params.yaml is wrong: unknown knob, bad value, dangling name
├── DataError          raw images or a dataset file: missing, unreadable, empty class
├── TeacherError       a teacher cannot be fetched, does not fit, or is too weak
├── NetworkError       an unknown model, or one that cannot be split into blocks
├── MismatchError      a sound file that was made from something else than what is asked for
├── CorruptFileError   a file that is truncated, altered, foreign or half-written
├── TrainingError      the loss is no longer a finite number
├── OverwriteError     a path is in the way or cannot be written
└── BusyError          another tool is at work in this folder

A caller's mistake inside the package raises ValueError instead.
"""


class EdpipeError(Exception):
    """Base of all errors a user can mend; the text is one line: what, where, value, allowed, remedy."""


class ParamsError(EdpipeError):
    """params.yaml is wrong; raised before any job starts."""


class DataError(EdpipeError):
    """Raw images or a dataset file cannot be used."""


class TeacherError(EdpipeError):
    """A teacher cannot be fetched, does not fit its classes, or is weaker than declared."""


class NetworkError(EdpipeError):
    """An unknown model, or one that cannot be split into body blocks and a head."""


class MismatchError(EdpipeError):
    """A sound file that was made from something else than what is asked for."""


class CorruptFileError(EdpipeError):
    """A file that is truncated, altered, foreign or half-written."""


class TrainingError(EdpipeError):
    """Training cannot go on: the loss is no longer a finite number."""


class OverwriteError(EdpipeError):
    """A path is in the way or cannot be written."""


class BusyError(EdpipeError):
    """Another tool is at work in this folder."""
