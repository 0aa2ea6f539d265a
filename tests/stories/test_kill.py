"""A run that is killed without warning leaves no half of a file, and the same command goes on from there.

Snakemake and its steps are killed by SIGKILL a seeded moment after a step has begun and while files are being written;
nothing can tidy up then. Moments are counted in steps, not in seconds: a fast machine is killed as often as a slow one.
"""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import safetensors.torch
from fault_table import count
from project import AS_SNAKEMAKE_SAYS, make_project, tiny_params, without_cost
from watching import TIMEOUT_S, running_in, wait_until

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.storage.records import read_record, record_path
from edpipe.storage.weights import read_weights

pytestmark = pytest.mark.slow

COMMAND = ("--cores", "2", *AS_SNAKEMAKE_SAYS, "--", "results/ed.json")
MOMENTS = ("datasets/.digits.h5", 1, 2, "soft_labels/digits/specialists/.resume/primary-views_1-1", 3, 1, 3)
"""When each attempt is killed: as a file is being written, or soon after its n-th step has begun."""
FEWEST = 5
LONGEST_S = 0.2
"""About what a step takes; so long after a step has begun the kill comes at the latest."""


def start(project):
    return project.start("snakemake", *COMMAND)


def kill(project, process):
    """Kills the process and all that it started; the files that Snakemake called finished by then."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + TIMEOUT_S
    while running_in(project.root) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running_in(project.root) == []
    return finished_files(project)


def finished_files(project):
    """Outputs of the steps that Snakemake called finished before it was killed."""
    text = (project.root / "snakemake.out").read_text(encoding="utf-8")
    finished = set(re.findall(r"^Finished jobid: (\d+) ", text, re.MULTILINE))
    files = []
    for outputs, number in re.findall(r"^ +output: (.+)\n(?: .+\n)*? +jobid: (\d+)$", text, re.MULTILINE):
        files += outputs.split(", ") if number in finished else []
    return files


def identity(path):
    """Changes when a file is written again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def check_complete(project):
    """Every file that has its name opens through the package's own reader."""
    for name in visible_files(project):
        path = project.root / name
        if path.suffix == ".h5":
            open_dataset(path) if "/datasets/" in name else open_soft_labels(path)
        elif path.suffix == ".safetensors":
            read_weights(path) if record_path(path).exists() else safetensors.torch.load_file(path)
        elif "/partitions/" in name:
            read_partition(path, open_dataset(project.root / "artifacts/datasets/digits.h5"))
        elif path.suffix == ".json":
            read_record(path)


def visible_files(project):
    """Without hidden files, and without those that wait in hidden folders."""
    names = project.files("artifacts", "results")
    return [name for name in names if not any(part.startswith(".") for part in Path(name).parts)]


@pytest.fixture(scope="module")
def expected(finished_project):
    """Content of every file of a run that nothing disturbed, but for what it took."""
    names = visible_files(finished_project)
    assert sorted([*finished_files(finished_project), "results/index.html"]) == names  # no job makes the index
    return {name: without_cost(finished_project.root / name) for name in names}


@pytest.mark.faults
def test_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, expected):
    project = make_project(tmp_path / "project", tiny_params())
    delays = random.Random(20)
    kept, kills = {}, 0
    for moment in MOMENTS:
        process = start(project)
        if not reach(project, process, moment, delays.uniform(0, LONGEST_S)):
            break
        finished = kill(project, process)
        kills += 1
        check_complete(project)
        assert {name: identity(project.root / name) for name in kept} == kept
        kept |= {name: identity(project.root / name) for name in finished}
        assert project.snakemake("--unlock").rc == 0
    assert kills >= FEWEST
    assert 0 < len(kept) < len(expected)
    ended = project.snakemake("--", "results/ed.json")
    assert ended.rc == 0, ended.text
    assert {name: identity(project.root / name) for name in kept} == kept
    made = {name: without_cost(project.root / name) for name in visible_files(project)}
    assert [count("kill -9: snakemake and its steps", made == expected) for _ in range(kills)] == [True] * kills


def reach(project, process, moment, delay):
    """Waits for the moment, and past the beginning of a step for so many seconds; False if the run ends first."""
    if isinstance(moment, str):
        folder, _, start_of_name = f"artifacts/{moment}".rpartition("/")
        parent = project.root / folder
        is_writing = lambda: parent.is_dir() and any(n.startswith(start_of_name) for n in os.listdir(parent))  # noqa: E731
        return wait_until(process, is_writing)
    out = project.root / "snakemake.out"
    if not wait_until(process, lambda: out.read_bytes().partition(b"Select jobs")[2].count(b"rule ") >= moment):
        return False
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        return True
    return False
