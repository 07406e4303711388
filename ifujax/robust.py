"""Scatter that outliers do not move."""

from __future__ import annotations

import numpy as np

MAD_TO_SIGMA = 1.482602218505602
"""Standard deviation of a Gaussian over its median absolute deviation."""


def row_median(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the median of the used values of each row, (n,); NaN where there is none.

    Parameters
    ----------
    values : array (n, m)
    used : bool array, broadcastable to that
    """
    used = np.broadcast_to(used, values.shape)
    ordered = np.sort(np.where(used, values, np.nan), axis=1)
    count, rows = (~np.isnan(ordered)).sum(axis=1), np.arange(len(values))
    last = max(values.shape[1] - 1, 0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, last)
    return 0.5 * (ordered[rows, low] + ordered[rows, high]) if values.shape[1] else np.full(len(values), np.nan)
