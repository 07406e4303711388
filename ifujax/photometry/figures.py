"""Figures of what a fit of images found, and writing them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.errors import UsageError, unknown
from ifujax.images.geometry import pixel_steps
from ifujax.inference.status import NOISE_ESTIMATED, STRUCTURED_RESIDUALS
from ifujax.io.output import atomic_path
from ifujax.photometry.stars.models import PER_PIXEL, filtered_profile
from ifujax.photometry.table import sentences
from ifujax.plotting.photometry import StarProfile, fwhm_wavelength_figure, image_fit_figure, star_profile_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.photometry.results import FittedPhotometry, FittedValue, ImagePhotometry, StarPhotometry
    from ifujax.photometry.stars.fit import Star

_LABELS = {
    "scale": "scale", "bg": "background", "dx": "dx", "dy": "dy", "dra": "dRA", "ddec": "dDec", "fwhm": "FWHM", "beta": "beta",
    "ellipticity": "ellipticity", "angle": "angle", "rotation": "rotation", "flux": "flux",
}  # fmt: skip
_UNITS = {"dx": "″", "dy": "″", "dra": "″", "ddec": "″", "fwhm": "″", "angle": "°", "rotation": "°"}
_UNLIKELY = 0.1
"""A reduced chi2 below this says that the variances are not those of the noise: sigmas would show nothing."""
_CURVE_POINTS = 300
_SAME = 1e-3
"""Of the peak: how well a profile must give the model of the pixels to be drawn as its curve."""
_WIDEST_NOTE = 38
"""Letters a line."""


def image_figure(result: ImagePhotometry, title: str | None = None) -> Figure:
    """Return a figure of the data that were compared, the model, and what is left, with the fitted values beside them.

    Parameters
    ----------
    result : ImagePhotometry
    title : str, optional
        ``MUSE image: <name>`` by default; "" for none.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The part of the image is shown in which pixels took part. Residuals are in sigma where the noise is known; in flux units
    where it was estimated, with ``method="fourier"``, whose images are smoothed, or where the reduced chi2 is below 0.1: the
    variances are not those of the noise then.
    """
    values = ["scale", "bg", "dx", "dy", "dra", "ddec", "fwhm", "beta"]
    values += ["ellipticity", "angle"] * result.options.elliptical + ["rotation"] * result.options.rotation
    rows: list[str | tuple[str, str]] = [
        (_LABELS[name], value_text(getattr(result, name), _UNITS.get(name, ""))) for name in values
    ]
    rows += _goodness(result) + _notes(result)
    shown = _used(result.outcome.data)
    noise = _noise(result)
    return image_fit_figure(
        result.outcome.data[shown],
        result.outcome.model[shown],
        error=None if noise is None else noise[shown],
        pixel=float(np.mean(pixel_steps(result.muse))),
        title=f"MUSE image: {result.name}" if title is None else title,
        unit=result.muse.unit,
        text=rows,
        mark=_mark(result, shown),
    )


def star_figure(result: StarPhotometry, title: str | None = None) -> Figure:
    """Return a figure of a star's pixels against radius in both images, with the fitted profiles and residuals.

    Parameters
    ----------
    result : StarPhotometry
    title : str, optional
        ``MUSE image: <name>, star at ...`` by default; "" for none.
    """
    if title is None:
        title = f"MUSE image: {result.name}, star at RA {result.ra:.5f}, Dec {result.dec:+.5f}"
    details = result.details
    compared: list[str | tuple[str, str]] = [
        ("flux / HST", value_text(result.scale)),
        ("x − HST", value_text(result.dx, "″")),
        ("y − HST", value_text(result.dy, "″")),
    ]
    return star_profile_figure(
        _profile(result, "muse", details.muse, details.muse_model, details.muse_chi2, compared + _notes(result)),
        _profile(result, "hst", details.hst, details.hst_model, details.hst_chi2, []),
        title=title,
        unit=result.muse.unit,
    )


def fwhm_figure(
    results: Sequence[FittedPhotometry],
    wavelengths: Sequence[float],
    labels: Sequence[str] | None = None,
    line: tuple[float, float] | None = None,
    line_covariance: Any = None,
    title: str = "",
) -> Figure:
    """Return a figure of the fitted FWHM against wavelength.

    Parameters
    ----------
    results : sequence of ImagePhotometry or StarPhotometry
        Fits that failed are left out.
    wavelengths : sequence of float
        Of each result's band, Angstrom.
    labels : sequence of str, optional
        Names of the bands, one a result.
    line : (intercept, slope), optional
        Arcsec at wavelength 0, and arcsec per Angstrom.
    line_covariance : (2, 2) array_like, optional
        Of the two.
    title : str

    Raises
    ------
    DataError
        If the numbers of results, wavelengths and labels differ, or no fit succeeded.
    """
    widths = [result.fwhm if not result.status else None for result in results]
    return fwhm_wavelength_figure(
        wavelengths,
        [math.nan if each is None else each.value for each in widths],
        [math.nan if each is None else each.error for each in widths],
        () if labels is None else labels,
        line=line,
        line_covariance=line_covariance,
        title=title,
    )


def write_figure(figure: Figure, path: str | Path, overwrite: bool = False, dpi: float = 200.0) -> Path:
    """Write a figure in the format that the file's extension says, and return its path.

    Raises
    ------
    UsageError
        For an extension that matplotlib doesn't write, or a file that exists while `overwrite` is false.
    DataError
        If it can't be written.
    """
    path = Path(path)
    kind = figure_format(path.suffix)
    with atomic_path(path, overwrite) as draft:
        figure.savefig(draft, format=kind, dpi=dpi)
    return path


def figure_format(extension: str) -> str:
    """Return the format of an extension, with or without its dot.

    Raises
    ------
    UsageError
        For one that matplotlib doesn't write.

    Examples
    --------
    >>> figure_format(".PNG")
    'png'
    """
    from matplotlib.backend_bases import FigureCanvasBase

    kind = extension.strip().lower().removeprefix(".")
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if kind not in known:
        raise UsageError(unknown("figure format", extension, known))
    return kind


def value_text(item: FittedValue, unit: str = "") -> str:
    """Return a value with its error, rounded to two digits of this.

    Examples
    --------
    >>> from ifujax.photometry.results import FittedValue
    >>> value_text(FittedValue(0.68740, 0.03861), "″")
    '0.687 ± 0.039″'
    """
    digits = 1 - math.floor(math.log10(item.error)) if math.isfinite(item.error) and item.error > 0 else None
    if item.fixed or digits is None or not math.isfinite(item.value):
        text = f"{item.value:.5g}{unit}" + (" (fixed)" if item.fixed else "")
    elif digits > 7 or digits < -4:
        text = f"{item.value:.6g} ± {item.error:.2g}{unit}"
    else:
        text = f"{item.value:.{max(digits, 0)}f} ± {item.error:.{max(digits, 0)}f}{unit}"
    return text.replace("-", "−")


def _goodness(result: FittedPhotometry) -> list[str | tuple[str, str]]:
    rows: list[str | tuple[str, str]] = [("rms", f"{result.rms_error:.4g}")]
    if getattr(result, "prepared", None) is not None:
        rows.append(("reduced χ²", f"{result.reduced_chi2:.3f}"))
    return [*rows, ("pixels", f"{result.n_good}")]


def remarks(result: FittedPhotometry) -> str:
    """Return why a fit failed, or what to keep in mind, if that is worth a line; empty otherwise.

    That noise was estimated goes without saying where it always is: with ``method="fourier"``, and for an HST image.
    """
    expected = _is_fourier(result) or result.muse.variance is not None
    return sentences(result, result.warn & ~(NOISE_ESTIMATED.value if expected else 0))


def _notes(result: FittedPhotometry) -> list[str | tuple[str, str]]:
    notes = [("failed: " if result.status else "note: ") + text] if (text := remarks(result)) else []
    if _is_fourier(result):
        notes.append("images tapered and smoothed")
    return [line for note in notes for line in textwrap.wrap(note, _WIDEST_NOTE)]


def _is_fourier(result: FittedPhotometry) -> bool:
    options = getattr(result, "options", None)
    return options is not None and options.method == "fourier"


def _used(data: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns in which there is something."""
    good = np.isfinite(data)
    if not good.any():
        return slice(None), slice(None)
    y, x = (np.flatnonzero(good.any(axis=axis)) for axis in (1, 0))
    return slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)


