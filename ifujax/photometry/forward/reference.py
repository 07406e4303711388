"""The HST image as the model wants it: on a fine grid aligned with the MUSE pixels, transformed once, its own PSF divided out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, get_args

import numpy as np
from numpy import fft
from scipy import ndimage

from ifujax.data.image import Image
from ifujax.errors import DataError, UsageError
from ifujax.images.geometry import PixelMap, has_data, pixel_steps
from ifujax.inference.precision import working_precision
from ifujax.models.psf import PSF, MoffatPSF, RadialGrid
from ifujax.models.scene import Reference

Sampling = Literal["auto", "native", "regridded"]
BUFFER = 4.0
"""Arcsec of the HST image that are taken in around the MUSE image: light from beyond its edges."""
EDGE = 1.0
"""Arcsec about regions without HST data within which MUSE pixels are left out: their light has unknown parts."""
_FINEST = 10
_SMALLEST_MTF = 0.01
"""A PSF is not divided out beyond the frequencies at which this much is left."""
_ALIGNED = 1e-3
"""Pixels."""


@dataclass(frozen=True)
class Grid:
    """The periodic grid on which a MUSE image is modelled: the image with room around it.

    Attributes
    ----------
    shape : (n_y, n_x)
        Even numbers without large prime factors.
    offset : (y, x)
        Where the image's first pixel lies.
    image : (n_y, n_x)
        Shape of the image.
    step : (y, x)
        Widths of a pixel, arcsec.
    """

    shape: tuple[int, int]
    offset: tuple[int, int]
    image: tuple[int, int]
    step: tuple[float, float]

    @classmethod
    def around(cls, muse: Image, buffer: float = BUFFER, least: tuple[int, int] = (0, 0)) -> Grid:
        """Return the grid for an image with `buffer` arcsec around it, of the shape `least` at least."""
        step = pixel_steps(muse)
        room = tuple(math.ceil(buffer / each) for each in step)
        shape = tuple(good_size(max(n + 2 * extra, small)) for n, extra, small in zip(muse.shape, room, least))
        offset = tuple((whole - n) // 2 for whole, n in zip(shape, muse.shape))
        return cls(shape, offset, muse.shape, step)  # type: ignore[arg-type]

    def place(self, image: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Return an image on this grid, `fill` around it."""
        whole = np.full(self.shape, fill, dtype=image.dtype)
        (y, x), (n_y, n_x) = self.offset, self.image
        whole[y : y + n_y, x : x + n_x] = image
        return whole

    def cut(self, whole: np.ndarray) -> np.ndarray:
        """Return the image's part of an array on this grid."""
        (y, x), (n_y, n_x) = self.offset, self.image
        return whole[..., y : y + n_y, x : x + n_x]

    @property
    def x(self) -> np.ndarray:
        """Arcsec from the image's centre."""
        return (np.arange(self.shape[1]) - self.offset[1] - 0.5 * (self.image[1] - 1)) * self.step[1]

    @property
    def y(self) -> np.ndarray:
        """Arcsec from the image's centre."""
        return (np.arange(self.shape[0]) - self.offset[0] - 0.5 * (self.image[0] - 1)) * self.step[0]


