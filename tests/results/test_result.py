"""Seeds into one result: means and costs redone by hand, and a format that holds."""

import csv
import json
import math
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import jsonschema
import pytest
from examples import COSTS, DATASET, SUBSETS, evaluation, rewrite_result, write_evaluations, write_result
from project import without_cost

from edpipe.errors import CorruptFileError, MismatchError
from edpipe.results.measures.cost import CostPart
from edpipe.results.result_file import Result, format_seconds, read_result, result_schema
from edpipe.steps.result import result
from edpipe.storage.records import read_record, write_record

DOCS = Path(__file__).resolve().parents[2] / "docs"
STUDENT_T_2 = 4.302652729911275
"""97.5 % point of Student's t with 2 degrees of freedom, from a table."""


def beside(path):
    """The table and the few numbers that are written with a result."""
    return path.with_suffix(".csv"), path.parent / "metrics" / path.name


def gather(folder, records):
    out = folder / "r.json"
    result("digits_ed", "ed", write_evaluations(folder, records), COSTS, out, *beside(out))
    return read_record(out)


def test_summary_is_mean_std_and_interval_over_seeds(tmp_path):
    top1 = gather(tmp_path, [evaluation(seed) for seed in (0, 1, 2)])["summary"]["top1"]
    # 0.875, 0.885, 0.895
    margin = STUDENT_T_2 * 0.01 / math.sqrt(3)
    expected = {"mean": 0.885, "std": 0.01, "low": 0.885 - margin, "high": 0.885 + margin, "n": 3}
    assert top1 == pytest.approx(expected)


def test_forgetting_and_backward_transfer_are_averaged_over_seeds(tmp_path):
    summary = gather(tmp_path, [evaluation(seed) for seed in (0, 2)])["summary"]
    # 0.08 and 0.06; 0.06 and 0.04; university is taught last and cannot be forgotten
    assert {name: spread["mean"] for name, spread in summary["forgetting"].items()} == pytest.approx(
        {"primary": 0.07, "middle": 0.05}
    )
    assert summary["backward_transfer"]["mean"] == pytest.approx(-0.06)


def test_validation_top1_is_averaged_over_seeds(tmp_path):
    # 0.865, 0.875, 0.885
    found = gather(tmp_path, [evaluation(seed) for seed in (0, 1, 2)])["summary"]["val_top1"]
    assert (found["mean"], found["std"], found["n"]) == (pytest.approx(0.875), pytest.approx(0.01), 3)


def test_without_validation_images_there_is_no_validation_top1(tmp_path):
    records = [evaluation(seed) for seed in (0, 1)]
    for record in records:
        record["metrics"] |= {"val_top1": None, "val_samples": 0}
    assert "val_top1" not in gather(tmp_path, records)["summary"]
    assert read_result(tmp_path / "r.json").summary.val_top1 is None


def test_agreement_is_averaged_over_seeds_for_each_teacher(tmp_path):
    # With the first specialist 0.9, 0.91, 0.92; each further one 0.01 more.
    agreement = gather(tmp_path, [evaluation(seed) for seed in (0, 1, 2)])["summary"]["agreement"]
    means = {f"digits_specialists/{name}": 0.91 + k / 100 for k, name in enumerate(SUBSETS)}
    assert {name: spread["mean"] for name, spread in agreement.items()} == pytest.approx(means)
    assert agreement["digits_specialists/middle"]["std"] == pytest.approx(0.01)
    assert gather(tmp_path, [evaluation(0, "digits_ce")])["summary"]["agreement"] == {}


def test_a_teacher_without_test_images_is_in_no_summary(tmp_path):
    record = evaluation()
    record["metrics"]["agreement"]["digits_specialists/middle"] = None
    record["teachers"]["digits_specialists/middle"] = {"top1": None, "ece": None, "test_samples": 0}
    agreement = gather(tmp_path, [record])["summary"]["agreement"]
    assert set(agreement) == {"digits_specialists/primary", "digits_specialists/university"}
    assert read_result(tmp_path / "r.json").teachers["digits_specialists/middle"].top1 is None


def test_a_result_tells_how_good_each_teacher_is(tmp_path):
    assert gather(tmp_path, [evaluation(seed, "digits_kd") for seed in (0, 1)])["teachers"] == {
        "digits_teacher/all": {"top1": 0.96, "ece": 0.03, "test_samples": 360}
    }
    assert gather(tmp_path, [evaluation(0, "digits_ce")])["teachers"] == {}


def test_one_seed_has_no_spread(tmp_path):
    top1 = gather(tmp_path, [evaluation()])["summary"]["top1"]
    assert top1 == {"mean": 0.875, "std": None, "low": None, "high": None, "n": 1}


