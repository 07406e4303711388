"""Where fits start, and which of several ends is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax.errors import UsageError, unknown
from ifujax.inference import status as bits
from ifujax.inference.levenberg_marquardt import CONVERGED, FAILED, RUNNING
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import working_precision

_SAME = 1e-3
"""Ends whose chi2 agree to this are one minimum."""
RIVAL, UNSURE = 1.0, 4.0
"""How far above the lowest another minimum is a rival to it, and makes errors unsure: as high as 95 % intervals reach."""


@dataclass(frozen=True)
class Rivals:
    """Other minima that starts converged to, not much higher than the lowest of their fit.

    `row` (m,) says which fit each belongs to, `x` (m, n) where it is, `above` (m,) how much higher its chi2.
    """

    row: np.ndarray
    x: np.ndarray
    above: np.ndarray

    @classmethod
    def none(cls, n: int) -> Rivals:
        """Return no rivals in `n` dimensions."""
        return cls(np.zeros(0, int), np.zeros((0, n)), np.zeros(0))

    def bits(self, x: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Return `OTHER_MINIMUM` and `ERRORS_NOT_TRUSTED` (fits, n) of what differs by more than its error from the fits' `x`."""
        found = np.zeros(x.shape, np.int32)
        with np.errstate(invalid="ignore"):
            apart = np.abs(self.x - x[self.row]) > error[self.row]
        bit = np.where(self.above < RIVAL, bits.OTHER_MINIMUM.value, 0) | bits.ERRORS_NOT_TRUSTED.value
        np.bitwise_or.at(found, self.row, np.where(apart, bit[:, None], 0).astype(np.int32))
        return found


def pack_starts(space: ParameterSpace, start: Mapping[str, Any] | Any, batch: int) -> np.ndarray:
    """Return starts as free vectors (starts, batch, n), checked."""
    n = space.n_free
    if not isinstance(start, Mapping):
        x = np.asarray(start, dtype=np.float64)
        x = x[None] if x.ndim == 2 else x
        if x.ndim != 3 or x.shape[1:] != (batch, n):
            raise UsageError(f"start must have shape ({batch}, {n}) or (starts, {batch}, {n}); got {np.shape(start)}.")
        return x
    for name in start:
        if name not in space.names:
            raise UsageError(unknown("parameter of start", name, space.names))
    missing = [entry.name for entry in space.structure.free if entry.name not in start]
    if missing:
        raise UsageError(f"start must give every free parameter; {', '.join(missing)} missing.")
    # Limits that are expressions may name fixed or tied parameters: fill those in from a first guess.
    wide = space.broadcast(batch)
    given: dict[str, np.ndarray] = {}
    for entry in space.structure.entries:
        if entry.name in start:
            value = np.asarray(start[entry.name], dtype=np.float64)
            given[entry.name] = np.broadcast_to(value if value.ndim > len(entry.shape) else value[None], (batch, *entry.shape))
    if not any(entry.moving for entry in space.structure.free):
        flat = [given[entry.name].reshape(batch, entry.size) for entry in space.structure.free]
        return (np.concatenate(flat, axis=1) / wide.scale)[None] if flat else np.zeros((1, batch, 0))
    with working_precision("float64"):
        packed = jax.vmap(_pack_row)(wide, given)
    return np.array(packed)[None]


def _pack_row(space: ParameterSpace, given: dict[str, Any]) -> Any:
    values: dict[str, Any] = dict(given)
    i_fixed = 0
    for entry in space.structure.entries:
        if entry.kind == "fixed":
            flat = space.fixed[i_fixed : i_fixed + entry.size]
            values[entry.name] = flat[0] if entry.shape == () else flat.reshape(entry.shape)
            i_fixed += entry.size
    for i in space.structure.order:
        entry = space.structure.entries[i]
        if entry.kind == "tied":
            values[entry.name] = entry.expression(values)  # type: ignore[misc]
    x = space.pack(values)
    return jnp.stack(x) if x else jnp.zeros((0,))


def lowest_ends(
    ends: Mapping[str, np.ndarray], which: np.ndarray, row: np.ndarray, shape: tuple[int, int]
) -> tuple[dict[str, np.ndarray], Rivals]:
    """Keep the start of each fit that ended lowest, converged ones first.

    Parameters
    ----------
    ends : mapping
        ``x``, ``chi2``, ``phase``, ``n_iter`` of every start that was tried.
    which, row : array
        Its start and its fit.
    shape : (starts, batch)

    Returns
    -------
    best : dict
        The same for each fit; FAILED, with NaN, where there was no start.
    rivals : Rivals
        Ends of the others within `UNSURE`.
    """
    chi2, rank, index = np.full(shape, np.inf), np.full(shape, 3), np.zeros(shape, int)
    chi2[which, row] = np.where(np.isfinite(ends["chi2"]), ends["chi2"], np.inf)
    rank[which, row] = np.where(ends["phase"] == CONVERGED, 0, np.where(ends["phase"] == RUNNING, 1, 2))
    index[which, row] = np.arange(len(row))
    winner, fits = np.lexsort((chi2, rank), axis=0)[0], np.arange(shape[1])
    without = rank[winner, fits] == 3
    best = {}
    for name, values in ends.items():
        padding = np.zeros((1, *values.shape[1:]), values.dtype)
        best[name] = np.concatenate([values, padding])[np.where(without, len(row), index[winner, fits])]
    best["phase"][without] = FAILED
    best["x"][without] = np.nan
    with np.errstate(invalid="ignore"):
        above = ends["chi2"] - chi2[winner, fits][row]
        rival = np.flatnonzero((ends["phase"] == CONVERGED) & (above > _SAME) & (above < UNSURE))
    return best, Rivals(row[rival], ends["x"][rival], above[rival])
