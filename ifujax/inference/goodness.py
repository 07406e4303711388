"""Whether residuals are what the noise leaves: chi2 against its degrees of freedom, and structure along the pixels.

Structure is judged in units of each fit's own noise, so that a wrong variance alone is none. Three kinds of statistic, at
several widths: the power of sums over stretches (for the smallest width the autocorrelation at one pixel), and the stretches
with the largest sum and the largest chi2 (scan statistics: Naus 1965, JASA 60, 532). Each has its chance under noise; what
counts is the smallest, times the number of independent looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erfc, gammaincc

from ifujax.inference.residuals import CELLS, REACH, SCANNED, WIDTHS, ResidualSums

CHANCE = 0.015
"""Chance of noise alone to be called structured, at most."""
_SIGMAS = 5.0
_LOOKS = {"power": 5.0, "peak": 12.0, "pile": 16.0}
_LOOKS_AT = 300.0
"""Pixels at which `_LOOKS` are right: more pixels have more looks than in proportion, since stretches overlap."""
_LEAST_DOF = 8.0
_WIDEST = 0.25
"""Stretches of more than this share of the pixels are no stretches."""


def chi2_window(
    dof: np.ndarray | float, *, sigmas: float = _SIGMAS, allowance: float = 0.0
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Return the least and largest chi2 per degree of freedom that is taken for noise.

    The window is `sigmas` standard deviations wide on either side, ``sqrt(2 / dof)`` each for many degrees of freedom, and its
    ends are `allowance` further out. For few, chi2 is skew: its cube root is normal, of variance ``2 / (9 dof)`` (Wilson &
    Hilferty 1931, PNAS 17, 684).

    Parameters
    ----------
    dof : array or float
        Degrees of freedom; of correlated noise, over the sum of its squared correlations (the variance of a sum of squares).
    sigmas, allowance : float

    Examples
    --------
    >>> [round(float(end), 2) for end in chi2_window(25600, sigmas=4.0, allowance=0.1)]
    [0.87, 1.14]
    """
    variance = 2.0 / (9.0 * np.maximum(dof, 1.0))
    low, high = (np.maximum(1.0 - variance + side * sigmas * np.sqrt(variance), 0.0) ** 3 for side in (-1.0, 1.0))
    return (1.0 - allowance) * low, (1.0 + allowance) * high


def chi2_far_from_1(
    chi2: np.ndarray | float,
    dof: np.ndarray | float,
    spread: np.ndarray | float = 1.0,
    *,
    sigmas: float = _SIGMAS,
    allowance: float = 0.0,
) -> np.ndarray:
    """Return where chi2 per degree of freedom is farther from 1 than noise can bring it: beyond `chi2_window`.

    Parameters
    ----------
    chi2, dof : array or float
        Of fits with given variances. Without degrees of freedom it is never far.
    spread : array or float
        By what correlation multiplies the variance of chi2: the sum of its squares over all lags; 1 for independent noise.
    sigmas, allowance : float
        As of `chi2_window`.
    """
    usable = np.asarray(dof) > 0
    safe = np.where(usable, dof, 1.0)
    low, high = chi2_window(safe / spread, sigmas=sigmas, allowance=allowance)
    with np.errstate(invalid="ignore"):
        return usable & ((chi2 / safe < low) | (chi2 / safe > high))


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
    absorbed = sums.absorbed
    modes = max(float(absorbed[0]), 1e-9)
    # What a fit absorbs are smooth modes: they have the noise's power at low frequencies.
    smooth = 1.0 + 2.0 * float(absorbed[1:] @ rho[1:]) / modes
    n, total = sums.pairs[:, 0], sums.products[:, 0]
    dof = n - smooth * absorbed[0]
    usable = (dof > _LEAST_DOF) & (total > 0)
    n, dof, total = (np.where(usable, each, 1e3) for each in (n, dof, total))
    noise = _Noise(n, dof, rho, smooth, modes)
    power, taken = sums.power, sums.taken
    chances = [
        np.column_stack(
            [
                noise.chance_of_power(power[:, j] / total, float(taken[j]), width, cell)
                for j, (width, cell) in enumerate(zip(WIDTHS, CELLS))
            ]
        )
    ]
    wide, looks = float(np.sum(noise.lags**2)), n * np.sqrt(n / _LOOKS_AT)
    for kind in ("peak", "pile"):
        shares, each = sums.stretch(kind)[0], []
        for j, width in enumerate(SCANNED):
            if kind == "peak":
                offsets = np.arange(1, min(width, REACH + 1))
                swollen = max(1.0 + 2.0 * float(np.sum((1.0 - offsets / width) * rho[offsets])), 0.05)
                chance = _chance_of_share(shares[:, j] / swollen, 1.0, dof - 1.0)
            else:
                chance = _chance_of_share(shares[:, j], width / wide, np.maximum(dof - width, 1.0) / wide)
            each.append(chance * looks * _LOOKS[kind] / width)
        chances.append(np.column_stack(each))
    for each, widths in zip(chances, (WIDTHS, SCANNED, SCANNED)):
        each[np.array(widths) > _WIDEST * n[:, None]] = np.inf
    return _verdict(sums, usable, *chances)


