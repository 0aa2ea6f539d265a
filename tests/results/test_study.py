"""Studies: experiments in one table, at equal images or compute, each against the base."""

import copy
import json
from pathlib import Path

import pytest
from comparable_results import with_top1, written
from examples import evaluation, rewrite_result, write_result
from project import as_yaml
from shipped import shipped_and_examples

from edpipe.cli.main import main
from edpipe.errors import CorruptFileError, MismatchError, ParamsError
from edpipe.params.load import parse_params
from edpipe.params.study import StudyKnobs
from edpipe.pipeline.jobs import graph, students
from edpipe.results.measures.metrics import mean_and_spread
from edpipe.steps.study import study
from edpipe.storage.records import read_record

RAW = shipped_and_examples()
KD_KNOBS = RAW["experiments"]["digits_kd"]
KD = {0: 0.5, 1: 0.625, 2: 0.75}
ED = {0: 0.75, 1: 0.75, 2: 0.75}


def knobs(*experiments, base="digits_kd", equal="images", **more):
    return StudyKnobs.model_validate({"experiments": experiments, "base": base, "equal": equal, **more})


def files(folder):
    return tuple(folder / f"results/study_digits.{kind}" for kind in ("json", "md", "svg"))


def make(folder, paths, equal="images", base="digits_kd", **more):
    out, table, figure = files(folder)
    made = knobs(*(path.stem for path in paths), base=base, equal=equal, **more)
    study("digits", made, tuple(paths), out, table, figure)
    return read_record(out), table.read_text().splitlines()


def test_study_holds_each_against_the_base_seed_by_seed(tmp_path):
    contents, _ = make(tmp_path, [with_top1(tmp_path, "digits_kd", KD), with_top1(tmp_path, "digits_ed", ED)])
    assert (contents["format"], contents["format_version"], contents["study"]) == ("edpipe-study", 4, "digits")
    assert [row["experiment"] for row in contents["results"]] == ["digits_ed", "digits_kd"]  # the best first
    only = contents["comparisons"][0]
    assert only["top1_differences"] == [0.25, 0.125, 0.0]
    # mean 1/8, standard error (1/8)/√3, 4.302653 standard errors of Student's t with 2 degrees of freedom
    assert only["top1_difference"]["high"] == pytest.approx(0.125 + 4.3026527 * 0.125 / 3**0.5, abs=1e-6)
    assert only["p_holm"] == only["p"]


def test_study_says_what_was_measured_beside_top1(tmp_path):
    contents, _ = make(tmp_path, [written(tmp_path, "digits_kd"), written(tmp_path, "digits_ed")])
    row = next(row for row in contents["results"] if row["experiment"] == "digits_ed")
    assert row["val_top1"]["mean"] == pytest.approx(0.875)
    assert row["forgetting"]["primary"]["mean"] == pytest.approx(0.07)
    assert row["ece"]["n"] == 3
    assert set(row["agreement"]) == {f"digits_specialists/{name}" for name in ("primary", "middle", "university")}
    assert row["teacher_forwards_spent"] == 9_100
    assert contents["inputs"]["students"]["digits_ed"][0] == f"{0:015x}3"


def test_planned_tests_are_adjusted_for_their_own_number_alone(tmp_path):
    ce = {0: 0.5, 1: 0.5, 2: 0.625}
    paths = [with_top1(tmp_path, f"digits_{name}", top1) for name, top1 in (("kd", KD), ("ed", ED), ("ce", ce))]
    pairs = [("digits_ed", "digits_ce"), ("digits_ed", "digits_kd")]
    contents, lines = make(tmp_path, paths, tests=[{"experiment": a, "minus": b} for a, b in pairs])
    first, second = contents["tests"]
    # Differences 1/4, 1/4, 1/8: mean 5/24, deviation sqrt(3)/24, t = 5; two-sided with 2 degrees of freedom.
    assert first["top1_difference"]["mean"] == pytest.approx(5 / 24)
    assert first["t"] == pytest.approx(5.0)
    assert first["p"] == pytest.approx(1 - 5 / (2 + 5**2) ** 0.5)
    assert second["t"] == pytest.approx(3**0.5)
    assert (first["p_holm"], second["p_holm"]) == (pytest.approx(2 * first["p"]), second["p"])
    assert "- digits_ed − digits_ce: +20.83 ± 17.93 pp, p = 0.038, 0.075 after Holm" in lines


def test_tests_of_one_seed_have_no_p(tmp_path):
    paths = [with_top1(tmp_path, "digits_kd", {0: 0.5}), with_top1(tmp_path, "digits_ed", {0: 0.75})]
    contents, lines = make(tmp_path, paths, tests=[{"experiment": "digits_ed", "minus": "digits_kd"}])
    assert (contents["tests"][0]["p"], contents["tests"][0]["p_holm"]) == (None, None)
    assert "- digits_ed − digits_kd: +25.00 pp, no p" in lines


