"""How many threads a job can use."""

from edpipe.params.schema import Params
from edpipe.pipeline.jobs.step_table import STEP, Artifact
from edpipe.storage.job import Job

PACKING_THREADS = 8
"""Raw images may be of any size; a machine with fewer cores gives what it has."""
SMALL_SIDE = 64
"""Pixels; images up to this size are small."""
LARGE_IMAGE_THREADS = 4


def threads_of(params: Params, job: Job) -> int:
    """Threads that a job can use: small images leave a second one idle, large ones keep four busy.

    The last bits of what networks compute depend on it, so that it must not depend on who runs the job. What is packed
    does not depend on it.
    """
    step = STEP[job.step]
    if step.artifact is Artifact.DATASET:
        return PACKING_THREADS
    if not step.needs_network:
        return 1
    return network_threads(params.datasets[str(dataset_of(params, job))].image_size)


def dataset_of(params: Params, job: Job) -> str | None:
    """The data set that a job is of; None: of a study."""
    if "dataset" in job.arguments:
        return str(job.arguments["dataset"])
    if "search" in job.arguments:
        return params.experiments[params.searches[str(job.arguments["search"])].experiment].dataset
    experiment = job.arguments.get("experiment")
    return None if experiment is None else params.with_trials.experiments[str(experiment)].dataset


def network_threads(image_size: int) -> int:
    """Threads of a network's job; `image_size` in pixels."""
    return 1 if image_size <= SMALL_SIDE else LARGE_IMAGE_THREADS
