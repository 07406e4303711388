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


def _per_continuum(model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords) -> tuple[Array, Array]:
    """Pixel width over continuum within each line's window, (lines, n_pix), times a level; and that level.

    Divided by the level it turns flux density into equivalent width. (Apart, since the squares of raw
    flux densities leave float32's range.)
    All NaN for a line where the continuum is not positive in its window, or the window is empty.
    """
    continuum = model.continuum(linear, coords)
    level = lax.stop_gradient(jnp.max(jnp.abs(continuum)))
    level = jnp.where(level > 0, level, 1.0)
    continuum = continuum / level
    inside = jnp.stack([_window(model, params, coords, i) for i in range(len(model.names))]) > 0
    usable = continuum > 0
    value = jnp.where(inside, (coords.width / jnp.where(usable, continuum, 1.0))[None, :], 0.0)
    lost = jnp.any(inside & ~usable[None, :], axis=1) | ~jnp.any(inside, axis=1)
    return jnp.where(lost[:, None], jnp.nan, value), level


def from_model(model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords) -> dict[str, Array]:
    """Return flux, amplitude, observed sigma and equivalent width of each line.

    The equivalent width is the flux times the mean of 1 / continuum over the line's profile; its
    error holds those of flux and continuum, not the much smaller effect of the profile's own.
    The two `_direct` quantities get the data's part from `from_residuals`: what the data hold beyond
    the model, within the line's window, is counted to the line; masked pixels take the model's value.
    """
    # Of unit strength, so that a line without flux still has a width error.
    unit = dict(params) | {f"{name}.{kind}": jnp.ones_like(coords.width[0]) for name, kind in zip(model.names, model.strengths)}
    profiles = lax.stop_gradient(jnp.stack([model.line(unit, coords, i) for i in range(len(model.names))]))
    # One product over all lines: separate sums would work the profiles out again for each.
    per_continuum, level = _per_continuum(model, params, linear, coords)
    width = jnp.einsum("lp,lp->l", profiles, per_continuum)
    result: dict[str, Array] = {}
    for i, name in enumerate(model.names):
        flux = model.flux(params, i)
        mean = width[i] / lax.stop_gradient(model.flux(unit, i))
        result[f"{name}.flux"] = result[f"{name}.flux_direct"] = flux
        result[f"{name}.amplitude"] = model.amplitude(params, i)
        result[f"{name}.sigma"] = model.observed_sigma(params, i)
        # Emission is negative: the convention of absorption studies, as in IFSCube.
        result[f"{name}.equivalent_width"] = result[f"{name}.equivalent_width_direct"] = -mean * (flux / level)
    return result


def from_residuals(model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords) -> dict[str, Array]:
    """Return the weights with which residuals enter the direct flux and equivalent width of each line."""
    per_continuum, level = _per_continuum(model, params, linear, coords)
    result: dict[str, Array] = {}
    for i, name in enumerate(model.names):
        result[f"{name}.flux_direct"] = _window(model, params, coords, i) * coords.width
        result[f"{name}.equivalent_width_direct"] = -per_continuum[i] / level
    return result


LINE_QUANTITIES = Derived(from_model, from_residuals)
