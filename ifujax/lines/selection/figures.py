"""Figures of a choice among candidates: its map, maps of what was chosen, and the page that sums it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ifujax.lines.figures import map_panel, map_panel_figure, spaxel_panel, spaxel_state, strongest_line
from ifujax.plotting import MapPanel, fit_page, plot_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.lines.selection.results import ComponentFit

_EXAMPLES = 3


def choice_figure(chosen: ComponentFit) -> Figure:
    """Return a figure of the map of the choice."""
    panel = _choice_panel(chosen)
    return plot_map(panel.values, panel.title, kind="status", wcs=chosen.cube.celestial, mask=panel.mask, names=panel.names)


def map_figure(chosen: ComponentFit, line: str, quantity: str) -> Figure:
    """Return a figure of one map of what was chosen."""
    return map_panel_figure(map_panel(chosen, line, quantity), chosen.cube.celestial)


def page_figure(chosen: ComponentFit, line: str | None = None) -> Figure:
    """Return one page: the choice, the evidence, maps of a line (the strongest by default), and example spaxels."""
    simplest = chosen.fits[int(np.argmin(chosen.n_free))]
    line = strongest_line(simplest) if line is None else line
    name = chosen.criterion.upper()
    maps = [_choice_panel(chosen), MapPanel(chosen.evidence, f"evidence: difference of {name}", "", "snr")]
    maps += [map_panel(chosen, line, quantity) for quantity in ("flux", "velocity", "velocity_dispersion")]
    examples = example_spaxels(chosen)
    panels = []
    for what, x, y in examples:
        fit = chosen.chosen(x, y)
        panels.append(spaxel_panel(fit, x, y, f"{what}: {spaxel_state(fit, x, y, line)}", named=False))
    file = chosen.cube.path.name if chosen.cube.path else "cube"
    return fit_page(
        maps,
        panels,
        f"{file}: {', '.join(chosen.names[:-1])} or {chosen.names[-1]}",
        _caption(chosen, line),
        markers=[(y, x) for _, x, y in examples],
        wcs=chosen.cube.celestial,
    )


def example_spaxels(chosen: ComponentFit) -> list[tuple[str, int, int]]:
    """Return (what, x, y) of up to three spaxels: the clearest cases of candidates that were chosen, and the closest call."""
    nx = chosen.shape[1]
    evidence, choice = chosen.evidence.ravel(), chosen.choice.ravel()
    known = np.isfinite(evidence)
    order = [k for k in np.argsort(-chosen.n_free, kind="stable") if (known & (choice == k)).any()]
    found: list[tuple[str, int]] = []
    for k in order[: _EXAMPLES - 1]:
        best = int(np.argmax(np.where(known & (choice == k), evidence, -np.inf)))
        found.append((f"clearly {chosen.names[k]}", best))
    if known.any():
        close = int(np.argmin(np.where(known, np.abs(evidence), np.inf)))
        if close not in [index for _, index in found]:
            found.append((f"closest call, {chosen.names[choice[close]]}", close))
    return [(what, index % nx, index // nx) for what, index in found]


def _choice_panel(chosen: ComponentFit) -> MapPanel:
    names = dict(enumerate(chosen.names))
    return MapPanel(chosen.choice, "choice", "", "status", mask=chosen.choice < 0, names=names)


def _caption(chosen: ComponentFit, line: str) -> str:
    name = chosen.criterion.upper()
    counts = ", ".join(f"{candidate} in {count:,}" for candidate, count in chosen.counts.items())
    return (
        f"Of {chosen.choice.size:,} spaxels: {counts}. The simplest candidate is taken whose {name} lies within "
        f"{chosen.threshold:g} of the lowest. The evidence is by how much the {name} of the best other candidate exceeds that of "
        f"the chosen one: below zero where it was taken as the simpler one. {line}: of the chosen candidate. Below: data (black, "
        "grey band: 1 sigma), model, continuum and lines of the marked spaxels, and residuals in units of sigma; shaded "
        "wavelengths were not fitted."
    )
