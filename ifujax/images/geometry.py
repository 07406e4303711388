"""Where pixels of one image lie in another, and how large they are on the sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales, wcs_to_celestial_frame

from ifujax.data.image import Image
from ifujax.errors import DataError

_NODES = 12
_TOLERANCE = 0.01
"""Pixels by which a cubic polynomial may miss the coordinates; the sky's own curvature is far below."""
_EMPTY = 1e-10
"""Drizzled images hold exactly this little, 0, where they have no data."""
_SMALL = 1e-5
"""The largest value of an image below which it isn't in counts per second."""


def pixel_steps(image: Image) -> tuple[float, float]:
    """Return the widths (y, x) of a pixel in arcsec, both positive.

    Raises
    ------
    DataError
        If the image has no celestial coordinates.
    """
    wcs = celestial_of(image)
    x, y = proj_plane_pixel_scales(wcs) * 3600.0
    return float(y), float(x)


def celestial_of(image: Image) -> WCS:
    """Return the celestial coordinates of an image.

    Raises
    ------
    DataError
        If it has none.
    """
    if image.celestial is None or not image.celestial.has_celestial:
        raise DataError(
            f"image must have celestial coordinates; got none in {image.name or 'an image'}. Give a file whose header has a WCS."
        )
    return image.celestial


def has_data(values: np.ndarray) -> np.ndarray:
    """Return where an HST image holds data: finite, and not the nothing that drizzling leaves outside."""
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    # An image in erg/s/cm2/Angstrom has no values above 1e-10 at all: there, it is 0 that says so
    return np.isfinite(values) & (np.abs(values) > (_EMPTY if largest > _SMALL else 0.0))


def require_same_system(one: Image, other: Image) -> None:
    """Raise a DataError if two images have coordinates in different systems: they are compared as numbers."""
    systems = [_system(image) for image in (one, other)]
    if systems[0] != systems[1]:
        raise DataError(
            f"the images must have coordinates in one system; got {systems[0]} in {one.name or 'one'} and {systems[1]} in "
            f"{other.name or 'the other'}. Convert one."
        )


def _system(image: Image) -> str:
    frame: Any = wcs_to_celestial_frame(celestial_of(image))
    if frame.name == "fk5" and abs(frame.equinox.jyear - 2000.0) < 0.01:
        return "icrs"  # 0.02 arcsec apart: less than headers are worth
    equinox = getattr(frame, "equinox", None)
    return frame.name if equinox is None else f"{frame.name} {equinox.value}"


@dataclass(frozen=True)
class PixelMap:
    """Pixels of one image in those of another: cubic polynomials, which follow any smooth pair of projections.

    Attributes
    ----------
    shape : (n_y, n_x)
        Of the image whose pixels are mapped.
    powers : tuple of (i, j)
        Of x and y, both scaled to about -1 to 1.
    x_coefficients, y_coefficients : (n,) arrays
    """

    shape: tuple[int, int]
    powers: tuple[tuple[int, int], ...]
    x_coefficients: np.ndarray
    y_coefficients: np.ndarray

    @classmethod
    def between(cls, source: Image, target: Image, margin: int = 0) -> PixelMap:
        """Return where pixels of `source` lie in `target`, and `margin` pixels around them.

        Raises
        ------
        DataError
            If either has no celestial coordinates, or pixels have no place on the sky.
        """
        require_same_system(target, source)
        n_y, n_x = source.shape
        x, y = np.meshgrid(np.linspace(-margin, n_x - 1 + margin, _NODES), np.linspace(-margin, n_y - 1 + margin, _NODES))
        ra, dec = celestial_of(source).wcs_pix2world(x.ravel(), y.ravel(), 0)
        found_x, found_y = celestial_of(target).wcs_world2pix(ra, dec, 0)
        if not (np.isfinite(found_x).all() and np.isfinite(found_y).all()):
            raise DataError(
                f"images must lie on the same part of the sky; got {source.name or 'one'} with pixels that "
                f"{target.name or 'the other'} has no place for. Check their coordinates."
            )
        for degree in (1, 3):
            powers = tuple((i, j) for i in range(degree + 1) for j in range(degree + 1 - i))
            basis = _basis(x.ravel(), y.ravel(), (n_y, n_x), powers)
            solved = np.linalg.lstsq(basis, np.stack([found_x, found_y], axis=1), rcond=None)[0]
            missed = np.abs(basis @ solved - np.stack([found_x, found_y], axis=1)).max()
            if missed < (1e-6 if degree == 1 else _TOLERANCE):
                break
        else:
            raise DataError(
                f"coordinates of the images must be smooth; got ones that a cubic polynomial misses by {missed:.2g} pixels. "
                "Regrid one onto the other first."
            )
        return cls((n_y, n_x), powers, solved[:, 0], solved[:, 1])

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixel coordinates (x, y) in the target, both 0-based, of those in the source."""
        x, y = np.broadcast_arrays(x, y)
        basis = _basis(x.ravel(), y.ravel(), self.shape, self.powers)
        return (basis @ self.x_coefficients).reshape(x.shape), (basis @ self.y_coefficients).reshape(x.shape)

    @property
    def jacobian(self) -> np.ndarray:
        """How far (x, y) in the target move with x and y in the source, (2, 2), at its centre."""
        n_y, n_x = self.shape
        x, y = 0.5 * (n_x - 1), 0.5 * (n_y - 1)
        ends = [self(np.array(x + a), np.array(y + b)) for a, b in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))]
        (x1, y1), (x2, y2), (x3, y3), (x4, y4) = ends
        return np.array([[x1 - x2, x3 - x4], [y1 - y2, y3 - y4]], dtype=np.float64)

    @property
    def area(self) -> float:
        """Pixels of the target in one pixel of the source, at its centre."""
        return float(abs(np.linalg.det(self.jacobian)))


def _basis(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], powers: tuple[tuple[int, int], ...]) -> np.ndarray:
    n_y, n_x = shape
    u, v = 2.0 * x / max(n_x - 1, 1) - 1.0, 2.0 * y / max(n_y - 1, 1) - 1.0
    return np.stack([u**i * v**j for i, j in powers], axis=1)
