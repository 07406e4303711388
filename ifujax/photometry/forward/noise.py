"""Errors where the noise of neighbouring pixels is correlated, as in images made of drizzled cubes."""

from __future__ import annotations

import numpy as np
from numpy import fft

from ifujax.photometry.forward.reference import good_size
from ifujax.robust import MAD_TO_SIGMA

_REACH = 4
"""Pixels over which noise is taken to be correlated; drizzling to equal pixels reaches two."""
_OUTLIER = 4.0
FEW = 2000
"""Pixels: with fewer, what a fit takes of the noise shows in the residuals."""
_LEAST_POWER = 0.25
"""Share of the mean: few pixels can't say that noise has less power at some frequency; resampled noise has more at low ones."""
_ROUNDING = 1e-10
_PIXELS_PER_LAG = 8
"""With few pixels, correlations at many lags cannot be told from each other."""


def reach_of(count: int) -> int:
    """Return over how many pixels correlations can be told from each other, of `count` pixels."""
    return min(_REACH, max(1, int(0.5 * (np.sqrt(count / _PIXELS_PER_LAG) - 1.0))))


def residual_correlation(residual: np.ndarray, used: np.ndarray, reach: int = _REACH) -> np.ndarray:
    """Return the autocovariance of residuals at lags up to `reach` pixels, (2 reach + 1, 2 reach + 1), lag 0 in the middle.

    Parameters
    ----------
    residual : (y, x) array
        Divided by their errors: the middle is 1 where these are right.
    used : (y, x) bool array
        Pixels that count; outliers beyond 4 robust sigma do not.
    """
    spread = MAD_TO_SIGMA * np.median(np.abs(residual[used])) if used.any() else 1.0
    kept = used & (np.abs(residual) < _OUTLIER * max(spread, np.finfo(float).tiny))
    values = np.where(kept, residual, 0.0)
    shape = _roomy(values.shape, reach)

    def correlate(array: np.ndarray) -> np.ndarray:
        whole = fft.irfft2(np.abs(fft.rfft2(array, shape)) ** 2, shape)
        lags = np.arange(-reach, reach + 1)
        return whole[np.ix_(lags % shape[0], lags % shape[1])]

    pairs = correlate(kept.astype(np.float64))
    return correlate(values) / np.maximum(pairs, 1.0)


