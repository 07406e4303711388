"""The PSF of a field, the offset of its catalogue and how positions move with wavelength, fitted to its own sources.

Fluxes and sky are linear and are eliminated for every set of the other parameters (variable projection: Golub & Pereyra 1973,
SIAM J. Numer. Anal. 10, 413; with the Jacobian of Kaufman 1975, BIT 15, 49).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import OptimizeResult, least_squares

from ifujax.extraction.scene.field import Bands
from ifujax.extraction.scene.psf import NAMES, PER, FieldPSF, profiles_and_slopes
from ifujax.extraction.scene.shapes import ImageShape

_LOWER = {"log_fwhm": np.log(0.05), "inverse_beta": 0.02, "slope": -0.15, "e1": -0.6, "e2": -0.6}
_UPPER = {"log_fwhm": np.log(2.5), "inverse_beta": 0.7, "slope": 0.15, "e1": 0.6, "e2": 0.6}
_PRIORS = {
    "log_fwhm": (np.log(0.8), 0.4), "inverse_beta": (0.36, 0.2), "slope": (-0.03, 0.03), "dx": (0.0, 0.3), "dy": (0.0, 0.3),
    "e1": (0.0, 0.1), "e2": (0.0, 0.1), "drift_x": (0.0, 0.1), "drift_y": (0.0, 0.1),
}  # fmt: skip
"""Mean and width of what is known beforehand: what the data say nothing about stays there. Seeing of 0.4 to 1.6 arcsec, profiles
of beta 1.8 to 6, the slope of MUSE's fields (Bacon et al. 2017, A&A 608, A1: -2e-5 to -4e-5 arcsec per Angstrom)."""
_SCALES = {"log_fwhm": 0.1, "inverse_beta": 0.1, "slope": 0.03, "dx": 0.1, "dy": 0.1, "e1": 0.05, "e2": 0.05}
_ROUNDS = 3
"""Fits with the noise of each window scaled to what the model leaves there: stars count for more than what is no point."""
_SETTLED = 0.01
"""Change of the parameters, in units of `_SCALES`, below which no further round is made."""
_SELECTIONS = 3
"""Times that windows which are wider than the narrowest are left out."""
_KNOWN, _ALIKE = 0.1, 0.03
"""Relative error of a window's own FWHM below which it is known, and difference that all may have."""
_BACKGROUND = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
"""Powers of x and y of the background of a window: a halo behind a source is no part of its PSF."""
_NEAR = 0.75
"""Arcsec about the coarse offset within which the fine one is sought."""
_EXPLAINED = 0.7
"""Share of what the images show beside noise and a smooth background that the sources must explain, to be points."""
_WORK = 150_000
"""Pixels times sources from which on no further window is added: a crowded field needs few."""
_MIN_GAIN = 25.0
"""chi2 that the sources must explain for the PSF to be theirs: five sigma."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels that takes part in the fit of a PSF, and the sources that reach into it.

    Parameters
    ----------
    rows, columns : slice
    sources : (n,) int array
    """

    rows: slice
    columns: slice
    sources: np.ndarray


@dataclass(frozen=True)
class PSFFit:
    """A fitted PSF.

    Attributes
    ----------
    psf : FieldPSF
    errors : dict of str to float
        1 sigma, of ``fwhm``, ``beta``, ``slope``, ``dx``, ``dy``, and those of ellipticity and drifts that were free.
    reduced_chi2 : float
    gain : float
        chi2 that the sources explain.
    assumed : bool
        The sources are too faint, or no points: the fit is not to be used.
    """

    psf: FieldPSF
    errors: dict[str, float]
    reduced_chi2: float
    gain: float
    assumed: bool


