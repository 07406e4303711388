"""What is fitted: values, weights and coordinates, one row a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.subtracted import Subtracted


@dataclass(frozen=True)
class Observations:
    """Data of a batch of fits, on the host.

    Parameters
    ----------
    values : array (batch, n_pix)
        Data. Masked ones may hold anything, NaN included: they are replaced before any arithmetic.
    ivar : array (batch, n_pix)
        Inverse variance, 1 / sigma^2; 0 = masked.
    coords : pytree of arrays
        What the model needs beside its parameters: wavelengths, pixel positions, transforms.
    coords_axes : pytree prefix of 0 or None
        0 where a leaf has one row a fit, None (default) where all fits share it.
    correlation : array (lags,) or (batch, lags), optional
        Autocorrelation of the noise along the pixel axis, 1 first; beyond these lags it is 0. Solutions stay those of
        independent noise; their errors allow for it.
    subtracted : Subtracted, optional
        What had been fitted to the same data, and was subtracted, before these values were left. Solutions take it for known;
        their errors allow for its own.

    Raises
    ------
    UsageError
        For shapes that do not match, or weights that are negative or not finite.
    """

    values: Any
    ivar: Any
    coords: Any = ()
    coords_axes: Any = None
    correlation: Any = None
    subtracted: Subtracted | None = None

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        ivar = np.asarray(self.ivar)
        if values.ndim != 2:
            raise UsageError(f"values must have two axes (batch, n_pix); got shape {values.shape}. Add a batch axis.")
        if ivar.shape != values.shape:
            raise UsageError(f"ivar must have the shape of values, {values.shape}; got {ivar.shape}.")
        if not np.all(ivar >= 0) or np.isinf(ivar).any():
            raise UsageError("ivar must be finite and 0 or more; got negative, NaN or infinite weights. Use 0 to mask.")
        if self.correlation is not None and np.shape(self.correlation)[:-1] not in ((), (values.shape[0],)):
            raise UsageError(f"correlation must be (lags,) or ({values.shape[0]}, lags); got shape {np.shape(self.correlation)}.")
        if self.subtracted is not None and np.shape(self.subtracted.weight) != values.shape:
            raise UsageError(
                f"subtracted must have a weight for each of values, {values.shape}; got {np.shape(self.subtracted.weight)}."
            )
        good = np.isfinite(values)
        if not good.all():
            ivar = np.where(good, ivar, 0)
        # NaN times a weight of zero is NaN: masked values must be replaced, not only weighted down.
        object.__setattr__(self, "values", np.where(ivar > 0, values, 0))
        object.__setattr__(self, "ivar", ivar)

    @property
    def batch(self) -> int:
        return self.values.shape[0]

    @property
    def n_pix(self) -> int:
        return self.values.shape[1]

    @property
    def flat_axes(self) -> tuple[int | None, ...]:
        """The batch axis of every leaf of the coordinates, None where it is shared."""
        return tuple(None if axis < 0 else axis for axis in jax.tree.leaves(spread_axes(self.coords, self.coords_axes)))

    def coords_of(self, rows: np.ndarray) -> Any:
        """Return the coordinates of some rows: shared leaves as they are, the others cut."""
        axes = spread_axes(self.coords, self.coords_axes)
        return jax.tree.map(lambda axis, leaf: np.asarray(leaf) if axis < 0 else np.asarray(leaf)[rows], axes, self.coords)


def spread_axes(coords: Any, coords_axes: Any) -> Any:
    """Spread a prefix of 0 / None over the whole tree, with -1 for shared leaves (None is no leaf)."""
    if coords_axes is None:
        return jax.tree.map(lambda leaf: -1, coords)
    return jax.tree.map(
        lambda axis, sub: jax.tree.map(lambda leaf: -1 if axis is None else axis, sub),
        coords_axes,
        coords,
        is_leaf=lambda node: node is None,
    )
