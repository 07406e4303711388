"""Masks and soft-edged weights of images that are to be compared in Fourier space.

A mask with hard edges leaks power over all frequencies: weights fall to zero smoothly instead, over a few pixels
inside each border. What is done here, to the last pixel, is what imphot does (M. Shepherd, musevlt/imphot), so that
results of ``method="fourier"`` can be compared with those published.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ifujax.errors import DataError, UsageError

_PLUS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def taper_weights(good: NDArray[np.bool_], taper: int) -> NDArray[np.float64]:
    """Return weights (y, x) that are 0 on all bad pixels and rise to 1 over `taper` pixels inside each border.

    Parameters
    ----------
    good : (y, x) array of bool
    taper : int
        Width in pixels, taken as the next lower even number plus one; below 2 the weights are `good` itself.

    Notes
    -----
    `good`, eroded by a square of that width w (what lies outside the array counts as bad), is convolved along both
    axes with a Blackman window of w points. One bad pixel so makes a dent of ``2 w - 1`` pixels.
    """
    if taper < 2:
        return good.astype(np.float64)
    width = 2 * (taper // 2) + 1
    inner = ndimage.minimum_filter(good, size=width, mode="constant", cval=False).astype(np.float64)
    window = np.blackman(width + 2)[1:-1]
    window /= window.sum()
    for axis in (0, 1):
        inner = ndimage.convolve1d(inner, window, axis=axis, mode="reflect")
    return np.where(good, np.clip(inner, 0.0, 1.0), 0.0)


def background_mask(values: np.ndarray, bad: np.ndarray) -> NDArray[np.bool_]:
    """Return where an image shows no object: True (y, x) to be masked.

    Notes
    -----
    A grey opening and a grey dilation, both adding 1 over a plus of 5 pixels; what then lies below the median, eroded
    by the plus, is background. That 1 has the unit of `values`: the mask depends on the unit.
    """
    smooth = ndimage.grey_opening(np.where(bad, 0.0, values), structure=_PLUS)
    smooth = ndimage.grey_dilation(smooth, structure=_PLUS)
    return np.asarray(ndimage.binary_erosion(smooth < np.median(smooth), structure=_PLUS), dtype=bool)


def shifted(values: np.ndarray, bad: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, NDArray[np.bool_]]:
    """Return an image and its mask moved by whole pixels towards larger indices; what is vacated is 0 and masked.

    Raises
    ------
    UsageError
        For a shift as large as the image.
    """
    ny, nx = values.shape
    if abs(dy) >= ny or abs(dx) >= nx:
        raise UsageError(
            f"the offset to start from must be smaller than the image, {ny} x {nx} pixels (y, x); got {dy} x {dx}. "
            "Correct init_dx and init_dy (arcsec)."
        )
    moved, masked = np.zeros_like(values), np.ones(values.shape, bool)
    here = (slice(max(dy, 0), ny + min(dy, 0)), slice(max(dx, 0), nx + min(dx, 0)))
    there = (slice(max(-dy, 0), ny + min(-dy, 0)), slice(max(-dx, 0), nx + min(-dx, 0)))
    moved[here], masked[here] = values[there], bad[there]
    return moved, masked


def common_crop(bad: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns to compare: those that bound the usable pixels, less the last two of each.

    Raises
    ------
    DataError
        Where nothing is left.
    """
    cuts = []
    for axis in (1, 0):
        used = np.flatnonzero(~bad.all(axis=axis))
        if not used.size:
            raise DataError(
                "hst and muse must have usable pixels in common; got none. "
                "Check masks and regions, and that the images overlap where init_dx and init_dy put them."
            )
        cuts.append(slice(int(used[0]), int(used[-1]) - 1))
    if any(cut.stop - cut.start < 1 for cut in cuts):
        raise DataError("hst and muse must have more than 2 rows and columns of usable pixels in common; got fewer. Unmask more.")
    return cuts[0], cuts[1]


def padded_size(size: int, margin: int) -> int:
    """Return the power of two that holds `size` pixels and `margin` zeros."""
    return 1 << max(size + margin - 1, 1).bit_length()
