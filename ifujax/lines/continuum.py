"""The rejection polynomial: a weighted polynomial with iterated sigma clipping, many spectra at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifujax.models.continuum import legendre_basis


@dataclass(frozen=True)
class RejectionFit:
    """`coefficients` (n, K) in the Legendre basis, `continuum` (n, n_pix), `kept` (n, n_pix) bool."""

    coefficients: np.ndarray
    continuum: np.ndarray
    kept: np.ndarray


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
        weights[np.abs(rest_wavelength - rest) < 3.0 * width * rest / 299792.458] = line_weight
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
    size = degree + 1
    upper_i, upper_j = np.triu_indices(size)
    products = (basis[upper_i] * basis[upper_j]).T  # (n_pix, size (size + 1) / 2): shared, so the sums are one matrix product
    square = weights**2
    kept = good.copy()
    active = np.ones(len(values), bool)
    coefficients = np.full((len(values), size), np.nan)

    def solve(rows: np.ndarray) -> np.ndarray:
        w = kept[rows] * square
        normal = np.empty((len(rows), size, size))
        sums = w @ products
        normal[:, upper_i, upper_j] = sums
        normal[:, upper_j, upper_i] = sums
        rhs = (w * values[rows]) @ basis.T
        return _solve(normal, rhs)

    for _ in range(n_iterate):
        rows = np.flatnonzero(active)
        if not rows.size:
            break
        enough = (kept[rows].sum(axis=1) > degree) & ((kept[rows] & (weights != 0)).sum(axis=1) > degree)
        active[rows[~enough]] = False
        rows = rows[enough]
        if not rows.size:
            break
        residual = values[rows] - solve(rows) @ basis
        alive = kept[rows]
        count = alive.sum(axis=1)
        mean = (residual * alive).sum(axis=1) / count
        spread = np.sqrt(((residual - mean[:, None]) ** 2 * alive).sum(axis=1) / count)[:, None]
        survivors = alive & (residual > -lower_threshold * spread) & (residual < upper_threshold * spread)
        changed = (survivors != alive).any(axis=1)
        # Where nothing was rejected the next round would be the same: it may as well end.
        active[rows[~changed]] = False
        kept[rows] = survivors
    possible = (kept & (weights != 0)).sum(axis=1) > degree
    rows = np.flatnonzero(possible)
    if rows.size:
        coefficients[rows] = solve(rows)
    return RejectionFit(coefficients, coefficients @ basis, kept)


def _solve(normal: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Solve small symmetric systems, by least squares where one is singular."""
    scale = np.sqrt(np.maximum(np.diagonal(normal, axis1=1, axis2=2), np.finfo(float).tiny))
    scaled = normal / (scale[:, :, None] * scale[:, None, :])
    try:
        return np.linalg.solve(scaled, (rhs / scale)[..., None])[..., 0] / scale
    except np.linalg.LinAlgError:
        return np.einsum("bij,bj->bi", np.linalg.pinv(scaled, hermitian=True), rhs / scale) / scale
