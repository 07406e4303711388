"""`fit_joint`: one big fit of many blocks that share parameters.

Each block (a slit, an image, a stamp) is linearised on the device as a row of `fit_batch` is, its
linear block eliminated; the reduced normal matrices are summed on the host, where the blocks' own
parameters are eliminated by Schur complement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax.errors import UsageError, unknown
from ifujax.inference import arrow
from ifujax.inference import status as bits
from ifujax.inference.arrow import Arrow, Pair
from ifujax.inference.batching import choose_devices, padded, run_blocks, usable_cores
from ifujax.inference.evaluation import Block, add_priors, as_model, evaluate, gram, linearise, loss, n_linear, reweighted
from ifujax.inference.joint_result import JointResult
from ifujax.inference.levenberg_marquardt import FIRST_DAMPING
from ifujax.inference.observations import Observations
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.joint import JointSpace, empty_space
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import dtype_of, working_precision
from ifujax.inference.runner import inside_line
from ifujax.inference.starts import pack_starts
from ifujax.inference.uncertainty import Derived, report, user_covariance
from ifujax.progress import Progress

_BYTES = 2**28
"""Memory that the slopes of the blocks in hand at a time may take."""
_LARGEST_DAMPING = 1e12


def fit_joint(
    model: Any,
    shared: ParameterSpace,
    local: ParameterSpace | None,
    obs: Observations,
    start: Mapping[str, Any],
    *,
    options: LeastSquaresOptions = LeastSquaresOptions(),
    derived: Derived | None = None,
    precision: str = "float64",
    devices: Any = None,
    progress: Progress | None = None,
) -> JointResult:
    """Fit one model to many blocks at once.

    Parameters
    ----------
    model : Model
        ``model(params, coords) -> (n_pix,)`` for ONE block, a registered pytree as for `fit_batch`.
        `params` holds the names of `shared` and of `local`. With ``options.linear`` other than
        ``"keep"`` each block has its own coefficients of ``model.design``, eliminated exactly.
    shared : ParameterSpace
        Parameters that all blocks share.
    local : ParameterSpace or None
        Parameters of which each block has its own. Their expressions name local parameters only.
    obs : Observations
        (blocks, n_pix), one block a row.
    start : mapping of str to array
        Every free parameter: shared ones in their shape, local ones as scalars or (blocks, ...).
    options, derived, precision, devices
        As for `fit_batch`; ``options.warm_up`` has no effect. `derived` is computed for each block.
    progress : callable, optional
        Called with ("fit", iteration, iterations at most).

    Returns
    -------
    JointResult

    Raises
    ------
    UsageError
        For names in both spaces, unknown names, or starts of the wrong shape.

    Notes
    -----
    Blocks without data, with fewer pixels than parameters of their own, or whose model is not finite
    at the start are left out, and say so in ``block_status``. Iteration and convergence are those of
    `fit_batch`, without its second-order term.
    """
    local = empty_space() if local is None else local
    twice = set(shared.names) & set(local.names)
    if twice:
        raise UsageError(f"shared and local must not name the same parameter; got {', '.join(sorted(twice))} in both.")
    if shared.n_free == 0:
        raise UsageError("shared must have one free parameter at least; got none. Use fit_batch for independent fits.")
    names = (*shared.names, *local.names)
    for name in start:
        if name not in names:
            raise UsageError(unknown("parameter of start", name, names))
    x = Pair(
        pack_starts(shared, {n: np.asarray(v)[None] for n, v in start.items() if n in shared.names}, 1)[0, 0],
        pack_starts(local, {n: v for n, v in start.items() if n in local.names}, obs.batch)[0],
    )
    problem = _Problem(as_model(model), JointSpace(shared, local), obs, options, derived, precision, choose_devices(devices))
    return problem.finish(*problem.solve(x, progress))


@dataclass(frozen=True)
class _Look:
    """The problem at some parameters, the linear blocks projected out, priors included."""

    chi2: float
    blocks: np.ndarray
    matrix: Arrow
    gradient: Pair


class _Problem:
    """The blocks on the host, cut into chunks for the device."""

    def __init__(
        self,
        model: Any,
        space: JointSpace,
        obs: Observations,
        options: LeastSquaresOptions,
        derived: Derived | None,
        precision: str,
        devices: list[Any],
    ) -> None:
        self.model, self.space, self.obs, self.options = model, space, obs, options
        self.derived, self.precision, self.devices = derived, precision, devices
        self.dtype = dtype_of(precision)
        self.coords_axes = obs.flat_axes
        self.wide = JointSpace(space.shared.broadcast(obs.batch), space.local.broadcast(obs.batch))
        self.root = np.sqrt(np.asarray(obs.ivar, dtype=np.float64))
        self.n_own = space.local.n_free + n_linear(model, options)
        self.n_good = (obs.ivar > 0).sum(axis=1)
        self.status = np.where(self.n_good == 0, bits.NO_DATA.value, 0).astype(np.int32)
        self.status |= np.where((self.n_good > 0) & (self.n_good < self.n_own), bits.TOO_FEW_PIXELS.value, 0).astype(np.int32)
        columns = space.shared.n_free + self.n_own
        room = max(int(_BYTES / (3 * 8 * obs.n_pix * (columns + 4))), 1)
        chunks = max(math.ceil(obs.batch / room), min(len(devices) * usable_cores(), obs.batch // 8), 1)
        self.chunk = math.ceil(obs.batch / chunks)

    def block(self, rows: np.ndarray, space: Any = None) -> Block:
        def cast(leaf: Any) -> Any:
            leaf = np.asarray(leaf)
            return leaf.astype(self.dtype, copy=False) if leaf.dtype.kind == "f" else leaf

        own = self.space_of(self.wide if space is None else space, rows)
        coords = jax.tree.map(cast, self.obs.coords_of(rows))
        return Block(cast(self.obs.values[rows]), cast(self.root[rows]), coords, jax.tree.map(cast, own), self.coords_axes)

    def space_of(self, space: JointSpace, rows: np.ndarray) -> Any:
        cut = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], space)
        return cut.unconstrained() if self.options.bounds == "transform" else cut

    def over_chunks(self, function: Callable[[np.ndarray, int], Any]) -> list[tuple[np.ndarray, Any]]:
        """Call ``function(rows, n_real)`` for each chunk of blocks, padded to one size; NumPy comes back."""

        def task(rows: np.ndarray, device: Any) -> Any:
            end = function(padded(rows, self.chunk), len(rows))
            return jax.tree.map(lambda leaf: np.asarray(leaf, dtype=np.float64), end)

        return list(run_blocks(task, np.arange(self.obs.batch), self.chunk, self.devices, self.precision))

    def at(self, x: Pair, rows: np.ndarray) -> np.ndarray:
        shared = np.broadcast_to(x.shared, (len(rows), len(x.shared)))
        return np.concatenate([shared, x.local[rows]], axis=1).astype(self.dtype)

    def look(self, x: Pair) -> _Look:
        """Evaluate all blocks that take part."""
        batch, s, m = self.obs.batch, len(x.shared), x.local.shape[1]
        live = self.status == 0

        def function(rows: np.ndarray, n_real: int) -> Any:
            counted = live[rows] & (np.arange(len(rows)) < n_real)
            return _reduced(self.model, self.options, s, self.block(rows), self.at(x, rows), counted)

        chi2 = np.zeros(batch)
        matrix = Arrow(np.zeros((s, s)), np.zeros((batch, s, m)), np.zeros((batch, m, m)))
        slope = Pair(np.zeros(s), np.zeros((batch, m)))
        for rows, end in self.over_chunks(function):
            n = len(rows)
            chi2[rows] = end["chi2"][:n]
            matrix.shared[...] += end["shared"]
            matrix.coupling[rows] = end["coupling"][:n]
            matrix.local[rows] = end["local"][:n]
            slope.shared[...] += end["shared_gradient"]
            slope.local[rows] = end["local_gradient"][:n]
        total = float(chi2.sum()) + self.add_priors(x, matrix, slope)
        return _Look(total, chi2, matrix, slope)

    def add_priors(self, x: Pair, matrix: Arrow, slope: Pair | None) -> float:
        """Add Gaussian priors, each once; return what they add to chi2."""
        total = 0.0
        live = self.status == 0
        m = x.local.shape[1]
        for part, vector in (("shared", x.shared[None]), ("local", x.local)):
            space = getattr(self.wide, part)
            if not any(entry.has_residual for entry in space.structure.entries):
                continue
            rows = np.arange(len(vector))
            with working_precision(self.precision):
                own = self.space_of(JointSpace(space, empty_space().broadcast(self.obs.batch)), rows).shared
                own = jax.tree.map(lambda leaf: np.asarray(leaf, self.dtype), own)
                end = [np.asarray(item, dtype=np.float64) for item in _priors(own, vector.astype(self.dtype))]
            if part == "shared":
                total += float(end[0][0])
                matrix.shared[...] += end[1][0]
                if slope is not None:
                    slope.shared[...] += end[2][0]
            else:
                total += float(end[0][live].sum())
                matrix.local[:, :m, :m] += end[1] * live[:, None, None]
                if slope is not None:
                    slope.local[...] += end[2] * live[:, None]
        return total

    def box(self) -> tuple[Pair, Pair]:
        s = self.space.shared.n_free
        # All blocks at once, on columns: mapped over blocks it would be worked out operation by operation
        cut = self.space_of(self.wide, np.arange(self.obs.batch))
        with working_precision("float64"):
            sides = jax.tree.map(np.transpose, cut).box()
            low, high = (np.stack([np.broadcast_to(np.asarray(at), self.obs.batch) for at in side], axis=1) for side in sides)
        return Pair(low[0, :s], low[:, s:]), Pair(high[0, :s], high[:, s:])

    def start(self, x: Pair, low: Pair, high: Pair) -> tuple[Pair, _Look | None]:
        """Pull the start into the box and leave out the blocks that have no finite model there."""
        if self.options.bounds == "transform":
            first = jax.tree.map(lambda leaf: leaf[:1], self.wide.shared)
            x = Pair(_to_line(first, x.shared[None])[0], _to_line(self.wide.local, x.local))
        x = x.like(np.clip(x.flat, low.flat, high.flat))
        first = self.look(x)
        sound = np.isfinite(first.blocks) & np.isfinite(first.matrix.local).all(axis=(1, 2))
        sound &= np.isfinite(first.matrix.coupling).all(axis=(1, 2)) & np.isfinite(first.gradient.local).all(axis=1)
        if not sound.all():
            self.status |= np.where(~sound & (self.status == 0), bits.NOT_FINITE.value, 0).astype(np.int32)
            x = Pair(x.shared, np.where(np.isfinite(x.local), x.local, 0.0))
            first = self.look(x)
        usable = np.isfinite(first.chi2) and np.isfinite(first.gradient.flat).all() and (self.status == 0).any()
        return x, first if usable else None

    def solve(self, x: Pair, progress: Progress | None) -> tuple[Pair, int, int]:
        """Iterate to the minimum; return the parameters, the status and the number of iterations."""
        low, high = self.box()
        x, now = self.start(x, low, high)
        if now is None:
            empty = not (self.n_good > 0).any()
            return x, bits.NO_DATA.value if empty else bits.NOT_FINITE.value, 0
        live = self.status == 0
        if int(self.n_good[live].sum()) < self.n_free:
            return x, bits.TOO_FEW_PIXELS.value, 0
        eps = float(np.finfo(self.dtype).eps)
        dof = max(int(self.n_good[live].sum()) - self.n_free, 1)
        total = float(np.sum((np.asarray(self.obs.values)[live] * self.root[live]) ** 2))
        damping, growth = FIRST_DAMPING, 2.0
        for iteration in range(1, self.options.max_iter + 1):
            try:
                step = arrow.box_step(now.matrix, now.gradient, damping, x, low, high)
            except np.linalg.LinAlgError:
                damping, growth = damping * growth, growth * 2
                continue
            move = step.flat
            predicted = float(move @ (2 * now.gradient.flat - now.matrix.times(step).flat))
            trial_x = x.like(np.clip(x.flat + move, low.flat, high.flat))
            trial = self.look(trial_x)
            finite = bool(np.isfinite(trial.chi2) and np.isfinite(trial.gradient.flat).all())
            gain = now.chi2 - trial.chi2 if finite else -np.inf
            known_to = 2 * eps * now.chi2 + (10 * eps) ** 2 * total
            allowed = self.options.tolerance * now.chi2 / dof + known_to
            small = predicted * (1.0 + damping) <= allowed
            if finite and (gain > 0 or (small and gain >= -allowed)):
                x, now = trial_x, trial
                ratio = gain / max(predicted, np.finfo(float).tiny)
                damping = max(damping * float(np.clip(1.0 - (2.0 * ratio - 1.0) ** 3, 0.33, 2.0)), 1e-9)
                growth = 2.0
            else:
                damping, growth = damping * growth, growth * 2.0
            if progress is not None:
                progress("fit", iteration, self.options.max_iter)
            if small:
                return x, 0, iteration
            if damping > _LARGEST_DAMPING:
                return x, bits.NOT_FINITE.value, iteration
        return x, bits.NOT_CONVERGED.value, self.options.max_iter

    @property
    def n_free(self) -> int:
        return self.space.shared.n_free + int((self.status == 0).sum()) * self.n_own

    def finish(self, x: Pair, status: int, n_iter: int) -> JointResult:
        """Values and errors at the solution."""
        batch, s, m = self.obs.batch, len(x.shared), self.n_own
        live = self.status == 0

        def normal(rows: np.ndarray, n_real: int) -> Any:
            counted = live[rows] & (np.arange(len(rows)) < n_real)
            return _normal(self.model, self.options, s, self.block(rows), self.at(x, rows), counted)

        matrix = Arrow(np.zeros((s, s)), np.zeros((batch, s, m)), np.zeros((batch, m, m)))
        chi2 = np.zeros(batch)
        for rows, end in self.over_chunks(normal):
            chi2[rows] = end["chi2"][: len(rows)]
            matrix.shared[...] += end["shared"]
            matrix.coupling[rows] = end["coupling"][: len(rows)]
            matrix.local[rows] = end["local"][: len(rows)]
        prior = self.add_priors(x, matrix, None)
        if not np.isfinite(matrix.shared).all() or not np.isfinite(matrix.local).all():
            status = status or bits.NOT_FINITE.value
            matrix = Arrow(*(np.zeros_like(part) for part in (matrix.shared, matrix.coupling, matrix.local)))
        spread, felt = arrow.covariance(matrix, float(np.finfo(self.dtype).eps))

        def named(rows: np.ndarray, n_real: int) -> Any:
            cross, own = spread.coupling[rows], spread.local[rows]
            top = np.concatenate([np.broadcast_to(spread.shared, (len(rows), s, s)), cross], axis=2)
            full = np.concatenate([top, np.concatenate([np.swapaxes(cross, 1, 2), own], axis=2)], axis=1)
            known = np.concatenate([np.broadcast_to(felt.shared, (len(rows), s)), felt.local[rows]], axis=1)
            at = self.at(x, rows)
            return _report(self.model, self.options, self.derived, self.block(rows), at, full.astype(self.dtype), known)

        chunks = self.over_chunks(named)
        real = [jax.tree.map(lambda leaf, rows=rows: leaf[: len(rows)], end) for rows, end in chunks]
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *real)
        covariance = user_covariance(whole)
        first = int(np.argmax(live))
        lost = ~live | (status != 0)

        def blank(array: np.ndarray) -> np.ndarray:
            array = np.array(array)
            array[lost] = np.nan
            return array

        def one(array: np.ndarray) -> np.ndarray:
            return np.where(status != 0, np.nan, array[first])

        low, high = self.box()
        shared_names, local_names = self.space.shared.names, self.space.local.names
        boxed = self.options.bounds != "transform"
        warn = bits.AT_BOUND.value if boxed and ((x.shared <= low.shared) | (x.shared >= high.shared)).any() else 0
        warn |= 0 if felt.shared.all() else bits.UNCONSTRAINED.value
        touching = ((x.local <= low.local) | (x.local >= high.local)).any(axis=1) & boxed
        block_warn = np.where(touching, bits.AT_BOUND.value, 0) | np.where(felt.local.all(axis=1), 0, bits.UNCONSTRAINED.value)
        linear = tuple(self.model.linear_names) if self.options.linear != "keep" else ()
        return JointResult(
            shared={n: one(whole["params"][n]) for n in shared_names},
            shared_error={n: one(whole["error"][n]) for n in shared_names},
            covariance=one(covariance)[:s, :s],
            covariance_names=self.space.shared.structure.element_names,
            local={n: blank(whole["params"][n]) for n in local_names},
            local_error={n: blank(whole["error"][n]) for n in local_names},
            linear=blank(whole["linear"]),
            linear_error=blank(whole["linear_error"]),
            block_covariance=blank(covariance[:, s:, s:]),
            block_covariance_names=self.space.local.structure.element_names + linear,
            derived={n: blank(v) for n, v in whole["derived"].items()},
            derived_error={n: blank(v) for n, v in whole["derived_error"].items()},
            chi2=float("nan") if status else float(chi2.sum()) + prior,
            block_chi2=blank(chi2),
            n_good=self.n_good,
            n_iter=n_iter,
            status=int(status),
            warn=0 if status else int(warn),
            block_status=self.status | np.int32(status),
            block_warn=np.where(lost, 0, block_warn).astype(np.int32),
            n_free=self.n_free,
        )


def _to_line(space: ParameterSpace, x: np.ndarray) -> np.ndarray:
    """Free vectors (rows, n), moved off their bounds, as unconstrained ones."""
    if not x.shape[1]:
        return x
    with working_precision("float64"):
        return np.array(jax.vmap(inside_line)(space, x))


def _split(hessian: Any, s: int, counted: Any) -> dict[str, Any]:
    """Cut normal matrices into the arrow's parts; rows that do not count give nothing."""
    hessian = jnp.where(counted[:, None, None], hessian, 0.0)
    return {"shared": hessian[:, :s, :s].sum(axis=0), "coupling": hessian[:, :s, s:], "local": hessian[:, s:, s:]}


