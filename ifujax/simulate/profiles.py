"""Line profiles of the simulators: an implementation of their own, independent of `ifujax.models`.

A test that simulates with the code it tests proves nothing, so these few functions are written again,
in NumPy and float64, from the definitions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from ifujax.errors import DataError, UsageError, unknown

SPEED_OF_LIGHT = 299792.458
"""km/s."""

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))

Profile = Literal["integrated", "sampled"]


def velocity_of(wavelength: ArrayLike, rest_wavelength: float) -> NDArray[np.float64]:
    """Return the relativistic (longitudinal Doppler) velocity of a wavelength.

    ``v = c (q - 1) / (q + 1)`` with ``q = (wavelength / rest_wavelength)**2``, in km/s; the units of the
    two wavelengths must agree.
    """
    # (q - 1)/(q + 1) with the difference taken before the squares: no cancellation near the line
    wavelength = np.asarray(wavelength, dtype=np.float64)
    return SPEED_OF_LIGHT * (wavelength - rest_wavelength) * (wavelength + rest_wavelength) / (wavelength**2 + rest_wavelength**2)


def wavelength_of(velocity: ArrayLike, rest_wavelength: float) -> NDArray[np.float64]:
    """Return the wavelength at which a line of `rest_wavelength` is seen at a `velocity` (km/s)."""
    beta = np.asarray(velocity, dtype=np.float64) / SPEED_OF_LIGHT
    return rest_wavelength * np.sqrt((1.0 + beta) / (1.0 - beta))


def pixel_edges(wavelength: ArrayLike) -> NDArray[np.float64]:
    """Return the ``(w + 1,)`` pixel edges: mid-points between centres, the two ends extrapolated.

    Raises
    ------
    DataError
        If there are fewer than two wavelengths or they don't ascend.
    """
    wavelength = np.asarray(wavelength, dtype=np.float64)
    if wavelength.ndim != 1 or wavelength.size < 2 or not np.all(np.diff(wavelength) > 0):
        raise DataError(
            f"wavelength must be a 1-D ascending array of at least 2 values; got shape {wavelength.shape}. Sort it before use."
        )
    middle = 0.5 * (wavelength[1:] + wavelength[:-1])
    return np.concatenate([[2 * wavelength[0] - middle[0]], middle, [2 * wavelength[-1] - middle[-1]]])


def lsf_sigma_velocity(lsf_fwhm: float, velocity: ArrayLike, rest_wavelength: float) -> NDArray[np.float64]:
    """Return the instrumental sigma in km/s at the wavelength where the line is seen.

    Parameters
    ----------
    lsf_fwhm : float
        Full width at half maximum of the line spread function, in the wavelength unit.
    velocity : array_like
        Velocity of the line, km/s.
    rest_wavelength : float
        Rest wavelength of the line.
    """
    beta = np.asarray(velocity, dtype=np.float64) / SPEED_OF_LIGHT
    # dv/dlambda of velocity_of, exactly: c (1 - beta^2) / lambda
    slope = SPEED_OF_LIGHT * (1.0 - beta**2) / wavelength_of(velocity, rest_wavelength)
    return lsf_fwhm / FWHM_PER_SIGMA * slope


def gaussian_line(
    wavelength: ArrayLike,
    rest_wavelength: float,
    flux: ArrayLike,
    velocity: ArrayLike,
    sigma: ArrayLike,
    profile: Profile = "integrated",
) -> NDArray[np.float64]:
    """Return the flux density of one line, Gaussian in velocity space.

    Parameters
    ----------
    wavelength : (w,) array_like
        Pixel centres, ascending.
    rest_wavelength : float
        Rest wavelength, in the same unit and frame.
    flux : (n,) or scalar array_like
        Integrated flux, in flux density times wavelength.
    velocity, sigma : (n,) or scalar array_like
        Mean velocity and *observed* dispersion (instrumental one included), km/s.
    profile : {"integrated", "sampled"}
        ``"integrated"``: mean flux density of each pixel,
        ``F [Phi((v_hi - V)/s) - Phi((v_lo - V)/s)] / (lambda_hi - lambda_lo)``, which keeps the flux exactly.
        ``"sampled"``: ``A exp(-w**2/2) / (1 + v/c)`` at the pixel centres with ``A = F c / (sqrt(2 pi) s lambda0)``
        (IFSCube's profile); its integral is F up to terms of order (V/c)**2.

    Returns
    -------
    (n, w) or (w,) ndarray
    """
    flux, velocity, sigma = np.broadcast_arrays(
        *(np.asarray(item, dtype=np.float64)[..., None] for item in (flux, velocity, sigma))
    )
    if profile == "integrated":
        edges = pixel_edges(wavelength)
        w = (velocity_of(edges, rest_wavelength) - velocity) / sigma
        low, high = w[..., :-1], w[..., 1:]
        # differences of the small tail, never of two numbers close to one
        right = low > 0
        share = ndtr(np.where(right, -low, high)) - ndtr(np.where(right, -high, low))
        return flux * share / np.diff(edges)
    if profile == "sampled":
        v = velocity_of(wavelength, rest_wavelength)
        amplitude = peak_flux_density(flux, sigma, rest_wavelength)
        return amplitude * np.exp(-0.5 * ((v - velocity) / sigma) ** 2) / (1.0 + v / SPEED_OF_LIGHT)
    raise UsageError(unknown("profile", str(profile), ["integrated", "sampled"]))


def peak_flux_density(flux: ArrayLike, sigma: ArrayLike, rest_wavelength: float) -> NDArray[np.float64]:
    """Return ``A = F c / (sqrt(2 pi) sigma lambda0)``, the peak flux density of a line at rest."""
    flux, sigma = np.asarray(flux, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    return flux * SPEED_OF_LIGHT / (np.sqrt(2.0 * np.pi) * sigma * rest_wavelength)
