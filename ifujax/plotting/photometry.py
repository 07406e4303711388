"""Fits of a PSF between two images: data, model and residuals; profiles of a star; widths against wavelength."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import FuncNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from ifujax.errors import DataError
from ifujax.plotting.style import (
    COMPONENT_COLORS,
    DATA_COLOR,
    LABEL_SIZE,
    MODEL_COLOR,
    TICK_SIZE,
    TITLE_SIZE,
    NotebookFigure,
    decade,
    style_axes,
    unit_text,
)
from ifujax.robust import MAD_TO_SIGMA

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]

Lines = Sequence[str | tuple[str, str]]
"""Text beside a figure: whole lines, or names with values, which are set in two columns."""

_SIDE, _LOWEST, _NARROWEST, _LONGEST = 2.75, 1.6, 0.9, 4.2
"""Inches: longer side of an image, but no lower or narrower than these, unless it gets longer than the last."""
_LINE = 0.17
"""Between lines of text, inches."""
_HIDDEN = "0.6"
"""Darker than in maps: one bad pixel must not look like a star."""
_MANY = 2000
"""Pixels of a star from which on the points get smaller."""


@dataclass(frozen=True)
class StarProfile:
    """Pixels of a star and the model fitted to them.

    Attributes
    ----------
    radius : (n,) array_like
        Of the pixels from the fitted centre, arcsec.
    values : (n,) array_like
        NaN where masked.
    model : (n,) array_like
        At the pixels.
    error : (n,) array_like, optional
        1 sigma.
    curve_radius, curve : (m,) array_like, optional
        The model as a curve; that at the pixels, in order of radius, by default.
    title : str
    text : sequence of str or (str, str)
        Lines in the upper right corner: fitted values with errors.
    """

    radius: ArrayLike
    values: ArrayLike
    model: ArrayLike
    error: ArrayLike | None = None
    curve_radius: ArrayLike | None = None
    curve: ArrayLike | None = None
    title: str = ""
    text: Lines = ()


def image_fit_figure(
    data: ArrayLike,
    model: ArrayLike,
    residual: ArrayLike | None = None,
    *,
    error: ArrayLike | None = None,
    pixel: float | None = None,
    title: str = "",
    unit: str = "",
    text: Lines = (),
    mark: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Return a figure of an image, its model and what is left.

    Data and model have one stretch, an arcsinh about the background, so that sky and stars are both seen.

    Parameters
    ----------
    data, model : (y, x) array_like
        NaN where a pixel took no part: hatched.
    residual : (y, x) array_like, optional
        ``data - model`` by default.
    error : (y, x) array_like, optional
        1 sigma: residuals are shown in sigma.
    pixel : float, optional
        Arcsec; axes are in arcsec from the centre then, in pixels otherwise.
    title, unit : str
        Title, and unit of the data (FITS units are typeset).
    text : sequence of str or (str, str)
        Lines at the right: fitted values with their errors.
    mark : (x, y, width, height), optional
        Middle and size, in pixels from 0, of a box that is drawn on the residuals.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If an array isn't 2-D or its shape isn't that of `data`.
    """
    image = _plane(data, "data", None)
    fitted = _plane(model, "model", image.shape)
    left = image - fitted if residual is None else _plane(residual, "residual", image.shape)
    if error is not None:
        sigma = _plane(error, "error", image.shape)
        left = np.divide(left, sigma, out=np.full(image.shape, np.nan), where=sigma > 0)
    n_y, n_x = image.shape
    side = min(max(_SIDE / max(n_y, n_x), _LOWEST / n_y, _NARROWEST / n_x), _LONGEST / max(n_y, n_x))
    width, height = max(side * n_x, 0.3), max(side * n_y, 0.3)
    # inches, from the left: axis, data, gap, model, bar, residual, bar, text
    starts = np.array([0.65, 0.65 + width + 0.12, 0.65 + 2 * width + 0.12 + 0.98])
    text_at = starts[2] + width + 0.9
    columns = _columns(text)
    total = text_at + (columns[1] + 0.15 if text else 0.0)
    foot, head = 0.5, 0.62 if title else 0.35
    rise = max(_LINE * len(text) - height, 0.0)  # a long text needs a higher figure
    tall = foot + height + rise + head
    figure = NotebookFigure(figsize=(total, tall))
    panels = [figure.add_axes((x / total, (foot + rise) / tall, width / total, height / tall)) for x in starts]
    half = (0.5, 0.5) if pixel is None else (0.5 * n_x * pixel, 0.5 * n_y * pixel)
    extent = (-half[0], n_x - half[0], -half[1], n_y - half[1]) if pixel is None else (-half[0], half[0], -half[1], half[1])

    power = decade(image)
    scale = 10.0**-power
    norm, ticks = _stretch(scale * image)
    for ax, values, name in zip(panels, (scale * image, scale * fitted), ("data", "model")):
        picture = _draw_image(ax, values, "inferno", norm, extent, name)
    bar = _bar(panels[1], picture, unit_text(unit, power))
    bar.yaxis.set_major_locator(FixedLocator(ticks))
    bar.yaxis.set_minor_locator(NullLocator())
    bar.yaxis.set_major_formatter(lambda value, _: f"{value:g}")

    power = 0 if error is not None else decade(left)
    left = left * 10.0**-power
    reach = _reach(left, at_least=3.0 if error is not None else 0.0)
    picture = _draw_image(panels[2], left, "RdBu_r", Normalize(-reach, reach), extent, "data − model")
    _bar(panels[2], picture, "residual (sigma)" if error is not None else unit_text(unit, power))
    if mark is not None:
        size = 1.0 if pixel is None else pixel
        x, y = ((mark[i] + 0.5 - 0.5 * mark[i + 2]) * size - half[i] for i in (0, 1))
        box = Rectangle((x, y), mark[2] * size, mark[3] * size, fill=False, edgecolor="black", linewidth=1.1)
        panels[2].add_patch(box)

    length = "pixels" if pixel is None else "arcsec"
    for ax in panels:
        ax.set_xlabel(f"x ({length})", fontsize=LABEL_SIZE, labelpad=2)
        ax.tick_params(labelleft=ax is panels[0])
    panels[0].set_ylabel(f"y ({length})", fontsize=LABEL_SIZE, labelpad=1)
    if title:
        figure.text(0.65 / total, 1 - 0.2 / tall, title, fontsize=TITLE_SIZE + 1.5, fontweight="bold", ha="left", va="center")
    top = foot + rise + height
    for i, line in enumerate(text):
        for x, part in zip((0.0, columns[0]), (line,) if isinstance(line, str) else line):
            figure.text((text_at + x) / total, (top - 0.02 - _LINE * i) / tall, part, fontsize=LABEL_SIZE, va="top")
    return figure


