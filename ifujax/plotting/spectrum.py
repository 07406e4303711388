"""A spectrum with its model, components and residuals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ifujax.errors import DataError
from ifujax.plotting.style import (
    COMPONENT_COLORS,
    CONTINUUM_COLOR,
    DATA_COLOR,
    LABEL_SIZE,
    MASKED_COLOR,
    MODEL_COLOR,
    TICK_SIZE,
    TITLE_SIZE,
    NotebookFigure,
    decade,
    style_axes,
    unit_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SpectrumPanel:
    """One spectrum of a page: the arguments of `draw_spectrum`.

    Attributes
    ----------
    wavelength, data : (w,) array_like
        NaN data are gaps.
    error : (w,) array_like, optional
        1 sigma; without it there is no residual panel in units of sigma (residuals are then in data units).
    model, continuum : (w,) array_like, optional
    components : mapping of str to (w,) array_like
        Each line alone, without continuum; drawn on top of the continuum.
    bad : (w,) array_like of bool, optional
        Pixels that weren't fitted (shaded).
    title, unit : str
    labels : mapping of str to float
        Text and wavelength of marks above the spectrum.
    """

    wavelength: ArrayLike
    data: ArrayLike
    error: ArrayLike | None = None
    model: ArrayLike | None = None
    continuum: ArrayLike | None = None
    components: Mapping[str, ArrayLike] = field(default_factory=dict)
    bad: ArrayLike | None = None
    title: str = ""
    unit: str = ""
    labels: Mapping[str, float] = field(default_factory=dict)


def plot_spectrum(
    wavelength: ArrayLike,
    data: ArrayLike,
    error: ArrayLike | None = None,
    model: ArrayLike | None = None,
    continuum: ArrayLike | None = None,
    components: Mapping[str, ArrayLike] | None = None,
    bad: ArrayLike | None = None,
    *,
    title: str = "",
    unit: str = "",
    labels: Mapping[str, float] | None = None,
    legend: bool = True,
) -> Figure:
    """Return a figure of one spectrum: data, model and components above, residuals below.

    Parameters
    ----------
    wavelength, data : (w,) array_like
        Rest wavelength (Angstrom) and flux density; NaN data are gaps.
    error : (w,) array_like, optional
        1 sigma. With it the data have an error band and residuals are in units of sigma.
    model, continuum : (w,) array_like, optional
        The whole model, and its continuum.
    components : mapping of str to (w,) array_like, optional
        Each line alone, without continuum.
    bad : (w,) array_like of bool, optional
        Pixels that weren't fitted: shaded, and without residuals.
    title, unit : str
        Title, and unit of the data (FITS units are typeset).
    labels : mapping of str to float, optional
        Text and wavelength of marks above the spectrum.
    legend : bool
        Show a legend.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If an array hasn't the shape of `wavelength`.
    """
    panel = SpectrumPanel(wavelength, data, error, model, continuum, components or {}, bad, title, unit, labels or {})
    figure = NotebookFigure(
        figsize=(7.2, 4.6 if model is not None else 3.6), layout=ConstrainedLayoutEngine(hspace=0.0, h_pad=0.03)
    )
    if model is None:
        ax, residual = figure.add_subplot(), None
    else:
        grid = figure.add_gridspec(2, 1, height_ratios=(3.2, 1.0), hspace=0.0)
        ax = figure.add_subplot(grid[0])
        residual = figure.add_subplot(grid[1], sharex=ax)
    draw_spectrum(ax, residual, panel)
    if legend:
        ax.legend(fontsize=TICK_SIZE, frameon=False, loc="upper right", handlelength=1.6, labelspacing=0.3)
    return figure


def cut_panel(panel: SpectrumPanel, low: float, high: float) -> SpectrumPanel:
    """Return the part of a panel between two wavelengths; with fewer than 2 pixels there, the whole."""
    wavelength = np.asarray(panel.wavelength, dtype=float)
    keep = (wavelength >= low) & (wavelength <= high)
    if keep.sum() < 2:
        return panel

    def cut(values: ArrayLike | None) -> ArrayLike | None:
        return None if values is None else np.asarray(values)[keep]

    return replace(
        panel,
        wavelength=wavelength[keep],
        data=np.asarray(panel.data)[keep],
        error=cut(panel.error),
        model=cut(panel.model),
        continuum=cut(panel.continuum),
        components={
            name: np.asarray(values)[keep] for name, values in panel.components.items() if np.any(np.asarray(values)[keep] != 0)
        },
        bad=cut(panel.bad),
        labels={name: at for name, at in panel.labels.items() if low <= at <= high},
    )


def plot_spectra(panels: Sequence[SpectrumPanel], *, title: str = "", columns: int = 4) -> Figure:
    """Return a figure of pieces of one spectrum side by side, each with its residuals.

    Parameters
    ----------
    panels : sequence of SpectrumPanel
        Their titles are left out.
    title : str
    columns : int
        Panels in a row.
    """
    rows, columns = -(-len(panels) // columns), min(len(panels), columns)
    size = (7.2 if columns == 1 else 3.2 * columns, 4.6 * rows)
    figure = NotebookFigure(figsize=size, layout=ConstrainedLayoutEngine(hspace=0.0, h_pad=0.03))
    outer = figure.add_gridspec(rows, columns)
    for k, panel in enumerate(panels):
        grid = outer[k // columns, k % columns].subgridspec(2, 1, height_ratios=(3.2, 1.0), hspace=0.0)
        ax = figure.add_subplot(grid[0])
        residual = None if panel.model is None else figure.add_subplot(grid[1], sharex=ax)
        draw_spectrum(ax, residual, replace(panel, title=""), y_label=k % columns == 0)
        if columns == 1:
            ax.legend(fontsize=TICK_SIZE, frameon=False, loc="upper right", handlelength=1.6, labelspacing=0.3)
    figure.suptitle(title, fontsize=TITLE_SIZE, x=0.01, ha="left")
    return figure


def draw_spectrum(
    ax: Axes, residual: Axes | None, panel: SpectrumPanel, *, y_label: bool = True, power: int | None = None
) -> None:
    """Draw a spectrum into given axes, and its residuals into `residual` where there are such axes.

    `power` is the power of ten that goes from the numbers to the unit; None chooses it (0 for numbers of ordinary size).
    """
    wavelength = _array(panel.wavelength, "wavelength", None)
    n = wavelength.size
    data = _array(panel.data, "data", n)
    # a power of ten goes to the unit: matplotlib's own offset text would sit on the title
    power = decade(data) if power is None else power
    scale = 10.0**-power
    data = data * scale
    error = _optional(panel.error, "error", n, scale)
    model = _optional(panel.model, "model", n, scale)
    continuum = _optional(panel.continuum, "continuum", n, scale)
    bad = np.zeros(n, dtype=bool) if panel.bad is None else np.asarray(panel.bad, dtype=bool)
    if bad.shape != (n,):
        raise DataError(f"bad must have the shape ({n},) of wavelength; got {bad.shape}. Give one value a pixel.")

    style_axes(ax)
    if error is not None:
        ax.fill_between(wavelength, data - error, data + error, step="mid", color="0.8", linewidth=0, zorder=1)
    ax.step(wavelength, data, where="mid", color=DATA_COLOR, linewidth=0.8, label="data", zorder=2)
    base = np.zeros(n) if continuum is None else continuum
    for i, (name, component) in enumerate(panel.components.items()):
        color = COMPONENT_COLORS[i % len(COMPONENT_COLORS)]
        values = scale * _array(component, f"component {name!r}", n)
        # only where the line is, so that six lines don't draw six continua
        seen = np.abs(values) > 1e-3 * np.nanmax(np.abs(values), initial=0.0)
        ax.plot(wavelength, np.where(seen, base + values, np.nan), color=color, linewidth=1.0, label=name, zorder=4)
        ax.fill_between(wavelength, base, base + values, where=seen, color=color, alpha=0.25, linewidth=0, zorder=3)
    if continuum is not None:
        ax.plot(wavelength, continuum, color=CONTINUUM_COLOR, linewidth=0.9, linestyle=(0, (4, 2)), label="continuum", zorder=4)
    if model is not None:
        ax.plot(wavelength, model, color=MODEL_COLOR, linewidth=1.0, label="model", zorder=5)
    ax.set_xlim(wavelength[0], wavelength[-1])
    _set_height(ax, data, error, model, bad, _label_length(ax, panel.labels))
    ax.set_title(panel.title, fontsize=TITLE_SIZE, loc="left", pad=4)
    if y_label:
        unit = unit_text(panel.unit, power)
        ax.set_ylabel(f"flux density ({unit})" if unit else "flux density", fontsize=LABEL_SIZE)
    _draw_labels(ax, panel.labels)
    shaded = [ax] if residual is None else [ax, residual]
    for axes in shaded:
        _shade(axes, wavelength, bad)
    bottom = ax if residual is None else residual
    bottom.set_xlabel("rest wavelength (\u00c5)", fontsize=LABEL_SIZE)
    if residual is not None:
        ax.tick_params(labelbottom=False)
        _draw_residuals(residual, wavelength, data, error, model, bad, y_label)


def _draw_residuals(
    ax: Axes,
    wavelength: FloatArray,
    data: FloatArray,
    error: FloatArray | None,
    model: FloatArray | None,
    bad: NDArray[np.bool_],
    y_label: bool,
) -> None:
    style_axes(ax)
    ax.set_xlim(wavelength[0], wavelength[-1])
    ax.axhline(0.0, color=MODEL_COLOR, linewidth=0.8, zorder=3)
    # bad and zero errors give no residual, not a division by zero
    scale = np.ones_like(data) if error is None else np.where(error > 0, error, np.nan)
    values = np.full_like(data, np.nan) if model is None else np.where(bad, np.nan, (data - model) / scale)
    ax.step(wavelength, values, where="mid", color=DATA_COLOR, linewidth=0.6, zorder=2)
    finite = np.abs(values[np.isfinite(values)])
    reach = float(np.percentile(finite, 99.5)) if finite.size else 1.0
    if error is not None:
        reach = max(reach, 3.2)
        ax.axhspan(-1.0, 1.0, color="0.92", linewidth=0, zorder=0)
    reach = reach or 1.0
    ax.set_ylim(-1.3 * reach, 1.3 * reach)
    ax.yaxis.set_major_locator(MaxNLocator(4, symmetric=True, prune="both"))
    if y_label:
        ax.set_ylabel("residual ($\\sigma$)" if error is not None else "residual", fontsize=LABEL_SIZE)


def _set_height(
    ax: Axes, data: FloatArray, error: FloatArray | None, model: FloatArray | None, bad: NDArray[np.bool_], label: float
) -> None:
    """Choose the height from the fitted pixels: one cosmic ray must not flatten the lines."""
    shown = [values[~bad & np.isfinite(values)] for values in (data, model) if values is not None]
    pixels = np.concatenate(shown)
    if pixels.size == 0:
        pixels = data[np.isfinite(data)]
    if pixels.size == 0:
        return
    low, high = float(pixels.min()), float(pixels.max())
    if error is not None:
        noise = error[~bad & np.isfinite(error)]
        spare = float(np.median(noise)) if noise.size else 0.0
        low, high = low - spare, high + spare
    span = (high - low) or 1.0
    # the labels and their marks take the top of the axes
    free = 0.93 if label == 0 else 0.98 - label - 0.1
    ax.set_ylim(low - 0.05 * span, low + 1.0 * span / free)


def _size_in_points(ax: Axes) -> tuple[float, float]:
    """Return width and height of the axes as they are now (a later layout may change them a little)."""
    box = ax.get_window_extent()
    figure = ax.get_figure(root=True)
    points = 72.0 / (figure.dpi if figure is not None else 100.0)
    return max(box.width * points, 1.0), max(box.height * points, 1.0)


def _label_length(ax: Axes, labels: Mapping[str, float]) -> float:
    """Return the height of the longest upright label as a fraction of the axes (0 without labels)."""
    if not labels:
        return 0.0
    height_pt = _size_in_points(ax)[1]
    # mathtext commands count as one letter each
    longest = max(len(re.sub(r"\\[A-Za-z]+", "x", name).replace("$", "").strip()) for name in labels)
    return min(0.62 * TICK_SIZE * longest / height_pt, 0.4)


def _draw_labels(ax: Axes, labels: Mapping[str, float]) -> None:
    """Mark lines above the spectrum; labels that would touch are pushed apart, their marks stay."""
    left, right = ax.get_xlim()
    inside = sorted((position, name) for name, position in labels.items() if left < position < right)
    width_pt = _size_in_points(ax)[0]
    spread = _apart([position for position, _ in inside], 1.25 * TICK_SIZE * (right - left) / width_pt, left, right)
    foot = 0.98 - _label_length(ax, labels)
    top = ax.get_xaxis_transform()
    for (position, name), place in zip(inside, spread, strict=True):
        heights = [foot - 0.08, foot - 0.045, foot - 0.015]
        ax.plot([position, position, place], heights, transform=top, color="0.4", linewidth=0.6, zorder=6)
        ax.text(place, foot, name, transform=top, rotation=90, ha="center", va="bottom", fontsize=TICK_SIZE, color="0.2")


def _apart(positions: list[float], gap: float, left: float, right: float) -> list[float]:
    """Return the positions moved as little as needed so that neighbours are `gap` apart."""
    placed = list(positions)
    for _ in range(50):
        moved = False
        for i in range(len(placed) - 1):
            lack = gap - (placed[i + 1] - placed[i])
            if lack > 1e-9 * gap:
                placed[i] -= 0.5 * lack
                placed[i + 1] += 0.5 * lack
                moved = True
        if not moved:
            break
    return [min(max(place, left), right) for place in placed]


def _shade(ax: Axes, wavelength: FloatArray, bad: NDArray[np.bool_]) -> None:
    """Shade runs of pixels that weren't fitted."""
    if not bad.any() or wavelength.size < 2:
        return
    steps = np.diff(np.concatenate([[0], bad.astype(int), [0]]))
    half = 0.5 * np.median(np.diff(wavelength))
    for start, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1, strict=True):
        ax.axvspan(wavelength[start] - half, wavelength[end] + half, color=MASKED_COLOR, linewidth=0, zorder=0)


def _array(values: ArrayLike, name: str, n: int | None) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or (n is not None and array.size != n):
        wanted = "a 1-D array" if n is None else f"the shape ({n},) of wavelength"
        raise DataError(f"{name} must have {wanted}; got {array.shape}. Give one value a pixel.")
    return array


def _optional(values: ArrayLike | None, name: str, n: int, scale: float) -> FloatArray | None:
    return None if values is None else scale * _array(values, name, n)
