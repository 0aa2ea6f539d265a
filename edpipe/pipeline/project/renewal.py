"""What `edpipe upgrade` does with each file of a project."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edpipe.pipeline.project.files import OWN, digest_of, present_text, stale_generated, wanted_text
from edpipe.pipeline.project.note import Note


class Fate(StrEnum):
    """What becomes of a file."""

    WRITTEN = "written"
    RENEWED = "renewed"
    KEPT = "kept"


@dataclass(frozen=True)
class Change:
    """One file whose content is not what the package would write."""

    path: Path
    fate: Fate
    is_generated: bool = False


def changes(note: Note | None) -> Iterator[Change]:
    """Every file that is written, renewed, or kept although the package has another; first those to be edited.

    Raises:
        ParamsError: params.yaml is wrong.
    """
    named: set[Path] = set()
    for path in OWN:
        fate = fate_of(present_text(path), wanted_text(path), note.digests.get(str(path)) if note else None)
        if fate:
            named.add(path)
            yield Change(path, fate)
    for path in sorted(set(stale_generated()) - named):
        yield Change(path, Fate.RENEWED if path.exists() else Fate.WRITTEN, is_generated=True)


def fate_of(present: str | None, wanted: str, noted: str | None) -> Fate | None:
    """What becomes of a file.

    Args:
        present: what it holds; None: it is not there.
        wanted: what the package would write.
        noted: digest of what the package wrote or offered last; None: unknown.

    Returns:
        None where there is nothing to do or to say: the file is as wanted, or it was changed by the user and the
        package has nothing new.

    >>> fate_of(None, "new", None), fate_of("old", "new", digest_of("old")), fate_of("mine", "new", digest_of("old"))
    (<Fate.WRITTEN: 'written'>, <Fate.RENEWED: 'renewed'>, <Fate.KEPT: 'kept'>)
    >>> fate_of("mine", "new", digest_of("new"))
    """
    if present is None:
        return Fate.WRITTEN
    if present == wanted:
        return None
    if digest_of(present) == noted:
        return Fate.RENEWED
    return None if noted == digest_of(wanted) else Fate.KEPT
