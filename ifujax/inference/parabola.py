"""Whether chi2 rises as errors say it does, two errors away from the minimum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ifujax.inference.batching import choose_devices, padded, run_blocks
from ifujax.inference.cholesky import solve_spd
from ifujax.inference.evaluation import Block, Evaluation, add_priors, as_model, box_of, evaluate, linearise, loss
from ifujax.inference.observations import Observations
from ifujax.inference.options import DEFAULT_OPTIONS, LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.runner import Runner
from ifujax.inference.uncertainty import covariance_of

_STEPS = (-2.0, 2.0)
_LEAST_RISE = 0.25
"""Of what the parabola says, what chi2 must rise by two errors away: as much as it should at one."""
_LEAST = 0.2
"""Rises that the parabola puts below this, next to a bound, say nothing."""
_DAMPING = 1e-3


def errors_hold(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    x: np.ndarray,
    *,
    options: LeastSquaresOptions = DEFAULT_OPTIONS,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    blocks_for: int = 1,
) -> np.ndarray:
    """Return which parameters have errors that chi2 itself bears out.

    Each parameter that the model isn't linear in is moved by two errors to either side, within the bounds, and the others are
    fitted again by a Gauss-Newton step. Where chi2 then rises by less than a quarter of what the parabola through the curvature
    has there, so by less than it should one error away, the stated error is too small by a factor of two or more. Whether a
    parameter rests at a bound is another matter (`AT_BOUND`).

    Parameters
    ----------
    model, space, obs, options, precision, devices, blocks_for
        As for `ifujax.fit_batch`. Single precision will do.
    x : array (batch, n)
        Solutions, as free vectors (`FitResult.x`).

    Returns
    -------
    array (batch, n) of bool
        True for what the model is linear in, for what has no error, and in rows of NaN.

    Notes
    -----
    The lowest chi2 that is left with a parameter held at a value is its profile; where it rises by 4 is the end of the 95 %
    interval, by 1 that of the 68 % interval (Avni 1976, ApJ 210, 642; Press et al., Numerical Recipes, section 15.6). Errors of
    what rises faster than the parabola are too large, which nobody needs to be warned of.

    Examples
    --------
    >>> import numpy as np
    >>> from ifujax import Bounded, Observations, ParameterSpace, fit_batch
    >>> from ifujax.inference.parabola import errors_hold
    >>> def decay(params, t):
    ...     return params["height"] * 2.0 ** (-params["rate"] * t)
    >>> t = np.linspace(0, 4, 40)
    >>> y = np.stack([decay({"height": height, "rate": 1.0}, t) for height in (100.0, 0.5)])
    >>> space = ParameterSpace.build({"height": Bounded(0.0), "rate": Bounded(0.0)})
    >>> obs = Observations(y, np.ones_like(y), t, None)
    >>> fit = fit_batch(decay, space, obs, {"height": 10.0, "rate": 0.7})
    >>> errors_hold(decay, space, obs, fit.x).all(axis=1).tolist()
    [True, False]
    """
    actual, said, which = rises(
        model, space, obs, x, options=options, precision=precision, devices=devices, blocks_for=blocks_for
    )
    holds = np.ones(x.shape, bool)
    with np.errstate(invalid="ignore"):
        low = (said >= _LEAST) & ~(actual > _LEAST_RISE * said)
    holds[:, which] = np.logical_not(low.any(axis=2))
    return holds


def rises(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    x: np.ndarray,
    *,
    options: LeastSquaresOptions = DEFAULT_OPTIONS,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    blocks_for: int = 1,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return by how much chi2 rises, and the parabola says it does, two errors below and above: (batch, parameters, 2) each.

    Zeros for parameters without an error, and rows of NaN. Last, which elements of the free vector these parameters are. What is
    asked for is as of `errors_hold`.
    """
    model = as_model(model)
    runner = Runner(model, space, obs, options, None, precision, choose_devices(devices), blocks_for)
    size = runner.block_size(obs.batch)
    known = np.asarray(np.isfinite(x).all(axis=1))
    at = np.where(known[:, None], x, 0.0).astype(runner.dtype)
    which = _not_linear(model, space)

    def task(rows: np.ndarray, device: Any) -> Any:
        full = padded(rows, size)
        end = _rises(runner.models[precision], options, which, runner.block(full, precision), at[full])
        return [np.asarray(each, dtype=np.float64)[: len(rows)] for each in end]

    parts = [result for _, result in run_blocks(task, np.arange(obs.batch), size, runner.devices, precision)]
    actual, said = (np.concatenate([part[k] for part in parts]) for k in range(2))
    actual[~known], said[~known] = 0.0, 0.0
    return actual, said, list(which)


