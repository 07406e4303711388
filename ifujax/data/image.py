"""An image, read from a file or made from a cube, with its variance and coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.plotting.maps import MapKind


@dataclass(frozen=True, eq=False, repr=False)
class Image:
    """An image with what is needed to show and write it.

    Parameters
    ----------
    values : (y, x) array
        NaN where there is nothing.
    variance : (y, x) array, optional
    unit : str
        Of `values`.
    title : str
    kind : "flux", "velocity", "dispersion" or "snr"
        How it is drawn.
    celestial : `~astropy.wcs.WCS`, optional
        The two spatial axes.
    cards : mapping of str to (value, comment)
        Header cards that say how it was made.
    name : str
        Base name of the file it came from, without ``.fits`` or ``.fits.gz``; empty for one made here.
    header : `~astropy.io.fits.Header`, optional
        Of the file it came from: the primary header, updated by the extension's.

    Raises
    ------
    DataError
        If the shapes disagree.
    """

    values: np.ndarray
    variance: np.ndarray | None = None
    unit: str = ""
    title: str = ""
    kind: MapKind = "flux"
    celestial: WCS | None = None
    cards: Mapping[str, tuple[object, str]] = field(default_factory=dict)
    name: str = ""
    header: fits.Header | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.values) != 2:
            raise DataError(f"values must have two axes (y, x); got shape {np.shape(self.values)}. Give an image.")
        if self.variance is not None and np.shape(self.variance) != np.shape(self.values):
            raise DataError(
                f"variance must have the shape of the image, {np.shape(self.values)}; got {np.shape(self.variance)}. "
                "Give planes of one image."
            )

    def __repr__(self) -> str:
        ny, nx = self.shape
        extra = "" if self.variance is None else ", variance"
        return f"<Image {self.title or self.name}: {ny} x {nx} pixels (y, x), unit {self.unit or 'none'}{extra}>"

    @property
    def shape(self) -> tuple[int, int]:
        """``(y, x)``."""
        ny, nx = np.shape(self.values)
        return int(ny), int(nx)

    @property
    def error(self) -> np.ndarray | None:
        """1 sigma, (y, x), or None."""
        return None if self.variance is None else np.sqrt(self.variance)

    def write(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write a FITS file with extensions ``DATA``, ``STAT`` and ``DQ`` as needed: see `ifujax.io.images.write_image`."""
        from ifujax.io.images import write_image

        return write_image(path, self, overwrite)

    def plot(self) -> Figure:
        """Return a figure of the image."""
        from ifujax.data.figures import image_figure

        return image_figure(self)
