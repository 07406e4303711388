"""Other solutions than the fit's: least squares from the best points of the prior, one posterior's distinct minima.

What samplers start from decides what they find. A few hundred points of the prior are too coarse to land in a narrow mode, but
not to land in the basin about it: fits from the points that no neighbour betters find its bottom
(multi-level single linkage: Rinnooy Kan & Timmer 1987, Mathematical Programming 39, 57).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax.inference.batching import block_size, padded
from ifujax.inference.least_squares import evaluate_batch
from ifujax.inference.levenberg_marquardt import FAILED
from ifujax.inference.observations import Observations
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import working_precision
from ifujax.inference.runner import Runner
from ifujax.inference.sampling.laplace import laplace

KEPT = 4
"""Solutions of a fit that are kept at most, the fit's own included."""
_SAME = 4.0
"""Solutions closer than this many errors of both are one."""
_LEAST_LOG_MASS = -12.0
"""Solutions of less than e to this of the largest mass don't count."""
_MAX_ITER = 30
_ROWS = 64
"""Fits go through in blocks of this size, however few they are: another size is another last digit."""


@dataclass(frozen=True)
class Solutions:
    """Distinct solutions of each fit, the fit's own first, then by their masses.

    Attributes
    ----------
    z : array (rows, KEPT, n)
        Unconstrained; where there is none, that of the fit.
    covariance : array (rows, KEPT, n, n)
    share : array (rows, KEPT)
        Their parts of the posterior's mass as Gaussians have it: a guess. 0 where there is none.
    """

    z: np.ndarray
    covariance: np.ndarray
    share: np.ndarray

    @classmethod
    def single(cls, z: np.ndarray, covariance: np.ndarray) -> Solutions:
        """Return the fits alone: z (rows, n), covariance (rows, n, n)."""
        share = np.zeros((len(z), KEPT))
        share[:, 0] = 1.0
        return cls(np.repeat(z[:, None], KEPT, axis=1), np.repeat(covariance[:, None], KEPT, axis=1), share)

    def of(self, rows: np.ndarray) -> Solutions:
        """Return those of some rows."""
        return Solutions(self.z[rows], self.covariance[rows], self.share[rows])


