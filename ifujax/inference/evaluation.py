"""One look at a batch of fits: chi2, normal matrix and gradient at given parameters.

Shared by the least-squares loop, the errors and the joint fits. A model is written for one
spectrum; here it is batched, differentiated column by column (so that a parameter which touches
one line costs one line), whitened, and its linear block, if it has one, is solved and projected
out (Kaufman's approximation of variable projection: Golub & Pereyra 2003, Inverse Problems 19).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ifujax.errors import UsageError
from ifujax.inference.cholesky import solve_spd
from ifujax.inference.nonnegative import solve_nonnegative
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace

_MANY_INPUTS = 64
_REWEIGHTINGS = 60
"""Each leaves a third of the distance to the minimum, or more with many outliers."""
_SETTLED = 1e-13
"""Change of the model in units of its errors, squared and summed, at which a reweighted block stands."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "root_weight", "coords", "space", "correlation", "subtracted"],
    meta_fields=["coords_axes"],
)
@dataclass(frozen=True)
class Block:
    """A block of fits on the device. `root_weight` is 1 / sigma, 0 = masked; `space` has a batch axis.

    `coords_axes` is the flat tuple of 0 / None over the leaves of `coords`: static and hashable. `correlation` (batch, lags)
    is the noise's along the pixels, None where it is independent. `subtracted` is a `Subtracted` of these fits, in units of 1
    over the largest root weight; None where nothing was subtracted or no errors are asked for.
    """

    values: Array
    root_weight: Array
    coords: Any
    space: ParameterSpace
    coords_axes: tuple[int | None, ...]
    correlation: Any = None
    subtracted: Any = None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["chi2", "hessian", "gradient"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate` for each row.

    ``chi2 (batch,)``; ``hessian (batch, n, n)`` = J^T W J and ``gradient (batch, n)`` = J^T W r
    of the free parameters, the linear block projected out.
    """

    chi2: Array
    hessian: Array
    gradient: Array


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["whole"])
@dataclass(frozen=True)
class StaticModel:
    """A model that holds no numbers to trace, such as a plain function: compiled anew for each that is not equal."""

    whole: Any

    def __call__(self, params: Any, coords: Any) -> Any:
        return self.whole(params, coords)

    def __getattr__(self, name: str) -> Any:
        if name == "whole":  # not yet set: while being copied
            raise AttributeError(name)
        return getattr(self.whole, name)


def as_model(model: Any) -> Any:
    """Return `model` as a pytree: itself where it is one, wrapped where it is a function or another hashable object.

    Raises
    ------
    UsageError
        For anything else.
    """
    if not jax.tree_util.all_leaves([model]):
        return model
    if not (callable(model) or hasattr(model, "design")) or getattr(model, "__hash__", None) is None:
        raise UsageError(
            f"model must be a function, a hashable callable or a registered pytree; got {type(model).__name__}. "
            "Make it a frozen dataclass registered with jax.tree_util.register_dataclass."
        )
    return StaticModel(model)


def box_of(block: Block) -> tuple[Array, Array]:
    """Return the limits of the free vector, each (batch, n)."""
    low, high = jax.vmap(lambda space: tuple(map(tuple, space.box())))(block.space)
    if not low:
        empty = jnp.zeros((block.values.shape[0], 0), block.values.dtype)
        return empty, empty
    return jnp.stack(low, axis=1), jnp.stack(high, axis=1)


def batched(function: Callable[..., Any], block: Block) -> Callable[..., Any]:
    """Return `function(space, xs, coords)`, written for one row, as a function of a tuple of (batch,) arrays."""
    leaves, tree = jax.tree.flatten(block.coords)

    def row(space: ParameterSpace, xs: tuple[Array, ...], *leaves: Array) -> Any:
        return function(space, xs, jax.tree.unflatten(tree, leaves))

    if block.values.shape[0] == 1:
        # Images: XLA's code for a batch of one takes twice the time
        first = partial(jax.tree.map, lambda leaf: leaf[0])
        own = [leaf if axis is None else leaf[0] for leaf, axis in zip(leaves, block.coords_axes)]
        return lambda xs: jax.tree.map(lambda leaf: leaf[None], row(first(block.space), first(xs), *own))
    mapped = jax.vmap(row, in_axes=(0, 0, *block.coords_axes))
    return lambda xs: mapped(block.space, xs, *leaves)


def columns_of(function: Callable[[tuple[Array, ...]], Any], xs: Sequence[Array], *, together: bool = False) -> list[Any]:
    """Return the derivative of `function` by each of `xs`, one tangent at a time.

    Each pass sees one live input, so that what does not depend on it drops out at trace time. Where all
    inputs matter alike (`together`), and beyond `_MANY_INPUTS`, one trace serves all.
    """
    if (together and xs) or len(xs) > _MANY_INPUTS:
        units = jnp.broadcast_to(jnp.eye(len(xs), dtype=xs[0].dtype)[:, :, None], (len(xs), len(xs), xs[0].shape[0]))
        every = jax.vmap(lambda *unit: jax.jvp(function, (tuple(xs),), (unit,))[1])(*(units[:, j] for j in range(len(xs))))
        return [jax.tree.map(lambda leaf, j=j: leaf[j], every) for j in range(len(xs))]

    def by_one(j: int) -> Any:
        def along(x: Array) -> Any:
            return function((*xs[:j], x, *xs[j + 1 :]))

        return jax.jvp(along, (xs[j],), (jnp.ones_like(xs[j]),))[1]

    return [by_one(j) for j in range(len(xs))]


def design_columns(model: Any, params: Any, coords: Any) -> tuple[tuple[Array, ...], Array]:
    """Return the model's linear block as a tuple of columns, and the offset."""
    design, offset = model.design(params, coords)
    if not isinstance(design, (tuple, list)):
        design = [design[:, k] for k in range(design.shape[1])]
    return tuple(design), offset


def n_linear(model: Any, options: LeastSquaresOptions) -> int:
    """Number of coefficients in the model's eliminated linear block."""
    return len(model.linear_names) if options.linear != "keep" else 0


def gram(columns: Sequence[Array]) -> Array:
    """Return the (batch, n, n) matrix of inner products of `columns`, each (batch, n_pix)."""
    stacked = jnp.stack(columns, axis=1)
    return jnp.einsum("bip,bjp->bij", stacked, stacked)


def inner(columns: Sequence[Array], others: Sequence[Array]) -> Array:
    """Return (batch, n, m): inner products of `columns` with `others`."""
    return jnp.einsum("bip,bjp->bij", jnp.stack(columns, axis=1), jnp.stack(others, axis=1))


def solve_linear_block(gram_matrix: Array, rhs: Array, options: LeastSquaresOptions) -> tuple[Array, Array]:
    """Solve the linear block's normal equations; also return which coefficients are free (0/1)."""
    scale = _root_diagonal(gram_matrix)
    live = (scale > 0).astype(rhs.dtype)
    safe = jnp.where(scale > 0, scale, 1.0)
    eye = jnp.eye(rhs.shape[1], dtype=rhs.dtype)[None]
    scaled = gram_matrix / (safe[:, :, None] * safe[:, None, :])
    scaled = jnp.where(eye > 0, 1.0, scaled)
    unrolled = options.unrolled(rhs.shape[1])
    if options.linear == "nnls":
        solution, free = solve_nonnegative(scaled, rhs / safe, unrolled=unrolled)
        return solution / safe * live, free * live
    return solve_spd(scaled, rhs / safe, unrolled=unrolled) / safe * live, live


def _robust_block(
    whole: list[Array], residual: Array, weight: Array, start: tuple[Array, Array], options: LeastSquaresOptions
) -> tuple[Array, Array]:
    """Return the linear block that minimises a robust loss, by reweighting: one solved by plain squares is no minimum of it."""
    stacked = jnp.stack(whole, axis=1)

    total = jnp.sum(residual * residual, axis=1)
    little = jnp.maximum(_SETTLED, 16.0 * jnp.finfo(residual.dtype).eps ** 2 * total)

    def again(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        found, _, _, step = carry
        left = residual - jnp.einsum("bk,bkp->bp", found, stacked)
        root: Any = loss(left, weight, options)[1]
        columns = stacked * root[:, None, :]
        normal = jnp.einsum("bip,bjp->bij", columns, columns)
        solved, free = solve_linear_block(normal, jnp.einsum("bip,bp->bi", columns, residual * root), options)
        moved = jnp.sum(jnp.einsum("bk,bkp->bp", solved - found, stacked) ** 2, axis=1)
        return solved, free, moved, step + 1

    def going(carry: tuple[Array, Array, Array, Array]) -> Array:
        return (carry[3] < _REWEIGHTINGS) & jnp.any(carry[2] > little)

    first = (*start, jnp.full(total.shape, jnp.inf, total.dtype), jnp.zeros((), jnp.int32))
    return lax.while_loop(going, again, first)[:2]


@dataclass(frozen=True)
class Linearised:
    """The whitened problem at some parameters, each array (batch, n_pix).

    `residual` = (data - model) / sigma; `columns` and `design` the whitened slopes by the free
    vector and by the linear block; ``linear (batch, K)`` its solution, `free` which of it is free.
    """

    residual: Array
    columns: list[Array]
    design: list[Array]
    linear: Array
    free: Array


def linearise(model: Any, options: LeastSquaresOptions, block: Block, x: Array, *, slopes: bool = True) -> Linearised:
    """Solve the linear block at `x` (batch, n), and differentiate the model there, unless no `slopes` are wanted."""
    columns: list[Array] = []
    xs = tuple(x[:, j] for j in range(x.shape[1]))
    weight = block.root_weight
    if options.linear == "keep":
        predict = batched(lambda space, xs, coords: model(space.unpack(xs), coords), block)
        residual = (block.values - predict(xs)) * weight
        empty = jnp.zeros((x.shape[0], 0), x.dtype)
        if slopes:
            columns = [column * weight for column in columns_of(predict, xs)]
        return Linearised(residual, columns, [], empty, empty)
    parts = batched(lambda space, xs, coords: design_columns(model, space.unpack(xs), coords), block)
    design, offset = parts(xs)
    whitened = [column * weight for column in design]
    residual = (block.values - offset) * weight
    unit = unit_of(weight)
    whole = [column / unit for column in whitened]
    scaled, free = solve_linear_block(gram(whole), inner(whole, [residual])[:, :, 0], options)
    if options.loss != "gaussian":
        scaled, free = _robust_block(whole, residual, weight, (scaled, free), options)
    for k, column in enumerate(whole):
        residual = residual - scaled[:, k, None] * column
    linear = scaled / unit

    def predict_at(xs: tuple[Array, ...]) -> Array:
        design, offset = parts(xs)
        for k, column in enumerate(design):
            offset = offset + linear[:, k, None] * column
        return offset

    if slopes:
        columns = [column * weight for column in columns_of(predict_at, xs)]
    return Linearised(residual, columns, whitened, linear, free)


def evaluate(model: Any, options: LeastSquaresOptions, block: Block, x: Array) -> Evaluation:
    """Evaluate a batch of fits at free vectors `x` (batch, n)."""
    n = x.shape[1]
    at = linearise(model, options, block, x)
    chi2, pixel_weight = loss(at.residual, block.root_weight, options)
    columns, design, residual = reweighted(at, pixel_weight)
    hessian = gram(columns) if n else jnp.zeros((x.shape[0], 0, 0), x.dtype)
    gradient = inner(columns, [residual])[:, :, 0] if n else jnp.zeros((x.shape[0], 0), x.dtype)
    if design and n:
        # Coefficients held at zero by the non-negative solve take no part in the projection.
        unit = unit_of(block.root_weight)
        design = [column / unit for column in design]
        cross = inner(columns, design) * at.free[:, None, :]
        linear_hessian = gram(design) * at.free[:, :, None] * at.free[:, None, :]
        hessian = hessian - _projection(linear_hessian, cross, options)
    chi2, hessian, gradient = add_priors(block, x, chi2, hessian, gradient)
    return Evaluation(chi2, hessian, gradient)


def unit_of(weight: Array) -> Array:
    """Return each row's largest root weight (batch, 1): without it squares of the design leave float32's range."""
    largest = jnp.max(weight, axis=1, keepdims=True)
    return jnp.where(largest > 0, largest, 1.0)


def reweighted(at: Linearised, pixel_weight: Array | None) -> tuple[list[Array], list[Array], Array]:
    """Return columns, design and residual with a robust loss's root weights applied."""
    if pixel_weight is None:
        return at.columns, at.design, at.residual
    return [c * pixel_weight for c in at.columns], [d * pixel_weight for d in at.design], at.residual * pixel_weight


def _projection(linear_hessian: Array, cross: Array, options: LeastSquaresOptions) -> Array:
    """Return ``cross @ inverse(linear_hessian) @ cross^T``."""
    scale = _root_diagonal(linear_hessian)
    safe = jnp.where(scale > 0, scale, 1.0)
    eye = jnp.eye(scale.shape[1], dtype=scale.dtype)[None]
    scaled = jnp.where(eye > 0, 1.0, linear_hessian / (safe[:, :, None] * safe[:, None, :]))
    rhs = jnp.swapaxes(cross / safe[:, None, :], 1, 2)
    solved = solve_spd(scaled, rhs, unrolled=options.unrolled(scale.shape[1]))
    return jnp.einsum("bki,bkj->bij", rhs, solved)


def loss(residual: Array, weight: Array, options: LeastSquaresOptions) -> tuple[Array, Array | None]:
    """Return the objective of each row and, where the loss is robust, the root weight of each pixel."""
    if options.loss == "gaussian":
        return jnp.sum(residual * residual, axis=1), None
    nu = options.degrees
    good = weight > 0
    scaled = residual * residual / nu
    objective = jnp.sum(jnp.where(good, (nu + 1.0) * jnp.log1p(scaled), 0.0), axis=1)
    return objective, jnp.sqrt((nu + 1.0) / (nu * (1.0 + scaled)))


def add_priors(block: Block, x: Array, chi2: Array, hessian: Array, gradient: Array) -> tuple[Array, Array, Array]:
    """Add Gaussian priors as further rows; `hessian` may hold a linear block after the free vector."""
    if not any(entry.has_residual for entry in block.space.structure.entries):
        return chi2, hessian, gradient
    n = x.shape[1]
    xs = tuple(x[:, j] for j in range(n))
    mapped = jax.vmap(lambda space, xs: tuple(space.prior_residuals(space.unpack(xs))), in_axes=(0, 0))

    def rows_at(xs: tuple[Array, ...]) -> Array:
        return jnp.stack(mapped(block.space, xs), axis=1)

    rows = rows_at(xs)
    columns = [-column for column in columns_of(rows_at, xs)]  # residual is (mean - value): J of the model is minus its slope
    chi2 = chi2 + jnp.sum(rows * rows, axis=1)
    return chi2, hessian.at[:, :n, :n].add(gram(columns)), gradient.at[:, :n].add(inner(columns, [rows])[:, :, 0])


def _root_diagonal(matrix: Array) -> Array:
    return jnp.sqrt(jnp.maximum(jnp.diagonal(matrix, axis1=1, axis2=2), 0.0))
