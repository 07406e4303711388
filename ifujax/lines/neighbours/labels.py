"""Which of two components is which: where they are declared alike, a spectrum alone can't tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed, Tied
from ifujax.lines.chunk import ChunkFitter, ChunkResult
from ifujax.lines.collection import Collection
from ifujax.lines.config import Line
from ifujax.lines.neighbours.teaching import Neighbourhood, Teachers, row_median
from ifujax.lines.setup import VELOCITY_SCALE, Setup

_SWEEPS = 2
_UNSEEN = 100.0
"""What it counts, km/s, that a component is seen in one of two spaxels only."""


@dataclass(frozen=True)
class Alike:
    """Two components that may change places: which lines of one are which of the other (indices), in the same order."""

    one: tuple[int, ...]
    two: tuple[int, ...]


def alike_components(setup: Setup, components: list[list[int]]) -> list[Alike]:
    """Return the pairs of components with the same lines, bounds, ties and shapes (guesses may differ)."""
    pairs = []
    for b, second in enumerate(components):
        for first in components[:b]:
            partner = _partners(setup.lines, first, second)
            if partner is not None and _invariant(setup.lines, first, partner):
                pairs.append(Alike(tuple(first), tuple(partner)))
    return pairs


def _partners(lines: tuple[Line, ...], first: list[int], second: list[int]) -> list[int] | None:
    """For each line of the first component, the second's of the same rest wavelength and shape."""
    if len(first) != len(second):
        return None
    found = []
    for i in first:
        same = [
            j
            for j in second
            if abs(lines[j].rest_wavelength - lines[i].rest_wavelength) < 1e-6
            and (lines[j].shape, lines[j].strength) == (lines[i].shape, lines[i].strength)
        ]
        if len(same) != 1:
            return None
        found += same
    return found if len(set(found)) == len(found) else None


def _invariant(lines: tuple[Line, ...], first: list[int], second: list[int]) -> bool:
    """Whether every declaration stays what it is when the two components' names are exchanged."""
    names = {lines[i].name: lines[j].name for i, j in zip([*first, *second], [*second, *first])}
    partner = {**dict(zip(first, second)), **dict(zip(second, first))}
    pattern = re.compile("|".join(rf"(?<![\w.]){re.escape(name)}(?=\.)" for name in sorted(names, key=len, reverse=True)))

    def renamed(item: Declaration) -> Declaration:
        def swap(text: str | None) -> str | None:
            return None if text is None else pattern.sub(lambda match: names[match.group(0)], text)

        if isinstance(item, Tied):
            return replace(item, expression=swap(item.expression) or "")
        if isinstance(item, Fixed):
            return item
        return replace(item, start=None, above=swap(item.above), below=swap(item.below))

    for i, line in enumerate(lines):
        other = lines[partner.get(i, i)]
        for mine, theirs in zip(_declared(line), _declared(other)):
            if renamed(mine) != (replace(theirs, start=None) if isinstance(theirs, Bounded) else theirs):
                return False
    return True


def _declared(line: Line) -> list[Declaration]:
    return [line.strength_declaration, *(getattr(line.kinematics, role) for role in line.parameters[1:])]


