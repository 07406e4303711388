"""IFSCube's `refit`: one spaxel after the other, started and bounded by those already fitted around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ifujax.errors import UsageError

FitSome = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``fit_some(which, guess, lower, upper) -> (solution, status)`` fits some spaxels of the order, which do not depend on one
another: ``which (m,)`` their places in it, the rest ``(m, n_parameters)``; status 0 is a usable fit."""
INVALID_BOUNDS = 1
"""Status of a spaxel whose narrowed bounds leave nothing (IFSCube's, for anything that it could not fit)."""


@dataclass(frozen=True)
class BoundsChange:
    """How far the neighbours' mean may be left: half-widths (n_parameters,), `relative` ones a share of the mean."""

    half_width: np.ndarray
    relative: np.ndarray

    @classmethod
    def of_slots(cls, bounds_change: tuple[float, ...], slots: np.ndarray) -> BoundsChange:
        """From the option: share of the amplitude, km/s, km/s[, h3, h4]; `slots` (n_parameters,) says which is whose.

        Raises
        ------
        UsageError
            If the option has too few values.
        """
        if len(bounds_change) <= int(slots.max()):
            raise UsageError(
                f"bounds_change must have {int(slots.max()) + 1} values, one for each parameter of a line; got {bounds_change}."
            )
        return cls(np.asarray(bounds_change, dtype=float)[slots], slots == 0)

    def around(self, mean: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds about `mean`, within the original ones; a side without a bound stays so."""
        low = np.where(self.relative, mean * (1.0 - self.half_width), mean - self.half_width)
        high = np.where(self.relative, mean * (1.0 + self.half_width), mean + self.half_width)
        return (
            np.where(np.isfinite(lower), np.maximum(low, lower), lower),
            np.where(np.isfinite(upper), np.minimum(high, upper), upper),
        )


def is_near(away: np.ndarray, radius: float) -> np.ndarray:
    """Return which offsets ``away (..., 2)``, rows and columns, are shorter than `radius`.

    Kept fault: the distance is ``sqrt(dy^2 + dx^4)`` (section 5.7).
    """
    away = np.asarray(away, dtype=float)
    return np.sqrt(away[..., 0] ** 2 + away[..., 1] ** 4) < radius


def earlier_neighbours(order: np.ndarray, radius: float) -> list[np.ndarray]:
    """Return, for each spaxel of ``order (n, 2)``, the places in it of its neighbours that come before it."""
    reach = int(np.ceil(radius))
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    offsets = offsets[is_near(offsets, radius)]
    place = np.full(order.max(axis=0) + 2 * reach + 1, len(order))
    place[tuple((order + reach).T)] = np.arange(len(order))
    found = []
    for i, position in enumerate(order):
        around = place[tuple((position + reach + offsets).T)]
        found.append(np.sort(around[around < i]))
    return found


def sequential_refit(
    order: np.ndarray,
    guess: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    fit_some: FitSome,
    *,
    radius: float,
    change: BoundsChange | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit spaxels in order, each from the mean of its fitted neighbours where there are any.

    Parameters
    ----------
    order : array (n, 2)
        (row, column), from `loop_order`.
    guess, lower, upper : arrays (n_parameters,)
        Where there is no neighbour. Infinite (or NaN) where there is no bound.
    fit_some : callable
        Called with the spaxels whose earlier neighbours are all done: the result is that of one after the other.
        Kept fault: the narrowed bounds are hard.
    radius : float
        `refit_radius`, pixels.
    change : BoundsChange, optional
        None leaves the bounds as they are.

    Returns
    -------
    solution : array (n, n_parameters)
        NaN where nothing was fitted.
    status : array (n,) int
    """
    solution = np.full((len(order), len(guess)), np.nan)
    status = np.full(len(order), INVALID_BOUNDS)
    earlier = earlier_neighbours(order, radius)
    turn = np.zeros(len(order), int)
    for i, near in enumerate(earlier):
        turn[i] = 1 + turn[near].max(initial=-1)
    for now in range(turn.max(initial=-1) + 1):
        which = np.flatnonzero(turn == now)
        starts, lows, highs = (np.tile(array, (len(which), 1)) for array in (guess, lower, upper))
        for k, i in enumerate(which):
            near = earlier[i][status[earlier[i]] == 0]
            if near.size:
                starts[k] = _mean(solution[near], guess)
                if change is not None:
                    lows[k], highs[k] = change.around(starts[k], lower, upper)
        possible = ~np.any(lows >= highs, axis=1)
        if possible.any():
            mine = which[possible]
            solution[mine], status[mine] = fit_some(mine, starts[possible], lows[possible], highs[possible])
    return solution, status


def _mean(solutions: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Return the mean of the finite solutions of each parameter; the guess where there is none."""
    finite = np.isfinite(solutions)
    count = finite.sum(axis=0)
    return np.where(count > 0, np.where(finite, solutions, 0.0).sum(axis=0) / np.maximum(count, 1), guess)
