"""Dumps soft labels in child processes that may be killed; run by tests/test_dump_kill.py, once, as a program.

`python killable_dump.py JOB.json` imports what a dump needs, then forks a child for each line it reads:

    dump            the dump, undisturbed
    dump N          the same, but it kills itself with SIGKILL just before its N-th act upon the disk
    before N        the same, but it kills itself before it asks the teacher about the N-th block
    after N         the same, but it kills itself when the teacher has answered about the N-th block
    count           the same, but it notes in the log each act upon the disk

and prints the child's process id when it starts and, after another line, how it ended. A child adds a line to the log
for each block that it asks the teacher about.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

ACTS = ("pwrite", "write", "fdatasync", "fsync", "ftruncate", "replace", "unlink", "rmdir", "mkdir", "posix_fallocate")
"""What a dump does to the disk, all in the module os."""


def main(job):
    """Reads orders until there are no more."""
    prepare(job)
    for line in sys.stdin:
        words = line.split()
        child = os.fork()
        if child == 0:
            run(job, words)
        print(child, flush=True)
        sys.stdin.readline()  # until it is asked how the child ended, nobody else gets the child's process id
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def prepare(job):
    """Small blocks, a log of the blocks that the teacher is asked about, and one digest for the code, come what may."""
    import edpipe.soft_labels.file.checks as checks
    import edpipe.soft_labels.file.format as format_
    import edpipe.soft_labels.file.writer as writer
    from edpipe.soft_labels.teacher_outputs import TeacherForward

    for module in (checks, format_, writer):
        module.BLOCK_ROWS = job["block_rows"]
    outputs = TeacherForward.outputs

    def logged_ask(interview, sample_ids, views):
        note(job, f"{views[0]} {sample_ids[0]} {len(sample_ids)}")
        return outputs(interview, sample_ids, views)

    TeacherForward.outputs = logged_ask


def kill_at_block(moment, number):
    """Kills this process before or after the teacher is asked about a block; a first question is about sizes alone."""
    from edpipe.soft_labels.teacher_outputs import TeacherForward

    ask, count = TeacherForward.outputs, -1

    def counted_ask(interview, sample_ids, views):
        nonlocal count
        count += 1
        if (moment, count) == ("before", number):
            os.kill(os.getpid(), signal.SIGKILL)
        answer = ask(interview, sample_ids, views)
        if (moment, count) == ("after", number):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    TeacherForward.outputs = counted_ask


def note(job, text):
    """Adds a line to the log, in one go."""
    descriptor = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.writev(descriptor, [f"{text}\n".encode()])
    os.close(descriptor)


def run(job, words):
    """The dump; does not come back."""
    from edpipe.params.soft_labels import DumpKnobs, StorageKnobs, ViewSpace
    from edpipe.soft_labels.teacher_outputs import TeacherFiles
    from edpipe.steps.dump_soft_labels import dump_soft_labels
    from edpipe.views.spec import ViewRange

    code = 1
    try:
        os.setsid()
        if words[0] in ("before", "after"):
            kill_at_block(words[0], int(words[1]))
        else:
            watch_acts(job, words)
        files = TeacherFiles(job["teacher"], "all", Path(job["dataset"]), None, Path(job["weights"]))
        knobs = DumpKnobs(ViewSpace.model_validate(job["space"]), StorageKnobs.model_validate(job["storage"]), 0.0)
        dump_soft_labels(files, knobs, ViewRange(0, job["num_views"]), Path(job["target"]))
        code = 0
    finally:
        os._exit(code)


def watch_acts(job, words):
    """Counts what is done to the disk from now on, and kills this process before the act that was asked for."""
    if words == ["dump"]:
        return
    last = int(words[1]) if words[0] == "dump" else 0
    count = 0
    shutil._use_fd_functions = False  # rmtree then removes files one by one, by os.unlink
    for name in ACTS:
        original = getattr(os, name)

        def act(*arguments, name=name, original=original, **options):
            nonlocal count
            count += 1
            if words[0] == "count":
                note(job, f"act {count} {name}")
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(os, name, act)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
