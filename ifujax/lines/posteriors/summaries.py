"""Quantiles, mean and standard deviation of draws."""

from __future__ import annotations

import numpy as np

QUANTILES = (0.025, 0.05, 0.16, 0.5, 0.84, 0.95, 0.975)
"""Those that are kept of every quantity of every spaxel."""
STATISTICS = (*(f"q{100 * q:g}" for q in QUANTILES), "mean", "sd")
"""Names of what `summarise` returns, along its last axis."""
MOST_WITHOUT = 0.05
"""Share of draws that may have no value (an equivalent width where the continuum isn't positive): the others stand for all."""


def summarise(draws: np.ndarray) -> np.ndarray:
    """Return the `STATISTICS` (n, statistics) of draws (n, draws), float64.

    Draws that are NaN are left out; where they are more than `MOST_WITHOUT` of all there is no summary: NaN.
    """
    ordered = np.sort(np.asarray(draws), axis=1)  # NaN at the end
    count = np.isfinite(ordered).sum(axis=1)
    known = (count > 0) & (count >= (1.0 - MOST_WITHOUT) * ordered.shape[1])
    result = np.full((len(ordered), len(STATISTICS)), np.nan)
    if not known.any():
        return result
    ordered, count = ordered[known].astype(np.float64), count[known]
    result[known, : len(QUANTILES)] = np.stack([_quantile(ordered, count, q) for q in QUANTILES], axis=1)
    inside = np.arange(ordered.shape[1])[None, :] < count[:, None]
    ordered = np.where(inside, ordered, 0.0)
    mean = ordered.sum(axis=1) / count
    away = np.where(inside, ordered - mean[:, None], 0.0)
    result[known, -2] = mean
    result[known, -1] = np.sqrt((away**2).sum(axis=1) / np.maximum(count - 1, 1))
    return result


def quantile(draws: np.ndarray, q: float) -> np.ndarray:
    """Return one quantile (n,) of draws (n, draws), as `summarise` has it."""
    ordered = np.sort(np.asarray(draws, dtype=np.float64), axis=1)
    count = np.isfinite(ordered).sum(axis=1)
    known = (count > 0) & (count >= (1.0 - MOST_WITHOUT) * ordered.shape[1])
    result = np.full(len(ordered), np.nan)
    result[known] = _quantile(ordered[known], count[known], q)
    return result


def _quantile(ordered: np.ndarray, count: np.ndarray, q: float) -> np.ndarray:
    """Return the quantile of the first `count` of each ascending row, linear between draws (NumPy's default)."""
    at = q * (count - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, count - 1)
    low, high = (np.take_along_axis(ordered, k[:, None], axis=1)[:, 0] for k in (below, above))
    return low + (at - below) * (high - low)
