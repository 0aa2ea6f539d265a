"""The jobs that follow from params.yaml: their curricula, knobs, files and commands."""

import copy

import pytest
import yaml
from project import as_yaml
from shipped import shipped_and_examples

from edpipe.cli.main import main
from edpipe.errors import MismatchError, ParamsError
from edpipe.params.load import parse_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.pipeline.dvc.code_file import write_code
from edpipe.pipeline.dvc.lists import check_tracked_jobs, check_when_under_dvc, tracked_jobs_text, write_tracked_jobs
from edpipe.pipeline.jobs import data, graph, students, teachers
from edpipe.pipeline.jobs.model_checks import check_model, check_params

RAW = shipped_and_examples()
LEVELS = ("primary", "middle", "university")
ED, KD, CE = "experiments.digits_ed", "experiments.digits_kd", "experiments.digits_ce"


def changed(changes=None):
    raw = copy.deepcopy(RAW)
    for path, value in (changes or {}).items():
        place = raw
        *parents, last = path.split(".")
        for key in parents:
            place = place[key]
        place[last] = value
    return raw


def params(changes=None):
    return parse_params(changed(changes))


def facts(experiment, changes=None):
    plans = curriculum(params(changes), experiment)
    return [(p.name, p.number, p.num_stages, p.taught, p.known, tuple(u.subset for u in p.teachers)) for p in plans]


def test_ce_is_one_stage_without_teacher():
    (plan,) = curriculum(params({f"{CE}.method.label_smoothing": 0.1}), "digits_ce")
    assert facts("digits_ce") == [("only", 1, 1, ("all",), ("all",), ())]
    assert (plan.task_weight, plan.label_smoothing, plan.window, plan.budget.images) == (1.0, 0.1, (0.0, 1.0), 24000)


def test_kd_is_one_stage_with_one_teacher():
    (plan,) = curriculum(params({f"{KD}.method.temperature": 2.0}), "digits_kd")
    assert facts("digits_kd") == [("only", 1, 1, ("all",), ("all",), ("all",))]
    assert (plan.teachers[0].teacher, plan.temperature, plan.task_weight) == ("digits_teacher", 2.0, 0.3)
    assert plan.window == (0.0, 1.0)


def test_ed_introduces_a_subset_a_stage():
    assert facts("digits_ed") == [
        (level, k, 3, LEVELS[:k], LEVELS[:k], LEVELS[:k]) for k, level in enumerate(LEVELS, start=1)
    ]
    plan = curriculum(params(), "digits_ed")[0]
    assert (plan.normalisation, plan.subset_order, plan.window, plan.temperature) == ("slice", "mixed", (0.0, 1.0), 4.0)


def test_ed_without_replay_teaches_the_new_subset_alone():
    assert facts("digits_ed", {f"{ED}.method.replay": False}) == [
        (level, k, 3, (level,), LEVELS[:k], (level,)) for k, level in enumerate(LEVELS, start=1)
    ]


def test_ed_with_a_full_teacher_asks_it_for_everything():
    found = facts("digits_ed", {f"{ED}.method.teacher": "digits_teacher"})
    assert [teachers for *_, teachers in found] == [("all",)] * 3


def test_the_order_of_stages_is_that_of_the_subsets():
    reversed_budgets = dict(reversed(RAW["experiments"]["digits_ed"]["stages"].items()))
    assert facts("digits_ed", {f"{ED}.stages": reversed_budgets}) == facts("digits_ed")
    other = ["middle", "university", "primary"]
    assert [f[0] for f in facts("digits_ed", {"partitions.thirds.subsets": other})] == other


def windows(stages):
    changes = {f"{ED}.method.rate_schedule": "carried", f"{ED}.stages": stages}
    return [plan.window for plan in curriculum(params(changes), "digits_ed")]


