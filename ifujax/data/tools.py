"""What is read off a cube without a fit: images, aperture spectra, signal to noise, the brightest point."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from scipy.special import erf

from ifujax.data.blocks import blocks, window_planes
from ifujax.data.image import Image
from ifujax.data.spectrum import Spectrum
from ifujax.errors import DataError, UsageError, unknown

if TYPE_CHECKING:
    from ifujax.data.cube import Cube

Filter = Literal["box", "gaussian"]
Combine = Literal["sum", "mean", "median"]

_FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))
_REACH = 5.0
"""Standard deviations at which a Gaussian filter ends: 6e-7 of it lie beyond."""
_INSIDE = {"box": 1.0 - 1e-9, "gaussian": 0.99}
"""Share of a filter that must lie within the cube."""
_ENOUGH = 0.5
"""Share of good pixels (of the filter's weight, of an aperture) below which there is no value."""


def filter_image(cube: Cube, wavelength: float, fwhm: float, filter: Filter = "box") -> Image:  # noqa: A002
    """Return the mean flux density through a filter; see `Cube.image`."""
    if filter not in _INSIDE:
        raise UsageError(unknown("filter", str(filter), _INSIDE))
    if not (fwhm > 0 and np.isfinite(fwhm) and np.isfinite(wavelength)):
        raise UsageError(f"wavelength and fwhm must be numbers, fwhm positive; got {wavelength} and {fwhm}. Give rest Angstrom.")
    edges = cube.rest_edges
    weights = _filter_weights(edges, wavelength, fwhm, filter)
    whole = fwhm if filter == "box" else 1.0
    if weights.sum() < _INSIDE[filter] * whole:
        raise DataError(
            f"the filter must lie within the cube, {edges[0]:.2f} to {edges[-1]:.2f} Angstrom in the rest frame at redshift "
            f"{cube.redshift:g}; got {wavelength:g} with a FWHM of {fwhm:g}, {100 * weights.sum() / whole:.0f} % of it inside. "
            "Change the filter or the redshift."
        )
    used = np.flatnonzero(weights)
    shape = cube.shape[1:]
    total, seen, variance = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for block in blocks(cube, slice(int(used[0]), int(used[-1]) + 1)):
        part = np.where(block.bad, 0.0, weights[block.planes, None, None])
        total += (part * block.values).sum(axis=0)
        seen += part.sum(axis=0)
        if block.variance is not None:
            variance += (part**2 * block.variance).sum(axis=0)
    good = seen >= _ENOUGH * weights.sum()
    stretch = 1.0 + cube.redshift
    scale = stretch / np.where(good, seen, np.nan)
    return Image(
        values=total * scale,
        variance=None if cube.uncertainty is None else variance * scale**2,
        unit=cube.unit,
        title=f"{wavelength:g} \u00c5, {filter} of {fwhm:g} \u00c5",
        celestial=cube.celestial,
        cards={
            "WLPROJ": (True, "Mean flux density through a filter"),
            "WLPRTYPE": (filter, "Type of filter"),
            "WLPRWL0": (float(wavelength), "[Angstrom] Centre of the filter, rest frame"),
            "WLPRFWHM": (float(fwhm), "[Angstrom] FWHM of the filter, rest frame"),
            "REDSHIFT": (cube.redshift, "Flux density was multiplied by 1 + z"),
        },
    )


def _filter_weights(edges: np.ndarray, wavelength: float, fwhm: float, kind: Filter) -> np.ndarray:
    """The part of the filter's integral in each pixel: exact for pixels that the box cuts."""
    if kind == "box":
        low, high = wavelength - fwhm / 2, wavelength + fwhm / 2
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None)
    sigma = fwhm / _FWHM
    reach = np.clip((edges - wavelength) / sigma, -_REACH, _REACH)
    return np.diff(0.5 * erf(reach / math.sqrt(2.0)))


