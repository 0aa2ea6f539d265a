"""Training that is killed or asked to end, at any moment, goes on from there and makes the files that one go makes.

A real process attends a school of three stages, eight iterations each, with a checkpoint after every iteration. It ends
itself at drawn moments, and at single acts upon the disk; what was made is then compared with an undisturbed run.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from killable_stage import ITERATIONS, LEVELS, SHORT_ITERATIONS, make_school
from watching import TIMEOUT_S

from edpipe.storage.digests import digest_file
from edpipe.storage.weights import read_weights

pytestmark = pytest.mark.slow
ENDS = 10
"""By each signal."""
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "killable_stage.py"
FAREWELL = "edpipe: interrupted; what is finished is kept, the same command goes on from there"


class School:
    """The program that forks children which train, and what they leave."""

    def __init__(self, root):
        self.root, self.made, self.log = root, root / "made", root / "log"
        environment = {"EDPIPE_THREADS": "1", "OMP_NUM_THREADS": "1", "EDPIPE_DEVICE": "cpu"}
        environment |= {"EDPIPE_CHECKPOINT_SECONDS": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._program = subprocess.Popen(
            [sys.executable, PROGRAM, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment,
            text=True,
        )

    def close(self):
        self._program.stdin.close()
        self._program.wait(TIMEOUT_S)
        self._program.stdout.close()

    def start(self, order):
        """Lets a child begin to train."""
        self.log.unlink(missing_ok=True)
        self.log.touch()
        self._program.stdin.write(f"{order}\n")
        self._program.stdin.flush()
        self._program.stdout.readline()

    def end(self):
        """How the child ended."""
        self._program.stdin.write("end\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())

    def complete(self, order):
        """Runs a child undisturbed."""
        self.start(order)
        assert self.end() == 0, self.said

    @property
    def lines(self):
        return self.log.read_text(encoding="utf-8").splitlines()

    @property
    def begun(self):
        """(stage, iteration) of each iteration that the latest child has begun."""
        found, stage = [], ""
        for line in self.lines:
            if line.isdecimal():
                found.append((stage, int(line)))
            elif line != "signal":
                stage = line
        return found

    @property
    def begun_after_the_signal(self):
        """How many iterations."""
        return sum(line.isdecimal() for line in self.lines[self.lines.index("signal") :])

    @property
    def said(self):
        return (self.root / "said").read_text(encoding="utf-8").splitlines()

    @property
    def digests(self):
        """Of every file that has its name."""
        return {path.name: digest_file(path) for path in self.made.glob("[!.]*")}

    def forget(self):
        shutil.rmtree(self.made, ignore_errors=True)


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    root = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        make_school(root)
    program = School(root)
    yield program
    program.close()


def in_one_go(school, order):
    """Digests of what an undisturbed run makes, and the iterations that it needs."""
    school.forget()
    school.complete(order)
    assert not (school.made / ".resume").exists()
    return school.digests, school.begun


@pytest.fixture(scope="module")
def undisturbed(school):
    digests, begun = in_one_go(school, "school")
    assert begun == [(level, i) for level in LEVELS for i in range(1, ITERATIONS + 1)]
    assert sorted(digests) == sorted(
        f"{k}_{level}.{end}" for k, level in enumerate(LEVELS, 1) for end in ("json", "safetensors")
    )
    return digests, begun


def check_files(school, digests):
    """What has its name is whole, and a record stands for the weights beside it."""
    assert school.digests.items() <= digests.items()
    for record in school.made.glob("[!.]*.json"):
        read_weights(record.with_suffix(".safetensors"))


def end_at_a_drawn_moment(school, order, number, moments, num_iterations):
    """A child ends itself by this signal as an iteration begins, or some milliseconds later; the last that it began."""
    wanted = moments.choice([0, *range(1, num_iterations + 1), num_iterations])
    delay_ms = moments.choice([0, moments.uniform(0, 10)])
    if (code := end_at(school, order, number, wanted, delay_ms)) == 0 and wanted < num_iterations:
        delay_ms = 0  # a busy machine let the child end before its signal was due
        code = end_at(school, order, number, wanted, delay_ms)
    if code == 0:  # it was faster than the signal
        assert (wanted, delay_ms > 0) == (num_iterations, True)
    elif number == signal.SIGTERM:
        assert code == 143
        assert [line for line in school.said if "images/s" not in line and "goes on after" not in line] == [FAREWELL]
        assert delay_ms > 0 or school.begun_after_the_signal == 0
    else:
        assert code == -signal.SIGKILL
    return (school.begun or [None])[-1]


def end_at(school, order, number, wanted, delay_ms):
    """Starts anew; how the child ended."""
    school.forget()
    school.start(f"{order} {number.name} {wanted} {delay_ms}")
    return school.end()


def check_the_rest(school, order, digests, all_iterations, last):
    """Runs it to the end; how many iterations were made twice, and whether it went on inside a stage."""
    check_files(school, digests)
    school.complete(order)
    assert school.digests == digests
    assert not (school.made / ".resume").exists()
    done = all_iterations.index(last) + 1 if last else 0
    return done + len(school.begun) - len(all_iterations), any(
        "goes on after iteration" in line for line in school.said
    )


def end_often(school, order, number, ends, undisturbed):
    """Ends so many runs at drawn moments; how many went on inside a stage, and what there is to tell."""
    digests, all_iterations = undisturbed
    moments = random.Random(int(number))
    places, num_resumed = [], 0
    for _ in range(ends):
        last = end_at_a_drawn_moment(school, order, number, moments, len(all_iterations))
        num_repeated, has_resumed = check_the_rest(school, order, digests, all_iterations, last)
        # After the last iteration of a stage its checkpoints are removed; ended right then, it begins anew.
        is_last = (
            last is None or last not in all_iterations[:-1] or all_iterations[all_iterations.index(last) + 1][1] == 1
        )
        assert num_repeated <= (number == signal.SIGKILL) or is_last
        places.append(last)
        num_resumed += has_resumed
    print(f"{number.name} in {places}; {num_resumed} of {ends} went on inside a stage")
    return num_resumed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_a_school_ended_at_drawn_moments_makes_the_files_of_one_go(school, undisturbed, number):
    assert end_often(school, "school", number, ENDS, undisturbed) >= ENDS / 2


def test_a_teacher_ended_at_drawn_moments_makes_the_files_of_one_go(school):
    undisturbed = in_one_go(school, "teacher")
    resumed = [end_often(school, "teacher", number, 2, undisturbed) for number in (signal.SIGKILL, signal.SIGTERM)]
    assert sum(resumed) >= 2


def test_killed_at_single_acts_upon_the_disk_it_makes_the_files_of_one_go(school):
    digests, all_iterations = in_one_go(school, "short")
    assert len(all_iterations) == SHORT_ITERATIONS
    school.forget()
    school.complete("short count")
    acts = [line.split()[2] for line in school.lines if line.startswith("act ")]
    tried, goes_on, first_checkpoint = Counter(), [], acts.index("replace") + 1
    for number, name in enumerate(acts, start=1):
        if number % 2 or name == "mkdir":
            continue
        school.forget()
        school.start(f"short {number}")
        assert school.end() == -signal.SIGKILL
        check_files(school, digests)
        is_made = any(school.made.glob("[!.]*.json"))
        school.complete("short")
        assert is_made or number <= first_checkpoint or any("goes on after" in line for line in school.said), name
        goes_on += [line.split("iteration ")[1][0] for line in school.said if "goes on after" in line]
        assert school.digests == digests
        assert list(school.made.glob(".*")) == []
        tried[name] += 1
    print(f"killed at {sum(tried.values())} of {len(acts)} acts: {dict(tried)}; went on after iteration {goes_on}")