@pytest.mark.parametrize("unit", ["images", "epochs"])
def test_a_carried_rate_cuts_one_schedule_by_budget(unit):
    stages = {level: {unit: budget} for level, budget in zip(LEVELS, (2, 4, 2), strict=True)}
    assert windows(stages) == [(0.0, 0.25), (0.25, 0.75), (0.75, 1.0)]


def test_a_carried_rate_needs_one_unit():
    stages = {"primary": {"images": 100}, "middle": {"epochs": 1}, "university": {"images": 100}}
    with pytest.raises(ParamsError) as caught:
        windows(stages)
    assert str(caught.value) == (
        "experiments.digits_ed.method.rate_schedule: 'carried' needs the budgets of all stages in one of epochs, "
        "images and compute, got epochs and images"
    )


def everything(changes=None):
    checked = params(changes)
    return {job.command: job for job in graph.jobs_of(checked, ("digits_ce", "digits_kd", "digits_ed"))}


def test_every_job_once_and_in_order():
    made, found = set(), list(everything().values())
    for job in found:
        assert set(job.all_inputs) <= made, job.command
        assert made.isdisjoint(job.outputs), job.command
        assert len(set(job.outputs)) == len(job.outputs)
        made |= set(job.outputs)
    assert len(found) == 1 + 1 + 4 + 4 + 4 + 4 + 3 * (1 + 1 + 3) + 3 * 3 + 3 + 3


@pytest.mark.slow
def test_all_experiments_together_write_no_file_twice():
    outputs = [path for job in graph.jobs_of(params(), RAW["experiments"]) for path in job.outputs]
    assert len(outputs) == len(set(outputs))


def test_teachers_and_soft_labels_belong_to_no_experiment():
    shared = {"pack_dataset", "partition_dataset", "train_teacher", "fetch_teacher"}
    for job in graph.jobs_of(params(), RAW["experiments"]):
        if job.step in shared | {"dump_soft_labels", "verify_soft_labels", "evaluate_teacher"}:
            assert not any(name in str(path) for path in job.outputs for name in RAW["experiments"])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", RAW["experiments"])
def test_the_keys_of_a_job_stand_in_the_file(experiment):
    for job in graph.jobs_of(params(), [experiment]):
        for key in job.keys:
            place = RAW
            for part in key.split("."):
                assert part in place, f"{job.command}: {key}"
                place = place[part]
        assert bool(job.keys) == (job.knobs_text != "{}")


def test_commands():
    commands = list(everything())
    assert commands[:2] == [
        "edpipe pack_dataset --dataset digits",
        "edpipe partition_dataset --dataset digits --partition thirds",
    ]
    assert "edpipe train_teacher --dataset digits --teacher digits_specialists --subset middle" in commands
    assert "edpipe dump_soft_labels --dataset digits --teacher digits_teacher --subset all --views 0-8" in commands
    assert "edpipe verify_soft_labels --dataset digits --teacher digits_teacher --subset all" in commands
    assert "edpipe evaluate_teacher --dataset digits --teacher digits_specialists --subset primary" in commands
    assert "edpipe run_stage --experiment digits_ed --seed 2 --stage university" in commands
    assert "edpipe evaluate --experiment digits_kd --seed 0" in commands
    assert commands[-1] == "edpipe report --experiment digits_ed"


CONFUSED = {"partitions.thirds.confusion": {"teacher": "digits_teacher", "together": True}}


def test_a_partition_by_confusion_has_its_own_step_and_reads_verified_soft_labels():
    found = data.partition_dataset(params(CONFUSED | drawn(3, 2)), "digits", "thirds")
    assert found.command == "edpipe partition_by_confusion --dataset digits --partition thirds"
    soft_labels = "artifacts/soft_labels/digits/digits_teacher/all"
    assert {role: [str(path) for path in paths] for role, paths in found.inputs.items()} == {
        "dataset": ["artifacts/datasets/digits.h5"],
        "indexes": [f"{soft_labels}.json"],
        "soft_labels": [f"{soft_labels}/views_0-1.h5", f"{soft_labels}/views_2-2.h5"],
        "teachers": ["artifacts/teachers/digits/digits_teacher/all.json"],
    }
    assert found.keys == ("partitions.thirds", "soft_labels.digits.space")


