"""What makes an artifact stale, and what is made again with it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.pipeline.state.staleness import (
    SHOWN_LENGTH,
    Assessment,
    Origin,
    RecordedState,
    Verdict,
    assess,
    differences,
    knob_changes,
    outcomes,
    title,
    version_lines,
    version_notes,
)
from edpipe.storage.job import Job

HERE = Origin(
    "run_stage",
    {"plan": {"name": "middle", "temperature": 4.0}, "recipe": {"batch_size": 64}},
    {"losses.kd": "1"},
    {"torch": "2.15.0", "numpy": "2.3.0"},
    {"dataset": ("d1",), "soft_labels": ("s1", "s2"), "previous": ()},
)


def job(name, inputs=(), step="run_stage"):
    """A job that makes one file, with this name, from others."""
    return Job(step, {"name": name}, {}, {"inputs": tuple(map(Path, inputs))}, (Path(name),))


# One artifact


def test_equal_origins_are_cached():
    assert differences(HERE, HERE) == ()
    assert assess(job("a"), RecordedState(HERE), HERE) == Assessment(Verdict.CACHED)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code": {"losses.kd": "2"}}, "the code of losses.kd is another one now (1 → 2)"),
        ({"knobs": {**HERE.knobs, "recipe": {"batch_size": 32}}}, "knob recipe.batch_size 64 → 32"),
        ({"knobs": {**HERE.knobs, "recipe": {}}}, "knob recipe.batch_size 64 → nothing"),
        ({"inputs": {"dataset": ("d2",)}}, "dataset is another one now (d1 → d2)"),
        ({"inputs": {"previous": ("p",)}}, "previous is another one now (nothing → p)"),
        ({"inputs": {"dataset": ()}}, "dataset is another one now (d1 → nothing)"),
        ({"inputs": {"soft_labels": ("s1", "s3")}}, "soft labels are another one now (s2 → s3)"),
        ({"inputs": {"soft_labels": ("s3", "s4")}}, "soft labels are another one now (s1 → s3, and 1 more)"),
        ({"inputs": {"soft_labels": ("s1", "s2", "s3")}}, "soft labels are another one now (2 files → 3)"),
        ({"step": "train", "code": {"losses.kd": "2"}}, "was made by run_stage, now train makes it"),
    ],
)
def test_each_difference_is_told(changes, reason):
    present = replace(HERE, **changes)
    assert differences(HERE, present) == (reason,)
    assert assess(job("a"), RecordedState(HERE), present) == Assessment(Verdict.STALE, (reason,))


def test_all_differences_are_told_together():
    present = replace(HERE, code={"losses.kd": "2"}, knobs={"plan": {"temperature": 4.0}}, inputs={"dataset": ("d2",)})
    assert [reason.split(" ")[0] for reason in differences(HERE, present)] == ["knob", "knob", "the", "dataset"]


@pytest.mark.parametrize("present", [{}, {"dataset": ("d1",)}, {"teachers": ("t",)}])
def test_inputs_of_which_one_side_knows_nothing_are_not_compared(present):
    assert differences(HERE, replace(HERE, inputs=present)) == ()


def test_other_libraries_are_a_note_and_not_stale():
    present = replace(HERE, versions={"torch": "2.16.0", "timm": "1.0"})
    notes = ("numpy 2.3.0 → nothing", "timm nothing → 1.0", "torch 2.15.0 → 2.16.0")
    assert version_notes(HERE, present) == notes
    assert assess(job("a"), RecordedState(HERE), present) == Assessment(Verdict.CACHED, (), notes)


def test_damage_comes_before_other_knobs_and_absence_before_damage():
    present = replace(HERE, code={"losses.kd": "2"})
    assert assess(job("a"), RecordedState(HERE, damage="broken"), present) == Assessment(Verdict.DAMAGED, ("broken",))
    gone = RecordedState(None, frozenset({Path("a")}), "no record")
    assert assess(job("a"), gone, present) == Assessment(Verdict.ABSENT)


def test_an_artifact_without_record_is_stale_for_the_reasons_that_were_found():
    assert assess(job("a"), RecordedState(None, reasons=("b is newer",)), HERE).verdict is Verdict.STALE
    assert assess(job("a"), RecordedState(None), HERE).verdict is Verdict.CACHED


# Knobs

values = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)
groups = st.dictionaries(st.sampled_from("xyz"), values, max_size=3)


@given(groups, groups)
def test_a_change_is_told_exactly_when_knobs_differ(before, now):
    assert bool(knob_changes(before, now)) == (before != now)


@given(groups, groups)
def test_the_way_back_tells_the_same_places(before, now):
    def places(changes):
        return sorted(change.split(" ")[1] for change in changes)

    assert places(knob_changes(before, now)) == places(knob_changes(now, before))


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ({"a": None}, {"a": {"b": 1, "c": 2}}, ['knob a null → {"b": 1, "c": 2}']),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, ["knob a.1.b 2 → 3"]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}, {"b": 2}]}, ['knob a.1 nothing → {"b": 2}']),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["knob a [1, 2] → [2, 1]"]),
        ({"a": {}}, {"a": {"b": 1}}, ["knob a.b nothing → 1"]),
        ({"a": "ja"}, {"a": "né"}, ['knob a "ja" → "né"']),
    ],
)
def test_groups_and_lists_of_knobs(before, now, changes):
    assert knob_changes(before, now) == changes


def test_a_long_value_is_cut_off():
    (change,) = knob_changes({"a": 0}, {"a": "b" * 100})
    assert change == "knob a 0 → " + '"' + "b" * (SHOWN_LENGTH - 2) + "…"


# What follows from what


@st.composite
def projects(draw):
    """Jobs in order, each made from some before it; some stale, some missing, some asked for."""
    number = draw(st.integers(1, 8))
    reads = [sorted(draw(st.sets(st.integers(0, n - 1)))) if n else [] for n in range(number)]
    verdicts = [draw(st.sampled_from([Verdict.CACHED, Verdict.STALE, Verdict.ABSENT, Verdict.DAMAGED])) for _ in reads]
    targets = draw(st.sets(st.integers(0, number - 1)))
    return reads, verdicts, targets


def made_of(project):
    """The drawn project; jobs are made here, because their type checks draw random numbers of their own."""
    reads, verdicts, targets = project
    jobs = [job(f"j{n}", [f"j{b}" for b in before]) for n, before in enumerate(reads)]
    return jobs, verdicts, frozenset(Path(f"j{t}") for t in targets)


def planned(jobs, verdicts, targets=frozenset()):
    reasons = {Verdict.STALE: ("knob",), Verdict.DAMAGED: ("broken",)}
    judgements = [Assessment(verdict, reasons.get(verdict, ())) for verdict in verdicts]
    missing = [
        frozenset(j.outputs) if v is Verdict.ABSENT else frozenset() for j, v in zip(jobs, verdicts, strict=True)
    ]
    return outcomes(jobs, judgements, missing, targets)


def ran(found):
    return {str(outcome.job.outputs[0]) for outcome in found if outcome.is_run}


UNFIT = (Verdict.STALE, Verdict.DAMAGED)
"""Made again for their own sake."""


@given(projects())
def test_jobs_that_run_are_the_smallest_set_that_is_closed(project):
    """An oracle: rules are applied until nothing changes."""
    jobs, verdicts, targets = made_of(project)
    state = dict(zip([j.outputs[0] for j in jobs], verdicts, strict=True))
    running = {p for p, v in state.items() if v in UNFIT or (v is Verdict.ABSENT and p in targets)}
    for _ in range(2 * len(jobs)):
        running |= {j.outputs[0] for j in jobs if running & set(j.all_inputs)}
        read = {p for j in jobs if j.outputs[0] in running for p in j.all_inputs}
        running |= {p for p in read if state[p] is Verdict.ABSENT}
    assert ran(planned(jobs, verdicts, targets)) == {str(p) for p in running}


@given(projects())
def test_what_waits_fits_by_itself_and_names_a_job_that_runs_for_its_own_reasons(project):
    found = planned(*made_of(project))
    causes = {f"after {title(o.job)}" for o in found if o.is_run and o.verdict is not Verdict.WAITS}
    for outcome, verdict in zip(found, project[1], strict=True):
        if outcome.verdict is Verdict.WAITS:
            assert verdict is Verdict.CACHED
            assert outcome.reasons[0] in causes
        else:
            assert outcome.verdict is verdict


@given(projects())
def test_nothing_runs_where_nothing_is_stale_and_nothing_asked_for(project):
    jobs, verdicts, _ = made_of(project)
    assert not ran(planned(jobs, [Verdict.CACHED if v in UNFIT else v for v in verdicts]))


CHAIN = [job("a"), job("b", ["a"]), job("c", ["b"]), job("d", ["a"])]
S, C, A, D = Verdict.STALE, Verdict.CACHED, Verdict.ABSENT, Verdict.DAMAGED


@pytest.mark.parametrize(
    ("verdicts", "targets", "running"),
    [
        ((C, C, C, C), (), ""),
        ((C, S, C, C), (), "bc"),
        ((S, C, C, C), (), "abcd"),
        ((A, C, C, C), ("c",), ""),  # deleted, but nobody needs it
        ((C, C, A, C), ("c",), "c"),
        ((C, A, A, C), ("c",), "bc"),
        ((A, C, S, C), ("c",), "c"),  # reads b only, which is there
        ((A, S, C, C), ("c",), "abcd"),  # a is made again for b, so d waits too
        ((D, C, C, C), ("c",), "abcd"),
        ((C, D, S, C), ("c",), "bc"),
    ],
)
def test_a_chain_and_a_side_branch(verdicts, targets, running):
    assert ran(planned(CHAIN, verdicts, frozenset(map(Path, targets)))) == set(running)


def test_the_first_cause_is_named():
    found = planned(CHAIN, (S, C, S, C))
    assert [(o.verdict, o.reasons) for o in found] == [
        (S, ("knob",)),
        (Verdict.WAITS, ("after run_stage a",)),
        (S, ("knob",)),
        (Verdict.WAITS, ("after run_stage a",)),
    ]


def test_an_absent_job_whose_knobs_changed_runs_as_snakemake_has_it():
    judgements = [Assessment(A, ("knob",)), Assessment(C)]
    found = outcomes([job("a"), job("b", ["a"])], judgements, [frozenset({Path("a")}), frozenset()])
    assert ran(found) == {"a", "b"}


def test_an_artifact_without_its_second_output_is_made_again():
    first = Job("x", {}, {}, {}, (Path("w"), Path("w.json")))
    missing = [frozenset({Path("w.json")}), frozenset()]
    judgements = [Assessment(D, ("no record",)), Assessment(C)]
    assert ran(outcomes([first, job("b", ["w"])], judgements, missing)) == {"w", "b"}


def test_notes_are_gathered_and_counted():
    found = outcomes(
        [job("a"), job("b")],
        [Assessment(C, (), ("torch 1 → 2", "h5py 1 → 2")), Assessment(C, (), ("torch 1 → 2",))],
        [frozenset()] * 2,
    )
    assert version_lines(found) == [
        "note: torch 1 → 2 since 2 artifacts were made; nothing is made again for that",
        "note: h5py 1 → 2 since 1 artifact was made; nothing is made again for that",
    ]
