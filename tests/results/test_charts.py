"""Scales and positions of the report's pictures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.results.page.charts import BOTTOM, LEFT, NARROWEST_SCALE, RIGHT, TOP, line_of, scale_of, stage_positions

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(SHARES)
def test_scale_holds_all_values_and_is_never_narrow(values):
    scale = scale_of(values)
    assert 0 <= scale.low <= min(values) <= max(values) <= scale.high <= 1
    assert scale.high - scale.low >= NARROWEST_SCALE - 1e-9


@given(SHARES)
def test_ticks_are_few_and_inside_the_scale(values):
    scale = scale_of(values)
    assert 2 <= len(scale.ticks) <= 6
    assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in scale.ticks)


@given(SHARES)
def test_higher_values_are_stronger_and_stand_higher(values):
    scale = scale_of(values)
    ordered = sorted(values)
    opacities, heights = [scale.opacity(v) for v in ordered], [scale.height(v) for v in ordered]
    assert opacities == sorted(opacities)
    assert heights == sorted(heights, reverse=True)
    assert all(TOP <= height <= BOTTOM for height in heights)


@given(st.integers(1, 30))
def test_stages_stand_in_order_inside_the_panel(num_stages):
    positions = stage_positions(num_stages)
    assert len(positions) == num_stages
    assert list(positions) == sorted(set(positions))
    assert positions[0] > LEFT
    assert positions[-1] < RIGHT


def test_a_line_begins_where_the_subset_is_known():
    line = line_of("seed 0", [None, 0.9, 0.95], scale_of([0.9, 1.0]))
    assert [dot.top1 for dot in line.dots] == [0.9, 0.95]
    assert line.points == f"144,{BOTTOM:g} 230,{(TOP + BOTTOM) / 2:g}"
    assert line.dots[0].x == pytest.approx((LEFT + RIGHT) / 2)