@pytest.mark.parametrize("experiment", ["digits_ce", "digits_kd", "digits_ed"])
def test_the_teacher_whom_a_partition_asks_comes_before_it_and_specialists_after(experiment):
    found = graph.jobs_of(params(CONFUSED), [experiment])
    made = set()
    for job in found:
        assert set(job.all_inputs) <= made, job.command
        assert made.isdisjoint(job.outputs), job.command
        made |= set(job.outputs)
    steps = [job.step for job in found]
    assert steps[:5] == [
        "pack_dataset", "train_teacher", "dump_soft_labels", "verify_soft_labels", "partition_by_confusion"
    ]  # fmt: skip
    assert steps.count("train_teacher") == (4 if experiment == "digits_ed" else 1)


@pytest.mark.parametrize(
    ("change", "is_again"),
    [
        ({"soft_labels.digits.space.seed": 3}, True),
        ({"partitions.thirds.ratio": [1, 1, 2]}, True),
        ({"partitions.thirds.confusion": {"teacher": "digits_teacher", "together": False}}, True),
        ({"partitions.thirds.confusion": {"teacher": "digits_teacher"}}, False),  # together is the default
        ({"soft_labels.digits.views.per_file": 3}, False),
    ],
)
def test_a_partition_asks_again_when_its_own_knobs_or_the_views_change(change, is_again):
    command = "edpipe partition_by_confusion --dataset digits --partition thirds"
    before, after = everything(CONFUSED)[command], everything(CONFUSED | change)[command]
    assert (after.knobs_text != before.knobs_text) == is_again


def test_each_kind_of_partition_has_its_own_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "digits", "--partition", "thirds"]
    for changes, wrong, right in (
        ({}, "partition_by_confusion", "partition_dataset"),
        (CONFUSED, "partition_dataset", "partition_by_confusion"),
    ):
        (tmp_path / "params.yaml").write_text(as_yaml(changed(changes)))
        assert main([wrong, *words]) == 2
        assert capsys.readouterr().err == (
            f"edpipe: partitions.thirds.confusion: this partition is made by `edpipe {right}`, not {wrong}\n"
        )


def test_the_model_of_a_teacher_whom_only_a_partition_asks_is_checked():
    wrong = CONFUSED | {"teachers.digits_teacher.network.model": "resnet9"}
    with pytest.raises(ParamsError, match=r"^teachers.digits_teacher.network.model: "):
        check_params(params(wrong), ("digits_ce",))


def test_a_fetched_teacher_has_its_own_step():
    found = teachers.make_teacher(params(), "food101", "food101_teacher", "all")
    assert found.step == "fetch_teacher"


def test_a_stage_reads_what_it_grows_from_and_its_soft_labels():
    found = everything()
    first = found["edpipe run_stage --experiment digits_ed --seed 1 --stage primary"].inputs
    second = found["edpipe run_stage --experiment digits_ed --seed 1 --stage middle"].inputs
    assert first["previous"] == ()
    students = "artifacts/students/digits_ed/seed1"
    assert [str(p) for p in second["previous"]] == [f"{students}/1_primary.safetensors", f"{students}/1_primary.json"]
    specialists = "digits/digits_specialists"
    assert [str(p) for p in second["indexes"]] == [
        f"artifacts/soft_labels/{specialists}/primary.json",
        f"artifacts/soft_labels/{specialists}/middle.json",
    ]
    assert [str(p) for p in second["soft_labels"]] == [
        f"artifacts/soft_labels/{specialists}/primary/views_0-8.h5",
        f"artifacts/soft_labels/{specialists}/middle/views_0-8.h5",
    ]
    assert [str(p) for p in second["teachers"]] == [
        f"artifacts/teachers/{specialists}/primary.json",
        f"artifacts/teachers/{specialists}/middle.json",
    ]


