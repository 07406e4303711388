"""Draws from a posterior: pairs of parameters, and models over data."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ifujax.errors import DataError, UsageError
from ifujax.plotting.spectrum import SpectrumPanel, draw_spectrum
from ifujax.plotting.style import (
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

POINT_COLOR = "#0072B2"
LEVELS = (0.68, 0.95)
"""Shares of the draws inside the contours of a pair, and inside the bands of models."""
_PANEL, _SMALL = 1.45, 8.0
"""Size of a panel of pairs (inches) and of the text about it."""
_LONGEST = 20
"""Letters in a line of a name."""
_BINS, _SMOOTH = 30, 1.6
"""Of histograms; width of their smoothing, in bins."""
_MOST_POINTS = 2000


def plot_pairs(draws: ArrayLike, names: Sequence[str], units: Sequence[str] = (), *, title: str = "") -> Figure:
    """Return a figure of all pairs of parameters (a corner plot).

    The diagonal shows each parameter by itself, with its 16, 50 and 84 % quantiles, which are the numbers above. Contours
    hold 68 and 95 % of the draws.

    Parameters
    ----------
    draws : (n, parameters) array_like
        Draws with a NaN are left out of the panels of that parameter.
    names : sequence of str
    units : sequence of str, optional
        FITS units are typeset.
    title : str

    Raises
    ------
    DataError
        If `draws` isn't 2-D, or a parameter has fewer than two finite draws.
    UsageError
        If there aren't as many names and units as parameters.
    """
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"draws must have the shape (draws, parameters); got {values.shape}.")
    k = values.shape[1]
    units = tuple(units) or ("",) * k
    if len(names) != k or len(units) != k:
        raise UsageError(f"names and units must be as many as parameters, {k}; got {len(names)} and {len(units)}.")
    if (np.isfinite(values).sum(axis=0) < 2).any():
        worst = names[int(np.argmin(np.isfinite(values).sum(axis=0)))]
        raise DataError(f"draws must hold two finite values of each parameter at least; got fewer of {worst!r}. Leave it out.")
    names = [textwrap.fill(name, _LONGEST) for name in names]
    powers = [decade(np.quantile(column[np.isfinite(column)], [0.05, 0.5, 0.95])) for column in values.T]
    values = values * 10.0 ** -np.array(powers)
    width = max(_PANEL * k + 0.8, 4.4)
    lines = textwrap.wrap(title, int(13 * width))
    figure = NotebookFigure(figsize=(width, _PANEL * k + 1.3 + 0.2 * len(lines)))
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0))
    grid = figure.add_gridspec(k, k)
    ranges = [_range(column) for column in values.T]
    for row in range(k):
        for column in range(row + 1):
            ax = figure.add_subplot(grid[row, column])
            _style_panel(ax, ranges[column], None if row == column else ranges[row])
            if row == column:
                _draw_marginal(ax, values[:, row], ranges[row])
                _write_above(ax, (names[row], _interval(values[:, row]), unit_text(units[row], powers[row])), row == 0)
            else:
                _draw_pair(ax, values[:, column], values[:, row], ranges[column], ranges[row])
            ax.tick_params(labelbottom=row == k - 1, labelleft=column == 0 and row > 0)
            if row == k - 1:
                ax.set_xlabel(_label(names[column], units[column], powers[column]), fontsize=_SMALL)
            if column == 0 and row > 0:
                ax.set_ylabel(_label(names[row], units[row], powers[row]), fontsize=_SMALL)
    figure.align_labels()
    if lines:
        figure.suptitle("\n".join(lines), fontsize=TITLE_SIZE + 1, x=0.01, ha="left")
    return figure


def _write_above(ax: Axes, lines: Sequence[str], in_layout: bool) -> None:
    """Write lines above a panel; nothing stands there but above the first, where room is to be made."""
    text = ax.text(0.5, 1.03, "\n".join(filter(None, lines)), transform=ax.transAxes, ha="center", va="bottom", fontsize=_SMALL)
    text.set_in_layout(in_layout)


def _style_panel(ax: Axes, x: tuple[float, float], y: tuple[float, float] | None) -> None:
    style_axes(ax, minor=False)
    ax.set_xlim(*x)
    ax.xaxis.set_major_locator(MaxNLocator(3, prune="both", min_n_ticks=2))
    ax.tick_params(axis="x", labelrotation=45)
    if y is None:
        ax.set_yticks([])
    else:
        ax.set_ylim(*y)
        ax.yaxis.set_major_locator(MaxNLocator(3, prune="both", min_n_ticks=2))


def _range(column: NDArray[np.float64]) -> tuple[float, float]:
    """Return the limits of an axis: all draws but stragglers."""
    finite = column[np.isfinite(column)]
    low, high = np.quantile(finite, [0.002, 0.998])
    spare = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return float(low - spare), float(high + spare)


def _label(name: str, unit: str, power: int) -> str:
    text = unit_text(unit, power)
    return f"{name}\n({text})" if text else name


def _interval(column: NDArray[np.float64]) -> str:
    """Return the median with its distances from the 16 and 84 % quantiles, to two digits of the smaller one."""
    low, middle, high = np.quantile(column[np.isfinite(column)], [0.16, 0.5, 0.84])
    below, above = middle - low, high - middle
    smaller = min(each for each in (below, above, math.inf) if each > 0)
    digits = 3 if math.isinf(smaller) else min(max(1 - math.floor(math.log10(smaller)), 0), 6)
    return f"${middle:.{digits}f}^{{+{above:.{digits}f}}}_{{-{below:.{digits}f}}}$"


def _draw_marginal(ax: Axes, column: NDArray[np.float64], limits: tuple[float, float]) -> None:
    finite = column[np.isfinite(column)]
    ax.hist(finite, bins=_BINS, range=limits, histtype="stepfilled", color=POINT_COLOR, alpha=0.3)
    ax.hist(finite, bins=_BINS, range=limits, histtype="step", color=POINT_COLOR, linewidth=0.9)
    for q, style in ((0.16, (0, (3, 2))), (0.5, "-"), (0.84, (0, (3, 2)))):
        ax.axvline(float(np.quantile(finite, q)), color="0.2", linewidth=0.8, linestyle=style)


def _draw_pair(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
) -> None:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    some = np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int)
    ax.plot(x[some], y[some], ".", color=POINT_COLOR, markersize=2.2, markeredgewidth=0, alpha=0.5, rasterized=True)
    density, levels = _density(x, y, x_limits, y_limits)
    if levels:
        centres = [np.linspace(*ends, _BINS + 1)[:-1] + 0.5 * (ends[1] - ends[0]) / _BINS for ends in (x_limits, y_limits)]
        ax.contour(*centres, density.T, levels=levels, colors="0.15", linewidths=(0.7, 1.1))


def _density(
    x: NDArray[np.float64], y: NDArray[np.float64], x_limits: tuple[float, float], y_limits: tuple[float, float]
) -> tuple[NDArray[np.float64], list[float]]:
    """Return a smoothed histogram (x, y), and the densities beyond which 95 and 68 % of the draws lie, ascending."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    counts, _, _ = np.histogram2d(x, y, bins=_BINS, range=(x_limits, y_limits))
    # nearest: what piles up at a bound must not leak out of the picture
    density = gaussian_filter(counts, _SMOOTH, mode="nearest")
    places = [_BINS * (each - ends[0]) / (ends[1] - ends[0]) - 0.5 for each, ends in ((x, x_limits), (y, y_limits))]
    # at the draws, not of the histogram: smoothing makes that wider than the draws are
    at = map_coordinates(density, places, order=1, mode="nearest")
    levels = {float(np.quantile(at, 1 - level)) for level in LEVELS}
    return density, sorted(level for level in levels if 0 < level < density.max())


