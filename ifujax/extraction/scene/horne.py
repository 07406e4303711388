"""Sources one by one, weighted by the PSF, and what they would take of their neighbours' light."""

from __future__ import annotations

import numpy as np

from ifujax.data.cube import Cube
from ifujax.extraction.scene.field import planes_of
from ifujax.extraction.scene.psf import FieldPSF
from ifujax.extraction.scene.solve import nodes_of, sky_terms
from ifujax.extraction.spectra import SourceSpectrum

_RADIUS = 1.5
"""FWHM within which pixels count."""


def horne_spectra(
    cube: Cube, x: np.ndarray, y: np.ndarray, step: tuple[float, float], psf: FieldPSF, sky: np.ndarray
) -> list[SourceSpectrum]:
    """Return the PSF-weighted spectrum of each source by itself (Horne 1986, PASP 98, 609).

    ``sum(P d / v) / sum(P**2 / v)`` over pixels within 1.5 FWHM, P being the share of a point's flux in each: the total flux,
    with whatever neighbours add.

    Parameters
    ----------
    cube : Cube
    x, y : (source,) arrays
        0-based pixels where the sources are.
    step : (float, float)
        Width of a pixel (y, x), arcsec.
    psf : FieldPSF
    sky : (term, wave) array
        Coefficients of `sky_terms`, to be subtracted.
    """
    nodes, interpolation = nodes_of(cube.wavelength)
    radius = _RADIUS * psf.fwhm
    n_wave, n_y, n_x = cube.shape
    background = np.nan_to_num(sky)
    terms = sky_terms((n_y, n_x), int((np.sqrt(8 * len(sky) + 1) - 3) / 2 + 0.5))
    still = FieldPSF(psf.fwhm, psf.beta, psf.slope, psf.wavelength, psf.e1, psf.e2, 0.0, 0.0, psf.drift_x, psf.drift_y)
    found = []
    for at_x, at_y in zip(x, y):
        rows = slice(max(int(np.floor(at_y - radius / step[0])), 0), max(min(int(np.ceil(at_y + radius / step[0])) + 1, n_y), 0))
        columns = slice(
            max(int(np.floor(at_x - radius / step[1])), 0), max(min(int(np.ceil(at_x + radius / step[1])) + 1, n_x), 0)
        )
        if rows.start >= rows.stop or columns.start >= columns.stop:
            nothing = np.full(n_wave, np.nan)
            found.append(SourceSpectrum(nothing, None if cube.uncertainty is None else nothing))
            continue
        py, px = np.meshgrid(np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop), indexing="ij")
        away_x, away_y = (px.ravel() - at_x) * step[1], (py.ravel() - at_y) * step[0]
        keep = np.hypot(away_x, away_y) <= radius
        if not keep.any():
            keep[np.argmin(np.hypot(away_x, away_y))] = True
        near = terms[:, rows, columns].reshape(len(terms), -1)[:, keep]
        at_nodes = still.profiles(away_x[keep], away_y[keep], nodes, step[0] * step[1])
        top, bottom = np.zeros(n_wave), np.zeros(n_wave)
        for planes in planes_of(cube, (rows, columns)):
            profile = interpolation[planes.where] @ at_nodes
            ivar = planes.ivar.reshape(len(profile), -1)[:, keep]
            values = planes.values.reshape(len(profile), -1)[:, keep] - background[:, planes.where].T @ near
            top[planes.where] = (profile * ivar * values).sum(axis=1)
            bottom[planes.where] = (profile**2 * ivar).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            flux = np.where(bottom > 0, top / bottom, np.nan)
            variance = None if cube.uncertainty is None else np.where(bottom > 0, 1.0 / bottom, np.nan)
        found.append(SourceSpectrum(flux, variance))
    return found


def contaminations(flux: np.ndarray, x: np.ndarray, y: np.ndarray, step: tuple[float, float], psf: FieldPSF) -> np.ndarray:
    """Return the light of others in each source's PSF-weighted spectrum over its own, (source,), from the median fluxes."""
    with np.errstate(all="ignore"):
        typical = np.array([np.nanmedian(each) if np.isfinite(each).any() else np.nan for each in flux])
    radius = _RADIUS * psf.fwhm
    grid = np.arange(-radius, radius + 1e-9, psf.fwhm / 8)
    gy, gx = (each.ravel() for each in np.meshgrid(grid, grid, indexing="ij"))
    disc = np.hypot(gx, gy) <= radius
    gx, gy = gx[disc], gy[disc]
    still = FieldPSF(psf.fwhm, psf.beta, 0.0, psf.wavelength, psf.e1, psf.e2)
    wave = np.array([psf.wavelength])
    own = still.profiles(gx, gy, wave, 1.0)[0]
    leaked = np.full(len(x), np.nan)
    for k in range(len(x)):
        away = np.hypot((x - x[k]) * step[1], (y - y[k]) * step[0])
        near = np.flatnonzero((away < 8 * psf.fwhm) & (np.arange(len(x)) != k) & np.isfinite(typical))
        if not np.isfinite(typical[k]) or typical[k] == 0:
            continue
        if not near.size:
            leaked[k] = 0.0
            continue
        others = still.profiles(gx[:, None] - (x[near] - x[k]) * step[1], gy[:, None] - (y[near] - y[k]) * step[0], wave, 1.0)[0]
        leaked[k] = float((own @ others) @ typical[near] / (own @ own) / typical[k])
    return leaked
