"""Small models whose posteriors can be had by brute force, shared by the tests of the samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax import Bounded, LeastSquaresOptions, Observations, ParameterSpace
from ifujax.inference.precision import dtype_of
from ifujax.inference.results import FitResult
from ifujax.inference.sampling.targets import Target, as_numpy

X = np.linspace(-6.0, 6.0, 40)
ELIMINATE = LeastSquaresOptions(linear="eliminate")


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["linear_names", "linear_in"])
@dataclass(frozen=True)
class Lines:
    """Gaussians of one centre and width, a fixed distance apart; two coefficients of a continuum are its linear block."""

    linear_in: tuple[str, ...] = ("first",)
    linear_names: tuple[str, ...] = ("level", "slope")

    def design(self, params: Any, x: Any) -> tuple[Any, Any]:
        offset = jnp.zeros_like(x)
        for k, name in enumerate(self.linear_in):
            t = (x - params["centre"] - 2.5 * k) / params["width"]
            offset = offset + params[name] * jnp.exp(-0.5 * t * t)
        return (jnp.ones_like(x), x / 6.0), offset

    def __call__(self, params: Any, x: Any) -> Any:
        columns, total = self.design(params, x)
        for name, column in zip(self.linear_names, columns):
            total = total + params[name] * column
        return total


def lines_numpy(centre: Any, width: Any, strengths: Sequence[Any]) -> np.ndarray:
    """Return the Gaussians of `Lines` (..., pixels), in NumPy."""
    centre, width = (np.asarray(value, dtype=float)[..., None] for value in (centre, width))
    parts = [
        np.asarray(s, dtype=float)[..., None] * np.exp(-0.5 * ((X - centre - 2.5 * k) / width) ** 2)
        for k, s in enumerate(strengths)
    ]
    return np.sum(parts, axis=0)


CONTINUUM = np.stack([np.ones_like(X), X / 6.0], axis=1)


def target_of(
    model: Any,
    declarations: Mapping[str, Any],
    values: np.ndarray,
    root_weight: np.ndarray,
    *,
    linear_sigma: Sequence[float] | None = None,
    options: LeastSquaresOptions = ELIMINATE,
    scale: Mapping[str, float] | None = None,
    precision: str = "float64",
    coords: np.ndarray = X,
) -> Target:
    """Return the target of one fit, on the host."""
    space = ParameterSpace.build(declarations, scale=scale)
    count = len(model.linear_names) if options.linear != "keep" else 0
    root = np.zeros(count) if linear_sigma is None else 1 / np.asarray(linear_sigma, dtype=float)
    return as_numpy(Target(model, values, root_weight, coords, space, root, options), dtype_of(precision))


def noisy(rng: np.random.Generator, clean: np.ndarray, sigma: float) -> Observations:
    """Return spectra (batch, pixels) with noise."""
    values = clean + rng.normal(scale=sigma, size=clean.shape)
    return Observations(values, np.full_like(values, sigma**-2), X)


def fit_near(space: ParameterSpace, params: Mapping[str, Any], error: float) -> FitResult:
    """Return a fit as `fit_batch` does, of no other merit than to lie near the truth: nothing is compiled for it.

    `params` holds arrays (batch,) of free parameters without ties or moving bounds.
    """
    params = {name: np.asarray(value, dtype=float) for name, value in params.items()}
    x = np.stack([params[entry.name] for entry in space.structure.free], axis=1) / space.scale
    batch, n = x.shape
    none = np.zeros((batch, 0))
    covariance = np.broadcast_to(error**2 * np.eye(n), (batch, n, n))
    errors = {name: np.full(batch, error) for name in params}
    counts = {name: np.zeros(batch, int) for name in ("n_good", "n_iter", "status", "warn")}
    chi2 = np.zeros(batch)
    each = np.zeros((batch, n), np.int32)
    return FitResult(
        params, errors, none, none, covariance, tuple(params), {}, {}, chi2=chi2, n_free=n, x=x, element_warn=each, **counts
    )


def wide_line(**changes: Any) -> dict[str, Any]:
    """Declarations of one line, positive, with its continuum eliminated."""
    return {"centre": Bounded(-4, 4), "width": Bounded(0.3, 3.0), "first": Bounded(0, 50)} | changes
