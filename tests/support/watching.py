"""Waits for moments in other processes, and finds processes by their folder."""

import os
import signal
import time
from pathlib import Path

TIMEOUT_S = 600


def wait_until(process, has_come):
    """False if the process ends first."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if has_come():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError(f"the moment did not come; returned {process.wait()}")


def running_in(folder):
    """Processes whose working folder this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_here = (entry / "cwd").readlink() == folder
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if is_here and state not in "ZX":
            found.append(entry.name)
    return found
