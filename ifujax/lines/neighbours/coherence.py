"""Spatial coherence: among several minima of a spaxel, the one closest to its neighbours."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ifujax.lines.chunk import ChunkFitter, ChunkResult, Guess
from ifujax.lines.collection import Collection
from ifujax.lines.neighbours.narrowing import Narrowed
from ifujax.lines.neighbours.refit import RIVAL, SAME, FitSome, Tell, guess_of, may_improve, named
from ifujax.lines.neighbours.teaching import FEWEST, Lesson, Neighbourhood, Teachers
from ifujax.lines.starts.packing import named_starts

_OFF = 3.0
"""Spaxels whose velocity or dispersion is this many standard deviations from their neighbours' are looked at."""
_CLOSER = 0.1
"""Standard deviations by which another minimum must be closer to the neighbours."""
_SAME_LESSON = 0.5
"""A spaxel whose neighbours' median has moved by fewer standard deviations since its last fit from them is not fitted again."""
_SWEEPS = 4
_ROWS_AT_ONCE = 4096


class Coherence:
    """Looks for other minima of the spaxels that differ from their neighbours, and chooses.

    Parameters
    ----------
    fitter : ChunkFitter
    neighbourhood : Neighbourhood
    collected : Collection
        The fits; choices are put there.
    narrowed : Narrowed
        Bounds that a refit has set.
    fit_some, tell : callable
        As `ifujax.lines.neighbours.refit.refit` has them.
    """

    def __init__(
        self,
        fitter: ChunkFitter,
        neighbourhood: Neighbourhood,
        collected: Collection,
        narrowed: Narrowed,
        fit_some: FitSome,
        tell: Tell,
    ) -> None:
        self.fitter, self.neighbourhood, self.collected = fitter, neighbourhood, collected
        self.narrowed, self.fit_some, self.tell = narrowed, fit_some, tell
        setup = fitter.setup
        leaders = [setup.model.names[component.lines[0]] for component in fitter.finder.components]
        index = {name: j for j, name in enumerate(setup.model.parameter_names)}
        self._place = np.array([[index[f"{name}.{role}"] for role in ("velocity", "velocity_dispersion")] for name in leaders])
        self._lowest = np.full(len(neighbourhood), np.inf)
        self._tried = np.full((len(neighbourhood), self._place.size), np.nan)

    def __call__(self) -> None:
        """Let the spaxels look at each other until they agree, or do not change any more."""
        for k in range(_SWEEPS):
            if not self._sweep(k):
                break

    def _sweep(self, k: int) -> bool:
        """Look at all spaxels that are off, with all others as they are; return whether any changed."""
        rows = self.neighbourhood.rows
        found = self.collected.of(rows)
        teachers = Teachers(self.fitter, found)
        lesson = teachers.lesson(self.neighbourhood, np.arange(len(rows)))
        guess = guess_of(lesson, found.solution, teachers)
        centre, width = lesson.middle[:, self._place], self._width(lesson)
        with np.errstate(invalid="ignore"):
            off = (np.abs(found.solution[:, self._place] - centre) > _OFF * width).any(axis=(1, 2)) | (found.status != 0)
            moved = np.abs(guess[:, self._place] - self._tried.reshape(centre.shape)) < _SAME_LESSON * width
        new = ~(moved | ~np.isfinite(width)).all(axis=(1, 2))
        may = may_improve(found) & np.isfinite(guess).all(axis=1) & np.isfinite(width).any(axis=(1, 2))
        mine = np.flatnonzero(off & new & may)
        if not mine.size:
            return False
        ends = self._ends(k, mine, found.of(mine), guess[mine])
        self._tried[mine] = guess[mine][:, self._place.ravel()]
        return self._choose(mine, ends, centre[mine], width[mine])

    def _width(self, lesson: Lesson) -> np.ndarray:
        """The neighbours' scatter (m, components, 2); NaN where too few teach."""
        few = (lesson.count < FEWEST)[:, :, None]
        return np.where(few, np.nan, lesson.scatter[:, self._place])

    def _ends(self, k: int, mine: np.ndarray, now: ChunkResult, guess: np.ndarray) -> list[ChunkResult]:
        """Return what the spaxels have now, where the neighbours' median leads, and where their own starts lead."""
        starts = [named(self.fitter, guess), *self._own_starts(mine)]
        ends = [now]
        for w, start in enumerate(starts):
            self.tell(w * len(mine), len(starts) * len(mine))
            at = np.flatnonzero(np.isfinite(np.stack(list(start.values()))).all(axis=0))
            if at.size:
                guess_here = Guess({name: value[at] for name, value in start.items()}, *self.narrowed.of(mine[at]))
                ends.append(_with(now, at, self.fit_some(f"coherence-{k}-{w}", mine[at], guess_here)))
        self.tell(len(starts) * len(mine), len(starts) * len(mine))
        return ends

    def _own_starts(self, mine: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Every start found in the data of the spaxels, NaN where there is none or where they were tried before."""
        fitter, model = self.fitter, self.fitter.setup.model
        fresh = np.isnan(self._tried[mine]).all(axis=1)
        parts = []
        for i in range(0, len(mine), _ROWS_AT_ONCE):
            rows = self.neighbourhood.rows[mine[i : i + _ROWS_AT_ONCE]]
            ready = fitter.preparation(rows)
            parts.append(
                named_starts(fitter.setup, fitter.finder.find(ready.residual, ready.ivar, fitter.config.fit.starts, rows))
            )
        starts = []
        for ways in zip(*parts):
            known = {name: np.concatenate([way[name] for way in ways]) for name in ways[0]}
            shapes = {name: np.full(len(mine), value) for name, value in fitter.setup.guess_shape.items()}
            whole = shapes | known
            starts.append({name: np.where(fresh, whole[name], np.nan) for name in model.parameter_names})
        return starts

    def _choose(self, mine: np.ndarray, ends: list[ChunkResult], centre: np.ndarray, width: np.ndarray) -> bool:
        """Keep of each spaxel the end closest to its neighbours among those that are nearly as low as the lowest."""
        chi2 = np.stack([np.where(end.status == 0, end.chi2, np.inf) for end in ends])
        lowest = self._lowest[mine] = np.minimum(self._lowest[mine], chi2.min(axis=0))
        apart = np.stack([(end.solution[:, self._place] - centre) / width for end in ends])
        distance = np.sqrt(np.nansum(apart**2, axis=(2, 3)))
        distance[~(chi2 <= lowest + self.fitter.config.fit.coherence)] = np.inf
        # What is as close as the present one is the same minimum, or not worth a higher chi2.
        distance[1:][distance[1:] > distance[0] - _CLOSER] = np.inf
        best = np.argmin(distance, axis=0)
        chosen = ends[0]
        for w, end in enumerate(ends[1:], start=1):
            chosen = chosen.take(best != w, end)
        told = chosen
        for end, own in zip(ends, chi2):
            with np.errstate(invalid="ignore"):
                above = np.abs(own - chosen.chi2)
            told = told.with_rivals(np.isfinite(own) & (above > SAME) & (above < RIVAL) & (chosen.status == 0), end)
        self.collected.put(self.neighbourhood.rows[mine], told)
        return bool((best > 0).any())


def _with(base: ChunkResult, at: np.ndarray, part: ChunkResult) -> ChunkResult:
    """Return a copy of `base` with other rows in some places."""
    whole = {}
    for item in fields(ChunkResult):
        whole[item.name] = np.array(getattr(base, item.name))
        whole[item.name][at] = getattr(part, item.name)
    return ChunkResult(**whole)
