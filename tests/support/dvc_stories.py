"""A project folder in a git repository of its own, with a copy of the package, the workflow and a small params.yaml.

Steps are played by stand_in_command_line.py, so that what is counted is exactly what ran.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from package_copies import compile_package, copy_compiled, copy_package, import_no_steps, writing_compiled
from watching import TIMEOUT_S

PROJECT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).with_name("stand_in_command_line.py")
STAND_IN_CHECKS = Path(__file__).with_name("stand_in_checks.py")
CACHE_TYPES = ("copy", "hardlink", "symlink")

PARAMS = """\
datasets:
  digits: { reader: digits, image_size: 8, channels: 1, max_per_class: 12 }
partitions:
  thirds: { subsets: [primary, middle, university], ratio: [1, 1, 1] }
recipes:
  tiny: { batch_size: 32, warmup: 0.1 }
teachers:
  whole:
    network: { model: resnet8 }
    fitting: { recipe: tiny, epochs: 1, learning_rate: 0.1 }
    min_top1: 0
  specialists:
    partition: thirds
    network: { model: resnet8 }
    fitting: { recipe: tiny, epochs: 1, learning_rate: 0.2 }
    min_top1: 0
students:
  small: { model: resnet8 }
soft_labels:
  digits:
    space: { augment: { kind: pad_crop, padding: 1, flip: false } }
    views: { number: 2, per_file: 2 }
    storage: { precision: uint8 }
experiments:
  ce:
    dataset: digits
    partition: thirds
    student: small
    method: { name: ce }
    recipe: tiny
    seeds: [0]
    stages: { only: { images: 64 } }
  kd:
    dataset: digits
    partition: thirds
    student: small
    method: { name: kd, teacher: whole, temperature: 4 }
    recipe: tiny
    seeds: [0]
    stages: { only: { images: 64 } }
  ed:
    dataset: digits
    partition: thirds
    student: small
    method: { name: ed, teacher: specialists }
    recipe: tiny
    seeds: [0]
    stages:
      primary: { images: 64, learning_rate: 0.1 }
      middle: { images: 64, learning_rate: 0.1 }
      university: { images: 64, learning_rate: 0.1 }
tracked: [ce, kd, ed]
"""
MIDDLE = "middle: { images: 64, learning_rate: 0.1 }"
SECOND_ED = """\
  ed_longer:
    dataset: digits
    partition: thirds
    student: small
    method: { name: ed, teacher: specialists }
    recipe: tiny
    seeds: [0]
    stages:
      primary: { images: 64, learning_rate: 0.1 }
      middle: { images: 64, learning_rate: 0.1 }
      university: { images: 96, learning_rate: 0.1 }
tracked: [ce, kd, ed, ed_longer]
"""


NO_CHECKS = "def student_problems(*_):\n    return []\n\n\ndef teacher_problems(*_):\n    return []\n"
"""The networks of these params are known to fit, and building them imports torch."""
MEANT = {
    "losses/kd.py": ("* temperature**2", "* (temperature * temperature)"),
    "datasets/packing.py": ('return b"".join(data), facts', 'return bytes(b"".join(data)), facts'),
}
"""By module: a text, and one that means something else for the same result."""


TEACHERS = (("whole", "all"), ("specialists", "primary"), ("specialists", "middle"), ("specialists", "university"))


def said(output):
    """Lines that are the package's own words."""
    return [line for line in output.splitlines() if line.startswith("edpipe:")]


def end_of(experiment):
    """The steps after the last stage."""
    return [
        f"evaluate --experiment {experiment} --seed 0",
        f"result --experiment {experiment}",
        f"report --experiment {experiment}",
    ]


def teacher_steps(step, *views):
    """A step of every teacher and subset; of a dump, for each range of views."""
    jobs = [f"{step} --dataset digits --teacher {teacher} --subset {subset}" for teacher, subset in TEACHERS]
    return [f"{job} --views {part}" for job in jobs for part in views] if views else jobs


def stages_of(experiment, *stages):
    return [f"run_stage --experiment {experiment} --seed 0 --stage {stage}" for stage in stages]


FROM_MIDDLE = sorted([*stages_of("ed", "middle", "university"), *end_of("ed")])
ALL_OF_KD = sorted([*stages_of("kd", "only"), *end_of("kd")])
ALL_STUDENT_STEPS = sorted(
    [
        *stages_of("ce", "only"),
        *stages_of("kd", "only"),
        *stages_of("ed", "primary", "middle", "university"),
        *end_of("ce"),
        *end_of("kd"),
        *end_of("ed"),
    ]
)
TAUGHT_STEPS = sorted(set(ALL_STUDENT_STEPS) - {*stages_of("ce", "only"), *end_of("ce")})
"""Those of students that learn from teachers' logits."""
STUDENT_RULES = {"run_stage", "evaluate", "result", "report"}
SHARED_GROUPS = (
    "pack_dataset",
    "partition_dataset",
    "train_teacher",
    "dump_soft_labels",
    "verify_soft_labels",
    "evaluate_teacher",
)
EVERY_STEP = sorted(
    [
        "pack_dataset --dataset digits",
        "partition_dataset --dataset digits --partition thirds",
        *(job for step in ("train_teacher", "verify_soft_labels", "evaluate_teacher") for job in teacher_steps(step)),
        *teacher_steps("dump_soft_labels", "0-1"),
        *ALL_STUDENT_STEPS,
    ]
)
NUM_STEPS = 32  # a dataset, a partition, 4 steps of each of 4 teachers, 5 stages, 3 times evaluate, result, report