def _mark(result: ImagePhotometry, shown: tuple[slice, slice]) -> tuple[float, float, float, float] | None:
    """Return middle (x, y) and size (x, y), in pixels of the part that is shown, of the square arcsecond that doesn't fit."""
    if result.misfit is None or not result.warn & STRUCTURED_RESIDUALS.value:
        return None
    y, x = (part.start or 0 for part in shown)
    step = pixel_steps(result.muse)
    return result.misfit.x - x, result.misfit.y - y, 1.0 / step[1], 1.0 / step[0]


def _noise(result: ImagePhotometry) -> np.ndarray | None:
    """Return 1 sigma of the pixels that were compared, or None where nobody knows."""
    mended = result.prepared is not None and result.options.noise != "variance"
    if _is_fourier(result) or result.muse.variance is None or not (mended or result.reduced_chi2 > _UNLIKELY):
        return None
    if result.prepared is None:
        error = result.muse.error
        if error is not None and result.options.noise == "scaled":
            error = error * math.sqrt(result.reduced_chi2)
    else:
        # With a regridded HST image, MUSE was low-passed: that took a part of its noise away.
        prepared = result.prepared
        ivar = prepared.grid.cut(prepared.ivar) / prepared.noise_share
        error = np.sqrt(np.divide(1.0, ivar, out=np.full(ivar.shape, np.nan), where=ivar > 0))
    return error


