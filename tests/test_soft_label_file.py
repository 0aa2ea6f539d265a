"""The soft-label file: what is written is what is read, and anything else is refused in its own words."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edpipe.storage.soft_label_file as soft_label_file
from edpipe.errors import CorruptFileError, MismatchError, TeacherError
from edpipe.storage.soft_label_file import Provenance, create_soft_labels, open_soft_labels, read_provenance

IDS = np.array([3, 5, 9, 11, 12], dtype=np.int64)
CLASSES = np.array([2, 4, 7], dtype=np.int32)
LABELS = np.array([2, 4, 7, 2, 4], dtype=np.int32)
KEYS = np.arange(100, 120, dtype=np.uint64) ** 7
NUM_VIEWS = 3
PROVENANCE = Provenance(
    teacher="old",
    subset="primary",
    teacher_digest="0" * 16,
    dataset_digest="1" * 16,
    partition_digest="2" * 16,
    view_spec='{"views":3}',
    pixel_canary="3" * 16,
    precision="float32",
)
BLOCK = 2
"""Rows of a block in these tests, so that five samples make three blocks."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(soft_label_file, "BLOCK_ROWS", BLOCK)


def draw(seed=0, scale=3.0):
    return np.random.default_rng(seed).normal(0, scale, (NUM_VIEWS, len(IDS), len(CLASSES))).astype(np.float32)


def write(path, logits, precision="float32", max_kl=1.0):
    provenance = replace(PROVENANCE, precision=precision)
    with create_soft_labels(path, provenance, IDS, KEYS[IDS], LABELS, CLASSES, len(logits), max_kl) as writer:
        for view in range(len(logits)):
            for start in range(0, len(IDS), BLOCK):
                writer.write(view, start, logits[view, start : start + BLOCK])
    return path


def read_all(labels):
    return np.stack([labels.logits(labels.sample_ids, np.full(len(IDS), view)) for view in range(labels.num_views)])


@pytest.fixture(params=["float32", "float16", "uint8"])
def precision(request):
    return request.param


def test_what_is_written_is_read(tmp_path, precision):
    logits = draw()
    labels = open_soft_labels(write(tmp_path / "a.h5", logits, precision), PROVENANCE, KEYS)
    assert labels.provenance == replace(PROVENANCE, precision=precision)
    assert labels.sample_ids.tolist() == IDS.tolist()
    assert labels.class_ids.tolist() == CLASSES.tolist()
    assert (labels.num_views, labels.num_forwards) == (3, 15)
    found = read_all(labels)
    assert found.dtype == np.float32
    steps = {"float32": 0, "float16": 2.0**-10 * np.abs(logits), "uint8": np.ptp(logits, axis=2, keepdims=True) / 254}
    assert (np.abs(found - logits) <= steps[precision]).all()


def test_rows_are_found_by_sample_and_view(tmp_path):
    logits = draw()
    labels = open_soft_labels(write(tmp_path / "a.h5", logits))
    found = labels.logits(np.array([12, 3, 3]), np.array([2, 0, 1]))
    assert np.array_equal(found, np.stack([logits[2, 4], logits[0, 0], logits[1, 0]]))


@pytest.mark.parametrize("sample", [4, 13, 10_000, -1])
def test_a_sample_that_is_not_there_is_refused(tmp_path, sample):
    path = write(tmp_path / "a.h5", draw())
    labels = open_soft_labels(path)
    with pytest.raises(MismatchError) as caught:
        labels.logits(np.array([3, sample]), np.array([0, 0]))
    assert str(caught.value) == (
        f"{path}: holds no soft labels of sample {sample}; dump it again with `snakemake --force {path}`"
    )


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence(exact, stored, temperature):
    """Largest KL(exact ‖ stored) of any row, in float64."""
    log_p, log_q = (
        log_softmax(exact.astype(np.float64) / temperature),
        log_softmax(stored.astype(np.float64) / temperature),
    )
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).max()


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**16),
    scale=st.floats(0.1, 100),
    precision=st.sampled_from(["float16", "uint8"]),
    temperature=st.floats(0.5, 20),
)
def test_the_certified_error_is_never_exceeded(tmp_path_factory, seed, scale, precision, temperature):
    logits = draw(seed, scale)
    labels = open_soft_labels(write(tmp_path_factory.mktemp("kl") / "a.h5", logits, precision, max_kl=1e9))
    assert divergence(logits, read_all(labels), temperature) <= labels.kl_bound(temperature) * (1 + 1e-6) + 1e-15


def test_float32_is_exact(tmp_path):
    logits = draw(scale=1e4)
    labels = open_soft_labels(write(tmp_path / "a.h5", logits, max_kl=1e-30))
    assert np.array_equal(read_all(labels), logits)
    assert labels.kl_bound(4.0) == 0