@dataclass(frozen=True)
class _Noise:
    """Noise of a known autocorrelation in residuals of `n` pixels with `dof` degrees of freedom, arrays over fits.

    `modes` smooth modes have been taken off, in which the noise has `smooth` times its mean power.
    """

    n: np.ndarray
    dof: np.ndarray
    rho: np.ndarray
    smooth: float
    modes: float

    @property
    def lags(self) -> np.ndarray:
        """Autocorrelation at lags on both sides."""
        return np.r_[self.rho[:0:-1], self.rho]

    def chance_of_power(self, ratio: np.ndarray, taken: float, width: int, cell: int) -> np.ndarray:
        """Return the chance of the summed power in stretches of one width, as a ratio to chi2.

        A ratio of quadratic forms: mean and variance from the traces of their matrices, and a gamma distribution of these
        (Satterthwaite 1946, Biometrics Bulletin 2, 110).
        """
        count = width // cell
        triangle = count - np.abs(np.arange(-count + 1.0, count))
        box = cell - np.abs(np.arange(-cell + 1.0, cell))
        cells = _in_cells(np.convolve(self.lags, box), cell)
        n = self.n / cell
        taken *= self.smooth
        trace = np.maximum(_trace(n, triangle, cells) - taken, 1e-6 * self.n)
        both = np.convolve(triangle, cells)
        square = np.maximum(_trace(n, both, both) - taken**2 / self.modes, trace**2 / self.dof)
        twice = _in_cells(np.convolve(np.convolve(self.lags, self.lags), box), cell)
        cross = np.maximum(_trace(n, triangle, twice) - taken * self.smooth, trace)
        own = np.maximum(_trace(self.n, self.lags, self.lags) - self.smooth**2 * self.modes, 1.0)
        mean = trace / self.dof
        variance = 2.0 * (square / self.dof**2 - 2.0 * trace * cross / self.dof**3 + trace**2 * own / self.dof**4)
        variance = np.maximum(variance, 1e-12 * mean**2)
        return gammaincc(mean**2 / variance, np.maximum(ratio, 0.0) * mean / variance) * _LOOKS["power"]


def _chance_of_share(share: np.ndarray, own: float, others: np.ndarray) -> np.ndarray:
    """Return the chance that so large a share of chi2 falls to `own` degrees of freedom of it rather than to the `others`.

    By Paulson's (1942, Ann. Math. Stat. 13, 233) approximation of the F distribution, and for a single one by that of Student's t
    that goes with it: scan statistics need no more.
    """
    share = np.clip(share, 0.0, 1.0 - 1e-9)
    ratio = share / (1.0 - share) * others / own
    if own == 1.0:
        z = np.sqrt(ratio) * (1.0 - 0.25 / others) / np.sqrt(1.0 + 0.5 * ratio / others)
        return erfc(z / np.sqrt(2.0))
    root, a, b = np.cbrt(ratio), 2.0 / (9.0 * own), 2.0 / (9.0 * others)
    z = ((1.0 - b) * root - (1.0 - a)) / np.sqrt(b * root**2 + a)
    return 0.5 * erfc(z / np.sqrt(2.0))


def _in_cells(diagonals: np.ndarray, cell: int) -> np.ndarray:
    """Return every `cell`-th of some diagonals, the main one in the middle."""
    middle = len(diagonals) // 2
    reach = middle // cell
    return diagonals[middle - reach * cell : middle + reach * cell + 1 : cell]


def _trace(n: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the traces of products of two symmetric Toeplitz matrices of sizes `n`, given by their diagonals, the main one in
    the middle."""
    reach = min(len(one), len(other)) // 2
    a, b = (each[len(each) // 2 - reach : len(each) // 2 + reach + 1] for each in (one, other))
    return np.maximum(n[:, None] - np.abs(np.arange(-reach, reach + 1)), 0.0) @ (a * b)


def _verdict(sums: ResidualSums, usable: np.ndarray, power: np.ndarray, peak: np.ndarray, pile: np.ndarray) -> Structure:
    """Gather the chances (n, widths) of the kinds of statistic into one."""
    local = np.concatenate([peak, pile], axis=1)
    best = np.argmin(local, axis=1)[:, None]
    share, first = (
        np.take_along_axis(np.concatenate(both, axis=1), best, axis=1)[:, 0]
        for both in zip(sums.stretch("peak"), sums.stretch("pile"))
    )
    count = np.tile(np.array(SCANNED, dtype=float), 2)[best[:, 0]]
    chance = np.minimum(power.min(axis=1), local.min(axis=1))
    known = usable & np.isfinite(chance)

    def told(values: np.ndarray) -> np.ndarray:
        return np.where(known, values, np.nan)

    piled = known & (pile.min(axis=1) < CHANCE)
    return Structure(told(np.minimum(chance, 1.0)), piled, told(first), told(count), told(share))
