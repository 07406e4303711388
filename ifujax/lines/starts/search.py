"""Start values from the data: a matched filter over velocity and width for each kinematic component.

A common start leaves about 5 % of spectra in a wrong minimum. Here each component's grid of velocities and widths is tried on
every spectrum at once (matrix products of shared templates), with amplitudes of the declared sign solved at each grid point.
Several components are placed against each other: whichever comes first, each is moved to its best place beside the others until
they agree. Where another placement does nearly as well it becomes another start. The order in which lines and components were
declared plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ifujax.lines.setup import Setup
from ifujax.lines.starts.amplitudes import Pairs, crossed, joint, powers, score
from ifujax.lines.starts.components import Component, components_of, overlapping
from ifujax.lines.starts.sharing import SHARES, shared

_ROWS_AT_ONCE = 256
_MOST_WAYS, _CROSSINGS = 27, 2
"""Most combinations of the components' own peaks that are weighed, and how many of them are followed."""
_SWEEPS = 2
"""How often every component is placed again beside the others."""
RIVALS, SHARED_RIVALS = 3, 9
"""Most placements beside the best that are tried by default, for each component; the second, in all, where they share lines."""
_MARGIN, _COARSE = 5.0, 0.12
"""A placement is a rival if its gain in chi2 is within the first, and this share, of the best gain: what a grid point halfway
between two others loses."""
_ELSEWHERE, _NEARLY = 2, 4.0
"""Places beside its own at which each component of a fit is tried, where it does as well but for this much of chi2."""
_APART, _BLENDED_APART = 1.5, 0.5
"""Widths within which two grid points count as one place; the second where lines of the component blend."""
_BLENDED = 0.25
"""Correlation of the templates of two lines of a component from which they blend."""


@dataclass(frozen=True)
class Starts:
    """`velocity`, `sigma`, `strength`: (starts, n, lines); NaN where a spectrum has no further start.

    `gain` (n, components), where it is known: by how much each component of the first start lowers chi2.
    """

    velocity: np.ndarray
    sigma: np.ndarray
    strength: np.ndarray
    gain: np.ndarray | None = None


