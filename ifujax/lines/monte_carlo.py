"""Noise realisations of fitted spectra, for errors from the scatter of repeated fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ifujax.inference.batching import padded
from ifujax.inference.correlation import coloured
from ifujax.inference.precision import working_precision
from ifujax.inference.results import FitResult
from ifujax.inference.subtracted import Subtracted
from ifujax.lines.preparation import Prepared
from ifujax.models.emission import EmissionSpectrum, SpectralCoords

_BLOCK = 64


class Realisations:
    """Draws noisy copies of spectra: the fitted model plus normal noise of the data's variance (parametric bootstrap).

    Parameters
    ----------
    model : EmissionSpectrum
    coords : SpectralCoords
    seed : int
        A spaxel's noise depends on this and on its own position only: not on order or chunks.
    compat : bool
        Add the noise to the data instead, as IFSCube does.
    correlation : array (lags,), optional
        Autocorrelation of the noise, 1 first.
    """

    def __init__(
        self,
        model: EmissionSpectrum,
        coords: SpectralCoords,
        seed: int,
        *,
        compat: bool,
        correlation: np.ndarray | None = None,
    ) -> None:
        self.model, self.coords, self.seed, self.compat = model, coords, seed, compat
        self.correlation = correlation

    def __call__(
        self, fit: FitResult, ready: Prepared, rows: np.ndarray, count: int, subtracted: Subtracted | None = None
    ) -> Iterator[Prepared]:
        """Yield `count` copies of `ready` with other values: what had been `subtracted` is another one then, too."""
        n_pix = ready.values.shape[1]
        sigma = np.where(ready.ivar > 0, 1.0 / np.sqrt(np.where(ready.ivar > 0, ready.ivar, 1.0)), 0.0)
        centre = ready.values
        if not self.compat:
            centre = np.empty_like(ready.values)
            shared = jax.tree.map(np.asarray, self.coords)
            with working_precision("float64"):
                for first in range(0, len(rows), _BLOCK):
                    block = padded(np.arange(first, min(first + _BLOCK, len(rows))), _BLOCK)
                    params = {name: np.nan_to_num(fit.params[name][block]) for name in self.model.parameter_names}
                    linear = np.nan_to_num(fit.linear[block])
                    part = np.asarray(_fitted(self.model, shared, params, linear))
                    centre[first : first + _BLOCK] = part[: len(rows) - first]
            centre = np.where(np.isfinite(centre), centre, ready.values)
        streams = [np.random.default_rng([self.seed, 20, int(row)]) for row in rows]
        for _ in range(count):
            more = 0 if self.correlation is None else len(self.correlation)
            noise = np.stack([stream.standard_normal(n_pix + more) for stream in streams])
            if self.correlation is not None:
                noise = coloured(noise, self.correlation)
            if subtracted is None:
                yield replace(ready, values=centre + sigma * noise)
                continue
            moved = subtracted.moved(noise, np.stack([stream.standard_normal(n_pix) for stream in streams]))
            yield replace(ready, values=centre + sigma * noise - moved, background=ready.background + moved)


@jax.jit
def _fitted(model: EmissionSpectrum, coords: SpectralCoords, params: Any, linear: Any) -> Any:
    """Lines and fitted continuum: what the engine compares with its data."""

    def row(params: Any, linear: Any) -> Any:
        total = model.lines(params, coords)
        for k in range(linear.shape[0]):
            total = total + linear[k] * coords.basis[k]
        return total

    return jax.vmap(row)(params, linear)