def test_one_stage_has_neither_forgetting_nor_backward_transfer(tmp_path):
    summary = read_record(write_result(tmp_path, experiment="digits_ce"))["summary"]
    assert summary["forgetting"] == {}
    assert "backward_transfer" not in summary


def test_budget_by_hand(tmp_path):
    budget = gather(tmp_path, [evaluation(seed) for seed in (0, 1, 2)])["budget"]
    assert budget == {
        "images_seen": 4_000 + 8_000 + 12_000,
        "training_macs": 3 * (4_000 * 1_000_000 + 8_000 * 2_000_000 + 12_000 * 3_000_000),
        "student_parameters": 30_000,
        "student_macs": 3_000_000,
        # primary's file is read in three stages and by three seeds, but was made once
        "teacher_forwards_spent": 2_700 + 2_800 + 3_600,
        "teacher_forwards_online": 3 * 24_000,
        "teacher_forwards_saved": 72_000 - 9_100,
    }


def test_each_teacher_of_a_panel_sees_each_image_and_of_specialists_one_does(tmp_path):
    record = evaluation()
    for stage, extra in zip(record["setup"]["stages"], ((), ("a",), ("a", "b")), strict=True):
        stage["teachers"] = [*stage["teachers"], *({"teacher": name, "subset": "all"} for name in extra)]
    record["setup"]["stages"][2]["trajectory"] = {"teacher": "c"}
    # specialists 1, then 1 + 1, then 1 + 2 and the one beside the student
    assert gather(tmp_path, [record])["budget"]["teacher_forwards_online"] == 1 * 4_000 + 2 * 8_000 + 4 * 12_000


def test_a_store_that_cost_more_than_it_saved_is_reported_as_such(tmp_path):
    record = evaluation()
    for stage in record["stages"]:
        for use in stage["soft_labels"]:
            use["teacher_forwards"] = 10_000
    assert gather(tmp_path, [record])["budget"]["teacher_forwards_saved"] == 24_000 - 30_000


def test_without_teachers_no_forwards_are_counted(tmp_path):
    budget = read_record(write_result(tmp_path, experiment="digits_ce"))["budget"]
    names = ("teacher_forwards_spent", "teacher_forwards_online", "teacher_forwards_saved")
    assert [budget[name] for name in names] == [0, 0, 0]


def test_cost_by_hand(tmp_path):
    cost = read_record(write_result(tmp_path))["cost"]
    steps = cost.pop("steps")
    assert cost == {
        "seconds": 273.75,
        "cpu_seconds": 365.25,
        "images": 9_000 + 2 * 24_000,
        "teacher_forwards": 9_100,
        "peak_memory_bytes": 1_500_000_000,
        "peak_gpu_memory_bytes": 5_000_000,
        "artifacts": 6,
        "with_figures": 6,
        "shared_seconds": 1.5 + 120 + 30,
        "own_seconds": 60.5 + 59.5 + 2.25,
    }
    assert steps["run_stage"] == {
        "is_shared": False,
        "seconds": 120.0,
        "cpu_seconds": 122.0,
        "images": 48_000,
        "teacher_forwards": 0,
        "peak_memory_bytes": 800_000_000,
        "peak_gpu_memory_bytes": 5_000_000,
        "artifacts": 2,
        "with_figures": 2,
    }
    assert {step for step, one in steps.items() if one["is_shared"]} == {
        "pack_dataset",
        "train_teacher",
        "dump_soft_labels",
    }


def test_what_is_not_known_is_counted_and_in_no_sum(tmp_path):
    costs = [replace(part, figures=None) if part.step != "run_stage" else part for part in COSTS]
    cost = read_record(write_result(tmp_path, costs=costs))["cost"]
    assert (cost["artifacts"], cost["with_figures"]) == (6, 2)
    assert (cost["seconds"], cost["own_seconds"], cost["shared_seconds"]) == (120.0, 120.0, None)
    assert cost["steps"]["evaluate"] == {
        **dict.fromkeys(cost["steps"]["evaluate"]),
        "is_shared": False,
        "artifacts": 1,
        "with_figures": 0,
    }
    found = read_result(tmp_path / "results/digits_ed.json").cost
    assert not found.is_whole
    assert (format_seconds(found, False), format_seconds(found, True)) == ("≥ 2 min 0 s", "–")


@pytest.mark.parametrize(
    ("step", "own", "shared"),
    [("evaluate", "≥ 2 min 2 s", "2 min 32 s"), ("verify_soft_labels", "2 min 2 s", "≥ 2 min 32 s")],
)
def test_a_sum_in_which_something_is_missing_is_a_lower_bound(tmp_path, step, own, shared):
    cost = read_result(write_result(tmp_path, costs=[*COSTS, CostPart(step, None, step != "evaluate")])).cost
    assert (format_seconds(cost, False), format_seconds(cost, True)) == (own, shared)


