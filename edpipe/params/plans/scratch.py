"""Teachers that learn beside a student from the start, as CTKD's scratch teacher."""

from edpipe.errors import ParamsError
from edpipe.params.schema import Params, entry
from edpipe.params.teacher import FittingKnobs, NetworkKnobs, TeacherKnobs


def check_scratch(params: Params, where: str, teacher: str) -> tuple[NetworkKnobs, FittingKnobs]:
    """Network and fitting of a teacher that can learn beside a student.

    Raises:
        ParamsError: there is none of this name, it knows a subset only, is fetched, or its epochs are no whole number.
    """
    knobs: TeacherKnobs = entry(params, "teachers", teacher)
    problem = ""
    if knobs.partition is not None:
        problem = f"knows only subsets of partition '{knobs.partition}'; name one whose partition is absent"
    elif knobs.network.source != "train":
        problem = f"has source: {knobs.network.source}; name one of source: train"
    elif not knobs.fitting.epochs.is_integer():
        problem = f"has fitting.epochs {knobs.fitting.epochs:g}; give a whole number"
    if problem:
        raise ParamsError(
            f"{where}: a scratch teacher learns beside the student from the start, but '{teacher}' {problem}"
        )
    return knobs.network, knobs.fitting
