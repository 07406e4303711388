"""One page that sums up the fit of a cube: maps above, example spaxels below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ifujax.errors import UsageError
from ifujax.plotting.maps import MapPanel, draw_map
from ifujax.plotting.spectrum import SpectrumPanel, draw_spectrum
from ifujax.plotting.style import LABEL_SIZE, MARKER_COLORS, TICK_SIZE, NotebookFigure, decade

_INCH_MARGIN = 0.55
_MAX_COLUMNS = 5


def fit_page(
    maps: Sequence[MapPanel],
    spectra: Sequence[SpectrumPanel],
    title: str = "",
    caption: str = "",
    *,
    markers: Sequence[tuple[int, int]] = (),
    wcs: Any | None = None,
    width: float = 12.0,
) -> Figure:
    """Return one page: a row or two of maps, and example spaxels with data, model, components and residuals.

    Parameters
    ----------
    maps : sequence of MapPanel
        Up to five in a row.
    spectra : sequence of SpectrumPanel
        Side by side; three fit well. Each is lettered a, b, c ... as its marker.
    title, caption : str
        Above, and below (wrapped).
    markers : sequence of (y, x)
        The spaxels of the spectra, framed on every map but the status.
    wcs : astropy.wcs.WCS, optional
        2-D celestial; north and east are drawn on the first map.
    width : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UsageError
        If there is neither a map nor a spectrum.
    """
    if not maps and not spectra:
        raise UsageError("maps and spectra must not both be empty; got none. Give at least one panel.")
    columns = min(len(maps), _MAX_COLUMNS)
    rows = int(np.ceil(len(maps) / columns)) if maps else 0
    if rows > 1:
        columns = int(np.ceil(len(maps) / rows))  # 6 maps: three and three

    # All positions in inches, from the top: exact whatever the shape of the maps
    gap_x = 0.42
    usable = width - 2 * _INCH_MARGIN
    cell = (usable - gap_x * (columns - 1)) / columns if columns else 0.0
    shapes = [np.asarray(panel.values).shape for panel in maps]
    aspect = max((shape[0] / shape[1] for shape in shapes if len(shape) == 2 and shape[1]), default=1.0)
    map_height = float(np.clip(cell * aspect, 1.2, 4.2))
    n_status = max((_n_labels(panel) for panel in maps if panel.kind == "status"), default=0)
    below = max(0.24 * map_height + 0.42, 0.2 + 0.16 * n_status)
    lines = textwrap.wrap(caption, width=int(width * 14)) if caption else []
    head = 0.85 if title else 0.45
    spectrum_height = 3.3 if spectra else 0.0
    foot = (1.0 if spectra else 0.2) + 0.17 * len(lines)
    height = (
        head + rows * (map_height + below) + max(rows - 1, 0) * 0.25 + (0.4 if rows and spectra else 0.0) + spectrum_height + foot
    )
    figure = NotebookFigure(figsize=(width, height))

    def axes_at(left: float, top: float, box_width: float, box_height: float, **options: Any) -> Any:
        return figure.add_axes(
            (left / width, 1.0 - (top + box_height) / height, box_width / width, box_height / height), **options
        )

    for i, panel in enumerate(maps):
        row, column = divmod(i, columns)
        ax = axes_at(_INCH_MARGIN + column * (cell + gap_x), head + row * (map_height + below + 0.25), cell, map_height)
        draw_map(
            ax,
            panel.values,
            panel.title,
            panel.unit,
            panel.kind,
            mask=panel.mask,
            names=panel.names,
            wcs=wcs if i == 0 else None,
            markers=() if panel.kind == "status" else markers,
            colorbar="bottom",
        )

    if spectra:
        _add_spectra(figure, spectra, axes_at, height - spectrum_height - foot, usable, spectrum_height, bool(markers))
    if title:
        figure.text(_INCH_MARGIN / width, 1 - 0.3 / height, title, fontsize=13, fontweight="bold", ha="left", va="center")
    for i, line in enumerate(lines):
        y = (0.17 * (len(lines) - i - 1) + 0.12) / height
        figure.text(_INCH_MARGIN / width, y, line, fontsize=LABEL_SIZE, ha="left", va="bottom", color="0.2")
    return figure


def _add_spectra(
    figure: Figure, spectra: Sequence[SpectrumPanel], axes_at: Any, top: float, usable: float, height: float, lettered: bool
) -> None:
    gap = 0.5
    left = _INCH_MARGIN + 0.15
    box = (usable - 0.15 - gap * (len(spectra) - 1)) / len(spectra)
    upper = 0.74 * height
    # one power of ten for all: only the first panel has the unit written beside it
    power = decade(np.concatenate([np.ravel(panel.data) for panel in spectra]))
    handles: dict[str, Any] = {}
    for i, panel in enumerate(spectra):
        x = left + i * (box + gap)
        ax = axes_at(x, top, box, upper)
        residual = axes_at(x, top + upper, box, height - upper, sharex=ax)
        draw_spectrum(ax, residual, panel, y_label=i == 0, power=power)
        ax.figure.align_ylabels([ax, residual])
        if lettered:
            color = MARKER_COLORS[i % len(MARKER_COLORS)]
            ax.text(
                0.025,
                0.965,
                chr(ord("a") + i),
                transform=ax.transAxes,
                fontsize=12,
                fontweight="bold",
                color=color,
                ha="left",
                va="top",
            )
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    y = 1.0 - (top + height + 0.48) / figure.get_figheight()
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="upper center",
        bbox_to_anchor=(0.5, y),
        ncols=min(len(handles), 9),
        fontsize=TICK_SIZE + 0.5,
        frameon=False,
        handlelength=1.8,
    )


def _n_labels(panel: MapPanel) -> int:
    """Return how many lines the legend of a status map takes."""
    values = np.asarray(panel.values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    return len(np.unique(finite)) + 1
