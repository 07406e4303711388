"""Starts of a fit from that of a simpler model: the same lines, and further components in what it left."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from ifujax.lines.chunk import ChunkFitter, Guess
from ifujax.lines.results import CubeFit
from ifujax.lines.setup import Setup
from ifujax.lines.starts.search import Component

SAME_LINE = 0.5
"""Angstrom within which two rest wavelengths are those of one line."""
_MOST_EMBEDDINGS = 6
PLACES = 2
"""Places of a further component that are tried beside the simpler solution."""


def embeddings(simple: ChunkFitter, rich: ChunkFitter) -> list[dict[int, int]]:
    """Return the ways in which a model holds a simpler one: the line of `rich` that each line of `simple` is.

    Each kinematic component becomes another one, whose lines have the same rest wavelengths; at most six ways, those that keep
    most names first. None where the models are not nested.
    """
    fewer, more = simple.finder.components, rich.finder.components
    found = []
    for chosen in permutations(range(len(more)), len(fewer)) if len(fewer) <= len(more) else ():
        pairs: dict[int, int] = {}
        for component, other in zip(fewer, chosen):
            pairs |= _paired(simple.setup, component, rich.setup, more[other])
        if len(pairs) == len(simple.setup.lines):
            found.append(pairs)
    names, others = simple.setup.model.names, rich.setup.model.names
    found.sort(key=lambda pairs: -sum(names[i] == others[j] for i, j in pairs.items()))
    return found[:_MOST_EMBEDDINGS]


def _paired(simple: Setup, component: Component, rich: Setup, other: Component) -> dict[int, int]:
    pairs: dict[int, int] = {}
    for i in component.lines:
        same = [
            j
            for j in other.lines
            if j not in pairs.values() and abs(simple.lines[i].rest_wavelength - rich.lines[j].rest_wavelength) < SAME_LINE
        ]
        if same:
            pairs[i] = same[0]
    return pairs


def starts_beside(simple: CubeFit, fitter: ChunkFitter, rows: np.ndarray) -> Guess | None:
    """Return starts of `fitter`'s model for some spaxels: a simpler fit's solution with further components beside it.

    One of them, for each way of holding the simpler model, has no flux in the further components: from there chi2 can only
    fall, so that the result is never worse than the simpler fit. None where the models are not nested.

    Parameters
    ----------
    simple : CubeFit
        Of the same cube, pixels and noise.
    fitter : ChunkFitter
    rows : array (n,)
        Flat indices.
    """
    ways = embeddings(simple.fitter, fitter)
    if not ways:
        return None
    left, ivar = _left(simple, fitter, rows)
    starts: list[dict[str, np.ndarray]] = []
    for pairs in ways:
        held = _held(simple, fitter, pairs, rows)
        taken = set(pairs.values())
        free = [c for c, component in enumerate(fitter.finder.components) if not taken & set(component.lines)]
        if not free:
            starts.append(held)
            continue
        beside = fitter.finder.beside(left, ivar, free, PLACES)
        for k in range(PLACES):
            starts.append(_named(fitter.setup, beside.velocity[k], beside.sigma[k], beside.strength[k]) | held)
        starts.append(_named(fitter.setup, beside.velocity[0], beside.sigma[0], np.zeros_like(beside.strength[0])) | held)
    return Guess(starts[0], search=True, more=tuple(starts[1:]))


def _left(simple: CubeFit, fitter: ChunkFitter, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the simpler fit left of the data, and the inverse variance, (n, n_pix)."""
    spectra = simple.spectra(rows, components=False)
    left = spectra.data - spectra.model
    variance = spectra.variance if spectra.variance is not None else simple.found.noise[rows, None] ** 2
    used = spectra.fitted & np.isfinite(left)
    with np.errstate(invalid="ignore", divide="ignore"):
        ivar = np.where(used, 1.0 / variance, 0.0)
    pad = [(0, 0), (0, fitter.preparation.n_pix - left.shape[1])]
    return np.pad(np.where(used, left, 0.0), pad), np.pad(np.nan_to_num(ivar), pad)


def _held(simple: CubeFit, fitter: ChunkFitter, pairs: dict[int, int], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the simpler solution under the names of the other model; further lines of its components have no flux."""
    solution = dict(zip(simple.setup.model.parameter_names, simple.found.solution[rows].T))
    none = np.zeros(len(rows))
    found: dict[str, np.ndarray] = {}
    for component in fitter.finder.components:
        own = {j: i for i, j in pairs.items() if j in component.lines}
        for j in component.lines if own else ():
            line, other = simple.setup.lines[own.get(j, min(own.values()))], fitter.setup.lines[j]
            for role in fitter.setup.model.parameters(j):
                # Coefficients of a shape that the simpler line hasn't are zero for a Gaussian.
                found[f"{other.name}.{role}"] = solution.get(f"{line.name}.{role}", none)
            if j not in own:
                found[f"{other.name}.{other.strength}"] = none
            elif line.strength != other.strength:
                found[f"{other.name}.{other.strength}"] = np.nan_to_num(simple.values[other.strength][own[j], rows])
    return found


def _named(setup: Setup, velocity: np.ndarray, sigma: np.ndarray, strength: np.ndarray) -> dict[str, np.ndarray]:
    """Return starts (n, lines) by name, of the lines that have any."""
    found: dict[str, np.ndarray] = {}
    for j, line in enumerate(setup.lines):
        found[f"{line.name}.{line.strength}"] = strength[:, j]
        found[f"{line.name}.velocity"] = velocity[:, j]
        found[f"{line.name}.velocity_dispersion"] = sigma[:, j]
    return found
