"""`sample_batch`: draws from the posteriors of a batch of fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ifujax.errors import UsageError
from ifujax.inference import status as bits
from ifujax.inference.batching import choose_devices, padded, run_blocks
from ifujax.inference.evaluation import as_model, n_linear
from ifujax.inference.observations import Observations, spread_axes
from ifujax.inference.options import DEFAULT_OPTIONS, Options
from ifujax.inference.parameters import ParameterSpace
from ifujax.inference.precision import dtype_of, working_precision
from ifujax.inference.results import FitResult
from ifujax.inference.sampling.blocks import Split, split
from ifujax.inference.sampling.draws import TIERS, Draws
from ifujax.inference.sampling.importance import ROUNDS, ImportanceSampler, points_at_once
from ifujax.inference.sampling.laplace import laplace, to_line
from ifujax.inference.sampling.nuts import NutsOptions, run_nuts
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.proposals import Mixture
from ifujax.inference.sampling.targets import Target, as_numpy, draw_linear, log_density, target_axes

Progress = Callable[[str, int, int], None]
DEFAULT_SAMPLING = SamplingOptions()
_BLOCK = 8
"""Fits that go through importance sampling together, always: a block's shape must not depend on the batch."""
_LARGE = 4096
"""Pixels from which on a fit goes through it alone."""
_NONE, _IMPORTANCE, _NUTS = range(len(TIERS))