def test_an_evaluation_reads_every_stage_and_each_teacher_once():
    found = everything()
    school = found["edpipe evaluate --experiment digits_ed --seed 1"].inputs
    assert [path.name for path in school["students"]] == [
        f"{number}_{level}.{suffix}" for number, level in enumerate(LEVELS, 1) for suffix in ("safetensors", "json")
    ]
    assert [str(path) for path in school["teacher_evaluations"]] == [
        f"artifacts/teacher_evaluations/digits/digits_specialists/{level}.json" for level in LEVELS
    ]
    assert found["edpipe evaluate --experiment digits_ce --seed 1"].inputs["teacher_evaluations"] == ()


def test_a_teacher_is_measured_from_its_weights_and_for_a_specialist_its_partition():
    found = everything()
    words = "edpipe evaluate_teacher --dataset digits --teacher"
    special, full = found[f"{words} digits_specialists --subset middle"], found[f"{words} digits_teacher --subset all"]
    weights = "artifacts/teachers/digits/digits_specialists/middle"
    assert {role: [str(path) for path in paths] for role, paths in special.inputs.items()} == {
        "dataset": ["artifacts/datasets/digits.h5"],
        "partition": ["artifacts/partitions/digits/thirds.json"],
        "teacher": [f"{weights}.safetensors", f"{weights}.json"],
    }
    assert full.inputs["partition"] == ()
    assert (special.knobs_text, special.keys) == ("{}", ())
    assert [str(path) for path in special.outputs] == [
        "artifacts/teacher_evaluations/digits/digits_specialists/middle.json"
    ]


def test_a_teacher_that_only_a_partition_asks_is_not_measured():
    found = graph.jobs_of(params(CONFUSED | {"experiments.digits_ed.beside": []}), ["digits_ed"])
    measured = [job.arguments["teacher"] for job in found if job.step == "evaluate_teacher"]
    assert measured == ["digits_specialists"] * 3


def drawn(number, per_file):
    """Changes by which digits has so many drawn views."""
    return {
        "soft_labels.digits.space.exhaustive": False,
        "soft_labels.digits.views": {"number": number, "per_file": per_file},
    }


def files_of_a_stage(changes):
    return [
        path.name
        for path in students.run_stage(params(changes), "digits_ed", 0, "primary").inputs["soft_labels"]
        if path.parent.name == "primary"
    ]


def test_views_are_spread_over_files():
    assert files_of_a_stage(drawn(20, 8)) == ["views_0-7.h5", "views_8-15.h5", "views_16-19.h5"]
    assert files_of_a_stage(drawn(16, 8)) == ["views_0-7.h5", "views_8-15.h5"]
    assert files_of_a_stage(drawn(1, 8)) == ["views_0-0.h5"]
    assert files_of_a_stage({"soft_labels.digits.views.per_file": 7}) == ["views_0-6.h5", "views_7-8.h5"]


def test_verifying_reads_every_file_of_its_teacher_and_subset_alone():
    found = teachers.verify_soft_labels(params(drawn(3, 2)), "digits", "digits_specialists", "middle")
    folder = "artifacts/soft_labels/digits/digits_specialists/middle"
    names = [f"{folder}/views_{views}.{suffix}" for views in ("0-1", "2-2") for suffix in ("h5", "json")]
    assert [str(path) for path in found.inputs["soft_labels"]] == names
    assert [str(path) for path in found.outputs] == [f"{folder}.json"]


def test_more_views_add_files_and_leave_full_ones_as_they_are():
    before, after = everything(drawn(4, 2)), everything(drawn(7, 2))
    dumps = {c: job for c, job in after.items() if job.step == "dump_soft_labels"}
    assert {c.split("--views ")[1] for c in dumps.keys() - before.keys()} == {"4-5", "6-6"}
    assert len(dumps.keys() - before.keys()) == 2 * len(DUMPS)
    same = dumps.keys() & before.keys()
    assert len(same) == 2 * len(DUMPS)
    assert all(dumps[command].knobs_text == before[command].knobs_text for command in same)
    changed_ones = {c for c in after.keys() & before.keys() if after[c].knobs_text != before[c].knobs_text}
    assert kinds(changed_ones) == VERIFIED | TAUGHT_STAGES


