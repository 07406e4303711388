"""The passes after the first fit of a cube: refit, coherence, and Monte Carlo draws of what they chose."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import IfujaxWarning
from ifujax.lines.chunk import ChunkFitter, ChunkResult, Guess
from ifujax.lines.collection import Collection
from ifujax.lines.config import FitOptions
from ifujax.lines.neighbours.coherence import Coherence
from ifujax.lines.neighbours.labels import Labels
from ifujax.lines.neighbours.narrowing import Narrowed
from ifujax.lines.neighbours.refit import Refitted, named, refit
from ifujax.lines.neighbours.teaching import BATCH, DETECTED, Neighbourhood, Teachers, centre_of
from ifujax.progress import Progress

Keep = Callable[[str, Callable[[], ChunkResult]], ChunkResult]
"""``keep(name, make)``: what an earlier run kept by that name, else what is made now."""


def asks_neighbours(options: FitOptions) -> bool:
    """Whether there are passes after the first; warns where they are asked for but would mean nothing."""
    wanted = [name for name, on in (("refit", options.refit), ("coherence", options.coherence > 0)) if on]
    if not wanted or options.ifscube_compat:  # which has a refit of its own
        return False
    if not options.fixed and options.individual_spec is None:
        return True
    reason = "fixed: nothing is fitted" if options.fixed else "individual_spec: a single spaxel has no neighbours"
    warnings.warn(f"{' and '.join(wanted)} changed nothing, because of {reason}.", IfujaxWarning, stacklevel=3)
    return False


class Passes:
    """What is done after the first fit of all spaxels.

    Parameters
    ----------
    fitter : ChunkFitter
    whole : Cube
        Before it was cut: its light may say where rings begin.
    rows : array (n,)
        Flat indices of the fitted spaxels, one of each bin.
    chunk : int
        Spaxels in memory at a time; the result does not depend on it.
    keep : callable
    progress : callable, optional
    """

    def __init__(
        self, fitter: ChunkFitter, whole: Cube, rows: np.ndarray, chunk: int, keep: Keep, progress: Progress | None
    ) -> None:
        self.fitter, self.whole, self.rows, self.chunk, self.keep = fitter, whole, rows, chunk, keep
        self.quick = fitter.without_draws()
        self._progress = progress

    def __call__(self, collected: Collection) -> Collection:
        """Return the final fits from the first ones, which are overwritten."""
        options = self.fitter.config.fit
        neighbourhood = Neighbourhood(self.fitter.cube, self.rows, options.refit_radius)
        centre = centre_of(self.whole, options.spiral_center)
        if not Teachers(self.quick, collected.of(self.rows)).teaches.any():
            warnings.warn(
                f"refit and coherence changed nothing: no spaxel has a line with a flux above {DETECTED:g} times its error.",
                IfujaxWarning,
                stacklevel=3,
            )
            return self._drawn(collected, Narrowed())
        labels = Labels(self.quick, neighbourhood, neighbourhood.spiral(centre))
        labels.align(collected)
        narrowed = Narrowed()
        if options.refit:
            done = refit(self.quick, neighbourhood, centre, collected, self._fit_some, self._teller("refit"))
            narrowed = done.narrowed
            _tell_held(done)
        if options.coherence > 0:
            Coherence(self.quick, neighbourhood, collected, narrowed, self._fit_some, self._teller("coherence"))()
            if not narrowed.lower:  # else each component has bounds of its own by now
                labels.align(collected)
        return self._drawn(collected, narrowed)

    def _fit_some(self, name: str, mine: np.ndarray, guess: Guess) -> ChunkResult:
        return self.keep(name, lambda: self._parts(self.quick, mine, guess))

    def _parts(self, fitter: ChunkFitter, mine: np.ndarray, guess: Guess) -> ChunkResult:
        parts = []
        for first in range(0, len(mine), self.chunk):
            size = min(self.chunk, len(mine) - first)
            # Every new size of a batch may compile something: they come in few, and in no less than blocks of the engine have.
            whole = min(-(-size // BATCH) * BATCH, max(size, len(self.rows)))
            at = np.resize(np.arange(first, first + size), whole)
            parts.append(fitter.fit(self.rows[mine[at]], guess=guess.of(at)).of(np.arange(size)))
            fitter.cube.release()
        return ChunkResult.joined(parts)

    def _drawn(self, collected: Collection, narrowed: Narrowed) -> Collection:
        """Replace the errors by the scatter of Monte Carlo draws about the final solutions, where that was asked for."""
        if not self.fitter.config.fit.monte_carlo:
            return collected
        final = Collection(self.fitter)
        tell = self._teller("monte_carlo")
        for first in range(0, len(self.rows), self.chunk):
            tell(first, len(self.rows))
            mine = np.arange(first, min(first + self.chunk, len(self.rows)))
            rows = self.rows[mine]
            found = collected.of(rows)
            guess = Guess(named(self.fitter, found.solution), *narrowed.of(mine))
            drawn = self.keep(f"draws-{first:09d}", lambda mine=mine, guess=guess: self._parts(self.fitter, mine, guess))
            final.put(rows, replace(found, errors=np.where(np.isnan(found.values), np.nan, drawn.errors), draws=drawn.draws))
        tell(len(self.rows), len(self.rows))
        return final

    def _teller(self, stage: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(stage, done, total)

        return tell


def _tell_held(done: Refitted) -> None:
    n, strengths = int(done.held.sum()), int(done.strength_held.sum())
    if not n:
        return
    told = f"refit holds {n} of {len(done.held)} spaxels at bounds about their neighbours"
    if strengths:
        told += f", {strengths} of them in the strength of a line: where it is brighter than around, it comes out too faint"
    warnings.warn(f"{told}. Widen bounds_change, or leave it out.", IfujaxWarning, stacklevel=4)
