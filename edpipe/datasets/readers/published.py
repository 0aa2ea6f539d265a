"""Files as the authors of a data set publish them: fetched into a root, and compared with their published MD5."""

from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs
from edpipe.runtime.progress import announce
from edpipe.storage.download import MB, Digest, fetch, md5_of

LONG_BYTES = 1_000 * MB
"""From this size on a digest takes seconds, and a line says so."""


@dataclass(frozen=True)
class PublishedFile:
    """One file that anybody may download.

    Attributes:
        name: Of the file, in the root and on a mirror.
        address: Where it is published.
        md5: Its published MD5.
    """

    name: str
    address: str
    md5: str


def fetch_published(
    title: str, files: Sequence[PublishedFile], root: Path, knobs: DatasetKnobs, remedy: str
) -> list[Path]:
    """Puts the files into root that are not there yet, if knobs.download allows it; their paths.

    `remedy` says which file to put where, without a network.

    Raises:
        DataError: a file is missing, and may not or cannot be fetched from its address or from knobs.mirror.
    """
    missing = [file for file in files if not (root / file.name).is_file()]
    if missing and not knobs.download:
        raise DataError(f"{root}: {title} is not here and download is false; {remedy}, or set download: true")
    for file in missing:
        address = _address(file, knobs.mirror)
        try:
            fetch(address, root / file.name, Digest("MD5", file.md5))
        except (OSError, RuntimeError, HTTPException, ValueError) as error:  # ValueError: no address at all
            reason = " ".join(str(error).split())
            raise DataError(
                f"{root}: {title} is not here and {address} could not be fetched ({reason}); {remedy}"
            ) from error
    return [root / file.name for file in files]


def _address(file: PublishedFile, mirror: str | None) -> str:
    return f"{mirror.rstrip('/')}/{file.name}" if mirror else file.address


def check_md5(path: Path, md5: str) -> None:
    """Passes if the file has that MD5.

    Raises:
        DataError: it has another, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size >= LONG_BYTES:
                announce(f"check the MD5 of {path}: {size / MB:,.0f} MB")
            found = md5_of(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); fetch this file again") from error
    if found != md5:
        raise DataError(f"{path}: has MD5 {found}, but {md5} is published; fetch this file again")
