"""Stands in for edpipe/cli/main.py in the folders of test_dvc_scenarios.py.

A step writes, instead of what it would compute, a digest of all that it may depend on, and says in a file that it ran.
Everything else is done by the real command line, which lies beside this one as edpipe/cli/command_line.py.
"""

import os
import sys
from pathlib import Path

from edpipe.cli import command_line
from edpipe.errors import EdpipeError
from edpipe.params.load import load_params
from edpipe.pipeline.dvc.lists import STEPS, check_when_under_dvc
from edpipe.pipeline.jobs import data, students, teachers
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.code.versions import tokens
from edpipe.storage.digests import digest_file, digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import to_json

RUNS = "EDPIPE_TEST_RUNS"
"""Names the file to which every step that ran is appended."""

FAILING = Path("failing")
"""Where it exists, the command that it holds fails."""


def main() -> int:
    """Runs the command of this process."""
    step, *words = sys.argv[1:]
    if step not in STEPS:
        return command_line.main()
    try:
        make_outputs(job_of(step, words))
    except EdpipeError as error:
        print(f"edpipe: {error}", file=sys.stderr)
        return 2
    return 0


def job_of(step: str, words: list[str]) -> Job:
    """The job that a command line names."""
    options = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2], strict=True)}
    if "seed" in options:
        options["seed"] = int(options["seed"])
    params = load_params()
    check_when_under_dvc(params)
    if step in ("train_teacher", "fetch_teacher"):
        return teachers.make_teacher(params, **options)
    if step in ("partition_dataset", "partition_by_confusion"):
        return data.partition_dataset(params, **options)
    make = next(getattr(module, step) for module in (data, teachers, students) if hasattr(module, step))
    return make(params, **options)


def make_outputs(job: Job) -> None:
    """Equal knobs, inputs and code give equal files, also in another experiment; of weights the code is indifferent."""
    if FAILING.exists() and FAILING.read_text(encoding="utf-8") in job.command:
        raise EdpipeError("this step is told to fail")
    arguments = {name: value for name, value in job.arguments.items() if name != "experiment"}
    contents = [digest_file(path) for path in job.all_inputs]
    for path in job.outputs:
        code = "" if path.suffix in (".h5", ".safetensors") else tokens(job.units)
        digest = digest_json([job.step, arguments, job.knobs, contents, code])
        write_text_atomically(path, to_json({"digest": digest, "suffix": path.suffix, "top1": int(digest, 16) / 2**64}))
    with Path(os.environ[RUNS]).open("a", encoding="utf-8") as stream:
        stream.write(job.command.removeprefix("edpipe ") + "\n")


if __name__ == "__main__":
    sys.exit(main())
