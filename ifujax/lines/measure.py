"""What is reported of each line beside its parameters: fluxes, peaks, widths, equivalent widths.

Pure functions of one spectrum's fit; `ifujax.inference.uncertainty` carries the errors to them.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ifujax.inference.uncertainty import Derived
from ifujax.models.emission import EmissionSpectrum, SpectralCoords

WINDOW_SIGMA = 5.0
"""Half-width of the window in which a line is measured, in observed sigma."""


def _window(model: EmissionSpectrum, params: Any, coords: SpectralCoords, i: int) -> Array:
    """1 within 5 observed sigma of the line's centre, 0 elsewhere; its edges are held while differentiating."""
    centre = lax.stop_gradient(params[f"{model.names[i]}.velocity"])
    sigma = lax.stop_gradient(model.observed_sigma(params, i))
    return (jnp.abs(coords.pixel_velocity[i] - centre) <= WINDOW_SIGMA * sigma).astype(coords.width.dtype) * (coords.width > 0)


def _over_continuum(density: Array, continuum: Array, window: Array, width: Array) -> Array:
    """Integral of ``density / continuum`` over the window; NaN where the continuum is not positive there."""
    inside = window > 0
    safe = jnp.where(inside & (continuum > 0), continuum, 1.0)
    total = jnp.sum(jnp.where(inside, density / safe * width, 0.0))
    return jnp.where(jnp.any(inside & ~(continuum > 0)) | ~jnp.any(inside), jnp.nan, total)


def from_model(model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords) -> dict[str, Array]:
    """Return flux, amplitude, observed sigma and model equivalent width of each line."""
    continuum = model.continuum(linear, coords)
    result: dict[str, Array] = {}
    for i, name in enumerate(model.names):
        result[f"{name}.flux"] = model.flux(params, i)
        result[f"{name}.amplitude"] = model.amplitude(params, i)
        result[f"{name}.sigma"] = model.observed_sigma(params, i)
        density = model.line(params, coords, i)
        # Emission is negative: the convention of absorption studies, as in IFSCube.
        result[f"{name}.equivalent_width"] = -_over_continuum(
            density, continuum, _window(model, params, coords, i), coords.width
        )
    return result


def from_data(
    model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords, values: Array, good: Array
) -> dict[str, Array]:
    """Return flux and equivalent width read off the data, the other lines subtracted.

    Masked pixels take the model's value.
    """
    profiles = [model.line(params, coords, i) for i in range(len(model.names))]
    total = profiles[0]
    for profile in profiles[1:]:
        total = total + profile
    for k in range(linear.shape[0]):
        total = total + linear[k] * coords.basis[k]
    residual = good * (values - total)
    continuum = model.continuum(linear, coords)
    result: dict[str, Array] = {}
    for i, name in enumerate(model.names):
        window = _window(model, params, coords, i)
        density = residual + profiles[i]
        result[f"{name}.flux_direct"] = jnp.sum(density * window * coords.width)
        result[f"{name}.equivalent_width_direct"] = -_over_continuum(density, continuum, window, coords.width)
    return result


LINE_QUANTITIES = Derived(from_model, from_data)
