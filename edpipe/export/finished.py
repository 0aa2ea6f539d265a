"""The finished student of an experiment: found by its result, and compared with the records that vouch for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpipe.errors import EdpipeError, MismatchError, MissingFileError, UsageError, nearest, remake
from edpipe.export.description import CONFIG, ModelDescription, Preprocessing
from edpipe.params.load import load_params
from edpipe.params.plans.plugins import load_files
from edpipe.params.yaml_file import PARAMS_PATH, load_raw
from edpipe.pipeline.jobs import paths
from edpipe.results.result_file import Result, SeedOutcome, StageOutcome, read_result
from edpipe.storage.digests import digest_file
from edpipe.storage.records import read_record, record_path


@dataclass(frozen=True)
class FinishedStudent:
    """The student that the last stage of one seed has left, after a comparison of all records with each other.

    Attributes:
        root: Folder of the project.
        result: That measured it.
        seed: Which of the result's seeds.
        path: Its weights.
        record: Beside them.
        dataset_record: Of the packed images that taught it.
    """

    root: Path
    result: Result
    seed: int
    path: Path
    record: dict[str, Any]
    dataset_record: dict[str, Any]

    @property
    def outcome(self) -> SeedOutcome:
        """What was measured of it."""
        return outcome_of(self.result, self.seed)

    @property
    def dataset_path(self) -> Path:
        """Where the packed images lie, or would lie."""
        return self.root / paths.dataset_path(self.result.data.dataset)

    @property
    def description(self) -> ModelDescription:
        """All that is needed to use its weights; without files yet."""
        names = self.result.data.class_names
        return ModelDescription(
            model=self.result.setup.student.model,
            classes=tuple(names[class_id] for class_id in self.record["known_class_ids"]),
            precision=self.result.setup.recipe.precision,
            preprocessing=self._preprocessing(),
            experiment=self.result.experiment,
            method=self.result.method,
            seed=self.seed,
            weights_digest=self.record["weights_digest"],
            dataset=self.result.data.dataset,
            dataset_digest=self.result.inputs.dataset,
            result_digest=self.result.digest,
        )

    def _preprocessing(self) -> Preprocessing:
        knobs = self.dataset_record["knobs"]["dataset"]
        names = ("image_size", "channels", "encoding", "stored_side", "jpeg_quality")
        statistics = {name: self.dataset_record[name] for name in ("mean", "std")}
        return Preprocessing.model_validate({name: knobs[name] for name in names} | statistics)


def find_student(word: str, seed: int | None = None) -> FinishedStudent:
    """The student of a result or an experiment.

    Args:
        word: path of results/<experiment>.json, or the name of an experiment whose result lies in this folder.
        seed: one of the result's; None: its first, so that nothing that was measured on the test split chooses.

    Raises:
        UsageError: there is no such experiment or seed.
        CorruptFileError: a file is missing or damaged.
        MismatchError: the student or the packed images are not those that the result measured.
    """
    result_path = _result_path(word)
    result = read_result(result_path)
    root = result_path.parent.parent
    load_plugins(root)
    chosen = result.seeds[0].seed if seed is None else seed
    outcome = outcome_of(result, chosen)
    last = outcome.stages[-1]
    path = root / paths.student_path(result.experiment, chosen, last.number, last.name)
    record = _student_record(path, result_path, result, last)
    return FinishedStudent(root, result, chosen, path, record, _dataset_record(root, result_path, result))


def load_plugins(root: Path) -> None:
    """Makes the networks known that the files of `plugins:` in a project's params.yaml add.

    Raises:
        ParamsError: params.yaml cannot be read, or a file of plugins cannot be run.
    """
    path = root / PARAMS_PATH
    plugins = load_raw(path).get("plugins") if path.is_file() else None
    load_files(str(root / text) for text in plugins or [])


def is_folder_meant(word: str) -> bool:
    """Whether the word names an exported folder; an experiment may be called as a folder of images is."""
    folder = Path(word)
    return folder.is_dir() and ((folder / CONFIG).is_file() or not paths.result_path(word).is_file())


def outcome_of(result: Result, seed: int) -> SeedOutcome:
    """What was measured of one seed.

    Raises:
        UsageError: the result has no such seed.
    """
    found = {outcome.seed: outcome for outcome in result.seeds}
    if seed not in found:
        raise UsageError(f"seed {seed}: not one of {result.experiment}; allowed: {', '.join(map(str, found))}")
    return found[seed]


def _result_path(word: str) -> Path:
    path = Path(word)
    if path.suffix == ".json" or path.is_file():
        return path
    found = paths.result_path(word)
    if not found.is_file():
        raise _no_result(word, found)
    return found


def _no_result(word: str, path: Path) -> EdpipeError:
    try:
        experiments = set(load_params().experiments)
    except EdpipeError:  # no project here, or one that other commands complain about
        experiments = {found.stem for found in paths.RESULTS.glob("*.json")}
    if word in experiments:
        return MissingFileError(f"{path}: not there yet; make it with `snakemake {path}`")
    return UsageError(
        f"'{word}': neither an experiment of this folder, nor a results/<experiment>.json, nor an exported folder"
        + nearest(word, experiments)
    )


def _student_record(path: Path, result_path: Path, result: Result, last: StageOutcome) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(
            f"{path}: the student that {result_path} measured is not there; fetch it with `dvc pull {path}`, or make "
            f"it again with `snakemake --force {path}`"
        )
    record = read_record(record_path(path), "weights_digest", "known_class_ids", "inputs")
    wanted = {"weights_digest": last.weights_digest, "dataset": result.inputs.dataset}
    found = {"weights_digest": record["weights_digest"], "dataset": record["inputs"].get("dataset")}
    if found != wanted:
        raise MismatchError(
            f"{path}: is not the student that {result_path} measured ({found}, not {wanted}); "
            f"{remake(result_path, act='make the result again')}"
        )
    if (content := digest_file(path)) != record["weights_digest"]:
        raise MismatchError(
            f"{path}: content has digest {content}, its record says {record['weights_digest']}; they do not belong "
            f"together; {remake(path, act='make both again')}"
        )
    return record


def _dataset_record(root: Path, result_path: Path, result: Result) -> dict[str, Any]:
    """The record beside the packed images, which need not be there themselves."""
    path = record_path(root / paths.dataset_path(result.data.dataset))
    record = read_record(path, "digest", "mean", "std", "knobs", "class_names")
    if record["digest"] != result.inputs.dataset:
        raise MismatchError(
            f"{path}: packed images have digest {record['digest']}, {result_path} was measured on "
            f"{result.inputs.dataset}; {remake(result_path, act='make the result again')}"
        )
    return record
