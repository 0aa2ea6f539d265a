"""Every method as a curriculum, and each through run_stage and evaluate on a few digits."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from project import as_yaml
from school import params as school_params

from edpipe.cli.main import main
from edpipe.errors import ParamsError
from edpipe.models.macs import count_macs
from edpipe.models.zoo.build import build_network
from edpipe.params.load import load_params, parse_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.plans.plan import StageJobKnobs
from edpipe.pipeline.jobs import graph, students
from edpipe.steps.run_stage import run_stage
from edpipe.storage.weights import read_weights
from edpipe.training.stage import inputs, student
from edpipe.training.stage.inputs import StageFiles
from edpipe.training.stage.task import StageTask

LEVELS = ("primary", "middle", "university")
ONE = {"teacher": "general"}
PANEL = {"teachers": ["general", "second", "third"]}
GROWING = {"primary": ["general"], "middle": ["general", "second"], "university": ["general", "second", "third"]}
SINGLE = {
    "logit_std": {"name": "logit_std", **ONE},
    "dkd": {"name": "dkd", **ONE},
    "dist": {"name": "dist", **ONE},
    "at": {"name": "at", **ONE},
    "fitnet": {"name": "fitnet", **ONE},
    "aver": {"name": "aver", **PANEL},
    "ebkd": {"name": "ebkd", **PANEL},
    "aekd": {"name": "aekd", **PANEL},
    "ca_mkd": {"name": "ca_mkd", **PANEL},
    "alone": {"name": "ca_mkd", "teachers": ["general"], "task_weight": 0.3, "distill_weight": 0.7},
    "teskd": {"name": "teskd"},
}
SCHOOLS = {
    "all": {"name": "ed", "classes": "all", "teachers": GROWING, "references": "kept", "anchor_weight": 0.5},
    "both_kinds": {"name": "ed", "teachers": dict.fromkeys(LEVELS, ("specialists", "general"))},
    "full": {"name": "ed", "normalisation": "full", "references": "kept", "reference_weight": 0.1, **ONE},
    "mixed_kinds": {
        "name": "ed",
        "teacher": "specialists",
        "distill": {"kind": "dist"},
        "distill_by_level": {"middle": {"kind": "dkd"}, "university": {"kind": "at"}},
        "anchor_weight": 0.5,
    },
}


def params():
    """A school of three levels with three full teachers and specialists; soft labels with maps and hints."""
    raw = copy.deepcopy(school_params())
    raw["soft_labels"]["digits"]["storage"] |= {"attention": True, "hint": {"feature_stage": 2, "side": 2}}
    general = raw["teachers"]["general"]
    for seed, name in ((1, "second"), (2, "third")):
        raw["teachers"][name] = general | {"fitting": general["fitting"] | {"seed": seed}}
    kd, ed = raw["experiments"]["kd"], raw["experiments"]["ed"]
    raw["experiments"] |= {name: kd | {"method": method} for name, method in SINGLE.items()}
    raw["experiments"] |= {name: ed | {"method": method} for name, method in SCHOOLS.items()}
    raw["tracked"] = [*SINGLE, *SCHOOLS]
    return copy.deepcopy(raw)


def plans(name, **method):
    raw = params()
    raw["experiments"][name]["method"] = raw["experiments"][name]["method"] | method
    return curriculum(parse_params(raw), name)


def complaint(name, **method):
    with pytest.raises(ParamsError) as caught:
        plans(name, **method)
    return str(caught.value)


def test_weights_are_those_of_the_sources():
    def weights(name, **method):
        (plan,) = plans(name, **method)
        return plan.temperature, plan.task_weight, plan.distill_weight

    assert weights("kd") == (4.0, 0.3, 0.7)
    assert weights("kd", task_weight=0.1) == (4.0, 0.1, 0.9)
    assert weights("kd", distill_weight=2.0) == (4.0, 0.3, 2.0)
    assert weights("logit_std") == (2.0, 0.1, 9.0)
    assert weights("dkd") == weights("dist") == weights("aver") == weights("ca_mkd") == (4.0, 1.0, 1.0)
    assert weights("at") == (4.0, 1.0, 1000.0)
    assert weights("fitnet") == (4.0, 1.0, 100.0)
    at_level = plans("mixed_kinds")[2]
    assert (at_level.task_weight, at_level.distill_weight) == (0.3, 1000.0)


def test_algorithms_keep_their_knobs():
    (dkd,), (dist,) = plans("dkd", beta=6.0, warmup=0.0), plans("dist", gamma=0.5)
    assert (dkd.algorithm.kind, dkd.algorithm.alpha, dkd.algorithm.beta, dkd.algorithm.warmup) == ("dkd", 1.0, 6.0, 0.0)
    assert (dist.algorithm.kind, dist.algorithm.beta, dist.algorithm.gamma) == ("dist", 2.0, 0.5)
    assert plans("logit_std")[0].algorithm.standardise
    assert not plans("kd")[0].algorithm.standardise
    assert [plan.algorithm.kind for plan in plans("mixed_kinds")] == ["dist", "dkd", "at"]


def test_a_panel_is_one_stage_of_several_full_teachers():
    (plan,) = plans("ebkd")
    assert [(use.teacher, use.subset) for use in plan.teachers] == [(name, "all") for name in PANEL["teachers"]]
    assert plan.teacher_weighting == "ebkd"


def test_a_school_may_teach_all_classes_to_ever_deeper_students_by_ever_more_teachers():
    found = plans("all")
    assert [[use.teacher for use in plan.teachers] for plan in found] == list(GROWING.values())
    assert all(plan.taught == plan.known == LEVELS for plan in found)
    assert [plan.kept for plan in found] == [(), (LEVELS,), (LEVELS, LEVELS)]
    assert [(plan.anchor_weight, plan.anchored) for plan in found] == [(0.0, ()), (0.5, LEVELS), (0.5, LEVELS)]


def test_references_that_are_replaced_are_not_taught_on():
    found = plans("all", references="replaced", anchor_weight=0.0)
    assert all((plan.kept, plan.reference_weight, plan.anchor_weight) == ((), 0.0, 0.0) for plan in found)
    growing = plans("full")
    assert [plan.kept for plan in growing] == [(), (LEVELS[:1],), (LEVELS[:1], LEVELS[:2])]
    assert growing[2].reference_weight == 0.1


def test_teskd_has_no_teacher_and_its_weights():
    (plan,) = plans("teskd", feature_reduction="mean")
    assert plan.teachers == ()
    assert (plan.own_loss.task_share, plan.own_loss.feature_weight, plan.own_loss.feature_reduction) == (
        0.2,
        1e-7,
        "mean",
    )


def test_methods_that_cannot_be_are_one_line():
    where = "experiments.all.method"
    assert complaint("all", teacher="general") == f"{where}: give teacher or teachers, exactly one of them"
    assert complaint("all", teachers={"primary": ["general"]}).startswith(
        f"{where}.teachers: needs exactly ['primary', 'middle', 'university'], got ['primary']"
    )
    assert complaint("all", teachers=GROWING | {"middle": ["genral"]}).startswith(
        f"{where}.teachers.middle.0: 'genral' is not in teachers; did you mean 'general'?"
    )
    assert complaint("all", distill_by_level={"midle": {"kind": "kd"}}).startswith(
        f"{where}.distill_by_level: 'midle' is not in the levels; did you mean 'middle'?"
    )
    assert complaint("full", distill={"kind": "dist"}) == (
        "experiments.full.method: normalisation: full goes with distill kd alone, got dist"
    )
    assert complaint("all", teacher_weighting="ebkd", teachers=GROWING | {"middle": ["specialists"]}).startswith(
        f"{where}.teacher_weighting: 'ebkd' weighs teachers of the same classes, but 'specialists' knows only subsets"
    )
    assert complaint("aver", teachers=["general", "specialists"]).startswith(
        "experiments.aver.method.teachers.1: 'specialists' knows only subsets of partition 'thirds', but method 'aver'"
    )
    assert complaint("kd", task_weight=1.5) == (
        "experiments.kd.method: task_weight 1.5 leaves nothing for the teacher; give distill_weight"
    )


def without(storage):
    raw = params()
    raw["soft_labels"]["digits"]["storage"] = {"precision": "float32", **storage}
    raw["experiments"] = {name: raw["experiments"][name] for name in ("at", "fitnet", "kd")}
    raw["tracked"] = []
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    return str(caught.value)


def test_what_an_algorithm_learns_from_must_be_stored():
    assert without({"hint": {"feature_stage": 2, "side": 2}}) == (
        "experiments.at.method: at learns from attention maps, which soft_labels.digits.storage does not keep; "
        "set storage.attention: true there"
    )
    assert without({"attention": True}) == (
        "experiments.fitnet.method: fitnet learns from a hint, which soft_labels.digits.storage does not keep; "
        "set storage.hint there"
    )


def with_mixing(name):
    raw = params()
    raw["soft_labels"]["digits"] |= {
        "space": {"augment": {"kind": "pad_crop", "padding": 1}, "mixing": {"mixup": 1.0}},
        "views": {"number": 2},
    }
    raw["experiments"] = {name: raw["experiments"][name]}
    raw["tracked"] = []
    return raw


def test_mixed_images_need_methods_and_teachers_that_saw_them():
    with pytest.raises(ParamsError, match=r"experiments\.teskd\.method: teskd has no loss for images of two classes"):
        parse_params(with_mixing("teskd"))
    raw = with_mixing("all")
    raw["experiments"]["all"]["method"]["teachers"] = GROWING | {"middle": ["specialists", "general"]}
    with pytest.raises(
        ParamsError, match=r"all\.method\.teachers: has teachers of all classes and teachers of subsets"
    ):
        parse_params(raw)


# From here on every method runs.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which every method has run once, with one thread."""
    torch.set_num_threads(1)
    folder, before = tmp_path_factory.mktemp("methods"), Path.cwd()
    (folder / "params.yaml").write_text(as_yaml(params()), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        patch.delenv("DVC_STAGE", raising=False)
        os.chdir(folder)
        try:
            for job in graph.jobs_of(load_params(), [*SINGLE, *SCHOOLS, "kd"]):
                if job.step != "report":
                    assert main(job.command.split()[1:]) == 0, job.command
        finally:
            os.chdir(before)
        yield folder


@pytest.fixture
def folder(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return finished


def weights_of(experiment, stage="1_only"):
    return read_weights(Path(f"artifacts/students/{experiment}/seed0/{stage}.safetensors"))


@pytest.mark.slow
def test_whatever_helped_the_last_student_is_exactly_the_named_network(folder):
    names = build_network("resnet8", 10, 1, 0).state_dict().keys()
    for experiment in SINGLE:
        assert weights_of(experiment)[0].keys() == names
    for experiment in SCHOOLS:
        assert weights_of(experiment, "3_university")[0].keys() == names


@pytest.mark.slow
def test_a_panel_of_one_is_kd_bit_for_bit(folder):
    kd, alone = weights_of("kd")[0], weights_of("alone")[0]
    assert all(kd[name].numpy().tobytes() == alone[name].numpy().tobytes() for name in kd)


@pytest.mark.slow
def test_methods_differ_in_what_they_teach(folder):
    digests = {name: weights_of(name)[1]["weights_digest"] for name in [*SINGLE, "kd"]}
    assert len(set(digests.values())) == len(SINGLE)  # alone is kd


@pytest.mark.slow
def test_earlier_references_go_on_from_stage_to_stage(folder):
    first, second = weights_of("all", "1_primary")[0], weights_of("all", "2_middle")[0]
    names = {name.removeprefix("reference.") for name in first if name.startswith("reference.")}
    assert {name.removeprefix("aid.1.") for name in second if name.startswith("aid.1.")} == names
    key = "fc.weight"
    assert not torch.equal(first[f"reference.{key}"], second[f"aid.1.{key}"])  # they were taught on
    assert not any(name.startswith("aid.") for name in first)


@pytest.mark.slow
def test_compute_counts_all_that_is_trained_or_asked(folder):
    def macs(name):
        path = Path(f"results/{name}.json")
        return json.loads(path.read_text(encoding="utf-8"))["budget"]["training_macs"]

    plain = 3 * 64 * count_macs(build_network("resnet8", 10, 1, 0), 1, 8)
    assert macs("kd") == macs("ca_mkd") == plain
    assert macs("fitnet") > plain
    assert macs("teskd") > 2 * plain
    assert macs("all") > macs("full") > macs("ed") if Path("results/ed.json").exists() else macs("all") > macs("full")


def stage_job(experiment, stage, out):
    job = students.run_stage(load_params(), experiment, 0, stage)
    roles = ("indexes", "soft_labels", "teachers")
    previous = (*job.inputs["previous"], None)[0]
    paths = (job.inputs[role] for role in roles)
    return job.knobs, StageFiles(job.inputs["dataset"][0], job.inputs["partition"][0], previous, *paths, out)


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "stage"), [("all", "university"), ("fitnet", "only"), ("teskd", "only")])
def test_a_stage_with_aids_that_breaks_off_goes_on_to_the_same_bytes(folder, tmp_path, monkeypatch, experiment, stage):
    knobs, files = stage_job(experiment, stage, tmp_path / "student.safetensors")
    whole, num_losses = StageTask.loss, 0

    def breaking(self, network, batch):
        nonlocal num_losses
        num_losses += 1
        if num_losses == 2:
            raise RuntimeError("broken off")
        return whole(self, network, batch)

    monkeypatch.setenv("EDPIPE_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("edpipe.training.resumable.MOST_COST", 1e9)
    monkeypatch.setattr(StageTask, "loss", breaking)
    with pytest.raises(RuntimeError, match="broken off"):
        run_stage("a stage", 0, knobs, files)
    assert list(tmp_path.rglob("*.safetensors")), "no checkpoint was written"
    run_stage("a stage", 0, knobs, files)
    made = read_weights(files.out)[1]["weights_digest"]
    name = students.run_stage(load_params(), experiment, 0, stage).outputs[0]
    assert made == read_weights(name)[1]["weights_digest"]
    assert num_losses == 3  # two iterations; the first was not made again


@pytest.mark.slow
def test_the_regressor_of_a_hint_learns(folder, tmp_path):
    knobs, files = stage_job("fitnet", "only", tmp_path / "student.safetensors")
    task = inputs.open_stage(0, knobs, files, torch.device("cpu"))
    _, trainee = student.build_student(0, knobs, files, task)
    task.loss(trainee, task.batch(0, 32)).mean().backward()
    assert trainee.side.regressor.conv.weight.grad.abs().sum() > 0
    first_layer = next(trainee.student.parameters())
    with_hint = first_layer.grad.clone()
    trainee.zero_grad()
    plain = knobs.plan.model_copy(update={"distill_weight": 0.0})
    task.knobs = StageJobKnobs(plain, knobs.student, knobs.recipe, knobs.views)
    task.loss(trainee, task.batch(0, 32)).mean().backward()
    assert not torch.allclose(with_hint, first_layer.grad)
