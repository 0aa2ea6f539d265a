"""What a step would refuse although params.yaml alone decides it, as far as no network has to be built to know."""

from collections.abc import Iterator

from edpipe.params.dataset import DatasetKnobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.plans.plan import StagePlan
from edpipe.params.schema import Params
from edpipe.params.teacher import SCHEMES, NetworkKnobs


def sampled_problems(params: Params, experiment: str, plans: tuple[StagePlan, ...]) -> Iterator[str]:
    """Sampled soft labels estimate a softmax over all classes of a teacher: a stage must know all of them."""
    knobs = params.experiments[experiment]
    if params.soft_labels[knobs.dataset].storage.precision != "sampled":
        return
    everything = set(params.partitions[knobs.partition].subsets)
    for plan in plans:
        if ALL_CLASSES in plan.known or set(plan.known) == everything:
            continue
        for use in plan.teachers:
            if use.subset == ALL_CLASSES:
                yield (
                    f"experiments.{experiment}.method: stage '{plan.name}' knows only some classes of teacher "
                    f"'{use.teacher}', but sampled rows estimate its softmax over all of them; use another "
                    f"soft_labels.{knobs.dataset}.storage.precision, classes: all, or a teacher that has a partition"
                )
                return


def source_problems(teacher: str, network: NetworkKnobs, dataset_name: str, dataset: DatasetKnobs) -> Iterator[str]:
    """What is wrong with where a teacher's weights come from, and how its images are normalised."""
    where = f"teachers.{teacher}.network"
    if network.source == "url":
        scheme = str(network.location).partition(":")[0].lower()
        if scheme not in SCHEMES:
            yield f"{where}.location: scheme {scheme!r} is not allowed; use one of {', '.join(SCHEMES)}"
    if network.mean is not None and len(network.mean) != dataset.channels:
        yield (
            f"{where}.mean: has {len(network.mean)} numbers, images of dataset '{dataset_name}' have "
            f"{dataset.channels} channels; give as many, and as many in std"
        )