@partial(jax.jit, static_argnums=(1, 2))
def _reduced(model: Any, options: LeastSquaresOptions, s: int, block: Block, x: Any, counted: Any) -> dict[str, Any]:
    at = evaluate(model, options, block, x)
    gradient = jnp.where(counted[:, None], at.gradient, 0.0)
    return _split(at.hessian, s, counted) | {
        "chi2": jnp.where(counted, at.chi2, 0.0),
        "shared_gradient": gradient[:, :s].sum(axis=0),
        "local_gradient": gradient[:, s:],
    }


@partial(jax.jit, static_argnums=(1, 2))
def _normal(model: Any, options: LeastSquaresOptions, s: int, block: Block, x: Any, counted: Any) -> dict[str, Any]:
    at = linearise(model, options, block, x)
    chi2, pixel_weight = loss(at.residual, block.root_weight, options)
    columns, design, _ = reweighted(at, pixel_weight)
    return _split(gram(columns + design), s, counted) | {"chi2": jnp.where(counted, chi2, 0.0)}


@partial(jax.jit, static_argnums=(1, 2))
def _report(
    model: Any, options: LeastSquaresOptions, derived: Derived | None, block: Block, x: Any, covariance: Any, felt: Any
) -> dict[str, Any]:
    at = linearise(model, options, block, x)
    _, pixel_weight = loss(at.residual, block.root_weight, options)
    columns, design, _ = reweighted(at, pixel_weight)
    return report(model, derived, block, x, at, columns + design, covariance, felt, jnp.ones((x.shape[0], 1), x.dtype))


@jax.jit
def _priors(space: Any, x: Any) -> Any:
    rows, n = x.shape
    nothing = jnp.zeros((rows, 0), x.dtype)
    block = Block(nothing, nothing, (), space, ())
    return add_priors(block, x, jnp.zeros(rows, x.dtype), jnp.zeros((rows, n, n), x.dtype), jnp.zeros((rows, n), x.dtype))
