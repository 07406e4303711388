"""`fit_cube`: the steps from a cube to maps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference import status as bits
from ifujax.inference.least_squares import fit_batch
from ifujax.inference.observations import Observations
from ifujax.inference.options import Options
from ifujax.inference.parameters import ParameterSpace
from ifujax.inference.results import FitResult
from ifujax.inference.starts import pack_starts
from ifujax.lines.config import EmissionModel, LineFitConfig
from ifujax.lines.measure import LINE_QUANTITIES
from ifujax.lines.preparation import Preparation
from ifujax.lines.results import LINE_NAMES, CubeFit
from ifujax.lines.setup import VELOCITY_SCALE, Setup, prepare
from ifujax.lines.start import StartFinder, Starts
from ifujax.models.emission import COORDS_AXES, SpectralCoords

Progress = Callable[[str, int, int], None]
_WARM_UP_FROM = 5000
"""Spaxels from which iterating in float32 first saves more than compiling that program takes."""


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
    n = cube.n_spaxels
    skipped = np.zeros(n, bool) if cube.spatial_mask is None else np.asarray(cube.spatial_mask, bool).ravel()
    rows = np.flatnonzero(~skipped)
    fitter = _ChunkFitter(cube, config, frozen, precision, devices, warm_up=len(rows) >= _WARM_UP_FROM)
    chunk = chunk_size or _chunk_size(cube.shape[0])
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
        self,
        cube: Cube,
        config: LineFitConfig,
        frozen: np.ndarray | None,
        precision: str,
        devices: Sequence[Any] | str | None,
        *,
        warm_up: bool,
    ) -> None:
        self.cube, self.config, self.frozen = cube, config, frozen
        self.precision, self.devices = precision, devices
        self.setup: Setup = prepare(config, cube.rest_edges, cube.redshift)
        self.preparation = Preparation(cube, config, self.setup, frozen)
        model, window = self.setup.model, self.preparation.window
        self.coords = model.coords(cube.rest_edges, window, self.setup.line_windows, self.preparation.n_pix)
        self.finder = StartFinder(self.setup, self.coords.pixel_velocity, self.coords.width)
        self.options = Options(
            linear="eliminate" if model.n_continuum else "keep",
            max_iter=config.fit.max_iter,
            tolerance=config.fit.tolerance,
            warm_up=warm_up,
        )

    def fit(self, rows: np.ndarray, progress: Progress) -> ChunkResult:
        """Run all steps on some spaxels (flat indices)."""
        ready = self.preparation(rows)
        found = self.finder.find(ready.residual, ready.ivar, self.config.fit.starts, rows)
        space, start = pack_line_starts(self.setup, found, ready.ivar)
        coords = replace(self.coords, background=ready.background)
        result = fit_batch(
            self.setup.model,
            space,
            Observations(ready.values, ready.ivar, coords, COORDS_AXES),
            start,
            options=self.options,
            derived=LINE_QUANTITIES,
            precision=self.precision,
            devices=self.devices,
            progress=progress,
        )
        warn = np.where(np.isfinite(ready.noise), bits.NOISE_ESTIMATED.value, 0)
        warn = warn | np.where(ready.dropped_variance > 0, bits.BAD_VARIANCE.value, 0)
        status = np.where(ready.constant, bits.CONSTANT_DATA.value, result.status)
        fitted = ready.ivar[:, : self.cube.shape[0]] > 0
        return ChunkResult(result, ready.polynomial, warn, status, ready.noise, fitted)


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


class _Collection:
    """Gathers chunks into arrays over all spaxels."""

    def __init__(self, n: int, fitter: _ChunkFitter) -> None:
        self.fitter = fitter
        lines = fitter.setup.model.names
        self.values = {name: np.full((len(lines), n), np.nan) for name in LINE_NAMES}
        self.errors = {name: np.full((len(lines), n), np.nan) for name in LINE_NAMES}
        self.solution = np.full((3, len(lines), n), np.nan)
        n_poly = 0 if fitter.preparation.degree is None else fitter.preparation.degree + 1
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
            for k, name in enumerate((model.strengths[i], "velocity", "velocity_dispersion")):
                self.solution[k, i, rows] = fit.params[f"{line}.{name}"]
            for name in LINE_NAMES:
                if name == "snr":
                    continue
                source = (fit.derived, fit.derived_error) if f"{line}.{name}" in fit.derived else (fit.params, fit.error)
                value, error = source[0][f"{line}.{name}"], source[1][f"{line}.{name}"]
                # Where the data say nothing (the velocity of a line without flux) the value is only the start.
                self.values[name][i, rows] = np.where(lost | np.isnan(error), np.nan, value)
                self.errors[name][i, rows] = np.where(lost, np.nan, error)
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
                "no variance plane: the noise of each spaxel was estimated from its line-free pixels; the errors rest on it.",
                IfujaxWarning,
                stacklevel=3,
            )
        return CubeFit(
            cube=cube,
            config=config,
            setup=self.fitter.setup,
            coords=self.fitter.coords,
            solution=self.solution,
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
