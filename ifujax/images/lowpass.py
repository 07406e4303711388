"""An image low-passed for coarser pixels and sampled at their centres; holes are left out, not filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

_REACH = 8
"""Target pixels: the low-pass filter is below 1e-4 of its peak beyond."""
_LEAST = 0.25
"""Share of the filter's weight on good pixels below which there is no value."""


@dataclass(frozen=True)
class Sampled:
    """What `lowpass_sample` found at each position: (y, x) arrays.

    Attributes
    ----------
    values : array
        NaN where there is none.
    variance : array or None
    good : bool array
    """

    values: np.ndarray
    variance: np.ndarray | None
    good: NDArray[np.bool_]


def lowpass_sample(
    values: np.ndarray,
    variance: np.ndarray | None,
    good: NDArray[np.bool_],
    positions: tuple[np.ndarray, np.ndarray],
    jacobian: np.ndarray,
) -> Sampled:
    """Low-pass an image and sample it at positions that are further apart than its pixels.

    The filter is a Blackman window of the radial frequency: 1 at 0, and 0 from the highest frequency that the coarser pixels can
    show. It is applied to the pixels as they are, before any interpolation, so that a rotation blurs nothing; what is left is
    smooth on the scale of the pixels, and quintic splines interpolate it to about 1e-4. Pixels that aren't good have no weight,
    and the weights of the others are normalised (normalised convolution: Knutsson and Westin 1993, CVPR).

    Parameters
    ----------
    values : (y, x) array
    variance : (y, x) array, optional
    good : (y, x) bool array
        Beyond the image, nothing is good.
    positions : (x, y)
        Where to sample: two arrays of one shape, 0-based pixels of the image.
    jacobian : (2, 2) array
        ``d (x, y) / d (x', y')``: pixels of the image per coarser pixel.

    Notes
    -----
    A position is good if no bad pixel lies within half a coarser pixel and half a pixel of it. The variance is that of one
    position; neighbouring ones are correlated by the filter.
    """
    ny, nx = values.shape
    ratio = float(np.sqrt(abs(np.linalg.det(jacobian))))
    room = int(np.ceil(_REACH * ratio))
    padded = tuple(int(fft.next_fast_len(n + room, real=True) or n + room) for n in (ny, nx))
    window = blackman(np.fft.fftfreq(padded[0])[:, None], np.fft.rfftfreq(padded[1])[None, :], jacobian)

    def smooth(plane: np.ndarray, by: np.ndarray) -> np.ndarray:
        return np.asarray(fft.irfft2(np.asarray(fft.rfft2(plane, padded)) * by, padded))[:ny, :nx]

    weight = smooth(good.astype(np.float64), window)
    usable = weight > _LEAST
    divisor = np.where(usable, weight, 1.0)
    level = float(np.median(values[good]))
    # Less the level, so that the unusable parts make no step that splines would ring at.
    filtered = np.where(usable, smooth(np.where(good, values - level, 0.0), window) / divisor, 0.0)
    x, y = positions
    sampled = level + ndimage.map_coordinates(filtered, [y, x], order=5, mode="nearest")
    distance = ndimage.distance_transform_edt(np.pad(good, 1))
    near = [np.clip(np.rint(each).astype(int) + 1, 0, n + 1) for each, n in ((y, ny), (x, nx))]
    kept = np.asarray(distance)[near[0], near[1]] > 0.5 * ratio + 0.5
    spread = None
    if variance is not None:
        kernel = np.asarray(fft.irfft2(window, padded)) ** 2
        plane = smooth(np.where(good, variance, 0.0), np.asarray(fft.rfft2(kernel))) / divisor**2
        plane = ndimage.map_coordinates(np.where(usable, plane, 0.0), [y, x], order=1, mode="nearest")
        spread = np.where(kept, plane, np.nan)
    return Sampled(np.where(kept, sampled, np.nan), spread, kept)


def blackman(fy: np.ndarray, fx: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Return the low-pass filter at frequencies in cycles per pixel, for coarser pixels of `jacobian` pixels each.

    Its argument is the length of the frequency vector in cycles per coarser pixel over 0.5.
    """
    along_x = jacobian[0, 0] * fx + jacobian[1, 0] * fy
    along_y = jacobian[0, 1] * fx + jacobian[1, 1] * fy
    radius = np.hypot(along_x, along_y) / 0.5
    return np.where(radius < 1, 0.42 + 0.5 * np.cos(np.pi * radius) + 0.08 * np.cos(2 * np.pi * radius), 0.0)
