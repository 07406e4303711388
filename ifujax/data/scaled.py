"""A plane in another unit, multiplied only where it is read: the file stays memory-mapped."""

from __future__ import annotations

from typing import Any

import numpy as np


class Scaled:
    """An array times a factor, worked out for the pixels that are asked for.

    A slice along the first axis gives another `Scaled`; any other index gives float64 numbers.

    Parameters
    ----------
    array : array
        May be a memory map.
    factor : array_like
        Broadcasts to the shape of `array`, such as (wave, 1, 1).

    Examples
    --------
    >>> Scaled(np.ones((2, 1, 1)), [[[2.0]], [[3.0]]])[1]
    array([[3.]])
    """

    def __init__(self, array: Any, factor: Any) -> None:
        self.base = array
        self.factor = np.broadcast_to(np.asarray(factor, dtype=np.float64), np.shape(array))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(self.base))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float64)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return Scaled(self.base[key], self.factor[key])
        return np.asarray(self.base[key], dtype=np.float64) * self.factor[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.asarray(self.base, dtype=np.float64) * self.factor
        return values if dtype is None else values.astype(dtype)
