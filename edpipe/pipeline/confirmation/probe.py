"""Runs small jobs of the pipeline with one copy of the package, in a folder of their own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edpipe.errors import MismatchError
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.params.searches.trials import TRIAL_PATTERN
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.jobs.graph import jobs_named
from edpipe.pipeline.jobs.paths import SEARCH_PREFIX
from edpipe.pipeline.jobs.students import study
from edpipe.storage.code.modules import SourceTree
from edpipe.storage.job import Job

PARAMS = Path(__file__).with_name("probe.yaml")
RUN = """
import json, sys
from edpipe.cli.main import main
for words in json.loads(sys.stdin.read()):
    if code := main(words):
        sys.exit(f"edpipe {' '.join(words)}: exit code {code}")
"""
"""One process for all jobs, so that libraries are imported once."""
SHAPES = ("bars", "dots", "rings")
SHAPES_PER_CLASS = 8


def probe_jobs(params: Params) -> list[Job]:
    """All jobs of the probe, inputs before what reads them."""
    named = [*params.experiments, *(f"{SEARCH_PREFIX}{name}" for name in params.searches)]
    return [*jobs_named(params, named), *(study(params, name) for name in params.studies)]


def read_probe() -> Params:
    """The probe's params."""
    return load_params(PARAMS)


def jobs_with(jobs: Sequence[Job], units: Collection[str]) -> list[Job]:
    """Those that hang on some of these units of code; trials of searches run no other code than experiments."""
    return [job for job in jobs if set(job.units) & set(units) and not _is_of_trial(job)]


def _is_of_trial(job: Job) -> bool:
    return re.fullmatch(TRIAL_PATTERN, str(job.arguments.get("experiment"))) is not None


def with_makers(jobs: Sequence[Job], wanted: Sequence[Job]) -> list[Job]:
    """These jobs and all that make their inputs, in the order of `jobs`."""
    maker = {path: job for job in jobs for path in job.outputs}
    needed: set[Path] = set()
    waiting = list(wanted)
    while waiting:
        job = waiting.pop()
        if job.outputs[0] not in needed:
            needed.add(job.outputs[0])
            waiting += [maker[path] for path in job.all_inputs]
    return [job for job in jobs if job.outputs[0] in needed]


def make_folder(folder: Path, jobs: Sequence[Job] = ()) -> None:
    """A project folder with the probe's params and its raw images; the params have searches only if a job is of one.

    edpipe before searches would refuse them, and is asked for other jobs still.
    """
    folder.mkdir(parents=True)
    params = load_raw(PARAMS)
    if not any(job.step == "search" for job in jobs):
        del params["searches"]
    (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    random = np.random.default_rng(0)
    for label, name in enumerate(SHAPES):
        for number in range(SHAPES_PER_CLASS):
            path = folder / "data" / "raw" / "shapes" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = random.integers(0, 120, (48, 40 + 4 * label, 3), dtype=np.uint8)
            noise[:: label + 2] += np.uint8(100)
            Image.fromarray(noise).save(path)


def run_jobs(jobs: Sequence[Job], folder: Path, tree: SourceTree) -> None:
    """Runs the jobs in this order with this copy of the package.

    Raises:
        MismatchError: a job fails.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN],
        input=json.dumps([job.command.split()[1:] for job in jobs]),
        cwd=folder,
        env=_environment(tree),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise MismatchError(f"the probe failed with the code in {tree.root}: {'; '.join(lines[-2:])}")


def _environment(tree: SourceTree) -> dict[str, str]:
    """One thread, the CPU, no DVC: what is compared must not depend on the machine's load."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDPIPE_", "DVC_"))}
    return kept | {
        "EDPIPE_DVC": "0",
        "EDPIPE_THREADS": "1",
        "EDPIPE_DEVICE": "cpu",
        "PYTHONPATH": str(tree.root.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
