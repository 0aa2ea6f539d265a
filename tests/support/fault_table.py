"""Counts what tests of faults tried and what survived, for the table at the end of `make test-faults`."""

from collections import Counter

TRIED, SURVIVED = Counter(), Counter()
NAMES = ("fault", "tried", "survived", "lost")


def count(kind, has_survived):
    """One fault of this kind; whether nothing was lost."""
    TRIED[kind] += 1
    SURVIVED[kind] += bool(has_survived)
    return bool(has_survived)


def lines():
    """The table; empty if nothing was tried."""
    rows = [(kind, str(n), str(SURVIVED[kind]), str(n - SURVIVED[kind])) for kind, n in TRIED.items()]
    if not rows:
        return []
    total = sum(TRIED.values()), sum(SURVIVED.values())
    rows.append(("all", str(total[0]), str(total[1]), str(total[0] - total[1])))
    widths = [max(map(len, column)) for column in zip(NAMES, *rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (NAMES, *rows)]