def kinds(commands):
    """Commands in short: step and the values that name the job, seed 0 alone."""
    short = [c.removeprefix("edpipe ").split(" ") for c in commands if "--seed 1" not in c and "--seed 2" not in c]
    return {" ".join([words[0], *(w for w in words[1:] if not w.startswith("--"))]) for words in short}


STAGES = {f"run_stage digits_ed 0 {level}" for level in LEVELS}
ALL_STAGES = STAGES | {"run_stage digits_ce 0 only", "run_stage digits_kd 0 only"}
SPECIALISTS = {f"train_teacher digits digits_specialists {level}" for level in LEVELS}
TEACHERS = SPECIALISTS | {"train_teacher digits digits_teacher all"}
SPECIAL_DUMPS = {f"dump_soft_labels digits digits_specialists {level} 0-8" for level in LEVELS}
DUMPS = SPECIAL_DUMPS | {"dump_soft_labels digits digits_teacher all 0-8"}
VERIFIED = {f"verify_soft_labels digits digits_specialists {level}" for level in LEVELS}
VERIFIED |= {"verify_soft_labels digits digits_teacher all"}
TAUGHT_STAGES = STAGES | {"run_stage digits_kd 0 only"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "touched"),
    [
        ("datasets.digits.val_fraction", 0.2, {"pack_dataset digits"}),
        ("datasets.fashion_mnist.val_fraction", 0.2, set()),
        ("partitions.thirds.class_order_seed", 1, {"partition_dataset digits thirds"}),
        ("recipes.tiny_images.warmup", 0.2, TEACHERS | ALL_STAGES),
        ("recipes.small_images.warmup", 0.2, set()),
        ("teachers.digits_specialists.network.model", "resnet20", SPECIALISTS),
        ("teachers.digits_teacher.fitting.seed", 1, {"train_teacher digits digits_teacher all"}),
        ("teachers.digits_specialists.min_top1", 0.5, SPECIAL_DUMPS),
        ("teachers.fashion_teacher.min_top1", 0.5, set()),
        ("students.resnet8.reference", "linear", ALL_STAGES),
        ("students.resnet18.reference", "linear", set()),
        ("soft_labels.digits.storage.precision", "float16", DUMPS),
        ("soft_labels.digits.storage.max_kl", 1.0, DUMPS),
        ("soft_labels.digits.storage.max_kl", None, DUMPS),
        ("soft_labels.digits.storage.attention", True, DUMPS),
        ("soft_labels.digits.storage.hint", {"feature_stage": 2, "side": 4}, DUMPS),
        # What a view is, is seen by all; how many there are, only by those who need a stored teacher.
        ("soft_labels.digits.space.augment.flip", True, TEACHERS | DUMPS | ALL_STAGES),
        ("soft_labels.digits.space.seed", 3, DUMPS | ALL_STAGES),
        ("soft_labels.digits.views.choice", "cycle", VERIFIED | TAUGHT_STAGES),
        ("soft_labels.digits.views.per_file", 18, VERIFIED),
        ("soft_labels.fashion_mnist.views.number", 9, set()),
        ("soft_labels.fashion_mnist.storage.precision", "float16", set()),
        (f"{ED}.method.temperature", 2.0, STAGES),
        (f"{ED}.method.subset_order", "sequential", STAGES),
        (f"{ED}.method.normalisation", "full", STAGES),
        (f"{ED}.method.task_weight", 0.5, STAGES),
        (f"{ED}.stages.middle.images", 9000, {"run_stage digits_ed 0 middle"}),
        (f"{ED}.stages.primary.learning_rate", 0.2, {"run_stage digits_ed 0 primary"}),
        # A carried schedule is cut by the budgets of all stages, so that every stage changes.
        (f"{ED}.method.rate_schedule", "carried", STAGES),
        (f"{ED}.method.replay", False, {"run_stage digits_ed 0 middle", "run_stage digits_ed 0 university"}),
        (f"{KD}.method.temperature", 2.0, {"run_stage digits_kd 0 only"}),
        (f"{CE}.method.label_smoothing", 0.1, {"run_stage digits_ce 0 only"}),
        (f"{KD}.seeds", [0, 1, 2, 3], {"result digits_kd"}),
        ("tracked", [], set()),
    ],
)
def test_a_changed_knob_changes_the_jobs_that_depend_on_it_and_no_others(path, value, touched):
    before, after = everything(), everything({path: value})
    different = {c for c, job in after.items() if c in before and job.knobs_text != before[c].knobs_text}
    assert kinds(different) == touched