def test_of_two_equal_runs_only_the_cost_may_differ(tmp_path):
    slower = [replace(part, figures=replace(part.figures, seconds=999.0)) for part in COSTS]
    first, second = write_result(tmp_path / "a"), write_result(tmp_path / "b", costs=slower)
    assert first.read_bytes() != second.read_bytes()
    assert without_cost(first) == without_cost(second)


def test_table_has_a_row_for_each_known_subset_in_the_order_of_teaching(tmp_path):
    path = write_result(tmp_path, [evaluation(0), evaluation(1)])
    rows = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
    names = list(SUBSETS)
    expected = [
        (str(seed), stage, subset) for seed in (0, 1) for k, stage in enumerate(names) for subset in names[: k + 1]
    ]
    assert [(row["seed"], row["stage"], row["subset"]) for row in rows] == expected
    seen = {row["stage"]: int(row["images_seen"]) for row in rows}
    images = [stage["images_seen"] for stage in read_record(path)["seeds"][0]["stages"]]
    assert list(seen.values()) == list(accumulate(images))
    assert [float(row["top1"]) for row in rows[:6]] == pytest.approx([0.96, 0.92, 0.9, 0.88, 0.84, 0.9])


def test_few_numbers_are_written_for_dvc(tmp_path):
    path = write_result(tmp_path, [evaluation(0), evaluation(1)])
    summary, budget = (read_record(path)[name] for name in ("summary", "budget"))
    assert json.loads(beside(path)[1].read_text()) == {
        "top1": summary["top1"]["mean"],
        "val_top1": summary["val_top1"]["mean"],
        "ece": summary["ece"]["mean"],
        "top1_std": summary["top1"]["std"],
        "images_seen": budget["images_seen"],
    }


def test_dvc_is_shown_no_spread_of_one_seed(tmp_path):
    assert "top1_std" not in json.loads(beside(write_result(tmp_path, [evaluation(0)]))[1].read_text())


def test_equal_evaluations_give_equal_bytes(tmp_path):
    first, second = write_result(tmp_path / "a"), write_result(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    for one, other in zip(beside(first), beside(second), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["dataset", "partition"])
def test_seeds_measured_on_other_data_are_refused(tmp_path, name):
    other = evaluation(1)
    other["inputs"][name] = "9999999999999999"
    with pytest.raises(
        MismatchError, match=rf"1\.json: measured on {name} 9999999999999999, the first seed on .*again"
    ):
        gather(tmp_path, [evaluation(0), other])


def test_seeds_taught_differently_are_refused(tmp_path):
    other = evaluation(1)
    other["setup"]["recipe"]["batch_size"] = 32
    with pytest.raises(MismatchError, match=r"1\.json: was taught with other recipe knobs than the first seed; run"):
        gather(tmp_path, [evaluation(0), other])


@pytest.mark.parametrize("number", [0, 1])
def test_seeds_with_another_recipe_in_one_stage_are_refused(tmp_path, number):
    seeds = [evaluation(0), evaluation(1)]
    seeds[number]["setup"]["stage_recipes"] = {"primary": seeds[0]["setup"]["recipe"] | {"batch_size": 32}}
    with pytest.raises(MismatchError, match=r"1\.json: was taught with other stage_recipes knobs than the first seed"):
        gather(tmp_path, seeds)


@pytest.mark.parametrize("is_number", [True, False])
def test_seeds_with_other_teachers_are_refused(tmp_path, is_number):
    other = evaluation(1)
    if is_number:
        other["teachers"]["digits_specialists/primary"]["top1"] = 0.5
    else:  # as good, but not the same answers
        other["inputs"]["teacher_evaluations"][0] = "9999999999999999"
    with pytest.raises(MismatchError) as caught:
        gather(tmp_path, [evaluation(0), other])
    assert str(caught.value) == (
        f"{tmp_path}/evaluations/1.json: its teachers are not those of the first seed, or were measured anew; "
        "evaluate all seeds again"
    )


def test_an_evaluation_without_teachers_is_of_an_earlier_version(tmp_path):
    record = evaluation()
    del record["teachers"]
    with pytest.raises(CorruptFileError, match=r"missing keys: teachers\); make it again with `snakemake --force"):
        gather(tmp_path, [record])


def test_what_is_no_evaluation_is_refused(tmp_path):
    record = evaluation()
    record["step"] = "run_stage"
    del record["metrics"]
    with pytest.raises(
        CorruptFileError, match=r"0\.json: not an evaluation .*'run_stage', missing keys: metrics\); make"
    ):
        gather(tmp_path, [record])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["digits_ed", "digits_kd", "digits_ce"])
