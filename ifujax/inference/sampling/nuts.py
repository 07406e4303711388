"""The no-U-turn sampler for many rows at once: blocks of rows and chains in lock-step, warm-up pooled over chains.

Each row is sampled in coordinates whitened by its own covariance, so that numpyro's kernel runs
with a unit mass matrix. Between windows of the warm-up the covariance is estimated anew from all
chains of the row, in NumPy. Rows whose chains disagree run again, longer and from what was learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.batching import choose_devices, padded, run_blocks
from ifujax.inference.precision import dtype_of, working_precision
from ifujax.inference.sampling.adaptation import Adapted, first_state, with_usable_starts
from ifujax.inference.sampling.diagnostics import diagnose
from ifujax.inference.sampling.nuts_kernel import Jumps, LogDensity, Outcome, Rows, Schedule, advance
from ifujax.inference.sampling.proposals import Mixture
from ifujax.progress import Progress

_BLOCK_ROWS = {"cpu": 2}
_GPU_ROWS = 512
_LEAST_KEPT = 250
"""Positions that one call of the compiled program can return: the same whatever is asked for, that little is compiled."""
_WARM_DEPTH = 6
"""Trees of 63 steps are enough to learn a scale, and bound what a bad first step can cost the block."""
_CAREFUL = (0.95, 0.99)
"""Acceptance aimed at by the runs after one with divergences."""


@dataclass(frozen=True)
class NutsOptions:
    """Options of `run_nuts`.

    Parameters
    ----------
    chains : int
        Chains per row; R-hat compares them.
    warmup : tuple of int
        Iterations of each window. The covariance is estimated anew after each but the last, which
        adapts the step alone.
    draws : int
        Draws kept per chain.
    target_accept : float
        Mean acceptance probability that the step is adapted to.
    max_tree_depth : int
        Trajectories have ``2**max_tree_depth - 1`` steps at most.
    max_rhat, min_ess : float
        A row is run again unless all its R-hat are below, and all its bulk and tail effective
        sample sizes above.
    max_extensions : int
        How often a row may be run again, each time twice as long (thinned to the same number of
        draws) if its chains disagree, with smaller steps if it had divergences.
    """

    chains: int = 4
    warmup: tuple[int, ...] = (75, 150, 75)
    draws: int = 500
    target_accept: float = 0.8
    max_tree_depth: int = 10
    max_rhat: float = 1.01
    min_ess: float = 400.0
    max_extensions: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "warmup", tuple(int(length) for length in self.warmup))
        for name, least in (("chains", 1), ("draws", 4), ("max_tree_depth", 1), ("max_extensions", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be {least} or more; got {getattr(self, name)}.")
        if not self.warmup or min(self.warmup) < 10:
            raise UsageError(f"warmup must hold windows of 10 iterations at least; got {self.warmup}.")
        if not 0.5 <= self.target_accept < 1:
            raise UsageError(f"target_accept must be at least 0.5 and below 1; got {self.target_accept}.")
        if not self.max_rhat > 1:
            raise UsageError(f"max_rhat must be above 1; got {self.max_rhat}.")
        if not self.min_ess >= 0:
            raise UsageError(f"min_ess must be 0 or more; got {self.min_ess}.")


@dataclass(frozen=True)
class NutsDraws:
    """What `run_nuts` returns, as NumPy arrays; rows that can't be sampled hold NaN.

    Attributes
    ----------
    z : array (batch, chains, draws, n)
        Draws, unconstrained.
    divergences : int array (batch,)
        Divergent transitions after the warm-up, in all chains.
    steps, accept : array (batch,)
        Mean number of leapfrog steps and mean acceptance probability of a transition.
    rhat, ess_bulk, ess_tail : array (batch,)
        The worst over the elements of z.
    runs : int array (batch,)
        How often the row was run: 1, or more if its diagnostics called for it; 0 if it can't be sampled.
    """

    z: np.ndarray
    divergences: np.ndarray
    steps: np.ndarray
    accept: np.ndarray
    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    runs: np.ndarray


def run_nuts(
    log_density: LogDensity,
    data: Any,
    data_axes: Any,
    start: np.ndarray,
    mean: np.ndarray,
    factor: np.ndarray,
    *,
    seed: int,
    ids: np.ndarray,
    jumps: Mixture | None = None,
    centres: np.ndarray | None = None,
    options: NutsOptions = NutsOptions(),
    precision: str = "float64",
    devices: Sequence[Any] | None = None,
    progress: Progress | None = None,
) -> NutsDraws:
    """Draw from one posterior a row.

    Parameters
    ----------
    log_density : callable (data row, z (n,)) -> scalar
        Hashable (a function of a module or a frozen object): a new one is compiled anew.
    data : pytree of NumPy arrays
    data_axes : pytree prefix of `data`
        0 where an array has the batch as its first axis, None where it is shared.
    start : array (batch, chains, n)
        Where the chains start. A chain that starts at NaN or where the density is not finite
        starts with another chain of its row; a row with no usable start has NaN draws.
    mean, factor : array (batch, n), (batch, n, n)
        Guess of the posterior's mean and covariance ``factor @ factor.T`` (lower triangular).
        Where it is not usable a unit covariance is taken.
    seed : int
    ids : int array (batch,)
        Names of the rows: draws of a row depend on the seed, its id and its own data, not on the
        other rows or their order.
    jumps : Mixture, optional
        What is proposed, one mixture a row, after each transition, wherever the chain is: chains move between modes as far as
        it covers them.
    centres : array (batch, K, n), optional
        Where modes may be; scales are learned within them where they lie far apart.
    options, precision, devices, progress
        Progress is called as ``progress("nuts", rows done, batch)``.

    Returns
    -------
    NutsDraws

    Notes
    -----
    Hoffman & Gelman (2014, JMLR 15, 1593), with the multinomial trajectories of Betancourt (2017,
    arXiv:1701.02434), as numpyro has them.
    """
    # Not inside the traced function: a module's constants must not be made while tracing.
    import numpyro.infer.hmc  # noqa: F401

    run = _Run(log_density, data, data_axes, start, mean, factor, seed, ids, options, precision, choose_devices(devices))
    run.jumps, run.centres = jumps, centres
    return run.sample(progress)


class _Run:
    """One call of `run_nuts`: the host's arrays, and the rounds that rows go through."""

    def __init__(
        self,
        log_density: LogDensity,
        data: Any,
        data_axes: Any,
        start: np.ndarray,
        mean: np.ndarray,
        factor: np.ndarray,
        seed: int,
        ids: np.ndarray,
        options: NutsOptions,
        precision: str,
        devices: list[Any],
    ) -> None:
        self.log_density, self.options, self.precision, self.devices = log_density, options, precision, devices
        self.dtype = dtype_of(precision)
        start, mean, factor = (np.asarray(array, dtype=np.float64) for array in (start, mean, factor))
        self.ids = np.asarray(ids)
        batch, chains, n = _checked_shapes(start, mean, factor, self.ids, options)
        if not 0 <= seed < 2**32:
            raise UsageError(f"seed must lie between 0 and 4294967295; got {seed}.")
        self.seed = np.uint32(seed)
        self.leaves, self.tree = jax.tree.flatten(jax.tree.map(self._cast, data))
        self.axes = _leaf_axes(data_axes, data)
        for axis, leaf in zip(self.axes, self.leaves):
            if axis == 0 and (not leaf.ndim or len(leaf) != batch):
                raise UsageError(f"data must have {batch} rows where data_axes is 0; got an array of shape {leaf.shape}.")
        self.size = _BLOCK_ROWS.get(devices[0].platform, _GPU_ROWS)
        self.kept = max(_LEAST_KEPT, *options.warmup)
        self.depths = (min(_WARM_DEPTH, options.max_tree_depth), options.max_tree_depth)
        self.badness = np.full(batch, np.inf)
        self.jumps: Mixture | None = None
        self.centres: np.ndarray | None = None
        self.state = first_state(start, mean, factor, options.target_accept)
        nothing = {name: np.full(batch, np.nan) for name in ("steps", "accept", "rhat", "ess_bulk", "ess_tail")}
        none = np.zeros(batch, int)
        self.result = NutsDraws(np.full((batch, chains, options.draws, n), np.nan), divergences=none, runs=none.copy(), **nothing)

    def _cast(self, leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return leaf.astype(self.dtype, copy=False) if leaf.dtype.kind == "f" else leaf

    def sample(self, progress: Progress | None) -> NutsDraws:
        """Run every row once, then again those whose diagnostics call for it."""
        batch = len(self.state.z)
        pending = np.flatnonzero(np.isfinite(self.state.z).all(axis=(1, 2)))
        if pending.size:
            self._compile(pending)
        windows, done = self.options.warmup, batch - len(pending)
        for left in reversed(range(self.options.max_extensions + 1)):
            again, thins = [pending[:0]], self.state.thin[pending]
            for thin in np.unique(thins):
                group = pending[thins == thin]
                task = partial(self._run_block, windows=windows, thin=int(thin))
                for mine, (state, found) in run_blocks(task, group, self.size, self.devices, self.precision):
                    failed = mine[self._take(mine, state, found, int(thin))]
                    again.append(failed)
                    done += len(mine) - (len(failed) if left else 0)
                    if progress is not None:
                        progress("nuts", done, batch)
            pending, windows = np.sort(np.concatenate(again)), self.options.warmup[-1:]
        return self.result

    def _compile(self, rows: np.ndarray) -> None:
        """Compile for every device, before threads that meet a new program all do."""

        def work(device: Any) -> None:
            with working_precision(self.precision), jax.default_device(device):
                full = padded(rows[: self.size], self.size)
                self._advance(self._block_data(full), full, self.state.take(full), count=0)

        with ThreadPoolExecutor(max_workers=len(self.devices)) as pool:
            list(pool.map(work, self.devices))

    def _run_block(self, mine: np.ndarray, device: Any, windows: tuple[int, ...], thin: int) -> tuple[Adapted, NutsDraws]:
        """Warm up and sample one block; return where its rows are then, and what they found."""
        full = padded(mine, self.size)
        data, state = self._block_data(full), self.state.take(full)
        centres = None if self.centres is None else self.centres[full]
        if state.stage.any():  # not the first run of these rows
            state = state.learn(self.result.z[full], centres)
        usable = np.isfinite(self._advance(data, full, state, count=0).potential)
        state = state._replace(z=with_usable_starts(state.z, usable))
        w = state.whitened()
        for i, length in enumerate(windows):
            out = self._advance(data, full, state, w, count=length, adapt=True)
            w, state = out.w, state._replace(step=out.step, stage=state.stage + 1)
            if i + 1 < len(windows):
                # The first third of a window is on its way from where the window before left off.
                state = state._replace(z=out.z[:, :, length - 1]).learn(out.z[:, :, length // 3 : length], centres)
                w = state.whitened()
        parts, sums = [], []
        for first in range(0, self.options.draws, self.kept):
            count = min(self.kept, self.options.draws - first)
            out = self._advance(data, full, state, w, first=first, count=count, thin=thin)
            w = out.w
            parts.append(out.z[:, :, :count])
            sums.append([counted.sum(axis=1) for counted in (out.divergences, out.leapfrogs, out.accept)])
        z = np.concatenate(parts, axis=2)
        state = state._replace(z=z[:, :, -1], stage=state.stage + 1)
        z[~usable.any(axis=1)] = np.nan
        keep = len(mine)
        worst = diagnose(np.moveaxis(z[:keep], 3, 1))
        divergences, leapfrogs, accept = (np.sum(each, axis=0)[:keep] for each in zip(*sums))
        total = self.options.chains * self.options.draws * thin
        found = NutsDraws(
            z=z[:keep],
            divergences=divergences,
            steps=leapfrogs / total,
            accept=accept / total,
            rhat=worst.rhat.max(axis=1),
            ess_bulk=worst.ess_bulk.min(axis=1),
            ess_tail=worst.ess_tail.min(axis=1),
            runs=np.where(usable.any(axis=1), 1, 0)[:keep],
        )
        return state.take(np.arange(keep)), found

    def _advance(
        self,
        data: Any,
        full: np.ndarray,
        state: Adapted,
        w: np.ndarray | None = None,
        *,
        count: int,
        first: int = 0,
        thin: int = 1,
        adapt: bool = False,
    ) -> Outcome:
        """Call the compiled program; NumPy in and out, `z` as (rows, chains, kept, n)."""
        cast = self.dtype.type
        rows = Rows(
            data,
            *(array.astype(cast) for array in (state.mean, state.factor)),
            ids=self.ids[full].astype(np.uint32),
            stage=state.stage.astype(np.uint32),
            target=state.target.astype(cast),
            jumps=None if self.jumps is None else _whitened(self.jumps.of(full), state, cast),
        )
        w = state.whitened() if w is None else w
        schedule = Schedule(self.seed, *(np.int32(number) for number in (first, count, thin)), adapt=np.bool_(adapt))
        out = advance(
            self.log_density, self.axes, self.kept, self.depths, rows, w.astype(cast), state.step.astype(cast), schedule
        )
        floats = Outcome(*(np.asarray(array, dtype=np.float64 if array.dtype.kind == "f" else None) for array in out))
        return floats._replace(z=np.moveaxis(floats.z, 0, 2))

    def _block_data(self, full: np.ndarray) -> Any:
        leaves = [leaf if axis is None else leaf[full] for axis, leaf in zip(self.axes, self.leaves)]
        return jax.tree.unflatten(self.tree, jax.device_put(leaves))

    def _take(self, mine: np.ndarray, state: Adapted, found: NutsDraws, thin: int) -> np.ndarray:
        """Keep what was found where it is better than what there was; return which rows call for another run."""
        options, result = self.options, self.result
        sampled = found.runs > 0
        mixed = (found.rhat < options.max_rhat) & (np.minimum(found.ess_bulk, found.ess_tail) > options.min_ess)
        diverged = found.divergences > 0
        badness = _badness(found, options, thin)
        better = sampled & ((result.runs[mine] == 0) | (badness <= self.badness[mine]))
        self.badness[mine[better]] = badness[better]
        for name in ("z", "divergences", "steps", "accept", "rhat", "ess_bulk", "ess_tail"):
            getattr(result, name)[mine[better]] = getattr(found, name)[better]
        result.runs[mine] += found.runs
        careful = np.where(state.target < _CAREFUL[0], _CAREFUL[0], np.maximum(state.target, _CAREFUL[1]))
        state = state._replace(thin=np.where(mixed, state.thin, 2 * state.thin), target=np.where(diverged, careful, state.target))
        for whole, part in zip(self.state, state):
            whole[mine] = part
        return sampled & (diverged | ~mixed)


def _whitened(mixture: Mixture, state: Adapted, cast: Any) -> Jumps:
    """Return the proposals of jumps in the coordinates of the chains."""
    inverse = np.linalg.inv(state.factor)[:, None]
    factor = inverse @ mixture.factor
    mean = np.einsum("rij,rmj->rmi", inverse[:, 0], mixture.mean - state.mean[:, None])
    with np.errstate(divide="ignore"):
        log_share = np.log(mixture.share)
    log_det = np.log(np.diagonal(factor, axis1=2, axis2=3)).sum(axis=2)
    return Jumps(*(array.astype(cast) for array in (log_share, mean, factor, np.linalg.inv(factor), log_det)))


def _badness(found: NutsDraws, options: NutsOptions, thin: int) -> np.ndarray:
    """One number to compare two runs of a row by: below 1 where all is well, infinite where nothing moves."""
    with np.errstate(divide="ignore"):
        parts = [
            (found.rhat - 1) / (options.max_rhat - 1),
            options.min_ess / found.ess_bulk,
            options.min_ess / found.ess_tail,
        ]
    mixing = np.nan_to_num(np.maximum.reduce(parts), nan=np.inf, posinf=np.inf)
    return mixing + 100 * found.divergences / (options.chains * options.draws * thin)


def _leaf_axes(axes: Any, data: Any) -> tuple[int | None, ...]:
    """Spread a prefix of axes over the leaves of the data."""
    spread: list[int | None] = []

    def visit(axis: Any, part: Any) -> None:
        if axis not in (0, None):
            raise UsageError(f"data_axes must be 0 or None for each array; got {axis!r}.")
        spread.extend([axis] * len(jax.tree.leaves(part)))

    jax.tree.map(visit, axes, data, is_leaf=lambda axis: axis is None)
    return tuple(spread)


def _checked_shapes(
    start: np.ndarray, mean: np.ndarray, factor: np.ndarray, ids: np.ndarray, options: NutsOptions
) -> tuple[int, int, int]:
    if start.ndim != 3 or start.shape[1] != options.chains or not start.shape[2]:
        raise UsageError(f"start must have the shape (batch, {options.chains} chains, n); got {start.shape}.")
    batch, chains, n = start.shape
    for name, array, shape in (("mean", mean, (batch, n)), ("factor", factor, (batch, n, n)), ("ids", ids, (batch,))):
        if array.shape != shape:
            raise UsageError(f"{name} must have the shape {shape}; got {array.shape}.")
    if ids.dtype.kind not in "iu" or (ids < 0).any() or (ids >= 2**32).any():
        raise UsageError(f"ids must be whole numbers from 0 to 4294967295; got {ids.dtype} {ids[:3]}.")
    return batch, chains, n
