"""Which fits of lines have errors that need to be checked, and which lines a bit concerns."""

from __future__ import annotations

import numpy as np

from ifujax.inference.results import FitResult
from ifujax.lines.setup import Setup, followers
from ifujax.lines.starts.components import Component

_SURE = 0.1
"""Errors of velocity and dispersion, over the observed dispersion, up to which a line is a linear function of both."""


def fragile(setup: Setup, components: list[Component], blend: bool, result: FitResult) -> np.ndarray:
    """Return which fits (n,) have errors that need to be checked.

    Gaussian lines are linear in their parameters over a small share of their width; where components share a line (`blend`),
    or a line has another shape, everything is checked.
    """
    usable = result.status == 0
    if blend or any(shape != "gaussian" for shape in setup.model.shapes):
        return usable
    found = np.zeros(len(usable), bool)
    for component in components:
        name = setup.model.names[min(component.lines)]
        sigma = result.derived[f"{name}.sigma"]
        for role in ("velocity", "velocity_dispersion"):
            with np.errstate(invalid="ignore", divide="ignore"):
                found |= result.error[f"{name}.{role}"] > _SURE * sigma
    return usable & found


def line_warnings(setup: Setup, element_warn: np.ndarray) -> np.ndarray:
    """Return the bits of each line (n, lines): those of the free parameters that its own follow from.

    Parameters
    ----------
    setup : Setup
    element_warn : int array (n, n_free)
        Bits of each free parameter.
    """
    lines = setup.model.names
    found = np.zeros((len(element_warn), len(lines)), np.int32)
    for j, name in enumerate(setup.space.structure.element_names):
        concerned = {lines.index(other.rsplit(".", 1)[0]) for other in followers(setup, name)}
        found[:, sorted(concerned)] |= element_warn[:, j, None]
    return found
