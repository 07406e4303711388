"""The flux density of fitted lines, many spectra at once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax.inference.batching import padded
from ifujax.inference.precision import working_precision
from ifujax.models.emission import EmissionSpectrum, SpectralCoords

_BLOCK = 64


def line_spectra(
    model: EmissionSpectrum, coords: SpectralCoords, params: Mapping[str, np.ndarray], n_wave: int, *, each: bool
) -> np.ndarray:
    """Return the flux density of each line (n, lines, n_wave), or of all together (n, n_wave).

    Parameters
    ----------
    model : EmissionSpectrum
    coords : SpectralCoords
    params : mapping of str to array (n,)
        Every parameter of the model by name; rows with NaN give NaN.
    n_wave : int
        How many of the pixels of `coords` are wanted: those before the padding.
    each : bool
    """
    n = len(next(iter(params.values())))
    found = np.empty((n, len(model.names), n_wave) if each else (n, n_wave))
    shared = jax.tree.map(np.asarray, coords)
    with working_precision("float64"):
        for first in range(0, n, _BLOCK):
            block = padded(np.arange(first, min(first + _BLOCK, n)), _BLOCK)
            part = np.asarray(_lines(model, each, shared, {name: values[block] for name, values in params.items()}))
            found[first : first + _BLOCK] = part[: n - first, ..., :n_wave]
    return found


@partial(jax.jit, static_argnums=1)
def _lines(model: EmissionSpectrum, each: bool, coords: SpectralCoords, params: Any) -> Any:
    def row(params: Any) -> Any:
        if not each:
            return model.lines(params, coords)
        return jnp.stack([model.line(params, coords, i) for i in range(len(model.names))])

    return jax.vmap(row)(params)
