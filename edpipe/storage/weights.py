"""Weights of a network in a safetensors file, with the record that vouches for it."""

from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from edpipe.errors import CorruptFileError, MismatchError, remake
from edpipe.storage.atomic import write_atomically
from edpipe.storage.digests import digest_file
from edpipe.storage.records import read_record, record_path, write_record


def write_weights(path: Path, weights: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Writes weights, then their record with the digest of the file; the record's presence means complete."""
    record_path(path).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with write_atomically(path) as partial:
        # Not save_file: it raises an error of its own when the disk is full.
        partial.write_bytes(safetensors.torch.save(tensors, metadata={"format": "edpipe-weights"}))
    write_record(record_path(path), {**record, "weights_digest": digest_file(path)})


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and their record.

    Raises:
        CorruptFileError: a file is missing, truncated, or no safetensors file.
        MismatchError: weights and record do not belong together.
    """
    record = read_record(record_path(path))
    found = digest_file(path)
    if found != record.get("weights_digest"):
        raise MismatchError(
            f"{path}: content has digest {found}, its record says {record.get('weights_digest')}; they do not belong "
            f"together; {remake(path, act='make both again')}"
        )
    try:
        return safetensors.torch.load_file(path), record
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path}: not a safetensors file ({error}); {remake(path)}") from error
