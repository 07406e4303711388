"""Bounds that follow a spaxel's neighbours: `bounds_change` and `bound_range`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ifujax.errors import UsageError
from ifujax.lines.chunk import ChunkFitter
from ifujax.lines.config import FitOptions
from ifujax.lines.neighbours.teaching import FEWEST, Lesson, Teachers

_SLOTS = ("strength", "velocity", "velocity_dispersion", "h3", "h4")
"""What the numbers of `bounds_change` belong to."""
_STRENGTHS = ("flux", "amplitude")
_ROUNDING = 1e-9
Sides = Mapping[str, np.ndarray]
"""``{"line.parameter": (m,)}``, NaN where the bound is the declared one."""


@dataclass
class Narrowed:
    """Narrowed bounds of `n` spaxels, by name, NaN where they are the declared ones."""

    lower: dict[str, np.ndarray] = field(default_factory=dict)
    upper: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, mine: np.ndarray) -> tuple[Sides, Sides]:
        """Return the bounds of some spaxels."""
        return {name: side[mine] for name, side in self.lower.items()}, {name: side[mine] for name, side in self.upper.items()}

    def put(self, mine: np.ndarray, n: int, lower: Sides, upper: Sides) -> None:
        """Keep the bounds of some of `n` spaxels."""
        for kept, given in ((self.lower, lower), (self.upper, upper)):
            for name, values in given.items():
                kept.setdefault(name, np.full(n, np.nan))[mine] = values


class Limits:
    """Narrows bounds about what neighbours say.

    A bound about the neighbours' median is used where three at least teach and half of them keep it themselves, to within
    their errors. It never leaves the declared bounds, and a side without a declared bound stays without. Parameters whose
    declared bounds are expressions of others keep them.

    Raises
    ------
    UsageError
        For options that make no sense.
    """

    def __init__(self, fitter: ChunkFitter) -> None:
        options, setup = fitter.config.fit, fitter.setup
        _check(options)
        self.change, self.share = dict(zip(_SLOTS, options.bounds_change)), options.bound_range
        space, index = setup.space, {name: j for j, name in enumerate(setup.model.parameter_names)}
        self._free = [
            (entry.name, index[entry.name], float(low), float(high))
            for entry, low, high in zip(space.structure.free, space.lower, space.upper)
            if not entry.moving
        ]

    def about(self, lesson: Lesson, teachers: Teachers) -> tuple[Sides, Sides]:
        """Return lower and upper bounds of the free parameters; none at all without either option."""
        lower: dict[str, np.ndarray] = {}
        upper: dict[str, np.ndarray] = {}
        for name, j, low, high in self._free:
            half = self._half_width(name.rsplit(".", 1)[1], lesson.middle[:, j])
            if half is None:
                continue
            below, above = np.fmax(lesson.middle[:, j] - half, low), np.fmin(lesson.middle[:, j] + half, high)
            with np.errstate(invalid="ignore"):
                agreed = (lesson.spread[:, j] <= half + np.nan_to_num(lesson.error[:, j])) & (below < above)
            agreed &= lesson.count[:, teachers.component_of[j]] >= FEWEST
            lower[name] = np.where(agreed & np.isfinite(low), below, np.nan)
            upper[name] = np.where(agreed & np.isfinite(high), above, np.nan)
        return lower, upper

    def broken(self, solution: np.ndarray, lower: Sides, upper: Sides) -> np.ndarray:
        """Which solutions (m, parameters) lie outside the narrowed bounds."""
        outside = np.zeros(len(solution), bool)
        for name, j, _, _ in self._free:
            if name in lower:
                value, room = solution[:, j], _room(lower[name], upper[name])
                outside |= (value < lower[name] - room) | (value > upper[name] + room)
        return outside

    def reached(self, solution: np.ndarray, lower: Sides, upper: Sides) -> tuple[np.ndarray, np.ndarray]:
        """Which solutions (m, parameters) lie at a narrowed bound: of any parameter, of a strength."""
        anything, strength = np.zeros(len(solution), bool), np.zeros(len(solution), bool)
        for name, j, low, high in self._free:
            if name in lower:
                value, room = solution[:, j], _room(lower[name], upper[name])
                at = ((value <= lower[name] + room) & (lower[name] > low)) | (
                    (value >= upper[name] - room) & (upper[name] < high)
                )
                anything |= at
                if name.endswith(_STRENGTHS):
                    strength |= at
        return anything, strength

    def _half_width(self, role: str, middle: np.ndarray) -> np.ndarray | None:
        """The smaller half-width that the options ask for; None where they ask for none."""
        halves = []
        if role in _STRENGTHS and "strength" in self.change:
            halves.append(self.change["strength"] * np.abs(middle))
        elif role in self.change:
            halves.append(np.full(len(middle), self.change[role]))
        if self.share and role != "velocity":
            halves.append(self.share * np.abs(middle))
        return np.fmin.reduce(halves) if halves else None


def _room(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """How close to a bound counts as on it: what rounding does."""
    return _ROUNDING * np.fmax(np.abs(lower), np.abs(upper))


def _check(options: FitOptions) -> None:
    change = options.bounds_change
    if change and (len(change) not in (3, 5) or not all(np.isfinite(change)) or min(change) <= 0):
        raise UsageError(
            f"bounds_change must have 3 or 5 positive numbers; got {change}. "
            "Give share of the amplitude, km/s, km/s, and for Gauss-Hermite lines h3, h4."
        )
    if not (np.isfinite(options.bound_range) and options.bound_range >= 0):
        raise UsageError(f"bound_range must be 0 or more; got {options.bound_range}. Give a share of the neighbours' median.")
