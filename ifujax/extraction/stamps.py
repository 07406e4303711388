"""The square piece of a cube or image about a source."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ifujax.errors import DataError, UsageError


@dataclass(frozen=True)
class Stamp:
    """A rectangle of pixels about a position; parts of it may lie outside the image.

    Parameters
    ----------
    first : (int, int)
        Its first pixel (y, x) in the image, 0-based; may be negative.
    shape : (int, int)
        Its pixels (y, x).
    centre : (float, float)
        The position (y, x) in the image, 0-based.

    Examples
    --------
    Five arcseconds in pixels of 0.2 arcsec are 25 pixels, with the source within half a pixel of the middle one:

    >>> stamp = Stamp.about((20.3, 11.8), 5.0, (0.2, 0.2))
    >>> stamp.first, stamp.shape
    ((8, 0), (25, 25))
    >>> stamp.position
    (12.3, 11.8)
    """

    first: tuple[int, int]
    shape: tuple[int, int]
    centre: tuple[float, float]

    @classmethod
    def about(cls, centre: tuple[float, float], size: float, step: tuple[float, float]) -> Stamp:
        """Return the stamp of `size` arcsec a side about a position (y, x), for pixels of `step` arcsec (y, x).

        The number of pixels is rounded. An odd number has the pixel that holds the position in its middle; an even number
        has the position between its two middle pixels.

        Raises
        ------
        UsageError
            If `size` is less than half a pixel.
        """
        pixels = tuple(math.floor(size / width + 0.5) for width in step)
        if min(pixels) < 1:
            raise UsageError(f"size must be a pixel ({max(step):g} arcsec) at least; got {size:g} arcsec.")
        first = tuple(
            math.floor(place + 0.5) - (number - 1) // 2 if number % 2 else math.floor(place) - number // 2 + 1
            for place, number in zip(centre, pixels, strict=True)
        )
        return cls((first[0], first[1]), (pixels[0], pixels[1]), centre)

    @property
    def position(self) -> tuple[float, float]:
        """The position (y, x) within the stamp, 0-based."""
        return self.centre[0] - self.first[0], self.centre[1] - self.first[1]

    def slices(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of an image of `shape` that the stamp covers, and where in the stamp it goes.

        Raises
        ------
        DataError
            If the stamp lies outside the image.
        """
        inside, place = [], []
        for start, number, length in zip(self.first, self.shape, shape, strict=True):
            low, high = max(start, 0), min(start + number, length)
            if low >= high:
                raise DataError(
                    f"the position must lie in the field of {shape[1]} x {shape[0]} pixels (x, y); "
                    f"got x = {self.centre[1]:.1f}, y = {self.centre[0]:.1f}. Check the coordinates of the source."
                )
            inside.append(slice(low, high))
            place.append(slice(low - start, high - start))
        return (inside[0], inside[1]), (place[0], place[1])

    def cut(self, plane: np.ndarray, fill: float | bool) -> np.ndarray:
        """Return a copy of the stamp's part of an image or cube ``(..., y, x)``, with `fill` outside the field."""
        plane = np.asarray(plane)
        inside, place = self.slices((plane.shape[-2], plane.shape[-1]))
        stamp = np.full((*plane.shape[:-2], *self.shape), fill, dtype=plane.dtype)
        stamp[(..., *place)] = plane[(..., *inside)]
        return stamp
