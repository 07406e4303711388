"""Figures of extracted sources."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ifujax.errors import DataError
from ifujax.extraction.results import SourceResult
from ifujax.extraction.spectra import SourceSpectrum
from ifujax.plotting.source import SourcePanel, SourceTrace, source_page


def source_figure(result: SourceResult, colormap: str = "viridis") -> Figure:
    """Return a page about a source: images, segmentation maps, masks and maps; reference, cross-correlated and scene spectra.

    Raises
    ------
    DataError
        For a source that could not be extracted.
    """
    if result.status or result.classic is None or result.white is None:
        raise DataError(f"source {result.source.id} must have been extracted to be drawn; got: {result.reason}")
    classic, config = result.classic, result.config
    panels = [SourcePanel(f"{config.name_prefix}WHITE", result.white)]
    panels += [SourcePanel(name, image) for name, image in result.images.items()]
    panels += [SourcePanel(name, image) for name, image in classic.maps.items()]
    panels += [SourcePanel(name, labels, True) for name, labels in result.segmentations.items()]
    panels += [SourcePanel(name, mask.astype(int), True) for name, mask in classic.masks.items()]
    suffix = "_SKYSUB" if config.sky_subtraction else ""
    names = [f"{classic.reference}{suffix}", f"CROSS_CORRELATION{suffix}", f"CROSS_CORRELATION_CONTSUB{suffix}", "SCENE", "HORNE"]
    traces = [_trace(name, result.spectra[name]) for name in names if name in result.spectra]
    source = result.source
    return source_page(
        result.wavelength,
        panels,
        traces,
        title=f"{source.id}   RA {source.ra:.6f}   Dec {source.dec:+.6f}",
        unit=result.unit,
        outlines={"object": classic.masks[f"MASK_{config.object_mask.upper()}"], "sky": classic.masks["MASK_SKY"]},
        colormap=colormap,
    )


def _trace(name: str, spectrum: SourceSpectrum) -> SourceTrace:
    with np.errstate(invalid="ignore"):
        error = None if spectrum.variance is None else np.sqrt(spectrum.variance)
    return SourceTrace(name, spectrum.values, error)
