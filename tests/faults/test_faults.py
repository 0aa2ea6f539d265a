"""A hundred kills, full disks, servers that lie, damaged remotes, two tools at once: nothing is lost.

Each job of a small pipeline is disturbed, then run again; what it makes is compared with what an undisturbed run made.
Between the two, what has an artifact's name must be the whole artifact, or nothing.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import chdir
from pathlib import Path

import pytest
from fault_table import count
from project import as_yaml, tiny_params, without_cost

from edpipe.errors import EXIT_LATER, EXIT_MENDABLE
from edpipe.params.load import load_params
from edpipe.pipeline.jobs.graph import jobs_of_result
from edpipe.storage import download
from edpipe.storage.download import Digest, fetch
from edpipe.storage.unfinished import RESUME_FOLDER

pytestmark = [pytest.mark.slow, pytest.mark.faults]

KILLS = {
    "pack_dataset": 15,
    "train_teacher": 20,
    "dump_soft_labels": 20,
    "verify_soft_labels": 5,
    "run_stage": 25,
    "evaluate_teacher": 5,
    "evaluate": 10,
}
"""A hundred, by step."""
UNFINISHED = {
    "pack_dataset": lambda path: path.parent.parent / RESUME_FOLDER,
    "dump_soft_labels": lambda path: path.parent.parent / RESUME_FOLDER,
    "train_teacher": lambda path: path.parent / RESUME_FOLDER,
    "run_stage": lambda path: path.parent / RESUME_FOLDER,
}
"""The folder of what a killed step goes on with, from its first output."""
FREE = (0.0, 0.4, 0.9)
"""Of the bytes that a job writes, so much is free on a full disk."""
DISK_BYTES = 32 << 20
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "fork_steps.py"
FEWEST_S = 0.01


class Pipeline:
    """A folder in which everything that `kd` needs is made, and the program that forks steps there."""

    def __init__(self, root):
        self.root = root
        params = tiny_params()
        params["experiments"]["kd"]["stages"]["only"]["images"] = 640
        (root / "params.yaml").write_text(as_yaml(params), encoding="utf-8")
        variables = {"EDPIPE_THREADS": "1", "OMP_NUM_THREADS": "1", "EDPIPE_DEVICE": "cpu", "EDPIPE_DVC": "0"}
        variables |= {"EDPIPE_CHECKPOINT_SECONDS": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._program = subprocess.Popen(
            [sys.executable, PROGRAM, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | variables,
            text=True,
        )
        with chdir(root):
            found = {job.outputs[0]: job for job in jobs_of_result(load_params(), "kd")}
        self.jobs = list(found.values())
        self.seconds = {job.outputs[0]: self.make(job) for job in self.jobs}
        self.expected = {path: without_cost(root / path) for job in self.jobs for path in job.outputs}

    def close(self):
        self._program.stdin.close()
        self._program.wait()
        self._program.stdout.close()

    def run(self, words, **more):
        """(exit code, seconds, what it said) of each process."""
        self._program.stdin.write(json.dumps({"words": [*words], **more}) + "\n")
        self._program.stdin.flush()
        return json.loads(self._program.stdout.readline())

    def start(self, job, **more):
        return self.run(job.command.split()[1:], **more)

    def make(self, job, **more):
        """Makes it undisturbed; the seconds that took."""
        [(code, seconds, said)] = self.start(job, **more)
        assert code == 0, said
        return seconds

    def forget(self, job, folder=""):
        for path in job.outputs:
            (self.root / folder / path).unlink(missing_ok=True)

    def wrong(self, job, folder="", may_be_absent=False):
        """Outputs that are not what they have to be."""
        there = {path: self.root / folder / path for path in job.outputs}
        return [
            path
            for path, file in there.items()
            if not (may_be_absent if not file.exists() else without_cost(file) == self.expected[path])
        ]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    pipeline = Pipeline(tmp_path_factory.mktemp("faults"))
    yield pipeline
    pipeline.close()


def jobs_by_step(pipeline):
    return {step: [job for job in pipeline.jobs if job.step == step] for step in {job.step for job in pipeline.jobs}}


def killed(pipeline, job, draw):
    """Runs it until a kill ends it: at any moment, or, where there is something to go on with, often after it began."""
    longest_s = pipeline.seconds[job.outputs[0]]
    folder = UNFINISHED.get(job.step)
    after = {"after": str(folder(job.outputs[0]))} if folder and draw.random() < 0.6 else {}
    while True:
        pipeline.forget(job)
        [(code, _, said)] = pipeline.start(job, kill_s=draw.uniform(0, longest_s / (5 if after else 1)), **after)
        if code == -signal.SIGKILL:
            return
        assert code == 0, said
        longest_s = max(longest_s / 2, FEWEST_S)  # it was faster than the kill


def test_of_a_hundred_kills_none_costs_anything(pipeline):
    assert sum(KILLS.values()) == 100
    draw, jobs, resumed, problems = random.Random(17), jobs_by_step(pipeline), Counter(), []
    for step in draw.sample(list(KILLS), k=100, counts=list(KILLS.values())):
        job = draw.choice(jobs[step])
        killed(pipeline, job, draw)
        half = pipeline.wrong(job, may_be_absent=True)
        [(code, _, said)] = pipeline.start(job)
        resumed[step] += any(words in said for words in ("goes on after", "were finished before", "by an interrupted"))
        if not count(f"kill -9: {step}", code == 0 and not half and not pipeline.wrong(job)):
            problems.append((job.command, half, said))
    print(dict(resumed), "went on where they were")
    assert not problems
    # Else the kills came too early to show anything.
    assert min(resumed[step] for step in UNFINISHED) >= 2


@pytest.fixture(scope="module")
def disk(pipeline):
    """A folder on a small file system of its own, with all that is made; None where it may not be mounted."""
    folder = pipeline.root / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    shutil.copytree(pipeline.root / "artifacts", folder / "artifacts")
    shutil.copytree(pipeline.root / "results", folder / "results")
    shutil.copy(pipeline.root / "params.yaml", folder)
    yield folder
    subprocess.run(["umount", folder], check=True)


def leave_free(disk, num_bytes):
    """Fills the disk but for so much."""
    status = os.statvfs(disk)
    size = status.f_bavail * status.f_frsize - num_bytes
    with (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, max(size, 1))


@pytest.mark.parametrize("step", [*KILLS, "partition_dataset", "result"])
def test_a_full_disk_is_one_line_and_the_next_call_ends_well(pipeline, disk, step):
    jobs, problems, codes = jobs_by_step(pipeline), [], []
    for job in jobs[step][:1]:
        num_bytes = sum((pipeline.root / path).stat().st_size for path in job.outputs)
        for free in FREE:
            pipeline.forget(job, "disk")
            leave_free(disk, int(free * num_bytes))
            [(code, _, said)] = pipeline.start(job, folder="disk")
            (disk / "filler").unlink()
            codes.append(code)
            half = pipeline.wrong(job, "disk", may_be_absent=code != 0)
            is_told = code == 0 or (code == EXIT_MENDABLE and told_of_the_disk(said))
            [(again, _, more)] = pipeline.start(job, folder="disk")
            has_survived = is_told and not half and again == 0 and not pipeline.wrong(job, "disk")
            if not count("full disk", has_survived):
                problems.append((job.command, free, code, said, half, again, more))
    assert not problems
    assert EXIT_MENDABLE in codes, "the disk was never too small"


def told_of_the_disk(said):
    """Whether the last line says so, and nothing is a traceback."""
    last = said.replace("\r", "\n").splitlines()[-1]
    return last.startswith("edpipe: ") and "No space left" in last and "Traceback" not in said


BODY = random.Random(5).randbytes(200_000)
LIES = {
    "cut in the midst": {"cut": 70_000},
    "cut in the midst, length unknown": {"cut": 70_000, "says_length": False},
    "nothing comes": {"cut": 0},
    "one byte is missing": {"body": BODY[:-1]},
    "one byte too many": {"body": BODY + b"x"},
    "one bit is wrong": {"body": bytes([BODY[0] ^ 1]) + BODY[1:]},
    "other bytes of the same length": {"body": bytes(len(BODY))},
    "a page instead": {"body": b"<html>", "headers": {"Content-Type": "text/html"}},
    "packed otherwise": {"headers": {"Content-Encoding": "gzip"}, "body": BODY[:100]},
    "no such file": {"body": None},
    "a length that is no number": {"headers": {"Content-Length": "many"}, "says_length": False},
    "too long a length": {"headers": {"Content-Length": str(len(BODY) + 9)}, "says_length": False},
}


@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_gives_no_file_and_an_honest_one_gives_it(tmp_path, server, monkeypatch, lie, knows_ranges):
    monkeypatch.setattr(download, "PAUSE_S", 0)
    goal, digest = tmp_path / "file.tar", Digest("SHA256", hashlib.sha256(BODY).hexdigest())
    honest = {"body": BODY, "cut": None, "says_length": True, "headers": {}}
    vars(server).update(honest | {"knows_ranges": knows_ranges} | LIES[lie])
    try:
        fetch(f"{server.folder}/file.tar", goal, digest)
    except Exception as error:
        is_refused = not goal.exists() and len(str(error)) > 0
    else:
        is_refused = goal.read_bytes() == BODY
    vars(server).update(honest)
    fetch(f"{server.folder}/file.tar", goal, digest)
    assert count("server that lies", is_refused and goal.read_bytes() == BODY)


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "too long": lambda data: data + b"x",
    "gone": lambda data: None,
}


@pytest.fixture(scope="module")
def shared(pipeline):
    """A DVC repository with one artifact that is pushed to a remote, a folder."""
    root, remote = pipeline.root / "shared", pipeline.root / "remote"
    root.mkdir()
    (root / "weights").write_bytes(random.Random(3).randbytes(50_000))
    for words in (
        ("init", "--no-scm", "-q"),
        ("remote", "add", "-q", "-d", "ours", str(remote)),
        ("config", "-q", "remote.ours.verify", "true"),
        ("add", "-q", "weights"),
        ("push", "-q"),
    ):
        [(code, _, said)] = pipeline.run(words, program="dvc", folder="shared")
        assert code == 0, said
    return root, remote


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_damaged_remote_holds_is_not_taken(pipeline, shared, damage):
    root, remote = shared
    expected = random.Random(3).randbytes(50_000)
    [stored] = [path for path in remote.rglob("*") if path.is_file()]
    harmed = DAMAGES[damage](expected)
    stored.chmod(0o644)
    stored.unlink() if harmed is None else stored.write_bytes(harmed)
    shutil.rmtree(root / ".dvc" / "cache", ignore_errors=True)
    (root / "weights").unlink(missing_ok=True)
    [(code, _, _)] = pipeline.run(("pull", "-q"), program="dvc", folder="shared")
    is_refused = code != 0 and not (root / "weights").exists()
    stored.unlink(missing_ok=True)
    stored.write_bytes(expected)
    [(again, _, said)] = pipeline.run(("pull", "-q"), program="dvc", folder="shared")
    has_survived = is_refused and again == 0 and (root / "weights").read_bytes() == expected
    assert count("damaged remote", has_survived), (code, said)


@pytest.mark.parametrize("step", ["pack_dataset", "train_teacher", "dump_soft_labels", "run_stage", "evaluate"])
def test_two_processes_at_one_artifact(pipeline, step):
    for job in jobs_by_step(pipeline)[step][:1]:
        pipeline.forget(job)
        ends = pipeline.start(job, times=2)
        codes = sorted(code for code, _, _ in ends)
        assert count("two steps at once", codes in ([0, 0], [0, EXIT_LATER]) and not pipeline.wrong(job)), ends
