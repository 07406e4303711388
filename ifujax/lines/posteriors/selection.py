"""Which spaxels are sampled: those that were asked for and have a fit, one of each Voronoi bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ifujax.errors import DataError, UsageError
from ifujax.lines.results import CubeFit
from ifujax.lines.run import rows_to_fit

Where = np.ndarray | Sequence[tuple[int, int]] | None


@dataclass(frozen=True)
class Chosen:
    """The spaxels of a cube that are sampled.

    Attributes
    ----------
    rows : array (n,)
        Flat indices of the spaxels to sample, ascending.
    index : array (spaxels,)
        Which of these stands for each spaxel; -1 for none.
    asked : array (spaxels,) of bool
    """

    rows: np.ndarray
    index: np.ndarray
    asked: np.ndarray

    @classmethod
    def of(cls, fit: CubeFit, where: Where) -> Chosen:
        """Return what to sample of a fit.

        Spaxels of one bin share the draws of the one that was fitted, whichever of them are asked for.

        Raises
        ------
        UsageError
            For a map of another shape, or spaxels outside the image.
        DataError
            If none of the spaxels has a fit, or noise.
        """
        asked = _asked(fit, where)
        every = np.arange(fit.cube.n_spaxels)
        usable = fit.found.status == 0
        with np.errstate(invalid="ignore"):
            fitted = usable & (error_scale(fit, every) > 0)
        if not (asked & fitted).any():
            raise _nothing_to_sample(asked & usable, fitted, where)
        home = _home(fit)
        rows, place = np.unique(home[asked & fitted], return_inverse=True)
        index = np.full(every.size, -1)
        index[asked & fitted] = place
        return cls(rows, index, asked)

    def members(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the spaxels for which some of `rows` stand, and which of these (counted from `first`) stands for each."""
        spaxels = np.flatnonzero((self.index >= first) & (self.index < last))
        return spaxels, self.index[spaxels] - first


def _nothing_to_sample(noiseless: np.ndarray, fitted: np.ndarray, where: Where) -> DataError:
    """Say what spaxels lack: a fit, or, of `noiseless` ones, only the noise."""
    if noiseless.any():
        return DataError(
            "spaxels to sample must have a reduced chi2 above 0, whose root is the scale of the noise unless noise is 'given'; "
            f"got none in {int(noiseless.sum())} that were fitted. Fit with noise='given', or with fewer parameters."
        )
    count = int(fitted.sum())
    known = (
        f"{count} of {fitted.size} spaxels {'has' if count == 1 else 'have'} one" if where is not None else "no spaxel has one"
    )
    return DataError(f"spaxels to sample must have a fit; {known}. fit.status says why the others have none.")


def error_scale(fit: CubeFit, rows: np.ndarray) -> np.ndarray:
    """Return what the noise is multiplied by: 1, or the root of the reduced chi2, as the errors are."""
    return fit._error_scale[rows]


def _home(fit: CubeFit) -> np.ndarray:
    """Return the spaxel whose fit each spaxel has: its bin's first, else itself."""
    home = np.arange(fit.cube.n_spaxels)
    options = fit.config.fit
    if fit.cube.bins is None or options.individual_spec is not None:
        return home
    bins = fit.cube.bins.ravel()
    rows = rows_to_fit(fit.cube, fit.cube, replace(fit.config, fit=replace(options, individual_spec=None)))
    rows = rows[np.argsort(bins[rows], kind="stable")]
    found = np.searchsorted(bins[rows], bins).clip(max=max(len(rows) - 1, 0))
    return np.where((bins >= 0) & (bins[rows][found] == bins), rows[found], home) if rows.size else home


def _asked(fit: CubeFit, where: Where) -> np.ndarray:
    ny, nx = fit.shape
    if where is None:
        return np.ones(ny * nx, bool)
    array = np.asarray(where)
    if array.dtype == bool:
        if array.shape != fit.shape:
            raise UsageError(f"where must be a bool map of the cube's shape {fit.shape} (y, x); got {array.shape}.")
        if not array.any():
            raise UsageError("where must be True in one spaxel at least; got none.")
        return array.ravel().copy()
    if array.size == 0 or array.dtype.kind not in "iu" or array.shape[-1] != 2 or array.ndim > 2:
        raise UsageError(f"where must be a bool map [y, x] or a sequence of (x, y); got {where!r}.")
    x, y = array.reshape(-1, 2).T
    outside = (x < 0) | (x >= nx) | (y < 0) | (y >= ny)
    if outside.any():
        k = int(np.flatnonzero(outside)[0])
        raise UsageError(f"where must hold x, y within 0..{nx - 1}, 0..{ny - 1}; got {x[k]}, {y[k]}.")
    asked = np.zeros(ny * nx, bool)
    asked[y * nx + x] = True
    return asked
