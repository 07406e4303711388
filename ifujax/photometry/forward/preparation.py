"""One pair of images made ready: the transform of HST, the data of MUSE with weights on the same grid, and where the fit
starts."""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy import fft
from scipy import ndimage

from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.forward.reference import Grid, HstTransform, transform_hst
from ifujax.photometry.forward.shift import best_shift
from ifujax.robust import MAD_TO_SIGMA

TransformCache = MutableMapping[Any, HstTransform]
_LEAST_PIXELS = 50
_LEAK = 3
"""Pixels about masked ones that the low-pass mixes with these."""


@dataclass(frozen=True)
class Prepared:
    """One pair of images as the fit takes it.

    Attributes
    ----------
    hst, muse : Image
    transform : HstTransform
    mask : (y, x) bool array
        Pixels of MUSE that were left out on request, as they lie where the shift was found.
    values, ivar : (n_y, n_x) arrays
        On the transform's grid.
    shift : (dx, dy)
        Start, arcsec.
    noise_estimated : bool
        Whether there is no variance: `ivar` is then a guess, and errors follow from the residuals.
    noise_share : float
        Share of the noise's variance that `values` still have: below 1 where they were low-passed. `ivar` is that of the whole
        noise, whose power at the frequencies that are left, where all the signal is, has not changed.
    rotation : float
        Degrees by which the reference was turned.
    bad_variance : bool
        Whether pixels were left out because their variance is not positive.
    """

    hst: Image
    muse: Image
    transform: HstTransform
    mask: np.ndarray
    values: np.ndarray
    ivar: np.ndarray
    shift: tuple[float, float]
    noise_estimated: bool
    noise_share: float = 1.0
    rotation: float = 0.0
    bad_variance: bool = False

    @property
    def grid(self) -> Grid:
        return self.transform.grid


def prepare(
    hst: Image,
    muse: Image,
    options: PhotometryOptions,
    sky_mask: np.ndarray | None = None,
    pixel_mask: np.ndarray | None = None,
    cache: TransformCache | None = None,
    least: tuple[int, int] = (0, 0),
) -> Prepared:
    """Make a pair of images ready.

    Parameters
    ----------
    hst, muse : Image
        `hst` in flux units of `muse`.
    options : PhotometryOptions
    sky_mask : (y, x) bool array, optional
        True = leave out, on the pixels of `muse` but by the coordinates of HST, which are trusted: moved by the shift that is
        found.
    pixel_mask : (y, x) bool array, optional
        True = leave out, on the pixels of `muse` as they are.
    cache : mutable mapping, optional
        Holds transforms between calls: exposures on one grid share them.
    least : (n_y, n_x)
        Shape that the grid has at least.

    Raises
    ------
    DataError
        If the images do not overlap, or too few pixels are left.
    """
    transform = _transform(hst, muse, options, cache if cache is not None else {}, 0.0, least)
    grid = transform.grid
    good, bad_variance = np.isfinite(muse.values), False
    if pixel_mask is not None:
        good &= ~pixel_mask
    if not good.any():
        raise DataError(f"muse must have usable pixels; got none in {muse.name or 'the image'}: all are masked or not finite.")
    if muse.variance is not None:
        sound = np.isfinite(muse.variance) & (muse.variance > 0)
        if not (good & sound).any():
            raise DataError(
                f"variance must be positive somewhere; got none in {muse.name or 'the image'}. "
                "Leave the variance out to estimate the noise from the residuals."
            )
        bad_variance = bool((good & ~sound).any())
        good &= sound
        ivar = np.where(good, 1.0 / np.where(sound, muse.variance, 1.0), 0.0)
    else:
        ivar = good / _noise(muse.values, good) ** 2
    values = grid.place(np.where(good, muse.values, 0.0))
    covered = transform.covered
    weights = grid.place(ivar)
    shift, further = _first_shift(transform, values, weights if sky_mask is None else weights * grid.place(~sky_mask), options)
    if further is not None:
        warnings.warn(
            f"{muse.name or 'MUSE'} looks much more like {hst.name or 'HST'} with dx = {further[0]:+.1f}, dy = {further[1]:+.1f} "
            f"arcsec, further away than the search goes: margin is {options.margin:g}. If that may be so, say init_dx and "
            "init_dy (--init-dx, --init-dy), or a larger margin.",
            IfujaxWarning,
            stacklevel=2,
        )
    mask = np.zeros(muse.shape, bool) if pixel_mask is None else pixel_mask.copy()
    whole = (int(np.rint(shift[1] / grid.step[0])), int(np.rint(shift[0] / grid.step[1])))
    if sky_mask is not None:
        mask |= _moved(sky_mask, whole, fill=bool(sky_mask.mean() > 0.5))
    weights = weights * grid.place(~mask) * _moved(covered, whole, fill=False)
    share = 1.0
    if transform.window is not None:
        values, weights = low_passed(values, weights, transform.window)
        whole_plane = np.concatenate([transform.window, transform.window[:, -2:0:-1]], axis=1)
        share = float(np.mean(whole_plane**2))
    _require_enough(weights, hst, muse)
    estimated = muse.variance is None
    return Prepared(hst, muse, transform, mask, values, weights, shift, estimated, share, bad_variance=bad_variance)