def unabsorbed(correlation: np.ndarray, slopes: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the autocovariance of the noise from that of the residuals, of which a fit to few pixels has taken a part.

    With the projection M = 1 - Q Q^T that the fit is, Q an orthonormal basis of its slopes, residuals have the covariance M R M:
    the mean of that over pairs of pixels at one lag is linear in the autocovariance R of the noise, and is solved for it.

    Parameters
    ----------
    correlation : (2 reach + 1, 2 reach + 1) array
        Of residuals divided by their errors: `residual_correlation`.
    slopes : (n, y, x) array
        Of the model by each parameter, divided by the errors; 0 where a pixel does not count.
    used : (y, x) bool array
    """
    reach = correlation.shape[0] // 2
    room = ((reach, reach), (reach, reach))
    basis = np.linalg.qr(slopes.reshape(len(slopes), -1).T)[0].T.reshape(slopes.shape)
    basis, inside = np.pad(basis, ((0, 0), *room)), np.pad(used.astype(np.float64), room)
    lags = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    moved = np.stack([np.roll(basis, lag, axis=(1, 2)) * inside for lag in lags])
    pairs = np.array([np.sum(inside * np.roll(inside, lag, axis=(0, 1))) for lag in lags])
    taken = np.einsum("lpyx,qyx->lpq", moved, basis)
    flat = moved.reshape(len(lags), -1)
    kept = np.diag(pairs) - 2.0 * flat @ flat.T + np.einsum("lpq,mpq->lm", taken, taken)
    seen = pairs > 0
    found = np.zeros(len(lags))
    found[seen] = np.linalg.lstsq(kept[np.ix_(seen, seen)], pairs[seen] * correlation.ravel()[seen], rcond=1e-8)[0]
    return found.reshape(correlation.shape)


def correlated(covariance: np.ndarray, slopes: np.ndarray, residual: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the covariance of parameters under noise that is as correlated as the residuals are.

    Parameters
    ----------
    covariance : (n, n) array
        For independent noise; NaN for parameters that the data do not constrain.
    slopes : (n, y, x) array
        Of the model by each parameter, divided by the errors; 0 where a pixel does not count.
    residual : (y, x) array
        Divided by the errors.
    used : (y, x) bool array
    """
    felt = np.isfinite(np.diag(covariance))
    if not felt.any():
        return covariance
    rows, columns = (np.flatnonzero(used.any(axis=axis)) for axis in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    slopes, residual, used = slopes[(felt, *window)], residual[window], used[window]
    count = int(used.sum())
    correlation, least = residual_correlation(residual, used, reach_of(count)), 0.0
    if count < FEW:
        correlation, least = unabsorbed(correlation, slopes, used), _LEAST_POWER
    found = np.full_like(covariance, np.nan)
    found[np.ix_(felt, felt)] = correlated_covariance(covariance[np.ix_(felt, felt)], slopes, correlation, least)
    return found


def correlated_covariance(covariance: np.ndarray, slopes: np.ndarray, correlation: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return the covariance of parameters that were fitted as if the noise were independent, under noise that is not.

    ``C (J^T R J + P) C`` with the covariance C for independent noise, slopes J over the errors, the autocovariance R of the
    noise, and what priors add to the curvature, ``P = C^-1 - J^T J``.

    Parameters
    ----------
    covariance : (n, n) array
        For independent noise.
    slopes : (n, y, x) array
        Of the model by each parameter, divided by the errors; 0 where a pixel does not count.
    correlation : (2 reach + 1, 2 reach + 1) array
        Of residuals divided by their errors, lag 0 in the middle.
    least : float
        Power that the noise has at every frequency, as a share of its mean.
    """
    spread = noisy(slopes, correlation, least)
    # C (J^T R J + P) C = C + C J^T (R - 1) J C, without the inverse
    excess = np.einsum("iyx,jyx->ij", slopes, spread - slopes)
    found = covariance + covariance @ excess @ covariance
    found = 0.5 * (found + found.T)
    # Residuals of images without noise leave nothing but rounding errors
    np.fill_diagonal(found, np.maximum(np.diag(found), _ROUNDING * np.diag(covariance)))
    return found


def noisy(slopes: np.ndarray, correlation: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return images (n, y, x) convolved with an autocovariance of noise, which has `least` of its mean power everywhere."""
    reach = correlation.shape[0] // 2
    n_y, n_x = slopes.shape[1:]
    shape = _roomy((n_y, n_x), reach)
    # A truncated autocovariance can have negative power somewhere, which no noise has
    power = np.maximum(power_of(correlation, shape), least * correlation[reach, reach])
    return fft.irfft2(fft.rfft2(slopes, shape) * power, shape)[:, :n_y, :n_x]


def power_of(correlation: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the power that an autocovariance means at the frequencies of `rfft2` of an image of some shape."""
    reach = correlation.shape[0] // 2
    kernel = np.zeros(shape)
    lags = np.arange(-reach, reach + 1)
    kernel[np.ix_(lags % shape[0], lags % shape[1])] = correlation
    return fft.rfft2(kernel).real


def window_correlation(window: np.ndarray, shape: tuple[int, int], reach: int = _REACH) -> np.ndarray:
    """Return the autocovariance that independent noise of variance 1 has behind a low-pass, lag 0 in the middle."""
    whole = fft.irfft2(window**2, s=shape)
    lags = np.arange(-reach, reach + 1)
    return whole[np.ix_(lags % shape[0], lags % shape[1])]


def _roomy(shape: tuple[int, ...], reach: int) -> tuple[int, int]:
    """Return the shape in which lags up to `reach` do not wrap round."""
    return good_size(shape[0] + reach), good_size(shape[1] + reach)
