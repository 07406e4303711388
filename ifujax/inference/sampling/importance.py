"""Adaptive importance sampling of a block of fits.

A pilot round weighs points about the fit and from the prior; each further round draws from mixtures that follow the weights
of what was before (population Monte Carlo: Cappe et al. 2008, Statistics and Computing 18, 447), until the weights can be
trusted. A round has two halves: the second follows the weights of the first. Each by itself says what the posterior is, and
where they differ in its tails the first mixture did not reach all of it. What is returned comes from both halves of the last
round, each point weighed by the mean of the two densities that it could have come from (Veach & Guibas 1995; Owen & Zhou 2000,
JASA 95, 135).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax

from ifujax.inference import status as bits
from ifujax.inference.sampling.blocks import Split
from ifujax.inference.sampling.marginal import weigh
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.pareto import kish_ess, psis
from ifujax.inference.sampling.proposals import Mixture, adapt
from ifujax.inference.sampling.solutions import Solutions, seeds
from ifujax.inference.sampling.targets import Target, target_axes
from ifujax.inference.sampling.trust import judge, repeats

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
_EVEN_SHARE = 0.2
"""Share of the points that solutions have alike, whatever their guessed masses are."""


def points_at_once(n_pix: int) -> int:
    """Return how many points of each fit are evaluated together: what they need then stays in the processor's cache."""
    return _POINTS_AT_ONCE if n_pix < 4096 else 2


@dataclass(frozen=True)
class Weighted:
    """What a round of importance sampling found of a block of fits.

    `x` (rows, draws, n) equally weighted draws of the free vector; `khat`, `ess`, `distinct`, `pull` (rows,): Pareto k-hat of
    all points, effective number and distinct share of the draws, largest difference of the halves in errors (`trust`); `next`
    where to go on, None if that is not needed.
    """

    x: np.ndarray
    khat: np.ndarray
    ess: np.ndarray
    distinct: np.ndarray
    pull: np.ndarray
    next: Mixture | None

    def bits(self, options: SamplingOptions) -> np.ndarray:
        """Return what speaks against the draws, as bits of a posterior's status; 0 where they can be trusted."""
        few = ~(self.ess > options.needed) | ~(self.distinct >= options.least_distinct)
        verdict = np.where(self.khat < options.max_khat, 0, bits.UNEVEN_WEIGHTS.value)
        verdict |= np.where(few, bits.FEW_EFFECTIVE.value, 0)
        return verdict | np.where(self.pull < options.max_pull, 0, bits.ROUNDS_DISAGREE.value)


