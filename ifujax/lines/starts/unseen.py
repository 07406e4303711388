"""Lines that the data say nothing about, by their information: in gaps, under masks, in pixels of next to no weight.

Such a line is held: it has no strength, and everything else is fitted as if it had not been declared.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ifujax.inference.parameter_space.declarations import Bounded
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.lines.setup import Setup, followers
from ifujax.lines.starts.search import StartFinder, Starts

_NOTHING, _LEAST_SHARE = 1e-6, 1e-3
"""A line may be unseen if the pixels that are left hold less than the second of its information: its flux error is 30 times
larger then. Below the first there is nothing to fit."""
_FREE_SHARE = 0.05
"""The same for lines that nothing else gives a velocity: a wing alone constrains neither that nor the flux."""
_EXPECTED_SHARE = 0.1
"""Nor are they sought elsewhere if this little of them is left where they are expected."""
FOUND = 16.0
"""What lowers chi2 by this is seen all the same."""


def unseen_at_start(finder: StartFinder, ivar: np.ndarray, found: Starts) -> np.ndarray:
    """Return which lines (n, lines) are to be held before a fit.

    Parameters
    ----------
    finder : StartFinder
    ivar : array (n, n_pix)
        Inverse variance, 0 = masked.
    found : Starts
        From `StartFinder.find`.
    """
    setup = finder.setup
    unseen = finder.share(ivar, found.velocity[0], found.sigma[0]) < _NOTHING
    if found.gain is None:
        return unseen
    n = len(ivar)
    guess = (np.broadcast_to(values, (n, len(values))) for values in (setup.guess_velocity, setup.guess_sigma))
    expected = finder.share(ivar, *guess)
    for c, component in enumerate(finder.components):
        lines = list(component.lines)
        if _free(setup, lines):
            lost = (expected[:, lines].max(axis=1) < _EXPECTED_SHARE) & (found.gain[:, c] < FOUND)
            unseen[:, lines] |= lost[:, None]
    return unseen


def hardly_seen(finder: StartFinder, ivar: np.ndarray, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return of which lines (n, lines) the data hold next to nothing at `velocity` and `sigma` (n, lines); NaN is seen."""
    share = finder.share(ivar, velocity, sigma)
    few = share < _LEAST_SHARE
    for component in finder.components:
        lines = list(component.lines)
        if _free(finder.setup, lines):
            few[:, lines] |= (share[:, lines].max(axis=1) < _FREE_SHARE)[:, None]
    return few


def held(setup: Setup, space: ParameterSpace, unseen: np.ndarray) -> ParameterSpace:
    """Return the space of spectra in which strengths of unseen lines (n, lines) are held at 0, or what is next to it.

    The strength that others are tied to is held if all of these are unseen.
    """
    if not unseen.any():
        return space
    names = space.structure.element_names
    n = len(unseen)
    low, high = (np.array(np.broadcast_to(side, (n, len(names)))) for side in (space.lower, space.upper))
    for name, lines in _dependents(setup).items():
        j = names.index(name)
        rows = unseen[:, lines].all(axis=1)
        none = np.clip(0.0, low[rows, j], high[rows, j])
        low[rows, j] = high[rows, j] = none
    return replace(space, lower=low, upper=high)


def _free(setup: Setup, lines: list[int]) -> bool:
    """Whether nothing but these lines says what their velocity is."""
    return isinstance(setup.lines[lines[0]].kinematics.velocity, Bounded)


def _dependents(setup: Setup) -> dict[str, list[int]]:
    """Return the lines whose strengths follow from each free strength that has fixed bounds."""
    model, structure = setup.model, setup.space.structure
    entries = {entry.name: entry for entry in structure.entries}
    strengths = [f"{name}.{strength}" for name, strength in zip(model.names, model.strengths)]
    return {
        name: [strengths.index(other) for other in followers(setup, name) if other in strengths]
        for name in strengths
        if entries[name].kind == "free" and not entries[name].moving
    }
