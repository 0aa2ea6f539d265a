"""How a job ended: every combination of what it left and what the scheduler says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.pipeline.cluster.fates import GONE, HELPED_BY_RETRY, Fate, SchedulerState, fate_of


def said(fate):
    return SchedulerState(False, fate)


@pytest.mark.parametrize(
    ("code", "steps", "state", "fate"),
    [
        (0, [], GONE, Fate.DONE),
        (0, [], said(Fate.TIMED_OUT), Fate.DONE),  # it was just in time
        (1, [2], said(Fate.FAILED), Fate.REFUSED),
        (1, [2], GONE, Fate.REFUSED),
        (1, [143, 2], GONE, Fate.REFUSED),
        (1, [1], said(Fate.FAILED), Fate.FAILED),
        (1, [], said(Fate.FAILED), Fate.FAILED),
        (1, [143], said(Fate.TIMED_OUT), Fate.TIMED_OUT),
        (1, [143], said(Fate.CANCELLED), Fate.CANCELLED),
        (1, [143], said(Fate.PREEMPTED), Fate.PREEMPTED),
        (None, [], said(Fate.NODE_LOST), Fate.NODE_LOST),
        (None, [], said(Fate.OUT_OF_MEMORY), Fate.OUT_OF_MEMORY),
        (1, [143], GONE, Fate.INTERRUPTED),
        (143, [], GONE, Fate.INTERRUPTED),
        (1, [143], said(Fate.FAILED), Fate.INTERRUPTED),
        (1, [75], said(Fate.FAILED), Fate.LATER),
        (1, [75, 1], GONE, Fate.FAILED),
        (1, [137], GONE, Fate.FAILED),  # the system killed it: it wants more memory
        (137, [], GONE, Fate.FAILED),
        (None, [], GONE, Fate.VANISHED),
        (None, [], said(Fate.FAILED), Fate.FAILED),
    ],
)
def test_fates(code, steps, state, fate):
    assert fate_of(code, steps, state) is fate


@given(st.one_of(st.none(), st.integers(1, 255)), st.lists(st.integers(0, 255)), st.sampled_from([None, *Fate]))
def test_what_cannot_succeed_is_never_tried_again_and_nothing_else_is_done(code, steps, said_fate):
    fate = fate_of(code, steps, SchedulerState(False, said_fate))
    if 2 in steps and said_fate in (None, Fate.FAILED):
        assert fate not in HELPED_BY_RETRY
    assert fate is not Fate.DONE or said_fate is Fate.DONE
