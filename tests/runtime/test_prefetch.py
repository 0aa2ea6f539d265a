"""Results made ahead come in order, errors where they belong, and nothing is begun in vain."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import TIMEOUT_S

from edpipe.runtime.prefetch import in_order


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 4))
def test_every_result_comes_once_and_in_order(start, count, num_workers):
    numbers = range(start, start + count)
    assert list(in_order(lambda n: n * n, numbers, num_workers)) == [n * n for n in numbers]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_comes_in_its_place(num_workers):
    results = in_order(lambda n: 1 // (3 - n), range(10), num_workers)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_workers_make_as_many_ahead_as_they_are_and_stop_with_the_caller():
    begun, lock = [], threading.Lock()

    def make(number):
        with lock:
            begun.append(number)
        return number

    results = in_order(make, range(100), 3)
    assert next(results) == 0
    deadline = time.monotonic() + TIMEOUT_S
    while len(begun) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sorted(begun) == [0, 1, 2, 3]
    results.close()
    assert len(begun) == 4


def test_results_are_made_in_other_threads_only_if_asked_for():
    here = threading.get_ident()
    assert set(in_order(lambda n: threading.get_ident(), range(3), 0)) == {here}
    assert here not in set(in_order(lambda n: threading.get_ident(), range(3), 1))
