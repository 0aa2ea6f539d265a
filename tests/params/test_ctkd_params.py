"""CTKD in params.yaml, its jobs, and the whole flow by the command line."""

import copy
import json

import pytest
import yaml
from project import as_yaml, tiny_params

from edpipe.cli.main import EXIT_MENDABLE, main
from edpipe.errors import ParamsError
from edpipe.params.load import load_params, parse_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.pipeline.dvc.lists import tracked_jobs_text
from edpipe.pipeline.jobs import graph, paths, teachers
from edpipe.pipeline.jobs.model_checks import check_params
from edpipe.pipeline.state.artifact_checks import check_artifact
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Verdict, assess
from edpipe.storage.records import read_record, write_record

METHOD = {"name": "ctkd", "scratch": "scratch", "expert": "general"}
ALONE = {"name": "ctkd", "scratch": "scratch", "attention_weight": 0}


def raw(**changes):
    """Tiny digits with two ctkd experiments; changes are values by dotted path, None takes a key away."""
    found = copy.deepcopy(tiny_params())
    found["teachers"]["scratch"] = copy.deepcopy(found["teachers"]["general"])
    found["teachers"]["scratch"]["network"] = {"model": "resnet14"}
    found["recipes"]["other"] = {"batch_size": 32, "weight_decay": 0.001}
    found["teachers"]["scratch"]["fitting"]["recipe"] = "other"
    found["soft_labels"]["digits"]["storage"] = {"precision": "float32", "attention": True}
    common = {**found["experiments"]["kd"], "stages": {"only": {"epochs": 2}}, "seeds": [0, 1]}
    found["experiments"] = {"beside": {**common, "method": METHOD}, "alone": {**common, "method": ALONE}}
    found["tracked"] = ["beside", "alone"]
    found = copy.deepcopy(found)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = found
        for key in parents:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return found


def stage_and_recording(params, experiment):
    found = graph.jobs_of(params, [experiment])
    return [job for job in found if job.step == "run_stage"], [j for j in found if j.step == "record_trajectory"]


def test_the_plan_has_the_weights_and_the_expert_only_where_it_has_a_weight():
    params = parse_params(raw())
    (plan,) = curriculum(params, "beside")
    assert (plan.trajectory.teacher, [use.teacher for use in plan.teachers]) == ("scratch", ["general"])
    weights = (plan.temperature, plan.task_weight, plan.distill_weight, plan.own_loss.attention_weight)
    assert weights == (4.0, 1.0, 1.0, 1000.0)
    (plan,) = curriculum(params, "alone")
    assert (plan.trajectory.teacher, plan.teachers, plan.own_loss.attention_weight) == ("scratch", (), 0.0)
    named = parse_params(raw(experiments__alone__method=ALONE | {"expert": "general"}))
    assert curriculum(named, "alone") == (plan,), "an expert without weight is not asked"


def test_each_seed_has_a_trajectory_that_all_students_share():
    params = parse_params(raw())
    stages, recordings = stage_and_recording(params, "beside")
    wanted = [str(paths.trajectory_path("digits", "scratch", seed)) for seed in (0, 1)]
    assert [str(job.outputs[0]) for job in recordings] == wanted
    assert wanted[0] == "artifacts/trajectories/digits/scratch/seed0.h5"
    for stage, recording in zip(stages, recordings, strict=True):
        assert stage.inputs["trajectory"] == recording.outputs
    others, again = stage_and_recording(params, "alone")
    assert [job.outputs for job in again] == [job.outputs for job in recordings]
    assert others[0].inputs["indexes"] == ()
    every = [job.outputs[0] for job in graph.jobs_of(params, ["beside", "alone"])]
    assert len(every) == len(set(every))
    assert recordings[1].command == "edpipe record_trajectory --dataset digits --teacher scratch --seed 1"


