"""Checkpoints of a training: whole safetensors files in a hidden folder beside its output, the last two kept."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edpipe.errors import EdpipeError, OverwriteError
from edpipe.storage.atomic import remove_file, write_atomically
from edpipe.storage.records import digest_bytes, digest_file

FORMAT = "edpipe-checkpoint-1"
FOLDER = ".resume"
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

    A file's name says which iteration it is of and what its content's digest is, so that one that is half-written or
    altered is known. Nothing is unpickled.

    Args:
        out_path: the artifact that the training is for.
        key: of all that decides its result.
    """

    def __init__(self, out_path: Path, key: str) -> None:
        self._of_output = out_path.parent / FOLDER / out_path.stem
        self.folder = self._of_output / key

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Adds one; `facts` has its iteration. All but the last two are removed.

        Raises:
            OverwriteError: the disk is full or the folder cannot be written to; the ones before are still there.
        """
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        data = safetensors.torch.save(plain, metadata={"format": FORMAT, "facts": json.dumps(dict(facts))})
        path = self.folder / f"{facts['iteration']:010d}-{digest_bytes(data)}.safetensors"
        with write_atomically(path) as partial:
            partial.write_bytes(data)
        for old in self._paths()[KEPT:]:
            remove_file(old)

    def newest(self) -> tuple[Checkpoint | None, list[Path]]:
        """The newest whole one, if there is any, and newer ones that are damaged."""
        damaged: list[Path] = []
        for path in self._paths():
            checkpoint = _read(path)
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
            shutil.rmtree(self._of_output)
            if not any(self._of_output.parent.iterdir()):
                self._of_output.parent.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise OverwriteError(f"{error.filename}: cannot be removed: {error.strerror}; remove it by hand") from error

    def _paths(self) -> list[Path]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _read(path: Path) -> Checkpoint | None:
    """The checkpoint, or None if it is not what was written."""
    match = _NAME.fullmatch(path.name)
    try:
        if match is None or digest_file(path) != match[2]:
            return None
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                return None
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            return Checkpoint(path, tensors, json.loads(metadata["facts"]))
    except (EdpipeError, SafetensorError, OSError):
        return None
