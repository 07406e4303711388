"""Line profiles in velocity space, per unit flux or per unit amplitude.

A line of flux F is spread over velocity as a normal distribution: ``F N(v; V, sigma) dv``. Its mean
flux density over a pixel follows exactly from the distribution's integral at the pixel's edges.
The sampled form is the value at the pixel's centre in IFSCube's convention,
``A exp(-w^2 / 2) / (1 + v / c)`` with ``w = (v - V) / sigma``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from ifujax.models.doppler import C_KMS

_ROOT_2PI = math.sqrt(2.0 * math.pi)


def gaussian_sampled(velocity: Array, inverse_shift: Array, centre: Array, sigma: Array) -> Array:
    """Return the Gaussian of unit amplitude at pixel centres.

    Parameters
    ----------
    velocity : array (n_pix,)
        Velocity of each pixel relative to the line, km/s.
    inverse_shift : array (n_pix,)
        ``1 / (1 + velocity / c)``: keeps the flux of a shifted line to order (V / c)^2.
    centre, sigma : scalar
        km/s, `sigma` > 0.
    """
    w = (velocity - centre) / sigma
    return jnp.exp(-0.5 * w * w) * inverse_shift


def gaussian_integrated(velocity_edges: Array, inverse_width: Array, centre: Array, sigma: Array) -> Array:
    """Return the mean flux density in each pixel (per Angstrom) of a Gaussian line of unit flux.

    Parameters
    ----------
    velocity_edges : array (n_pix + 1,)
        Velocity of each pixel edge relative to the line, km/s.
    inverse_width : array (n_pix,)
        1 / pixel width, 1 / Angstrom.
    centre, sigma : scalar
        km/s, `sigma` > 0.

    Notes
    -----
    Exact for any sampling; an unresolved line puts all its flux into one pixel.
    """
    below = 0.5 * jax.lax.erf((velocity_edges - centre) / (math.sqrt(2.0) * sigma))
    return (below[1:] - below[:-1]) * inverse_width


def flux_of_amplitude(sigma: Array, rest_wavelength: Array) -> Array:
    """Return flux / amplitude = sqrt(2 pi) sigma lambda0 / c (Angstrom), with the observed sigma in km/s.

    The integral of the sampled profile to order (V / c)^2; by definition that of the integrated one.
    """
    return _ROOT_2PI * sigma * rest_wavelength / C_KMS
