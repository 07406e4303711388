"""The second pass: every spaxel again, from its neighbours, ring by ring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ifujax.inference import status as bits
from ifujax.lines.chunk import ChunkFitter, ChunkResult, Guess
from ifujax.lines.collection import Collection
from ifujax.lines.neighbours.narrowing import Limits, Narrowed
from ifujax.lines.neighbours.teaching import Lesson, Neighbourhood, Teachers

FitSome = Callable[[str, np.ndarray, Guess], ChunkResult]
"""``fit_some(name, mine, guess)``: fits some spaxels (counted as in a `Neighbourhood`), or recalls what was kept by that name."""
Tell = Callable[[int, int], None]
SAME, RIVAL = 1e-3, 1.0
"""Solutions whose chi2 agree to the first are one minimum; within the second they are rivals."""
_NOT_TRIED_OUT = bits.NOT_CONVERGED.value | bits.NOT_FINITE.value
"""Status bits with which another start may help."""


@dataclass(frozen=True)
class Refitted:
    """How a refit went: the bounds that it narrowed, and which spaxels (n,) these hold, at all and in a line's strength."""

    narrowed: Narrowed
    held: np.ndarray
    strength_held: np.ndarray


def refit(
    fitter: ChunkFitter,
    neighbourhood: Neighbourhood,
    centre: tuple[float, float],
    collected: Collection,
    fit_some: FitSome,
    tell: Tell,
) -> Refitted:
    """Fit every spaxel again from the median of its neighbours, ring by ring from the centre outwards.

    A spaxel learns from all directions: from second fits in rings that are done, from first ones elsewhere, so that an error
    can't run along from spaxel to spaxel. One that ends on a narrowed bound goes on teaching what its own data said before.
    Unless the first solution breaks a narrowed bound, the second counts only where its chi2 is lower.

    Parameters
    ----------
    centre : (x, y)
    collected : Collection
        The first pass; second fits are put there.
    fit_some, tell : callable
        The latter is told how many spaxels of how many are done.
    """
    rows, n = neighbourhood.rows, len(neighbourhood)
    teachers, limits = Teachers(fitter, collected.of(rows)), Limits(fitter)
    narrowed, held, strength_held = Narrowed(), np.zeros(n, bool), np.zeros(n, bool)
    done = 0
    for k, ring in enumerate(neighbourhood.rings(centre)):
        tell(done, n)
        done += len(ring)
        lesson, before = teachers.lesson(neighbourhood, ring), collected.of(rows[ring])
        guess = guess_of(lesson, before.solution, teachers)
        useful = may_improve(before) & np.isfinite(guess).all(axis=1)
        if not useful.any():
            continue
        mine, first, lesson = ring[useful], before.of(useful), lesson.of(useful)
        lower, upper = limits.about(lesson, teachers)
        again = fit_some(f"refit-{k:06d}", mine, Guess(named(fitter, guess[useful]), lower, upper))
        at, at_strength = limits.reached(again.solution, lower, upper)
        broken = limits.broken(first.solution, lower, upper)
        accepted = (again.status == 0) & (lower_chi2(again, first) | broken)
        again, first = _with_rivals(again, first, at)
        collected.put(rows[mine], again.take(accepted, first))
        within = accepted | ~broken
        narrowed.put(mine[within], n, *({name: side[within] for name, side in sides.items()} for sides in (lower, upper)))
        held[mine], strength_held[mine] = accepted & at, accepted & at_strength
        free = accepted & ~at
        teachers.put(mine[free], again.of(free))
    tell(n, n)
    return Refitted(narrowed, held, strength_held)


def may_improve(found: ChunkResult) -> np.ndarray:
    """Which spaxels (m,) another start may help: fitted, or only lost on the way."""
    return (found.status & ~_NOT_TRIED_OUT) == 0


def lower_chi2(again: ChunkResult, first: ChunkResult) -> np.ndarray:
    """Where the new fit is the better one."""
    with np.errstate(invalid="ignore"):
        return (again.status == 0) & ((first.status != 0) | (again.chi2 < first.chi2 - SAME))


def guess_of(lesson: Lesson, own: np.ndarray, teachers: Teachers) -> np.ndarray:
    """Return starts (m, parameters): the neighbours' median; of components that none teaches, what the spaxel has itself.

    NaN where no component is taught.
    """
    taught = lesson.count > 0
    guess = np.where(taught[:, teachers.component_of], lesson.middle, own)
    return np.where(taught.any(axis=1, keepdims=True), guess, np.nan)


def named(fitter: ChunkFitter, solution: np.ndarray) -> dict[str, np.ndarray]:
    """Return solutions (m, parameters) by name."""
    return dict(zip(fitter.setup.model.parameter_names, solution.T))


def _with_rivals(again: ChunkResult, first: ChunkResult, held: np.ndarray) -> tuple[ChunkResult, ChunkResult]:
    """Say of both that there is another minimum, where they are two nearly as low."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(again.chi2 - first.chi2)
        rivals = (again.status == 0) & (first.status == 0) & ~held & (apart > SAME) & (apart < RIVAL)
    return again.with_rivals(rivals, first), first.with_rivals(rivals, again)
