"""Spaxels made ready to fit: background off, rejection polynomial, weights, outliers masked."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import UsageError
from ifujax.inference.batching import pixel_bucket
from ifujax.lines.beside_lines import LINE_REACH, fit_beside, line_distance
from ifujax.lines.config import LineFitConfig
from ifujax.lines.continuum import RejectionFit, fit_rejection, rejection_weights, response_of
from ifujax.lines.setup import Setup
from ifujax.lines.starts.search import StartFinder
from ifujax.models.continuum import legendre_basis
from ifujax.robust import MAD_TO_SIGMA, row_median

_ROWS_AT_ONCE = 256
"""Rows that stay in cache through all the passes below."""
_CLIP_FLOOR = 4.0
"""In a joint fit only clipped pixels beyond this many standard deviations are masked: the asymmetric
thresholds of the rejection polynomial also clip plain noise, whose loss would bias the continuum."""
_FOLLOWED = 3.0
"""Observed sigma about a line, where it is found, to which its window is widened; the guess may be too narrow, or aside."""
_FEATURE_EDGE = 1.0
"""Where a feature beyond the windows of `optimize_fit` ends, in standard deviations."""
_FEWEST_LINE_FREE = 10
_UNEVEN = 3.0
"""How much higher than before, in units of the noise, a pixel of a line's falling wing may be."""
"""Standard deviation over median absolute deviation, for normal noise."""


@dataclass(frozen=True)
class Prepared:
    """Spectra ready to fit, padded in wavelength; one row a spaxel.

    `values` are what the engine fits, `residual` the data less the rejection polynomial (where the start
    search looks), `background` what was taken off `values`; ``polynomial (n, K)`` its coefficients.
    `noise` is the estimated noise, NaN where a variance was given; `constant` spaxels hold one value only.
    ``moved_weight (n, n_pix)``, ``moved_inverse (n, K, K)`` and ``moved_extra (n,)`` say how noise moves a polynomial that was
    taken off, as in `ifujax.inference.subtracted.Subtracted`; they hold no pixels and no coefficients where none was.
    """

    values: np.ndarray
    residual: np.ndarray
    ivar: np.ndarray
    background: np.ndarray
    polynomial: np.ndarray
    noise: np.ndarray
    constant: np.ndarray
    dropped_variance: np.ndarray
    moved_weight: np.ndarray
    moved_inverse: np.ndarray
    moved_extra: np.ndarray


@dataclass(frozen=True)
class LineRegions:
    """Where lines are: their rest wavelengths (lines,), guessed sigma (lines,), reach and windows (lines, 2), as of a `Setup`."""

    rest_wavelengths: np.ndarray
    sigma: np.ndarray
    reach: np.ndarray
    windows: np.ndarray | None

    @classmethod
    def of(cls, *setups: Setup) -> LineRegions:
        """Return the lines of one setup or of several together, which then agree on noise and usable pixels."""
        windows = [setup.line_windows for setup in setups if setup.line_windows is not None]
        return cls(
            np.concatenate([np.asarray(setup.model.rest_wavelengths) for setup in setups]),
            np.concatenate([setup.guess_sigma for setup in setups]),
            np.concatenate([setup.reach for setup in setups]),
            np.concatenate(windows) if len(windows) == len(setups) else None,
        )


