"""Snakemake and DVC side by side in one folder: what one of them has made, the other must not make again.

Each test works in a git repository of its own that holds a copy of the package, the workflow and a small params.yaml.
In all but the last, steps are played by stand_in_command_line.py, so that what is counted is exactly what ran.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

pytest.importorskip("dvc")
pytest.importorskip("snakemake")
pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parent.parent
STAND_IN = Path(__file__).with_name("stand_in_command_line.py")
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
    views: { number: 2, per_file: 1 }
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
STUDENT_RULES = {"run_stage", "evaluate", "result", "report"}
SHARED_GROUPS = ("pack_dataset", "partition_dataset", "train_teacher", "dump_soft_labels", "verify_soft_labels")
TEACHERS = (("whole", "all"), ("specialists", "primary"), ("specialists", "middle"), ("specialists", "university"))
NUM_STEPS = 32  # a dataset, a partition, 4 teachers, 8 dumps, 4 checks, 5 stages, 3 times evaluate, result, report


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
        }
        return kept | names | own | {"DVC_SITE_CACHE_DIR": f"{self.root}.site", "XDG_CACHE_HOME": f"{self.root}.cache"}

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

    def git_commit(self):
        self.call("git", "add", "--all")
        self.call("git", "commit", "--quiet", "--allow-empty", "--message", "state")

    def copy(self, root):
        subprocess.run(["cp", "--archive", str(self.root), str(root)], check=True)  # hard links stay hard links
        return Folder(root)


def start(root, cache_type, has_stand_in=True):
    """A fresh git repository, nothing made yet."""
    root.mkdir()
    for name in ("edpipe", "workflow"):
        shutil.copytree(PROJECT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    if has_stand_in:
        (root / "edpipe/__main__.py").rename(root / "edpipe/command_line.py")
        shutil.copy(STAND_IN, root / "edpipe/__main__.py")
    (root / "params.yaml").write_text(PARAMS)
    folder = Folder(root)
    folder.call("git", "init", "--quiet")
    folder.call("dvc", "config", "cache.type", cache_type)
    folder.call("dvc", "remote", "add", "--default", "shared", f"{root}.remote")
    folder.call("edpipe", "tracked_jobs")
    folder.git_commit()
    return folder


@pytest.fixture(scope="module")
def _finished(tmp_path_factory):
    folder = start(tmp_path_factory.mktemp("finished") / "first", "copy")
    assert len(folder.snakemake()) == NUM_STEPS
    folder.git_commit()
    return folder


@pytest.fixture
def finished(_finished, tmp_path):
    """A folder in which everything is made and committed."""
    return _finished.copy(tmp_path / "project")


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_both_tools_agree_through_a_whole_story(tmp_path, cache_type):
    folder = start(tmp_path / "project", cache_type)

    assert len(folder.snakemake()) == NUM_STEPS
    assert "Data and pipelines are up to date." in folder.call("dvc", "status")
    assert folder.snakemake() == [], "a second snakemake computes nothing"
    assert folder.dvc_repro() == [], "and a following dvc repro computes nothing"
    assert folder.snakemake() == [], "and a following snakemake computes nothing"
    assert folder.call("git", "status", "--short", "--untracked-files=all").split() in ([], ["A", "dvc.lock"])
    folder.git_commit()

    folder.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    assert folder.snakemake() == FROM_MIDDLE, "changed middle, snakemake first"
    assert folder.dvc_repro() == []
    folder.git_commit()

    folder.edit(MIDDLE.replace("0.1", "5e-2"), MIDDLE)
    assert folder.dvc_repro() == [], "set back: DVC's run cache has it"
    assert folder.snakemake() == [], "and snakemake is content with what DVC put in place"

    folder.edit(MIDDLE, MIDDLE.replace("0.1", "0.07"))
    assert folder.dvc_repro() == FROM_MIDDLE, "changed middle, dvc first"
    assert folder.snakemake() == []
    assert folder.dvc_repro() == []
    folder.git_commit()

    folder.call("git", "checkout", "--quiet", "HEAD~2")
    folder.call("dvc", "checkout")
    assert folder.snakemake() == [], "an older commit, checked out by both git and dvc"
    assert folder.dvc_repro() == []

    folder.edit("tracked: [ce, kd, ed]\n", SECOND_ED)
    expected = sorted([*stages_of("ed_longer", "primary", "middle", "university"), *end_of("ed_longer")])
    assert folder.snakemake() == expected, "a new experiment on the same teachers dumps nothing"
    assert folder.dvc_repro() == []
    assert folder.snakemake() == [], "although two students are equal files, which share one place in the cache"


def test_dvc_made_files_are_not_taken_for_fresh_after_an_edit(tmp_path):
    folder = start(tmp_path / "project", "copy")
    assert len(folder.dvc_repro()) == NUM_STEPS
    assert folder.snakemake() == [], "after dvc repro"
    folder.edit("temperature: 4", "temperature: 2")
    assert folder.snakemake() == ALL_OF_KD, "no teacher, no dump; and no stale result for want of a record"
    assert folder.dvc_repro() == []


@pytest.mark.parametrize("tool", ["snakemake", "dvc_repro"])
def test_a_change_re_runs_exactly_what_depends_on_it(finished, tool):
    run = getattr(finished, tool)

    finished.edit("temperature: 4", "temperature: 3")
    assert run() == ALL_OF_KD, "temperature: no teacher, no dump"

    finished.edit("learning_rate: 0.2 }\n    min_top1", "learning_rate: 0.3 }\n    min_top1")
    every = ["train_teacher", "verify_soft_labels"]
    steps = [*(s for e in every for s in teacher_steps(e)), *teacher_steps("dump_soft_labels", "0-0", "1-1")]
    specialists = [step for step in steps if "specialists" in step]
    below = [*stages_of("ed", "primary", "middle", "university"), *end_of("ed")]
    assert run() == sorted([*specialists, *below]), "a teacher's knob: exactly its descendants"

    text = (finished.root / "params.yaml").read_text()
    reordered = text.replace("images: 64, learning_rate: 0.1", "learning_rate: 0.1, images: 64")
    assert reordered != text
    (finished.root / "params.yaml").write_text("# A comment.\n" + reordered)
    assert run() == [], "a comment and another order of keys"

    losses = finished.root / "edpipe/losses.py"
    losses.write_text(losses.read_text() + "\n# A harmless line.\n")
    assert run() == ALL_STUDENT_STEPS, "edited losses.py: stages and what follows, no dump"

    other = finished.dvc_repro if tool == "snakemake" else finished.snakemake
    assert other() == [], "the other tool agrees with all of it"


def soft_labels_of(folder):
    """Which file is which, and when it was written."""
    files = sorted((folder.root / "artifacts/soft_labels").rglob("views_*"))
    return {path.relative_to(folder.root).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


TAUGHT_STEPS = sorted(set(ALL_STUDENT_STEPS) - {*stages_of("ce", "only"), *end_of("ce")})


@pytest.mark.parametrize("tool", ["snakemake", "dvc_repro"])
def test_more_views_add_files_and_leave_finished_ones_alone(finished, tool):
    run = getattr(finished, tool)
    other = finished.dvc_repro if tool == "snakemake" else finished.snakemake
    before = soft_labels_of(finished)
    assert len(before) == 16
    finished.edit("number: 2", "number: 3")
    if tool == "dvc_repro":
        finished.call("edpipe", "tracked_jobs")
    assert run() == sorted(
        [*teacher_steps("dump_soft_labels", "2-2"), *teacher_steps("verify_soft_labels"), *TAUGHT_STEPS]
    )
    after = soft_labels_of(finished)
    assert len(after) == 24
    assert {path: after[path] for path in before} == before
    assert other() == [], "the other tool agrees"
    assert run() == []


@pytest.mark.parametrize(
    ("before", "after", "views"),
    [("per_file: 1", "per_file: 2", ["0-1"]), ("precision: uint8", "precision: float16", ["0-0", "1-1"])],
)
def test_other_files_or_another_precision_are_dumped_again(finished, before, after, views):
    finished.edit(before, after)
    expected = [*teacher_steps("dump_soft_labels", *views), *teacher_steps("verify_soft_labels"), *TAUGHT_STEPS]
    assert finished.snakemake() == sorted(expected)
    assert finished.dvc_repro() == []
    assert finished.snakemake() == []


@pytest.mark.parametrize("tool", ["snakemake", "dvc_repro"])
def test_soft_labels_of_an_earlier_setting_disturb_nobody(finished, tmp_path, tool):
    """They lie in the folder that verify_soft_labels depends on, but not in a clone's."""
    earlier = set(soft_labels_of(finished))
    finished.edit("per_file: 1", "per_file: 2")
    finished.snakemake()
    assert earlier < set(soft_labels_of(finished)), "nothing is deleted"
    assert finished.dvc_repro() == []
    clone = clone_of(finished, tmp_path)
    clone.call("dvc", "pull")
    assert earlier.isdisjoint(soft_labels_of(clone))
    assert getattr(clone, tool)() == []
    for path in earlier:
        (finished.root / path).unlink()
    assert getattr(finished, tool)() == []


