"""`CubeFit.noise_correlation`: how the noise of a cube is correlated, along wavelength and between spaxels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ifujax.errors import UsageError
from ifujax.inference.correlation import Autocorrelation

if TYPE_CHECKING:
    from ifujax.lines.results import CubeFit

REACH = 4
"""Spaxels up to which correlation is measured."""
_BLOCK = 10
_SPAXELS = 800
"""Spaxels that are looked at, in whole blocks."""
_ENOUGH_FOR_MEAN = 200
_CLIP = 4.0
_LARGEST = 6.0
"""Radius of the largest aperture, in spaxels, that the law of its noise is fitted to."""


@dataclass(frozen=True, eq=False)
class NoiseCorrelation:
    """Correlation of the noise of a cube, measured in the residuals of its fits.

    Attributes
    ----------
    spectral, spectral_error : array (lags,)
        Correlation of pixels that are 0, 1, 2, ... apart in wavelength, and its error.
    inflation : float
        By what the spectral part multiplies the errors of the fit, on average.
    spatial : array (2 n + 1, 2 n + 1) or None
        Correlation of spaxels ``[dy, dx]`` apart, 1 in the middle. None without neighbours to compare.
    spatial_error : array or None
        Its error, for independent pairs.
    """

    along: Autocorrelation = field(repr=False)
    spatial: np.ndarray | None
    spatial_error: np.ndarray | None

    @property
    def spectral(self) -> np.ndarray:
        return self.along.values

    @property
    def spectral_error(self) -> np.ndarray:
        return self.along.errors

    @property
    def inflation(self) -> float:
        return self.along.inflation

    def factor(self, spaxels: ArrayLike) -> float:
        """Return by what the noise of a sum over spaxels exceeds that of independent ones.

        Parameters
        ----------
        spaxels : int or bool array (y, x)
            How many, in a round aperture; or which.
        """
        if self.spatial is None:
            raise UsageError("spaxels must have neighbours that were fitted; got a spectrum, bins, or single spaxels.")
        picked = np.asarray(spaxels)
        if picked.ndim == 0:
            if not picked >= 1:
                raise UsageError(f"spaxels must be 1 or more; got {picked}.")
            picked = _round(int(picked))
        if picked.ndim != 2 or picked.dtype != bool or not picked.any():
            raise UsageError("spaxels must be a number, or a bool map (y, x) with a spaxel; got something else.")
        return float(np.sqrt(max(_variance(picked, self.spatial), 1e-6)))

    @cached_property
    def b(self) -> float:
        """Slope of the law ``factor = 1 + b log10(N)`` for round apertures of N spaxels (Garcia-Benito et al. 2015)."""
        if self.spatial is None:
            return float("nan")
        counts = np.unique([int(_disc(radius).sum()) for radius in np.arange(1.0, _LARGEST + 0.1, 0.5)])
        size = np.log10(counts)
        excess = np.array([self.factor(int(count)) for count in counts]) - 1.0
        return float((excess * size).sum() / (size**2).sum())

    def __str__(self) -> str:
        """Return both correlations in words."""
        reach = max(self.along.reach, 1)
        text = [
            "noise along wavelength, 1, 2, ... pixels apart: "
            + ", ".join(f"{v:.3f} +- {e:.3f}" for v, e in zip(self.spectral[1 : reach + 1], self.spectral_error[1 : reach + 1]))
            + f"; errors of the fit grow by {self.inflation:.2f}"
        ]
        if self.spatial is not None:
            at = REACH
            text.append(
                f"noise of spaxels side by side: {self.spatial[at, at + 1]:.3f} in x, {self.spatial[at + 1, at]:.3f} in y, "
                f"{self.spatial[at + 1, at + 1]:.3f} and {self.spatial[at + 1, at - 1]:.3f} diagonally; of sums over N spaxels: "
                f"1 + {self.b:.2f} log10(N)"
            )
        return "\n".join(text)


def _disc(radius: float) -> np.ndarray:
    n = int(np.ceil(radius))
    y, x = np.indices((2 * n + 1, 2 * n + 1)) - n
    return x**2 + y**2 <= radius**2 * (1 + 1e-12)


def _round(count: int) -> np.ndarray:
    """Return the `count` spaxels that are closest to one of them."""
    n = int(np.ceil(np.sqrt(count / np.pi))) + 1
    y, x = np.indices((2 * n + 1, 2 * n + 1)) - n
    order = np.argsort((x**2 + y**2).ravel() + 1e-3 * np.arctan2(y, x).ravel(), kind="stable")
    picked = np.zeros(x.size, bool)
    picked[order[:count]] = True
    return picked.reshape(x.shape)


def _variance(picked: np.ndarray, spatial: np.ndarray) -> float:
    """Return the variance of the sum over picked spaxels, in units of that of independent ones."""
    n = spatial.shape[0] // 2
    inside = np.pad(picked.astype(float), n)
    total = 0.0
    for dy in range(-n, n + 1):
        for dx in range(-n, n + 1):
            total += spatial[n + dy, n + dx] * float((inside * np.roll(inside, (dy, dx), axis=(0, 1))).sum())
    return float(total / picked.sum())


def measured(fit: CubeFit) -> NoiseCorrelation:
    """Measure how the noise of a fitted cube is correlated.

    Between spaxels from residuals at one wavelength, divided by their errors and their own level, in blocks of the image;
    fits with structured residuals are left out, and so is what all spaxels have in common.
    """
    known = fit.fitter.pooled
    if known is None:
        from ifujax.inference.correlation import pooled
        from ifujax.lines.noise import signal_of, sums_of

        known = pooled(sums_of(fit.fitter, fit.found), signal_of(fit.fitter, fit.found))
    if fit.cube.bins is not None or min(fit.shape) == 1:
        return NoiseCorrelation(known, None, None)
    usable = (fit.found.status == 0) & ~fit.structure.piled
    chosen = _blocks(usable.reshape(fit.shape))
    residual, rows = _residuals(fit, np.flatnonzero(chosen.ravel()))
    if not len(rows):
        return NoiseCorrelation(known, None, None)
    size = 2 * REACH + 1
    place = np.full(fit.shape, -1)
    place.ravel()[rows] = np.arange(len(rows))
    found, error = np.full((size, size), np.nan), np.full((size, size), np.nan)
    found[REACH, REACH], error[REACH, REACH] = 1.0, 0.0
    ny, nx = fit.shape
    for dy in range(REACH + 1):
        for dx in range(-REACH, REACH + 1):
            if (dy == 0 and dx <= 0) or dy >= ny or abs(dx) >= nx:
                continue
            here = place[: ny - dy, max(0, -dx) : nx - max(0, dx)]
            there = place[dy:, max(0, dx) : nx - max(0, -dx)]
            both = (here >= 0) & (there >= 0)
            a, b = residual[here[both]], residual[there[both]]
            used = (a != 0) & (b != 0)
            if not used.any():
                continue
            value = float((a * b).sum() / np.sqrt((a[used] ** 2).sum() * (b[used] ** 2).sum()))
            for y, x in ((dy, dx), (-dy, -dx)):
                found[REACH + y, REACH + x], error[REACH + y, REACH + x] = value, 1.0 / np.sqrt(used.sum())
    if not np.isfinite(found[REACH, [REACH - 1, REACH + 1]]).any():
        return NoiseCorrelation(known, None, None)
    return NoiseCorrelation(known, np.nan_to_num(found), error)


def _blocks(usable: np.ndarray) -> np.ndarray:
    """Return usable spaxels (y, x) in blocks that lie all over the image, those with most of them first."""
    ny, nx = usable.shape
    if usable.sum() <= _SPAXELS:
        return usable
    corners = [(y, x) for y in range(0, ny, _BLOCK) for x in range(0, nx, _BLOCK)]
    counts = np.array([usable[y : y + _BLOCK, x : x + _BLOCK].sum() for y, x in corners])
    full = np.flatnonzero(counts >= min(0.5 * _BLOCK**2, counts.max()))
    wanted = full[np.unique(np.linspace(0, len(full) - 1, max(_SPAXELS // _BLOCK**2, 1)).round().astype(int))]
    chosen = np.zeros_like(usable)
    for k in wanted:
        y, x = corners[k]
        chosen[y : y + _BLOCK, x : x + _BLOCK] = usable[y : y + _BLOCK, x : x + _BLOCK]
    return chosen


def _residuals(fit: CubeFit, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return residuals (n, wave) of some spaxels in units of their noise, 0 where they do not count; and which these are."""
    if not len(rows):
        return np.zeros((0, fit.cube.shape[0])), rows
    spectra = fit.spectra(rows, components=False)
    left = spectra.data - spectra.model
    variance = fit.found.noise[rows, None] ** 2 if spectra.variance is None else spectra.variance
    used = spectra.fitted & np.isfinite(left) & (variance > 0)
    residual = np.where(used, left / np.sqrt(np.where(used, variance, 1.0)), 0.0)
    count = used.sum(axis=1)
    level = np.sqrt((residual**2).sum(axis=1) / np.maximum(count, 1))
    sound = level > 0
    rows, residual, used = rows[sound], residual[sound] / level[sound, None], used[sound]
    residual = np.clip(residual, -_CLIP, _CLIP)
    if len(rows) >= _ENOUGH_FOR_MEAN:
        common = residual.sum(axis=0) / np.maximum(used.sum(axis=0), 1)
        residual = np.where(used, residual - common, 0.0)
    return residual, rows
