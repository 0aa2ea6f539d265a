"""Logits in fewer bytes, with a proof of how little that can harm; NumPy only."""

import numpy as np
from jaxtyping import Float, Float16, Float32, Float64, UInt8

_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def kl_bound(error_range: Float[np.ndarray, " row"], temperature: float) -> Float64[np.ndarray, " row"]:
    """Largest possible KL, in nats, between softmax(exact / τ) and softmax(stored / τ), in either direction.

    R² / (8 τ²), where R is the range (largest minus smallest) of the errors stored - exact within a row. With e these
    errors and p the exact probabilities, KL(p ‖ stored) = log Σ p exp(e/τ) - Σ p e/τ, which Hoeffding's lemma (1963)
    bounds.

    Raises:
        ValueError: temperature is not positive, or a range is negative or NaN.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    if not (error_range >= 0).all():
        raise ValueError(f"error_range must be >= 0, got {error_range[~(error_range >= 0)][0]}")
    return (error_range.astype(np.float64) / temperature) ** 2 / 8


def quantise(
    logits: Float32[np.ndarray, "row class"], bits: int
) -> tuple[UInt8[np.ndarray, "row class"], Float16[np.ndarray, " row"], Float16[np.ndarray, " row"]]:
    """Codes, scale and zero of each row, such that logits ≈ codes · scale + zero, off by half a scale at most.

    Codes are below 2**bits, and bits at most 8. Zero is rounded down and scale up to float16 before codes are computed
    from them, so that no logit is clipped.

    Raises:
        ValueError: a logit is not finite, or a row's zero or scale does not fit float16.
    """
    if not np.isfinite(logits).all():
        raise ValueError(f"logits must be finite, got {logits[~np.isfinite(logits)][0]}")
    low, high = logits.min(axis=1).astype(np.float64), logits.max(axis=1).astype(np.float64)
    zero = _round_to_float16(low, -np.inf)
    _check_fits("smallest logit", low, zero)
    steps = (high - zero) / (2**bits - 1)
    scale = _round_to_float16(steps, np.inf)
    _check_fits(f"range of a row's logits / {2**bits - 1}", steps, scale)
    # A row whose logits all equal zero has no step; any divisor gives it the code 0.
    divisor = np.where(scale == 0, np.float32(1), scale.astype(np.float32))
    codes = np.rint((logits - zero.astype(np.float32)[:, None]) / divisor[:, None])
    return codes.astype(np.uint8), scale, zero


def dequantise(
    codes: UInt8[np.ndarray, "row class"], scale: Float16[np.ndarray, " row"], zero: Float16[np.ndarray, " row"]
) -> Float32[np.ndarray, "row class"]:
    """Logits that the codes stand for."""
    logits = codes.astype(np.float32)
    logits *= scale.astype(np.float32)[:, None]
    logits += zero.astype(np.float32)[:, None]
    return logits


def _round_to_float16(values: Float64[np.ndarray, " row"], towards: float) -> Float16[np.ndarray, " row"]:
    """The nearest float16 that is not on the wrong side; infinite where there is none."""
    with np.errstate(over="ignore", under="ignore"):
        nearest = values.astype(np.float16)
        is_wrong = nearest > values if towards < 0 else nearest < values
        return np.where(is_wrong, np.nextafter(nearest, np.float16(towards)), nearest)


def _check_fits(what: str, values: Float64[np.ndarray, " row"], rounded: Float16[np.ndarray, " row"]) -> None:
    too_large = ~np.isfinite(rounded)
    if too_large.any():
        value = values[too_large][0]
        raise ValueError(f"{what} must be at most {_LARGEST_FLOAT16:g} in size to fit float16, got {value:g}")