def star_profile_figure(muse: StarProfile, hst: StarProfile, *, title: str = "", unit: str = "") -> Figure:
    """Return a figure of a star in two images: pixels against radius with the fitted profile, and residuals below.

    Parameters
    ----------
    muse, hst : StarProfile
        Left and right.
    title, unit : str
        Title, and unit of the pixels (FITS units are typeset).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If the arrays of a star differ in length.
    """
    tall = 4.7 + (0.25 if title else 0.0)
    figure = NotebookFigure(figsize=(8.6, tall))
    top = 1.0 - (0.6 if title else 0.35) / tall
    grid = figure.add_gridspec(
        2, 2, height_ratios=(2.6, 1.0), hspace=0.0, wspace=0.24, left=0.075, right=0.985, bottom=0.45 / tall, top=top
    )
    for column, (star, name) in enumerate(((muse, "MUSE"), (hst, "HST"))):
        ax = figure.add_subplot(grid[0, column])
        below = figure.add_subplot(grid[1, column], sharex=ax)
        _draw_star(ax, below, star, star.title or name, unit)
        figure.align_ylabels([ax, below])
    if title:
        figure.suptitle(title, x=0.075, y=1 - 0.17 / tall, ha="left", fontsize=TITLE_SIZE + 1.5, fontweight="bold")
    return figure


