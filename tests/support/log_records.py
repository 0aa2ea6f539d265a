"""Log records as Snakemake makes them: those of a real run, recorded with 9.27.1, and made ones.

In the recorded run two soft-label files are refused, since their teacher is weak; all that does not need them goes on.
"""

import io
import json
import logging
import re
from pathlib import Path

from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

RECORDED = Path(__file__).with_name("recorded_run.jsonl")
CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|.)")
"""What a terminal obeys."""


def recorded():
    """The records of the real run, in order."""
    return [record(**json.loads(line)) for line in RECORDED.read_text(encoding="utf-8").splitlines()]


def record(msg="", event=None, levelno=logging.INFO, **facts):
    """One record, as a handler gets it from Snakemake's queue."""
    found = logging.LogRecord("snakemake.logging", levelno, __file__, 1, msg, (), None)
    found.__dict__ |= facts
    if event is not None:
        found.event = LogEvent[event]
    return found


def job_info(number, rule, wildcards=None, log=None, output="made", **facts):
    """The start of a job."""
    defaults = {"rule_msg": None, "shellcmd": f"edpipe {rule}", "reason": "", "indent": False}
    return record(
        f" Rule: {rule}, Jobid: {number}",
        "JOB_INFO",
        jobid=number,
        rule_name=rule,
        wildcards=wildcards or {},
        log=[str(log)] if log else [],
        output=[output] if output else [],
        **{**defaults, **facts},
    )


def job_error(number, rule, log=None, **facts):
    """The failure of a job."""
    defaults = {"rule_msg": None, "shellcmd": f"edpipe {rule}", "aux": {}, "conda_env": None, "indent": False}
    return record(
        f"Error in rule {rule}, jobid: {number}",
        "JOB_ERROR",
        logging.ERROR,
        jobid=number,
        rule_name=rule,
        log=[str(log)] if log else [],
        input=[],
        output=["made"],
        **{**defaults, **facts},
    )


def command_error(command, end="returned non-zero exit status 1."):
    """What Snakemake says of a shell command before it tells which job failed."""
    place = 'CalledProcessError in file "/home/me/rules/a.smk", line 22:'
    text = f"RuleException:\n{place}\nCommand 'set -euo pipefail;  {command}' {end}"
    return record(text, "ERROR", logging.ERROR, exception="RuleException")


def stats(**rules):
    """The table of jobs to run."""
    total = sum(rules.values())
    return record("Job stats:\nthe table\n", "RUN_INFO", stats={**rules, "total": total})


def formatter():
    return DefaultFormatter(set(), show_failed_logs=True)


class Clock:
    """A clock that a test winds on."""

    def __init__(self, now_s=100.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True

    @property
    def text(self):
        """What was written, without what a terminal obeys."""
        return CONTROL.sub("", self.getvalue()).replace("\r", "\n")

    @property
    def lines(self):
        return self.text.splitlines()
