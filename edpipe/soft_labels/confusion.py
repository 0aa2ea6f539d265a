"""Which classes a teacher confuses, and classes dealt out so that confused ones share a subset, or do not.

Dealing out is graph partitioning with fixed sizes: classes are nodes, confusions the weights between them, and the
weight inside the subsets is to be largest (together) or smallest (apart). The start is spectral (Shi & Malik 2000,
"Normalized Cuts and Image Segmentation": the order of the second eigenvector); exchanges of classes between two subsets
at a time then mend what a line cannot show (Kernighan & Lin 1970, "An Efficient Heuristic Procedure for Partitioning
Graphs"). A line alone mixes up clusters that lie at the same place of it; and since their sizes may come along it in
another order than the subsets', few subsets are tried in every order. Nothing is drawn: the result depends on the
confusions, and on class ids only where classes tie.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations, permutations

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Integer
from scipy.sparse.linalg import eigsh

from edpipe.soft_labels.encoding.softmax import log_softmax

SMALLEST_DEGREE = 1e-12
"""Of the largest; a class that is never confused must not be divided by nothing."""
SMALLEST_GAIN = 1e-9
"""Of all confusion; what is less is rounding, and would make exchanges go on for ever."""
MOST_REORDERED = 4
"""Subsets; so many have 24 orders."""
MOST_DECOMPOSED = 2048
"""Classes; of more the two eigenvectors that are wanted are computed by iteration (Lanczos)."""
MOST_COMPARED = 32
"""Classes of each side; every pair of them is tried. A pair of all 333 × 333 would hardly be a better one."""
TIE_DECIMALS = 9
"""Of numbers up to 1; those that differ less tie."""


def confusion_matrix(
    batches: Iterable[tuple[Integer[np.ndarray, " row"], Float32[np.ndarray, "row class"]]], num_classes: int
) -> Float64[np.ndarray, "class class"]:
    """C[i, j]: mean softmax probability (temperature 1) of class j over the samples of class i; rows sum to 1.

    Args:
        batches: true class ids, and logits of all classes.
        num_classes: ids are 0 … num_classes-1.

    Raises:
        ValueError: a class without any sample.
    """
    sums, counts = np.zeros((num_classes, num_classes)), np.zeros(num_classes, dtype=np.int64)
    for labels, logits in batches:
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        sums[present] += np.add.reduceat(np.exp(log_softmax(logits[order], 1.0)), starts, axis=0)
        counts += np.bincount(labels, minlength=num_classes)
    if not counts.all():
        raise ValueError(f"class {int(np.argmin(counts))} has no sample; each of {num_classes} classes needs one")
    return sums / counts[:, None]


def similarity_of(confusion: Float64[np.ndarray, "class class"]) -> Float64[np.ndarray, "class class"]:
    """How much two classes are confused, whichever is which: (C + Cᵀ) / 2, with zeros on the diagonal."""
    similarity = (confusion + confusion.T) / 2
    np.fill_diagonal(similarity, 0.0)
    return similarity


def share_within(similarity: Float64[np.ndarray, "class class"], subsets: Iterable[Sequence[int]]) -> float:
    """Share of all confusion that is between classes of one subset, 0 to 1; 0 where nothing is confused.

    >>> share_within(np.array([[0.0, 3.0, 1.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), [(0, 1), (2,)])
    0.75
    """
    total = float(similarity.sum())
    within = sum(float(similarity[np.ix_(ids, ids)].sum()) for ids in subsets)
    return within / total if total > 0 else 0.0


def class_order(
    similarity: Float64[np.ndarray, "class class"], bounds: Sequence[int], together: bool
) -> Int64[np.ndarray, " class"]:
    """The classes, subset after subset, ascending in each: what lies between two of the bounds is one subset.

    Subsets of equal size stand in the order of how much their classes are confused on average, least first.

    Args:
        similarity: symmetric, zeros on the diagonal.
        bounds: of the subsets, as `partition.class_bounds` gives them.
        together: whether confused classes are to share a subset, or to be kept apart.
    """
    sizes, line = np.diff(bounds), spectral_order(similarity)
    weights, known = similarity if together else -similarity, _Known()
    found = [_exchanged(weights, _starting(line, sizes, order, together), known) for order in _orders(sizes)]
    total = similarity.sum() or 1.0
    within = [np.round(weights[each[:, None] == each].sum() / total, TIE_DECIMALS) for each in found]
    subset_of = found[int(np.argmax(within))]
    return np.argsort(_least_first(similarity, subset_of)[subset_of], kind="stable")


def spectral_order(similarity: Float64[np.ndarray, "class class"]) -> Int64[np.ndarray, " class"]:
    """Classes along the second eigenvector of the normalised graph Laplacian: similar ones are near each other.

    Of the two directions that in which classes that are confused less come first; if that does not tell, the one in
    which class 0 lies in the first half.
    """
    degrees = similarity.sum(axis=1)
    if degrees.max() <= 0 or len(degrees) < 2:
        return np.arange(len(degrees))
    roots = np.sqrt(np.maximum(degrees, SMALLEST_DEGREE * degrees.max()))
    vector = _second_vector(similarity / roots[:, None] / roots[None, :]) / roots
    vector = np.round(vector / np.abs(vector).max(), TIE_DECIMALS)
    # Weighted by degree its sum is 0: where the plain sum is negative, less confused classes have the smaller values.
    lean = np.round(vector.mean(), TIE_DECIMALS) or vector[0]
    return np.argsort(-vector if lean > 0 else vector, kind="stable")


def _second_vector(matrix: Float64[np.ndarray, "class class"]) -> Float64[np.ndarray, " class"]:
    """Eigenvector of the second largest eigenvalue; of the Laplacian, 1 minus this matrix, the second smallest.

    All eigenvectors take time that grows with the cube of the classes, so that of many only these two are computed.
    """
    num_classes = len(matrix)
    if num_classes <= MOST_DECOMPOSED:
        return np.linalg.eigh(matrix)[1][:, -2]  # ascending: the second is the last but one
    start = np.cos(np.arange(num_classes))  # of no pattern that classes could have; the same on every run
    values, vectors = eigsh(matrix, k=2, which="LA", v0=start, tol=0)
    return vectors[:, np.argmin(values)]


def _orders(sizes: Int64[np.ndarray, " subset"]) -> list[tuple[int, ...]]:
    """Orders in which the subsets may lie along the line; few subsets have all that differ in their sizes."""
    numbers = range(len(sizes))
    if len(sizes) > MOST_REORDERED:
        return [tuple(numbers)]
    by_sizes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for order in permutations(numbers):
        by_sizes.setdefault(tuple(int(sizes[number]) for number in order), order)
    return list(by_sizes.values())


def _starting(
    line: Int64[np.ndarray, " class"], sizes: Int64[np.ndarray, " subset"], order: tuple[int, ...], together: bool
) -> Int64[np.ndarray, " class"]:
    """Subset of each class: pieces of the line, or else subsets in turn, each as often as it has classes."""
    places = np.repeat(order, sizes[list(order)])
    if not together:
        turns = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes[list(order)]])
        places = places[np.argsort(turns, kind="stable")]
    subset_of = np.empty_like(line)
    subset_of[line] = places
    return subset_of


_Known = dict[bytes, tuple[np.ndarray, float]]
"""What exchanging two subsets gives, by their classes: several starts and rounds lead to the same ones."""


def _exchanged(
    weights: Float64[np.ndarray, "class class"], subset_of: Int64[np.ndarray, " class"], known: _Known
) -> Int64[np.ndarray, " class"]:
    """Subset of each class when no more exchange between two subsets makes the weight within them larger."""
    subset_of, smallest_gain, is_better = subset_of.copy(), SMALLEST_GAIN * np.abs(weights).sum(), True
    while is_better:
        is_better = False
        for first, second in combinations(range(subset_of.max() + 1), 2):
            leaving, gain = _known_exchange(weights, subset_of == first, subset_of == second, known)
            if gain > smallest_gain:
                subset_of[leaving] = first + second - subset_of[leaving]
                is_better = True
    return subset_of


def _known_exchange(
    weights: Float64[np.ndarray, "class class"],
    is_first: Bool[np.ndarray, " class"],
    is_second: Bool[np.ndarray, " class"],
    known: _Known,
) -> tuple[Int64[np.ndarray, " some"], float]:
    """The classes of two subsets to be exchanged, and what this wins; remembered for the next time."""
    key = np.packbits([is_first, is_second]).tobytes()
    if key not in known:
        ids = np.flatnonzero(is_first | is_second)
        leaving, gain = _best_exchange(weights[np.ix_(ids, ids)], np.where(is_first[ids], 1.0, -1.0))
        known[key] = ids[leaving], gain
    return known[key]


def _best_exchange(
    weights: Float64[np.ndarray, "class class"], sides: Float64[np.ndarray, " class"]
) -> tuple[list[int], float]:
    """The classes of two subsets (sides 1 and -1) to be exchanged, and the weight within subsets that this wins.

    One pass of Kernighan & Lin: the best pair changes sides, even at a loss, and stays, until one side is used up.
    Of all these steps the first so many are taken that win most. A step takes time in proportion to the classes.

    Args:
        weights: symmetric.
        sides: of each class.
    """
    free = [np.flatnonzero(sides == side) for side in (1, -1)]
    moved, total, best, best_count = [], 0.0, 0.0, 0
    pull = weights @ sides
    for _ in range(min(map(len, free))):
        # Wins of one class alone: what it has over there, less what it has here.
        here, there = _largest(free[0], -pull[free[0]]), _largest(free[1], pull[free[1]])
        gains = -pull[here][:, None] + pull[there][None, :] - 2 * weights[np.ix_(here, there)]
        row, column = np.unravel_index(np.argmax(gains), gains.shape)
        pair = int(here[row]), int(there[column])
        free = [classes[classes != left] for classes, left in zip(free, pair, strict=True)]
        # Rows, not columns: the matrix is symmetric, and a row lies in one piece of memory.
        pull += 2 * (weights[pair[1]] - weights[pair[0]])
        moved += pair
        total += float(gains[row, column])
        if total > best:
            best, best_count = total, len(moved)
    return moved[:best_count], best


def _largest(classes: Int64[np.ndarray, " class"], wins: Float64[np.ndarray, " class"]) -> Int64[np.ndarray, " some"]:
    """Those of the classes that win most, in the order given; of those that tie the first ones."""
    if len(classes) <= MOST_COMPARED:
        return classes
    least = np.partition(wins, -MOST_COMPARED)[-MOST_COMPARED]
    is_chosen = wins > least
    is_chosen[np.flatnonzero(wins == least)[: MOST_COMPARED - is_chosen.sum()]] = True
    return classes[is_chosen]


def _least_first(
    similarity: Float[np.ndarray, "class class"], subset_of: Int64[np.ndarray, " class"]
) -> Int64[np.ndarray, " subset"]:
    """The new number of each subset: those of one size change places, the least confused comes first."""
    sizes = np.bincount(subset_of)
    degrees = similarity.sum(axis=1)
    mean = np.bincount(subset_of, weights=degrees) / sizes / (degrees.max() or 1.0)
    smallest_id = np.unique(subset_of, return_index=True)[1]
    ranked = np.lexsort((smallest_id, np.round(mean, TIE_DECIMALS)))
    number = np.empty(len(sizes), dtype=np.int64)
    for size in np.unique(sizes):
        number[ranked[sizes[ranked] == size]] = np.flatnonzero(sizes == size)
    return number
