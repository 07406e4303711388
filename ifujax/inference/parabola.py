"""Whether chi2 is the parabola that errors assume, one and two errors away from the minimum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ifujax.inference.batching import choose_devices, padded, run_blocks
from ifujax.inference.evaluation import Block, add_priors, as_model, box_of, evaluate, linearise, loss
from ifujax.inference.observations import Observations
from ifujax.inference.options import DEFAULT_OPTIONS, Options
from ifujax.inference.parameters import ParameterSpace
from ifujax.inference.runner import Runner
from ifujax.inference.uncertainty import covariance_of

_STEPS = (-2.0, -1.0, 1.0, 2.0)
_LIMITS = {1.0: (0.5, 2.0), 2.0: (0.4, 2.5)}
"""Between which multiples of the parabola chi2 may rise at one and at two errors."""
_LEAST = 0.2
"""Rises that the parabola puts below this, next to a bound, say nothing."""


def errors_hold(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    x: np.ndarray,
    *,
    options: Options = DEFAULT_OPTIONS,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    blocks_for: int = 1,
) -> np.ndarray:
    """Return whether chi2 rises around solutions as their errors say.

    Each parameter that the model isn't linear in is moved by one and two errors to either side, with the others following as
    the covariance says and the linear block solved for; within the bounds. Where chi2 rises by less than half or more than
    twice what the parabola through the curvature has there, intervals from that curvature are not to be trusted. Whether a
    parameter rests at a bound is another matter (`AT_BOUND`).

    Parameters
    ----------
    model, space, obs, options, precision, devices, blocks_for
        As for `ifujax.fit_batch`.
    x : array (batch, n)
        Solutions, as free vectors (`FitResult.x`).

    Returns
    -------
    array (batch,) of bool
        True for rows of NaN too, which have no errors.

    Notes
    -----
    For Gaussian noise a rise of 1 and 4 bounds the 68 and 95 % intervals of a parameter (Avni 1976, ApJ 210, 642; Press et al.,
    Numerical Recipes, section 15.6): where the parabola has another rise there, its errors are those of other intervals.

    Examples
    --------
    >>> import numpy as np
    >>> from ifujax import Bounded, Observations, ParameterSpace, fit_batch
    >>> from ifujax.inference.parabola import errors_hold
    >>> def decay(params, t):
    ...     return params["height"] * 2.0 ** (-params["rate"] * t)
    >>> t = np.linspace(0, 4, 40)
    >>> y = np.stack([decay({"height": height, "rate": 1.0}, t) for height in (100.0, 1.0)])
    >>> space = ParameterSpace.build({"height": Bounded(0.0), "rate": Bounded(0.0)})
    >>> obs = Observations(y, np.ones_like(y), t, None)
    >>> fit = fit_batch(decay, space, obs, {"height": 10.0, "rate": 0.7})
    >>> errors_hold(decay, space, obs, fit.x).tolist()
    [True, False]
    """
    actual, said = rises(model, space, obs, x, options=options, precision=precision, devices=devices, blocks_for=blocks_for)
    holds = np.ones(len(x), bool)
    for k, step in enumerate(_STEPS):
        low, high = _LIMITS[abs(step)]
        with np.errstate(invalid="ignore"):
            off = (said[:, :, k] > _LEAST) & ~((actual[:, :, k] > low * said[:, :, k]) & (actual[:, :, k] < high * said[:, :, k]))
        holds &= ~off.any(axis=1)
    return holds


def rises(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    x: np.ndarray,
    *,
    options: Options = DEFAULT_OPTIONS,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    blocks_for: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much chi2 rises, and the parabola says it does, at -2, -1, 1, 2 errors: (batch, parameters, 4) each.

    Parameters are those of `errors_hold`. Zeros for parameters without an error, and rows of NaN.
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
        return jax.tree.map(lambda leaf: np.asarray(leaf, dtype=np.float64)[: len(rows)], end)

    parts = [result for _, result in run_blocks(task, np.arange(obs.batch), size, runner.devices, precision)]
    actual, said = (np.concatenate([part[k] for part in parts]) for k in range(2))
    actual[~known], said[~known] = 0.0, 0.0
    return actual, said


def _not_linear(model: Any, space: ParameterSpace) -> tuple[int, ...]:
    """Elements of the free vector that the model isn't linear in; all of them where it doesn't say."""
    linear = set(getattr(model, "linear_in", ()))
    owners = [entry.name for entry in space.structure.free for _ in range(entry.size)]
    some = tuple(j for j, owner in enumerate(owners) if owner not in linear)
    return some or tuple(range(len(owners)))


@partial(jax.jit, static_argnums=(1, 2))
def _rises(model: Any, options: Options, which: tuple[int, ...], block: Block, x: Array) -> tuple[Array, Array]:
    low, high = box_of(block)
    here = evaluate(model, options, block, x)
    free = (low < high).astype(x.dtype)
    hessian = here.hessian * free[:, :, None] * free[:, None, :]
    covariance, felt = covariance_of(hessian, options)
    error = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0.0))
    directions = jnp.where(felt[:, None, :], covariance / jnp.where(error > 0, error, 1.0)[:, :, None], 0.0)
    moves = jnp.stack([step * directions[:, j] for j in which for step in _STEPS])  # (moves, batch, n)

    def chi2_at(carry: None, move: Array) -> tuple[None, tuple[Array, Array]]:
        trial = jnp.clip(x + move, low, high)
        moved = trial - x
        residual = linearise(model, options, block, trial, slopes=False).residual
        chi2 = loss(residual, block.root_weight, options)[0]
        none = jnp.zeros((x.shape[0], x.shape[1]), x.dtype)
        chi2 = add_priors(block, trial, chi2, jnp.zeros_like(hessian), none)[0]
        bow = jnp.einsum("bi,bij,bj->b", moved, hessian, moved)
        return carry, (chi2 - here.chi2, bow - 2 * jnp.sum(here.gradient * moved, axis=1))

    _, (actual, said) = lax.scan(chi2_at, None, moves)
    shape = (len(which), len(_STEPS), x.shape[0])
    actual, said = (jnp.moveaxis(each.reshape(shape), 2, 0) for each in (actual, said))
    return actual, said
