"""What Snakemake, DVC and edpipe's own commands cost where nothing is to be done, at a hundred and at a thousand jobs.

    python benchmarks/bench_dvc.py                         116 and 1,104 jobs; half an hour, 0.5 GB of disk
    python benchmarks/bench_dvc.py --groups 1              40 jobs, to see that it runs
    python benchmarks/bench_dvc.py --groups 1 --starts     what starting a job costs
    python benchmarks/bench_dvc.py --folder ~/made         keeps what the jobs made there, for the next run

A group is four teachers (one of all classes, three specialists) with soft labels and evaluations, Education
Distillation in three stages and kd in one, three seeds each, and a page for both: 38 jobs. All groups share a data set
of 120 images and its partition. The artifacts are real, from trainings of one epoch. Measured are CPU seconds of the
command and of all processes that it started, once each. With --starts, instead: what a job takes under Snakemake and
under `dvc repro` when each experiment gets a fourth seed, without what the command takes when nothing is to be done.
Linux only.
"""

import argparse
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from edpipe.cli.main import main as main_of_edpipe
from edpipe.params.load import load_params, parse_params
from edpipe.params.schema import Params
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.storage.job import Job
from edpipe.storage.records import made_by

GROUPS = (3, 29)
SEEDS = [0, 1, 2]
MORE_SEEDS = [*SEEDS, 3]
PR_SET_CHILD_SUBREAPER = 36
"""Linux's number for: what a child of mine leaves behind is mine."""
TOOLS = {"snakemake": ("snakemake", "--cores", "1", "--quiet"), "dvc repro": ("dvc", "repro")}
HANDED_OVER = 3
"""Jobs that are handed over to DVC as after a short run."""
COMMANDS: dict[str, Sequence[str]] = {
    "snakemake -n, every artifact read": ("snakemake", "-n", "--quiet"),
    "edpipe dvc-record, all jobs": ("edpipe", "dvc-record"),
    "edpipe dvc-record, 3 jobs": ("edpipe", "dvc-record"),
    "dvc status": ("dvc", "status"),
    "dvc repro, nothing to do": ("dvc", "repro"),
    "snakemake -n": ("snakemake", "-n", "--quiet"),
    "snakemake, nothing to do": ("snakemake", "--quiet"),
    "edpipe plan": ("edpipe", "plan"),
    "edpipe check": ("edpipe", "check"),
    "edpipe verify --quick": ("edpipe", "verify", "--quick"),
}
"""In this order: each finds what those before it have left."""


