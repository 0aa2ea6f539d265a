"""Two tools that make the same files at once: one works, the other says so in one line, and nothing is lost."""

from pathlib import Path

import pytest
from fault_table import count
from project import make_project, tiny_params, without_cost
from watching import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.faults]

RESULT = "results/kd.json"
ARTIFACTS = ("artifacts", "results")


def contents(project):
    """Of every file that is not hidden."""
    names = [name for name in project.files(*ARTIFACTS) if not any(part.startswith(".") for part in Path(name).parts)]
    return {name: without_cost(project.root / name) for name in names}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("two") / "project", tiny_params())


@pytest.fixture(scope="module")
def expected(project):
    """What one Snakemake makes that nobody disturbs."""
    ran = project.snakemake("--", RESULT)
    assert ran.rc == 0, ran.text
    return contents(project)


def begin_anew(project):
    for name in project.files(*ARTIFACTS):
        (project.root / name).unlink()


def test_two_snakemakes(project, expected):
    begin_anew(project)
    first = project.start("snakemake", "--cores", "2", "--", RESULT)
    assert wait_until(first, lambda: any((project.root / ".snakemake/locks").glob("*")))
    second = project.snakemake("--", RESULT)
    assert first.wait() == 0
    is_told = second.rc != 0 and "lock" in second.text.lower() and "Traceback" not in second.text
    again = project.snakemake("--", RESULT)
    assert count("two snakemakes at once", is_told and again.rc == 0 and contents(project) == expected), second.text


def test_a_step_by_hand_beside_snakemake(project, expected):
    begin_anew(project)
    snakemake = project.start("snakemake", "--cores", "2", "--", RESULT)
    dataset = project.root / "artifacts/datasets/digits.h5"
    assert wait_until(snakemake, dataset.exists)
    by_hand = project.edpipe("train_teacher", "--dataset", "digits", "--teacher", "general", "--subset", "all")
    assert snakemake.wait() in (0, 1)
    again = project.snakemake("--", RESULT)
    is_in_order = by_hand.rc in (0, 75) and "Traceback" not in by_hand.text
    assert count("a step beside snakemake", is_in_order and again.rc == 0 and contents(project) == expected), (
        by_hand.text
    )
