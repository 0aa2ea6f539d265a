"""Checkpoints of a training: whole safetensors files in a hidden folder beside its output, the last two kept."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edpipe.errors import EdpipeError, OverwriteError
from edpipe.storage.atomic import remove_file, remove_leftovers, write_atomically
from edpipe.storage.digests import digest_bytes, digest_file
from edpipe.storage.unfinished import checkpoints_folder, remove_folder

FORMAT = "edpipe-checkpoint-1"
KEPT = 2
_NAME = re.compile(r"(\d{10})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What a training's `state` gave."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """Of one output; those of another key, such as of other knobs or inputs, are left alone until it is done.

    A file's name says which iteration it is of and what its content's digest is, so that one that is half-written,
    altered or renamed is known. Nothing is unpickled.

    Args:
        out_path: the artifact that the training is for.
        key: of all that decides its result.
    """

    def __init__(self, out_path: Path, key: str) -> None:
        self._of_output = checkpoints_folder(out_path)
        self.folder = self._of_output / key
        self._key = key

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Adds one; `facts` has its iteration. Of those before only the last is kept.

        Later ones go too: training went on from before them, so that they are damaged.

        Raises:
            OverwriteError: the disk is full or the folder cannot be written to; the ones before are still there.
        """
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        # One entry: safetensors writes several in an order of its own, so that equal states would be unequal files.
        metadata = {FORMAT: json.dumps({"key": self._key, "facts": dict(facts)})}
        data = safetensors.torch.save(plain, metadata=metadata)
        path = self.folder / f"{facts['iteration']:010d}-{digest_bytes(data)}.safetensors"
        with write_atomically(path) as partial:
            remove_leftovers(self.folder)
            partial.write_bytes(data)
        others = [other for other in self._paths() if other != path]
        before = [other for other in others if _iteration(other) <= facts["iteration"]]
        for other in others:
            if other not in before[: KEPT - 1]:
                remove_file(other)

    def newest(self) -> tuple[Checkpoint | None, list[Path]]:
        """The newest whole one, if there is any, and newer ones that are damaged."""
        damaged: list[Path] = []
        for path in self._paths():
            checkpoint = _read(path, self._key)
            if checkpoint is not None:
                return checkpoint, damaged
            damaged.append(path)
        return None, damaged

    def clear(self) -> None:
        """Removes all of this output, of whatever key.

        Raises:
            OverwriteError: they cannot be removed.
        """
        try:
            remove_folder(self._of_output)
        except FileNotFoundError:
            return
        except OSError as error:
            path = error.filename or self._of_output
            raise OverwriteError(f"{path}: cannot be removed: {error.strerror or error}; remove it by hand") from error

    def _paths(self) -> list[Path]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _iteration(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _read(path: Path, key: str) -> Checkpoint | None:
    """The checkpoint, or None if it is not what was written here."""
    try:
        if digest_file(path) != path.stem.partition("-")[2]:
            return None
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {}).get(FORMAT, "{}"))
            if found.get("key") != key or found["facts"]["iteration"] != _iteration(path):
                return None
            return Checkpoint(path, {name: file.get_tensor(name) for name in list(file.keys())}, found["facts"])
    except (EdpipeError, SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
