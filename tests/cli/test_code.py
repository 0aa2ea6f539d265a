"""`edpipe code` in a clone whose package is edited: what is listed, confirmed, refused, and given a new version."""

import subprocess

import pytest
import yaml
from project import make_project

CONFIRMED = "edpipe/storage/code/confirmed.yaml"
LOGITS = "edpipe/losses/logits.py"


def git(root, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *names, "-C", str(root), *words], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path):
    """A git repository with the package, the workflow and the shipped params."""
    project = make_project(tmp_path / "clone")
    (project.root / ".gitignore").write_text("__pycache__/\n.cache/\n")
    git(project.root, "init", "--quiet")
    git(project.root, "add", "--all")
    git(project.root, "commit", "--quiet", "--message", "all")
    return project


def edit(project, name, old, new):
    path = project.root / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (name, old)
    path.write_text(text.replace(old, new), encoding="utf-8")


def entry(project, unit):
    kind, name = unit.split(".")
    return yaml.safe_load((project.root / CONFIRMED).read_text(encoding="utf-8"))[kind][name]


def versions(project):
    return yaml.safe_load((project.root / "workflow/code.yaml").read_text(encoding="utf-8"))["code"]


@pytest.mark.slow
def test_comments_and_texts_edit_no_unit(clone):
    edit(clone, LOGITS, "def dkd_loss(", "# A comment.\ndef dkd_loss(")
    edit(clone, "edpipe/storage/atomic.py", "cannot be written:", "was not written:")
    ran = clone.edpipe("code")
    assert (ran.rc, ran.out) == (0, "43 of 43 units of the code are confirmed\n")
    assert clone.edpipe("code", "--confirmed").rc == 0


@pytest.mark.slow
def test_an_edit_is_listed_and_confirmed_when_it_gives_the_same_bytes(clone):
    before = entry(clone, "losses.dkd")
    edit(clone, LOGITS, "alpha * target + beta * others", "target * alpha + others * beta")
    ran = clone.edpipe("code")
    assert ran.out.splitlines()[0] == (
        "losses.dkd: version 1, edited: edpipe.losses.logits.dkd_loss; jobs that hang on it: 66 run_stage"
    )
    assert versions(clone)["losses"]["dkd"].startswith("1+")
    assert clone.edpipe("code", "--confirmed").said == [
        "edpipe: the code of losses.dkd was edited since its version was confirmed; run `edpipe code confirm`, or with "
        "--bump where results change"
    ]
    ran = clone.edpipe("code", "confirm")
    assert ran.rc == 0, ran.text
    assert "losses.dkd: confirmed, 4 jobs of the probe gave the same bytes" in ran.out
    after = entry(clone, "losses.dkd")
    assert after["version"] == before["version"]
    assert after["digest"] != before["digest"]
    assert versions(clone)["losses"]["dkd"] == str(before["version"])


@pytest.mark.slow
def test_an_edit_that_changes_results_is_refused_and_gets_a_new_version(clone):
    edit(clone, LOGITS, "return temperature**2 * (alpha", "return temperature * (alpha")
    before = (clone.root / CONFIRMED).read_bytes()
    ran = clone.edpipe("code", "confirm", "dkd")
    assert ran.rc == 2
    (line,) = ran.said
    assert line.startswith("edpipe: losses.dkd: artifacts/students/dkd/seed0/1_only.")
    assert line.endswith("; if that is meant, use --bump")
    assert (clone.root / CONFIRMED).read_bytes() == before
    ran = clone.edpipe("code", "confirm", "--bump", "losses.dkd")
    assert (ran.rc, ran.out.splitlines()[0]) == (0, "losses.dkd: version 2")
    assert versions(clone)["losses"]["dkd"] == "2"
    assert clone.edpipe("code", "--confirmed").rc == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nonsense"], "code: expected `edpipe code` or `edpipe code confirm [--bump] [UNIT…]`, got 'nonsense'"),
        (["confirm", "losses.dkt"], "losses.dkt: no unit of the code has this name; did you mean 'losses.dkd'?"),
    ],
)
def test_words_that_mean_nothing_are_one_line(clone, words, line):
    ran = clone.edpipe("code", *words)
    assert (ran.rc, ran.said) == (2, [f"edpipe: {line}"])


@pytest.mark.slow
def test_without_git_or_the_confirmed_commit_nothing_is_confirmed(clone):
    edit(clone, LOGITS, "alpha * target + beta * others", "target * alpha + others * beta")
    git(clone.root, "add", "--all")
    git(clone.root, "commit", "--quiet", "--amend", "--message", "edited")
    digest = entry(clone, "losses.dkd")["digest"]
    assert clone.edpipe("code", "confirm").said == [
        f"edpipe: losses.dkd: no commit has the code that was confirmed ({digest}); confirm again what git has, or use "
        "--bump"
    ]
    assert "losses.dkd: version 1, edited: what was confirmed is not in git" in clone.edpipe("code").out
    (clone.root / ".git").rename(clone.root / "elsewhere")
    ran = clone.edpipe("code", "confirm")
    assert ran.said == [
        f"edpipe: {clone.root}: is no git repository, so that the confirmed code cannot be found; confirm code in a "
        "clone, or use --bump"
    ]


@pytest.mark.slow
def test_a_reader_without_a_probe_is_not_confirmed(clone):
    path = clone.root / "edpipe/datasets/readers/svhn.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("    return ", "    pass\n    return "), encoding="utf-8")
    assert clone.edpipe("code", "confirm", "svhn").said == [
        "edpipe: readers.svhn: no job of the probe uses it; use --bump"
    ]


@pytest.mark.slow
def test_a_file_that_was_altered_by_hand_is_refused_until_it_is_accepted(clone):
    edit(clone, CONFIRMED, "  dkd: {version: 1", "  dkd: {version: 2")
    ran = clone.edpipe("code")
    assert ran.rc == 2
    (line,) = ran.said
    assert line.endswith("altered since written; restore it with git, or, after a merge, call `edpipe code --merged`")
    assert clone.edpipe("code", "--merged").rc == 0
    assert versions(clone)["losses"]["dkd"] == "2"
