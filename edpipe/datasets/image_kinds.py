"""Which files count as images, and what else may lie among them: by name alone."""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath

from PIL import features

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Files that always count as images, in lower case."""
OPTIONAL_SUFFIXES = {
    ".avif": "Pillow 11.3 or later reads them",
    ".heic": "`pip install pillow-heif` to read them",
    ".heif": "`pip install pillow-heif` to read them",
}
"""Files that count as images where a library here reads them; else, what reads them."""
UNREAD_SUFFIXES = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".ico", ".j2k", ".jp2", ".jxl", ".nef", ".orf", ".psd", ".raf", ".raw", ".rw2"}
    | {".svg", ".tga", ".xcf"}
)
"""Pictures that no reader takes; people miss them more than a text file."""
SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "@recently-snapshot", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "desktop.ini"}
    | {"ehthumbs.db", "found.000", "lost+found", "system volume information", "thumbs.db"}
)
"""What systems and network drives leave behind, in lower case."""
MOST_KINDS = 6
"""Kinds that a line names; of the others, the number of files."""


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the files that count as images here, in lower case; makes Pillow know the plugin for HEIC."""
    found = set(IMAGE_SUFFIXES)
    if features.check("avif"):
        found.add(".avif")
    try:
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]
    except ImportError:
        return frozenset(found)
    register_heif_opener()
    return frozenset(found | {".heic", ".heif"})


def is_left_behind(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems leave among people's files.

    >>> [is_left_behind(name) for name in ("__MACOSX", ".Trash", "@eaDir", "Thumbs.db", "cats")]
    [True, True, True, True, False]
    """
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def kinds_of(root: Path, names: Iterable[str]) -> str:
    """What files beside the images are, in words, with their number; "" for none.

    Args:
        root: that the names are relative to.
        names: with slashes, as `RawDataset.not_images` has them.

    >>> kinds_of(Path("nowhere"), ["a/1.svg", "a/2.svg", "__MACOSX", "a/.b", "notes.txt"])
    '2 pictures .svg (not read here; save them as PNG or JPEG), 1 .txt, 1 __MACOSX, 1 hidden'
    """
    counts = Counter(_kind(root, name) for name in names)
    ranked = sorted(counts.items(), key=lambda item: (_rank(item[0]), -item[1], item[0]))
    shown = [f"{count:,} {kind}" for kind, count in ranked[:MOST_KINDS]]
    rest = sum(count for _, count in ranked[MOST_KINDS:])
    return ", ".join([*shown, *([f"{rest:,} others"] if rest else [])])


def _rank(kind: str) -> int:
    """Pictures and broken links first: those are missed."""
    return 0 if kind.startswith(("pictures", "links")) else 1


def _kind(root: Path, name: str) -> str:
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if is_left_behind(path.name):
        return "hidden" if path.name.startswith(".") else path.name
    if is_dangling(root / name):
        return "links that lead nowhere"
    if suffix in OPTIONAL_SUFFIXES and suffix not in image_suffixes():
        return f"pictures {suffix} ({OPTIONAL_SUFFIXES[suffix]})"
    if suffix in UNREAD_SUFFIXES:
        return f"pictures {suffix} (not read here; save them as PNG or JPEG)"
    return suffix or "without a suffix"


def is_dangling(path: Path) -> bool:
    """Whether it is a link that leads nowhere, or to itself."""
    try:
        return path.is_symlink() and not path.exists()
    except OSError:  # a link to itself, on some systems
        return True
