"""A MUSE image corrected by what a fit found: its pointing, background and flux scale become those of HST."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy import ndimage

from ifujax.data.image import Image
from ifujax.errors import UsageError, unknown
from ifujax.images.geometry import celestial_of, pixel_steps

Position = Literal["crpix", "crval", "resample"]
_POSITIONS = ("crpix", "crval", "resample")
_CORRECTIONS = ("xy", "scale", "zero")
_WHOLE = 1e-9
"""Pixels by which a shift may miss whole pixels and still move them as they are."""


def apply_corrections(
    image: Image,
    dx: float = 0.0,
    dy: float = 0.0,
    dra: float | None = None,
    ddec: float | None = None,
    bg: float = 0.0,
    scale: float = 1.0,
    *,
    rotation: float = 0.0,
    corrections: Sequence[str] = ("xy", "scale", "zero"),
    position: Position = "crpix",
) -> Image:
    """Return a MUSE image with its position, background and flux scale corrected: ``(image - bg) / scale``.

    Parameters
    ----------
    image : Image
    dx, dy : float
        Arcsec along the pixel axes by which HST features must be moved to land on those of `image`.
    dra, ddec : float, optional
        The same on the sky, as differences of coordinates in arcsec: not multiplied by cos(dec). They follow from `dx` and `dy`
        at the middle of `image` if they are left out.
    bg : float
        In the unit of `image`.
    scale : float
        MUSE over HST.
    rotation : float
        Degrees from +x to +y by which HST features must be turned about the centre of `image`, before they are moved. It is
        a part of "xy": the matrix of the coordinates is turned, or the pixels are.
    corrections : sequence of "xy", "scale", "zero"
        Which to apply: position, flux scale, background. A string such as ``"xy,scale"`` will do.
    position : "crpix", "crval" or "resample"
        How "xy" is applied. "crpix": ``CRPIX += (dx, dy) / pixel``; "crval": ``CRVAL -= (dra, ddec)``, both leave the pixels as
        they are. "resample": the pixels are moved by ``-(dx, dy)`` and the coordinates stay.

    Returns
    -------
    Image
        Its variance is divided by the square of `scale`.

    Raises
    ------
    UsageError
        For unknown corrections, numbers that aren't finite, or a scale that isn't positive.
    DataError
        If the position is to be corrected and the image has no celestial coordinates.

    Notes
    -----
    Resampling interpolates with quintic splines, which go through the pixels: a shift by whole pixels changes no value, and sums
    over sources are conserved, since shifted B-splines add up to 1 (Unser 1999, IEEE Signal Processing Magazine 16, 22). A pixel
    is masked if one of the pixels next to its new place is. The variance is moved alike, linearly: that neighbouring pixels
    become correlated is not in it.
    """
    chosen = _chosen(corrections)
    if position not in _POSITIONS:
        raise UsageError(unknown("position", str(position), _POSITIONS))
    if dra is None or ddec is None:
        dra, ddec = _on_sky(image, dx, dy) if "xy" in chosen and position == "crval" else (0.0, 0.0)
    if not np.isfinite([dx, dy, dra, ddec, bg, scale, rotation]).all():
        raise UsageError(
            f"corrections must be finite; got dx={dx}, dy={dy}, dra={dra}, ddec={ddec}, bg={bg}, scale={scale}. "
            "Use those of a fit whose status is 0."
        )
    if "scale" in chosen and not scale > 0:
        raise UsageError(f"scale must be positive; got {scale}. Use that of a fit whose status is 0.")
    if "xy" in chosen:
        image = _turned(image, dx, dy, rotation, position) if rotation else _moved(image, dx, dy, dra, ddec, position)
    values, variance = image.values, image.variance
    if "zero" in chosen:
        values = values - bg
    if "scale" in chosen:
        values = values / scale
        variance = None if variance is None else variance / scale**2
    return replace(image, values=values, variance=variance)


def _on_sky(image: Image, dx: float, dy: float) -> tuple[float, float]:
    """Return a shift at the middle of the image as differences of coordinates, arcsec."""
    (step_y, step_x), (ny, nx) = pixel_steps(image), image.shape
    x, y = np.array([nx / 2.0, nx / 2.0 + dx / step_x]), np.array([ny / 2.0, ny / 2.0 + dy / step_y])
    ra, dec = celestial_of(image).wcs_pix2world(x, y, 0)
    return float((ra[1] - ra[0] + 180.0) % 360.0 - 180.0) * 3600.0, float(dec[1] - dec[0]) * 3600.0


def _chosen(corrections: Sequence[str] | str) -> tuple[str, ...]:
    words = corrections.split(",") if isinstance(corrections, str) else corrections
    chosen = tuple(str(word).strip().lower() for word in words)
    for word in chosen:
        if word not in _CORRECTIONS:
            raise UsageError(unknown("correction", word, _CORRECTIONS))
    return chosen


def _moved(image: Image, dx: float, dy: float, dra: float, ddec: float, position: str) -> Image:
    step_y, step_x = pixel_steps(image)
    if position == "resample":
        return _resampled(image, dx / step_x, dy / step_y)
    wcs: WCS = celestial_of(image).deepcopy()
    header = None if image.header is None else image.header.copy()
    if position == "crpix":
        change = {"CRPIX1": dx / step_x, "CRPIX2": dy / step_y}
        wcs.wcs.crpix = wcs.wcs.crpix + np.array(list(change.values()))
    else:
        change = {"CRVAL1": -dra / 3600, "CRVAL2": -ddec / 3600}
        wcs.wcs.crval = wcs.wcs.crval + np.array(list(change.values()))
    wcs.wcs.set()
    if header is not None:
        _add(header, change)
    return replace(image, celestial=wcs, header=header)


def _turned(image: Image, dx: float, dy: float, rotation: float, position: str) -> Image:
    """Correct a shift and a rotation about the centre of the image: a pixel p shows what HST has at c + R^-1 (p - d - c)."""
    step = np.array(pixel_steps(image)[::-1])
    centre = 0.5 * (np.array(image.shape[::-1]) - 1.0)
    shift = np.array([dx, dy]) / step
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    turn = np.array([[cos, -sin], [sin, cos]]) * step[None, :] / step[:, None]
    if position == "resample":
        return _resampled(image, shift[0], shift[1], turn)
    wcs: WCS = celestial_of(image).deepcopy()
    header = None if image.header is None else image.header.copy()
    back = np.linalg.inv(turn)
    matrix = wcs.pixel_scale_matrix @ back
    if position == "crpix":
        wcs.wcs.crpix = centre + shift + turn @ (wcs.wcs.crpix - 1.0 - centre) + 1.0
    else:
        at = centre + back @ (wcs.wcs.crpix - 1.0 - shift - centre)
        wcs.wcs.crval = [float(value) for value in wcs.wcs_pix2world(*at, 0)]
    if wcs.wcs.has_cd():
        wcs.wcs.cd = matrix
    else:
        wcs.wcs.pc = matrix / np.asarray(wcs.wcs.get_cdelt())[:, None]
    wcs.wcs.set()
    if header is not None:
        places = {f"CRPIX{i + 1}": wcs.wcs.crpix[i] for i in range(2)} | {f"CRVAL{i + 1}": wcs.wcs.crval[i] for i in range(2)}
        kind, elements = ("CD", matrix) if wcs.wcs.has_cd() else ("PC", wcs.wcs.get_pc())
        places |= {f"{kind}{i + 1}_{j + 1}": elements[i, j] for i in range(2) for j in range(2)}
        for card, value in places.items():
            header[card] = float(value)
    return replace(image, celestial=wcs, header=header)


def _add(header: fits.Header, change: dict[str, float]) -> None:
    for card, amount in change.items():
        value = header.get(card)
        if isinstance(value, int | float):
            header[card] = float(value) + amount


def _resampled(image: Image, dx: float, dy: float, turn: np.ndarray | None = None) -> Image:
    """Return the pixels at ``(x + dx, y + dy)``, (x, y) turned about the image's centre first."""
    good = np.isfinite(image.values)
    if not good.any():
        return image
    filled = _filled(image.values, good)
    kept = _shifted(good.astype(np.float64), dx, dy, turn, order=1, outside=0.0) > 1 - 1e-6
    values = np.where(kept, _shifted(filled, dx, dy, turn, order=5), np.nan)
    variance = image.variance
    if variance is not None:
        plane = np.where(good & np.isfinite(variance), variance, np.nan)
        known = np.isfinite(plane)
        if known.any():
            plane = _shifted(_filled(plane, known), dx, dy, turn, order=1)
        variance = np.where(kept, plane, np.nan)
    return replace(image, values=values, variance=variance)


