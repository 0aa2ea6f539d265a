"""An edit of the code, `edpipe adopt`, and what Snakemake and `edpipe verify` say then."""

import pytest
from project import copy_of

pytest.importorskip("edpipe.pipeline.state.judgement", reason="Snakemake goes by its own memory, not by the records")


@pytest.mark.slow
def test_after_an_edit_adopted_artifacts_are_not_made_again(finished_project, tmp_path):
    project = copy_of(finished_project, tmp_path / "copy")
    loop = project.root / "edpipe" / "training" / "loop.py"
    loop.write_text(loop.read_text(encoding="utf-8").replace("EXPLODED = 100", "EXPLODED = 101"), encoding="utf-8")
    planned = project.snakemake("-n", "--", "results/ed.json")
    assert "train_teacher" in planned.text
    assert "run_stage" in planned.text
    ran = project.edpipe("adopt", "ed")
    assert ran.rc == 0, ran.text
    assert ran.out.splitlines()[-1].startswith("4 adopted, ")  # two teachers and two stages
    assert "Nothing to be done" in project.snakemake("-n", "--", "results/ed.json").text
    verified = project.edpipe("verify", "ed")
    assert verified.rc == 0, verified.text
    assert "stale" not in verified.out
