"""A trained student as a teacher: what params.yaml may say, the jobs that follow, and the same logits in the end."""

import copy
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended import change, pretend
from project import as_yaml, make_project, tiny_params
from shipped import shipped_and_examples

from edpipe.cli.commands import plan
from edpipe.cli.main import main
from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import CorruptFileError, MismatchError, ParamsError, TeacherError
from edpipe.models.forward import forward
from edpipe.models.pretrained.fetch import Wanted, fetch_weights, take_over
from edpipe.models.zoo.build import build_network
from edpipe.params.lineage import last_stage
from edpipe.params.load import load_params, parse_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.teacher import NetworkKnobs
from edpipe.pipeline.jobs import graph, teachers
from edpipe.pipeline.jobs.model_checks import check_params
from edpipe.pipeline.state.cost_ledger import parts_of
from edpipe.pipeline.state.staleness import Verdict
from edpipe.soft_labels.file.store import open_store
from edpipe.steps.fetch_teacher import fetch_teacher
from edpipe.storage.records import read_record, record_path, write_record
from edpipe.storage.weights import read_weights
from edpipe.training.teacher import open_teacher_setup
from edpipe.views.pixels import normalise

ASSISTANT, CHAIN = "teachers.assistant", "teachers.second"
STUDENT = "artifacts/students/teskd/seed0/1_only.safetensors"


def teacher(experiment, epochs=0, **fitting):
    fitting = {"recipe": "tiny", "epochs": epochs, "learning_rate": 0.05, **fitting}
    network = {"model": "resnet8", "source": "student", "experiment": experiment}
    return {"network": network, "fitting": fitting, "min_top1": 0.0}


def params(changes=()):
    """TESKD's student teaches kd and ed; kd's student, fine-tuned, teaches on; so does one of a school of authors."""
    raw = copy.deepcopy(tiny_params())
    raw["datasets"]["digits"]["max_per_class"] = 8
    raw["soft_labels"]["digits"]["storage"] = {"precision": "float32"}
    raw["students"]["authors"] = {"model": "resnet8", "reference": "authors"}
    raw["teachers"] |= {"assistant": teacher("teskd"), "second": teacher("kd", epochs=1), "schooled": teacher("school")}
    kd, ed = raw["experiments"]["kd"], raw["experiments"]["ed"]
    budget = {"images": 64}
    one, both = {"only": budget}, dict.fromkeys(("primary", "middle"), budget)
    raw["experiments"] = {
        "teskd": kd | {"method": {"name": "teskd"}, "stages": one, "seeds": [0, 1]},
        "kd": kd | {"method": {"name": "kd", "teacher": "assistant"}, "stages": one},
        "ed": ed | {"method": {"name": "ed", "teacher": "assistant"}, "stages": both},
        "school": ed | {"student": "authors", "method": {"name": "ed", "teacher": "assistant"}, "stages": both},
        "last": kd | {"method": {"name": "aver", "teachers": ["second", "schooled"]}, "stages": one},
    }
    raw["tracked"] = ["ed"]
    for path, value in changes:
        change(raw, path, value)
    return copy.deepcopy(raw)


def complaint(*changes):
    with pytest.raises(ParamsError) as caught:
        parse_params(params(changes))
    return str(caught.value)


# params.yaml


def test_a_student_may_teach():
    found = parse_params(params())
    assert found.teachers["assistant"].network.experiment == "teskd"
    check_params(found)


def test_knobs_that_do_not_go_with_a_student_are_one_line():
    where = f"{ASSISTANT}.network"
    assert (
        complaint((f"{where}.experiment", None))
        == f"{where}: source: student needs experiment, whose last student it is"
    )
    for name, value in (("location", "weights.pth"), ("sha256", "0" * 64)):
        assert complaint((f"{where}.{name}", value)) == f"{where}: source: student takes neither location nor sha256"
    assert complaint(("teachers.general.network.experiment", "teskd")) == (
        "teachers.general.network: source: train takes no experiment; use source: student, or remove it"
    )
    assert complaint((f"{ASSISTANT}.partition", "halves")) == (
        f"{ASSISTANT}: source: student gives one teacher of all classes; remove partition"
    )


