"""Calls of a scheduler's commands, which may be slow or fail for a moment."""

import subprocess
import time
from collections.abc import Sequence

LONGEST_S = 60
"""A scheduler under load answers late; one that does not answer by then is asked again."""
PAUSES_S = (1, 2, 4, 8, 16)
PASSING = ("timed out", "unable to contact", "connection refused", "try again", "temporarily", "communication")
"""Words of failures that pass by themselves."""


def call(words: Sequence[str] | str) -> str:
    """What a command prints; a text is run by the shell.

    Raises:
        subprocess.CalledProcessError: it fails.
        subprocess.TimeoutExpired: it takes too long.
    """
    found = subprocess.run(
        words, shell=isinstance(words, str), capture_output=True, text=True, check=True, timeout=LONGEST_S
    )
    return found.stdout


def call_patiently(words: Sequence[str] | str) -> str:
    """The same, tried again after failures that pass by themselves.

    Raises:
        subprocess.CalledProcessError: it fails for good.
        TimeoutError: it does not answer, or fails each time in a way that passes.
    """
    for pause_s in (*PAUSES_S, 0):
        try:
            return call(words)
        except subprocess.TimeoutExpired:
            pass
        except subprocess.CalledProcessError as error:
            if not any(word in error.stderr.lower() for word in PASSING):
                raise
        time.sleep(pause_s)
    name = words.split()[0] if isinstance(words, str) else words[0]
    raise TimeoutError(f"{name}: the scheduler does not answer; asked {len(PAUSES_S) + 1} times")
