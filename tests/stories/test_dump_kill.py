"""A dump that is killed by SIGKILL, at any moment, asks the teacher about no finished block again and ends alike.

A real process dumps a small network's logits in seventy blocks of a few milliseconds; it is killed at twenty drawn
moments, and before each single act upon the disk around its end.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from small_world import NINE, make_world
from watching import TIMEOUT_S

from edpipe.params.soft_labels import HintKnobs, StorageKnobs
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.storage.journal import Journal
from edpipe.storage.records import read_record, record_path

pytestmark = pytest.mark.slow
KILLS = 20
BLOCK_ROWS = 8
NUM_VIEWS = 9
STORAGE = StorageKnobs(precision="uint8", attention=True, hint=HintKnobs(feature_stage=2, side=2))
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "killable_dump.py"


class Dumps:
    """The program that forks children which dump, and what they leave."""

    def __init__(self, root, world, teacher):
        self.folder = root / "soft_labels"
        self.target = self.folder / "general" / "all" / f"views_0-{NUM_VIEWS - 1}.h5"
        self.log = root / "log"
        job = {
            "teacher": "general",
            "dataset": str(world.dataset),
            "weights": str(teacher.weights_path),
            "space": NINE.model_dump(mode="json"),
            "storage": STORAGE.model_dump(mode="json"),
            "num_views": NUM_VIEWS,
            "target": str(self.target),
            "log": str(self.log),
            "block_rows": BLOCK_ROWS,
        }
        (root / "job.json").write_text(json.dumps(job), encoding="utf-8")
        environment = os.environ | {"EDPIPE_THREADS": "1", "OMP_NUM_THREADS": "1", "EDPIPE_DEVICE": "cpu"}
        self._program = subprocess.Popen(
            [sys.executable, PROGRAM, root / "job.json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )

    def close(self):
        self._program.stdin.close()
        self._program.wait(TIMEOUT_S)
        self._program.stdout.close()

    def start(self, order="dump"):
        """The process id of a child that begins to dump."""
        self.log.unlink(missing_ok=True)
        self.log.touch()
        self._program.stdin.write(f"{order}\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())

    def end(self):
        """How the child ended."""
        self._program.stdin.write("end\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())

    def asked(self):
        """(view, first sample) of each block that the latest child has asked the teacher about."""
        rows = [line.split() for line in self.log.read_text(encoding="utf-8").splitlines() if line[:3] != "act"]
        # A single row of view 0 comes first: it tells the size of attention maps and hint.
        assert all(int(num) == 1 for _, _, num in rows[:1])
        return [(int(view), int(sample)) for view, sample, _ in rows[1:]]

    def resume_folder(self):
        found = list((self.folder / "general" / ".resume").glob("*"))
        assert len(found) <= 1
        return found[0] if found else None

    def journaled(self):
        """(view, block) of each finished block that the next call can know of."""
        folder = self.resume_folder()
        if folder is None or not (folder / "journal").exists():
            return set()
        copy = self.log.with_name("journal")
        shutil.copyfile(folder / "journal", copy)
        journal = Journal(copy, folder.name)
        journal.close()
        copy.unlink()
        return {(entry["view"], entry["block"]) for entry in journal.entries}

    def forget(self):
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    root = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        world = make_world(root, per_class=6)
        program = Dumps(root, world, world.teacher())
    yield program
    program.close()


@pytest.fixture(scope="module")
def undisturbed(dumps):
    """The bytes of file and record, the first samples of the blocks, and how long it took."""
    dumps.forget()
    dumps.start()
    began = time.monotonic()
    assert dumps.end() == 0
    seconds = time.monotonic() - began
    asked = dumps.asked()
    assert len(asked) == len(set(asked)) >= 60
    samples = sorted({sample for _, sample in asked})
    contents = dumps.target.read_bytes(), record_path(dumps.target).read_bytes()
    return contents, {sample: block for block, sample in enumerate(samples)}, seconds


def check_files(dumps, contents):
    """Nothing has the target's name but the whole file, and its record stands for nothing else."""
    if dumps.target.exists():
        assert dumps.target.read_bytes() == contents[0]
    if record_path(dumps.target).exists():
        assert dumps.target.exists()
        assert record_path(dumps.target).read_bytes() == contents[1]
    visible = [p.name for p in dumps.folder.rglob("*") if ".resume" not in p.parts and not p.name.startswith(".")]
    assert set(visible) <= {"general", "all", dumps.target.name, record_path(dumps.target).name}


def check_end(dumps, contents):
    assert (dumps.target.read_bytes(), record_path(dumps.target).read_bytes()) == contents
    assert dumps.resume_folder() is None
    read_record(record_path(dumps.target))
    open_soft_labels_of_small_blocks(dumps.target)


def open_soft_labels_of_small_blocks(path):
    from soft_label_examples import small_blocks

    with small_blocks(BLOCK_ROWS):
        return open_soft_labels(path)


