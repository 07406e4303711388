"""Fields of point sources with known spectra, made in numpy alone: the package's own simulator is not asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifujax.data.cube import Cube

STEP = 0.2
"""Arcsec per pixel."""


@dataclass(frozen=True)
class Field:
    """A cube with its truth: positions in pixels, spectra (source, wave) and profiles (wave, pixel, source)."""

    cube: Cube
    x: np.ndarray
    y: np.ndarray
    spectra: np.ndarray
    profiles: np.ndarray


def point(x: np.ndarray, y: np.ndarray, fwhm: float, beta: float | None) -> np.ndarray:
    """Share of the flux in pixels at distances in arcsec: a Gaussian, or a Moffat profile of that beta."""
    r2 = x**2 + y**2
    if beta is None:
        sigma = fwhm / np.sqrt(8 * np.log(2))
        return STEP**2 * np.exp(-0.5 * r2 / sigma**2) / (2 * np.pi * sigma**2)
    alpha2 = fwhm**2 / (4 * (2 ** (1 / beta) - 1))
    return STEP**2 * (beta - 1) / (np.pi * alpha2) * (1 + r2 / alpha2) ** -beta


def field(
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    spectra: np.ndarray,
    wavelength: np.ndarray,
    *,
    shape: tuple[int, int] = (30, 30),
    noise: float = 0.08,
    sky: float = 0.01,
    fwhm: float = 0.7,
    beta: float | None = None,
    slope: float = -0.03,
    width: np.ndarray | None = None,
) -> Field:
    """A field of sources seen through one PSF; `width` (source,) in arcsec makes Gaussians of some."""
    rows, columns = np.indices(shape)
    away_x = (columns.reshape(-1, 1) - x) * STEP
    away_y = (rows.reshape(-1, 1) - y) * STEP
    widths = fwhm * (1 + slope * (wavelength - 7000.0) / 1000.0)
    if width is None:
        profiles = np.stack([point(away_x, away_y, each, beta) for each in widths])
    else:
        profiles = np.stack(
            [
                np.stack([point(away_x[:, s], away_y[:, s], np.hypot(each, width[s]), beta) for s in range(len(x))], axis=1)
                for each in widths
            ]
        )
    model = np.einsum("wps,sw->wp", profiles, spectra) + sky
    values = (model + rng.normal(0, noise, model.shape)).reshape(len(wavelength), *shape)
    cube = Cube(values, wavelength, np.full(values.shape, noise**2), "variance", unit="1e-20 erg/s/cm2/Angstrom")
    return Field(cube, np.asarray(x), np.asarray(y), spectra, profiles)


WAVELENGTH = np.arange(4750.0, 9350.0, 10.0)
LINES = (np.array([5100.0, 6600.0, 8100.0]), np.array([5600.0, 7100.0, 8600.0]))


def pair_spectra(levels: tuple[float, float] = (1.0, 4.0)) -> np.ndarray:
    """Two sources with three lines each, at other wavelengths: what one takes of the other shows."""
    made = []
    for level, centres in zip(levels, LINES):
        lines = sum(np.exp(-0.5 * (WAVELENGTH - each) ** 2 / 12.0**2) for each in centres)
        made.append(level * (1.0 + 4.0 * lines))
    return np.stack(made)


def pair(rng: np.random.Generator, separation: float, *, beta: float | None = None, **options: object) -> Field:
    """Two sources `separation` arcsec apart, in any direction, about the middle of a field of 6 arcsec."""
    angle = rng.uniform(0, 2 * np.pi)
    middle = 14.5 + rng.uniform(-0.5, 0.5, 2)
    half = 0.5 * separation / STEP * np.array([np.cos(angle), np.sin(angle)])
    x, y = np.array([middle[0] - half[0], middle[0] + half[0]]), np.array([middle[1] - half[1], middle[1] + half[1]])
    return field(rng, x, y, pair_spectra(), WAVELENGTH, beta=beta, **options)


def contamination(flux: np.ndarray, truth: np.ndarray, of: int, by: int) -> float:
    """The share of the lines of source `by` that turns up in source `of`."""
    lines = truth[by] - np.median(truth[by])
    lines = lines - lines.mean()
    return float((flux[of] - truth[of]) @ lines / (lines @ lines))
