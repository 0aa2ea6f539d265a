"""cluster.yaml: what is allowed, and one line for everything that is not."""

import pytest

from edpipe.errors import EdpipeError
from edpipe.pipeline.cluster.settings import load_settings

COMMANDS = "{submit: 'sub {script}', ask: 'ask {id}', cancel: 'end {id}'}"


def load(tmp_path, text):
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_defaults_are_those_of_the_cluster(tmp_path):
    found = load(tmp_path, "scheduler: slurm\n")
    assert (found.account, found.partition, found.gpu_type, found.max_cpus, found.options) == (
        None,
        None,
        None,
        None,
        (),
    )
    assert found.retries == 5


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("scheduler: lsf", "scheduler: 'lsf': input should be 'slurm' or 'commands'"),
        ("account: a", "scheduler: missing; it must be given"),
        ("scheduler: slurm\nacount: a", "acount: unknown key; did you mean 'account'?"),
        ("scheduler: slurm\nretries: -1", "retries: -1: input should be greater than or equal to 0"),
        ("scheduler: slurm\nsteps: {run_stage: {minutes: 0}}", "steps.run_stage.minutes: 0: input should be greater"),
        ("scheduler: slurm\nsteps: {run_stage: {gpu: 1}}", "steps.run_stage.gpu: unknown key; did you mean 'gpus'?"),
        ("scheduler: commands", "`commands` belongs to `scheduler: commands`, and to no other; give both or neither"),
        (f"scheduler: slurm\ncommands: {COMMANDS}", "`commands` belongs to `scheduler: commands`"),
        (f"scheduler: commands\naccount: a\ncommands: {COMMANDS}", "`account` is for Slurm; write it into"),
        (
            "scheduler: commands\ncommands: {submit: sub, ask: 'a {id}', cancel: 'c {id}'}",
            "commands.submit: must hold {script}",
        ),
        (
            "scheduler: commands\ncommands: {submit: 's {script}', ask: ask, cancel: 'c {id}'}",
            "commands.ask: must hold {id}",
        ),
        (
            "scheduler: commands\ncommands: {submit: 's {script} {cores}', ask: 'a {id}', cancel: 'c {id}'}",
            "commands.submit: {cores} is not known; known: script, name, output, folder, cpus, gpus, mem_mb, minutes",
        ),
        (
            "scheduler: commands\ncommands: {submit: 's {script} {', ask: 'a {id}', cancel: 'c {id}'}",
            "write {{ for a brace",
        ),
        (
            "scheduler: commands\ncommands: {submit: 's {script}', ask: 'a {id}', cancel: 'c {id}', alive: '('}",
            "commands.alive: is no regular expression: ",
        ),
        ("scheduler: [", "not valid YAML"),
        ("- a", "must be a mapping of sections, got list"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file(tmp_path, text, line):
    with pytest.raises(EdpipeError) as caught:
        load(tmp_path, text)
    [found] = str(caught.value).splitlines()
    assert found.startswith(f"{tmp_path / 'cluster.yaml'}")
    assert line in found


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(EdpipeError, match=r"cluster\.yaml: cannot be read: .*; the submit command of a profile names"):
        load_settings(tmp_path / "cluster.yaml")
