"""Fluxes of all sources of a field at every wavelength: one linear model of sources and sky for each channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs
from scipy.optimize import nnls

from ifujax.data.cube import Cube
from ifujax.extraction.scene.field import Bands, Planes, planes_of
from ifujax.extraction.scene.psf import FieldPSF
from ifujax.extraction.scene.shapes import ImageShape
from ifujax.progress import Progress

NODES = 6
"""Wavelengths at which profiles are worked out; they are interpolated between by a polynomial. A change of the FWHM by 20 % is
followed to 1e-5."""
_TILE = 16
"""Pixels of the side of a tile: sources that do not reach into it cost nothing there."""
_SEEN = 0.05
"""Share of a source's information that must lie on good pixels."""
_BATCH = 1 << 25
"""Bytes of normal matrices in memory at a time."""
_SMALL = 64
"""Unknowns up to which all channels are solved in one call."""
_SAMPLED = 24
"""Channels whose whole covariance is kept, for the correlation of neighbours."""


@dataclass(frozen=True)
class SceneSolution:
    """Spectra of all sources.

    Attributes
    ----------
    flux, variance : (source, wave) arrays
        NaN where a source is not seen.
    sky : (term, wave) array
        Coefficients of the sky: its value, then slopes.
    sky_variance : (term, wave) array
    chi2 : (wave,) array
    n_good : (wave,) array
        Pixels.
    covariance : (source, source) array
        Mean over some channels of the covariance divided by both errors: the correlation of neighbours.
    inflation : (source,) array
        Mean over these of a flux's error over that of the source alone.
    misfit, residual : (source,) arrays
        Of residuals in the source's core, stacked over wavelength with the weight of its flux: chi2 per degree of freedom, and
        their size relative to the source.
    """

    flux: np.ndarray
    variance: np.ndarray
    sky: np.ndarray
    sky_variance: np.ndarray
    chi2: np.ndarray
    n_good: np.ndarray
    covariance: np.ndarray
    inflation: np.ndarray
    misfit: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True)
class Tile:
    """A rectangle of pixels of the field, the sources that reach into it, and their profiles there.

    Attributes
    ----------
    rows, columns : slice
    sources : (n,) int array
    profiles : (NODES, pixel, n) array
    """

    rows: slice
    columns: slice
    sources: np.ndarray
    profiles: np.ndarray


_POTRF, _POTRI = get_lapack_funcs(("potrf", "potri"), dtype=np.float64)

Shapes = Mapping[int, ImageShape]
"""Sources that are no points, by their place in the catalogue."""