def test_a_result_fits_its_schema_and_its_reader(tmp_path, experiment):
    path = write_result(tmp_path, experiment=experiment)
    schema = json.loads((DOCS / "result.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(path.read_text()), schema)
    assert read_result(path).inputs.dataset == DATASET


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value"), [("method", 3), ("seeds", []), ("surprise", 1), ("code", "no digest")])
def test_the_schema_refuses_what_the_reader_refuses(tmp_path, key, value):
    contents = json.loads(write_result(tmp_path).read_text()) | {key: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(contents, json.loads(result_schema()))
    path = tmp_path / "altered.json"
    write_record(path, contents)
    with pytest.raises(
        CorruptFileError, match=rf"altered\.json: {key}: .*; the file was altered or made by another edpipe"
    ):
        read_result(path)


def test_schema_file_is_the_generated_one():
    remedy = "write docs/result.schema.json anew from edpipe.results.result_file.result_schema()"
    assert (DOCS / "result.schema.json").read_text(encoding="utf-8") == result_schema(), remedy


def test_every_key_is_documented():
    schema = Result.model_json_schema()
    text = (DOCS / "result.md").read_text(encoding="utf-8")
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_another_version_is_refused(tmp_path):
    path = write_result(tmp_path)
    contents = read_record(path) | {"format_version": 2}
    path.write_text(json.dumps(contents))
    with pytest.raises(CorruptFileError, match=r"result of version 2, this edpipe reads 5; make it again"):
        read_result(path)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(
        CorruptFileError, match=r"other\.json: not a result \(format None, not 'edpipe-result'\); name a"
    ):
        read_result(path)


# What is summed up is summed up again


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("summary.top1.mean", 0.99, "summary.top1.mean is 0.99, computed again from its seeds it is 0.885"),
        ("summary.top1.high", 0.99, "summary.top1.high is 0.99, computed again from its seeds it is 0.909"),
        ("summary.top1.n", 4, "summary.top1.n is 4, computed again from its seeds it is 3"),
        ("summary.forgetting.primary.std", None, "summary.forgetting.primary.std is None, computed again"),
        ("budget.images_seen", 1, "budget.images_seen is 1, computed again from its seeds it is 24000"),
        ("budget.teacher_forwards_saved", 0, "budget.teacher_forwards_saved is 0, computed again from its seeds"),
        ("seeds.1.metrics.top1", 0.5, "summary.top1.high is 0.909"),
        ("seeds.2.metrics.agreement", {}, "its seeds do not belong together (KeyError('digits_specialists/"),
    ],
)
def test_a_result_whose_sums_are_not_those_of_its_seeds_is_refused(tmp_path, place, value, told):
    path = write_result(tmp_path)
    part = contents = read_record(path)
    *outer, last = (int(name) if name.isdigit() else name for name in place.split("."))
    for name in outer:
        part = part[name]
    part[last] = value
    rewrite_result(path, contents)  # the seal fits
    with pytest.raises(CorruptFileError) as caught:
        read_result(path)
    assert str(caught.value).startswith(f"{path}: {told}")
    assert str(caught.value).endswith(f"; make it again with `snakemake --force {path}`")


def test_another_rounding_is_no_contradiction(tmp_path):
    path = write_result(tmp_path)
    contents = read_record(path)
    contents["summary"]["top1"]["high"] *= 1 + 1e-12
    rewrite_result(path, contents)
    assert read_result(path).summary.top1.high == contents["summary"]["top1"]["high"]


def test_a_result_names_its_evaluations_and_is_digested_without_its_cost(tmp_path):
    one, other = (read_result(write_result(tmp_path / name, costs=costs)) for name, costs in (("a", COSTS), ("b", [])))
    paths = sorted((tmp_path / "a" / "digits_ed" / "evaluations").iterdir())
    assert one.inputs.evaluations == tuple(json.loads(path.read_text())["file_digest"] for path in paths)
    assert (one.digest, one.inputs) == (other.digest, other.inputs)
    assert one.file_digest != other.file_digest


def test_a_digest_of_something_else_is_refused(tmp_path):
    path = write_result(tmp_path)
    write_record(path, read_record(path) | {"digest": "0" * 16})
    with pytest.raises(CorruptFileError, match="digest 0000000000000000 is not that of its contents; make it again"):
        read_result(path)


def test_an_edit_of_any_kind_is_refused(tmp_path):
    path = write_result(tmp_path)
    path.write_text(path.read_text().replace('"mean": 0.885', '"mean": 0.985', 1))
    with pytest.raises(CorruptFileError, match="altered since written; make it again with"):
        read_result(path)
