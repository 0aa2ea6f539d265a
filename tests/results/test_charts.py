"""Charts of pages: scales, what stands in an SVG, and that no name breaks out of it."""

import base64
import csv
import io
import itertools
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edpipe.results.page import charts
from edpipe.results.page.charts import Cell, HeatMap, Switch, learning_curves, scale_of, spread_out, top1_dots
from edpipe.results.page.vega import csv_link, svg, xml_text

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=8)
HOSTILE = "</text><script>alert('x')</script>\\u0041'};\"&\n"


def texts(picture):
    """Every text in a picture, which must be well-formed XML."""
    return ["".join(element.itertext()) for element in ET.fromstring(str(picture)).iter("text")]


def heat_map(names=("a", "b"), **more):
    cells = (Cell(0, 0, 0.5, "50"), Cell(0, 1, None, "none"), Cell(1, 0, -0.25, "−25"), Cell(1, 1, 1.0, "100"))
    return HeatMap(tuple(names), tuple(names), cells, (60, 30), "rows", "columns", **more)


@given(SHARES)
def test_scale_holds_all_values_and_is_never_narrow(values):
    low, high = scale_of(values)
    assert 0 <= low <= min(values) <= max(values) <= high <= 1
    assert high - low >= charts.NARROWEST_SCALE - 1e-9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.05))
def test_names_are_apart_in_order_and_inside(values, step):
    found = spread_out(values, step, 1.0)
    ordered = sorted(found)
    assert all(b - a >= step - 1e-9 for a, b in itertools.pairwise(ordered))
    assert sorted(range(len(values)), key=lambda n: values[n]) == sorted(range(len(values)), key=lambda n: found[n])
    assert ordered[-1] <= 1.0


def test_many_results_have_numbers_that_fit_the_picture():
    rows = [{"name": f"result_{n}", "top1": 0.9, "low": 0.9, "high": 0.9, "macs": 10**9} for n in range(40)]
    picture = charts.top1_against_compute(rows, "label")
    assert {"1", "40"} <= set(texts(picture))
    assert not [text for text in texts(picture) if text.startswith("result_")]
    assert float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', str(picture))[1]) < 700


def test_a_heat_map_has_its_names_and_the_text_of_each_cell():
    found = texts(heat_map().svg("label", 0.0, 1.0))
    assert sorted(found) == sorted(["a", "b", "a", "b", "rows", "columns", "50", "none", "−25", "100"])


def tiles(picture):
    """Fill and opacity of each tile that has a value, in the order of the cells."""
    marks = re.findall(r'<path d="[^"]*" (?=[^>]*fill="var)[^>]*>', str(picture))
    return [(re.search(r'fill="([^"]*)"', m)[1], float(re.search(r'fill-opacity="([^"]*)"', m)[1])) for m in marks]


def test_stronger_values_have_stronger_colours():
    [(_, half), (_, negative), (_, whole)] = tiles(heat_map().svg("label", 0.0, 1.0))
    assert negative == pytest.approx(charts.FAINTEST)
    assert half == pytest.approx((charts.FAINTEST + charts.STRONGEST) / 2, abs=1e-3)
    assert whole == pytest.approx(charts.STRONGEST)


def test_signed_values_have_two_colours_by_size():
    found = tiles(heat_map(is_signed=True).svg("label", 0.0, 1.0))
    assert [colour for colour, _ in found] == ["var(--accent)", "var(--other)", "var(--accent)"]
    assert found[1][1] == pytest.approx(charts.FAINTEST + (charts.STRONGEST - charts.FAINTEST) / 4, abs=1e-3)


@pytest.mark.parametrize("name", [HOSTILE, "datum", "'", "\\", "𝟘 ünïcode", "a" * 300, "a\0b\uffff"])
def test_names_stay_text(name):
    pictures = [
        heat_map((name, "b")).svg(name, 0.0, 1.0),
        top1_dots([{"place": 0, "name": name, "top1": 0.5, "low": 0.4, "high": 0.6, "is_own": True}], name),
        charts.top1_against_compute([{"name": name, "top1": 0.5, "low": 0.4, "high": 0.6, "macs": 10**9}] * 2, name),
    ]
    for picture in pictures:
        tags = {element.tag for element in ET.fromstring(str(picture)).iter()}
        assert tags <= {"svg", "g", "path", "line", "text", "tspan", "rect", "defs"}
        assert ET.fromstring(str(picture)).get("aria-label").split() == xml_text(name).split()
        assert " ".join(xml_text(charts.shortened(name)).split())[:8] in " ".join(" ".join(texts(picture)).split())


@settings(max_examples=20)
@given(st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=2))
@example(["${x}", "{{ x }}"])
def test_names_of_axes_are_those_given(names):
    shown = [text.strip() for text in texts(heat_map(names).svg("label", 0.0, 1.0))]
    for name in names:
        printable = xml_text(charts.shortened(name))
        assert "".join(printable.split()) in "".join("".join(shown).split())


def curve_rows(seeds=(0, 1)):
    return [
        {"seed": seed, "stage": stage, "images": images, "loss": 1.0 / images, "val_top1": 0.5}
        for seed in seeds
        for stage, images in (("one", 10), ("one", 20), ("two", 30), ("two", 1000))
    ]


def test_stages_that_are_long_enough_are_named_where_they_begin():
    picture = learning_curves(curve_rows(), [Switch("one", 0), Switch("two", 20)], "loss", "loss, nats", "label")
    assert "two" in texts(picture)
    assert "one" not in texts(picture)  # 2 % of the axis
    assert str(picture).count("stroke-dasharray") == 2


def test_each_seed_and_the_mean_have_a_line_in_each_stage():
    for seeds in ((0,), (0, 1, 2)):
        picture = str(learning_curves(curve_rows(seeds), [Switch("one", 0), Switch("two", 20)], "loss", "t", "label"))
        lines = re.findall(r'<path [^>]*stroke="var\(--accent\)"[^>]*>', picture)
        assert len(lines) == 2 * (len(seeds) + 1)


def test_pictures_fetch_nothing_and_have_one_role():
    picture = str(heat_map().svg("what it shows", 0.0, 1.0))
    assert picture.startswith("<svg viewBox=")
    assert re.findall(r'role="([^"]*)"', picture) == ["img"]
    assert 'aria-label="what it shows"' in picture
    assert not re.search(r"https?:|url\(|<style|<image", picture)


def test_equal_values_give_equal_pictures():
    assert heat_map().svg("label", 0.0, 1.0) == heat_map().svg("label", 0.0, 1.0)


def test_what_is_no_specification_is_refused():
    with pytest.raises(ValueError, match="conversion failed"):
        svg({"mark": "no such mark"}, "label")


@given(st.lists(st.fixed_dictionaries({"name": st.text(max_size=9), "top1": st.floats(0, 1)}), min_size=1, max_size=5))
def test_the_data_beside_a_chart_are_its_rows(rows):
    link = str(csv_link("numbers", rows))
    assert link.startswith('<a download="numbers.csv" href="data:text/csv;base64,')
    text = base64.b64decode(re.search(r'base64,([^"]*)"', link)[1]).decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [float(row["top1"]) for row in found] == [row["top1"] for row in rows]
    assert [row["name"] for row in found] == [row["name"] for row in rows]
