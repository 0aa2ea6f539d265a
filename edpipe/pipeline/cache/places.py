"""What a path in artifacts/ or results/ is of: the grammar of `pipeline.jobs.paths` read backwards."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edpipe.errors import ParamsError
from edpipe.params.schema import Params
from edpipe.params.searches.trials import TRIAL_PATTERN
from edpipe.pipeline.jobs.step_table import STEP
from edpipe.storage.job import Job
from edpipe.storage.unfinished import RESUME_FOLDER


class Kind(StrEnum):
    """What a file is of."""

    DATASET = "data set"
    PARTITION = "partition"
    TEACHER = "teacher"
    SOFT_LABELS = "soft labels"
    TEACHER_EVALUATION = "teacher evaluation"
    TRAJECTORY = "trajectory"
    STUDENT = "student"
    EVALUATION = "evaluation"
    RESULT = "result"
    STUDY = "study"
    SEARCH = "search"
    INDEX = "page of all results"
    UNFINISHED = "unfinished"
    UNKNOWN = "not edpipe's"


SECTIONS = {
    "dataset": "datasets",
    "partition": "partitions",
    "teacher": "teachers",
    "experiment": "experiments",
    "study": "studies",
    "search": "searches",
}
"""Where in params.yaml the names in a path stand."""
_NAME = "[a-z][a-z0-9_]*"
_TEACHER = "{dataset}/{teacher}"
_STUDENT = rf"(?P<experiment>{_NAME}|{TRIAL_PATTERN})"
"""Of an experiment, or of a search's trial."""
_GRAMMAR = (
    (Kind.DATASET, "pack_dataset", "artifacts/datasets/{dataset}.(h5|json)"),
    (Kind.PARTITION, "partition_dataset", "artifacts/partitions/{dataset}/{partition}.json"),
    (Kind.TEACHER, "train_teacher", f"artifacts/teachers/{_TEACHER}/{{subset}}.(safetensors|json)"),
    (Kind.SOFT_LABELS, "verify_soft_labels", f"artifacts/soft_labels/{_TEACHER}/{{subset}}.json"),
    (Kind.SOFT_LABELS, "dump_soft_labels", f"artifacts/soft_labels/{_TEACHER}/{{subset}}/views_{{views}}.(h5|json)"),
    (Kind.TEACHER_EVALUATION, "evaluate_teacher", f"artifacts/teacher_evaluations/{_TEACHER}/{{subset}}.json"),
    (Kind.TRAJECTORY, "record_trajectory", f"artifacts/trajectories/{_TEACHER}/seed{{seed}}.(h5|json)"),
    (Kind.STUDENT, "run_stage", f"artifacts/students/{_STUDENT}/seed{{seed}}/[0-9]+_{{stage}}.(safetensors|json)"),
    (Kind.EVALUATION, "evaluate", "artifacts/evaluations/{experiment}/seed{seed}.json"),
    (Kind.STUDY, "study", "results/study_{study}.(json|md|svg)"),
    (Kind.SEARCH, "search", "results/search_{search}.(json|md)"),
    (Kind.INDEX, "", "results/index.html"),
    (Kind.RESULT, "report", r"results/(?!index\.){experiment}.html"),
    (Kind.RESULT, "result", "results/{experiment}.(json|csv)"),
    (Kind.RESULT, "result", "results/metrics/{experiment}.json"),
)
_PATTERNS = {"seed": "[0-9]+", "views": "[0-9]+-[0-9]+"}


def _compiled(text: str) -> re.Pattern[str]:
    parts = re.sub(r"\.(?=\(|json|html)", r"\\.", text)
    return re.compile(re.sub(r"\{(\w+)\}", lambda m: f"(?P<{m[1]}>{_PATTERNS.get(m[1], _NAME)})", parts))


_PLACES = [(kind, step, _compiled(text)) for kind, step, text in _GRAMMAR]


@dataclass(frozen=True)
class Place:
    """What a path is of."""

    kind: Kind
    step: str = ""
    """That makes it; empty where none does."""
    names: tuple[tuple[str, str], ...] = ()
    """Options of the step, as the path says them."""

    @property
    def label(self) -> str:
        """The entries of params.yaml that it is of."""
        return "/".join(name for option, name in self.names if option in SECTIONS)

    def missing_entry(self, params: Params) -> str:
        """The first name that params.yaml has no entry of, with what it is of; empty if it has all."""
        for option, name in self.names:
            if option in SECTIONS and name not in getattr(params.with_trials, SECTIONS[option]):
                return f"{'trial' if '-' in name else option} '{name}'"
        return ""

    def job(self, params: Params) -> Job | None:
        """The job of params.yaml that these names are of; None: there is none."""
        if not self.step or self.missing_entry(params):
            return None
        words = {option: int(name) if option == "seed" else name for option, name in self.names}
        try:
            return STEP[self.step].make(params, **words)
        except ParamsError:
            return None


def place_of(path: Path) -> Place:
    """What a path from the project folder is of.

    >>> place_of(Path("artifacts/teachers/digits/general/all.json")).label
    'digits/general'
    >>> place_of(Path("artifacts/notes.txt")).kind
    <Kind.UNKNOWN: "not edpipe's">
    >>> place_of(Path("results/index.html")).kind
    <Kind.INDEX: 'page of all results'>
    """
    if RESUME_FOLDER in path.parts or path.name.endswith(".partial"):
        return Place(Kind.UNFINISHED)
    for kind, step, pattern in _PLACES:
        found = pattern.fullmatch(path.as_posix())
        if found:
            return Place(kind, step, tuple(found.groupdict().items()))
    return Place(Kind.UNKNOWN)


def why_gone(place: Place, params: Params) -> str:
    """Why params.yaml has no job that makes what these names are of."""
    missing = place.missing_entry(params)
    if missing:
        return f"params.yaml has no {missing}"
    names = dict(place.names)
    if place.step == "dump_soft_labels" and Place(place.kind, "verify_soft_labels", place.names[:3]).job(params):
        return f"views {names['views']} are of an earlier setting of soft_labels.{names['dataset']}.views"
    own = ", ".join(f"{option} {name}" for option, name in place.names if option not in SECTIONS)
    return f"{place.label} has no {own or 'such job'} any more"


_BLOCKS = re.compile(rf"({_NAME})-(.+)-[0-9a-f]+")
_SUFFIXES = (".safetensors", ".h5")


def targets_of(unfinished: Path) -> tuple[Path, ...]:
    """The artifacts that an entry of a hidden folder of unfinished ones may be for; its own path says which.

    >>> [str(path) for path in targets_of(Path("artifacts/.resume/datasets-digits-0a"))]
    ['artifacts/datasets/digits.safetensors', 'artifacts/datasets/digits.h5']
    """
    base, blocks = unfinished.parent.parent, _BLOCKS.fullmatch(unfinished.name)
    target = base / blocks[1] / blocks[2] if blocks else base / unfinished.name
    return tuple(target.with_name(target.name + suffix) for suffix in _SUFFIXES)
