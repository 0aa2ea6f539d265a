"""TESKD (arXiv 2110.00329): one stage, no teacher; students on the network's own stages, dropped in the end."""

from edpipe.methods.plan import StagePlan, all_subsets
from edpipe.params.experiment import TeskdKnobs, TeskdWeightKnobs
from edpipe.params.stage import StageKnobs


def curriculum(method: TeskdKnobs, name: str, budget: StageKnobs) -> tuple[StagePlan, ...]:
    """One stage; labels, and what the students make of them."""
    weights = TeskdWeightKnobs.model_validate(method.model_dump(exclude={"name"}))
    return (all_subsets(name, budget, teskd=weights),)
