"""Maps of posteriors: percentiles side by side, and what made the draws of each spaxel."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import AsinhNorm, BoundaryNorm, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from ifujax.errors import DataError, UsageError
from ifujax.plotting.maps import MapKind, MapPanel, _draw_compass, _rounded, color_scale, draw_map
from ifujax.plotting.style import (
    LABEL_SIZE,
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

TIER_COLORS = {1: USABLE_COLOR, 2: STATUS_COLORS[3], 0: STATUS_COLORS[0]}
"""Of importance sampling, NUTS, and spaxels without draws; others follow."""
TIER_NAMES = {1: "importance sampling", 2: "NUTS", 0: "no draws"}
_LEFT, _CELL, _GAP, _BAR, _LEGEND = 0.55, 2.9, 0.15, 0.95, 2.0
"""Inches: margin, width of a map, between maps, room to the right of a map for a colour bar, and for a legend."""
_TALLEST, _NARROWEST = 4.2, 1.2
_FLAT = 0.3
"""Height over width of maps below which a colour bar beside them has few ticks."""
_HEAD, _FOOT = 0.34, 0.52
"""Inches above and below the maps of a row."""
_TITLE, _LINE = 0.24, 0.17

Window = tuple[slice, slice]
"""Rows and columns of a map that are shown."""


@dataclass(frozen=True)
class PercentilePanel:
    """Maps of several percentiles of one quantity.

    Attributes
    ----------
    maps : (n, y, x) array_like
    labels : sequence of str
        What each of them is: "16 %".
    title, unit : str
    kind : {"flux", "velocity", "dispersion", "snr"}
        Chooses colours and scale, as in `ifujax.plotting.maps.plot_map`.
    mask : (y, x) array_like of bool, optional
        True = not shown (light grey).
    """

    maps: ArrayLike
    labels: Sequence[str] = ("16 %", "50 %", "84 %")
    title: str = ""
    unit: str = ""
    kind: MapKind = "flux"
    mask: ArrayLike | None = None


@dataclass(frozen=True)
class TierPanel:
    """What made the draws of each spaxel, and maps of how far they can be trusted.

    Attributes
    ----------
    tier : (y, x) array_like of int
    mask : (y, x) array_like of bool, optional
        True = not asked for (light grey).
    others : sequence of MapPanel
        Maps beside it.
    names : mapping of int to str
    """

    tier: ArrayLike
    mask: ArrayLike | None = None
    others: Sequence[MapPanel] = ()
    names: Mapping[int, str] = field(default_factory=lambda: TIER_NAMES)


def plot_percentiles(panel: PercentilePanel, *, wcs: Any | None = None, window: Window | None = None) -> Figure:
    """Return a figure of maps of percentiles side by side, with one colour scale (`wcs` and `window` as `posterior_page`).

    Raises
    ------
    DataError
        If the maps don't have the shape (n, y, x), or the mask has another.
    UsageError
        If there aren't as many labels as maps.
    """
    return posterior_page([panel], wcs=wcs, window=window)


def plot_tiers(panel: TierPanel, *, wcs: Any | None = None, window: Window | None = None) -> Figure:
    """Return a figure of the map of tiers, with counts, and of the maps beside it (`wcs` and `window` as `posterior_page`).

    Raises
    ------
    DataError
        If the tiers aren't a map, or the mask has another shape.
    """
    return posterior_page([panel], wcs=wcs, window=window)


def posterior_page(
    rows: Sequence[PercentilePanel | TierPanel],
    title: str = "",
    caption: str = "",
    *,
    wcs: Any | None = None,
    window: Window | None = None,
) -> Figure:
    """Return a page: each row holds the percentiles of one quantity, or tiers and diagnostics.

    Parameters
    ----------
    rows : sequence of PercentilePanel or TierPanel
    title, caption : str
        Above, and below (wrapped).
    wcs : astropy.wcs.WCS, optional
        2-D celestial; north and east are drawn on the first map.
    window : (slice, slice), optional
        Rows and columns to show, ``np.s_[y0:y1, x0:x1]``; all by default. Colours and counts are those of the whole maps.

    Raises
    ------
    DataError, UsageError
        As `plot_percentiles` and `plot_tiers`, and UsageError without rows.
    """
    if not rows:
        raise UsageError("rows must not be empty; got none. Give at least one panel.")
    most = max([len(_percentiles(row)[0]) for row in rows if isinstance(row, PercentilePanel)], default=3)
    width = _LEFT + most * _CELL + (most - 1) * _GAP + _BAR
    strips = [strip for row in rows for strip in _strips(row, width, window)]
    lines = textwrap.wrap(caption, int(13.5 * width)) if caption else []
    head, foot = 0.42 * bool(title), _LINE * len(lines) + 0.1 * bool(lines)
    height = head + sum(strip.height for strip in strips) + foot
    figure = NotebookFigure(figsize=(width, height))

    def axes_at(left: float, top: float, box_width: float, box_height: float) -> Axes:
        return figure.add_axes((left / width, 1.0 - (top + box_height) / height, box_width / width, box_height / height))

    top = head
    for k, strip in enumerate(strips):
        if strip.title:
            figure.text(_LEFT / width, 1 - (top + 0.17) / height, strip.title, fontsize=TITLE_SIZE + 1, ha="left", va="center")
        strip.draw(axes_at, top + _HEAD + _TITLE * bool(strip.title), wcs if k == 0 else None)
        top += strip.height
    if title:
        figure.text(0.12 / width, 1 - 0.24 / height, title, fontsize=13, fontweight="bold", ha="left", va="center")
    for i, line in enumerate(lines):
        y = (_LINE * (len(lines) - i - 1) + 0.1) / height
        figure.text(0.12 / width, y, line, fontsize=LABEL_SIZE, ha="left", va="bottom", color="0.2")
    return figure


@dataclass(frozen=True)
class _Strip:
    """Maps of one row of a page: what draws them, and the room they take."""

    title: str
    cell: tuple[float, float]
    pitch: float
    draws: Sequence[Callable[[Axes], None]]
    shown: Window
    bar: Callable[[Axes], None] | None = None

    @property
    def height(self) -> float:
        return _TITLE * bool(self.title) + _HEAD + self.cell[1] + _FOOT

    def draw(self, axes_at: Callable[[float, float, float, float], Axes], top: float, wcs: Any | None) -> None:
        for k, draw in enumerate(self.draws):
            ax = axes_at(_LEFT + k * self.pitch, top, *self.cell)
            draw(ax)
            rows, columns = self.shown
            ax.set_xlim(columns.start - 0.5, columns.stop - 0.5)
            ax.set_ylim(rows.start - 0.5, rows.stop - 0.5)
            if k == 0 and wcs is not None and wcs.has_celestial:
                _draw_compass(ax, wcs, _size(self.shown), (rows.start, columns.start))
            ax.set_xlabel("x (spaxels)", fontsize=LABEL_SIZE)
            if k == 0:
                ax.set_ylabel("y (spaxels)", fontsize=LABEL_SIZE)
            elif self.pitch - self.cell[0] <= _GAP:
                ax.tick_params(labelleft=False)
        if self.bar is not None:
            right = _LEFT + (len(self.draws) - 1) * self.pitch + self.cell[0]
            self.bar(axes_at(right + 0.1, top, 0.14, self.cell[1]))


def _within(window: Window | None, shape: tuple[int, ...]) -> Window:
    """Return the rows and columns of a map that are shown, counted from its first."""
    parts = window or (slice(None), slice(None))
    rows, columns = (slice(*part.indices(size)[:2]) for part, size in zip(parts, shape[-2:]))
    return rows, columns


def _size(window: Window) -> tuple[int, int]:
    return window[0].stop - window[0].start, window[1].stop - window[1].start


def _strips(row: PercentilePanel | TierPanel, width: float, window: Window | None) -> list[_Strip]:
    if isinstance(row, PercentilePanel):
        maps, hidden = _percentiles(row)
        shown = _within(window, maps.shape)
        cell = _cell(_CELL, _size(shown))
        norm, cmap, power = _shared_scale(np.ma.masked_array(maps, np.broadcast_to(hidden, maps.shape)), row.kind)
        pictures = [
            partial(_draw_percentile, values=values * 10.0**-power, hidden=hidden, label=label, norm=norm, cmap=cmap)
            for values, label in zip(maps, row.labels)
        ]
        bar = partial(_draw_bar, norm=norm, cmap=cmap, unit=unit_text(row.unit, power), height=cell[1])
        return [_Strip(row.title, cell, cell[0] + _GAP, pictures, shown, bar)]
    tier = np.asarray(row.tier)
    hidden = np.zeros(tier.shape, bool) if row.mask is None else np.asarray(row.mask, bool)
    if tier.ndim != 2 or hidden.shape != tier.shape:
        raise DataError(f"tier and mask must be maps [y, x] of one shape; got {tier.shape} and {hidden.shape}.")
    shown = _within(window, tier.shape)
    named = [partial(_draw_tier, tier=tier, hidden=hidden, names=row.names)]
    named += [partial(_draw_panel, panel=panel, flat=_flat(shown)) for panel in row.others if panel.kind == "status"]
    scaled = [partial(_draw_panel, panel=panel, flat=_flat(shown)) for panel in row.others if panel.kind != "status"]
    strips = []
    for pictures, room in ((named, _LEGEND), (scaled, _BAR)):
        for first in range(0, len(pictures), 3):
            some = pictures[first : first + 3]
            pitch = (width - _LEFT) / max(len(some), 2 if room == _LEGEND else 3)
            cell = _cell(pitch - room, _size(shown), least=1.2 if room == _LEGEND else 0.8)
            strips.append(_Strip("", cell, pitch, some, shown))
    return strips


def _cell(width: float, shape: tuple[int, ...], least: float = 0.8) -> tuple[float, float]:
    """Return the size of a map: as wide as there is room, but no taller than a page allows."""
    aspect = shape[0] / shape[1]
    height = float(np.clip(width * aspect, least, _TALLEST))
    return max(min(width, height / aspect), min(width, _NARROWEST)), height


def _percentiles(panel: PercentilePanel) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    maps = np.asarray(panel.maps, dtype=np.float64)
    if maps.ndim != 3 or maps.size == 0:
        raise DataError(f"maps must have the shape (percentiles, y, x); got {maps.shape}.")
    if len(panel.labels) != len(maps):
        raise UsageError(f"labels must be as many as maps, {len(maps)}; got {len(panel.labels)}.")
    hidden = np.zeros(maps.shape[1:], bool) if panel.mask is None else np.asarray(panel.mask, bool)
    if hidden.shape != maps.shape[1:]:
        raise DataError(f"mask must have the shape {maps.shape[1:]} of the maps; got {hidden.shape}.")
    return maps, hidden


def _shared_scale(maps: np.ma.MaskedArray, kind: MapKind) -> tuple[Normalize, str, int]:
    """Return the scale and colours of all maps together, and the power of ten to take out of them."""
    values = maps.compressed()
    values = values[np.isfinite(values)]
    power = decade(values)
    name, norm = color_scale(values * 10.0**-power, kind)
    return norm, name, power


def _draw_percentile(
    ax: Axes,
    *,
    values: NDArray[np.float64],
    hidden: NDArray[np.bool_],
    label: str,
    norm: Normalize,
    cmap: str,
) -> None:
    _style_map(ax, label)
    shown = np.ma.masked_array(values, hidden | ~np.isfinite(values))
    colors = colormaps[cmap].with_extremes(bad=MASKED_COLOR)
    ax.imshow(shown, origin="lower", cmap=colors, norm=norm, interpolation="nearest")


def _draw_bar(ax: Axes, *, norm: Normalize, cmap: str, unit: str, height: float) -> None:
    """Draw the colour bar of several maps, `height` inches high."""
    bar = ax.figure.colorbar(ScalarMappable(norm, cmap), cax=ax, extend="neither")
    bar.outline.set_linewidth(0.6)
    bar.set_label(unit, fontsize=LABEL_SIZE, labelpad=5)
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    axis, most = ax.yaxis, int(np.clip(height / 0.3, 2, 6))
    if isinstance(norm, LogNorm):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 30 and most > 4 else (1.0,)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    elif isinstance(norm, AsinhNorm):
        axis.set_ticks([0.0, *(_rounded(high / part) for part in (10, 1))], minor=False)
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(most))
    ax.tick_params(which="both", direction="in", labelsize=TICK_SIZE, width=0.6)


def _draw_tier(ax: Axes, *, tier: NDArray[Any], hidden: NDArray[np.bool_], names: Mapping[int, str]) -> None:
    """Draw what made the draws, with the number of spaxels of each kind."""
    _style_map(ax, "what made the draws")
    present = [int(value) for value in np.unique(tier[~hidden])]
    order = [value for value in names if value in present] + [value for value in present if value not in names]
    spare = iter(STATUS_COLORS[4:])
    colors = [TIER_COLORS[value] if value in TIER_COLORS else next(spare, "0.5") for value in order]
    index = np.zeros(tier.shape, int)
    for k, value in enumerate(order):
        index[tier == value] = k
    cmap = ListedColormap(colors or [USABLE_COLOR]).with_extremes(bad=MASKED_COLOR)
    norm = BoundaryNorm(np.arange(max(len(colors), 1) + 1) - 0.5, cmap.N)
    ax.imshow(np.ma.masked_array(index, hidden), origin="lower", cmap=cmap, norm=norm, interpolation="nearest")
    counts = [int(np.sum((tier == value) & ~hidden)) for value in order]
    labels = [f"{names.get(value, f'tier {value}')} ({count:,})" for value, count in zip(order, counts)]
    if hidden.any():
        colors, labels = [*colors, MASKED_COLOR], [*labels, f"not asked for ({int(hidden.sum()):,})"]
    handles = [Patch(facecolor=color, edgecolor="0.3", linewidth=0.5, label=label) for color, label in zip(colors, labels)]
    ax.legend(
        handles=handles,
        fontsize=TICK_SIZE,
        frameon=False,
        handlelength=1.0,
        handleheight=1.0,
        labelspacing=0.3,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.02),
    )


def _flat(shown: Window) -> bool:
    n_y, n_x = _size(shown)
    return n_y / n_x < _FLAT


def _draw_panel(ax: Axes, *, panel: MapPanel, flat: bool) -> None:
    draw_map(ax, panel.values, panel.title, panel.unit, panel.kind, mask=panel.mask, names=panel.names)
    if flat:
        for bar in ax.child_axes:  # as short as the map: no room for more than its ends
            low, high = bar.get_ylim()
            digits = int(np.clip(1 - np.floor(np.log10(high - low)), 0, 6))
            bar.yaxis.set_ticks([low, high], [f"{end:.{digits}f}" for end in (low, high)])


def _style_map(ax: Axes, title: str) -> None:
    style_axes(ax, minor=False)
    ax.set_facecolor(MASKED_COLOR)
    ax.set_title(title, fontsize=TITLE_SIZE, pad=5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
