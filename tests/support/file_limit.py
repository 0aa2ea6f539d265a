"""A limit on the size of files, which stands for a full disk."""

import contextlib
import resource


@contextlib.contextmanager
def largest_file(num_bytes):
    """Writing beyond fails like a full disk does, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
