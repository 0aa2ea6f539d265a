"""What the page says in words: of methods, and of a stage's loss."""

from collections.abc import Sequence

from edpipe.methods.plan import StagePlan

_ONE = "Knowledge distillation: all classes at once, one teacher that knows all of them"
_SEVERAL = "Knowledge distillation: all classes at once, several teachers that know all of them,"
_SCHOOL = (
    "Education Distillation: at each school level the student grows by one block and learns from that level's teachers;"
)
_METHODS = {
    "ce": "Cross-entropy with the labels alone: no teacher, all classes at once.",
    "kd": f"{_ONE}.",
    "logit_std": f"{_ONE}; logits are standardised first.",
    "dkd": f"{_ONE}; what it says of the true class and of the others is learnt apart.",
    "dist": f"{_ONE}; its answers are followed by their correlation.",
    "at": f"{_ONE}; the student follows its attention maps.",
    "fitnet": f"{_ONE}; the student follows the features of one of its stages.",
    "aver": f"{_SEVERAL} all of one weight.",
    "ebkd": f"{_SEVERAL} weighed for each image by how certain they are.",
    "aekd": f"{_SEVERAL} weighed so that their gradients agree.",
    "ca_mkd": f"{_SEVERAL} weighed for each image by how right they are.",
    "teskd": "TESKD: no teacher; students on the network's own stages help it to learn, and are dropped.",
    "ctkd": "CTKD: a teacher that learnt beside the student, replayed, and the attention maps of an expert.",
}


def method_text(method: str, plans: Sequence[StagePlan]) -> str:
    """One sentence about the method."""
    if method == "ed":
        when = "classes arrive with the levels" if classes_arrive(plans) else "all classes are there from the start"
        return f"{_SCHOOL} {when}."
    return _METHODS[method]


def classes_arrive(plans: Sequence[StagePlan]) -> bool:
    """Whether later stages choose among more classes."""
    return len({plan.known for plan in plans}) > 1


def loss_text(plan: StagePlan) -> str:
    """The terms of a stage's loss and their weights."""
    if plan.teskd is not None:
        return f"TESKD: {plan.teskd.task_share:g} of it task, the rest kd of its students"
    terms = [f"{plan.task_weight:g} task"] if plan.teachers or plan.trajectory else ["task"]
    if plan.trajectory is not None:
        terms.append(f"{plan.distill_weight:g} kd of {plan.trajectory.teacher} at temperature {plan.temperature:g}")
        terms += [f"{plan.attention_weight:g} at"] if plan.attention_weight else []
    elif plan.teachers:
        terms.append(_against_teachers(plan))
    terms += [f"{plan.reference_weight:g} for each earlier reference"] if plan.kept else []
    terms += [f"{plan.anchor_weight:g} kd of the student before"] if plan.anchor_weight else []
    smoothed = f", labels smoothed by {plan.label_smoothing:g}" if plan.label_smoothing else ""
    return " + ".join(terms) + smoothed


def _against_teachers(plan: StagePlan) -> str:
    kind = plan.algorithm.kind
    at_temperature = "" if kind in ("at", "fitnet") else f" at temperature {plan.temperature:g}"
    rule = f" ({plan.teacher_weighting})" if len({use.teacher for use in plan.teachers}) > 1 else ""
    return f"{round(plan.distill_weight, 6):g} {kind}{rule}{at_temperature}"