@pytest.mark.parametrize(
    "path",
    [
        "soft_labels.digits.space.seed",
        "soft_labels.digits.storage.max_kl",
        "soft_labels.digits.views.per_file",
        f"{ED}.stages.middle.images",
        f"{KD}.method.temperature",
    ],
)
def test_a_job_whose_knobs_change_names_the_key_that_changed(path):
    before, after = everything(), everything({path: 7})
    for command, job in after.items():
        if command in before and job.knobs_text != before[command].knobs_text:
            assert any(path == key or path.startswith(f"{key}.") for key in job.keys), command


def test_a_carried_rate_makes_every_stage_depend_on_all_budgets():
    carried = {f"{ED}.method.rate_schedule": "carried"}
    before, after = everything(carried), everything(carried | {f"{ED}.stages.middle.images": 9000})
    assert kinds(c for c in after if after[c].knobs_text != before[c].knobs_text) == STAGES
    stage = after["edpipe run_stage --experiment digits_ed --seed 0 --stage primary"]
    assert "experiments.digits_ed.stages" in stage.keys


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda p: data.pack_dataset(p, "digit"),
            "datasets: no entry named 'digit'; did you mean 'digits'?",
        ),
        (
            lambda p: teachers.make_teacher(p, "digits", "digits_teacher", "primary"),
            "subset of teacher 'digits_teacher': 'primary' is not one of them; allowed: all",
        ),
        (
            lambda p: teachers.dump_soft_labels(p, "digits", "digits_specialists", "all", "0-8"),
            "subset of teacher 'digits_specialists': 'all' is not one of them; allowed: primary, middle, university",
        ),
        (
            lambda p: teachers.dump_soft_labels(p, "digits", "digits_specialists", "primary", "0-7"),
            "views of soft_labels.digits: '0-7' is not one of them; allowed: 0-8",
        ),
        (
            lambda p: teachers.verify_soft_labels(p, "digits", "digits_teacher", "primary"),
            "subset of teacher 'digits_teacher': 'primary' is not one of them; allowed: all",
        ),
        (
            lambda p: teachers.evaluate_teacher(p, "digits", "digits_specialists", "all"),
            "subset of teacher 'digits_specialists': 'all' is not one of them; allowed: primary, middle, university",
        ),
        (
            lambda p: students.run_stage(p, "digits_ed", 9, "primary"),
            "seeds of experiment 'digits_ed': 9 is not one of them; allowed: 0, 1, 2",
        ),
        (
            lambda p: students.run_stage(p, "digits_ed", 0, "only"),
            "stages of experiment 'digits_ed': 'only' is not one of them; allowed: primary, middle, university",
        ),
        (
            lambda p: students.evaluate(p, "digits_ed", 9),
            "seeds of experiment 'digits_ed': 9 is not one of them; allowed: 0, 1, 2",
        ),
        (
            lambda p: students.report(p, "digits_et"),
            "experiments: no entry named 'digits_et'; did you mean 'digits_ed'?",
        ),
    ],
)
def test_a_job_that_is_none_is_refused(ask, message):
    with pytest.raises(ParamsError) as caught:
        ask(params())
    assert str(caught.value) == message