class Labels:
    """Exchanges the labels of components that are declared alike, so that neighbours agree on them.

    chi2 and everything else stay what they are: only names change.
    """

    def __init__(self, fitter: ChunkFitter, neighbourhood: Neighbourhood, order: np.ndarray) -> None:
        self.fitter, self.neighbourhood, self.order = fitter, neighbourhood, order
        self.pairs = alike_components(fitter.setup, [list(component.lines) for component in fitter.finder.components])

    def align(self, collected: Collection) -> None:
        """Exchange labels in the fits of all spaxels, until they agree.

        Labels grow from the first spaxel outwards, each after those before it in `order`, then once more after all around it:
        where all spaxels looked at each other from the start, patches of either order would remain.
        """
        for pair in self.pairs:
            found = collected.of(self.neighbourhood.rows)
            swapped = self._swapped_rows(found, pair)
            collected.put(self.neighbourhood.rows[swapped], exchanged(self.fitter, found, pair).of(swapped))

    def _swapped_rows(self, found: ChunkResult, pair: Alike) -> np.ndarray:
        """Which spaxels (n,) of bool are to exchange the two components."""
        setup, teachers = self.fitter.setup, Teachers(self.fitter, found)
        index = {name: j for j, name in enumerate(setup.model.parameter_names)}
        leaders = [setup.model.names[side[0]] for side in (pair.one, pair.two)]
        place = np.array([[index[f"{name}.{role}"] for role in ("velocity", "velocity_dispersion")] for name in leaders])
        known = teachers.teaches[:, teachers.component_of[place[:, 0]]]
        column = self.fitter.quantities.index("flux")
        flux = np.stack([np.abs(found.values[:, list(side), column]).sum(axis=1) for side in (pair.one, pair.two)], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.log(flux / flux.sum(axis=1, keepdims=True))
        looks = np.concatenate([found.solution[:, place], VELOCITY_SCALE * share[:, :, None]], axis=2)  # (n, 2 components, 3)
        looks = np.where(known[:, :, None] & np.isfinite(looks).all(axis=2, keepdims=True), looks, np.nan)
        known = np.asarray(known.any(axis=1))
        swapped, done = np.zeros(len(known), bool), np.zeros(len(known), bool)
        table = self.neighbourhood.table(np.arange(len(known)))
        for sweep in range(_SWEEPS):
            for i in self.order[known[self.order]]:
                near = table[i][table[i] >= 0]
                near = near[known[near] & (done[near] | (sweep > 0))]
                others = looks[near] if near.size else self._reference(looks[done], pair)
                if _difference(others, looks[i, ::-1]) < _difference(others, looks[i]):
                    looks[i], swapped[i] = looks[i, ::-1].copy(), ~swapped[i]
                done[i] = True
        return swapped

    def _reference(self, done: np.ndarray, pair: Alike) -> np.ndarray:
        """What a spaxel without a neighbour is compared with: the guesses where these differ, else the median so far."""
        setup = self.fitter.setup
        guess = np.array([[setup.guess_velocity[side[0]], setup.guess_sigma[side[0]], 0.0] for side in (pair.one, pair.two)])
        if not np.array_equal(guess[0], guess[1]):
            return guess[None]
        return row_median(done.reshape(-1, 6).T).reshape(1, 2, 3)


def _difference(others: np.ndarray, mine: np.ndarray) -> float:
    """By how much two components (2, 3) differ from others (m, 2, 3), km/s; NaN is a component that is not seen."""
    apart = np.abs(others - mine).sum(axis=2)
    seen, both = np.isfinite(others[:, :, 0]), np.isfinite(mine[:, 0])[None]
    return float(np.where(seen & both, apart, np.where(seen ^ both, _UNSEEN, 0.0)).sum())


def exchanged(fitter: ChunkFitter, found: ChunkResult, pair: Alike) -> ChunkResult:
    """Return `found` with the two components of every spaxel exchanged."""
    setup = fitter.setup
    line = np.arange(len(setup.lines))
    line[[*pair.one, *pair.two]] = [*pair.two, *pair.one]
    names = setup.model.names
    index = {name: j for j, name in enumerate(setup.model.parameter_names)}
    renamed: Mapping[str, str] = {names[i]: names[line[i]] for i in range(len(names))}
    parts = [name.rsplit(".", 1) for name in setup.model.parameter_names]
    columns = [index[f"{renamed[owner]}.{role}"] for owner, role in parts]
    return replace(
        found,
        solution=found.solution[:, columns],
        values=found.values[:, line],
        errors=found.errors[:, line],
        draws=found.draws[:, :, line],
    )
