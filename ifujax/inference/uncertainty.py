"""Errors: covariance of the parameters from the curvature at the minimum, carried to anything derived.

To first order the estimate moves by ``C J^T W dy`` when the data move by ``dy``. A quantity
``d(theta, y)`` with slopes q = dd/dtheta and a = dd/dy therefore has the variance
``q^T C q + 2 q^T C J^T a + a^T V a``, which covers quantities read off the data as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ifujax.inference.cholesky import inverse_spd
from ifujax.inference.evaluation import Block, Evaluation, batched, columns_of, design_columns, evaluate, n_linear
from ifujax.inference.options import Options


@dataclass(frozen=True)
class Derived:
    """Quantities to compute, with errors, for each fit. Hashable: use module-level functions or frozen objects.

    Parameters
    ----------
    from_model : callable, optional
        ``(model, params, linear, coords) -> dict`` of scalars for one fit.
    from_data : callable, optional
        ``(model, params, linear, coords, values, good) -> dict`` of scalars, `good` 1 for used pixels.
    """

    from_model: Callable[..., dict[str, Any]] | None = None
    from_data: Callable[..., dict[str, Any]] | None = None


def covariance_of(evaluation: Evaluation, options: Options) -> tuple[Array, Array]:
    """Return the covariance of (free vector, linear block) and which elements the data constrain.

    Parameters at a bound count as free: their error is what the curvature gives, never zero.
    Elements without any curvature, or degenerate with others to rounding, are not constrained;
    their rows and columns are NaN.
    """
    hessian, cross, linear_hessian = evaluation.hessian, evaluation.cross, evaluation.linear_hessian
    inverse, felt = _guarded_inverse(hessian, options)
    if not cross.shape[2]:
        return _spread_nan(inverse, felt), felt
    linear_inverse, linear_felt = _guarded_inverse(linear_hessian, options)
    shift = jnp.einsum("bik,bkl->bil", cross, linear_inverse)
    mixed = -jnp.einsum("bij,bjl->bil", inverse, shift)
    lower = linear_inverse - jnp.einsum("bik,bil->bkl", shift, mixed)
    covariance = jnp.concatenate(
        [jnp.concatenate([inverse, mixed], axis=2), jnp.concatenate([jnp.swapaxes(mixed, 1, 2), lower], axis=2)], axis=1
    )
    felt = jnp.concatenate([felt, linear_felt], axis=1)
    return _spread_nan(covariance, felt), felt


def _guarded_inverse(matrix: Array, options: Options) -> tuple[Array, Array]:
    """Invert over the elements that have curvature; zeros elsewhere."""
    n = matrix.shape[1]
    if n == 0:
        return matrix, jnp.zeros(matrix.shape[:2], bool)
    diagonal = jnp.diagonal(matrix, axis1=1, axis2=2)
    felt = (diagonal > 0) & jnp.isfinite(diagonal)
    size = jnp.where(felt, jnp.sqrt(jnp.where(felt, diagonal, 1.0)), 1.0)
    mask = felt.astype(matrix.dtype)
    eye = jnp.eye(n, dtype=matrix.dtype)
    scaled = matrix / (size[:, :, None] * size[:, None, :]) * mask[:, :, None] * mask[:, None, :] * (1.0 - eye) + eye
    inverse = inverse_spd(scaled, unrolled=options.unrolled(n))
    # The inverse's diagonal is the variance inflation by correlations; near 1/eps it is only rounding.
    inflation = jnp.diagonal(inverse, axis1=1, axis2=2)
    felt = felt & (inflation < 1e-3 / jnp.finfo(matrix.dtype).eps) & (inflation > 0)
    mask = felt.astype(matrix.dtype)
    return inverse / (size[:, :, None] * size[:, None, :]) * mask[:, :, None] * mask[:, None, :], felt


def _spread_nan(covariance: Array, felt: Array) -> Array:
    return jnp.where(felt[:, :, None] & felt[:, None, :], covariance, jnp.nan)


def finish(model: Any, options: Options, derived: Derived | None, block: Block, x: Array) -> dict[str, Any]:
    """Evaluate solutions: chi2, named values, errors, covariance, derived quantities.

    Returns a dict of arrays with a leading batch axis: ``chi2``, ``params`` and ``error`` (dicts by
    name), ``linear``, ``covariance`` of the free parameters in user units followed by the linear
    block, ``unconstrained`` (bool), ``derived`` and ``derived_error``.
    """
    n = x.shape[1]
    n_lin = n_linear(model, options)
    evaluation = evaluate(model, options, block, x)
    covariance, felt = covariance_of(evaluation, options)
    known = jnp.where(jnp.isnan(covariance), 0.0, covariance)
    theta = tuple(x[:, j] for j in range(n)) + tuple(evaluation.linear[:, k] for k in range(n_lin))

    def at(function: Callable[..., Any]) -> Callable[[tuple[Array, ...]], Any]:
        def row(space: Any, theta: tuple[Array, ...], coords: Any) -> Any:
            linear = jnp.stack(theta[n:]) if n_lin else jnp.zeros((0,), x.dtype)
            return function(space.unpack(theta[:n]), linear, coords)

        return batched(row, block)

    def spread(function: Callable[..., Any]) -> tuple[Any, Any]:
        """Value of a tree of quantities and their errors by propagation of the parameters alone."""
        located = at(function)
        values = located(theta)
        slopes = columns_of(located, theta)

        def error(*slope: Array) -> Array:
            stacked = jnp.stack(slope, axis=1)  # (batch, n + K, ...)
            flat = stacked.reshape(*stacked.shape[:2], -1)
            variance = jnp.einsum("bim,bij,bjm->bm", flat, known, flat)
            lost = jnp.einsum("bim,bi->bm", jnp.abs(flat), (~felt).astype(x.dtype)) > 0
            # A fixed value has no slope: its error is zero, not unknown.
            return jnp.where(lost, jnp.nan, jnp.sqrt(jnp.maximum(variance, 0.0))).reshape(stacked.shape[0], *stacked.shape[2:])

        return values, jax.tree.map(error, *slopes) if slopes else jax.tree.map(jnp.zeros_like, values)

    params, error = spread(lambda params, linear, coords: params)
    result: dict[str, Any] = {"chi2": evaluation.chi2, "params": params, "error": error, "linear": evaluation.linear}
    to_user = _free_slopes(block, theta[:n], n, n_lin, x.dtype)
    result["covariance"] = jnp.einsum("bij,bjk,blk->bil", to_user, covariance, to_user)
    diagonal = jnp.diagonal(covariance, axis1=1, axis2=2)[:, n:]
    result["linear_error"] = jnp.sqrt(jnp.maximum(diagonal, 0.0))
    result["unconstrained"] = jnp.any(~felt[:, :n], axis=1)
    result["derived"], result["derived_error"] = {}, {}
    if derived is not None and derived.from_model is not None:
        values, errors = spread(partial(derived.from_model, model))
        result["derived"] |= values
        result["derived_error"] |= errors
    if derived is not None and derived.from_data is not None:
        values, errors = _from_data(model, options, partial(derived.from_data, model), block, at, theta, known, felt)
        result["derived"] |= values
        result["derived_error"] |= errors
    return result


def _free_slopes(block: Block, xs: tuple[Array, ...], n: int, n_lin: int, dtype: Any) -> Array:
    """Slopes of the free parameters in user units by the free vector, the linear block's being 1."""
    free = block.space.structure.free

    def flat(space: Any, xs: tuple[Array, ...], coords: Any) -> Array:
        values = space.unpack(xs)
        return jnp.concatenate([jnp.reshape(values[entry.name], (entry.size,)) for entry in free])

    batch = block.values.shape[0]
    full = jnp.zeros((batch, n + n_lin, n + n_lin), dtype)
    if n:
        full = full.at[:, :n, :n].set(jnp.stack(columns_of(batched(flat, block), xs), axis=2))
    return full.at[:, n:, n:].set(jnp.eye(n_lin, dtype=dtype))


