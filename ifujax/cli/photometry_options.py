"""How ``ifujax fit-photometry`` fits: its options, and what they mean for images and stars."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ifujax.errors import IfujaxWarning, UsageError

if TYPE_CHECKING:
    from ifujax.photometry.config import PhotometryOptions


def number_or_none(text: str) -> float | None:
    """Understand a number, or "none"."""
    if text.strip().lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"must be a number or none; got {text!r}.")
    return value


def word_or_none(text: str) -> str | None:
    """Understand a word, or "none"."""
    return None if text.strip().lower() in ("none", "") else text


def _fixed(name: str, meaning: str) -> Any:
    return typer.Option(f"--fix-{name}", metavar="VALUE", parser=number_or_none, help=f"Hold {meaning}; none: fit it.")


SegmentOption = Annotated[bool, typer.Option("--segment", help="Compare only where HST shows sources (--method fourier).")]
FixScaleOption = Annotated[float | None, _fixed("scale", "MUSE / HST")]
FixBgOption = Annotated[float | None, _fixed("bg", "the background, in the unit of MUSE")]
FixDxOption = Annotated[float | None, _fixed("dx", "the shift MUSE less HST along x, arcsec")]
FixDyOption = Annotated[float | None, _fixed("dy", "the shift along y, arcsec")]
FixFWHMOption = Annotated[float | None, _fixed("fwhm", "the FWHM of the PSF, arcsec")]
FixBetaOption = Annotated[float | None, _fixed("beta", "the exponent of the PSF")]
InitDxOption = Annotated[
    float | None,
    typer.Option("--init-dx", metavar="ARCSEC", parser=number_or_none, help="Where the search for the shift begins."),
]
InitDyOption = Annotated[
    float | None, typer.Option("--init-dy", metavar="ARCSEC", parser=number_or_none, help="The same along y.")
]
MinScaleOption = Annotated[float, typer.Option("--min-scale", metavar="VALUE", help="Least MUSE / HST.")]
HSTFWHMOption = Annotated[
    float, typer.Option("--hst-fwhm", metavar="ARCSEC", help="PSF of HST, before regridding; by default that of ACS.")
]
HSTBetaOption = Annotated[float, typer.Option("--hst-beta", metavar="VALUE", help="Its exponent.")]
HSTFWHMErrorOption = Annotated[
    float, typer.Option("--hst-fwhm-error", metavar="ARCSEC", help="1 sigma of --hst-fwhm: goes into all errors.")
]
HSTBetaErrorOption = Annotated[float, typer.Option("--hst-beta-error", metavar="VALUE", help="1 sigma of --hst-beta, likewise.")]
HSTSampledOption = Annotated[
    float,
    typer.Option(
        "--hst-sampled",
        metavar="ARCSEC",
        help="Pixels, before any regridding, at whose centres the PSF of HST is sampled; 0: they sample it finely enough.",
    ),
]
MarginOption = Annotated[
    float,
    typer.Option("--margin", metavar="ARCSEC", help="Reach of the search for the shift; with fourier, room around the images."),
]
TaperOption = Annotated[
    int | None,
    typer.Option("--taper", metavar="PIXELS", help="Width of soft edges (--method fourier).", show_default="9"),
]
MethodOption = Annotated[
    Literal["forward", "fourier"],
    typer.Option("--method", help="fourier: as imphot did it; needs HST on the pixels of MUSE."),
]
EllipticalOption = Annotated[bool, typer.Option("--elliptical", help="Also fit ellipticity and angle of the PSF.")]
RotationOption = Annotated[bool, typer.Option("--rotation", help="Also fit a rotation of MUSE.")]
IntegratePixelsOption = Annotated[
    bool, typer.Option("--integrate-pixels", help="FWHM of the PSF before the pixels of MUSE average it.")
]
NoiseOption = Annotated[
    Literal["variance", "scaled", "correlated"] | None,
    typer.Option(
        "--noise",
        help="The noise: the variances; these times the reduced chi2; or with the correlation of neighbours too.",
        show_default="variance",
    ),
]
LossOption = Annotated[
    Literal["gaussian", "student_t"] | None,
    typer.Option(
        "--loss",
        help="What is minimised: chi2, or that of Student's t, which pixels far off hardly pull at.",
        show_default="gaussian",
    ),
]
SamplingOption = Annotated[
    Literal["auto", "native", "regridded"] | None,
    typer.Option("--sampling", help="Whether HST has its own pixels.", show_default="auto: by their size"),
]


def fit_options(given: Mapping[str, Any]) -> tuple[PhotometryOptions, PhotometryOptions]:
    """Return how images are fitted, and how a star is.

    Parameters
    ----------
    given : mapping of str to value
        All options of the command, by their names with underscores.

    Raises
    ------
    UsageError
        For values that can't be.

    Warns
    -----
    IfujaxWarning
        For options that the chosen method doesn't have.
    """
    from ifujax.models.psf import SMALLEST_BETA, MoffatPSF
    from ifujax.photometry.config import PhotometryOptions

    fwhm, beta, method = given["hst_fwhm"], given["hst_beta"], given["method"]
    if not (0 < fwhm < math.inf and SMALLEST_BETA <= beta < math.inf):
        raise UsageError(f"--hst-fwhm must be positive and --hst-beta {SMALLEST_BETA} or more; got {fwhm:g} and {beta:g}.")
    fourier = method == "fourier"
    errors = (given["hst_fwhm_error"], given["hst_beta_error"])
    psf = MoffatPSF(fwhm, beta)
    of_both: dict[str, Any] = {name: given[name] for name in ("fix_fwhm", "fix_beta", "integrate_pixels")}
    noise: dict[str, Any] = {"sampling": given["sampling"] or "auto", "noise": given["noise"] or "variance"}
    if fourier:
        of_method: dict[str, Any] = {"hst_psf": psf, "taper": given["taper"], "segment": given["segment"]}
    else:
        of_method = {
            "hst_psf": MoffatPSF(fwhm, beta, sampled=given["hst_sampled"]),
            "hst_psf_error": errors if any(errors) else None,
            "loss": given["loss"] or "gaussian",
            **noise,
        }
    of_images = {name: given[name] for name in _OF_IMAGES}
    options = PhotometryOptions(**of_images, **of_both, **of_method)
    of_star = PhotometryOptions(hst_psf=psf, **of_both, **noise)
    _notice(given, " on images" if given["star"] is not None and fourier else "")
    return options, of_star


_OF_IMAGES = (
    *("method", "fix_scale", "fix_bg", "fix_dx", "fix_dy", "init_dx", "init_dy"),
    *("min_scale", "margin", "elliptical", "rotation"),
)
"""Options that are passed on as they are, and that a star doesn't have."""
_OF_FOURIER = (("taper",), ("segment",))
_OF_FORWARD = (("noise",), ("sampling",), ("loss",), ("hst_sampled",), ("hst_fwhm_error", "hst_beta_error"))


def _notice(given: Mapping[str, Any], where: str) -> None:
    """Say which options belong to the other method; fits of stars take some of them all the same: `where`."""
    method = given["method"]
    other, groups = ("fourier", _OF_FOURIER) if method == "forward" else ("forward", _OF_FORWARD)
    left = [group for group in groups if any(_is_given(given[name]) for name in group)]
    if left:
        named = ", ".join(f"--{name.replace('_', '-')}" for group in left for name in group)
        warnings.warn(
            f"{named} {'has' if len(left) == 1 else 'have'} no effect{where} with --method {method}, only with --method {other}.",
            IfujaxWarning,
            stacklevel=2,
        )


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and not (isinstance(value, float) and value == 0)
