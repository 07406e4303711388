"""Which pixels IFSCube uses: of the fit, of a line's flux, of its equivalent width."""

from __future__ import annotations

import numpy as np

from ifujax.models.doppler import C_KMS, doppler_factor

WINDOW_SIGMA = 5.0
"""Half-width of the windows of flux and equivalent width. Kept fault: `sigma_factor` changes nothing (section 2.5)."""


def pixel_range(wavelength: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (first, past): from the last pixel at or below `low` to before the first at or above `high`, within the data."""
    first = np.maximum(np.searchsorted(wavelength, low, side="right") - 1, 0)
    return first, np.searchsorted(wavelength, high, side="left")


def fitted_pixels(
    rest_wavelength: np.ndarray,
    window: tuple[float, float],
    rest_lines: np.ndarray | None = None,
    sigma: np.ndarray | None = None,
    width: float = 10.0,
) -> np.ndarray:
    """Return the pixels (wave,) that enter chi2, before flags (sections 5.4 and 5.6).

    Parameters
    ----------
    rest_wavelength : array (wave,)
    window : (low, high)
        Fitting window, inclusive.
    rest_lines, sigma : arrays (lines,), optional
        With `optimize_fit`: rest wavelengths and guessed sigma (km/s) of the lines.
    width : float
        `optimization_window`. Kept fault: it is centred on the rest wavelength, whatever the guessed velocity.
    """
    inside = (rest_wavelength >= window[0]) & (rest_wavelength <= window[1])
    if rest_lines is None or sigma is None:
        return inside
    half = width * np.asarray(sigma) * rest_lines / C_KMS
    near = np.zeros_like(inside)
    for first, past in zip(*pixel_range(rest_wavelength, rest_lines - half, rest_lines + half)):
        near[first:past] = True
    return inside & near


def flux_ranges(
    wavelength: np.ndarray, rest_wavelength: float, velocity: np.ndarray, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the range (first, past) of pixels of one line's flux in each spectrum.

    Kept fault: the centre is ``rest (1 + V/c)``, not relativistic, unlike the profile's and the equivalent width's.
    """
    centre = rest_wavelength * (1.0 + velocity / C_KMS)
    half = WINDOW_SIGMA * sigma * centre / C_KMS
    return pixel_range(wavelength, centre - half, centre + half)


def width_ranges(
    wavelength: np.ndarray, rest_wavelength: float, velocity: np.ndarray, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the range (first, past) of pixels of one line's equivalent width: strictly within 5 sigma of its centre."""
    centre = rest_wavelength * np.asarray(doppler_factor(velocity))
    half = WINDOW_SIGMA * sigma * rest_wavelength / C_KMS
    return np.searchsorted(wavelength, centre - half, side="right"), np.searchsorted(wavelength, centre + half, side="left")


def trapezoid(wavelength: np.ndarray, values: np.ndarray, first: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Return the trapezoidal integral of each row of ``values (n, wave)`` over its pixels first to past - 1.

    NaN where a pixel of the range is; 0 for a range of one pixel or none.
    """
    step = np.diff(wavelength)
    index = np.arange(len(step))
    # Interval k joins pixels k and k + 1: both must be in the range.
    inside = (index >= first[:, None]) & (index + 1 < past[:, None])
    area = 0.5 * (values[:, 1:] + values[:, :-1]) * step
    return np.where(inside, area, 0.0).sum(axis=1)
