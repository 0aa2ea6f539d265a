"""Holds sampled rows of stored soft labels against the teacher, and writes the index that students need."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from edpipe.batches import ViewBatches
from edpipe.device import prepare_device
from edpipe.errors import OtherViewsError, VerificationError
from edpipe.fidelity import Fidelity, compare_draws, compare_rows, hint_difference, map_difference
from edpipe.params.soft_labels import ViewSpace, ViewUse, every_view
from edpipe.precisions import Parts, Sampled
from edpipe.progress import announce
from edpipe.steps.asking import Interview, Teacher, TeacherFiles, interview, load_teacher
from edpipe.storage.atomic import remove_file
from edpipe.storage.dataset_file import Dataset, open_dataset
from edpipe.storage.records import make_record, write_record
from edpipe.storage.soft_label_checks import check_provenance, remedy
from edpipe.storage.soft_label_file import SoftLabels, open_soft_labels
from edpipe.storage.soft_label_format import HINT
from edpipe.storage.soft_label_store import open_store
from edpipe.views import ViewSpec

ROWS = 1000
SEED = 0


def verify_soft_labels(files: TeacherFiles, label_paths: tuple[Path, ...], views: ViewUse, out_path: Path) -> None:
    """Writes the index of the files at `label_paths`, if they are one store and their sampled rows are the teacher's.

    The index holds nothing that a machine's rounding could change, so that it is the same wherever it is made.

    Raises:
        CorruptFileError: a file is damaged.
        MismatchError: a file was made from something else than what is at hand, or a view is missing.
        VerificationError: a sampled row is not what the teacher says.
    """
    remove_file(out_path)
    store = open_store(label_paths)
    dataset = open_dataset(files.dataset_path)
    teacher = load_teacher(files, dataset)
    share = -(-ROWS // len(store.files))
    found = [hold_against_teacher(labels, dataset, teacher, share, SEED) for labels in store.files]
    for labels, fidelity in zip(store.files, found, strict=True):
        announce(f"{labels.path}: {fidelity.say()}")
    record = make_record(
        "verify_soft_labels",
        {"views": views},
        {
            "dataset": dataset.digest,
            "partition": teacher.partition_digest,
            "teacher": teacher.digest,
            "soft_labels": store.digests,
        },
        files=[labels.path.name for labels in store.files],
        num_views=store.num_views,
        teacher_forwards=store.num_forwards,
        verified_rows=sum(fidelity.num_rows for fidelity in found),
        seed=SEED,
    )
    write_record(out_path, record)


def verify_file(files: TeacherFiles, label_path: Path, num_rows: int, seed: int) -> Fidelity:
    """The comparison of one file's sampled rows.

    Raises:
        CorruptFileError: the file is damaged.
        MismatchError: it was made from something else than what is at hand.
        VerificationError: a sampled row is not what the teacher says.
    """
    dataset = open_dataset(files.dataset_path)
    return hold_against_teacher(open_soft_labels(label_path), dataset, load_teacher(files, dataset), num_rows, seed)


def hold_against_teacher(labels: SoftLabels, dataset: Dataset, teacher: Teacher, num_rows: int, seed: int) -> Fidelity:
    """Asks the teacher again about rows drawn from the file.

    Raises:
        MismatchError: the file was made from something else than what is at hand.
        VerificationError: naming a row that is not what the teacher says.
    """
    batches = ViewBatches(dataset, _spec(labels, dataset), prepare_device(), (labels.sample_ids,))
    check_provenance(labels.path, labels.provenance, teacher.provenance(batches, labels.views))
    rng = np.random.default_rng((seed, labels.views.first))  # other samples in each file
    drawn = rng.choice(labels.num_forwards, min(num_rows, labels.num_forwards), replace=False)
    views, positions = np.divmod(np.sort(drawn), len(labels.sample_ids))
    ids, views = labels.sample_ids[positions], views + labels.views.first
    with interview(teacher, batches, bool(labels.header.attention_sizes), labels.header.storage.hint) as asked:
        fidelity, is_bad = _compare(labels, asked, ids, views)
    if fidelity.num_bad_rows:
        first = int(np.flatnonzero(is_bad)[0])
        raise VerificationError(
            f"{labels.path}: sample {ids[first]}, view {views[first]} is not what the teacher says now "
            f"({fidelity.say()}); {remedy(labels.path)}"
        )
    return fidelity


def _compare(
    labels: SoftLabels, asked: Interview, ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
) -> tuple[Fidelity, np.ndarray]:
    exact, beside = asked.ask(ids, views)
    difference = _difference_beside(labels, beside, ids, views)
    if not isinstance(labels.precision, Sampled):
        # Not the certified bound, under which all rows may lie whoever said them: of top_k it is several nats.
        stored_kl = labels.seal.statistics["measured_max_kl"]
        return compare_rows(exact, labels.logits(ids, views), stored_kl, difference)
    stored, index, misfit = labels.gather(ids, views), [], []
    for view, rows in _by_view(views):
        index.append(labels.precision.encode(exact[rows], ids[rows], view)["index"])
        misfit.append(labels.precision.misfit(exact[rows], {"index": stored["index"][rows]}, ids[rows], view))
    now = {"index": np.concatenate(index)}
    return compare_draws(labels.precision, now, stored, np.concatenate(misfit), difference)


def _difference_beside(
    labels: SoftLabels, now: Parts, ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
) -> Float32[np.ndarray, " row"]:
    """How far the worst of what each row has beside its logits is from what the teacher gives now."""
    shapes = {name: values.shape[1:] for name, values in now.items()}
    if shapes != labels.header.beside:
        raise VerificationError(
            f"{labels.path}: holds rows of {labels.header.beside} beside the logits, the teacher gives {shapes}; "
            f"{remedy(labels.path)}"
        )
    difference = np.zeros(len(ids), dtype=np.float32)
    for name, values in now.items():
        measure = hint_difference if name == HINT else map_difference
        difference = np.maximum(difference, measure(values, labels.beside(name, ids, views)))
    return difference


def _by_view(views: Int64[np.ndarray, " row"]) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of each view; views are ascending."""
    for view in np.unique(views):
        yield int(view), np.flatnonzero(views == view)


def _spec(labels: SoftLabels, dataset: Dataset) -> ViewSpec:
    """The views that the file speaks of, as this edpipe makes them.

    Raises:
        OtherViewsError: it makes no such views.
    """
    try:
        stored = json.loads(labels.provenance.view_spec)
        fields = {name: stored[name] for name in ("augment", "mixing", "exhaustive")} | {"seed": stored["seed"] or 0}
        spec = ViewSpec.from_knobs(every_view(ViewSpace.model_validate(fields)), dataset.image_size)
        if spec.canonical() == labels.provenance.view_spec:
            return spec
    except (ValueError, KeyError, TypeError):  # knobs that this edpipe does not have
        pass
    raise OtherViewsError(
        f"{labels.path}: this edpipe makes no views of the spec {labels.provenance.view_spec!r} for images of "
        f"{dataset.image_size} pixels; {remedy(labels.path)}"
    )
