"""Where things lie; the only place that knows the path of an artifact."""

from pathlib import Path

from edpipe.storage.records import record_path

ARTIFACTS = Path("artifacts")
RESULTS = Path("results")
CURVES = Path("logs/curves")
TRACKED_JOBS = Path("workflow/tracked_jobs.yaml")
CODE = Path("workflow/code.yaml")
KNOBS = Path("workflow/knobs")
"""What DVC compares of each job besides its inputs."""
STUDY_PREFIX = "study_"
"""Of the files of a study, among those of experiments."""
SEARCH_PREFIX = "search_"
"""Of the files of a search."""
DVC_IGNORE = Path(".dvcignore")
LOCAL = Path(".edpipe")
"""What this folder on this machine remembers, in neither git nor DVC; safe to delete while nothing runs."""
CHECKED = LOCAL / "checked.json"
CHECKED_NETWORKS = LOCAL / "checked_networks.json"
LOCKS = LOCAL / "locks"
RUNS = LOCAL / "runs"
SPEEDS = LOCAL / "speeds.json"


def with_record(path: Path) -> tuple[Path, ...]:
    """An artifact and the record beside it."""
    return path, record_path(path)


def dataset_path(dataset: str) -> Path:
    """Packed images, labels, splits, sample keys."""
    return ARTIFACTS / "datasets" / f"{dataset}.h5"


def partition_path(dataset: str, partition: str) -> Path:
    """Which classes belong to which subset."""
    return ARTIFACTS / "partitions" / dataset / f"{partition}.json"


def teacher_path(dataset: str, teacher: str, subset: str) -> Path:
    """Weights of one teacher; subset "all" = every class."""
    return ARTIFACTS / "teachers" / dataset / teacher / f"{subset}.safetensors"


def soft_labels_path(dataset: str, teacher: str, subset: str, views: str) -> Path:
    """One teacher's logits on some views of one subset's training samples; `views` as in "0-7"."""
    return soft_labels_index_path(dataset, teacher, subset).with_suffix("") / f"views_{views}.h5"


def soft_labels_index_path(dataset: str, teacher: str, subset: str) -> Path:
    """Which files hold one teacher's soft labels of one subset, each verified against the teacher."""
    return ARTIFACTS / "soft_labels" / dataset / teacher / f"{subset}.json"


def teacher_evaluation_path(dataset: str, teacher: str, subset: str) -> Path:
    """Which class one teacher names on each test image of its classes."""
    return ARTIFACTS / "teacher_evaluations" / dataset / teacher / f"{subset}.json"


def trajectory_path(dataset: str, teacher: str, seed: int) -> Path:
    """What one teacher said of each sample in each epoch while it learnt beside students of this seed."""
    return ARTIFACTS / "trajectories" / dataset / teacher / f"seed{seed}.h5"


def student_path(experiment: str, seed: int, number: int, stage: str) -> Path:
    """The student after stage `number`."""
    return ARTIFACTS / "students" / experiment / f"seed{seed}" / f"{number}_{stage}.safetensors"


def evaluation_path(experiment: str, seed: int) -> Path:
    """Metrics of one seed."""
    return ARTIFACTS / "evaluations" / experiment / f"seed{seed}.json"


def result_path(experiment: str) -> Path:
    """Metrics of all seeds of one experiment."""
    return RESULTS / f"{experiment}.json"


def curve_path(experiment: str) -> Path:
    """The accuracy matrix as a table, for plots."""
    return RESULTS / f"{experiment}.csv"


def training_curve_path(artifact: Path) -> Path:
    """Loss, rate and accuracy on the way to an artifact that is trained; itself no artifact.

    >>> str(training_curve_path(teacher_path("digits", "general", "all")))
    'logs/curves/teachers/digits/general/all.json'
    """
    return CURVES / artifact.relative_to(ARTIFACTS).with_suffix(".json")


def metrics_path(experiment: str) -> Path:
    """The few numbers of a result that DVC shows; in a folder of their own, so that results/*.json are results."""
    return RESULTS / "metrics" / f"{experiment}.json"


def report_path(experiment: str) -> Path:
    """The page that a person reads."""
    return RESULTS / f"{experiment}.html"


def study_path(study: str) -> Path:
    """Experiments compared with each other."""
    return RESULTS / f"{STUDY_PREFIX}{study}.json"


def study_table_path(study: str) -> Path:
    """The same as a table in Markdown."""
    return study_path(study).with_suffix(".md")


def study_figure_path(study: str) -> Path:
    """The same as a picture: accuracy against compute."""
    return study_path(study).with_suffix(".svg")


def search_path(search: str) -> Path:
    """Trials of one experiment in order of their accuracy on the validation split."""
    return RESULTS / f"{SEARCH_PREFIX}{search}.json"


def search_table_path(search: str) -> Path:
    """The same as a table in Markdown."""
    return search_path(search).with_suffix(".md")


def benchmark_path(step: str, output: Path) -> Path:
    """Where `edpipe STEP` notes what the making of `output` took; logs/ has the same names.

    >>> str(benchmark_path("evaluate", evaluation_path("digits_ed", 0)))
    'benchmarks/evaluate/digits_ed-seed0.json'
    """
    root = ARTIFACTS / "any" if output.is_relative_to(ARTIFACTS) else RESULTS
    return Path("benchmarks") / step / ("-".join(output.with_suffix("").parts[len(root.parts) :]) + ".json")
