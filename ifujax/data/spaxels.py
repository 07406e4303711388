"""Rest-frame spectra of chosen spaxels, and how pixels of a stored cube become them."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifujax.errors import UsageError


@dataclass(frozen=True, eq=False)
class Spaxels:
    """Rest-frame spectra of `n` spaxels, float64, finite everywhere.

    Attributes
    ----------
    values : (n, wave) array
        Flux density times ``1 + z``; 0 where `bad`.
    variance : (n, wave) array or None
        Variance times ``(1 + z)**2``; 1 where `bad`. None if the cube has no uncertainty.
    stellar : (n, wave) array or None
        Spectrum to subtract, times ``1 + z``; 0 where `bad`.
    bad : (n, wave) bool array
        Flagged, or data, stellar or variance not finite, or variance (error, ivar) not positive.
    dropped_variance : (n,) int array
        Pixels with finite data, not flagged, whose variance isn't a positive finite number.
    """

    values: np.ndarray
    variance: np.ndarray | None
    stellar: np.ndarray | None
    bad: np.ndarray
    dropped_variance: np.ndarray


def gather(array: Any, rows: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Return a copy of spaxels `rows` of a (wave, y, x) array as (n, wave), reading little more than them."""
    n_wave, _, nx = array.shape
    dtype = array.dtype.newbyteorder("=") if dtype is None else dtype
    if rows.size == 0:
        return np.zeros((0, n_wave), dtype=dtype)
    first_y, last_y = int(rows.min()) // nx, int(rows.max()) // nx + 1
    if (last_y - first_y) * nx <= 2 * rows.size + nx:
        # Rows of the image are contiguous in each plane: one slice, far faster than picking spaxels.
        block = np.asarray(array[:, first_y:last_y, :]).reshape(n_wave, -1)
        columns = rows - first_y * nx
        if np.array_equal(columns, np.arange(columns[0], columns[0] + columns.size)):
            picked = block[:, columns[0] : columns[0] + columns.size]
        else:
            picked = block[:, columns]
    else:
        picked = np.asarray(array[:, rows // nx, rows % nx])
    # "C" order: astype alone would keep the transposed layout.
    return np.array(picked.T, dtype=dtype, order="C")


def as_variance(plane: np.ndarray, kind: str) -> np.ndarray:
    """Return the variance that a plane of some `kind` means; NaN or infinite where it means none."""
    if kind == "variance":
        return plane
    positive = plane > 0
    if kind == "error":
        # The square of a negative error would look usable.
        return np.where(positive, plane, np.nan) ** 2
    with np.errstate(over="ignore"):
        return 1.0 / np.where(positive, plane, np.nan)


def flagged(plane: np.ndarray, bits: int | None = None, zero_is_bad: bool = False) -> np.ndarray:
    """Return where a plane of flags says bad: non-zero (or zero), or any of some bits; NaN is bad."""
    nan = np.isnan(plane) if np.issubdtype(plane.dtype, np.floating) else None
    if bits is None:
        bad = plane == 0 if zero_is_bad else plane != 0
    else:
        # int64: a bit beyond the plane's type is never set, and bit 31 of a signed plane survives.
        whole = plane if nan is None else np.where(nan, 0, plane)
        bad = (whole.astype(np.int64) & bits) != 0
    return bad if nan is None else bad | nan


def check_flag_bits(bits: int, zero_is_bad: bool) -> None:
    """Raise UsageError unless `bits` is a sum of bits that can be asked for."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or bits <= 0:
        raise UsageError(f"flag_bits must be a positive sum of powers of two; got {bits!r}. Bit n is 2**n.")
    if zero_is_bad:
        raise UsageError(
            "flag_bits and flags_zero_is_bad must not be given together; got both. Keep the one that the flags mean."
        )


def memory_map(array: Any) -> mmap.mmap | None:
    """Return the mmap that `array`, or the array that it is a view of, rests on."""
    while array is not None:
        if isinstance(array, mmap.mmap):
            return array
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return None