def test_of_many_files_a_few_are_named():
    with pytest.raises(ParamsError, match=r": '9-9' is not one of them; allowed: 0-4, 5-9, 10-14, …, 995-999$"):
        teachers.dump_soft_labels(params(drawn(1000, 5)), "digits", "digits_teacher", "all", "9-9")


def test_model_names_are_checked_with_their_place():
    check_params(params(), ("digits_ce", "digits_kd", "digits_ed"))
    with pytest.raises(ParamsError, match=r"^students\.resnet8\.model: .*'resnet9'"):
        check_params(params({"students.resnet8.model": "resnet9"}), ("digits_ce",))
    with pytest.raises(ParamsError, match=r"^teachers\.digits_teacher\.network\.model: .*'resnt14'"):
        check_params(params({"teachers.digits_teacher.network.model": "resnt14"}), ("digits_kd",))
    with pytest.raises(ParamsError, match=r"^here: "):
        check_model("here", "nonsense")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


@pytest.mark.slow
def test_the_lists_for_dvc_are_written_once_and_checked(folder, monkeypatch):
    with pytest.raises(
        ParamsError, match=r"does not fit params.yaml any more; run `edpipe tracked_jobs`, then call dvc again"
    ):
        check_tracked_jobs(params())
    assert write_tracked_jobs(params())
    assert not write_tracked_jobs(params())
    check_tracked_jobs(params())
    jobs = graph.jobs_of(params(), RAW["tracked"])
    untracked = students.run_stage(params(), "fashion_mnist_ce", 0, "only")
    check_when_under_dvc(params(), untracked)
    monkeypatch.setenv("DVC_STAGE", "run_stage@x")
    with pytest.raises(MismatchError, match=r"^workflow/code\.yaml: does not fit the code of losses.at"):
        check_when_under_dvc(params(), jobs[0])
    write_code()
    for job in jobs:
        check_when_under_dvc(params(), job)
    with pytest.raises(ParamsError, match=r"^workflow/tracked_jobs\.yaml: does not fit"):
        check_when_under_dvc(params(), untracked)


@pytest.fixture
def under_dvc(folder, monkeypatch):
    """A folder in which all that DVC knows is written, and the environment of a stage that DVC runs."""
    write_tracked_jobs(params())
    write_code()
    monkeypatch.setenv("DVC_STAGE", "run_stage@x")
    return folder


def test_a_job_that_now_has_another_input_is_refused_under_dvc(under_dvc):
    teachers = RAW["teachers"] | {"other": RAW["teachers"]["digits_teacher"]}
    other = params({"teachers": teachers, f"{KD}.method.teacher": "other"})
    stage = students.run_stage(other, "digits_kd", 0, "only")
    with pytest.raises(ParamsError, match=r"^workflow/tracked_jobs\.yaml: does not fit params.yaml any more; run"):
        check_when_under_dvc(other, stage)


def test_a_job_whose_entry_stands_under_another_step_is_refused_under_dvc(under_dvc):
    path = under_dvc / "workflow/tracked_jobs.yaml"
    lists = yaml.safe_load(path.read_text())["jobs"]
    assert lists["verify_soft_labels"] == lists["evaluate_teacher"]
    path.write_text(yaml.safe_dump({"jobs": lists | {"evaluate_teacher": {}}}))
    teacher = next(job for job in graph.jobs_of(params(), ["digits_kd"]) if job.step == "evaluate_teacher")
    with pytest.raises(ParamsError, match=r"^workflow/tracked_jobs\.yaml: does not fit params.yaml any more; run"):
        check_when_under_dvc(params(), teacher)


def test_a_job_with_other_knobs_is_refused_under_dvc(under_dvc):
    other = params({f"{KD}.method.temperature": 7})
    stage = students.run_stage(other, "digits_kd", 0, "only")
    with pytest.raises(ParamsError, match=r"^workflow/knobs/experiments/digits_kd\.json: does not fit params.yaml any"):
        check_when_under_dvc(other, stage)


