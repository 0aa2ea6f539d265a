"""Which units of code a job's knobs choose besides its step: reader, network, losses, weights of teachers, method.

Every job of a step has the same choices by name, since DVC wants as many parameters in each; one that a job does not
have is the unit of its step, which counts anyway.
"""

from edpipe.models.zoo.forms import own_form
from edpipe.params.plans.plan import StagePlan
from edpipe.params.plans.registered import REGISTRY
from edpipe.storage.code.units import CHOICES, step_unit

STAGE_CHOICES = ("network", "loss", "other_loss", "weighting", "method")


def reader_choice(reader: str) -> dict[str, str]:
    """Of a job that packs a data set.

    >>> reader_choice("digits")
    {'reader': 'readers.digits'}
    """
    return {"reader": f"readers.{reader}"}


def network_choice(step: str, model: str) -> dict[str, str]:
    """Of a job that runs a network; the code of timm's and torchvision's is in the step itself."""
    form = own_form(model)
    if form is not None:
        return {"network": f"networks.{form.family}"}
    return {"network": f"networks.{model}" if model in REGISTRY.networks else step_unit(step)}


def stage_choices(plan: StagePlan, model: str) -> dict[str, str]:
    """Of a job that trains a student."""
    nothing = step_unit("run_stage")
    losses = [*stage_losses(plan), nothing, nothing]
    weighting = f"weightings.{plan.teacher_weighting}"
    return {
        **network_choice("run_stage", model),
        "loss": losses[0],
        "other_loss": losses[1],
        "weighting": weighting if weighting in CHOICES and len(plan.teachers) > 1 else nothing,
        "method": nothing if plan.own_loss is None else f"methods.{plan.own_loss.kind}",
    }


def stage_losses(plan: StagePlan) -> list[str]:
    """The losses of a stage: against its teachers, its recorded teacher, and the student of the stage before."""
    kinds = [plan.algorithm.kind] if plan.teachers else []
    kinds += ["kd"] if plan.trajectory or plan.anchor_weight else []
    return [f"losses.{kind}" for kind in dict.fromkeys(kinds)]