def turned(prepared: Prepared, rotation: float, options: PhotometryOptions) -> Prepared:
    """Return the pair with the reference turned by `rotation` degrees."""
    transform = _transform(prepared.hst, prepared.muse, options, {}, rotation, prepared.grid.shape)
    return replace(prepared, transform=transform, rotation=rotation)


def _transform(
    hst: Image, muse: Image, options: PhotometryOptions, cache: TransformCache, rotation: float, least: tuple[int, int]
) -> HstTransform:
    header = "" if muse.celestial is None else muse.celestial.to_header_string()
    key = (id(hst), muse.shape, header, rotation, least)
    if key not in cache:
        cache[key] = transform_hst(
            hst, muse, options.hst_psf, sampling=options.sampling, rotation=rotation, edge=options.edge, least=least
        )
    return cache[key]


def _first_shift(
    transform: HstTransform, values: np.ndarray, ivar: np.ndarray, options: PhotometryOptions
) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """Return the shift (dx, dy) in arcsec at which HST, blurred as MUSE usually is, explains most, and one further away that
    explains much more, if there is."""
    step_y, step_x = transform.grid.step
    centre = [
        fixed if fixed is not None else begin if begin is not None else 0.0
        for fixed, begin in ((options.fix_dy, options.init_dy), (options.fix_dx, options.init_dx))
    ]
    at = round(centre[0] / step_y), round(centre[1] / step_x)
    limits = [(n - 1) // 2 for n in transform.grid.shape]
    reach = [
        0 if fixed is not None else min(int(options.margin / step), limit)
        for fixed, step, limit in ((options.fix_dy, step_y, limits[0]), (options.fix_dx, step_x, limits[1]))
    ]
    if not any(reach):
        return (centre[1], centre[0]), None
    (y, x), other = best_shift(transform.typical, values, ivar, at, (reach[0], reach[1]))
    found = (
        centre[1] if options.fix_dx is not None else x * step_x,
        centre[0] if options.fix_dy is not None else y * step_y,
    )
    fixed = options.fix_dx is not None or options.fix_dy is not None
    return found, None if other is None or fixed else (other[1] * step_x, other[0] * step_y)


def low_passed(values: np.ndarray, ivar: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an image without the frequencies that `window` takes out, and what is left of its weights.

    Pixels without weight are filled from their neighbours first, and those next to them, into which they leak, lose their
    weight too.
    """
    used = ivar > 0
    known = ndimage.gaussian_filter(np.where(used, values, 0.0), 2.0)
    share = ndimage.gaussian_filter(used.astype(np.float64), 2.0)
    level = float(np.median(values[used])) if used.any() else 0.0
    filled = np.where(used, values, np.where(share > 0.01, known / np.maximum(share, 0.01), level))
    smooth = fft.irfft2(fft.rfft2(filled) * window, s=values.shape)
    kept = ndimage.binary_erosion(used, iterations=_LEAK)
    return smooth, np.where(kept, ivar, 0.0)


def _moved(image: np.ndarray, shift: tuple[int, int], fill: bool) -> np.ndarray:
    """Move an image by whole pixels (y, x)."""
    return ndimage.shift(image.astype(np.uint8), shift, order=0, mode="constant", cval=int(fill)) > 0


def _noise(values: np.ndarray, good: np.ndarray) -> float:
    """Estimate the noise of a pixel from differences of neighbours, which sources hardly touch."""
    both = good[:, 1:] & good[:, :-1]
    step = (np.where(good, values, 0.0)[:, 1:] - np.where(good, values, 0.0)[:, :-1])[both]
    spread = MAD_TO_SIGMA * float(np.median(np.abs(step))) / np.sqrt(2.0) if step.size else 0.0
    if spread > 0:
        return spread
    return max(float(np.std(values[good])), float(np.abs(values[good]).max()) * 1e-6) or 1.0


def _require_enough(weights: np.ndarray, hst: Image, muse: Image) -> None:
    left = int((weights > 0).sum())
    if left < _LEAST_PIXELS:
        raise DataError(
            f"images must share {_LEAST_PIXELS} usable pixels at least; got {left} of {muse.name or 'MUSE'} with "
            f"{hst.name or 'HST'} around them. Check masks, regions and coordinates; edge=0 keeps pixels next to where HST ends."
        )
