"""Whether residuals are what the noise leaves: chi2 against its degrees of freedom, and structure along the pixels.

Structure is judged in units of each fit's own noise, so that a wrong variance alone is none. Three kinds of statistic, at
several widths: the power of sums over stretches (for the smallest width the autocorrelation at one pixel), and the stretches
with the largest sum and the largest chi2 (scan statistics: Naus 1965, JASA 60, 532). Each has its chance under noise; what
counts is the smallest, times the number of independent looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincc, gammaincc

from ifujax.inference.residuals import REACH, WIDTHS, ResidualSums

CHANCE = 0.01
"""Chance of noise alone to be called structured, at most."""
_SIGMAS = 5.0
_LOOKS = {"power": 5.0, "peak": 12.0, "pile": 16.0}
_LOOKS_AT = 300.0
"""Pixels at which `_LOOKS` are right: more pixels have more looks than in proportion, since stretches overlap."""
_LEAST_DOF = 8.0
_WIDEST = 0.25
"""Stretches of more than this share of the pixels are no stretches."""


def chi2_far_from_1(chi2: np.ndarray, dof: np.ndarray, spread: np.ndarray | float = 1.0) -> np.ndarray:
    """Return where chi2 per degree of freedom is farther from 1 than noise can bring it.

    Parameters
    ----------
    chi2, dof : array
        Of fits with given variances.
    spread : array or float
        By what correlation multiplies the variance of chi2: the sum of its squares over all lags; 1 for independent noise.

    Returns
    -------
    array of bool
        Beyond 5 ``sqrt(2 / dof)``, the standard deviation of chi2 over its degrees of freedom. False without any.
    """
    usable = dof > 0
    safe = np.where(usable, dof, 1.0)
    with np.errstate(invalid="ignore"):
        return usable & (np.abs(chi2 / safe - 1.0) > _SIGMAS * np.sqrt(2.0 * spread / safe))


@dataclass(frozen=True)
class Structure:
    """What the residuals of fits (n,) show beside noise.

    Attributes
    ----------
    chance : array
        That noise alone does as much somewhere; NaN where there are too few degrees of freedom to say.
    piled : array of bool
        Where chi2 alone piles up in one place, whatever the correlation is.
    first, count : array
        First pixel and number of pixels of the worst stretch.
    share : array
        Part of chi2 that is in it.
    """

    chance: np.ndarray
    piled: np.ndarray
    first: np.ndarray
    count: np.ndarray
    share: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """Where noise alone would do this in less than `CHANCE` of all fits."""
        return self.chance < CHANCE


def structure(sums: ResidualSums, correlation: np.ndarray | None = None) -> Structure:
    """Judge residuals by their sums.

    Parameters
    ----------
    sums : ResidualSums
    correlation : array (lags,), optional
        Autocorrelation that the noise is known to have, 1 first: that much is no structure.
    """
    rho = np.zeros(REACH + 1)
    rho[0] = 1.0
    if correlation is not None:
        rho[: len(correlation)] = correlation[: REACH + 1]
    lags = np.r_[rho[:0:-1], rho]
    n, trace = sums.pairs[:, 0], np.maximum(sums.absorbed[:, 0], 1e-9)
    # What a fit absorbs are smooth modes: they have the noise's power at low frequencies.
    smooth = 1.0 + 2.0 * (sums.absorbed[:, 1:] @ rho[1:]) / trace
    dof, total, wide = n - smooth * trace, sums.products[:, 0], float(np.sum(lags**2))
    usable = (dof > _LEAST_DOF) & (total > 0)
    dof, total, n = (np.where(usable, each, 1e3) for each in (dof, total, n))
    looks = n * np.sqrt(n / _LOOKS_AT)
    chances = []
    for kind in ("power", "peak", "pile"):
        each = np.ones((len(n), len(WIDTHS)))
        for j, width in enumerate(WIDTHS):
            if kind == "power":
                each[:, j] = _chance_of_power(sums, j, lags, smooth, n, dof, total)
            elif kind == "peak" and width >= 4:
                offsets = np.arange(1, min(width, REACH + 1))
                power = max(1.0 + 2.0 * float(np.sum((1.0 - offsets / width) * rho[offsets])), 0.05)
                value = np.clip(sums.stretch("peak")[0][:, j] / power / total, 0.0, 1.0)
                each[:, j] = betaincc(0.5, 0.5 * (dof - 1.0), value) * looks * _LOOKS["peak"] / width
            elif kind == "pile" and width >= 8:
                value, count = (part[:, j] for part in sums.stretch("pile")[:2])
                free = np.maximum(dof - count, 1.0)
                share = np.clip(value / total, 0.0, 1.0)
                chance = betaincc(0.5 * np.maximum(count, 1.0) / wide, 0.5 * free / wide, share)
                each[:, j] = chance * looks * _LOOKS["pile"] / width
            each[:, j] = np.where(width <= _WIDEST * n, each[:, j], np.inf)
        chances.append(each)
    return _verdict(sums, usable, total, *chances)


def _chance_of_power(
    sums: ResidualSums, j: int, lags: np.ndarray, smooth: np.ndarray, n: np.ndarray, dof: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Return the chance of the summed power in stretches of one width.

    Its ratio to chi2 is one of quadratic forms: mean and variance from the traces of their matrices, and a gamma distribution
    of these (Satterthwaite 1946, Biometrics Bulletin 2, 110).
    """
    width = WIDTHS[j]
    triangle = width - np.abs(np.arange(-width + 1.0, width))
    both, again = np.convolve(triangle, lags), np.convolve(lags, lags)
    own = triangle[width - 1 : width - 1 + REACH + 1] if width > REACH else np.r_[triangle[width - 1 :], np.zeros(REACH + 1 - width)]
    weights = own * np.r_[1.0, np.full(REACH, 2.0)] * lags[REACH:]
    taken = smooth * sums.taken[:, j]
    trace = np.maximum(sums.pairs @ weights - taken, 1e-6 * n)
    modes = np.maximum(sums.absorbed[:, 0], 1e-9)
    square = np.maximum(_trace_of_product(n, both, both) - taken**2 / modes, trace**2 / dof)
    cross = np.maximum(_trace_of_product(n, triangle, again) - taken * smooth, trace)
    own_square = np.maximum(_trace_of_product(n, lags, lags) - smooth**2 * modes, 1.0)
    mean = trace / dof
    variance = 2.0 * (square / dof**2 - 2.0 * trace * cross / dof**3 + trace**2 * own_square / dof**4)
    variance = np.maximum(variance, 1e-12 * mean**2)
    shape = mean**2 / variance
    return gammaincc(shape, np.maximum(sums.power[:, j] / total, 0.0) * mean / variance) * _LOOKS["power"]


