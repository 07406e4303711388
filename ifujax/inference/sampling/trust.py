"""One standard for draws of any sampler: the effective number of those handed out, of the worst parameter, in its tails.

Weights alone are optimistic. The effective size of a mean says little of a tail, where weights are largest; and a mixture that
was adapted to a region knows nothing of what lies beyond it. So each quantile has an effective size of its own, by the
delta method (Owen 2013, Monte Carlo theory, methods and examples, section 9.3), and two halves that were drawn from different
mixtures must agree in all of them within their errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PROBABILITIES = (0.025, 0.16, 0.5, 0.84, 0.975)
"""Quantiles that are judged, of every parameter."""


@dataclass(frozen=True)
class Verdict:
    """What weighted draws are worth, (rows,) each.

    Attributes
    ----------
    ess : array
        Effective number of independent draws for the worst quantile of the worst parameter, less what the halves differ by.
    pull : array
        Largest difference of the halves in the probability below a quantile, in errors of that difference.
    """

    ess: np.ndarray
    pull: np.ndarray


def judge(values: np.ndarray, log_weight: np.ndarray, halves: tuple[np.ndarray, np.ndarray] | None = None) -> Verdict:
    """Judge weighted draws.

    Parameters
    ----------
    values : array (rows, points, n)
        Of every parameter.
    log_weight : array (rows, points)
    halves : two arrays (rows, first) and (rows, points - first), optional
        Log weights of the first points and of the others by themselves; each up to a constant of its own.
    """
    rows, points, n = values.shape
    columns = np.moveaxis(values, 2, 1).reshape(rows * n, points)
    order = np.argsort(columns, axis=1)
    whole = _Tails.of(_normalised(log_weight), order, n)
    # Where cumulative weights pass the probabilities; draws that are equal fall to one side together, or next to it.
    cuts = (whole.below[:, :, None] < np.array(PROBABILITIES)).sum(axis=1).clip(max=points - 1)
    share, variance = whole.at(cuts)
    with np.errstate(divide="ignore", invalid="ignore"):
        ess = np.where(variance > 0, share * (1.0 - share) / variance, np.inf)
    least = ess.reshape(rows, -1).min(axis=1)
    least = np.where(np.isfinite(least), least, 0.0)  # nothing varies: one point has all the weight
    if halves is None:
        return Verdict(least, np.full(rows, np.nan))
    first = halves[0].shape[1]
    parts = []
    for mine, log_own in ((slice(0, first), halves[0]), (slice(first, points), halves[1])):
        weight = np.zeros((rows, points))
        weight[:, mine] = _normalised(log_own)
        parts.append(_Tails.of(weight, order, n).at(cuts))
    (one, its_variance), (other, others_variance) = parts
    with np.errstate(divide="ignore", invalid="ignore"):
        # A half of which nothing lies on one side knows no error of its own: that of all the weight counts at least.
        total = np.maximum(its_variance + others_variance, 2.0 * variance)
        square = np.where(total > 0, (one - other) ** 2 / total, 0.0).reshape(rows, -1)
    return Verdict(least / np.maximum(square.mean(axis=1), 1.0), np.sqrt(square.max(axis=1)))


@dataclass(frozen=True)
class _Tails:
    """Cumulative weights, and squared weights, of each column in ascending order: (rows * n, points)."""

    below: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, weight: np.ndarray, order: np.ndarray, n: int) -> _Tails:
        ascending = np.take_along_axis(np.repeat(weight, n, axis=0), order, axis=1)
        return cls(np.cumsum(ascending, axis=1), np.cumsum(ascending**2, axis=1))

    def at(self, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight up to each cut (rows * n, cuts), and the variance of that estimate of a probability."""
        share = np.take_along_axis(self.below, cuts, axis=1)
        square = np.take_along_axis(self.squares, cuts, axis=1)
        return share, square * (1.0 - share) ** 2 + (self.squares[:, -1:] - square) * share**2


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    """Return weights that sum to 1; all zero where there are none."""
    largest = log_weight.max(axis=1, keepdims=True)
    weight = np.exp(log_weight - np.where(np.isfinite(largest), largest, 0.0))
    total = weight.sum(axis=1, keepdims=True)
    return weight / np.where(total > 0, total, 1.0)


def repeats(index: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each point is among draws with these indices (rows, draws), and which share of these is distinct."""
    counts = np.stack([np.bincount(row, minlength=points) for row in index])
    return counts, (counts > 0).sum(axis=1) / index.shape[1]
