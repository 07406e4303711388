"""The batched Levenberg-Marquardt iteration: pure JAX, one state for a block of fits.

Damping follows Nielsen (1999, IMM-REP-1999-05) with Marquardt's diagonal scaling. Boxes are kept by
an active set: a parameter at its bound whose gradient points outward rests for that step, and one
whose step would cross its bound is put there before the others are solved again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ifujax.inference.cholesky import solve_spd
from ifujax.inference.evaluation import Block, Evaluation, box_of, evaluate, n_linear
from ifujax.inference.options import LeastSquaresOptions

RUNNING, CONVERGED, FAILED, STUCK = 0, 1, 2, 3
FIRST_DAMPING = 1e-3
_LARGEST_DAMPING = 1e12
_SETTLED = 1e-3
"""Where rounding lets no step lower chi2 any more, slopes below this times chi2 per degree of freedom
(0.03 of an error) will do."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "chi2", "hessian", "gradient", "curvature", "move", "damping", "growth", "n_iter", "phase"],
    meta_fields=[],
)
@dataclass(frozen=True)
class State:
    """Where each fit of a block stands. `phase` is RUNNING, CONVERGED, FAILED (not finite) or STUCK
    (no step lowers chi2, on a slope); chi2 is infinite before the start.

    `curvature` estimates what J^T J leaves out of the Hessian; `move` is the step to try next.
    """

    x: Array
    chi2: Array
    hessian: Array
    gradient: Array
    curvature: Array
    move: Array
    damping: Array
    growth: Array
    n_iter: Array
    phase: Array


def advance(model: Any, options: LeastSquaresOptions, block: Block, state: State, n_steps: Array) -> State:
    """Run up to `n_steps` iterations, or fewer when every row has ended.

    A row that has not been evaluated yet has an infinite chi2 and no move: its first iteration
    evaluates the start, pulled into the box. (One evaluation in the program, so half the compilation.)
    The last step of a row, which promises next to nothing, is taken without another evaluation.
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
        running, fresh = now.phase == RUNNING, jnp.isinf(now.chi2)
        trial_x = jnp.clip(now.x + now.move, low, high)
        trial = evaluate(model, options, block, trial_x)
        finite = jnp.isfinite(trial.chi2) & jnp.all(jnp.isfinite(trial.gradient), axis=1)
        gain = now.chi2 - jnp.where(finite, trial.chi2, jnp.inf)
        accepted = finite & (gain > 0)
        ratio = gain / jnp.maximum(_promise(now), jnp.finfo(gain.dtype).tiny)
        eased = jnp.maximum(now.damping * jnp.clip(1.0 - (2.0 * ratio - 1.0) ** 3, 0.33, 2.0), 1e-9)
        damping = jnp.where(fresh, now.damping, jnp.where(accepted, eased, now.damping * now.growth))
        curvature = jnp.where(fresh[:, None, None], now.curvature, _curvature(now, trial, now.move, accepted))

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(accepted.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

        after = replace(
            now,
            x=choose(trial_x, now.x),
            chi2=choose(trial.chi2, now.chi2),
            hessian=choose(trial.hessian, now.hessian),
            gradient=choose(trial.gradient, now.gradient),
            curvature=curvature,
            damping=damping,
            growth=jnp.where(accepted, 2.0, now.growth * 2.0),
            n_iter=now.n_iter + ~fresh,
        )
        after = replace(after, move=_box_step(after, low, high, unrolled))
        promise = _promise(after)
        # A secant estimate gone wrong can promise nothing (or less): the plain slopes must agree.
        slope = jnp.max(_slope(after, low, high), axis=1, initial=0.0)
        # chi2 is a sum known to rounding only: promises below that can't be checked.
        little = options.tolerance * after.chi2 / dof + 2 * eps * after.chi2 + (10 * eps) ** 2 * total
        done = (promise * (1.0 + after.damping) <= little) & (slope <= 10 * little)
        stuck = damping > _LARGEST_DAMPING
        ended = done | (stuck & (slope <= _SETTLED * after.chi2 / dof))
        phase = jnp.where(ended, CONVERGED, jnp.where(stuck, STUCK, RUNNING))
        after = replace(
            after,
            x=jnp.where(done[:, None], jnp.clip(after.x + after.move, low, high), after.x),
            curvature=jnp.where((promise < 0)[:, None, None], 0.0, after.curvature),
            phase=jnp.where(fresh & ~finite, FAILED, phase).astype(jnp.int32),
        )

        def keep_ended(new: Array, old: Array) -> Array:
            return jnp.where(running.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

        return jax.tree.map(keep_ended, after, now), k + 1

    def unfinished(carry: tuple[State, Array]) -> Array:
        now, k = carry
        return (k < n_steps) & jnp.any(now.phase == RUNNING)

    return lax.while_loop(unfinished, step, (state, jnp.zeros((), jnp.int32)))[0]


def _promise(state: State) -> Array:
    """By how much the quadratic model says the move lowers chi2."""
    bent = state.hessian + state.curvature
    return jnp.sum(state.move * (2 * state.gradient - _times(bent, state.move)), axis=1)


def _slope(state: State, low: Array, high: Array) -> Array:
    """By how much each free parameter alone would lower chi2, to first order."""
    diagonal = jnp.diagonal(state.hessian, axis1=1, axis2=2)
    free = (diagonal > 0) & ~_resting(state, low, high)
    return jnp.where(free, state.gradient**2 / jnp.where(diagonal > 0, diagonal, 1.0), 0.0)


def _resting(state: State, low: Array, high: Array) -> Array:
    """Parameters at a bound that would leave the box."""
    return ((state.x <= low) & (state.gradient <= 0)) | ((state.x >= high) & (state.gradient >= 0))


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
    free = felt & ~_resting(state, low, high)
    size = jnp.where(felt, jnp.sqrt(jnp.where(felt, diagonal, 1.0)), 1.0)
    scaled = hessian / (size[:, :, None] * size[:, None, :])
    bow = jnp.diagonal(scaled, axis1=1, axis2=2)
    eye = jnp.eye(x.shape[1], dtype=x.dtype)[None]

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