def _from_data(
    model: Any, options: Options, function: Callable[..., Any], block: Block, at: Any, theta: Any, known: Array, felt: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    good = (block.root_weight > 0).astype(block.values.dtype)
    leaves, tree = jax.tree.flatten(block.coords)
    n = block.space.structure.n_free

    def row(space: Any, theta: tuple[Array, ...], values: Array, good: Array, *leaves: Array) -> dict[str, Array]:
        linear = jnp.stack(theta[n:]) if len(theta) > n else jnp.zeros((0,), values.dtype)
        return function(space.unpack(theta[:n]), linear, jax.tree.unflatten(tree, leaves), values, good)

    mapped = jax.vmap(row, in_axes=(0, 0, 0, 0, *block.coords_axes))

    def quantities(theta: tuple[Array, ...], values: Array) -> dict[str, Array]:
        return mapped(block.space, theta, values, good, *leaves)

    def predicted(params: Any, linear: Array, coords: Any) -> Array:
        if options.linear == "keep":
            return model(params, coords)
        design, offset = design_columns(model, params, coords)
        for k, column in enumerate(design):
            offset = offset + linear[k] * column
        return offset

    values, pullback = jax.vjp(lambda y: quantities(theta, y), block.values)
    slopes = columns_of(lambda theta: quantities(theta, block.values), theta)
    jacobian = columns_of(at(predicted), theta)
    variance_of_pixel = jnp.where(block.root_weight > 0, 1.0 / jnp.where(block.root_weight > 0, block.root_weight, 1.0) ** 2, 0.0)
    errors: dict[str, Array] = {}
    for name in values:
        one = {key: jnp.ones_like(v) if key == name else jnp.zeros_like(v) for key, v in values.items()}
        by_data = pullback(one)[0] * good
        by_theta = jnp.stack([slope[name] for slope in slopes], axis=1)
        overlap = jnp.stack([jnp.sum(column * by_data, axis=1) for column in jacobian], axis=1)
        variance = (
            jnp.einsum("bi,bij,bj->b", by_theta, known, by_theta + 2.0 * overlap)
            + jnp.sum(by_data**2 * variance_of_pixel, axis=1)
        )
        lost = jnp.any((by_theta != 0) & ~felt, axis=1)
        errors[name] = jnp.where(lost, jnp.nan, jnp.sqrt(jnp.maximum(variance, 0.0)))
    return values, errors