class StartFinder:
    """Finds starts for spectra on one wavelength axis.

    Parameters
    ----------
    setup : Setup
    pixel_velocity : array (lines, n_pix)
        km/s relative to each line.
    width : array (n_pix,)
        Pixel widths, Angstrom; 0 for padding.
    """

    def __init__(self, setup: Setup, pixel_velocity: np.ndarray, width: np.ndarray) -> None:
        self.setup = setup
        self.components = components_of(setup, pixel_velocity, width)
        self.pairs = overlapping(setup, self.components)
        reached = [component.templates.any(axis=(0, 1)) for component in self.components]
        self.inside = np.any(reached, axis=0)
        self.truncated = bool(self.inside[0] or self.inside[width > 0][-1])

    def find(self, residual: np.ndarray, ivar: np.ndarray, n_starts: int, seed_rows: np.ndarray) -> Starts:
        """Return starts for continuum-subtracted spectra.

        The best placement and its rivals, and ways of sharing lines between components that overlap. Of the
        rest of `n_starts`, three in four are the next best placements, and one in four is random within the bounds.

        Parameters
        ----------
        residual, ivar : array (n, n_pix)
            Data less continuum; inverse variance, 0 = masked.
        n_starts : int
        seed_rows : array (n,)
            Identity of each spectrum: its random starts do not depend on order or chunks.
        """
        extra = n_starts - 1
        chance = extra // 4
        ranked = extra - chance
        count = 1 + max(ranked, SHARED_RIVALS if self.pairs else RIVALS * len(self.components))
        found = np.full((3, count, len(residual), len(self.setup.lines)), np.nan)
        gain = np.empty((len(residual), len(self.components)))
        lone = np.full((3, len(self.components) * bool(self.pairs), *found.shape[2:]), np.nan)
        for first in range(0, len(residual), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            spectra = _Spectra.of(residual[part], ivar[part], self.components)
            gain[part] = self._place(spectra, 1 + ranked, found[:, :, part])
            for first in range(lone.shape[1]):
                self._after_another(spectra, first, lone[:, first, part])
        ways = [Starts(*found), Starts(*lone)]
        if chance:
            ways.append(self._random(ways[0], chance, seed_rows))
        every = (np.concatenate([getattr(way, name) for way in ways]) for name in ("velocity", "sigma", "strength"))
        velocity, sigma, strength = every
        return Starts(velocity, sigma, _rounded(strength), gain)

    def beside(self, left: np.ndarray, ivar: np.ndarray, groups: Sequence[int], count: int) -> Starts:
        """Place some components in what the others leave: the first at each of its `count` best places, the rest at their best.

        Parameters
        ----------
        left, ivar : array (n, n_pix)
            Data less continuum and the other components; inverse variance, 0 = masked.
        groups : sequence of int
            Which of `components`.
        count : int

        Returns
        -------
        Starts
            (count, n, lines); NaN for lines of other components, and where there is no further place.
        """
        found = np.full((3, count, len(left), len(self.setup.lines)), np.nan)
        mine = [self.components[group] for group in groups]
        for row in range(0, len(left), _ROWS_AT_ONCE):
            part = slice(row, row + _ROWS_AT_ONCE)
            spectra = _Spectra.of(left[part], ivar[part], mine)
            gain, _ = spectra.score(0, spectra.y)
            for k, (place, known) in enumerate(_peaks(mine[0], gain, count, np.full(len(gain), _APART))):
                places = np.zeros((len(gain), len(mine)), int)
                places[:, 0] = place
                for c in range(1, len(mine)):
                    rest = spectra.y - joint(mine[:c], places[:, :c], spectra.weighted, spectra.w)[2].sum(axis=1)
                    places[:, c] = np.argmax(spectra.score(c, rest)[0], axis=1)
                strengths = joint(mine, places, spectra.weighted, spectra.w)[1]
                _write(found[:, k, part], mine, places, strengths, spectra.scale, known)
        return Starts(*found)

    def elsewhere(self, left: np.ndarray, own: np.ndarray, ivar: np.ndarray, velocity: np.ndarray, sigma: np.ndarray) -> Starts:
        """Return where a component of a fit would do about as well or better, the others left as they are.

        Parameters
        ----------
        left, ivar : array (n, n_pix)
            Data less the fitted model; inverse variance, 0 = masked.
        own : array (n, lines, n_pix)
            The fitted lines.
        velocity, sigma : array (n, lines)
            Theirs, km/s; dispersions without the LSF.

        Returns
        -------
        Starts
            (places, n, lines): each moves the lines of one component; NaN for the others, and where there is none.
        """
        found = np.full((3, _ELSEWHERE * len(self.components), *velocity.shape), np.nan)
        for row in range(0, len(left), _ROWS_AT_ONCE):
            part = slice(row, row + _ROWS_AT_ONCE)
            spectra = _Spectra.of(left[part], ivar[part], self.components)
            for c, component in enumerate(self.components):
                lines = list(component.lines)
                mine = (own[part][:, lines].sum(axis=1) * spectra.scale).astype(np.float32)
                gain, strengths = spectra.score(c, spectra.y + mine)
                now = (spectra.w * mine * (2 * spectra.y + mine)).sum(axis=1)
                here = _nearest(component, velocity[part][:, lines[0]], sigma[part][:, lines[0]])
                reach = np.full(len(gain), _APART)
                gain = gain.copy()
                gain[component.near(here, reach)] = -np.inf
                rows = np.arange(len(gain))
                for k, (place, known) in enumerate(_peaks(component, gain, _ELSEWHERE, reach)):
                    known = known & ((1 + _COARSE) * gain[rows, place] + _NEARLY > now)
                    target = found[:, _ELSEWHERE * c + k, part]
                    _write(target, [component], place[:, None], [strengths[:, rows, place].T], spectra.scale, known)
        return Starts(found[0], found[1], _rounded(found[2]))

    def share(self, ivar: np.ndarray, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Return the share (n, lines) of the information on each line's strength that usable pixels hold.

        Parameters
        ----------
        ivar : array (n, n_pix)
            Inverse variance, 0 = masked; the mean of a row stands for that of pixels that are missing.
        velocity, sigma : array (n, lines)
            Where each line is, km/s; NaN counts as seen in full.
        """
        found = np.ones(velocity.shape)
        typical = ivar.sum(axis=1) / np.maximum((ivar > 0).sum(axis=1), 1)
        typical = np.where(typical > 0, typical, 1.0)
        gaps = np.flatnonzero((ivar < 0.1 * typical[:, None])[:, self.inside].any(axis=1) | self.truncated)
        weight = np.minimum(ivar[gaps] / typical[gaps, None], 10.0).astype(np.float32)
        for component in self.components:
            lines = list(component.lines)
            v, s = velocity[gaps][:, lines[0]], sigma[gaps][:, lines[0]]
            known = np.isfinite(v) & np.isfinite(s)
            place = _nearest(component, np.where(known, v, 0.0), np.where(known, s, 100.0))
            for k, i in enumerate(lines):
                span = component.spans[k]
                own = component.templates[place, k, span]
                share = np.einsum("np,np,np->n", weight[:, span], own, own) / component.whole[k, place]
                found[gaps, i] = np.where(known, share, 1.0)
        return found

    def _place(self, spectra: _Spectra, least: int, found: np.ndarray) -> np.ndarray:
        """Write the best placement of each spectrum, its next best up to `least`, and further rivals, into `found`.

        Return by how much each component of the best lowers chi2 (n, components).
        """
        components, rows = self.components, np.arange(len(spectra.y))
        if len(components) == 1:
            return self._place_one(spectra, least, found)
        alone = [spectra.score(c, spectra.y)[0] for c in range(len(components))]
        pool = self._ends(spectra, alone)
        settled = len(pool)
        for pair, share in product([*self.pairs, *((b, a) for a, b in self.pairs)], SHARES):
            places = pool[0].copy()
            places[:, pair] = shared(components, np.argmax(alone[pair[0]], axis=1), pair, share)
            pool.append(places)
        gains = np.stack([joint(components, places, spectra.weighted, spectra.w)[0] for places in pool])
        best = np.stack(pool)[np.argmax(gains, axis=0), rows]
        pool = [best, *pool]
        known = [np.all([(places != other).any(axis=1) for other in pool[:k]], axis=0) for k, places in enumerate(pool)]
        known[0] = np.ones(len(rows), bool)
        _, _, model = joint(components, best, spectra.weighted, spectra.w)
        left = spectra.y - model.sum(axis=1)
        own_gain = np.stack([(spectra.w * part * (2 * left + part)).sum(axis=1) for part in np.moveaxis(model, 1, 0)], axis=1)
        for c, component in enumerate(components):
            gain, _ = spectra.score(c, left + model[:, c])
            reach = np.where(spectra.blended(c, best[:, c]), _BLENDED_APART, _APART)
            gain[component.near(best[:, c], reach)] = -np.inf
            for place, there in _peaks(component, gain, found.shape[1] - 1, reach):
                moved = best.copy()
                moved[:, c] = place
                pool.append(moved)
                known.append(there)
        solved = [joint(components, places, spectra.weighted, spectra.w)[:2] for places in pool]
        gain = np.where(np.stack(known), np.stack([own for own, _ in solved]), -np.inf)
        top = solved[0][0]
        margin = _MARGIN + _COARSE * top
        # The best; where components came to rest, each a basin of its own; what is near the best, or a way of sharing.
        tier = np.where(np.arange(len(pool)) <= settled, 1, 0)
        tier[0] = 2
        order = np.lexsort((-gain, -np.where(np.isfinite(gain), tier[:, None], -1)), axis=0)
        for k in range(min(found.shape[1], len(pool))):
            chosen = order[k]
            own = gain[chosen, rows]
            kept = np.isfinite(own) | (k == 0)
            if k >= least:
                kept &= own > top - margin
            strengths = [np.stack(each)[chosen, rows] for each in zip(*(strength for _, strength in solved))]
            _write(found[:, k], components, np.stack(pool)[chosen, rows], strengths, spectra.scale, kept)
        return own_gain

    def _place_one(self, spectra: _Spectra, least: int, found: np.ndarray) -> np.ndarray:
        """Do the same for the only component: the score says it all."""
        component, rows = self.components[0], np.arange(len(spectra.y))
        gain, strengths = spectra.score(0, spectra.y)
        best = np.argmax(gain, axis=1)
        top = gain[rows, best]
        _write(found[:, 0], [component], best[:, None], [strengths[:, rows, best].T], spectra.scale, np.ones(len(rows), bool))
        reach = np.where(spectra.blended(0, best), _BLENDED_APART, _APART)
        others = np.where(component.near(best, reach), -np.inf, gain)
        margin = _MARGIN + _COARSE * top
        for k in range(1, found.shape[1]):
            # Most spectra have no rival: the others need not be looked at.
            some = np.flatnonzero(others.max(axis=1) > (-np.inf if k < least else top - margin))
            if not some.size:
                break
            place = np.argmax(others[some], axis=1)
            target = np.full((3, len(some), found.shape[3]), np.nan)
            own = strengths[:, some, place].T
            _write(target, [component], place[:, None], [own], spectra.scale[some], np.ones(len(some), bool))
            found[:, k, some] = target
            left = others[some]
            left[component.near(place, reach[some])] = -np.inf
            others = np.full_like(others, -np.inf)
            others[some] = left
        return top[:, None]

    def _ends(self, spectra: _Spectra, alone: list[np.ndarray]) -> list[np.ndarray]:
        """Return where components come to rest, (n, components) grid points.

        They begin at the best ways of giving each one of its own peaks, and with each in turn as the first to be placed.

        `alone` are the gains (n, grid) of each component by itself.
        """
        components, rows = self.components, np.arange(len(spectra.y))
        count = max(2, int(_MOST_WAYS ** (1 / len(components)) + 1e-9))
        reach = np.full(len(rows), _APART)
        peaks = [np.stack([place for place, _ in _peaks(c, gain, count, reach)], axis=1) for c, gain in zip(components, alone)]
        gain, ways = crossed(components, peaks, spectra.weighted, spectra.w)
        ends = []
        ranked = np.argsort(-gain, axis=1, kind="stable")[:, :_CROSSINGS]
        for chosen in np.moveaxis(ways[ranked], 1, 0):
            ends.append(np.stack([own[rows, chosen[:, c]] for c, own in enumerate(peaks)], axis=1))
        for first in range(len(components)):
            places = np.zeros((len(rows), len(components)), int)
            placed = [first]
            places[:, first] = peaks[first][:, 0]
            for c in (c for c in range(len(components)) if c != first):
                model = joint([components[k] for k in placed], places[:, placed], spectra.weighted, spectra.w)[2]
                places[:, c] = np.argmax(spectra.score(c, spectra.y - model.sum(axis=1))[0], axis=1)
                placed.append(c)
            ends.append(places)
        for places in ends:
            self._settle(spectra, places)
        return ends

    def _settle(self, spectra: _Spectra, places: np.ndarray) -> None:
        """Move each component to its best place beside the others, in turn, where that still changes something."""
        moving = np.arange(len(places))
        for _ in range(_SWEEPS):
            before, some = places[moving].copy(), spectra.of_rows(moving)
            now = before.copy()
            for c in range(len(self.components)):
                model = joint(self.components, now, some.weighted, some.w)[2]
                now[:, c] = np.argmax(some.score(c, some.y - model.sum(axis=1) + model[:, c])[0], axis=1)
            places[moving] = now
            moving = moving[(now != before).any(axis=1)]
            if not moving.size:
                return

    def _after_another(self, spectra: _Spectra, first: int, found: np.ndarray) -> None:
        """Write a component that has all that it can have, and the others in what it leaves, into `found` (3, n, lines).

        Of components that share lines one may be all there is to see, and the other somewhere in the noise.
        """
        rows, left = np.arange(len(spectra.y)), spectra.y
        for c in (first, *(c for c in range(len(self.components)) if c != first)):
            component = self.components[c]
            gain, strengths = spectra.score(c, left)
            place = np.argmax(gain, axis=1)
            own = strengths[:, rows, place].T
            left = left - np.einsum("nk,nkp->np", own, component.templates[place])
            _write(found, [component], place[:, None], [own], spectra.scale, np.ones(len(rows), bool))

    def _random(self, first: Starts, count: int, seed_rows: np.ndarray) -> Starts:
        """Random velocities (uniform) and widths (log-uniform) within each component's grid, the best start's strengths."""
        n = len(seed_rows)
        draws = np.stack([np.random.default_rng([2026, int(row)]).random((count, len(self.components), 3)) for row in seed_rows])
        parts = [np.empty((count, n, len(self.setup.lines))) for _ in range(3)]
        for c, component in enumerate(self.components):
            low, high = component.velocity.min(), component.velocity.max()
            narrow, broad = component.sigma.min(), component.sigma.max()
            for i in component.lines:
                parts[0][:, :, i] = (low + (high - low) * draws[:, :, c, 0]).T
                parts[1][:, :, i] = (narrow * (broad / narrow) ** draws[:, :, c, 1]).T
                parts[2][:, :, i] = first.strength[0][None, :, i] * (0.2 + draws[:, :, c, 2]).T
        return Starts(*parts)


@dataclass(frozen=True)
class _Spectra:
    """Some spectra under the matched filter, in float32, which suffices for a start: scaled, for raw fluxes leave its range."""

    components: list[Component]
    y: np.ndarray
    w: np.ndarray
    weighted: np.ndarray
    scale: np.ndarray
    power: Sequence[Pairs]

    @classmethod
    def of(cls, residual: np.ndarray, ivar: np.ndarray, components: list[Component]) -> _Spectra:
        scale = np.sqrt(np.maximum(ivar.max(axis=1, keepdims=True), np.finfo(float).tiny))
        y, w = (residual * scale).astype(np.float32), (ivar / scale**2).astype(np.float32)
        return cls(components, y, w, w * y, scale, [powers(component, w) for component in components])

    def of_rows(self, rows: np.ndarray) -> _Spectra:
        """Return some of the spectra."""
        power: list[Pairs] = [{pair: own[rows] for pair, own in each.items()} for each in self.power]
        return _Spectra(self.components, self.y[rows], self.w[rows], self.weighted[rows], self.scale[rows], power)

    def score(self, c: int, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return gain (n, grid) and strengths (lines, n, grid) of a component in what is `left` (n, n_pix) of the data."""
        weighted = self.weighted if left is self.y else self.w * left
        return score(self.components[c], weighted, self.power[c])

    def blended(self, c: int, place: np.ndarray) -> np.ndarray:
        """Return whether two lines of a component blend at a grid point of each row, (n,) bool."""
        rows, power = np.arange(len(place)), self.power[c]
        found = np.zeros(len(place), bool)
        for a, b in power:
            if a != b:
                own = power[a, a][rows, place] * power[b, b][rows, place]
                found |= power[a, b][rows, place] > _BLENDED * np.sqrt(np.maximum(own, 0))
        return found


def _nearest(component: Component, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return the grid point next to each velocity and dispersion (n,)."""
    far = np.abs(component.velocity[None] - velocity[:, None]) / component.observed[None]
    return np.argmin(far + np.abs(np.log(component.sigma[None] / np.maximum(sigma, 1e-3)[:, None])), axis=1)


def _peaks(component: Component, gain: np.ndarray, count: int, reach: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the `count` best places of a component, none near another: grid points (n,), and whether there was one."""
    gain, found = gain.copy(), []
    for _ in range(count):
        place = np.argmax(gain, axis=1)
        found.append((place, np.isfinite(gain[np.arange(len(gain)), place])))
        gain[component.near(place, reach)] = -np.inf
    return found


def _write(
    found: np.ndarray,
    components: list[Component],
    places: np.ndarray,
    strengths: list[np.ndarray],
    scale: np.ndarray,
    kept: np.ndarray,
) -> None:
    """Write velocities, widths and strengths of placements into `found` (3, n, lines), where they are `kept`."""
    for component, place, strength in zip(components, places.T, strengths):
        for k, i in enumerate(component.lines):
            for target, value in zip(found, (component.velocity[place], component.sigma[place], strength[:, k] / scale[:, 0])):
                target[:, i] = np.where(kept, value, np.nan)


def _rounded(strength: np.ndarray) -> np.ndarray:
    """Round to 8 bits: the last bits of a matrix product depend on how many spectra are in it, and fits should not."""
    mantissa, exponent = np.frexp(strength)
    return np.ldexp(np.round(256.0 * mantissa) / 256.0, exponent)
