"""What a fit of an image says against itself: nothing detected, a chi2 that is not that of noise, residuals with structure."""

from __future__ import annotations

import numpy as np

from ifujax.inference import status as bits
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.detection import DETECTED, PLAIN, gain_of, noise_power, search_of
from ifujax.photometry.forward.errors import robust_chi
from ifujax.photometry.forward.noise import reach_of, window_correlation
from ifujax.photometry.forward.preparation import Prepared
from ifujax.photometry.goodness import Misfit, judge
from ifujax.photometry.outcome import Outcome
from ifujax.robust import MAD_TO_SIGMA

_ROOM = 0.5
"""Arcsec that the fit may leave the margin of the search for the shift by."""


def verdict(
    prepared: Prepared, unit: np.ndarray, values: dict[str, float], n_free: int, options: PhotometryOptions
) -> tuple[int, Misfit | None, float]:
    """Return warning bits of a fit, where it is worst on the pixels of MUSE, and how significant the scene is in the image.

    Parameters
    ----------
    prepared : Prepared
    unit : (n_y, n_x) array
        The reference as the image shows it, for unit scale.
    values : dict of str to float
    n_free : int
    options : PhotometryOptions
    """
    used, root = prepared.ivar > 0, np.sqrt(prepared.ivar)
    model = values["scale"] * unit
    residual = (prepared.values - model - values["bg"]) * root
    window = prepared.transform.window
    judged = judge(
        residual,
        used,
        model,
        prepared.grid.step,
        n_free=n_free,
        stated=options.noise == "variance" and not prepared.noise_estimated,
        allowed=options.noise == "correlated",
        robust=options.loss != "gaussian",
        own=None if window is None else window_correlation(window, prepared.grid.shape, reach_of(int(used.sum()))),
    )
    found = significance(prepared, unit, residual, judged.correlation, options) if n_free else np.nan
    warn = judged.warn | (bits.NO_DETECTION.value if found < DETECTED else 0)
    return warn, None if judged.misfit is None else judged.misfit.moved(*prepared.grid.offset), found


def significance(
    prepared: Prepared, unit: np.ndarray, residual: np.ndarray, correlation: np.ndarray, options: PhotometryOptions
) -> float:
    """Return how significant the scene is in the image, in sigma, with all shifts and widths that were tried."""
    used, root = prepared.ivar > 0, np.sqrt(prepared.ivar)
    total = float(prepared.ivar.sum())
    robust = options.loss != "gaussian"
    if options.fix_bg is not None:
        level = options.fix_bg
    elif robust:
        level = float(np.median(prepared.values[used]))
    else:
        level = float((prepared.ivar * prepared.values).sum()) / total
    nothing = (prepared.values - level) * root
    pair = (robust_chi(nothing), robust_chi(residual)) if robust else (nothing, residual)
    centred = (unit - float((prepared.ivar * unit).sum()) / total) * root
    power = noise_power(centred, correlation, int(used.sum()), options.noise == "variance" and not prepared.noise_estimated)
    u = float(np.sqrt(max(gain_of(*pair) / power, 0.0))) if power > 0 else np.inf
    if not u < PLAIN:
        return u
    transform, grid = prepared.transform, prepared.grid
    fy, fx = transform.frequencies
    room = [
        0.0 if fixed is not None else min(2.0 * (options.margin + _ROOM), n * step)
        for fixed, n, step in zip((options.fix_dy, options.fix_dx), grid.shape, grid.step)
    ]
    spectrum = np.abs(transform.transform[0, 0]) ** 2
    return search_of(spectrum, fy[0], fx[0], (room[0], room[1]), grid.step, options.fix_fwhm is None).significance(u)


def robust_factor(outcome: Outcome, prepared: Prepared) -> float:
    """Return the variance of residuals over what is stated, from their median: outliers don't count."""
    ivar = prepared.grid.cut(prepared.ivar)
    residual = (outcome.data - outcome.model) * np.sqrt(ivar)
    return float((MAD_TO_SIGMA * np.nanmedian(np.abs(residual[ivar > 0]))) ** 2) / prepared.noise_share
