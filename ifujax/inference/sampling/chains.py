"""NUTS for fits of a batch: where its chains start, and where they may jump."""

from __future__ import annotations

import numpy as np

from ifujax.inference.sampling.laplace import to_line
from ifujax.inference.sampling.nuts import NutsDraws, NutsOptions, run_nuts
from ifujax.inference.sampling.problem import Problem
from ifujax.inference.sampling.proposals import Mixture, adapt
from ifujax.inference.sampling.rounds import Found
from ifujax.inference.sampling.solutions import KEPT
from ifujax.inference.sampling.targets import log_density, target_axes
from ifujax.progress import Progress

_COMPONENTS = 4
_SOLUTIONS_SHARE = 0.2
"""Share of the jumps that goes to the solutions as Gaussians have them, where there are draws to go by."""
_NUTS = 1


def run_chains(problem: Problem, rows: np.ndarray, found: Found, progress: Progress | None) -> NutsDraws:
    """Run the chains of some fits, from draws of importance sampling where there are any, else from their solutions.

    Chains that start at one solution would never hear of another: they start at all of them, and jump between them with
    proposals from what importance sampling found, so that each has the share of draws that it has of the posterior.
    """
    sampling, n = problem.sampling, problem.space.n_free
    solutions = found.solutions.of(rows)
    mean, covariance = problem.z[rows].copy(), problem.covariance[rows].copy()
    start = np.empty((len(rows), sampling.chains, n))
    for i, r in enumerate(rows):
        rng = np.random.default_rng([problem.seed, int(problem.ids[r]), _NUTS])
        best = np.argsort(-solutions.share[i], kind="stable")[: max(int((solutions.share[i] > 0).sum()), 1)]
        for chain in range(sampling.chains):
            k = best[chain % len(best)]
            start[i, chain] = solutions.z[i, k] + np.linalg.cholesky(solutions.covariance[i, k]) @ rng.standard_normal(n)
    exists = solutions.share > 0
    even = exists / exists.sum(axis=1, keepdims=True)
    wide = np.linalg.cholesky(solutions.covariance) * sampling.inflate
    known = np.isfinite(found.x[rows]).all(axis=(1, 2))
    jumps = _all_at(Mixture(even, solutions.z, wide), _COMPONENTS + 1)
    if known.any():
        z = to_line(problem.space_of(rows[known]), found.x[rows[known]])
        centre, spread = z.mean(axis=1), _covariances(z)
        usable = np.isfinite(spread).all(axis=(1, 2)) & np.isfinite(z).all(axis=(1, 2))
        mine, z = np.flatnonzero(known)[usable], z[usable]
        begin = _along_longest_axis(z, spread[usable], sampling.chains)
        follows = adapt(z, np.zeros(z.shape[:2]), covariance[mine], _COMPONENTS, sampling.inflate)
        start[mine], mean[mine] = begin, centre[usable]
        covariance[mine] = 0.8 * spread[usable] + 0.2 * covariance[mine]
        jumps.share[mine] = np.concatenate([_SOLUTIONS_SHARE * even[mine], (1.0 - _SOLUTIONS_SHARE) * follows.share], axis=1)
        jumps.mean[mine, KEPT:], jumps.factor[mine, KEPT:] = follows.mean, follows.factor
    target = problem.target(rows)
    return run_nuts(
        log_density,
        target,
        target_axes(target, problem.axes),
        start,
        mean,
        np.linalg.cholesky(covariance),
        jumps=jumps,
        centres=solutions.z,
        seed=problem.seed,
        ids=problem.ids[rows],
        options=NutsOptions(
            chains=sampling.chains,
            draws=max(sampling.chain_draws, sampling.draws // sampling.chains),
            max_rhat=sampling.max_rhat,
            min_ess=sampling.min_chain_ess,
        ),
        precision=problem.precision,
        devices=problem.devices,
        progress=progress,
    )


def _all_at(mixture: Mixture, more: int) -> Mixture:
    """Return a mixture with room for `more` components, which have no share yet."""
    rows = len(mixture.share)
    share = np.concatenate([mixture.share, np.zeros((rows, more))], axis=1)
    room = [np.concatenate([each, np.repeat(each[:, :1], more, axis=1)], axis=1) for each in (mixture.mean, mixture.factor)]
    return Mixture(share, *room)


def _along_longest_axis(z: np.ndarray, spread: np.ndarray, count: int) -> np.ndarray:
    """Return draws (rows, count, n) that lie evenly spread along where the draws reach farthest: at both ends of two modes."""
    axis = np.linalg.eigh(spread)[1][:, :, -1]
    order = np.argsort(np.einsum("rsd,rd->rs", z, axis), axis=1)
    at = ((np.arange(count) + 0.5) / count * z.shape[1]).astype(int)
    return np.take_along_axis(z, order[:, at][:, :, None], axis=1)


def _covariances(z: np.ndarray) -> np.ndarray:
    """Covariance (rows, n, n) of draws (rows, draws, n)."""
    away = z - z.mean(axis=1, keepdims=True)
    return np.einsum("rsi,rsj->rij", away, away) / max(z.shape[1] - 1, 1) + 1e-9 * np.eye(z.shape[2])
