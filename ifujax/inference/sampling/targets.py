"""The posterior density of ONE fit, as the samplers see it.

Coefficients of an eliminated linear block are integrated out exactly: with whitened columns B, residual r and prior
precision P their integral leaves ``-|r|^2 / 2 + b^T G^-1 b / 2 - log|G| / 2`` with ``G = B^T B + P`` and ``b = B^T r``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ifujax.inference.cholesky import factorise, substitute
from ifujax.inference.evaluation import design_columns
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "values", "root_weight", "coords", "space", "linear_root"],
    meta_fields=["options"],
)
@dataclass(frozen=True)
class Target:
    """Model, data and priors of one fit; with a leading axis (`target_axes`) of several.

    Attributes
    ----------
    model : Model
    values, root_weight : array (n_pix,)
        Data and 1 / sigma, 0 = masked.
    coords : pytree
    space : ParameterSpace
    linear_root : array (K,)
        Inverse prior standard deviation of the eliminated coefficients; 0 for a flat prior.
    options : LeastSquaresOptions
        Of the fit; its loss and linear block count here.
    """

    model: Any
    values: Any
    root_weight: Any
    coords: Any
    space: ParameterSpace
    linear_root: Any
    options: LeastSquaresOptions

    @property
    def eliminates(self) -> bool:
        return self.options.linear != "keep"


def target_axes(target: Target, coords_axes: Any) -> Target:
    """Return which leaves have a leading axis (0) and which all fits share (None), for `jax.vmap`."""
    return Target(None, 0, 0, coords_axes, 0, 0, target.options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian integral over coefficients: its log value (up to a constant), mean, and factor of the precision matrix.

    Coefficients are measured in units of 1 / `size`, in which the precision matrix has a unit diagonal.
    """

    log_value: Array
    mean: list[Array]
    factor: list[list[Array]]
    size: list[Array]


def integrate(columns: list[Array], residual: Array, precision: list[Array], pull: list[Array]) -> Gaussian:
    """Integrate over the coefficients of whitened `columns` (n_pix,).

    Parameters
    ----------
    columns : list of array (n_pix,)
    residual : array (n_pix,)
        Whitened data less everything else.
    precision, pull : list of scalars
        Of Gaussian priors: inverse variance, and that times the mean.
    """
    count = len(columns)
    rows = [[jnp.sum(columns[i] * columns[j]) for j in range(i + 1)] for i in range(count)]
    right = [jnp.sum(column * residual) + p for column, p in zip(columns, pull)]
    for i in range(count):
        rows[i][i] = rows[i][i] + precision[i]
    # A column that no pixel feels, under a flat prior: left out of the integral.
    live = [row[-1] > 0 for row in rows]
    size = [jnp.where(alive, jnp.sqrt(jnp.where(alive, row[-1], 1.0)), 1.0) for alive, row in zip(live, rows)]
    scaled = [[rows[i][j] / (size[i] * size[j]) for j in range(i)] + [jnp.ones_like(size[i])] for i in range(count)]
    factor = factorise(scaled) if count else []
    right = [value / s for value, s in zip(right, size)]
    mean = substitute(factor, right) if count else []
    value = -0.5 * jnp.sum(residual * residual)
    for i in range(count):
        value = value + 0.5 * right[i] * mean[i] + jnp.log(factor[i][i]) - jnp.log(size[i])
    return Gaussian(value, mean, factor, size)


def whitened_design(target: Target, params: Any) -> tuple[list[Array], Array, Array]:
    """Return the eliminated block's columns over sigma, their common unit, and the whitened residual without them."""
    weight = target.root_weight
    if not target.eliminates:
        return [], jnp.ones(()), (target.values - target.model(params, target.coords)) * weight
    design, offset = design_columns(target.model, params, target.coords)
    # Squares of raw flux densities leave the range of floats: columns are of order one inside.
    largest = jnp.max(weight)
    unit = jnp.where(largest > 0, largest, 1.0)
    return [column * (weight / unit) for column in design], unit, (target.values - offset) * weight


def prior_precision(target: Target, count: int, unit: Array) -> list[Array]:
    """Return the inverse prior variances of the eliminated coefficients where their columns are divided by `unit`."""
    # Ratios first: squares of either leave the range of float32.
    return [jnp.square(target.linear_root[k] / unit) for k in range(count)]


def log_likelihood(target: Target, params: Any) -> Array:
    """Return the log likelihood at named parameters, the linear block integrated out, up to a constant."""
    columns, unit, residual = whitened_design(target, params)
    if target.options.loss == "student_t":
        nu = target.options.degrees
        used = target.root_weight > 0
        return -0.5 * (nu + 1.0) * jnp.sum(jnp.where(used, jnp.log1p(residual * residual / nu), 0.0))
    precision = prior_precision(target, len(columns), unit)
    return integrate(columns, residual, precision, [jnp.zeros(())] * len(columns)).log_value


def log_density(target: Target, z: Array) -> Array:
    """Return the log posterior density of the unconstrained vector `z` (n,), up to a constant."""
    space = target.space
    x, log_jacobian = space.from_unconstrained([z[i] for i in range(space.n_free)])
    return log_likelihood(target, space.unpack(x)) + space.log_prior(x) + log_jacobian


def draw_linear(target: Target, params: Any, normals: Array) -> Array:
    """Return a draw of the eliminated coefficients (K,) given the named parameters, from standard `normals` (K,)."""
    columns, unit, residual = whitened_design(target, params)
    if not columns:
        return jnp.zeros((0,), target.values.dtype)
    precision = prior_precision(target, len(columns), unit)
    found = integrate(columns, residual, precision, [jnp.zeros(())] * len(columns))
    drawn: list[Array] = [found.mean[0]] * len(columns)
    for i in reversed(range(len(columns))):
        shift = normals[i]
        for k in range(i + 1, len(columns)):
            shift = shift - found.factor[k][i] * (drawn[k] - found.mean[k])
        drawn[i] = found.mean[i] + shift * found.factor[i][i]
    return jnp.stack([value / size for value, size in zip(drawn, found.size)]) / unit


def as_numpy(target: Target, dtype: np.dtype) -> Target:
    """Return the target with its numbers cast to `dtype`, on the host."""

    def cast(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        return leaf.astype(dtype, copy=False) if leaf.dtype.kind == "f" else leaf

    return jax.tree.map(cast, target)