def sample_batch(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    fit: FitResult,
    *,
    options: Options = DEFAULT_OPTIONS,
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
    return _Sampler(
        model, space, obs, fit, options, sampling, linear_sigma, seed, ids, derived, precision, choose_devices(devices)
    )(progress)


class _Sampler:
    """One batch being sampled."""

    def __init__(
        self,
        model: Any,
        space: ParameterSpace,
        obs: Observations,
        fit: FitResult,
        options: Options,
        sampling: SamplingOptions,
        linear_sigma: ArrayLike | None,
        seed: int,
        ids: ArrayLike | None,
        derived: Callable[..., dict[str, Any]] | None,
        precision: str,
        devices: list[Any],
    ) -> None:
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise UsageError(f"seed must be a whole number from 0 to 4294967295; got {seed!r}.")
        if options.linear == "nnls":
            raise UsageError(
                "linear must be 'keep' or 'eliminate' for sampling; got 'nnls'. Declare the coefficients as parameters."
            )
        if options.loss != "gaussian" and options.linear != "keep":
            raise UsageError(f"loss must be 'gaussian' where a linear block is eliminated; got {options.loss!r}.")
        space.require_proper()
        self.model, self.space, self.obs, self.fit = as_model(model), space, obs, fit
        self.options, self.sampling, self.seed = options, sampling, int(seed)
        self.derived, self.precision, self.devices = derived, precision, devices
        self.ids = np.arange(obs.batch) if ids is None else np.asarray(ids, dtype=np.int64)
        if self.ids.shape != (obs.batch,) or (self.ids < 0).any():
            raise UsageError(f"ids must be one number, 0 or more, for each of {obs.batch} fits; got shape {self.ids.shape}.")
        if len(fit.chi2) != obs.batch:
            raise UsageError(f"fit must have one row for each of {obs.batch} spectra; got {len(fit.chi2)}.")
        self.split = split(self.model, space.structure) if options.loss == "gaussian" else _unsplit(space)
        self.k = n_linear(self.model, options)
        self.block = _BLOCK if obs.n_pix < _LARGE else 1
        self.wide = space.broadcast(obs.batch)
        self.linear_root = self._linear_root(linear_sigma)
        self.axes = jax.tree.map(lambda axis: None if axis < 0 else axis, spread_axes(obs.coords, obs.coords_axes))
        self.flat_axes = tuple(None if axis < 0 else axis for axis in jax.tree.leaves(spread_axes(obs.coords, obs.coords_axes)))
        self.z, self.covariance = laplace(space, self.wide, fit)

    def _linear_root(self, sigma: ArrayLike | None) -> np.ndarray:
        if sigma is None:
            return np.zeros((self.obs.batch, self.k))
        sigma = np.asarray(sigma, dtype=np.float64)
        if sigma.shape not in ((self.k,), (self.obs.batch, self.k)) or not (sigma > 0).all():
            raise UsageError(
                f"linear_sigma must be ({self.k},) or ({self.obs.batch}, {self.k}), positive; got shape {sigma.shape}."
            )
        return np.broadcast_to(1.0 / sigma, (self.obs.batch, self.k))

    def target(self, rows: np.ndarray) -> Target:
        """Return the problem of some rows, on the host, in working precision."""
        root = np.sqrt(np.asarray(self.obs.ivar[rows], dtype=np.float64))
        space = jax.tree.map(lambda leaf: leaf[rows], self.wide)
        parts = self.model, self.obs.values[rows], root, self.obs.coords_of(rows), space, self.linear_root[rows]
        return as_numpy(Target(*parts, self.options), dtype_of(self.precision))

    def __call__(self, progress: Progress | None) -> Draws:
        batch, sampling = self.obs.batch, self.sampling
        n = self.space.n_free
        x = np.full((batch, sampling.draws, n), np.nan)
        nan = np.full(batch, np.nan)
        tier, status = np.zeros(batch, np.int8), np.zeros(batch, np.int32)
        khat, ess, rhat, bulk, tail = (nan.copy() for _ in range(5))
        divergences = np.zeros(batch, np.int64)
        fitted = (self.fit.status == 0) & np.isfinite(self.z).all(axis=1)
        status[~fitted] = bits.NO_FIT.value
        rows = np.flatnonzero(fitted)
        few = len(self.split.sampled) <= sampling.max_sampled
        waiting = rows
        if rows.size and (sampling.method == "importance" or (sampling.method == "auto" and few)):
            accepted = np.zeros(batch, bool)
            self._importance(rows, x, khat, ess, accepted, progress)
            drawn = rows[np.isfinite(x[rows]).all(axis=(1, 2))]
            tier[drawn] = _IMPORTANCE
            status[rows] |= np.where(khat[rows] < sampling.max_khat, 0, bits.UNEVEN_WEIGHTS.value).astype(np.int32)
            status[rows] |= np.where(ess[rows] > sampling.min_ess, 0, bits.FEW_EFFECTIVE.value).astype(np.int32)
            waiting = rows[~accepted[rows]] if sampling.method == "auto" else rows[:0]
        if waiting.size:
            found = self._nuts(waiting, x, progress)
            sound = np.isfinite(found.z).all(axis=(1, 2, 3))
            least = np.minimum(found.ess_bulk, found.ess_tail)
            verdict = np.where(found.rhat < sampling.max_rhat, 0, bits.CHAINS_DISAGREE.value)
            verdict |= np.where(least > sampling.min_chain_ess, 0, bits.FEW_EFFECTIVE.value)
            verdict |= np.where(found.divergences > 0, bits.DIVERGENT.value, 0)
            # Where neither is good, evenly weighted draws that are few beat chains that have not met.
            stay = (tier[waiting] == _IMPORTANCE) & (khat[waiting] < sampling.max_khat) & (ess[waiting] > 0.5 * sampling.min_ess)
            stay &= (verdict & bits.CHAINS_DISAGREE.value) != 0
            take = sound & ~stay
            mine = waiting[take]
            x[mine] = self._thinned(mine, found.z[take])
            tier[mine], status[mine] = _NUTS, verdict[take]
            ess[mine], rhat[mine], bulk[mine], tail[mine] = (
                values[take] for values in (least, found.rhat, found.ess_bulk, found.ess_tail)
            )
            divergences[mine] = found.divergences[take]
        without = fitted & (tier == _NONE)
        status[without] = bits.NO_DRAWS.value
        params, linear, derived = self._complete(x, np.flatnonzero(tier != _NONE))
        return Draws(params, linear, derived, tier, khat, ess, rhat, bulk, tail, divergences, status)

    def _importance(
        self,
        rows: np.ndarray,
        x: np.ndarray,
        khat: np.ndarray,
        ess: np.ndarray,
        accepted: np.ndarray,
        progress: Progress | None,
    ) -> None:
        """Go on with what fails, round by round, with more points and components; the best round counts."""
        at, sampling = list(self.split.sampled), self.sampling
        mixtures: dict[int, Mixture] = {}
        waiting = rows
        for k in range(min(sampling.rounds, len(ROUNDS))):

            def task(mine: np.ndarray, device: Any, k: int = k) -> Any:
                full = padded(mine, self.block)
                generators = [np.random.default_rng([self.seed, int(self.ids[r]), 0, k]) for r in full]
                sampler = ImportanceSampler(self.split, sampling, self.target(full), self.flat_axes)
                covariance = self.covariance[full][:, at][:, :, at]
                if k == 0:
                    mixture = sampler.pilot(self.z[full][:, at], covariance, generators)
                else:
                    mixture = Mixture.stacked([mixtures[int(r)] for r in full])
                return sampler.round(k, mixture, covariance, generators)

            failed = []
            for mine, found in run_blocks(task, waiting, self.block, self.devices, self.precision):
                for i, r in enumerate(mine):
                    enough = found.ess[i] > sampling.min_ess
                    if np.isnan(khat[r]) or (enough, -found.khat[i]) > (ess[r] > sampling.min_ess, -khat[r]):
                        x[r], khat[r], ess[r] = found.x[i], found.khat[i], found.ess[i]
                    if not (khat[r] < sampling.max_khat and ess[r] > sampling.min_ess):
                        mixtures[int(r)] = found.next.of(slice(i, i + 1))
                        failed.append(r)
                if progress is not None and k == 0:
                    progress("importance", int(np.isfinite(khat[rows]).sum()), len(rows))
            waiting = np.array(failed, dtype=int)
            if not waiting.size:
                break
        accepted[rows] = (khat[rows] < sampling.max_khat) & (ess[rows] > sampling.min_ess)

    def _nuts(self, rows: np.ndarray, x: np.ndarray, progress: Progress | None) -> Any:
        """Run chains, from draws of importance sampling where there are any, else from about the fit."""
        sampling, n = self.sampling, self.space.n_free
        mean, covariance = self.z[rows].copy(), self.covariance[rows].copy()
        start = np.empty((len(rows), sampling.chains, n))
        for i, r in enumerate(rows):
            rng = np.random.default_rng([self.seed, int(self.ids[r]), 1])
            start[i] = mean[i] + rng.standard_normal((sampling.chains, n)) @ np.linalg.cholesky(covariance[i]).T
        known = np.isfinite(x[rows]).all(axis=(1, 2))
        if known.any():
            z = to_line(jax.tree.map(lambda leaf: leaf[rows[known]], self.wide), x[rows[known]])
            begin, centre, spread = z[:, : sampling.chains], z.mean(axis=1), _covariances(z)
            usable = np.isfinite(spread).all(axis=(1, 2)) & np.isfinite(begin).all(axis=(1, 2))
            mine = np.flatnonzero(known)[usable]
            start[mine], mean[mine] = begin[usable], centre[usable]
            covariance[mine] = 0.8 * spread[usable] + 0.2 * covariance[mine]
        target = self.target(rows)
        return run_nuts(
            log_density,
            target,
            target_axes(target, self.axes),
            start,
            mean,
            np.linalg.cholesky(covariance),
            seed=self.seed,
            ids=self.ids[rows],
            options=NutsOptions(
                chains=sampling.chains,
                draws=max(sampling.chain_draws, sampling.draws // sampling.chains),
                max_rhat=sampling.max_rhat,
                min_ess=sampling.min_chain_ess,
            ),
            precision=self.precision,
            devices=self.devices,
            progress=progress,
        )

    def _thinned(self, rows: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return evenly spaced draws of all chains as free vectors (rows, draws, n), chain by chain."""
        per_chain = self.sampling.draws // self.sampling.chains
        at = np.floor((np.arange(per_chain) + 1.0) * z.shape[2] / per_chain).astype(int) - 1
        z = z[:, :, at.clip(min=0)].reshape(len(z), self.sampling.draws, z.shape[-1])
        return _to_free(jax.tree.map(lambda leaf: leaf[rows], self.wide), z)

    def _complete(self, x: np.ndarray, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
        """Return named parameters, linear coefficients and derived quantities of all draws."""
        batch, draws = x.shape[:2]
        chains = self.sampling.chains
        size = self.block

        def task(mine: np.ndarray, device: Any) -> Any:
            full = padded(mine, size)
            normals = np.stack(
                [np.random.default_rng([self.seed, int(self.ids[r]), 2]).standard_normal((draws, max(self.k, 1))) for r in full]
            )
            dtype = dtype_of(self.precision)
            end = _complete_block(self.derived, self.target(full), self.flat_axes, x[full].astype(dtype), normals.astype(dtype))
            return jax.tree.map(lambda leaf: np.asarray(leaf, dtype=np.float64)[: len(mine)], end)

        result: Any = None
        blocks = rows if rows.size else np.zeros(1, int)
        for mine, part in run_blocks(task, blocks, size, self.devices, self.precision):
            if result is None:
                result = jax.tree.map(lambda leaf: np.full((batch, *leaf.shape[1:]), np.nan), part)
            if rows.size:
                for target, source in zip(jax.tree.leaves(result), jax.tree.leaves(part)):
                    target[mine] = source
        shaped = jax.tree.map(lambda leaf: leaf.reshape(batch, chains, draws // chains, *leaf.shape[2:]), result)
        return shaped["params"], shaped["linear"][..., : self.k], shaped["derived"]


def _unsplit(space: ParameterSpace) -> Split:
    return Split(tuple(range(space.n_free)), ())


def _covariances(z: np.ndarray) -> np.ndarray:
    """Covariance (rows, n, n) of draws (rows, draws, n)."""
    away = z - z.mean(axis=1, keepdims=True)
    return np.einsum("rsi,rsj->rij", away, away) / max(z.shape[1] - 1, 1) + 1e-9 * np.eye(z.shape[2])


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