def test_recipes_of_their_own_are_allowed_where_the_study_says_so_and_named(tmp_path):
    paths = [written(tmp_path, "digits_kd"), written(tmp_path, "digits_ed", setup__recipe__batch_size=32)]
    assert any(line.startswith("recipes differ: batch_size: 32") for line in make(tmp_path, paths, recipes="own")[1])


@pytest.mark.parametrize("equal", ["images", "compute"])
def test_another_budget_may_stand_beside(tmp_path, equal):
    more = {"budget__images_seen": 30_000, "budget__training_macs": 2 * 10**12}
    paths = [written(tmp_path, "digits_kd"), written(tmp_path, "digits_ed", **more)]
    with pytest.raises(MismatchError):
        make(tmp_path, paths, equal=equal)
    assert len(make(tmp_path, paths, equal=equal, beside=["digits_ed"])[0]["results"]) == 2


def test_cpu_time_of_training_is_that_of_one_seed(tmp_path):
    contents, lines = make(tmp_path, [written(tmp_path, "digits_kd"), written(tmp_path, "digits_ed")])
    taken = read_record(tmp_path / "results/digits_ed.json")["cost"]["steps"]["run_stage"]
    row = next(row for row in contents["results"] if row["experiment"] == "digits_ed")
    assert row["training_cpu_seconds"] == (
        round(taken["cpu_seconds"] / 3, 1) if taken["with_figures"] == taken["artifacts"] else None
    )
    assert "CPU s" in lines[0]


def test_table_has_a_row_for_each_and_hand_computed_cells(tmp_path):
    _, lines = make(tmp_path, [with_top1(tmp_path, "digits_kd", KD), with_top1(tmp_path, "digits_ed", ED)])
    assert len(lines) == 4
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    of = dict(zip(cells[0], cells[2], strict=True))
    assert of["experiment"] == "digits_ed"
    assert of["top1, test %"] == "75.00 ± 0.00"
    assert of["test, minus digits_kd, pp"] == "+12.50 ± 31.05"
    assert of["images"] == "24,000"
    assert of["worst forgetting, pp"] == "+8.00"  # of primary; of middle it is 6.00
    # 3 · (1e6·4000 + 2e6·8000 + 3e6·12000) of 3 · 3e6·24000
    assert of["compute ÷ digits_kd"] == "0.778"
    of_base = dict(zip(cells[0], cells[3], strict=True))
    assert (of_base["test, minus digits_kd, pp"], of_base["p (Holm)"]) == ("–", "–")


def test_table_without_validation_images_has_a_dash(tmp_path):
    path = written(tmp_path, "digits_kd")
    records = [evaluation(seed) for seed in (0, 1, 2)]
    for record in records:
        record["metrics"] |= {"val_top1": None, "val_samples": 0}
    _, table = make(tmp_path, [path, write_result(tmp_path, records)])
    cells = {line.split("|")[1].strip(): line.split("|")[5].strip() for line in table if line.startswith("|")}
    assert (cells["digits_ed"], cells["digits_kd"]) == ("–", "87.50 ± 2.48")


def test_interval_needs_two_seeds(tmp_path):
    _, lines = make(tmp_path, [with_top1(tmp_path, "digits_kd", {0: 0.5}), with_top1(tmp_path, "digits_ed", {0: 0.75})])
    assert "| 75.00 |" in lines[2]
    assert "| +25.00 |" in lines[2]
    assert mean_and_spread([0.5]).high is None


def test_unequal_images_are_refused_and_nothing_is_written(tmp_path):
    paths = [written(tmp_path, "digits_kd"), written(tmp_path, "digits_ed", budget__images_seen=23_999)]
    with pytest.raises(
        MismatchError, match=r"images seen: .*23,999 \(digits_ed\).*; give all the same number, or make"
    ):
        make(tmp_path, paths)
    assert not any(path.exists() for path in files(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"setup__recipe__batch_size": 32}, "recipes differ: batch_size: 32"),
        ({"setup__student__reference": "linear"}, "students differ: .*resnet8 with reference linear"),
        ({"seeds": (0, 1, 4, 3)}, "seeds of digits_ed that digits_kd lacks: 3, 4; a study"),
    ],
)
def test_what_a_study_has_in_common_must_be_equal(tmp_path, changes, said):
    paths = [written(tmp_path, "digits_kd"), written(tmp_path, "digits_ed", **changes)]
    with pytest.raises(MismatchError, match=said):
        make(tmp_path, paths)
    assert not any(path.exists() for path in files(tmp_path))