def test_without_a_trajectory_a_stage_has_none():
    params = parse_params(tiny_params())
    stages, recordings = stage_and_recording(params, "ed")
    assert not recordings
    assert all(stage.inputs["trajectory"] == () for stage in stages)


def test_the_keys_of_a_recording_stand_in_the_file():
    params = parse_params(raw())
    for job in stage_and_recording(params, "beside")[1]:
        for key in job.keys:
            place = raw()
            for part in key.split("."):
                place = place[part]
    lists = yaml.safe_load(tracked_jobs_text(params))["jobs"]
    assert set(lists["record_trajectory"]) == {"digits-scratch-0", "digits-scratch-1"}
    entry = lists["run_stage"]["beside-1-only"]
    assert entry["trajectory"] == "artifacts/trajectories/digits/scratch/seed1.h5"
    assert entry["trajectory_record"] == "artifacts/trajectories/digits/scratch/seed1.json"


FROM_START = "a scratch teacher learns beside the student from the start, but"
FITTING = "teachers__scratch__fitting"
ONLY = "experiments__beside__stages__only"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experiments__beside__method": METHOD | {"scratch": "scrtch"}},
            "experiments.beside.method.scratch: 'scrtch' is not in teachers; did you mean 'scratch'?",
        ),
        (
            {"experiments__beside__method": METHOD | {"expert": "specialists"}},
            "experiments.beside.method.expert: 'specialists' knows only subsets of partition 'halves', but method "
            "'ctkd' needs a teacher of all classes; name one whose partition is absent",
        ),
        (
            {"experiments__beside__method": METHOD | {"scratch": "specialists"}},
            "experiments.beside.method.scratch: 'specialists' knows only subsets of partition 'halves', but method "
            "'ctkd' needs a teacher of all classes; name one whose partition is absent",
        ),
        (
            {"teachers__scratch__network": {"model": "timm:resnet18", "source": "timm"}},
            f"experiments.beside.method.scratch: {FROM_START} 'scratch' has source: timm; name one of source: train",
        ),
        (
            {f"{FITTING}__epochs": 1.5},
            f"experiments.beside.method.scratch: {FROM_START} 'scratch' has fitting.epochs 1.5; give a whole number",
        ),
        (
            {f"{FITTING}__epochs": 3},
            "experiments.beside.stages.only: 2 epochs, but the scratch teacher 'scratch' learns beside the student for "
            "3 epochs; give epochs: 3, or change teachers.scratch.fitting.epochs",
        ),
        (
            {ONLY: {"images": 96}},
            "experiments.beside.stages.only: 96 images, but the scratch teacher 'scratch' learns beside the student "
            "for 2 epochs; give epochs: 2, or change teachers.scratch.fitting.epochs",
        ),
        (
            {"recipes__other__batch_size": 16},
            "experiments.beside.recipe: 'tiny' has batch_size 32, but the scratch teacher 'scratch' learns by 'other' "
            "with 16, and both see the same batches; use the same batch_size in both",
        ),
        (
            {"soft_labels__digits__storage": {"precision": "float32"}},
            "experiments.beside.method: ctkd learns from attention maps, which soft_labels.digits.storage does not "
            "keep; set storage.attention: true there, or attention_weight: 0",
        ),
        (
            {
                "soft_labels__digits__storage": {
                    "precision": "sampled",
                    "draws": 9,
                    "temperature": 2.0,
                    "max_kl": "null",
                    "attention": True,
                }
            },
            "experiments.beside.method.temperature: 4, but soft_labels.digits.storage samples at temperature 2",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(changes, message):
    wrong = raw(**changes)
    storage = wrong["soft_labels"]["digits"]["storage"]
    if storage.get("max_kl") == "null":
        storage["max_kl"] = None
    with pytest.raises(ParamsError) as caught:
        parse_params(wrong)
    first, *others = str(caught.value).splitlines()
    assert first.startswith(message)
    assert not others


def test_attention_maps_need_an_expert():
    with pytest.raises(ParamsError, match=r"^experiments\.beside\.method") as caught:
        parse_params(raw(experiments__beside__method={"name": "ctkd", "scratch": "scratch"}))
    assert str(caught.value).endswith(": attention_weight 1000 needs an expert; name one of teachers, or set it to 0")


def test_a_teacher_of_a_subset_cannot_be_recorded():
    with pytest.raises(ParamsError) as caught:
        teachers.record_trajectory(parse_params(raw()), "digits", "specialists", 0)
    assert str(caught.value) == (
        f"teachers.specialists: {FROM_START} 'specialists' knows only "
        "subsets of partition 'halves'; name one whose partition is absent"
    )
    with pytest.raises(ParamsError, match=r"^teachers: no entry named 'scrtch'; did you mean 'scratch'\?$"):
        teachers.record_trajectory(parse_params(raw()), "digits", "scrtch", 0)


def test_the_model_of_the_scratch_teacher_is_checked_before_the_first_job():
    params = parse_params(raw(teachers__scratch__network={"model": "resnet99"}))
    with pytest.raises(ParamsError, match=r"^teachers.scratch.network.model: "):
        check_params(params, ("alone",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which both experiments have run once, by the command line."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "params.yaml").write_text(as_yaml(raw()), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        patch.delenv("DVC_STAGE", raising=False)
        patch.chdir(folder)
        for job in graph.jobs_of(load_params(), ["beside", "alone"]):
            assert main(job.command.split()[1:]) == 0, job.command
        yield folder


@pytest.mark.slow
def test_the_whole_flow_counts_what_was_recorded(finished):
    for name in ("beside", "alone"):
        result = json.loads((finished / f"results/{name}.json").read_text())
        images = result["budget"]["images_seen"]
        uses = result["seeds"][0]["stages"][0]["soft_labels"]
        assert uses[-1]["teacher"] == "scratch"
        assert uses[-1]["teacher_forwards"] == images
        recorded = result["cost"]["steps"]["record_trajectory"]
        assert (recorded["is_shared"], recorded["artifacts"], recorded["images"]) == (True, 2, 2 * images)
        dumped = uses[0]["teacher_forwards"] if name == "beside" else 0
        assert result["budget"]["teacher_forwards_spent"] == 2 * images + dumped, "a trajectory for each seed"
        assert result["budget"]["teacher_forwards_online"] == 2 * images * (2 if name == "beside" else 1)


@pytest.mark.slow
def test_what_was_made_is_cached_and_sound(finished, monkeypatch):
    monkeypatch.chdir(finished)
    records = Records()
    for job in graph.jobs_of(load_params(), ["beside", "alone"]):
        verdict = assess(job, recorded_state(job, records), present_origin(job, records)).verdict
        assert verdict is Verdict.CACHED, job.command
        if job.step in ("record_trajectory", "run_stage"):
            check_artifact(job, records)


@pytest.mark.slow
def test_another_trajectory_makes_its_students_stale(finished, monkeypatch):
    monkeypatch.chdir(finished)
    path = paths.trajectory_path("digits", "scratch", 1).with_suffix(".json")
    before = path.read_text()
    write_record(path, read_record(path) | {"digest": "0" * 16})
    records = Records()
    stages, _ = stage_and_recording(load_params(), "beside")
    found = [assess(job, recorded_state(job, records), present_origin(job, records)) for job in stages]
    path.write_text(before)
    assert [judgement.verdict for judgement in found] == [Verdict.CACHED, Verdict.STALE]
    assert found[1].reasons[0].startswith("trajectory is another one now")


@pytest.mark.slow
def test_a_fetched_teacher_is_refused_by_the_command_in_one_line(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    words = ("record_trajectory", "--dataset", "digits", "--teacher", "specialists", "--seed", "0")
    assert main(words) == EXIT_MENDABLE
    assert capsys.readouterr().err.startswith("edpipe: teachers.specialists: a scratch teacher learns beside")
