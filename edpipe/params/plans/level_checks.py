"""What is wrong with knobs of a school's levels: shares of samples, new and frozen blocks, groups of classes."""

from collections.abc import Iterable, Mapping, Sequence

from edpipe.errors import ParamsError, nearest
from edpipe.params.plans.method import MethodSetting

EASIEST_OR_HARDEST = ("easiest", "hardest")


def check_known(path: str, names: Iterable[str], levels: Sequence[str]) -> None:
    """That all names are of levels.

    Raises:
        ParamsError: one is not.
    """
    for name in names:
        if name not in levels:
            raise ParamsError(f"{path}: '{name}' is not in the levels{nearest(name, levels)}")


def check_shares(setting: MethodSetting, shares: Mapping[str, Mapping[str, float]]) -> None:
    """That easiest and hardest are of different levels, and that stored views tell how well a teacher names an image.

    Args:
        setting: the experiment.
        shares: by knob, `easiest` and `hardest`: of each level that it names.

    Raises:
        ParamsError: they do not.
    """
    both = [level for level in shares["easiest"] if level in shares["hardest"]]
    if both:
        raise ParamsError(
            f"{setting.path}.hardest: level '{both[0]}' has a share of easiest as well; remove one of the two"
        )
    for knob in filter(shares.get, EASIEST_OR_HARDEST):
        _check_tells_loss(setting, knob)


def _check_tells_loss(setting: MethodSetting, knob: str) -> None:
    dataset = setting.params.experiments[setting.experiment].dataset
    where, soft_labels = f"soft_labels.{dataset}", setting.params.soft_labels[dataset]
    if soft_labels.space.mixing is not None:
        raise ParamsError(
            f"{setting.path}.{knob}: asks how well teachers name an image, but {where}.space.mixing shows them "
            f"mixed images, of two classes each; remove mixing, or {knob}"
        )
    if soft_labels.storage.temperature not in (None, 1):
        raise ParamsError(
            f"{setting.path}.{knob}: asks how well teachers name an image at temperature 1, but {where}.storage "
            f"samples at temperature {soft_labels.storage.temperature:g}; use another precision, or remove {knob}"
        )


def check_new_blocks(setting: MethodSetting, blocks: Sequence[int], new_block: str, fade_in: float) -> None:
    """That some level adds blocks, if a knob is of new blocks, and that a reference can fade out.

    Args:
        setting: the experiment.
        blocks: of each level.
        new_block: how they start.
        fade_in: share of a level in which they come in.

    Raises:
        ParamsError: they do not fit.
    """
    is_given = {"new_block": new_block != "drawn", "fade_in": fade_in > 0}
    for knob, given in is_given.items():
        if given and len(set(blocks)) == 1:
            raise ParamsError(
                f"{setting.path}.{knob}: is of levels that add blocks, but all levels have {blocks[0]}; remove it"
            )
    if fade_in:
        _check_reference(setting, "fade_in")


def check_frozen(setting: MethodSetting, blocks: Mapping[str, int], frozen: Mapping[str, int]) -> None:
    """That only blocks are frozen that an earlier level taught, and that at least one block learns.

    Args:
        setting: the experiment.
        blocks: of each level, in order.
        frozen: of some levels, how many blocks do not learn.

    Raises:
        ParamsError: others are.
    """
    for level, number in frozen.items():
        place = list(blocks).index(level)
        before = list(blocks.values())[place - 1] if place else 0
        most = min(before, blocks[level] - 1)
        if number > most:
            raise ParamsError(
                f"{setting.path}.frozen.{level}: got {number}, but the level has {_counted(blocks[level])} and the one "
                f"before has {_counted(before)}; what is frozen must have been trained, and one block must learn: "
                + (f"give at most {most}" if most else "remove it")
            )
    if frozen:
        _check_reference(setting, "frozen")


def check_anchor(setting: MethodSetting, weight: float) -> None:
    """That the student of the level before takes the images of this one: the authors' first reference has one size.

    Raises:
        ParamsError: it does not.
    """
    student = setting.params.students[setting.params.experiments[setting.experiment].student]
    sizes = {budget.image_size for budget in setting.budgets.values()}
    if weight and student.reference == "authors" and sizes != {None}:
        raise ParamsError(
            f"{setting.path}.anchor_weight: a student whose reference is 'authors' has a first reference that fits one "
            "size of images, so stages with an image_size cannot compare with it; use reference: adapter"
        )


def _counted(blocks: int) -> str:
    return f"{blocks or 'no'} block{'' if blocks == 1 else 's'}"


def _check_reference(setting: MethodSetting, knob: str) -> None:
    student = setting.params.students[setting.params.experiments[setting.experiment].student]
    if student.reference == "authors":
        raise ParamsError(
            f"{setting.path}.{knob}: does not go with a student whose reference is 'authors'; use reference: adapter"
        )


def check_coarse(
    setting: MethodSetting, last: str, taught: Mapping[str, Sequence[str]], teachers: Mapping[str, Sequence[str]]
) -> None:
    """That there are subsets to be told apart, by teachers that know more than one, and classes in the end.

    Args:
        setting: the experiment.
        last: of all levels.
        taught: of each coarse level the subsets whose samples are seen.
        teachers: of each coarse level.

    Raises:
        ParamsError: there are none, or teachers cannot tell them apart.
    """
    path, dataset = f"{setting.path}.coarse", setting.params.experiments[setting.experiment].dataset
    if last in taught:
        raise ParamsError(f"{path}: '{last}' is the last level, which must learn the classes; name earlier ones alone")
    for level, subsets in taught.items():
        if len(subsets) < 2:
            raise ParamsError(
                f"{path}: level '{level}' teaches only subset '{subsets[0]}', so there is nothing to be told apart; "
                "set classes: all or replay: true, or name a later level"
            )
        specialists = [teacher for teacher in teachers[level] if teacher in setting.specialists]
        if specialists:
            raise ParamsError(
                f"{path}: level '{level}' tells subsets apart, but teacher '{specialists[0]}' knows one subset at a "
                "time; use a teacher whose partition is absent"
            )
    temperature = setting.params.soft_labels[dataset].storage.temperature
    if taught and temperature not in (None, 1):
        raise ParamsError(
            f"{path}: adds up probabilities at temperature 1, but soft_labels.{dataset}.storage samples at temperature "
            f"{temperature:g}; use another precision, or remove coarse"
        )