@dataclass(frozen=True)
class HstTransform:
    """Transform of an HST image for MUSE images on one grid.

    Attributes
    ----------
    grid : Grid
    transform : (a, a, n_y, n_x // 2 + 1) complex array
        Divided by the PSF of HST, in flux per MUSE pixel, with a^2 aliases; see `ifujax.models.scene.Reference`.
    covered : (n_y, n_x) bool array
        On the grid: whether HST has data there.
    window : (n_y, n_x // 2 + 1) array or None
        Low-pass that `transform` holds and the MUSE image has to be given too; None where the transform is complete.
    """

    grid: Grid
    transform: np.ndarray
    covered: np.ndarray
    window: np.ndarray | None = None

    @cached_property
    def frequencies(self) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies fy (a, n_y) and fx (a, n_x // 2 + 1) in cycles per arcsec, rows in the order of `rfft2`."""
        return aliases(self.grid.shape, self.grid.step, len(self.transform))

    def radial(self, elliptical: bool) -> RadialGrid:
        """Return the range of radial frequencies, with room for an ellipse of axes 1 : 5."""
        fy, fx = self.frequencies
        room = 0.85 if elliptical else 0.0
        low = math.log(min(abs(fx[0, 1]), abs(fy[0, 1]))) - room
        high = math.log(math.hypot(np.abs(fx).max(), np.abs(fy).max())) + room
        # Rounded outwards: pixels of nearly the same size share a compiled program
        return RadialGrid(math.floor(10.0 * low) / 10.0, math.ceil(10.0 * high) / 10.0)

    @cached_property
    def typical(self) -> np.ndarray:
        """HST as MUSE usually shows it, (n_y, n_x): what the first shift is looked for with."""
        return blurred(self, 0.7, 2.8)

    def coordinates(self, radial: RadialGrid) -> Reference:
        """Return what a `SceneModel` with this `radial` takes."""
        if radial in self._coordinates:
            return self._coordinates[radial]
        fy, fx = self.frequencies
        k = np.hypot(fy[:, None, :, None], fx[None, :, None, :])
        k[0, 0, 0, 0] = min(abs(fx[0, 1]), abs(fy[0, 1]))
        # Two real arrays: the engine casts those to the working precision
        real, imag = np.ascontiguousarray(np.real(self.transform)), np.ascontiguousarray(np.imag(self.transform))
        radius = radial.twice_argument(np.log(k))
        found = Reference(real, imag, fx, fy, radius, self.grid.x, self.grid.y, np.array(self.grid.step))
        self._coordinates[radial] = found
        return found

    def with_psf(self, old: PSF, new: PSF) -> HstTransform:
        """Return the transform with the PSF `new` divided out in place of `old`, which was."""
        of = [_divisor(psf, *self.frequencies, self.grid.step, self.window is not None) for psf in (old, new)]
        return replace(self, transform=self.transform * (of[0] / of[1]))

    @cached_property
    def _coordinates(self) -> dict[RadialGrid, Reference]:
        return {}


def blurred(transform: HstTransform, fwhm: float, beta: float) -> np.ndarray:
    """Return HST as a MUSE image of some seeing shows it, (n_y, n_x); frequencies beyond the limit of the pixels are left out."""
    fy, fx = transform.frequencies
    kernel = psf_transform(MoffatPSF(fwhm, beta), fy[:1], fx[:1])[0, 0]
    return fft.irfft2(transform.transform[0, 0] * kernel, s=transform.grid.shape)


def transform_hst(
    hst: Image,
    muse: Image,
    psf: PSF,
    *,
    sampling: Sampling = "auto",
    rotation: float = 0.0,
    buffer: float = BUFFER,
    edge: float = EDGE,
    least: tuple[int, int] = (0, 0),
) -> HstTransform:
    """Transform an HST image for MUSE images that have the grid of `muse`.

    Parameters
    ----------
    hst, muse : Image
        With celestial coordinates; `hst` in the flux unit of `muse`, per its own pixel.
    psf : MoffatPSF or ImagePSF
        Of HST, as its pixels sample it before any regridding.
    sampling : "auto", "native" or "regridded"
        "regridded": `hst` lies on the pixels of `muse`, low-passed by a Blackman window in frequency as `regrid_like`
        makes it. "auto" takes it for that where the pixels are as large as those of `muse`.
    rotation : float
        Degrees by which `hst` is turned about the centre of `muse` first, from +x to +y.
    buffer, edge : float
        Arcsec: see `BUFFER` and `EDGE`.
    least : (n_y, n_x)
        Shape that the grid has at least, so that images of several shapes can share one.

    Raises
    ------
    DataError
        If the images do not overlap.
    UsageError
        For an unknown `sampling`.
    """
    if sampling not in get_args(Sampling):
        raise UsageError(f"sampling must be one of {', '.join(get_args(Sampling))}; got {sampling!r}.")
    grid = Grid.around(muse, buffer, least)
    to_hst = PixelMap.between(muse, hst, margin=math.ceil(buffer / min(grid.step)))
    ratio = math.sqrt(to_hst.area)
    sampling = resolved_sampling(sampling, ratio)
    fine = 1 if sampling == "regridded" else max(2, min(math.ceil(ratio - 0.05), _FINEST))
    values, covered = _on_grid(hst, grid, to_hst, fine, rotation)
    if not grid.cut(covered).any():
        raise DataError(
            f"images must overlap; got {muse.name or 'a MUSE image'} without a pixel in which "
            f"{hst.name or 'the HST image'} has data. "
            "Check their coordinates."
        )
    n_aliases = 2 if fine > 1 else 1
    # n^-2 for the coarser sampling, and each MUSE pixel has the light of `area` HST pixels
    block = _taken(fft.rfft2(values), grid.shape, n_aliases) * (to_hst.area / fine**2)
    fy, fx = aliases(grid.shape, grid.step, n_aliases)
    window = low_pass(fy, fx, grid.step)[0, 0] if sampling == "regridded" else None
    kept = block / _divisor(psf, fy, fx, grid.step, window is not None) * (1.0 if window is None else window)
    if not covered.all():
        covered = np.asarray(ndimage.distance_transform_edt(covered, sampling=grid.step)) > edge
    return HstTransform(grid, kept, covered, window)


def _divisor(psf: PSF, fy: np.ndarray, fx: np.ndarray, step: tuple[float, float], regridded: bool) -> np.ndarray:
    """Return what the transform of an HST image is divided by."""
    mtf = psf_transform(psf, fy, fx)
    if regridded:
        mtf = mtf * blackman_window(fy, fx, step)
    return np.maximum(mtf, _SMALLEST_MTF)


def resolved_sampling(sampling: Sampling, ratio: float) -> Sampling:
    """Return "native" or "regridded"; "auto" by how much wider pixels of MUSE are than those of HST, `ratio`."""
    if sampling != "auto":
        return sampling
    return "native" if ratio > 1.1 else "regridded"


def blackman_window(fy: np.ndarray, fx: np.ndarray, step: tuple[float, float]) -> np.ndarray:
    """Return the low-pass that HST images are given before they are regridded: 1 at 0, 0 at the limit of MUSE pixels."""
    radius = np.hypot(2.0 * fy[:, None, :, None] * step[0], 2.0 * fx[None, :, None, :] * step[1])
    window = 0.42 + 0.5 * np.cos(np.pi * radius) + 0.08 * np.cos(2.0 * np.pi * radius)
    return np.where(radius < 1.0, window, 0.0)


def low_pass(fy: np.ndarray, fx: np.ndarray, step: tuple[float, float]) -> np.ndarray:
    """Return a smooth low-pass: 1 up to half the pixels' limit, 0 from 0.85 of it on.

    A regridded HST image has lost the higher frequencies, and lacks those that MUSE's pixels fold back to there: images are
    compared below.
    """
    radius = np.hypot(2.0 * fy[:, None, :, None] * step[0], 2.0 * fx[None, :, None, :] * step[1])
    return np.where(radius < 0.85, np.cos(0.5 * np.pi * np.clip((radius - 0.5) / 0.35, 0.0, 1.0)) ** 2, 0.0)


def psf_transform(psf: PSF, fy: np.ndarray, fx: np.ndarray) -> np.ndarray:
    """Return the transform of a PSF (a, a, n_y, m) at frequencies fy (a, n_y) and fx (a, m)."""
    with working_precision("float64"):
        found = np.asarray(psf.mtf(fx.reshape(1, -1), fy.reshape(-1, 1)))
    return found.reshape(*fy.shape, *fx.shape).transpose(0, 2, 1, 3)


def aliases(shape: tuple[int, int], step: tuple[float, float], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies fy (count, n_y) and fx (count, n_x // 2 + 1) that pixels cannot tell apart, the lowest first."""
    fy, fx = np.fft.fftfreq(shape[0], step[0]), np.fft.rfftfreq(shape[1], step[1])
    if count == 1:
        return fy[None], fx[None]
    return np.stack([fy, fy - np.where(fy < 0, -1.0, 1.0) / step[0]]), np.stack([fx, fx - 1.0 / step[1]])


def _taken(whole: np.ndarray, shape: tuple[int, int], count: int) -> np.ndarray:
    """Take the frequencies of `aliases` from the `rfft2` of a finer image that covers the same field."""
    n_y, n_x = shape
    rows = np.fft.fftfreq(n_y, 1.0 / n_y).astype(int)
    columns = np.arange(n_x // 2 + 1)
    if count == 1:
        return whole[rows][:, columns][None, None]
    # Of negative columns the conjugate is stored, in the opposite row
    rows = np.stack([rows, rows - np.where(rows < 0, -n_y, n_y)])
    left = np.conj(whole[(-rows) % whole.shape[0]][..., n_x - columns])
    return np.stack([whole[rows % whole.shape[0]][..., columns], left], axis=1)


def _on_grid(hst: Image, grid: Grid, to_hst: PixelMap, fine: int, rotation: float) -> tuple[np.ndarray, np.ndarray]:
    """Sample `hst` at `fine` points a MUSE pixel; return the values, holes filled, and which MUSE pixels it covers."""
    n_y, n_x = grid.shape
    y = np.arange(n_y * fine) / fine - grid.offset[0]
    x = np.arange(n_x * fine) / fine - grid.offset[1]
    x, y = np.meshgrid(x, y)
    if rotation:
        # The model's image is the reference turned: a pixel shows what lies turned back from it
        angle = math.radians(rotation)
        u = (x - 0.5 * (grid.image[1] - 1)) * grid.step[1]
        v = (y - 0.5 * (grid.image[0] - 1)) * grid.step[0]
        x = (u * math.cos(angle) + v * math.sin(angle)) / grid.step[1] + 0.5 * (grid.image[1] - 1)
        y = (v * math.cos(angle) - u * math.sin(angle)) / grid.step[0] + 0.5 * (grid.image[0] - 1)
    at_x, at_y = to_hst(x, y)
    good = has_data(hst.values)
    if not good.any():
        raise DataError(f"hst must have usable pixels; got none in {hst.name or 'the image'}: all are masked, not finite or 0.")
    filled = _without_holes(hst.values, good)
    near_x, near_y = np.rint(at_x), np.rint(at_y)
    inside = (near_x >= 0) & (near_x < hst.shape[1]) & (near_y >= 0) & (near_y < hst.shape[0])
    index = np.clip(near_y, 0, hst.shape[0] - 1).astype(int), np.clip(near_x, 0, hst.shape[1] - 1).astype(int)
    # A star's core lost to a few bad pixels is filled in; where most of a MUSE pixel is missing, it counts as not covered
    share = (inside & good[index]).reshape(n_y, fine, n_x, fine).mean(axis=(1, 3))
    covered = share > 0.5
    level = float(np.median(filled[good]))
    if max(np.abs(at_x - near_x).max(), np.abs(at_y - near_y).max()) < _ALIGNED:
        values = filled[index]
    else:
        values = ndimage.map_coordinates(filled, [at_y, at_x], order=5 if fine <= 2 else 3, mode="nearest")
    return np.where(inside, values, level), covered


def _without_holes(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Fill holes from the pixels around them, and what lies far from any with the median."""
    if good.all():
        return np.asarray(values, dtype=np.float64)
    known = np.where(good, values, 0.0)
    weight = ndimage.gaussian_filter(good.astype(np.float64), 1.5)
    smooth = ndimage.gaussian_filter(known, 1.5) / np.maximum(weight, 1e-3)
    return np.where(good, known, np.where(weight > 0.05, smooth, np.median(values[good])))


def good_size(n: int) -> int:
    """Return the next even size with no prime factor above 5, in steps of a tenth or so: few shapes are compiled."""
    return next(size for size in _sizes() if size >= n)


@lru_cache
def _sizes() -> tuple[int, ...]:
    smooth = sorted(2 * 2**a * 3**b * 5**c for a in range(13) for b in range(4) for c in range(3))
    chosen = [32]
    for size in smooth:
        if size >= 1.07 * chosen[-1]:
            chosen.append(size)
    return tuple(chosen)
