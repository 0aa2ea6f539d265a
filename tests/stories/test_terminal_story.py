"""A real run as people see it: in a pipe, and on a terminal of 80 columns; and what else Snakemake prints."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest
from log_records import CONTROL
from project import BIN, TIMEOUT_S, copy_of, make_project, tiny_params

pytestmark = pytest.mark.slow
COLUMNS, ROWS = 80, 24
TARGET = "results/ed.json"
ED_STEPS = {
    "pack_dataset": 1, "partition_dataset": 1, "train_teacher": 2, "dump_soft_labels": 4, "verify_soft_labels": 2,
    "evaluate_teacher": 2, "run_stage": 2, "evaluate": 1, "result": 1,
}  # fmt: skip
NO_CONTROL = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*")
WAITING = """
rule mine:
    output:
        "results/mine.txt",
    shell:
        "echo my own words; sleep 1; touch {output}"
"""


def on_terminal(project, *words, **environment):
    """Runs snakemake on a terminal of its own; its exit code and all that the terminal got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    terminal = {"TERM": "xterm-256color", "COLUMNS": None, "LINES": None, "NO_COLOR": None}
    kept = project.environment(**{**terminal, **environment})
    process = subprocess.Popen(
        [BIN / "snakemake", *words], cwd=project.root, env=kept, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    found = read_to_end(ours, process)
    os.close(ours)
    return process.wait(TIMEOUT_S), found.decode()


def read_to_end(terminal, process):
    found, until_s = b"", time.monotonic() + TIMEOUT_S
    while time.monotonic() < until_s:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                found += os.read(terminal, 65536)
            except OSError:  # nobody holds the other end any more
                return found
        elif process.poll() is not None:
            return found
    raise AssertionError("snakemake did not end")


def lines_of(text):
    """What stood in a line of the terminal at some time."""
    return [line for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if line]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A whole run on a terminal."""
    project = make_project(tmp_path_factory.mktemp("seen") / "project", tiny_params())
    rc, text = on_terminal(project, "--cores", "2", TARGET)
    assert rc == 0, text
    return project, text


def test_a_run_in_a_pipe_has_a_line_at_the_start_and_end_of_each_job(tmp_path):
    project = make_project(tmp_path / "project", tiny_params())
    ran = project.snakemake("--", TARGET)
    assert ran.rc == 0, ran.text
    assert NO_CONTROL.fullmatch(ran.text)
    for word in ("start", "done"):
        found = re.findall(rf"^\d\d:\d\d:\d\d {word} +(\w+): ", ran.err, re.MULTILINE)
        assert {step: found.count(step) for step in found} == ED_STEPS
    top1 = project.read_json("artifacts/evaluations/ed/seed0.json")["metrics"]["top1"]
    assert re.search(
        rf"done    evaluate: evaluate ed seed 0: top1 {top1:.4f}, 2 stages; \d+ s \(15/16\)$", ran.err, re.M
    )
    assert re.search(r"^16 of 16 jobs done in ", ran.last_line)
    assert ran.out == ""


def test_a_terminal_shows_each_job_in_words(seen):
    _, text = seen
    lines = lines_of(text)
    assert "student ed seed 0 stage middle" in text
    for words in ("teacher digits/specialists subset primary", "soft labels of digits/specialists subset middle"):
        assert any(re.match(rf" +\d+ s  {words}", line) for line in lines), words
    assert any(re.match(r" +\d+ s  evaluate ed seed 0: top1 \d\.\d{4}, 2 stages$", line) for line in lines)
    assert any(re.fullmatch(r"\d+ of 16 jobs done(, (about|at least) .+ left)?", line) for line in lines)
    assert re.match(r"16 of 16 jobs done in ", lines[-1])


def test_no_line_of_a_run_is_wider_than_the_terminal(seen):
    _, text = seen
    lines = lines_of(text)
    foreign = [line for line in lines if line.startswith("Using workflow specific profile")]
    assert all(len(line) <= COLUMNS for line in lines if line not in foreign)
    assert len(foreign) <= 1


def test_a_terminal_is_left_as_it_was(seen):
    _, text = seen
    assert text.rpartition("\x1b[?25")[2].startswith("h"), "its cursor is seen"
    assert text.endswith("\n")
    assert "\x1b[?1049h" not in text, "what was there before still is"


def test_a_run_with_nothing_to_do_says_so(seen):
    project, _ = seen
    rc, text = on_terminal(project, "--cores", "2", TARGET)
    assert rc == 0
    assert lines_of(text)[-1] == "Nothing to be done (all requested files are present and up to date)."


@pytest.mark.parametrize(
    ("words", "environment", "is_silent"),
    [
        ((), {"TERM": "dumb"}, False),
        (("--logger-edpipe-view", "plain"), {}, False),
        (("--quiet", "all"), {}, True),
    ],
    ids=["dumb", "plain", "quiet"],
)
def test_terminals_on_which_nothing_changes(seen, tmp_path, words, environment, is_silent):
    project = copy_of(seen[0], tmp_path / "project")
    (project.root / TARGET).unlink()
    rc, text = on_terminal(project, "--cores", "1", TARGET, *words, **environment)
    assert rc == 0
    assert "\x1b" not in text
    assert ("done    result: result of ed" in text) == (not is_silent)
    assert not is_silent or [line for line in lines_of(text) if "profile" not in line] == []


def test_colours_are_left_out_where_they_are_not_wanted(seen, tmp_path):
    project = copy_of(seen[0], tmp_path / "project")
    project.write_params(weak_teacher())
    for environment, has_colour in (({}, True), ({"NO_COLOR": "1"}, False)):
        rc, text = on_terminal(project, "--cores", "1", LABELS, **environment)
        assert rc == 1
        assert ("\x1b[31mfailed after" in text) == has_colour
        assert bool(re.search(r"\x1b\[[\d;]*3\dm", text)) == has_colour


LABELS = "artifacts/soft_labels/digits/specialists/primary/views_0-0.h5"


def weak_teacher():
    params = tiny_params()
    params["teachers"]["specialists"]["min_top1"] = 1.0
    return params


def test_a_failed_job_says_what_failed_where_and_how_to_go_on(seen, tmp_path):
    project = copy_of(seen[0], tmp_path / "project")
    project.write_params(weak_teacher())
    rc, text = on_terminal(project, "--cores", "1", LABELS)
    assert rc == 1
    lines = lines_of(text)
    log = "logs/dump_soft_labels/digits-specialists-primary-views_0-0.log"
    number = next(n for n, line in enumerate(lines) if line.startswith("failed after "))
    assert re.fullmatch(
        r"failed after \d+ s: soft labels of digits/specialists subset primary views 0-0", lines[number]
    )
    assert lines[number + 1 : number + 3] == ["  rule dump_soft_labels, exit status 2", f"  log {log} ends with:"]
    last = (project.root / log).read_text(encoding="utf-8").splitlines()[-1]
    assert last.startswith("edpipe: ")
    assert last in lines
    assert f"  to go on, once that is mended: snakemake --cores 1 {LABELS}" in lines
    assert "At least one job did not complete successfully." in lines
    assert re.match(r"\d+ of \d+ jobs? done in .*, 1 failed$", lines[-1])


def test_what_a_users_own_rule_prints_is_left_alone(seen, tmp_path):
    project = copy_of(seen[0], tmp_path / "project")
    snakefile = project.root / "workflow/Snakefile"
    snakefile.write_text(snakefile.read_text(encoding="utf-8") + WAITING, encoding="utf-8")
    rc, text = on_terminal(project, "--cores", "1", "results/mine.txt")
    assert rc == 0
    printed = CONTROL.split(text.partition("start: mine")[2].partition("s  mine")[0])
    assert "my own words" in "".join(printed)
    assert len([part for part in printed if part.strip()]) == 1, "nothing moves the cursor meanwhile"


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("results/edd.json", "No rule to produce results/edd.json"),
        ("artifacts/evaluations/ed/seed7.json", "edpipe: seeds of experiment 'ed': 7 is not one of them"),
    ],
)
def test_errors_of_the_graph_are_told(seen, target, line):
    project, _ = seen
    rc, text = on_terminal(project, "--cores", "1", target)
    assert rc != 0
    assert any(found.startswith(line) for found in lines_of(text))


def test_a_locked_folder_is_told(seen, tmp_path):
    project = copy_of(seen[0], tmp_path / "project")
    (project.root / TARGET).unlink()
    locks = project.root / ".snakemake/locks"
    locks.mkdir(parents=True, exist_ok=True)
    for kind in ("input", "output"):
        (locks / f"0.{kind}.lock").write_text(f"{TARGET}\n")
    rc, text = on_terminal(project, "--cores", "1", TARGET)
    assert rc == 1
    assert "LockException:" in lines_of(text)
    assert "Directory cannot be locked." in text


@pytest.mark.parametrize(
    "words",
    [
        ("-n", "--", "results/kd.json"),
        ("-n", "--quiet", "--", "results/kd.json"),
        ("--summary", "--", TARGET),
        ("--lint",),
        ("--rulegraph", "dot", "--", TARGET),
        ("--dag", "dot", "--", TARGET),
        ("--list-rules",),
        ("--report", "report.zip", "--", TARGET),
    ],
    ids=lambda words: words[1] if words[0] == "-n" and len(words) > 3 else words[0],
)
def test_what_else_snakemake_prints_is_what_it_was(seen, words):
    """With the plugin and without any profile, word by word but for times."""
    project, _ = seen
    without_plugin = ("--workflow-profile", "none", "--persistence-backend", "file", "--resources", "gpu=1")
    with_it, without = (project.snakemake(*more, *words) for more in ((), without_plugin))
    assert with_it.rc == without.rc == 0, with_it.text
    assert comparable(with_it.out) == comparable(without.out)
    assert set(comparable(with_it.err)) <= set(comparable(without.err))
    if words[:2] == ("-n", "--"):
        assert "Job stats:" in with_it.out
        assert "reason: Missing output files" in with_it.out


def comparable(text):
    lines = [
        line
        for line in text.splitlines()
        if not re.match(r"\[|Using workflow specific|  (Date|Workflow ID|Command):", line)
    ]
    # The order of reasons and of equal jobs is not the same in two runs of Snakemake.
    return sorted(re.sub(r"reason: .*|jobid: .*|\d+\[|\d+ -> \d+", "", line) for line in lines)
