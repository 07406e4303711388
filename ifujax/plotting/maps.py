"""Maps of fitted quantities: flux, velocity, dispersion, signal to noise, status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import AsinhNorm, BoundaryNorm, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from ifujax.errors import DataError, UsageError, unknown
from ifujax.plotting.style import (
    LABEL_SIZE,
    MARKER_COLORS,
    MASKED_COLOR,
    STATUS_COLORS,
    TICK_SIZE,
    TITLE_SIZE,
    USABLE_COLOR,
    NotebookFigure,
    decade,
    style_axes,
    unit_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MapKind = Literal["flux", "velocity", "dispersion", "snr", "status"]
KINDS: tuple[str, ...] = ("flux", "velocity", "dispersion", "snr", "status")

Names = Mapping[int, str]


@dataclass(frozen=True)
class MapPanel:
    """One map of a page: the arguments of `draw_map`.

    Attributes
    ----------
    values : (y, x) array_like
        NaN where there is nothing to show; integers for a status map.
    title, unit : str
        Title of the map, and unit of the values (any text; FITS units are typeset).
    kind : {"flux", "velocity", "dispersion", "snr", "status"}
        Chooses colours and scale.
    mask : (y, x) array_like of bool, optional
        True = not shown (light grey).
    names : mapping of int to str
        For a status map: the name of each value.
    """

    values: ArrayLike
    title: str = ""
    unit: str = ""
    kind: MapKind = "flux"
    mask: ArrayLike | None = None
    names: Names = field(default_factory=dict)


def plot_map(
    values: ArrayLike,
    title: str = "",
    unit: str = "",
    kind: MapKind = "flux",
    *,
    wcs: Any | None = None,
    mask: ArrayLike | None = None,
    names: Names | None = None,
    markers: Sequence[tuple[int, int]] = (),
) -> Figure:
    """Return a figure of one map.

    Parameters
    ----------
    values : (y, x) array_like
        Masked spaxels may be NaN.
    title, unit : str
        Title, and unit beside the colour bar.
    kind : {"flux", "velocity", "dispersion", "snr", "status"}
        ``"velocity"``: diverging, symmetric about the median, 1 to 99 % of values. ``"flux"`` and ``"snr"``: logarithmic where
        the values span more than a factor 5 (asinh if some are negative). ``"status"``: one colour a value, with counts.
    wcs : astropy.wcs.WCS, optional
        2-D celestial; adds north and east arrows.
    mask : (y, x) array_like of bool, optional
        True = light grey.
    names : mapping of int to str, optional
        Names of the values of a status map.
    markers : sequence of (y, x)
        Spaxels to mark, lettered a, b, c ...

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If `values` isn't 2-D or `mask` has another shape.
    UsageError
        If `kind` is unknown.
    """
    n_y, n_x = _checked(values, mask, kind)[0].shape
    width = 4.6
    height = float(np.clip(3.4 * n_y / n_x, 2.0, 6.5)) + 1.2
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot()
    draw_map(ax, values, title, unit, kind, wcs=wcs, mask=mask, names=names, markers=markers)
    ax.set_xlabel("x (spaxels)", fontsize=LABEL_SIZE)
    ax.set_ylabel("y (spaxels)", fontsize=LABEL_SIZE)
    return figure


def draw_map(
    ax: Axes,
    values: ArrayLike,
    title: str = "",
    unit: str = "",
    kind: MapKind = "flux",
    *,
    wcs: Any | None = None,
    mask: ArrayLike | None = None,
    names: Names | None = None,
    markers: Sequence[tuple[int, int]] = (),
    colorbar: Literal["right", "bottom"] = "right",
) -> None:
    """Draw one map, with its colour bar or legend, into given axes (arguments as `plot_map`)."""
    image, hidden = _checked(values, mask, kind)
    style_axes(ax, minor=False)
    ax.set_facecolor(MASKED_COLOR)
    ax.set_title(title, fontsize=TITLE_SIZE, pad=5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    shown = np.ma.masked_array(image, hidden)
    if kind == "status":
        _draw_status(ax, shown, names or {}, colorbar)
    else:
        _draw_quantity(ax, shown, unit, kind, colorbar)
    if wcs is not None and wcs.has_celestial:
        _draw_compass(ax, wcs, image.shape)
    draw_markers(ax, markers)


def draw_markers(ax: Axes, markers: Sequence[tuple[int, int]]) -> None:
    """Frame spaxels (y, x) and letter them a, b, c ... in the colours of their spectra."""
    outline = [withStroke(linewidth=2.4, foreground="white")]
    bottom, top = sorted(ax.get_ylim())
    left, right = sorted(ax.get_xlim())
    for i, (y, x) in enumerate(markers):
        color = MARKER_COLORS[i % len(MARKER_COLORS)]
        ax.plot(x, y, marker="s", markersize=6, markerfacecolor="none", markeredgecolor=color, path_effects=outline)
        side = -1 if x > left + 0.8 * (right - left) else 1
        rise = -1 if y > bottom + 0.85 * (top - bottom) else 1
        ax.annotate(
            chr(ord("a") + i),
            (x, y),
            xytext=(6.0 * side, 4.0 * rise),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=TITLE_SIZE,
            fontweight="bold",
            color=color,
            path_effects=outline,
        )


def color_scale(values: NDArray[np.float64], kind: MapKind) -> tuple[str, Normalize]:
    """Return the name of the colour map and the scaling for the finite values of a map."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return "viridis", Normalize(0.0, 1.0)
    low, high = (float(item) for item in np.percentile(finite, [1.0, 99.0]))
    if kind == "velocity":
        centre = float(np.median(finite))
        reach = max(high - centre, centre - low) or 1.0
        return "RdBu_r", Normalize(centre - reach, centre + reach)
    if kind == "dispersion":
        return "plasma", _linear(low, high)
    name = "inferno" if kind == "flux" else "viridis"
    positive = finite[finite > 0]
    if positive.size and high > 0:
        floor = float(np.percentile(positive, 1.0))
        # one decade below the noise says nothing, so the range of a logarithm is kept to three
        if high / floor > 5 and (finite > 0).mean() > 0.9:
            return name, LogNorm(max(floor, high * 1e-3), high, clip=True)
        if high / floor > 5:
            return name, AsinhNorm(linear_width=high / 50.0, vmin=low, vmax=high)
    return name, _linear(low, high)


