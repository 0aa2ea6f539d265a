"""Stands in for edpipe/cli/main.py in the folders of test_dvc_scenarios.py.

A step writes, instead of what it would compute, a digest of all that it may depend on, and a record as a real step
does; it says in a file that it ran. Everything else is done by the real command line, which lies beside this one as
edpipe/cli/command_line.py. What the bridge finds in these artifacts, stand_in_checks.py tells it.
"""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from edpipe.cli import command_line, run_step
from edpipe.errors import EdpipeError
from edpipe.pipeline.jobs.step_table import STEP, Artifact
from edpipe.pipeline.state.artifact_checks import page_text
from edpipe.pipeline.state.recorded import Records, present_origin
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.digests import digest_file, digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import code_of, make_record, record_path, to_json, write_record

RUNS = "EDPIPE_TEST_RUNS"
"""Names the file to which every step that ran is appended."""

FAILING = Path("failing")
"""Where it exists, the command that it holds fails."""

WAITING = Path("waiting")
"""Where it exists, the command that it holds makes the file `started` and goes on once there is one `go`."""


def main() -> int:
    """Runs the command of this process."""
    run_step.import_module = lambda _: SimpleNamespace(run=lambda job, **_: make_outputs(job))
    return command_line.main()


def make_outputs(job: Job) -> None:
    """Equal knobs, inputs and code give equal files, also in another experiment; of weights the code is indifferent."""
    if FAILING.exists() and FAILING.read_text(encoding="utf-8") in job.command:
        raise EdpipeError("this step is told to fail")
    wait_if_told(job)
    if STEP[job.step].artifact is Artifact.PAGE:
        shown = (job.input(role) for role in ("result", "dataset", "partition"))
        write_text_atomically(job.outputs[0], page_text(*shown))
    else:
        _make_with_record(job)
    with Path(os.environ[RUNS]).open("a", encoding="utf-8") as stream:
        stream.write(job.command.removeprefix("edpipe ") + "\n")


def wait_if_told(job: Job) -> None:
    """Waits, if this is the command that is to."""
    if WAITING.exists() and WAITING.read_text(encoding="utf-8") in job.command:
        Path("started").touch()
        while not Path("go").exists():
            time.sleep(0.05)


def _make_with_record(job: Job) -> None:
    for path in job.outputs:
        if path != record_path(job.outputs[0]):
            digest = _digest_of_all(job, "" if path.suffix in (".h5", ".safetensors") else code_of(job.step))
            write_text_atomically(path, _derived_text(path, digest))
    digest = _digest_of_all(job, code_of(job.step))
    facts = {"top1": int(digest, 16) / 2**64}
    facts |= {name: value for name, value in job.arguments.items() if name in ("subset", "seed", "views")}
    if job.step == "evaluate":
        facts |= {"metrics": digest, "stages": []}
    if job.step == "result":
        facts |= {"seeds": [{"seed": seed} for seed in job.knobs.seeds], "method": job.knobs.method}
        facts["experiment"] = job.arguments["experiment"]
    if record_path(job.outputs[0]) == job.outputs[0]:
        facts["digest"] = digest
    else:
        facts["weights_digest"] = digest_file(job.outputs[0])
    write_record(record_path(job.outputs[0]), make_record(job.step, job.knobs, _inputs(job), **facts))


def _derived_text(path: Path, digest: str) -> str:
    """Of a table and of metrics, what DVC can show."""
    top1 = int(digest, 16) / 2**64
    if path.suffix == ".csv":
        return f"images_seen,top1\n64,{top1}\n"
    return to_json({"top1": top1} if path.parent.name == "metrics" else {"digest": digest, "suffix": path.suffix})


def _digest_of_all(job: Job, code: object) -> str:
    arguments = {name: value for name, value in job.arguments.items() if name != "experiment"}
    return digest_json([job.step, arguments, job.knobs, [digest_file(path) for path in job.all_inputs], code])


def _inputs(job: Job) -> dict[str, object]:
    """Digests by role, in the form in which records of this step hold them."""
    found: dict[str, object] = {role: list(digests) for role, digests in present_origin(job, Records()).inputs.items()}
    if job.step in ("run_stage", "partition_by_confusion"):
        found["soft_labels"] = {"digests": found["soft_labels"], "teacher_digests": found.pop("teachers")}
    return found


if __name__ == "__main__":
    sys.exit(main())
