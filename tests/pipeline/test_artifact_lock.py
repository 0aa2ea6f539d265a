"""One process at a time makes an artifact: of one machine, of several that share a folder, and after kills."""

import json
import os
import random
import re
import signal
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edpipe.errors import BusyError
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.state import artifact_lock
from edpipe.pipeline.state.artifact_lock import makers_at_work, only_maker, this_process

OUTPUT = Path("artifacts/students/digits_ed/seed0/1_only.safetensors")
NAME = "artifacts-students-digits_ed-seed0-1_only.safetensors"
BEAT_S, STALE_S = 0.1, 1.0
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty project folder; clocks run faster."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"BEAT_S": BEAT_S, "STALE_S": STALE_S, "POLL_S": 0.02}.items():
        monkeypatch.setattr(artifact_lock, name, value)
    return tmp_path


@pytest.fixture
def start():
    """Starts a child process, on a host of this name; None: on this one. It runs the work, and ends with its code."""
    children = []

    def start(work, host=None):
        child = os.fork()
        if child:
            children.append(child)
            return child
        code = 99
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if host:
                artifact_lock.kernel = lambda: f"kernel of {host}"
                artifact_lock.socket.gethostname = lambda: host
            code = work() or 0
        finally:
            os._exit(code)

    yield start
    for child in children:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def end_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def hold():
    """Takes the lock and keeps it."""
    with only_maker(OUTPUT):
        Path(f"held-{os.getpid()}").touch()
        time.sleep(PATIENCE_S)


def started_holder(start, host=None):
    """A child that has the lock."""
    child = start(hold, host)
    wait_until(Path(f"held-{child}").exists)
    return child


def wait_until(has_come):
    deadline = time.monotonic() + PATIENCE_S
    while not has_come():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def claims():
    return sorted(path.name for path in paths.LOCKS.iterdir())


def write_claim(number, maker, age_s=0.0):
    paths.LOCKS.mkdir(parents=True, exist_ok=True)
    path = paths.LOCKS / f"{NAME}.{number}"
    path.write_text(json.dumps(asdict(maker)) + "\n")
    then_s = time.time() - age_s
    os.utime(path, (then_s, then_s))


def test_a_lock_is_a_file_that_says_who_and_is_gone_after(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with only_maker(OUTPUT):
        assert claims() == [f"{NAME}.1"]
        [maker] = makers_at_work()
        assert (maker.pid, maker.job) == (os.getpid(), "4711")
        assert str(maker) == f"process {os.getpid()} on {maker.host}, job 4711"
    assert claims() == []
    assert makers_at_work() == []


def test_another_artifact_is_free():
    with only_maker(OUTPUT), only_maker(OUTPUT.with_name("2_only.safetensors")):
        assert len(claims()) == 2


def test_a_second_process_is_told_who_and_since_when(start):
    child = started_holder(start)
    began_s = time.monotonic()
    with pytest.raises(BusyError) as caught, only_maker(OUTPUT):
        pass
    assert time.monotonic() - began_s < 10 * BEAT_S
    words = rf"{OUTPUT}: process {child} on \S+ has been making it since 20\d\d-\d\d-\d\d \d\d:\d\d[+-]\d\d:\d\d; "
    assert re.fullmatch(words + "call the same again when that has ended", str(caught.value))
    assert claims() == [f"{NAME}.1"], "the lock is still the first one's"


def test_after_a_kill_on_this_machine_the_lock_is_free_at_once(start, monkeypatch):
    monkeypatch.setattr(artifact_lock, "STALE_S", PATIENCE_S)
    child = started_holder(start)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: artifact_lock._start_of(child) == 0)
    with only_maker(OUTPUT):  # its parent has not yet asked how it ended
        assert claims() == [f"{NAME}.2"]
    end_of(child)


def test_a_process_number_that_is_another_process_today_holds_nothing():
    write_claim(7, replace(this_process(), start=1))
    with only_maker(OUTPUT):
        assert claims() == [f"{NAME}.8"]


def test_another_host_that_works_is_waited_for_until_its_sign(start, capsys):
    child = started_holder(start, "node7")
    with pytest.raises(BusyError, match=f"process {child} on node7 has been making it since "), only_maker(OUTPUT):
        pass
    told = capsys.readouterr().err
    assert re.fullmatch(
        rf"{OUTPUT}: waits for a sign of process {child} on node7, which began to make it at .+\n", told
    )


@pytest.mark.slow
def test_another_host_that_was_lost_is_followed_after_a_while(start):
    child = started_holder(start, "node7")
    os.kill(child, signal.SIGKILL)
    end_of(child)
    last_beat_s = (paths.LOCKS / f"{NAME}.1").stat().st_mtime
    with only_maker(OUTPUT):
        assert time.time() - last_beat_s > STALE_S
        assert claims() == [f"{NAME}.2"]


@pytest.mark.parametrize("wrong_by_s", [-86400, 86400])
def test_the_clock_of_this_machine_does_not_matter(monkeypatch, wrong_by_s):
    elsewhere = replace(this_process(), kernel="another", host="node7")
    write_claim(1, elsewhere, age_s=2 * STALE_S)
    write_claim(2, elsewhere)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + wrong_by_s)
    assert len(makers_at_work()) == 1


@pytest.mark.slow
def test_a_claim_that_is_being_written_counts_as_alive():
    paths.LOCKS.mkdir(parents=True)
    (paths.LOCKS / f"{NAME}.1").touch()
    began_s = time.monotonic()
    with only_maker(OUTPUT):
        assert time.monotonic() - began_s > STALE_S / 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=5))
