"""Pickles of Python 2 are opened as far as they hold byte arrays, lists, dicts and texts; nothing they name is run."""

import os
import pickle

import numpy as np
import pytest
from layouts import pickle_of_python2

from edpipe.datasets.readers.pickled_arrays import load_pickled_arrays
from edpipe.errors import DataError


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", r"here: cannot be unpickled \(Ran out of input\); use the binary version$"),
        (pickle_of_python2({b"a": b"text"})[:-3], r"here: cannot be unpickled \(.+\); use the binary version$"),
        (pickle_of_python2([1, 2]), "here: holds no dict but a list; use the binary version$"),
        (pickle_of_python2({b"a": np.zeros(3, np.float32)}), r"it holds an array of b'f4', not of bytes"),
        (pickle_of_python2({b"a": np.array([None])}), r"it holds an array of b'O8', not of bytes"),
        (pickle.dumps({"a": np.uint8}, 2), "it names numpy.uint8, which is no part of an array"),
        (pickle.dumps({"a": os.system}, 2), r"it names \w+.system, which is no part of an array"),
        (pickle.dumps({"a": np.random.default_rng(0)}, 2), "which is no part of an array"),
    ],
)
def test_pickle_of_anything_else_is_refused(data, text):
    with pytest.raises(DataError, match=text) as error:
        load_pickled_arrays(data, "here")
    assert "\n" not in str(error.value)


def test_pickle_of_python2_comes_back_with_texts_as_bytes():
    held = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [3, 1], b"names": [b"a", b"b"]}
    data = pickle_of_python2(held)
    assert b"cnumpy.core.multiarray\n_reconstruct" in data
    found = load_pickled_arrays(data, "here")
    np.testing.assert_array_equal(found.pop(b"data"), held.pop(b"data"))
    assert found == held
