"""AutoSpec's spectra of one source: sums, apertures, weighted and cross-correlated spectra, in terms of matrix products.

Formulas: Griffiths & Conselice 2018 (arXiv:1807.05922) for the cross-correlation; Horne 1986 (PASP 98, 609) for the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SourceSpectrum:
    """Flux density of a source at every wavelength.

    Parameters
    ----------
    values : (wave,) array
        NaN where there is none.
    variance : (wave,) array or None
        None without a variance of the cube.
    """

    values: np.ndarray
    variance: np.ndarray | None


@dataclass(frozen=True)
class Voxels:
    """The voxels of a stamp as matrices: wavelengths by pixels.

    Parameters
    ----------
    values : (wave, pixel) array
        0 where bad.
    variance : (wave, pixel) array or None
        0 where bad.
    good : (wave, pixel) bool array
    """

    values: np.ndarray
    variance: np.ndarray | None
    good: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, variance: np.ndarray | None, bad: np.ndarray) -> Voxels:
        """Return those of a stamp ``(wave, y, x)``; bad voxels may hold anything."""
        good = ~bad.reshape(bad.shape[0], -1)
        flat = np.where(good, values.reshape(good.shape), 0.0)
        return cls(flat, None if variance is None else np.where(good, variance.reshape(good.shape), 0.0), good)

    def within(self, mask: np.ndarray) -> Voxels:
        """Return the voxels of the pixels where `mask` ``(y, x)`` is true."""
        keep = np.flatnonzero(mask)
        return Voxels(self.values[:, keep], None if self.variance is None else self.variance[:, keep], self.good[:, keep])

    def less(self, sky: SourceSpectrum) -> Voxels:
        """Return the voxels with a sky spectrum subtracted, and its variance added to every voxel."""
        values = np.where(self.good, self.values - sky.values[:, None], 0.0)
        if self.variance is None or sky.variance is None:
            return Voxels(values, self.variance, self.good)
        return Voxels(values, np.where(self.good, self.variance + sky.variance[:, None], 0.0), self.good)


def mean_spectrum(voxels: Voxels, mask: np.ndarray) -> SourceSpectrum:
    """Return the mean over the pixels of `mask` ``(y, x)``; NaN where none is good. Of sky pixels: the sky."""
    # Products with the mask read the arrays once, where gathering its pixels would copy them
    weight = mask.ravel().astype(float)
    number = voxels.good.astype(np.float32) @ weight.astype(np.float32)
    number = np.where(number > 0, number, np.nan).astype(float)
    variance = None if voxels.variance is None else (voxels.variance @ weight) / number**2
    return SourceSpectrum((voxels.values @ weight) / number, variance)


def sum_spectrum(voxels: Voxels) -> SourceSpectrum:
    """Return the sum over pixels; bad voxels add nothing, and no correction is made for them."""
    return SourceSpectrum(voxels.values.sum(axis=1), None if voxels.variance is None else voxels.variance.sum(axis=1))


def weighted_spectra(voxels: Voxels, profiles: np.ndarray) -> list[SourceSpectrum]:
    """Return the spectrum of each profile by Horne's formula, with a profile that does not depend on wavelength.

    The flux is ``sum(P d / v) / sum(P**2 / v)`` with the variance ``1 / sum(P**2 / v)``: unbiased if the profile ``P`` is
    that of the source.

    Parameters
    ----------
    voxels
        Of the pixels of the profiles, sky subtracted.
    profiles : (profile, pixel) array
        Each of sum 1.

    Notes
    -----
    Without a variance all voxels weigh the same, and the spectra have none.
    """
    weight = voxels.good.astype(float)
    if voxels.variance is not None:
        np.divide(weight, voxels.variance, out=weight, where=voxels.variance > 0)
    information = weight @ (profiles**2).T
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (weight * voxels.values) @ profiles.T / information
        variance = None if voxels.variance is None else 1.0 / information
    values[information == 0] = np.nan
    return [SourceSpectrum(values[:, k], None if variance is None else variance[:, k]) for k in range(len(profiles))]


def image_profile(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image as a profile on the pixels of `mask` ``(y, x)``, shape (pixel,): its minimum there taken off, of sum 1.

    Pixels of the image that are not finite weigh nothing. The minimum makes the profile too peaked, and the flux is not
    that of the source (AutoSpec's definition; `ifujax.extraction.scene` measures fluxes).
    """
    inside = image[mask]
    finite = np.isfinite(inside)
    if not finite.any():
        return np.zeros(inside.size)
    profile = np.where(finite, inside - inside[finite].min(), 0.0)
    total = profile.sum()
    return profile / total if total > 0 else np.zeros(inside.size)


def polynomial_basis(n_wave: int, degree: int) -> np.ndarray:
    """Return orthonormal polynomials of the channel number up to `degree`, shape (wave, degree + 1)."""
    return np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1.0, 1.0, n_wave), degree))[0]


def continuum_of_reference(spectrum: SourceSpectrum, wavelength: np.ndarray, degree: int) -> np.ndarray:
    """Return the polynomial of `degree` in wavelength that fits a spectrum best, weighted by ``1 / variance``, shape (wave,)."""
    x = 2.0 * (wavelength - wavelength[0]) / (wavelength[-1] - wavelength[0]) - 1.0
    basis = np.polynomial.legendre.legvander(x, degree)
    use = np.isfinite(spectrum.values)
    weight = np.ones_like(x)
    if spectrum.variance is not None:
        use &= np.isfinite(spectrum.variance) & (spectrum.variance > 0)
        weight = np.zeros_like(x)
        weight[use] = spectrum.variance[use] ** -0.5
    coefficients = np.linalg.lstsq(basis[use] * weight[use, None], spectrum.values[use] * weight[use], rcond=None)[0]
    return basis @ coefficients


def correlation_map(voxels: Voxels, reference: np.ndarray, basis: np.ndarray | None = None) -> np.ndarray:
    """Return the sum over wavelength of the reference times each pixel's spectrum, shape (pixel,).

    With `basis` (orthonormal, wave by polynomial) each pixel's own polynomial is subtracted first, in which bad voxels count as
    0. The residual of a projection is symmetric: it is the reference that is projected, and no cube of residuals is made.
    """
    reference = np.where(np.isfinite(reference), reference, 0.0)
    if basis is None:
        return reference @ voxels.values
    total = (reference - basis @ (basis.T @ reference)) @ voxels.values
    # Bad voxels have no residual: what the polynomials leave there is put back.
    holes = np.flatnonzero(~voxels.good.all(axis=0) & voxels.good.any(axis=0))
    if holes.size:
        continua = basis @ (basis.T @ voxels.values[:, holes])
        total[holes] += reference @ np.where(voxels.good[:, holes], 0.0, continua)
    return total


def continuum_residuals(voxels: Voxels, basis: np.ndarray) -> np.ndarray:
    """Return the voxels without each pixel's polynomial, (wave, pixel); NaN where bad."""
    residuals = voxels.values - basis @ (basis.T @ voxels.values)
    return np.where(voxels.good, residuals, np.nan)