def plot_predictive(panel: SpectrumPanel, models: ArrayLike, *, shown: int = 8) -> Figure:
    """Return a figure of data and the models of draws: their median, bands of 68 and 95 %, a few of them, and residuals.

    The bands are those of the model: data scatter about it by their noise besides.

    Parameters
    ----------
    panel : SpectrumPanel
        Data, error, shading, title, labels; its model is not used.
    models : (draws, w) array_like
    shown : int
        Draws to show as lines.

    Raises
    ------
    DataError
        If the models don't have the data's pixels, or aren't finite.
    """
    drawn = np.asarray(models, dtype=np.float64)
    n = np.size(panel.wavelength)
    if drawn.ndim != 2 or drawn.shape[1] != n or len(drawn) == 0 or not np.isfinite(drawn).all():
        raise DataError(f"models must be finite numbers of the shape (draws, {n}); got shape {drawn.shape}.")
    tails = [0.5 * (1 - level) for level in reversed(LEVELS)]
    lows, highs = np.quantile(drawn, tails, axis=0), np.quantile(drawn, [1 - tail for tail in tails], axis=0)
    median = np.median(drawn, axis=0)
    figure = NotebookFigure(figsize=(7.2, 4.6), layout=ConstrainedLayoutEngine(hspace=0.0, h_pad=0.03))
    grid = figure.add_gridspec(2, 1, height_ratios=(3.2, 1.0), hspace=0.0)
    ax = figure.add_subplot(grid[0])
    residual = figure.add_subplot(grid[1], sharex=ax)
    power = decade(np.asarray(panel.data))
    bare = SpectrumPanel(
        panel.wavelength, panel.data, panel.error, median, None, {}, panel.bad, panel.title, panel.unit, panel.labels
    )
    draw_spectrum(ax, residual, bare, power=power)
    scale = 10.0**-power
    wavelength = np.asarray(panel.wavelength, dtype=np.float64)
    error = None if panel.error is None else np.asarray(panel.error, dtype=np.float64)
    unit = np.ones(n) if error is None else np.where(error > 0, error, np.nan)
    for level, low, high, alpha in zip(reversed(LEVELS), lows, highs, (0.2, 0.35)):
        label = f"{level:.0%} of models".replace("%", " %")
        color = {"color": MODEL_COLOR, "alpha": alpha, "linewidth": 0}
        ax.fill_between(wavelength, scale * low, scale * high, zorder=3, label=label, **color)
        residual.fill_between(wavelength, (median - high) / unit, (median - low) / unit, zorder=1, **color)
    for model in drawn[np.linspace(0, len(drawn) - 1, min(shown, len(drawn))).astype(int)]:
        ax.plot(wavelength, scale * model, color=POINT_COLOR, linewidth=0.5, alpha=0.6, zorder=4)
    handles, labels = ax.get_legend_handles_labels()
    labels = ["median model" if text == "model" else text for text in labels]
    line = ax.plot([], [], color=POINT_COLOR, linewidth=0.8)[0]
    ax.legend(
        [*handles, line],
        [*labels, "draws"],
        fontsize=TICK_SIZE,
        frameon=False,
        loc="upper right",
        handlelength=1.6,
        labelspacing=0.3,
    )
    return figure
