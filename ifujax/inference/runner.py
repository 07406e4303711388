"""One batch being fitted: host arrays, the blocks cut from them, and the compiled programs that they go through."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax.inference import status as bits
from ifujax.inference.batching import block_size, padded, run_blocks
from ifujax.inference.evaluation import Block, n_linear
from ifujax.inference.levenberg_marquardt import FAILED, FIRST_DAMPING, RUNNING, STUCK, State, advance
from ifujax.inference.observations import Observations
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.packed import Packed
from ifujax.inference.parameter_space.space import ParameterSpace, UnconstrainedSpace
from ifujax.inference.precision import dtype_of, working_precision
from ifujax.inference.race import BEHIND, give_up, give_up_high_ends
from ifujax.inference.residuals import N_ABSORBED, SAMPLE, absorption, absorption_of_two
from ifujax.inference.results import FitResult
from ifujax.inference.starts import Rivals
from ifujax.inference.uncertainty import Derived, finish, user_covariance
from ifujax.progress import Progress

_STEPS = {False: (5, 3), True: (1, 2)}
"""Iterations of the first and of later rounds: from a start, or from where float32 ended."""
_COMPILED: set[Any] = set()


class Runner:
    """One batch being fitted: host arrays, and the blocks cut from them."""

    def __init__(
        self,
        model: Any,
        space: ParameterSpace,
        obs: Observations,
        options: LeastSquaresOptions,
        derived: Derived | None,
        precision: str,
        devices: list[Any],
        blocks_for: int = 1,
    ) -> None:
        self.model, self.options, self.precision, self.devices = model, options, precision, devices
        # jax would cast NumPy's float64 itself, but mixes up threads that do so in different precisions at once (jax 0.10).
        self.models = {name: jax.tree.map(partial(_cast_array, dtype_of(name)), model) for name in {precision, "float32"}}
        self.derived = derived
        self.blocks_for = blocks_for
        # Programs are the same whether single precision went first.
        self.program_options = replace(options, warm_up=False)
        self.space = space
        self.obs = obs
        self.dtype = dtype_of(precision)
        self.wide = space.broadcast(obs.batch)
        self.coords_axes = obs.flat_axes

    def block(self, rows: np.ndarray, precision: str, *, errors: bool = False) -> Block:
        """Gather some rows into a block in working precision, with what only `errors` need if these are wanted."""
        dtype = dtype_of(precision)
        # The root is taken in float64: squares of raw fluxes leave float32's range.
        root = np.sqrt(np.asarray(self.obs.ivar[rows], dtype=np.float64))

        def cast(leaf: Any) -> Any:
            leaf = np.asarray(leaf)
            if leaf.dtype.kind == "f":
                return leaf.astype(dtype, copy=False)
            return leaf

        coords = self.obs.coords_of(rows)
        space: Any = jax.tree.map(lambda leaf: cast(leaf[rows]), self.wide)
        if self.options.bounds == "transform":
            space = UnconstrainedSpace(space)
        correlation = self.obs.correlation
        if correlation is not None:
            correlation = np.broadcast_to(correlation, (self.obs.batch, np.shape(correlation)[-1]))[rows].astype(dtype)
        subtracted = None
        if errors and self.obs.subtracted is not None:
            largest = root.max(axis=1)
            subtracted = self.obs.subtracted.of(rows).in_units(np.where(largest > 0, largest, 1.0), dtype)
        return Block(
            cast(self.obs.values[rows]), cast(root), jax.tree.map(cast, coords), space, self.coords_axes, correlation, subtracted
        )

    def solve(self, rows: np.ndarray, x: np.ndarray, progress: Progress | None, *, race: bool = False) -> dict[str, Any]:
        """Iterate all starts to their ends; `rows` says which data each start belongs to.

        In a `race` the starts of a fit that fall behind are given up on the way.
        """
        count = len(x)
        size = self.block_size(count)
        x = self._to_box(rows, x)
        state = _fresh(x, self.dtype)
        self._compile(size, state)
        if self.warm:
            early = _fresh(x, np.dtype(np.float32))
            self._iterate_all(early, rows, size, "float32", None, race)
            # What float32 could not follow starts again; the rest goes on from there, unevaluated in float64.
            sound = (early.phase != FAILED) & np.isfinite(early.x).all(axis=1)
            for name in ("x", "curvature", "damping"):
                target, source = getattr(state, name), getattr(early, name)
                finite = sound & np.isfinite(source.reshape(count, -1)).all(axis=1)
                target[finite] = source[finite]
            state.damping[sound] = np.minimum(state.damping[sound], FIRST_DAMPING)
            state.n_iter[sound] = np.minimum(early.n_iter[sound], self.options.max_iter // 2)

        def report(left: int) -> None:
            if progress is not None:
                progress("fit", int(self.obs.batch * (1 - left / max(count, 1))), self.obs.batch)

        if self.warm and race:
            give_up_high_ends(early, rows)
            state.phase[early.phase == BEHIND] = BEHIND
        self._iterate_all(state, rows, size, self.precision, report, race)
        return {"x": state.x, "chi2": state.chi2, "phase": state.phase, "n_iter": state.n_iter}

    @cached_property
    def dof(self) -> np.ndarray:
        """Degrees of freedom of each fit, 1 at least."""
        n_free = self.space.n_free + n_linear(self.model, self.options)
        return np.maximum((self.obs.ivar > 0).sum(axis=1) - n_free, 1)

    @property
    def warm(self) -> bool:
        return self.options.warm_up and self.dtype == np.float64

    def _iterate_all(
        self,
        state: State,
        rows: np.ndarray,
        size: int,
        precision: str,
        report: Callable[[int], None] | None,
        race: bool,
    ) -> None:
        """Run rounds of a few iterations, the unfinished gathered anew each time; `state` is updated in place."""
        steps, more = _STEPS[precision == "float64" and self.warm]
        pending = np.flatnonzero(state.phase == RUNNING)
        race = race and len(np.unique(rows)) < len(rows)
        while pending.size:

            def task(mine: np.ndarray, device: Any, steps: int = steps) -> State:
                full = padded(mine, size)
                now = jax.tree.map(lambda leaf: leaf[full], state)
                end = _iterate(
                    self.models[precision], self.program_options, self.block(rows[full], precision), now, np.int32(steps)
                )
                return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(mine)], end)

            for mine, end in run_blocks(task, pending, size, self.devices, precision):
                for target, source in zip(jax.tree.leaves(state), jax.tree.leaves(end)):
                    target[mine] = source
            if race:
                give_up(state, rows, self.dof)
            pending = pending[(state.phase[pending] == RUNNING) & (state.n_iter[pending] < self.options.max_iter)]
            if report is not None:
                report(len(pending))
            steps = more

    def _compile(self, size: int, state: State) -> None:
        """Compile what this fit needs side by side, before threads that meet a new program all trace it."""
        programs = [("iterate", self.precision)] + [("iterate", "float32")] * self.warm
        key = (
            jax.tree.structure((self.model, self.space)),
            self.program_options,
            self.precision,
            size,
            self.obs.n_pix,
            self.derived,
        )
        jobs = [(*program, device) for program in [*programs, ("finish", self.precision)] for device in self.devices]
        jobs = [job for job in jobs if (key, job) not in _COMPILED]
        if not jobs:
            return

        def work(job: tuple[str, str, Any]) -> None:
            program, precision, device = job
            with working_precision(precision) as dtype, jax.default_device(device):
                if program == "iterate":
                    none = np.zeros(size, int)
                    start = _fresh(np.zeros((size, state.x.shape[1])), dtype)
                    model = self.models[precision]
                    jax.block_until_ready(_iterate(model, self.program_options, self.block(none, precision), start, np.int32(0)))
                else:
                    few = np.zeros(self.block_size(self.obs.batch), int)
                    start_x = np.zeros((len(few), state.x.shape[1]), dtype)
                    block = self.block(few, precision, errors=True)
                    jax.block_until_ready(_finish(self.models[precision], self.program_options, self.derived, block, start_x))

        with ThreadPoolExecutor(max_workers=min(len(jobs), 4)) as pool:
            list(pool.map(work, jobs))
        _COMPILED.update((key, job) for job in jobs)

    def block_size(self, count: int) -> int:
        """Return how many fits go into one block of a batch of `count`."""
        return block_size(max(count, self.blocks_for), self.devices[0].platform, self.obs.n_pix)

    def _to_box(self, rows: np.ndarray, x: np.ndarray) -> np.ndarray:
        if self.options.bounds != "transform":
            return x
        with working_precision("float64"):
            moved = jax.vmap(inside_line)(jax.tree.map(lambda leaf: leaf[rows], self.wide), x)
        return np.array(moved)

    def finish(self, best: dict[str, np.ndarray], rivals: Rivals) -> FitResult:
        """Values, errors and bits of every row at its best end."""
        batch = self.obs.batch
        size = self.block_size(batch)
        start = np.where(np.isfinite(best["x"]), best["x"], 0).astype(self.dtype)

        def task(rows: np.ndarray, device: Any) -> Any:
            full = padded(rows, size)
            block = self.block(full, self.precision, errors=True)
            end, sample = _finish(self.models[self.precision], self.program_options, self.derived, block, start[full])
            if rows[0] == 0:
                first.update(jax.tree.map(lambda leaf: np.asarray(leaf, dtype=np.float64), sample))
            return end, np.asarray(end.array, dtype=np.float64)[: len(rows)]

        first: dict[str, Any] = {}
        parts = [result for _, result in run_blocks(task, np.arange(batch), size, self.devices, self.precision)]
        end = parts[0][0].unpacked(np.concatenate([array for _, array in parts]))
        n_good = (self.obs.ivar > 0).sum(axis=1)
        n_free = self.space.n_free + n_linear(self.model, self.options)
        status = np.zeros(batch, np.int32)
        status |= np.where(n_good == 0, bits.NO_DATA.value, 0).astype(np.int32)
        status |= np.where((n_good > 0) & (n_good < n_free), bits.TOO_FEW_PIXELS.value, 0).astype(np.int32)
        status |= np.where((n_good > 0) & (best["phase"] == FAILED), bits.NOT_FINITE.value, 0).astype(np.int32)
        status |= np.where((best["phase"] == RUNNING) | (best["phase"] == STUCK), bits.NOT_CONVERGED.value, 0).astype(np.int32)
        status |= np.where((status == 0) & ~np.isfinite(end["chi2"]), bits.NOT_FINITE.value, 0).astype(np.int32)
        each = np.where(self._at_bound(best["x"]), bits.AT_BOUND.value, 0)
        each |= np.where(end["unconstrained"] > 0, bits.UNCONSTRAINED.value, 0)
        each |= rivals.bits(best["x"], end["x_error"])
        lost = status != 0
        each = np.where(lost[:, None], 0, each).astype(np.int32)

        def blank(array: np.ndarray) -> np.ndarray:
            array = np.array(array)
            array[lost] = np.nan
            return array

        free_names = self.space.structure.element_names
        linear_names = tuple(self.model.linear_names) if self.options.linear != "keep" else ()
        return FitResult(
            params={name: blank(value) for name, value in end["params"].items()},
            error={name: blank(value) for name, value in end["error"].items()},
            linear=blank(end["linear"]),
            linear_error=blank(end["linear_error"]),
            covariance=blank(user_covariance(end)),
            covariance_names=free_names + linear_names,
            derived={name: blank(value) for name, value in end["derived"].items()},
            derived_error={name: blank(value) for name, value in end["derived_error"].items()},
            chi2=blank(end["chi2"]),
            n_good=n_good,
            n_iter=best["n_iter"],
            status=status,
            warn=np.bitwise_or.reduce(each, axis=1),
            element_warn=each,
            n_free=n_free,
            x=blank(best["x"]),
            residuals=blank(end["residuals"]) if "residuals" in end else None,
            absorbed=self._absorbed(first, ~lost) if first else None,
        )

    def _absorbed(self, first: dict[str, Any], sound: np.ndarray) -> np.ndarray:
        """Return the mean of what the first fits take of the noise; zeros if they all failed."""
        found = [
            self._absorption(row, first)
            for row in range(min(SAMPLE, self.obs.batch, len(first["covariance"])))
            if first["slopes"] and sound[row] and np.isfinite(first["covariance"][row]).all()
        ]
        return np.mean(found, axis=0) if found else np.zeros(N_ABSORBED)

    def _absorption(self, row: int, first: dict[str, Any]) -> np.ndarray:
        """Return what one fit takes of the noise, as `absorption`; with what was subtracted, if it had been fitted before."""
        slopes, covariance = np.stack([column[row] for column in first["slopes"]]), first["covariance"][row]
        used = self.obs.ivar[row] > 0
        if self.obs.subtracted is None:
            return absorption(slopes, covariance, used)
        root = np.sqrt(self.obs.ivar[row])
        unit = max(float(root.max()), np.finfo(float).tiny)
        subtracted = self.obs.subtracted.of(np.array([row])).in_units(np.array([unit]), np.dtype(np.float64))
        whitened, response = subtracted.basis * (root / unit), subtracted.response[0]
        own = covariance @ (slopes - slopes @ whitened.T @ response)
        everything, spread = np.concatenate([slopes, whitened]), np.concatenate([own, response])
        more = np.concatenate([np.zeros_like(own), np.sqrt(subtracted.extra[0]) * response])
        return absorption_of_two(everything, spread, more, used)

    def _at_bound(self, x: np.ndarray) -> np.ndarray:
        """Whether each parameter lies on the edge of its box."""
        if not x.shape[1] or self.options.bounds == "transform":
            return np.zeros(x.shape, bool)
        # All rows at once, on columns: a vmap would compile anew for every size of a batch.
        with working_precision("float64"):
            sides = jax.tree.map(np.transpose, self.wide).box()
        low, high = (np.stack([np.asarray(side) for side in each], axis=1).astype(self.dtype) for each in sides)
        return np.asarray(((x <= low) | (x >= high)) & (low < high))


def _cast_array(dtype: np.dtype, leaf: Any) -> Any:
    return leaf.astype(dtype) if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind == "f" else leaf


def _fresh(x: np.ndarray, dtype: np.dtype) -> State:
    """States at starts that have not been evaluated."""
    count, n = x.shape
    arrays: dict[str, Any] = {
        "x": x.astype(dtype),
        "chi2": np.full(count, np.inf, dtype),
        "hessian": np.zeros((count, n, n), dtype),
        "gradient": np.zeros((count, n), dtype),
        "curvature": np.zeros((count, n, n), dtype),
        "move": np.zeros((count, n), dtype),
        "damping": np.full(count, FIRST_DAMPING, dtype),
        "growth": np.full(count, 2, dtype),
        "n_iter": np.zeros(count, np.int32),
        "phase": np.full(count, RUNNING, np.int32),
    }
    return State(**arrays)


def inside_line(space: ParameterSpace, x: Any) -> Any:
    """Unconstrained vector of a start that may sit on a bound, moved inside by a millionth."""
    low, high = space.box()
    moved = []
    for value, a, b in zip(x, low, high):
        width = jnp.where(jnp.isfinite(b - a), b - a, 1.0 + jnp.abs(value))
        moved.append(jnp.clip(value, a + 1e-6 * width, b - 1e-6 * width))
    return jnp.stack(space.to_unconstrained(moved)[0])


@partial(jax.jit, static_argnums=(1,))
def _iterate(model: Any, options: LeastSquaresOptions, block: Block, state: State, n_steps: Any) -> State:
    return advance(model, options, block, state, n_steps)


@partial(jax.jit, static_argnums=(1, 2))
def _finish(
    model: Any, options: LeastSquaresOptions, derived: Derived | None, block: Block, x: Any
) -> tuple[Packed, dict[str, Any]]:
    end = finish(model, options, derived, block, x)
    sample = {name: end.pop(name) for name in ("slopes", "covariance") if name in end}
    return Packed.of(end, x.dtype), sample
