"""Log-probabilities of rows of logits and the divergence between two such rows; NumPy only."""

import numpy as np
from jaxtyping import Float32, Float64

MOST_ROWS, MOST_LOGITS = 8192, 2**23
"""Of what is read together: 64 MB as float64, however many classes there are."""


def log_softmax(logits: Float32[np.ndarray, "row class"], temperature: float) -> Float64[np.ndarray, "row class"]:
    """log softmax(logits / temperature), in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return scaled - log_sum_exp(scaled)[:, None]


def log_sum_exp(values: Float64[np.ndarray, "row column"]) -> Float64[np.ndarray, " row"]:
    """Logarithm of the sum of exponentials of each row, without overflow."""
    largest = values.max(axis=1)
    return largest + np.log(np.exp(values - largest[:, None]).sum(axis=1))


def row_kl(
    exact: Float32[np.ndarray, "row class"], stored: Float32[np.ndarray, "row class"], temperature: float
) -> Float64[np.ndarray, " row"]:
    """KL(softmax(exact / τ) ‖ softmax(stored / τ)) of each row, nats; at least 0."""
    log_p, log_q = log_softmax(exact, temperature), log_softmax(stored, temperature)
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=1), 0.0)


def rows_together(num_classes: int) -> int:
    """Rows of so many logits that are read together.

    >>> rows_together(10), rows_together(1000), rows_together(21_841)
    (8192, 8192, 384)
    """
    return max(min(MOST_ROWS, MOST_LOGITS // num_classes), 1)
