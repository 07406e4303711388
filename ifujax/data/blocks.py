"""Wavelength planes of a cube a few at a time, as stored in the file (observed frame)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.data.spaxels import as_variance, flagged
from ifujax.errors import DataError, UsageError

if TYPE_CHECKING:
    from ifujax.data.cube import Cube

_PIXELS = 1 << 22
"""Pixels of each plane array in memory at a time."""
_SLACK = 1e-12
"""Relative slack of a window: dividing by 1 + z rounds a limit that the user copied from the axis."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some planes: `planes` of the cube's first axis; values are 0 and variances 1 where `bad`.

    Bad: flagged, or not finite, or with an uncertainty that isn't a positive number. `stellar` is as stored.
    """

    planes: slice
    values: np.ndarray
    variance: np.ndarray | None
    stellar: np.ndarray | None
    bad: np.ndarray


def blocks(cube: Cube, planes: slice | None = None, box: tuple[slice, slice] | None = None) -> Iterator[Block]:
    """Yield the planes of a cube (or some of them, of a part of the image), float64, a few at a time."""
    first, last, _ = (planes or slice(None)).indices(cube.shape[0])
    rows, columns = box or (slice(0, cube.shape[1]), slice(0, cube.shape[2]))
    image = len(range(*rows.indices(cube.shape[1]))) * len(range(*columns.indices(cube.shape[2])))
    step = max(1, _PIXELS // max(image, 1))
    for start in range(first, last, step):
        part = slice(start, min(start + step, last))

        def read(array: Any, dtype: Any = np.float64, part: slice = part) -> np.ndarray:
            return np.array(array[part, rows, columns], dtype=dtype)

        values = read(cube.values)
        bad = ~np.isfinite(values)
        if cube.flags is not None:
            bad |= flagged(np.asarray(cube.flags[part, rows, columns]), cube.flag_bits, cube.flags_zero_is_bad)
        variance = None
        if cube.uncertainty is not None and cube.uncertainty_kind is not None:
            variance = as_variance(read(cube.uncertainty), cube.uncertainty_kind)
            bad |= ~(np.isfinite(variance) & (variance > 0))
            variance[bad] = 1.0
        values[bad] = 0.0
        stellar = None
        if cube.stellar is not None:
            stellar = read(cube.stellar)
        yield Block(part, values, variance, stellar, bad)


def window_planes(rest: np.ndarray, window: tuple[float, float], redshift: float) -> slice:
    """Return the pixels whose rest-frame wavelength lies within a window (Angstrom, ends included).

    Raises
    ------
    UsageError
        If the lower limit isn't below the upper one.
    DataError
        If there is no such pixel.
    """
    low, high = window
    if not low < high:
        raise UsageError(f"the window must be low:high with low below high; got {low:g}:{high:g}. Swap the limits.")
    first = int(np.searchsorted(rest, low - _SLACK * abs(low), side="left"))
    last = int(np.searchsorted(rest, high + _SLACK * abs(high), side="right"))
    if first >= last:
        raise DataError(
            f"the window must overlap the data, {rest[0]:.2f} to {rest[-1]:.2f} Angstrom in the rest frame at redshift "
            f"{redshift:g}; got {low:g} to {high:g}. Change the window or the redshift."
        )
    return slice(first, last)