def test_a_touched_module_re_runs_nothing(finished):
    for path in (finished.root / "edpipe").rglob("*.py"):
        path.touch()
    assert finished.snakemake() == []
    assert finished.dvc_repro() == []


def test_a_queue_of_three_values_runs(finished):
    key = "experiments.ed.stages.middle.learning_rate"
    finished.call("dvc", "exp", "run", "--queue", "--set-param", f"{key}=0.01,0.02,0.03")
    assert finished.steps_of("dvc", "exp", "run", "--run-all") == sorted(3 * FROM_MIDDLE)
    assert finished.snakemake() == [], "this folder was left alone"


def test_snakemake_stops_with_one_line_while_dvc_is_busy(finished):
    finished.edit("temperature: 4", "temperature: 5")
    slow = finished.root / "edpipe/__main__.py"
    slow.write_text(slow.read_text().replace("def make_outputs(job: Job) -> None:", SLOW_STEP))
    dvc = subprocess.Popen(
        ["dvc", "repro"],
        cwd=finished.root,
        env=finished.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(finished.root / "started")
        output = finished.call("snakemake", "--cores", "1", is_refused=True)
        assert said(output) == [
            "edpipe: DVC is at work in this folder; wait for it or, if you know better, leave it out with EDPIPE_DVC=0"
        ]
        assert "Traceback" not in output
        assert "run_stage" in finished.call("snakemake", "--dry-run"), "a dry run goes on"
    finally:
        (finished.root / "go").touch()
        assert dvc.wait() == 0
    assert finished.snakemake() == []


SLOW_STEP = '''def make_outputs(job: Job) -> None:
    """Waits until it is told to go on."""
    import time

    Path("started").touch()
    while not Path("go").exists():
        time.sleep(0.05)
'''


def wait_for(path):
    end_s = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end_s, f"{path} did not appear"
        time.sleep(0.05)


def test_lists_that_do_not_fit_stop_dvc_with_one_line(finished):
    finished.edit("tracked: [ce, kd, ed]\n", SECOND_ED)
    output = finished.call("dvc", "repro", is_refused=True)
    assert said(output) == [
        "edpipe: workflow/tracked_jobs.yaml: does not fit params.yaml any more; "
        "run `edpipe tracked_jobs`, then call dvc again"
    ]
    lists = (finished.root / "workflow/tracked_jobs.yaml").read_bytes()
    assert re.search(r"total +7\n", finished.call("snakemake", "--dry-run")), "six steps and rule all"
    assert (finished.root / "workflow/tracked_jobs.yaml").read_bytes() == lists, "a dry run writes nothing"
    finished.call("edpipe", "tracked_jobs")
    assert len(finished.dvc_repro()) == 6
    assert finished.snakemake() == []


def clone_of(folder, tmp_path):
    """A second person's clone of a folder, committed and pushed; nothing pulled yet."""
    folder.git_commit()
    folder.call("dvc", "push")
    folder.call("git", "clone", "--quiet", str(folder.root), str(tmp_path / "second"))
    return Folder(tmp_path / "second")


@pytest.fixture
def clone(finished, tmp_path):
    return clone_of(finished, tmp_path)


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_a_clone_that_pulls_everything_computes_nothing(clone, cache_type):
    clone.call("dvc", "config", "--local", "cache.type", cache_type)
    clone.call("dvc", "pull")
    assert clone.snakemake() == []
    assert clone.dvc_repro() == []
    clone.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    assert clone.snakemake() == FROM_MIDDLE
    assert clone.dvc_repro() == []


def test_a_clone_that_pulls_soft_labels_runs_only_student_steps(clone):
    clone.call("dvc", "pull", *SHARED_GROUPS)
    assert clone.snakemake() == ALL_STUDENT_STEPS
    assert clone.dvc_repro() == []


def test_steps_that_dvc_does_not_know_yet_are_not_made_again(clone):
    clone.call("dvc", "pull", *SHARED_GROUPS)
    clone.call("git", "rm", "--quiet", "--cached", "dvc.lock")
    lock = yaml.safe_load((clone.root / "dvc.lock").read_text())
    lock["stages"] = {name: stage for name, stage in lock["stages"].items() if name.split("@")[0] not in STUDENT_RULES}
    (clone.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    clone.call("snakemake", "--dry-run")
    assert clone.steps_of("env", "EDPIPE_DVC=0", "snakemake", "--cores", "2") == ALL_STUDENT_STEPS
    assert clone.snakemake() == [], "as after a run that was killed before it could hand over"
    assert "14 steps handed over to DVC" in clone.call("edpipe", "dvc-record")
    assert clone.dvc_repro() == []


def test_what_was_made_without_dvc_can_be_handed_over(tmp_path):
    folder = start(tmp_path / "project", "copy")
    assert "steps are out of date or missing" in folder.call("edpipe", "dvc-record", is_refused=True)
    folder.steps_of("env", "EDPIPE_DVC=0", "snakemake", "--cores", "2")
    assert not (folder.root / "dvc.lock").exists()
    assert "33 steps handed over to DVC" in folder.call("edpipe", "dvc-record")
    assert folder.dvc_repro() == []
    assert folder.snakemake() == []


def test_steps_finished_before_a_failure_are_handed_over(tmp_path):
    folder = start(tmp_path / "project", "copy")
    (folder.root / "failing").write_text("evaluate --experiment ed")
    folder.call("snakemake", "--cores", "2", "--keep-going", is_refused=True)
    (folder.root / "failing").unlink()
    assert folder.dvc_repro() == sorted(end_of("ed"))
    assert folder.snakemake() == []


def rules_of(output):
    """The rules and stages that a tool says it has run."""
    return sorted(re.findall(r"(?:Finished jobid: \d+ \(Rule: |Running stage ')(?!all|check_params)(\w+)", output))


def test_real_steps_agree_as_well(tmp_path):
    folder = start(tmp_path / "project", "copy", has_stand_in=False)
    folder.edit("tracked: [ce, kd, ed]", "tracked: [ed]")
    from_middle = ["evaluate", "report", "result", "run_stage", "run_stage"]

    made = rules_of(folder.call("snakemake", "--cores", "2"))
    assert len(made) == 20, made
    assert rules_of(folder.call("dvc", "repro")) == []
    assert "Nothing to be done" in folder.call("snakemake", "--cores", "2")

    folder.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    assert rules_of(folder.call("dvc", "repro")) == from_middle
    assert "Nothing to be done" in folder.call("snakemake", "--cores", "2")
    metrics = (folder.root / "results/ed.json").read_bytes()

    folder.edit(MIDDLE.replace("0.1", "5e-2"), MIDDLE)
    assert rules_of(folder.call("dvc", "repro")) == []
    assert (folder.root / "results/ed.json").read_bytes() != metrics
    folder.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    folder.call("snakemake", "--cores", "2")
    assert (folder.root / "results/ed.json").read_bytes() == metrics, "made again by the other tool: the same bytes"
    assert rules_of(folder.call("dvc", "repro")) == []