def test_students_that_there_are_not_are_one_line():
    assert complaint((f"{ASSISTANT}.network.experiment", "teskdd")) == (
        f"{ASSISTANT}.network.experiment: 'teskdd' is not in experiments; did you mean 'teskd'?"
    )
    assert complaint((f"{ASSISTANT}.network.model", "resnet14")) == (
        f"{ASSISTANT}.network.model: 'resnet14', but the students of experiment 'teskd' are 'resnet8'; "
        "give the same model"
    )
    assert complaint((f"{ASSISTANT}.fitting.seed", 2)) == (
        f"{ASSISTANT}.fitting.seed: 2, but experiment 'teskd' has students of seeds 0, 1 alone; give one of them"
    )


def two_datasets():
    """The same, and a second dataset on which nothing was taught."""
    raw = params()
    for section in ("datasets", "soft_labels"):
        raw[section]["others"] = raw[section]["digits"]
    return copy.deepcopy(raw)


def test_a_student_teaches_its_own_dataset_alone():
    raw = two_datasets()
    raw["experiments"]["kd"]["dataset"] = "others"
    raw["teachers"].pop("second")
    raw["experiments"].pop("last")
    end = "'assistant' was a student of experiment 'teskd', on dataset 'digits', and cannot teach 'others'; "
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert str(caught.value) == f"experiments.kd.method.teacher: {end}name another teacher"
    with pytest.raises(ParamsError) as caught:
        teachers.make_teacher(parse_params(two_datasets()), "others", "assistant", "all")
    assert str(caught.value) == f"{ASSISTANT}.network.experiment: {end}name another teacher"


def test_a_partition_may_ask_a_student_of_its_dataset_alone():
    raw = two_datasets()
    raw["partitions"]["confused"] = {"subsets": ["primary", "middle"], "confusion": {"teacher": "assistant"}}
    raw["experiments"]["plain"] = raw["experiments"]["teskd"] | {"partition": "confused"}
    assert parse_params(copy.deepcopy(raw))
    raw["experiments"]["plain"] = raw["experiments"]["teskd"] | {"partition": "confused", "dataset": "others"}
    with pytest.raises(
        ParamsError, match=r"^partitions\.confused\.confusion\.teacher: 'assistant' was a student of .*'others'"
    ):
        parse_params(copy.deepcopy(raw))


def test_a_circle_is_named():
    assert complaint((f"{ASSISTANT}.network.experiment", "kd")) == (
        f"{ASSISTANT}.network.experiment: 'kd' would have to be there before itself: 'kd' needs teacher 'assistant', a "
        "student of 'kd'; let one of these teachers come from elsewhere"
    )
    assert complaint((f"{ASSISTANT}.network.experiment", "last")) == (
        f"{CHAIN}.network.experiment: 'kd' would have to be there before itself: 'kd' needs teacher 'assistant', a "
        "student of 'last'; 'last' needs teacher 'second', a student of 'kd'; let one of these teachers come from "
        "elsewhere"
    )


def test_a_circle_through_a_partition_or_a_trajectory_is_one_too():
    raw = params()
    raw["partitions"]["halves"]["confusion"] = {"teacher": "assistant"}
    with pytest.raises(ParamsError, match="'teskd' would have to be there before itself: 'teskd' needs teacher 'assis"):
        parse_params(raw)
    raw = params([("soft_labels.digits.storage.attention", True)])
    raw["teachers"]["general"]["fitting"] |= {"epochs": 1}
    raw["experiments"]["teskd"] |= {
        "method": {"name": "ctkd", "scratch": "general", "expert": "second"},
        "stages": {"only": {"epochs": 1}},
    }
    with pytest.raises(
        ParamsError, match="'teskd' needs teacher 'second', a student of 'kd'; 'kd' needs teacher 'assis"
    ):
        parse_params(raw)


def test_experiments_and_teachers_of_one_name_are_no_circle():
    raw = params()
    raw["teachers"] = {name.replace("assistant", "ed"): value for name, value in raw["teachers"].items()}
    for experiment in raw["experiments"].values():
        if experiment["method"].get("teacher") == "assistant":
            experiment["method"] = experiment["method"] | {"teacher": "ed"}
    assert parse_params(raw)


