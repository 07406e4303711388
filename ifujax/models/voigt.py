"""Lorentzian and Voigt line profiles in velocity space.

The Voigt profile is a normal distribution of standard deviation sigma (km/s) convolved with a Lorentzian
of full width at half maximum `fwhm`. It is ``Re w(x + i y) / (sqrt(2 pi) sigma)`` with the Faddeeva function w,
``x = (v - V) / (sqrt(2) sigma)`` and ``y = fwhm / (2 sqrt(2) sigma)``.

Here it is worked out as what it is, an integral of Lorentzians with normal weights, by the trapezoidal rule
with the correction for the Lorentzian's pole (Matta & Reichel 1971, Math. Comp. 25, 339), on
the one of two interleaved grids whose nodes keep away from x (Al Azah & Chandler-Wilde 2021, SIAM J. Numer.
Anal. 59, 2346). Every term of the sum is positive, so that value and derivatives are precise relative to
themselves in the far wings too, in float32 as well, where rational approximations of w are not; nothing is divided
by sigma but the correction, which vanishes as the profile becomes Lorentzian.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero

from ifujax.models.doppler import C_KMS
from ifujax.models.profiles import gaussian_integrated

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
_ROOT_2, _ROOT_2PI = math.sqrt(2.0), math.sqrt(2.0 * math.pi)

_LAST = 8
_STEP = math.sqrt(math.pi / (_LAST + 1))
"""Step of the trapezoidal rule in x: aliasing and truncation at node `_LAST` are then both about exp(-pi (_LAST + 1))."""

_RULE = 0.5 * np.stack(np.polynomial.legendre.leggauss(4), axis=1)
"""Points and weights of the Gauss-Legendre rule over a pixel, in pixels from its middle."""
_ANGLES = np.polynomial.legendre.leggauss(24)


def lorentzian_sampled(velocity: Array, inverse_shift: Array, centre: Array, fwhm: Array) -> Array:
    """Return the Lorentzian of unit amplitude at pixel centres.

    Parameters
    ----------
    velocity : array (n_pix,)
        Velocity of each pixel relative to the line, km/s.
    inverse_shift : array (n_pix,)
        ``1 / (1 + velocity / c)``, as in `ifujax.models.profiles.gaussian_sampled`.
    centre, fwhm : scalar
        km/s, `fwhm` > 0.
    """
    x = 2.0 * (velocity - centre) / fwhm
    return inverse_shift / (1.0 + x * x)


def lorentzian_flux_of_amplitude(fwhm: Array, rest_wavelength: Array | float) -> Array:
    """Return flux / amplitude = pi fwhm lambda0 / (2 c) (Angstrom) of a Lorentzian, wings to infinity included."""
    return 0.5 * math.pi * fwhm * rest_wavelength / C_KMS


def _lorentzian_shares(velocity_edges: Array, centre: Array, fwhm: Array) -> Array:
    """Return the share of a Lorentzian's flux that falls between the edges, (n_pix,).

    By the angle between the edges as seen from the pole: the difference of two arctangents, without
    its cancellation in the wings. All of the flux is in one pixel for a width of zero.
    """
    half, offset = 0.5 * fwhm, velocity_edges - centre
    below, above = offset[:-1], offset[1:]
    return jnp.arctan2(half * (velocity_edges[1:] - velocity_edges[:-1]), half * half + below * above) / math.pi


def lorentzian_integrated(velocity_edges: Array, inverse_width: Array, centre: Array, fwhm: Array) -> Array:
    """Return the mean flux density in each pixel (per Angstrom) of a Lorentzian line of unit flux.

    Parameters
    ----------
    velocity_edges : array (n_pix + 1,)
        Velocity of each pixel edge relative to the line, km/s, ascending.
    inverse_width : array (n_pix,)
        1 / pixel width, 1 / Angstrom.
    centre, fwhm : scalar
        km/s, `fwhm` > 0.

    Notes
    -----
    Exact for any sampling. A window of ten times the fwhm on either side misses 3 % of the flux.
    """
    return _lorentzian_shares(velocity_edges, centre, fwhm) * inverse_width


def _cos_sin(turns: Array) -> tuple[Array, Array]:
    """Return cosine and sine of 2 pi `turns`, to 1e-12: their power series at half the angle.

    XLA's own make up four fifths of the Voigt profile's cost.
    """
    half = math.pi * (turns - jnp.round(turns))
    square = half * half
    cosine, sine = jnp.full_like(square, 1.0 / math.factorial(16)), jnp.full_like(square, 1.0 / math.factorial(17))
    for n in range(14, -1, -2):
        flip = (-1.0) ** (n // 2)
        cosine, sine = cosine * square + flip / math.factorial(n), sine * square + flip / math.factorial(n + 1)
    sine = sine * half
    return 1.0 - 2.0 * sine * sine, 2.0 * sine * cosine


@partial(jax.jit, static_argnames=("step", "which"))
def _voigt_slope(offset: Array, sigma: Array, fwhm: Array, *, step: float, which: int) -> Array:
    """Return the Voigt profile (0) or its derivative by `offset` (1), `sigma` (2) or `fwhm` (3); `step` is the rule's.

    Compiled into whatever calls it, but traced once.
    """
    half, scale = 0.5 * fwhm, _ROOT_2 * sigma
    # Beyond this the pole lies too far from the axis to matter, and x, y may be infinite.
    narrow = half * step < math.pi * scale
    scale_c, sigma_c = jnp.where(narrow, scale, 1.0), jnp.where(narrow, sigma, 1.0)
    x, y = offset / scale_c, jnp.where(narrow, half, 0.0) / scale_c
    cos_p, sin_p = _cos_sin(x / step)
    cos_t, sin_t = _cos_sin(x * y / math.pi)  # of 2 x y
    # Nodes (j + 1/2) h or j h, whichever keep away from x; the node 0 of the latter counts once.
    between = narrow & (cos_p >= 0)

    def term(node: Array, weight: Array) -> Array:
        """Of the Lorentzians at +-node, or its derivative, without the factor `half`."""
        left, right = offset - scale * node, offset + scale * node
        a, b = 1.0 / (left * left + half * half), 1.0 / (right * right + half * half)
        if which == 0:
            return weight * (a + b)
        aa, bb = a * a, b * b
        if which == 1:
            return weight * (left * aa + right * bb)
        if which == 2:
            return weight * node * (left * aa - right * bb)
        return weight * ((a + b) - 2.0 * half * half * (aa + bb))

    near = jnp.where(between, 0.0, 1.0 / (offset * offset + half * half + jnp.where(between, 1.0, 0.0)))
    total = (near, offset * near * near, jnp.zeros_like(near), near - 2.0 * half * half * near * near)[which]
    for j in range(_LAST + 1):
        half_way, whole = (j + 0.5) * step, (j + 1.0) * step
        weight = jnp.where(between, math.exp(-(half_way**2)), math.exp(-(whole**2)))
        total = total + term(jnp.where(between, half_way, whole), weight)
    unit = step / math.pi**1.5
    # Twice the residue at the pole: +-2 e^(-z^2) E / (1 +- E) with E = e^(2 pi i z / h), - on the nodes j h.
    sign, fade = jnp.where(between, 1.0, -1.0), jnp.exp(-2.0 * math.pi / step * y)
    size = 1.0 + fade * (2.0 * jnp.abs(cos_p) + fade)  # |1 +- E|^2
    height = 2.0 * sign * jnp.exp((y - x) * (y + x)) * fade / (size * _ROOT_2PI * sigma_c)
    height = jnp.where(narrow, height, 0.0)
    inner = cos_p + sign * fade
    real, imaginary = height * (cos_t * inner + sin_t * sin_p), height * (cos_t * sin_p - sin_t * inner)
    # Its derivative by z is itself times -2 z + (2 pi i / h) / (1 +- E).
    turn = 2.0 * math.pi / step / size
    by_real = -2.0 * x + turn * sign * fade * sin_p
    by_imaginary = -2.0 * y + turn * (1.0 + sign * fade * cos_p)
    slope_real = (real * by_real - imaginary * by_imaginary) / scale_c
    slope_imaginary = (real * by_imaginary + imaginary * by_real) / scale_c
    if which == 0:
        return unit * half * total + real
    if which == 1:
        return -2.0 * unit * half * total + slope_real
    if which == 2:
        return 2.0 * _ROOT_2 * unit * half * total - (real + offset * slope_real - half * slope_imaginary) / sigma_c
    return 0.5 * (unit * total - slope_imaginary)


@jax.custom_jvp
def voigt_density(offset: Array, sigma: Array, fwhm: Array) -> Array:
    """Return the Voigt profile of unit integral over velocity, 1 / (km/s).

    Parameters
    ----------
    offset : array
        Velocity from the line's centre, km/s.
    sigma, fwhm : scalar
        Of the normal and the Lorentzian part, km/s, 0 or more, not both 0.

    Notes
    -----
    Within 1e-11 of the exact value, relative to itself, for any offset, sigma and fwhm (float64; 1e-5 in float32).
    The derivatives are written out: each costs as much as the value, and is as precise.
    """
    return _voigt_slope(offset, sigma, fwhm, step=_STEP, which=0)


def _voigt_jvp(primals: tuple[Array, Array, Array], tangents: tuple[Any, Any, Any]) -> tuple[Array, Any]:
    """Return value and tangent; inputs that don't vary cost nothing.

    Each derivative has a step of its own, of equal precision: XLA finds no terms to share, for which it would keep dozens of
    intermediate arrays in memory, and makes each one loop over the pixels: a third of the time.
    """
    total = None
    for k, tangent in enumerate(tangents):
        if not isinstance(tangent, SymbolicZero):
            part = _voigt_slope(*primals, step=_STEP * (1.0 + 0.002 * (k + 1)), which=k + 1) * tangent
            total = part if total is None else total + part
    value = voigt_density(*primals)
    return value, jnp.zeros_like(value) if total is None else total


voigt_density.defjvp(_voigt_jvp, symbolic_zeros=True)


def voigt_sampled(velocity: Array, inverse_shift: Array, centre: Array, sigma: Array, lorentz_fwhm: Array) -> Array:
    """Return the Voigt profile at pixel centres, per unit flux, in 1 / (km/s).

    Times ``c / lambda0`` it is the flux density per Angstrom of a line of unit flux, to order (V / c)^2.

    Parameters
    ----------
    velocity : array (n_pix,)
        Velocity of each pixel relative to the line, km/s.
    inverse_shift : array (n_pix,)
        ``1 / (1 + velocity / c)``, as in `ifujax.models.profiles.gaussian_sampled`.
    centre, sigma, lorentz_fwhm : scalar
        km/s; `sigma` > 0 of the normal part, `lorentz_fwhm` >= 0 of the Lorentzian part.
    """
    return voigt_density(velocity - centre, sigma, lorentz_fwhm) * inverse_shift


def voigt_flux_of_amplitude(sigma: Array, lorentz_fwhm: Array, rest_wavelength: Array | float) -> Array:
    """Return flux / amplitude (Angstrom) of a Voigt profile: the amplitude is its peak."""
    return rest_wavelength / (C_KMS * voigt_density(jnp.zeros_like(sigma), sigma, lorentz_fwhm))


def pseudo_voigt(sigma: Array, lorentz_fwhm: Array) -> tuple[Array, Array]:
    """Return width and Lorentzian share of the pseudo-Voigt profile: Gaussian plus Lorentzian of one FWHM.

    Thompson, Cox & Hastings (1987, J. Appl. Cryst. 20, 79). Exact for either width 0; else within 1.3 % of the
    Voigt profile's peak.
    """
    # In units of the sum of the widths, whose fifth power float32 can hold.
    gaussian = FWHM_PER_SIGMA * sigma
    size = gaussian + lorentz_fwhm
    g, l = gaussian / size, lorentz_fwhm / size  # noqa: E741
    fifth = g**5 + l * (2.69269 * g**4 + l * (2.42843 * g**3 + l * (4.47163 * g**2 + l * (0.07842 * g + l))))
    fwhm = fifth**0.2
    ratio = l / fwhm
    return size * fwhm, ratio * (1.36603 + ratio * (-0.47719 + ratio * 0.11116))


@jax.jit
def voigt_integrated(velocity_edges: Array, inverse_width: Array, centre: Array, sigma: Array, lorentz_fwhm: Array) -> Array:
    """Return the mean flux density in each pixel (per Angstrom) of a Voigt line of unit flux.

    Parameters
    ----------
    velocity_edges : array (n_pix + 1,)
        Velocity of each pixel edge relative to the line, km/s, ascending.
    inverse_width : array (n_pix,)
        1 / pixel width, 1 / Angstrom.
    centre, sigma, lorentz_fwhm : scalar
        km/s; `sigma` > 0 of the normal part, `lorentz_fwhm` >= 0 of the Lorentzian part.

    Notes
    -----
    The integral has no closed form. That of the pseudo-Voigt profile is exact; the small difference is integrated by
    four Gauss-Legendre points a pixel. Off by at most 1e-5 of the peak for pixels of half the
    profile's FWHM, 2e-4 for 0.75, 8e-4 for one, and 2 % for any width; exact in the limits of a Gaussian or a Lorentzian.
    """
    step, middle = velocity_edges[1:] - velocity_edges[:-1], 0.5 * (velocity_edges[1:] + velocity_edges[:-1]) - centre
    fwhm, share = pseudo_voigt(sigma, lorentz_fwhm)
    width = fwhm / FWHM_PER_SIGMA
    normal = gaussian_integrated(velocity_edges, jnp.ones_like(inverse_width), centre, width)
    exact = share * _lorentzian_shares(velocity_edges, centre, fwhm) + (1.0 - share) * normal

    def add(mean: Array, rule: Array) -> tuple[Array, None]:
        offset = middle + rule[0] * step
        w, x = offset / width, 2.0 * offset / fwhm
        pseudo = share * 2.0 / (math.pi * fwhm * (1.0 + x * x)) + (1.0 - share) * jnp.exp(-0.5 * w * w) / (_ROOT_2PI * width)
        return mean + rule[1] * (voigt_density(offset, sigma, lorentz_fwhm) - pseudo), None

    # A loop, point by point: over one more axis XLA would keep intermediate arrays in memory, at four times the cost,
    # and four copies take as long to compile.
    mean, _ = jax.lax.scan(add, jnp.zeros_like(step), jnp.asarray(_RULE, step.dtype))
    return (exact + step * mean) * inverse_width


def lorentzian_cumulative(velocity: Array, centre: Array, fwhm: Array) -> Array:
    """Return the integral of the Lorentzian of unit flux from its centre to any velocities: -1/2 to 1/2."""
    return jnp.arctan(2.0 * (velocity - centre) / fwhm) / math.pi


def voigt_cumulative(velocity: Array, centre: Array, sigma: Array, lorentz_fwhm: Array) -> Array:
    """Return the integral of the Voigt profile of unit flux from its centre to velocities (k,): -1/2 to 1/2.

    By 24 Gauss-Legendre points in the angle that makes a Lorentzian constant: within 2e-7.
    """
    offset = velocity - centre
    half = 0.5 * pseudo_voigt(sigma, lorentz_fwhm)[0]
    angle = jnp.arctan(offset / half)[:, None]
    points, weights = (jnp.asarray(0.5 * rule, offset.dtype)[None, :] for rule in _ANGLES)
    at = angle * (points + 0.5)
    slope = half / jnp.cos(at) ** 2
    return jnp.sum(angle * weights * slope * voigt_density(half * jnp.tan(at), sigma, lorentz_fwhm), axis=1)
