"""Snakemake and DVC side by side in one folder: what one of them has made, the other must not make again."""

import pytest
from dvc_stories import (
    ALL_OF_KD,
    CACHE_TYPES,
    FROM_MIDDLE,
    MIDDLE,
    NUM_STEPS,
    SECOND_ED,
    TAUGHT_STEPS,
    end_of,
    stages_of,
    start,
    teacher_steps,
)

pytest.importorskip("dvc")
pytest.importorskip("snakemake")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_both_tools_agree_through_a_whole_story(tmp_path, cache_type):
    folder = start(tmp_path / "project", cache_type)

    assert len(folder.snakemake()) == NUM_STEPS
    assert "Data and pipelines are up to date." in folder.call("dvc", "status")
    assert folder.snakemake() == [], "a second snakemake computes nothing"
    assert folder.dvc_repro() == [], "and a following dvc repro computes nothing"
    assert folder.snakemake() == [], "and a following snakemake computes nothing"
    assert folder.call("git", "status", "--short", "--untracked-files=all").split() in ([], ["??", "dvc.lock"])
    folder.git_commit()

    folder.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    assert folder.snakemake() == FROM_MIDDLE, "changed middle, snakemake first"
    assert folder.dvc_repro() == []
    folder.git_commit()

    folder.edit(MIDDLE.replace("0.1", "5e-2"), MIDDLE)
    assert folder.dvc_repro() == [], "set back: DVC's run cache has it"
    assert folder.snakemake() == [], "and snakemake is content with what DVC put in place"

    folder.edit(MIDDLE, MIDDLE.replace("0.1", "0.07"))
    assert folder.dvc_repro() == FROM_MIDDLE, "changed middle, dvc first"
    assert folder.snakemake() == []
    assert folder.dvc_repro() == []
    folder.git_commit()

    folder.call("git", "checkout", "--quiet", "HEAD~2")
    folder.call("dvc", "checkout")
    assert folder.snakemake() == [], "an older commit, checked out by both git and dvc"
    assert folder.dvc_repro() == []

    folder.edit("tracked: [ce, kd, ed]\n", SECOND_ED)
    expected = sorted([*stages_of("ed_longer", "primary", "middle", "university"), *end_of("ed_longer")])
    assert folder.snakemake() == expected, "a new experiment on the same teachers dumps nothing"
    assert folder.dvc_repro() == []
    assert folder.snakemake() == [], "although two students are equal files, which share one place in the cache"


def test_dvc_made_files_are_not_taken_for_fresh_after_an_edit(tmp_path):
    folder = start(tmp_path / "project", "copy")
    assert len(folder.dvc_repro()) == NUM_STEPS
    assert folder.snakemake() == [], "after dvc repro"
    folder.edit("temperature: 4", "temperature: 2")
    assert folder.snakemake() == ALL_OF_KD, "no teacher, no dump; and no stale result for want of a record"
    assert folder.dvc_repro() == []


@pytest.mark.parametrize("tool", ["snakemake", "dvc_repro"])
def test_a_change_re_runs_exactly_what_depends_on_it(repository, tool):
    run = getattr(repository, tool)

    repository.edit("temperature: 4", "temperature: 3")
    assert run() == ALL_OF_KD, "temperature: no teacher, no dump"

    repository.edit("learning_rate: 0.2 }\n    min_top1", "learning_rate: 0.3 }\n    min_top1")
    every = ["train_teacher", "verify_soft_labels", "evaluate_teacher"]
    steps = [*(s for e in every for s in teacher_steps(e)), *teacher_steps("dump_soft_labels", "0-1")]
    specialists = [step for step in steps if "specialists" in step]
    below = [*stages_of("ed", "primary", "middle", "university"), *end_of("ed")]
    assert run() == sorted([*specialists, *below]), "a teacher's knob: exactly its descendants"

    text = (repository.root / "params.yaml").read_text()
    reordered = text.replace("images: 64, learning_rate: 0.1", "learning_rate: 0.1, images: 64")
    assert reordered != text
    (repository.root / "params.yaml").write_text("# A comment.\n" + reordered)
    assert run() == [], "a comment and another order of keys"

    repository.comment("losses/kd.py")
    repository.comment("errors.py")
    if tool == "dvc_repro":
        repository.call("edpipe", "code")
        assert "up to date" in repository.call("dvc", "status")
    assert run() == [], "comments in the code"

    repository.edit_code("losses/kd.py")
    if tool == "dvc_repro":
        repository.call("edpipe", "code")
    assert run() == TAUGHT_STEPS, "an edited loss: the stages that use it and what follows, no dump"

    other = repository.dvc_repro if tool == "snakemake" else repository.snakemake
    assert other() == [], "the other tool agrees with all of it"