def test_a_student_learns_beside_no_student():
    raw = params()
    raw["experiments"]["kd"] |= {"method": {"name": "ctkd", "scratch": "assistant", "attention_weight": 0}}
    with pytest.raises(ParamsError, match="but 'assistant' has source: student; name one of source: train"):
        parse_params(raw)


# jobs


def test_the_teacher_reads_the_last_student_and_its_record():
    job = teachers.make_teacher(parse_params(params()), "digits", "schooled", "all")
    path = Path("artifacts/students/school/seed0/2_middle.safetensors")
    assert job.step == "fetch_teacher"
    assert job.inputs["student"] == (path, path.with_suffix(".json"))
    seeded = parse_params(params([(f"{ASSISTANT}.fitting.seed", 1)]))
    assert "seed1" in str(teachers.make_teacher(seeded, "digits", "assistant", "all").inputs["student"][0])


def test_the_last_stage_is_the_end_of_the_curriculum():
    for found in map(parse_params, (params(), shipped_and_examples())):
        for name in found.experiments:
            plan = curriculum(found, name)[-1]
            assert last_stage(found, name) == (plan.number, plan.name) == (plan.num_stages, plan.name)


def test_teachers_of_other_sources_read_no_student():
    for changes in ((), [("teachers.general.network", {"model": "timm:resnet18", "source": "timm"})]):
        assert "student" not in teachers.make_teacher(parse_params(params(changes)), "digits", "general", "all").inputs


@pytest.mark.parametrize("experiment", ["kd", "ed", "last"])
def test_what_makes_the_student_comes_first_and_nothing_else_of_its_experiment(experiment):
    found = graph.jobs_of(parse_params(params()), [experiment])
    made = set()
    for job in found:
        assert set(job.all_inputs) <= made, job.command
        made |= set(job.outputs)
    assert len({job.outputs[0] for job in found}) == len(found)
    others = {(j.step, j.arguments["seed"]) for j in found if j.arguments.get("experiment") not in (None, experiment)}
    assert others == {("run_stage", 0)}


def test_a_chain_is_followed_to_its_beginning():
    found = graph.jobs_of(parse_params(params()), ["last"])
    stages = [job.arguments["experiment"] for job in found if job.step == "run_stage"]
    assert stages == ["teskd", "kd", "school", "school", "last"]
    assert [j.arguments["teacher"] for j in found if j.step == "fetch_teacher"] == ["assistant", "second", "schooled"]


def test_a_partition_asks_the_student_before_it_is_made():
    raw = params()
    raw["partitions"]["confused"] = {"subsets": ["primary", "middle"], "confusion": {"teacher": "assistant"}}
    raw["experiments"]["plain"] = raw["experiments"]["teskd"] | {"partition": "confused"}
    steps = [(job.step, job.arguments.get("experiment")) for job in graph.jobs_of(parse_params(raw), ["plain"])]
    assert steps.index(("run_stage", "teskd")) < steps.index(("partition_by_confusion", None))
    assert steps.index(("partition_by_confusion", None)) < steps.index(("run_stage", "plain"))


# freshness


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """A folder in which everything of kd is made."""
    monkeypatch.chdir(tmp_path)
    for job in graph.jobs_of(parse_params(params()), ["kd"]):
        pretend(job)
    return tmp_path


def verdicts(*changes):
    return {
        (outcome.job.step, outcome.job.arguments.get("experiment")): outcome
        for outcome in plan.planned(parse_params(params(changes)), ["kd"])
    }


def test_what_was_made_of_a_student_is_cached(pretended):
    assert {outcome.verdict for outcome in verdicts().values()} == {Verdict.CACHED}


@pytest.mark.parametrize(
    ("path", "value"),
    [("experiments.teskd.method.temperature", 2.0), ("experiments.teskd.stages", {"only": {"images": 32}})],
)
def test_a_change_of_the_students_knobs_makes_the_teacher_again(pretended, path, value):
    found = verdicts((path, value))
    assert found["run_stage", "teskd"].verdict is Verdict.STALE
    for job in [("fetch_teacher", None), ("dump_soft_labels", None), ("run_stage", "kd"), ("result", "kd")]:
        assert found[job].verdict is Verdict.WAITS
    assert not found["pack_dataset", None].is_run


