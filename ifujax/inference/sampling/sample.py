"""`sample_batch`: draws from the posteriors of a batch of fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ifujax.inference import status as bits
from ifujax.inference.batching import choose_devices, padded, run_blocks
from ifujax.inference.observations import Observations
from ifujax.inference.options import DEFAULT_OPTIONS, LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import dtype_of, working_precision
from ifujax.inference.results import FitResult
from ifujax.inference.sampling.chains import run_chains
from ifujax.inference.sampling.diagnostics import diagnose
from ifujax.inference.sampling.draws import TIERS, Draws
from ifujax.inference.sampling.importance import points_at_once
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.problem import Problem
from ifujax.inference.sampling.rounds import importance
from ifujax.inference.sampling.targets import Target, draw_linear, target_axes
from ifujax.progress import Progress

DEFAULT_SAMPLING = SamplingOptions()
_NONE, _IMPORTANCE, _NUTS = range(len(TIERS))


def sample_batch(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    fit: FitResult,
    *,
    options: LeastSquaresOptions = DEFAULT_OPTIONS,
    sampling: SamplingOptions = DEFAULT_SAMPLING,
    linear_sigma: ArrayLike | None = None,
    seed: int = 0,
    ids: ArrayLike | None = None,
    derived: Callable[..., dict[str, Any]] | None = None,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    progress: Progress | None = None,
) -> Draws:
    """Draw from the posterior of each fit of a batch.

    Parameters
    ----------
    model, space, obs, options
        Those of the fit (`ifujax.fit_batch`); priors are declared in the space, uniform within bounds otherwise.
        A model may say which parameters enter it linearly (``model.linear_in``, a tuple of names): these are integrated
        out by importance sampling.
    fit : FitResult
        Where to start.
    sampling : SamplingOptions
    linear_sigma : array (K,) or (batch, K), optional
        Prior standard deviation, about 0, of the coefficients of an eliminated linear block. None: a flat prior.
    seed : int
    ids : array (batch,) of int, optional
        A number for each fit, which makes its random numbers together with `seed`; its row by default.
    derived : callable, optional
        ``(model, params, linear, coords) -> dict`` of scalars, of one draw. Hashable: a module-level function or a frozen object.
    precision : "float64" or "float32"
    devices : list of JAX devices or a platform name, optional
    progress : callable, optional
        Called with ("importance" or "nuts", fits done, fits).

    Returns
    -------
    Draws

    Raises
    ------
    UsageError
        For a prior that is not proper, or options that don't go together.

    Notes
    -----
    The draws of a fit depend on its data, `seed` and its id, not on the other fits of the batch.
    """
    problem = Problem(model, space, obs, fit, options, sampling, linear_sigma, seed, ids, precision, choose_devices(devices))
    return _Sampler(problem, derived)(progress)


class _Sampler:
    """One batch being sampled."""

    def __init__(self, problem: Problem, derived: Callable[..., dict[str, Any]] | None) -> None:
        self.problem, self.sampling, self.derived = problem, problem.sampling, derived

    def __call__(self, progress: Progress | None) -> Draws:
        problem, sampling = self.problem, self.sampling
        batch = problem.obs.batch
        nan = np.full(batch, np.nan)
        tier, status = np.zeros(batch, np.int8), np.zeros(batch, np.int32)
        rhat, bulk, tail = (nan.copy() for _ in range(3))
        divergences = np.zeros(batch, np.int64)
        fitted = (problem.fit.status == 0) & np.isfinite(problem.z).all(axis=1)
        status[~fitted] = bits.NO_FIT.value
        rows = np.flatnonzero(fitted)
        few = len(problem.split.sampled) <= sampling.max_sampled
        chosen = sampling.method == "importance" or (sampling.method == "auto" and few)
        # For NUTS one round says where to start, and what to jump between.
        found = importance(problem, rows, sampling.rounds if chosen else int(few), progress if chosen else None)
        x, khat, ess = found.x, nan.copy(), nan.copy()
        waiting = rows
        if chosen:
            khat, ess = found.khat, found.ess
            drawn = rows[np.isfinite(x[rows]).all(axis=(1, 2))]
            tier[drawn] = _IMPORTANCE
            status[rows] |= found.bits[rows]
            waiting = rows[found.bits[rows] != 0] if sampling.method == "auto" else rows[:0]
        if waiting.size:
            chains = run_chains(problem, waiting, found, progress)
            sound = np.isfinite(chains.z).all(axis=(1, 2, 3))
            handed = _thinned(chains.z, sampling)
            worth = np.minimum(np.minimum(chains.ess_bulk, chains.ess_tail), _effective(handed))
            enough = (np.minimum(chains.ess_bulk, chains.ess_tail) > sampling.min_chain_ess) & (worth > sampling.needed)
            verdict = np.where(chains.rhat < sampling.max_rhat, 0, bits.CHAINS_DISAGREE.value)
            verdict |= np.where(enough, 0, bits.FEW_EFFECTIVE.value)
            verdict |= np.where(chains.divergences > 0, bits.DIVERGENT.value, 0)
            # Where neither is good, evenly weighted draws that are few beat chains that have not met.
            stay = (tier[waiting] == _IMPORTANCE) & (khat[waiting] < sampling.max_khat) & (ess[waiting] > 0.5 * sampling.needed)
            stay &= (verdict & bits.CHAINS_DISAGREE.value) != 0
            take = sound & ~stay
            mine = waiting[take]
            x[mine] = _to_free(problem.space_of(mine), handed[take].reshape(len(mine), sampling.draws, x.shape[2]))
            tier[mine], status[mine] = _NUTS, verdict[take]
            ess[mine], rhat[mine], bulk[mine], tail[mine] = (
                values[take] for values in (worth, chains.rhat, chains.ess_bulk, chains.ess_tail)
            )
            divergences[mine] = chains.divergences[take]
        without = fitted & (tier == _NONE)
        status[without] = bits.NO_DRAWS.value
        x[tier == _NONE] = np.nan
        params, linear, derived = self._complete(x, np.flatnonzero(tier != _NONE))
        return Draws(params, linear, derived, tier, khat, ess, rhat, bulk, tail, divergences, status)

    def _complete(self, x: np.ndarray, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
        """Return named parameters, linear coefficients and derived quantities of all draws."""
        batch, draws = x.shape[:2]
        chains = self.sampling.chains
        problem, size = self.problem, self.problem.block

        def task(mine: np.ndarray, device: Any) -> Any:
            full = padded(mine, size)
            normals = np.stack(
                [
                    np.random.default_rng([problem.seed, int(problem.ids[r]), 2]).standard_normal((draws, max(problem.k, 1)))
                    for r in full
                ]
            )
            dtype = dtype_of(problem.precision)
            end = _complete_block(
                self.derived, problem.target(full), problem.flat_axes, x[full].astype(dtype), normals.astype(dtype)
            )
            return jax.tree.map(lambda leaf: np.asarray(leaf, dtype=np.float64)[: len(mine)], end)

        result: Any = None
        blocks = rows if rows.size else np.zeros(1, int)
        for mine, part in run_blocks(task, blocks, size, problem.devices, problem.precision):
            if result is None:
                result = jax.tree.map(lambda leaf: np.full((batch, *leaf.shape[1:]), np.nan), part)
            if rows.size:
                for target, source in zip(jax.tree.leaves(result), jax.tree.leaves(part)):
                    target[mine] = source
        shaped = jax.tree.map(lambda leaf: leaf.reshape(batch, chains, draws // chains, *leaf.shape[2:]), result)
        return shaped["params"], shaped["linear"][..., : problem.k], shaped["derived"]


def _thinned(z: np.ndarray, sampling: SamplingOptions) -> np.ndarray:
    """Return evenly spaced draws of all chains (rows, chains, draws of each, n)."""
    per_chain = sampling.draws // sampling.chains
    at = np.floor((np.arange(per_chain) + 1.0) * z.shape[2] / per_chain).astype(int) - 1
    return z[:, :, at.clip(min=0)]


def _effective(z: np.ndarray) -> np.ndarray:
    """Return the effective number of draws (rows, chains, draws, n) for the worst parameter, in the centre and the tails."""
    if z.shape[2] < 4:
        return np.full(len(z), np.inf)
    worst = diagnose(np.moveaxis(z, 3, 1))
    return np.minimum(worst.ess_bulk, worst.ess_tail).min(axis=1)


@partial(jax.jit, static_argnums=(0, 2))
def _complete_block(derived: Any, target: Target, axes: Any, x: Any, normals: Any) -> dict[str, Any]:
    coords_axes = jax.tree.unflatten(jax.tree.structure(target.coords), axes)

    def one(target: Target, x: Any, normals: Any) -> dict[str, Any]:
        params = target.space.unpack([x[i] for i in range(target.space.n_free)])
        linear = draw_linear(target, params, normals)
        more = {} if derived is None else derived(target.model, params, linear, target.coords)
        # Not empty: `lax.map` can't split arrays without elements into batches.
        return {"params": params, "linear": linear if linear.shape[0] else normals, "derived": more}

    def row(target: Target, x: Any, normals: Any) -> dict[str, Any]:
        return jax.lax.map(lambda item: one(target, *item), (x, normals), batch_size=points_at_once(target.values.shape[-1]))

    return jax.vmap(row, in_axes=(target_axes(target, coords_axes), 0, 0))(target, x, normals)


@jax.jit
def _free_of(space: ParameterSpace, z: Any) -> Any:
    def one(space: ParameterSpace, z: Any) -> Any:
        return jnp.stack(space.from_unconstrained([z[i] for i in range(space.n_free)])[0])

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(space, z)


def _to_free(wide: ParameterSpace, z: np.ndarray) -> np.ndarray:
    """Map (rows, draws, n) unconstrained vectors to free ones."""
    with working_precision("float64"):
        return np.array(_free_of(wide, z))
