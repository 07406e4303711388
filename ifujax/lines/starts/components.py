"""Kinematic components as the start search sees them: a grid of velocities and widths, and every line's template there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifujax.inference.parameter_space.declarations import Bounded, Fixed
from ifujax.lines.setup import Setup
from ifujax.models.doppler import C_KMS

_MAX_GRID = 320
_FAR_VELOCITY, _BROAD = 2000.0, 500.0
"""km/s from the guess, and of dispersion, beyond which nothing is searched."""
_SAME_LINE = 0.5
"""Angstrom within which two rest wavelengths are those of one line."""


@dataclass(frozen=True)
class Component:
    """Lines that share one velocity and one dispersion; indices into the setup's lines, by rest wavelength."""

    lines: tuple[int, ...]
    velocity: np.ndarray
    sigma: np.ndarray
    observed: np.ndarray
    """(grid,) dispersion with the LSF, km/s."""
    templates: np.ndarray
    """(grid, lines, n_pix) float32: each line at unit strength."""
    spans: tuple[slice, ...]
    """For each line, the pixels that any of its templates touches."""
    flat: tuple[np.ndarray, ...]
    """For each line, its templates in its span, (pixels, grid)."""
    products: dict[tuple[int, int], tuple[slice, np.ndarray]]
    """Products of the templates of two lines that touch somewhere: pixels, and (pixels, grid)."""
    clusters: tuple[tuple[int, ...], ...]
    """Lines that touch, directly or through others."""
    whole: np.ndarray
    """(lines, grid) sum over pixels of the squared template, were it sampled in full."""
    signs: tuple[tuple[float, float], ...]
    """Limits of each line's strength: 0 or infinite."""

    def near(self, best: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Return which grid points (n, grid) are neighbours of each row's chosen one, `reach` (n,) widths away at most."""
        v, s = self.velocity, self.observed
        width = np.maximum(s[None], s[best][:, None])
        close = np.abs(v[None] - v[best][:, None]) < reach[:, None] * width
        return close & (np.abs(np.log(s[None] / s[best][:, None])) < np.log(1.0 + reach)[:, None])


def components_of(setup: Setup, pixel_velocity: np.ndarray, width: np.ndarray) -> list[Component]:
    """Return the kinematic components of a setup in an order that is not that of their declaration.

    Parameters
    ----------
    setup : Setup
    pixel_velocity : array (lines, n_pix)
        km/s relative to each line.
    width : array (n_pix,)
        Pixel widths, Angstrom; 0 for padding.
    """
    groups: dict[int, list[int]] = {}
    for i, number in enumerate(setup.groups):
        groups.setdefault(number, []).append(i)
    rest = np.asarray(setup.model.rest_wavelengths)
    ordered = [sorted(group, key=lambda i: rest[i]) for group in groups.values()]
    found = [_component(setup, group, pixel_velocity, width) for group in ordered]

    def key(component: Component) -> tuple[float, ...]:
        ends = [f(axis) for axis in (component.velocity, component.sigma) for f in (np.min, np.max)]
        return (*(rest[i] for i in component.lines), *ends)

    return sorted(found, key=key)


def overlapping(setup: Setup, components: list[Component]) -> list[tuple[int, int]]:
    """Return pairs of components that hold a line of the same rest wavelength."""
    rest = setup.model.rest_wavelengths
    return [
        (a, b)
        for b in range(len(components))
        for a in range(b)
        if any(abs(rest[i] - rest[j]) < _SAME_LINE for i in components[a].lines for j in components[b].lines)
    ]


def _component(setup: Setup, group: list[int], pixel_velocity: np.ndarray, width: np.ndarray) -> Component:
    instrumental = _instrumental(setup, group)
    velocity, sigma = _grid(setup, group, pixel_velocity, instrumental)
    observed = np.hypot(sigma, instrumental)
    unit = width > 0
    templates = np.empty((len(velocity), len(group), len(width)), np.float32)
    whole = np.empty((len(group), len(velocity)))
    for k, i in enumerate(group):
        step = np.abs(np.median(np.diff(pixel_velocity[i][unit])))
        s = np.sqrt(observed**2 + step**2 / 12.0)
        shape = np.exp(-0.5 * ((pixel_velocity[i][None] - velocity[:, None]) / s[:, None]) ** 2) * unit
        if setup.line_windows is not None:
            low, high = C_KMS * (setup.line_windows[i] / setup.model.rest_wavelengths[i] - 1.0)
            shape = shape * ((pixel_velocity[i] >= low) & (pixel_velocity[i] <= high))
        whole[k] = np.sqrt(np.pi) * s / step
        if setup.model.strengths[i] == "flux":
            peak = 1.0 / (np.sqrt(2.0 * np.pi) * s * setup.model.rest_wavelengths[i] / C_KMS)
            shape, whole[k] = shape * peak[:, None], whole[k] * peak**2
        # Far wings would be denormal numbers, which cost tens of times more than zeros.
        templates[:, k] = np.where(shape > 1e-6 * shape.max(axis=1, keepdims=True), shape, 0.0)
    spans = tuple(_span(np.any(templates[:, k], axis=0)) for k in range(len(group)))
    flat = tuple(np.ascontiguousarray(templates[:, k, span].T) for k, span in enumerate(spans))
    norm = [(own**2).sum(axis=0) for own in flat]
    products = {}
    for a in range(len(group)):
        for b in range(a + 1):
            both = slice(max(spans[a].start, spans[b].start), min(spans[a].stop, spans[b].stop))
            if both.start >= both.stop:
                continue
            product = np.ascontiguousarray((templates[:, a, both] * templates[:, b, both]).T)
            if a == b or np.any(product.sum(axis=0) > 1e-2 * np.sqrt(norm[a] * norm[b])):
                products[a, b] = both, product
    signs = tuple((float(low), float(high)) for low, high in setup.strength_range[group])
    clusters = _clusters(len(group), products)
    return Component(tuple(group), velocity, sigma, observed, templates, spans, flat, products, clusters, whole, signs)


def _span(touched: Any) -> slice:
    where = np.flatnonzero(touched)
    return slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, 1)