def _not_linear(model: Any, space: ParameterSpace) -> tuple[int, ...]:
    """Elements of the free vector that the model isn't linear in; all of them where it doesn't say."""
    linear = set(getattr(model, "linear_in", ()))
    owners = [entry.name for entry in space.structure.free for _ in range(entry.size)]
    some = tuple(j for j, owner in enumerate(owners) if owner not in linear)
    return some or tuple(range(len(owners)))


@partial(jax.jit, static_argnums=(1, 2))
def _rises(model: Any, options: LeastSquaresOptions, which: tuple[int, ...], block: Block, x: Array) -> tuple[Array, Array]:
    """By how much chi2 rises at the steps, and by how much the parabola does: (batch, parameters, steps) each."""
    low, high = box_of(block)
    here = evaluate(model, options, block, x)
    movable = low < high
    both = movable[:, :, None] & movable[:, None, :]
    hessian = jnp.where(both, here.hessian, 0.0)
    covariance, felt = covariance_of(hessian, options)
    error = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0.0))
    directions = jnp.where(felt[:, None, :], covariance / jnp.where(error > 0, error, 1.0)[:, :, None], 0.0)
    moves = jnp.stack([step * directions[:, j] for j in which for step in _STEPS])  # (moves, batch, n)
    held = jnp.stack([jnp.arange(x.shape[1]) == j for j in which for _ in _STEPS])

    def chi2_at(trial: Array) -> Array:
        chi2 = loss(linearise(model, options, block, trial, slopes=False).residual, block.root_weight, options)[0]
        return add_priors(block, trial, chi2, jnp.zeros_like(hessian), jnp.zeros_like(x))[0]

    def rise(carry: None, task: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        move, mine = task
        trial = jnp.clip(x + move, low, high)
        moved = trial - x
        bow = jnp.einsum("bi,bij,bj->b", moved, hessian, moved)
        there = evaluate(model, options, block, trial)
        resting = ((trial <= low) & (there.gradient <= 0)) | ((trial >= high) & (there.gradient >= 0))
        step = _newton_step(there, felt & movable & ~resting & ~mine[None])
        again = chi2_at(jnp.clip(trial + step, low, high))
        lowest = jnp.fmin(there.chi2, again)
        return carry, (lowest - here.chi2, bow - 2 * jnp.sum(here.gradient * moved, axis=1))

    _, (actual, said) = lax.scan(rise, None, (moves, held))
    shape = (len(which), len(_STEPS), x.shape[0])
    actual, said = (jnp.moveaxis(each.reshape(shape), 2, 0) for each in (actual, said))
    return actual, said


def _newton_step(at: Evaluation, free: Array) -> Array:
    """Gauss-Newton step of some elements (batch, n), the others held."""
    mask = free.astype(at.gradient.dtype)
    diagonal = jnp.diagonal(at.hessian, axis1=1, axis2=2)
    size = jnp.where(diagonal > 0, jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0)), 1.0)
    eye = jnp.eye(mask.shape[1], dtype=mask.dtype)[None]
    scaled = at.hessian / (size[:, :, None] * size[:, None, :]) * mask[:, :, None] * mask[:, None, :] * (1.0 - eye)
    return solve_spd(scaled + (1.0 + _DAMPING) * eye, at.gradient / size * mask, unrolled=False) / size * mask
