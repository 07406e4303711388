"""A field of point sources as an integral-field unit sees it: a cube, its catalogue, and the truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.data.cube import Cube
from ifujax.errors import UsageError

_REACH = 8.0
"""FWHM of a source that are drawn."""
_LINES = (4861.3, 5006.8, 6562.8)
"""Rest wavelengths of the lines that sources have, Angstrom."""


@dataclass(frozen=True, eq=False)
class SimulatedField:
    """What `simulate_field` makes.

    Attributes
    ----------
    cube : Cube
        With a variance and celestial coordinates.
    x, y : (source,) arrays
        0-based pixels.
    ra, dec : (source,) arrays
        Degrees.
    spectra : (source, wave) array
        The true flux densities.
    redshifts : (source,) array
    fwhm : (wave,) array
        Arcsec.
    beta : float
    """

    cube: Cube
    x: np.ndarray
    y: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    spectra: np.ndarray = field(repr=False)
    redshifts: np.ndarray = field(repr=False)
    fwhm: np.ndarray = field(repr=False)
    beta: float = 2.5


def simulate_field(
    n_sources: int,
    *,
    shape: tuple[int, int] = (60, 60),
    wavelength: np.ndarray | None = None,
    step: float = 0.2,
    fwhm: float = 0.7,
    slope: float = -0.03,
    beta: float = 2.5,
    flux: tuple[float, float] = (1.0, 30.0),
    noise: float = 0.1,
    sky: float = 0.0,
    seed: int = 0,
) -> SimulatedField:
    """Return a cube of point sources with smooth continua and emission lines at redshifts from 0 to 0.3.

    Parameters
    ----------
    n_sources : int
    shape : (int, int)
        Pixels (y, x).
    wavelength : (wave,) array, optional
        Angstrom, evenly spaced; 4750 to 9350 in steps of 5 by default.
    step : float
        Width of a pixel, arcsec.
    fwhm : float
        Of the Moffat PSF at 7000 Angstrom, arcsec.
    slope : float
        Its relative change per 1000 Angstrom.
    beta : float
        Exponent, above 1.
    flux : (float, float)
        Continua lie between these, evenly in the logarithm.
    noise : float
        Standard deviation of a voxel.
    sky : float
        Added everywhere.
    seed : int

    Raises
    ------
    UsageError
        For numbers out of range.

    Examples
    --------
    >>> made = simulate_field(3, shape=(30, 30), seed=1)
    >>> made.cube.shape, made.spectra.shape
    ((920, 30, 30), (3, 920))
    """
    if n_sources < 1:
        raise UsageError(f"n_sources must be 1 or more; got {n_sources}.")
    if not (fwhm > 0 and beta > 1 and noise > 0 and 0 < flux[0] <= flux[1]):
        raise UsageError(
            f"fwhm, noise and flux must be positive and beta above 1; got fwhm={fwhm}, noise={noise}, flux={flux}, beta={beta}."
        )
    rng = np.random.default_rng(seed)
    wavelength = np.arange(4750.0, 9350.0, 5.0) if wavelength is None else np.asarray(wavelength, float)
    n_y, n_x = shape
    x, y = rng.uniform(2.0, n_x - 3.0, n_sources), rng.uniform(2.0, n_y - 3.0, n_sources)
    level = np.exp(rng.uniform(np.log(flux[0]), np.log(flux[1]), n_sources))
    redshifts = rng.uniform(0.0, 0.3, n_sources)
    tilt = rng.normal(0.0, 0.5, n_sources)
    spectra = level[:, None] * (wavelength / 7000.0) ** tilt[:, None]
    for rest in _LINES:
        at = rest * (1.0 + redshifts)[:, None]
        spectra += (level * rng.uniform(0.5, 3.0, n_sources))[:, None] * np.exp(-0.5 * ((wavelength - at) / 4.0) ** 2)
    widths = fwhm * (1.0 + slope * (wavelength - 7000.0) / 1000.0)
    alpha2 = widths**2 / (4.0 * (2.0 ** (1.0 / beta) - 1.0))
    reach = int(np.ceil(_REACH * fwhm / step))
    values = rng.normal(sky, noise, (len(wavelength), n_y, n_x)).astype(np.float32)
    for s in range(n_sources):
        rows = slice(max(int(y[s]) - reach, 0), min(int(y[s]) + reach + 2, n_y))
        columns = slice(max(int(x[s]) - reach, 0), min(int(x[s]) + reach + 2, n_x))
        py, px = np.mgrid[rows, columns]
        r2 = ((py - y[s]) ** 2 + (px - x[s]) ** 2) * step**2
        peak = spectra[s] * step**2 * (beta - 1.0) / (np.pi * alpha2)
        values[:, rows, columns] += (peak[:, None, None] * (1.0 + r2[None] / alpha2[:, None, None]) ** -beta).astype(np.float32)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [(n_x + 1) / 2, (n_y + 1) / 2]
    wcs.wcs.cd = np.diag([-step / 3600.0, step / 3600.0])
    ra, dec = wcs.wcs_pix2world(x, y, 0)
    cube = Cube(
        values, wavelength, np.full(values.shape, noise**2, np.float32), "variance", unit="10**(-20)*erg/s/cm**2/Angstrom",
        medium="air", header=fits.Header(), celestial=wcs,
    )  # fmt: skip
    return SimulatedField(cube, x, y, np.asarray(ra), np.asarray(dec), spectra, redshifts, widths, beta)
