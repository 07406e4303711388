"""Whether an image shows the scene at all: what a fit gains over a constant, beside what it gains of noise.

A fit looks for the best of many shifts and widths, and in noise it finds one: ``t(shift, width) = scale / error`` is a smooth
Gaussian random field there, and the chance that it rises above u somewhere is the sum over dimensions d of its size in units
of its own correlation length, L_d, times ``rho_d(u)`` (the expected Euler characteristic: Worsley et al. 1996, Human Brain
Mapping 4, 58; Adler & Taylor 2007, Random Fields and Geometry).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy import fft
from scipy import stats

from ifujax.photometry.forward.noise import FEW, power_of
from ifujax.photometry.forward.reference import good_size

DETECTED = 3.0
"""Sigma of one trial that the chance of noise must be below: 0.13 %."""
PLAIN = 60.0
"""Sigma from which on trials need not be counted: no search has 1e700 of them."""
_WIDTHS = np.geomspace(0.1, 4.0, 9)
"""FWHM in arcsec of the blurs that are searched, but none below a pixel: there, they all look the same."""
_LEAST_POWER = 0.25
_POINTS = 128


@dataclass(frozen=True)
class Search:
    """How much was searched, in units of the correlation lengths of the field: of dimensions 0 to 3.

    Examples
    --------
    >>> round(Search((1.0, 0.0, 0.0, 0.0)).significance(3.0), 6)
    3.0
    """

    sizes: tuple[float, float, float, float]

    def significance(self, u: float) -> float:
        """Return how many sigma of one trial the maximum `u` of this search is worth; 0 at least."""
        if not u > 0:
            return 0.0
        densities = 1.0, 1.0, u, u * u - 1.0
        terms = [size * each * (2.0 * math.pi) ** (-0.5 * (d + 1)) for d, (size, each) in enumerate(zip(self.sizes, densities))]
        at = sum(terms[1:])
        tail = float(stats.norm.logsf(u))
        if at > 0:
            tail = float(np.logaddexp(tail + math.log(self.sizes[0]), math.log(at) - 0.5 * u * u))
        # At low u the sum is no probability any more
        return 0.0 if tail > math.log(0.5) else _sigma_of(tail)


def _sigma_of(log_chance: float) -> float:
    """Return the sigma whose tail has this logarithm, beyond what a float can hold too."""
    if log_chance > -600.0:
        return float(stats.norm.isf(math.exp(log_chance)))
    # log Q(u) = -u^2 / 2 - log(u sqrt(2 pi)), to a hundredth here
    u = math.sqrt(-2.0 * log_chance)
    return math.sqrt(max(-2.0 * (log_chance + math.log(u * math.sqrt(2.0 * math.pi))), 0.0))


def search_of(
    spectrum: np.ndarray, fy: np.ndarray, fx: np.ndarray, room: tuple[float, float], step: tuple[float, float], widths: bool
) -> Search:
    """Return the size of a search for a template.

    Parameters
    ----------
    spectrum : (n_y, m) array
        Power of the template before it is blurred, at frequencies fy (n_y,) and fx (m,), cycles per arcsec.
    room : (y, x)
        Arcsec over which shifts are searched; 0 where one is known.
    step : (y, x)
        Widths of a pixel, arcsec.
    widths : bool
        Whether the width of the blur is searched as well.
    """
    k2 = fy[:, None] ** 2 + fx[None, :] ** 2
    power = np.where(k2 > 0, spectrum, 0.0)
    if not power.sum() > 0:
        return Search((1.0, 0.0, 0.0, 0.0))
    least = max(step)
    blurs = np.maximum(_WIDTHS, least)[None, :] if widths else np.array([[max(0.7, least)]])
    blurs = np.unique(blurs)
    kernels = [np.exp(-((math.pi * each) ** 2) * k2 / (4.0 * math.log(2.0))) for each in blurs]
    norms = [float((power * kernel**2).sum()) for kernel in kernels]

    def length(kernel: np.ndarray, norm: float, f: np.ndarray, over: float) -> float:
        """Correlation lengths along one axis."""
        return over * math.sqrt(float((power * kernel**2 * (2.0 * math.pi * f) ** 2).sum()) / norm)

    along_y = [length(k, n, fy[:, None], room[0]) for k, n in zip(kernels, norms)]
    along_x = [length(k, n, fx[None, :], room[1]) for k, n in zip(kernels, norms)]
    area = [y * x for y, x in zip(along_y, along_x)]
    steps = [
        math.acos(min(float((power * a * b).sum()) / math.sqrt(p * q), 1.0))
        for a, b, p, q in zip(kernels[:-1], kernels[1:], norms[:-1], norms[1:])
    ]

    def across(of: list[float]) -> float:
        """Integrate over widths."""
        return float(sum(0.5 * (a + b) * each for a, b, each in zip(of[:-1], of[1:], steps)))

    ends = (0, len(blurs) - 1) if steps else (0,)
    share = 0.5 if steps else 1.0
    faces = share * sum(area[i] for i in ends) + across(along_y) + across(along_x)
    edges = share * sum(along_y[i] + along_x[i] for i in ends) + sum(steps)
    return Search((1.0, edges, faces, across(area)))


def search_of_star(step: tuple[float, float], radius: float, widths: bool) -> Search:
    """Return the size of a search for a star within `radius` arcsec, by images with pixels of `step` (y, x) arcsec."""
    fy, fx = (fft.fftfreq(_POINTS, each) for each in step)
    side = math.sqrt(math.pi) * radius
    return search_of(np.ones((_POINTS, _POINTS)), fy, fx, (side, side), step, widths)


def gain_of(before: np.ndarray, after: np.ndarray) -> float:
    """Return by how much chi2 falls from the residuals `before` to those `after`, divided by their errors.

    No pixel counts for more than half: a fit puts a source on each bad one.
    """
    gain = before**2 - after**2
    total = float(gain.sum())
    return min(total, 2.0 * (total - float(gain.max(initial=0.0))))


def noise_power(slope: np.ndarray, correlation: np.ndarray, count: int, stated: bool) -> float:
    """Return the variance of noise at the frequencies of a template, in units of that of its errors.

    Parameters
    ----------
    slope : (y, x) array
        The template, divided by the errors; 0 where a pixel does not count.
    correlation : (2 r + 1, 2 r + 1) array
        Autocovariance of residuals divided by their errors, lag 0 in the middle.
    count : int
        Pixels that were fitted.
    stated : bool
        Whether the errors are taken at their word: noise has no less than they say then.
    """
    reach = correlation.shape[0] // 2
    variance = float(correlation[reach, reach])
    shape = good_size(slope.shape[0] + reach), good_size(slope.shape[1] + reach)
    weight = np.abs(fft.rfft2(slope, shape)) ** 2
    weight[:, 1:] *= 2.0
    total = float(weight.sum())
    found = float((weight * power_of(correlation, shape)).sum()) / total if total > 0 else variance
    # Of few pixels a fit has taken the noise that looks like the template
    return max(found, variance * (1.0 if count < FEW else _LEAST_POWER), 1.0 if stated else 0.0)


def without_place(
    errors: dict[str, float], covariance: np.ndarray, names: tuple[str, ...]
) -> tuple[dict[str, float], np.ndarray]:
    """Return errors and covariance of a fit in which nothing was detected: only scale and background have any."""
    lost = [name not in ("scale", "bg") for name in names]
    covariance = covariance.copy()
    covariance[lost, :] = np.nan
    covariance[:, lost] = np.nan
    return errors | {name: np.nan for name, gone in zip(names, lost) if gone}, covariance
