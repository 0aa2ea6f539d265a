"""Curves on pages: which are shown, and that a page carries what it was drawn from."""

import pytest
from examples import write_result
from hypothesis import given
from hypothesis import strategies as st

from edpipe.results.page.curves import curves_in, fitting, link, pictures
from edpipe.results.result_file import read_result


def row(images, loss=1.0, val_top1=0.5):
    facts = {"iteration": images // 64, "images": images, "epoch": 0.5, "loss": loss}
    return facts | {"learning_rate": 0.1, "val_top1": val_top1, "training": "abcdef01"}


@pytest.fixture
def result(tmp_path):
    return read_result(write_result(tmp_path))


def whole(ends=None):
    ends = ends or {"primary": 4_000, "middle": 8_000, "university": 12_000}
    return {(seed, stage): [row(end // 2), row(end)] for seed in (0, 1, 2) for stage, end in ends.items()}


def test_curves_that_end_elsewhere_are_of_another_training(result):
    curves = whole() | {(1, "middle"): [row(100), row(7_999)], (2, "primary"): []}
    shown = {(r["seed"], r["stage"]) for r in fitting(curves, result)}
    assert shown == set(whole()) - {(1, "middle"), (2, "primary")}
    assert fitting({}, result) == []


@pytest.mark.parametrize("damage", [{"images": None}, {"loss": "high"}, {"val_top1": [1]}])
def test_a_curve_with_a_row_that_cannot_be_drawn_is_left_out(result, damage):
    curves = whole()
    curves[(0, "middle")][0] = curves[(0, "middle")][0] | damage
    rows = fitting(curves, result)
    assert {(r["seed"], r["stage"]) for r in rows} == set(whole()) - {(0, "middle")}
    assert len(pictures(rows, result)) == 2


def test_a_page_carries_its_curves(result):
    rows = fitting(whole(), result)
    assert fitting(curves_in(f"<p>{link(rows)}</p>"), result) == rows
    assert curves_in("<p>") == {}


@given(st.binary(max_size=30))
def test_what_is_no_curve_is_none(noise):
    page = str(link([])).replace("base64,", "base64," + noise.hex())
    assert curves_in(page) == {}


def test_top1_is_left_out_where_no_image_was_shown(result):
    assert len(pictures(fitting(whole(), result), result)) == 2
    blind = {key: [one | {"val_top1": None} for one in rows] for key, rows in whole().items()}
    [loss] = pictures(fitting(blind, result), result)
    assert "training loss, nats over the images seen" in loss
    assert pictures([], result) == []
