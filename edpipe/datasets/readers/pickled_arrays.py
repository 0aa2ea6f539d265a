"""Opens a pickle of byte arrays, lists, dicts and texts, as Python 2 wrote them, and runs no code that it names."""

import io
import pickle
from typing import Any

import numpy as np

from edpipe.errors import DataError

# NumPy has no public name for the function that its own pickles call, and has moved it since these were written.
_EMPTY_ARRAY: Any = np.empty(0).__reduce__()[0]


def load_pickled_arrays(data: bytes, where: object) -> dict[bytes, Any]:
    """The dict that a pickle holds; its texts are bytes, its arrays uint8.

    Raises:
        DataError: the pickle, found at `where`, is damaged, holds no dict, or names anything but such arrays.
    """
    try:
        contents = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # damaged bytes make the unpickler raise almost any type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where}: cannot be unpickled ({reason}); use the binary version") from error
    if not isinstance(contents, dict):
        raise DataError(f"{where}: holds no dict but a {type(contents).__name__}; use the binary version")
    return contents


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return _KNOWN[module, name]


def _byte_dtype(kind: bytes | str, *_flags: object) -> np.dtype:
    # The flags are numbers in old pickles, and NumPy 2.4 wants them to be booleans. A copy: the pickle sets its state.
    if kind not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"it holds an array of {kind!r}, not of bytes")
    return np.dtype(np.uint8, copy=True)


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _EMPTY_ARRAY,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _byte_dtype,
}