class Preparation:
    """Prepares any spaxels of one cube. `frozen` is a continuum given by the user, (wave,) or (wave, y, x).

    The noise is estimated and outliers are sought away from the lines of `regions`, the setup's by default.
    """

    def __init__(
        self, cube: Cube, config: LineFitConfig, setup: Setup, frozen: np.ndarray | None, regions: LineRegions | None = None
    ) -> None:
        self.cube, self.config, self.frozen = cube, config, frozen
        self.rest = cube.rest_wavelength
        self.window = (float(self.rest[0]), float(self.rest[-1]))
        self.n_pix = pixel_bucket(len(self.rest))
        self.degree = None if config.continuum.mode == "none" else config.model.continuum_degree
        options = config.continuum
        regions = LineRegions.of(setup) if regions is None else regions
        degree = -1 if self.degree is None else self.degree
        self.basis = np.zeros((degree + 1, self.n_pix))
        if self.degree is not None:
            self.basis[:, : len(self.rest)] = legendre_basis(self.rest, *self.window, degree)
        self.weights = rejection_weights(self.rest, regions.rest_wavelengths, regions.sigma, options.line_weight, options.weights)
        self.line_free = ~_inside_any(self.rest, regions.reach)
        self.outside = None if regions.windows is None else ~_inside_any(self.rest, regions.windows)
        self._finders: tuple[StartFinder, ...] = ()
        self.fitted = np.ones(len(self.rest), bool)
        if self.outside is not None and options.mode != "joint":
            self.fitted = ~self.outside
            if not self.fitted.any():
                raise UsageError("optimization_window must hold a pixel of the cube; it holds none. Widen it.")

    def find_lines(self, *finders: StartFinder) -> None:
        """Let a frozen continuum leave out the lines of `finders`, which were made for this wavelength axis."""
        self._finders = finders

    def __call__(self, rows: np.ndarray) -> Prepared:
        """Read and prepare spaxels (flat indices)."""
        parts = [self._some(rows[i : i + _ROWS_AT_ONCE]) for i in range(0, len(rows), _ROWS_AT_ONCE)]
        kind = type(parts[0])
        return kind(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(kind)))

    def _some(self, rows: np.ndarray) -> Prepared:
        spaxels = self.cube.spaxels(rows)
        good, values = ~spaxels.bad, spaxels.values
        background = np.zeros((len(rows), 0))
        if spaxels.stellar is not None:
            background = spaxels.stellar
        if self.frozen is not None:
            frozen = self.frozen[None] if self.frozen.ndim == 1 else self.frozen.reshape(len(self.frozen), -1)[:, rows].T
            background = frozen * (1.0 + self.cube.redshift) + (background if background.size else 0.0)
            finite = np.isfinite(background)
            good &= finite
            background = np.broadcast_to(np.where(finite, background, 0.0), values.shape)
        if background.size:
            values = np.where(good, values - background, 0.0)
        lowest = np.where(good, values, np.inf).min(axis=1)
        constant = lowest == np.where(good, values, -np.inf).max(axis=1)
        fit, residual, distance = self._rejection(values, good, spaxels.variance)
        clipped = np.zeros_like(good) if fit is None else good & ~fit.kept
        if self.config.continuum.mode == "rejection":
            background = (background if background.size else 0.0) + (values - residual)
            values = residual
        reach = min(self.config.fit.optimization_window, _FOLLOWED)
        ivar, noise = self._weights(spaxels.variance, residual, good, clipped, None if distance is None else distance <= reach)
        if self.config.continuum.mode == "joint":
            ivar[self._outliers(residual, ivar, clipped)] = 0.0
        ivar[constant] = 0.0
        if background.size:
            background = _bridged(background, good)
        pad = [(0, 0), (0, self.n_pix - len(self.rest))]
        values, residual, ivar = (np.pad(array, pad) for array in (values, residual, ivar))
        background = np.pad(background, pad) if background.size else background
        polynomial = np.zeros((len(rows), 0)) if fit is None else fit.coefficients
        moved = np.zeros((len(rows), 0)), np.zeros((len(rows), 0, 0)), np.zeros(len(rows))
        if fit is not None and self.config.continuum.mode == "rejection":
            sigma = np.nan_to_num(noise)[:, None] if spaxels.variance is None else np.sqrt(spaxels.variance)
            weight, *moved_by = response_of(fit, self.basis[:, : len(self.rest)], good, self.weights, sigma)
            moved = np.pad(weight, pad), *moved_by
        return Prepared(values, residual, ivar, background, polynomial, noise, constant, spaxels.dropped_variance, *moved)

    def _rejection(
        self, values: np.ndarray, good: np.ndarray, variance: np.ndarray | None
    ) -> tuple[RejectionFit | None, np.ndarray, np.ndarray | None]:
        """Return the rejection polynomial, and the data less it.

        And, where the continuum is frozen, how far each pixel is from the nearest line.
        """
        if self.degree is None:
            return None, values, None
        options = self.config.continuum
        fit = fit_rejection(
            self.rest,
            self.window,
            values,
            good,
            self.weights,
            degree=self.degree,
            n_iterate=options.n_iterate,
            lower_threshold=options.lower_threshold,
            upper_threshold=options.upper_threshold,
        )
        distance = None
        if options.mode == "rejection" and self._finders:
            ivar = np.where(good, 1.0, 0.0) if variance is None else good / np.where(variance > 0, variance, np.inf)
            first = np.where(good, values - fit.continuum, 0.0)
            distance = line_distance(self._finders, self.rest, np.nan_to_num(first), ivar, self.n_pix)
            threshold = min(options.lower_threshold, options.upper_threshold) if options.n_iterate else np.inf
            lines = distance <= LINE_REACH
            fit = fit_beside(self.rest, self.window, values, good, lines, self.weights, fit, threshold)
        level, failed = fit.continuum, np.isnan(fit.coefficients[:, 0])
        if failed.any():
            level[failed] = row_median(values[failed], good[failed])[:, None]
        return fit, np.where(good, values - level, 0.0), distance

    def _wings(self, pulls: np.ndarray, clipped: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Clipped pixels that continue a line broader than its guess, or beside it: these are neither outliers nor noise.

        They are joined to where lines are expected, beyond the pixels that are `free`, through clipped pixels, single gaps
        allowed. Where the bounds don't let a line come they fall off from there (by the noise, 1 in units of `pulls`, give
        or take): another line that follows is none of the wing.
        """
        height = np.abs(pulls)
        reached = np.where(free, -np.inf, height)
        found = np.zeros_like(clipped)
        while True:
            before = np.full_like(height, -np.inf)
            for step in (1, 2):
                np.maximum(before[:, step:], reached[:, :-step], out=before[:, step:])
                np.maximum(before[:, :-step], reached[:, step:], out=before[:, :-step])
            more = clipped & free & ~found & np.where(self.line_free, height <= before + _UNEVEN, np.isfinite(before))
            if not more.any():
                return found
            reached[more] = np.where(self.line_free, np.minimum(height, before), height)[more]
            found |= more

    def _weights(
        self,
        variance: np.ndarray | None,
        residual: np.ndarray,
        good: np.ndarray,
        clipped: np.ndarray,
        near: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return inverse variances and the noise of each spaxel (NaN where the variance was given).

        Pixels `near` a line are fitted though they lie beyond the windows about the guesses.
        """
        usable = good & (self.fitted if near is None else self.fitted | near)
        if variance is not None:
            # Bad pixels come with a variance of 1, good ones with a positive one.
            ivar = usable / variance
            return np.where(np.isfinite(ivar), ivar, 0.0), np.full(len(residual), np.nan)
        noise = self._noise(residual, good, clipped)
        with np.errstate(divide="ignore", invalid="ignore"):
            ivar = np.where(usable & (noise > 0)[:, None], 1.0 / (noise**2)[:, None], 0.0)
        return np.where(np.isfinite(ivar), ivar, 0.0), noise

    def _noise(self, residual: np.ndarray, good: np.ndarray, clipped: np.ndarray) -> np.ndarray:
        """Standard deviation of each spaxel's line-free residuals (all of them where these are few), outliers left out."""
        free = good & self.line_free
        few = free.sum(axis=1) < _FEWEST_LINE_FREE
        free = np.where(few[:, None], good, free)
        rough = MAD_TO_SIGMA * row_median(np.abs(residual - row_median(residual, free)[:, None]), free & ~clipped)
        pulls = residual / np.where(rough > 0, rough, np.inf)[:, None]
        free &= few[:, None] | ~self._wings(pulls, clipped, self.line_free)
        centre = row_median(residual, free)[:, None]
        rough = MAD_TO_SIGMA * row_median(np.abs(residual - centre), free)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = free & (np.abs(residual - centre) <= _CLIP_FLOOR * rough)
            dof = inside.sum(axis=1) - (0 if self.degree is None else self.degree + 1)
            return np.sqrt((np.where(inside, residual, 0.0) ** 2).sum(axis=1) / np.maximum(dof, 1))

    def _outliers(self, residual: np.ndarray, ivar: np.ndarray, clipped: np.ndarray) -> np.ndarray:
        """Clipped pixels away from the lines that neither noise nor the lines' wings explain.

        With `optimize_fit` these are beyond the lines' windows, and the rest of what stands out there goes with them.
        """
        free = self.line_free if self.outside is None else self.outside
        candidates = clipped & free
        # The medians below are only worth their time where something stands out at all.
        pulls = np.abs(residual) * np.sqrt(ivar)
        rows = np.flatnonzero((candidates & (pulls > 0.5 * _CLIP_FLOOR)).any(axis=1))
        out = np.zeros_like(candidates)
        if rows.size:
            scatter = MAD_TO_SIGMA * row_median(pulls[rows], (ivar[rows] > 0) & self.line_free)
            relative = pulls[rows] / np.where(scatter > 0, scatter, np.inf)[:, None]
            wings = self._wings(relative, clipped[rows], free)
            out[rows] = candidates[rows] & (relative > _CLIP_FLOOR) & ~wings
            if self.outside is not None:
                sign = np.sign(residual[rows])
                out[rows] = _grown(out[rows], sign * np.where(relative > _FEATURE_EDGE, 1.0, 0.0), self.outside & ~wings)
        return out


def _grown(found: np.ndarray, sign: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Pixels (n, wave) joined to those `found` by pixels of the same `sign` (0: of none) that are `allowed`."""
    while True:
        more = np.zeros_like(found)
        same = allowed & (sign != 0)
        joined = sign[:, 1:] == sign[:, :-1]
        more[:, 1:] |= found[:, :-1] & joined
        more[:, :-1] |= found[:, 1:] & joined
        more &= same & ~found
        if not more.any():
            return found
        found = found | more


def _inside_any(wavelength: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    return np.asarray(((wavelength >= ranges[:, :1]) & (wavelength <= ranges[:, 1:])).any(axis=0))


def _bridged(background: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return the background with bad pixels, where it is unknown, bridged by straight lines: equivalent widths divide by it."""
    result, pixels = np.array(background), np.arange(background.shape[1])
    for row in np.flatnonzero(~good.all(axis=1) & good.any(axis=1)):
        bad = ~good[row]
        result[row, bad] = np.interp(pixels[bad], pixels[good[row]], background[row, good[row]])
    return result
