"""`fit_cube`: the steps from a cube to maps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.inference import status as bits
from ifujax.lines.chunk import ChunkFitter, ChunkResult
from ifujax.lines.collection import Collection
from ifujax.lines.config import EmissionModel, LineFitConfig, Noise
from ifujax.lines.ifscube.adapt import adapted_config, adapted_cube
from ifujax.lines.ifscube.fitter import CompatFitter
from ifujax.lines.ifscube.sequence import fit_in_order
from ifujax.lines.neighbours.passes import Passes, asks_neighbours
from ifujax.lines.noise_step import NoiseStep
from ifujax.lines.results import CubeFit
from ifujax.progress import Progress

if TYPE_CHECKING:
    from ifujax.io.checkpoint import ChunkStore
    from ifujax.lines.selection.comparison import Comparison

_WARM_UP_FROM = 5000
"""Spaxels from which iterating in float32 first saves more than compiling that program takes."""


def fit_cube(
    cube: Cube,
    model: EmissionModel | LineFitConfig,
    *,
    window: tuple[float, float] | None = None,
    continuum: np.ndarray | None = None,
    starts: int | None = None,
    noise: Noise | None = None,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    chunk_size: int | None = None,
    progress: Progress | None = None,
    checkpoint: ChunkStore | None = None,
    comparison: Comparison | None = None,
) -> CubeFit:
    """Fit emission lines in every spaxel of a cube.

    Parameters
    ----------
    cube : Cube
        Spaxels of one Voronoi bin are fitted once.
    model : EmissionModel or LineFitConfig
        What to fit; a configuration also says how (`ifujax.read_config`).
    window : (low, high), optional
        Rest wavelengths, Angstrom, inclusive; overrides the configuration's.
    continuum : array, optional
        A continuum to take off and freeze: observed frame, (wave,) or the cube's shape. No other is fitted.
    starts : int, optional
        Starting points per spaxel; overrides the configuration's.
    noise : "given", "scaled" or "correlated", optional
        What errors rest on: the variances of the file; these times the reduced chi2; or these, with the correlation along
        wavelength that the residuals of all spaxels have. Overrides the configuration's.
    precision : "float64" or "float32"
    devices : list of JAX devices or a platform name, optional
    chunk_size : int, optional
        Spaxels in memory at a time; chosen from the window's length by default. The result does not depend on it.
    progress : callable, optional
        Called with (stage, done, total): "fit" counts spaxels.
    checkpoint : ChunkStore, optional
        Where finished chunks are kept, and found again by the next run.
    comparison : Comparison, optional
        Other fits of the cube that this one is to be compared with; `fit_components` sees to it.

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
    config = as_config(model)
    if window is not None:
        config = replace(config, fit=replace(config.fit, window=(float(window[0]), float(window[1]))))
    if starts is not None:
        config = replace(config, fit=replace(config.fit, starts=starts))
    if noise is not None:
        config = replace(config, fit=replace(config.fit, noise=noise, scale_errors=False))
    if config.fit.starts < 1:
        raise UsageError(f"starts must be 1 or more; got {config.fit.starts}.")
    if chunk_size is not None and chunk_size < 1:
        raise UsageError(f"chunk_size must be 1 or more; got {chunk_size}.")
    if continuum is not None:
        config = replace(config, continuum=replace(config.continuum, mode="none"))
    began = time.perf_counter()
    compat = config.fit.ifscube_compat
    if compat:
        if continuum is not None:
            raise UsageError("continuum must not be given with ifscube_compat; got one. IFSCube fits its own.")
        config, cube = adapted_config(config), adapted_cube(cube)
    whole = cube
    if config.fit.window is not None:
        cube = cube.cut(*config.fit.window)
    cube.check()
    frozen = None if continuum is None else _frozen_continuum(continuum, whole, cube)
    rows = rows_to_fit(whole, cube, config)
    warm_up = len(rows) >= _WARM_UP_FROM
    if compat:
        fitter = CompatFitter(cube, config, whole, precision, devices, warm_up=warm_up)
    elif comparison is not None:
        fitter = comparison.fitter(cube, config, frozen, precision, devices, warm_up=warm_up)
    else:
        fitter = ChunkFitter(cube, config, frozen, precision, devices, warm_up=warm_up)
    chunk = chunk_size or _chunk_size(cube.shape[0])
    learns = asks_neighbours(config.fit)
    # Draws come last: of the solutions that are kept, and of the noise that is known then.
    late = config.fit.noise == "correlated"
    first_fitter = fitter.without_draws() if learns or late else fitter
    collected = Collection(first_fitter)
    if progress is not None:
        progress("compile", 0, len(rows))
    left = len(rows)
    if isinstance(fitter, CompatFitter) and config.fit.refit:
        fit_in_order(fitter, whole, rows, collected, progress)
        left = 0
    for first in range(0, left, chunk):
        mine = rows[first : first + chunk]
        collected.put(mine, _fit_or_recall(first_fitter, mine, first, len(rows), progress, checkpoint))
        cube.release()
    if progress is not None:
        progress("fit", len(rows), len(rows))
    if learns:
        passing = first_fitter if late else fitter
        collected = Passes(passing, whole, rows, chunk, partial(_kept, checkpoint), progress)(collected)
    fitter, collected = NoiseStep(rows, chunk, partial(_kept, checkpoint), progress)(fitter, collected)
    if cube.bins is not None and config.fit.individual_spec is None:
        collected.spread(cube.bins, rows, _skipped(cube))
    collected.conclude(fitter)
    if (collected.all.warn & bits.NOISE_ESTIMATED.value).any():
        warnings.warn(
            "no variance plane: the noise of each spaxel was estimated from its line-free pixels; the errors rest on it.",
            IfujaxWarning,
            stacklevel=2,
        )
    return CubeFit.of(fitter, collected.all, time.perf_counter() - began)


