"""Cross-entropy: one stage, all classes, no teacher. The baseline of all others."""

from edpipe.methods.plan import StagePlan, all_subsets
from edpipe.params.experiment import CeKnobs
from edpipe.params.stage import StageKnobs


def curriculum(method: CeKnobs, name: str, budget: StageKnobs) -> tuple[StagePlan, ...]:
    """One stage; the labels are the only target."""
    return (all_subsets(name, budget, label_smoothing=method.label_smoothing),)
