"""`fit_cube`: the steps from a cube to maps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ifujax.data.cube import Cube, Spaxels
from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference import status as bits
from ifujax.inference.batching import pad_pixels, pixel_bucket
from ifujax.inference.least_squares import fit_batch, pack_starts
from ifujax.inference.observations import Observations
from ifujax.inference.options import Options
from ifujax.inference.parameters import ParameterSpace
from ifujax.inference.results import FitResult
from ifujax.lines.config import EmissionModel, LineFitConfig
from ifujax.lines.continuum import fit_rejection, rejection_weights
from ifujax.lines.measure import LINE_QUANTITIES
from ifujax.lines.results import LINE_NAMES, CubeFit
from ifujax.lines.setup import VELOCITY_SCALE, Setup, prepare
from ifujax.lines.start import StartFinder, Starts
from ifujax.models.emission import COORDS_AXES, SpectralCoords

Progress = Callable[[str, int, int], None]
_CLIP_FLOOR = 4.0
"""In a joint fit only clipped pixels beyond this many standard deviations are masked: the asymmetric
thresholds of the rejection polynomial also clip plain noise, whose loss would bias the continuum."""
_FEWEST_LINE_FREE = 10


def fit_cube(
    cube: Cube,
    model: EmissionModel | LineFitConfig,
    *,
    window: tuple[float, float] | None = None,
    continuum: np.ndarray | None = None,
    starts: int | None = None,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    chunk_size: int | None = None,
    progress: Progress | None = None,
) -> CubeFit:
    """Fit emission lines in every spaxel of a cube.

    Parameters
    ----------
    cube : Cube
    model : EmissionModel or LineFitConfig
        What to fit; a configuration also says how (`ifujax.read_config`).
    window : (low, high), optional
        Rest wavelengths, Angstrom, inclusive; overrides the configuration's.
    continuum : array, optional
        A continuum to take off and freeze: observed frame, (wave,) or the cube's shape. No other is fitted.
    starts : int, optional
        Starting points per spaxel; overrides the configuration's.
    precision : "float64" or "float32"
    devices : list of JAX devices or a platform name, optional
    chunk_size : int, optional
        Spaxels in memory at a time; chosen from the window's length by default. The result does not depend on it.
    progress : callable, optional
        Called with (stage, done, total): "fit" counts spaxels.

    Returns
    -------
    CubeFit

    Raises
    ------
    DataError
        For a cube without a usable pixel in the window.
    UsageError
        For a model or options that can't be fitted to this cube.
    """
    config = model if isinstance(model, LineFitConfig) else _as_config(model)
    if window is not None:
        config = replace(config, fit=replace(config.fit, window=(float(window[0]), float(window[1]))))
    if starts is not None:
        config = replace(config, fit=replace(config.fit, starts=starts))
    if config.fit.starts < 1:
        raise UsageError(f"starts must be 1 or more; got {config.fit.starts}.")
    if chunk_size is not None and chunk_size < 1:
        raise UsageError(f"chunk_size must be 1 or more; got {chunk_size}.")
    if continuum is not None:
        config = replace(config, continuum=replace(config.continuum, mode="none"))
    began = time.perf_counter()
    whole = cube
    if config.fit.window is not None:
        cube = cube.cut(*config.fit.window)
    cube.check()
    frozen = None if continuum is None else _frozen_continuum(continuum, whole, cube)
    fitter = _ChunkFitter(cube, config, frozen, precision, devices)
    chunk = chunk_size or _chunk_size(cube.shape[0])
    n = cube.n_spaxels
    skipped = np.zeros(n, bool) if cube.spatial_mask is None else np.asarray(cube.spatial_mask, bool).ravel()
    rows = np.flatnonzero(~skipped)
    collected = _Collection(n, fitter)
    collected.status[skipped] = bits.SKIPPED.value
    if progress is not None:
        progress("compile", 0, len(rows))
    for first in range(0, len(rows), chunk):
        mine = rows[first : first + chunk]

        def report(stage: str, done: int, total: int, first: int = first) -> None:
            if progress is not None:
                progress(stage, first + done, len(rows))

        collected.put(mine, fitter.fit(mine, report))
        cube.release()
    if progress is not None:
        progress("fit", len(rows), len(rows))
    return collected.result(cube, config, time.perf_counter() - began)


def _as_config(model: EmissionModel) -> LineFitConfig:
    if not isinstance(model, EmissionModel):
        raise UsageError(f"model must be an EmissionModel or a configuration; got {type(model).__name__}.")
    config = LineFitConfig(model)
    return config if model.continuum_degree is not None else replace(config, continuum=replace(config.continuum, mode="none"))


def _chunk_size(n_pix: int) -> int:
    """Spaxels a chunk: some 25 MB for each of the dozen arrays in flight."""
    return int(np.clip(2 ** int(np.log2(25e6 / (8 * n_pix))), 256, 16384))


def _frozen_continuum(continuum: np.ndarray, whole: Cube, cube: Cube) -> np.ndarray:
    """Return the continuum of the cut cube, checked, (wave,) or (wave, y, x)."""
    array = np.asarray(continuum, dtype=np.float64)
    if array.shape in (whole.shape, whole.shape[:1]):
        return array[np.isin(whole.wavelength, cube.wavelength)]
    if array.shape in (cube.shape, cube.shape[:1]):
        return array
    raise UsageError(
        f"continuum must have the cube's shape {whole.shape} or one value a wavelength ({whole.shape[0]},); got {array.shape}."
    )


@dataclass(frozen=True)
class ChunkResult:
    """What one chunk of spaxels gives: the engine's result and the frozen polynomial's coefficients."""

    fit: FitResult
    polynomial: np.ndarray
    warn: np.ndarray
    status: np.ndarray
    noise: np.ndarray
    fitted: np.ndarray


class _ChunkFitter:
    """Fits any chunk of one cube; holds what all chunks share."""

    def __init__(
        self, cube: Cube, config: LineFitConfig, frozen: np.ndarray | None, precision: str, devices: Sequence[Any] | str | None
    ) -> None:
        self.cube, self.config, self.frozen = cube, config, frozen
        self.precision, self.devices = precision, devices
        self.rest = cube.rest_wavelength
        self.window = (float(self.rest[0]), float(self.rest[-1]))
        self.setup: Setup = prepare(config, cube.rest_edges, cube.redshift)
        self.n_pix = pixel_bucket(cube.shape[0])
        model = self.setup.model
        self.coords = model.coords(cube.rest_edges, self.window, self.setup.line_windows, self.n_pix)
        self.finder = StartFinder(self.setup, self.coords.pixel_velocity, self.coords.width)
        self.degree = config.model.continuum_degree
        rest_lines = np.asarray(model.rest_wavelengths)
        self.weights = rejection_weights(
            self.rest, rest_lines, self.setup.guess_sigma, config.continuum.line_weight, config.continuum.weights
        )
        self.lines_reach = _inside_any(self.rest, self.setup.reach)
        self.fitted = np.ones(len(self.rest), bool)
        if self.setup.line_windows is not None and config.continuum.mode != "joint":
            self.fitted = _inside_any(self.rest, self.setup.line_windows)
            if not self.fitted.any():
                raise UsageError("optimization_window must hold a pixel of the cube; it holds none. Widen it.")
        self.options = Options(
            linear="eliminate" if model.n_continuum else "keep",
            max_iter=config.fit.max_iter,
            tolerance=config.fit.tolerance,
        )

    def fit(self, rows: np.ndarray, progress: Progress) -> ChunkResult:
        """Run all steps on some spaxels (flat indices)."""
        spaxels = self.cube.spaxels(rows)
        good = ~spaxels.bad
        values = spaxels.values
        background = np.zeros_like(values)
        if spaxels.stellar is not None:
            background += spaxels.stellar
        if self.frozen is not None:
            background += _frozen_rows(self.frozen, rows) * (1.0 + self.cube.redshift)
            finite = np.isfinite(background)
            good &= finite
            background = np.where(finite, background, 0.0)
        values = np.where(good, values - background, 0.0)
        constant = good.any(axis=1) & (_span(values, good) == 0)
        polynomial, residual, kept = self._rejection(values, good)
        usable = good & self.fitted
        if self.config.continuum.mode == "rejection":
            background = background + (values - residual)
            values = np.where(good, residual, 0.0)
        ivar, noise, estimated = self._weights(spaxels, residual, usable, kept)
        if self.config.continuum.mode == "joint":
            ivar = np.where(self._outliers(residual, ivar, good, kept), 0.0, ivar)
        ivar[constant] = 0.0
        result = self._solve(rows, values, residual, ivar, background, progress)
        warn = np.where(estimated, bits.NOISE_ESTIMATED.value, 0)
        warn = warn | np.where(spaxels.dropped_variance > 0, bits.BAD_VARIANCE.value, 0)
        status = np.where(constant, bits.CONSTANT_DATA.value, result.status)
        return ChunkResult(result, polynomial, warn, status, noise, ivar > 0)

    def _rejection(self, values: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the rejection polynomial's coefficients, the data less it, and the pixels it kept."""
        if self.config.continuum.mode == "none" or self.degree is None:
            return np.zeros((len(values), 0)), values, good
        options = self.config.continuum
        fit = fit_rejection(
            self.rest,
            self.window,
            values,
            good,
            self.weights,
            degree=self.degree,
            n_iterate=options.n_iterate,
            lower_threshold=options.lower_threshold,
            upper_threshold=options.upper_threshold,
        )
        level = np.where(np.isfinite(fit.continuum), fit.continuum, _row_median(values, good)[:, None])
        return fit.coefficients, np.where(good, values - level, 0.0), fit.kept

    def _weights(
        self, spaxels: Spaxels, residual: np.ndarray, usable: np.ndarray, kept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return inverse variances, the noise of each spaxel (NaN where given), and whether it was estimated."""
        if spaxels.variance is not None:
            with np.errstate(divide="ignore", over="ignore"):
                ivar = np.where(usable, 1.0 / np.where(usable, spaxels.variance, 1.0), 0.0)
            return ivar, np.full(len(residual), np.nan), np.zeros(len(residual), bool)
        # Line-free pixels say what the noise is; the clipped ones would make it too small, so all
        # that are not outliers count, and the scatter is the median's.
        free = usable_line_free = kept & ~self.lines_reach if kept.shape == usable.shape else usable
        few = usable_line_free.sum(axis=1) < _FEWEST_LINE_FREE
        free = np.where(few[:, None], usable, usable_line_free | (usable & ~self.lines_reach))
        noise = 1.4826 * _row_median(np.abs(residual - _row_median(residual, free)[:, None]), free)
        with np.errstate(divide="ignore", invalid="ignore"):
            ivar = np.where(usable & (noise > 0)[:, None], 1.0 / (noise**2)[:, None], 0.0)
        return np.nan_to_num(ivar, nan=0.0, posinf=0.0), noise, np.ones(len(residual), bool)

    def _outliers(self, residual: np.ndarray, ivar: np.ndarray, good: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Clipped pixels away from the lines that noise does not explain."""
        clipped = good & ~kept & ~self.lines_reach
        if not clipped.any():
            return clipped
        rows = np.flatnonzero(clipped.any(axis=1))
        pulls = residual[rows] * np.sqrt(ivar[rows])
        free = good[rows] & ~self.lines_reach
        scatter = 1.4826 * _row_median(np.abs(pulls), free)
        out = np.zeros_like(clipped)
        out[rows] = clipped[rows] & (np.abs(pulls) > _CLIP_FLOOR * scatter[:, None])
        return out

    def _solve(
        self, rows: np.ndarray, values: np.ndarray, residual: np.ndarray, ivar: np.ndarray, background: np.ndarray, progress: Progress
    ) -> FitResult:
        setup = self.setup
        values, residual, ivar, background = (pad_pixels(a, self.n_pix) for a in (values, residual, ivar, background))
        coords = replace(self.coords, background=background)
        found = self.finder.find(residual, ivar, self.config.fit.starts, rows)
        space, start = pack_line_starts(setup, found, ivar)
        observations = Observations(values, ivar, coords, COORDS_AXES)
        result = fit_batch(
            setup.model,
            space,
            observations,
            start,
            options=self.options,
            derived=LINE_QUANTITIES,
            precision=self.precision,
            devices=self.devices,
            progress=progress,
        )
        return result


def pack_line_starts(setup: Setup, found: Starts, ivar: np.ndarray) -> tuple[ParameterSpace, np.ndarray]:
    """Return the parameter space scaled to each spectrum, and its starts as free vectors (starts, n, n_free)."""
    # What counts as 1: the spectrum's strongest line or its noise, and 100 km/s.
    peak = np.nanmax(np.abs(found.strength), axis=(0, 2), initial=0.0)
    highest = ivar.max(axis=1)
    noise = np.where(highest > 0, 1.0 / np.sqrt(np.where(highest > 0, highest, 1.0)), 1.0)
    size = np.maximum(peak, noise)
    names = setup.space.structure.element_names
    is_strength = np.array([name.endswith((".flux", ".amplitude")) for name in names], bool)
    space = setup.space.with_scale(np.where(is_strength, size[:, None], VELOCITY_SCALE))
    ways = []
    for velocity, sigma, strength in zip(found.velocity, found.sigma, found.strength):
        given = {}
        for i, name in enumerate(setup.model.names):
            given[f"{name}.{setup.model.strengths[i]}"] = strength[:, i]
            given[f"{name}.velocity"] = velocity[:, i]
            given[f"{name}.velocity_dispersion"] = sigma[:, i]
        x = pack_starts(space, {entry.name: np.nan_to_num(given[entry.name]) for entry in space.structure.free}, len(velocity))[0]
        x[~np.isfinite(velocity).all(axis=1)] = np.nan
        ways.append(x)
    return space, np.stack(ways)


def _inside_any(wavelength: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    return ((wavelength >= ranges[:, :1]) & (wavelength <= ranges[:, 1:])).any(axis=0)


def _frozen_rows(frozen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return frozen[None, :] if frozen.ndim == 1 else frozen.reshape(len(frozen), -1)[:, rows].T


def _row_median(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Median of the good pixels of each row; NaN where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(np.where(good, values, np.nan), axis=1)


def _span(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    return np.where(good, values, -np.inf).max(axis=1, initial=-np.inf) - np.where(good, values, np.inf).min(axis=1, initial=np.inf)


class _Collection:
    """Gathers chunks into arrays over all spaxels."""

    def __init__(self, n: int, fitter: _ChunkFitter) -> None:
        self.fitter = fitter
        lines = fitter.setup.model.names
        self.values = {name: np.full((len(lines), n), np.nan) for name in LINE_NAMES}
        self.errors = {name: np.full((len(lines), n), np.nan) for name in LINE_NAMES}
        n_poly = 0 if fitter.degree is None or fitter.config.continuum.mode == "none" else fitter.degree + 1
        self.linear = np.full((n, n_poly), np.nan)
        self.status, self.warn = np.zeros(n, np.int32), np.zeros(n, np.int32)
        self.chi2, self.noise = np.full(n, np.nan), np.full(n, np.nan)
        self.fitted = np.zeros((n, -(-fitter.cube.shape[0] // 8)), np.uint8)
        self.n_good, self.n_iter = np.zeros(n, np.int32), np.zeros(n, np.int32)
        self.n_free = 0

    def put(self, rows: np.ndarray, chunk: ChunkResult) -> None:
        fit, model = chunk.fit, self.fitter.setup.model
        self.n_free = fit.n_free
        lost = chunk.status != 0
        for i, line in enumerate(model.names):
            for name in LINE_NAMES:
                if name == "snr":
                    continue
                source = (fit.derived, fit.derived_error) if f"{line}.{name}" in fit.derived else (fit.params, fit.error)
                self.values[name][i, rows] = np.where(lost, np.nan, source[0][f"{line}.{name}"])
                self.errors[name][i, rows] = np.where(lost, np.nan, source[1][f"{line}.{name}"])
        self.linear[rows] = fit.linear if model.n_continuum else chunk.polynomial
        self.status[rows], self.noise[rows] = chunk.status, chunk.noise
        self.fitted[rows] = np.packbits(chunk.fitted, axis=1)
        self.warn[rows] = np.where(lost, chunk.warn, chunk.warn | fit.warn)
        self.chi2[rows] = np.where(lost, np.nan, fit.chi2)
        self.n_good[rows], self.n_iter[rows] = fit.n_good, fit.n_iter

    def result(self, cube: Cube, config: LineFitConfig, seconds: float) -> CubeFit:
        dof = self.n_good / config.fit.instrument_dispersion - self.n_free
        if config.fit.scale_errors:
            with np.errstate(invalid="ignore", divide="ignore"):
                factor = np.sqrt(np.where(dof > 0, self.chi2 / dof, np.nan))
            for name in LINE_NAMES:
                self.errors[name] *= factor
        with np.errstate(invalid="ignore", divide="ignore"):
            self.values["snr"] = self.values["flux"] / self.errors["flux"]
            weak = ~(self.values["snr"] > 3).any(axis=0)
        fitted = self.status == 0
        self.warn[fitted & weak] |= bits.NO_DETECTION.value
        no_width = np.isnan(self.values["equivalent_width"]).any(axis=0)
        self.warn[fitted & no_width] |= bits.CONTINUUM_NOT_POSITIVE.value
        if (self.warn & bits.NOISE_ESTIMATED.value).any():
            warnings.warn(
                "no variance plane: the noise of each spaxel was estimated from its line-free pixels, and the errors rest on that.",
                IfujaxWarning,
                stacklevel=3,
            )
        return CubeFit(
            cube=cube,
            config=config,
            setup=self.fitter.setup,
            coords=self.fitter.coords,
            values=self.values,
            errors=self.errors,
            polynomial=self.linear,
            frozen=self.fitter.frozen,
            flat_status=self.status,
            flat_warn=self.warn,
            flat_chi2=self.chi2,
            flat_n_good=self.n_good,
            flat_noise=self.noise,
            packed_fitted=self.fitted,
            n_free=self.n_free,
            seconds=seconds,
        )


__all__ = ["Progress", "SpectralCoords", "fit_cube"]
