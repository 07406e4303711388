"""Pareto-smoothed importance sampling of many rows of weights at once.

Vehtari, Simpson, Gelman, Yao & Gabry (2024, JMLR 25, 72): the largest weights are replaced by the
quantiles of a generalised Pareto distribution fitted to them (Zhang & Stephens 2009, Technometrics
51, 316), whose shape k-hat says how far the weights can be trusted.
"""

from __future__ import annotations

import numpy as np

from ifujax.errors import UsageError

_PRIOR_SHAPE, _PRIOR_COUNT = 0.5, 10.0
"""The shape is drawn towards a half, as by this many observations (appendix C of the paper)."""
_LEAST_TAIL = 5
_AT_ONCE = 2_000_000
"""Elements of the largest temporary array."""


def psis(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth importance weights, and say how heavy their tails are.

    Parameters
    ----------
    log_weights : array (rows, S)
        Logarithms of the weights, up to a constant; ``-inf`` is a weight of zero.

    Returns
    -------
    log_weights : array (rows, S)
        Smoothed, and normalised: their exponentials sum to 1.
    khat : array (rows,)
        Shape of the tail: estimates are reliable below ``min(1 - 1 / log10(S), 0.7)``. Infinite where
        there are not enough distinct weights to tell; 0 where the largest weight is shared by the whole tail.

    Notes
    -----
    A row that holds NaN or ``+inf``, or no weight at all, is NaN in both. The tail has
    ``min(S / 5, 3 sqrt(S))`` weights, rounded up, less those equal to the largest of the others.
    """
    given = np.asarray(log_weights, dtype=np.float64)
    if given.ndim != 2 or not given.shape[1]:
        raise UsageError(f"log_weights must have the shape (rows, weights); got {given.shape}.")
    rows, size = given.shape
    largest = given.max(axis=1)
    sound = np.isfinite(largest)
    smoothed = np.where(sound[:, None], given - np.where(sound, largest, 0.0)[:, None], 0.0)
    khat = np.full(rows, np.inf)
    tail = min(int(np.ceil(min(size / 5, 3 * np.sqrt(size)))), size - 1)
    order = np.argsort(smoothed, axis=1)[:, size - tail - 1 :]
    ascending = np.take_along_axis(smoothed, order, axis=1)
    cut = np.maximum(ascending[:, 0], np.log(np.finfo(np.float64).tiny))
    # Weights that differ by rounding alone are equal.
    lengths = (ascending > cut[:, None] + 1e-12).sum(axis=1)
    khat[lengths == 0] = 0.0
    for length in np.unique(lengths[lengths >= _LEAST_TAIL]):
        members = np.flatnonzero(lengths == length)
        step = max(1, _AT_ONCE // (length * _n_trials(length)))
        for mine in (members[i : i + step] for i in range(0, len(members), step)):
            excess = np.exp(ascending[mine, -length:]) - np.exp(cut[mine])[:, None]
            shape, scale = _fit_pareto(excess)
            fitted = np.isfinite(shape)
            khat[mine] = np.where(fitted, shape, np.inf)
            quantiles = _pareto_quantiles((np.arange(length) + 0.5) / length, shape[fitted], scale[fitted])
            replaced = np.minimum(np.log(quantiles + np.exp(cut[mine[fitted]])[:, None]), 0.0)
            smoothed[mine[fitted, None], order[mine[fitted], -length:]] = replaced
    with np.errstate(divide="ignore"):
        smoothed -= np.log(np.exp(smoothed).sum(axis=1, keepdims=True))
    smoothed[~sound], khat[~sound] = np.nan, np.nan
    return smoothed, khat


def kish_ess(log_weights: np.ndarray) -> np.ndarray:
    """Return Kish's effective sample size, ``(sum w)^2 / sum w^2``, of log weights (..., S); NaN where there is no weight."""
    log_weights = np.asarray(log_weights, dtype=np.float64)
    largest = log_weights.max(axis=-1, keepdims=True)
    weights = np.exp(log_weights - np.where(np.isfinite(largest), largest, np.nan))
    return weights.sum(axis=-1) ** 2 / (weights**2).sum(axis=-1)


def _n_trials(length: int) -> int:
    return 30 + int(np.sqrt(length))


def _fit_pareto(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape and scale of ascending positive excesses (rows, n): a posterior mean over a grid of one parameter."""
    n = excess.shape[1]
    trials = _n_trials(n)
    quarter = excess[:, int(n / 4 + 0.5) - 1]
    grid = 1.0 - np.sqrt(trials / (np.arange(trials) + 0.5))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        theta = grid / (3.0 * quarter[:, None]) + 1.0 / excess[:, -1:]
        shapes = np.log1p(-theta[:, :, None] * excess[:, None, :]).mean(axis=2)
        log_profile = n * (np.log(-theta / shapes) - shapes - 1.0)
        weights = np.exp(log_profile - log_profile.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (theta * weights).sum(axis=1)
        shape = np.log1p(-mean[:, None] * excess).mean(axis=1)
        scale = -shape / mean
    return (n * shape + _PRIOR_COUNT * _PRIOR_SHAPE) / (n + _PRIOR_COUNT), scale


def _pareto_quantiles(probabilities: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Quantiles (rows, n) of generalised Pareto distributions from zero on."""
    exponent = -np.log1p(-probabilities)[None]
    k = np.where(shape == 0, 1.0, shape)[:, None]
    return scale[:, None] * np.where(shape[:, None] == 0, exponent, np.expm1(k * exponent) / k)
