"""PSF, scale, offset and pointing from a star that both images show: a profile and a constant fitted to each.

The method of imphot's star fits (M. Shepherd, musevlt/imphot), with masked pixels left out, true variances, and bounds
that keep the profile a profile. A star must be isolated: a neighbour or a galaxy within the aperture spoils it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ifujax.errors import UsageError
from ifujax.inference import status as bits
from ifujax.models.psf import MoffatPSF
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.detection import DETECTED
from ifujax.photometry.forward.reference import resolved_sampling
from ifujax.photometry.goodness import Misfit
from ifujax.photometry.stars.batch import BETA_RANGE, StarFit, StarFitter
from ifujax.photometry.stars.cutout import Star, star_pixels

__all__ = ["NAMES", "Star", "StarOutcome", "fit_stars", "is_regridded", "star_pixels"]

NAMES: tuple[str, ...] = ("scale", "bg", "dx", "dy", "fwhm", "beta")
_KEYS = ("fwhm", "beta", "dx", "dy", "bg", "flux")
_NODES = 7
"""Points along each side of a pixel where it is integrated over."""


@dataclass(frozen=True)
class StarOutcome:
    """What was found of one star in both images.

    Attributes
    ----------
    values, errors : mapping of str to float
        ``scale`` = MUSE / HST, ``bg`` = MUSE - scale HST, ``dx, dy`` = MUSE - HST (arcsec), ``fwhm, beta`` of the MUSE image;
        errors are 1 sigma, 0 for what was fixed.
    covariance : (n, n) array
        Of those that were not: `covariance_names`.
    covariance_names : tuple of str
    details, detail_errors : mapping of str to float
        ``muse_`` and ``hst_`` + ``fwhm, beta, dx, dy, bg, flux``: each image by itself.
    muse_chi2, hst_chi2 : float
    n_good, n_free, n_iter : int
        Pixels of the two images, and parameters of both fits; the larger number of iterations.
    status, warn : int
        Bits of `ifujax.inference.status`. A fit that failed holds NaN.
    rms : float
        Root mean square of the residuals of the MUSE image, in its unit.
    muse, hst : Star
        What was fitted.
    muse_model, hst_model : (n,) array
        The models of their pixels.
    hst_correlation : float
        Of the errors of ``hst_fwhm`` and ``hst_beta``.
    misfit : Misfit or None
        Where the residuals of MUSE are worst, in pixels of its image.
    significance : float
        Of the star in the image that shows it less, in sigma.
    """

    values: Mapping[str, float]
    errors: Mapping[str, float]
    covariance: np.ndarray
    covariance_names: tuple[str, ...]
    details: Mapping[str, float]
    detail_errors: Mapping[str, float]
    muse_chi2: float
    hst_chi2: float
    n_good: int
    n_free: int
    n_iter: int
    status: int
    warn: int
    rms: float
    muse: Star = field(repr=False)
    hst: Star = field(repr=False)
    muse_model: np.ndarray = field(repr=False)
    hst_model: np.ndarray = field(repr=False)
    hst_correlation: float = 0.0
    misfit: Misfit | None = None
    significance: float = math.nan


def fit_stars(pairs: Sequence[tuple[Star, Star]], options: PhotometryOptions = PhotometryOptions()) -> list[StarOutcome]:
    """Fit stars, each in a MUSE and an HST image, all in one batch.

    Parameters
    ----------
    pairs : sequence of (Star, Star)
        MUSE and HST.
    options : PhotometryOptions
        Of which `STAR_OPTIONS` are looked at. With `integrate_pixels` Moffat functions are averaged over pixels, whose axes
        are taken to be those of the offsets. By `sampling` a star in the HST image is a Moffat function, right for an image
        on its own pixels; or the PSF of HST through the Blackman low-pass of regridding, which no Moffat function can follow
        (its scale is 5 to 7 % too high).

    Returns
    -------
    list of StarOutcome
        In the order of `pairs`.

    Raises
    ------
    UsageError
        For values out of range, or a PSF of HST that is no Moffat function where it is needed.

    Notes
    -----
    Errors come from the variances, or, where a star has none, from its residuals (warning bit ``noise_estimated``);
    ``noise="scaled"`` and "correlated" mend both as they do for images. Those of the two images are independent. ``beta`` is
    kept within 1.01 and 30: below 1 there is no flux, and beyond 30 the profile is a Gaussian to a few per mille of its peak.
    """
    if options.fix_beta is not None and options.fix_beta > BETA_RANGE[1]:
        raise UsageError(f"fix_beta must lie between {BETA_RANGE[0]} and {BETA_RANGE[1]}; got {options.fix_beta}. Try 2.5.")
    nodes = _NODES if options.integrate_pixels else 1
    muse_side = StarFitter(nodes, options.fix_fwhm, options.fix_beta, options.beta_prior, options.noise)
    native_side = StarFitter(nodes, noise=options.noise)

    def side(muse: Star, hst: Star) -> StarFitter:
        if not is_regridded(muse, hst, options):
            return native_side
        psf = options.hst_psf
        if not isinstance(psf, MoffatPSF) or psf.pixel or psf.ellipticity:
            raise UsageError(
                f"hst_psf must be a round MoffatPSF without a pixel for star fits where HST is regridded; got {psf!r}. "
                "Give the HST image with its own pixels."
            )
        return StarFitter(0, float(psf.fwhm), float(psf.beta), noise=options.noise)

    jobs = [(muse_side, muse) for muse, _ in pairs] + [(side(*pair), pair[1]) for pair in pairs]
    found: dict[int, StarFit] = {}
    groups: dict[tuple[StarFitter, int], list[int]] = {}
    for i, (how, star) in enumerate(jobs):
        bucket = 1 << max(star.values.size - 1, 63).bit_length()
        groups.setdefault((how, bucket), []).append(i)
    for (how, bucket), members in groups.items():
        found |= dict(zip(members, how.fit([jobs[i][1] for i in members], bucket)))
    return [_combined(found[i], found[i + len(pairs)]) for i in range(len(pairs))]


def is_regridded(muse: Star, hst: Star, options: PhotometryOptions) -> bool:
    """Return whether the HST image is taken for one that was put onto pixels like those of MUSE."""
    ratio = math.sqrt(math.prod(muse.step) / math.prod(hst.step))
    return resolved_sampling(options.sampling, ratio) == "regridded"


def _combined(muse: StarFit, hst: StarFit) -> StarOutcome:
    """Compare the two images, whose errors are independent."""
    status = muse.status | hst.status
    if not status and hst.values["flux"] <= 0:
        status |= bits.NOT_FINITE.value
    lost = status != 0
    m, h = muse.values, hst.values
    scale = math.nan if lost else m["flux"] / h["flux"]
    # Backgrounds are per pixel, of which MUSE has larger ones
    area = math.prod(muse.star.step) / math.prod(hst.star.step)
    sky = area * h["bg"]
    values: dict[str, float] = {
        "scale": scale,
        "bg": m["bg"] - scale * sky,
        "dx": m["dx"] - h["dx"],
        "dy": m["dy"] - h["dy"],
        "fwhm": m["fwhm"],
        "beta": m["beta"],
    }
    if lost:
        values = dict.fromkeys(NAMES, math.nan)
    by_flux = math.nan if lost else 1.0 / h["flux"]
    # Slopes by the parameters of either image
    slopes = {
        "scale": ({"flux": by_flux}, {"flux": -scale * by_flux}),
        "bg": ({"bg": 1.0, "flux": -sky * by_flux}, {"bg": -scale * area, "flux": sky * scale * by_flux}),
        "dx": ({"dx": 1.0}, {"dx": -1.0}),
        "dy": ({"dy": 1.0}, {"dy": -1.0}),
        "fwhm": ({"fwhm": 1.0}, {}),
        "beta": ({"beta": 1.0}, {}),
    }
    names = tuple(name for name in NAMES if name not in ("fwhm", "beta") or name in muse.names)
    covariance = np.zeros((len(names), len(names)))
    for k, side in enumerate((muse, hst)):
        jacobian = np.array([[slopes[name][k].get(own, 0.0) for own in side.names] for name in names])
        covariance += jacobian @ side.covariance @ jacobian.T
    if lost:
        covariance[:] = np.nan
    errors: dict[str, float] = dict.fromkeys(NAMES, math.nan if lost else 0.0)
    errors |= {name: float(np.sqrt(covariance[i, i])) for i, name in enumerate(names)}
    both = {"muse": muse, "hst": hst}
    warn = 0 if lost else muse.warn | hst.warn | muse.told
    unseen = [which for which, side in both.items() if side.significance < DETECTED]
    detail_errors = {f"{which}_{key}": side.errors[key] for which, side in both.items() for key in _KEYS}
    if unseen and not lost:
        warn |= bits.NO_DETECTION.value
        # A flux that is not seen has an error, a ratio to it has none
        gone = [name for name in names if name != "bg" and (name != "scale" or "hst" in unseen)]
        at = [names.index(name) for name in gone]
        covariance[at, :] = covariance[:, at] = np.nan
        errors |= dict.fromkeys(gone, math.nan)
        placed = [f"{which}_{key}" for which in unseen for key in ("fwhm", "beta", "dx", "dy")]
        detail_errors |= {name: math.nan for name in placed if detail_errors[name] != 0.0}
    residual = muse.star.values - muse.model
    return StarOutcome(
        values=values,
        errors=errors,
        covariance=covariance,
        covariance_names=names,
        details={f"{which}_{key}": side.values[key] for which, side in both.items() for key in _KEYS},
        detail_errors=detail_errors,
        muse_chi2=muse.chi2,
        hst_chi2=hst.chi2,
        n_good=muse.star.values.size + hst.star.values.size,
        n_free=len(muse.names) + len(hst.names),
        n_iter=max(muse.n_iter, hst.n_iter),
        status=status,
        warn=warn,
        rms=float(np.sqrt(np.mean(residual**2))),
        muse=muse.star,
        hst=hst.star,
        muse_model=muse.model,
        hst_model=hst.model,
        hst_correlation=_correlation(hst, "fwhm", "beta"),
        misfit=muse.misfit,
        significance=math.nan if lost else min(muse.significance, hst.significance),
    )


def _correlation(side: StarFit, one: str, two: str) -> float:
    """Return the correlation of two values of one image; 0 where one was not fitted."""
    if one not in side.names or two not in side.names:
        return 0.0
    i, j = side.names.index(one), side.names.index(two)
    size = math.sqrt(side.covariance[i, i] * side.covariance[j, j])
    return float(side.covariance[i, j]) / size if size > 0 else 0.0
