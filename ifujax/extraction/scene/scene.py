"""`extract_scene`: the sources of a field, each a point seen through one PSF, fitted together at every wavelength."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.extraction.scene.field import Bands, bands_of, made_ready
from ifujax.extraction.scene.horne import contaminations, horne_spectra
from ifujax.extraction.scene.offset import coarse_offset
from ifujax.extraction.scene.psf import FieldPSF
from ifujax.extraction.scene.psf_fit import PSFFit, choose_windows, fit_psf
from ifujax.extraction.scene.solve import SceneSolution, Shapes, choose_sky_degree, make_tiles, nodes_of, solve_scene
from ifujax.extraction.spectra import SourceSpectrum
from ifujax.progress import Progress

_BANDS = 8
_BRIGHTEST = 25
"""Sources that the PSF is fitted to, at most."""
_WINDOW = 2.5
"""Arcsec: half the side of a window of the fit of the PSF."""
_WIDE, _WIDEST = 3.5, 9.0
"""FWHM that it must be at least, up to this many arcsec: else the background takes the wings for its own."""
_TWINS = 0.05
"""FWHM within which two rows of a catalogue are one source."""
_START = FieldPSF(fwhm=0.8, beta=2.8, slope=-0.03)
_REACHES = (3.0, 6.0)
"""FWHM within which sources are taken to have their light: where a Moffat profile has less than `_LOST` beyond."""
_LOST = 0.005
_SURROUNDINGS = 8.0
"""Arcsec about the sources of which pixels tell the sky."""


@dataclass(frozen=True)
class SceneOptions:
    """Settings of the scene model.

    Parameters
    ----------
    psf : FieldPSF, optional
        Known, and not fitted; positions are those of the catalogue moved by its ``dx`` and ``dy``.
    offset, ellipticity, refraction : bool
        Whether an offset of the catalogue, the PSF's ellipticity and a drift of positions with wavelength are fitted.
    search : float
        Arcsec within which the offset is looked for.
    sky_degree : int, optional
        Of the polynomial over the field that is the sky at every wavelength; by default what the field calls for (0 to 4).
    nonnegative : bool
        No flux below 0. Faint sources come out too bright.
    reach : float, optional
        Arcsec from a source beyond which it has no light; by default where 0.5 % of the PSF's lies.
    """

    psf: FieldPSF | None = None
    offset: bool = True
    ellipticity: bool = False
    refraction: bool = False
    search: float = 2.5
    sky_degree: int | None = None
    nonnegative: bool = False
    reach: float | None = None

    def __post_init__(self) -> None:
        if self.sky_degree is not None and not (isinstance(self.sky_degree, int) and 0 <= self.sky_degree <= 4):
            raise UsageError(f"sky_degree must be a whole number from 0 to 4; got {self.sky_degree!r}.")
        if self.reach is not None and not self.reach > 0:
            raise UsageError(f"reach must be a positive number of arcsec; got {self.reach!r}.")
        if not self.search >= 0:
            raise UsageError(f"search must be arcsec, 0 or more; got {self.search!r}.")


@dataclass(frozen=True, eq=False)
class Scene:
    """The sources of a field and what they emit.

    Attributes
    ----------
    wavelength : (wave,) array
        Angstrom.
    flux, error : (source, wave) arrays
        Total flux density of each source in the unit of the cube, and 1 sigma; NaN where a source isn't seen.
    sky : (wave,) array
        At the middle of the field.
    psf : FieldPSF
    psf_fit : PSFFit or None
        None for a PSF that was given.
    x, y : (source,) arrays
        0-based pixels of the catalogue.
    correlation : (source, source) array
        Of the errors of two sources, the median over wavelength.
    inflation : (source,) array
        How many times as large as if the source stood alone its errors are.
    contamination : (source,) array
        Light of the others that a PSF-weighted extraction of this source alone takes for its own, over its own flux.
    twins : (source,) bool array
        Sources at the place of an earlier one, which has all the light; their fluxes are NaN.
    misfit, residual : (source,) arrays
        Of what is left in the core of the source, all wavelengths together: chi2 per degree of freedom, and its size relative to
        the source. Where both are large it is no point, or a neighbour is missing in the catalogue.
    horne : list of SourceSpectrum
        Of each source alone, weighted by the PSF (Horne 1986), the scene's sky subtracted.
    solution : SceneSolution
    unit : str
        Of `flux`.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    psf: FieldPSF
    psf_fit: PSFFit | None
    x: np.ndarray
    y: np.ndarray
    contamination: np.ndarray
    twins: np.ndarray
    horne: list[SourceSpectrum] = field(repr=False)
    solution: SceneSolution = field(repr=False)
    unit: str = ""

    @property
    def sky(self) -> np.ndarray:
        return self.solution.sky[0]

    @property
    def correlation(self) -> np.ndarray:
        return self.solution.covariance

    @property
    def inflation(self) -> np.ndarray:
        return self.solution.inflation

    @property
    def misfit(self) -> np.ndarray:
        return self.solution.misfit

    @property
    def residual(self) -> np.ndarray:
        return self.solution.residual

    def spectrum(self, k: int) -> SourceSpectrum:
        """Return the spectrum of a source, by its place in the catalogue."""
        return SourceSpectrum(self.flux[k], self.error[k] ** 2)

    def __repr__(self) -> str:
        return (
            f"<Scene of {len(self.flux)} sources, {len(self.wavelength)} wavelengths, "
            f"PSF FWHM {self.psf.fwhm:.3f} arcsec at {self.psf.wavelength:.0f} Angstrom, beta {self.psf.beta:.2f}>"
        )


