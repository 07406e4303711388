"""Adaptive importance sampling of a block of fits.

A pilot round weighs points about the fit and from the prior; each further round draws from a mixture that follows the weights
of the round before, until the Pareto k-hat and the effective sample size say that the weights can be trusted. Points of earlier
rounds only guide: what is returned comes from the last round alone, and so is free of the bias of adaptation
(population Monte Carlo: Cappe et al. 2008, Statistics and Computing 18, 447).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax

from ifujax.inference.sampling.blocks import Split
from ifujax.inference.sampling.marginal import weigh
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.pareto import kish_ess, psis
from ifujax.inference.sampling.proposals import Mixture, adapt
from ifujax.inference.sampling.targets import Target, target_axes

Generators = Sequence[np.random.Generator]
_POINTS_AT_ONCE = 128
_POINTS_PER_CALL = 512
"""One size for the pilot and all rounds: one program is compiled."""
ROUNDS = ((1, 3), (2, 4), (4, 6), (8, 8), (16, 10), (32, 12))
"""Of each round: how many times the points of the first, and components of the mixture. Few fits see more than one; for
those the last still costs less than NUTS."""
_MOST_POINTS = 2**18
"""Points of a fit in a round at most, unless one batch has more: memory then grows no faster than what is returned."""
_ADAPTED_TO = 8
"""Batches of points that the next round is adapted to, at most."""
_PILOT_PRIOR_SHARE = 0.4
_CLIP = 0.05
"""Largest share of the weight that one point of a poor round has in the adaptation."""


def points_at_once(n_pix: int) -> int:
    """Return how many points of each fit are evaluated together: what they need then stays in the processor's cache."""
    return _POINTS_AT_ONCE if n_pix < 4096 else 2


@dataclass(frozen=True)
class Weighted:
    """What a round of importance sampling found of a block of fits.

    `x` (rows, draws, n) equally weighted draws of the free vector; `khat`, `ess` (rows,); `next` where to go on.
    """

    x: np.ndarray
    khat: np.ndarray
    ess: np.ndarray
    next: Mixture


@partial(jax.jit, static_argnums=(0, 2))
def _weigh_points(split: Split, target: Target, axes: Any, z: Any, from_prior: Any, u: Any) -> Any:
    """Weigh points z (rows, points, d): block by block of points."""
    coords_axes = jax.tree.unflatten(jax.tree.structure(target.coords), axes)

    def row(target: Target, z: Any, from_prior: Any, u: Any) -> Any:
        return jax.vmap(partial(weigh, split, target))(z, from_prior, u)

    over_rows = jax.vmap(row, in_axes=(target_axes(target, coords_axes), 0, None, 0))
    at_once = points_at_once(target.values.shape[-1])
    blocks = z.shape[1] // at_once

    def cut(array: Any) -> Any:
        """(rows, points, ...) -> (blocks, rows, points of a block, ...)"""
        shaped = array.reshape(array.shape[0], blocks, at_once, *array.shape[2:])
        return shaped.swapaxes(0, 1)

    found = lax.map(
        lambda item: over_rows(target, item[0], item[1], item[2]),
        (cut(z), from_prior.reshape(blocks, at_once), cut(u)),
    )
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(leaf.shape[1], z.shape[1], *leaf.shape[3:]), found)


