"""Figures of fits, from plain arrays: no pyplot, no global state, works without a display."""

from ifujax.plotting.maps import MapPanel, draw_map, plot_map
from ifujax.plotting.page import fit_page
from ifujax.plotting.spectrum import SpectrumPanel, cut_panel, draw_spectrum, plot_spectra, plot_spectrum

__all__ = [
    "MapPanel",
    "SpectrumPanel",
    "cut_panel",
    "draw_map",
    "draw_spectrum",
    "fit_page",
    "plot_map",
    "plot_spectra",
    "plot_spectrum",
]