def test_another_student_makes_the_teacher_stale(pretended):
    path = record_path(Path(STUDENT))
    write_record(path, read_record(path) | {"weights_digest": "0123456789abcdef"})
    found = verdicts()["fetch_teacher", None]
    assert found.verdict is Verdict.STALE
    assert re.fullmatch(r"student is another one now \([0-9a-f]{16} → 0123456789abcdef\)", found.reasons[0])


def test_stages_of_the_students_experiment_count_as_making_the_teacher(pretended):
    found = graph.jobs_of(parse_params(params()), ["kd"])
    steps = [part.step for part in parts_of(found, "kd")]
    assert steps.count("run_stage") == 1
    assert steps.count("fetch_teacher") == 2
    assert [part.step for part in parts_of(found)].count("run_stage") == 2
    assert all(part.is_shared for part in parts_of(found, "kd") if part.step == "fetch_teacher")


# Snakemake


@pytest.mark.slow
def test_snakemake_plans_the_student_before_the_teacher(tmp_path):
    project = make_project(tmp_path / "project", params())
    ran = project.snakemake("-n", "--rulegraph", "dot", "--", "results/kd.json")
    assert ran.rc == 0, ran.err
    names = dict(re.findall(r'(\d+)\[label ?= ?"(\w+)', ran.out))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", ran.out)}
    assert {("run_stage", "fetch_teacher"), ("fetch_teacher", "dump_soft_labels")} <= edges
    ran = project.snakemake("-n", "--", "results/last.json")
    planned = re.findall(r"output: artifacts/(?:students|evaluations)/(\w+)/", ran.text)
    assert sorted(planned) == ["kd", "last", "last", "school", "school", "teskd"]


