"""The rejection polynomial: a weighted polynomial with iterated sigma clipping, many spectra at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from ifujax.models.continuum import legendre_basis
from ifujax.models.doppler import C_KMS

_ROWS_AT_ONCE = 256
_LEAST_SHARE = 0.3
"""Of pixels that survive: where there are fewer, noise is not what clips them."""
_CLIPPINGS = 8
"""Rounds of clipping behind a polynomial, more or less: it matters for close thresholds, which take many to settle."""


@dataclass(frozen=True)
class RejectionFit:
    """`coefficients` (n, K) in the Legendre basis, `continuum` (n, n_pix), `kept` (n, n_pix) bool.

    `used` (n, n_pix) bool are the pixels that the coefficients were solved from, and `share` (n,) is how many of those that might
    have been used they are: clipping took the others.
    """

    coefficients: np.ndarray
    continuum: np.ndarray
    kept: np.ndarray
    used: np.ndarray
    share: np.ndarray


def rejection_weights(
    rest_wavelength: np.ndarray,
    rest_lines: np.ndarray,
    sigma: np.ndarray,
    line_weight: float,
    table: tuple[tuple[float, float, float], ...],
) -> np.ndarray:
    """Return the weight of each pixel (n_pix,), which enters the sum of squares squared.

    1, but `line_weight` within 3 sigma of a line (rest wavelength, guessed sigma in km/s); or what
    `table` (low, high, weight; inclusive, later rows win) says, where one is given.
    """
    weights = np.ones_like(rest_wavelength)
    if table:
        for low, high, weight in table:
            weights[(rest_wavelength >= low) & (rest_wavelength <= high)] = weight
        return weights
    for rest, width in zip(rest_lines, sigma):
        weights[np.abs(rest_wavelength - rest) < 3.0 * width * rest / C_KMS] = line_weight
    return weights


def fit_rejection(
    rest_wavelength: np.ndarray,
    window: tuple[float, float],
    values: np.ndarray,
    good: np.ndarray,
    weights: np.ndarray,
    *,
    degree: int,
    n_iterate: int,
    lower_threshold: float,
    upper_threshold: float,
) -> RejectionFit:
    """Fit ``sum (weight r)^2`` with rejection, as IFSCube's [continuum] does.

    Parameters
    ----------
    rest_wavelength : array (n_pix,)
    window : (low, high)
        What the basis maps to [-1, 1].
    values, good : array (n, n_pix)
        Data and which of them may be used.
    weights : array (n_pix,)
    degree, n_iterate : int
    lower_threshold, upper_threshold : float
        Keep ``-lower s < r < upper s`` with s the standard deviation of the surviving residuals,
        those of zero weight included; rejection is permanent.

    Notes
    -----
    A spectrum stops being clipped once its survivors, or those with weight, would not exceed the
    degree. Rows without enough pixels give NaN coefficients.
    """
    basis = legendre_basis(rest_wavelength, *window, degree)
    clip = _Clip(basis, weights, n_iterate, lower_threshold, upper_threshold)
    coefficients = np.full((len(values), degree + 1), np.nan)
    kept = good.copy()
    for first in range(0, len(values), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        coefficients[part], kept[part] = clip(values[part], good[part])
    weighted = good & (weights != 0)
    used = kept & weighted
    return RejectionFit(coefficients, coefficients @ basis, kept, used, share_of(used, weighted))


def share_of(used: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return which part (n,) of the `usable` pixels (n, n_pix) is `used`; 1 where there are none."""
    count = usable.sum(axis=1)
    return np.where(count > 0, used.sum(axis=1) / np.maximum(count, 1), 1.0)