def _profile(
    result: StarPhotometry, which: str, star: Star, model: np.ndarray, chi2: float, more: list[str | tuple[str, str]]
) -> StarProfile:
    of = {name: result.detail(f"{which}_{name}") for name in ("flux", "fwhm", "beta", "bg", "dx", "dy")}
    centre = [of[name].value if math.isfinite(of[name].value) else 0.0 for name in ("dx", "dy")]
    radius = np.hypot(star.x - centre[0], star.y - centre[1])
    curve_radius = np.linspace(0.0, float(radius.max()), _CURVE_POINTS)
    curve = _curve(star, {name: item.value for name, item in of.items()}, radius, model)
    error = None
    if star.variance is not None and chi2 > _UNLIKELY * star.values.size:
        reduced = chi2 / max(star.values.size - len(of), 1)
        error = np.sqrt(star.variance * (1.0 if result.options.noise == "variance" else reduced))
    text: list[str | tuple[str, str]] = [
        (_LABELS[name], value_text(of[name], _UNITS.get(name, ""))) for name in ("flux", "fwhm", "beta", "bg")
    ]
    return StarProfile(
        radius=radius,
        values=star.values,
        model=model,
        error=error,
        curve_radius=None if curve is None else curve_radius,
        curve=None if curve is None else curve(curve_radius),
        text=text + more,
    )


def _curve(
    star: Star, values: dict[str, float], radius: np.ndarray, model: np.ndarray
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the profile that gives the model of the pixels, or None: integrated over pixels, it is no function of radius."""
    if not np.isfinite(model).all():
        return None
    area, flux, bg, fwhm, beta = star.step[0] * star.step[1], *(values[name] for name in ("flux", "bg", "fwhm", "beta"))
    alpha2 = fwhm**2 / (4.0 * (2.0 ** (1.0 / beta) - 1.0))

    def moffat(r: np.ndarray) -> np.ndarray:
        return bg + area * flux * (beta - 1.0) / (math.pi * alpha2) * (1.0 + r**2 / alpha2) ** -beta

    def filtered(r: np.ndarray) -> np.ndarray:
        pixel = math.sqrt(area)
        points = 1 << math.ceil(math.log2(PER_PIXEL * 2.5 * max(star.reach, float(radius.max())) / pixel + 2))
        table, spacing = filtered_profile(fwhm, beta, pixel, points)
        return bg + area * flux * np.interp(r, spacing * np.arange(points), table[0])

    for profile in (moffat, filtered):
        if np.abs(profile(radius) - model).max() <= _SAME * max(float(np.ptp(model)), 1e-300):
            return profile
    return None
