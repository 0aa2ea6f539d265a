"""How schedulers are called: with commands on the path that keep their words and answer as the real ones do."""

import stat
from pathlib import Path

import pytest

from edpipe.errors import EdpipeError
from edpipe.pipeline.cluster import calls
from edpipe.pipeline.cluster.fates import GONE, Fate
from edpipe.pipeline.cluster.other_schedulers import OtherScheduler
from edpipe.pipeline.cluster.request import Request
from edpipe.pipeline.cluster.settings import ClusterSettings
from edpipe.pipeline.cluster.slurm import Slurm

REQUEST = Request("run_stage-x-1", "run_stage", (), "", cpus=4, gpus=1, mem_mb=8000, minutes=90, nodes=1)
SCRIPT, OUTPUT = Path("job.sh"), Path("out.log")


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Puts a command on the path that appends its words to a file and then runs some lines of shell."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(calls, "PAUSES_S", (0, 0))

    def put(name, lines):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/words\n{lines}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    put.words = lambda: (tmp_path / "words").read_text().splitlines()
    return put


def slurm(**settings):
    return Slurm(ClusterSettings.model_validate({"scheduler": "slurm", **settings}))


def other(**commands):
    words = {"submit": "sub -n {cpus} {script}", "ask": "ask {id}", "cancel": "end {id}", **commands}
    return OtherScheduler(ClusterSettings.model_validate({"scheduler": "commands", "commands": words}))


def test_sbatch_is_told_what_the_job_asks_for(answer):
    answer("sbatch", "echo '17;here'")
    settings = {"account": "a", "partition": "cpu", "gpu_partition": "gpu", "gpu_type": "h100", "options": ["--qos=q"]}
    assert slurm(**settings).submit(REQUEST, SCRIPT, OUTPUT) == "17"
    [words] = answer.words()
    for word in ("--cpus-per-task=4", "--mem=8000M", "--time=90", "--gres=gpu:h100:1", "--account=a", "--qos=q"):
        assert word in words.split()
    assert "--partition=gpu" in words
    assert words.endswith(" job.sh")


def test_a_job_without_a_gpu_goes_to_the_other_partition(answer):
    answer("sbatch", "echo 17")
    request = Request("r", "r", (), "", cpus=1, gpus=0, mem_mb=1, minutes=1, nodes=1)
    slurm(partition="cpu", gpu_partition="gpu").submit(request, SCRIPT, OUTPUT)
    slurm().submit(request, SCRIPT, OUTPUT)
    first, second = answer.words()
    assert "--partition=cpu" in first
    assert "--gres" not in first
    assert "--partition" not in second


def test_what_sbatch_refuses_is_one_line(answer):
    answer("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(
        EdpipeError, match=r"^sbatch: refuses run_stage-x-1: sbatch: error: invalid partition; mend the"
    ):
        slurm().submit(REQUEST, SCRIPT, OUTPUT)
    assert len(answer.words()) == 1


def test_a_failure_that_passes_is_waited_for(answer, tmp_path):
    up = tmp_path / "up"
    answer("sbatch", f"test -e {up} || {{ touch {up}; echo 'Socket timed out' >&2; exit 1; }}; echo 5")
    assert slurm().submit(REQUEST, SCRIPT, OUTPUT) == "5"
    assert len(answer.words()) == 2


def test_squeue_says_of_all_jobs_how_they_stand(answer):
    lines = ("1|RUNNING|n1|None", "2|TIMEOUT|n1|TimeLimit", "3|PENDING||launch failed requeued held", "")
    answer("squeue", "".join(f"echo '{line}'\n" for line in lines))
    found = slurm().states(["1"])
    assert (found["1"].is_alive, found["1"].node) == (True, "n1")
    assert (found["2"].is_alive, found["2"].fate) == (False, Fate.TIMED_OUT)
    assert (found["3"].is_alive, found["3"].fate) == (False, Fate.NODE_LOST)
    assert "4" not in found