def _shifted(
    plane: np.ndarray, dx: float, dy: float, turn: np.ndarray | None, order: int, outside: float | None = None
) -> np.ndarray:
    if turn is None and all(math.isclose(each, round(each), abs_tol=_WHOLE) for each in (dx, dy)):
        dx, dy, order = round(dx), round(dy), 0
    mode, fill = ("mirror", 0.0) if outside is None else ("constant", outside)
    if turn is not None:
        centre = 0.5 * (np.array(plane.shape) - 1.0)
        swapped = turn[::-1, ::-1]
        offset: Any = centre + np.array([dy, dx]) - swapped @ centre
        return np.asarray(ndimage.affine_transform(plane, swapped, offset, order=order, mode=mode, cval=fill))
    return np.asarray(ndimage.shift(plane, (-dy, -dx), order=order, mode=mode, cval=fill))


def _filled(plane: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Fill pixels that aren't good with the mean of those around them, or the median of all: splines must not ring there."""
    if good.all():
        return plane
    weight = ndimage.gaussian_filter(good.astype(np.float64), 1.5)
    mean = ndimage.gaussian_filter(np.where(good, plane, 0.0), 1.5) / np.maximum(weight, 1e-3)
    return np.where(good, plane, np.where(weight > 0.02, mean, np.median(plane[good])))
