"""workflow/code.yaml: written once, checked in DVC's stages, and each way of not fitting is one line."""

import re
import shutil

import pytest
import yaml
from project import ROOT

from edpipe.cli.main import main
from edpipe.errors import MismatchError
from edpipe.pipeline.dvc import code_file
from edpipe.pipeline.jobs import paths
from edpipe.storage.code.units import unit_names
from edpipe.storage.code.versions import HERE, tokens


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a file that fits."""
    monkeypatch.chdir(tmp_path)
    code_file.write_code()
    return tmp_path


def test_it_holds_the_version_of_each_unit(folder):
    found = yaml.safe_load(paths.CODE.read_text())["code"]
    flat = {f"{kind}.{name}": version for kind, names in found.items() for name, version in names.items()}
    assert flat == tokens(unit_names(HERE))
    code_file.check_code()


def test_a_version_stays_text(folder):
    assert re.search(r'^    report: "\d', paths.CODE.read_text(), re.MULTILINE)


def test_a_file_that_fits_is_not_written_again(folder):
    before_ns = paths.CODE.stat().st_mtime_ns
    code_file.write_code()
    assert paths.CODE.stat().st_mtime_ns == before_ns


def test_a_file_that_does_not_fit_is_one_line_that_names_the_units(folder, monkeypatch):
    edited = dict.fromkeys(["losses.dkd", "steps.result"], "1+0123456789abcdef")
    monkeypatch.setattr(code_file, "tokens", lambda units: tokens(units) | edited)
    with pytest.raises(
        MismatchError,
        match=r"^workflow/code.yaml: does not fit the code of losses.dkd, steps.result any more; "
        r"run `edpipe code`, then call dvc again$",
    ):
        code_file.check_code()
    code_file.write_code()
    code_file.check_code()


@pytest.mark.slow
@pytest.mark.parametrize("contents", [b"<<<<<<< HEAD\n", b"code:\n", b"[1]\n", b"\xff", b"", None])
def test_a_file_that_is_none_fits_no_step_and_is_written_anew(folder, contents):
    if contents is None:
        paths.CODE.unlink()
    else:
        paths.CODE.write_bytes(contents)
    assert code_file.changed_units() == sorted(unit_names(HERE))
    code_file.write_code()
    code_file.check_code()


def test_the_command_writes_it_and_says_whether_it_fits(folder, monkeypatch, capsys):
    for name in ("DVC_STAGE", "EDPIPE_FORK_SERVER"):
        monkeypatch.delenv(name, raising=False)
    paths.CODE.write_text("code: {}\n")
    assert main(["code"]) == 2, "no params.yaml, so no project folder"
    assert capsys.readouterr().err.startswith("edpipe: params.yaml: not found; run edpipe in the folder that holds")
    assert paths.CODE.read_text() == "code: {}\n"
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    assert main(["code", "--check"]) == 2
    assert capsys.readouterr().err.startswith("edpipe: workflow/code.yaml: does not fit the code of losses.at")
    assert main(["code"]) == 0
    assert main(["code", "--check"]) == 0
