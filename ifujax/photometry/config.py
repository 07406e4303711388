"""What a user declares of an image fit: what is fixed, priors, the PSF of HST, and how the fit is done."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ifujax.errors import UsageError
from ifujax.inference.options import Loss
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed
from ifujax.inference.parameter_space.priors import Normal
from ifujax.models.psf import PSF, SMALLEST_BETA, ImagePSF, MoffatPSF
from ifujax.photometry.forward.reference import EDGE, Sampling

Method = Literal["forward", "fourier"]
Noise = Literal["variance", "scaled", "correlated"]
STAR_OPTIONS = ("fix_fwhm", "fix_beta", "beta_prior", "hst_psf", "integrate_pixels", "sampling", "noise")
"""Of `PhotometryOptions`: what fits of a star take."""
_ONLY_FOR = {
    "forward": ("elliptical", "rotation", "integrate_pixels", "noise", "loss", "sampling", "edge", "beta_prior", "hst_psf_error"),
    "fourier": ("taper", "segment"),
}
HST_PSF = MoffatPSF(0.085, 1.6)
"""Stars of the Ultra Deep Field at 30 mas (imphot's documentation)."""
BETA_PRIOR = Normal(2.8, 1.0)
"""MUSE fields have 2.0 to 3.5; a field with a bright star knows beta to a hundredth, whatever this says."""
LARGEST_BETA = 20.0
FWHM_LIMITS = (0.05, 5.0)
LARGEST_ELLIPTICITY = 0.6
START_FWHM, START_BETA = 0.7, 2.8


def checked_psf_error(error: Any, psf: PSF) -> tuple[float, ...]:
    """Return errors of the PSF of HST as numbers: of fwhm and beta, and their correlation."""
    if not isinstance(psf, MoffatPSF):
        raise UsageError("hst_psf_error must be left out with an ImagePSF; got one. Give a MoffatPSF.")
    try:
        numbers = tuple(float(each) for each in error)
    except (TypeError, ValueError):
        numbers = ()
    sound = len(numbers) in (2, 3) and all(0 <= each < math.inf for each in numbers[:2])
    if not sound or (len(numbers) == 3 and not -1 <= numbers[2] <= 1):
        raise UsageError(
            "hst_psf_error must be (fwhm, beta) or (fwhm, beta, correlation): two numbers, 0 or more, and one from -1 to 1; "
            f"got {error!r}."
        )
    return numbers


@dataclass(frozen=True)
class PhotometryOptions:
    """Options of `fit_image_photometry`.

    Parameters
    ----------
    fix_scale, fix_bg, fix_dx, fix_dy, fix_fwhm, fix_beta : float, optional
        Values of parameters that are not to be fitted: flux scale, background (flux unit of MUSE), shifts and FWHM in arcsec.
    init_dx, init_dy : float, optional
        Where the search for the shift begins, arcsec; 0 if not given.
    min_scale : float
        Least flux scale.
    margin : float
        How far from there the shift is looked for, arcsec. With ``method="fourier"``: room around the images.
    beta_prior : Normal or None
        Prior of the Moffat exponent.
    hst_psf : MoffatPSF or ImagePSF
        Of the HST image, before any regridding.
    hst_psf_error : (fwhm, beta) or (fwhm, beta, correlation), optional
        1 sigma errors of a MoffatPSF, and their correlation (0 if not given). They go into the errors of all that is fitted.
    sampling : "auto", "native" or "regridded"
        Whether the HST image has its own pixels, or was low-passed and put onto those of MUSE; "auto": by their size.
    integrate_pixels : bool
        Average the Moffat profile over the pixels of MUSE: `fwhm` is then that of the PSF before the pixels, which add about
        ``0.23 pixel^2 / fwhm`` arcsec to it. By default it is that of the PSF as the pixels sample it, as imphot's is.
    elliptical : bool
        Also fit ellipticity and angle.
    rotation : bool
        Also fit a rotation of the MUSE image about its centre.
    noise : "variance", "scaled" or "correlated"
        What the noise is: the variances of the file; these times the reduced chi2; or these and the correlation of
        neighbouring pixels, estimated from the residuals.
    loss : "gaussian" or "student_t"
        What is minimised: chi2, or the logarithm of Student's t distribution with 4 degrees of freedom, which pixels far off
        hardly pull at.
    method : "forward" or "fourier"
        Forward model weighted by the variances, or imphot's own fit of tapered images in Fourier space.
    edge : float
        Arcsec about places without HST data within which MUSE pixels are left out.
    taper : int
        Of ``method="fourier"``: width in pixels by which masks are tapered, 9 if not given; below 2: not at all.
    segment : bool
        Of ``method="fourier"``: mask what is not part of a source.

    Raises
    ------
    UsageError
        For values that make no sense, or options of one method with the other.
    """

    fix_scale: float | None = None
    fix_bg: float | None = None
    fix_dx: float | None = None
    fix_dy: float | None = None
    fix_fwhm: float | None = None
    fix_beta: float | None = None
    init_dx: float | None = None
    init_dy: float | None = None
    min_scale: float = 0.0
    margin: float = 2.0
    beta_prior: Normal | None = BETA_PRIOR
    hst_psf: PSF = HST_PSF
    hst_psf_error: tuple[float, ...] | None = None
    sampling: Sampling = "auto"
    integrate_pixels: bool = False
    elliptical: bool = False
    rotation: bool = False
    noise: Noise = "variance"
    loss: Loss = "gaussian"
    method: Method = "forward"
    edge: float = EDGE
    taper: int | None = None
    segment: bool = False

    def __post_init__(self) -> None:
        for name, accepted in (("method", Method), ("noise", Noise), ("loss", Loss), ("sampling", Sampling)):
            if getattr(self, name) not in get_args(accepted):
                raise UsageError(f"{name} must be one of {', '.join(get_args(accepted))}; got {getattr(self, name)!r}.")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.startswith(("fix_", "init_")) and value is not None and not math.isfinite(value):
                raise UsageError(f"{each.name} must be a finite number; got {value}. Leave it out to fit it.")
        low, high = FWHM_LIMITS
        if self.fix_fwhm is not None and not low <= self.fix_fwhm <= high:
            raise UsageError(f"fix_fwhm must lie between {low:g} and {high:g} arcsec; got {self.fix_fwhm:g}.")
        if self.fix_beta is not None and not self.fix_beta >= SMALLEST_BETA:
            raise UsageError(
                f"fix_beta must be {SMALLEST_BETA} or more; got {self.fix_beta:g}. A Moffat profile of beta 1 has infinite flux."
            )
        if not 0 <= self.min_scale < math.inf:
            raise UsageError(f"min_scale must be a number, 0 or more; got {self.min_scale}.")
        if self.fix_scale is not None and not self.fix_scale >= self.min_scale:
            raise UsageError(f"fix_scale must be min_scale, {self.min_scale:g}, or more; got {self.fix_scale:g}.")
        for name in ("margin", "edge"):
            if not 0 <= getattr(self, name) < 100:
                raise UsageError(f"{name} must lie between 0 and 100 arcsec; got {getattr(self, name)}.")
        if self.taper is not None and self.taper < 0:
            raise UsageError(f"taper must be 0 or more pixels; got {self.taper}.")
        if not (isinstance(self.hst_psf, (MoffatPSF, ImagePSF))):
            raise UsageError(f"hst_psf must be a MoffatPSF or an ImagePSF; got {type(self.hst_psf).__name__}.")
        psf = self.hst_psf
        if isinstance(psf, MoffatPSF) and not (
            psf.fwhm > 0 and psf.beta >= SMALLEST_BETA and psf.pixel >= 0 and psf.sampled >= 0
        ):
            raise UsageError(
                f"hst_psf must have a positive fwhm, a beta of {SMALLEST_BETA} or more, and pixel and sampled of 0 or more; "
                f"got {psf}."
            )
        if self.hst_psf_error is not None:
            object.__setattr__(self, "hst_psf_error", checked_psf_error(self.hst_psf_error, psf))
        other = {"fourier": "forward", "forward": "fourier"}[self.method]
        for name in _ONLY_FOR[other]:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise UsageError(
                    f"{name} must be left out with method {self.method!r}; got {getattr(self, name)!r}. Use method {other!r}."
                )
        if self.method == "fourier" and (not isinstance(psf, MoffatPSF) or psf.pixel or psf.ellipticity or psf.sampled):
            raise UsageError(
                f"hst_psf must be a round MoffatPSF without a pixel with method 'fourier'; got {psf!r}. Use method 'forward'."
            )

    def declarations(self, start_dx: float, start_dy: float) -> dict[str, Declaration]:
        """Return the parameters of the forward model but for its linear block, shifts within `margin` of a start."""

        def declared(name: str, free: Declaration) -> Declaration:
            value = getattr(self, f"fix_{name}")
            return free if value is None else Fixed(value)

        room = self.margin + 0.5
        found: dict[str, Declaration] = {
            "dx": declared("dx", Bounded(start_dx - room, start_dx + room)),
            "dy": declared("dy", Bounded(start_dy - room, start_dy + room)),
            "fwhm": declared("fwhm", Bounded(*FWHM_LIMITS)),
            "beta": declared("beta", Bounded(SMALLEST_BETA, LARGEST_BETA, prior=self.beta_prior)),
        }
        if self.elliptical:
            found["e1"] = found["e2"] = Bounded(-LARGEST_ELLIPTICITY, LARGEST_ELLIPTICITY)
        if self.rotation:
            found["rotation"] = Bounded(-5.0, 5.0)
        for name in ("scale", "bg"):
            value = getattr(self, f"fix_{name}")
            if value is not None:
                found[name] = Fixed(value)
        return found