def test_lists_of_other_soft_labels_are_refused_under_dvc(under_dvc):
    (under_dvc / ".dvcignore").unlink()
    with pytest.raises(ParamsError, match=r"^\.dvcignore: does not fit params.yaml any more; run"):
        check_when_under_dvc(params(), graph.jobs_of(params(), ["digits_kd"])[0])


def test_dvc_is_told_which_soft_labels_are_in_use(folder):
    (folder / ".dvcignore").write_text("my_own_notes\n")
    write_tracked_jobs(params(drawn(3, 2)))
    lines = (folder / ".dvcignore").read_text().splitlines()
    assert lines[0] == "my_own_notes"
    assert lines[2:] == [
        "/artifacts/soft_labels/digits/*/*/views_*.*",
        "!/artifacts/soft_labels/digits/*/*/views_0-1.*",
        "!/artifacts/soft_labels/digits/*/*/views_2-2.*",
    ]
    (folder / ".dvcignore").write_text("\n".join(["other_notes", *lines[1:]]) + "\n")
    assert not write_tracked_jobs(params(drawn(3, 2)))
    (folder / ".dvcignore").write_text("other_notes\n")
    with pytest.raises(
        ParamsError, match=r"^\.dvcignore: does not fit params.yaml any more; run `edpipe tracked_jobs`"
    ):
        check_tracked_jobs(params(drawn(3, 2)))


def test_the_lists_for_dvc_hold_every_tracked_job_and_no_other():
    lists = yaml.safe_load(tracked_jobs_text(params()))["jobs"]
    found = graph.jobs_of(params(), RAW["tracked"])
    assert sum(len(entries) for entries in lists.values()) == len(found)
    assert set(lists["run_stage"]) >= {"digits_ed-0-primary", "digits_ce-2-only"}
    stage = lists["run_stage"]["digits_ed-0-middle"]
    assert stage["before"] == "artifacts/students/digits_ed/seed0/1_primary.safetensors"
    assert stage["soft_labels_1"] == "artifacts/soft_labels/digits/digits_specialists/middle.json"
    assert stage["soft_labels_2"] == "artifacts/datasets/digits.h5"  # nothing else is new to this stage
    measured = lists["evaluate"]["digits_kd-0"]
    assert measured["teacher_evaluation_1"] == "artifacts/teacher_evaluations/digits/digits_teacher/all.json"
    assert measured["teacher_evaluation_2"] == measured["student_record"]  # there is no second teacher
    assert "teacher_evaluation_9" not in measured
    # Every entry of a list has the same keys: DVC fills one template with each.
    assert all(len({tuple(sorted(e)) for e in entries.values()}) <= 1 for entries in lists.values())
    assert tracked_jobs_text(params({"tracked": []})).startswith("# Written by `edpipe tracked_jobs`")


def with_many_teachers(number):
    """A panel for each level such that a stage is not too long for DVC's lists, but the experiment may be."""
    others = {f"other_{k}": RAW["teachers"]["digits_teacher"] for k in range(number)}
    half = number // 2
    panels = [list(others)[:half], list(others)[half:], list(others)[half:]]
    method = {"name": "ed", "classes": "all", "teachers": dict(zip(LEVELS, panels, strict=True))}
    return {"teachers": RAW["teachers"] | others, f"{ED}.method": method, "tracked": ["digits_ed"]}


def test_an_experiment_of_too_many_teachers_for_the_lists_is_told_so():
    assert yaml.safe_load(tracked_jobs_text(params(with_many_teachers(8))))["jobs"]["evaluate"]
    with pytest.raises(ParamsError) as caught:
        tracked_jobs_text(params(with_many_teachers(9)))
    assert str(caught.value) == (
        "tracked: experiment 'digits_ed' has 9 teachers in all, DVC's lists hold 8; leave the experiment out of tracked"
    )