def wait_for_blocks(dumps, number):
    """Until the child has asked the teacher about so many blocks."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(dumps.asked()) < number:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def kill_at_a_drawn_moment(dumps, moments, left):
    """Kills a child of which so many blocks are wanted; whether it was still at work."""
    pid = dumps.start()
    number = moments.choice([0, left, *range(1, min(left, 24))])
    if number == 0:
        time.sleep(moments.uniform(0, 0.3))  # before the first block, or soon after it
    else:
        wait_for_blocks(dumps, number)
        # The last block is followed by sealing and reading back; any other by the next one, a few milliseconds later.
        time.sleep(moments.uniform(0, 0.03 if number == left else 0.006))
    os.kill(pid, signal.SIGKILL)
    return dumps.end() == -signal.SIGKILL


def test_killed_at_drawn_moments_no_finished_block_is_asked_for_again(dumps, undisturbed):
    contents, number_of, seconds = undisturbed
    num_blocks = NUM_VIEWS * len(number_of)
    moments = random.Random(0)
    dumps.forget()
    kept, finished_at_kills, asked_twice, lost = set(), [], 0, []
    while len(finished_at_kills) < KILLS:
        is_killed = kill_at_a_drawn_moment(dumps, moments, num_blocks - len(kept))
        asked = [(view, number_of[sample]) for view, sample in dumps.asked()]
        asked_twice += len(kept.intersection(asked)) + len(asked) - len(set(asked))
        check_files(dumps, contents)
        # Killed after the record was written: nothing is left to do but to remove what was kept.
        is_whole = dumps.target.exists() and record_path(dumps.target).exists()
        now = {(view, b) for view in range(NUM_VIEWS) for b in range(len(number_of))} if is_whole else dumps.journaled()
        if is_killed and len(now) >= len(kept):
            assert kept <= now
            lost.append(len(set(asked) - now))
            finished_at_kills.append(len(now))
            kept = now
        if len(kept) == num_blocks or not is_killed:
            dumps.start()
            assert dumps.end() == 0
            asked_twice += len(dumps.asked()) if is_killed else 0
            check_end(dumps, contents)
            dumps.forget()
            kept = set()
    dumps.start()
    assert dumps.end() == 0
    asked_twice += len(kept.intersection((view, number_of[sample]) for view, sample in dumps.asked()))
    check_end(dumps, contents)
    print(
        f"{KILLS} kills, finished blocks at each {finished_at_kills}, asked but not finished at each {lost}, "
        f"finished blocks asked for again {asked_twice}; {num_blocks} blocks in {seconds:.2f} s"
    )
    assert asked_twice == 0
    assert len(set(finished_at_kills)) > KILLS / 2
    assert max(lost) <= 4  # one at the teacher, and those that wait to be stored


def acts_of(dumps):
    """The name of every act upon the disk of a dump from here, in order."""
    dumps.start("count")
    assert dumps.end() == 0
    lines = dumps.log.read_text(encoding="utf-8").splitlines()
    return [line.split()[2] for line in lines if line.startswith("act")]


def test_killed_before_any_act_of_sealing_no_block_is_asked_for_again(dumps, undisturbed):
    contents, number_of, _ = undisturbed
    num_blocks = NUM_VIEWS * len(number_of)
    dumps.forget()
    acts = acts_of(dumps)
    # Killed just before the file gets its name: every block is finished.
    dumps.forget()
    dumps.start(f"dump {1 + acts.index('replace')}")
    assert dumps.end() == -signal.SIGKILL
    assert len(dumps.journaled()) == num_blocks
    saved = dumps.log.with_name("saved")
    shutil.copytree(dumps.folder, saved)
    acts = acts_of(dumps)
    assert dumps.asked() == []
    tried, is_over = Counter(), []
    for number, name in enumerate(acts, start=1):
        if name == "pwrite" and number % 5:
            continue  # there are many, and one is like the other
        dumps.forget()
        shutil.copytree(saved, dumps.folder)
        dumps.start(f"dump {number}")
        assert dumps.end() == -signal.SIGKILL
        assert dumps.asked() == []
        check_files(dumps, contents)
        is_over.append(record_path(dumps.target).exists() and len(dumps.journaled()) == 0)
        dumps.start()
        assert dumps.end() == 0
        check_end(dumps, contents)
        assert dumps.asked() == [] or is_over[-1]
        tried[name] += 1
    print(f"killed before {sum(tried.values())} acts of sealing: {dict(tried)}")
    assert {"pwrite", "fdatasync", "fsync", "ftruncate", "replace", "unlink", "rmdir"} <= tried.keys()
    # The moments after which nothing but an empty folder is left to be removed are the very last.
    assert is_over == sorted(is_over)
    assert sum(is_over) <= 4


def test_killed_before_any_act_of_the_beginning_it_starts_alike(dumps, undisturbed):
    contents, number_of, _ = undisturbed
    for number in range(1, 9):
        dumps.forget()
        dumps.start(f"dump {number}")
        assert dumps.end() == -signal.SIGKILL
        check_files(dumps, contents)
        finished = len(dumps.journaled())
        dumps.start()
        assert dumps.end() == 0
        assert len(dumps.asked()) == NUM_VIEWS * len(number_of) - finished
        check_end(dumps, contents)
