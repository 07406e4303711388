"""What is reported of each line beside its parameters: fluxes, peaks, widths, equivalent widths.

Pure functions of one spectrum's fit; `ifujax.inference.uncertainty` carries the errors to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ifujax.errors import UsageError
from ifujax.inference.uncertainty import Derived
from ifujax.lines.config import Line
from ifujax.models.doppler import doppler_factor
from ifujax.models.emission import EmissionSpectrum, SpectralCoords

WINDOW_SIGMA = 5.0
"""Half-width of the window in which a line is measured, in observed sigma, unless another is asked for."""

Windows = tuple[tuple[float, float, float, float] | None, ...]
"""For each line the rest wavelengths (blue0, blue1, red0, red1) of its own continuum, or None."""


def check_windows(lines: Sequence[Line], wavelength: np.ndarray) -> Windows | None:
    """Return the continuum windows of every line, None if no line has any.

    Raises
    ------
    UsageError
        For a window without a pixel of the rest `wavelength` axis.
    """
    for line in lines:
        ends = line.continuum_windows or ()
        for low, high in zip(ends[::2], ends[1::2]):
            if not ((wavelength >= low) & (wavelength <= high)).any():
                raise UsageError(
                    f"continuum_windows of {line.name!r} must hold a pixel each; got {low:g} to {high:g}, data from "
                    f"{wavelength[0]:.1f} to {wavelength[-1]:.1f} (rest). Move it, or widen the fitting window."
                )
    windows = tuple(line.continuum_windows for line in lines)
    return windows if any(windows) else None


def _window(model: EmissionSpectrum, params: Any, coords: SpectralCoords, i: int, reach: float) -> Array:
    """1 within `reach` observed sigma of the line's centre, 0 elsewhere."""
    centre, sigma = params[f"{model.names[i]}.velocity"], model.observed_sigma(params, i)
    return (jnp.abs(coords.pixel_velocity[i] - centre) <= reach * sigma).astype(coords.width.dtype) * (coords.width > 0)


def _local_continuum(
    model: EmissionSpectrum, continuum: Array, coords: SpectralCoords, i: int, window: tuple[float, float, float, float]
) -> Array:
    """Straight line through the continuum in the two windows of a line, by least squares; NaN without two pixels there."""
    rest = jnp.asarray(model.rest_wavelengths[i], coords.width.dtype)
    wavelength = rest * doppler_factor(coords.pixel_velocity[i])
    blue0, blue1, red0, red1 = window
    inside = ((wavelength >= blue0) & (wavelength <= blue1)) | ((wavelength >= red0) & (wavelength <= red1))
    weight = inside.astype(coords.width.dtype) * (coords.width > 0)
    count = jnp.sum(weight)
    offset = wavelength - jnp.sum(weight * wavelength) / jnp.maximum(count, 1.0)
    spread = jnp.sum(weight * offset * offset)
    mean = jnp.sum(weight * continuum) / jnp.maximum(count, 1.0)
    slope = jnp.sum(weight * offset * continuum) / jnp.where(spread > 0, spread, 1.0)
    return jnp.where((count >= 2) & (spread > 0), mean + slope * offset, jnp.nan)


class Held(NamedTuple):
    """What is worked out once for a fit: `inside` (lines, n_pix) each line's window, 0 or 1; `width` pixel widths there, and
    `profiles` the share of the line's flux in each pixel there; `level` of the continuum, a positive number.
    """

    inside: Array
    width: Array
    profiles: Array
    level: Array


