"""The first lines of a page: verdicts, intervals and break-even by hand."""

import math

import pytest
from examples import evaluation, write_result

from edpipe.results.page.headline import beside, break_even, verdict, wilson
from edpipe.results.result_file import read_result


def made(folder, experiment, shift=0.0, seeds=(0, 1, 2)):
    records = [evaluation(seed, experiment, shift) for seed in seeds]
    return read_result(write_result(folder / f"{experiment}{shift}{len(seeds)}", records, experiment))


def test_the_best_of_the_others_is_named_with_its_lead(tmp_path):
    own = made(tmp_path, "digits_ed")  # 87.5, 88.5, 89.5: mean 88.5
    others = [made(tmp_path, "digits_kd", 0.02), made(tmp_path, "digits_ce", 0.03)]
    assert verdict(own, others) == (
        "That is 3.0 points lower than digits_ce (91.5 %), the best of those beside it, which had 1.29 times the "
        "compute. The 95 % intervals overlap."
    )
    assert "3.0 points higher than digits_ed (88.5 %)" in verdict(others[1], [own])
    assert verdict(own, []) == ""


def test_intervals_that_are_apart_and_single_seeds_are_told(tmp_path):
    own = made(tmp_path, "digits_kd", -0.3)
    assert verdict(own, [made(tmp_path, "digits_ce")]).endswith("The 95 % intervals do not overlap.")
    one = made(tmp_path, "digits_ce", seeds=(0,))
    assert verdict(own, [one]).endswith("With one seed nobody can tell whether that is chance.")


def test_equal_means_are_called_so(tmp_path):
    assert "That is as high as digits_ce (88.5 %)" in verdict(
        made(tmp_path, "digits_kd"), [made(tmp_path, "digits_ce")]
    )


def test_teachers_of_all_classes_stand_beside_it_and_specialists_do_not(tmp_path):
    kd, ed = made(tmp_path, "digits_kd"), made(tmp_path, "digits_ed")
    [row] = beside(kd, [])
    assert (row.name, row.what, row.top1.mean, row.top1.n) == ("digits_teacher/all", "teacher", 0.96, 1)
    assert [row.name for row in beside(ed, [kd])] == ["digits_kd"]
    assert [row.compute for row in beside(kd, [ed, made(tmp_path, "digits_ce")])][:2] == [
        "0.78 times the compute",
        "the same compute",
    ]


def test_wilsons_interval_by_its_formula(tmp_path):
    n, z = 360, 1.959963984540054
    p = round(0.885 * n) / n
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n)
    half *= math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(made(tmp_path, "digits_ed")) == pytest.approx((middle - half, middle + half))


def test_the_store_pays_off_when_as_many_forwards_were_saved(tmp_path):
    # 9,100 forwards for the store, 24,000 images with a teacher for each student.
    assert break_even(made(tmp_path, "digits_kd")) == 1
    record = evaluation(0, "digits_kd")
    record["stages"][0]["soft_labels"][0]["teacher_forwards"] = 24_001
    assert break_even(read_result(write_result(tmp_path / "more", [record], "digits_kd"))) == 2
    three = [evaluation(seed, "digits_kd") for seed in (0, 1, 2)]
    for one in three:
        one["stages"][0]["soft_labels"][0]["teacher_forwards"] = 24_001
    assert break_even(read_result(write_result(tmp_path / "three", three, "digits_kd"))) == 2
    assert break_even(made(tmp_path, "digits_ce")) is None
