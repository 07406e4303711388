"""Weak priors of what has no bounds: strengths of lines and the continuum, from the noise and never from the data.

A posterior needs a prior that can be normalised. A thousand times its noise leaves a line of any signal-to-noise ratio S
where it is: the estimate moves by 1e-6 S of its error.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifujax.inference.parameter_space.priors import HalfNormal, Normal
from ifujax.inference.parameter_space.space import Entry, ParameterSpace
from ifujax.inference.precision import working_precision
from ifujax.lines.setup import Setup
from ifujax.models.doppler import C_KMS

STRENGTH_NOISES = 1e3
"""Prior standard deviation of a strength, in units of its noise in a line of the guessed width."""
CONTINUUM_NOISES = 1e4
"""Prior standard deviation of a continuum coefficient, in units of the noise of a pixel."""


@dataclass(frozen=True)
class DefaultPriors:
    """Default priors of some spaxels.

    Attributes
    ----------
    strengths : dict of str to Prior
        By free parameter, with numbers (n,).
    continuum : array (n, K)
        Prior standard deviation of the continuum coefficients, about 0.
    """

    strengths: dict[str, HalfNormal | Normal]
    continuum: np.ndarray

    def first(self) -> DefaultPriors:
        """Return those of the first spaxel, as numbers."""
        named: dict[str, HalfNormal | Normal] = {}
        for name, prior in self.strengths.items():
            sigma = float(np.asarray(prior.sigma)[0])
            named[name] = HalfNormal(sigma) if isinstance(prior, HalfNormal) else Normal(0.0, sigma)
        return DefaultPriors(named, self.continuum[:1])

    def of(self, space: ParameterSpace) -> ParameterSpace:
        """Return a space with these priors where it has none; UsageError for a parameter that is left without a proper one."""
        result = space.with_priors(self.strengths) if self.strengths else space
        result.require_proper()
        return result


def default_priors(setup: Setup, ivar: np.ndarray, width: np.ndarray) -> DefaultPriors:
    """Return the default priors of spectra.

    Strengths (flux or amplitude) that neither a bound nor a prior holds on both sides get a `HalfNormal` where they start at
    0, else a `Normal` about 0, of `STRENGTH_NOISES` times the noise of that strength in a line of the guessed width.
    Coefficients of the continuum get a `Normal` about 0 of `CONTINUUM_NOISES` times the noise per pixel.

    Parameters
    ----------
    setup : Setup
    ivar : array (n, n_pix)
        Inverse variances, 0 = masked; a spectrum without any counts as one of unit noise.
    width : array (n_pix,)
        Pixel widths, Angstrom; 0 for padding.
    """
    noise = pixel_noise(ivar)
    own = line_noise(setup, width)
    strengths: dict[str, HalfNormal | Normal] = {}
    numbers = zip(np.atleast_2d(setup.space.lower)[0], np.atleast_2d(setup.space.upper)[0])
    for entry, (low, high) in zip(setup.space.structure.free, numbers):
        line, role = entry.name.rsplit(".", 1)
        if role not in ("flux", "amplitude") or not _open(entry):
            continue
        i = setup.model.names.index(line)
        size: Any = STRENGTH_NOISES * noise * own[i]
        if role == "amplitude":
            size = size / (math.sqrt(2.0 * math.pi) * _sigma_angstrom(setup)[i])
        # Bounds far from 0 widen it, so that what they allow is not in its tails.
        size = size + max((abs(end) for end in (low, high) if np.isfinite(end)), default=0.0)
        strengths[entry.name] = HalfNormal(size) if low == 0 and entry.above is None else Normal(np.zeros_like(size), size)
    continuum = np.repeat(CONTINUUM_NOISES * noise[:, None], setup.model.n_continuum, axis=1)
    return DefaultPriors(strengths, continuum)


def pixel_noise(ivar: np.ndarray) -> np.ndarray:
    """Return the median noise per pixel (n,) of spectra with inverse variances (n, n_pix); 1 where all pixels are masked."""
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # all masked
        noise = np.nanmedian(np.where(ivar > 0, 1.0 / np.sqrt(ivar), np.nan), axis=1)
    return np.where(np.isfinite(noise), noise, 1.0)


def line_noise(setup: Setup, width: np.ndarray) -> np.ndarray:
    """Return the error (lines,) of the flux of lines of the guessed widths where the noise per pixel is 1, data unit x Angstrom.

    That of the flux alone, all else being known: the root of pixel width over the integral of the squared profile.
    """
    pixel = float(np.median(width[width > 0]))
    return np.sqrt(2.0 * math.sqrt(math.pi) * _sigma_angstrom(setup) * pixel)


def _sigma_angstrom(setup: Setup) -> np.ndarray:
    """Guessed widths (lines,) with the LSF, Angstrom; a pixel's own width does not matter here."""
    rest = np.asarray(setup.model.rest_wavelengths, dtype=np.float64)
    sigma = np.maximum(setup.guess_sigma, 1.0)
    if setup.model.spread is not None:
        with working_precision("float64"):
            sigma = np.hypot(sigma, np.asarray(setup.model.spread.velocity_sigma(rest * (1.0 + float(setup.model.redshift)))))
    return sigma / C_KMS * rest


def _open(entry: Entry) -> bool:
    """Whether a side of a free parameter has neither a bound nor a prior."""
    lower, upper = entry.has_lower or entry.above is not None, entry.has_upper or entry.below is not None
    return entry.prior is None and not (lower and upper)
