"""Where importance sampling draws from: for each fit a mixture of t distributions, beside a share of the prior (NumPy).

The share of the prior is what finds a mode that the mixture misses: without it the weights look well and are wrong
(defensive mixtures: Hesterberg 1995, Technometrics 37, 185).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log, pi

import numpy as np

DEGREES = 5
"""Of the t distributions."""
_EM_ROUNDS = 12
_WIDE_SHARE, _WIDER = 0.15, 2.5
"""Share of the widest component, and its width over that of all that was found."""
_PRIOR_COUNT = 0.02
"""Share of the weight with which each component holds on to the width that it had."""


@dataclass(frozen=True)
class Mixture:
    """Mixtures of t distributions, one a row: `share` (rows, M), `mean` (rows, M, d), `factor` (rows, M, d, d)."""

    share: np.ndarray
    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def single(cls, mean: np.ndarray, covariance: np.ndarray) -> Mixture:
        """One component a row, from `mean` (rows, d) and `covariance` (rows, d, d)."""
        return cls(np.ones((len(mean), 1)), mean[:, None], np.linalg.cholesky(covariance)[:, None])

    @classmethod
    def stacked(cls, parts: Sequence[Mixture]) -> Mixture:
        """Put mixtures of several rows one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("share", "mean", "factor")))

    def of(self, rows: np.ndarray | slice) -> Mixture:
        """Return the mixtures of some rows."""
        return Mixture(self.share[rows], self.mean[rows], self.factor[rows])

    def beside(self, other: Mixture) -> Mixture:
        """Return both in one; their shares must add up to 1."""
        return Mixture(
            *(np.concatenate([getattr(m, name) for m in (self, other)], axis=1) for name in ("share", "mean", "factor"))
        )

    def component(self, m: int) -> Mixture:
        """Return one component of each row, with its share."""
        return Mixture(self.share[:, [m]], self.mean[:, [m]], self.factor[:, [m]])

    def draw(self, generators: Sequence[np.random.Generator], count: int) -> np.ndarray:
        """Return (rows, count, d) draws; each row's from its own generator, the components in fixed proportions."""
        rows, components, d = self.mean.shape
        result = np.empty((rows, count, d))
        for r, rng in enumerate(generators):
            edges = np.round(np.cumsum(self.share[r]) * count).astype(int)
            which = np.searchsorted(edges, np.arange(count), side="right").clip(max=components - 1)
            normal = rng.standard_normal((count, d)) / np.sqrt(rng.chisquare(DEGREES, count) / DEGREES)[:, None]
            result[r] = self.mean[r, which] + np.einsum("sij,sj->si", self.factor[r, which], normal)
        return result

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """Return (rows, count) log densities at `z` (rows, count, d)."""
        _, components, d = self.mean.shape
        constant = lgamma(0.5 * (DEGREES + d)) - lgamma(0.5 * DEGREES) - 0.5 * d * log(DEGREES * pi)
        total = np.full(z.shape[:2], -np.inf)
        for m in range(components):
            distance = self._distance(z, m)
            log_det = np.log(np.diagonal(self.factor[:, m], axis1=1, axis2=2)).sum(axis=1)[:, None]
            with np.errstate(divide="ignore"):
                log_share = np.log(self.share[:, m])[:, None]
            total = np.logaddexp(total, log_share + constant - log_det - 0.5 * (DEGREES + d) * np.log1p(distance / DEGREES))
        return total

    def _distance(self, z: np.ndarray, m: int) -> np.ndarray:
        """Squared Mahalanobis distance (rows, count)."""
        inverse = np.linalg.inv(self.factor[:, m])
        standard = np.matmul(z - self.mean[:, None, m], np.swapaxes(inverse, 1, 2))
        return np.einsum("rsi,rsi->rs", standard, standard)


def adapt(z: np.ndarray, log_weight: np.ndarray, floor: np.ndarray, components: int, inflate: float) -> Mixture:
    """Return mixtures that follow weighted draws: expectation-maximisation with t distributions.

    Parameters
    ----------
    z : array (rows, count, d)
    log_weight : array (rows, count)
        Smoothed, so that no single draw takes all.
    floor : array (rows, d, d)
        A covariance of the size that is expected; it keeps components from collapsing.
    components : int
    inflate : float
        Widths are multiplied by this in the end.
    """
    rows, count, d = z.shape
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    centre = np.einsum("rs,rsd->rd", weight, z)
    away = z - centre[:, None]
    spread = np.einsum("rs,rsi,rsj->rij", weight, away, away)
    keep = _PRIOR_COUNT / components
    spread = (spread + keep * floor) / (1.0 + keep)
    if components == 1:
        return _with_wide(Mixture.single(centre, spread * inflate**2), centre, spread)
    # Components start at weighted quantiles along the longest axis, each as wide as all together.
    axis = np.linalg.eigh(spread)[1][:, :, -1]
    order = np.argsort(np.einsum("rsd,rd->rs", away, axis), axis=1)
    cumulative = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
    mean = np.empty((rows, components, d))
    for m in range(components):
        at = (cumulative < (m + 0.5) / components).sum(axis=1).clip(max=count - 1)
        mean[:, m] = z[np.arange(rows), order[np.arange(rows), at]]
    share = np.full((rows, components), 1.0 / components)
    factor = np.repeat(np.linalg.cholesky(spread)[:, None], components, axis=1)
    mixture = Mixture(share, mean, factor)
    for _ in range(_EM_ROUNDS):
        mixture = _maximise(mixture, z, weight, floor, keep)
    return _with_wide(Mixture(mixture.share, mixture.mean, mixture.factor * inflate), centre, spread)


def _with_wide(mixture: Mixture, centre: np.ndarray, spread: np.ndarray) -> Mixture:
    """Add a component that is wider than all together: what the others leave out has moderate weights then."""
    factor = np.linalg.cholesky(spread)[:, None] * _WIDER
    share = np.concatenate([mixture.share * (1.0 - _WIDE_SHARE), np.full((len(centre), 1), _WIDE_SHARE)], axis=1)
    return Mixture(
        share, np.concatenate([mixture.mean, centre[:, None]], axis=1), np.concatenate([mixture.factor, factor], axis=1)
    )


def _maximise(mixture: Mixture, z: np.ndarray, weight: np.ndarray, floor: np.ndarray, keep: float) -> Mixture:
    """One round: who belongs to which component, then its share, mean and width (t: Peel & McLachlan 2000)."""
    _, components, d = mixture.mean.shape
    logs = np.stack([mixture.component(m).log_density(z) for m in range(components)], axis=1)
    member = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None]) * weight[:, None]
    share = member.sum(axis=2)
    mean, factor = np.empty_like(mixture.mean), np.empty_like(mixture.factor)
    for m in range(components):
        pull = member[:, m] * (DEGREES + d) / (DEGREES + mixture._distance(z, m))
        total = pull.sum(axis=1)
        safe = np.where(total > 0, total, 1.0)
        mean[:, m] = np.where((total > 0)[:, None], np.einsum("rs,rsd->rd", pull, z) / safe[:, None], mixture.mean[:, m])
        away = z - mean[:, None, m]
        scatter = np.einsum("rs,rsi,rsj->rij", pull, away, away)
        covariance = (scatter + keep * floor) / (share[:, m] + keep)[:, None, None]
        factor[:, m] = np.linalg.cholesky(0.5 * (covariance + np.swapaxes(covariance, 1, 2)))
    share = np.maximum(share, 1e-3)
    return Mixture(share / share.sum(axis=1, keepdims=True), mean, factor)
