"""SIGTERM and Ctrl-C end a process with the exit codes that schedulers know, at a moment when nothing is lost."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from edpipe.runtime import signals
from edpipe.runtime.signals import SIGNALS, Interrupted, interruptible, postponing


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_interrupts_the_block(number, code):
    with pytest.raises(Interrupted) as raised, interruptible():
        os.kill(os.getpid(), number)
    assert raised.value.exit_code == code


@pytest.mark.parametrize("number", SIGNALS)
def test_a_postponed_signal_is_noted_and_a_later_one_interrupts(number, monkeypatch):
    now_s = 50.0
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: now_s))
    with postponing() as postponed:
        assert postponed.number is None
        os.kill(os.getpid(), number)
        assert postponed.number == number
        with pytest.raises(Interrupted) as raised:
            postponed.interrupt()
        assert raised.value.number == number
        now_s += 0.9  # the same wish, passed on by another process
        os.kill(os.getpid(), number)
        now_s += 0.1
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), number)


def test_a_process_that_no_signal_came_to_ends_as_by_sigterm():
    with postponing() as postponed, pytest.raises(Interrupted) as raised:
        postponed.interrupt()
    assert raised.value.exit_code == 143


def interrupted_library():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Interrupted as interrupted:
        raise SystemError("returned a result with an exception set") from interrupted


def test_an_interruption_that_a_library_turns_into_an_error_is_one_still():
    with pytest.raises(Interrupted) as raised, interruptible():
        interrupted_library()
    assert raised.value.exit_code == 143
    with pytest.raises(SystemError), interruptible():
        raise SystemError


def test_handlers_are_what_they_were_before():
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruptible(), postponing():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible(), postponing() as postponed:
            os.kill(os.getpid(), number)
        assert postponed.number is None
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_an_interruption_is_no_exception_that_a_step_would_take_for_its_own():
    assert not issubclass(Interrupted, Exception)


PROGRAM = """
import os, signal, sys
from edpipe.cli import main as command
command.STEP_COMMANDS["report"] = (lambda experiment: os.kill(os.getpid(), int(experiment)), ("experiment",), "any")
sys.exit(command.main(["report", "--experiment", sys.argv[1]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_command_says_one_line_and_exits_as_schedulers_expect(number, code):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(int(number))], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr == "edpipe: interrupted; what is finished is kept, the same command goes on from there\n"


LATE = """
import atexit, os, signal, sys
from edpipe.cli import entry, main as command
command.STEP_COMMANDS["report"] = (lambda experiment: print("done"), ("experiment",), "any")
atexit.register(lambda: os.kill(os.getpid(), int(sys.argv[-1])))
sys.exit(entry.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_after_the_work_is_done_does_not_make_it_look_failed(number):
    words = ["report", "--experiment", str(int(number))]
    done = subprocess.run([sys.executable, "-c", LATE, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
