"""One page about an extracted source: its images, masks and spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from ifujax.errors import UsageError
from ifujax.plotting.style import (
    COMPONENT_COLORS,
    DATA_COLOR,
    LABEL_SIZE,
    TICK_SIZE,
    TITLE_SIZE,
    NotebookFigure,
    decade,
    style_axes,
    unit_text,
)

_PER_ROW = 6


@dataclass(frozen=True)
class SourcePanel:
    """An image of a source.

    Parameters
    ----------
    title : str
    values : (y, x) array
        NaN where there is nothing.
    discrete : bool
        Labels or masks: no interpolation between colours is meant.
    """

    title: str
    values: np.ndarray
    discrete: bool = False


@dataclass(frozen=True)
class SourceTrace:
    """A spectrum of a source: `values` and `error` (wave,), or no error."""

    title: str
    values: np.ndarray
    error: np.ndarray | None = None


def source_page(
    wavelength: np.ndarray,
    panels: Sequence[SourcePanel],
    traces: Sequence[SourceTrace],
    *,
    title: str = "",
    unit: str = "",
    position: tuple[float, float] | None = None,
    outlines: Mapping[str, np.ndarray] | None = None,
    colormap: str = "viridis",
) -> Figure:
    """Return a page with images in rows and spectra below, each with its 1 sigma band.

    Parameters
    ----------
    wavelength : (wave,) array
        Angstrom.
    panels : sequence of SourcePanel
    traces : sequence of SourceTrace
    title : str
    unit : str
        Of the spectra.
    position : (float, float), optional
        (y, x) of the source in the images, marked by a cross.
    outlines : mapping of str to (y, x) bool array, optional
        Masks whose edges are drawn on the first image.
    colormap : str
        Of matplotlib.

    Raises
    ------
    UsageError
        Without anything to draw, or for an unknown colormap.
    """
    from matplotlib import colormaps

    if not panels and not traces:
        raise UsageError("panels and traces must not both be empty; got none. Give at least one.")
    if colormap not in colormaps:
        raise UsageError(f"colormap must be one of matplotlib's, such as viridis or magma; got {colormap!r}.")
    rows = -(-len(panels) // _PER_ROW)
    heights = [1.9] * rows + [1.5] * len(traces)
    figure = NotebookFigure(figsize=(11.0, sum(heights) + 0.8), layout="constrained")
    grid = figure.add_gridspec(len(heights), _PER_ROW, height_ratios=heights)
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE + 1, x=0.01, ha="left")
    for k, panel in enumerate(panels):
        axes = figure.add_subplot(grid[k // _PER_ROW, k % _PER_ROW])
        finite = panel.values[np.isfinite(panel.values)] if panel.values.dtype.kind == "f" else panel.values.ravel()
        low, high = (
            (np.percentile(finite, [2, 99.5]) if finite.size else (0, 1)) if not panel.discrete else (0, max(finite.max(), 1))
        )
        axes.imshow(
            panel.values, origin="lower", cmap="Greys" if panel.discrete else colormap, vmin=low, vmax=max(high, low + 1e-30),
            interpolation="nearest",
        )  # fmt: skip
        axes.set_title(panel.title, fontsize=LABEL_SIZE)
        axes.tick_params(labelsize=TICK_SIZE - 1)
        if position is not None:
            axes.plot(position[1], position[0], "+", color="#D55E00", markersize=9, markeredgewidth=1.2)
        for j, (name, mask) in enumerate((outlines or {}).items() if k == 0 else ()):
            if mask.any() and not mask.all():
                axes.contour(mask, [0.5], colors=[COMPONENT_COLORS[(j + 2) % len(COMPONENT_COLORS)]], linewidths=0.9)
                axes.plot([], [], color=COMPONENT_COLORS[(j + 2) % len(COMPONENT_COLORS)], label=name)
        if k == 0 and outlines:
            axes.legend(fontsize=TICK_SIZE - 1.5, loc="upper right", handlelength=1.0, framealpha=0.6)
    first = None
    for k, trace in enumerate(traces):
        axes = figure.add_subplot(grid[rows + k, :], sharex=first)
        first = first or axes
        finite = trace.values[np.isfinite(trace.values)]
        power = decade(finite)
        scale = 10.0**-power
        if trace.error is not None:
            low, high = (trace.values + sign * trace.error for sign in (-1, 1))
            axes.fill_between(wavelength, low * scale, high * scale, color=COMPONENT_COLORS[0], alpha=0.35, linewidth=0)
        axes.plot(wavelength, trace.values * scale, color=DATA_COLOR, linewidth=0.6)
        if finite.size:
            low, high = np.percentile(finite, [0.3, 99.7]) * scale
            room = 0.15 * max(high - low, 1e-30)
            axes.set_ylim(low - room, high + room)
        axes.axhline(0, color="0.6", linewidth=0.5, zorder=0)
        axes.set_ylabel(unit_text(unit, power), fontsize=TICK_SIZE)
        axes.set_title(trace.title, fontsize=LABEL_SIZE, loc="left", pad=2)
        style_axes(axes)
        axes.set_xlim(wavelength[0], wavelength[-1])
        if k < len(traces) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("wavelength / \u00c5", fontsize=LABEL_SIZE)
    return figure
