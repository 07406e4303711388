"""The Gaussian about a fit in unconstrained coordinates: where samplers start, never what they return."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import working_precision
from ifujax.inference.results import FitResult

_EDGE = 0.01
"""Share of a box, or of an error, that a start keeps from the bounds: they lie at infinity."""
_WIDTH = {"both": 1.8, "lower": 1.5, "upper": 1.5, "none": np.inf}
"""Standard deviation in unconstrained coordinates beyond which nothing is expected: that of a uniform prior, for "both"."""
_FAR = 10.0
_LARGEST = 1e5
"""Largest error that is told from an infinite one, in units of that standard deviation."""


def laplace(space: ParameterSpace, wide: ParameterSpace, fit: FitResult) -> tuple[np.ndarray, np.ndarray]:
    """Return z (batch, n) and its covariance (batch, n, n); NaN rows where there is no fit.

    Parameters
    ----------
    space : ParameterSpace
    wide : ParameterSpace
        The same with a batch axis.
    fit : FitResult
    """
    n, kinds = space.n_free, space.box_kinds()
    batch = len(fit.chi2)
    lost = np.asarray(~np.isfinite(fit.x).all(axis=1))
    x = np.where(lost[:, None], 0.5, fit.x)
    own = np.full((batch, n, n), np.nan) if fit.covariance is None else np.array(fit.covariance)[:, :n, :n]
    low, high = boxes(wide)
    _, slope = _to_line(wide, x, inside=False)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(np.diagonal(own, axis1=1, axis2=2)) / np.abs(np.diagonal(slope, axis1=1, axis2=2))
    least = np.fmax(_EDGE * np.nan_to_num(error, nan=1.0, posinf=1.0), 1e-6)
    for i, kind in enumerate(kinds):
        edge = np.fmin(_EDGE * (high[:, i] - low[:, i]), least[:, i]) if kind == "both" else 10.0 * least[:, i]
        if kind in ("both", "lower"):
            x[:, i] = np.fmax(x[:, i], low[:, i] + edge)
        if kind in ("both", "upper"):
            x[:, i] = np.fmin(x[:, i], high[:, i] - edge)
    z, slope = _to_line(wide, x, inside=True)
    felt = np.asarray(np.isfinite(np.diagonal(own, axis1=1, axis2=2)) & ~lost[:, None])
    own = np.where(felt[:, :, None] & felt[:, None, :], np.nan_to_num(own), 0.0)
    inverse = np.linalg.inv(np.where(np.asarray(np.isfinite(slope).all(axis=(1, 2)))[:, None, None], slope, np.eye(n)))
    covariance = inverse @ own @ np.swapaxes(inverse, 1, 2)
    expected = np.array([_WIDTH[kind] for kind in kinds])
    covariance = covariance + np.where(felt, 0.0, np.fmin(expected, _FAR) ** 2)[:, :, None] * np.eye(n)
    # With a prior of the expected width: (C^-1 + P^-1)^-1 = C - C (C + P)^-1 C, which loses its digits where C is far larger.
    width = np.fmin(expected, 1e4)
    size = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    cut = np.fmin(_LARGEST * width / np.fmax(size, 1e-300), 1.0)
    covariance = covariance * cut[:, :, None] * cut[:, None, :]
    prior = np.diag(width**2)
    covariance = covariance - covariance @ np.linalg.solve(covariance + prior, covariance)
    covariance = 0.5 * (covariance + np.swapaxes(covariance, 1, 2))
    size = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-20))
    # Degenerate to rounding: held apart, so that it has a factor.
    covariance = covariance + 1e-9 * (size**2)[:, :, None] * np.eye(n)
    z[lost] = np.nan
    return z, covariance


def boxes(wide: ParameterSpace) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper limits of every free vector, (batch, n)."""
    with working_precision("float64"):
        low, high = jax.vmap(lambda space: space.box())(wide)
        return np.stack([np.asarray(v) for v in low], axis=1), np.stack([np.asarray(v) for v in high], axis=1)


def _to_line(wide: ParameterSpace, x: np.ndarray, *, inside: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return unconstrained vectors (batch, n), and the slopes (batch, n, n) of the free parameters by them.

    Unless `inside`, x may lie on a bound: it is left as it is, and the slopes are those by x.
    """
    with working_precision("float64"):
        z, slope = _with_slopes(inside, wide, x)
        return np.array(z), np.array(slope)


@partial(jax.jit, static_argnums=0)
def _with_slopes(inside: bool, wide: ParameterSpace, x: Any) -> tuple[Any, Any]:
    def row(space: ParameterSpace, x: Any) -> tuple[Any, Any]:
        n = space.n_free

        def values(at: Any) -> Any:
            vector = [at[i] for i in range(n)]
            params = space.unpack(space.from_unconstrained(vector)[0] if inside else vector)
            return jnp.concatenate([jnp.reshape(params[entry.name], (entry.size,)) for entry in space.structure.free])

        at = jnp.stack(space.to_unconstrained([x[i] for i in range(n)])[0]) if inside else x
        return at, jax.jacfwd(values)(at)

    return jax.vmap(row)(wide, x)


def to_line(wide: ParameterSpace, x: np.ndarray) -> np.ndarray:
    """Return the unconstrained vectors of free ones (batch, draws, n), kept off the bounds."""
    low, high = boxes(wide)
    reach = np.where(np.isfinite(high - low), high - low, 1.0)
    edge = 1e-9 * reach
    inside = np.clip(x, (low + edge)[:, None], (high - edge)[:, None])
    with working_precision("float64"):
        return np.array(_unconstrained(wide, inside))


@jax.jit
def _unconstrained(wide: ParameterSpace, x: Any) -> Any:
    def one(space: ParameterSpace, x: Any) -> Any:
        return jnp.stack(space.to_unconstrained([x[i] for i in range(space.n_free)])[0])

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(wide, x)
