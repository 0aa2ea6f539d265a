"""Runs one stage in one or two processes that train together; run by tests/test_processes.py, once, as a program.

`python training_processes.py JOB.json` imports what a stage needs, then for each line it reads, such as

    one 1                 in the folder named so, one process
    two 2                 two processes
    two 2 kill 1 5        the same, but process 1 kills itself by SIGKILL after iteration 5
    two 2 term 0 5        process 0 is sent SIGTERM then

forks the processes, waits, and prints a JSON list: of each its exit code and what it wrote on standard error. Losses of
every iteration are noted, a line each, in <folder>/losses<process>.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


def main(job):
    """Reads orders until there are no more."""
    import edpipe.cli.main
    import edpipe.steps.run_stage  # noqa: F401

    for line in sys.stdin:
        folder, count, *blow = line.split()
        root = Path(job["root"]) / folder
        root.mkdir(exist_ok=True)
        environment = {"WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
        children = [start(job, root, environment | {"RANK": str(rank)}, blow) for rank in range(int(count))]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        said = [(root / f"said{rank}").read_text() for rank in range(int(count))]
        print(json.dumps(list(zip(codes, said, strict=True))), flush=True)


def free_port():
    """One that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(job, root, environment, blow):
    """The process id of a child that runs the stage as one of the processes."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if environment["WORLD_SIZE"] != "1":
            os.environ.update(environment)
        rank = environment["RANK"]
        os.dup2(os.open(root / f"said{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        watch(root / f"losses{rank}", [blow[0], int(blow[2])] if blow and blow[1] == rank else None)
        code = run(job, root / "student.safetensors")
    finally:
        sys.stderr.flush()
        os._exit(code)


def watch(path, blow):
    """Notes the loss of each iteration, and strikes this process after the iteration that was asked for."""
    from edpipe.training.loop import Training

    original = Training.run

    def watched(training, task):
        for progress in original(training, task):
            with path.open("a") as file:
                file.write(f"{progress.iteration} {progress.loss!r}\n")
            if blow and progress.iteration == blow[1]:
                os.kill(os.getpid(), SIGNALS[blow[0]])
            yield progress

    Training.run = watched


def run(job, out):
    """The stage, through the command line's handling of errors and signals; its exit code."""
    from edpipe.cli import main, run_step
    from edpipe.params.plans.plan import StageJobKnobs
    from edpipe.steps.run_stage import run_stage
    from edpipe.training.stage.inputs import StageFiles

    knobs = StageJobKnobs(**{name: as_knobs(name)(value) for name, value in job["knobs"].items()})
    paths = {name: as_paths(value) for name, value in job["files"].items()}
    files = StageFiles(**paths, out=out)
    run_step.STEP_COMMANDS["report"] = (lambda experiment: run_stage("stage", 0, knobs, files), ("experiment",), "any")
    return main.main(["report", "--experiment", "any"])


def as_knobs(name):
    """What reads the knobs of this name."""
    from edpipe.params.plans.plan import StagePlan
    from edpipe.params.recipe import RecipeKnobs
    from edpipe.params.soft_labels import StudentViews
    from edpipe.params.student import StudentKnobs

    models = {"plan": StagePlan, "student": StudentKnobs, "recipe": RecipeKnobs, "views": StudentViews}
    return models[name].model_validate


def as_paths(value):
    """A path, several, or none."""
    if isinstance(value, list):
        return tuple(map(Path, value))
    return Path(value) if value else None


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
