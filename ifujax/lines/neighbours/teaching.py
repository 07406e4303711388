"""Who is near whom in a cube, and what a spaxel's neighbours say about it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import UsageError
from ifujax.lines.chunk import ChunkFitter, ChunkResult
from ifujax.robust import MAD_TO_SIGMA

BATCH = 64
"""Spaxels that are fitted together at least: rings of fewer would leave the engine's blocks empty."""
DETECTED = 4.0
"""A component teaches its neighbours where one of its lines has a flux above this times its error. At 3, one spectrum of pure
noise in forty passes, and one in eight true lines between 3 and 4 is at a wrong velocity; above 4, one in a hundred."""
FEWEST = 3
"""Neighbours whose scatter means something."""
_ROWS_AT_ONCE = 4096
"""Standard deviation over median absolute deviation, for normal noise."""


class Neighbourhood:
    """The fitted spaxels (or Voronoi bins) of a cube, and which of them lie within a radius of each other.

    Parameters
    ----------
    cube : Cube
    rows : array (n,)
        Flat indices of the fitted spaxels, one of each bin. Everything below counts them 0..n - 1.
    radius : float
        Pixels. Bins are neighbours where one has a spaxel within the radius of one of the other's.

    Attributes
    ----------
    rows : array (n,)
    position : array (n, 2)
        y, x; the mean over a bin.
    """

    def __init__(self, cube: Cube, rows: np.ndarray, radius: float) -> None:
        if not (np.isfinite(radius) and radius >= 1):
            raise UsageError(f"refit_radius must be 1 or more; got {radius}. Give pixels.")
        self.rows = rows
        _, ny, nx = cube.shape
        owner = np.full(ny * nx, -1)
        owner[rows] = np.arange(len(rows))
        if cube.bins is not None:
            flat = cube.bins.ravel()
            known, place = flat[rows], np.argsort(flat[rows])
            at = np.minimum(np.searchsorted(known[place], flat), len(rows) - 1)
            owner = np.where((flat >= 0) & (known[place][at] == flat), place[at], -1)
        members = np.flatnonzero(owner >= 0)
        members = members[np.argsort(owner[members], kind="stable")]
        self._reach = int(min(radius, max(ny, nx)))
        self._owner = np.pad(owner.reshape(ny, nx), self._reach, constant_values=-1)
        self._y, self._x = np.divmod(members, nx)
        count = np.bincount(owner[members], minlength=len(rows))
        self._first = np.concatenate([[0], np.cumsum(count)])
        self.position = np.stack([np.add.reduceat(axis, self._first[:-1]) / count for axis in (self._y, self._x)], axis=1)
        dy, dx = np.mgrid[-self._reach : self._reach + 1, -self._reach : self._reach + 1]
        near = (dy**2 + dx**2 <= radius**2) & ((dy != 0) | (dx != 0))
        self._dy, self._dx = dy[near], dx[near]

    def __len__(self) -> int:
        return len(self.position)

    def table(self, mine: np.ndarray) -> np.ndarray:
        """Return the neighbours of some spaxels (m,), as an array (m, most) padded with -1."""
        count = np.diff(self._first)[mine]
        whose = np.repeat(np.arange(len(mine)), count)
        member = np.arange(count.sum()) + np.repeat(self._first[mine] - np.cumsum(count) + count, count)
        y, x = (axis[member][:, None] + self._reach for axis in (self._y, self._x))
        found = self._owner[y + self._dy, x + self._dx]
        own, slot = np.nonzero((found >= 0) & (found != mine[whose][:, None]))
        own, other = np.divmod(np.unique(whose[own] * len(self) + found[own, slot]), len(self))
        count = np.bincount(own, minlength=len(mine))
        table = np.full((len(mine), int(count.max(initial=0))), -1)
        table[own, np.arange(len(own)) - np.repeat(np.cumsum(count) - count, count)] = other
        return table

    def rings(self, centre: tuple[float, float]) -> list[np.ndarray]:
        """Return the spaxels in rings about `centre` (x, y): those whose distance rounds to the same number.

        Rings with fewer than `BATCH` spaxels are joined to the next. This depends on the positions alone.
        """
        x, y = centre
        distance = np.hypot(self.position[:, 0] - y, self.position[:, 1] - x)
        order = np.argsort(np.round(distance), kind="stable")
        ends = np.flatnonzero(np.diff(np.round(distance)[order])) + 1
        cuts = [0]
        for end in ends:
            if end - cuts[-1] >= BATCH and len(self) - end >= BATCH:
                cuts.append(int(end))
        return [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(self)])]

    def spiral(self, centre: tuple[float, float]) -> np.ndarray:
        """Return the spaxels one after the other, by distance from `centre` (x, y), then by angle."""
        x, y = centre
        dy, dx = self.position[:, 0] - y, self.position[:, 1] - x
        return np.lexsort((np.arctan2(dy, dx) % (2 * np.pi), np.round(np.hypot(dy, dx), 6)))


