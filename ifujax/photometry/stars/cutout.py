"""The pixels around a star, cut out of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from astropy.wcs.utils import proj_plane_pixel_scales

from ifujax.data.image import Image
from ifujax.errors import DataError, UsageError
from ifujax.inference import status as bits

_FEWEST = 7
"""Pixels: one more than a star has parameters."""


@dataclass(frozen=True, eq=False, repr=False)
class Star:
    """The usable pixels around a star.

    Parameters
    ----------
    values : (n,) array
    variance : (n,) array or None
        None: the noise is estimated from the residuals.
    x, y : (n,) array
        Offsets of pixel centres from the position of the star, arcsec, towards larger indices of the MUSE image.
    step : (float, float)
        Pixel sizes (dy, dx), arcsec.
    warn : int
        What was found while the pixels were cut out: bits of `ifujax.inference.status`.
    at : (n, 2) int array or None
        Rows and columns of the pixels in the image; what errors under correlated noise need.

    Raises
    ------
    UsageError
        For arrays that do not match, or pixel sizes that are not positive.
    DataError
        For pixels that are not finite, variances that are not positive, or fewer than 7 pixels.
    """

    values: np.ndarray
    variance: np.ndarray | None
    x: np.ndarray
    y: np.ndarray
    step: tuple[float, float]
    warn: int = 0
    at: np.ndarray | None = None

    def __post_init__(self) -> None:
        arrays = {"values": self.values, "x": self.x, "y": self.y}
        if self.variance is not None:
            arrays["variance"] = self.variance
        for name, array in arrays.items():
            array = np.asarray(array, dtype=np.float64)
            if array.ndim != 1 or array.shape != np.shape(self.values):
                raise UsageError(f"{name} must have one axis, as long as values; got shape {array.shape}.")
            if not np.isfinite(array).all():
                raise DataError(f"{name} must be finite; got NaN or infinity. Leave masked pixels out.")
            object.__setattr__(self, name, array)
        if self.variance is not None and not (self.variance > 0).all():
            raise DataError("variance must be positive; got zero or less. Leave those pixels out.")
        if not all(math.isfinite(size) and size > 0 for size in self.step):
            raise UsageError(f"step must hold two positive pixel sizes (dy, dx) in arcsec; got {self.step}.")
        if self.values.size < _FEWEST:
            raise DataError(
                f"a star must have {_FEWEST} usable pixels or more; got {self.values.size}. Enlarge the radius, or unmask some."
            )

    def __repr__(self) -> str:
        return f"<Star: {self.values.size} pixels within {self.reach:.3g} arcsec>"

    @property
    def reach(self) -> float:
        """Distance of the outermost pixel from the position, arcsec."""
        return float(np.hypot(self.x, self.y).max())


def star_pixels(image: Image, ra: float, dec: float, radius: float, *, like: Image | None = None) -> Star:
    """Cut the usable pixels around a position out of an image.

    Parameters
    ----------
    image : Image
        With celestial coordinates.
    ra, dec : float
        Degrees.
    radius : float
        arcsec; pixels whose centres lie within.
    like : Image, optional
        Image along whose pixel axes offsets are counted; `image` itself by default. Give the MUSE image where another is
        cut out on pixels of its own, turned ones perhaps.

    Raises
    ------
    UsageError
        For a position outside the image, or a radius that is not positive.
    DataError
        Where there are no coordinates, or too few usable pixels.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise UsageError(f"radius must be positive (arcsec); got {radius}.")
    if image.celestial is None or (like is not None and like.celestial is None):
        raise DataError("an image must have celestial coordinates to find a star in; got none. Check its header.")
    ny, nx = image.shape
    column, row = (float(at) for at in image.celestial.wcs_world2pix(ra, dec, 0))
    if not (-0.5 <= column <= nx - 0.5 and -0.5 <= row <= ny - 0.5):
        raise UsageError(
            f"star must lie within the image {image.name}, {ny} x {nx} pixels (y, x); got RA {ra:.7g}, Dec {dec:.7g}, "
            f"which is pixel y = {row:.1f}, x = {column:.1f}. Check the coordinates (degrees)."
        )
    dx, dy = (3600.0 * float(size) for size in proj_plane_pixel_scales(image.celestial))
    reach = [math.ceil(radius / size) + 1 for size in (dy, dx)]
    rows = np.arange(max(int(row) - reach[0], 0), min(int(row) + reach[0] + 1, ny))
    columns = np.arange(max(int(column) - reach[1], 0), min(int(column) + reach[1] + 1, nx))
    at_y, at_x = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    y, x = (at_y - row) * dy, (at_x - column) * dx
    values = np.asarray(image.values, dtype=np.float64)[at_y, at_x]
    use = (np.hypot(x, y) < radius) & np.isfinite(values)
    variance, warn = None, 0
    if image.variance is not None:
        variance = np.asarray(image.variance, dtype=np.float64)[at_y, at_x]
        sound = np.isfinite(variance) & (variance > 0)
        warn = bits.BAD_VARIANCE.value if (use & ~sound).any() else 0
        use &= sound
        variance = variance[use]
    if like is not None and like.celestial is not None:
        size_x, size_y = (3600.0 * float(size) for size in proj_plane_pixel_scales(like.celestial))
        centre = like.celestial.wcs_world2pix(ra, dec, 0)
        there = like.celestial.wcs_world2pix(*image.celestial.wcs_pix2world(at_x, at_y, 0), 0)
        x, y = (there[0] - centre[0]) * size_x, (there[1] - centre[1]) * size_y
    return Star(values[use], variance, x[use], y[use], (dy, dx), warn, np.stack([at_y, at_x], axis=1)[use])
