"""`fit_star_photometry`, and images and a star in them at once: from images or files to results."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ifujax.data.image import Image
from ifujax.errors import IfujaxWarning, UsageError, unknown
from ifujax.photometry.config import STAR_OPTIONS, PhotometryOptions
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
)
from ifujax.photometry.masks import without
from ifujax.photometry.outcome import Outcome
from ifujax.photometry.results import ImagePhotometry, StarPhotometry
from ifujax.photometry.run import fit_image_photometry
from ifujax.photometry.stars.fit import StarOutcome, fit_stars, is_regridded, star_pixels

_DISAGREE = 3.0
"""Sigma."""


def fit_star_photometry(
    hst: ImageLike | Sequence[ImageLike],
    muse: ImageLike | Sequence[ImageLike],
    star: Star,
    *,
    extramask: Mask = None,
    options: PhotometryOptions | None = None,
    **more: Any,
) -> Any:
    """Find PSF, flux scale, background and pointing from one star that both images show, by a Moffat profile fitted to each.

    Parameters
    ----------
    hst : Image or path, or a sequence of one for each MUSE image
        As for `fit_image_photometry`.
    muse : Image or path, or a sequence
    star : (ra, dec, radius)
        Degrees, degrees, arcsec: the star, and the pixels around it that are fitted.
    extramask : Image, path or (y, x) array, optional
        Non-zero pixels of MUSE are left out.
    options : PhotometryOptions, optional
        Of which a star fit takes ``fix_fwhm``, ``fix_beta`` and ``beta_prior`` (of the MUSE image), ``hst_psf`` (a
        MoffatPSF, where `hst` is on the pixels of MUSE), ``integrate_pixels``, ``sampling`` and ``noise``.
    **more
        Any of these, instead of `options`.

    Returns
    -------
    StarPhotometry, or a list of them

    Raises
    ------
    DataError, UsageError
        For a star outside an image, too few pixels, or images that can't be read; for an option that star fits do not have.

    Notes
    -----
    On an HST image that was low-passed and regridded a star is no Moffat function: its known PSF is fitted then. An image with
    its own pixels is better still.
    """
    for name in more:
        if name not in STAR_OPTIONS:
            raise UsageError(unknown("option of a star fit", name, list(STAR_OPTIONS)))
    options = options_of(options, more)
    check_star(star, required=True)
    many = not is_single(muse)
    given = pairs_of(hst, muse if many else [muse])
    targets = [load_image(each) for _, each in given]
    scaled: dict[Any, Image] = {}
    pairs = []
    for (one, _), target in zip(given, targets):
        key = (one if isinstance(one, (str, Path)) else id(one), target.unit)
        if key not in scaled:
            reference = load_image(one)
            check_order(reference, target)
            scaled[key] = in_unit_of(reference, target)
        of_muse, of_hst = star_pixels(without(target, extramask), *star), star_pixels(scaled[key], *star, like=target)
        pairs.append((of_muse, of_hst))
        if is_regridded(of_muse, of_hst, options):
            warn_of_camera(scaled[key], options.hst_psf)
    results = [
        StarPhotometry("stars", target.name, _outcome_of_star(each), target, star=star, details=each, options=options)
        for target, each in zip(targets, fit_stars(pairs, options))
    ]
    return results if many else results[0]


def fit_image_and_star_photometry(
    hst: ImageLike | Sequence[ImageLike], muse: ImageLike | Sequence[ImageLike], star: Star, **arguments: Any
) -> Any:
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
    options = options_of(
        arguments.get("options"), {k: v for k, v in arguments.items() if k not in ("options", "regions", "extramask", "devices")}
    )
    target: Any = muse
    images: Any = fit_image_photometry(hst, target, star=star, **arguments)
    stars = fit_star_photometry(hst, muse, star, extramask=arguments.get("extramask"), options=options)
    single = is_single(muse)
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
        misfit=found.misfit,
        significance=found.significance,
    )
