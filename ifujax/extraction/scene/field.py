"""Images of a field in a few bands that hold equal shares of what its sources show: what a PSF is fitted to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ifujax.data.cube import Cube
from ifujax.data.spaxels import as_variance, flagged
from ifujax.robust import MAD_TO_SIGMA

_VOXELS = 1 << 22
"""Voxels in memory at a time."""
_SMALL = 1 << 23
"""Voxels of a cube that is kept in memory."""
_FLOOR = 0.1
"""Share of the mean information that every channel counts for at least: bands stay short where there is no light."""


@dataclass(frozen=True)
class Planes:
    """Some planes of a cube: values 0 and weights 0 where bad, (wave, y, x) float64 arrays."""

    where: slice
    values: np.ndarray
    ivar: np.ndarray


@dataclass(frozen=True)
class Bands:
    """Mean images in bands of wavelength.

    Attributes
    ----------
    wavelength : (band,) array
        Effective, Angstrom.
    values, variance : (band, y, x) arrays
        0 and infinity where there is nothing.
    """

    wavelength: np.ndarray
    values: np.ndarray
    variance: np.ndarray


def planes_of(cube: Cube, box: tuple[slice, slice] = (slice(None), slice(None)), count: int | None = None) -> Iterator[Planes]:
    """Yield the planes of a part of a cube, some at a time; without an uncertainty all weights are 1.

    Parameters
    ----------
    cube : Cube
    box : (slice, slice)
        Rows and columns.
    count : int, optional
        Planes at a time.
    """
    n_wave, n_y, n_x = cube.shape
    rows, columns = range(n_y)[box[0]], range(n_x)[box[1]]
    step = count or max(1, _VOXELS // max(len(rows) * len(columns), 1))
    for first in range(0, n_wave, step):
        where = slice(first, min(first + step, n_wave))
        place = (where, *box)
        values = np.asarray(cube.values[place], dtype=np.float64)
        if cube.uncertainty is not None and cube.uncertainty_kind == "ivar" and cube.flags is None and cube.spatial_mask is None:
            ivar = np.asarray(cube.uncertainty[place], dtype=np.float64)
            good = np.isfinite(ivar) & (ivar > 0) & np.isfinite(values)
            if not good.all():
                values, ivar = np.where(good, values, 0.0), np.where(good, ivar, 0.0)
            yield Planes(where, values, ivar)
            continue
        bad = ~np.isfinite(values)
        if cube.flags is not None:
            bad |= flagged(np.asarray(cube.flags[place]), cube.flag_bits, cube.flags_zero_is_bad)
        ivar = np.ones_like(values)
        if cube.uncertainty is not None and cube.uncertainty_kind is not None:
            variance = as_variance(np.asarray(cube.uncertainty[place], dtype=np.float64), cube.uncertainty_kind)
            bad |= ~(np.isfinite(variance) & (variance > 0))
            with np.errstate(divide="ignore", invalid="ignore"):
                ivar = 1.0 / variance
        if cube.spatial_mask is not None:
            bad |= cube.spatial_mask[box]
        yield Planes(where, np.where(bad, 0.0, values), np.where(bad, 0.0, ivar))


def made_ready(cube: Cube) -> Cube:
    """Return a cube whose planes are cheap to go through again: a small one in memory, as values and inverse variances."""
    cube = _with_noise(cube)
    if np.prod(cube.shape) > _SMALL:
        return cube
    every = list(planes_of(cube))
    values, ivar = (np.concatenate(each) for each in zip(*((planes.values, planes.ivar) for planes in every)))
    return replace(cube, values=values, uncertainty=ivar, uncertainty_kind="ivar", flags=None, spatial_mask=None)


def _with_noise(cube: Cube) -> Cube:
    """Return a cube with an uncertainty: its own, or one a channel from the scatter between neighbouring pixels."""
    if cube.uncertainty is not None:
        return cube
    sigma = np.full(cube.shape[0], np.nan)
    for planes in planes_of(cube):
        values = np.where(planes.ivar > 0, planes.values, np.nan)
        # Second differences: a gradient is no noise
        bent = [
            values[:, 1:-1] - 0.5 * (values[:, :-2] + values[:, 2:]),
            values[:, :, 1:-1] - 0.5 * (values[:, :, :-2] + values[:, :, 2:]),
        ]
        every = np.concatenate([each.reshape(len(values), -1) for each in bent], axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            sigma[planes.where] = MAD_TO_SIGMA * np.nanmedian(np.abs(every), axis=1) / np.sqrt(1.5)
    usable = np.isfinite(sigma) & (sigma > 0)
    sigma[~usable] = np.nan
    return replace(cube, uncertainty=np.broadcast_to(sigma[:, None, None], cube.shape), uncertainty_kind="error")


def bands_of(cube: Cube, filters: np.ndarray, number: int) -> Bands:
    """Return images in bands that hold equal information about the sources.

    Parameters
    ----------
    cube : Cube
    filters : (source, y, x) array
        Rough profiles of the brightest sources, of sum 1: they find the channels with light, lines included.
    number : int
        Of bands, at most.
    """
    n_wave, n_y, n_x = cube.shape
    flat = filters.reshape(len(filters), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)  # a sky counts for nothing
    squares = flat**2
    information, noise = np.zeros(n_wave), np.full(n_wave, np.inf)
    for planes in planes_of(cube):
        values, ivar = (each.reshape(len(each), -1) for each in (planes.values, planes.ivar))
        good = ivar > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            middle = np.where(good, 1.0 / np.where(good, ivar, 1.0), 0.0).sum(axis=1) / good.sum(axis=1)
        signal, spread = values @ flat.T, middle[:, None] * (good @ squares.T)
        with np.errstate(divide="ignore", invalid="ignore"):
            information[planes.where] = np.nan_to_num(np.maximum(signal**2 / spread - 1.0, 0.0), posinf=0.0).sum(axis=1)
        noise[planes.where] = middle
    usable = np.isfinite(noise) & (noise > 0)
    # Narrow features count as such, noise does not: information of single channels is capped by its neighbours' sum
    information = np.where(usable, information, 0.0)
    known = information + _FLOOR * max(information.mean(), 1e-300)
    with np.errstate(divide="ignore"):
        weight = np.where(usable, np.sqrt(known) / noise, 0.0)
    share = np.cumsum(known) / known.sum()
    edges = np.unique(np.concatenate([[0], np.searchsorted(share, np.linspace(0, 1, number + 1)[1:-1]) + 1, [n_wave]]))
    edges = edges[(edges >= 0) & (edges <= n_wave)]
    band = np.searchsorted(edges, np.arange(n_wave), side="right") - 1
    count = len(edges) - 1
    total, seen, squared = (np.zeros((count, n_y * n_x)) for _ in range(3))
    for planes in planes_of(cube):
        values, ivar = (each.reshape(len(each), -1) for each in (planes.values, planes.ivar))
        good = (ivar > 0).astype(float)
        picks = np.zeros((count, len(values)))
        picks[band[planes.where], np.arange(len(values))] = weight[planes.where]
        total += picks @ values
        seen += picks @ good
        squared += picks**2 @ np.where(ivar > 0, 1.0 / np.where(ivar > 0, ivar, 1.0), 0.0)
    enough = seen > 0.5 * np.array([weight[band == k].sum() for k in range(count)])[:, None]
    values = np.divide(total, seen, out=np.zeros_like(total), where=enough)
    variance = np.divide(squared, seen**2, out=np.full_like(total, np.inf), where=enough)
    middle = np.array([np.average(cube.wavelength[band == k], weights=weight[band == k] + 1e-300) for k in range(count)])
    shape = (count, n_y, n_x)
    return Bands(middle, values.reshape(shape), variance.reshape(shape))
