"""Figures of a product that was read back: a spaxel and a map, drawn like those of a fresh fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ifujax.inference.status import STATUS_FLAGS, decode
from ifujax.io.units import fits_unit
from ifujax.lines.figures import map_panel, map_panel_figure, panel_figure, spectrum_panel
from ifujax.plotting import cut_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.lines.products.loaded import LoadedFit


def spaxel_figure(fit: LoadedFit, x: int, y: int) -> Figure:
    """Return a figure of one spaxel within the fitted window: data, model, components, residuals. 0-based pixels."""
    spectra = fit.spectra(np.array([y * fit.shape[1] + x]))
    status, name = int(fit.maps["status"][y, x]), fit.path.name
    state = ", ".join(flag.name.replace("_", " ") for flag in decode(status, STATUS_FLAGS))
    chi2 = fit.maps["reduced_chi2"][y, x]
    place = "" if fit.is_spectrum else f"x = {x}, y = {y}: "
    title = f"{name}: {place}" + (state or (f"$\\chi^2_\\nu$ = {chi2:.2f}" if np.isfinite(chi2) else "fitted"))
    marks = {line: at for line, at in zip(fit.lines, fit.line_wavelengths) if np.isfinite(at)}
    # IFSCube writes all wavelengths, with a model in the fitting window only.
    inside = np.isfinite(spectra.model[0])
    fitted = inside.any() and any(np.isfinite(planes[:, y, x]).any() for planes in fit.values.values())
    panel = spectrum_panel(spectra, fit.lines, marks, title, fits_unit(fit.unit), fitted=bool(fitted))
    if inside.any():
        panel = cut_panel(panel, *spectra.rest_wavelength[inside][[0, -1]])
    return panel_figure(panel)


def map_figure(fit: LoadedFit, line: str, quantity: str) -> Figure:
    """Return a figure of one map."""
    return map_panel_figure(map_panel(fit, line, quantity), fit.celestial)
