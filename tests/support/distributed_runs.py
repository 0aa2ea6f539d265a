"""Trainings in one or two processes, each run by training_processes.py."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from watching import TIMEOUT_S

from edpipe.params.base import canonical_json

PROGRAM = Path(__file__).with_name("training_processes.py")


class Runs:
    """The program that forks processes which train, and what they leave."""

    def __init__(self, root, knobs, files):
        job = {
            "root": str(root),
            "knobs": {f.name: json.loads(canonical_json(getattr(knobs, f.name))) for f in fields(knobs)},
            "files": {f.name: as_text(getattr(files, f.name)) for f in fields(files) if f.name != "out"},
        }
        (root / "job.json").write_text(json.dumps(job), encoding="utf-8")
        self._root = root
        environment = {"EDPIPE_THREADS": "1", "EDPIPE_DEVICE": "cpu", "EDPIPE_CHECKPOINT_SECONDS": "0"}
        self._program = subprocess.Popen(
            [sys.executable, PROGRAM, root / "job.json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )

    def close(self):
        self._program.stdin.close()
        self._program.wait(TIMEOUT_S)
        self._program.stdout.close()

    def run(self, order):
        """(exit code, standard error) of each process."""
        self._program.stdin.write(f"{order}\n")
        self._program.stdin.flush()
        return [tuple(end) for end in json.loads(self._program.stdout.readline())]

    def weights(self, folder):
        return self._root / folder / "student.safetensors"

    def losses(self, folder, rank=0):
        lines = (self._root / folder / f"losses{rank}").read_text().splitlines()
        return {int(line.split()[0]): float(line.split()[1]) for line in lines}


def as_text(value):
    if isinstance(value, tuple):
        return [str(path) for path in value]
    return None if value is None else str(value)
