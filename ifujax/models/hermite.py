"""Gauss-Hermite line profiles: a Gaussian with skewness h3 and kurtosis h4.

``exp(-w^2 / 2) [1 + h3 H3(w) + h4 H4(w)]`` with ``w = (v - V) / sigma`` and the polynomials of
van der Marel & Franx (1993, ApJ 407, 525), ``H3 = (2 sqrt(2) w^3 - 3 sqrt(2) w) / sqrt(6)`` and
``H4 = (4 w^4 - 12 w^2 + 3) / sqrt(24)``. By the probabilists' polynomials He_n they read
``H3 = (2 He_3 + 3 He_1) / sqrt(3)`` and ``H4 = (4 He_4 + 12 He_2 + 3) / sqrt(24)``, and the integral of
``phi He_n`` is ``-phi He_(n-1)`` (Abramowitz & Stegun 22.11): pixel means are exact.
The profile is negative somewhere for most h3, h4; that is the parameterisation's nature.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

_ROOT_2PI = math.sqrt(2.0 * math.pi)
_ROOT_3 = math.sqrt(3.0)
_ROOT_24 = math.sqrt(24.0)


def hermite_sampled(
    velocity: Array, inverse_shift: Array, centre: Array, sigma: Array, h3: Array, h4: Array, *, h4_constant: float = 3.0
) -> Array:
    """Return the profile at pixel centres, per unit amplitude of its Gaussian part.

    Parameters
    ----------
    velocity : array (n_pix,)
        Velocity of each pixel relative to the line, km/s.
    inverse_shift : array (n_pix,)
        ``1 / (1 + velocity / c)``, as in `ifujax.models.profiles.gaussian_sampled`.
    centre, sigma : scalar
        km/s, `sigma` > 0.
    h3, h4 : scalar
    h4_constant : float
        Constant term of ``sqrt(24) H4``: 3. IFSCube 1.3 has -3, a sign error; it changes the Gaussian part
        by the factor ``1 - 6 h4 / sqrt(24)``.
    """
    w = (velocity - centre) / sigma
    u = w * w
    third = math.sqrt(2.0) * w * (2.0 * u - 3.0) / math.sqrt(6.0)
    fourth = ((4.0 * u - 12.0) * u + h4_constant) / _ROOT_24
    return jnp.exp(-0.5 * u) * (1.0 + h3 * third + h4 * fourth) * inverse_shift


def flux_over_gaussian(h4: Array, *, h4_constant: float = 3.0) -> Array:
    """Return the integral of the profile over that of its Gaussian part: ``1 + h4_constant h4 / sqrt(24)``.

    Times `ifujax.models.profiles.flux_of_amplitude` it turns amplitude into flux. h3 doesn't enter.
    """
    return 1.0 + h4_constant / _ROOT_24 * h4


def hermite_cumulative(velocity: Array, centre: Array, sigma: Array, h3: Array, h4: Array) -> Array:
    """Return the integral of the profile of unit flux from the centre of its Gaussian part, plus a constant.

    -1/2 far below the line and 1/2 far above it. Parameters are those of `hermite_integrated`, with any velocities.
    """
    w = (velocity - centre) / sigma
    u = w * w
    gaussian = 0.5 * jax.lax.erf(w / math.sqrt(2.0))
    third = (2.0 * u + 1.0) / _ROOT_3  # (2 He_2 + 3 He_0) / sqrt(3)
    fourth = 4.0 * w * u / _ROOT_24  # (4 He_3 + 12 He_1) / sqrt(24)
    return gaussian - jnp.exp(-0.5 * u) / _ROOT_2PI * (h3 * third + h4 * fourth) / flux_over_gaussian(h4)


def hermite_integrated(velocity_edges: Array, inverse_width: Array, centre: Array, sigma: Array, h3: Array, h4: Array) -> Array:
    """Return the mean flux density in each pixel (per Angstrom) of a line of unit flux, the whole profile's.

    Parameters
    ----------
    velocity_edges : array (n_pix + 1,)
        Velocity of each pixel edge relative to the line, km/s.
    inverse_width : array (n_pix,)
        1 / pixel width, 1 / Angstrom.
    centre, sigma : scalar
        km/s, `sigma` > 0.
    h3, h4 : scalar
        `h4` > -1.63, where the flux vanishes.

    Notes
    -----
    Exact for any sampling. A Taylor series over each pixel, as in `ifujax.models.profiles.gaussian_resolved`, costs as
    much with its derivatives and is off by 5e-5 of the peak for pixels of 1.5 sigma: there is none.
    """
    below = hermite_cumulative(velocity_edges, centre, sigma, h3, h4)
    return (below[1:] - below[:-1]) * inverse_width


def hermite_mean(centre: Array, sigma: Array, h3: Array, h4: Array) -> Array:
    """Return the flux-weighted mean velocity: the Gaussian part's, and ``sqrt(3) h3 sigma`` over the profile's flux."""
    return centre + _ROOT_3 * h3 * sigma / flux_over_gaussian(h4)
