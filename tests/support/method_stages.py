"""The stages of a method whose experiment is given by its parts, without a params.yaml."""

from dataclasses import dataclass

from edpipe.params.plans.method import ONLY_STAGE, MethodSetting
from edpipe.params.plans.plugins import method_class


@dataclass(frozen=True)
class GivenSetting(MethodSetting):
    """What a method is told, without the rest of params.yaml."""

    params: object = None
    experiment: str = "given"
    given_levels: tuple = ()
    given_budgets: object = None
    given_specialists: frozenset = frozenset()

    @property
    def levels(self):
        return self.given_levels

    @property
    def budgets(self):
        return self.given_budgets

    @property
    def specialists(self):
        return self.given_specialists


def method_of(**knobs):
    """A method by its knobs, `name` among them."""
    return method_class(knobs["name"]).model_validate(knobs)


def only_stage(budget, **knobs):
    """The plan of a method of one stage."""
    (plan,) = method_of(**knobs).stages(GivenSetting(given_budgets={ONLY_STAGE: budget}))
    return plan


def school(budgets, specialists=(), **knobs):
    """The plans of ed; `budgets` has its levels in order."""
    setting = GivenSetting(given_levels=tuple(budgets), given_budgets=budgets, given_specialists=frozenset(specialists))
    return method_of(name="ed", **knobs).stages(setting)
