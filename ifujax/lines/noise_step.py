"""The step after all fits of a cube: the noise's correlation from their residuals, and errors that allow for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ifujax.errors import IfujaxWarning
from ifujax.inference.correlation import Autocorrelation, pooled
from ifujax.inference.residuals import N_ABSORBED, SAMPLE
from ifujax.lines.chunk import ChunkFitter, ChunkResult, Guess
from ifujax.lines.collection import Collection
from ifujax.lines.noise import in_words, left_out, signal_of, sums_of
from ifujax.progress import Progress

_BATCH = 64
"""A block of the engine on a CPU: fits that cost as much as fewer would."""

Keep = Callable[[str, Callable[[], ChunkResult]], ChunkResult]


class NoiseStep:
    """The step after all fits of a cube: the noise's correlation from their residuals, and errors that allow for it.

    Parameters
    ----------
    rows : array (n,)
        Flat indices of the fitted spaxels, one of each bin.
    chunk : int
        Spaxels in memory at a time; the result does not depend on it.
    keep : callable
        ``keep(name, make)``: what an earlier run kept by that name, else what is made now.
    progress : callable, optional
    """

    def __init__(self, rows: np.ndarray, chunk: int, keep: Keep, progress: Progress | None) -> None:
        self.rows, self.chunk, self.keep, self.progress = rows, chunk, keep, progress

    def __call__(self, fitter: ChunkFitter, collected: Collection) -> tuple[ChunkFitter, Collection]:
        """Return a fitter that knows the noise, and the fits with their final errors."""
        if fitter.config.fit.fixed or fitter.config.fit.ifscube_compat:
            return fitter, collected
        found = collected.of(self.rows)
        fitter = fitter.with_noise(None, typical_absorption(fitter, self.rows, found))
        known = pooled(sums_of(fitter, found), signal_of(fitter, found))
        fitter = fitter.with_noise(known, fitter.absorbed)
        if left_out(fitter):
            _tell(known)
        if fitter.config.fit.noise != "correlated":
            return fitter, collected
        final = Collection(fitter)
        total = len(self.rows)
        for first in range(0, total, self.chunk):
            if self.progress is not None:
                self.progress("errors", first, total)
            mine = self.rows[first : first + self.chunk]
            found = collected.of(mine)
            final.put(mine, self.keep(f"noise-{first:09d}", lambda mine=mine, found=found: again(fitter, mine, found)))
            fitter.cube.release()
        if self.progress is not None:
            self.progress("errors", total, total)
        return fitter, final


def again(fitter: ChunkFitter, rows: np.ndarray, found: ChunkResult) -> ChunkResult:
    """Return fits with the errors that the fitter's noise gives them: at their solutions, or by fits of its realisations."""
    names = fitter.setup.model.parameter_names
    solution = np.where((found.status == 0)[:, None], found.solution, np.nan)
    if fitter.config.fit.monte_carlo:
        drawn = fitter.fit(rows, guess=Guess(dict(zip(names, solution.T))))
        return replace(found, errors=np.where(np.isnan(found.values), np.nan, drawn.errors), draws=drawn.draws)
    if fitter.correlation is None:
        return found
    known = fitter.evaluate(rows, solution, found.unseen, fitter.derived)
    errors = found.errors.copy()
    for i, line in enumerate(fitter.setup.model.names):
        for q, quantity in enumerate(fitter.quantities):
            name = f"{line}.{quantity}"
            error = known.derived_error.get(name, known.error.get(name))
            if error is not None:
                # What was unknown before is unknown still.
                errors[:, i, q] = np.where(np.isnan(found.errors[:, i, q]), np.nan, error)
    return replace(found, errors=errors)


def typical_absorption(fitter: ChunkFitter, rows: np.ndarray, found: ChunkResult) -> np.ndarray:
    """Return what a fit takes of the noise, from some fitted spaxels (flat indices): evenly by chi2, the same in any order."""
    sound = np.flatnonzero(found.status == 0)
    if not sound.size:
        return np.zeros(N_ABSORBED)
    sound = sound[np.argsort(found.chi2[sound], kind="stable")]
    # Few of them count, but a batch of another size than before would compile anew.
    some = sound[np.linspace(0, len(sound) - 1, SAMPLE).round().astype(int)]
    some = np.resize(some, min(max(len(rows), 1), _BATCH))
    result = fitter.evaluate(rows[some], found.solution[some], found.unseen[some], fitter.derived)
    return np.zeros(N_ABSORBED) if result.absorbed is None else result.absorbed


def _tell(known: Autocorrelation) -> None:
    pixels = "the next pixel" if known.reach < 2 else f"the next {known.reach} pixels"
    warnings.warn(
        f"noise is correlated along wavelength ({in_words(known)} with {pixels}): errors are too small by a factor of about "
        f"{known.inflation:.2f}. noise='correlated' ([fit] noise: correlated) allows for it.",
        IfujaxWarning,
        stacklevel=4,
    )
