"""`edpipe init` and `edpipe upgrade`: files are written once, renewed while unchanged, never overwritten."""

import shutil
from pathlib import Path

import pytest
from project import ROOT

from edpipe import __version__
from edpipe.cli.commands import upgrade
from edpipe.cli.commands.init import WRITTEN
from edpipe.cli.main import main
from edpipe.params.load import load_params
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.project import files, note, renewal
from edpipe.pipeline.project.files import OWN, TEMPLATES, present_text, wanted_text
from edpipe.storage.sealed_json import write_sealed_json

SNAKEFILE = Path("workflow/Snakefile")
PROFILE = Path("workflow/profiles/slurm/config.yaml")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A new project, not to be changed."""
    root = tmp_path_factory.mktemp("fresh") / "photos"
    assert main(["init", str(root)]) == 0
    return root


@pytest.fixture
def project(fresh, tmp_path, monkeypatch):
    """A copy of it, and the working folder."""
    root = tmp_path / "photos"
    shutil.copytree(fresh, root)
    monkeypatch.chdir(root)
    return root


def said(capsys, *words, code=0):
    """What a command says on either stream."""
    capsys.readouterr()
    assert main(list(words)) == code
    captured = capsys.readouterr()
    return (captured.out + captured.err).splitlines()


KNOB_FILES = ("digits", "digits_ce", "digits_kd", "digits_ed", "digits_teacher", "digits_specialists")


def as_of(monkeypatch, version, **texts):
    """The package as it will be: of another version, with other texts of files by the name of their template."""
    real = files.wanted_text
    changed = {path: texts[name] for path, name in files.OWN.items() if name in texts}
    for module in (note, upgrade):
        monkeypatch.setattr(module, "__version__", version)
    for module in (files, renewal):
        monkeypatch.setattr(module, "wanted_text", lambda path: changed.get(path) or real(path))


def test_a_project_has_every_file_and_nothing_else(fresh):
    there = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    knobs = {path for path in there if path.is_relative_to(paths.KNOBS)}
    assert there - knobs == set(WRITTEN)
    assert {path.name for path in knobs} == {f"{name}.json" for name in KNOB_FILES}


def test_files_of_knobs_that_do_not_fit_are_renewed(project, capsys):
    shown = paths.KNOBS / "experiments" / "digits_ed.json"
    text = shown.read_text()
    shown.write_text("{}")
    assert main(["upgrade", "--check"]) == 2
    assert str(paths.KNOBS) in capsys.readouterr().out
    assert main(["upgrade"]) == 0
    assert shown.read_text() == text


def test_a_new_project_is_as_it_should_be(project, capsys):
    assert said(capsys, "upgrade", "--check") == [f"this project is that of edpipe {__version__}"]
    assert said(capsys, "code", "--check") == []
    assert note.line_about_age() is None
    assert list(load_params().experiments) == list(load_params().tracked) == ["digits_ce", "digits_kd", "digits_ed"]


def test_its_entries_are_those_that_are_shipped():
    shipped = load_raw(ROOT / "params.yaml")
    for section, entries in load_raw(TEMPLATES / "params.yaml").items():
        assert section == "tracked" or entries.items() <= shipped[section].items()


def test_this_repository_is_a_project(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in OWN:
        if not path.name.endswith("ignore"):
            assert present_text(path) == wanted_text(path), f"change {files.template(path)}, then call `edpipe upgrade`"
    assert note.line_about_age() is None, "call `edpipe upgrade`"
    assert "      - edpipe\n" in wanted_text(files.DVC_YAML), "DVC sees edits of the package"


def test_a_project_elsewhere_does_not_depend_on_the_package_as_a_folder(project):
    assert "- edpipe\n" not in (project / "dvc.yaml").read_text()


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", ".gitignore", "workflow/Snakefile"])
def test_nothing_is_overwritten(tmp_path, capsys, name):
    root = tmp_path / "own"
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("mine")
    assert said(capsys, "init", str(root), code=2) == [
        f"edpipe: {root}/{name}: is there already, nothing was written; choose another folder, or renew the files of "
        "an older project with `edpipe upgrade`"
    ]
    assert [path for path in root.rglob("*") if path.is_file()] == [root / name]
    assert (root / name).read_text() == "mine"


def test_a_folder_with_other_files_can_become_a_project(tmp_path, capsys, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    lines = said(capsys, "init", ".")
    assert lines[-1] == "now run: snakemake --cores 2 results/digits_ed.json"
    assert (tmp_path / "images").is_dir()
    assert not (tmp_path / ".git").exists()
    assert not (tmp_path / ".dvc").exists()


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "a").write_text("")
    assert said(capsys, "init", str(tmp_path / "a"), code=2) == [
        f"edpipe: {tmp_path}/a: cannot be made: File exists; choose another folder"
    ]


def test_what_was_written_is_removed_when_the_rest_cannot_be(tmp_path, monkeypatch, capsys):
    def refuse():
        raise files.lists.ParamsError("no space")

    monkeypatch.setattr("edpipe.cli.commands.init.write_generated", refuse)
    assert said(capsys, "init", str(tmp_path / "a"), code=2) == ["edpipe: no space"]
    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file()]


def test_dvc_is_refused_where_it_cannot_work(tmp_path, capsys):
    (line,) = said(capsys, "init", str(tmp_path / "a{b}"), "--dvc", code=2)
    assert "DVC cannot work in a folder whose path has '{' or '}'" in line
    assert not [path for path in (tmp_path / "a{b}").rglob("*") if path.is_file()]


def test_a_remote_needs_dvc(tmp_path, capsys):
    assert said(capsys, "init", str(tmp_path / "a"), "--remote", "../store", code=2) == [
        "edpipe: --remote ../store: only DVC has a remote; give --dvc too"
    ]
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["../store", "s3://bucket/path"])
def test_a_remote_is_the_default_one_and_verified(tmp_path, capsys, address):
    pytest.importorskip("dvc")
    said(capsys, "init", str(tmp_path / "a"), "--dvc", "--remote", address)
    from dvc.config import Config

    config = Config(str(tmp_path / "a/.dvc"))
    assert config["core"]["remote"] == "store"
    remote = config["remote"]["store"]
    assert remote["verify"] is True
    assert remote["url"] == (address if "://" in address else str(tmp_path / "store"))


def test_git_that_is_not_there_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert said(capsys, "init", str(tmp_path / "a"), "--git", code=2) == [
        "edpipe: --git: git cannot be started: No such file or directory; the files are written"
    ]


def test_files_of_an_older_package_are_renewed(project, capsys, monkeypatch):
    as_of(monkeypatch, "9.0.0", **{"workflow/Snakefile": "# newer\n"})
    assert note.line_about_age() == (
        "the workflow files here are older than the installed edpipe 9.0.0; `edpipe upgrade --check` says what would "
        "change, `edpipe upgrade` renews them"
    )
    assert said(capsys, "upgrade", "--check", code=2) == [
        "workflow/Snakefile: would be renewed",
        f"edpipe: upgrade: these files are not those of edpipe 9.0.0 (last renewed by: {__version__}); `edpipe "
        "upgrade` renews them",
    ]
    assert SNAKEFILE.read_text() != "# newer\n", "--check writes nothing"
    assert said(capsys, "upgrade") == ["workflow/Snakefile: renewed", "this project is now that of edpipe 9.0.0"]
    assert SNAKEFILE.read_text() == "# newer\n"
    assert note.line_about_age() is None
    assert said(capsys, "upgrade", "--check") == ["this project is that of edpipe 9.0.0"]


def test_what_the_user_changed_is_kept_and_named_once(project, capsys, monkeypatch):
    SNAKEFILE.write_text("# mine\n")
    assert said(capsys, "upgrade") == [f"this project is that of edpipe {__version__}"]
    as_of(monkeypatch, "9.0.0", **{"workflow/Snakefile": "# newer\n"})
    line, last = said(capsys, "upgrade")
    assert line == (
        f"workflow/Snakefile: kept, since you changed it; take over what is new from {TEMPLATES}/workflow/Snakefile, "
        "or delete it and call `edpipe upgrade` again"
    )
    assert last == "this project is now that of edpipe 9.0.0"
    assert SNAKEFILE.read_text() == "# mine\n"
    assert said(capsys, "upgrade") == ["this project is that of edpipe 9.0.0"], "it was told"
    SNAKEFILE.unlink()
    assert said(capsys, "upgrade")[0] == "workflow/Snakefile: written"
    assert SNAKEFILE.read_text() == "# newer\n"


def test_generated_files_follow_the_package_and_own_lines_stay(project, capsys):
    ignored = Path(".dvcignore")
    ignored.write_text("mine\n" + ignored.read_text())
    files.SCHEMA.write_text("{}")
    PROFILE.unlink()
    assert said(capsys, "upgrade") == [
        f"{PROFILE}: written",
        f"{files.SCHEMA}: renewed",
        f"this project is now that of edpipe {__version__}",
    ]
    assert ignored.read_text().startswith("mine\n")


def test_a_project_of_a_newer_edpipe_is_left_alone(project, capsys):
    write_sealed_json(note.NOTE, note.FORMAT, {"edpipe": "99.0.0", "files": {}})
    told = (
        f"this project's files were written by edpipe 99.0.0, and {__version__} is installed; install 99.0.0 or newer"
    )
    assert note.line_about_age() == told
    assert said(capsys, "upgrade", code=2) == [f"edpipe: upgrade: {told}; nothing was changed"]


def test_without_a_note_nothing_is_known(project, capsys):
    note.NOTE.unlink()
    SNAKEFILE.write_text("# mine\n")
    assert note.line_about_age() == (
        "workflow/edpipe_project.json is missing, so that the age of this project's files is unknown; `edpipe upgrade` "
        "writes it"
    )
    line, *_ = said(capsys, "upgrade")
    assert line.startswith("workflow/Snakefile: kept, since you changed it")
    assert note.line_about_age() is None


@pytest.mark.parametrize("text", ["{", "{}", None])
def test_an_altered_note_is_one_line(project, capsys, text):
    note.NOTE.write_text(note.NOTE.read_text().replace("0.", "1.") if text is None else text)
    assert said(capsys, "upgrade", code=2) == [
        "edpipe: workflow/edpipe_project.json: altered since written, or no note of a project's files; restore it with "
        "git, or delete it and call `edpipe upgrade`"
    ]


def test_upgrade_outside_a_project_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said(capsys, "upgrade", code=2) == [
        "edpipe: params.yaml: not found; run edpipe in the folder that holds params.yaml, or make one with "
        "`edpipe init FOLDER`"
    ]


def test_params_that_are_wrong_stop_an_upgrade_before_it_begins(project, capsys):
    params = Path("params.yaml")
    params.write_text(params.read_text() + "unknown: 1\n")
    SNAKEFILE.unlink()
    assert said(capsys, "upgrade", code=2)[0].startswith("edpipe: unknown")
    assert not SNAKEFILE.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "digits_ed"],
        ["add", "--list"],
        ["add", "cifar100_ed"],
        ["schema"],
        ["knobs"],
    ],
    ids=" ".join,
)
def test_commands_work_in_a_project(project, capsys, words):
    """`check`, `new`, `zoo` build networks and have tests of their own; results are made in tests/stories."""
    lines = said(capsys, *words)
    assert lines
    assert not [line for line in lines if line.startswith("edpipe: ")]
