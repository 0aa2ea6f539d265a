"""What `edpipe new-method` writes: a method that works, with comments on what can be changed, and its test."""

_METHOD = '''\
"""The method `{name}`: say here what it does, and where it is from."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edpipe import TeacherLoss


class {title}(TeacherLoss):
    """The sharpened teacher: its probabilities, raised to a power, are the target."""

    # A sentence for the report page.
    summary: ClassVar[str] = "One teacher of all classes, whose probabilities are sharpened first."
    # What soft labels must hold besides logits: Stored.ATTENTION or Stored.HINT (from edpipe import Stored).
    # stored: ClassVar[frozenset[Stored]] = frozenset({{Stored.ATTENTION}})

    # The name under `method:` and `distill:` in params.yaml.
    kind: Literal["{name}"]
    # Knobs: each has a type, a range, a default and a description.
    power: Annotated[float, Field(gt=0)] = Field(1.5, description="Of the teacher's probabilities; 1: plain kd.")

    def losses(self, pair):
        """Each sample's loss against its teacher, shape (row,), nats.

        pair.student, pair.teacher: logits (row, class) of the same classes; the teacher's have no gradient.
        pair.labels: true classes, as columns of them. pair.temperature. pair.progress: share of the stage, 0 to 1.
        """
        import torch.nn.functional as F  # here, so that params.yaml is read without torch

        student = F.log_softmax(pair.student / pair.temperature, dim=1)
        teacher = F.log_softmax(self.power * pair.teacher / pair.temperature, dim=1)
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
        return pair.temperature**2 * divergence
'''
_TEST = '''\
"""The loss of `{name}` at values that are known."""

import torch
from {name} import {title}

from edpipe import TeacherPair

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
LABELS = torch.tensor([0, 1])


def test_a_student_that_agrees_has_no_loss():
    pair = TeacherPair.of(LOGITS, LOGITS, LABELS, temperature=4.0)
    torch.testing.assert_close({title}(kind="{name}", power=1.0).losses(pair), torch.zeros(2))


def test_each_sample_has_a_loss_with_a_gradient():
    student = torch.zeros(2, 3, requires_grad=True)
    losses = {title}(kind="{name}").losses(TeacherPair.of(student, LOGITS, LABELS, temperature=4.0))
    assert losses.shape == (2,) and (losses > 0).all()
    losses.sum().backward()
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0
'''


def _title(name: str) -> str:
    """
    >>> _title("my_loss2")
    'MyLoss2'
    """
    return "".join(part.capitalize() for part in name.split("_"))


def method_text(name: str) -> str:
    """The Python file of a method of this name."""
    return _METHOD.format(name=name, title=_title(name))


def text_of_test(name: str) -> str:
    """The Python file of its test."""
    return _TEST.format(name=name, title=_title(name))