@dataclass(frozen=True)
class LineQuantities:
    """What is measured of each line.

    Attributes
    ----------
    reach : float
        Half-width of the window of a line, in observed sigma.
    windows : tuple, optional
        For each line the two windows of its continuum, or None for the fitted continuum.
    """

    reach: float = WINDOW_SIGMA
    windows: Windows | None = None

    def held(self, model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords) -> Held:
        """Return what is worked out once at the solution: the windows of lines, their profiles, the level of the continuum."""
        lines = range(len(model.names))
        # Of unit strength, so that a line without flux still has a width error.
        unit = dict(params) | {f"{n}.{kind}": jnp.ones_like(coords.width[0]) for n, kind in zip(model.names, model.strengths)}
        inside = jnp.stack([_window(model, params, coords, i, self.reach) for i in lines])
        profiles = jnp.stack([model.line(unit, coords, i) / model.flux(unit, i) for i in lines])
        level = jnp.max(jnp.abs(model.continuum(linear, coords)))
        width = inside * coords.width[None]
        return Held(inside, width, profiles * width, jnp.where(level > 0, level, 1.0))

    def _inverse_continuum(
        self, model: EmissionSpectrum, linear: Array, coords: SpectralCoords, held: Held
    ) -> tuple[Array, Array]:
        """Return the level over the continuum, and for which lines (lines,) the continuum is positive in the whole window.

        The first is (1, n_pix) where all lines share the continuum, (lines, n_pix) where they have their own. The level is
        divided out because squares of raw flux densities leave float32's range.
        """
        continuum = model.continuum(linear, coords) / held.level
        if self.windows is None:
            each = continuum[None, :]
        else:
            own = [
                None if window is None else _local_continuum(model, continuum, coords, i, window)
                for i, window in enumerate(self.windows)
            ]
            each = jnp.stack([continuum if one is None else one for one in own])
        usable = each > 0
        inside = held.inside > 0
        known = jnp.any(inside, axis=1) & ~jnp.any(inside & ~usable, axis=1)
        return jnp.where(usable, 1.0 / jnp.where(usable, each, 1.0), 0.0), known

    def from_model(
        self, model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords, held: Held
    ) -> dict[str, Array]:
        """Return flux, amplitude, observed sigma and equivalent width of each line.

        The equivalent width is the flux times the mean of 1 / continuum over the line's profile; its
        error holds those of flux and continuum, not the much smaller effect of the profile's own.
        The two `_direct` quantities get the data's part from `from_residuals`: what the data hold beyond
        the model, within the line's window, is counted to the line; masked pixels take the model's value.
        """
        inverse, known = self._inverse_continuum(model, linear, coords, held)
        # A continuum that all lines share is differentiated once, not for each of them.
        shared = inverse.shape[0] == 1
        mean = jnp.einsum("lp,p->l", held.profiles, inverse[0]) if shared else jnp.einsum("lp,lp->l", held.profiles, inverse)
        mean = jnp.where(known, mean, jnp.nan)
        result: dict[str, Array] = {}
        for i, name in enumerate(model.names):
            flux = model.flux(params, i)
            result[f"{name}.flux"] = result[f"{name}.flux_direct"] = flux
            result[f"{name}.amplitude"] = model.amplitude(params, i)
            result[f"{name}.sigma"] = model.observed_sigma(params, i)
            # Emission is negative: the convention of absorption studies, as in IFSCube.
            result[f"{name}.equivalent_width"] = result[f"{name}.equivalent_width_direct"] = -mean[i] * (flux / held.level)
        return result

    def from_residuals(
        self, model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords, held: Held
    ) -> dict[str, Array]:
        """Return the weights with which residuals enter the direct flux and equivalent width of each line."""
        inverse, known = self._inverse_continuum(model, linear, coords, held)
        per_continuum = jnp.where(known[:, None], held.width * inverse, jnp.nan) / held.level
        result: dict[str, Array] = {}
        for i, name in enumerate(model.names):
            result[f"{name}.flux_direct"] = held.width[i]
            result[f"{name}.equivalent_width_direct"] = -per_continuum[i]
        return result


@lru_cache(maxsize=64)
def line_quantities(reach: float = WINDOW_SIGMA, windows: Windows | None = None) -> Derived:
    """Return what the engine is to derive; the same object for the same options, so that nothing compiles twice."""
    quantities = LineQuantities(reach, windows)
    return Derived(quantities.from_model, quantities.from_residuals, quantities.held)
