"""A second look at finished fits: those that are bad by their own account, and components that may as well be elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import jax
import numpy as np

from ifujax.inference import status as bits
from ifujax.inference.parameter_space.declarations import Bounded
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.results import FitResult
from ifujax.inference.starts import RIVAL, UNSURE
from ifujax.lines.line_spectra import line_spectra
from ifujax.lines.preparation import Prepared
from ifujax.lines.starts.packing import Named, named_starts, pack_named
from ifujax.lines.starts.search import Starts
from ifujax.lines.starts.unseen import FOUND, hardly_seen, held
from ifujax.robust import MAD_TO_SIGMA, row_median

if TYPE_CHECKING:
    from ifujax.lines.chunk import ChunkFitter

_ROUNDS = 3
_MORE_STARTS = 4
_UNLIKELY = 3.0
"""Standard deviations of chi2 above its expectation from which a fit is tried again."""
_BETTER = 1e-3
"""By how much chi2 has to fall for another minimum to be taken."""
_DETECTED = 3.0


class SecondLook:
    """Tries fits again. Rows are judged one by one: the result does not depend on what else is in the chunk.

    Parameters
    ----------
    fitter : ChunkFitter
    ready, space, unseen, found, rows
        What was fitted, which of its lines (n, lines) were held, and where it began.
    """

    def __init__(
        self, fitter: ChunkFitter, ready: Prepared, space: ParameterSpace, unseen: np.ndarray, found: Starts, rows: np.ndarray
    ) -> None:
        self.fitter, self.ready, self.unseen, self.found, self.rows = fitter, ready, unseen, found, rows
        self.wide = space.broadcast(len(rows))

    def __call__(self, result: FitResult) -> tuple[FitResult, ParameterSpace, np.ndarray]:
        """Return the fits, each the best that was found, the space that they were made in, and which lines were held."""
        result = self._without_runaways(self._improved(self._without_runaways(result)))
        return result, self.wide, self.unseen

    def _without_runaways(self, result: FitResult) -> FitResult:
        """Fit again without the lines that went where the data hold next to nothing of them: it counts if that is as good."""
        finder, model, ivar = self.fitter.finder, self.fitter.setup.model, self.ready.ivar
        velocity, sigma = (
            np.stack([result.params[f"{name}.{role}"] for name in model.names], axis=1)
            for role in ("velocity", "velocity_dispersion")
        )
        # A fit that found no end may have been led astray from where it began.
        astray = (result.status & bits.NOT_CONVERGED.value) != 0
        velocity[astray], sigma[astray] = self.found.velocity[0][astray], self.found.sigma[0][astray]
        lost = hardly_seen(finder, ivar, velocity, sigma) & ~self.unseen
        mine = np.flatnonzero(lost.any(axis=1))
        if not mine.size:
            return result
        ways = [{name: result.params[name][mine] for name in model.parameter_names}]
        ways += [{name: value[mine] for name, value in way.items()} for way in named_starts(self.fitter.setup, self.found)]
        space = held(self.fitter.setup, self.wide, self.unseen | lost)
        again = self._fit(mine, ways, space)
        before = result.of(mine)
        with np.errstate(invalid="ignore"):
            as_good = (again.status == 0) & (astray[mine] | (again.chi2 - before.chi2 < FOUND))
        lost[mine[~as_good]] = False
        self.unseen = self.unseen | lost
        self.wide = held(self.fitter.setup, self.wide, self.unseen)
        return result.replaced(mine[as_good], again.of(as_good))

    def _left(self, result: FitResult, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what fits left of the data of some rows (n, n_pix), and the fitted lines (n, lines, n_pix)."""
        model, coords = self.fitter.setup.model, self.fitter.coords
        params = {name: result.params[name][mine] for name in model.parameter_names}
        own = line_spectra(model, coords, params, len(coords.width), each=True)
        left = self.ready.values[mine] - own.sum(axis=1)
        if model.n_continuum:
            left = left - result.linear[mine] @ coords.basis
        return left, own

    def _improved(self, result: FitResult) -> FitResult:
        bad = np.flatnonzero(self._bad(result))
        if bad.size:
            found = self.fitter.finder.find(self.ready.residual[bad], self.ready.ivar[bad], _MORE_STARTS, self.rows[bad])
            result, _ = self._tried(result, bad, named_starts(self.fitter.setup, found))
        moving = np.arange(len(self.rows)) if len(self.fitter.finder.components) > 1 else np.zeros(0, int)
        for _ in range(_ROUNDS):
            moving = moving[result.status[moving] == 0]
            if not moving.size:
                break
            ways = self._moves(result, moving)
            some = np.isfinite(np.stack([way[self._leader] for way in ways])).any(axis=0)
            moving, ways = moving[some], [{name: value[some] for name, value in way.items()} for way in ways]
            if moving.size:
                result, better = self._tried(result, moving, ways)
                moving = moving[better]
        return result

    @property
    def _leader(self) -> str:
        return f"{self.fitter.setup.model.names[0]}.velocity"

    def _moves(self, result: FitResult, mine: np.ndarray) -> list[Named]:
        """Return starts (NaN: none) of some rows in which one component goes elsewhere."""
        model = self.fitter.setup.model
        params = {name: result.params[name][mine] for name in model.parameter_names}
        left, own = self._left(result, mine)
        velocity, sigma = (
            np.stack([params[f"{name}.{role}"] for name in model.names], axis=1) for role in ("velocity", "velocity_dispersion")
        )
        found = self.fitter.finder.elsewhere(left, own, self.ready.ivar[mine], velocity, sigma)
        ways: list[Named] = []
        for k in range(len(found.velocity)):
            moved = np.isfinite(found.velocity[k])
            some = moved.any(axis=1)
            way = {name: np.where(some, value, np.nan) for name, value in params.items()}
            for i, name in enumerate(model.names):
                for role, values in (
                    ("velocity", found.velocity),
                    ("velocity_dispersion", found.sigma),
                    (model.strengths[i], found.strength),
                ):
                    key = f"{name}.{role}"
                    way[key] = np.where(moved[:, i], values[k][:, i], way[key])
            ways.append(way)
        return ways

    def _tried(self, result: FitResult, mine: np.ndarray, ways: Sequence[Named]) -> tuple[FitResult, np.ndarray]:
        """Fit some rows from further starts; also return which of them (bool) came out better."""
        again = self._fit(mine, ways)
        before = result.of(mine)
        sound = (before.status == 0) & (again.status == 0)
        with np.errstate(invalid="ignore"):
            fall = before.chi2 - again.chi2
        better = np.where(sound, fall > _BETTER, (before.status != 0) & (again.status == 0))
        near = np.where(np.abs(fall) < RIVAL, bits.OTHER_MINIMUM.value, 0)
        near |= np.where(np.abs(fall) < UNSURE, bits.ERRORS_NOT_TRUSTED.value, 0)
        bit = np.where(sound[:, None] & self._apart(before, again), near[:, None], 0).astype(np.int32)
        every = np.zeros_like(result.element_warn)
        every[mine] = bit
        return result.with_warnings(every).replaced(mine[better], again.with_warnings(bit).of(better)), better

    def _fit(self, mine: np.ndarray, ways: Sequence[Named], space: ParameterSpace | None = None) -> FitResult:
        chosen = self.wide if space is None else space
        some = jax.tree.map(lambda leaf: leaf[mine], chosen)
        obs = self.fitter.observations(_rows_of(self.ready, mine))
        start = np.concatenate([pack_named(self.fitter.setup, some, way, len(mine)) for way in ways])
        return self.fitter.solve(some, obs, start, again=True)

    def _apart(self, one: FitResult, other: FitResult) -> np.ndarray:
        """Which free parameters (n, n_free) of two fits of the same rows differ by more than their error."""
        apart = np.zeros(one.x.shape, bool)
        for j, name in enumerate(self.fitter.setup.space.structure.element_names):
            with np.errstate(invalid="ignore"):
                apart[:, j] = np.abs(one.params[name] - other.params[name]) > np.fmax(one.error[name], other.error[name])
        return apart

    def _bad(self, result: FitResult) -> np.ndarray:
        """Whether fits didn't converge, have an unlikely chi2, or a line that is detected at a bound of its velocity."""
        n_good, dof = result.n_good, np.maximum(result.dof, 1)
        bad = (result.status & bits.NOT_CONVERGED.value) != 0
        sound = (result.status == 0) & (result.dof > 0)
        unlikely = 1.0 + _UNLIKELY * np.sqrt(2.0 / dof)
        with np.errstate(invalid="ignore"):
            high = np.flatnonzero(sound & (result.chi2 / dof > unlikely))
        if high.size:
            # A wrong variance makes chi2 large as well, but away from the lines too.
            bad[high] = result.chi2[high] / dof[high] > unlikely[high] * np.maximum(self._scatter(high), 1.0)
        return bad | (sound & (n_good > 0) & self._at_velocity_bound(result))

    def _scatter(self, mine: np.ndarray) -> np.ndarray:
        """Squared scatter of the line-free data over their errors."""
        free = self.fitter.preparation.line_free
        pulls = (self.ready.residual[mine] * np.sqrt(self.ready.ivar[mine]))[:, : len(free)][:, free]
        used = self.ready.ivar[mine][:, : len(free)][:, free] > 0
        if not pulls.shape[1]:
            return np.ones(len(mine))
        middle = np.nan_to_num(row_median(pulls, used))
        scatter = MAD_TO_SIGMA * row_median(np.abs(pulls - middle[:, None]), used)
        return np.where(np.isfinite(scatter), scatter, 1.0) ** 2

    def _at_velocity_bound(self, result: FitResult) -> np.ndarray:
        setup = self.fitter.setup
        at_bound = np.zeros(len(self.rows), bool)
        for component in self.fitter.finder.components:
            leader = min(component.lines)
            item, name = setup.lines[leader].kinematics.velocity, setup.model.names[leader]
            if not isinstance(item, Bounded):
                continue
            names = setup.space.structure.element_names
            if f"{name}.velocity" not in names:
                continue
            j = names.index(f"{name}.velocity")
            value, low, high = result.params[f"{name}.velocity"], self.wide.lower[:, j], self.wide.upper[:, j]
            seen = np.zeros(len(self.rows), bool)
            for i in component.lines:
                flux = f"{setup.model.names[i]}.flux"
                with np.errstate(invalid="ignore", divide="ignore"):
                    seen |= np.abs(result.derived[flux] / result.derived_error[flux]) > _DETECTED
            at_bound |= seen & (high > low) & ((value <= low) | (value >= high))
        return at_bound


def _rows_of(ready: Prepared, mine: np.ndarray) -> Prepared:
    used = ("values", "residual", "ivar", "background", "moved_weight", "moved_inverse", "moved_extra")
    return replace(ready, **{name: getattr(ready, name)[mine] for name in used})
