"""`fit_image_photometry`: from images or files to results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np

from ifujax.data.image import Image
from ifujax.errors import DataError, SwappedImages, UsageError
from ifujax.images.geometry import pixel_steps
from ifujax.images.regrid import images_aligned
from ifujax.io.regions import RegionList
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.forward.fit import fit_prepared
from ifujax.photometry.forward.preparation import Prepared, TransformCache, prepare
from ifujax.photometry.fourier.fit import fit_fourier
from ifujax.photometry.inputs import (
    ImageLike,
    Mask,
    Star,
    check_order,
    check_star,
    in_unit_of,
    is_single,
    load_image,
    options_of,
    pairs_of,
    warn_of_camera,
    warn_of_pixels,
)
from ifujax.photometry.masks import masks_of, regions_of
from ifujax.photometry.outcome import Outcome
from ifujax.photometry.results import ImagePhotometry

_FIRST = 8
"""Images that are prepared before the first results are yielded; more make larger batches, but later news."""
_KEPT = 16
"""Transforms of HST that are kept for further images on the same pixels."""
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
        "none", "star", "notstar", or a DS9 region file: what to compare. Places on the sky are taken to be those of `hst`;
        regions in pixels ("image", "physical") count those of MUSE.
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
        For options that make no sense, or an HST image with larger pixels than MUSE: swapped ones.

    Examples
    --------
    >>> fit = fit_image_photometry("hst_F606W.fits", "muse_F606W.fits")  # doctest: +SKIP
    >>> print(fit.summary())  # doctest: +SKIP
    """
    if is_single(muse) or not isinstance(muse, Iterable):
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
    regions = regions if regions is None or isinstance(regions, RegionList) else regions_of(regions, star) or "none"
    pairs = pairs_of(hst, muse)
    cache: TransformCache = {}
    read: dict[Any, Image] = {}
    scaled: dict[Any, Image] = {}

    def ready(one: ImageLike, other: ImageLike) -> _Pair:
        target = load_image(other)
        if not isinstance(one, Image) and str(one) not in read:
            read[str(one)] = load_image(one)
        reference = one if isinstance(one, Image) else read[str(one)]
        check_order(reference, target)
        key = (id(reference), target.unit)
        if key not in scaled:
            warn_of_camera(reference, options.hst_psf)
            warn_of_pixels(reference, target, options)
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
        if on_error is None or isinstance(error, SwappedImages):
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
    reference = hst.values if sky_mask is None else np.where(sky_mask, np.nan, hst.values)
    target = muse.values if pixel_mask is None else np.where(pixel_mask, np.nan, muse.values)
    return fit_fourier(reference, target, pixel_steps(muse), options=options, name=muse.name)
