"""Start values from the data: a matched filter over velocity and width for each kinematic component.

A common start leaves about 5 % of spectra in a wrong minimum. Here each component's grid of
velocities and widths is tried on every spectrum at once (matrix products of shared templates),
with amplitudes of the declared sign solved at each grid point; where a second minimum is nearly as deep it
becomes a second start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ifujax.inference.declarations import Bounded, Fixed
from ifujax.lines.setup import Setup
from ifujax.models.doppler import C_KMS

_ROWS_AT_ONCE = 256
_MAX_GRID = 240
_LEAST_POWER = np.float32(1e-30)
_RIVAL = 12.0
"""A second minimum whose chi2 is within this of the best becomes another start."""


@dataclass(frozen=True)
class Component:
    """Lines that share one velocity and one dispersion; indices into the setup's lines."""

    lines: tuple[int, ...]
    velocity: np.ndarray
    sigma: np.ndarray
    templates: np.ndarray
    """(grid, lines, n_pix) float32: each line at unit strength."""
    flat: tuple[np.ndarray, ...]
    """For each line, the templates as (n_pix, grid)."""
    products: dict[tuple[int, int], np.ndarray]
    """Products of the templates of two lines that touch somewhere, (n_pix, grid)."""
    signs: tuple[tuple[float, float], ...]
    """Limits of each line's strength: 0 or infinite."""


