"""`ComponentFit`: candidate fits of a cube, the choice among them in each spaxel, and the maps of what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import UsageError, unknown
from ifujax.inference.status import CORRELATED_NOISE, UNDECIDED
from ifujax.lines.config import Line
from ifujax.lines.results import CubeFit
from ifujax.lines.selection.criteria import Criterion, choose, criterion_of, evidence_of, weights_of
from ifujax.lines.selection.nested import SAME_LINE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_VERY_STRONG = 10.0
"""Difference of a criterion from which the evidence is "very strong" (Kass & Raftery 1995, JASA 90, 773)."""


def components_per_line(lines: Sequence[Line]) -> int:
    """Return how many components the line with most of them has: lines of one rest wavelength."""
    rest = np.array([line.rest_wavelength for line in lines])
    return int((np.abs(rest[:, None] - rest) < SAME_LINE).sum(axis=1).max())


class ChosenErrors:
    """1 sigma errors of the chosen candidates, indexed like the fit itself."""

    def __init__(self, fit: ComponentFit) -> None:
        self._fit = fit

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        return self._fit._chosen(key, errors=True)


@dataclass(frozen=True, eq=False)
class ComponentFit:
    """Candidate fits of a cube and the choice among them. ``fit["ha", "velocity"]`` is the [y, x] map of what was chosen.

    It is NaN where nothing was, or where the chosen candidate hasn't that line; ``fit.error["ha", "velocity"]`` is its error.
    The quantities are those of `CubeFit`.

    Attributes
    ----------
    fits : tuple of CubeFit
        One a candidate, in the order in which they were given.
    names : tuple of str
        Of the candidates.
    criterion : "bic" or "aic"
    threshold : float
        The simplest candidate within this of the lowest criterion is chosen.
    seconds : float
        Wall time of all fits.
    """

    fits: tuple[CubeFit, ...]
    names: tuple[str, ...]
    criterion: Criterion
    threshold: float
    seconds: float = field(repr=False)

    @property
    def cube(self) -> Cube:
        """The cube, cut to the fitting window."""
        return self.fits[0].cube

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)"""
        return self.fits[0].shape

    @cached_property
    def n_free(self) -> np.ndarray:
        """(candidates,) free parameters of one spaxel."""
        return np.array([fit.n_free for fit in self.fits])

    @cached_property
    def criteria(self) -> np.ndarray:
        """[candidate, y, x] the criterion: lower is better, NaN where the candidate was not fitted.

        With `instrument_dispersion` chi2 and the number of pixels are divided by it, so that correlated pixels count once. With
        `noise` other than given it is what the most complex candidate (of those fitted) leaves: chi2 is divided by its reduced
        chi2. Correlated pixels count as the fewer that have as much to say: by the growth of that candidate's variances.
        """
        options = self.fits[0].config.fit
        chi2 = np.stack([fit.chi2 for fit in self.fits]) / options.instrument_dispersion
        if options.noise != "given":
            scale = np.ones(self.shape)
            for k in np.argsort(self.n_free, kind="stable"):
                usable = np.isfinite(chi2[k]) & (self.fits[k].dof > 0)
                scale = np.where(usable, chi2[k] / np.where(usable, self.fits[k].dof, 1.0), scale)
            chi2 = chi2 / scale
        richest, alike = self.fits[int(np.argmax(self.n_free))].fitter, 1.0
        if richest.correlation is not None and richest.pooled is not None:
            alike = max(richest.pooled.growth(richest.correlation), 1.0)
        chi2 = chi2 / alike
        n_data = [fit.n_good / (options.instrument_dispersion * alike) for fit in self.fits]
        return np.stack([criterion_of(self.criterion, *each) for each in zip(chi2, n_data, self.n_free)])

    @cached_property
    def choice(self) -> np.ndarray:
        """[y, x] int: index of the chosen candidate, -1 where none was fitted."""
        return choose(self.criteria, self.n_free, self.threshold)

    @property
    def n_components(self) -> np.ndarray:
        """[y, x] int: components of the chosen candidate's lines (of the line that has most), 0 where none was fitted."""
        return self._of_choice(np.array([components_per_line(fit.setup.lines) for fit in self.fits]), 0)

    @cached_property
    def evidence(self) -> np.ndarray:
        """[y, x] by how much the criterion of the best of the other candidates exceeds the chosen one's.

        Negative where the choice rests on simplicity: another candidate is lower, by less than the threshold.
        """
        return evidence_of(self.criteria, self.choice)

    @property
    def weights(self) -> np.ndarray:
        """[candidate, y, x] Akaike or Schwarz weights, which add up to 1: with `bic` approximate posterior probabilities."""
        return weights_of(self.criteria)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """Names of the lines of all candidates."""
        return tuple(dict.fromkeys(line for fit in self.fits for line in fit.lines))

    @cached_property
    def settings(self) -> tuple[Line, ...]:
        """The lines of all candidates; of several with one name the first."""
        every = [line for fit in self.fits for line in fit.setup.lines]
        return tuple(next(line for line in every if line.name == name) for name in self.lines)

    @cached_property
    def quantities(self) -> tuple[str, ...]:
        """Names of what is reported of each line."""
        return tuple(dict.fromkeys(name for fit in self.fits for name in fit.quantities))

    @property
    def units(self) -> dict[str, str]:
        """Unit of each quantity."""
        return self.fits[0].units

    def _of_choice(self, values: np.ndarray, missing: float) -> np.ndarray:
        """Return (candidates,) or (candidates, y, x) values of the chosen candidate."""
        wide = np.broadcast_to(values.reshape(len(self.fits), *(values.shape[1:] or (1, 1))), (len(self.fits), *self.shape))
        picked = np.take_along_axis(wide, np.maximum(self.choice, 0)[None], axis=0)[0]
        return np.where(self.choice >= 0, picked, np.asarray(missing, picked.dtype))

    def _chosen(self, key: tuple[str, str], errors: bool = False) -> np.ndarray:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise UsageError(f"key must be a line and a quantity, such as ['ha', 'flux']; got {key!r}.")
        line, quantity = key
        if line not in self.lines:
            raise UsageError(unknown("line", line, self.lines))
        if quantity not in self.quantities:
            raise UsageError(unknown("quantity", quantity, self.quantities))
        maps = []
        for fit in self.fits:
            known = line in fit.lines and quantity in fit.quantities
            maps.append((fit.error if errors else fit)[line, quantity] if known else np.full(self.shape, np.nan))
        return self._of_choice(np.stack(maps), np.nan)

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        return self._chosen(key)

    @cached_property
    def error(self) -> ChosenErrors:
        """1 sigma errors by line and quantity."""
        return ChosenErrors(self)

    @property
    def status(self) -> np.ndarray:
        """[y, x] int32: 0 = a candidate was chosen, else why the simplest was not fitted (`ifujax.STATUS_FLAGS`)."""
        return np.where(self.choice >= 0, 0, self.fits[int(np.argmin(self.n_free))].status).astype(np.int32)

    @property
    def warn(self) -> np.ndarray:
        """[y, x] int32: advisory bits of the chosen candidate (`ifujax.WARN_FLAGS`).

        `UNDECIDED` where the evidence against the best of the others is less than very strong (10): a component that was missed,
        or one too many, makes widths and fluxes wrong by more than their errors. Whether noise is correlated is what the most
        complex candidate says: what others leave may pass for it.
        """
        bit = np.where((self.choice >= 0) & (self.evidence < _VERY_STRONG), UNDECIDED.value, 0)
        noise = self.fits[int(np.argmax(self.n_free))].warn & CORRELATED_NOISE.value
        bit = bit | np.where(self.choice >= 0, noise, 0)
        own = self._of_choice(np.stack([fit.warn for fit in self.fits]), 0) & ~CORRELATED_NOISE.value
        return (own | bit).astype(np.int32)

    def line_warn(self, line: str) -> np.ndarray:
        """Return the advisory bits [y, x] that concern one line, of the chosen candidate; 0 where it lacks the line."""
        if line not in self.lines:
            raise UsageError(unknown("line", line, self.lines))
        none = np.zeros(self.shape, np.int32)
        return self._of_choice(np.stack([fit.line_warn(line) if line in fit.lines else none for fit in self.fits]), 0)

    @property
    def chi2(self) -> np.ndarray:
        """[y, x] chi2 of the chosen candidate."""
        return self._of_choice(np.stack([fit.chi2 for fit in self.fits]), np.nan)

    @property
    def dof(self) -> np.ndarray:
        """[y, x] degrees of freedom of the chosen candidate."""
        return self._of_choice(np.stack([fit.dof for fit in self.fits]), np.nan)

    @property
    def reduced_chi2(self) -> np.ndarray:
        """[y, x] reduced chi2 of the chosen candidate."""
        return self._of_choice(np.stack([fit.reduced_chi2 for fit in self.fits]), np.nan)

    def chosen(self, x: int, y: int) -> CubeFit:
        """Return the fit that was chosen in a spaxel; the simplest where none was. 0-based pixels."""
        self._check(x, y)
        k = int(self.choice[y, x])
        return self.fits[k if k >= 0 else int(np.argmin(self.n_free))]

    def _check(self, x: int, y: int) -> None:
        ny, nx = self.shape
        if not (0 <= x < nx and 0 <= y < ny):
            raise UsageError(f"x, y must lie within 0..{nx - 1}, 0..{ny - 1}; got x={x}, y={y}.")

    @property
    def counts(self) -> Mapping[str, int]:
        """How many spaxels each candidate was chosen in."""
        return {name: int((self.choice == k).sum()) for k, name in enumerate(self.names)}

    def describe(self, x: int, y: int) -> str:
        """Return the candidates' criteria in one spaxel, and the chosen fit, in words and numbers. 0-based pixels."""
        self._check(x, y)
        k = int(self.choice[y, x])
        text = [f"spaxel x={x}, y={y}: " + (f"{self.names[k]} chosen by {self._rule}" if k >= 0 else "no candidate was fitted")]
        width = max(map(len, self.names))
        for i, fit in enumerate(self.fits):
            told = f"{self.n_free[i]} free parameters, chi2 {fit.chi2[y, x]:.1f}, {self.criterion} {self.criteria[i, y, x]:.1f}"
            text.append(f"  {self.names[i]:<{width}}  {told}, weight {self.weights[i, y, x]:.3g}")
        return "\n".join([*text, self.chosen(x, y).describe(x, y)])

    @property
    def _rule(self) -> str:
        return f"{self.criterion}, threshold {self.threshold:g}"

    def summary(self) -> str:
        """Return one line: how many spaxels each candidate was chosen in, and the time."""
        parts = [f"{count} {name}" for name, count in self.counts.items()]
        none = int((self.choice < 0).sum())
        return (
            f"{self.choice.size} spaxels: {', '.join(parts + [f'{none} none'] * bool(none))}; {self._rule}; {self.seconds:.1f} s"
        )

    def plot(self, x: int, y: int) -> Figure:
        """Return a figure of the chosen fit of one spaxel. 0-based pixels."""
        return self.chosen(x, y).plot(x, y)

    def plot_choice(self) -> Figure:
        """Return a figure of the map of the choice."""
        from ifujax.lines.selection.figures import choice_figure

        return choice_figure(self)

    def plot_map(self, line: str, quantity: str) -> Figure:
        """Return a figure of one map of what was chosen."""
        from ifujax.lines.selection.figures import map_figure

        return map_figure(self, line, quantity)

    def plot_page(self, line: str | None = None) -> Figure:
        """Return one page: the choice, the evidence, maps of a line (the strongest by default), and example spaxels."""
        from ifujax.lines.selection.figures import page_figure

        return page_figure(self, line)

    def write(self, path: str | Path, overwrite: bool = False, candidates: bool = False) -> Path:
        """Write the FITS product; with `candidates` also that of each candidate beside it, its name added to the file's."""
        from ifujax.lines.selection.product import write_selection

        return write_selection(self, Path(path), overwrite=overwrite, candidates=candidates)
