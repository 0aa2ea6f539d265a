"""The command line as a whole: what it prints first, its groups, wrong words in one line, encodings, Ctrl-C."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from comparable_results import written
from project import as_yaml, tiny_params

from edpipe.cli.main import main
from edpipe.cli.overview import GROUPS, command_names
from edpipe.cli.run_step import STEP_COMMANDS
from edpipe.runtime.os_errors import REMEDIES, is_outside, line_of

PACKAGE = Path(__file__).resolve().parents[2]
NETWORK_LIBRARIES = ("torch", "timm", "torchvision")


def run_python(folder, code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PACKAGE)} | environment,
        capture_output=True,
        timeout=300,
    )


def said(capsys):
    """The one line on standard error."""
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"edpipe: [^\n]+\n", err), err
    return err.removeprefix("edpipe: ").rstrip()


# What to do first


def test_edpipe_alone_says_how_to_begin(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 10
    for words in (
        "edpipe init my_project",
        "edpipe check",
        "edpipe plan digits_ed",
        "snakemake --cores 2",
        "edpipe --help",
    ):
        assert words in out


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_has_every_command_on_one_line_in_its_group(option, capsys):
    assert main([option]) == 0
    out = capsys.readouterr().out
    blocks = dict(block.split("\n", 1) for block in out.split("\n\n")[1:])
    for title, commands in GROUPS.items():
        assert [line.split()[0] for line in blocks[title].splitlines()] == list(commands)
    steps = next(text for title, text in blocks.items() if title.startswith("steps"))
    assert [line.split()[0] for line in steps.splitlines()] == list(STEP_COMMANDS)
    assert all(len(line) <= 120 for line in out.splitlines())


@pytest.mark.parametrize("name", [*command_names(), *STEP_COMMANDS])
def test_every_command_describes_itself(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert f"usage: edpipe {name}" in capsys.readouterr().out


def test_a_command_is_one_module_and_has_no_name_of_a_step():
    for name in command_names():
        assert find_spec(f"edpipe.cli.commands.{name.replace('-', '_')}"), name
    assert not set(command_names()) & set(STEP_COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"edpipe \d+\.\d+\.\d+\n", capsys.readouterr().out)


# Wrong words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek"], "unknown command 'chek'; did you mean 'check'?"),
        (["run-stage"], "unknown command 'run-stage'; did you mean 'run_stage'?"),
        (["qqqqq"], "unknown command 'qqqqq'; `edpipe --help` lists all"),
        (["--vershon"], "unknown option '--vershon'; did you mean '--version'?"),
        (
            ["compare", "a.json", "--perclass"],
            "compare: unknown option '--perclass'; did you mean '--per-class'?; "
            "`edpipe compare --help` describes the command",
        ),
        (
            ["partition", "show", "digits", "thirds", "--jsn"],
            "partition show: unknown option '--jsn'; did you mean '--json'?; "
            "`edpipe partition show --help` describes the command",
        ),
        (["check", "this"], "check: unexpected argument 'this'; `edpipe check --help` describes the command"),
        (
            ["run_stage", "--experiment", "digits_ed"],
            "run_stage: the following arguments are required: --seed, --stage; "
            "`edpipe run_stage --help` describes the command",
        ),
    ],
)
def test_a_wrong_word_is_one_line_with_the_nearest_known_and_exit_code_2(words, message, capsys):
    assert main(words) == 2
    assert said(capsys) == message


# Imports


@pytest.mark.slow
def test_check_imports_no_network_library_where_params_yaml_names_none_of_theirs(tmp_path):
    (tmp_path / "params.yaml").write_text(as_yaml(tiny_params()), encoding="utf-8")
    code = (
        "import json, sys\nfrom edpipe.cli.entry import main\nsys.argv = ['edpipe', 'check']\ncode = main()\n"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    ran = run_python(tmp_path, code)
    assert ran.returncode == 0, ran.stderr
    checked, end = ran.stdout.decode().splitlines()
    assert checked.endswith("nothing wrong found")
    code, modules = json.loads(end)
    assert code == 0
    assert set(NETWORK_LIBRARIES) & set(modules) == {"torch"}


@pytest.mark.slow
def test_help_imports_neither_torch_nor_any_command(tmp_path):
    code = (
        "import sys\nfrom edpipe.cli.main import main\nmain(['--help'])\n"
        "unwanted = ('edpipe.cli.commands.', 'scipy', 'torch', 'timm', 'h5py')\n"
        "print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    assert run_python(tmp_path, code).stdout.decode().splitlines()[-1] == "[]"


# Encodings


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_terminal_of_few_characters_gets_escapes_and_every_row(tmp_path, encoding):
    paths = [str(written(tmp_path, f"digits_{name}", shift)) for name, shift in (("ed", 0.02), ("ce", 0))]
    code = (
        f"import sys\nfrom edpipe.cli.entry import main\nsys.argv = ['edpipe', 'compare', *{paths!r}]\nsys.exit(main())"
    )
    ran = run_python(tmp_path, code, PYTHONIOENCODING=encoding, COLUMNS="200")
    assert ran.returncode == 0, ran.stderr
    text = ran.stdout.decode(encoding)
    assert ("\\u2265" in text) == (encoding != "utf-8")
    assert ("≥" in text) == (encoding == "utf-8")
    assert all(Path(path).stem in text for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_json_stays_json_on_such_a_terminal(tmp_path, encoding):
    text = "café ≥ 😀 \udcff"
    code = (
        "import json\nfrom edpipe.cli.main import main\nmain(['--version'])\n"
        f"print(json.dumps({text!r}, ensure_ascii=False))"
    )
    ran = run_python(tmp_path, code, PYTHONIOENCODING=encoding)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.decode(encoding).splitlines()[-1]) == text


# Ctrl-C


def test_ctrl_c_at_start_up_is_one_line_and_exit_code_130(tmp_path):
    # The interrupt comes in the midst of the imports: the module that they begin with raises it.
    code = (
        "import os, signal, sys\nfrom edpipe.cli.entry import main\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'edpipe.cli.main':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\nsys.argv = ['edpipe', 'check']\nsys.exit(main())"
    )
    ran = run_python(tmp_path, f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{code}")
    assert ran.returncode == 128 + signal.SIGINT
    assert ran.stderr.decode() == "edpipe: interrupted before it began; nothing was changed\n"


def test_ctrl_c_while_a_command_waits_is_one_line_and_exit_code_130(monkeypatch, capsys):
    monkeypatch.setattr("edpipe.cli.commands.check.load_params", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert main(["check"]) == 128 + signal.SIGINT
    assert said(capsys) == "interrupted; what is finished is kept, the same command goes on from there"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b.h5"),
            "a/b.h5: No space left on device; free",
        ),
        (OSError(errno.EFBIG, "File too large"), "File too large; free space there"),
        (
            PermissionError(errno.EACCES, "Permission denied", b"a\x1b"),
            "a\\u001b: Permission denied; get the",
        ),
        (
            OSError(errno.ELOOP, "Too many levels of symbolic links", "x"),
            "x: Too many levels of symbolic links; ",
        ),
        (OSError(errno.EXDEV, "No", "a", None, "b"), None),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), None),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "no temporary folder can be written to; free space in /tmp, or name another folder in TMPDIR",
        ),
    ],
)
def test_an_error_of_the_machine_is_one_line_and_one_of_the_program_is_none(monkeypatch, capsys, error, line):
    def fail():
        raise error

    monkeypatch.setattr("edpipe.cli.commands.check.load_params", fail)
    if line is None:
        with pytest.raises(OSError, match=str(error.strerror)):
            main(["check"])
    else:
        assert main(["check"]) == 2
        assert said(capsys).startswith(line)


def test_each_errors_number_has_a_remedy():
    for number in REMEDIES:
        error = OSError(number, os.strerror(number), "here", None, "there")
        assert is_outside(error)
        assert line_of(error) == (
            f"here → there: {os.strerror(number)}; {REMEDIES[number]}, then run the same command again"
        )


@pytest.mark.slow
def test_without_a_free_byte_anywhere_a_step_says_one_line(tmp_path):
    (tmp_path / "params.yaml").write_bytes((PACKAGE / "params.yaml").read_bytes())
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nimport sys\nimport edpipe.cli.entry as e\n"
    )
    for words in (["pack_dataset", "--dataset", "digits"], ["run_stage", "--experiment", "digits_ce", "--seed", "0"]):
        more = ["--stage", "only"] if words[0] == "run_stage" else []
        ran = run_python(tmp_path, code + f"sys.argv = {['edpipe', *words, *more]!r}\nsys.exit(e.main())")
        assert ran.returncode == 2, ran.stderr
        assert b"Traceback" not in ran.stderr
        assert ran.stderr.decode().splitlines()[-1].startswith("edpipe: ")


@pytest.mark.slow
def test_ctrl_c_at_any_moment_of_the_start_shows_no_traceback(tmp_path):
    (tmp_path / "params.yaml").write_bytes((PACKAGE / "params.yaml").read_bytes())
    for module in ("edpipe.cli.handover", "edpipe.cli.main", "pydantic", "pydantic_core._pydantic_core", "timm"):
        code = (
            "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "class Interrupting:\n"
            "    def find_spec(self, name, *_):\n"
            f"        if name == {module!r}:\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupting())\nsys.argv = ['edpipe', 'check']\n"
            "from edpipe.cli.entry import main\nsys.exit(main())"
        )
        ran = run_python(tmp_path, code)
        assert ran.returncode == 130, (module, ran.stderr)
        assert ran.stderr.decode().startswith("edpipe: interrupted")
        assert len(ran.stderr.splitlines()) == 1
