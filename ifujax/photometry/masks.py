"""What is left out of a MUSE image: by regions of the sky, about a star, or by its pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ifujax.data.image import Image
from ifujax.errors import DataError, UsageError
from ifujax.images.regrid import images_aligned
from ifujax.io.regions import RegionList, circle_mask, read_regions, region_mask
from ifujax.photometry.inputs import Mask, Star, check_star, load_image


def masks_of(regions: Any, star: Star | None, extramask: Mask, muse: Image) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return what is left out of a MUSE image, by the coordinates of HST and by its own pixels; None for nothing."""
    check_star(star)
    return _sky_mask(regions_of(regions, star), star, muse), pixel_mask(extramask, muse)


def regions_of(regions: Any, star: Star | None) -> str | RegionList | None:
    """Return "star", "notstar", None for everything, or shapes."""
    if regions is None:
        return "star" if star is not None else None
    if isinstance(regions, str) and regions.strip().lower() in ("none", "", "star", "notstar"):
        word = regions.strip().lower()
        if word in ("star", "notstar") and star is None:
            raise UsageError(f"star must be given with regions {word!r} (--star RA DEC RADIUS); got none.")
        return word if word in ("star", "notstar") and star is not None else None
    return regions if isinstance(regions, RegionList) else read_regions(regions)


def _sky_mask(regions: str | RegionList | None, star: Star | None, muse: Image) -> np.ndarray | None:
    """True = left out, on the pixels of the MUSE image, taken to lie where HST has them."""
    if regions is None:
        return None
    if isinstance(regions, RegionList):
        mask = region_mask(regions, muse.celestial, muse.shape, muse.header)
        if mask.all():
            raise DataError(
                f"regions must leave pixels of {muse.name or 'the MUSE image'} to compare; got {regions.source}, which "
                "leaves none."
            )
        return mask
    if star is None:
        return None
    outside = circle_mask(muse.celestial, muse.shape, *star)
    if outside.all():
        raise UsageError(
            f"star must lie within the image; got RA {star[0]:.6f}, Dec {star[1]:.6f}, outside {muse.name or 'MUSE'} "
            f"({muse.shape[1]} x {muse.shape[0]} pixels)."
        )
    return outside if regions == "star" else ~outside


def pixel_mask(extramask: Mask, muse: Image) -> np.ndarray | None:
    """True = left out, on the pixels of the MUSE image as they are; None for nothing."""
    if extramask is None or (isinstance(extramask, str) and extramask.strip().lower() in ("none", "")):
        return None
    if isinstance(extramask, np.ndarray):
        mask = np.asarray(extramask)
    else:
        image = load_image(extramask)
        if not images_aligned(image, muse):
            raise DataError(
                f"extramask must have the pixels of {muse.name or 'the MUSE image'}; got {image.name or 'an image'} on "
                "other ones."
            )
        mask = np.where(np.isfinite(image.values), image.values, 1.0)
    if mask.shape != muse.shape:
        raise UsageError(f"extramask must have the shape of the MUSE image, {muse.shape}; got {mask.shape}.")
    return mask != 0


def without(muse: Image, extramask: Mask) -> Image:
    """Return a MUSE image whose masked pixels are NaN."""
    mask = pixel_mask(extramask, muse)
    return muse if mask is None else replace(muse, values=np.where(mask, np.nan, muse.values))
