"""The covariance of a fit under the noise and the loss that were asked for, and what errors of the PSF of HST add to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.priors import Normal
from ifujax.models.psf import SMALLEST_BETA, MoffatPSF
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.forward.noise import correlated, noisy, residual_correlation
from ifujax.photometry.forward.preparation import Prepared
from ifujax.photometry.forward.reference import HstTransform

DEGREES = LeastSquaresOptions().degrees
"""Of freedom of Student's t: what the engine takes."""
_LEAST_CURVATURE = 0.1


def robust_weights(residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights by which a fit with Student's t counts squared residuals, and the slopes of weight times residual."""
    square = residual**2
    weight = (DEGREES + 1.0) / (DEGREES + square)
    return weight, weight * (DEGREES - square) / (DEGREES + square)


def robust_chi(residual: np.ndarray) -> np.ndarray:
    """Return the residuals whose squares Student's t adds up: twice its negative logarithm."""
    return np.sqrt((DEGREES + 1.0) * np.log1p(residual**2 / DEGREES))


def covariance_under(
    covariance: np.ndarray,
    columns: np.ndarray,
    names: Sequence[str],
    residual: np.ndarray,
    prepared: Prepared,
    options: PhotometryOptions,
    n_free: int,
) -> np.ndarray:
    """Return the covariance of parameters under the noise and the loss of the options.

    Parameters
    ----------
    covariance : (n, n) array
        The engine's: of independent noise with the variances at hand; NaN for what the data do not constrain.
    columns : (n, y, x) array
        Slopes of the model by each parameter over the errors; 0 where a pixel does not count.
    names : (n,) sequence of str
    residual : (y, x) array
        Divided by their errors.
    prepared : Prepared
    options : PhotometryOptions
    n_free : int
    """
    used = prepared.ivar > 0
    if options.loss == "student_t":
        return _robust(covariance, columns, names, residual, used, prepared.noise_share, options)
    if options.noise == "correlated":
        return correlated(covariance, columns, residual, used) if len(columns) else covariance
    if options.noise == "scaled" or prepared.noise_estimated:
        reduced = float(np.sum(residual**2)) / prepared.noise_share / max(int(used.sum()) - n_free, 1)
        return covariance * reduced
    return covariance


def _robust(
    covariance: np.ndarray,
    columns: np.ndarray,
    names: Sequence[str],
    residual: np.ndarray,
    used: np.ndarray,
    share: float,
    options: PhotometryOptions,
) -> np.ndarray:
    """Return the covariance of an M-estimate, ``A^-1 B A^-1`` (Huber & Ronchetti 2009, Robust Statistics, chapter 7).

    A is the curvature: that with the weights of each pixel, by which the engine goes, times the ratio of the mean slopes of
    weighted residuals to the mean weight. B is the variance of the gradient, from the mean square of weighted residuals, or from
    their correlations too. Both from the residuals: outliers and wrong variances are in them.
    """
    felt = np.isfinite(np.diag(covariance))
    if not felt.any():
        return covariance
    columns = columns[felt]
    weight, slope = (np.where(used, each, 0.0) for each in robust_weights(residual))
    count = max(int(used.sum()), 1)
    kept = max(float(slope.sum()) / float(weight.sum()), _LEAST_CURVATURE)
    weighted = weight * residual
    prior = np.zeros(len(names))
    if isinstance(options.beta_prior, Normal) and "beta" in names:
        prior[list(names).index("beta")] = float(options.beta_prior.sigma) ** -2
    prior = np.diag(prior[felt])
    flat = columns.reshape(len(columns), -1)
    curvature = kept * (flat * weight.ravel()) @ flat.T + prior
    if options.noise == "correlated":
        spread = noisy(columns, residual_correlation(weighted, used))
        gradient = np.einsum("iyx,jyx->ij", columns, spread)
    else:
        gradient = float(np.sum(weighted**2)) / share / count * flat @ flat.T
    size = np.sqrt(np.diag(curvature))
    inverse = np.linalg.inv(curvature / np.outer(size, size)) / np.outer(size, size)
    found = np.full_like(covariance, np.nan)
    found[np.ix_(felt, felt)] = inverse @ (0.5 * (gradient + gradient.T) + prior) @ inverse
    return found


def psf_response(
    covariance: np.ndarray,
    columns: np.ndarray,
    residual: np.ndarray,
    prepared: Prepared,
    options: PhotometryOptions,
    changed: Callable[[HstTransform], np.ndarray],
) -> np.ndarray:
    """Return by how much parameters move when FWHM and exponent of the PSF of HST are one error larger, (n, 2).

    To first order, ``-C J^T W dm`` with the engine's covariance C and the change dm of the model.

    Parameters
    ----------
    covariance, columns, residual, prepared, options
        As for `covariance_under`.
    changed : callable
        Returns the model (y, x) with another transform of HST, all parameters as they are.
    """
    psf, error = options.hst_psf, options.hst_psf_error
    moves = np.zeros((len(covariance), 2))
    if error is None or not isinstance(psf, MoffatPSF):
        return moves
    felt = np.isfinite(np.diag(covariance))
    weight = robust_weights(residual)[0] if options.loss == "student_t" else 1.0
    for k, pair in enumerate(psf_steps(psf, error)):
        if pair is None:
            continue
        (low, high), size = pair
        images = [changed(prepared.transform.with_psf(psf, each)) for each in (low, high)]
        change = (images[1] - images[0]) * np.sqrt(prepared.ivar) * weight * size
        pull = columns[felt].reshape(int(felt.sum()), -1) @ change.ravel()
        moves[felt, k] = -covariance[np.ix_(felt, felt)] @ pull
    return moves


def psf_steps(psf: MoffatPSF, error: tuple[float, ...]) -> list[tuple[tuple[MoffatPSF, MoffatPSF], float] | None]:
    """Return two PSFs about `psf` for FWHM and for exponent, and what their difference is multiplied by to be one error."""
    steps: list[tuple[tuple[MoffatPSF, MoffatPSF], float] | None] = []
    rooms = {"fwhm": 0.3 * float(psf.fwhm), "beta": 0.5 * (float(psf.beta) - SMALLEST_BETA)}
    for (name, room), size in zip(rooms.items(), error):
        step = min(size, room)
        value = float(getattr(psf, name))
        pair = replace(psf, **{name: value - step}), replace(psf, **{name: value + step})
        steps.append((pair, 0.5 * size / step) if step > 0 else None)
    return steps


def psf_covariance(moves: np.ndarray, error: tuple[float, ...]) -> np.ndarray:
    """Return what errors of the PSF of HST add to the covariance, from how parameters move (n, 2)."""
    tied = error[2] if len(error) == 3 else 0.0
    return moves @ np.array([[1.0, tied], [tied, 1.0]]) @ moves.T
