"""Trains the student of one experiment and seed through one stage of its curriculum."""

from dataclasses import dataclass

import torch
from torch import nn

from edpipe.errors import ParamsError
from edpipe.models.students.student import Student
from edpipe.models.zoo.names import check_model_name
from edpipe.params.plans.plan import WHOLE_BATCH_RULES, StageJobKnobs, StagePlan
from edpipe.runtime.device import prepare_device
from edpipe.runtime.distributed import ALONE, Group, joined
from edpipe.soft_labels.file.store import SoftLabelStore
from edpipe.storage.job import Job
from edpipe.storage.records import make_record
from edpipe.storage.weights import write_weights
from edpipe.training.curves.validation import validation_of
from edpipe.training.loop import Budget, Training
from edpipe.training.resumable import ResumableTraining
from edpipe.training.stage.inputs import StageFiles, open_stage
from edpipe.training.stage.student import build_student, training_macs, weights_to_keep
from edpipe.training.stage.task import StageTask


def run(job: Job[StageJobKnobs]) -> None:
    """Runs a job of this step."""
    check_model_name(job.knobs.student.model)
    experiment, seed, stage = job.arguments.values()
    run_stage(f"{experiment} seed {seed} {stage}", int(seed), job.knobs, StageFiles.of_job(job))


def run_stage(title: str, seed: int, knobs: StageJobKnobs, files: StageFiles) -> None:
    """Writes the student's weights after the stage, and their record.

    Raises:
        CorruptFileError: an input is damaged.
        MismatchError: inputs that do not belong together, such as soft labels of another teacher, dataset or views.
        NetworkError: the student cannot be split into that many blocks.
        ParamsError: several processes for a loss that needs the whole batch.
        TrainingError: the loss is no longer a finite number, or much too large.
        Interrupted: SIGTERM or Ctrl-C came; the same call goes on where it was.
    """
    device = prepare_device()
    with joined(device) as group:
        start = open_start(seed, knobs, files, device, group)
        task, dataset = start.task, start.task.dataset
        validate = validation_of(
            task.batches, task.known_class_ids, dataset.mean, dataset.std, knobs.recipe, task.image_size
        )
        samples = task.stream.num_samples
        fitting = ResumableTraining(title, start.training, files.out, start.record, samples, validate)
        final_loss = fitting.run(task)
        if group.is_main:
            losses = {"first_losses": list(start.training.first_losses), "final_loss": final_loss}
            write_weights(
                files.out, weights_to_keep(knobs.plan, start.student, start.trainee), {**start.record, **losses}
            )
            fitting.finish()


@dataclass(frozen=True)
class StageStart:
    """A stage before its first iteration."""

    task: StageTask
    student: Student
    trainee: nn.Module
    """What is trained: the student, or the student with what only its training needs."""
    training: Training
    record: dict[str, object]
    """What is known before training; all that decides its result is in it."""


def open_start(
    seed: int, knobs: StageJobKnobs, files: StageFiles, device: torch.device, group: Group = ALONE
) -> StageStart:
    """Opens and checks the inputs of a stage, and builds what is to be trained; raises what `run_stage` raises."""
    _check_whole_batch(knobs.plan, group.size)
    task = open_stage(seed, knobs, files, device)
    group.check_alike("digest of the taught samples", int(task.taught_digest, 16) >> 16)
    student, trainee = build_student(seed, knobs, files, task)
    trainee.to(device).to(memory_format=torch.channels_last)
    task.macs = training_macs(student, trainee, task)
    total = task.num_images
    if total < 2:
        raise ParamsError(
            f"stage '{knobs.plan.name}': its budget is {total} image, and normalisation needs 2; give it more"
        )
    record = _record(seed, knobs, task, total) | {"training_macs_per_image": task.macs.own}
    budget = Budget(total, knobs.plan.budget.learning_rate, knobs.plan.window)
    training = Training(trainee, knobs.recipe, budget, task.seed, group)
    return StageStart(task, student, trainee, training, record)


def _check_whole_batch(plan: StagePlan, num_processes: int) -> None:
    """That no loss compares samples with each other that several processes have each a part of."""
    several = len({use.teacher for use in plan.teachers}) > 1
    rule = plan.teacher_weighting if plan.teacher_weighting in WHOLE_BATCH_RULES and several else ""
    name = plan.algorithm.kind if plan.algorithm.compares_samples else rule
    if name and num_processes > 1:
        raise ParamsError(
            f"stage '{plan.name}': {name} compares the samples of a batch with each other, and each of {num_processes} "
            "processes has only a part of them; train it with EDPIPE_PROCESSES=1, or choose another method"
        )


def _certified(store: SoftLabelStore, temperature: float) -> float | None:
    """Nats; None for sampled rows, an estimate."""
    return None if store.precision.temperature is not None else store.kl_bound(temperature)


def _trajectory_facts(plan: StagePlan, task: StageTask) -> list[dict[str, object]]:
    """What the stage's record says of its trajectory, in the words of soft labels; empty if it has none."""
    if task.trajectory is None:
        return []
    store = task.trajectory.store
    return [_facts_of(store, plan)]


def _facts_of(store: SoftLabelStore, plan: StagePlan) -> dict[str, object]:
    return {
        "teacher": store.provenance.teacher,
        "subset": store.provenance.subset,
        "digests": store.digests,
        "teacher_digest": store.provenance.teacher_digest,
        "teacher_forwards": store.num_forwards,
        "kl_bound": _certified(store, plan.temperature),
    }


def _record(seed: int, knobs: StageJobKnobs, task: StageTask, images: int) -> dict[str, object]:
    """What is known before training; all that decides its result is in it."""
    stores = [teacher.labels.store for teacher in task.teachers]
    return make_record(
        "run_stage",
        {"plan": knobs.plan, "student": knobs.student, "recipe": knobs.recipe, "views": knobs.views},
        {
            "dataset": task.dataset.digest,
            "partition": task.partition.digest,
            "previous": task.previous_digest,
            "soft_labels": [_facts_of(store, knobs.plan) for store in stores],
            "trajectory": _trajectory_facts(knobs.plan, task),
        },
        seed=seed,
        known_class_ids=task.known_class_ids.tolist(),
        images_seen=images,
        taught_samples=task.stream.num_samples,
        taught_digest=task.taught_digest,
    )
