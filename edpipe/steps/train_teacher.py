"""Trains one teacher from scratch on the classes of its subset."""

from pathlib import Path

from edpipe.models.zoo.build import build_network
from edpipe.params.teacher import NetworkKnobs, TeacherJobKnobs
from edpipe.storage.job import Job
from edpipe.training.teacher import TeacherSetup, setup_of_job, train_and_save


def run(job: Job[TeacherJobKnobs]) -> None:
    """Runs a job of this step."""
    train_teacher(setup_of_job(job), job.knobs.network, job.outputs[0])


def train_teacher(setup: TeacherSetup, network: NetworkKnobs, out_path: Path) -> None:
    """Writes the teacher's weights and their record, with its top1 on its own classes.

    Raises:
        NetworkError: unknown model.
        TrainingError: the loss is no longer a finite number, or much too large.
        Interrupted: SIGTERM or Ctrl-C came; the same call goes on where it was.
    """
    built = build_network(network.model, len(setup.class_ids), setup.dataset.channels, setup.fitting.seed)
    setup = setup.normalised(setup.dataset.mean, setup.dataset.std)
    train_and_save("train_teacher", built, setup, network, out_path)
