"""A stand-in for Slurm's `srun`: starts the command once for each node, all on this machine, and ends with the worst.

`srun --nodes=2 … COMMAND…` becomes two processes; what each says goes to the file `node<number>` in the working folder.
After one has failed the others are ended a while later, as with --kill-on-bad-exit.
"""

import os
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

TEXT = "#!{python}\nimport runpy\nrunpy.run_path({path!r}, run_name='__main__')\n"
PATIENCE_S = 60


def install(folder):
    """Puts a program named srun into the folder, which is to stand first on the path."""
    program = Path(folder) / "srun"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(TEXT.format(python=sys.executable, path=str(Path(__file__).resolve())))
    program.chmod(0o755)


def main(words):
    """The exit code."""
    options = list(takewhile(lambda word: word.startswith("--"), words))
    command = words[len(options) :]
    (count,) = (int(option.partition("=")[2]) for option in options if option.startswith("--nodes="))
    nodes = [start(command, number) for number in range(count)]
    while all(node.poll() is None for node in nodes):
        time.sleep(0.05)
    if any(node.returncode for node in nodes):
        end(nodes)
    return max(abs(node.wait()) for node in nodes)


def start(command, number):
    """One node's process."""
    with Path(f"node{number}").open("wb") as said:
        return subprocess.Popen(command, env=os.environ | {"SLURM_NODEID": str(number)}, stdout=said, stderr=said)


def end(nodes):
    """Slurm waits a while, then sends SIGTERM."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and any(node.poll() is None for node in nodes):
        time.sleep(0.05)
    for node in nodes:
        if node.poll() is None:
            node.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