def choose_windows(
    x: np.ndarray,
    y: np.ndarray,
    signal: np.ndarray,
    shape: tuple[int, int],
    half: tuple[int, int],
    reach: tuple[int, int],
    most: int,
) -> list[Window]:
    """Return windows about the brightest sources that don't overlap, and which sources reach into each.

    Parameters
    ----------
    x, y : (source,) arrays
        0-based pixels.
    signal : (source,) array
        Signal to noise.
    shape : (int, int)
        Of the field (y, x).
    half, reach : (int, int)
        Half the side of a window, and how far a source reaches, in pixels (y, x).
    most : int
        Windows at most.
    """
    taken = np.zeros(shape, dtype=bool)
    windows: list[Window] = []
    work = 0
    for k in np.argsort(-signal, kind="stable"):
        if len(windows) == most or work > _WORK:
            break
        row, column = round(float(y[k])), round(float(x[k]))
        if not (0 <= row < shape[0] and 0 <= column < shape[1]) or taken[row, column]:
            continue
        rows = slice(max(row - half[0], 0), min(row + half[0] + 1, shape[0]))
        columns = slice(max(column - half[1], 0), min(column + half[1] + 1, shape[1]))
        if taken[rows, columns].any():
            continue
        taken[rows, columns] = True
        near = (
            (y > rows.start - reach[0])
            & (y < rows.stop + reach[0])
            & (x > columns.start - reach[1])
            & (x < columns.stop + reach[1])
        )
        windows.append(Window(rows, columns, np.flatnonzero(near)))
        work += (rows.stop - rows.start) * (columns.stop - columns.start) * int(near.sum())
    return windows


def fit_psf(
    bands: Bands,
    windows: list[Window],
    x: np.ndarray,
    y: np.ndarray,
    step: tuple[float, float],
    start: FieldPSF,
    *,
    offset: bool = True,
    ellipticity: bool = False,
    drift: bool = False,
    shapes: Mapping[int, ImageShape] | None = None,
) -> PSFFit:
    """Fit the PSF that all sources of some windows share.

    Parameters
    ----------
    bands : Bands
    windows : list of Window
    x, y : (source,) arrays
        0-based pixels.
    step : (float, float)
        Width of a pixel (y, x), arcsec.
    start : FieldPSF
    offset, ellipticity, drift : bool
        What is free beside FWHM, its slope and beta.
    shapes : mapping of int to ImageShape, optional
        Sources that are no points. They are seen through the PSF of the round before.
    """
    free = tuple(
        k
        for k, name in enumerate(NAMES)
        if name in ("log_fwhm", "inverse_beta", "slope")
        or (name in ("dx", "dy") and offset)
        or (name in ("e1", "e2") and ellipticity)
        or (name.startswith("drift") and drift)
    )
    shapes = shapes or {}
    blocks = [_Block.of(bands, window, x, y, step, shapes) for window in windows]
    relative = (bands.wavelength - start.wavelength) / PER
    area = step[0] * step[1]
    base = start.vector
    prior = np.array([_PRIORS[NAMES[k]] for k in free])
    centre = prior[:, 0].copy()
    centre[[i for i, k in enumerate(free) if NAMES[k] in ("dx", "dy")]] = [
        base[k] for k in free if NAMES[k] in ("dx", "dy")
    ]  # the coarse offset is the prior's centre

    lower = np.array([_LOWER.get(NAMES[k], -np.inf) for k in free])
    upper = np.array([_UPPER.get(NAMES[k], np.inf) for k in free])
    for i, k in enumerate(free):
        if NAMES[k] in ("dx", "dy"):
            lower[i], upper[i] = centre[i] - _NEAR, centre[i] + _NEAR
    at = np.clip(base[list(free)], lower + 1e-9, upper - 1e-9)
    vector = base.copy()
    steps = np.array([_SCALES.get(NAMES[k], 0.05) for k in free])

    def settle(
        blocks: list[_Block], at: np.ndarray, vector: np.ndarray
    ) -> tuple[list[_Block], np.ndarray, np.ndarray, OptimizeResult]:
        """Fit again and again, the noise of each window scaled to what is left there."""
        for turn in range(_ROUNDS + 2 * bool(shapes)):
            before = at
            psf = FieldPSF.of(vector, start.wavelength)
            blocks = [block.seen_through(psf, bands.wavelength, shapes) for block in blocks]
            problem = _Problem(blocks, base, free, relative, area, centre, prior[:, 1])
            found = least_squares(
                problem.residuals, at, problem.slopes, bounds=(lower, upper),  # pyright: ignore[reportArgumentType]
                xtol=1e-5, ftol=1e-7, max_nfev=30, x_scale=steps,
            )  # fmt: skip
            at = np.clip(found.x, lower + 1e-9, upper - 1e-9)
            vector = vector.copy()
            vector[list(free)] = found.x
            scales = [block.noise_scale(vector, free, relative, area) for block in blocks]
            settled = bool(np.all(np.abs(at - before) < _SETTLED * steps))
            if (all(0.97 < scale < 1.03 for scale in scales) and not shapes) or settled or turn == _ROUNDS + 2 * bool(shapes) - 1:
                break
            blocks = [block.scaled(scale) for block, scale in zip(blocks, scales)]
        return blocks, at, vector, found

    blocks, at, vector, found = settle(blocks, at, vector)
    for _ in range(_SELECTIONS):
        points = _narrowest(blocks, vector, relative, area)
        if points.all():
            break
        chosen = [block.scaled(1.0 / block.scale) for block, point in zip(blocks, points) if point]
        blocks, at, vector, found = settle(chosen, at, vector)
    psf = FieldPSF.of(vector, start.wavelength)
    chi2 = float(np.sum(found.fun[len(free) :] ** 2))
    dof = max(sum(block.dof for block in blocks) - len(free), 1)
    n_fluxes = sum(len(block.images) * block.n_sources for block in blocks)
    without = sum(block.chi2_of_background() for block in blocks)
    gain = without - chi2 - n_fluxes
    # Where the noise was scaled up, what is left counts as such
    left = sum(block.scale**2 * block.chi2(vector, free, relative, area) - block.dof for block in blocks)
    shown = sum(block.scale**2 * block.chi2_of_background() - block.dof for block in blocks)
    bounded = np.min(np.minimum(at - lower, upper - at)[[NAMES[k] in ("log_fwhm", "dx", "dy") for k in free]]) < 1e-3
    assumed = gain < _MIN_GAIN or bounded or left > (1.0 - _EXPLAINED) * shown
    spread = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    errors = {NAMES[k]: float(error) for k, error in zip(free, spread)}
    errors["fwhm"] = errors.pop("log_fwhm") * psf.fwhm
    errors["beta"] = errors.pop("inverse_beta") * psf.beta**2
    scale = float(np.median([block.scale**2 for block in blocks]))
    return PSFFit(psf, errors, scale * chi2 / dof, float(gain), bool(assumed))


