"""What the residuals of a cube's fits say about its noise: its correlation, the errors that allow for it, and advisory bits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ifujax.errors import IfujaxWarning
from ifujax.inference import status as bits
from ifujax.inference.correlation import MANY, Autocorrelation, pooled
from ifujax.inference.goodness import Structure, chi2_far_from_1, structure
from ifujax.inference.residuals import N_ABSORBED, SAMPLE, ResidualSums

if TYPE_CHECKING:
    from ifujax.lines.chunk import ChunkFitter, ChunkResult
    from ifujax.lines.collection import Collection
    from ifujax.progress import Progress

MATTERS = 1.05
"""By what correlation must multiply errors to be worth a bit and a sentence."""
LEAST = 0.05
"""Correlation of neighbours that resampled pixels have at least; less of it may be misfits that all spaxels share."""

_BATCH = 64
"""A block of the engine on a CPU: fits that cost as much as fewer would."""

Keep = Callable[[str, "Callable[[], ChunkResult]"], "ChunkResult"]


@dataclass(frozen=True, eq=False)
class WorstStretch:
    """Where residuals are worst, a [y, x] map each: NaN where there is no fit.

    Attributes
    ----------
    wavelength, width : array
        Middle and width of the stretch, rest Angstrom.
    share : array
        Part of chi2 that is in it.
    chance : array
        That noise alone does as much somewhere, or more.
    """

    wavelength: np.ndarray
    width: np.ndarray
    share: np.ndarray
    chance: np.ndarray


def sums_of(fitter: ChunkFitter, found: ChunkResult) -> ResidualSums:
    """Return the sums over the residuals of fits; NaN where they failed."""
    return ResidualSums(np.where((found.status == 0)[:, None], found.residuals, np.nan), fitter.absorbed)


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


def signal_of(fitter: ChunkFitter, found: ChunkResult) -> np.ndarray:
    """Return the largest signal to noise of any line of each fit, (n,); 0 where there is none."""
    at = fitter.quantities.index("flux")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.abs(found.values[:, :, at] / found.errors[:, :, at]), posinf=0.0).max(axis=1)


def judged(fitter: ChunkFitter, found: ChunkResult) -> Structure:
    """Return what the residuals show beside noise; correlation that the whole cube has is noise."""
    known = fitter.pooled
    alone = known is None or not known.significant or (known.n_fits < MANY and fitter.config.fit.noise != "correlated")
    return structure(sums_of(fitter, found), None if alone or known is None else known.local)


def worst_stretch(seen: Structure, edges: np.ndarray, shape: tuple[int, int]) -> WorstStretch:
    """Return where the residuals of all spaxels are worst, from what they show and the pixel `edges` (rest Angstrom)."""
    last = len(edges) - 1
    first = np.nan_to_num(seen.first).astype(int).clip(0, last)
    stop = (first + np.nan_to_num(seen.count).astype(int)).clip(0, last)
    lost = np.isnan(seen.chance)
    low, high = (np.where(lost, np.nan, edges[at]) for at in (first, stop))
    maps = (0.5 * (low + high), high - low, seen.share, seen.chance)
    return WorstStretch(*(each.reshape(shape) for each in maps))


def noise_scale(fitter: ChunkFitter, found: ChunkResult) -> np.ndarray:
    """Return what errors of given variances are multiplied by, (n,): 1, or the root of chi2 per degree of freedom.

    Of correlated noise a fit absorbs what it has at low frequencies, not a share per parameter.
    """
    mode, dof = fitter.config.fit.noise, fitter.dof(found.n_good)
    if mode == "given":
        return np.ones(len(found.chi2))
    if fitter.correlation is not None and fitter.pooled is not None:
        dof = found.n_good - fitter.n_free * fitter.pooled.growth(fitter.correlation)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.where(dof > 0, found.chi2 / dof, np.nan))


def residual_bits(fitter: ChunkFitter, found: ChunkResult) -> np.ndarray:
    """Return the advisory bits (n,) that residuals give: structure, a chi2 far from 1, correlation that errors leave out."""
    if fitter.config.fit.fixed or fitter.config.fit.ifscube_compat:
        return np.zeros(len(found.chi2), np.int32)
    known, options = fitter.pooled, fitter.config.fit
    fitted = found.status == 0
    warn = np.where(judged(fitter, found).found, bits.STRUCTURED_RESIDUALS.value, 0)
    spread = 1.0
    if known is not None and known.significant:
        spread = 1.0 + 2.0 * float(np.sum(known.local[1:] ** 2))
    far = chi2_far_from_1(found.chi2, found.n_good - fitter.n_free, spread * options.instrument_dispersion)
    warn |= np.where(far & np.isnan(found.noise), bits.CHI2_NOT_1.value, 0)
    if left_out(fitter):
        warn |= bits.CORRELATED_NOISE.value
    return np.where(fitted, warn, 0).astype(np.int32)


def left_out(fitter: ChunkFitter) -> bool:
    """Whether noise is correlated, errors do not allow for it, and it matters."""
    known = fitter.pooled
    if known is None or fitter.config.fit.noise == "correlated" or fitter.config.fit.ifscube_compat:
        return False
    # Of few fits nobody can tell correlated noise from misfits.
    return known.n_fits >= MANY and known.inflation > MATTERS and known.local[1:].max(initial=0.0) > LEAST


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
        from ifujax.lines.collection import Collection

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
    from ifujax.lines.chunk import Guess

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


def in_words(known: Autocorrelation) -> str:
    """Return the correlation as a short text."""
    return ", ".join(f"{value:.2f}" for value in known.values[1 : max(known.reach, 1) + 1])


def worst_in_words(wavelength: float, width: float, share: float) -> str:
    """Return where residuals are worst, to go behind the sentence that they are no noise."""
    return f" (worst at {wavelength:.1f} Angstrom, {width:.3g} wide: {100 * share:.0f} % of chi2)"


def _tell(known: Autocorrelation) -> None:
    pixels = "the next pixel" if known.reach < 2 else f"the next {known.reach} pixels"
    warnings.warn(
        f"noise is correlated along wavelength ({in_words(known)} with {pixels}): errors are too small by a factor of about "
        f"{known.inflation:.2f}. noise='correlated' ([fit] noise: correlated) allows for it.",
        IfujaxWarning,
        stacklevel=4,
    )