def fwhm_wavelength_figure(
    wavelengths: ArrayLike,
    fwhm: ArrayLike,
    fwhm_error: ArrayLike | None = None,
    labels: Sequence[str] = (),
    *,
    line: tuple[float, float] | None = None,
    line_covariance: ArrayLike | None = None,
    title: str = "",
) -> Figure:
    """Return a figure of the FWHM of a PSF in several bands.

    Parameters
    ----------
    wavelengths : (n,) array_like
        Of the bands, Angstrom.
    fwhm, fwhm_error : (n,) array_like
        Arcsec; bands may come more than once. NaN is left out.
    labels : sequence of str, optional
        Names of the bands, one a point.
    line : (intercept, slope), optional
        Arcsec at wavelength 0, and arcsec per Angstrom.
    line_covariance : (2, 2) array_like, optional
        Of the two: a band of 1 sigma is drawn.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If the numbers of values, errors or labels differ, or none is finite.
    """
    x = _row(wavelengths, "wavelengths", None)
    y = _row(fwhm, "fwhm", x.size)
    sigma = np.zeros(x.size) if fwhm_error is None else _row(fwhm_error, "fwhm_error", x.size)
    if len(labels) not in (0, x.size):
        raise DataError(f"labels must be as many as wavelengths, {x.size}; got {len(labels)}. Give one a point, or none.")
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        raise DataError(f"fwhm must hold a finite value; got none of {x.size}. Give the fits that succeeded.")
    sigma = np.where(np.isfinite(sigma), sigma, 0.0)
    figure = NotebookFigure(figsize=(5.6, 3.7), layout="constrained")
    ax = figure.add_subplot()
    style_axes(ax)
    spare = 0.1 * np.ptp(x[good]) or 200.0
    ax.set_xlim(float(x[good].min() - spare), float(x[good].max() + spare))
    low, high = float((y - sigma)[good].min()), float((y + sigma)[good].max())
    if line is not None:
        at = np.linspace(*ax.get_xlim(), 200)
        values = line[0] + line[1] * at
        if line_covariance is not None:
            covariance = np.asarray(line_covariance, dtype=np.float64)
            band = np.sqrt(np.maximum(covariance[0, 0] + 2 * at * covariance[0, 1] + at**2 * covariance[1, 1], 0.0))
            ax.fill_between(at, values - band, values + band, color=MODEL_COLOR, alpha=0.2, linewidth=0, label="1 sigma")
            low, high = min(low, float((values - band).min())), max(high, float((values + band).max()))
        ax.plot(at, values, color=MODEL_COLOR, linewidth=1.2, label=_line_text(*line))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    ax.errorbar(
        x[good],
        y[good],
        sigma[good] if fwhm_error is not None else None,
        fmt="o",
        color=COMPONENT_COLORS[0],
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=1.0,
        capsize=2.0,
        zorder=5,
    )
    span = (high - low) or 0.1
    rows = _draw_bands(ax, x[good], [label for label, kept in zip(labels, good) if kept])
    foot = 0.07 + (0.2 if line is not None else 0.0)
    free = 1.0 - 0.05 - 0.07 * rows - foot
    ax.set_ylim(low - span * foot / free, high + span * (1 - foot - free) / free)
    ax.set_xlabel("wavelength (Å)", fontsize=LABEL_SIZE)
    ax.set_ylabel("FWHM (arcsec)", fontsize=LABEL_SIZE)
    if line is not None:
        ax.legend(loc="lower left", fontsize=TICK_SIZE, frameon=False, handlelength=1.8, labelspacing=0.3)
    if title:
        ax.set_title(title, fontsize=TITLE_SIZE, loc="left")
    return figure


