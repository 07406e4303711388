"""Extra images and segmentation maps on the pixels of a cube."""

from __future__ import annotations

import warnings

import numpy as np

from ifujax.data.cube import Cube
from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning
from ifujax.images.geometry import PixelMap
from ifujax.images.regrid import images_aligned, regrid_like


def on_cube(image: Image, cube: Cube) -> np.ndarray:
    """Return an image on the pixels of a cube, (y, x): as it is if it has them, else low-passed and sampled.

    Surface brightness is kept: values are not multiplied by the ratio of pixel areas.

    Raises
    ------
    DataError
        If they don't overlap, or one has no celestial coordinates.
    """
    if images_aligned(image, cube):
        return np.asarray(image.values, float)
    made = regrid_like(image, cube)
    return made.values / float(made.cards["REGRATIO"][0])  # type: ignore[arg-type]


def labels_on_cube(labels: Image, cube: Cube) -> np.ndarray:
    """Return a segmentation map on the pixels of a cube, (y, x) int32; by the nearest label, with a warning, if it has others.

    Raises
    ------
    DataError
        If the map holds other than whole numbers, or has no celestial coordinates and another shape.
    """
    values = np.nan_to_num(np.asarray(labels.values, float))
    if np.any(values != np.round(values)):
        raise DataError(f"a segmentation map must hold whole numbers; got others in {labels.name or 'the map'}.")
    shape = cube.shape[1:]
    if labels.celestial is None and values.shape == shape:
        return values.astype(np.int32)
    if images_aligned(labels, cube):
        return values.astype(np.int32)
    warnings.warn(
        f"the segmentation map {labels.name} has other pixels than the cube: each of the cube's takes the nearest label.",
        IfujaxWarning, stacklevel=2,
    )  # fmt: skip
    outline = Image(values=np.broadcast_to(0.0, shape), celestial=cube.celestial)
    y, x = np.indices(shape, dtype=float)
    at_x, at_y = PixelMap.between(outline, labels)(x, y)
    column, row = np.round(at_x).astype(int), np.round(at_y).astype(int)
    inside = (column >= 0) & (column < values.shape[1]) & (row >= 0) & (row < values.shape[0])
    found = np.zeros(shape, np.int32)
    found[inside] = values[row[inside], column[inside]].astype(np.int32)
    if not found.any():
        raise DataError(f"the segmentation map {labels.name} must overlap the cube; got no label there.")
    return found
