"""The fit of some spaxels in IFSCube's way: the hooks of `ChunkFitter` that ``ifscube_compat`` replaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import jax
import numpy as np

from ifujax.data.cube import Cube
from ifujax.inference.declarations import Bounded, Declaration, Fixed
from ifujax.inference.parameters import ParameterSpace
from ifujax.inference.status import AT_BOUND
from ifujax.lines.chunk import ChunkFitter, ChunkResult, Guess, Progress
from ifujax.lines.config import LineFitConfig
from ifujax.lines.ifscube.adapt import difference_step
from ifujax.lines.ifscube.goodness import chi_square, degrees_of_freedom, flux_scale
from ifujax.lines.ifscube.measure import measure
from ifujax.lines.ifscube.packing import Packing
from ifujax.lines.ifscube.preparation import CompatPreparation, CompatPrepared, start_amplitudes
from ifujax.lines.ifscube.profiles import LineParameters, line_profiles
from ifujax.lines.ifscube.stopping import forward_difference_point
from ifujax.lines.preparation import Prepared
from ifujax.lines.starts.packing import Named, named_starts
from ifujax.lines.starts.search import Starts

OTHER_STARTS = {"gaussian": 1, "gauss_hermite": 20}
"""Starts from the data beside IFSCube's own. Gauss-Hermite lines have minima at the corners of h3 and h4."""
CLEARLY = 4.0
"""How much lower another start must end than IFSCube's, where chi2 per degree of freedom is 1."""
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
        """Fit from IFSCube's start; where another start ends clearly below, the lowest of `OTHER_STARTS` more counts.

        IFSCube's path to its minimum can't be followed, and ours from the same start may end higher up.
        """
        if self.config.fit.fixed:
            return super().fit(rows, progress, guess)
        quiet = self.without_draws()
        own = ChunkFitter.fit(quiet, rows, progress, guess)
        quiet.config = replace(quiet.config, fit=replace(quiet.config.fit, starts=OTHER_STARTS[self.setup.lines[0].shape]))
        bounds = ({}, {}) if guess is None else (guess.lower, guess.upper)
        other = ChunkFitter.fit(quiet, rows, None, Guess({}, *bounds, search=True))
        best = own.take(~self._is_better(other, own), other)
        if not self.config.fit.monte_carlo:
            return best
        return super().fit(rows, None, Guess(dict(zip(self.setup.model.parameter_names, best.solution.T)), *bounds))

    def _is_better(self, other: ChunkResult, own: ChunkResult) -> np.ndarray:
        """Whether another solution lies below that from IFSCube's start by more than the noise hides, (n,)."""
        unit = other.chi2 / np.maximum(other.n_good - self.n_free, 1)  # 1 where the variance is right
        return (other.status == 0) & ((own.status != 0) | (own.chi2 - other.chi2 > CLEARLY * unit))

    def _ways(self, found: Starts, ready: Prepared, guess: Guess | None) -> list[Named]:
        if guess is not None and guess.search:
            return named_starts(self.setup, found)
        given = {} if guess is None else guess.params
        way = {name: np.full(len(ready.ivar), value) for name, value in self.guess.items()}
        return [way | {name: np.where(np.isfinite(value), value, way[name]) for name, value in given.items()}]

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
        warn = chunk.warn
        if not self.config.fit.fixed:  # of what is reported, not of the minimum that it lies beside
            at_bound = np.zeros(len(warn), bool)
            at_bound[sound] = self.packing.at_bound(_of_rows(space, len(warn), sound), solution[sound])
            warn = (warn & ~AT_BOUND.value) | np.where(at_bound, AT_BOUND.value, 0).astype(warn.dtype)
        return replace(chunk, solution=solution, values=values, chi2=chi2, warn=warn)

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