def seeds(z: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    """Return the indices (rows, count) of points to start from; -1 where there are fewer.

    Points that none of many near ones betters come first, one a basin, so that a high one does not have all starts; then those
    that none of a few betters. Both the best first.

    Parameters
    ----------
    z : array (rows, points, d)
        Draws of the prior.
    value : array (rows, points)
        What is to be large.
    """
    rows, points, d = z.shape
    value = np.where(np.isfinite(value), value, -np.inf)
    few = min(2 * d + 1, points)  # itself among them
    many = min(max(few, points // (2 * max(count, 1))), points)
    found = np.full((rows, count), -1)
    for r in range(rows):
        # Ranks are uniform whatever the prior is.
        place = np.argsort(np.argsort(z[r], axis=0), axis=0).astype(float)
        distance = sum((np.subtract.outer(column, column) ** 2 for column in place.T), np.zeros((points, points)))
        near = np.argpartition(distance, (few - 1, many - 1), axis=1)
        tops = [value[r] >= value[r][near[:, :size]].max(axis=1) for size in (few, many)]
        top = np.flatnonzero(np.isfinite(value[r]) & tops[0])
        best = top[np.lexsort((-value[r][top], ~tops[1][top]))][:count]
        found[r, : len(best)] = best
    return found


def find_solutions(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    own: Solutions,
    fitted: np.ndarray,
    starts: np.ndarray,
    *,
    options: LeastSquaresOptions,
    precision: str,
    devices: Sequence[Any],
) -> Solutions:
    """Return the distinct solutions of fits.

    Parameters
    ----------
    model, space, obs
        Of the fits (rows).
    own : Solutions
        The fits alone.
    fitted : array (rows, n)
        Their free vectors.
    starts : array (rows, count, n)
        Where to start others; NaN for none.
    """
    rows, count, n = starts.shape
    options = replace(options, warm_up=False, bounds="active_set", max_iter=_MAX_ITER)
    row, which = np.nonzero(np.isfinite(starts).all(axis=2))
    if not row.size:
        return own
    size = _ROWS if block_size(_ROWS, devices[0].platform, obs.n_pix) > 1 else 1
    fill = padded(np.arange(len(row)), -(-len(row) // size) * size)
    ends = Runner(model, space, obs, options, None, precision, list(devices)).solve(row[fill], starts[row, which][fill], None)
    x = np.full((rows, 1 + count, n), np.nan)
    x[:, 0] = fitted
    sound = ends["phase"][: len(row)] != FAILED
    x[row[sound], 1 + which[sound]] = ends["x"][: len(row)][sound]
    known = np.isfinite(x).all(axis=2)
    everything = np.repeat(np.arange(rows), 1 + count)
    fill = padded(np.arange(len(everything)), -(-len(everything) // size) * size)
    mine = everything[fill]
    wide = jax.tree.map(lambda leaf: leaf[mine], space.broadcast(rows))
    data = Observations(obs.values[mine], obs.ivar[mine], obs.coords_of(mine), obs.coords_axes)
    found = evaluate_batch(model, wide, data, x.reshape(-1, n)[fill], options=options, precision=precision, devices=devices)
    z, covariance = laplace(space, wide, found)
    usable = np.asarray(np.isfinite(z).all(axis=1))
    log_mass = _log_mass(wide, np.where(usable[:, None], z, 0.0), covariance, found.chi2)
    log_mass = np.where(usable & np.isfinite(log_mass), log_mass, -np.inf)[: len(everything)].reshape(rows, -1)
    log_mass = np.where(known, log_mass, -np.inf)
    z, covariance = (array[: len(everything)].reshape(rows, 1 + count, *array.shape[1:]) for array in (z, covariance))
    return _distinct(own, z, covariance, log_mass)


def _distinct(own: Solutions, z: np.ndarray, covariance: np.ndarray, log_mass: np.ndarray) -> Solutions:
    """Keep the fit and the largest of the solutions (rows, 1 + count) that are apart from it and each other."""
    at, around, share = own.z.copy(), own.covariance.copy(), own.share.copy()
    for r in range(len(z)):
        if not np.isfinite(log_mass[r, 1:]).any():
            continue
        # The fit may lie beside its minimum: what is found there stands for it.
        masses = [log_mass[r, 0]]
        largest = log_mass[r].max()
        kept = 1
        for k in 1 + np.argsort(-log_mass[r, 1:], kind="stable"):
            if not log_mass[r, k] > largest + _LEAST_LOG_MASS or kept == KEPT:
                break
            close = [_separation(at[r, m], around[r, m], z[r, k], covariance[r, k]) < _SAME for m in range(kept)]
            if any(close):
                masses[close.index(True)] = max(masses[close.index(True)], log_mass[r, k])
                continue
            at[r, kept], around[r, kept] = z[r, k], covariance[r, k]
            masses.append(log_mass[r, k])
            kept += 1
        relative = np.exp(np.array(masses) - max(masses))
        share[r, :kept] = relative / relative.sum()
    return Solutions(at, around, share)


def _separation(one: np.ndarray, spread: np.ndarray, other: np.ndarray, its_spread: np.ndarray) -> float:
    """Return the larger distance of two solutions, in errors of the one and of the other."""
    away = one - other
    return float(np.sqrt(max(away @ np.linalg.solve(matrix, away) for matrix in (spread, its_spread))))


def _log_mass(wide: ParameterSpace, z: np.ndarray, covariance: np.ndarray, chi2: np.ndarray) -> np.ndarray:
    """Return the log of the posterior's mass about solutions (rows,), up to a constant of the row."""
    with working_precision("float64"):
        prior = np.array(_log_prior_beyond_chi2(wide, z))
    sign, log_det = np.linalg.slogdet(covariance)
    return np.where(sign > 0, prior - 0.5 * chi2 + 0.5 * log_det, -np.inf)


@jax.jit
def _log_prior_beyond_chi2(wide: ParameterSpace, z: Any) -> Any:
    """Log prior densities in z, less what chi2 already holds of them."""

    def row(space: ParameterSpace, z: Any) -> Any:
        x, log_jacobian = space.from_unconstrained([z[i] for i in range(space.n_free)])
        pulls = space.prior_residuals(space.unpack(x))
        return space.log_prior(x) + log_jacobian + 0.5 * sum((pull**2 for pull in pulls), jnp.zeros(()))

    return jax.vmap(row)(wide, z)
