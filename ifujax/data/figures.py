"""Figures of spectra and images, for the methods that draw.

The one module of this layer that draws: it is loaded by those methods alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ifujax.data.blocks import window_planes
from ifujax.data.spaxels import as_variance
from ifujax.plotting import plot_map, plot_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.data.image import Image
    from ifujax.data.spectrum import Spectrum


def spectrum_figure(spectrum: Spectrum, window: tuple[float, float] | None = None, title: str = "") -> Figure:
    """Return a figure of a spectrum in the rest frame, with its 1 sigma band; bad pixels are shaded."""
    rest = spectrum.rest_wavelength
    keep = slice(None) if window is None else window_planes(rest, window, spectrum.redshift)
    stretch = 1.0 + spectrum.redshift
    error = None
    if spectrum.uncertainty is not None and spectrum.uncertainty_kind is not None:
        plane = np.asarray(spectrum.uncertainty, dtype=np.float64)[keep]
        variance = as_variance(plane, spectrum.uncertainty_kind)
        error = np.sqrt(np.where(variance > 0, variance, np.nan)) * stretch
    return plot_spectrum(
        rest[keep],
        np.asarray(spectrum.values, dtype=np.float64)[keep] * stretch,
        error,
        continuum=None if spectrum.stellar is None else np.asarray(spectrum.stellar, dtype=np.float64)[keep] * stretch,
        bad=spectrum.bad[keep],
        title=title,
        unit=spectrum.unit,
    )


def image_figure(image: Image) -> Figure:
    """Return a figure of an image; arrows of north and east where it has celestial coordinates."""
    wcs = image.celestial if image.celestial is not None and image.celestial.has_celestial else None
    return plot_map(image.values, image.title, image.unit, image.kind, wcs=wcs)