def test_the_file_states_its_error(tmp_path):
    logits = draw()
    path = write(tmp_path / "a.h5", logits, "uint8")
    labels = open_soft_labels(path)
    error = read_all(labels) - logits
    with h5py.File(path) as file:
        assert file.attrs["max_abs_error"] == np.abs(error).max()
        assert file.attrs["max_error_range"] == np.ptp(error, axis=2).max() == labels.max_error_range
        assert file.attrs["kl_bound"] == labels.kl_bound(4.0) == pytest.approx(labels.max_error_range**2 / 128)


def test_equal_logits_give_equal_bytes(tmp_path, precision):
    first = write(tmp_path / "a.h5", draw(), precision)
    second = write(tmp_path / "b.h5", draw(), precision)
    assert first.read_bytes() == second.read_bytes()
    assert open_soft_labels(first).digest == open_soft_labels(second).digest
    other = write(tmp_path / "c.h5", draw(1), precision)
    assert open_soft_labels(other).digest != open_soft_labels(first).digest


def test_another_program_reads_the_same_numbers(tmp_path, precision):
    """All that docs/formats.md promises to who has nothing but h5py."""
    logits = draw()
    path = write(tmp_path / "a.h5", logits, precision)
    with h5py.File(path) as file:
        assert file.attrs["format"].decode() == "edpipe-soft-labels"
        assert file.attrs["format_version"] == 1
        stored = file["logits"][:].astype(np.float32)
        if precision == "uint8":
            scale, zero = (file[name][:].astype(np.float32)[..., None] for name in ("scale", "zero"))
            stored = stored * scale + zero
        samples, classes, labels = file["sample_id"][:], file["class_id"][:], file["label"][:]
        keys = file["sample_key"][:]
        hits = classes[stored.argmax(axis=2)] == labels
        agreement = [[int(row[start : start + BLOCK].sum()) for start in range(0, 5, BLOCK)] for row in hits]
        assert file["agreement"][:].tolist() == agreement
        for name in ("logits", "scale", "zero"):
            if name in file:
                assert file[name].chunks is None
                assert file[name].compression is None
    assert (samples.tolist(), classes.tolist(), labels.tolist()) == (IDS.tolist(), CLASSES.tolist(), LABELS.tolist())
    assert np.array_equal(keys, KEYS[IDS])
    assert np.array_equal(stored, read_all(open_soft_labels(path)))


def refusal(kind, path, *expectations):
    with pytest.raises(kind) as caught:
        open_soft_labels(path, *expectations)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    assert text.endswith(f"; dump it again with `snakemake --force {path}`")
    return text.removeprefix(f"{path}: ").removesuffix(f"; dump it again with `snakemake --force {path}`")


@pytest.mark.parametrize("name", [n for n in Provenance.__dataclass_fields__ if n != "precision"])
def test_soft_labels_of_something_else_are_refused_by_name(tmp_path, name):
    path = write(tmp_path / "a.h5", draw())
    said = refusal(MismatchError, path, replace(PROVENANCE, **{name: "other"}))
    assert said == f"was made with {name.replace('_', ' ')} {getattr(PROVENANCE, name)!r}, asked for is 'other'"


def test_any_precision_will_do(tmp_path):
    path = write(tmp_path / "a.h5", draw(), "float16")
    assert open_soft_labels(path, replace(PROVENANCE, precision="uint8")).provenance.precision == "float16"
    assert read_provenance(path) == replace(PROVENANCE, precision="float16")


def test_other_images_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", draw())
    keys = KEYS.copy()
    keys[9] += np.uint64(1)
    said = "its images are not those of the dataset (content keys differ)"
    assert refusal(MismatchError, path, PROVENANCE, keys) == said
    assert refusal(MismatchError, path, PROVENANCE, KEYS[:10]) == said
    keys = KEYS.copy()
    keys[10] += np.uint64(1)
    open_soft_labels(path, PROVENANCE, keys)


def test_a_missing_file_is_refused(tmp_path):
    assert refusal(CorruptFileError, tmp_path / "a.h5") == "no such file"


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"")
    assert refusal(CorruptFileError, tmp_path / "a.h5").startswith("not a whole soft-label file (")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.h5").write_text("no HDF5 at all\n" * 100)
    assert refusal(CorruptFileError, tmp_path / "a.h5").startswith("not a whole soft-label file (")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["logits"] = np.zeros(3)
    said = "an HDF5 file, but not one of soft labels (no format 'edpipe-soft-labels')"
    assert refusal(CorruptFileError, tmp_path / "b.h5") == said


def test_a_file_of_another_version_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", draw())
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    assert refusal(CorruptFileError, path) == "has format version 2, this edpipe reads 1"


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, part):
    path = write(tmp_path / "a.h5", draw())
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    refusal(CorruptFileError, path)


def altered(path, name, change):
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        change(values)
        file[name][:] = values


def test_altered_rows_are_refused(tmp_path, precision):
    path = write(tmp_path / "a.h5", draw(), precision)
    altered(path, "logits", lambda values: values.view(np.uint8).reshape(-1).__setitem__(-1, 1))
    assert refusal(CorruptFileError, path) == "view 2, rows from 4: altered since written"


