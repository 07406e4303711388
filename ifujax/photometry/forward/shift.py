"""Where one image lies on another to the nearest pixel: the shift at which it explains most."""

from __future__ import annotations

import numpy as np
from numpy import fft


def best_shift(
    template: np.ndarray, values: np.ndarray, ivar: np.ndarray, centre: tuple[int, int], reach: tuple[int, int]
) -> tuple[int, int]:
    """Return the whole-pixel shift (y, x) of `template` that lowers chi2 most, flux scale and background fitted at each.

    ``chi2(shift)`` follows for all shifts at once from three correlations: of the weights with the template and its square, and
    of the weighted data with the template.

    Parameters
    ----------
    template : (n_y, n_x) array
        On a periodic grid.
    values, ivar : (n_y, n_x) arrays
        Data, finite, and their inverse variances, 0 where masked.
    centre, reach : (y, x)
        Pixels about which, and how far, shifts are tried. A scale below 0 does not count.
    """
    shape, tiny = template.shape, np.finfo(float).tiny
    total = max(float(ivar.sum()), tiny)
    template = template - template.mean()  # chi2 does not change, rounding does
    data = values - float((ivar * values).sum()) / total

    def correlation(weights: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Sum over p of ``weights[p] of[p - shift]``, for every shift."""
        return fft.irfft2(fft.rfft2(weights) * np.conj(fft.rfft2(of)), s=shape)

    first = correlation(ivar, template)
    variance = correlation(ivar, template**2) - first**2 / total
    covariance = correlation(ivar * data, template)  # weighted data add up to 0
    gain = np.where((variance > 0) & (covariance > 0), covariance**2 / np.where(variance > 0, variance, 1.0), 0.0)
    ys = np.arange(centre[0] - reach[0], centre[0] + reach[0] + 1)
    xs = np.arange(centre[1] - reach[1], centre[1] + reach[1] + 1)
    looked = gain[np.ix_(ys % shape[0], xs % shape[1])]
    y, x = np.unravel_index(int(looked.argmax()), looked.shape)
    return int(ys[y]), int(xs[x])
