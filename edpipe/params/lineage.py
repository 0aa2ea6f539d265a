"""Students that become teachers: which experiment needs another's students, and that nothing needs itself."""

from edpipe.errors import ParamsError, nearest
from edpipe.params.plans.method import MethodSetting
from edpipe.params.schema import Params


def check_lineage(params: Params) -> None:
    """That every teacher which was a student names one that there is, on its own dataset, and no circle closes.

    Raises:
        ParamsError: with one line for the first thing that is wrong.
    """
    for teacher in params.teachers:
        _check_student(params, teacher)
    for name in params.experiments:
        check_teachers_of(params, name)
    done: set[str] = set()
    for name in params.experiments:
        _check_no_circle(params, name, (), done)


def check_teachers_of(params: Params, experiment: str) -> None:
    """That the teachers of an experiment which were students were taught its dataset.

    Raises:
        ParamsError: one was taught another.
    """
    for where, teacher in teachers_needed(params, experiment):
        check_dataset(params, where, teacher, params.experiments[experiment].dataset)


def check_dataset(params: Params, where: str, teacher: str, dataset: str) -> None:
    """That a teacher which was a student teaches the dataset that it was taught.

    Raises:
        ParamsError: it was taught another.
    """
    experiment = params.teachers[teacher].network.experiment
    if experiment is not None and params.experiments[experiment].dataset != dataset:
        raise ParamsError(
            f"{where}: '{teacher}' was a student of experiment '{experiment}', on dataset "
            f"'{params.experiments[experiment].dataset}', and cannot teach '{dataset}'; name another teacher"
        )


def last_stage(params: Params, experiment: str) -> tuple[int, str]:
    """Number, from 1, and name of an experiment's last stage, after which its students are whole."""
    knobs = params.experiments[experiment]
    levels, _ = knobs.method.stage_names(MethodSetting(params, experiment))
    return len(levels), levels[-1]


def teachers_needed(params: Params, experiment: str) -> list[tuple[str, str]]:
    """Where each teacher that an experiment depends on is named, and its name: its own, and its partition's."""
    knobs = params.experiments[experiment]
    needed = [(f"experiments.{experiment}.method.{where}", name) for where, name in knobs.method.named_teachers()]
    confusion = params.partitions[knobs.partition].confusion
    if confusion is not None:
        needed.append((f"partitions.{knobs.partition}.confusion.teacher", confusion.teacher))
    return needed


def _check_student(params: Params, teacher: str) -> None:
    where, knobs = f"teachers.{teacher}", params.teachers[teacher]
    experiment = knobs.network.experiment
    if experiment is None:
        return
    if experiment not in params.experiments:
        known = nearest(experiment, params.experiments)
        raise ParamsError(f"{where}.network.experiment: '{experiment}' is not in experiments{known}")
    model = params.students[params.experiments[experiment].student].model
    if knobs.network.model != model:
        raise ParamsError(
            f"{where}.network.model: '{knobs.network.model}', but the students of experiment '{experiment}' are "
            f"'{model}'; give the same model"
        )
    seeds = params.experiments[experiment].seeds
    if knobs.fitting.seed not in seeds:
        raise ParamsError(
            f"{where}.fitting.seed: {knobs.fitting.seed}, but experiment '{experiment}' has students of seeds "
            f"{', '.join(map(str, seeds))} alone; give one of them"
        )


def _check_no_circle(params: Params, experiment: str, way: tuple[tuple[str, str], ...], done: set[str]) -> None:
    """`way`: the experiments that led here, each with the teacher that it asked for; `done`: those found sound."""
    names = [name for name, _ in way]
    if experiment in names:
        raise ParamsError(_circle_line(experiment, way[names.index(experiment) :]))
    if experiment in done:
        return
    for _, teacher in teachers_needed(params, experiment):
        before = params.teachers[teacher].network.experiment
        if before is not None:
            _check_no_circle(params, before, (*way, (experiment, teacher)), done)
    done.add(experiment)


def _circle_line(experiment: str, circle: tuple[tuple[str, str], ...]) -> str:
    afters = [name for name, _ in circle[1:]] + [experiment]
    steps = (
        f"'{name}' needs teacher '{teacher}', a student of '{after}'"
        for (name, teacher), after in zip(circle, afters, strict=True)
    )
    return (
        f"teachers.{circle[-1][1]}.network.experiment: '{experiment}' would have to be there before itself: "
        f"{'; '.join(steps)}; let one of these teachers come from elsewhere"
    )
