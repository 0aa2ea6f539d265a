"""What all tests share."""

import pytest
from project import make_project, tiny_params

# Runs inside throw-away copies of the package only, where the real command line lies beside it.
collect_ignore = ["stand_in_command_line.py"]


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory):
    """A folder in which `snakemake results/ed.json` ran undisturbed, once for all tests; not to be changed.

    What Snakemake said is in its file snakemake.out.
    """
    project = make_project(tmp_path_factory.mktemp("finished") / "project", tiny_params())
    ran = project.snakemake("--", "results/ed.json")
    assert ran.rc == 0, ran.text
    (project.root / "snakemake.out").write_text(ran.text, encoding="utf-8")
    return project