def _trace_of_product(n: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the traces of products of two symmetric Toeplitz matrices of sizes `n`, given by their diagonals, the main one in
    the middle."""
    reach = min(len(one), len(other)) // 2
    a, b = (each[len(each) // 2 - reach : len(each) // 2 + reach + 1] for each in (one, other))
    return np.maximum(n[:, None] - np.abs(np.arange(-reach, reach + 1)), 0.0) @ (a * b)


def _verdict(
    sums: ResidualSums, usable: np.ndarray, total: np.ndarray, power: np.ndarray, peak: np.ndarray, pile: np.ndarray
) -> Structure:
    """Gather the chances (n, widths) of the kinds of statistic into one."""
    local = np.concatenate([peak, pile], axis=1)
    best = np.argmin(local, axis=1)[:, None]
    parts = [np.concatenate(both, axis=1) for both in zip(sums.stretch("peak"), sums.stretch("pile"))]
    _, count, squares, first = (np.take_along_axis(part, best, axis=1)[:, 0] for part in parts)
    chance = np.minimum(power.min(axis=1), local.min(axis=1))
    known = usable & np.isfinite(chance)
    share = squares / total

    def told(values: np.ndarray) -> np.ndarray:
        return np.where(known, values, np.nan)

    return Structure(told(np.minimum(chance, 1.0)), known & (pile.min(axis=1) < CHANCE), told(np.maximum(first, 0.0)), told(count), told(share))
