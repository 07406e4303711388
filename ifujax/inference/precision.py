"""Floating-point precision as a context, never a global switch.

``jax.enable_x64`` is thread-local: enter `precision` inside each worker thread, do not hold it
across a ``yield``, and turn results into NumPy arrays before leaving it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import jax
import numpy as np

from ifujax.errors import UsageError

Precision = Literal["float64", "float32"]


def dtype_of(precision: str) -> np.dtype:
    """Return the NumPy dtype named by `precision`; UsageError unless float64 or float32."""
    if precision not in ("float64", "float32"):
        raise UsageError(f"precision must be 'float64' or 'float32'; got {precision!r}.")
    return np.dtype(precision)


@contextmanager
def working_precision(precision: str) -> Iterator[np.dtype]:
    """Run JAX in `precision` within this thread; yields the dtype."""
    dtype = dtype_of(precision)
    with jax.enable_x64(dtype == np.float64):
        yield dtype
