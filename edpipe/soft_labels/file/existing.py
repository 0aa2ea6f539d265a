"""Whether a soft-label file that is to be made lies there already."""

from pathlib import Path

from edpipe.errors import EdpipeError
from edpipe.soft_labels.file.format import Header
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.storage.records import read_record, record_path


def is_whole(out_path: Path, header: Header, makers: list[object]) -> bool:
    """Whether the very file that is to be made lies there already, as after a kill at the last moment.

    `makers`: digest of the code and library versions that it must have been made by.
    """
    try:
        record = read_record(record_path(out_path), "code", "versions", "digest")
        labels = open_soft_labels(out_path)
    except EdpipeError:
        return False
    is_same = labels.header.facts() == header.facts() and record["digest"] == labels.digest
    return is_same and [record["code"], record["versions"]] == makers
