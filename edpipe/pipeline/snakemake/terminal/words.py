"""What a job is called where people read, from the name of its rule and its wildcards; and short numbers."""

from collections.abc import Mapping
from contextlib import suppress

from edpipe.params.partition import ALL_CLASSES
from edpipe.results.measures.cost import duration

TITLES = {
    "pack_dataset": "pack {dataset}",
    "partition_dataset": "partition {partition} of {dataset}",
    "partition_by_confusion": "partition {partition} of {dataset} by confusion",
    "train_teacher": "teacher {teacher} {classes}",
    "fetch_teacher": "fetch teacher {teacher} {classes}",
    "dump_soft_labels": "soft labels of {teacher} {classes} views {views}",
    "verify_soft_labels": "check soft labels of {teacher} {classes}",
    "evaluate_teacher": "evaluate teacher {teacher} {classes}",
    "record_trajectory": "trajectory of teacher {teacher} seed {seed}",
    "run_stage": "student {experiment} seed {seed} stage {stage}",
    "evaluate": "evaluate {experiment} seed {seed}",
    "result": "result of {experiment}",
    "report": "page of {experiment}",
    "study": "study {study}",
    "search": "search {search}",
}
"""By rule."""
MILLION = 1_000_000


def title(rule: str, wildcards: Mapping[str, str], message: str | None = None) -> str:
    """What a job is called; one of a user's own rules by its message or its wildcards.

    >>> title("run_stage", {"experiment": "digits_ed", "seed": "0", "number": "2", "stage": "middle"})
    'student digits_ed seed 0 stage middle'
    >>> title("train_teacher", {"dataset": "digits", "teacher": "digits_teacher", "subset": "all"})
    'teacher digits_teacher all classes'
    >>> title("train_teacher", {"dataset": "digits", "teacher": "general", "subset": "primary"})
    'teacher digits/general subset primary'
    >>> title("mine", {"sample": "a"})
    'mine sample=a'
    """
    form = TITLES.get(rule)
    with suppress(KeyError):  # a user's own rule may have one of our names
        if form is not None:
            return form.format(**{**wildcards, **_teacher_words(wildcards)})
    return message or " ".join([rule, *(f"{name}={value}" for name, value in wildcards.items())])


def _teacher_words(wildcards: Mapping[str, str]) -> dict[str, str]:
    """The teacher with its data set, where its name does not say that; and its classes."""
    dataset, teacher = wildcards.get("dataset", ""), wildcards.get("teacher", "")
    subset = wildcards.get("subset", "")
    return {
        "teacher": teacher if teacher.startswith(dataset) else f"{dataset}/{teacher}",
        "classes": "all classes" if subset == ALL_CLASSES else f"subset {subset}",
    }


def images(done: int, total: int) -> str:
    """How many images are done, of how many.

    >>> images(12_288, 25_900), images(1_281_167, 115_305_030)
    ('12,288/25,900', '1.28/115.31 M')
    """
    if total < MILLION:
        return f"{done:,}/{total:,}"
    return f"{done / MILLION:.2f}/{total / MILLION:.2f} M"


def rounded(seconds: float) -> str:
    """A time, without seconds where it has ten minutes.

    >>> rounded(42.0), rounded(200.0), rounded(752.0), rounded(9000.0)
    ('42 s', '3 min 20 s', '13 min', '2 h 30 min')
    """
    whole = round(seconds)
    return f"{round(whole / 60)} min" if 600 <= whole < 3570 else duration(seconds)


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "job"), count(48, "job")
    ('1 job', '48 jobs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