def curves_of(folder, *changes):
    """Of results with these changes of the budget of the last stage."""
    paths = []
    for number, change in enumerate(changes):
        path = written(folder, f"digits_{number}")
        contents = read_record(path)
        contents["method"] = "ed"
        contents["setup"]["stages"][-1]["budget"].update(change)
        rewrite_result(path, contents)
        paths.append(path)
    study, _ = make(folder, paths, base="digits_0", recipes="own", beside=[path.stem for path in paths[1:]])
    return {row["name"]: row["curve"] for row in study["results"]}


def test_results_of_one_curve_differ_in_their_budgets_alone(tmp_path):
    found = curves_of(tmp_path, {}, {"images": 77}, {"learning_rate": 0.7}, {"image_size": 5})
    assert found["digits_0"] == found["digits_1"]
    assert len(set(found.values())) == 3


def test_some_of_the_bases_seeds_are_enough(tmp_path):
    base = with_top1(tmp_path, "digits_kd", {0: 0.5, 1: 0.6, 2: 0.9})
    study, _ = make(tmp_path, [base, with_top1(tmp_path, "digits_ed", {0: 0.6, 1: 0.7})])
    [one] = study["comparisons"]
    assert one["seeds"] == [0, 1]
    assert one["top1_difference"]["mean"] == pytest.approx(0.1)


def test_warnings_stand_below_the_table(tmp_path):
    _, lines = make(tmp_path, [with_top1(tmp_path, "digits_kd", {0: 0.5}), with_top1(tmp_path, "digits_ed", {0: 0.75})])
    assert lines[4] == ""
    assert any(line.startswith("one shared seed (0), so no interval and no p: digits_ed") for line in lines[5:])


@pytest.mark.parametrize(("share", "is_allowed"), [(1.001, True), (0.98, True), (0.979, False), (1.002, False)])
def test_compute_may_be_two_percent_less_and_a_thousandth_more(tmp_path, share, is_allowed):
    base = written(tmp_path, "digits_kd", budget__training_macs=1_000_000)
    macs = round(1_000_000 * share)
    other = written(tmp_path, "digits_ed", budget__training_macs=macs, budget__images_seen=30_000)
    if is_allowed:
        assert sum(line.startswith("|") for line in make(tmp_path, [base, other], equal="compute")[1]) == 4
    else:
        said = f"digits_ed: training took {macs:,} multiply-accumulates, {share:.4f} times those of digits_kd"
        with pytest.raises(MismatchError, match=said):
            make(tmp_path, [base, other], equal="compute")


def test_other_students_are_refused(tmp_path):
    other = {"model": "resnet20", "reference": "adapter"}
    paths = [written(tmp_path, "digits_kd"), written(tmp_path, "digits_ed", setup__student=other)]
    with pytest.raises(MismatchError, match=r"students differ: .* a study compares ways to teach one network"):
        make(tmp_path, paths)


def test_missing_result_is_refused(tmp_path):
    with pytest.raises(CorruptFileError, match="no such file"):
        make(tmp_path, [written(tmp_path, "digits_kd"), tmp_path / "results/digits_ed.json"])


def params_of(studies, experiments=()):
    raw = copy.deepcopy(RAW) | {"studies": studies}
    for name in experiments:
        raw["experiments"][name] = raw["experiments"]["digits_kd"]
    raw["experiments"]["digits_less"] = KD_KNOBS | {"stages": {"only": {"images": 100}}}
    raw["experiments"]["digits_other"] = KD_KNOBS | {"student": "resnet20"}
    raw["experiments"]["digits_seeds"] = KD_KNOBS | {"seeds": [3]}
    raw["experiments"]["digits_first"] = KD_KNOBS | {"seeds": [0]}
    raw["experiments"]["digits_last"] = KD_KNOBS | {"seeds": [2]}
    return parse_params(raw)


def study_of(**changes):
    return {"experiments": ["digits_kd", "digits_ed"], "base": "digits_kd"} | changes


