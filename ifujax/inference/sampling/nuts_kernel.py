"""The compiled part of NUTS: numpyro's transition over the rows and chains of a block, in whitened coordinates.

Everything is element-wise or a sum: LAPACK is not called (see `ifujax.inference.cholesky`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from ifujax.inference.sampling.proposals import DEGREES

LogDensity = Callable[[Any, Array], Array]
_STREAM = 0x4E555453
"""Sets these random numbers apart from those of other uses of the same seed and row."""
_JUMP = 0x4A
"""Sets the random numbers of a jump apart from those of the transition before it."""
_FORWARD_UP_TO = 32
"""Parameters up to which tangents pushed forward side by side cost less than one pass back (2.4 times, for 6)."""
_GAMMA, _DELAY, _FORGET = 0.05, 10.0, 0.75
"""Dual averaging: gamma, t0 and kappa of Hoffman & Gelman (2014, JMLR 15, 1593), section 3.2.1."""


class Jumps(NamedTuple):
    """Proposals of independent jumps: a mixture of t distributions of `DEGREES` degrees in whitened coordinates, one a row.

    Attributes
    ----------
    log_share : array (rows, M)
    mean, factor, inverse : array (rows, M, n), (rows, M, n, n), (rows, M, n, n)
        ``w = mean + factor @ t``, and the inverse of the factor.
    log_det : array (rows, M)
        Of the factor.
    """

    log_share: Any
    mean: Any
    factor: Any
    inverse: Any
    log_det: Any


class Rows(NamedTuple):
    """What belongs to the rows of a block.

    Attributes
    ----------
    data : pytree
        The first argument of the log density.
    mean, factor : array (rows, n), (rows, n, n)
        ``z = mean + factor @ w``.
    ids : uint32 array (rows,)
        What the random numbers of a row are keyed by, besides `stage`.
    stage : uint32 array (rows,)
        Counts the runs of a row, so that none repeats the random numbers of another.
    target : array (rows,)
        Mean acceptance probability to adapt the step to.
    jumps : Jumps, optional
        What is proposed after each transition: a step of Metropolis and Hastings that knows nothing of where the chain is, and
        so takes it from one mode to another.
    """

    data: Any
    mean: Any
    factor: Any
    ids: Any
    stage: Any
    target: Any
    jumps: Any = None


class Schedule(NamedTuple):
    """What one call does; scalars, all traced. `first` is the number of iterations of this stage already done."""

    seed: Any
    first: Any
    count: Any
    thin: Any
    adapt: Any


class Outcome(NamedTuple):
    """State after a call and what happened, summed over transitions.

    Arrays (rows, chains, ...), but `z` (kept, rows, chains, n) and `step` (rows,). The `potential`
    is not finite where no trajectory can start.
    """

    w: Any
    step: Any
    potential: Any
    z: Any
    divergences: Any
    leapfrogs: Any
    accept: Any


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def advance(
    log_density: LogDensity,
    axes: tuple[int | None, ...],
    kept: int,
    depths: tuple[int, int],
    rows: Rows,
    w: Array,
    step: Array,
    schedule: Schedule,
) -> Outcome:
    """Make ``count * thin`` transitions of every chain, keeping every `thin`-th position.

    Parameters
    ----------
    log_density : hashable callable (data row, z) -> scalar
    axes : tuple
        0 or None for each leaf of the data.
    kept : int
        Room for positions, the largest `count`.
    depths : tuple of int
        Tree depths allowed while the step is adapted, and after.
    w : array (rows, chains, n)
        Whitened positions.
    step : array (rows,)
        Step sizes, one for the chains of a row.
    schedule : Schedule
        With `adapt`, the step is adapted by dual averaging of the acceptance averaged over the
        chains of the row, from `step` on, and its average is returned.
    """
    n_row, n_chain, _ = w.shape
    leaves, tree = jax.tree.flatten(rows.data)

    def gradient(leaves: list[Any], mean: Array, factor: Array, w: Array) -> Any:
        return jax.value_and_grad(partial(_potential, log_density, jax.tree.unflatten(tree, leaves), mean, factor))(w)

    def transition(
        leaves: list[Any],
        mean: Array,
        factor: Array,
        step: Array,
        jumps: Jumps | None,
        w: Array,
        potential: Array,
        slope: Array,
        key: Array,
    ) -> Any:
        from numpyro.infer.hmc import hmc
        from numpyro.infer.util import ParamInfo

        args = (log_density, jax.tree.unflatten(tree, leaves), mean, factor)
        kernel: Any = hmc(potential_fn_gen=lambda *args: partial(_potential, *args), algo="NUTS")
        start, sample = kernel
        # One "warm-up" iteration that adapts nothing: it tells the two depths apart.
        state = start(
            ParamInfo(w, potential, slope),
            num_warmup=1,
            step_size=step,
            adapt_step_size=False,
            adapt_mass_matrix=False,
            max_tree_depth=depths,
            forward_mode_differentiation=w.shape[0] <= _FORWARD_UP_TO,
            model_args=args,
            rng_key=key,
        )
        state = state._replace(i=jnp.where(schedule.adapt, 0, 1).astype(state.i.dtype))
        new = sample(state, model_args=args)
        ended = new.z, new.potential_energy, new.z_grad
        if jumps is not None:
            propose = partial(gradient, leaves, mean, factor)
            ended = _jumped(jumps, propose, *ended, random.fold_in(key, _JUMP))
        return *ended, new.accept_prob, new.num_steps, new.diverging

    def over(function: Callable[..., Any], shared: int, n_args: int) -> Callable[..., Any]:
        """Map over rows and chains; the arguments up to `shared` belong to the row."""
        by_chain = jax.vmap(function, in_axes=(None,) * shared + (0,) * (n_args - shared))
        return jax.vmap(by_chain, in_axes=(list(axes),) + (0,) * (n_args - 1))

    base = random.key(schedule.seed, impl="threefry2x32")

    def chain_key(row_id: Array, stage: Array, chain: Array) -> Array:
        key = random.fold_in(random.fold_in(base, row_id), _STREAM)
        return random.fold_in(random.fold_in(key, chain), stage)

    numbers = jnp.arange(n_chain, dtype=jnp.uint32)
    keys = jax.vmap(jax.vmap(chain_key, (None, None, 0)), (0, 0, None))(rows.ids, rows.stage, numbers)
    potential, slope = over(gradient, 3, 4)(leaves, rows.mean, rows.factor, w)
    anchor = jnp.log(2 * step)

    def iterate(i: Array, carry: Any) -> Any:
        w, potential, slope, log_step, log_average, gap, positions, divergences, leapfrogs, accept = carry
        now = jax.vmap(jax.vmap(random.fold_in, (0, None)), (0, None))(keys, schedule.first * schedule.thin + i)
        w, potential, slope, chance, length, diverging = over(transition, 5, 9)(
            leaves, rows.mean, rows.factor, jnp.exp(log_step), rows.jumps, w, potential, slope, now
        )
        t = (i + 1).astype(w.dtype)
        gap = gap + (rows.target - chance.mean(axis=1) - gap) / (t + _DELAY)
        proposed = anchor - jnp.sqrt(t) / _GAMMA * gap
        weight = t**-_FORGET
        log_average = jnp.where(schedule.adapt, weight * proposed + (1 - weight) * log_average, log_average)
        log_step = jnp.where(schedule.adapt, proposed, log_step)
        positions = lax.dynamic_update_index_in_dim(positions, w, i // schedule.thin, 0)
        return (
            *(w, potential, slope, log_step, log_average, gap, positions),
            *(divergences + diverging, leapfrogs + length.astype(jnp.int32), accept + chance),
        )

    zeros = jnp.zeros((n_row, n_chain), w.dtype)
    carry = (
        *(w, potential, slope, jnp.log(step), jnp.log(step), jnp.zeros_like(step)),
        jnp.zeros((kept, *w.shape), w.dtype),
        *(jnp.zeros((n_row, n_chain), jnp.int32), jnp.zeros((n_row, n_chain), jnp.int32), zeros),
    )
    end = lax.fori_loop(0, schedule.count * schedule.thin, iterate, carry)
    z = jax.vmap(_unwhiten, (0, 0, 1), 1)(rows.mean, rows.factor, end[6])
    # Without a slope there is no way on.
    value = jnp.where(jnp.isfinite(end[2]).all(axis=2), end[1], jnp.nan)
    return Outcome(end[0], jnp.exp(end[4]), value, z, end[7], end[8], end[9])


def _jumped(
    jumps: Jumps, gradient: Callable[[Array], Any], w: Array, potential: Array, slope: Array, key: Array
) -> tuple[Array, Array, Array]:
    """Make an independence step of Metropolis and Hastings (Tierney 1994, Annals of Statistics 22, 1701)."""
    which, normals, chance = random.split(key, 3)
    k = random.categorical(which, jumps.log_share)
    numbers = random.normal(normals, (w.shape[0] + DEGREES,), w.dtype)
    t = numbers[DEGREES:] / jnp.sqrt(jnp.mean(numbers[:DEGREES] ** 2))  # a mean of squares: chi2 over its degrees
    proposed = jumps.mean[k] + jnp.sum(jumps.factor[k] * t[None, :], axis=1)
    there, its_slope = gradient(proposed)
    gain = (potential - there) - (_log_mixture(jumps, proposed) - _log_mixture(jumps, w))
    sound = jnp.isfinite(there) & jnp.isfinite(its_slope).all()
    accepted = sound & (jnp.log(random.uniform(chance, (), w.dtype)) < gain)
    return jax.tree.map(partial(jnp.where, accepted), (proposed, there, its_slope), (w, potential, slope))


def _log_mixture(jumps: Jumps, w: Array) -> Array:
    """Log density of the proposals, up to a constant."""
    n = w.shape[0]
    standard = jnp.sum(jumps.inverse * (w[None, :] - jumps.mean)[:, None, :], axis=2)
    tail = 0.5 * (DEGREES + n) * jnp.log1p(jnp.sum(standard**2, axis=1) / DEGREES)
    return jax.nn.logsumexp(jumps.log_share - jumps.log_det - tail)


def _unwhiten(mean: Array, factor: Array, w: Array) -> Array:
    """Positions (..., n) of whitened ones."""
    ones = (None,) * (w.ndim - 1)
    return mean[ones] + jnp.sum(factor[ones] * w[..., None, :], axis=-1)


def _potential(log_density: LogDensity, data: Any, mean: Array, factor: Array, w: Array) -> Array:
    value = log_density(data, _unwhiten(mean, factor, w))
    return jnp.where(jnp.isfinite(value), -value, jnp.inf)
