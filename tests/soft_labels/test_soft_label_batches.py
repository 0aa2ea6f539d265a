"""Stored logits on a device: resident or gathered, they are the same numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from soft_label_examples import IDS, STORAGE, make_header, path_of, small_blocks, write

from edpipe.errors import MissingRowsError
from edpipe.soft_labels import batches
from edpipe.soft_labels.batches import SoftLabelBatches, decode, fit_in_memory
from edpipe.soft_labels.encoding.precisions import Affine, Floats, Sampled
from edpipe.soft_labels.file.store import open_store
from edpipe.views.spec import view_ranges

CPU = torch.device("cpu")
RESIDENT = ("float32", "float16", "uint8", "uint4")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Of each precision, five views in three files."""
    with small_blocks():
        found = {}
        for name in STORAGE:
            headers = [make_header(name, views) for views in view_ranges(5, 2)]
            paths = [write(path_of(tmp_path_factory.mktemp(name), header.views), header) for header in headers]
            found[name] = open_store(paths)
        return found


@pytest.mark.slow
@pytest.mark.parametrize("precision", RESIDENT)
@pytest.mark.parametrize("upload_rows", [1, 4, 1 << 18])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_resident_rows_are_the_gathered_ones_bit_for_bit(stores, precision, upload_rows, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_UPLOAD_ROWS", upload_rows)
        resident = SoftLabelBatches(stores[precision], CPU, is_resident=True)
    gathered = SoftLabelBatches(stores[precision], CPU, is_resident=False)
    assert (resident.is_resident, gathered.is_resident) == (True, False)
    rows = data.draw(st.lists(st.tuples(st.sampled_from(IDS.tolist()), st.integers(0, 4)), max_size=20))
    ids, views = (np.array([row[axis] for row in rows], dtype=np.int64) for axis in (0, 1))
    found, expected = resident.logits(ids, views), gathered.logits(ids, views)
    assert found.dtype == expected.dtype == torch.float32
    assert found.shape == (len(rows), 5)
    assert np.array_equal(found.numpy().view(np.uint32), expected.numpy().view(np.uint32))
    assert np.array_equal(found.numpy(), stores[precision].logits(ids, views))


@given(
    logits=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.integers(1, 9)),
        elements=st.floats(-60_000, 60_000, width=32),
    ),
    precision=st.sampled_from(["float32", "float16", 8, 4]),
)
def test_a_device_decodes_what_numpy_decodes_bit_for_bit(logits, precision):
    is_affine = isinstance(precision, int)
    rows = Affine(logits.shape[1], precision) if is_affine else Floats(logits.shape[1], np.dtype(precision))
    parts = rows.encode(logits, np.arange(len(logits)), 0)
    found = decode(rows, {name: torch.from_numpy(part) for name, part in parts.items()})
    assert np.array_equal(found.numpy().view(np.uint32), rows.decode(parts).view(np.uint32))


@pytest.mark.parametrize("precision", ["top_k", "sampled"])
def test_rows_of_few_classes_are_decoded_where_they_are_gathered(stores, precision):
    labels = SoftLabelBatches(stores[precision], CPU, is_resident=True)
    assert not labels.is_resident
    views = np.array([4, 0, 1, 2, 3, 3, 0])
    assert np.array_equal(labels.logits(IDS, views).numpy(), stores[precision].logits(IDS, views))
    with pytest.raises(ValueError, match=r"^rows of precision (TopK|Sampled) are decoded on the CPU only$"):
        decode(stores[precision].precision, {})


@pytest.mark.parametrize("is_resident", [True, False])
def test_rows_that_are_not_there_are_refused(stores, is_resident):
    labels = SoftLabelBatches(stores["uint8"], CPU, is_resident=is_resident)
    with pytest.raises(MissingRowsError, match=r"holds no soft labels of sample 4;"):
        labels.logits(np.array([3, 4]), np.array([0, 0]))
    with pytest.raises(MissingRowsError, match=r"holds no soft labels of view 5,"):
        labels.logits(np.array([3, 3]), np.array([0, 5]))


def test_on_a_cpu_rows_stay_in_the_files(stores):
    assert not fit_in_memory([stores["uint8"]], CPU)


@pytest.mark.parametrize(("free", "fit"), [(0, False), (4 * 35 * 9 - 2, False), (4 * 35 * 9, True)])
def test_all_stores_of_a_stage_together_take_half_of_the_free_memory_at_most(stores, monkeypatch, free, fit):
    assert stores["uint8"].num_bytes == 35 * 9
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    assert fit_in_memory([stores["uint8"]] * 2, torch.device("cuda")) == fit


def test_precisions_without_a_device_decoder_say_so():
    with pytest.raises(ValueError, match="rows of precision Sampled are decoded on the CPU only"):
        decode(Sampled(3, 2, 1.0), {"index": torch.zeros(1, 2, dtype=torch.uint8)})
