"""Compares stored logits with what their teacher gives now, on a sample of rows."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.errors import OtherViewsError, VerificationError
from edpipe.params.soft_labels import ViewSpace, every_view
from edpipe.runtime.device import prepare_device
from edpipe.soft_labels.encoding.fidelity import Fidelity, compare_draws, compare_rows, hint_difference, map_difference
from edpipe.soft_labels.encoding.precisions import Parts, Sampled
from edpipe.soft_labels.file.checks import check_provenance, remedy
from edpipe.soft_labels.file.format import HINT
from edpipe.soft_labels.file.reader import SoftLabels, open_soft_labels
from edpipe.soft_labels.teacher_outputs import Teacher, TeacherFiles, load_teacher, teacher_forward
from edpipe.views.batches import ViewBatches
from edpipe.views.spec import ViewSpec


def verify_file(files: TeacherFiles, label_path: Path, num_rows: int, seed: int) -> Fidelity:
    """The comparison of one file's sampled rows.

    Raises:
        CorruptFileError: the file is damaged.
        MismatchError: it was made from something else than what is at hand.
        VerificationError: a sampled row is not what the teacher says.
    """
    dataset = open_dataset(files.dataset_path)
    return compare_with_teacher(open_soft_labels(label_path), dataset, load_teacher(files, dataset), num_rows, seed)


def compare_with_teacher(labels: SoftLabels, dataset: Dataset, teacher: Teacher, num_rows: int, seed: int) -> Fidelity:
    """Asks the teacher again about rows drawn from the file.

    Raises:
        MismatchError: the file was made from something else than what is at hand.
        VerificationError: naming a row that is not what the teacher says.
    """
    batches = ViewBatches(dataset, stored_view_spec(labels, dataset), prepare_device(), (labels.sample_ids,))
    check_provenance(labels.path, labels.provenance, teacher.provenance(batches, labels.views))
    rng = np.random.default_rng((seed, labels.views.first))  # other samples in each file
    drawn = rng.choice(labels.num_forwards, min(num_rows, labels.num_forwards), replace=False)
    views, positions = np.divmod(np.sort(drawn), len(labels.sample_ids))
    ids, views = labels.sample_ids[positions], views + labels.views.first
    with teacher_forward(
        teacher, batches, bool(labels.header.attention_sizes), labels.header.storage.hint
    ) as forward_pass:
        fidelity, is_bad = compare_outputs(labels, *forward_pass.outputs(ids, views), ids, views)
    if fidelity.num_bad_rows:
        first = int(np.flatnonzero(is_bad)[0])
        raise VerificationError(
            f"{labels.path}: sample {ids[first]}, view {views[first]} is not what the teacher says now "
            f"({fidelity.say()}); {remedy(labels.path)}"
        )
    return fidelity


def compare_outputs(
    labels: SoftLabels,
    exact: Float32[np.ndarray, "row class"],
    features: Parts,
    ids: Int64[np.ndarray, " row"],
    views: Int64[np.ndarray, " row"],
) -> tuple[Fidelity, Bool[np.ndarray, " row"]]:
    """Stored rows against what a teacher gives for them now; and which of them are bad.

    Args:
        labels: the file.
        exact: logits that the teacher gives.
        features: what it gives beside the logits, by the name of the column that stores it.
        ids: of the rows' samples.
        views: of the rows, ascending.

    Raises:
        VerificationError: the file has other columns beside the logits.
    """
    difference = _feature_difference(labels, features, ids, views)
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


def _feature_difference(
    labels: SoftLabels, now: Parts, ids: Int64[np.ndarray, " row"], views: Int64[np.ndarray, " row"]
) -> Float32[np.ndarray, " row"]:
    """How far the worst of what each row has beside its logits is from what the teacher gives now."""
    shapes = {name: values.shape[1:] for name, values in now.items()}
    if shapes != labels.header.features:
        raise VerificationError(
            f"{labels.path}: holds rows of {labels.header.features} beside the logits, the teacher gives {shapes}; "
            f"{remedy(labels.path)}"
        )
    difference = np.zeros(len(ids), dtype=np.float32)
    for name, values in now.items():
        measure = hint_difference if name == HINT else map_difference
        difference = np.maximum(difference, measure(values, labels.features(name, ids, views)))
    return difference


def _by_view(views: Int64[np.ndarray, " row"]) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of each view; views are ascending."""
    for view in np.unique(views):
        yield int(view), np.flatnonzero(views == view)


def stored_view_spec(labels: SoftLabels, dataset: Dataset) -> ViewSpec:
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
