"""`fit_image_photometry`, `fit_star_photometry` and both at once: from images or files to results."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.images import read_image
from ifujax.io.regions import RegionList, circle_mask, read_regions, region_mask
from ifujax.models.psf import MoffatPSF
from ifujax.photometry.config import BETA_PRIOR, HST_PSF, PhotometryOptions
from ifujax.photometry.forward import fit_prepared
from ifujax.photometry.fourier import FourierOptions, fit_fourier
from ifujax.photometry.geometry import celestial_of, pixel_steps
from ifujax.photometry.outcome import Outcome
from ifujax.photometry.preparation import Prepared, TransformCache, prepare
from ifujax.photometry.regrid import images_aligned, rescale_like
from ifujax.photometry.results import ImagePhotometry, StarPhotometry
from ifujax.photometry.stars import StarOutcome, fit_stars, star_pixels

ImageLike = Image | str | Path
Star = tuple[float, float, float]
"""RA and Dec in degrees, radius in arcsec."""
Mask = ImageLike | np.ndarray | None
_FIRST = 8
"""Images that are prepared before the first results are yielded; more make larger batches, but later news."""
_KEPT = 16
"""Transforms of HST that are kept for further images on the same pixels."""
_DISAGREE = 3.0
OnError = Callable[[ImageLike, Exception], None]
_Pair = tuple[Image, Image, np.ndarray | None, np.ndarray | None]
"""HST and MUSE, with masks by the sky and by pixels."""


@overload
def fit_image_photometry(hst: ImageLike, muse: ImageLike, **arguments: Any) -> ImagePhotometry: ...
@overload
def fit_image_photometry(
    hst: ImageLike | Sequence[ImageLike], muse: Sequence[ImageLike], **arguments: Any
) -> list[ImagePhotometry]: ...
def fit_image_photometry(hst: Any, muse: Any, **arguments: Any) -> Any:
    """Find PSF, flux scale, background and pointing of MUSE images by comparing them with HST images.

    The HST image, moved, blurred to a Moffat PSF, sampled by the pixels of MUSE, scaled and raised by a constant, is fitted to
    each MUSE image, weighted by its variances. Scale and background are solved for exactly at each step.

    Parameters
    ----------
    hst : Image or path, or a sequence of one for each MUSE image
        With its own pixels or on those of MUSE (`regrid_like`). In another unit than MUSE it is scaled by its header
        (`rescale_like`).
    muse : Image or path, or a sequence
        With a variance; else the noise is estimated from the residuals. A sequence is fitted in batches.
    regions : str, path or lines, optional
        "none", "star", "notstar", or a DS9 region file, by the coordinates of `hst`: what to compare.
    star : (ra, dec, radius), optional
        Degrees, degrees, arcsec. Without `regions`: compare within this circle only.
    extramask : Image, path or (y, x) array, optional
        Non-zero pixels of MUSE are left out.
    options : PhotometryOptions, optional
    **more
        Any field of `PhotometryOptions`, instead of `options`: ``fix_beta=2.5``, ``elliptical=True``, ...

    Returns
    -------
    ImagePhotometry, or a list of them in the order of `muse`

    Raises
    ------
    DataError
        For images that don't overlap, have no usable pixel, or can't be read.
    UsageError
        For options that make no sense.

    Examples
    --------
    >>> fit = fit_image_photometry("hst_F606W.fits", "muse_F606W.fits")  # doctest: +SKIP
    >>> print(fit.summary())  # doctest: +SKIP
    """
    if _is_single(muse) or not isinstance(muse, Iterable):
        return next(iterate_image_photometry(hst, [muse], **arguments))
    return list(iterate_image_photometry(hst, muse, **arguments))


def iterate_image_photometry(
    hst: ImageLike | Sequence[ImageLike],
    muse: Iterable[ImageLike],
    *,
    regions: Any = None,
    star: Star | None = None,
    extramask: Mask = None,
    options: PhotometryOptions | None = None,
    devices: Any = None,
    on_error: OnError | None = None,
    **more: Any,
) -> Iterator[ImagePhotometry]:
    """Yield what `fit_image_photometry` finds of each image, in order, as batches of a few are done.

    Parameters are those of `fit_image_photometry`; `devices` are JAX devices or the name of a platform. `on_error` is called with
    an image of `muse` that can't be used, and why; the others go on. By default the error is raised.
    """
    options = options_of(options, more)
    check_star(star)
    regions = regions if regions is None or isinstance(regions, RegionList) else _regions_of(regions, star) or "none"
    pairs = pairs_of(hst, muse)
    cache: TransformCache = {}
    read: dict[Any, Image] = {}
    scaled: dict[Any, Image] = {}

    def ready(one: ImageLike, other: ImageLike) -> _Pair:
        target = load_image(other)
        if not isinstance(one, Image) and str(one) not in read:
            read[str(one)] = load_image(one)
        reference = one if isinstance(one, Image) else read[str(one)]
        key = (id(reference), target.unit)
        if key not in scaled:
            warn_of_camera(reference, options.hst_psf)
            scaled[key] = in_unit_of(reference, target)
        return scaled[key], target, *masks_of(regions, star, extramask, target)

    for first in range(0, len(pairs), _FIRST):
        some = pairs[first : first + _FIRST]
        if options.method == "fourier":
            for one, other in some:
                fitted: list[ImagePhotometry] = []
                with _handing_on(other, on_error):
                    pair = ready(one, other)
                    fitted.append(ImagePhotometry("image", pair[1].name, _fourier(*pair, options), pair[1], options=options))
                yield from fitted
            continue
        prepared: list[Prepared] = []
        if len(cache) > _KEPT:
            cache.clear()
        for one, other in some:
            with _handing_on(other, on_error):
                hst_image, target, sky, pixel = ready(one, other)
                prepared.append(prepare(hst_image, target, options, sky, pixel, cache=cache))
        fitted_pairs = {i: (outcome, final) for i, outcome, final in fit_prepared(prepared, options, devices)}
        for i, each in enumerate(prepared):
            outcome, final = fitted_pairs[i]
            yield ImagePhotometry("image", each.muse.name, outcome, each.muse, options=options, prepared=final)


@contextmanager
def _handing_on(image: ImageLike, on_error: OnError | None) -> Iterator[None]:
    try:
        yield
    except (DataError, UsageError, OSError) as error:
        if on_error is None:
            raise
        on_error(image, error)


def _fourier(
    hst: Image, muse: Image, sky_mask: np.ndarray | None, pixel_mask: np.ndarray | None, options: PhotometryOptions
) -> Outcome:
    if not images_aligned(hst, muse):
        raise DataError(
            f"images must have the same pixels with method 'fourier'; got {hst.name or 'HST'} {hst.shape} and "
            f"{muse.name or 'MUSE'} "
            f"{muse.shape}. Use `ifujax regrid` (regrid_like) first, or method 'forward'."
        )
    psf = options.hst_psf
    fwhm, beta = (float(psf.fwhm), float(psf.beta)) if isinstance(psf, MoffatPSF) else (0.085, 1.6)
    own = {name: getattr(options, name) for name in ("min_scale", "margin", "segment", "init_dx", "init_dy")}
    own |= {f"fix_{name}": getattr(options, f"fix_{name}") for name in ("scale", "bg", "dx", "dy", "fwhm", "beta")}
    taper = 9 if options.taper is None else options.taper
    reference = hst.values if sky_mask is None else np.where(sky_mask, np.nan, hst.values)
    target = muse.values if pixel_mask is None else np.where(pixel_mask, np.nan, muse.values)
    found = FourierOptions(hst_fwhm=fwhm, hst_beta=beta, taper=taper, **own)
    return fit_fourier(reference, target, pixel_steps(muse), options=found, name=muse.name)


def fit_star_photometry(
    hst: ImageLike,
    muse: ImageLike | Sequence[ImageLike],
    star: Star,
    *,
    extramask: Mask = None,
    fix_fwhm: float | None = None,
    fix_beta: float | None = None,
    beta_prior: Any = BETA_PRIOR,
    hst_psf: MoffatPSF | None = None,
    integrate_pixels: bool = False,
) -> Any:
    """Find PSF, flux scale, background and pointing from one star that both images show, by a Moffat profile fitted to each.

    Parameters
    ----------
    hst : Image or path
        As for `fit_image_photometry`.
    muse : Image or path, or a sequence
    star : (ra, dec, radius)
        Degrees, degrees, arcsec: the star, and the pixels around it that are fitted.
    extramask : Image, path or (y, x) array, optional
        Non-zero pixels of MUSE are left out.
    fix_fwhm, fix_beta : float, optional
        Of the MUSE image.
    beta_prior : Normal or None
        Of the MUSE image.
    hst_psf : MoffatPSF, optional
        Of HST before regridding, where `hst` is on the pixels of MUSE.
    integrate_pixels : bool
        See `PhotometryOptions`.

    Returns
    -------
    StarPhotometry, or a list of them

    Raises
    ------
    DataError, UsageError
        For a star outside an image, too few pixels, or images that can't be read.

    Notes
    -----
    On an HST image that was low-passed and regridded a star is no Moffat function: its known PSF is fitted then. An image with
    its own pixels is better still.
    """
    check_star(star, required=True)
    many = not _is_single(muse)
    images: Any = muse if many else [muse]
    targets = [load_image(each) for each in images]
    reference = load_image(hst)
    psf = hst_psf or HST_PSF
    pairs = []
    for target in targets:
        scaled = in_unit_of(reference, target)
        pairs.append((star_pixels(_without(target, extramask), *star), star_pixels(scaled, *star, like=target)))
    found = fit_stars(
        pairs,
        fix_fwhm=fix_fwhm,
        fix_beta=fix_beta,
        beta_prior=beta_prior,
        integrate_pixels=integrate_pixels,
        hst_fwhm=float(psf.fwhm),
        hst_beta=float(psf.beta),
    )
    results = [
        StarPhotometry(
            "stars", target.name, _outcome_of_star(each), target, star=star, details=each, integrate_pixels=integrate_pixels
        )
        for target, each in zip(targets, found)
    ]
    return results if many else results[0]


def fit_image_and_star_photometry(hst: ImageLike, muse: ImageLike | Sequence[ImageLike], star: Star, **arguments: Any) -> Any:
    """Fit images and a star in them: pairs of what `fit_image_photometry` and `fit_star_photometry` find.

    Parameters
    ----------
    hst, muse, star
        As for these. By default the image fit is confined to the circle about the star; ``regions="none"`` or "notstar" says
        otherwise.
    **arguments
        Those of `fit_image_photometry`.

    Returns
    -------
    (ImagePhotometry, StarPhotometry), or a list of pairs

    Warns
    -----
    IfujaxWarning
        Where the two flux scales differ by more than 3 sigma: bright stars can be affected by saturation, proper motion, or
        charge transfer.
    """
    images: Any = fit_image_photometry(hst, muse, star=star, **arguments)
    options = options_of(
        arguments.get("options"), {k: v for k, v in arguments.items() if k not in ("options", "regions", "extramask", "devices")}
    )
    psf = options.hst_psf if isinstance(options.hst_psf, MoffatPSF) else None
    stars = fit_star_photometry(
        hst,
        muse,
        star,
        extramask=arguments.get("extramask"),
        fix_fwhm=options.fix_fwhm,
        fix_beta=options.fix_beta,
        beta_prior=options.beta_prior,
        hst_psf=psf,
        integrate_pixels=options.integrate_pixels,
    )
    single = _is_single(muse)
    pairs = [(images, stars)] if single else list(zip(images, stars))
    for image, of_star in pairs:
        compare_scales(image, of_star)
    return pairs[0] if single else pairs


def compare_scales(image: ImagePhotometry, star: StarPhotometry) -> None:
    """Warn (IfujaxWarning) where the flux scales of an image and of a star in it differ by more than 3 sigma."""
    apart = abs(image.scale.value - star.scale.value) / math.hypot(image.scale.error, star.scale.error, 1e-30)
    if apart > _DISAGREE:
        warnings.warn(
            f"{image.name}: the flux scales of image and star differ by {apart:.1f} sigma ({image.scale} and {star.scale}). "
            "Saturation, proper motion or charge transfer may affect the star: compare regions='notstar'.",
            IfujaxWarning,
            stacklevel=3,
        )


def options_of(options: PhotometryOptions | None, more: dict[str, Any]) -> PhotometryOptions:
    """Return options, changed by keywords; unknown ones are a UsageError."""
    from ifujax.errors import unknown

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


def check_star(star: Star | None, required: bool = False) -> None:
    """Raise a UsageError for a star that can't be."""
    if star is None and not required:
        return
    if not (isinstance(star, Sequence) and len(star) == 3 and all(isinstance(x, (int, float)) for x in star)):
        raise UsageError(f"star must be (RA, Dec, radius) in degrees, degrees and arcsec; got {star!r}.")
    if not (all(math.isfinite(x) for x in star) and abs(star[1]) <= 90 and star[2] > 0):
        raise UsageError(f"star must have a position on the sky and a positive radius in arcsec; got {tuple(star)!r}.")