@pytest.mark.parametrize("name", ["scale", "zero"])
def test_altered_scales_are_refused(tmp_path, name):
    path = write(tmp_path / "a.h5", draw(), "uint8")
    altered(path, name, lambda values: values.__setitem__((1, 2), 7))
    assert refusal(CorruptFileError, path) == "view 1, rows from 2: altered since written"


@pytest.mark.parametrize("name", ["sample_id", "sample_key", "label", "class_id", "block_digest", "agreement"])
def test_an_altered_header_is_refused(tmp_path, name):
    path = write(tmp_path / "a.h5", draw())
    altered(path, name, lambda values: values.reshape(-1).__setitem__(0, 1))
    assert refusal(CorruptFileError, path) == "its header does not have the digest that was written"


@pytest.mark.parametrize("name", [*Provenance.__dataclass_fields__, "max_abs_error", "max_error_range", "kl_bound"])
def test_an_altered_attribute_is_refused(tmp_path, name):
    path = write(tmp_path / "a.h5", draw(), "uint8")
    with h5py.File(path, "r+") as file:
        file.attrs[name] = 0.0 if isinstance(file.attrs[name], float) else "other"
    assert refusal(CorruptFileError, path) == "its header does not have the digest that was written"


def test_labels_that_do_not_fit_the_rows_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", draw())
    with h5py.File(path, "r+") as file:
        file["label"][:] = np.roll(file["label"][:], 1)
        file.attrs["header_digest"] = soft_label_file._header_digest(file)
    assert refusal(CorruptFileError, path).endswith(": labels do not fit")


def test_numbers_of_another_type_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", draw())
    with h5py.File(path, "r+") as file:
        logits = file["logits"][:]
        del file["logits"]
        file.create_dataset("logits", data=logits.astype(">f4"))
    assert refusal(CorruptFileError, path) == "'logits' does not have the shape and type it was written with"


def test_a_chunked_copy_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", draw())
    with h5py.File(path, "r+") as file:
        logits = file["logits"][:]
        del file["logits"]
        file.create_dataset("logits", data=logits, chunks=(1, 1, 3))
    assert refusal(CorruptFileError, path) == "dataset 'logits' is cut off"


def test_a_block_that_was_never_written_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with create_soft_labels(path, PROVENANCE, IDS, KEYS[IDS], LABELS, CLASSES, 1, 1.0) as writer:
        writer.write(0, 0, draw()[0, :2])
        writer.write(0, 4, draw()[0, 4:])
    assert refusal(CorruptFileError, path) == "view 0, rows from 2: altered since written"


def is_harmless(path, before):
    """Whether a damaged file is refused, or gives what it gave before."""
    try:
        labels = open_soft_labels(path, PROVENANCE, KEYS)
        return labels.digest == before.digest and np.array_equal(read_all(labels), read_all(before))
    except (CorruptFileError, MismatchError):
        return True


@pytest.mark.slow
def test_no_flipped_bit_changes_a_number(tmp_path):
    path = write(tmp_path / "a.h5", draw(), "uint8")
    before, damaged = open_soft_labels(path), tmp_path / "b.h5"
    data = path.read_bytes()
    for position in range(0, len(data), 101):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        damaged.write_bytes(flipped)
        assert is_harmless(damaged, before), f"bit {position % 8} of byte {position}"


def failure(path, logits, precision, max_kl=1.0):
    with pytest.raises(TeacherError) as caught:
        write(path, logits, precision, max_kl)
    assert list(path.parent.iterdir()) == []
    return str(caught.value)


def test_a_logit_that_is_no_number_is_refused(tmp_path, precision):
    for value in (np.nan, np.inf):
        logits = draw()
        logits[1, 3, 0] = value
        assert failure(tmp_path / "a.h5", logits, precision) == (
            "old: gives a logit that is not finite for sample 11, view 1; train or fetch the teacher again"
        )


def test_a_logit_that_does_not_fit_is_refused(tmp_path):
    logits = draw()
    logits[0, 0, 0] = 1e6
    said = failure(tmp_path / "a.h5", logits, "float16")
    assert said == "old: a logit of 1e+06 does not fit float16; use precision: float32"
    logits[0, 0] = -1e6
    said = failure(tmp_path / "a.h5", logits, "uint8")
    assert said.startswith("old: smallest logit must be at most 65504 in size to fit float16, got -1e+06")
    assert said.endswith("; use precision: float32")


def test_an_error_over_the_budget_is_refused(tmp_path):
    said = failure(tmp_path / "a.h5", draw(scale=300), "uint8", max_kl=1e-4)
    assert said.startswith(f"{tmp_path / 'a.h5'}: storing these logits may cost ")
    assert said.endswith(
        " nats of KL at temperature 4, soft_labels allows max_kl 0.0001; choose a finer precision or a larger max_kl"
    )


def test_a_failure_leaves_the_file_of_before(tmp_path):
    path = write(tmp_path / "a.h5", draw())
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="interrupted"), create_soft_labels(
        path, PROVENANCE, IDS, KEYS[IDS], LABELS, CLASSES, 1, 1.0
    ):  # fmt: skip
        raise RuntimeError("interrupted")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