def centre_of(cube: Cube, wanted: tuple[float, float] | Literal["peak", "cofm"] | None) -> tuple[float, float]:
    """Return where rings begin, (x, y): as given, the brightest spaxel or centre of light of `cube`, or its middle."""
    if wanted is None:
        return (cube.shape[2] - 1) / 2.0, (cube.shape[1] - 1) / 2.0
    if wanted == "peak":
        return cube.peak()
    if wanted == "cofm":
        return cube.centroid()
    if isinstance(wanted, str) or len(wanted) != 2 or not np.all(np.isfinite(wanted)):
        raise UsageError(f"spiral_center must be x, y or peak or cofm; got {wanted!r}.")
    return float(wanted[0]), float(wanted[1])


@dataclass(frozen=True)
class Lesson:
    """What the neighbours of some spaxels have in common; columns are the model's parameters.

    `middle` (m, parameters) their median, `spread` their median distance from it, `error` the median of their errors; NaN
    where no neighbour teaches. `count` (m, components): how many teach.
    """

    middle: np.ndarray
    spread: np.ndarray
    error: np.ndarray
    count: np.ndarray

    @property
    def scatter(self) -> np.ndarray:
        """Standard deviation of the neighbours (m, parameters), not less than what their errors make."""
        return np.hypot(MAD_TO_SIGMA * self.spread, self.error)

    def of(self, keep: np.ndarray) -> Lesson:
        """Return some rows."""
        return Lesson(self.middle[keep], self.spread[keep], self.error[keep], self.count[keep])


class Teachers:
    """Solutions that spaxels teach to their neighbours, and of which components: those that are detected.

    Parameters
    ----------
    fitter : ChunkFitter
    found : ChunkResult
        One row a spaxel.
    """

    def __init__(self, fitter: ChunkFitter, found: ChunkResult) -> None:
        setup = fitter.setup
        self.components = [list(component.lines) for component in fitter.finder.components]
        self._line = {name: i for i, name in enumerate(setup.model.names)}
        self.component_of = np.array([self._component(name.rsplit(".", 1)[0]) for name in setup.model.parameter_names])
        self._quantity = [
            (self._line[name.rsplit(".", 1)[0]], fitter.quantities.index(name.rsplit(".", 1)[1]))
            for name in setup.model.parameter_names
        ]
        self._flux = fitter.quantities.index("flux")
        n, size = found.solution.shape
        self.solution, self.error = np.full((n, size), np.nan), np.full((n, size), np.nan)
        self.teaches = np.zeros((n, len(self.components)), bool)
        self.put(np.arange(n), found)

    def put(self, mine: np.ndarray, found: ChunkResult) -> None:
        """Let some spaxels teach what was found."""
        with np.errstate(invalid="ignore", divide="ignore"):
            detected = np.abs(found.values[:, :, self._flux] / found.errors[:, :, self._flux]) > DETECTED
        sound = (found.status == 0)[:, None]
        self.solution[mine] = found.solution
        self.error[mine] = np.stack([found.errors[:, i, q] for i, q in self._quantity], axis=1)
        self.teaches[mine] = sound & np.stack([detected[:, lines].any(axis=1) for lines in self.components], axis=1)

    def lesson(self, neighbourhood: Neighbourhood, mine: np.ndarray) -> Lesson:
        """Return what the neighbours of some spaxels say."""
        some = [mine[i : i + _ROWS_AT_ONCE] for i in range(0, max(len(mine), 1), _ROWS_AT_ONCE)]
        parts = [self._part(neighbourhood.table(part)) for part in some]
        return Lesson(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Lesson)))

    def _part(self, table: np.ndarray) -> Lesson:
        teaches = self.teaches[table] & (table >= 0)[:, :, None]
        size = self.solution.shape[1]
        middle, spread, error = (np.full((len(table), size), np.nan) for _ in range(3))
        for j, component in enumerate(self.component_of):
            values = np.where(teaches[:, :, component], self.solution[:, j][table], np.nan)
            middle[:, j] = row_median(values)
            spread[:, j] = row_median(np.abs(values - middle[:, j, None]))
            error[:, j] = row_median(np.where(np.isfinite(values), self.error[:, j][table], np.nan))
        return Lesson(middle, spread, error, teaches.sum(axis=1))

    def _component(self, line: str) -> int:
        return next(c for c, lines in enumerate(self.components) if self._line[line] in lines)


def row_median(values: np.ndarray) -> np.ndarray:
    """Median of each row without its NaNs; NaN where nothing is left."""
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    rows = np.arange(len(values))
    return 0.5 * (ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2])