class SpatialNoise(Protocol):
    """Something that knows how the noise of spaxels adds up, such as `CubeFit.noise_correlation`."""

    def factor(self, spaxels: np.ndarray, /) -> float:
        """Return by what the noise of a sum over spaxels (bool, y, x) exceeds that of independent ones."""
        ...


def aperture_spectrum(
    cube: Cube, x: float, y: float, radius: float, combine: Combine = "sum", correlation: SpatialNoise | None = None
) -> Spectrum:
    """Return the spectrum of the spaxels whose centres lie within a circle; see `Cube.aperture_spectrum`."""
    if combine not in ("sum", "mean", "median"):
        raise UsageError(unknown("combination", str(combine), ("sum", "mean", "median")))
    if not (np.isfinite(radius) and radius >= 0):
        raise UsageError(f"radius must be 0 or more; got {radius}. Give pixels.")
    _, ny, nx = cube.shape
    rows, columns = np.indices((ny, nx))
    inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2 * (1 + 1e-12)
    if not inside.any():
        raise UsageError(
            f"the aperture must hold the centre of a spaxel, 0..{nx - 1} by 0..{ny - 1}; got x={x:g}, y={y:g}, "
            f"radius={radius:g}. Move or widen it."
        )
    if cube.spatial_mask is not None:
        inside &= ~cube.spatial_mask
        if not inside.any():
            raise DataError(
                f"the aperture must hold a spaxel that isn't masked; got x={x:g}, y={y:g}, radius={radius:g}. Move it."
            )
    found_y, found_x = np.nonzero(inside)
    box = (slice(found_y.min(), found_y.max() + 1), slice(found_x.min(), found_x.max() + 1))
    picked, count = inside[box], len(found_y)
    parts: list[tuple[np.ndarray, ...]] = []
    for block in blocks(cube, box=box):
        good = ~block.bad[:, picked]
        if block.stellar is not None:
            good &= np.isfinite(block.stellar[:, picked])
        each = (block.values, block.variance, block.stellar)
        values, variance, stellar = (None if plane is None else np.where(good, plane[:, picked], 0.0) for plane in each)
        parts.append(_combine(values, variance, stellar, good, combine))
    values, variance, stellar, share = (np.concatenate(each) for each in zip(*parts))
    flags = (share < _ENOUGH).astype(np.uint8)
    factor = 1.0 if correlation is None else correlation.factor(inside)
    variance = variance * factor**2
    note = f"{combine.capitalize()} of the {count} spaxels within {radius:g} pixels of x = {x:g}, y = {y:g}."
    if correlation is not None:
        note += f" Its errors are {factor:.3g} times those of independent spaxels."
    return Spectrum(
        values=values,
        wavelength=cube.wavelength,
        uncertainty=None if cube.uncertainty is None else variance,
        uncertainty_kind=None if cube.uncertainty is None else "variance",
        flags=flags,
        stellar=None if cube.stellar is None else stellar,
        redshift=cube.redshift,
        unit=cube.unit,
        medium=cube.medium,
        header=cube.header,
        path=cube.path,
        notes=(*cube.notes, note),
    )


