"""Errors of the machine that no module has foreseen, such as a full disk: one line instead of a traceback."""

import errno
import os

from edpipe.errors import printable

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "get the right to read and write there"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (`ulimit -n`)"),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), "free memory"),
    errno.ELOOP: "remove the link that leads to itself",
    errno.ENAMETOOLONG: "give it a shorter name",
    **dict.fromkeys((errno.EIO, errno.ESTALE), "look after the disk or the network folder"),
}
"""By the error's number; of others, such as a file that is not there, the program itself may be the cause."""
NO_TEMPORARY = "No usable temporary directory"
"""How Python begins to say so."""


def is_outside(error: OSError) -> bool:
    """Whether the machine is the cause."""
    return error.errno in REMEDIES or NO_TEMPORARY in str(error)


def line_of(error: OSError) -> str:
    """What is wrong, where, and what helps, on one line."""
    if NO_TEMPORARY in str(error):
        return "no temporary folder can be written to; free space in /tmp, or name another folder in TMPDIR"
    where = " → ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    what = f"{where}: {error.strerror}" if where else str(error.strerror)
    return printable(f"{what}; {REMEDIES[error.errno or 0]}, then run the same command again")