@dataclass
class Folder:
    """A project folder, and the commands that a person would type there."""

    root: Path

    def call(self, *words, is_refused=False):
        """Runs a command; its output, all of it."""
        answer = subprocess.run(words, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)
        output = answer.stdout + answer.stderr
        assert (answer.returncode != 0) == is_refused, output
        return output

    @property
    def environment(self):
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        names = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDPIPE", "DVC", "GIT"))}
        own = {
            "PYTHONPATH": str(self.root),
            "PATH": programs,
            "EDPIPE_TEST_RUNS": str(self.runs),
            "EDPIPE_THREADS": "1",
            "DVC_SITE_CACHE_DIR": f"{self.root}.site",
            "XDG_CACHE_HOME": f"{self.root}.cache",
        }
        return writing_compiled(kept) | names | own

    @property
    def runs(self):
        return self.root.with_name(f"{self.root.name}.runs")

    def steps_of(self, *words):
        """Runs a command; the steps that were really computed, sorted."""
        self.runs.unlink(missing_ok=True)
        output = self.call(*words)
        steps = sorted(self.runs.read_text().splitlines()) if self.runs.exists() else []
        if not steps and words[0] == "snakemake":
            assert "Nothing to be done" in output
        return steps

    def snakemake(self, *words):
        return self.steps_of("snakemake", "--cores", "2", *words)

    def dvc_repro(self):
        return self.steps_of("dvc", "repro")

    def edit(self, before, after, path="params.yaml"):
        text = (self.root / path).read_text()
        assert text.count(before) == 1
        (self.root / path).write_text(text.replace(before, after))

    def edit_code(self, name):
        """Makes the code of a module mean something else, where it stands first; what it computes stays the same."""
        self.edit(*MEANT[name], path=f"edpipe/{name}")

    def comment(self, name):
        """Adds to a module what means nothing."""
        path = self.root / "edpipe" / name
        path.write_text(path.read_text() + "\n# A comment.\n")

    def link_by(self, cache_type):
        """From now on DVC links files to its cache in this way, and those that are there already."""
        self.call("dvc", "config", "cache.type", cache_type)
        self.call("dvc", "checkout", "--relink")

    def git_commit(self):
        self.call("git", "add", "--all")
        self.call("git", "commit", "--quiet", "--allow-empty", "--message", "state")

    def copy(self, root):
        subprocess.run(["cp", "--archive", str(self.root), str(root)], check=True)  # hard links stay hard links
        return Folder(root)


def wait_for(path):
    end_s = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < end_s, f"{path} did not appear"
        time.sleep(0.05)


def clone_of(folder, root):
    """A second person's clone of a folder, committed and pushed; nothing pulled yet."""
    folder.git_commit()
    folder.call("dvc", "push")
    folder.call("git", "clone", "--quiet", str(folder.root), str(root))
    copy_compiled(folder.root / "edpipe", root / "edpipe")
    return Folder(root)


def start(root, cache_type, has_stand_in=True):
    """A fresh git repository, nothing made yet."""
    folder = _template(has_stand_in).copy(root)
    folder.call("git", "init", "--quiet")
    folder.call("dvc", "config", "cache.type", cache_type)
    folder.call("dvc", "remote", "add", "--default", "shared", f"{root}.remote")
    folder.git_commit()
    return folder


@cache
def _template(has_stand_in):
    """All files of such a repository, made once."""
    top = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    root = top / "template"
    copy_package(root)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    if has_stand_in:
        (root / "edpipe/cli/main.py").rename(root / "edpipe/cli/command_line.py")
        shutil.copy(STAND_IN, root / "edpipe/cli/main.py")
        (root / "edpipe/pipeline/jobs/network_checks.py").write_text(NO_CHECKS)
        checks = root / "edpipe/pipeline/state/artifact_checks.py"
        checks.rename(checks.with_name("real_artifact_checks.py"))
        shutil.copy(STAND_IN_CHECKS, checks)
        import_no_steps(root / "edpipe")
    compile_package(root)
    (root / "params.yaml").write_text(PARAMS)
    folder = Folder(root)
    folder.call("edpipe", "tracked_jobs")
    folder.call("edpipe", "code")
    return folder