def _clusters(size: int, pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    owner = list(range(size))
    for a, b in pairs:
        owner = [owner[b] if mark == owner[a] else mark for mark in owner]
    return tuple(tuple(i for i in range(size) if owner[i] == mark) for mark in dict.fromkeys(owner))


def _range(item: object, guess: float, least: float, most: float) -> tuple[float, float]:
    """Return what a parameter may be, no further than `least` and `most` where these are not beyond the guess."""
    if isinstance(item, Fixed):
        return item.value, item.value
    if isinstance(item, Bounded):
        return max(item.lower, min(guess, least)), min(item.upper, max(guess, most))
    return guess, guess


def _grid(setup: Setup, group: list[int], pixel_velocity: np.ndarray, instrumental: float) -> tuple[np.ndarray, np.ndarray]:
    """Return grid velocities and dispersions, km/s: widths in steps of 1.6, velocities 0.8 observed widths apart.

    They fill the bounds, whatever the guess is; bounds that are wider than `_FAR_VELOCITY` on either side of it, or allow
    more than `_BROAD`, are not searched further.
    """
    first = min(group)
    kinematics = setup.lines[first].kinematics
    guess_v, guess_s = setup.guess_velocity[first], setup.guess_sigma[first]
    v_low, v_high = _range(kinematics.velocity, guess_v, guess_v - _FAR_VELOCITY, guess_v + _FAR_VELOCITY)
    pixel = np.abs(np.median(np.diff(pixel_velocity[group[0]])))
    s_low, s_high = _range(kinematics.velocity_dispersion, guess_s, 0.4 * pixel, max(_BROAD, 4.0 * guess_s))
    s_low = min(max(s_low, 0.4 * pixel), s_high)
    o_low, o_high = np.hypot(s_low, instrumental), np.hypot(s_high, instrumental)
    count = 1 + int(np.ceil(np.log(max(o_high / max(o_low, 1e-3), 1.0)) / np.log(1.6) - 1e-9))
    observed = np.geomspace(max(o_low, 1e-3), o_high, count + 2)[:-1] if count > 1 else np.array([np.sqrt(o_low * o_high)])
    sigmas = np.sqrt(np.maximum(observed**2 - instrumental**2, s_low**2))
    step = 0.8
    while True:
        velocity, sigma = [], []
        for s in sigmas:
            spacing = step * np.hypot(np.hypot(s, instrumental), 0.5 * pixel)
            n = 1 + int(np.ceil((v_high - v_low) / spacing))
            points = np.linspace(v_low, v_high, n + 2)[1:-1] if v_high > v_low else np.array([v_low])
            velocity += list(points)
            sigma += [s] * len(points)
        if len(velocity) <= _MAX_GRID:
            return np.array(velocity), np.array(sigma)
        step *= 1.1


def _instrumental(setup: Setup, group: list[int]) -> float:
    """LSF dispersion (km/s) at the middle line of the group."""
    spread = setup.model.spread
    if spread is None:
        return 0.0
    rest = setup.model.rest_wavelengths[group[len(group) // 2]] * (1.0 + float(setup.model.redshift))
    return float(spread.velocity_sigma(np.float64(rest)))
