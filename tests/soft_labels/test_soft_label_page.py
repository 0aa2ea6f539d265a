"""docs/soft_label_format.md: what it promises to who has nothing else, and that it says what is."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from pydantic import create_model
from soft_label_examples import PROVENANCE, STORAGE, make_header, path_of, read_all, small_blocks, write

from edpipe.errors import AlteredHeaderError
from edpipe.params.base import Knobs
from edpipe.params.soft_labels import StorageKnobs
from edpipe.soft_labels.file.format import lay_out
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.views.philox import philox4x32
from edpipe.views.spec import ViewRange

LARGE = ("index", "logits", "remainder", "scale", "zero")


@pytest.fixture(autouse=True)
def _several_blocks():
    with small_blocks():
        yield


@pytest.fixture(params=STORAGE)
def precision(request):
    return request.param


def independent_read(path):
    """(view, sample, class) logits and attributes, with h5py and NumPy alone; every digest is checked."""
    data, head = path.read_bytes(), json.loads(path.read_bytes()[:4096])
    vouched = b"".join(data[start:stop] for start, stop in head["extents"])
    assert (len(data), hashlib.sha256(vouched).hexdigest()) == (head["bytes"], head["sha256"])
    with h5py.File(path) as file:
        attrs, digests, count = dict(file.attrs), file["block_digest"][:], len(file["class_id"])
        large = {name: file[name][:] for name in LARGE if name in file}
        if "hint" in json.loads(attrs["storage"]):
            large["hint"] = file["hint"][:]
        maps = {f"attention/{level}": values[:] for level, values in file.get("attention", {}).items()}
    columns, rows = large | maps, int(attrs["block_rows"])
    for view, block in np.ndindex(digests.shape):
        bytes_of = [columns[name][view, block * rows : (block + 1) * rows].tobytes() for name in sorted(columns)]
        assert int.from_bytes(hashlib.sha256(b"".join(bytes_of)).digest()[:8], "big") == digests[view, block]
    precision, storage = attrs["precision"].decode(), json.loads(attrs["storage"])
    if precision in ("float32", "float16"):
        return large["logits"].astype(np.float32), attrs
    if precision in ("uint8", "uint4"):
        halves = [large["logits"] % 16, large["logits"] // 16]
        codes = np.stack(halves, axis=-1).reshape(*digests.shape[:1], -1, 2 * large["logits"].shape[2])[..., :count]
        scale, zero = (large[name].astype(np.float32)[..., None] for name in ("scale", "zero"))
        return (large["logits"] if precision == "uint8" else codes) * scale + zero, attrs
    absent = -10_000 * storage["temperature"] if precision == "sampled" else large["remainder"][..., None]
    logits = np.zeros((*large["index"].shape[:2], count), np.float32) + np.float32(absent)
    if precision == "top_k":
        np.put_along_axis(logits, large["index"].astype(int), large["logits"].astype(np.float32), axis=2)
        return logits, attrs
    times = (large["index"][..., None] == np.arange(count)).sum(axis=2)
    return np.where(times > 0, storage["temperature"] * np.log(np.maximum(times, 1) / storage["draws"]), logits), attrs


@pytest.mark.slow
@pytest.mark.parametrize(("with_maps", "with_hint"), [(False, False), (True, False), (False, True), (True, True)])
def test_another_program_reads_the_same_numbers(tmp_path, precision, with_maps, with_hint):
    header = make_header(precision, with_maps=with_maps, with_hint=with_hint)
    path = write(path_of(tmp_path), header)
    found, attributes = independent_read(path)
    labels = open_soft_labels(path)
    if precision == "sampled":
        assert np.allclose(found, read_all(labels), rtol=1e-6, atol=1e-6)
    else:
        assert np.array_equal(found, read_all(labels))
    assert attributes["format"].decode() == "edpipe-soft-labels"
    assert attributes["format_version"] == 2
    assert attributes["view_spec"].decode() == PROVENANCE.view_spec
    assert (attributes["first_view"], attributes["num_views"]) == (0, 3)


def test_an_edpipe_that_knows_of_no_hints_refuses_a_file_of_them(tmp_path, monkeypatch):
    path = write(path_of(tmp_path), make_header(with_hint=True))
    known = {name: kind for name, kind in StorageKnobs.model_fields.items() if name != "hint"}
    older = create_model("Older", __base__=Knobs, **{name: (kind.annotation, kind) for name, kind in known.items()})
    monkeypatch.setattr("edpipe.soft_labels.file.reader.StorageKnobs", older)
    with pytest.raises(AlteredHeaderError) as caught:
        open_soft_labels(path)
    assert "hint Extra inputs are not permitted" in str(caught.value)
    assert "\n" not in str(caught.value)


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "soft_label_format.md").read_text(encoding="utf-8")


def test_the_page_names_every_attribute_and_column(tmp_path, precision):
    header = make_header(precision, with_maps=True, with_hint=True)
    with h5py.File(write(path_of(tmp_path), header)) as file:
        names = [*file.attrs, *(name for name in file if name != "attention")]
        texts = [value for value in file.attrs.values() if isinstance(value, bytes)]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    assert len(texts) == len(fields(PROVENANCE)) + len(("format", "precision", "storage"))


@pytest.mark.parametrize(
    ("title", "samples", "classes", "views"),
    [
        ("50,000 samples, 100 classes, 32 views", 50_000, 100, 32),
        ("1,281,167 samples, 1,000 classes, 8 views", 1_281_167, 1000, 8),
    ],
)
def test_the_page_states_the_size_of_files(title, samples, classes, views):
    knobs = [StorageKnobs(precision=name, max_kl=None) for name in ("float32", "float16", "uint8", "uint4")]
    knobs.append(StorageKnobs(precision="top_k", top_k=9, max_kl=None))
    knobs.append(StorageKnobs(precision="sampled", draws=50, temperature=4.0, max_kl=None))
    row_sizes = [4 * classes, 2 * classes, classes + 4, classes // 2 + 4, 4 * 9 + 2, 2 * 50]
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {title} |"))
    ids = np.arange(samples)
    with small_blocks(4096):
        for said, storage, row_size in zip(row.split("|")[2:-1], knobs, row_sizes, strict=True):
            header = make_header(
                views=ViewRange(0, views),
                storage=storage,
                sample_ids=ids,
                sample_keys=ids.astype(np.uint64),
                labels=np.zeros(samples, np.int32),
                class_ids=np.arange(classes, dtype=np.int32),
            )
            size = lay_out(header, None).size
            formula = views * samples * row_size + 20 * samples + 4 * classes + 12 * views * -(-samples // 4096)
            assert 10_000 <= size - formula <= 20_000
            number, unit = said.split()
            digits = len(number.partition(".")[2])
            assert float(number) == round(size / {"MB": 1e6, "GB": 1e9}[unit], digits)


def test_draws_are_those_that_the_page_describes():
    """⌈2³² · cumulated share⌉ against words, one draw at a time."""
    draws, view, ids = 6, 4, np.array([3, 2**33 + 1])
    logits = np.random.default_rng(0).normal(0, 2, (2, 5)).astype(np.float32)
    precision = make_header("sampled").precision
    assert (precision.draws, precision.temperature) == (draws, 2.0)
    found = precision.encode(logits, ids, view)["index"]
    for row, sample in enumerate(ids.tolist()):
        counters = [[sample % 2**32, sample // 2**32, view * 2 + i, 20] for i in range(2)]
        words = philox4x32(np.array(counters, np.uint32), np.zeros(2, np.uint32)).ravel().tolist()[:draws]
        weights = np.exp(logits[row].astype(np.float64) / 2 - logits[row].max() / 2).cumsum()
        ends = np.ceil(weights / weights[-1] * 2**32)
        assert found[row].tolist() == sorted(int(np.flatnonzero(ends > word)[0]) for word in words)
