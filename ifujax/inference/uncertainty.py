"""Errors: covariance of the parameters from the curvature at the minimum, carried to anything derived.

To first order the estimate moves by ``C J^T W dy`` when the data move by ``dy``, so a function f of
the parameters has the variance ``f'^T C f'``. A quantity that also reads the data through the
residuals, ``d = f(theta) + sum_p u_p (y - model)_p``, has
``f'^T C f' + u^T V u - (J^T u)^T C (J^T u)``: residuals and estimate are uncorrelated. Where noise is correlated along the
pixels the sandwich of `ifujax.inference.correlated` takes the place of both. What was fitted to the same data before, and
subtracted, adds its own error: see `ifujax.inference.subtracted`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ifujax.inference.cholesky import inverse_spd
from ifujax.inference.correlated import quadratic, sandwich
from ifujax.inference.evaluation import (
    Block,
    Linearised,
    add_priors,
    batched,
    box_of,
    columns_of,
    gram,
    linearise,
    loss,
    n_linear,
    reweighted,
    unit_of,
)
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.residuals import SAMPLE, residual_sums
from ifujax.inference.subtracted import two_steps


@dataclass(frozen=True)
class Derived:
    """Quantities to compute, with errors, for each fit. Hashable: use module-level functions or frozen objects.

    Parameters
    ----------
    from_model : callable, optional
        ``(model, params, linear, coords) -> dict`` of scalars for one fit.
    from_residuals : callable, optional
        ``(model, params, linear, coords) -> dict`` of arrays (n_pix,), for names that `from_model` also
        has: weights of the residuals of used pixels, whose weighted sum is added to the quantity.
    held : callable, optional
        ``(model, params, linear, coords)`` -> arrays that both get as a last argument: what is worked out once, at the
        solution, and not differentiated.
    """

    from_model: Callable[..., dict[str, Any]] | None = None
    from_residuals: Callable[..., dict[str, Any]] | None = None
    held: Callable[..., Any] | None = None


def covariance_of(hessian: Array, options: LeastSquaresOptions) -> tuple[Array, Array]:
    """Invert the curvature (batch, n, n); also return which elements the data constrain.

    Parameters at a bound count as free: their error is what the curvature gives, never zero.
    Elements without any curvature, or degenerate with others to rounding, are not constrained;
    their rows and columns are zero here.
    """
    n = hessian.shape[1]
    if n == 0:
        return hessian, jnp.zeros(hessian.shape[:2], bool)
    diagonal = jnp.diagonal(hessian, axis1=1, axis2=2)
    felt = (diagonal > 0) & jnp.isfinite(diagonal)
    size = jnp.where(felt, jnp.sqrt(jnp.where(felt, diagonal, 1.0)), 1.0)
    mask = felt.astype(hessian.dtype)
    eye = jnp.eye(n, dtype=hessian.dtype)[None]
    scaled = hessian / (size[:, :, None] * size[:, None, :]) * mask[:, :, None] * mask[:, None, :] * (1.0 - eye) + eye
    inverse = inverse_spd(scaled, unrolled=False)
    # The inverse's diagonal is the variance inflation by correlations; near 1/eps it is only rounding.
    inflation = jnp.diagonal(inverse, axis1=1, axis2=2)
    felt = felt & (inflation < 1e-3 / jnp.finfo(hessian.dtype).eps) & (inflation > 0)
    keep = felt[:, :, None] & felt[:, None, :]
    return jnp.where(keep, inverse / (size[:, :, None] * size[:, None, :]), 0.0), felt


def finish(model: Any, options: LeastSquaresOptions, derived: Derived | None, block: Block, x: Array) -> dict[str, Any]:
    """Evaluate solutions: chi2, named values, errors, covariance, derived quantities.

    Returns a dict of arrays with a leading batch axis: ``chi2``, ``params`` and ``error`` (dicts by name), ``linear`` and
    ``linear_error``, ``own_error`` and ``correlation`` of the free parameters followed by the linear block (see
    `user_covariance`), ``x_error`` and ``unconstrained`` (bool) of each element of the free vector, ``derived`` and
    ``derived_error``; ``residuals``, and ``slopes`` and ``covariance`` of the first fits, where these are asked for.
    """
    n, n_lin = x.shape[1], n_linear(model, options)
    at = linearise(model, options, block, x)
    chi2, pixel_weight = loss(at.residual, block.root_weight, options)
    columns, design, _ = reweighted(at, pixel_weight)
    low, high = box_of(block)
    columns = [jnp.where((low < high)[:, j, None], column, 0.0) for j, column in enumerate(columns)]  # what is held isn't felt
    # In units of the noise the coefficients of the linear block are of order one, whatever the data's unit is.
    unit = unit_of(block.root_weight)
    everything = columns + [column / unit for column in design]
    hessian = gram(everything) if everything else jnp.zeros((x.shape[0], 0, 0), x.dtype)
    chi2, hessian, _ = add_priors(block, x, chi2, hessian, jnp.zeros((x.shape[0], n + n_lin), x.dtype))
    covariance, felt = covariance_of(hessian, options)
    found = report(model, derived, block, x, at, everything, covariance, felt, unit) | {"chi2": chi2}
    variance = jnp.diagonal(covariance, axis1=1, axis2=2)[:, :n]
    found["x_error"] = jnp.where(felt[:, :n], jnp.sqrt(jnp.maximum(variance, 0.0)), jnp.nan)
    if options.residual_sums:
        found["residuals"] = residual_sums(at.residual, block.root_weight > 0)
        # Of few fits it is worked out on the host what they take of the noise.
        found["slopes"] = tuple(column[:SAMPLE] for column in everything)
        found["covariance"] = covariance[:SAMPLE]
    return found


def report(
    model: Any,
    derived: Derived | None,
    block: Block,
    x: Array,
    at: Linearised,
    everything: list[Array],
    covariance: Array,
    felt: Array,
    unit: Array,
) -> dict[str, Any]:
    """Name the values at `x` and carry the `covariance` (batch, m, m) of the free vector and linear block to them.

    `everything` are the whitened slopes by both; `felt` (batch, m) says which of them the data constrain. The
    linear block counts in units of 1 / `unit` (batch, 1).
    """
    n, n_lin = x.shape[1], at.linear.shape[1]
    naive = covariance
    if block.correlation is not None:
        covariance = sandwich(naive, everything, block.correlation)
    theta = tuple(x[:, j] for j in range(n)) + tuple(at.linear[:, k] * unit[:, 0] for k in range(n_lin))
    steps = None
    if block.subtracted is not None:
        # By how much too little was subtracted, 0 for all we know: from here on its coefficients are parameters like the others.
        steps = two_steps(block.subtracted, block.root_weight / unit, everything, naive, covariance, block.correlation)
        theta += tuple(jnp.zeros_like(column[:, 0]) for column in steps.columns)
        felt = jnp.concatenate([felt, jnp.ones((felt.shape[0], len(steps.columns)), bool)], axis=1)
        everything, covariance = [*everything, *steps.columns], steps.covariance
    free = block.space.structure.free

    def split(theta: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        return theta[:n], jnp.stack(theta[n : n + n_lin]) if n_lin else jnp.zeros((0,), x.dtype)

    def seen(theta: tuple[Array, ...], coords: Any) -> Any:
        """Return the coordinates as far as they hold what was subtracted."""
        if block.subtracted is None or block.subtracted.shifted is None:
            return coords
        return block.subtracted.shifted(
            coords, sum(value * row for value, row in zip(theta[n + n_lin :], block.subtracted.basis))
        )

    def at_solution(function: Callable[..., Any], *held: Any) -> Callable[..., Any]:
        """Return `function(model, params, linear, coords, *held)` of one fit as one of `theta` of all of them."""

        def row(space: Any, given: tuple[tuple[Array, ...], Any], coords: Any) -> Any:
            xs, linear = split(given[0])
            return function(model, space.unpack(xs), linear, seen(given[0], coords), *given[1])

        mapped: Any = batched(row, block)
        return lambda theta: mapped(((*theta[:n], *(value / unit[:, 0] for value in theta[n:])), held))

    held = (at_solution(derived.held)(theta),) if derived and derived.held else ()

    def reported(model: Any, params: Any, linear: Array, coords: Any, *held: Any) -> tuple[Any, Any, Any]:
        own = [jnp.reshape(params[entry.name], (entry.size,)) for entry in free]
        quantities = derived.from_model(model, params, linear, coords, *held) if derived and derived.from_model else {}
        return params, jnp.concatenate([*own, linear]), quantities

    located = at_solution(reported, *held)
    values = located(theta)
    slopes = columns_of(lambda xs: located((*xs, *theta[n:])), theta[:n])
    slopes += columns_of(lambda linear: located((*theta[:n], *linear)), theta[n:], together=True)
    (params, _, quantities), (error, own_error, quantity_error) = values, _spread(values, slopes, covariance, felt)
    if derived and derived.from_residuals:
        sigma = jnp.where(block.root_weight > 0, 1.0 / jnp.where(block.root_weight > 0, block.root_weight, 1.0), 0.0)
        named = at_solution(derived.from_residuals, *held)(theta)
        whitened = jnp.stack([weight * sigma for weight in named.values()], axis=1)  # (batch, quantities, n_pix)
        # Squares of raw fluxes leave float32's range.
        size = jnp.max(jnp.abs(whitened), axis=2)
        size = jnp.where(size > 0, size, 1.0)
        whitened = whitened / size[:, :, None]
        overlap = jnp.einsum("bqp,bip->bqi", whitened, jnp.stack(everything, axis=1))
        gained = jnp.einsum("bqp,bp->bq", whitened, at.residual)
        own = jnp.stack([quantity_error[name] for name in named], axis=1) / size
        if block.correlation is None and steps is None:
            known = jnp.sum(overlap * jnp.einsum("bqi,bij->bqj", overlap, covariance), axis=2)
            variance = own**2 + jnp.maximum(jnp.sum(whitened**2, axis=2) - known, 0.0)
        else:  # the noise that moves the estimate moves the residuals too: all as one weighted sum of it
            slope = jnp.stack([jnp.stack([each[2][name] for name in named], axis=1) for each in slopes], axis=2)
            left = slope / size[:, :, None] - overlap
            moved = jnp.einsum("bqi,bij->bqj", left[:, :, : naive.shape[1]], naive)
            whole = whitened + jnp.einsum("bqj,bjp->bqp", moved, jnp.stack(everything[: naive.shape[1]], axis=1))
            if steps is None:
                variance = quadratic(whole, block.correlation)
            else:
                passed = jnp.einsum("bqi,bik->bqk", left, steps.passed)
                variance = quadratic(whole + jnp.einsum("bqk,bkp->bqp", passed, steps.response), block.correlation)
                variance = variance + jnp.einsum("bqk,bkl,bql->bq", passed, steps.extra, passed)
            variance = jnp.where(jnp.isnan(own), jnp.nan, variance)
        for q, name in enumerate(named):
            quantities[name] = quantities[name] + gained[:, q] * size[:, q]
            quantity_error[name] = jnp.sqrt(variance[:, q]) * size[:, q]
    own_slopes = jnp.stack([slope[1] for slope in slopes], axis=2) if slopes else jnp.zeros((x.shape[0], 0, 0), x.dtype)
    safe = jnp.where(own_error > 0, own_error, 1.0)[:, :, None]
    correlation = jnp.einsum("bij,bjk,blk->bil", own_slopes / safe, covariance, own_slopes / safe)
    return {
        "params": params,
        "error": error,
        "linear": at.linear,
        "linear_error": own_error[:, -n_lin:] if n_lin else own_error[:, :0],
        "own_error": own_error,
        "correlation": correlation,
        "unconstrained": ~felt[:, :n],
        "derived": quantities,
        "derived_error": quantity_error,
    }


def _spread(values: Any, slopes: list[Any], covariance: Array, felt: Array) -> Any:
    """Carry the covariance of theta to a tree of quantities (batch, ...), all in one product."""
    leaves, tree = jax.tree.flatten(values)
    if not slopes:
        return jax.tree.map(jnp.zeros_like, values)
    batch = leaves[0].shape[0]
    flat = jnp.stack(
        [jnp.concatenate([leaf.reshape(batch, -1) for leaf in jax.tree.leaves(slope)], axis=1) for slope in slopes], axis=1
    )
    # Squares of raw fluxes leave float32's range: each quantity is measured by its steepest slope.
    size = jnp.max(jnp.abs(flat), axis=1)
    size = jnp.where(size > 0, size, 1.0)
    unit = flat / size[:, None, :]
    variance = jnp.sum(unit * jnp.einsum("bij,bjq->biq", covariance, unit), axis=1)
    # A quantity that rests on an unconstrained parameter has no error; a fixed one has the error zero.
    lost = jnp.any((flat != 0) & ~felt[:, :, None], axis=1)
    errors = jnp.where(lost, jnp.nan, jnp.sqrt(jnp.maximum(variance, 0.0)) * size)
    result, first = [], 0
    for leaf in leaves:
        size = leaf.size // batch
        result.append(errors[:, first : first + size].reshape(leaf.shape))
        first += size
    return jax.tree.unflatten(tree, result)


def user_covariance(end: dict[str, Any]) -> np.ndarray:
    """Covariance (batch, m, m) of the free parameters in user units and the linear block, in float64 on the host.

    NaN for what the data do not constrain.
    """
    error = np.asarray(end["own_error"], dtype=np.float64)
    return np.asarray(end["correlation"], dtype=np.float64) * error[:, :, None] * error[:, None, :]