@dataclass(frozen=True)
class Pilot:
    """What is known of a block of fits before the rounds: its points, and from which free vectors (rows, starts, n) to look for
    other solutions (NaN for none)."""

    points: _Points
    starts: np.ndarray

    @classmethod
    def stacked(cls, parts: Sequence[Pilot]) -> Pilot:
        """Put those of several fits one after the other."""
        return cls(_Points.joined([part.points for part in parts], axis=0), np.concatenate([part.starts for part in parts]))

    def of(self, rows: list[int]) -> Pilot:
        """Return that of some rows."""
        return Pilot(_Points(*(getattr(self.points, item.name)[rows] for item in fields(self.points))), self.starts[rows])


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

    def pilot(self, start: np.ndarray, covariance: np.ndarray, generators: Generators) -> Pilot:
        """Weigh points about the fit and from the prior.

        Parameters
        ----------
        start : array (rows, d)
            Unconstrained values of what is sampled, at the fit.
        covariance : array (rows, d, d)
            Their covariance as the curvature and the prior have it.
        generators : one for each row
        """
        first = Mixture.single(start, covariance * self.options.inflate**2)
        count, n_starts = self.options.searched(len(self.split.sampled))
        count = _whole(count)
        found = self._points(first, generators, count, _PILOT_PRIOR_SHARE)
        from_prior = round(_PILOT_PRIOR_SHARE * count)
        chosen = seeds(found.z[:, :from_prior], found.log_target[:, :from_prior], n_starts)
        starts = np.stack([self._free(found, r, chosen[r].clip(min=0)) for r in range(len(chosen))])
        starts[chosen < 0] = np.nan
        return Pilot(found, starts)

    def first_mixture(self, pilot: Pilot, solutions: Solutions, covariance: np.ndarray) -> Mixture:
        """Return where the first round looks: where the pilot's weights are, and at the other solutions."""
        found = self._adapted(pilot.points, pilot.points.log_weight, covariance, ROUNDS[0][1])
        share = solutions.share
        if not share[:, 1:].any():
            return found
        at = list(self.split.sampled)
        exists = share > 0
        share = (1.0 - _EVEN_SHARE) * share + _EVEN_SHARE * exists / exists.sum(axis=1, keepdims=True)
        around = solutions.covariance[:, 1:][:, :, at][:, :, :, at]
        others = Mixture(share[:, 1:], solutions.z[:, 1:][:, :, at], np.linalg.cholesky(around) * self.options.inflate)
        own = Mixture(found.share * share[:, :1], found.mean, found.factor)
        return own.beside(others)

    def round(self, k: int, mixture: Mixture, before: _Points | None, covariance: np.ndarray, generators: Generators) -> Weighted:
        """Return what round `k` finds, drawn from `mixture`; points from before help to say where its second half looks."""
        count = _whole(self.options.draws * self.options.proposals, 2 * _POINTS_PER_CALL)
        # In parts: random numbers of all points at once would take more memory than the points.
        parts = 2 * _batches(k, count)
        size = min(count, parts * count // 4)
        share = round(self.options.prior_share * size) / size
        halves, mixtures = [], [mixture]
        for half in range(2):
            calls = range(parts * count // 4 // size)
            halves.append(_Points.joined([self._points(mixtures[half], generators, size, share) for _ in calls]))
            if not half:
                known = halves[0].of(slice(0, _ADAPTED_TO * count))
                known = known if before is None else _Points.joined([before, known])
                mixtures.append(self._adapted(known, known.log_weight, covariance, ROUNDS[k][1]))
        found = _Points.joined(halves)
        density = np.logaddexp(*(found.log_proposal(each, share) for each in mixtures))
        log_weight = _finite(found.log_target - density)
        smoothed, khat, ess = judged(log_weight)
        index = np.stack([self._resampled(smoothed[r], rng) for r, rng in enumerate(generators)])
        x = np.stack([self._free(found, r, index[r]) for r in range(len(index))])
        x[ess == 0] = np.nan  # no point has any weight
        values = np.concatenate([found.x, found.drawn], axis=2)
        verdict = judge(values, log_weight, (halves[0].log_weight, halves[1].log_weight))
        counts, distinct = repeats(index, log_weight.shape[1])
        with np.errstate(divide="ignore"):
            handed = judge(values, np.log(counts)).ess
        worth = np.where(ess == 0, 0.0, np.minimum(verdict.ess, handed))
        result = Weighted(x, khat, worth, distinct, verdict.pull, None)
        if k + 1 == len(ROUNDS) or not result.bits(self.options).any():
            return result
        some = slice(None, None, -(-parts // (2 * _ADAPTED_TO)))
        return replace(result, next=self._adapted(found.of(some), log_weight[:, some], covariance, ROUNDS[k + 1][1]))

    def _adapted(self, found: _Points, log_weight: np.ndarray, covariance: np.ndarray, components: int) -> Mixture:
        # The raw weights: smoothing takes a mode that few points hit for an accident of the tail.
        largest = log_weight.max(axis=1, keepdims=True)
        weight = np.exp(log_weight - np.where(np.isfinite(largest), largest, 0.0))
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
        found = _Points(point.z, point.x, point.drawn, point.log_target, point.log_prior, np.zeros(z.shape[:2]))
        return replace(found, log_weight=_finite(found.log_target - found.log_proposal(mixture, n_prior / count)))

    def _resampled(self, smoothed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return which points are drawn, with equal weights (draws,): systematic resampling, then shuffled."""
        draws = self.options.draws
        cumulative = np.cumsum(np.exp(smoothed - smoothed.max()))
        at = np.searchsorted(cumulative, (rng.random() + np.arange(draws)) / draws * cumulative[-1])
        return rng.permutation(at.clip(max=len(cumulative) - 1))

    def _free(self, found: _Points, r: int, at: np.ndarray) -> np.ndarray:
        """Return free vectors (count, n) of points of a row."""
        x = np.empty((len(at), self.target.space.n_free))
        x[:, list(self.split.sampled)] = found.x[r, at]
        x[:, list(self.split.integrated)] = found.drawn[r, at]
        return x


@dataclass(frozen=True)
class _Points:
    """Weighed points: unconstrained and free values of what is sampled, what was drawn of the rest; log densities of the
    posterior and of the prior; log weights."""

    z: np.ndarray
    x: np.ndarray
    drawn: np.ndarray
    log_target: np.ndarray
    log_prior: np.ndarray
    log_weight: np.ndarray

    def of(self, points: slice) -> _Points:
        """Return some of the points."""
        return _Points(*(getattr(self, item.name)[:, points] for item in fields(self)))

    def log_proposal(self, mixture: Mixture, prior_share: float) -> np.ndarray:
        """Return the log density (rows, points) of a mixture beside a share of the prior."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.logaddexp(np.log1p(-prior_share) + mixture.log_density(self.z), np.log(prior_share) + self.log_prior)

    @classmethod
    def joined(cls, parts: Sequence[_Points], axis: int = 1) -> _Points:
        """Put the points of several batches side by side, or those of several rows (axis 0) one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts], axis=axis) for item in fields(cls)))


def judged(log_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return smoothed log weights, Pareto k-hat, and Kish's effective sample size as it is before; rows without any weight fail.

    After smoothing the size is too large where a few points stand for a mode, and say so by their weights.
    """
    lost = np.asarray(~np.isfinite(log_weight).any(axis=1))
    smoothed, khat = psis(np.where(lost[:, None], 0.0, log_weight))
    ess = kish_ess(np.where(lost[:, None], 0.0, log_weight))
    return smoothed, np.where(lost, np.inf, khat), np.where(lost, 0.0, ess)


def _finite(log_weight: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(log_weight), log_weight, -np.inf)


def _batches(k: int, count: int) -> int:
    """Return how many batches of `count` points round `k` has."""
    return min(ROUNDS[k][0], max(_MOST_POINTS // count, 1))


def _whole(count: int, size: int = _POINTS_PER_CALL) -> int:
    """Round up to whole calls."""
    return -(-count // size) * size