def masks_of(regions: Any, star: Star | None, extramask: Mask, muse: Image) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return what is left out of a MUSE image, by the coordinates of HST and by its own pixels; None for nothing."""
    check_star(star)
    return _sky_mask(_regions_of(regions, star), star, muse), _pixel_mask(extramask, muse)


def _regions_of(regions: Any, star: Star | None) -> str | RegionList | None:
    """Return "star", "notstar", None for everything, or shapes."""
    if regions is None:
        return "star" if star is not None else None
    if isinstance(regions, str) and regions.strip().lower() in ("none", "", "star", "notstar"):
        word = regions.strip().lower()
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


def _pixel_mask(extramask: Mask, muse: Image) -> np.ndarray | None:
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


def _without(muse: Image, extramask: Mask) -> Image:
    mask = _pixel_mask(extramask, muse)
    return muse if mask is None else replace(muse, values=np.where(mask, np.nan, muse.values))


def _outcome_of_star(found: StarOutcome) -> Outcome:
    """Put a star's values into the form that both methods share; its pixels are no image."""
    empty = np.zeros((0, 0))
    return Outcome(
        values=found.values,
        errors=found.errors,
        covariance=found.covariance,
        covariance_names=found.covariance_names,
        chi2=found.muse_chi2 + found.hst_chi2,
        n_good=found.n_good,
        n_free=found.n_free,
        n_iter=found.n_iter,
        status=found.status,
        warn=found.warn,
        rms=found.rms,
        data=empty,
        model=empty,
    )


def _is_single(muse: Any) -> bool:
    return isinstance(muse, (Image, str, Path))


def pairs_of(hst: Any, muse: Any) -> list[tuple[ImageLike, ImageLike]]:
    """Return one HST image for each MUSE image."""
    if _is_single(muse) or not isinstance(muse, Iterable):
        raise UsageError(f"muse must be a sequence of images or file names here; got {type(muse).__name__}.")
    muse = list(muse)
    if not muse:
        raise UsageError("muse must hold an image at least; got none.")
    if _is_single(hst) or not isinstance(hst, Iterable):
        return [(hst, each) for each in muse]
    hst = list(hst)
    if len(hst) != len(muse):
        raise UsageError(f"hst must be one image, or one for each of the {len(muse)} MUSE images; got {len(hst)}.")
    return list(zip(hst, muse))


__all__ = ["fit_image_and_star_photometry", "fit_image_photometry", "fit_star_photometry", "iterate_image_photometry"]
