"""Ten thousand damaged soft-label files: none is read as if it were whole, none does worse than being refused."""

from collections import Counter

import numpy as np
import pytest
from soft_label_examples import CLASSES, PROVENANCE, draw_beside, make_header, path_of, read_all, small_blocks, write

from edpipe.errors import CorruptFileError, MismatchError
from edpipe.soft_labels.file.reader import open_soft_labels

FILES = 10_000
PRECISIONS = ("float16", "uint4", "top_k")
SAMPLES = 40
EXPECTED = {"AlteredHeaderError", "AlteredRowsError", "ForeignFileError", "OtherVersionError", "TruncatedFileError"}


@pytest.fixture(autouse=True)
def _several_blocks():
    with small_blocks(16):
        yield


def whole_file(folder, precision):
    """Three views of 40 samples in blocks of 16: nine blocks of logits and maps."""
    ids = 3 * np.arange(SAMPLES)
    header = make_header(
        precision,
        with_maps=True,
        with_hint=True,
        sample_ids=ids,
        sample_keys=ids.astype(np.uint64) ** 5,
        labels=np.resize(CLASSES, SAMPLES),
    )
    return write(path_of(folder, header.views), header, features=draw_beside(header))


class Mutator:
    """Damages bytes in one of many ways, half of the time where the rows are."""

    def __init__(self, data, seed, extents):
        self._data, self._rng = data, np.random.default_rng(seed)
        is_row = np.zeros(len(data), dtype=bool)
        for start, stop in extents:
            is_row[start:stop] = True
        self._rows = np.flatnonzero(is_row)
        self.ways = (self.flip, self.overwrite, self.zero, self.cut, self.insert, self.remove, self.swap, self.repeat)

    def damaged(self):
        return bytes(self.ways[self._rng.integers(len(self.ways))](bytearray(self._data)))

    def _place(self):
        where = self._rows if self._rng.random() < 0.5 else len(self._data)
        return int(self._rng.choice(where))

    def _run(self):
        """A range of 1 to 1,024 bytes, short ones as likely as long ones."""
        start = self._place()
        return start, min(start + int(2 ** self._rng.uniform(0, 10)), len(self._data))

    def flip(self, data):
        for _ in range(self._rng.integers(1, 9)):
            data[self._place()] ^= 1 << int(self._rng.integers(8))
        return data

    def overwrite(self, data):
        start, stop = self._run()
        data[start:stop] = self._rng.bytes(stop - start)
        return data

    def zero(self, data):
        start, stop = self._run()
        data[start:stop] = bytes(stop - start)
        return data

    def cut(self, data):
        return data[: self._place()]

    def insert(self, data):
        start, stop = self._run()
        data[start:start] = self._rng.bytes(stop - start)
        return data

    def remove(self, data):
        start, stop = self._run()
        del data[start:stop]
        return data

    def swap(self, data):
        size = int(2 ** self._rng.uniform(0, 10))
        first, second = sorted(min(self._place(), len(data) - 2 * size) for _ in range(2))
        second = max(second, first + size)
        one, other = data[first : first + size], data[second : second + size]
        data[first : first + size], data[second : second + size] = other, one
        return data

    def repeat(self, data):
        start, stop = self._run()
        other = self._place()
        if self._rng.random() < 0.5:
            data[other:other] = data[start:stop]  # the file grows
            return data
        copied = data[start : min(stop, start + len(data) - other)]
        data[other : other + len(copied)] = copied
        return data


def refusal(path):
    """The class of what is said against a file, one line; None: nothing."""
    try:
        open_soft_labels(path, PROVENANCE, None, CLASSES)
    except (CorruptFileError, MismatchError) as error:
        return type(error).__name__ if "\n" not in str(error) else f"two lines: {error}"
    return None


@pytest.mark.slow  # 20 s to 60 s
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_damaged_file_is_refused_or_was_not_changed_at_all(tmp_path, precision):
    path = whole_file(tmp_path / "whole", precision)
    labels, data = open_soft_labels(path, PROVENANCE, None, CLASSES), path.read_bytes()
    before, rows = read_all(labels), []
    for part in labels.parts.values():
        start = part.__array_interface__["data"][0] - np.frombuffer(labels._mapped, np.uint8).ctypes.data
        rows.append((start, start + part.nbytes))
    mutator = Mutator(data, PRECISIONS.index(precision), rows)
    damaged, outcomes = tmp_path / "damaged.h5", Counter()
    for number in range(-(-FILES // len(PRECISIONS))):
        spoilt = mutator.damaged()
        damaged.write_bytes(spoilt)
        said = refusal(damaged)
        assert (said is None) == (spoilt == data), f"file {number}: {said}"
        if said is None:
            found = open_soft_labels(damaged)
            assert found.digest == labels.digest
            assert np.array_equal(read_all(found), before)
        outcomes[said] += 1
    assert outcomes["AlteredRowsError"] > 500
    assert outcomes["AlteredHeaderError"] > 200
    assert 0 < outcomes[None] < 500
    assert set(outcomes) <= EXPECTED | {None}, outcomes


@pytest.mark.slow
def test_every_bit_of_a_file_is_vouched_for(tmp_path):
    """One bit in every 97th byte, of each precision: no such file is accepted."""
    for precision in PRECISIONS:
        path = whole_file(tmp_path / precision, precision)
        data = path.read_bytes()
        for place in range(0, len(data), 97):
            spoilt = bytearray(data)
            spoilt[place] ^= 1 << place % 8
            path.write_bytes(spoilt)
            with pytest.raises(CorruptFileError):
                open_soft_labels(path)
