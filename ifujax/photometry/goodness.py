"""Whether residuals are those of noise: chi2 against its own scatter, misfits that pile up, and where they do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage, stats

from ifujax.inference import status as bits
from ifujax.inference.goodness import chi2_far_from_1
from ifujax.photometry.forward.noise import reach_of, residual_correlation

WINDOW = 4.0
"""Standard deviations of chi2 within which it is that of noise: 6 in 100 000 lie outside."""
ALLOWANCE = 0.1
"""Share by which variances may be wrong beyond that: errors are then wrong by 5 %, and no pipeline knows its own better."""
_CHANCE = 1e-3
"""Of noise to pile up as much somewhere in an image."""
_BRIGHT = 0.9
"""Quantile of the model from which on pixels count as those of sources."""
_CALM = 0.5
"""Quantile below which residuals are those of noise: the model is too faint to be wrong there."""
_BRIGHTER = 4.5
"""Standard deviations by which residuals of sources must exceed those of the rest, beyond `ALLOWANCE`."""
_CORRELATED, _INFLATED = 5.0, 1.2
"""Correlation of neighbours that is told of: standard deviations, and the factor on the variance of smooth quantities."""


@dataclass(frozen=True)
class Misfit:
    """The square arcsecond of an image in which residuals exceed noise most.

    Attributes
    ----------
    x, y : float
        Where, pixels counted from 0: the middle of the squared residuals in it.
    share : float
        Of the chi2 of the whole image.
    expected : float
        What noise would have there: its share of the pixels.
    """

    x: float
    y: float
    share: float
    expected: float

    def moved(self, y: int, x: int) -> Misfit:
        """Return it as seen from another pixel."""
        return replace(self, x=self.x - x, y=self.y - y)


@dataclass(frozen=True)
class Judgement:
    """What residuals say of a fit: bits of `ifujax.inference.status`, where they are worst, and the autocovariance of noise."""

    warn: int
    misfit: Misfit | None
    correlation: np.ndarray


def chi2_is_off(chi2: float, dof: float, spread: float = 1.0) -> bool:
    """Return whether the chi2 of an image is not that of noise with the variances that it was divided by.

    As `ifujax.inference.goodness.chi2_far_from_1`: 4 standard deviations, and a tenth more, since variances of images are not
    known better.
    """
    return bool(chi2_far_from_1(chi2, dof, spread, sigmas=WINDOW, allowance=ALLOWANCE))


def judge(
    residual: np.ndarray,
    used: np.ndarray,
    model: np.ndarray,
    step: tuple[float, float],
    *,
    n_free: int,
    stated: bool,
    allowed: bool = False,
    robust: bool = False,
    own: np.ndarray | None = None,
) -> Judgement:
    """Compare the residuals of an image with noise.

    Parameters
    ----------
    residual : (y, x) array
        Divided by their errors.
    used : (y, x) bool array
        Pixels that count.
    model : (y, x) array
        What was fitted, less its background.
    step : (y, x)
        Widths of a pixel, arcsec.
    n_free : int
        Parameters that were fitted.
    stated : bool
        Whether the variances are taken at their word; else only their ratios are, and the noise is what residuals have far
        from sources.
    allowed : bool
        Whether errors allow for correlations of neighbours.
    robust : bool
        Whether outliers don't count in the fit: nor do they in chi2 then.
    own : (2 r + 1, 2 r + 1) array, optional
        Autocovariance of noise that processing has made of independent pixels: of a low-pass. chi2 is in units of its middle.

    Returns
    -------
    Judgement
        ``chi2_not_1`` where variances are stated and chi2 is not theirs (`chi2_is_off`); ``structured_residuals`` where a square
        arcsecond has more than noise has in one of a thousand images, or the brightest tenth of the model more than the rest;
        ``correlated_noise`` where neighbours among the rest are correlated and errors don't allow for that.
    """
    count = int(used.sum())
    if count <= n_free or count == 0:
        return Judgement(0, None, np.ones((1, 1)))
    share = 1.0 if own is None else float(own[own.shape[0] // 2, own.shape[1] // 2])
    residual = np.where(used, residual, 0.0) / math.sqrt(share)
    square = residual**2
    size = np.abs(model)
    bright = used & (size >= np.quantile(size[used], _BRIGHT))
    rest = used & ~bright if (used & ~bright).any() else used
    calm = used & (size <= np.quantile(size[used], _CALM))
    correlation = residual_correlation(residual, calm, reach_of(int(calm.sum())))
    centre = correlation.shape[0] // 2
    variance = float(correlation[centre, centre])
    ratio = correlation / (variance or 1.0)
    lags = np.ones(ratio.shape, bool)
    lags[centre, centre] = False
    # Noise in the estimates adds one over their number to each square
    blur = max(1.0 + float(np.sum(ratio[lags] ** 2)) - lags.sum() / max(_pairs(calm), 1), 1.0)
    # What stays within stated errors is no misfit
    level = max(variance, 1.0) if stated else variance
    warn, dof = 0, count - n_free
    if stated and chi2_is_off(variance * dof if robust else float(square.sum()), dof, blur):
        warn |= bits.CHI2_NOT_1.value
    misfit, piled = _worst(square, used, (variance, level), blur, step)
    if piled or _more(square, bright, rest, level, blur):
        warn |= bits.STRUCTURED_RESIDUALS.value
    # Smooth quantities may scatter by no more than is stated, correlated or not
    near, usual = _near(ratio), 1.0 if own is None else max(_near(own) / share, 1.0)
    excused = allowed or (stated and variance * near < _INFLATED * usual)
    if not excused and _correlated(near, usual, _pairs(calm) / blur):
        warn |= bits.CORRELATED_NOISE.value
    # In units of the stated variance, whatever share of it a low-pass has left
    return Judgement(warn, misfit, correlation * share)


def _worst(
    square: np.ndarray, used: np.ndarray, levels: tuple[float, float], blur: float, step: tuple[float, float]
) -> tuple[Misfit | None, bool]:
    """Return the square arcsecond that exceeds noise of the first variance most, and whether that of the second hardly does."""
    size: Any = tuple(max(1, round(1.0 / each)) for each in step)
    inside = np.rint(ndimage.uniform_filter(used.astype(np.float64), size, mode="constant") * math.prod(size))
    found = np.maximum(ndimage.uniform_filter(square, size, mode="constant") * math.prod(size), 0.0)
    if not levels[0] > 0 or not square.sum() > 0:
        return None, False
    excess = found - levels[0] * inside
    y, x = (int(each) for each in np.unravel_index(int(excess.argmax()), excess.shape))
    box = tuple(slice(max(at - each // 2, 0), at - each // 2 + each) for at, each in zip((y, x), size))
    weight, (rows, columns) = square[box], np.indices(square.shape)[(slice(None), *box)]
    total = max(float(weight.sum()), np.finfo(float).tiny)
    misfit = Misfit(
        x=float((weight * columns).sum()) / total,
        y=float((weight * rows).sum()) / total,
        share=float(weight.sum()) / float(square.sum()),
        expected=float(used[box].sum()) / float(used.sum()),
    )
    n = max(float(inside[y, x]), 1.0)
    worst = _deviation(float(found[y, x]) / (levels[1] * n), max(n / blur, 1.0))
    return misfit, bool(worst > stats.norm.isf(_CHANCE / used.sum()))


def _more(square: np.ndarray, bright: np.ndarray, rest: np.ndarray, level: float, blur: float) -> bool:
    """Return whether residuals of the bright pixels are larger than those of the others."""
    n = int(bright.sum()), int(rest.sum())
    base = max(float(square[rest].mean()), level)
    if not base > 0:
        return False
    spread = math.sqrt(1.0 + n[0] / n[1])
    ratio = float(square[bright].mean()) / base
    return bool(_deviation(ratio / (1.0 + ALLOWANCE), n[0] / blur) > _BRIGHTER * spread)


def _deviation(ratio: np.ndarray | float, independent: np.ndarray | float) -> np.ndarray:
    """Return by how many standard deviations a mean of squares exceeds 1 (Wilson & Hilferty)."""
    variance = 2.0 / (9.0 * np.asarray(independent))
    return (np.cbrt(ratio) - (1.0 - variance)) / np.sqrt(variance)


def _correlated(near: float, usual: float, independent: float) -> bool:
    """Return whether neighbours are correlated by more than processing has made them: sums of nine correlations."""
    # Each of eight neighbours counts twice, as lag and as its opposite
    return near > _INFLATED * usual and (near - usual) * math.sqrt(independent / 16.0) > _CORRELATED


def _pairs(calm: np.ndarray) -> int:
    """Return of how many pairs of neighbours a correlation is the mean."""
    return min(int((calm[1:] & calm[:-1]).sum()), int((calm[:, 1:] & calm[:, :-1]).sum()))


def _near(ratio: np.ndarray) -> float:
    centre = ratio.shape[0] // 2
    return float(ratio[centre - 1 : centre + 2, centre - 1 : centre + 2].sum())