def nodes_of(wavelength: np.ndarray, count: int = NODES, at: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return Chebyshev nodes of a range of wavelengths, and the matrix (wave, node) that interpolates to them, or to `at`."""
    low, high = float(wavelength[0]), float(wavelength[-1])
    angles = np.pi * (np.arange(count) + 0.5) / count
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angles)
    u = np.clip(2.0 * ((wavelength if at is None else at) - low) / max(high - low, 1e-12) - 1.0, -1.0, 1.0)
    orders = np.arange(count)
    basis = np.cos(np.outer(np.arccos(u), orders))
    at_nodes = np.cos(np.outer(angles, orders))
    scale = np.full(count, 2.0 / count)
    scale[0] = 1.0 / count
    return nodes, (basis * scale) @ at_nodes.T


def make_tiles(
    shape: tuple[int, int],
    x: np.ndarray,
    y: np.ndarray,
    step: tuple[float, float],
    psf: FieldPSF,
    nodes: np.ndarray,
    reach: float,
    shapes: Shapes | None = None,
) -> list[Tile]:
    """Return the tiles of a field, each with the sources that reach into it.

    Parameters
    ----------
    shape : (int, int)
        Of the field (y, x).
    x, y : (source,) arrays
        0-based pixels of the catalogue.
    step : (float, float)
        Width of a pixel (y, x), arcsec.
    psf : FieldPSF
    nodes : (NODES,) array
        Wavelengths, Angstrom.
    reach : float
        Arcsec from a point source beyond which it has no light.
    shapes : mapping of int to ImageShape, optional
        Sources that are no points.
    """
    tiles = []
    area = step[0] * step[1]
    whole = slice(0, shape[0]), slice(0, shape[1])
    extended = {k: each.profiles(psf, nodes, *whole).astype(np.float32) for k, each in (shapes or {}).items()}
    for top in range(0, shape[0], _TILE):
        for left in range(0, shape[1], _TILE):
            rows, columns = slice(top, min(top + _TILE, shape[0])), slice(left, min(left + _TILE, shape[1]))
            far_y = np.maximum(np.maximum(rows.start - y, y - (rows.stop - 1)), 0.0) * step[0]
            far_x = np.maximum(np.maximum(columns.start - x, x - (columns.stop - 1)), 0.0) * step[1]
            near = np.hypot(far_x, far_y) <= reach
            near[list(extended)] = True
            sources = np.flatnonzero(near)
            at_y, at_x = np.meshgrid(np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop), indexing="ij")
            away_x = (at_x.reshape(-1, 1) - x[sources]) * step[1]
            away_y = (at_y.reshape(-1, 1) - y[sources]) * step[0]
            profiles = np.array(psf.profiles(away_x, away_y, nodes, area), np.float32)
            profiles[:, np.hypot(away_x, away_y) > reach] = 0.0
            for at, source in enumerate(sources.tolist()):
                if source in extended:
                    profiles[:, :, at] = extended[source][:, rows, columns].reshape(len(nodes), -1)
            tiles.append(Tile(rows, columns, sources, profiles))
    return tiles


def sky_terms(shape: tuple[int, int], degree: int) -> np.ndarray:
    """Return the polynomials of the sky over a field, (term, y, x): 1, then x, y and so on, over -1 to 1."""
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    return np.stack([x ** (total - k) * y**k for total in range(degree + 1) for k in range(total + 1)])


def choose_sky_degree(bands: Bands, tiles: Sequence[Tile], sources: np.ndarray, interpolation: np.ndarray, most: int = 4) -> int:
    """Return the degree of the sky that the field calls for, by the Bayesian information criterion of its images.

    Parameters
    ----------
    bands : Bands
    tiles : sequence of Tile
    sources : (source,) bool array
        Which are fitted.
    interpolation : (band, node) array
        Of the profiles, at the wavelengths of the bands.
    most : int
    """
    shape, n_sources = bands.values.shape[1:], len(sources)
    known = np.isfinite(bands.variance)
    ivar = np.where(known, 1.0 / np.where(known, bands.variance, 1.0), 0.0)
    terms = sky_terms((shape[0], shape[1]), most)
    normal, right, squares = normal_equations(bands.values, ivar, tiles, n_sources, interpolation, terms)
    n_good = known.sum()
    scores = []
    for degree in range(most + 1):
        count = n_sources + (degree + 1) * (degree + 2) // 2
        chi2 = 0.0
        for matrix, vector, square in zip(normal, right, squares):
            kept = np.zeros(len(vector), dtype=bool)
            kept[:count] = np.diag(matrix)[:count] > 0
            kept[:n_sources] &= sources
            solved = _solve(matrix, vector, kept, 0)
            if solved is not None:
                chi2 += max(float(square - solved[0] @ vector), 0.0)
        scores.append((chi2, count * len(normal)))
    # The noise is what the richest sky leaves: chi2 itself may be far from 1
    scale = max(scores[-1][0] / max(n_good - scores[-1][1], 1), 1.0)
    criterion = [chi2 / scale + count * np.log(max(n_good, 2)) for chi2, count in scores]
    return int(np.argmin(criterion))


def normal_equations(
    values: np.ndarray, ivar: np.ndarray, tiles: Sequence[Tile], n_sources: int, mix: np.ndarray, terms: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the normal matrices, right sides and sums of squares of some channels.

    Columns are whitened, so that float32 will do: its rounding is 1e-7 of a flux, or of its error.
    """
    count, size = len(values), n_sources + len(terms)
    normal, right, squares = np.zeros((count, size, size)), np.zeros((count, size)), np.zeros(count)
    root = np.sqrt(ivar)
    unit = float(root.max(initial=0.0)) or 1.0  # squares of raw fluxes leave float32's range
    for tile in tiles:
        weight = root[:, tile.rows, tile.columns].reshape(count, -1)
        data = values[:, tile.rows, tile.columns].reshape(count, -1) * weight
        design = _design(tile, mix, terms)
        design *= (weight / unit).astype(np.float32)[:, :, None]
        turned = design.transpose(0, 2, 1)
        index = np.concatenate([tile.sources, n_sources + np.arange(len(terms))])
        normal[:, index[:, None], index[None]] += np.matmul(turned, design)
        right[:, index] += np.matmul(turned, data.astype(np.float32)[:, :, None])[:, :, 0]
        squares += (data**2).sum(axis=1)
    return normal * unit**2, right * unit, squares


def solve_scene(
    cube: Cube,
    tiles: Sequence[Tile],
    sources: np.ndarray,
    *,
    sky_degree: int = 0,
    nonnegative: bool = False,
    progress: Progress | None = None,
) -> SceneSolution:
    """Solve for the fluxes of all sources and the sky at every wavelength.

    Parameters
    ----------
    cube : Cube
    tiles : sequence of Tile
        From `make_tiles`, with the nodes of the cube's wavelengths.
    sources : (source,) bool array
        Which are fitted; the others are NaN.
    sky_degree : int
        Of the polynomial over the field.
    nonnegative : bool
        Fluxes below 0 are not allowed: faint sources come out too bright.
    progress : callable, optional
        ``progress("scene", done, total)`` counts channels.
    """
    n_wave, n_y, n_x = cube.shape
    n_sources = len(sources)
    terms = sky_terms((n_y, n_x), sky_degree)
    n_sky = len(terms)
    size = n_sources + n_sky
    _, interpolation = nodes_of(cube.wavelength)
    flux, variance = np.full((n_sources, n_wave), np.nan), np.full((n_sources, n_wave), np.nan)
    sky, sky_variance = np.full((n_sky, n_wave), np.nan), np.full((n_sky, n_wave), np.nan)
    chi2, n_good = np.zeros(n_wave), np.zeros(n_wave, int)
    sampled = set(np.linspace(0, n_wave - 1, min(_SAMPLED, n_wave)).round().astype(int).tolist())
    correlation, inflation, averaged = np.zeros((n_sources, n_sources)), np.zeros(n_sources), 0
    whole = np.zeros(n_sources)
    for tile in tiles:
        np.add.at(whole, tile.sources, (tile.profiles.astype(float) ** 2).mean(axis=0).sum(axis=0))
    cores = _Cores(tiles, whole)
    step = int(np.clip(_BATCH // (8 * size * size), 1, 256))
    for planes in planes_of(cube, count=step):
        count = len(planes.values)
        mix = interpolation[planes.where]
        normal, right, squares = normal_equations(planes.values, planes.ivar, tiles, n_sources, mix, terms)
        seen = np.zeros((count, n_sources))
        for tile in tiles:
            good = (planes.ivar[:, tile.rows, tile.columns].reshape(count, -1) > 0).astype(np.float32)
            power = (tile.profiles**2).mean(axis=0)
            seen[:, tile.sources] += good @ power
            n_good[planes.where] += good.sum(axis=1).astype(int)
        usable = (seen > _SEEN * np.maximum(whole, 1e-300)) & sources
        kept = np.concatenate([usable, np.broadcast_to((n_good[planes.where] > n_sky)[:, None], (count, n_sky))], axis=1)
        values, inverses = _solved(normal, right, kept, n_sources if nonnegative else 0)
        where = planes.where
        chi2[where] = np.maximum(
            squares - 2 * (values * right).sum(axis=1) + np.einsum("ki,kij,kj->k", values, normal, values), 0.0
        )
        lost = ~kept | ~np.isfinite(inverses[:, 0, 0])[:, None]
        spread = np.where(lost, np.nan, np.einsum("kii->ki", inverses))
        values = np.where(lost, np.nan, values)
        flux[:, where], sky[:, where] = values[:, :n_sources].T, values[:, n_sources:].T
        variance[:, where], sky_variance[:, where] = spread[:, :n_sources].T, spread[:, n_sources:].T
        for k in range(count):
            if where.start + k in sampled and not lost[k][:n_sources][sources].any():
                error = np.sqrt(np.diag(inverses[k])[:n_sources])
                error[~sources] = np.nan
                correlation += inverses[k][:n_sources, :n_sources] / np.outer(error, error)
                inflation += error * np.sqrt(np.diag(normal[k])[:n_sources])
                averaged += 1
        cores.add(planes, mix, terms, flux, sky)
        if progress is not None:
            progress("scene", min(planes.where.stop, n_wave), n_wave)
    correlation, inflation = (each / averaged if averaged else np.full_like(each, np.nan) for each in (correlation, inflation))
    misfit, residual = cores.judge()
    return SceneSolution(flux, variance, sky, sky_variance, chi2, n_good, correlation, inflation, misfit, residual)


def _design(tile: Tile, mix: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """The columns of a tile's sources and of the sky, (channel, pixel, column)."""
    nodes, pixels, sources = tile.profiles.shape
    design = np.empty((len(mix), pixels, sources + len(terms)), np.float32)
    design[:, :, :sources] = (mix.astype(np.float32) @ tile.profiles.reshape(nodes, -1)).reshape(len(mix), pixels, sources)
    design[:, :, sources:] = terms[:, tile.rows, tile.columns].reshape(len(terms), -1).T
    return design


def _solved(normal: np.ndarray, right: np.ndarray, kept: np.ndarray, bounded: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the solutions of some channels, 0 where not kept, and the inverses of their normal matrices, NaN without any."""
    values, inverses = np.zeros_like(right), np.full_like(normal, np.nan)
    size = right.shape[1]
    whole = kept.all(axis=1) & (np.einsum("kii->ki", normal) > 0).all(axis=1)
    if not bounded and size <= _SMALL and whole.any():
        scale = np.sqrt(np.einsum("kii->ki", normal[whole]))
        with np.errstate(all="ignore"):
            try:
                inverse = np.linalg.inv(normal[whole] / (scale[:, :, None] * scale[:, None, :]))
            except np.linalg.LinAlgError:
                whole = np.zeros_like(whole)
            else:
                inverses[whole] = inverse / (scale[:, :, None] * scale[:, None, :])
                values[whole] = np.matmul(inverses[whole], right[whole][:, :, None])[:, :, 0]
    else:
        whole = np.zeros_like(whole)
    for k in np.flatnonzero(~whole):
        solved = _solve(normal[k], right[k], kept[k], bounded)
        if solved is None:
            continue
        at = np.flatnonzero(kept[k])
        values[k] = solved[0]
        inverses[k] = 0.0
        inverses[k][np.ix_(at, at)] = solved[1]
    return values, inverses


def _solve(normal: np.ndarray, right: np.ndarray, kept: np.ndarray, bounded: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the solution of a channel (0 where not kept) and the inverse of the normal matrix of what is kept."""
    at = np.flatnonzero(kept)
    if not at.size:
        return None
    matrix, vector = normal[np.ix_(at, at)], right[at]
    scale = np.sqrt(np.diag(matrix))
    if not np.all(scale > 0):
        return None
    factor, info = _POTRF(matrix / np.outer(scale, scale), lower=1, clean=1)
    if info:
        return None
    values = np.zeros(len(normal))
    if bounded:
        target = np.linalg.solve(factor, vector / scale)
        free = at >= bounded  # the sky may be negative: it is the difference of two
        both = np.concatenate([factor.T, -factor.T[:, free]], axis=1)
        found = nnls(both, target)[0]
        own = found[: len(at)].copy()
        own[free] -= found[len(at) :]
        values[at] = own / scale
    inverse, _ = _POTRI(factor, lower=1)
    inverse = inverse + inverse.T - np.diag(np.diag(inverse))
    if not bounded:
        values[at] = (inverse @ (vector / scale)) / scale
    return values, inverse / np.outer(scale, scale)


class _Cores:
    """Residuals in the cores of sources, stacked over wavelength: pixels above half the peak of a source's profile.

    Each channel counts as the source's flux there does, so that a profile that is wrong adds up.
    """

    def __init__(self, tiles: Sequence[Tile], whole: np.ndarray) -> None:
        self.tiles, self.whole = tiles, whole
        self.middle = [tile.profiles.astype(float).mean(axis=0) for tile in tiles]
        peaks = np.zeros(len(whole))
        for tile, middle in zip(tiles, self.middle):
            if tile.sources.size:
                np.maximum.at(peaks, tile.sources, middle.max(axis=0))
        self.cores = [middle > 0.5 * peaks[tile.sources] for tile, middle in zip(tiles, self.middle)]
        self.used = [np.flatnonzero(core.any(axis=1)) for core in self.cores]
        shapes = [(len(used), len(tile.sources)) for used, tile in zip(self.used, tiles)]
        self.tops, self.bottoms = [np.zeros(each) for each in shapes], [np.zeros(each) for each in shapes]

    def add(self, planes: Planes, mix: np.ndarray, terms: np.ndarray, flux: np.ndarray, sky: np.ndarray) -> None:
        """Add the residuals of some channels, of which `flux` (source, wave) and `sky` (term, wave) are the solutions."""
        count = len(planes.values)
        for tile, used, top, bottom in zip(self.tiles, self.used, self.tops, self.bottoms):
            if not used.size:
                continue
            values = planes.values[:, tile.rows, tile.columns].reshape(count, -1)[:, used]
            ivar = planes.ivar[:, tile.rows, tile.columns].reshape(count, -1)[:, used]
            nodes = tile.profiles[:, used]
            profiles = (mix @ nodes.reshape(len(nodes), -1)).reshape(count, len(used), -1)
            light = np.nan_to_num(flux[tile.sources, planes.where].T)
            background = (
                np.nan_to_num(sky[:, planes.where].T) @ terms[:, tile.rows, tile.columns].reshape(len(terms), -1)[:, used]
            )
            model = np.matmul(profiles, light[:, :, None])[:, :, 0] + background
            top += (ivar * (values - model)).T @ light
            bottom += ivar.T @ light**2

    def judge(self) -> tuple[np.ndarray, np.ndarray]:
        """Return chi2 per degree of freedom of each source's stacked residuals, and their size relative to its core."""
        n = len(self.whole)
        chi2, dof, squares, light = (np.zeros(n) for _ in range(4))
        for tile, used, core, middle, top, bottom in zip(
            self.tiles, self.used, self.cores, self.middle, self.tops, self.bottoms, strict=True
        ):
            if not used.size:
                continue
            seen = core[used] & (bottom > 0)
            safe = np.where(seen, bottom, 1.0)
            chi2[tile.sources] += np.where(seen, top**2 / safe, 0.0).sum(axis=0)
            # A source's flux takes its share of a degree of freedom
            share = middle[used] ** 2 / np.maximum(self.whole[tile.sources], 1e-300)
            dof[tile.sources] += (seen * (1.0 - share)).sum(axis=0)
            squares[tile.sources] += np.where(seen, (top / safe) ** 2, 0.0).sum(axis=0)
            light[tile.sources] += np.where(seen, middle[used] ** 2, 0.0).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(dof > 0, chi2 / dof, np.nan), np.where(light > 0, np.sqrt(squares / light), np.nan)
