"""The batched Levenberg-Marquardt iteration: pure JAX, one state for a block of fits.

Damping follows Nielsen (1999, IMM-REP-1999-05) with Marquardt's diagonal scaling. Boxes are kept by
an active set: a parameter at its bound whose gradient points outward rests for that step, and one
whose step would cross its bound is put there before the others are solved again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ifujax.inference.cholesky import solve_spd
from ifujax.inference.evaluation import Block, Evaluation, evaluate, n_linear
from ifujax.inference.options import Options

RUNNING, CONVERGED, FAILED = 0, 1, 2
FIRST_DAMPING = 1e-3
_LARGEST_DAMPING = 1e12


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "chi2", "hessian", "gradient", "curvature", "damping", "growth", "n_iter", "phase"],
    meta_fields=[],
)
@dataclass(frozen=True)
class State:
    """Where each fit of a block stands. `phase` is RUNNING, CONVERGED or FAILED; chi2 is infinite before the start."""

    x: Array
    chi2: Array
    hessian: Array
    gradient: Array
    curvature: Array
    damping: Array
    growth: Array
    n_iter: Array
    phase: Array


def box_of(block: Block) -> tuple[Array, Array]:
    """Return the limits of the free vector, each (batch, n)."""
    low, high = jax.vmap(lambda space: tuple(map(tuple, space.box())))(block.space)
    if not low:
        empty = jnp.zeros((block.values.shape[0], 0), block.values.dtype)
        return empty, empty
    return jnp.stack(low, axis=1), jnp.stack(high, axis=1)


def advance(model: Any, options: Options, block: Block, state: State, n_steps: Array) -> State:
    """Run up to `n_steps` iterations, or fewer when every row has ended.

    A row that has not been evaluated yet has an infinite chi2: its first iteration evaluates the
    start, pulled into the box. (One evaluation in the program, so half the compilation.)
    """
    low, high = box_of(block)
    n = state.x.shape[1]
    unrolled = options.unrolled(n)
    n_good = jnp.sum(block.root_weight > 0, axis=1)
    dof = jnp.maximum(n_good - n - n_linear(model, options), 1).astype(state.x.dtype)
    total = jnp.sum((block.values * block.root_weight) ** 2, axis=1)
    eps = jnp.finfo(state.x.dtype).eps

    def step(carry: tuple[State, Array]) -> tuple[State, Array]:
        now, k = carry
        fresh = jnp.isinf(now.chi2)
        move = jnp.where(fresh[:, None], 0.0, _box_step(now, low, high, unrolled))
        bent = now.hessian + now.curvature
        predicted = jnp.sum(move * (2 * now.gradient - _times(bent, move)), axis=1)
        trial_x = jnp.clip(now.x + move, low, high)
        trial = evaluate(model, options, block, trial_x)
        finite = jnp.isfinite(trial.chi2) & jnp.all(jnp.isfinite(trial.gradient), axis=1)
        gain = now.chi2 - jnp.where(finite, trial.chi2, jnp.inf)
        # What the undamped step would promise, whatever the damping of this one.
        promise = predicted * (1.0 + now.damping)
        # chi2 is a sum known to rounding only: promises below that can't be checked.
        known_to = 2 * eps * now.chi2 + (10 * eps) ** 2 * total
        small = ~fresh & (promise <= options.tolerance * now.chi2 / dof + known_to)
        accepted = finite & ((gain > 0) | (small & (gain >= -options.tolerance * now.chi2 / dof - known_to)))
        ratio = gain / jnp.maximum(predicted, jnp.finfo(predicted.dtype).tiny)
        eased = jnp.maximum(now.damping * jnp.clip(1.0 - (2.0 * ratio - 1.0) ** 3, 0.33, 2.0), 1e-9)
        damping = jnp.where(fresh, now.damping, jnp.where(accepted, eased, now.damping * now.growth))
        growth = jnp.where(accepted, 2.0, now.growth * 2.0)
        stuck = (damping > _LARGEST_DAMPING) | (fresh & ~finite)
        running = now.phase == RUNNING
        phase = jnp.where(small, CONVERGED, jnp.where(stuck, FAILED, RUNNING)).astype(jnp.int32)
        take = running & accepted

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(take.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

        after = State(
            x=choose(trial_x, now.x),
            chi2=choose(trial.chi2, now.chi2),
            hessian=choose(trial.hessian, now.hessian),
            gradient=choose(trial.gradient, now.gradient),
            curvature=jnp.where(
                (running & ~fresh)[:, None, None], _curvature(now, trial, move, accepted), now.curvature
            ),
            damping=jnp.where(running, damping, now.damping),
            growth=jnp.where(running, growth, now.growth),
            n_iter=now.n_iter + (running & ~fresh),
            phase=jnp.where(running, phase, now.phase),
        )
        return after, k + 1

    def unfinished(carry: tuple[State, Array]) -> Array:
        now, k = carry
        return (k < n_steps) & jnp.any(now.phase == RUNNING)

    return lax.while_loop(unfinished, step, (state, jnp.zeros((), jnp.int32)))[0]


def _times(matrix: Array, vector: Array) -> Array:
    return jnp.sum(matrix * vector[:, None, :], axis=2)


def _curvature(now: State, trial: Evaluation, move: Array, accepted: Array) -> Array:
    """Update the estimate of what J^T J leaves out of the Hessian: NL2SOL's secant update.

    Dennis, Gay & Welsch (1981, ACM TOMS 7, 348), with their sizing. A rejected step drops the estimate.
    """
    change = now.gradient - trial.gradient
    wanted = change - _times(trial.hessian, move)
    along = jnp.sum(move * change, axis=1)
    old = _times(now.curvature, move)
    bend = jnp.abs(jnp.sum(move * old, axis=1))
    size = jnp.where(bend > 0, jnp.minimum(1.0, jnp.abs(jnp.sum(move * wanted, axis=1)) / jnp.where(bend > 0, bend, 1.0)), 1.0)
    missing = wanted - size[:, None] * old
    usable = accepted & (along > 0)
    safe = jnp.where(usable, along, 1.0)[:, None, None]
    outer = missing[:, :, None] * change[:, None, :]
    update = (outer + jnp.swapaxes(outer, 1, 2)) / safe - (
        jnp.sum(move * missing, axis=1)[:, None, None] * change[:, :, None] * change[:, None, :] / safe**2
    )
    return jnp.where(usable[:, None, None], size[:, None, None] * now.curvature + update, 0.0)


def _box_step(state: State, low: Array, high: Array, unrolled: bool) -> Array:
    """Return the damped step of each row that stays within its box."""
    x, hessian, gradient = state.x, state.hessian + state.curvature, state.gradient
    diagonal = jnp.diagonal(state.hessian, axis1=1, axis2=2)
    felt = diagonal > 0
    resting = ((x <= low) & (gradient <= 0)) | ((x >= high) & (gradient >= 0))
    free = felt & ~resting
    size = jnp.where(felt, jnp.sqrt(jnp.where(felt, diagonal, 1.0)), 1.0)
    scaled = hessian / (size[:, :, None] * size[:, None, :])
    bow = jnp.diagonal(scaled, axis1=1, axis2=2)
    eye = jnp.eye(x.shape[1], dtype=x.dtype)

    def solve(rhs: Array, free: Array) -> Array:
        mask = free.astype(x.dtype)
        diagonal = jnp.where(free, bow, 1.0) + state.damping[:, None]
        damped = scaled * mask[:, :, None] * mask[:, None, :] * (1.0 - eye) + eye * diagonal[:, None, :]
        return solve_spd(damped, rhs / size * mask, unrolled=unrolled) / size * mask

    room_low, room_high = low - x, high - x
    move = solve(gradient, free)
    stopped = free & ((move < room_low) | (move > room_high))
    held = jnp.where(stopped, jnp.clip(move, room_low, room_high), 0.0)
    again = solve(gradient - _times(hessian, held), free & ~stopped)
    return jnp.clip(jnp.where(stopped, held, again), room_low, room_high)