@dataclass(frozen=True)
class Starts:
    """`velocity`, `sigma`, `strength`: (starts, n, lines); NaN where a spectrum has no further start."""

    velocity: np.ndarray
    sigma: np.ndarray
    strength: np.ndarray


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
        self.components = [self._component(group, pixel_velocity, width) for group in _groups(setup)]

    def find(self, residual: np.ndarray, ivar: np.ndarray, n_starts: int, seed_rows: np.ndarray) -> Starts:
        """Return starts for continuum-subtracted spectra.

        The matched filter's best, its rival where there is one, and two ways of sharing a line between
        components that overlap. Of the rest of `n_starts`, three in four are the next best ways of placing
        one component beside the others, and one in four is random within the bounds.

        Parameters
        ----------
        residual, ivar : array (n, n_pix)
            Data less continuum; inverse variance, 0 = masked.
        n_starts : int
        seed_rows : array (n,)
            Identity of each spectrum: its random starts do not depend on order or chunks.
        """
        n, n_lines = len(residual), len(self.setup.lines)
        shape = (2, n, n_lines)
        velocity, sigma, strength = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
        for first in range(0, n, _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            self._fill(residual[part], ivar[part], velocity[:, part], sigma[:, part], strength[:, part])
        ways = [Starts(velocity, sigma, strength)]
        pairs = _overlapping(self.setup, self.components)
        if pairs:
            ways += [_shared(ways[0], self.components, pairs, kind) for kind in ("widths", "apart")]
        extra = n_starts - 1 - 2 * bool(pairs)
        if extra > 0:
            ranked = self._ranked(residual, ivar, extra - extra // 4)
            ways += [ranked, self._random(ways[0], extra - len(ranked.velocity), seed_rows)]
        every = (np.concatenate([getattr(way, name) for way in ways]) for name in ("velocity", "sigma", "strength"))
        velocity, sigma, strength = every
        return Starts(velocity, sigma, _rounded(strength))

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
        first, others = self.components[groups[0]], [self.components[group] for group in groups[1:]]
        for row in range(0, len(left), _ROWS_AT_ONCE):
            part = slice(row, row + _ROWS_AT_ONCE)
            y, w, scale = _whitened(left[part], ivar[part])
            score, amplitude = _score(first, y, w)
            for k in range(count):
                best, component, rest = np.argmax(score, axis=1), first, y
                place = np.full((3, len(y), found.shape[3]), np.nan)
                chosen = _put(place, first, best, amplitude, scale)
                found_one = np.isfinite(score.max(axis=1))
                score[_near(first, best)] = -np.inf
                for other in others:
                    rest = rest - np.einsum("nk,nkp->np", chosen, component.templates[best])
                    its_score, its_amplitude = _score(other, rest, w)
                    best, component = np.argmax(its_score, axis=1), other
                    chosen = _put(place, other, best, its_amplitude, scale)
                found[:, k, part] = np.where(found_one[None, :, None], place, np.nan)
        return Starts(*found)

    def _ranked(self, residual: np.ndarray, ivar: np.ndarray, count: int) -> Starts:
        """Place all components but one by the matched filter, that one at each of its best places, and keep the best `count`.

        In faint spectra a second component fits one of many spikes of the noise, nearly equally deep: a search by chance
        seldom finds the deepest.
        """
        n, n_lines, n_last = len(residual), len(self.setup.lines), len(self.components)
        found = np.full((3, count, n, n_lines), np.nan)
        for first in range(0, n, _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            y, w, scale = _whitened(residual[part], ivar[part])
            rows = np.arange(len(y))
            alone = [_score(component, y, w) for component in self.components]
            gains, places = [], []
            for last in range(n_last):
                left, gain, place = y, np.zeros(len(y), np.float32), np.full((3, len(y), n_lines), np.nan)
                for c, component in enumerate(self.components):
                    if c == last:
                        continue
                    score, amplitude = alone[c] if left is y else _score(component, left, w)
                    best = np.argmax(score, axis=1)
                    chosen = _put(place, component, best, amplitude, scale)
                    gain = gain + score[rows, best]
                    left = left - np.einsum("nk,nkp->np", chosen, component.templates[best])
                component = self.components[last]
                score, amplitude = alone[last] if left is y else _score(component, left, w)
                score = score.copy()
                for k in range(count + 1):
                    best = np.argmax(score, axis=1)
                    if k or last < n_last - 1:  # else it is the first of all starts
                        here = place.copy()
                        _put(here, component, best, amplitude, scale)
                        gains.append(gain + score[rows, best])
                        places.append(here)
                    score[_near(component, best)] = -np.inf
            order = np.argsort(-np.stack(gains), axis=0, kind="stable")[:count]
            found[:, : len(order), part] = np.stack(places, axis=1)[:, order, rows]
        return Starts(*found)

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

    def _fill(
        self, residual: np.ndarray, ivar: np.ndarray, velocity: np.ndarray, sigma: np.ndarray, strength: np.ndarray
    ) -> None:
        y, w, scale = _whitened(residual, ivar)
        shared = _score(self.components[0], y, w)  # the first component sees the same data in both ways
        for way in range(velocity.shape[0]):
            left = y.copy()
            for c, component in enumerate(self.components):
                score, amplitude = shared if c == 0 else _score(component, left, w)
                best = np.argmax(score, axis=1)
                rows = np.arange(len(y))
                if way:
                    # The rival: the best grid point that is not the best one's neighbour.
                    rest = np.where(_near(component, best), -np.inf, score)
                    second = np.argmax(rest, axis=1)
                    rival = rest[rows, second] > score[rows, best] - _RIVAL
                    best = np.where(rival, second, best)
                else:
                    rival = np.ones(len(y), bool)
                chosen = amplitude[:, rows, best].T
                for k, i in enumerate(component.lines):
                    velocity[way, :, i] = np.where(rival, component.velocity[best], np.nan)
                    sigma[way, :, i] = component.sigma[best]
                    strength[way, :, i] = chosen[:, k] / scale[:, 0]
                if len(self.components) > 1:
                    left -= np.einsum("nk,nkp->np", chosen, component.templates[best])
            if way and len(self.components) > 1:
                # A spectrum has a rival start where any of its components has one.
                any_rival = np.isfinite(velocity[way]).any(axis=1)
                velocity[way] = np.where(np.isfinite(velocity[way]), velocity[way], velocity[0])
                velocity[way][~any_rival] = np.nan

    def _component(self, group: list[int], pixel_velocity: np.ndarray, width: np.ndarray) -> Component:
        setup = self.setup
        velocity, sigma = _grid(setup, group, pixel_velocity)
        observed = np.sqrt(sigma**2 + _instrumental(setup, group) ** 2)
        unit = width > 0
        templates = np.empty((len(velocity), len(group), len(width)), np.float32)
        for k, i in enumerate(group):
            pixel = np.abs(np.median(np.diff(pixel_velocity[i][unit]))) / np.sqrt(12.0)
            s = np.sqrt(observed**2 + pixel**2)
            shape = np.exp(-0.5 * ((pixel_velocity[i][None] - velocity[:, None]) / s[:, None]) ** 2) * unit
            if setup.line_windows is not None:
                low, high = C_KMS * (setup.line_windows[i] / setup.model.rest_wavelengths[i] - 1.0)
                shape = shape * ((pixel_velocity[i] >= low) & (pixel_velocity[i] <= high))
            if setup.model.strengths[i] == "flux":
                rest = setup.model.rest_wavelengths[i]
                shape = shape / (np.sqrt(2.0 * np.pi) * s * rest / C_KMS)[:, None]
            # Far wings would be denormal numbers, which cost tens of times more than zeros.
            templates[:, k] = np.where(shape > 1e-6 * shape.max(axis=1, keepdims=True), shape, 0.0)
        flat = tuple(np.ascontiguousarray(templates[:, k].T) for k in range(len(group)))
        products = {}
        for a in range(len(group)):
            for b in range(a + 1):
                product = flat[a] * flat[b]
                norm = np.sqrt((flat[a] ** 2).sum(axis=0) * (flat[b] ** 2).sum(axis=0))
                if a == b or np.any(product.sum(axis=0) > 1e-2 * norm):
                    products[a, b] = product
        signs = tuple((float(low), float(high)) for low, high in setup.strength_range[group])
        return Component(tuple(group), velocity, sigma, templates, flat, products, signs)


def _whitened(residual: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return data and weights in float32, which suffices for a start: a row scale keeps raw fluxes in its range."""
    scale = np.sqrt(np.maximum(ivar.max(axis=1, keepdims=True), np.finfo(float).tiny))
    return (residual * scale).astype(np.float32), (ivar / scale**2).astype(np.float32), scale


def _rounded(strength: np.ndarray) -> np.ndarray:
    """Round to 8 bits: the last bits of a matrix product depend on how many spectra are in it, and fits should not."""
    mantissa, exponent = np.frexp(strength)
    return np.ldexp(np.round(256.0 * mantissa) / 256.0, exponent)


def _near(component: Component, best: np.ndarray) -> np.ndarray:
    """Which grid points (n, grid) are neighbours of each row's chosen one."""
    v, s = component.velocity, component.sigma
    near_velocity = np.abs(v[None] - v[best][:, None]) < 1.5 * np.maximum(s[None], s[best][:, None])
    return near_velocity & (np.abs(np.log(s[None] / s[best][:, None])) < np.log(2.5))


def _put(place: np.ndarray, component: Component, best: np.ndarray, amplitude: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Write velocity, width and strengths of chosen grid points into `place` (3, n, lines); return the whitened strengths."""
    chosen = amplitude[:, np.arange(len(best)), best].T
    for k, i in enumerate(component.lines):
        place[0, :, i], place[1, :, i] = component.velocity[best], component.sigma[best]
        place[2, :, i] = chosen[:, k] / scale[:, 0]
    return chosen


def _overlapping(setup: Setup, components: list[Component]) -> list[tuple[int, int]]:
    """Pairs of components that hold a line of the same rest wavelength (within 0.5 Angstrom)."""
    rest = setup.model.rest_wavelengths
    return [
        (a, b)
        for b in range(len(components))
        for a in range(b)
        if any(abs(rest[i] - rest[j]) < 0.5 for i in components[a].lines for j in components[b].lines)
    ]


def _shared(first: Starts, components: list[Component], pairs: list[tuple[int, int]], kind: str) -> Starts:
    """Share the first component's lines with the second: a narrow and a broad one, or one on either side."""
    velocity, sigma, strength = (np.array(getattr(first, name)[:1]) for name in ("velocity", "sigma", "strength"))
    for a, b in pairs:
        one, two = list(components[a].lines), list(components[b].lines)
        v, s = velocity[..., one[:1]].copy(), sigma[..., one[:1]].copy()
        shift, factors = (0.0, (0.6, 1.8)) if kind == "widths" else (0.7, (0.7, 0.7))
        for lines, sign, factor in ((one, -1.0, factors[0]), (two, 1.0, factors[1])):
            grid = components[a if sign < 0 else b]
            velocity[..., lines] = np.clip(v + sign * shift * s, grid.velocity.min(), grid.velocity.max())
            sigma[..., lines] = np.clip(factor * s, grid.sigma.min(), grid.sigma.max())
        for i, j in zip(one, two):
            strength[..., i] *= 0.5
            strength[..., j] = np.where(np.abs(strength[..., j]) > np.abs(strength[..., i]), strength[..., j], strength[..., i])
    return Starts(velocity, sigma, strength)


def _groups(setup: Setup) -> list[list[int]]:
    """Group lines by their kinematics, in declared order."""
    groups: dict[int, list[int]] = {}
    for i, line in enumerate(setup.lines):
        groups.setdefault(id(line.kinematics), []).append(i)
    return list(groups.values())


def _range(item: object, guess: float, least: float, most: float) -> tuple[float, float]:
    if isinstance(item, Fixed):
        return item.value, item.value
    if isinstance(item, Bounded):
        return max(item.lower, min(guess, least)), min(item.upper, max(guess, most))
    return guess, guess


def _grid(setup: Setup, group: list[int], pixel_velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return grid velocities and dispersions, km/s: widths in steps of 1.6, velocities 0.8 widths apart."""
    first = group[0]
    kinematics = setup.lines[first].kinematics
    guess_v, guess_s = setup.guess_velocity[first], setup.guess_sigma[first]
    v_low, v_high = _range(kinematics.velocity, guess_v, guess_v - 1000.0, guess_v + 1000.0)
    s_low, s_high = _range(kinematics.velocity_dispersion, guess_s, 0.3 * guess_s, 4.0 * guess_s)
    pixel = np.abs(np.median(np.diff(pixel_velocity[first])))
    s_low = min(max(s_low, 0.4 * pixel), s_high)
    count = 1 + int(np.ceil(np.log(max(s_high / max(s_low, 1e-3), 1.0)) / np.log(1.6) - 1e-9))
    sigmas = np.geomspace(max(s_low, 1e-3), s_high, count + 2)[:-1] if count > 1 else np.array([np.sqrt(s_low * s_high)])
    step = 0.8
    while True:
        velocity, sigma = [], []
        for s in sigmas:
            spacing = step * np.hypot(s, 0.5 * pixel)
            n = 1 + int(np.ceil((v_high - v_low) / spacing))
            points = np.linspace(v_low, v_high, n + 2)[1:-1] if v_high > v_low else np.array([v_low])
            velocity += list(points)
            sigma += [s] * len(points)
        if len(velocity) <= _MAX_GRID:
            return np.array(velocity), np.array(sigma)
        step *= 1.25


def _instrumental(setup: Setup, group: list[int]) -> float:
    """LSF dispersion (km/s) at the group's first line."""
    spread = setup.model.spread
    if spread is None:
        return 0.0
    rest = setup.model.rest_wavelengths[group[0]] * (1.0 + float(setup.model.redshift))
    return float(spread.velocity_sigma(np.float64(rest)))


def _score(component: Component, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how much each grid point lowers chi2 (n, grid), and its amplitudes (lines, n, grid), of the declared sign."""
    size, (n, grid) = len(component.lines), (len(y), len(component.velocity))
    weighted = w * y
    overlap = [weighted @ component.flat[a] for a in range(size)]
    power = {pair: w @ product for pair, product in component.products.items()}
    # A template that hardly touches a used pixel has a power whose inverse leaves float32's range.
    felt = [power[a, a] > _LEAST_POWER for a in range(size)]
    inverse = [np.where(felt[a], 1 / np.where(felt[a], power[a, a], 1), 0) for a in range(size)]
    signs = component.signs
    amplitude = np.stack([np.clip(overlap[a] * inverse[a], *signs[a]) for a in range(size)])
    mixed = [pair for pair in power if pair[0] != pair[1]]
    for _ in range(3 if mixed else 0):
        for a in range(size):
            partners = [pair for pair in mixed if a in pair]
            if not partners:
                continue
            rest = overlap[a].copy()
            for pair in partners:
                rest -= power[pair] * amplitude[pair[0] + pair[1] - a]
            amplitude[a] = np.clip(rest * inverse[a], *signs[a])
    score = np.zeros((n, grid), np.float32)
    for a in range(size):
        score += amplitude[a] * (2 * overlap[a] - power[a, a] * amplitude[a])
    for pair in mixed:
        score -= 2 * power[pair] * amplitude[pair[0]] * amplitude[pair[1]]
    return score, amplitude
