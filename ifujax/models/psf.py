"""Point-spread functions: the Moffat profile and its Fourier transform, elliptical or round.

`fwhm` is the geometric mean of the widths along the two axes, `ellipticity` 1 - b/a, and `angle` that of the major axis in
degrees, counter-clockwise from +x to +y. A profile is the effective one: what pixels of the image at hand sample, the
pixel's own width included, unless `pixel` says that it must still be averaged over a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

SMALLEST_BETA = 1.01
"""A Moffat profile of beta <= 1 has no finite flux."""
_STEP = 0.25
"""Largest step of the trapezoidal rule in the logarithm of the mixing variable: its error falls as exp(-pi^2 / step)."""
_NARROW = 0.4
"""Largest step in units of the integrand's width, where that is narrow: large `beta` or high frequencies."""
_NODES = np.arange(-168, 33)
_ALIASES = 2
"""On either side: pixels as wide as the FWHM have 2e-2 in each of the first, and 4e-6 in the third."""
_FINE = 0.7
"""Pixels over FWHM up to which one on either side will do: 1e-5 is left out."""
_ZERO = 1e-16
"""Square of a frequency (cycles per arcsec) that is 0 but for rounding."""
_MANY = 1000
"""Frequencies from which on a smooth function of their logarithm is interpolated, to 1e-12."""


def moffat_alpha(fwhm: Any, beta: Any) -> Any:
    """Return the scale radius ``alpha = fwhm / (2 sqrt(2^(1/beta) - 1))``, in the unit of `fwhm`."""
    return fwhm / (2.0 * jnp.sqrt(2.0 ** (1.0 / beta) - 1.0))


def moffat(x: Any, y: Any, fwhm: Any, beta: Any, e1: Any = 0.0, e2: Any = 0.0) -> Array:
    """Return the Moffat profile of unit flux, per unit area.

    ``(beta - 1) / (pi alpha^2) (1 + r^2 / alpha^2)^-beta`` (Moffat 1969, A&A 3, 455).

    Parameters
    ----------
    x, y : array
        Offsets from the centre, in the unit of `fwhm`.
    fwhm : float
    beta : float
        Above 1.
    e1, e2 : float
        ``e cos 2 angle`` and ``e sin 2 angle``, with e of `stretch`.
    """
    alpha = moffat_alpha(fwhm, beta)
    xx, xy, yy = stretch(e1, e2)
    r2 = xx * x * x + 2.0 * xy * x * y + yy * y * y
    return (beta - 1.0) / (jnp.pi * alpha**2) * (1.0 + r2 / alpha**2) ** -beta


def stretch(e1: Any, e2: Any) -> tuple[Any, Any, Any]:
    """Return the elements xx, xy, yy of the matrix of determinant 1 that makes an ellipse's radius from x and y.

    ``e = (a^2 - b^2) / (a^2 + b^2)`` of the half-axes, split into ``e cos 2 angle`` and ``e sin 2 angle``: smooth where the
    ellipse is round. The Fourier transform stretches by the inverse matrix: the same with both signs changed.
    """
    root = jnp.sqrt(1.0 - e1 * e1 - e2 * e2)
    return (1.0 - e1) / root, -e2 / root, (1.0 + e1) / root


def ellipse_components(ellipticity: Any, angle: Any) -> tuple[Any, Any]:
    """Return `e1` and `e2` from ``ellipticity = 1 - b/a`` and the angle of the major axis in degrees."""
    ratio = (1.0 - ellipticity) ** 2
    e = (1.0 - ratio) / (1.0 + ratio)
    twice = jnp.deg2rad(2.0 * jnp.asarray(angle))
    return e * jnp.cos(twice), e * jnp.sin(twice)


def ellipse_of(e1: Any, e2: Any) -> tuple[Any, Any]:
    """Return ``ellipticity = 1 - b/a`` and the angle of the major axis, in degrees from 0 to 180."""
    e = jnp.sqrt(e1 * e1 + e2 * e2)
    return 1.0 - jnp.sqrt((1.0 - e) / (1.0 + e)), jnp.rad2deg(0.5 * jnp.arctan2(e2, e1)) % 180.0