class ImportanceSampler:
    """Importance sampling of the fits of a block: `target` on the host, with a leading axis."""

    def __init__(self, split: Split, options: SamplingOptions, target: Target, coords_axes: tuple[int | None, ...]) -> None:
        self.split, self.options = split, options
        self.target, self.axes = target, coords_axes

    def pilot(self, start: np.ndarray, covariance: np.ndarray, generators: Generators) -> Mixture:
        """Return where to look, from points about the fit and from the prior.

        Parameters
        ----------
        start : array (rows, d)
            Unconstrained values of what is sampled, at the fit.
        covariance : array (rows, d, d)
            Their covariance as the curvature and the prior have it.
        generators : one for each row
        """
        first = Mixture.single(start, covariance * self.options.inflate**2)
        found = self._points(first, generators, _whole(self.options.pilot), _PILOT_PRIOR_SHARE)
        return self._adapted(found, covariance, ROUNDS[0][1])

    def round(self, k: int, mixture: Mixture, covariance: np.ndarray, generators: Generators) -> Weighted:
        """Return what round `k` finds, drawn from `mixture`."""
        count = _whole(self.options.draws * self.options.proposals)
        parts = [self._points(mixture, generators, count, self.options.prior_share) for _ in range(_batches(k, count))]
        found = _Points.joined(parts)
        smoothed, khat, ess = judged(found.log_weight)
        x = np.stack([self._resampled(found, smoothed, r, rng) for r, rng in enumerate(generators)])
        x[ess == 0] = np.nan  # no point has any weight
        more = ROUNDS[min(k + 1, len(ROUNDS) - 1)][1]
        return Weighted(x, khat, ess, self._adapted(_Points.joined(parts[:_ADAPTED_TO]), covariance, more))

    def _adapted(self, found: _Points, covariance: np.ndarray, components: int) -> Mixture:
        # The raw weights: smoothing takes a mode that few points hit for an accident of the tail.
        largest = found.log_weight.max(axis=1, keepdims=True)
        weight = np.exp(found.log_weight - np.where(np.isfinite(largest), largest, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = weight / weight.sum(axis=1, keepdims=True)
            tempered = np.log(np.where(np.isfinite(largest), np.minimum(share, _CLIP), 1.0))
        return adapt(found.z, tempered, covariance, components, self.options.inflate)

    def _points(self, mixture: Mixture, generators: Generators, count: int, prior_share: float) -> _Points:
        n_prior = round(prior_share * count)
        z = mixture.draw(generators, count - n_prior)
        z = np.concatenate([np.zeros((len(z), n_prior, z.shape[2])), z], axis=1)  # first those from the prior
        dtype = self.target.values.dtype
        u = np.stack([rng.random((count, self.target.space.n_free)) for rng in generators]).astype(dtype)
        # float32 rounds some to 1, where quantiles are infinite.
        u = u.clip(1e-15, 1.0 - np.finfo(dtype).epsneg)
        from_prior = np.arange(count) < n_prior
        z = z.astype(dtype)
        parts = []
        for first in range(0, count, _POINTS_PER_CALL):
            at = slice(first, first + _POINTS_PER_CALL)
            parts.append(_weigh_points(self.split, self.target, self.axes, z[:, at], from_prior[at], u[:, at]))
        point = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1, dtype=np.float64), *parts)
        with np.errstate(divide="ignore", invalid="ignore"):
            proposal = np.logaddexp(
                np.log1p(-n_prior / count) + mixture.log_density(point.z), np.log(n_prior / count) + point.log_prior
            )
            log_weight = point.log_target - proposal
        log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
        return _Points(point.z, point.x, point.drawn, log_weight)

    def _resampled(self, found: _Points, smoothed: np.ndarray, r: int, rng: np.random.Generator) -> np.ndarray:
        """Return equally weighted draws of the free vector (draws, n): systematic resampling, then shuffled."""
        draws = self.options.draws
        cumulative = np.cumsum(np.exp(smoothed[r] - smoothed[r].max()))
        at = np.searchsorted(cumulative, (rng.random() + np.arange(draws)) / draws * cumulative[-1])
        at = rng.permutation(at.clip(max=len(cumulative) - 1))
        x = np.empty((draws, self.target.space.n_free))
        x[:, list(self.split.sampled)] = found.x[r, at]
        x[:, list(self.split.integrated)] = found.drawn[r, at]
        return x


@dataclass(frozen=True)
class _Points:
    """Weighed points: unconstrained and free values of what is sampled, what was drawn of the rest, log weights."""

    z: np.ndarray
    x: np.ndarray
    drawn: np.ndarray
    log_weight: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[_Points]) -> _Points:
        """Put the points of several batches side by side."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts], axis=1) for item in fields(cls)))


def judged(log_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return smoothed log weights, Pareto k-hat, and Kish's effective sample size as it is before; rows without any weight fail.

    After smoothing the size is too large where a few points stand for a mode, and say so by their weights.
    """
    lost = np.asarray(~np.isfinite(log_weight).any(axis=1))
    smoothed, khat = psis(np.where(lost[:, None], 0.0, log_weight))
    ess = kish_ess(np.where(lost[:, None], 0.0, log_weight))
    return smoothed, np.where(lost, np.inf, khat), np.where(lost, 0.0, ess)


def _batches(k: int, count: int) -> int:
    """Return how many batches of `count` points round `k` has."""
    return min(ROUNDS[k][0], max(_MOST_POINTS // count, 1))


def _whole(count: int) -> int:
    """Round up to whole calls."""
    return -(-count // _POINTS_PER_CALL) * _POINTS_PER_CALL
