"""What NUTS learns about each row between windows of its warm-up: means, covariances, steps. NumPy, float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_FIRST_STEP = 0.5
_PRIOR_DRAWS = 10.0
"""Correlations are shrunk as if this many uncorrelated draws had been seen too."""
_FAR_APART = 5.0
"""How much wider than each of them all groups of draws together must be to count as apart."""
_LEAST_SCALE = 1e-3
"""A window may shrink a coordinate's scale by this factor at most: chains that did not move say little."""


class Adapted(NamedTuple):
    """State of each row between runs of the sampler.

    Attributes
    ----------
    z : array (rows, chains, n)
        Where the chains are.
    mean, factor : array (rows, n), (rows, n, n)
        ``z = mean + factor @ w``, w about standard normal.
    step, target : array (rows,)
        Step size in w, and the acceptance probability it is adapted to.
    stage, thin : int array (rows,)
        How many runs there were, and of how many transitions one is kept.
    """

    z: np.ndarray
    mean: np.ndarray
    factor: np.ndarray
    step: np.ndarray
    target: np.ndarray
    stage: np.ndarray
    thin: np.ndarray

    def take(self, rows: np.ndarray) -> Adapted:
        """Return some of the rows."""
        return Adapted(*(array[rows] for array in self))

    def whitened(self) -> np.ndarray:
        """Positions of the chains as w: (rows, chains, n)."""
        return _whiten(self.z, self.mean, self.factor)

    def learn(self, z: np.ndarray, centres: np.ndarray | None = None) -> Adapted:
        """Return the state with mean and covariance estimated from draws (rows, chains, draws, n), chains pooled.

        Scales are taken as they are, correlations shrunk towards the former ones. Rows with draws
        that are not finite keep what they have. Where draws about several `centres` (rows, K, n) lie far apart, the covariance
        is that about these, for steps must fit into each.
        """
        rows, n = len(z), z.shape[-1]
        w = _whiten(z.reshape(rows, -1, n), self.mean, self.factor)
        sound = np.asarray(np.isfinite(w).all(axis=(1, 2)))
        w = np.where(sound[:, None, None], w, 0.0)
        centre = w.mean(axis=1)
        w -= centre[:, None, :]
        count = w.shape[1]
        if centres is not None:
            at = _whiten(centres, self.mean, self.factor) - centre[:, None, :]
            w = np.stack([_about_groups(each, groups) for each, groups in zip(w, at)])
        covariance = np.matmul(w.transpose(0, 2, 1), w) / (count - 1)
        scale = np.maximum(np.sqrt(np.einsum("rii->ri", covariance)), _LEAST_SCALE)
        correlation = covariance / (scale[:, :, None] * scale[:, None, :]) * (count / (count + _PRIOR_DRAWS))
        correlation[:, np.arange(n), np.arange(n)] = 1.0
        change = scale[:, :, None] * np.linalg.cholesky(correlation)
        mean = self.mean + np.einsum("rij,rj->ri", self.factor, centre)
        factor = np.matmul(self.factor, change)
        sound &= np.isfinite(mean).all(axis=1) & np.isfinite(factor).all(axis=(1, 2))
        return self._replace(
            mean=np.where(sound[:, None], mean, self.mean), factor=np.where(sound[:, None, None], factor, self.factor)
        )


def first_state(start: np.ndarray, mean: np.ndarray, factor: np.ndarray, target: float) -> Adapted:
    """State of rows before the warm-up; chains that start at NaN are put where another of the row starts."""
    rows = len(start)
    start = with_usable_starts(start, np.asarray(np.isfinite(start).all(axis=2)))
    diagonal = np.einsum("rii->ri", factor)
    usable = np.isfinite(mean).all(axis=1) & np.isfinite(factor).all(axis=(1, 2)) & (diagonal > 0).all(axis=1)
    return Adapted(
        z=start,
        mean=np.where(usable[:, None], mean, start.mean(axis=1)),
        factor=np.where(usable[:, None, None], np.tril(factor), np.eye(start.shape[2])),
        step=np.full(rows, _FIRST_STEP),
        target=np.full(rows, target),
        stage=np.zeros(rows, int),
        thin=np.ones(rows, int),
    )


def with_usable_starts(z: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Put chains that are not usable (rows, chains) where the first usable one of their row is."""
    first = np.argmax(usable, axis=1)
    return np.where(usable[:, :, None], z, z[np.arange(len(z)), first][:, None, :])


def _about_groups(w: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return draws (m, n) less the mean of those that share their nearest centre, if the groups lie far apart."""
    nearest = np.argmin(((w[:, None, :] - centres[None]) ** 2).sum(axis=2), axis=1)
    if (nearest == nearest[0]).all():
        return w
    within = w.copy()
    for k in np.unique(nearest):
        within[nearest == k] -= within[nearest == k].mean(axis=0)
    n = w.shape[1]
    narrow = np.cov(within.T).reshape(n, n) + _LEAST_SCALE**2 * np.eye(n)
    ratio = np.linalg.eigvals(np.linalg.solve(narrow, np.cov(w.T).reshape(n, n))).real.max()
    return within if ratio > _FAR_APART**2 else w


def _whiten(z: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Whitened positions of z (rows, m, n)."""
    return np.linalg.solve(factor, (z - mean[:, None, :]).transpose(0, 2, 1)).transpose(0, 2, 1)