def log_moffat_mtf(log_z: Array, beta: Any) -> Array:
    """Return the logarithm of the Fourier transform of a round Moffat profile of unit flux.

    ``2 z^nu K_nu(2 z) / Gamma(nu)`` with ``z = pi alpha k``, ``nu = beta - 1`` and K the modified Bessel function (Trujillo et
    al. 2001, MNRAS 328, 977). It is worked out as the profile's mixture of Gaussians, ``integral of t^(nu - 1) exp(-t - z^2 /
    t) dt / Gamma(nu)``, by the trapezoidal rule in log t, which can be differentiated by both arguments.

    Parameters
    ----------
    log_z : array
        Natural logarithm of z; from -20 up.
    beta : float
        Above 1.
    """
    nu = beta - 1.0
    z2 = jnp.exp(2.0 * log_z)
    # The nodes lie about the integrand's peak and follow its width; where they lie has no influence on the integral or its slopes
    root = jnp.sqrt(nu * nu + 4.0 * z2)
    peak = lax.stop_gradient(jnp.log(0.5 * (nu + root)))
    step = lax.stop_gradient(jnp.minimum(_STEP, _NARROW / jnp.sqrt(root)))
    t = peak[..., None] + step[..., None] * _NODES.reshape((1,) * peak.ndim + (-1,))
    exponent = nu * t - jnp.exp(t) - z2[..., None] * jnp.exp(-t)
    return jax.scipy.special.logsumexp(exponent, axis=-1) + jnp.log(step) - jax.scipy.special.gammaln(nu)


@dataclass(frozen=True)
class RadialGrid:
    """A Chebyshev interpolation of smooth functions of log k over a range of frequencies: few nodes stand for a whole image.

    Parameters
    ----------
    low, high : float
        Natural logarithms of the smallest and largest frequency.
    degree : int
    """

    low: float
    high: float
    degree: int = 18

    @property
    def nodes(self) -> np.ndarray:
        """(degree + 1,) values of log k."""
        n = self.degree + 1
        return self.middle + self.half * np.cos(np.pi * (np.arange(n) + 0.5) / n)

    @property
    def middle(self) -> float:
        return 0.5 * (self.high + self.low)

    @property
    def half(self) -> float:
        return 0.5 * (self.high - self.low)

    def coefficients(self, values: Array) -> Array:
        """Return the Chebyshev coefficients (degree + 1,) of a function of which `values` are those at the nodes."""
        n = self.degree + 1
        angles = np.pi * (np.arange(n) + 0.5) / n
        matrix = np.cos(np.arange(n)[:, None] * angles[None, :]) * 2.0 / n
        matrix[0] *= 0.5
        return jnp.asarray(matrix, values.dtype) @ values

    def twice_argument(self, log_k: Any) -> Any:
        """Return twice the argument of the Chebyshev polynomials, -2 to 2, at which log k is `log_k`."""
        return (log_k - self.middle) * (2.0 / self.half)

    def evaluate(self, coefficients: Array, twice: Array) -> Array:
        """Return the function at `twice_argument`, by Clenshaw's recurrence."""
        after = jnp.zeros_like(twice)
        now = jnp.zeros_like(twice) + coefficients[-1]
        for k in range(self.degree - 1, 0, -1):
            now, after = twice * now - after + coefficients[k], now
        return twice * (0.5 * now) - after + coefficients[0]


