r"""Images of Gaussians seen through a Moffat PSF, exact to rounding: no FFT, no pixel grid finer than the image, no cut wings.

A Moffat is a mixture of Gaussians. With :math:`x^{-\beta} = \int s^{\beta-1} e^{-s x} ds / \Gamma(\beta)`,

.. math::
    \frac{\beta-1}{\pi\alpha^2}\left(1+\frac{u^T P^{-1} u}{\alpha^2}\right)^{-\beta}
    = \int_0^\infty \frac{s^{\beta-2} e^{-s}}{\Gamma(\beta-1)}\; N\!\left(u;\, 0,\, \frac{\alpha^2}{2 s} P\right) ds,

so a Gaussian of covariance C convolved with it has ``C + alpha^2 P / (2 s)`` in the integral. In ``t = ln s`` the integrand is
analytic and falls off on both sides, where the trapezoidal rule converges exponentially. A Gaussian whose axes are not those
of the pixels is a sum of products of functions of x and of y (Mehler 1866), so an image is a product of matrices; and each of
these functions has a closed integral over a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, loggamma, ndtr

from ifujax.errors import DataError

FloatArray = NDArray[np.float64]

PRECISION = 1e-11
"""Of what is left out at each step, of the peak of the component."""
_REACH = float(np.sqrt(-2.0 * np.log(PRECISION)))
"""Standard deviations within which a Gaussian is above that."""
_FAR = 12.0
_TILE = 128
_AT_ONCE = 1024


@dataclass(frozen=True)
class MoffatPSF:
    """An elliptical Moffat of unit flux.

    Parameters
    ----------
    fwhm : float
        Geometric mean of those along the two axes, in pixels or any other length.
    beta : float
        Exponent, larger than 1.
    ellipticity : float
        ``1 - b/a``.
    angle : float
        Of the major axis, degrees counter-clockwise from +x.

    Raises
    ------
    DataError
        If a value is out of its range.
    """

    fwhm: float
    beta: float
    ellipticity: float = 0.0
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.fwhm) and self.fwhm > 0):
            raise DataError(f"fwhm must be a positive number; got {self.fwhm}. Give a width in arcsec.")
        if not (np.isfinite(self.beta) and self.beta > 1):
            raise DataError(f"beta must be larger than 1, or the flux is infinite; got {self.beta}. Give 1.5 to 5.")
        if not 0 <= self.ellipticity < 1:
            raise DataError(f"ellipticity must lie in [0, 1); got {self.ellipticity}. Give 1 - b/a.")

    @property
    def alpha(self) -> float:
        """Scale length, ``fwhm / (2 sqrt(2**(1/beta) - 1))``."""
        return self.fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / self.beta) - 1.0))

    @property
    def shape_matrix(self) -> FloatArray:
        """P, (2, 2), of determinant 1: 1/q along the major axis, q across, with ``q = 1 - ellipticity``."""
        q = 1.0 - self.ellipticity
        return covariance_matrix(1.0 / np.sqrt(q), np.sqrt(q), self.angle)

    def __call__(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return the density at offsets from the centre, by the formula itself."""
        inverse = np.linalg.inv(self.shape_matrix)
        square = inverse[0, 0] * x * x + 2.0 * inverse[0, 1] * x * y + inverse[1, 1] * y * y
        alpha2 = self.alpha**2
        return (self.beta - 1.0) / (np.pi * alpha2) * (1.0 + square / alpha2) ** -self.beta

    def mixture(self) -> tuple[FloatArray, FloatArray]:
        """Return weights and variances, (n,) each, of Gaussians ``N(0, variance P)`` whose sum it is.

        Those so wide that they add less than `PRECISION` of the peak everywhere are left out; with them goes the flux of the
        wings beyond thousands of FWHM.
        """
        beta = self.beta
        # The error of the rule, relative to the peak, is twice |Gamma(beta + 2 pi i / step)| / Gamma(beta)
        step = 0.5
        while 2.0 * np.exp(loggamma(beta + 2j * np.pi / step).real - gammaln(beta)) > 0.1 * PRECISION:
            step *= 0.95
        # a galaxy that is wider than the PSF has a lower peak: two more digits
        low = (np.log(1e-2 * PRECISION) + gammaln(beta + 1.0)) / beta
        high = np.log(beta) + 1.0
        while beta * high - np.exp(high) - gammaln(beta) > np.log(0.1 * PRECISION):
            high += 0.1
        t = np.arange(low, high + step, step)
        weights = step * np.exp((beta - 1.0) * t - np.exp(t) - gammaln(beta - 1.0))
        return weights, 0.5 * self.alpha**2 * np.exp(-t)