def response_of(
    fit: RejectionFit, basis: np.ndarray, good: np.ndarray, weights: np.ndarray, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how the noise of the pixels moves the coefficients of polynomials.

    Parameters
    ----------
    fit : RejectionFit
        Where its coefficients are NaN the median of the `good` pixels stands for it.
    basis : array (K, n_pix)
    good : array (n, n_pix) bool
    weights : array (n_pix,)
    sigma : array (n, n_pix)
        Noise, one standard deviation.

    Returns
    -------
    weight : array (n, n_pix)
    inverse : array (n, K, K)
        One standard deviation of noise in pixel p moves the coefficients by ``inverse @ basis[:, p] * weight[p]``.
    extra : array (n,)
        Variance beyond that, of clipping, as a share of it.
    """
    clip = _Clip(basis, weights, 0, 0.0, 0.0)
    used = fit.used.astype(float)
    normal = clip.normal(used)
    failed = np.flatnonzero(np.isnan(fit.coefficients[:, 0]))
    normal[failed] = np.eye(len(basis))
    inverse, weight, extra = _inverse(normal), used * clip.square, extra_variance(fit.share)
    if failed.size:
        # The first polynomial is 1 everywhere.
        count = good[failed].sum(axis=1)
        inverse[failed] = 0.0
        inverse[failed, 0, 0] = 1.0 / np.maximum(count, 1)
        weight[failed], extra[failed] = good[failed], 0.5 * np.pi - 1.0
    return weight * sigma, inverse, extra


def extra_variance(share: np.ndarray) -> np.ndarray:
    """Return what clipping adds to the variance of a fit to normal noise of which a `share` (n,) survived, as a part of it.

    Where the fit lies decides which pixels near the thresholds it keeps, and so it follows the noise more than a fit to given
    pixels would. With thresholds of c standard deviations, p the share and d the normal density, each round leaves
    ``r = 2 c d(c) / p`` of the distance to where it settles, and there the variance of a mean of N pixels is
    ``1 / (N (p - 2 c d(c)))``, not ``1 / (N p)`` (Johansen & Nielsen 2016, Scand. J. Stat. 43, 321).
    """
    share = np.clip(share, _LEAST_SHARE, 1.0)
    limit = ndtri(0.5 + 0.5 * share)
    with np.errstate(invalid="ignore"):
        near = np.where(share < 1.0, 2.0 * limit * np.exp(-0.5 * limit**2) / np.sqrt(2.0 * np.pi), 0.0)
    settled = 1.0 - (near / share) ** _CLIPPINGS
    return np.maximum(share * (1.0 + settled**2 * (1.0 / (share - near) - 1.0)) - 1.0, 0.0)


def solve_polynomials(
    basis: np.ndarray, weights: np.ndarray, used: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients (n, K) of weighted polynomials through the pixels that are `used`, and their normal matrices."""
    clip = _Clip(basis, weights, 0, 0.0, 0.0)
    alive = used.astype(float)
    normal = clip.normal(alive)
    return _solve(normal, (alive * values) @ clip.design), normal


class _Clip:
    """The iteration itself, for as many rows as stay in cache."""

    def __init__(self, basis: np.ndarray, weights: np.ndarray, n_iterate: int, lower: float, upper: float) -> None:
        self.basis, self.square = basis, weights**2
        self.weighted = (weights != 0).astype(float)
        self.n_iterate, self.lower, self.upper = n_iterate, lower, upper
        self.i, self.j = np.triu_indices(len(basis))
        # Shared by all spectra, so that their normal matrices are one matrix product.
        self.products = np.ascontiguousarray((self.square * basis[self.i] * basis[self.j]).T)
        self.design = np.ascontiguousarray((self.square * basis).T)

    def __call__(self, values: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = len(self.basis)
        kept = good.astype(float)
        active = np.arange(len(values))
        for _ in range(self.n_iterate):
            alive, data = kept[active], values[active]
            count = alive.sum(axis=1)
            enough = (count >= size) & (alive @ self.weighted >= size)
            active, alive, data, count = active[enough], alive[enough], data[enough], count[enough]
            if not active.size:
                break
            residual = data - self._solve(alive, data) @ self.basis
            held = residual * alive
            mean = held.sum(axis=1) / count
            spread = np.sqrt(np.maximum(np.einsum("ij,ij->i", held, held) / count - mean**2, 0.0))[:, None]
            survivors = alive * (residual > -self.lower * spread) * (residual < self.upper * spread)
            # Where nothing was rejected the next round would be the same: it may as well end.
            changed = survivors.sum(axis=1) < count
            kept[active] = survivors
            active = active[changed]
        coefficients = np.full((len(values), size), np.nan)
        rows = np.flatnonzero(kept @ self.weighted >= size)
        if rows.size:
            coefficients[rows] = self._solve(kept[rows], values[rows])
        return coefficients, kept > 0

    def normal(self, alive: np.ndarray) -> np.ndarray:
        size = len(self.basis)
        normal = np.empty((len(alive), size, size))
        normal[:, self.i, self.j] = normal[:, self.j, self.i] = alive @ self.products
        return normal

    def _solve(self, alive: np.ndarray, data: np.ndarray) -> np.ndarray:
        return _solve(self.normal(alive), (alive * data) @ self.design)


def _inverse(normal: np.ndarray) -> np.ndarray:
    """Invert small symmetric matrices, as far as they can be."""
    scale = np.sqrt(np.maximum(np.diagonal(normal, axis1=1, axis2=2), np.finfo(float).tiny))
    scaled = normal / (scale[:, :, None] * scale[:, None, :])
    try:
        inverse = np.linalg.inv(scaled)
    except np.linalg.LinAlgError:
        inverse = np.linalg.pinv(scaled, hermitian=True)
    return inverse / (scale[:, :, None] * scale[:, None, :])


def _solve(normal: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Solve small symmetric systems, by least squares where one is singular."""
    scale = np.sqrt(np.maximum(np.diagonal(normal, axis1=1, axis2=2), np.finfo(float).tiny))
    scaled = normal / (scale[:, :, None] * scale[:, None, :])
    try:
        return np.linalg.solve(scaled, (rhs / scale)[..., None])[..., 0] / scale
    except np.linalg.LinAlgError:
        return np.einsum("bij,bj->bi", np.linalg.pinv(scaled, hermitian=True), rhs / scale) / scale
