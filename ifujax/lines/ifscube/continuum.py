"""IFSCube's pseudo-continuum, and the smoother one that its equivalent widths divide by."""

from __future__ import annotations

import numpy as np

from ifujax.lines.config import ContinuumOptions
from ifujax.lines.continuum import RejectionFit, fit_rejection, rejection_weights

WIDTH_DEGREE = 7
WIDTH_ITERATIONS = 3
WIDTH_THRESHOLD = 3.0


def pseudo_continuum(
    wavelength: np.ndarray,
    values: np.ndarray,
    rest_lines: np.ndarray,
    sigma: np.ndarray,
    options: ContinuumOptions,
    degree: int,
    *,
    single_precision: bool = False,
) -> RejectionFit:
    """Fit the rejection polynomial of each spectrum (section 5.3).

    Parameters
    ----------
    wavelength : array (wave,)
        The pixels of the fitting window, rest Angstrom; IFSCube has NaN outside.
    values : array (n, wave)
        Data less stellar spectrum. Kept fault: flagged pixels count like any other; only NaN is left out.
    rest_lines, sigma : arrays (lines,)
        Where `options.line_weight` holds: within 3 of the guessed sigma (km/s) of the rest wavelength.
    options : ContinuumOptions
    degree : int
    single_precision : bool
        Whether the file holds 32-bit floats. Kept fault: the pixel after each NaN is then lost too.

    Notes
    -----
    Rows without enough pixels are NaN.
    """
    good = np.isfinite(values)
    if single_precision:
        good[:, 1:] &= np.isfinite(values[:, :-1])
    weights = rejection_weights(wavelength, rest_lines, sigma, options.line_weight, options.weights)
    return _fit(wavelength, values, good, weights, degree, options.n_iterate, options.lower_threshold, options.upper_threshold)


def width_continuum(wavelength: np.ndarray, window: tuple[float, float], continuum: np.ndarray) -> np.ndarray:
    """Return what equivalent widths are measured against, (n, wave): a polynomial through ``continuum (n, wave)``.

    `continuum` is stellar spectrum plus pseudo-continuum. Degree 7, three rejections at three standard deviations,
    over the window without its ends; NaN at these, and where the continuum is 0 throughout (section 5.4). Kept fault:
    `continuum_windows` change nothing.
    """
    inside = (wavelength > window[0]) & (wavelength < window[1])
    part = continuum[:, inside]
    good = np.isfinite(part)
    weights = np.ones(part.shape[1])
    fit = _fit(wavelength[inside], part, good, weights, WIDTH_DEGREE, WIDTH_ITERATIONS, WIDTH_THRESHOLD, WIDTH_THRESHOLD)
    result = np.full(continuum.shape, np.nan)
    nothing = ~(good & (part != 0.0)).any(axis=1, keepdims=True)
    result[:, inside] = np.where(nothing, np.nan, fit.continuum)
    return result


def _fit(
    wavelength: np.ndarray,
    values: np.ndarray,
    good: np.ndarray,
    weights: np.ndarray,
    degree: int,
    n_iterate: int,
    lower: float,
    upper: float,
) -> RejectionFit:
    """Fit with rejection; where that left nothing (residuals of exactly 0 are not within 0 of 0), without."""
    window = float(wavelength[0]), float(wavelength[-1])
    values = np.where(good, values, 0.0)
    found = fit_rejection(
        wavelength, window, values, good, weights,
        degree=degree, n_iterate=n_iterate, lower_threshold=lower, upper_threshold=upper,
    )  # fmt: skip
    empty = np.isnan(found.coefficients).any(axis=1)
    if empty.any():
        plain = fit_rejection(
            wavelength, window, values[empty], good[empty], weights,
            degree=degree, n_iterate=0, lower_threshold=lower, upper_threshold=upper,
        )  # fmt: skip
        for mine, other in zip(
            (found.coefficients, found.continuum, found.kept), (plain.coefficients, plain.continuum, plain.kept)
        ):
            mine[empty] = other
    return found
