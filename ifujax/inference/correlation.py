"""The autocorrelation of the noise along the pixels, from the residuals of many fits; noise that has it, and its whitening.

Residuals have less correlation than the noise, of which fits have taken a part: with the hat matrix H they have the covariance
``(1 - H) R (1 - H)``. Summed along its diagonals that is linear in R, and is solved for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy import fft

from ifujax.inference.goodness import structure
from ifujax.inference.residuals import REACH, ResidualSums

MANY = 30
"""Fits from which on their scatter says how uncertain their mean is, and their correlation is told from structure."""
_SIGMAS = 2.0
_LEAST = 0.01
"""Correlation that does not matter."""
_FEWEST_PIXELS = 40
_WEAKEST = 200
"""Fits that say it, if they have to: no fewer of them than a quarter of all."""
_ENOUGH = 4000
"""Fits that say it well enough, of however many."""
_LEAST_POWER = 0.02
"""Share of the mean power that noise has at every frequency: sums of few lags may have less than none."""
_TAIL = 3
_ORDER = 12
"""Pixels before that a pixel is compared with, at least: the filter of noise that was interpolated half way has a long tail."""


@dataclass(frozen=True)
class Autocorrelation:
    """Autocorrelation of noise at lags of 0, 1, ... pixels.

    Attributes
    ----------
    values, errors : array (lags,)
        1 first, whose error is 0. NaN where there are too few pixels to say.
    reach : int
        Lags that are significant, counted from the first.
    inflation : float
        By what it multiplies errors on average over all that was fitted.
    absorbed : array (lags,)
        Sums of the hat matrix of a fit along its diagonals.
    n_fits : int
        Fits that it is the mean of.
    """

    values: np.ndarray
    errors: np.ndarray
    reach: int
    inflation: float
    absorbed: np.ndarray
    n_fits: int

    @property
    def used(self) -> np.ndarray:
        """(reach + 1,) the significant part, positive definite: what errors are to allow for."""
        return positive(self.values[: self.reach + 1]) if self.reach else np.ones(1)

    @property
    def local(self) -> np.ndarray:
        """(reach + 1,) what of it may be the noise of resampled pixels, which are correlated with their neighbours: what reaches
        as far as was looked is structure."""
        if self.reach == REACH:
            return np.ones(1)
        tail = max(float(np.nan_to_num(self.values[-_TAIL:]).mean()), 0.0)
        found = np.maximum(self.used - tail, 0.0) if tail > _LEAST else self.used.copy()
        found[0] = 1.0
        return positive(found)

    def growth(self, correlation: np.ndarray) -> float:
        """Return by what a correlation (lags,) multiplies variances, on average over all that is fitted."""
        if not self.absorbed[0] > 0:
            return 1.0
        return 1.0 + 2.0 * float(self.absorbed[1 : len(correlation)] @ correlation[1:]) / float(self.absorbed[0])

    @property
    def significant(self) -> bool:
        """Whether there is any."""
        return self.reach > 0


def pooled(sums: ResidualSums, signal: np.ndarray | None = None) -> Autocorrelation:
    """Return the autocorrelation of the noise of many fits together, each in units of its own noise.

    What a model does not describe shows where the signal is strong, noise everywhere: where there are enough of them, the fits
    with the weakest signal count, without those whose chi2 is piled up in one place or stands out.

    Parameters
    ----------
    sums : ResidualSums
    signal : array (n,), optional
        How strong the signal of each fit is, in units of its noise. It must be made of the fit: estimates are independent of
        residuals, so that choosing by them favours no correlation.
    """
    hidden, absorbed = sums.hidden, sums.absorbed
    rows = np.flatnonzero((sums.products[:, 0] > 0) & (sums.pairs[:, 0] - absorbed[0] >= _FEWEST_PIXELS))
    if signal is not None and len(rows) > _WEAKEST:
        strength = np.where(np.isfinite(signal[rows]), signal[rows], 0.0)
        rows = np.sort(rows[np.argsort(strength, kind="stable")[: max(_WEAKEST, len(rows) // 4)]])
    sums = sums.of(rows)
    if len(sums.array) > _ENOUGH:
        sums = sums.of(np.linspace(0, len(sums.array) - 1, _ENOUGH).round().astype(int))
    for strange in (lambda sums: structure(sums).piled, lambda sums: _standing_out(_level(sums))):
        kept = ~strange(sums) if len(sums.array) >= 2 * MANY else np.zeros(0, bool)
        if kept.sum() >= MANY:
            sums = sums.of(kept)
    n_fits = len(sums.array)
    if not n_fits:
        nothing = np.full(REACH + 1, np.nan)
        return Autocorrelation(nothing, nothing, 0, 1.0, absorbed, 0)
    pairs, free = sums.pairs.sum(axis=0), np.maximum(sums.pairs[:, 0] - absorbed[0], 1.0)
    # What each fit takes of the noise, of each lag and the one on the other side together.
    matrix = np.diag(pairs) - n_fits * hidden * np.where(np.arange(REACH + 1) > 0, 2.0, 1.0)
    products, values = sums.products, np.eye(REACH + 1)[0]
    for _ in range(2):
        # Each in units of its own noise, so that all count alike.
        products = sums.products / _shrunk(_level(sums), free, 1.0 + 2.0 * float(np.sum(values[1:] ** 2)))[:, None]
        found = np.linalg.solve(matrix, products.sum(axis=0))
        values = found / found[0]
    white = np.sqrt((1.0 + 2.0 * np.sum(np.clip(values[1:3], 0, 1) ** 2)) / np.maximum(pairs, 1.0))
    errors = white
    if n_fits >= MANY:
        each = products[:, 1:] / sums.pairs[:, 1:].clip(1.0)
        errors = np.r_[0.0, np.maximum(each.std(axis=0, ddof=1) / np.sqrt(n_fits), white[1:])]
    errors[0] = 0.0
    lost = np.abs(values[1:]) <= np.maximum(_SIGMAS * errors[1:], _LEAST)
    reach = int(np.argmax(lost)) if lost.any() else REACH
    known = Autocorrelation(values, errors, reach, 1.0, absorbed, n_fits)
    return replace(known, inflation=float(np.sqrt(known.growth(known.local))))


def _level(sums: ResidualSums) -> np.ndarray:
    """Return the mean squared residual of each fit."""
    return sums.products[:, 0] / sums.pairs[:, 0]


def _shrunk(level: np.ndarray, free: np.ndarray, spread: float) -> np.ndarray:
    """Return the level of the noise of each fit, as far as levels differ by more than noise makes them.

    The mean of ratios of sums over few pixels is not the ratio of their means: levels that are the same had better be so.
    """
    level = np.log(level)
    scatter, by_noise = float(level.var()), float(np.mean(2.0 * spread / free))
    share = max(0.0, 1.0 - by_noise / scatter) if scatter > 0 else 0.0
    return np.exp(level.mean() + share * (level - level.mean())) if len(level) > 1 else np.exp(level)


def _standing_out(level: np.ndarray) -> np.ndarray:
    """Return which levels lie above 2.5 standard deviations, by the spread of those below the median.

    (Taking the lower half itself would lower the correlation: products at small lags are correlated with chi2.)
    """
    low, middle = np.quantile(level, [0.1587, 0.5])
    return level > middle + 2.5 * (middle - low)


def positive(correlation: np.ndarray) -> np.ndarray:
    """Return the correlation (lags,), weakened until noise with it has power at every frequency."""
    lags = np.arange(1, len(correlation))
    if not lags.size:
        return np.ones(1)
    frequency = np.linspace(0.0, np.pi, 257)
    lowest = float((2.0 * np.cos(np.outer(frequency, lags)) @ correlation[1:]).min())
    scale = min(1.0, (1.0 - _LEAST_POWER) / max(-lowest, 1e-12))
    return np.r_[1.0, scale * correlation[1:]]


def coloured(normals: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Return noise of variance 1 with a correlation (lags,) along the last axis, made of standard normal numbers.

    It is shorter than `normals` by the number of lags: numbers go round a circle, which is cut open.
    """
    size, lags = normals.shape[-1], len(correlation)
    kernel = np.zeros(size)
    kernel[:lags] = correlation
    kernel[size - lags + 1 :] = correlation[:0:-1]
    root = np.sqrt(np.maximum(fft.rfft(kernel).real, 0.0))
    return fft.irfft(fft.rfft(normals, axis=-1) * root, size, axis=-1)[..., : size - lags]


