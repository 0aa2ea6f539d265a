"""Runs on a node: Snakemake's script of a job, and then says how it ended, whatever the scheduler knows.

SIGTERM, which schedulers send before they end a job, goes to all processes of the job: its step writes a checkpoint.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

from edpipe.pipeline.cluster.submitted_job import read_job
from edpipe.runtime.exit_codes import EXIT_CODES, told_exit_codes
from edpipe.storage.atomic import write_text_atomically

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def run(folder: Path) -> int:
    """Runs the job of a folder; gives its exit code."""
    job = read_job(folder.name)
    if job is None:
        print(f"edpipe: {folder}: holds no job; call snakemake again", file=sys.stderr)
        return 2
    job.forget_end()
    codes = folder / "exit_codes"
    codes.unlink(missing_ok=True)
    begun_s = time.time()
    code = _run_script(job.jobscript, {**os.environ, **job.environment, EXIT_CODES: str(codes.absolute())})
    end = {"code": code, "step_codes": told_exit_codes(codes), "node": socket.gethostname()}
    write_text_atomically(folder / "end.json", json.dumps({**end, "begun_s": begun_s, "ended_s": time.time()}))
    return code


def _run_script(script: Path, environment: dict[str, str]) -> int:
    """The script's exit code; of one that a signal ended, 128 and its number."""
    process = subprocess.Popen(["sh", str(script)], env=environment, stdin=subprocess.DEVNULL)

    def pass_on(number: int, _: FrameType | None) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.send_signal(signal.SIGTERM if number == signal.SIGUSR1 else number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    code = process.wait()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
