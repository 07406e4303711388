"""Where one image lies on another to the nearest pixel: the shift at which it explains most."""

from __future__ import annotations

import numpy as np
from numpy import fft

_MUCH_BETTER, _SEEN, _EXPLAINED = 1.5, 25.0, 0.05
"""What a shift beyond the search must gain to be told of: times the gain within, in chi2, and as a share of all chi2."""


def best_shift(
    template: np.ndarray, values: np.ndarray, ivar: np.ndarray, centre: tuple[int, int], reach: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return the whole-pixel shift (y, x) of `template` that lowers chi2 most, flux scale and background fitted at each.

    Also returns a shift further away, of up to half the image, that lowers chi2 half as much again, or None.

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
    found, best = _highest(gain, centre, reach)
    rows, columns = (np.flatnonzero(ivar.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return found, None
    wide = (int(rows[-1] - rows[0]) // 2, int(columns[-1] - columns[0]) // 2)
    other, gained = _highest(gain, centre, (max(reach[0], wide[0]), max(reach[1], wide[1])))
    share = gained / max(float((ivar * data**2).sum()), tiny)
    return found, other if gained > max(_MUCH_BETTER * best, _SEEN) and share > _EXPLAINED else None


def _highest(gain: np.ndarray, centre: tuple[int, int], reach: tuple[int, int]) -> tuple[tuple[int, int], float]:
    ys = np.arange(centre[0] - reach[0], centre[0] + reach[0] + 1)
    xs = np.arange(centre[1] - reach[1], centre[1] + reach[1] + 1)
    looked = gain[np.ix_(ys % gain.shape[0], xs % gain.shape[1])]
    y, x = np.unravel_index(int(looked.argmax()), looked.shape)
    return (int(ys[y]), int(xs[x])), float(looked[y, x])