def _linear(low: float, high: float) -> Normalize:
    return Normalize(low, high) if high > low else Normalize(low - 0.5, low + 0.5)


def _checked(values: ArrayLike, mask: ArrayLike | None, kind: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the values as float64 and where they are hidden."""
    if kind not in KINDS:
        raise UsageError(unknown("kind of map", str(kind), KINDS))
    image = np.asarray(values, dtype=np.float64)
    if image.ndim != 2 or image.size == 0:
        raise DataError(f"values must be a map [y, x]; got shape {image.shape}. Give a 2-D array.")
    hidden = ~np.isfinite(image)
    if mask is not None:
        masked = np.asarray(mask, dtype=bool)
        if masked.shape != image.shape:
            raise DataError(f"mask must have the shape {image.shape} of the map; got {masked.shape}. Give one value a spaxel.")
        hidden |= masked
    return image, hidden


def _draw_quantity(ax: Axes, shown: np.ma.MaskedArray, unit: str, kind: MapKind, where: Literal["right", "bottom"]) -> None:
    power = decade(shown.compressed())
    shown = shown / 10.0**power
    name, norm = color_scale(shown.compressed(), kind)
    cmap = colormaps[name].with_extremes(bad=MASKED_COLOR)
    picture = ax.imshow(shown, origin="lower", cmap=cmap, norm=norm, interpolation="nearest")
    # inset, so that the bar is exactly as long as the map whatever its shape
    box = (0.0, -0.17, 1.0, 0.055) if where == "bottom" else (1.03, 0.0, 0.05, 1.0)
    orientation = "horizontal" if where == "bottom" else "vertical"
    holder = ax.inset_axes(box)
    bar = ax.figure.colorbar(picture, cax=holder, orientation=orientation, extend="neither")
    bar.outline.set_linewidth(0.6)
    bar.set_label(unit_text(unit, power), fontsize=LABEL_SIZE, labelpad=2)
    axis = holder.xaxis if where == "bottom" else holder.yaxis
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    if isinstance(norm, LogNorm):
        narrow = high / low < 30
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    elif isinstance(norm, AsinhNorm):
        axis.set_ticks([0.0, _rounded(high / 10), _rounded(high)], minor=False)
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(4 if where == "bottom" else 6))
    bar.ax.tick_params(which="both", direction="in", labelsize=TICK_SIZE, width=0.6)
    ax.tick_params(labelbottom=where != "bottom")


def _rounded(value: float) -> float:
    """Return the value with one significant digit, towards zero."""
    power = 10.0 ** np.floor(np.log10(abs(value)))
    return float(np.trunc(value / power) * power)


def _draw_status(ax: Axes, shown: np.ma.MaskedArray, names: Names, where: Literal["right", "bottom"]) -> None:
    present, counts = np.unique(shown.compressed().astype(int), return_counts=True)
    colors, others = [], 0
    for value in present:
        if value == 0:
            colors.append(USABLE_COLOR)
        else:
            colors.append(STATUS_COLORS[others % len(STATUS_COLORS)])
            others += 1
    # index of each value, so that any set of bits gets a colour
    index = np.ma.masked_array(np.searchsorted(present, shown.filled(0).astype(int)), shown.mask)
    cmap = ListedColormap(colors or [USABLE_COLOR]).with_extremes(bad=MASKED_COLOR)
    norm = BoundaryNorm(np.arange(max(len(colors), 1) + 1) - 0.5, cmap.N)
    ax.imshow(index, origin="lower", cmap=cmap, norm=norm, interpolation="nearest")
    labels = [names.get(int(value), "usable" if value == 0 else f"status {value}") for value in present]
    handles = [
        Patch(facecolor=color, edgecolor="0.3", linewidth=0.5, label=f"{label} ({count:,})")
        for color, label, count in zip(colors, labels, counts, strict=True)
    ]
    hidden = int(np.sum(np.ma.getmaskarray(shown)))
    if hidden:
        handles.append(Patch(facecolor=MASKED_COLOR, edgecolor="0.3", linewidth=0.5, label=f"not shown ({hidden:,})"))
    position = {"loc": "upper left", "bbox_to_anchor": (-0.03, -0.06) if where == "bottom" else (1.02, 1.02)}
    ax.legend(
        handles=handles, fontsize=TICK_SIZE, frameon=False, handlelength=1.0, handleheight=1.0, labelspacing=0.3, **position
    )
    ax.tick_params(labelbottom=where != "bottom")


def _draw_compass(ax: Axes, wcs: Any, shape: tuple[int, ...], corner: tuple[int, int] = (0, 0)) -> None:
    """Draw north and east arrows, from how the sky coordinates change across a map whose first spaxel (y, x) is `corner`."""
    first = np.array([corner[1], corner[0]])
    centre = first + np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    ra, dec = (float(item) for item in wcs.wcs_pix2world(*centre, 0))
    step = 1e-4
    north = np.array(wcs.wcs_world2pix(ra, dec + step, 0), dtype=float) - centre
    east = np.array(wcs.wcs_world2pix(ra + step / np.cos(np.radians(dec)), dec, 0), dtype=float) - centre
    length = 0.13 * min(shape)
    origin = first + np.array([shape[1] - 1 - 0.2 * min(shape), 0.06 * min(shape)])
    arrows = [(label, length * arrow / np.hypot(*arrow)) for label, arrow in (("N", north), ("E", east))]
    # arrows that point down or right start further inside
    origin[1] -= min(0.0, *(arrow[1] for _, arrow in arrows))
    outline = [withStroke(linewidth=2.2, foreground="white")]
    for label, arrow in arrows:
        tip, foot, place = origin + arrow, (float(origin[0]), float(origin[1])), origin + 1.35 * arrow
        ax.annotate(
            "",
            (float(tip[0]), float(tip[1])),
            foot,
            arrowprops={"arrowstyle": "-|>", "lw": 1.0, "color": "black", "shrinkA": 0, "shrinkB": 0},
        )
        ax.text(float(place[0]), float(place[1]), label, ha="center", va="center", fontsize=TICK_SIZE, path_effects=outline)