@partial(jax.tree_util.register_dataclass, data_fields=["fwhm", "beta", "ellipticity", "angle"], meta_fields=["pixel", "sampled"])
@dataclass(frozen=True)
class MoffatPSF:
    """A Moffat point-spread function.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum, arcsec.
    beta : float
        Exponent, above 1.
    ellipticity : float
        1 - b/a.
    angle : float
        Of the major axis, degrees counter-clockwise from +x.
    pixel : float
        Width in arcsec of the pixel that the profile must still be averaged over; 0 where `fwhm` is that of what pixels sample.
    sampled : float
        Distance in arcsec of the points at which an image holds the profile, one of them at its centre: `mtf` is then that of the
        image, aliases included, in which the pixels of a star don't add up to its flux where they undersample it. 0: that of the
        profile itself.
    """

    fwhm: Any
    beta: Any
    ellipticity: Any = 0.0
    angle: Any = 0.0
    pixel: float = 0.0
    sampled: float = 0.0

    def __call__(self, x: Any, y: Any) -> Array:
        """Return the profile of unit flux per square arcsec at offsets in arcsec, averaged over `pixel`."""
        e1, e2 = ellipse_components(self.ellipticity, self.angle)
        if not self.pixel:
            return moffat(x, y, self.fwhm, self.beta, e1, e2)
        nodes, weights = np.polynomial.legendre.leggauss(8)
        total: Any = 0.0
        for dx, wx in zip(nodes, weights):
            for dy, wy in zip(nodes, weights):
                shift = 0.5 * self.pixel
                total = total + 0.25 * wx * wy * moffat(x + shift * dx, y + shift * dy, self.fwhm, self.beta, e1, e2)
        return total

    def mtf(self, fx: Any, fy: Any) -> Array:
        """Return the Fourier transform at frequencies in cycles per arcsec: real, 1 at 0 (a little more, if `sampled`)."""
        if not self.sampled:
            return self._of_profile(fx, fy)
        # Sampling adds up the frequencies that differ by multiples of its own
        fine = not isinstance(self.fwhm, Tracer) and self.sampled <= _FINE * self.fwhm
        count = 1 if fine else _ALIASES
        turns = [k / self.sampled for k in range(-count, count + 1)]
        return sum((self._of_profile(fx + x, fy + y) for y in turns for x in turns), jnp.zeros(()))

    def _of_profile(self, fx: Any, fy: Any) -> Array:
        e1, e2 = ellipse_components(self.ellipticity, self.angle)
        xx, xy, yy = stretch(-e1, -e2)
        k2 = xx * fx * fx + 2.0 * xy * fx * fy + yy * fy * fy
        size = jnp.log(jnp.pi * moffat_alpha(self.fwhm, self.beta))
        log_k = 0.5 * jnp.log(jnp.where(k2 > _ZERO, k2, 1.0))
        if k2.size > _MANY and not isinstance(k2, Tracer):
            some = np.asarray(log_k)[np.asarray(k2) > _ZERO]
            radial = RadialGrid(float(some.min()), float(some.max()) + 1e-9, 40)
            at_nodes = log_moffat_mtf(jnp.asarray(radial.nodes) + size, self.beta)
            values = radial.evaluate(radial.coefficients(at_nodes), radial.twice_argument(log_k))
        else:
            values = log_moffat_mtf(log_k + size, self.beta)
        transform = jnp.where(k2 > _ZERO, jnp.exp(values), 1.0)
        return transform * jnp.sinc(fx * self.pixel) * jnp.sinc(fy * self.pixel)


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["step"])
@dataclass(frozen=True)
class ImagePSF:
    """A point-spread function given as an image, such as a star of high signal or a model that ends somewhere.

    Parameters
    ----------
    values : (y, x) array
        Flux of a source of unit flux in each pixel. Centred on pixel ``(n_y // 2, n_x // 2)``, as sampled. They need not sum
        to 1: where light beyond the edges is known to be missing in the data as well, leave it out.
    step : float
        Width of a pixel, arcsec.
    """

    values: Any
    step: float

    def mtf(self, fx: Any, fy: Any) -> Array:
        """Return the Fourier transform at frequencies in cycles per arcsec, as for an even profile: real.

        Parameters
        ----------
        fx : (1, n) array
        fy : (m, 1) array
            Separable, as of an image's transform.
        """
        values = jnp.asarray(self.values)
        n_y, n_x = values.shape
        y, x = (np.arange(n_y) - n_y // 2) * self.step, (np.arange(n_x) - n_x // 2) * self.step
        along_y = jnp.exp(-2j * jnp.pi * jnp.reshape(fy, (-1, 1)) * y)
        along_x = jnp.exp(-2j * jnp.pi * jnp.reshape(fx, (-1, 1)) * x)
        return jnp.real(along_y @ values @ along_x.T)


PSF = MoffatPSF | ImagePSF
"""What a job takes where it needs a point-spread function: something with `mtf`."""
