"""What later stages cost the subsets taught before, from the matrix of top1 after each stage; NumPy only.

The matrix has a row for each stage in the order they ran and a column for each subset, NaN where the subset had not
been taught by then. A subset counts from its first number on.
"""

import numpy as np
from jaxtyping import Float64


def forgetting(matrix: Float64[np.ndarray, "stage subset"]) -> list[float | None]:
    """For each subset its best top1 after an earlier stage minus its top1 after the last; negative if it has gained.

    None for a subset that no earlier stage taught (Chaudhry et al. 2018, "Riemannian walk").

    Raises:
        ValueError: there is no stage.
    """
    _check(matrix)
    lost: list[float | None] = []
    for column in matrix.T:
        earlier, last = column[:-1][~np.isnan(column[:-1])], column[-1]
        lost.append(float(earlier.max() - last) if len(earlier) and not np.isnan(last) else None)
    return lost


def backward_transfer(matrix: Float64[np.ndarray, "stage subset"]) -> float | None:
    """Mean, over subsets taught before the last stage, of top1 after the last stage minus top1 when first taught.

    Negative if later stages harmed earlier subsets; None if there are none (Lopez-Paz & Ranzato 2017, their BWT).

    Raises:
        ValueError: there is no stage.
    """
    _check(matrix)
    gains = []
    for column in matrix.T:
        earlier, last = column[:-1][~np.isnan(column[:-1])], column[-1]
        if len(earlier) and not np.isnan(last):
            gains.append(float(last - earlier[0]))
    return float(np.mean(gains)) if gains else None


def _check(matrix: Float64[np.ndarray, "stage subset"]) -> None:
    if len(matrix) == 0:
        raise ValueError("the matrix of top1 needs a row for each stage, got none")
