"""The fit of some spaxels in IFSCube's way: the hooks of `ChunkFitter` that ``ifscube_compat`` replaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import jax
import numpy as np

from ifujax.data.cube import Cube
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.results import FitResult
from ifujax.inference.status import AT_BOUND
from ifujax.lines.chunk import ChunkFitter, ChunkResult, Guess
from ifujax.lines.config import LineFitConfig
from ifujax.lines.ifscube.adapt import difference_step
from ifujax.lines.ifscube.descent import Descent
from ifujax.lines.ifscube.goodness import chi_square, degrees_of_freedom, flux_scale
from ifujax.lines.ifscube.measure import measure
from ifujax.lines.ifscube.packing import Packing
from ifujax.lines.ifscube.preparation import CompatPreparation, CompatPrepared, start_amplitudes
from ifujax.lines.ifscube.profiles import LineParameters, line_profiles
from ifujax.lines.ifscube.stopping import forward_difference_point
from ifujax.lines.preparation import Prepared
from ifujax.lines.starts.packing import Named, named_starts
from ifujax.lines.starts.search import Starts
from ifujax.lines.trust import line_warnings
from ifujax.progress import Progress

OTHER_STARTS = {"gaussian": 1, "gauss_hermite": 20}
"""Starts from the data beside IFSCube's own. Gauss-Hermite lines have minima at the corners of h3 and h4."""
_SMALLEST_STEP = 1e-6
"""Difference steps below this move nothing that can be told from rounding."""
_ROWS_AT_ONCE = 256


