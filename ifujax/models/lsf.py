"""Instrumental line spread function: its velocity width where a line is observed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from ifujax.models.doppler import C_KMS

_FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))


@partial(jax.tree_util.register_dataclass, data_fields=["values", "wavelengths", "reference"], meta_fields=["kind"])
@dataclass(frozen=True)
class LineSpread:
    """FWHM in observed Angstrom: a constant, a polynomial (lowest order first), or a table.

    `values` holds the constant, the coefficients in ``wavelength - reference``, or the widths at
    `wavelengths` (linear between, constant outside). Assumes a Gaussian LSF.
    """

    kind: Literal["constant", "polynomial", "table"]
    values: Array
    wavelengths: Array
    reference: Array

    def fwhm(self, wavelength: Array) -> Array:
        """Return the full width at half maximum (Angstrom) at an observed `wavelength`."""
        if self.kind == "constant":
            return self.values[0] * jnp.ones_like(wavelength)
        if self.kind == "table":
            return jnp.interp(wavelength, self.wavelengths, self.values)
        total = jnp.zeros_like(wavelength)
        for coefficient in self.values[::-1]:
            total = total * (wavelength - self.reference) + coefficient
        return total

    def velocity_sigma(self, wavelength: Any) -> Array:
        """Return the standard deviation in km/s at an observed `wavelength`."""
        return self.fwhm(wavelength) / _FWHM_PER_SIGMA * C_KMS / wavelength
