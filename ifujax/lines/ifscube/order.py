"""The order in which IFSCube walks over a cube."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ifujax.errors import UsageError


def loop_order(
    fitted: np.ndarray,
    *,
    spiral: bool = False,
    center: tuple[float, float] | Literal["peak", "cofm"] | None = None,
    image: np.ndarray | None = None,
) -> np.ndarray:
    """Return (row, column) of the spaxels to fit, in order, (n, 2) (section 5.8).

    Parameters
    ----------
    fitted : array (y, x) bool
        Spaxels that are not masked.
    spiral : bool
        By distance from `center`, then by angle; row by row otherwise.
    center : (x, y), "peak", "cofm" or None
        0-based. None is half the largest column and row of `fitted`. Kept fault: the brightest spaxel and the (rounded)
        centre of light have x and y swapped.
    image : array (y, x), optional
        The sum over all wavelengths, for "peak" and "cofm".

    Raises
    ------
    UsageError
        For "peak" or "cofm" without an image.
    """
    where = np.argwhere(fitted)
    if not spiral or not len(where):
        return where
    if center is None:
        row, column = where.max(axis=0) / 2.0
    elif isinstance(center, str):
        if image is None:
            raise UsageError(f"image must be given for center {center!r}; got none. Give the sum over all wavelengths.")
        light = np.nan_to_num(image)
        if center == "peak":
            y, x = np.unravel_index(int(np.argmax(light)), light.shape)
        else:
            rows, columns = np.indices(light.shape)
            y, x = np.round((light * rows).sum() / light.sum()), np.round((light * columns).sum() / light.sum())
        row, column = float(x), float(y)
    else:
        column, row = center
    away = where - np.array([row, column])
    angle = np.arctan2(away[:, 0], away[:, 1]) % (2.0 * np.pi)
    return where[np.lexsort((angle, np.hypot(away[:, 0], away[:, 1])))]