class CompatFitter(ChunkFitter):
    """Fits spaxels from IFSCube's start to where IFSCube stops, and measures lines as it does.

    Parameters
    ----------
    cube, whole : Cube
        The cube cut to the fitting window, and uncut, both from `adapted_cube`.
    config : LineFitConfig
        From `adapted_config`.
    precision, devices, warm_up
        As for `ChunkFitter`.

    Notes
    -----
    Status bits are ours: 0 is a fit that ended, whatever IFSCube's SLSQP would have said of it.
    """

    def __init__(
        self,
        cube: Cube,
        config: LineFitConfig,
        whole: Cube,
        precision: str = "float64",
        devices: Sequence[Any] | str | None = None,
        *,
        warm_up: bool = False,
    ) -> None:
        super().__init__(cube, config, None, precision, devices, warm_up=warm_up)
        self.preparation = CompatPreparation(cube, config, self.setup)
        self.axis = whole.rest_wavelength
        first = int(np.searchsorted(whole.wavelength, cube.wavelength[0]))
        self.inside = slice(first, first + cube.shape[0])
        self.rest_lines = np.asarray(self.setup.model.rest_wavelengths)
        self.packing = Packing(self.setup)
        self.step = difference_step(config)
        self.descent = Descent(self.packing, config)

    def dof(self, n_good: np.ndarray) -> np.ndarray:
        """Return what IFSCube divides chi2 by."""
        packing = self.packing
        return degrees_of_freedom(n_good, packing.n_packed, packing.n_constraints, self.config.fit.instrument_dispersion)

    @cached_property
    def guess(self) -> dict[str, float]:
        """The guess of every parameter, by name: the same for all spaxels, ``peak`` and the like included."""
        keyword = {line.name: _keyword(line.strength_declaration) for line in self.setup.lines}
        found = start_amplitudes(self.cube, {word for word in keyword.values() if isinstance(word, str)})
        result = dict(self.setup.guess_shape)
        for i, line in enumerate(self.setup.lines):
            item, said = line.strength_declaration, keyword[line.name]
            value = found[said] if isinstance(said, str) else said
            limits = (item.lower, item.upper) if isinstance(item, Bounded) else (-np.inf, np.inf)
            result[f"{line.name}.amplitude"] = float(np.clip(value, *limits))
            result[f"{line.name}.velocity"] = float(self.setup.guess_velocity[i])
            result[f"{line.name}.velocity_dispersion"] = float(self.setup.guess_sigma[i])
        return result

    def fit(self, rows: np.ndarray, progress: Progress | None = None, guess: Guess | None = None) -> ChunkResult:
        """Fit from IFSCube's start, and from others; the lowest counts, but where IFSCube's minimum is known to be another."""
        if self.config.fit.fixed:
            return super().fit(rows, progress, guess)
        quiet = self.without_draws()
        own = ChunkFitter.fit(quiet, rows, progress, guess)
        quiet.config = replace(quiet.config, fit=replace(quiet.config.fit, starts=OTHER_STARTS[self.setup.lines[0].shape]))
        bounds = ({}, {}) if guess is None else (guess.lower, guess.upper)
        other = ChunkFitter.fit(quiet, rows, None, Guess({}, *bounds, search=True))
        best = own.take(~self._is_better(other, own, rows, guess), other)
        if not self.config.fit.monte_carlo:
            return best
        return super().fit(rows, None, Guess(dict(zip(self.setup.model.parameter_names, best.solution.T)), *bounds))

    def _is_better(self, other: ChunkResult, own: ChunkResult, rows: np.ndarray, guess: Guess | None) -> np.ndarray:
        """Whether other starts end lower than IFSCube's by more than the noise hides, (n,), and IFSCube not where ours does.

        Of Gauss-Hermite lines IFSCube's end says nothing: its start moved by 1e-9 changes it by more than the noise.
        """
        unit = other.chi2 / np.maximum(other.n_good - self.n_free, 1)  # 1 where the variance is right
        lower = (other.status == 0) & (own.status == 0) & (own.chi2 - other.chi2 > unit)
        gaussian = self.setup.lines[0].shape == "gaussian"
        if gaussian and self.step > _SMALLEST_STEP and not self.packing.shares_scale:
            some = np.flatnonzero(lower)
            lower[some] = np.abs(self._ends(rows[some], None if guess is None else guess.of(some)) - own.chi2[some]) > unit[some]
        return lower | ((other.status == 0) & (own.status != 0))

    def _ends(self, rows: np.ndarray, guess: Guess | None) -> np.ndarray:
        """Return chi2 where IFSCube's minimiser itself ends, (n,)."""
        ends = np.full(len(rows), np.nan)
        if not len(rows):
            return ends
        ready = cast(CompatPrepared, self.preparation(rows))
        good = ready.ivar[:, : self.cube.shape[0]] > 0
        scale = flux_scale(ready.data, good)
        start = self._start(len(rows), guess)
        narrow = {} if guess is None else {name: (guess.lower[name], guess.upper[name]) for name in guess.lower}
        for k, used in enumerate(good):
            values, ivar = ready.values[k, : len(used)][used], ready.ivar[k, : len(used)][used]
            weights = np.full_like(values, 1.0 / scale[k] ** 2) if self.cube.uncertainty is None else ivar
            mine = np.array([start[name][k] for name in self.setup.model.parameter_names])
            bounds = {name: (low[k], high[k]) for name, (low, high) in narrow.items()}
            ends[k] = self.descent(self.preparation.rest[used], values, weights, mine, float(scale[k]), bounds)
        return ends

    def _start(self, n: int, guess: Guess | None) -> Named:
        """Return IFSCube's start of `n` spectra: the guess, and what is given for them where it is known."""
        way = {name: np.full(n, value) for name, value in self.guess.items()}
        given = {} if guess is None else guess.params
        return way | {name: np.where(np.isfinite(value), value, way[name]) for name, value in given.items()}

    def _ways(self, found: Starts, ready: Prepared, guess: Guess | None) -> list[Named]:
        if guess is not None and guess.search:
            return named_starts(self.setup, found)
        return [self._start(len(ready.ivar), guess)]

    def _without_unseen(self, space: ParameterSpace, ready: Prepared, found: Starts) -> tuple[ParameterSpace, np.ndarray]:
        return space, np.zeros((len(ready.ivar), len(self.setup.lines)), bool)

    def _looked_again(
        self,
        result: FitResult,
        ready: Prepared,
        space: ParameterSpace,
        unseen: np.ndarray,
        found: Starts,
        rows: np.ndarray,
    ) -> tuple[FitResult, ParameterSpace, np.ndarray]:
        return result, space, unseen

    def _redrawn(self, ready: Prepared, noisy: np.ndarray) -> Prepared:
        ready = cast(CompatPrepared, ready)
        noise = (noisy - ready.values)[:, : ready.data.shape[1]]
        return replace(ready, values=noisy, data=ready.data + noise)

    def _concluded(self, chunk: ChunkResult, ready: Prepared, space: ParameterSpace) -> ChunkResult:
        """Move the solution to where IFSCube stops, and replace what it measures in its own way."""
        ready = cast(CompatPrepared, ready)
        solution, chi2 = chunk.solution.copy(), np.full(len(chunk.solution), np.nan)
        scale = flux_scale(ready.data, ready.ivar[:, : self.cube.shape[0]] > 0)
        sound = np.flatnonzero((chunk.status == 0) & np.isfinite(solution).all(axis=1))
        for first in range(0, len(sound), _ROWS_AT_ONCE):
            rows = sound[first : first + _ROWS_AT_ONCE]
            solution[rows], chi2[rows] = self._stopped(solution[rows], ready, space, scale[rows], rows)
        table = np.where((chunk.status == 0)[:, None], solution, np.nan).reshape(-1, *self.packing.packed.shape[1:])
        lines = LineParameters(self.rest_lines, *np.moveaxis(table, -1, 0).swapaxes(1, 2))
        stellar = ready.stellar if ready.stellar.size else None
        window = self.config.fit.window or self.preparation.window
        measured = measure(self.axis, self.inside, window, ready.data, ready.continuum, stellar, lines)
        values = chunk.values.copy()
        for q, name in enumerate(self.quantities):
            if name in measured:
                values[:, :, q] = measured[name].T
            else:  # NaN where the data say nothing
                slot = _SLOTS.index("velocity_dispersion" if name == "sigma" else name)
                values[:, :, q] = np.where(np.isnan(values[:, :, q]), np.nan, table[:, :, slot])
        warn, line_warn = chunk.warn, chunk.line_warn
        if not self.config.fit.fixed:  # of what is reported, not of the minimum that it lies beside
            at_bound = np.zeros((len(warn), space.n_free), np.int32)
            resting = self.packing.at_bound(_of_rows(space, len(warn), sound), solution[sound])
            at_bound[sound] = np.where(resting, AT_BOUND.value, 0)
            warn = (warn & ~AT_BOUND.value) | np.bitwise_or.reduce(at_bound, axis=1)
            line_warn = (line_warn & ~AT_BOUND.value) | line_warnings(self.setup, at_bound)
        return replace(chunk, solution=solution, values=values, chi2=chi2, warn=warn, line_warn=line_warn)

    def _stopped(
        self, solution: np.ndarray, ready: CompatPrepared, space: ParameterSpace, scale: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where IFSCube stops near fits (n, parameters) of some rows, and its chi2 there."""
        used = np.flatnonzero((ready.ivar[rows] > 0).any(axis=0))
        wave = self.preparation.rest[used]
        values, ivar = (array[np.ix_(rows, used)] for array in (ready.values, ready.ivar))
        table = solution.reshape(-1, *self.packing.packed.shape[1:])
        if self.step > _SMALLEST_STEP and not self.config.fit.fixed:
            moves = self.packing.moves(_of_rows(space, len(ready.ivar), rows), solution, scale)
            table = forward_difference_point(wave, self.rest_lines, values, ivar, table, moves, self.step)
        residual = values - line_profiles(wave, self.rest_lines, table).sum(axis=1)
        good = ivar > 0
        variance = None if self.cube.uncertainty is None else 1.0 / np.where(good, ivar, 1.0)
        return table.reshape(solution.shape), chi_square(residual, variance, good, scale)


def _of_rows(space: ParameterSpace, n: int, rows: np.ndarray) -> ParameterSpace:
    """Return the parameter space of some of `n` spectra."""
    return jax.tree.map(lambda leaf: leaf[rows], space.broadcast(n))


def _keyword(item: Declaration) -> str | float:
    """Return the guessed amplitude, or the word that stands for it; tied ones follow whatever it is."""
    if isinstance(item, Fixed):
        return item.value
    said = item.start if isinstance(item, Bounded) else None
    return "peak" if said is None else said


_SLOTS = ("amplitude", "velocity", "velocity_dispersion", "h3", "h4")
"""Columns of a table of parameters."""
