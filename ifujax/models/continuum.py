"""Polynomial continua in a Legendre basis over the fitting window."""

from __future__ import annotations

from typing import Any

import numpy as np


def legendre_basis(wavelength: Any, low: float, high: float, degree: int) -> np.ndarray:
    """Return Legendre polynomials of orders 0 to `degree` at `wavelength`, (degree + 1, n_pix).

    The window [low, high] maps to [-1, 1], where the basis is well conditioned.
    """
    t = (2.0 * np.asarray(wavelength, dtype=np.float64) - (low + high)) / (high - low)
    return np.polynomial.legendre.legvander(t, degree).T