def extract_scene(
    cube: Cube,
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    options: SceneOptions = SceneOptions(),
    *,
    step: tuple[float, float] | None = None,
    shapes: Shapes | None = None,
    progress: Progress | None = None,
) -> Scene:
    """Fit all sources of a field together, at every wavelength.

    The PSF, its change with wavelength and an offset of the catalogue are fitted to the sources themselves first. Then each
    channel is one linear model: the flux of every source and a sky.

    Parameters
    ----------
    cube : Cube
        Its redshift has no effect: wavelengths and flux densities are the observed ones. Without an uncertainty the noise of each
        channel is estimated from the scatter between neighbouring pixels.
    x, y : array (source,)
        Positions, 0-based pixels.
    options : SceneOptions
    step : (float, float), optional
        Width of a pixel (y, x), arcsec; by default that of the cube's coordinates.
    shapes : mapping of int to ImageShape, optional
        Sources that are no points, by their place in `x`.
    progress : callable, optional
        ``progress("psf", ...)``, then ``progress("scene", done, total)`` in channels.

    Returns
    -------
    Scene

    Raises
    ------
    DataError
        If no source lies in the field, or the cube has no pixel scale.

    Warns
    -----
    IfujaxWarning
        If the catalogue is off by more than half the FWHM, or the sources are too faint to show the PSF.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    _n_wave, n_y, n_x = cube.shape
    step = step_of(cube) if step is None else step
    inside = (x > -0.5) & (x < n_x - 0.5) & (y > -0.5) & (y < n_y - 0.5)
    if not inside.any():
        raise DataError(f"sources must lie in the field of {n_x} x {n_y} pixels (x, y); got none there. Check their coordinates.")
    middle = float(np.median(cube.wavelength))
    at_x, at_y = x, y
    cube, x, y = _about_sources(cube, x, y, inside, step)
    n_y, n_x = cube.shape[1:]
    away = round(float(at_y[0] - y[0])), round(float(at_x[0] - x[0]))
    shapes = {k: shape.moved(*away) for k, shape in (shapes or {}).items()}
    cube = made_ready(cube)
    psf_fit = None
    bands = _bands(cube, x, y, inside, step, middle)
    if options.psf is None:
        psf_fit = _fitted_psf(cube, bands, x, y, inside, step, middle, options, progress, shapes)
        psf = psf_fit.psf
    else:
        psf = options.psf
    twins = _twins(x, y, step, _TWINS * psf.fwhm)
    nodes, _ = nodes_of(cube.wavelength)
    reach = options.reach or reach_of(psf, nodes)
    tiles = make_tiles((n_y, n_x), x, y, step, psf, nodes, reach, shapes)
    degree = options.sky_degree
    if degree is None:
        _, between = nodes_of(cube.wavelength, at=bands.wavelength)
        degree = choose_sky_degree(bands, tiles, ~twins, between)
    solution = solve_scene(cube, tiles, ~twins, sky_degree=degree, nonnegative=options.nonnegative, progress=progress)
    moved_x, moved_y = x + psf.dx / step[1], y + psf.dy / step[0]
    horne = horne_spectra(cube, moved_x, moved_y, step, psf, solution.sky)
    return Scene(
        wavelength=cube.wavelength,
        flux=solution.flux,
        error=np.sqrt(solution.variance),
        psf=psf,
        psf_fit=psf_fit,
        x=at_x,
        y=at_y,
        contamination=contaminations(solution.flux, moved_x, moved_y, step, psf),
        twins=twins,
        horne=horne,
        solution=solution,
        unit=cube.unit,
    )


def _about_sources(
    cube: Cube, x: np.ndarray, y: np.ndarray, inside: np.ndarray, step: tuple[float, float]
) -> tuple[Cube, np.ndarray, np.ndarray]:
    """Return the part of a cube that holds the sources and their surroundings, and where they are in it."""
    n_y, n_x = cube.shape[1:]
    boxes = []
    for at, width, length in ((y, step[0], n_y), (x, step[1], n_x)):
        margin = _SURROUNDINGS / width
        low, high = int(np.floor(at[inside].min() - margin)), int(np.ceil(at[inside].max() + margin)) + 1
        boxes.append(slice(max(low, 0), min(high, length)))
    rows, columns = boxes
    if rows == slice(0, n_y) and columns == slice(0, n_x):
        return cube, x, y
    planes = {name: getattr(cube, name) for name in ("values", "uncertainty", "flags", "stellar")}
    cut = {name: None if plane is None else plane[:, rows, columns] for name, plane in planes.items()}
    images = {name: getattr(cube, name) for name in ("spatial_mask", "bins")}
    cut |= {name: None if image is None else image[rows, columns] for name, image in images.items()}
    return replace(cube, celestial=None, **cut), x - columns.start, y - rows.start


def _twins(x: np.ndarray, y: np.ndarray, step: tuple[float, float], near: float) -> np.ndarray:
    """Return which sources lie within `near` arcsec of an earlier one."""
    from scipy.spatial import KDTree

    twins = np.zeros(len(x), dtype=bool)
    for first, second in sorted(KDTree(np.column_stack([x * step[1], y * step[0]])).query_pairs(near)):
        if not twins[first]:
            twins[second] = True
    return twins


def reach_of(psf: FieldPSF, wavelengths: np.ndarray) -> float:
    """Return the radius in arcsec beyond which the widest profile has 0.5 % of its flux, within 3 to 6 FWHM."""
    width = float(np.max(psf.fwhm_at(wavelengths)))
    alpha = width / (2.0 * np.sqrt(2.0 ** (1.0 / psf.beta) - 1.0))
    radius = alpha * np.sqrt(_LOST ** (-1.0 / (psf.beta - 1.0)) - 1.0)
    return float(np.clip(radius, _REACHES[0] * width, _REACHES[1] * width))


def step_of(cube: Cube) -> tuple[float, float]:
    """Return the width of a pixel along y and x, arcsec.

    Raises
    ------
    DataError
        If the cube has no celestial coordinates.
    """
    from astropy.wcs.utils import proj_plane_pixel_scales

    if cube.celestial is None or not cube.celestial.has_celestial:
        raise DataError("the cube must have celestial coordinates (RA, DEC); got none. Add CRVAL, CRPIX, CD and CTYPE cards.")
    across, along = proj_plane_pixel_scales(cube.celestial)
    return float(along * 3600.0), float(across * 3600.0)


def _bands(cube: Cube, x: np.ndarray, y: np.ndarray, inside: np.ndarray, step: tuple[float, float], middle: float) -> Bands:
    """Images of the field in bands that suit its sources, by rough profiles of some of them."""
    start = replace(_START, wavelength=middle)
    rows, columns = np.indices(cube.shape[1:])
    some = np.flatnonzero(inside)
    some = some[np.linspace(0, len(some) - 1, min(len(some), _BRIGHTEST)).round().astype(int)]
    away_x, away_y = (columns[..., None] - x[some]) * step[1], (rows[..., None] - y[some]) * step[0]
    filters = start.profiles(away_x, away_y, np.array([middle]), step[0] * step[1])[0]
    return bands_of(cube, np.moveaxis(filters, -1, 0), _BANDS)


def _fitted_psf(
    cube: Cube, bands: Bands, x: np.ndarray, y: np.ndarray, inside: np.ndarray, step: tuple[float, float], middle: float,
    options: SceneOptions, progress: Progress | None, shapes: Shapes | None,
) -> PSFFit:  # fmt: skip
    n_y, n_x = cube.shape[1:]
    if progress is not None:
        progress("psf", 0, 1)
    start = replace(_START, wavelength=middle)
    dx = dy = 0.0
    if options.offset:
        dx, dy = coarse_offset(bands, x[inside], y[inside], step, start.fwhm, options.search)
    start = replace(start, dx=dx, dy=dy)
    signal = _signal(bands, x + dx / step[1], y + dy / step[0], step, start.fwhm)
    signal[~inside] = -np.inf
    size = _WINDOW
    while True:
        half = (int(np.ceil(size / step[0])), int(np.ceil(size / step[1])))
        windows = choose_windows(x, y, signal, (n_y, n_x), half, half, _BRIGHTEST)
        found = fit_psf(
            bands, windows, x, y, step, start, offset=options.offset, ellipticity=options.ellipticity, drift=options.refraction,
            shapes=shapes,
        )  # fmt: skip
        wanted = min(_WIDE * found.psf.fwhm, _WIDEST)
        if found.assumed or wanted < 1.2 * size:
            break
        size, start = wanted, found.psf
    if found.assumed:
        warnings.warn(
            f"the sources do not show the PSF (too faint, or no points): FWHM {_START.fwhm:g} arcsec and beta {_START.beta:g} "
            "are assumed. Give the PSF (psf=, --psf).",
            IfujaxWarning, stacklevel=3,
        )  # fmt: skip
        found = replace(found, psf=replace(start, dx=0.0, dy=0.0))
    elif np.hypot(found.psf.dx, found.psf.dy) > 0.5 * found.psf.fwhm:
        warnings.warn(
            f"the catalogue is off by {np.hypot(found.psf.dx, found.psf.dy):.2f} arcsec "
            f"(dx = {found.psf.dx:+.2f}, dy = {found.psf.dy:+.2f}, along the pixels): the scene model moves it. "
            "Check its astrometry.",
            IfujaxWarning, stacklevel=3,
        )  # fmt: skip
    if progress is not None:
        progress("psf", 1, 1)
    return found


def _signal(bands: Bands, x: np.ndarray, y: np.ndarray, step: tuple[float, float], fwhm: float) -> np.ndarray:
    """Signal to noise of each source in all bands together, from pixels within a FWHM."""
    weight = np.where(np.isfinite(bands.variance), 1.0 / bands.variance, 0.0)
    level = np.array(
        [np.median(each[good]) if (good := np.isfinite(var)).any() else 0.0 for each, var in zip(bands.values, bands.variance)]
    )
    n_y, n_x = bands.values.shape[1:]
    found = np.zeros(len(x))
    for k in range(len(x)):
        reach_y, reach_x = fwhm / step[0], fwhm / step[1]
        rows = slice(max(int(y[k] - reach_y), 0), max(min(int(y[k] + reach_y) + 2, n_y), 0))
        columns = slice(max(int(x[k] - reach_x), 0), max(min(int(x[k] + reach_x) + 2, n_x), 0))
        w = weight[:, rows, columns]
        signal = (w * (bands.values[:, rows, columns] - level[:, None, None])).sum(axis=(1, 2))
        total = w.sum(axis=(1, 2))
        found[k] = np.sqrt(np.sum(np.divide(np.maximum(signal, 0.0) ** 2, total, out=np.zeros_like(total), where=total > 0)))
    return found