def _combine(
    values: np.ndarray | None, variance: np.ndarray | None, stellar: np.ndarray | None, good: np.ndarray, how: Combine
) -> tuple[np.ndarray, ...]:
    """Return value, variance, stellar (zeros for what there isn't) and the share of good pixels at each wavelength.

    Planes are (wave, spaxel), 0 where not good. Value and variance are NaN where no pixel is good.
    """
    count, n = good.shape[1], good.sum(axis=1)
    some = np.where(n > 0, n, np.nan)

    def middle(plane: np.ndarray | None) -> np.ndarray:
        if plane is None:
            return np.zeros(len(n))
        if how != "median":
            return plane.sum(axis=1) / some
        # Sorted with the pixels that are not good last, the median is in the middle of the others.
        ordered = np.sort(np.where(good, plane, np.inf), axis=1)
        ends = [np.take_along_axis(ordered, np.clip(i, 0, count - 1)[:, None], axis=1)[:, 0] for i in ((n - 1) // 2, n // 2)]
        return np.where(n > 0, 0.5 * (ends[0] + ends[1]), np.nan)

    spread = np.zeros(len(n)) if variance is None else variance.sum(axis=1) / some**2
    value, light = middle(values), np.nan_to_num(middle(stellar))
    if how == "sum":
        # Missing pixels count as the mean of the others: else a gap in one spaxel would be an absorption line.
        value, spread, light = value * count, spread * count**2, light * count
    elif how == "median":
        spread = spread * np.where(n > 2, math.pi / 2, 1.0)
    return value, spread, light, n / count


def snr_map(cube: Cube, window: tuple[float, float] = (6050.0, 6200.0)) -> Image:
    """Return the signal to noise per pixel in a window; see `Cube.snr_map`."""
    rest = cube.rest_wavelength
    planes = window_planes(rest, window, cube.redshift)
    centre = 0.5 * (rest[planes.start] + rest[planes.stop - 1])
    shape = cube.shape[1:]
    n, total, noise = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    x, xx, xy, yy = (np.zeros(shape) for _ in range(4))
    for block in blocks(cube, planes):
        good = ~block.bad
        n += good.sum(axis=0)
        total += block.values.sum(axis=0)
        if block.variance is not None:
            noise += np.where(good, np.sqrt(block.variance), 0.0).sum(axis=0)
            continue
        offset = (rest[block.planes] - centre)[:, None, None]
        x += np.where(good, offset, 0.0).sum(axis=0)
        xx += np.where(good, offset**2, 0.0).sum(axis=0)
        xy += (offset * block.values).sum(axis=0)
        yy += (block.values**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        signal = total / n
        if cube.uncertainty is not None:
            noise = noise / n
        else:
            spread = xx - x**2 / n
            slope = np.where(spread > 0, (xy - x * signal) / spread, 0.0)
            squares = np.clip(yy - n * signal**2 - slope**2 * spread, 0.0, None)
            noise = np.sqrt(squares / np.where(n > 2, n - 2, np.nan))
        values = np.where(noise > 0, signal / noise, np.nan)
    cards: dict[str, tuple[object, str]] = {
        "SNRLOW": (float(window[0]), "[Angstrom] Window of the signal to noise, rest frame"),
        "SNRHIGH": (float(window[1]), "[Angstrom] Window of the signal to noise, rest frame"),
    }
    title = f"signal to noise, {window[0]:g} to {window[1]:g} \u00c5"
    return Image(values, title=title, kind="snr", celestial=cube.celestial, cards=cards)


def peak(cube: Cube, window: tuple[float, float] | None = None) -> tuple[int, int]:
    """Return (x, y) of the brightest spaxel; see `Cube.peak`."""
    light = _light(cube, window)
    y, x = np.unravel_index(int(np.argmax(light)), light.shape)
    return int(x), int(y)


def centroid(cube: Cube, window: tuple[float, float] | None = None) -> tuple[float, float]:
    """Return (x, y) of the centre of light; see `Cube.centroid`."""
    light = np.clip(_light(cube, window), 0.0, None)
    total = light.sum()
    if not total > 0:
        raise DataError("the centre of light must come from spaxels with a positive sum; got none. Choose another window.")
    rows, columns = np.indices(light.shape)
    return float((columns * light).sum() / total), float((rows * light).sum() / total)


def _light(cube: Cube, window: tuple[float, float] | None) -> np.ndarray:
    """The sum over wavelength of each spaxel's good pixels; -inf where it has none or is masked."""
    planes = None if window is None else window_planes(cube.rest_wavelength, window, cube.redshift)
    total, seen = np.zeros(cube.shape[1:]), np.zeros(cube.shape[1:], dtype=bool)
    for block in blocks(cube, planes):
        total += block.values.sum(axis=0)
        seen |= ~block.bad.all(axis=0)
    if cube.spatial_mask is not None:
        seen &= ~cube.spatial_mask
    if not seen.any():
        raise DataError("the cube must have a usable pixel; got none in the window. Check the flags and the window.")
    return np.where(seen, total, -np.inf)
