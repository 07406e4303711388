"""The frozen continuum beside the lines: without their pixels, wings included, and without the bias of one-sided clipping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ifujax.lines.continuum import RejectionFit, share_of, solve_polynomials
from ifujax.lines.starts.search import StartFinder
from ifujax.models.continuum import legendre_basis
from ifujax.models.doppler import velocity_of

LINE_REACH = 4.0
"""Half-width, in observed sigma as found, of what a line takes from the continuum; the search knows sigma to a quarter."""
_ROUNDS = 4
_LEAST_CERTAIN = 1.0
"""Largest variance of the polynomial under a line, that of one pixel being 1: beyond it the line's gap is too wide."""


def line_distance(
    finders: Sequence[StartFinder], rest_wavelength: np.ndarray, residual: np.ndarray, ivar: np.ndarray, n_pix: int
) -> np.ndarray:
    """Return how far each pixel (n, wave) is from the nearest line, where `finders` see it in the data, in its observed sigma.

    Parameters
    ----------
    finders : sequence of StartFinder
        Of one model or of several; all their lines count.
    rest_wavelength : array (wave,)
    residual, ivar : array (n, wave)
        Data less a first continuum; inverse variance, 0 = masked.
    n_pix : int
        Padded number of pixels that the finders were made for.
    """
    pad = [(0, 0), (0, n_pix - len(rest_wavelength))]
    residual, ivar = np.pad(residual, pad), np.pad(ivar, pad)
    nearest = np.full((len(residual), len(rest_wavelength)), np.inf)
    for finder in finders:
        found = finder.find(residual, ivar, 1, np.arange(len(residual)))
        model = finder.setup.model
        for i, rest in enumerate(np.asarray(model.rest_wavelengths)):
            velocity = velocity_of(rest_wavelength, rest)
            pixel = np.abs(np.median(np.diff(velocity))) / np.sqrt(12.0)
            instrumental = 0.0
            if model.spread is not None:
                instrumental = float(model.spread.velocity_sigma(rest * (1.0 + float(model.redshift))))
            sigma = np.sqrt(found.sigma[0, :, i] ** 2 + instrumental**2 + pixel**2)
            np.minimum(nearest, np.abs(velocity[None] - found.velocity[0, :, i, None]) / sigma[:, None], out=nearest)
    return nearest


def fit_beside(
    rest_wavelength: np.ndarray,
    window: tuple[float, float],
    values: np.ndarray,
    good: np.ndarray,
    lines: np.ndarray,
    weights: np.ndarray,
    first: RejectionFit,
    threshold: float,
) -> RejectionFit:
    """Fit polynomials again, without the lines and with the same threshold on both sides.

    Thresholds that differ clip more noise on one side than on the other, and leave the polynomial off by a tenth of the noise
    and more; wings below the upper one lift it. Both are of the order of the errors of the lines.

    Parameters
    ----------
    rest_wavelength, window, values, good, weights
        As for `fit_rejection`.
    lines : array (n, wave) bool
        Pixels of the lines.
    first : RejectionFit
        Its survivors tell the scatter, in units of which `threshold` counts.
    threshold : float

    Returns
    -------
    RejectionFit
        That of `first` for spectra whose continuum under the lines the rest doesn't tell.
    """
    degree = first.coefficients.shape[1] - 1
    basis = legendre_basis(rest_wavelength, *window, degree)
    free = good & ~lines & (weights != 0)
    survivors = free & first.kept
    count = survivors.sum(axis=1)
    coefficients = first.coefficients.copy()
    rows = np.flatnonzero((count > len(basis)) & np.isfinite(coefficients).all(axis=1))
    if not rows.size:
        return first
    data, free = values[rows], free[rows]
    left = np.where(survivors[rows], data - coefficients[rows] @ basis, 0.0)
    scatter = np.sqrt((left**2).sum(axis=1) / count[rows])[:, None]
    used, certain = survivors[rows], np.ones(len(rows), bool)
    now, normal = solve_polynomials(basis, weights, used, data)
    for _ in range(_ROUNDS):
        used = free & (np.abs(data - now @ basis) <= threshold * scatter)
        certain &= used.sum(axis=1) > len(basis)
        now, normal = solve_polynomials(basis, weights, used, data)
    variance = np.einsum("nkp,kp->np", np.linalg.pinv(normal, hermitian=True) @ basis, basis)
    certain &= np.where(lines[rows] & good[rows], variance, 0.0).max(axis=1) <= _LEAST_CERTAIN
    sound = np.asarray(certain & np.isfinite(now).all(axis=1))
    coefficients[rows[sound]] = now[sound]
    last, share = first.used.copy(), first.share.copy()
    last[rows[sound]], share[rows[sound]] = used[sound], share_of(used, free)[sound]
    return RejectionFit(coefficients, coefficients @ basis, first.kept, last, share)