@pytest.mark.parametrize(
    ("word", "fate"),
    [("CANCELLED", Fate.CANCELLED), ("NODE_FAIL", Fate.NODE_LOST), ("PREEMPTED", Fate.PREEMPTED),
     ("OUT_OF_MEMORY", Fate.OUT_OF_MEMORY), ("FAILED", Fate.FAILED), ("COMPLETED", None)],
)  # fmt: skip
def test_states_of_slurm_that_are_ends(answer, word, fate):
    answer("squeue", f"echo '1|{word}|n1|x'")
    found = slurm().states(["1"])["1"]
    assert (found.is_alive, found.fate, found.word) == (False, fate, word)


@pytest.mark.parametrize("word", ["PENDING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "SOMETHING_NEW"])
def test_all_others_are_alive(answer, word):
    answer("squeue", f"echo '1|{word}|n1|x'")
    assert slurm().states(["1"])["1"].is_alive


def test_a_slurm_that_does_not_answer_says_nothing(answer):
    answer("squeue", "exit 1")
    assert slurm().states(["1"]) is None


def test_another_scheduler_is_called_as_the_settings_say(answer):
    answer("sub", "echo 'Job <12> is submitted to queue 3'")
    answer("ask", "echo RUN")
    answer("end", "")
    found = other(id=r"Job <(\d+)>", alive="RUN")
    assert found.submit(REQUEST, SCRIPT, OUTPUT) == "12"
    assert found.states(["12"])["12"].is_alive
    found.cancel(["12", "13"])
    assert answer.words() == ["-n 4 job.sh", "12", "12", "13"]


def test_a_job_that_is_neither_waiting_nor_running_is_gone(answer):
    answer("ask", "echo DONE")
    assert other(alive="RUN").states(["1"]) == {"1": GONE}
    assert other().states(["1"])["1"].is_alive
    answer("ask", "exit 3")
    assert other().states(["1"]) == {"1": GONE}


def test_what_another_scheduler_refuses_is_one_line(answer):
    answer("sub", "echo no such queue >&2; exit 4")
    with pytest.raises(EdpipeError, match=r"^sub -n 4 job\.sh: fails with exit code 4: no such queue; mend"):
        other().submit(REQUEST, SCRIPT, OUTPUT)
    answer("sub", "echo thanks")
    with pytest.raises(EdpipeError, match=r"printed 'thanks', in which '\\\\d\+' finds no id; mend commands\.id"):
        other().submit(REQUEST, SCRIPT, OUTPUT)


def test_names_with_odd_characters_reach_the_scheduler_whole(answer):
    answer("sub", 'test -e "$3" || true; echo 1')
    other().submit(REQUEST, Path("a folder/it's.sh"), OUTPUT)
    assert answer.words() == ["-n 4 a folder/it's.sh"]


def test_cancelling_what_has_ended_is_no_failure(answer):
    answer("end", "exit 1")
    other().cancel(["1"])
    answer("scancel", "exit 0")
    slurm().cancel(["1", "2"])
    assert answer.words()[-1] == "1 2"


def test_a_host_without_slurm_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdpipeError, match=r"^sbatch: not found; call snakemake on a host from which jobs can be"):
        slurm().submit(REQUEST, SCRIPT, OUTPUT)
    assert slurm().states(["1"]) is None


def test_a_scheduler_that_never_answers_is_no_refusal(answer):
    answer("sbatch", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(TimeoutError, match=r"^sbatch: the scheduler does not answer; asked 3 times"):
        slurm().submit(REQUEST, SCRIPT, OUTPUT)
    assert len(answer.words()) == 3


def test_a_command_that_hangs_is_given_up(answer, monkeypatch):
    monkeypatch.setattr(calls, "LONGEST_S", 0.2)
    answer("squeue", "sleep 5")
    assert slurm().states(["1"]) is None
    answer("scancel", "sleep 5")
    with pytest.raises(TimeoutError):
        slurm().cancel(["1"])
