"""A throw-away folder that looks like the project folder: nothing that happens in it reaches an artifact."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path


@contextmanager
def mirrored(paths: Iterable[Path]) -> Iterator[Path]:
    """Inside the block the working folder is a new one with links to these files; gives the former one.

    What is written there by renaming, as edpipe writes everything, replaces a link and not the file behind it.

    Args:
        paths: relative to the working folder; those that are not there are left out.
    """
    folder = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="edpipe-adopt-") as mirror:
        for path in dict.fromkeys(paths):
            if (folder / path).exists():
                (Path(mirror) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(mirror) / path).symlink_to(folder / path)
        with chdir(mirror):
            yield folder
