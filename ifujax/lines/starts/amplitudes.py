"""Strengths of lines at given velocities and widths: linear least squares with declared signs, many at once.

In float32, with a ridge: a start needs no more, and lines that can't be told apart share their flux.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from ifujax.lines.starts.components import Component

_LEAST_POWER = np.float32(1e-30)
_RIDGE = np.float32(1e-3)
_ROUNDS = 4
"""Rounds in which strengths of the wrong sign are put to 0 and the others solved for again."""

Pairs = Mapping[tuple[int, int], np.ndarray]


def powers(component: Component, w: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Return the weighted products of templates of lines that touch, (n, grid) each, for weights (n, n_pix)."""
    return {pair: w[:, pixels] @ product for pair, (pixels, product) in component.products.items()}


def score(component: Component, weighted: np.ndarray, power: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return how much each grid point lowers chi2 (n, grid), and its strengths (lines, n, grid), of the declared sign.

    Parameters
    ----------
    component : Component
    weighted : array (n, n_pix)
        Data times weights.
    power : mapping
        From `powers`.
    """
    overlap = [weighted[:, span] @ flat for span, flat in zip(component.spans, component.flat)]
    amplitude = np.zeros((len(component.lines), *overlap[0].shape), np.float32)
    gain = np.zeros_like(overlap[0])
    for cluster in component.clusters:
        found = _solved(cluster, overlap, power, component.signs)
        for a, strength in zip(cluster, found):
            amplitude[a] = strength
            gain += strength * (2 * overlap[a] - power[a, a] * strength)
    for a, b in power:
        if a != b:
            gain -= 2 * power[a, b] * amplitude[a] * amplitude[b]
    return gain, amplitude


def joint(
    components: list[Component], places: np.ndarray, weighted: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Solve for all lines of all components at once, each component at one grid point.

    Parameters
    ----------
    places : int array (n, components)
    weighted, w : array (n, n_pix)
        Data times weights, and weights.

    Returns
    -------
    gain : array (n,)
        How much they lower chi2.
    strengths : list of array (n, lines)
        Of each component.
    model : array (n, components, n_pix)
        What each component contributes.
    """
    columns = [component.templates[places[:, c]] for c, component in enumerate(components)]
    templates = np.concatenate(columns, axis=1)
    gram = (templates * w[:, None]) @ np.swapaxes(templates, 1, 2)
    rhs = (templates @ weighted[:, :, None])[:, :, 0]
    low, high = np.array([sign for component in components for sign in component.signs]).T
    strength = _dense(gram, rhs, low, high)
    gain = 2 * (strength * rhs).sum(axis=1) - np.einsum("na,nab,nb->n", strength, gram, strength)
    ends = np.cumsum([0, *(len(component.lines) for component in components)])
    each = [strength[:, a:b] for a, b in pairwise(ends)]
    model = np.stack([np.einsum("nk,nkp->np", own, column) for own, column in zip(each, columns)], axis=1)
    return gain, each, model


def crossed(
    components: list[Component], peaks: list[np.ndarray], weighted: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gain of every way of choosing one of several places for each component.

    Parameters
    ----------
    peaks : list of int array (n, places)
        Grid points of each component.
    weighted, w : array (n, n_pix)
        Data times weights, and weights.

    Returns
    -------
    gain : array (n, ways)
    ways : int array (ways, components)
        Which of its places each component has.
    """
    sizes = [len(component.lines) for component in components]
    templates = np.concatenate(
        [component.templates[own].reshape(len(w), -1, w.shape[1]) for component, own in zip(components, peaks)], axis=1
    )
    gram = (templates * w[:, None]) @ np.swapaxes(templates, 1, 2)
    rhs = (templates @ weighted[:, :, None])[:, :, 0]
    counts = [own.shape[1] for own in peaks]
    first = np.cumsum([0, *(count * size for count, size in zip(counts, sizes))])
    ways = np.stack([axis.ravel() for axis in np.meshgrid(*(np.arange(count) for count in counts), indexing="ij")], axis=1)
    low, high = np.array([sign for component in components for sign in component.signs]).T
    gain = np.empty((len(w), len(ways)), np.float32)
    for k, way in enumerate(ways):
        mine = np.concatenate([start + place * size + np.arange(size) for start, place, size in zip(first, way, sizes)])
        own, right = gram[:, mine[:, None], mine], rhs[:, mine]
        strength = _dense(own, right, low, high)
        gain[:, k] = 2 * (strength * right).sum(axis=1) - np.einsum("na,nab,nb->n", strength, own, strength)
    return gain, ways


def _solved(
    cluster: tuple[int, ...], overlap: list[np.ndarray], power: Pairs, signs: tuple[tuple[float, float], ...]
) -> list[np.ndarray]:
    # A template that hardly touches a used pixel has a power whose inverse leaves float32's range.
    free = [power[a, a] > _LEAST_POWER for a in cluster]
    if len(cluster) == 1:
        a = cluster[0]
        return [np.clip(np.where(free[0], overlap[a] / np.where(free[0], power[a, a], 1), 0), *signs[a])]
    strength: list[np.ndarray] = []
    for _ in range(_ROUNDS):
        strength = _cholesky(cluster, overlap, power, free)
        wrong = [(s < signs[a][0]) | (s > signs[a][1]) for a, s in zip(cluster, strength)]
        if not any(each.any() for each in wrong):
            return strength
        free = [f & ~each for f, each in zip(free, wrong)]
    return [np.where(f, np.clip(s, *signs[a]), 0) for a, s, f in zip(cluster, strength, free)]


def _cholesky(cluster: tuple[int, ...], overlap: list[np.ndarray], power: Pairs, free: list[np.ndarray]) -> list[np.ndarray]:
    """Solve the normal equations of a cluster, element by element, each an array (n, grid); 0 for what is not free."""
    size = len(cluster)
    lower: dict[tuple[int, int], np.ndarray] = {}
    inverse: list[np.ndarray] = []
    forward: list[np.ndarray] = []
    for i in range(size):
        a = cluster[i]
        pivot = power[a, a] * (1 + _RIDGE)
        right = overlap[a]
        for j in range(i):
            b = cluster[j]
            pair = (a, b) if a > b else (b, a)
            if pair not in power:
                lower[i, j] = np.zeros_like(pivot)
            else:
                lower[i, j] = np.where(free[i] & free[j], power[pair], 0)
            for k in range(j):
                lower[i, j] = lower[i, j] - lower[i, k] * lower[j, k] * inverse[k]
            right = right - lower[i, j] * forward[j]
        for j in range(i):
            pivot = pivot - lower[i, j] ** 2 * inverse[j]
        usable = free[i] & (pivot > 0)
        inverse.append(np.where(usable, 1 / np.where(usable, pivot, 1), 0))
        forward.append(right * inverse[i])
    for i in reversed(range(size)):
        for k in range(i + 1, size):
            forward[i] = forward[i] - lower[k, i] * inverse[i] * forward[k]
    return forward


def _dense(gram: np.ndarray, rhs: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Solve normal equations (n, k, k) with signs (k,)."""
    power = np.diagonal(gram, axis1=1, axis2=2)
    free = power > _LEAST_POWER
    size = np.sqrt(np.where(free, power, 1))
    scaled = gram / (size[:, :, None] * size[:, None, :])
    eye = np.eye(rhs.shape[1], dtype=gram.dtype)
    strength = np.zeros_like(rhs)
    for _ in range(_ROUNDS):
        mask = free.astype(gram.dtype)
        system = scaled * mask[:, :, None] * mask[:, None, :] * (1 - eye) + (1 + _RIDGE) * eye
        strength = np.linalg.solve(system, (rhs / size * mask)[:, :, None])[:, :, 0] / size * mask
        wrong = (strength < low) | (strength > high)
        if not wrong.any():
            break
        free = free & ~wrong
    return np.clip(strength, low, high)
