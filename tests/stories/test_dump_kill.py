"""A dump that is killed by SIGKILL asks the teacher about no finished block again and ends alike.

A real process dumps a small network's logits in seventy blocks of a few milliseconds; it is killed at twenty drawn
blocks, while another of its threads stores what was asked before, and before each single act upon the disk around its
end. It kills itself, so that a busy machine kills it at the same moments.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
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
FEW_LEFT = 4
"""Blocks; with fewer of them left a dump is finished, and the next one begins."""
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
    """The bytes of file and record, and the numbers of the blocks by their first samples."""
    dumps.forget()
    dumps.start()
    assert dumps.end() == 0
    asked = dumps.asked()
    assert len(asked) == len(set(asked)) >= 60
    samples = sorted({sample for _, sample in asked})
    contents = dumps.target.read_bytes(), record_path(dumps.target).read_bytes()
    return contents, {sample: block for block, sample in enumerate(samples)}


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


def order_of_a_kill(moments, left):
    """At a drawn one of the next blocks, or at the last of those that are left."""
    number = moments.choice([left, *range(1, min(left, 24) + 1)])
    return f"{moments.choice(['before', 'after'])} {number}"


def test_killed_at_drawn_blocks_no_finished_block_is_asked_for_again(dumps, undisturbed):
    contents, number_of = undisturbed
    num_blocks = NUM_VIEWS * len(number_of)
    moments = random.Random(0)
    dumps.forget()
    kept, finished_at_kills, asked_twice, lost = set(), [], 0, []
    for _ in range(KILLS):
        dumps.start(order_of_a_kill(moments, num_blocks - len(kept)))
        assert dumps.end() == -signal.SIGKILL
        asked = [(view, number_of[sample]) for view, sample in dumps.asked()]
        asked_twice += len(kept.intersection(asked)) + len(asked) - len(set(asked))
        check_files(dumps, contents)
        now = dumps.journaled()
        assert kept <= now
        lost.append(len(set(asked) - now))
        finished_at_kills.append(len(now))
        kept = now
        if num_blocks - len(kept) <= FEW_LEFT:
            asked_twice += finish(dumps, contents, number_of, kept)
            dumps.forget()
            kept = set()
    asked_twice += finish(dumps, contents, number_of, kept)
    print(
        f"{KILLS} kills, finished blocks at each {finished_at_kills}, asked but not finished at each {lost}, "
        f"finished blocks asked for again {asked_twice}; {num_blocks} blocks"
    )
    assert asked_twice == 0
    assert len(set(finished_at_kills)) > KILLS / 2
    assert max(lost) <= 4  # one at the teacher, and those that wait to be stored


def finish(dumps, contents, number_of, kept):
    """Lets a dump come to its end; how many finished blocks were asked for again."""
    dumps.start()
    assert dumps.end() == 0
    check_end(dumps, contents)
    return len(kept.intersection((view, number_of[sample]) for view, sample in dumps.asked()))


def acts_of(dumps):
    """The name of every act upon the disk of a dump from here, in order."""
    dumps.start("count")
    assert dumps.end() == 0
    lines = dumps.log.read_text(encoding="utf-8").splitlines()
    return [line.split()[2] for line in lines if line.startswith("act")]


def test_killed_before_any_act_of_sealing_no_block_is_asked_for_again(dumps, undisturbed):
    contents, number_of = undisturbed
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
    contents, number_of = undisturbed
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