def test_it_is_taken_if_and_only_if_no_claim_is_alive(here, rivals):
    def refuse(*_):
        raise BusyError("alive")

    own = this_process()
    for number, (is_here, is_alive) in enumerate(rivals, start=1):
        maker = own if is_here else replace(own, kernel="another")
        write_claim(number, maker if is_alive or not is_here else replace(own, start=1), 0 if is_alive else 2 * STALE_S)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact_lock, "_refuse_or_wait", refuse)
        if any(is_alive for _, is_alive in rivals):
            with pytest.raises(BusyError, match="alive"), only_maker(OUTPUT):
                pass
            assert len(claims()) == len(rivals)
        else:
            with only_maker(OUTPUT):
                assert claims() == [f"{NAME}.{len(rivals) + 1}"]
    for path in paths.LOCKS.iterdir():
        path.unlink()


def test_who_looked_long_ago_gives_way(monkeypatch):
    """It saw a dead claim, and by the time it makes its own another has come, worked, gone, and come again."""
    elsewhere = replace(this_process(), kernel="another", host="node7")
    write_claim(3, elsewhere, age_s=2 * STALE_S)
    create = artifact_lock._create

    def create_late(path, own):
        if path.name.endswith(".4"):
            (paths.LOCKS / f"{NAME}.3").unlink(missing_ok=True)
            write_claim(1, replace(this_process(), token="of the other"))
        return create(path, own)

    monkeypatch.setattr(artifact_lock, "_create", create_late)
    with pytest.raises(BusyError, match=f"process {os.getpid()} on "), only_maker(OUTPUT):
        pass
    assert claims() == [f"{NAME}.1"]


def contend(gate, places):
    """Waits for the gate, then tries once; 0: it had the lock, and kept it until all others were through."""
    wait_until(gate.exists)
    try:
        with only_maker(OUTPUT):
            (gate.parent / f"won-{os.getpid()}").touch()
            wait_until(lambda: len(list(gate.parent.glob("lost-*"))) == places - 1)
            return 0
    except BusyError:
        (gate.parent / f"lost-{os.getpid()}").touch()
        return 1


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 3, 8])
def test_of_many_that_follow_a_lost_one_exactly_one_wins(start, here, monkeypatch, hosts):
    monkeypatch.setattr(artifact_lock, "STALE_S", PATIENCE_S)
    for number in range(4):
        round_ = here / f"round{number}"
        round_.mkdir()
        write_claim(1, replace(this_process(), kernel="gone", host="gone"), age_s=2 * PATIENCE_S)
        children = [start(lambda gate=round_ / "gate": contend(gate, 8), f"node{i % hosts}") for i in range(8)]
        (round_ / "gate").touch()
        assert sorted(end_of(child) for child in children) == [0, 1, 1, 1, 1, 1, 1, 1]
        assert claims() == []


def work_often(seed, end_s):
    """Takes the lock again and again, as one of many; sometimes kills itself with it. 3: it met another inside."""
    draw = random.Random(seed)
    while time.monotonic() < end_s:
        try:
            with only_maker(OUTPUT):
                witness = os.open("inside", os.O_CREAT | os.O_RDWR)
                before = os.read(witness, 100)
                if before and is_inside(int(before)):
                    return 3
                os.pwrite(witness, str(os.getpid()).encode().ljust(9), 0)
                time.sleep(draw.uniform(0, 0.02))
                if draw.random() < 0.15:
                    os.kill(os.getpid(), signal.SIGKILL)
                if int(os.pread(witness, 100, 0)) != os.getpid():
                    return 3
                os.ftruncate(witness, 0)
                os.close(witness)
                with open("times", "a") as times:
                    times.write(".")
        except BusyError:
            time.sleep(draw.uniform(0, 0.02))
    return 0


def is_inside(pid):
    return artifact_lock._start_of(pid) not in (0, None)


@pytest.mark.slow
def test_there_are_never_two_inside_whoever_is_killed(start, monkeypatch):
    monkeypatch.setattr(artifact_lock, "STALE_S", 2.0)
    end_s = time.monotonic() + 8
    running = {start(lambda i=i: work_often(i, end_s), f"node{i % 3}"): i for i in range(6)}
    kills = 0
    while running:
        child, status = os.wait()
        number, code = running.pop(child), os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL)
        if code and time.monotonic() < end_s:
            kills += 1
            running[start(lambda i=number, k=kills: work_often(100 * k + i, end_s), f"node{number % 3}")] = number
    assert kills >= 3
    assert len(Path("times").read_text()) >= 10


@pytest.mark.slow
def test_who_gave_no_sign_and_was_followed_ends(start, capfd):
    child = started_holder(start, "node7")
    os.kill(child, signal.SIGSTOP)
    with only_maker(OUTPUT):
        os.kill(child, signal.SIGCONT)
        assert end_of(child) == -signal.SIGTERM
        assert claims() == [f"{NAME}.2"]
    words = f"{OUTPUT}: another process makes it now, since this one gave no sign for 1 s; it ends\n"
    assert words in capfd.readouterr().err


def test_a_file_server_that_is_away_for_a_moment_ends_nobody(monkeypatch):
    own = this_process()
    write_claim(1, own)
    path = paths.LOCKS / f"{NAME}.1"
    assert not artifact_lock._is_lost(path, own)
    assert artifact_lock._is_lost(path, replace(own, token="another"))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
    assert not artifact_lock._is_lost(path, own)
