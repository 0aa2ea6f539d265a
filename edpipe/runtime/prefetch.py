"""Results made ahead, in threads, and handed out in order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")


def in_order(make: Callable[[int], Made], numbers: range, num_workers: int) -> Iterator[Made]:
    """make(number) for each number, in order; with workers up to one more than these are made ahead.

    With 0 workers each is made when it is asked for. An error in `make` is raised where its result would have come. If
    the caller stops early, what is being made is finished, and nothing else is begun.
    """
    if num_workers == 0:
        yield from map(make, numbers)
        return
    ahead: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for number in numbers:
                ahead.append(pool.submit(make, number))
                if len(ahead) > num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
