"""Information criteria: what a fit costs, and which of several candidates to keep."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ifujax.errors import UsageError, unknown

Criterion = Literal["bic", "aic"]
THRESHOLDS: dict[str, float] = {"bic": 10.0, "aic": 15.0}
"""By how much the criterion of a simpler candidate must exceed the lowest one before it is given up. Calibrated on simulated
cubes: the tables are in the documentation."""


def check_criterion(criterion: str, threshold: float | None) -> float:
    """Return the threshold to use.

    Raises
    ------
    UsageError
        For an unknown criterion or a threshold that isn't zero or positive.
    """
    if criterion not in THRESHOLDS:
        raise UsageError(unknown("criterion", str(criterion), THRESHOLDS))
    if threshold is None:
        return THRESHOLDS[criterion]
    if not (np.isfinite(threshold) and threshold >= 0):
        raise UsageError(f"threshold must be zero or a positive number; got {threshold}. Give a difference of the criterion.")
    return float(threshold)


def criterion_of(criterion: Criterion, chi2: np.ndarray, n_data: np.ndarray, n_free: int) -> np.ndarray:
    """Return the criterion of fits with Gaussian noise of known variance, up to a constant of the data.

    Parameters
    ----------
    criterion : "bic" or "aic"
        ``chi2 + k ln n`` (Schwarz 1978, Ann. Stat. 6, 461), or ``chi2 + 2 k + 2 k (k + 1) / (n - k - 1)``: Akaike's with the
        correction for few data (Hurvich & Tsai 1989, Biometrika 76, 297).
    chi2, n_data : array
        n: the number of independent data.
    n_free : int
        k: free parameters, those at a bound included.

    Returns
    -------
    array
        NaN where chi2 is, or where there are too few data for the criterion.
    """
    n, k = np.asarray(n_data, dtype=np.float64), float(n_free)
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = k * np.log(n) if criterion == "bic" else 2.0 * k + 2.0 * k * (k + 1.0) / (n - k - 1.0)
    return np.where(n > k + 1.0, chi2 + penalty, np.nan)


def choose(values: np.ndarray, n_free: np.ndarray, threshold: float) -> np.ndarray:
    """Return the simplest candidate whose criterion lies within `threshold` of the lowest.

    Parameters
    ----------
    values : array (candidates, ...)
        NaN: that candidate can't be chosen.
    n_free : array (candidates,)
        Free parameters; of candidates with equally many the one with the lower criterion is taken.
    threshold : float

    Returns
    -------
    array of int
        Index of the candidate; -1 where there is none.

    Examples
    --------
    >>> choose(np.array([100.0, 95.0, 88.0]), np.array([5, 8, 11]), threshold=10.0)
    array(1)
    """
    finite = np.where(np.isfinite(values), values, np.inf)
    near = np.isfinite(values) & (finite <= finite.min(axis=0) + threshold)
    size = np.asarray(n_free).reshape(-1, *[1] * (values.ndim - 1))
    fewest = np.where(near, size, np.iinfo(np.int64).max).min(axis=0)
    return np.where(near.any(axis=0), np.where(near & (size == fewest), finite, np.inf).argmin(axis=0), -1)


def evidence_of(values: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Return by how much the best of the other candidates exceeds the chosen one; NaN where there is no other."""
    index = np.arange(len(values)).reshape(-1, *[1] * choice.ndim)
    others = np.where((index == choice) | ~np.isfinite(values), np.inf, values).min(axis=0)
    chosen = np.take_along_axis(values, np.maximum(choice, 0)[None], axis=0)[0]
    return np.where((choice >= 0) & np.isfinite(others), others - chosen, np.nan)


def weights_of(values: np.ndarray) -> np.ndarray:
    """Return ``exp(-difference / 2)`` from the lowest criterion, normalised (candidates, ...): Akaike or Schwarz weights.

    Candidates without a criterion weigh nothing; NaN where none has one.
    """
    finite = np.where(np.isfinite(values), values, np.inf)
    lowest = finite.min(axis=0)
    with np.errstate(invalid="ignore"):
        weights = np.exp(-0.5 * (finite - lowest))
    return weights / weights.sum(axis=0)