def _narrowest(blocks: list[_Block], vector: np.ndarray, relative: np.ndarray, area: float) -> np.ndarray:
    """Return which windows are as narrow as the narrowest that is well known: the others hold sources that are no points."""
    change, error = np.zeros(len(blocks)), np.full(len(blocks), np.inf)
    for k, block in enumerate(blocks):
        top = bottom = 0.0
        for residual, slope in block.look(vector, (0,), relative, area):
            top -= float(slope[:, 0] @ residual)
            bottom += float(slope[:, 0] @ slope[:, 0])
        if bottom > 0:
            change[k], error[k] = top / bottom, bottom**-0.5
    known = error < _KNOWN
    if known.sum() < 2:
        return np.ones(len(blocks), dtype=bool)
    narrow = int(np.flatnonzero(known)[np.argmin(change[known])])
    return ~known | (change - change[narrow] <= np.maximum(3.0 * np.hypot(error, error[narrow]), _ALIKE))


class _Problem:
    """Residuals of all windows and the priors, and their slopes; both are worked out at once."""

    def __init__(
        self, blocks: list[_Block], base: np.ndarray, free: tuple[int, ...], relative: np.ndarray, area: float,
        centre: np.ndarray, width: np.ndarray,
    ) -> None:  # fmt: skip
        self.blocks, self.base, self.free, self.relative, self.area = blocks, base, free, relative, area
        self.centre, self.width = centre, width
        self._at: bytes = b""
        self._found: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))

    def residuals(self, values: np.ndarray) -> np.ndarray:
        return self._look(values)[0]

    def slopes(self, values: np.ndarray) -> np.ndarray:
        return self._look(values)[1]

    def _look(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if values.tobytes() != self._at:
            vector = self.base.copy()
            vector[list(self.free)] = values
            residuals, slopes = [(values - self.centre) / self.width], [np.diag(1.0 / self.width)]
            for block in self.blocks:
                for residual, slope in block.look(vector, self.free, self.relative, self.area):
                    residuals.append(residual)
                    slopes.append(slope)
            self._at, self._found = values.tobytes(), (np.concatenate(residuals), np.concatenate(slopes))
        return self._found


@dataclass(frozen=True)
class _Block:
    """A window's images as whitened vectors, and the places of its pixels relative to its sources."""

    x: np.ndarray
    y: np.ndarray
    images: np.ndarray
    weights: np.ndarray
    background: np.ndarray
    window: Window
    extended: tuple[int, ...]
    fixed: np.ndarray
    scale: float = 1.0

    @classmethod
    def of(
        cls,
        bands: Bands,
        window: Window,
        x: np.ndarray,
        y: np.ndarray,
        step: tuple[float, float],
        shapes: Mapping[int, ImageShape],
    ) -> _Block:
        rows, columns = np.meshgrid(
            np.arange(window.rows.start, window.rows.stop), np.arange(window.columns.start, window.columns.stop), indexing="ij"
        )
        extended = tuple(int(k) for k in window.sources if k in shapes)
        points = np.array([k for k in window.sources if k not in shapes], int)
        away_x = (columns.reshape(-1, 1) - x[points]) * step[1]
        away_y = (rows.reshape(-1, 1) - y[points]) * step[0]
        values = bands.values[:, window.rows, window.columns].reshape(len(bands.wavelength), -1)
        variance = bands.variance[:, window.rows, window.columns].reshape(len(bands.wavelength), -1)
        with np.errstate(divide="ignore"):
            weights = np.where(np.isfinite(variance) & (variance > 0), variance, np.inf) ** -0.5
        v = (rows.ravel() - rows.mean()) / max(np.ptp(rows) / 2, 1)
        u = (columns.ravel() - columns.mean()) / max(np.ptp(columns) / 2, 1)
        background = np.stack([u**i * v**j for i, j in _BACKGROUND], axis=1)
        fixed = np.zeros((len(weights), weights.shape[1], len(extended)))
        return cls(away_x, away_y, values * weights, weights, background, window, extended, fixed)

    def seen_through(self, psf: FieldPSF, wavelengths: np.ndarray, shapes: Mapping[int, ImageShape]) -> _Block:
        """Return the window with its extended sources seen through a PSF."""
        if not self.extended:
            return self
        window = self.window
        seen = [shapes[k].profiles(psf, wavelengths, window.rows, window.columns) for k in self.extended]
        return replace(self, fixed=np.stack([each.reshape(len(each), -1) for each in seen], axis=2))

    @property
    def n_sources(self) -> int:
        return self.x.shape[1] + len(self.extended)

    @property
    def dof(self) -> int:
        """Good pixels less the linear parameters."""
        used = (self.weights > 0).sum(axis=1)
        return int(np.maximum(used - self.n_sources - len(_BACKGROUND), 0).sum())

    def chi2_of_background(self) -> float:
        """Return chi2 of the images without sources."""
        total = 0.0
        for image, weight in zip(self.images, self.weights):
            left = np.linalg.qr(self.background * weight[:, None])[0]
            total += float(np.sum((image - left @ (left.T @ image)) ** 2))
        return total

    def noise_scale(self, vector: np.ndarray, free: tuple[int, ...], relative: np.ndarray, area: float) -> float:
        """Return what the noise must be multiplied by for chi2 to be that of noise; never less than stated."""
        return float(max(np.sqrt(self.chi2(vector, free, relative, area) / max(self.dof, 1)), 1.0 / self.scale))

    def chi2(self, vector: np.ndarray, free: tuple[int, ...], relative: np.ndarray, area: float) -> float:
        """Return chi2 of the images, with the noise as it is scaled."""
        return sum(float(residual @ residual) for residual, _ in self.look(vector, (), relative, area))

    def scaled(self, factor: float) -> _Block:
        """Return the window with its noise multiplied."""
        return replace(self, images=self.images / factor, weights=self.weights / factor, scale=self.scale * factor)

    def look(self, vector: np.ndarray, free: tuple[int, ...], relative: np.ndarray, area: float):
        """Yield residuals (pixel,) of each image, and their slopes (pixel, parameter)."""
        values, slopes = profiles_and_slopes(vector, free, self.x, self.y, relative, area)
        for k, weight in enumerate(self.weights):
            design = np.concatenate([values[k], self.fixed[k], self.background], axis=1) * weight[:, None]
            scale = np.sqrt((design**2).sum(axis=0))
            scale[scale == 0] = 1.0
            left, singular, right = np.linalg.svd(design / scale, full_matrices=False)
            kept = singular > 1e-8 * singular[0] if singular[0] > 0 else np.zeros(len(singular), bool)
            left, singular, right = left[:, kept], singular[kept], right[kept]
            projected = left.T @ self.images[k]
            fluxes = ((right.T @ (projected / singular)) / scale)[: self.x.shape[1]]
            change = np.einsum("kps,s->pk", slopes[:, k], fluxes) * weight[:, None]
            yield self.images[k] - left @ projected, left @ (left.T @ change) - change