def whitening(correlation: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return what makes correlated noise independent: row p of ``y_p = sum_k w_pk x_(p - k)``.

    Each pixel is compared with what the used ones shortly before it let expect (Vecchia 1988, J. R. Stat. Soc. B 50, 297);
    masked pixels are left out of that, and get zeros.

    Parameters
    ----------
    correlation : array (lags,)
        Positive definite, 1 first.
    used : bool array (n, n_pix)

    Returns
    -------
    array (n, n_pix, order + 1)
    """
    order = max(_ORDER, 2 * (len(correlation) - 1))
    lags = np.zeros(order + 1)
    lags[: len(correlation)] = correlation
    matrix = lags[np.abs(np.subtract.outer(np.arange(order + 1), np.arange(order + 1)))]
    # Which of the pixels before are used, as one number for each pattern.
    padded = np.pad(used, [(0, 0), (order, 0)])
    n_pix = used.shape[1]
    pattern = sum(padded[:, order - k : order - k + n_pix].astype(np.int64) << (k - 1) for k in range(1, order + 1))
    kinds, which = np.unique(np.where(used, pattern, -1), return_inverse=True)
    rows = np.zeros((len(kinds), order + 1))
    for i, kind in enumerate(kinds):
        if kind < 0:
            continue
        before = np.array([k for k in range(1, order + 1) if kind >> (k - 1) & 1], dtype=int)
        weights = np.linalg.solve(matrix[np.ix_(before, before)], lags[before]) if before.size else np.zeros(0)
        left = 1.0 - weights @ lags[before]
        rows[i, 0] = 1.0 / np.sqrt(left)
        rows[i, before] = -weights / np.sqrt(left)
    return rows[which.reshape(used.shape)]
