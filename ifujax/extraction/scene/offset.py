"""Where a catalogue lies on a cube, to within a pixel: its sources stacked on the field's images."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ifujax.extraction.scene.field import Bands
from ifujax.extraction.scene.solve import sky_terms
from ifujax.robust import MAD_TO_SIGMA

_GAIN = 1.2
"""A shift must collect this many times what the catalogue's own positions do: else they are trusted."""
_WIDER = 3.0
_DEGREE, _ROUNDS, _CLIP = 4, 5, 2.5
"""Of the polynomial that is taken off first, and how outliers are left out of it."""
_MOST = 100
"""Sources that are stacked."""


def coarse_offset(
    bands: Bands, x: np.ndarray, y: np.ndarray, step: tuple[float, float], fwhm: float, search: float
) -> tuple[float, float]:
    """Return the shift (dx, dy) in arcsec, along the pixels, that puts the sources on the light; 0, 0 where it is no better.

    Parameters
    ----------
    bands : Bands
    x, y : (source,) arrays
        0-based pixels.
    step : (float, float)
        Width of a pixel (y, x), arcsec.
    fwhm : float
        Arcsec, to smooth with.
    search : float
        Largest shift, arcsec.
    """
    reach = (int(np.floor(search / step[0])), int(np.floor(search / step[1])))
    if not len(x) or max(reach) < 1:
        return 0.0, 0.0
    known = np.isfinite(bands.variance)
    weight = np.where(known, 1.0 / np.where(known, bands.variance, 1.0), 0.0)
    total = weight.sum(axis=0)
    level = [np.median(image[good]) if good.any() else 0.0 for image, good in zip(bands.values, known)]
    image = np.divide(
        (weight * (bands.values - np.array(level)[:, None, None])).sum(axis=0), total, out=np.zeros_like(total), where=total > 0
    )
    sigma = fwhm / 2.355
    seen = total > 0
    widths = np.array([sigma / step[0], sigma / step[1]])
    image = np.where(seen, image - _smooth_part(image, seen), 0.0)
    # The difference of two Gaussians: halos are no sources
    smooth = ndimage.gaussian_filter(image, widths) - ndimage.gaussian_filter(image, _WIDER * widths)
    # Bright sources alone would decide: every source counts by the root of its light
    smooth = np.sqrt(np.maximum(smooth, 0.0))
    some = np.linspace(0, len(x) - 1, min(len(x), _MOST)).round().astype(int)
    shifts_y, shifts_x = np.arange(-reach[0], reach[0] + 1), np.arange(-reach[1], reach[1] + 1)
    at_y = y[some, None, None] + shifts_y[None, :, None]
    at_x = x[some, None, None] + shifts_x[None, None, :]
    stacked = ndimage.map_coordinates(smooth, np.broadcast_arrays(at_y, at_x), order=1, mode="constant").sum(axis=0)
    own = stacked[reach[0], reach[1]]
    best = np.unravel_index(int(np.argmax(stacked)), stacked.shape)
    near = np.hypot(shifts_y[best[0]] * step[0], shifts_x[best[1]] * step[1]) <= fwhm
    if near or stacked[best] <= _GAIN * own:
        return 0.0, 0.0
    return float(shifts_x[best[1]] * step[1]), float(shifts_y[best[0]] * step[0])


def _smooth_part(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The polynomial of an image's background, what stands out left aside."""
    terms = sky_terms((image.shape[0], image.shape[1]), _DEGREE).reshape(-1, image.size)
    flat, used = image.ravel(), seen.ravel().copy()
    found = np.zeros(image.size)
    for _ in range(_ROUNDS):
        if used.sum() <= len(terms):
            break
        found = np.linalg.lstsq(terms[:, used].T, flat[used], rcond=None)[0] @ terms
        away = flat - found
        used = seen.ravel() & (np.abs(away) < _CLIP * MAD_TO_SIGMA * np.median(np.abs(away[used])))
    return found.reshape(image.shape)
