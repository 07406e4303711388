"""Which fits of lines have errors that chi2 does not bear out."""

from __future__ import annotations

import numpy as np

from ifujax.inference.results import FitResult
from ifujax.lines.setup import Setup
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