def _stretch(values: FloatArray) -> tuple[Normalize, list[float]]:
    """Return an arcsinh stretch about the background, for the finite values, and ticks of its bar."""
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() == finite.max():
        middle = float(finite[0]) if finite.size else 0.0
        return Normalize(middle - 0.5, middle + 0.5), [middle - 0.5, middle, middle + 0.5]
    sky = float(np.median(finite))
    low = finite[finite <= sky]
    noise = MAD_TO_SIGMA * float(np.median(sky - low)) or 1e-3 * float(finite.max() - sky) or float(sky - finite.min())
    bottom, top = max(float(finite.min()), sky - 4 * noise), float(np.percentile(finite, 99.95))
    top = max(top, sky + 4 * noise)
    width = 2.0 * noise
    norm = FuncNorm(
        (lambda value: np.arcsinh((value - sky) / width), lambda value: sky + width * np.sinh(value)), bottom, top, clip=True
    )
    # evenly spread over the bar, to two digits
    ends = np.arcsinh((np.array([bottom, top]) - sky) / width)
    spread = sky + width * np.sinh(np.linspace(ends[0], ends[1], 6)[1:-1])
    digits = np.floor(np.log10(np.maximum(np.abs(spread - sky), noise)))
    ticks = sorted({float(np.round(value, int(-digit))) for value, digit in zip(spread, digits)})
    return norm, [tick for tick in ticks if bottom <= tick <= top]


def _reach(values: FloatArray, at_least: float) -> float:
    finite = np.abs(values[np.isfinite(values)])
    if finite.size == 0:
        return at_least or 1.0
    return max(float(np.percentile(finite, 99.5)), at_least) or 1.0


def _draw_image(
    ax: Axes, values: FloatArray, colors: str, norm: Normalize, extent: tuple[float, float, float, float], name: str
) -> Any:
    style_axes(ax, minor=False)
    ax.patch.set(facecolor=_HIDDEN, edgecolor="0.78", hatch="/////", linewidth=0)
    ax.set_title(name, fontsize=TITLE_SIZE, pad=4)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, min_n_ticks=1, steps=[1, 2, 5, 10], prune="both"))
    cmap = colormaps[colors].with_extremes(bad=(0, 0, 0, 0))  # what is masked shows the hatching below
    shown = np.ma.masked_invalid(values)
    return ax.imshow(shown, origin="lower", cmap=cmap, norm=norm, extent=extent, interpolation="nearest", aspect="auto")


def _bar(ax: Axes, picture: Any, label: str) -> Axes:
    box = ax.get_window_extent()
    holder = ax.inset_axes((1.0 + 0.06 * 100 / max(box.width, 1.0), 0.0, 0.11 * 100 / max(box.width, 1.0), 1.0))
    bar = ax.figure.colorbar(picture, cax=holder, extend="neither")
    bar.outline.set_linewidth(0.6)
    bar.set_label(label, fontsize=LABEL_SIZE, labelpad=2)
    bar.ax.tick_params(which="both", direction="in", labelsize=TICK_SIZE, width=0.6)
    return holder


def _draw_star(ax: Axes, below: Axes, star: StarProfile, title: str, unit: str) -> None:
    radius = _row(star.radius, "radius", None)
    values = _row(star.values, "values", radius.size)
    model = _row(star.model, "model", radius.size)
    error = None if star.error is None else _row(star.error, "error", radius.size)
    order = np.argsort(radius)
    if star.curve is None or star.curve_radius is None:
        at, curve = radius[order], model[order]
    else:
        at = _row(star.curve_radius, "curve_radius", None)
        curve = _row(star.curve, "curve", at.size)
    power = decade(values)
    scale = 10.0**-power
    for each in (ax, below):
        style_axes(each)
    size, alpha = (3.2, 0.7) if radius.size < _MANY else (2.0, 0.4)
    points = {"color": DATA_COLOR, "markersize": size, "markeredgewidth": 0, "alpha": alpha, "rasterized": True}
    ax.plot(radius, scale * values, ".", **points)
    ax.plot(at, scale * curve, color=MODEL_COLOR, linewidth=1.3)
    left = values - model
    if error is not None:
        left = np.divide(left, error, out=np.full(radius.size, np.nan), where=error > 0)
    else:
        left = scale * left
    below.axhline(0.0, color=MODEL_COLOR, linewidth=0.9)
    below.plot(radius, left, ".", **points)
    reach = 1.15 * _reach(left, at_least=3.0 if error is not None else 0.0)
    below.set_ylim(-reach, reach)
    below.yaxis.set_major_locator(MaxNLocator(4, prune="upper", symmetric=True))
    ends = radius[np.isfinite(radius)]
    ax.set_xlim(0.0, float(ends.max()) * 1.03 if ends.size and ends.max() > 0 else 1.0)
    ax.tick_params(labelbottom=False)
    ax.set_title(title, fontsize=TITLE_SIZE, loc="left", pad=4)
    text = unit_text(unit, power)
    ax.set_ylabel(f"flux a pixel ({text})" if text else "flux a pixel", fontsize=LABEL_SIZE)
    below.set_ylabel("residual (sigma)" if error is not None else "residual", fontsize=LABEL_SIZE)
    below.set_xlabel("radius (arcsec)", fontsize=LABEL_SIZE, labelpad=2)
    box = ax.get_window_extent()
    width, height = box.width / ax.figure.dpi, box.height / ax.figure.dpi
    columns = _columns(star.text)
    for i, line in enumerate(star.text):
        for x, part in zip((0.0, columns[0]), (line,) if isinstance(line, str) else line):
            place = (0.97 - (columns[1] - x) / width, 0.95 - _LINE * i / height)
            ax.text(*place, part, transform=ax.transAxes, fontsize=LABEL_SIZE, va="top")


