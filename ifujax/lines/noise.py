"""What the residuals of a cube's fits say about its noise: its correlation, the errors that allow for it, and advisory bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ifujax.inference import status as bits
from ifujax.inference.correlation import MANY, Autocorrelation
from ifujax.inference.goodness import Structure, chi2_far_from_1, structure
from ifujax.inference.residuals import ResidualSums

if TYPE_CHECKING:
    from ifujax.lines.chunk import ChunkFitter, ChunkResult

MATTERS = 1.05
"""By what correlation must multiply errors to be worth a bit and a sentence."""
LEAST = 0.05
"""Correlation of neighbours that resampled pixels have at least; less of it may be misfits that all spaxels share."""


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


def in_words(known: Autocorrelation) -> str:
    """Return the correlation as a short text."""
    return ", ".join(f"{value:.2f}" for value in known.values[1 : max(known.reach, 1) + 1])


def worst_in_words(wavelength: float, width: float, share: float) -> str:
    """Return where residuals are worst, to go behind the sentence that they are no noise."""
    return f" (worst at {wavelength:.1f} Angstrom, {width:.3g} wide: {100 * share:.0f} % of chi2)"
