"""Evaluations and results as real as an experiment's, without training."""

import json

from method_stages import only_stage, school

from edpipe.params.base import canonical_json
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import PadCrop, StudentViews, ViewSpace
from edpipe.params.stage import StageKnobs
from edpipe.params.student import StudentKnobs
from edpipe.results.measures.cost import CostPart, Figures
from edpipe.results.result_file import UNDIGESTED
from edpipe.steps.result import result
from edpipe.storage.digests import digest_bytes, digest_json
from edpipe.storage.records import make_record, write_record

SUBSETS = {"primary": [0, 1, 2], "middle": [3, 4, 5], "university": [6, 7, 8, 9]}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DATASET, PARTITION = "0123456789abcdef", "fedcba9876543210"
TEST_SAMPLES_BY_CLASS = [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
MACS = {1: 1_000_000, 2: 2_000_000, 3: 3_000_000}
FORWARDS = {"primary": 2_700, "middle": 2_800, "university": 3_600, "all": 9_100}


BUDGETS = {"primary": 4_000, "middle": 8_000, "university": 12_000}


def curriculum(method):
    """The plans of a method, each with 24,000 images in all."""
    only = StageKnobs(images=sum(BUDGETS.values()))
    if method == "ce":
        return (only_stage(only, name="ce"),)
    if method == "kd":
        return (only_stage(only, name="kd", teacher="digits_teacher"),)
    budgets = {name: StageKnobs(images=images) for name, images in BUDGETS.items()}
    return school(budgets, {"digits_specialists"}, teacher="digits_specialists")


def _setup(experiment):
    augment = PadCrop(kind="pad_crop", padding=1, flip=False)
    knobs = {
        "student": StudentKnobs(model="resnet8"),
        "recipe": RecipeKnobs(batch_size=64, warmup=0.1),
        "views": StudentViews(space=ViewSpace(augment=augment, exhaustive=True), number=None, choice="random"),
        "stages": curriculum(experiment.rsplit("_", 1)[-1]),
    }
    return json.loads(canonical_json(knobs))


def _stage(seed, number, plan, top1_by_subset):
    images = plan["budget"]["images"]
    macs = MACS[number if plan["num_blocks"] > 1 else 3]
    return {
        "name": plan["name"],
        "number": number,
        "top1_by_subset": top1_by_subset,
        "images_seen": images,
        "taught_samples": 400 * number,
        "images_with_teacher": images if plan["teachers"] else 0,
        "final_loss": 0.75 / number + seed / 100,
        "parameters": 10_000 * number,
        "macs": macs,
        "training_macs": 3 * macs * images,
        "soft_labels": [
            {
                "teacher": use["teacher"],
                "subset": use["subset"],
                "digests": [digest_bytes(b"soft labels" + use["subset"].encode())],
                "teacher_digest": digest_bytes(b"teacher" + use["subset"].encode()),
                "teacher_forwards": FORWARDS[use["subset"]],
                "kl_bound": 1.25e-5,
            }
            for use in plan["teachers"]
        ],
        "weights_digest": f"{seed:015x}{number}",
        "code": {"steps.run_stage": "1", "losses.kd": "2"},
        "versions": {"torch": "2.15.0", "numpy": "2.3.0"},
    }


TEACHERS = {
    "digits_teacher/all": {"top1": 0.96, "ece": 0.03, "test_samples": 360},
    "digits_specialists/primary": {"top1": 0.99, "ece": 0.01, "test_samples": 107},
    "digits_specialists/middle": {"top1": 0.98, "ece": 0.02, "test_samples": 110},
    "digits_specialists/university": {"top1": 0.97, "ece": 0.025, "test_samples": 143},
}


def teachers_of(setup):
    """Names of those whose soft labels some stage learnt from, in order."""
    uses = [use for plan in setup["stages"] for use in plan["teachers"]]
    return list(dict.fromkeys(f"{use['teacher']}/{use['subset']}" for use in uses))


def evaluation(seed=0, experiment="digits_ed", shift=0.0, class_names=DIGITS):
    """What `evaluate` writes for one seed; seed and shift move all accuracies by plain amounts."""
    setup = _setup(experiment)
    move = seed / 100 + shift
    if len(setup["stages"]) == 1:
        matrix = [{"primary": 0.9 + move, "middle": 0.8 + move, "university": 0.85 + move}]
        forgetting, backward = dict.fromkeys(SUBSETS), None
    else:
        matrix = [
            {"primary": 0.96, "middle": None, "university": None},
            {"primary": 0.92, "middle": 0.9, "university": None},
            {"primary": 0.88 + move, "middle": 0.84 + move, "university": 0.9 + move},
        ]
        forgetting = {"primary": 0.08 - move, "middle": 0.06 - move, "university": None}
        backward = (-0.08 - 0.06) / 2 + move
    stages = [_stage(seed, k, plan, row) for k, (plan, row) in enumerate(zip(setup["stages"], matrix, strict=True), 1)]
    metrics = {
        "top1": 0.875 + move,
        "top5": 0.975 + move / 2,
        "test_samples": sum(TEST_SAMPLES_BY_CLASS),
        "ece": 0.04 - move / 4,
        "val_top1": 0.865 + move,
        "val_samples": 120,
        "agreement": {name: 0.9 + k / 100 + move for k, name in enumerate(teachers_of(setup))},
        "top1_by_class": [0.8 + c / 100 + move for c in range(10)],
        "forgetting": forgetting,
        "backward_transfer": backward,
    }
    teachers = {name: dict(TEACHERS[name]) for name in teachers_of(setup)}
    inputs = {"dataset": DATASET, "partition": PARTITION, "students": [s["weights_digest"] for s in stages]}
    inputs["teacher_evaluations"] = [digest_bytes(name.encode()) for name in teachers]
    data = {
        "dataset": "digits",
        "class_names": list(class_names),
        "test_samples_by_class": list(TEST_SAMPLES_BY_CLASS),
        "subsets": [{"name": name, "class_ids": ids} for name, ids in SUBSETS.items()],
    }
    facts = {"seed": seed, "metrics": metrics, "stages": stages, "teachers": teachers, "data": data, "setup": setup}
    return make_record("evaluate", {}, inputs, **facts)


def write_evaluations(folder, records):
    """Files as `evaluate` writes them."""
    paths = tuple(folder / "evaluations" / f"{number}.json" for number in range(len(records)))
    for path, record in zip(paths, records, strict=True):
        write_record(path, record)
    return paths


COSTS = [
    CostPart("pack_dataset", Figures(1.5, 1.25, 0, 0, 100_000_000, None), True),
    CostPart("train_teacher", Figures(120.0, 200.0, 9_000, 0, 900_000_000, None), True),
    CostPart("dump_soft_labels", Figures(30.0, 40.0, 0, 9_100, 1_500_000_000, 2_000_000), True),
    CostPart("run_stage", Figures(60.5, 61.0, 24_000, 0, 800_000_000, 5_000_000)),
    CostPart("run_stage", Figures(59.5, 61.0, 24_000, 0, 700_000_000, None)),
    CostPart("evaluate", Figures(2.25, 2.0, 0, 0, 600_000_000, None)),
]


def write_result(folder, records=None, experiment="digits_ed", costs=COSTS):
    """A result, made by the step from evaluations; returns its path."""
    if records is None:
        records = [evaluation(seed, experiment) for seed in (0, 1, 2)]
    path = folder / "results" / f"{experiment}.json"
    method = experiment.rsplit("_", 1)[-1]
    evaluations = write_evaluations(folder / experiment, records)
    result(experiment, method, evaluations, costs, path, path.with_suffix(".csv"), path.parent / "metrics" / path.name)
    return path


def rewrite_result(path, contents):
    """The contents with the digests that they must have, as who knows how could write them; returns the path."""
    digest = digest_json({name: value for name, value in contents.items() if name not in UNDIGESTED})
    write_record(path, contents | {"digest": digest})
    return path
