"""`edpipe new-method`: a loss that works, its test and an experiment; or one line and nothing written."""

import subprocess
import sys

import pytest
from project import ROOT, as_yaml, make_project, tiny_params
from shipped import PARAMS_PATH

from edpipe.cli.commands.method_template import method_text, text_of_test
from edpipe.cli.main import main
from edpipe.params.yaml_file import load_raw


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the shipped params.yaml alone."""
    (tmp_path / "params.yaml").write_text(PARAMS_PATH.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(capsys, *words):
    assert main(["new-method", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_a_method_is_at_most_40_lines():
    assert method_text("sharp").count("\n") <= 40


def test_the_method_its_test_and_an_experiment_are_written(folder, capsys):
    before = (folder / "params.yaml").read_text()
    assert main(["new-method", "sharp"]) == 0
    assert names(folder) == ["params.yaml", "sharp.py", "test_sharp.py"]
    assert "`snakemake --cores 2 results/digits_sharp.json`" in capsys.readouterr().out
    text = (folder / "params.yaml").read_text()
    kept = iter(text.splitlines())
    assert all(line in kept for line in before.splitlines()), "lines are only added"
    raw = load_raw(folder / "params.yaml")
    wanted = raw["experiments"]["digits_kd"] | {"method": {"name": "sharp", "teacher": "digits_teacher"}}
    assert raw["plugins"] == ["sharp.py"]
    assert raw["experiments"]["digits_sharp"] == wanted
    assert main(["new-method", "sharper", "--like", "fashion_mnist_kd"]) == 0
    raw = load_raw(folder / "params.yaml")
    assert raw["plugins"] == ["sharp.py", "sharper.py"]
    assert raw["experiments"]["fashion_mnist_sharper"]["dataset"] == "fashion_mnist"
    assert main(["check"]) == 0


@pytest.mark.slow
def test_the_test_that_is_written_passes(tmp_path):
    (tmp_path / "sharp.py").write_text(method_text("sharp"))
    (tmp_path / "test_sharp.py").write_text(text_of_test("sharp"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_sharp.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Sharp"], "new-method: 'Sharp' must be lower-case letters, digits and _, beginning with a letter"),
        (["dkd"], "new-method: there is a method named 'dkd' already; choose another name"),
        (["sharp", "--like", "digits_ce"], "new-method: --like digits_ce: has not one teacher; name an experiment of"),
        (
            ["sharp", "--like", "digits_kdd"],
            "new-method: --like digits_kdd: no such experiment; did you mean 'digits_kd'?",
        ),
    ],
)
def test_what_cannot_be_is_one_line(folder, capsys, words, said):
    assert said in refused(capsys, *words)
    assert names(folder) == ["params.yaml"]


def test_files_and_experiments_that_are_there_are_kept(folder, capsys):
    (folder / "test_sharp.py").write_text("mine")
    assert refused(capsys, "sharp") == (
        "edpipe: new-method: test_sharp.py is there already; rename or remove it, or choose another name"
    )
    assert names(folder) == ["params.yaml", "test_sharp.py"]
    (folder / "test_sharp.py").unlink()
    raw = load_raw(folder / "params.yaml")
    raw["experiments"]["digits_sharp"] = raw["experiments"]["digits_ce"]
    (folder / "params.yaml").write_text(as_yaml(raw))
    assert refused(capsys, "sharp").endswith("params.yaml has an experiment named 'digits_sharp' already; rename it")


def test_without_kd_an_experiment_must_be_named(folder, capsys):
    raw = tiny_params()
    raw["experiments"].pop("kd")
    (folder / "params.yaml").write_text(as_yaml(raw))
    assert "params.yaml has no experiment of method kd; name one by --like EXPERIMENT" in refused(capsys, "sharp")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dkd", "teskd", "dist", "fitnet"])
def test_a_method_of_the_package_is_gone_with_its_file(tmp_path, name):
    project = make_project(tmp_path / "project", tiny_params())
    (project.root / f"edpipe/methods/{name}.py").unlink()
    assert project.edpipe("check").rc == 0
    raw = tiny_params()
    raw["experiments"]["kd"]["method"]["name"] = name
    project.write_params(raw)
    ran = project.edpipe("check")
    assert ran.rc == 2
    assert f"experiments.kd.method.name: '{name}' is not allowed" in ran.err
    units = project.run(
        "python",
        "-c",
        "from edpipe.storage.code.units import *; "
        "from edpipe.storage.code.versions import HERE; print(unit_names(HERE))",
    ).out
    assert f".{name}'" not in units
    assert (ROOT / f"edpipe/methods/{name}.py").is_file()