def covariance_matrix(major: float, minor: float, angle: float) -> FloatArray:
    """Return the covariance, (2, 2) in x and y, of a Gaussian with these standard deviations and angle (degrees from +x)."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    rotation = np.array([[cos, -sin], [sin, cos]])
    return rotation @ np.diag([major**2, minor**2]) @ rotation.T


def render_gaussians(
    shape: tuple[int, int],
    flux: FloatArray,
    position: FloatArray,
    covariance: FloatArray,
    psf: MoffatPSF,
    *,
    integrate_pixels: bool = False,
) -> FloatArray:
    """Return the image of Gaussians convolved with a PSF, flux a pixel.

    Parameters
    ----------
    shape : (int, int)
        Pixels in y and x.
    flux : (n,) array
    position : (n, 2) array
        x and y, pixels, 0-based.
    covariance : (n, 2, 2) array
        In x and y, pixels squared. 0 is a point.
    psf : MoffatPSF
        In pixels.
    integrate_pixels : bool
        Integrate over each pixel; otherwise the value at its centre times its area.

    Returns
    -------
    (y, x) array
        To better than 1e-9 of the peak of each Gaussian.
    """
    weights, variances = psf.mixture()
    image = np.zeros(shape)
    if len(flux) == 0:
        return image
    # (n, nodes): each Gaussian with each of those that make the PSF
    spread = covariance[:, None] + variances[:, None, None] * psf.shape_matrix
    sigma_x, sigma_y = np.sqrt(spread[..., 0, 0]), np.sqrt(spread[..., 1, 1])
    rho = spread[..., 0, 1] / (sigma_x * sigma_y)
    part = flux[:, None] * weights
    peak = np.abs(part) / (sigma_x * sigma_y * np.sqrt(1.0 - rho**2))
    if integrate_pixels:  # one much narrower than a pixel has no higher a peak than that
        peak = np.minimum(peak, 2.0 * np.pi * np.abs(part))
    # share of the peak that may be left out of each
    allowed = PRECISION * peak.sum(axis=1, keepdims=True) / np.maximum(peak, 1e-300)
    with np.errstate(divide="ignore"):
        order = np.where(rho == 0.0, 1.0, np.ceil(np.log(allowed) / np.log(np.abs(rho))) + 1.0)
    keep = allowed < len(weights)
    columns = [position[:, None, 0], position[:, None, 1], sigma_x, sigma_y, rho, part, np.maximum(order, 1.0)]
    table = np.stack([np.broadcast_to(column, part.shape)[keep] for column in columns])
    table = table[:, np.argsort(-table[6], kind="stable")]

    # Narrow ones are drawn where they are, wide ones over the whole image
    narrow = _REACH * np.maximum(table[2], table[3]) < _TILE
    _add(image, (0, shape[0], 0, shape[1]), table[:, ~narrow], integrate_pixels)
    narrow_table = table[:, narrow]
    x, y, reach_x, reach_y = narrow_table[0], narrow_table[1], _REACH * narrow_table[2] + 1, _REACH * narrow_table[3] + 1
    for y0 in range(0, shape[0], _TILE):
        for x0 in range(0, shape[1], _TILE):
            y1, x1 = min(y0 + _TILE, shape[0]), min(x0 + _TILE, shape[1])
            near = (x + reach_x > x0) & (x - reach_x < x1) & (y + reach_y > y0) & (y - reach_y < y1)
            _add(image, (y0, y1, x0, x1), narrow_table[:, near], integrate_pixels)
    return image


def _add(image: FloatArray, box: tuple[int, int, int, int], table: FloatArray, integrate_pixels: bool) -> None:
    """Add Gaussians (columns of a table, those of most terms first) to a box (y0, y1, x0, x1) of an image."""
    y0, y1, x0, x1 = box
    for start in range(0, table.shape[1], _AT_ONCE):
        x, y, sigma_x, sigma_y, rho, part, order = table[:, start : start + _AT_ONCE]
        along_x = _HermiteFunctions(x0, x1, x, sigma_x, integrate_pixels)
        along_y = _HermiteFunctions(y0, y1, y, sigma_y, integrate_pixels)
        power = part.copy()
        for k in range(int(order[0])):
            active = int(np.searchsorted(-order, -k, side="left"))  # as many have more than k terms
            fx, fy = along_x.next(active), along_y.next(active)
            image[y0:y1, x0:x1] += (fy * power[:active, None]).T @ fx
            power *= rho


class _HermiteFunctions:
    """``He_k(z) phi(z) / sqrt(k!)`` over sigma for k = 0, 1, ..., at pixels or integrated over them, a row for each Gaussian.

    He_k are the Hermite polynomials of probability theory and phi is the normal density: the terms of Mehler's expansion
    ``N(x, y; rho) = sum_k rho^k f_k(x) f_k(y)``. ``He_k phi`` is the derivative of ``-He_{k-1} phi``.
    """

    def __init__(self, first: int, end: int, centre: FloatArray, sigma: FloatArray, integrate_pixels: bool) -> None:
        self._integrated = integrate_pixels
        at = np.arange(first, end + 1) - 0.5 if integrate_pixels else np.arange(first, end, dtype=np.float64)
        self._sigma = sigma[:, None]
        self._z = (at - centre[:, None]) / self._sigma
        self._k = 0
        # |f_k| < exp(-z^2/4) for every k: what is further out is nothing, and denormal numbers would be slow
        self._z = np.clip(self._z, -_FAR, _FAR)
        self._now = np.where(np.abs(self._z) < _FAR, np.exp(-0.5 * self._z**2) / np.sqrt(2.0 * np.pi), 0.0)
        self._last = np.zeros(())

    def next(self, n: int) -> FloatArray:
        """Return the next order for the first `n` Gaussians; `n` must not grow."""
        k, z = self._k, self._z[:n]
        self._k += 1
        if self._integrated:
            if k == 0:
                return np.diff(ndtr(z), axis=1)
            now = self._now[:n]
            value = -np.diff(now, axis=1) / np.sqrt(k)
        else:
            now = self._now[:n]
            value = now / self._sigma[:n]
            k += 1
        # from order k - 1, which is `now`, to order k
        if k == 1:
            following = z * now
        else:
            following = (z * now - np.sqrt(k - 1.0) * self._last[:n]) / np.sqrt(k)
        self._last, self._now = now, following
        return value
