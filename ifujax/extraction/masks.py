"""Which pixels of a stamp belong to a source, and which to the sky: from segmentation maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ifujax.extraction.config import ObjectMask

_FARTHER = 3.0
"""Pixels by which the object of one map may be farther from the source than that of the best (AutoSpec's rule)."""


@dataclass(frozen=True)
class SourceMasks:
    """Masks of one source, (y, x) bool arrays.

    Attributes
    ----------
    sky
        Pixels without an object in any map.
    union, inter
        Pixels of the source in one map at least, and in all that show it.
    rescued : bool
        No map shows an object near enough: both are a disc about the position.
    """

    sky: np.ndarray
    union: np.ndarray
    inter: np.ndarray
    rescued: bool

    def chosen(self, kind: ObjectMask) -> np.ndarray:
        """Return the mask of this kind; the union where the intersection is empty."""
        return self.inter if kind == "inter" and self.inter.any() else self.union


def source_masks(
    segmentations: Mapping[str, np.ndarray],
    position: tuple[float, float],
    shape: tuple[int, int],
    max_distance: float,
    rescue_radius: float,
) -> SourceMasks:
    """Return the masks of the source at a position.

    In every map the object is the label of the nearest pixel that has one, by the sum of the distances in x and y. Objects
    beyond `max_distance`, and those that are three pixels farther than the nearest of all maps, are other sources.

    Parameters
    ----------
    segmentations : mapping of str to (y, x) int array
        0 where there is no object.
    position : (float, float)
        (y, x), 0-based pixels of the stamp.
    shape : (int, int)
    max_distance, rescue_radius : float
        Pixels.

    Examples
    --------
    >>> labels = np.zeros((5, 5), int)
    >>> labels[1:3, 1:3], labels[4, 4] = 1, 2
    >>> masks = source_masks({"white": labels}, (2.0, 2.0), (5, 5), 3.0, 2.0)
    >>> int(masks.union.sum()), int(masks.sky.sum()), masks.rescued
    (4, 20, False)
    """
    y, x = np.indices(shape)
    away = np.abs(y - position[0]) + np.abs(x - position[1])
    sky = np.ones(shape, dtype=bool)
    objects: list[tuple[float, np.ndarray]] = []
    for labels in segmentations.values():
        shown = labels != 0
        sky &= ~shown
        if not shown.any():
            continue
        nearest = int(np.argmin(np.where(shown, away, np.inf)))
        objects.append((float(away.flat[nearest]), labels == labels.flat[nearest]))
    closest = min((distance for distance, _ in objects), default=np.inf)
    near = [mask for distance, mask in objects if distance <= min(max_distance, closest + _FARTHER)]
    if near:
        return SourceMasks(sky, np.logical_or.reduce(near), np.logical_and.reduce(near), False)
    disc = (y - position[0]) ** 2 + (x - position[1]) ** 2 <= rescue_radius**2
    if not disc.any():
        disc[np.unravel_index(int(np.argmin(away)), shape)] = True
    return SourceMasks(sky & ~disc, disc, disc, True)


def disc_mask(shape: tuple[int, int], position: tuple[float, float], radius: tuple[float, float]) -> np.ndarray:
    """Return the disc of AutoSpec's apertures, (y, x) bool.

    Its centre is the middle of the box of pixels that its diameter fills (the rule of `Stamp`), not the position itself.

    Parameters
    ----------
    position : (float, float)
        (y, x), 0-based pixels.
    radius : (float, float)
        In pixels along y and x.
    """
    boxes = []
    for place, reach in zip(position, radius, strict=True):
        number = max(int(np.floor(2.0 * reach + 0.5)), 1)
        first = int(np.floor(place + 0.5)) - (number - 1) // 2 if number % 2 else int(np.floor(place)) - number // 2 + 1
        boxes.append((first, number))
    (y0, n_y), (x0, n_x) = boxes
    y, x = np.indices(shape)
    dy, dx = (y - (y0 + (n_y - 1) / 2)) / radius[0], (x - (x0 + (n_x - 1) / 2)) / radius[1]
    inside = (y >= y0) & (y < y0 + n_y) & (x >= x0) & (x < x0 + n_x)
    return inside & (dx**2 + dy**2 < 1.0)


def reference_disc(shape: tuple[int, int], radius: tuple[float, float], valid: np.ndarray) -> np.ndarray:
    """Return the disc that AutoSpec uses with an aperture as reference, (y, x) bool.

    About half the number of pixels, with its boundary, and without pixels that have no white light.
    """
    centres = []
    for length, reach in zip(shape, radius, strict=True):
        number = max(int(np.floor(2.0 * reach + 0.5)), 1)
        middle = length / 2
        first = int(np.floor(middle + 0.5)) - (number - 1) // 2 if number % 2 else int(np.floor(middle)) - number // 2 + 1
        centres.append(first + (number - 1) / 2)
    y, x = np.indices(shape)
    return valid & (((y - centres[0]) / radius[0]) ** 2 + ((x - centres[1]) / radius[1]) ** 2 <= 1.0)
