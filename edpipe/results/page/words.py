"""What the page says in words: of methods, and of a stage's loss."""

from collections.abc import Sequence

from edpipe.params.plans.plan import StagePlan
from edpipe.params.plans.plugins import method_class


def method_text(method: str, plans: Sequence[StagePlan]) -> str:
    """One sentence about the method; its name alone, where it is a plugin's that is not loaded."""
    known = method_class(method)
    return f"Method {method}." if known is None else known.page_text(method, tuple(plans))


def classes_arrive(plans: Sequence[StagePlan]) -> bool:
    """Whether later stages choose among more classes."""
    return len({plan.known for plan in plans}) > 1


def loss_text(plan: StagePlan) -> str:
    """The terms of a stage's loss and their weights."""
    if plan.own_loss is not None:
        return plan.own_loss.text(plan)
    terms = [f"{plan.task_weight:g} task"] if plan.teachers else ["task"]
    if plan.teachers:
        terms.append(_against_teachers(plan))
    terms += [f"{plan.reference_weight:g} for each earlier reference"] if plan.kept else []
    terms += [f"{plan.anchor_weight:g} kd of the student before"] if plan.anchor_weight else []
    smoothed = f", labels smoothed by {plan.label_smoothing:g}" if plan.label_smoothing else ""
    fading = f", of logits that come in over {plan.fade_in:.3g} of the stage" if plan.fading else ""
    return " + ".join(terms) + smoothed + fading + (", of subsets in place of classes" if plan.coarse else "")


def _against_teachers(plan: StagePlan) -> str:
    kind = plan.algorithm.kind
    at_temperature = f" at temperature {plan.temperature:g}" if plan.algorithm.has_temperature else ""
    rule = f" ({plan.teacher_weighting})" if len({use.teacher for use in plan.teachers}) > 1 else ""
    return f"{round(plan.distill_weight, 6):g} {kind}{rule}{at_temperature}"
