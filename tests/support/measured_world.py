"""A result measured on real files: a packed dataset, students and a teacher that nobody trained, their evaluations."""

from dataclasses import replace

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.models.zoo.build import build_network
from edpipe.results.page.files import PageFiles
from edpipe.steps.evaluate import EvaluationFiles, evaluate
from edpipe.steps.evaluate_teacher import evaluate_teacher
from edpipe.steps.result import result
from edpipe.storage.records import make_record, read_record, record_path
from edpipe.storage.weights import write_weights

IMAGES = 640


def measured(world, folder, seeds=(0, 1), teachers=None, experiment="drawn"):
    """The files of the page of an experiment with one stage, taught by the world's teacher of all classes."""
    teachers = (world.teacher(),) if teachers is None else teachers
    evaluated = tuple(folder / "teachers" / files.teacher / f"{files.subset}.json" for files in teachers)
    for files, path in zip(teachers, evaluated, strict=True):
        evaluate_teacher(files, path)
    paths = tuple(folder / "evaluations" / experiment / f"seed{seed}.json" for seed in seeds)
    for seed, path in zip(seeds, paths, strict=True):
        student = _student(world, folder / "students" / experiment / f"{seed}.safetensors", teachers, seed)
        evaluate(seed, EvaluationFiles(world.dataset, world.partition, (student,), evaluated), path)
    place = folder / "results" / f"{experiment}.json"
    result(experiment, "kd", paths, (), place, place.with_suffix(".csv"), folder / "metrics.json")
    return PageFiles(place, world.dataset, world.partition, paths, evaluated)


def curves(files, seeds=(0, 1)):
    """Of these students; they end where the stage ended."""
    rows = [{"images": images, "loss": 2.0 - images / 640, "val_top1": images / 1280} for images in (320, IMAGES)]
    return {
        (seed, "only"): [{**row, "iteration": 1, "epoch": 1.0, "learning_rate": 0.1} for row in rows] for seed in seeds
    }


def without_images(files):
    """The same page without dataset and evaluations."""
    return replace(files, dataset=None, partition=None, evaluations=(), teacher_evaluations=())


def _student(world, path, teachers, seed):
    dataset = open_dataset(world.dataset)
    knobs, _ = world.stage(teachers, ())
    soft_labels = [
        {
            "teacher": files.teacher,
            "subset": files.subset,
            "digests": ["0123456789abcdef"],
            "teacher_digest": read_record(record_path(files.weights_path))["weights_digest"],
            "teacher_forwards": 1000,
            "kl_bound": 1e-5,
        }
        for files in teachers
    ]
    inputs = {"dataset": dataset.digest, "partition": read_partition(world.partition, dataset).digest}
    record = make_record(
        "run_stage",
        {"plan": knobs.plan, "student": knobs.student, "recipe": knobs.recipe, "views": knobs.views},
        inputs | {"previous": "", "soft_labels": soft_labels, "trajectory": []},
        seed=seed,
        known_class_ids=list(range(dataset.num_classes)),
        images_seen=IMAGES,
        taught_samples=IMAGES,
        training_macs_per_image=1,
        final_loss=1.0,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, build_network("resnet8", dataset.num_classes, 1, seed).state_dict(), record)
    return path
