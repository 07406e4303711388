"""Correlated noise made independent: model and data seen through a filter that whitens the noise, for the samplers.

The likelihood of noise with the correlation R is that of independent noise in ``w (y - model) / sigma``, with the filter w of
`ifujax.inference.correlation.whitening`: short, and exact as far as what came shortly before tells all that is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ifujax.inference.correlation import whitening
from ifujax.inference.observations import Observations
from ifujax.lines.posteriors.quantities import DrawQuantities
from ifujax.models.emission import EmissionSpectrum


@partial(jax.tree_util.register_dataclass, data_fields=["inside", "filter"], meta_fields=[])
@dataclass(frozen=True)
class WhitenedCoords:
    """Coordinates of the model itself, and the filter (n_pix, order + 1) times the pixels' relative weights."""

    inside: Any
    filter: Any


@partial(jax.tree_util.register_dataclass, data_fields=["whole"], meta_fields=[])
@dataclass(frozen=True)
class WhitenedSpectrum:
    """An emission spectrum seen through a filter along its pixels."""

    whole: EmissionSpectrum

    def __call__(self, params: Any, coords: WhitenedCoords) -> Array:
        return _filtered(self.whole(params, coords.inside), coords.filter)

    def design(self, params: Any, coords: WhitenedCoords) -> tuple[tuple[Array, ...], Array]:
        """Return the filtered columns of the continuum, and the filtered lines."""
        columns, offset = self.whole.design(params, coords.inside)
        return tuple(_filtered(column, coords.filter) for column in columns), _filtered(offset, coords.filter)

    @property
    def linear_names(self) -> tuple[str, ...]:
        return self.whole.linear_names

    @property
    def linear_in(self) -> tuple[str, ...]:
        return self.whole.linear_in


@dataclass(frozen=True)
class WhitenedQuantities:
    """Quantities of a draw of the spectrum itself; hashable."""

    quantities: DrawQuantities

    def __call__(self, model: WhitenedSpectrum, params: Any, linear: Array, coords: WhitenedCoords) -> dict[str, Array]:
        return self.quantities(model.whole, params, linear, coords.inside)


@lru_cache(maxsize=64)
def whitened_quantities(quantities: DrawQuantities) -> WhitenedQuantities:
    """Return the same object for the same quantities, so that nothing compiles twice."""
    return WhitenedQuantities(quantities)


def whitened(obs: Observations, correlation: np.ndarray) -> Observations:
    """Return observations of a `WhitenedSpectrum` with independent noise, from those of a spectrum with correlated noise."""
    used = obs.ivar > 0
    root = np.sqrt(obs.ivar)
    largest = root.max(axis=1, keepdims=True)
    # Relative weights: raw flux densities then stay as large as they were.
    relative = root / np.where(largest > 0, largest, 1.0)
    rows = whitening(correlation, used)
    order = rows.shape[2] - 1
    before = np.pad(relative, [(0, 0), (order, 0)])
    n = relative.shape[1]
    for k in range(order + 1):
        rows[:, :, k] *= before[:, order - k : order - k + n]
    values = np.stack([_filter_rows(value, row) for value, row in zip(np.where(used, obs.values, 0.0), rows)])
    axes = WhitenedCoords(obs.coords_axes, 0)
    return Observations(values, np.where(used, largest**2, 0.0), WhitenedCoords(obs.coords, rows), axes)


def _filter_rows(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    order, n = rows.shape[1] - 1, len(values)
    roomy = np.pad(values, (order, 0))
    return sum(rows[:, k] * roomy[order - k : order - k + n] for k in range(order + 1))  # type: ignore[return-value]


def _filtered(values: Array, rows: Array) -> Array:
    """Return ``sum_k rows[p, k] values[p - k]``."""
    order, n = rows.shape[1] - 1, values.shape[0]
    roomy = jnp.pad(values, (order, 0))
    total = rows[:, 0] * values
    for k in range(1, order + 1):
        total = total + rows[:, k] * roomy[order - k : order - k + n]
    return total
