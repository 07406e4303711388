"""Velocity of a wavelength relative to a rest wavelength: the convention used everywhere.

Relativistic longitudinal Doppler shift, ``v = c (q - 1) / (q + 1)`` with
``q = (wavelength / rest_wavelength)^2``; positive is redshifted.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

C_KMS = 299792.458
"""Speed of light in km/s (exact, SI)."""


def velocity_of(wavelength: Any, rest_wavelength: Any) -> Any:
    """Return the velocity (km/s) at which a line at `rest_wavelength` is seen at `wavelength`."""
    q = (wavelength / rest_wavelength) ** 2
    return C_KMS * (q - 1.0) / (q + 1.0)


def doppler_factor(velocity: Any) -> Any:
    """Return observed over rest wavelength for `velocity` (km/s), the inverse of `velocity_of`."""
    beta = velocity / C_KMS
    return jnp.sqrt((1.0 + beta) / (1.0 - beta))
