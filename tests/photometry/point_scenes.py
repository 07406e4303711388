"""Pairs of images made of points by numpy and astropy alone: nothing of ifujax is in their truth.

Each point is a Moffat function of unit flux, sampled at pixel centres: that of HST in one image, that of MUSE in the other.
Galaxies are clouds of points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from astropy.wcs import WCS

import ifujax

HST_FWHM, HST_BETA = 0.085, 1.6
SIGMA = 0.05
TRUTH = {"fwhm": 0.65, "beta": 2.8, "dx": 0.12, "dy": -0.23, "scale": 0.95, "bg": 0.05}


def moffat(r2: np.ndarray, fwhm: float, beta: float) -> np.ndarray:
    alpha2 = fwhm**2 / (4.0 * (2.0 ** (1.0 / beta) - 1.0))
    return (beta - 1.0) / (np.pi * alpha2) * (1.0 + r2 / alpha2) ** -beta


@dataclass(frozen=True)
class Points:
    """Offsets in arcsec from the centre, along +x and +y of both images, and fluxes."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray

    def image(self, shape: tuple[int, int], pixel: float, fwhm: float, beta: float) -> np.ndarray:
        """Flux per pixel."""
        y, x = (np.arange(n) - 0.5 * (n - 1) for n in shape)
        found = np.zeros(shape)
        for at_x, at_y, flux in zip(self.x, self.y, self.flux):
            found += flux * moffat((x[None] * pixel - at_x) ** 2 + (y[:, None] * pixel - at_y) ** 2, fwhm, beta)
        return found * pixel**2

    def moved(self, dx: float, dy: float) -> Points:
        return replace(self, x=self.x + dx, y=self.y + dy)


def scene(seed: int = 1, size: float = 9.0, n_stars: int = 4, n_galaxies: int = 8, brightest: float = 60.0) -> Points:
    """Stars and clouds of points within `size` arcsec; the first point is the brightest star, 2 arcsec off the centre."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-0.5 * size, 0.5 * size, (2, n_stars))
    x[0], y[0] = -1.5, 1.3
    flux = brightest * np.geomspace(1.0, 0.2, n_stars)
    for _ in range(n_galaxies):
        centre, spread = rng.uniform(-0.5 * size, 0.5 * size, 2), rng.uniform(0.1, 0.4)
        places = centre[:, None] + rng.normal(0.0, spread, (2, 12))
        x, y = np.concatenate([x, places[0]]), np.concatenate([y, places[1]])
        flux = np.concatenate([flux, np.full(12, rng.uniform(0.3, 1.0) * brightest / 12)])
    return Points(x, y, flux)


def celestial(shape: tuple[int, int], pixel: float) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.1, -27.8]
    wcs.wcs.crpix = [0.5 * (shape[1] + 1), 0.5 * (shape[0] + 1)]
    wcs.wcs.cdelt = [-pixel / 3600.0, pixel / 3600.0]
    wcs.wcs.cunit = ["deg", "deg"]
    return wcs


def as_image(values: np.ndarray, pixel: float, variance: np.ndarray | None = None, name: str = "") -> ifujax.Image:
    wcs = celestial(values.shape, pixel)
    return ifujax.Image(values, variance=variance, unit="10**(-20)*erg/s/cm**2/Angstrom", celestial=wcs, name=name)


def hst_image(points: Points, size: float = 18.0, pixel: float = 0.03) -> ifujax.Image:
    n = round(size / pixel / 2) * 2
    return as_image(points.image((n, n), pixel, HST_FWHM, HST_BETA), pixel, name="hst")


def muse_signal(points: Points, shape: tuple[int, int] = (48, 48), **changes: float) -> np.ndarray:
    """What MUSE would see without noise."""
    truth = {**TRUTH, **changes}
    moved = points.moved(truth["dx"], truth["dy"])
    return truth["scale"] * moved.image(shape, 0.2, truth["fwhm"], truth["beta"]) + truth["bg"]


def muse_image(signal: np.ndarray, seed: int, sigma: float = SIGMA, noise: np.ndarray | None = None) -> ifujax.Image:
    """A signal with noise; `noise` of variance 1 in place of independent one."""
    drawn = np.random.default_rng(seed).normal(size=signal.shape) if noise is None else noise
    return as_image(signal + sigma * drawn, 0.2, np.full(signal.shape, sigma**2), name=f"muse{seed}")


def drizzled(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Noise of variance 1 whose neighbours are correlated by 0.5, as pixels spread over four make it."""
    white = rng.normal(size=(shape[0] + 1, shape[1] + 1))
    return (white[1:, 1:] + white[:-1, 1:] + white[1:, :-1] + white[:-1, :-1]) / 2.0