def test_job_reads_the_results_and_writes_the_files():
    params = params_of({"digits": study_of()})
    job = students.study(params, "digits")
    assert job.command == "edpipe study --study digits"
    assert [str(path) for path in job.all_inputs] == ["results/digits_kd.json", "results/digits_ed.json"]
    assert [str(path) for path in job.outputs] == [f"results/study_digits.{kind}" for kind in ("json", "md", "svg")]
    assert json.loads(job.knobs_text)["study"]["equal"] == "images"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study_knobs", "said"),
    [
        (study_of(experiments=["digits_kd", "digits_de"]), r"studies\.s\.experiments: 'digits_de' .*did you mean"),
        (study_of(base="digits_ce"), "base 'digits_ce' is not among experiments"),
        (study_of(experiments=["digits_kd", "digits_kd"]), "experiments must differ"),
        (study_of(experiments=["digits_kd", "cifar100_kd"]), "all must have one dataset; digits_kd has digits"),
        (study_of(beside=["digits_de"]), r"beside: 'digits_de' is not among experiments; did you mean"),
        (study_of(beside=["digits_ed", "digits_ed"]), "beside: names must differ"),
        (study_of(beside=["digits_kd"]), "beside: 'digits_kd' is the base, whose budget is that of all; remove it"),
        (study_of(tests=[{"experiment": "digits_ed", "minus": "digits_ed"}]), r"tests\.0: names must differ"),
        (
            study_of(
                tests=[
                    {"experiment": "digits_ed", "minus": "digits_kd"},
                    {"experiment": "digits_kd", "minus": "digits_ed"},
                ]
            ),
            r"tests\.1: \['digits_ed', 'digits_kd'\] are tested by tests\.0 already; remove it",
        ),
        (study_of(tests=[{"experiment": "digits_ed", "minus": "digits_ce"}]), r"tests\.0: 'digits_ce' is not among"),
        (study_of(equal="time"), r"studies\.s\.equal"),
        (study_of(experiments=["digits_kd", "digits_less"]), "one number of images; digits_kd has 24,000, digits_less"),
        (study_of(experiments=["digits_kd", "digits_other"]), "one student; digits_kd has resnet8, digits_other"),
        (
            study_of(experiments=["digits_kd", "digits_seeds"]),
            r"seeds must be seeds of the base 'digits_kd', \[0, 1, 2\], or some of them; digits_seeds has \[3\]",
        ),
        (
            study_of(
                experiments=["digits_kd", "digits_first", "digits_last"],
                tests=[{"experiment": "digits_first", "minus": "digits_last"}],
            ),
            r"tests\.0: digits_first and digits_last share no seed, and differences are taken seed by seed; give",
        ),
    ],
)
def test_wrong_study_is_one_line(study_knobs, said):
    with pytest.raises(ParamsError, match=said) as caught:
        params_of({"s": study_knobs})
    assert "\n" not in str(caught.value)


def test_study_and_experiment_cannot_share_a_file():
    with pytest.raises(ParamsError, match=r"results/study_s\.json belongs to experiments\.study_s"):
        params_of({"s": study_of()}, experiments=["study_s"])


def test_a_study_stands_for_all_its_experiments_each_once():
    studies = {"some": {"base": "digits_kd", "experiments": ["digits_ce", "digits_kd", "digits_ed"]}}
    params = params_of(studies)
    assert graph.experiments_named(params, ["study_some"]) == ["digits_ce", "digits_kd", "digits_ed"]
    named = ["digits_ed", "study_some", "digits_ed"]
    assert graph.experiments_named(params, named) == ["digits_ed", "digits_ce", "digits_kd"]


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_plan_and_verify_speak_of_a_study(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    raw = copy.deepcopy(RAW)
    raw["studies"] = {"some": {"base": "digits_kd", "experiments": ["digits_ce", "digits_kd"]}}
    Path("params.yaml").write_text(as_yaml(raw), encoding="utf-8")
    assert main([command, "study_some"]) == 0
    told = capsys.readouterr().out
    assert "digits_kd" in told
    assert main([command, "digits_ce", "digits_kd"]) == 0
    of_study = ["absent   results/study_some.json"] if command == "verify" else []
    assert [*capsys.readouterr().out.splitlines()[:-1], *of_study] == told.splitlines()[:-1]
    assert main([command, "study_other"]) == 2
    assert "study_other" in capsys.readouterr().err


def test_recipes_of_single_stages_are_compared_too(tmp_path):
    recipe = read_record(written(tmp_path / "one", "digits_ed"))["setup"]["recipe"]
    other = {"primary": recipe | {"batch_size": 32}}
    paths = [written(tmp_path, "digits_kd"), written(tmp_path, "digits_ed", setup__stage_recipes=other)]
    with pytest.raises(MismatchError, match=r"recipes differ: batch_size: 32, then 64 \(digits_ed\); 64 \(digits_kd\)"):
        make(tmp_path, paths)


def test_check_refuses_stages_of_other_recipes_unless_the_study_allows_them():
    raw = copy.deepcopy(RAW) | {"studies": {"one": {"experiments": ["digits_ed", "digits_kd"], "base": "digits_kd"}}}
    raw["experiments"]["digits_ed"]["stages"]["primary"]["recipe"] = "small_images"
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert str(caught.value) == (
        "studies.one.experiments: all must have one recipe; digits_ed has small_images, tiny_images, digits_kd has "
        "tiny_images"
    )
    raw["studies"]["one"]["recipes"] = "own"
    parse_params(raw)
