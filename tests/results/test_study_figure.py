"""The picture of a study: where dots, bars, lines and names stand."""

from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.results.comparison.study_figure import (
    BOTTOM,
    HEIGHT,
    LABEL_STEP,
    LEFT,
    RIGHT,
    TOP,
    spread_out,
    study_figure,
)

SVG = "{http://www.w3.org/2000/svg}"


def row(name, macs, mean, half: float | None = 0.01, curve=None, seeds=(0, 1, 2)):
    ends = (None, None) if half is None else (mean - half, mean + half)
    top1 = {"mean": mean, "low": ends[0], "high": ends[1]}
    return {"name": name, "training_macs": macs, "top1": top1, "curve": curve or name, "seeds": list(seeds)}


def drawn(*rows):
    return ET.fromstring(study_figure({"study": "s", "results": rows}))


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def dots(root):
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle")]


def test_dots_stand_where_compute_and_top1_say():
    # Compute 1 to 100 TMAC, 5 % of two decades of room on both sides; top1 from 80 to 90 %.
    root = drawn(row("a", 10**12, 0.81, half=0.01), row("b", 10**14, 0.89, half=0.01))
    [(x1, y1), (x2, y2)] = sorted(dots(root))
    room = 0.1 / 2.2 * (RIGHT - LEFT)
    assert (x1, x2) == (pytest.approx(LEFT + room, abs=0.06), pytest.approx(RIGHT - room, abs=0.06))
    tenth = (BOTTOM - TOP) / 10
    assert (y1, y2) == (pytest.approx(BOTTOM - tenth, abs=0.06), pytest.approx(TOP + tenth, abs=0.06))
    assert {"80", "90", "1", "100", "a", "b"} <= set(texts(root))


def test_bars_are_intervals_and_one_seed_has_none():
    [line] = [
        line
        for line in drawn(row("a", 10**12, 0.85, half=0.01), row("b", 10**12, 0.85, half=None)).iter(f"{SVG}line")
        if line.get("stroke-width") == "1.5"
    ]
    # The scale is from 84 to 86 %.
    assert (float(line.attrib["y1"]), float(line.attrib["y2"])) == (BOTTOM, TOP)


def test_an_interval_that_leaves_0_to_100_is_cut_off():
    root = drawn(row("a", 10**12, 0.995, half=0.02), row("b", 10**12, 0.975, half=None))
    ys = [float(line.attrib[end]) for line in root.iter(f"{SVG}line") for end in ("y1", "y2")]
    assert min(ys) >= TOP
    assert "100" in texts(root)
    assert "102" not in texts(root)


def test_a_line_joins_what_differs_in_its_budget_alone():
    root = drawn(
        row("kd_4", 4 * 10**12, 0.9, curve="k"), row("kd_1", 10**12, 0.8, curve="k"), row("ed_1", 10**12, 0.85)
    )
    [line] = root.iter(f"{SVG}polyline")
    ends = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert ends == sorted(ends)
    assert len(ends) == 2
    assert ("kd_1" in texts(root), "kd_4" in texts(root), "ed_1" in texts(root)) == (False, True, True)


def test_names_are_text_and_hints_name_every_dot():
    root = drawn(row("a<b>&c", 10**12, 0.8), row("d", 10**12, 0.9))
    assert "a<b>&c" in texts(root)
    titles = [dot.findtext(f"{SVG}title") for dot in root.iter(f"{SVG}circle")]
    assert sorted(map(str, titles)) == ["a<b>&c: 80.00 %, n = 3", "d: 90.00 %, n = 3"]


def test_a_name_stands_at_the_height_of_its_last_dot():
    root = drawn(row("low", 10**12, 0.8), row("high", 10**12, 0.9))
    heights = {e.text: float(e.attrib["y"]) for e in root.iter(f"{SVG}text") if e.text in ("low", "high")}
    (_, high), (_, low) = sorted(dots(root), key=lambda dot: dot[1])
    assert heights == {"low": pytest.approx(low + 4, abs=0.06), "high": pytest.approx(high + 4, abs=0.06)}


@pytest.mark.parametrize(("low", "high"), [(0.89, 1.0), (0.8, 0.95), (0.7, 0.93), (0.0, 0.0), (0.0, 1.0)])
def test_no_line_leaves_the_scale(low, high):
    root = drawn(row("a", 10**12, low, half=0.0), row("b", 10**12, high, half=0.0))
    ys = [float(line.attrib["y1"]) for line in root.iter(f"{SVG}line") if line.get("class") == "grid"]
    assert min(ys) >= TOP
    assert max(ys) <= BOTTOM
    assert len(ys) <= 11
    assert not [text for text in texts(root) if text.startswith("-") or text == "101"]


def test_equal_results_can_be_drawn():
    assert len(dots(drawn(row("a", 10**12, 1.0, half=0.0), row("b", 10**12, 1.0, half=0.0)))) == 2


@given(st.lists(st.floats(TOP, BOTTOM), min_size=1, max_size=60))
def test_names_never_overlap_nor_leave_the_picture(heights):
    bottom = max(HEIGHT, TOP + LABEL_STEP * len(heights))
    placed = spread_out(sorted(heights), bottom)
    assert all(b - a >= LABEL_STEP - 1e-6 for a, b in pairwise(placed))
    assert placed[-1] <= bottom
    assert placed[0] >= 0
