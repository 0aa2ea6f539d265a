"""Runs commands of edpipe in child processes that may be killed or find the disk full; a program of tests/faults.

`python fork_steps.py FOLDER` imports what steps need, then reads a line of JSON for each order:

    {"words": ["run_stage", …]}             the command in FOLDER, undisturbed
    … "kill_s": 0.3                         the same, killed by SIGKILL so many seconds after it began
    … "after": "artifacts/.resume"          … after this folder came up
    … "folder": "disk"                      the same in this folder instead
    … "times": 2                            so many processes at once, with the same words
    … "program": "dvc"                      DVC's command line instead

and prints a line of JSON: [exit code, seconds, what it said] of each process; what a signal ended has minus its number.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

BLOCK_ROWS, BLOCK_IMAGES = 4, 4
"""Of soft labels and of packed images: many blocks to each file, where there are few otherwise."""


def main(root):
    """Reads orders until there are no more."""
    prepare()
    for line in sys.stdin:
        order = json.loads(line)
        children = [start(root, order, number) for number in range(order.get("times", 1))]
        print(json.dumps([end_of(root, order, *child) for child in children]), flush=True)


def prepare():
    """Imports what each child would import, and makes blocks small and checkpoints frequent."""
    import math

    import torch
    import torch._dynamo

    import edpipe.cli.main
    import edpipe.soft_labels.file.checks as checks
    import edpipe.soft_labels.file.format as format_
    import edpipe.soft_labels.file.writer as writer
    import edpipe.storage.code.preloaded  # noqa: F401
    from edpipe.pipeline.jobs.step_table import STEPS
    from edpipe.training import resumable

    for step in STEPS:
        __import__(f"edpipe.steps.{step.name}")
    for module in (checks, format_, writer):
        module.BLOCK_ROWS = BLOCK_ROWS
    sys.modules["edpipe.steps.pack_dataset"].BLOCK = BLOCK_IMAGES
    resumable.MOST_COST = math.inf
    torch.set_num_threads(1)


def start(root, order, number):
    """A child that runs the command: its process id, and when it began."""
    child = os.fork()
    if child:
        return child, time.monotonic(), number
    code = 1
    try:
        os.setsid()
        os.chdir(root / order.get("folder", ""))
        said = os.open(root / f"said{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = run(order)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(order):
    """The command's exit code."""
    if order.get("program") == "dvc":
        from dvc.cli import main as dvc

        return dvc(order["words"])
    from edpipe.cli.main import main as edpipe

    return edpipe(order["words"])


def end_of(root, order, child, begun_s, number):
    """Kills the child when it is time; how it ended."""
    if "kill_s" in order:
        if "after" in order:
            begun_s = when_there(root / order["after"], child)
        time.sleep(max(0.0, begun_s + order["kill_s"] - time.monotonic()))
        os.killpg(child, signal.SIGKILL) if is_leader(child) else os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = (root / f"said{number}").read_text(encoding="utf-8", errors="replace")
    return os.waitstatus_to_exitcode(status), time.monotonic() - begun_s, said


def when_there(folder, child):
    """When the folder came up, or the child ended."""
    while not folder.exists() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.0005)
    return time.monotonic()


def is_leader(child):
    """Whether it has its own process group by now."""
    return os.getpgid(child) == child


if __name__ == "__main__":
    main(Path(sys.argv[1]))
