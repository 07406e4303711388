"""What users give of images, made ready: read, checked, in one unit, HST and MUSE in pairs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ifujax.data.image import Image
from ifujax.errors import IfujaxWarning, SwappedImages, UsageError, unknown
from ifujax.images.geometry import celestial_of, pixel_steps
from ifujax.images.regrid import rescale_like
from ifujax.io.images import read_image
from ifujax.models.psf import MoffatPSF
from ifujax.photometry.config import HST_PSF, PhotometryOptions
from ifujax.photometry.forward.reference import resolved_sampling

_COARSER = 1.1
"""How much larger pixels of HST may be than those of MUSE, for roundings of headers: no regridding makes any."""
_UNDERSAMPLED = 0.6
"""Pixels over FWHM: at 0.05 arcsec for the 0.085 of ACS, stars in the middle of pixels are 0.4 % brighter than elsewhere."""
ImageLike = Image | str | Path
Star = tuple[float, float, float]
"""RA and Dec in degrees, radius in arcsec."""
Mask = ImageLike | np.ndarray | None


def options_of(options: PhotometryOptions | None, more: dict[str, Any]) -> PhotometryOptions:
    """Return options, changed by keywords; unknown ones are a UsageError."""
    known = list(PhotometryOptions.__dataclass_fields__)
    for name in more:
        if name not in known:
            raise UsageError(unknown("option", name, known))
    return replace(options or PhotometryOptions(), **more)


def load_image(image: ImageLike) -> Image:
    """Return an image, read if it is a path; it must have coordinates."""
    if not isinstance(image, Image):
        if not isinstance(image, (str, Path)):
            raise UsageError(f"an image must be an Image or the name of a FITS file; got {type(image).__name__}.")
        image = read_image(image)
    celestial_of(image)
    return image


def in_unit_of(hst: Image, muse: Image) -> Image:
    """Return an HST image in the flux unit of a MUSE image.

    Warns
    -----
    IfujaxWarning
        If the MUSE image has no unit: HST is then left as it is, and the flux scale has a unit of its own.
    """
    if not muse.unit:
        warnings.warn(
            f"{muse.name or 'the MUSE image'} has no unit (BUNIT): the flux scale and background are relative to HST in "
            f"{hst.unit or 'its own unit'}. Say it: --unit, or dataclasses.replace(image, unit=...).",
            IfujaxWarning,
            stacklevel=2,
        )
        return hst
    if hst.unit == muse.unit:
        return hst
    return rescale_like(hst, muse)


def warn_of_camera(hst: Image, psf: Any) -> None:
    """Warn (IfujaxWarning) where the default PSF, which is that of ACS, is taken for an image of another camera."""
    camera = str((hst.header or {}).get("INSTRUME", "")).strip().upper()
    if psf == HST_PSF and camera and not camera.startswith(("ACS", "MUSE")):
        warnings.warn(
            f"the PSF of {hst.name or 'the HST image'} is taken for that of ACS, FWHM {HST_PSF.fwhm} arcsec and beta "
            f"{HST_PSF.beta}; its "
            f"header says {camera}. Give its own, of a star perhaps: hst_psf (--hst-fwhm, --hst-beta).",
            IfujaxWarning,
            stacklevel=2,
        )


def check_order(hst: Image, muse: Image) -> None:
    """Raise a UsageError for an HST image coarser than that of MUSE."""
    sizes = [math.sqrt(math.prod(pixel_steps(each))) for each in (hst, muse)]
    if sizes[0] > _COARSER * sizes[1]:
        raise SwappedImages(
            f"hst must have pixels no larger than those of muse; got {sizes[0]:.3g} arcsec ({hst.name or 'hst'}) and "
            f"{sizes[1]:.3g} arcsec ({muse.name or 'muse'}). The image of HST comes first: are they swapped?"
        )


def warn_of_pixels(hst: Image, muse: Image, options: PhotometryOptions) -> None:
    """Warn (IfujaxWarning) where the pixels of HST undersample its PSF, which its transform doesn't know."""
    size, other = (math.sqrt(math.prod(pixel_steps(each))) for each in (hst, muse))
    psf = options.hst_psf
    native = resolved_sampling(options.sampling, other / size) == "native" and options.method == "forward"
    if not native or not isinstance(psf, MoffatPSF) or psf.sampled or size <= _UNDERSAMPLED * psf.fwhm:
        return
    warnings.warn(
        f"pixels of {hst.name or 'the HST image'} are {size:.3g} arcsec, more than {_UNDERSAMPLED} of the FWHM of its PSF, "
        f"{psf.fwhm:.3g}: scale and FWHM are biased by what lies between them. Give an image with finer pixels, its own PSF "
        "(hst_psf, --hst-fwhm), or one sampled as it is (MoffatPSF(..., sampled=...), --hst-sampled).",
        IfujaxWarning,
        stacklevel=2,
    )


def check_star(star: Star | None, required: bool = False) -> None:
    """Raise a UsageError for a star that can't be."""
    if star is None and not required:
        return
    if not (isinstance(star, Sequence) and len(star) == 3 and all(isinstance(x, (int, float)) for x in star)):
        raise UsageError(f"star must be (RA, Dec, radius) in degrees, degrees and arcsec; got {star!r}.")
    if not (all(math.isfinite(x) for x in star) and abs(star[1]) <= 90 and star[2] > 0):
        raise UsageError(f"star must have a position on the sky and a positive radius in arcsec; got {tuple(star)!r}.")


def is_single(muse: Any) -> bool:
    """Return whether this is one image, not a sequence."""
    return isinstance(muse, (Image, str, Path))


def pairs_of(hst: Any, muse: Any) -> list[tuple[ImageLike, ImageLike]]:
    """Return one HST image for each MUSE image."""
    if is_single(muse) or not isinstance(muse, Iterable):
        raise UsageError(f"muse must be a sequence of images or file names here; got {type(muse).__name__}.")
    muse = list(muse)
    if not muse:
        raise UsageError("muse must hold an image at least; got none.")
    if is_single(hst) or not isinstance(hst, Iterable):
        return [(hst, each) for each in muse]
    hst = list(hst)
    if len(hst) != len(muse):
        raise UsageError(f"hst must be one image, or one for each of the {len(muse)} MUSE images; got {len(hst)}.")
    return list(zip(hst, muse))