def _columns(text: Lines) -> tuple[float, float]:
    """Return where the second column of a text begins and where the text ends, inches from its left."""
    names = [_inches(line[0]) for line in text if not isinstance(line, str)]
    second = max(names, default=0.0) + 0.2
    ends = [_inches(line) if isinstance(line, str) else second + _inches(line[1]) for line in text]
    return second, max(ends, default=0.0)


def _inches(text: str) -> float:
    """Return about how wide a text is; a command of mathematics counts as a letter."""
    letters = re.sub(r"\\[A-Za-z]+", "x", text)
    return 0.6 * LABEL_SIZE / 72.0 * len(re.sub(r"[$^_{}]", "", letters))


def _draw_bands(ax: Axes, wavelengths: FloatArray, labels: list[str]) -> int:
    """Name the bands along the top, in as many rows as keep names apart; return the number of rows."""
    places: dict[str, list[float]] = {}
    for wavelength, label in zip(wavelengths, labels):
        places.setdefault(label, []).append(float(wavelength))
    left, right = ax.get_xlim()
    letter = 0.68 * TICK_SIZE / 72.0 * (right - left) / 4.9  # the axes are 4.9 inches wide
    ends: list[float] = []
    for place, label in sorted((float(np.mean(each)), label) for label, each in places.items() if label):
        half = 0.5 * letter * (len(label) + 1)
        row = next((i for i, end in enumerate(ends) if end < place - half), len(ends))
        ends[row : row + 1] = [place + half]
        y = 0.97 - 0.065 * row
        ax.text(place, y, label, transform=ax.get_xaxis_transform(), fontsize=TICK_SIZE, ha="center", va="top", color="0.2")
        ax.plot([place] * 2, [0.0, y - 0.06], transform=ax.get_xaxis_transform(), color="0.8", lw=0.7, ls=":", zorder=0)
    return len(ends)


def _line_text(intercept: float, slope: float) -> str:
    if slope == 0:
        return f"{intercept:.3f}″"
    power = int(np.floor(np.log10(abs(slope))))
    sign = "−" if slope < 0 else "+"
    return f"{intercept:.3f}″ {sign} {abs(slope) / 10.0**power:.2f} × $10^{{{power}}}$ λ"


def _plane(values: ArrayLike, name: str, shape: tuple[int, ...] | None) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or (shape is not None and array.shape != shape):
        wanted = "two axes (y, x)" if shape is None else f"the shape {shape} of data"
        raise DataError(f"{name} must have {wanted}; got {array.shape}. Give planes of one image.")
    return array


def _row(values: ArrayLike, name: str, n: int | None) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or (n is not None and array.size != n):
        wanted = "one axis" if n is None else f"{n} values"
        raise DataError(f"{name} must have {wanted}; got shape {array.shape}. Give one value a point.")
    return array
