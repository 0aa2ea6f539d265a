"""What is known of a torch checkpoint before it is read: that it does not inflate, and holds no program."""

import io
import re
import zipfile

from edpipe.errors import TeacherError

INFLATES_BY = 20
"""torch stores weights as they are; programs that compress them gain far less than this."""
ALWAYS_ALLOWED_BYTES = 64 * 2**20
_SCRIPT = re.compile(r"[^/]*/(code/|constants\.pkl$)")


def check_archive(data: bytes, location: str) -> None:
    """Nothing for a file that is no zip archive, or one that may be read.

    Raises:
        TeacherError: it declares contents many times its own size, or is a TorchScript program.
    """
    try:
        members = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # of another form, or damaged: reading it will tell
    declared = sum(member.file_size for member in members)
    if declared > max(INFLATES_BY * len(data), ALWAYS_ALLOWED_BYTES):
        raise TeacherError(
            f"{location}: its {len(data):,} bytes would become {declared:,} when they are read, allowed are "
            f"{INFLATES_BY} times as many; save the network's state_dict with torch.save, without compressing it"
        )
    if any(_SCRIPT.match(member.filename) for member in members):
        raise TeacherError(
            f"{location}: is a TorchScript program, which is not run; save its weights alone: "
            f"torch.save(torch.jit.load(PATH).state_dict(), 'weights.pth')"
        )


def objects_named(error: Exception) -> str:
    """The kind of object that torch refused to read, such as argparse.Namespace; "" where the error names none.

    >>> objects_named(ValueError("Unsupported global: GLOBAL argparse.Namespace was not an allowed global"))
    'argparse.Namespace'
    """
    found = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error))
    return found[1] if found else ""