# The steps


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which ed and last have run, by the command line's own steps."""
    torch.set_num_threads(1)
    folder, before = tmp_path_factory.mktemp("finished"), Path.cwd()
    (folder / "params.yaml").write_text(as_yaml(params()), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        patch.delenv("DVC_STAGE", raising=False)
        os.chdir(folder)
        try:
            for job in graph.jobs_of(load_params(), ["ed", "last"]):
                assert main(job.command.split()[1:]) == 0, job.command
        finally:
            os.chdir(before)
        yield folder


@pytest.fixture
def folder(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return finished


def teacher_path(name):
    return Path(f"artifacts/teachers/digits/{name}/all.safetensors")


def student_path(name):
    return Path({"assistant": STUDENT, "schooled": "artifacts/students/school/seed0/2_middle.safetensors"}[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["assistant", "schooled"])
def test_the_teacher_is_the_student_bit_for_bit(folder, name):
    (student, record), (own, own_record) = read_weights(student_path(name)), read_weights(teacher_path(name))
    assert own.keys() == student.keys()
    assert all(own[key].numpy().tobytes() == student[key].numpy().tobytes() for key in student)
    assert own_record["inputs"]["student"] == record["weights_digest"]
    assert own_record["class_ids"] == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["assistant", "schooled"])
def test_its_soft_labels_are_the_students_own_logits(folder, name):
    from edpipe.views.batches import ViewBatches
    from edpipe.views.spec import ViewSpec

    dataset, knobs = open_dataset(Path("artifacts/datasets/digits.h5")), load_params().soft_labels["digits"]
    batches = ViewBatches(dataset, ViewSpec.from_knobs(knobs.student_views, dataset.image_size), torch.device("cpu"))
    network = build_network("resnet8", 10, 1, 0).eval()
    network.load_state_dict(read_weights(student_path(name))[0])
    store = open_store(sorted(Path(f"artifacts/soft_labels/digits/{name}/all").glob("*.h5")))
    ids = dataset.sample_ids("train")
    for view in range(store.num_views):
        views = np.full_like(ids, view)
        with torch.inference_mode():
            images = normalise(batches.views(ids, views), dataset.mean, dataset.std)
            logits = forward(network, images, RecipeKnobs())
        assert np.allclose(store.logits(ids, views), logits.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_student_that_is_fine_tuned_goes_on_from_its_weights(folder):
    student, own = (
        read_weights(Path("artifacts/students/kd/seed0/1_only.safetensors")),
        read_weights(teacher_path("second")),
    )
    assert any(not torch.equal(own[0][key], student[0][key]) for key in student[0])
    assert own[1]["inputs"]["student"] == student[1]["weights_digest"]
    assert own[1]["images_seen"] > 0


@pytest.mark.slow
def test_the_cost_of_the_student_is_shared(folder):
    cost = json.loads(Path("results/last.json").read_text(encoding="utf-8"))["cost"]
    assert cost["steps"]["run_stage"]["artifacts"] == 1
    assert cost["steps"]["fetch_teacher"]["artifacts"] == 3 + 4
    assert cost["shared_seconds"] > cost["own_seconds"] > 0


@pytest.mark.slow
def test_everything_fits_the_code_and_the_params(folder, capsys):
    assert main(["verify", "ed", "last"]) == 0, capsys.readouterr().out


def refused(error, tmp_path, weights, edit=None, network=None, **fitting):
    """What fetching the assistant says if its student is this file, with its record edited."""
    job = teachers.make_teacher(load_params(), "digits", "assistant", "all")
    path = tmp_path / "student.safetensors"
    path.write_bytes(weights)
    record = read_record(record_path(Path(STUDENT)))
    for place, value in (edit or {}).items():
        change(record, place, value)
    write_record(record_path(path), record)
    knobs, recipe = job.knobs.fitting.model_copy(update=fitting), job.knobs.recipe
    setup = open_teacher_setup(
        "teacher assistant/all", job.inputs["dataset"][0], None, "all", job.knobs.augment, knobs, recipe
    )
    with pytest.raises(error) as caught:
        fetch_teacher(setup, network or job.knobs.network, tmp_path / "out.safetensors", tmp_path, path)
    assert not (tmp_path / "out.safetensors").exists()
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(tmp_path), "")


@pytest.mark.slow
def test_weights_that_are_not_those_of_the_record_are_refused(folder, tmp_path):
    weights = bytearray(Path(STUDENT).read_bytes())
    weights[-1] ^= 1
    text = refused(MismatchError, tmp_path, bytes(weights))
    assert re.match(
        r"/student\.safetensors: content has digest \w{16}, its record says \w{16}; they do not belong", text
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "what"),
    [
        ({"step": "train_teacher"}, "step is 'train_teacher', teacher assistant/all needs 'run_stage'"),
        ({"inputs.dataset": "0" * 16}, f"dataset is '{'0' * 16}', teacher assistant/all needs '"),
        ({"knobs.student.model": "resnet14"}, "model is 'resnet14', teacher assistant/all needs 'resnet8'"),
        ({"seed": 7}, "seed is 7, teacher assistant/all needs 0"),
        ({"knobs.plan.num_stages": 3}, "number of later stages is 2, teacher assistant/all needs 0"),
    ],
)
def test_another_student_is_refused(folder, tmp_path, edit, what):
    text = refused(MismatchError, tmp_path, Path(STUDENT).read_bytes(), edit)
    assert text.startswith(f"/student.safetensors: its {what}")
    assert "; make the student again with `snakemake --force /student.safetensors`" in text


@pytest.mark.slow
def test_a_record_of_something_else_is_refused(folder, tmp_path):
    text = refused(CorruptFileError, tmp_path, Path(STUDENT).read_bytes(), {"knobs": {}})
    assert text == (
        "/student.json: not the record of a stage (KeyError('student')); make it again with `snakemake --force "
        "/student.safetensors`"
    )


def test_weights_of_another_network_are_refused():
    weights = build_network("resnet8", 4, 1, 0).state_dict()
    network, is_fresh = take_over("resnet8", weights, "here", 4, 1, 3)
    assert not is_fresh
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    with pytest.raises(TeacherError, match=r"^here: the weights' names do not fit the model: 1 unexpected, first 'aid"):
        take_over("resnet8", weights | {"aid.1.fc.weight": torch.ones(1)}, "here", 4, 1, 3)


def test_a_student_is_not_fetched_as_others_are():
    knobs = NetworkKnobs.model_validate({"model": "resnet8", "source": "student", "experiment": "teskd"})
    with pytest.raises(ValueError, match="source student: nothing to fetch; use take_over"):
        fetch_weights(knobs, Wanted("teacher t/all", "abcd", "abcd", 1, 0, Path()))