def raw_params(num_groups: int, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """params.yaml of so many groups."""
    fitting = {"recipe": "tiny", "epochs": 1, "learning_rate": 0.1}
    teacher = {"network": {"model": "resnet8"}, "fitting": fitting, "min_top1": 0.0}
    common = {"dataset": "digits", "partition": "thirds", "student": "small", "recipe": "tiny", "seeds": [*seeds]}
    teachers, experiments = dict[str, Any](), dict[str, Any]()
    for number in range(num_groups):
        whole, specialists = f"whole_{number}", f"specialists_{number}"
        teachers |= {whole: teacher, specialists: {**teacher, "partition": "thirds"}}
        stages = {name: {"images": 32} for name in ("primary", "middle", "university")}
        ed = {"name": "ed", "teacher": specialists}
        experiments[f"ed_{number}"] = {**common, "method": ed, "stages": stages}
        kd = {"name": "kd", "teacher": whole}
        experiments[f"kd_{number}"] = {**common, "method": kd, "stages": {"only": {"images": 32}}}
    return {
        "datasets": {"digits": {"reader": "digits", "image_size": 8, "channels": 1, "max_per_class": 12}},
        "partitions": {"thirds": {"subsets": ["primary", "middle", "university"], "ratio": [1, 1, 1]}},
        "recipes": {"tiny": {"batch_size": 32}},
        "teachers": teachers,
        "students": {"small": {"model": "resnet8"}},
        "soft_labels": {
            "digits": {
                "space": {"augment": {"kind": "pad_crop", "padding": 1, "flip": False}},
                "views": {"number": 2, "per_file": 2},
                "storage": {"precision": "uint8"},
            }
        },
        "experiments": experiments,
        "tracked": list(experiments),
    }


def num_jobs(num_groups: int, seeds: Sequence[int] = SEEDS) -> int:
    """
    >>> num_jobs(3), num_jobs(29)
    (116, 1104)
    """
    params: Params = parse_params(raw_params(num_groups, seeds))
    return len(jobs_of(params, params.tracked))


def make_artifacts(folder: Path, num_groups: int) -> None:
    """Runs in this process every job whose artifact is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with chdir(folder):
        write_params(num_groups)
        params = load_params()
        for job in jobs_of(params, params.tracked):
            if not all(path.exists() for path in job.outputs):
                run(job)


def run(job: Job) -> None:
    """Runs a job in this process, without what it says."""
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        if job.step in ("result", "report"):  # these are told what all others took
            main_of_edpipe(job.command.split()[1:])
            return
        with made_by(job.units):
            import_module(f"edpipe.steps.{job.step}").run(job)


def write_params(num_groups: int, seeds: Sequence[int] = SEEDS) -> None:
    """Without YAML's anchors, which edpipe refuses."""
    plain = type("Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    text = yaml.dump(raw_params(num_groups, seeds), Dumper=plain, sort_keys=False)
    Path("params.yaml").write_text(text, encoding="utf-8")


def make_project(root: Path, made: Path, num_groups: int) -> None:
    """A project in a git repository, set up for DVC, in which everything is made and nothing handed over yet."""
    call("edpipe", "init", "--git", "--dvc", str(root))
    for name in (paths.ARTIFACTS, paths.RESULTS):
        shutil.copytree(made / name, root / name)
    with chdir(root):
        write_params(num_groups)
        call("edpipe", "tracked_jobs")
        call("edpipe", "code")


def call(*words: str) -> None:
    """Runs a command that must succeed; shows what it said where it does not."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def cpu_s(*words: str) -> float:
    """CPU seconds of a command and of all that it started, the fork server too, which ends after it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call(*words)
    with suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def forget_some() -> None:
    """Takes the last jobs out of dvc.lock, as if Snakemake had just made their artifacts."""
    text = Path("dvc.lock").read_text(encoding="utf-8")
    loaded = yaml.load(text, Loader=yaml.CSafeLoader)
    for name in [name for name in loaded["stages"] if name.startswith("report@")][:HANDED_OVER]:
        del loaded["stages"][name]
    Path("dvc.lock").write_text(yaml.safe_dump(loaded, sort_keys=False), encoding="utf-8")


def measure(root: Path, only: str) -> Iterator[tuple[str, str]]:
    """What was measured, and the figure."""
    with chdir(root):
        for name, words in COMMANDS.items():
            if name.endswith(f", {HANDED_OVER} jobs"):
                forget_some()
            if only in name or "dvc-record, all" in name:
                yield name, f"{cpu_s(*words):.1f} s"
        yield "dvc.lock", f"{Path('dvc.lock').stat().st_size / 1e6:.2f} MB"


def measure_starts(root: Path, num_groups: int, only: str) -> Iterator[tuple[str, str]]:
    """What a job takes under each tool; all jobs of a fourth seed, and the results and pages that it changes."""
    with chdir(root):
        call("edpipe", "dvc-record")
        tools = {tool: words for tool, words in TOOLS.items() if only in tool}
        idle_s = {tool: cpu_s(*words) for tool, words in tools.items()}
        write_params(num_groups, MORE_SEEDS)
        call("edpipe", "tracked_jobs")
        new = num_jobs(num_groups, MORE_SEEDS) - num_jobs(num_groups) + 4 * num_groups
        for tool, words in tools.items():
            shutil.copytree(root, root.with_name(tool), symlinks=True)
            with chdir(root.with_name(tool)):
                yield f"{tool}, a job of {new}", f"{(cpu_s(*words) - idle_s[tool]) / new:.2f} s"


@contextmanager
def place(folder: Path | None) -> Iterator[Path]:
    """Where artifacts are kept; without a folder, one that is removed at the end."""
    if folder is not None:
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def main() -> None:
    """Prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, help="of 38 jobs; a table for each number")
    parser.add_argument("--folder", type=Path, help="where the artifacts are kept for the next run")
    parser.add_argument("--starts", action="store_true", help="measure what starting a job costs")
    parser.add_argument("--only", default="", help="measure only commands with this text")
    options = parser.parse_args()
    os.environ |= {"EDPIPE_THREADS": "1", "EDPIPE_DEVICE": "cpu"}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every command compiles the package anew
    for num_groups in options.groups:
        with place(options.folder) as made, tempfile.TemporaryDirectory() as scratch:
            make_artifacts(made / f"{num_groups}", num_groups)
            os.environ["DVC_SITE_CACHE_DIR"] = f"{scratch}/site"
            make_project(Path(scratch, "project"), made / f"{num_groups}", num_groups)
            root = Path(scratch, "project")
            for name, figure in (
                measure_starts(root, num_groups, options.only) if options.starts else measure(root, options.only)
            ):
                print(f"{num_jobs(num_groups):5} jobs  {name:36} {figure:>10}", flush=True)


if __name__ == "__main__":
    main()
