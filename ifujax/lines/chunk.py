"""The fit of some spaxels of a cube, from their data to arrays that can be kept on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import numpy as np

from ifujax.data.cube import Cube
from ifujax.inference import status as bits
from ifujax.inference.correlation import Autocorrelation
from ifujax.inference.least_squares import evaluate_batch, fit_batch
from ifujax.inference.observations import Observations
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parabola import errors_hold
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.residuals import N_ABSORBED, N_SUMS
from ifujax.inference.results import FitResult
from ifujax.inference.subtracted import Subtracted
from ifujax.inference.uncertainty import Derived
from ifujax.lines.config import LineFitConfig
from ifujax.lines.measure import check_windows, line_quantities
from ifujax.lines.monte_carlo import Realisations
from ifujax.lines.preparation import Preparation, Prepared
from ifujax.lines.second_look import SecondLook
from ifujax.lines.setup import Setup, prepare
from ifujax.lines.starts.declared import declared_start, moment_start, trivial_start
from ifujax.lines.starts.packing import Named, named_starts, narrowed, pack_named, scaled_space, starts_of
from ifujax.lines.starts.search import StartFinder, Starts
from ifujax.lines.starts.unseen import held, unseen_at_start
from ifujax.lines.trust import fragile, line_warnings
from ifujax.models.emission import COORDS_AXES, SpectralCoords
from ifujax.progress import Progress

_LARGE_BATCH = 64
"""Fits of which there are blocks of the larger size."""

LINE_QUANTITIES = (
    "flux",
    "amplitude",
    "velocity",
    "velocity_dispersion",
    "sigma",
    "equivalent_width",
    "flux_direct",
    "equivalent_width_direct",
)
"""Quantities measured of every line."""
SHAPE_QUANTITIES = ("h3", "h4", "lorentz_fwhm")
"""Quantities of the lines whose shape has them."""


@dataclass(frozen=True)
class ChunkResult:
    """What the fit of some spaxels gives, one row a spaxel.

    `solution` (n, parameters) in the order of the model's `parameter_names`; `values` and `errors` (n, lines, quantities);
    `line_warn` (n, lines) the bits that concern each line; `linear` (n, K) continuum coefficients; `fitted` (n, bytes) packed
    bits of the pixels that had a weight; `unseen` (n, lines) lines that the data say nothing about, which were held; `draws`
    (n, realisations, lines, quantities) of Monte Carlo runs, else none; `residuals` (n, sums) as of
    `ifujax.inference.residuals`.
    """

    solution: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    linear: np.ndarray
    status: np.ndarray
    warn: np.ndarray
    line_warn: np.ndarray
    chi2: np.ndarray
    n_good: np.ndarray
    n_iter: np.ndarray
    noise: np.ndarray
    fitted: np.ndarray
    unseen: np.ndarray
    draws: np.ndarray
    residuals: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, to be kept."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def of(self, rows: np.ndarray) -> ChunkResult:
        """Return copies of some rows: their indices, or a bool for each."""
        return ChunkResult(**{name: array[rows] for name, array in self.arrays().items()})

    @classmethod
    def joined(cls, parts: Sequence[ChunkResult]) -> ChunkResult:
        """Return the results of several chunks, one after the other."""
        return cls(**{item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)})

    def with_rivals(self, rival: np.ndarray, other: ChunkResult) -> ChunkResult:
        """Return a copy that says of some fits (n,) that `other` is another minimum, and of the lines that differ by an error."""
        with np.errstate(invalid="ignore"):
            apart = (np.abs(self.values - other.values) > self.errors).any(axis=2)
        bit = bits.OTHER_MINIMUM.value
        warn = (self.warn | np.where(rival, bit, 0)).astype(np.int32)
        line_warn = (self.line_warn | np.where(rival[:, None] & apart, bit, 0)).astype(np.int32)
        return replace(self, warn=warn, line_warn=line_warn)

    def take(self, keep: np.ndarray, other: ChunkResult) -> ChunkResult:
        """Return a result with `other`'s rows where `keep` is False."""

        def choose(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return np.where(keep.reshape(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        return ChunkResult(**{item.name: choose(getattr(self, item.name), getattr(other, item.name)) for item in fields(self)})


@dataclass(frozen=True)
class Guess:
    """Solutions to start from, ``{"line.parameter": (n,)}``, NaN where there is none, and narrower bounds of free parameters.

    The fit starts there alone, where there is a guess; `search` adds the starts found in the data. `more` are further
    solutions to start from.
    """

    params: Mapping[str, np.ndarray]
    lower: Mapping[str, np.ndarray] = field(default_factory=dict)
    upper: Mapping[str, np.ndarray] = field(default_factory=dict)
    search: bool = False
    more: tuple[Mapping[str, np.ndarray], ...] = ()

    def of(self, rows: np.ndarray) -> Guess:
        """Return the guess of some rows."""
        params, lower, upper, *more = (
            {name: side[rows] for name, side in each.items()} for each in (self.params, self.lower, self.upper, *self.more)
        )
        return Guess(params, lower, upper, self.search, tuple(more))


class ChunkFitter:
    """Fits any spaxels of one cube; holds what all chunks share."""

    def __init__(
        self,
        cube: Cube,
        config: LineFitConfig,
        frozen: np.ndarray | None,
        precision: str = "float64",
        devices: Sequence[Any] | str | None = None,
        *,
        warm_up: bool = False,
    ) -> None:
        self.cube, self.config, self.frozen = cube, config, frozen
        self.pooled: Autocorrelation | None = None
        self.absorbed = np.zeros(N_ABSORBED)
        self.precision, self.devices = precision, devices
        self.setup: Setup = prepare(config, cube.rest_edges, cube.redshift)
        self.preparation = Preparation(cube, config, self.setup, frozen)
        model = self.setup.model
        self.coords = model.coords(cube.rest_edges, self.preparation.window, self.preparation.n_pix)
        self.finder = StartFinder(self.setup, self.coords.pixel_velocity, self.coords.width)
        self.preparation.find_lines(self.finder)
        windows = check_windows(self.setup.lines, cube.rest_wavelength)
        self.derived = line_quantities(config.equivalent_width.sigma_factor, windows)
        self.options = LeastSquaresOptions(
            linear="eliminate" if model.n_continuum else "keep",
            max_iter=config.fit.max_iter,
            tolerance=config.fit.tolerance,
            warm_up=warm_up,
            residual_sums=True,
        )
        own = {role for i in range(len(model.names)) for role in model.parameters(i)}
        self.quantities = (*LINE_QUANTITIES, *(name for name in SHAPE_QUANTITIES if name in own))

    @property
    def n_free(self) -> int:
        """Free parameters of one fit, the continuum fitted with the lines included."""
        return self.setup.space.n_free + self.setup.model.n_continuum

    def dof(self, n_good: np.ndarray) -> np.ndarray:
        """Return the degrees of freedom of fits of `n_good` pixels."""
        return n_good / self.config.fit.instrument_dispersion - self.n_free

    @property
    def n_linear(self) -> int:
        """Continuum coefficients that are kept of each spaxel."""
        return 0 if self.preparation.degree is None else self.preparation.degree + 1

    def fit(self, rows: np.ndarray, progress: Progress | None = None, guess: Guess | None = None) -> ChunkResult:
        """Run all steps on some spaxels (flat indices)."""
        ready = self.preparation(rows)
        found = None if guess is None or guess.search else starts_of(self.setup, guess.params)
        if found is None:
            found = self.finder.find(ready.residual, ready.ivar, self.config.fit.starts, rows)
        space = scaled_space(self.setup, found, ready.ivar)
        ways = self._ways(found, ready, guess)
        if guess is not None:
            space = narrowed(space, guess.lower, guess.upper, len(rows))
        space, unseen = self._without_unseen(space, ready, found)
        obs = self.observations(ready)
        if self.config.fit.fixed:
            result = self._evaluate(space, obs, ways[0], self.derived)
        else:
            start = np.concatenate([pack_named(self.setup, space, way, len(rows)) for way in ways])
            result = self.solve(space, obs, start, progress)
            if guess is None or guess.search:
                result, space, unseen = self._looked_again(result, ready, space, unseen, found, rows)
        result = self._trusted(result, space, obs)
        chunk = self._concluded(self._collect(result, ready, unseen), ready, space)
        if self.config.fit.monte_carlo and not self.config.fit.fixed:
            chunk = self._monte_carlo(chunk, result, ready, space, obs, rows)
        return chunk

    def solve(
        self,
        space: ParameterSpace,
        obs: Observations,
        start: np.ndarray,
        progress: Progress | None = None,
        *,
        again: bool = False,
    ) -> FitResult:
        """Fit prepared spectra from free vectors (starts, n, n_free); `again`, with the programs of a larger batch."""
        return fit_batch(
            self.setup.model,
            space,
            obs,
            start,
            options=self.options,
            derived=self.derived,
            precision=self.precision,
            devices=self.devices,
            progress=progress,
            race=True,
            blocks_for=_LARGE_BATCH if again else 1,
        )

    def _without_unseen(self, space: ParameterSpace, ready: Prepared, found: Starts) -> tuple[ParameterSpace, np.ndarray]:
        """Hold lines that the data say nothing about; also return which (n, lines)."""
        unseen = unseen_at_start(self.finder, ready.ivar, found)
        return held(self.setup, space, unseen), unseen

    def _looked_again(
        self,
        result: FitResult,
        ready: Prepared,
        space: ParameterSpace,
        unseen: np.ndarray,
        found: Starts,
        rows: np.ndarray,
    ) -> tuple[FitResult, ParameterSpace, np.ndarray]:
        """Try fits again; also return what they were fitted with in the end."""
        return SecondLook(self, ready, space, unseen, found, rows)(result)

    def _trusted(self, result: FitResult, space: ParameterSpace, obs: Observations) -> FitResult:
        """Say where the errors of fits are not to be trusted."""
        finder = self.finder
        rows = np.flatnonzero(fragile(self.setup, finder.components, bool(finder.pairs), result))
        if not rows.size or self.config.fit.fixed:
            return result
        hold = errors_hold(
            self.setup.model,
            jax.tree.map(lambda leaf: leaf[rows], space.broadcast(obs.batch)),
            Observations(obs.values[rows], obs.ivar[rows], obs.coords_of(rows), obs.coords_axes),
            result.x[rows],
            options=replace(self.options, warm_up=False),
            precision="float32",  # rises of chi2 of order one need no more
            devices=self.devices,
            blocks_for=obs.batch,
        )
        each = np.zeros_like(result.element_warn)
        each[rows] = np.where(hold, 0, bits.ERRORS_NOT_TRUSTED.value)
        return result.with_warnings(each)

    def without_draws(self) -> ChunkFitter:
        """Return a fitter of the same spaxels that makes no Monte Carlo draws: for passes that are not the last."""
        other = copy(self)
        other.config = replace(self.config, fit=replace(self.config.fit, monte_carlo=0))
        return other

    def with_noise(self, pooled: Autocorrelation | None, absorbed: np.ndarray) -> ChunkFitter:
        """Return a fitter of the same spaxels that knows the correlation of their noise, and what a fit takes of it."""
        other = copy(self)
        other.pooled, other.absorbed = pooled, absorbed
        return other

    @property
    def correlation(self) -> np.ndarray | None:
        """Autocorrelation (lags,) that errors allow for, None where noise is taken to be independent."""
        wanted = self.config.fit.noise == "correlated" and self.pooled is not None and self.pooled.significant
        return self.pooled.used if wanted and self.pooled is not None else None

    def evaluate(self, rows: np.ndarray, solution: np.ndarray, unseen: np.ndarray, derived: Derived) -> FitResult:
        """Return what `derived` says of stored solutions (n, parameters), with errors from the curvature there.

        Lines that were `unseen` (n, lines) are held, as they were in the fit.
        """
        ready = self.preparation(rows)
        space = scaled_space(self.setup, self.finder.find(ready.residual, ready.ivar, 1, rows), ready.ivar)
        space = held(self.setup, space, unseen)
        way = dict(zip(self.setup.model.parameter_names, solution.T))
        return self._evaluate(space, self.observations(ready), way, derived)

    def _evaluate(self, space: ParameterSpace, obs: Observations, way: Named, derived: Derived) -> FitResult:
        return evaluate_batch(
            self.setup.model,
            space,
            obs,
            pack_named(self.setup, space, way, obs.batch)[0],
            options=replace(self.options, warm_up=False),
            derived=derived,
            precision=self.precision,
            devices=self.devices,
        )

    def observations(self, ready: Prepared) -> Observations:
        coords = replace(self.coords, background=ready.background)
        subtracted = None
        if ready.moved_weight.size:
            moved = ready.moved_weight, ready.moved_inverse, ready.moved_extra
            subtracted = Subtracted(self.preparation.basis, *moved, shifted=_with_more_background)
        return Observations(ready.values, ready.ivar, coords, COORDS_AXES, self.correlation, subtracted)

    def _ways(self, found: Starts, ready: Prepared, guess: Guess | None) -> list[Named]:
        """Return every start, by name."""
        options, model = self.config.fit, self.setup.model
        if options.fixed:
            return [declared_start(self.setup, ready.residual, ready.ivar)]
        ways = named_starts(self.setup, found)
        if options.guess_parameters:
            coords = self.coords
            ways.append(moment_start(self.setup, ready.residual, ready.ivar, coords.pixel_velocity, coords.width))
        if options.trivial:
            ways.append(trivial_start(self.setup, ready.residual, ready.ivar))
        if guess is None:
            return ways
        if guess.search:
            return [*ways, guess.params, *guess.more]
        # Where the guess is missing the data's own starts stand in.
        none = ~np.isfinite(np.stack([guess.params[name] for name in model.parameter_names])).all(axis=0)
        return [
            guess.params,
            *guess.more,
            *({name: np.where(none, value, np.nan) for name, value in way.items()} for way in ways),
        ]

    def _collect(self, fit: FitResult, ready: Prepared, unseen: np.ndarray) -> ChunkResult:
        model, options = self.setup.model, self.config.fit
        n, lines = len(fit.chi2), model.names
        status = np.where(ready.constant, bits.CONSTANT_DATA.value, fit.status)
        if options.minimum_good_fraction > 0:
            share = (ready.ivar > 0).sum(axis=1) / max(int(self.preparation.fitted.sum()), 1)
            few = (share < options.minimum_good_fraction) & (fit.n_good > 0)
            status = np.where(few, status | bits.FEW_GOOD_PIXELS.value, status)
        lost = status != 0
        values = np.full((n, len(lines), len(self.quantities)), np.nan)
        errors = np.full_like(values, np.nan)
        for i, line in enumerate(lines):
            for q, quantity in enumerate(self.quantities):
                name = f"{line}.{quantity}"
                measured = name in fit.derived
                if not measured and name not in fit.params:
                    continue  # of another shape
                value, error = (fit.derived, fit.derived_error) if measured else (fit.params, fit.error)
                # Where the data say nothing (the velocity of a line without flux) the value is only the start.
                unknown = np.isnan(error[name]) & (not options.fixed)
                values[:, i, q] = np.where(lost | unknown, np.nan, value[name])
                errors[:, i, q] = np.where(lost | options.fixed, np.nan, error[name])
        warn = np.where(np.isfinite(ready.noise), bits.NOISE_ESTIMATED.value, 0)
        warn = warn | np.where(ready.dropped_variance > 0, bits.BAD_VARIANCE.value, 0)
        return ChunkResult(
            solution=np.stack([fit.params[name] for name in model.parameter_names], axis=1),
            values=values,
            errors=errors,
            linear=fit.linear if model.n_continuum else ready.polynomial,
            status=status.astype(np.int32),
            warn=np.where(lost, warn, warn | fit.warn).astype(np.int32),
            line_warn=np.where(lost[:, None], 0, line_warnings(self.setup, fit.element_warn)),
            chi2=np.where(lost, np.nan, fit.chi2),
            n_good=fit.n_good.astype(np.int32),
            n_iter=fit.n_iter.astype(np.int32),
            noise=ready.noise,
            fitted=np.packbits(ready.ivar[:, : self.cube.shape[0]] > 0, axis=1),
            unseen=unseen,
            draws=np.zeros((n, 0, len(lines), len(self.quantities))),
            residuals=np.full((n, N_SUMS), np.nan, np.float32) if fit.residuals is None else fit.residuals.astype(np.float32),
        )

    def _redrawn(self, ready: Prepared, noisy: np.ndarray) -> Prepared:
        """Return what was prepared, with a noise realisation in place of the values."""
        return replace(ready, values=noisy)

    def _concluded(self, chunk: ChunkResult, ready: Prepared, space: ParameterSpace) -> ChunkResult:
        """Return the finished fits: where a subclass has the last word."""
        return chunk

    def _monte_carlo(
        self, chunk: ChunkResult, fit: FitResult, ready: Prepared, space: ParameterSpace, obs: Observations, rows: np.ndarray
    ) -> ChunkResult:
        """Fit noise realisations from the solution; their scatter replaces the errors."""
        options = self.config.fit
        made = Realisations(
            self.setup.model, self.coords, options.seed, compat=options.ifscube_compat, correlation=self.correlation
        )
        sound = chunk.status == 0
        draws = np.full((len(rows), self.config.fit.monte_carlo, *chunk.values.shape[1:]), np.nan)
        way = dict(zip(self.setup.model.parameter_names, np.where(sound[:, None], chunk.solution, np.nan).T))
        start = pack_named(self.setup, space, way, len(rows))
        for k, noisy in enumerate(made(fit, ready, rows, self.config.fit.monte_carlo, obs.subtracted)):
            again = fit_batch(
                self.setup.model,
                space,
                replace(obs, values=noisy.values, coords=replace(self.coords, background=noisy.background)),
                start,
                options=replace(self.options, warm_up=False),
                derived=self.derived,
                precision=self.precision,
                devices=self.devices,
            )
            drawn = self._concluded(self._collect(again, ready, chunk.unseen), self._redrawn(ready, noisy.values), space)
            draws[:, k] = np.where(sound[:, None, None], drawn.values, np.nan)
        count = np.isfinite(draws).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.nansum(draws, axis=1) / count
            spread = np.sqrt(np.nansum((draws - mean[:, None]) ** 2, axis=1) / (count - 1))
        # An error from less than half of the draws would be of the lucky ones only.
        errors = np.where(2 * count > draws.shape[1], spread, np.nan)
        return replace(chunk, errors=np.where(np.isnan(chunk.values), np.nan, errors), draws=draws)


def _with_more_background(coords: SpectralCoords, shift: Any) -> SpectralCoords:
    return replace(coords, background=coords.background + shift)