def as_config(model: EmissionModel | LineFitConfig) -> LineFitConfig:
    """Return the configuration that a model or a configuration stands for."""
    if isinstance(model, LineFitConfig):
        return model
    if not isinstance(model, EmissionModel):
        raise UsageError(f"model must be an EmissionModel or a configuration; got {type(model).__name__}.")
    config = LineFitConfig(model)
    return config if model.continuum_degree is not None else replace(config, continuum=replace(config.continuum, mode="none"))


def _skipped(cube: Cube) -> np.ndarray:
    return np.zeros(cube.n_spaxels, bool) if cube.spatial_mask is None else np.asarray(cube.spatial_mask, bool).ravel()


def rows_to_fit(whole: Cube, cube: Cube, config: LineFitConfig) -> np.ndarray:
    """Return the flat indices of the spaxels to fit: not masked, one of each bin, or the one that was asked for.

    Raises
    ------
    UsageError
        For a spaxel outside the image.
    DataError
        If it is masked.
    """
    skipped = _skipped(cube)
    wanted = config.fit.individual_spec
    if wanted is not None:
        x, y = whole.peak() if wanted == "peak" else whole.centroid() if wanted == "cofm" else wanted
        x, y = round(x), round(y)
        _, ny, nx = cube.shape
        if not (0 <= x < nx and 0 <= y < ny):
            raise UsageError(f"individual_spec must be x, y within 0..{nx - 1}, 0..{ny - 1}; got {x}, {y}.")
        if skipped[y * nx + x]:
            raise DataError(f"individual_spec must be a spaxel that is not masked; got {x}, {y}. Choose another one.")
        return np.array([y * nx + x])
    rows = np.flatnonzero(~skipped)
    if cube.bins is not None:
        flat = cube.bins.ravel()[rows]
        _, first = np.unique(flat[flat >= 0], return_index=True)
        rows = rows[flat >= 0][np.sort(first)]
    return rows


def _fit_or_recall(
    fitter: ChunkFitter,
    rows: np.ndarray,
    first: int,
    total: int,
    progress: Progress | None,
    checkpoint: ChunkStore | None,
) -> ChunkResult:
    """Fit a chunk, or take it from where an earlier run kept it."""

    def report(stage: str, done: int, _: int) -> None:
        if progress is not None:
            progress(stage, first + done, total)

    result = _kept(checkpoint, f"fit-{first:09d}", lambda: fitter.fit(rows, report))
    report("fit", len(rows), total)
    return result


def _kept(checkpoint: ChunkStore | None, name: str, make: Callable[[], ChunkResult]) -> ChunkResult:
    """Return what an earlier run kept by that name, else what is made now."""
    kept = None if checkpoint is None else checkpoint.get(name)
    if kept is not None:
        return ChunkResult(**kept)
    result = make()
    if checkpoint is not None:
        checkpoint.put(name, result.arrays())
    return result


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
