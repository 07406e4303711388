"""Starts and bounds by name, turned into the engine's free vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ifujax.inference.parameter_space.declarations import Bounded
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.starts import pack_starts
from ifujax.lines.setup import VELOCITY_SCALE, Setup
from ifujax.lines.starts.search import Starts

Named = Mapping[str, np.ndarray]
"""``{"line.parameter": (n,)}``; NaN: that spectrum has no such start."""

_SCALES = {
    "velocity": VELOCITY_SCALE,
    "velocity_dispersion": VELOCITY_SCALE,
    "lorentz_fwhm": VELOCITY_SCALE,
    "h3": 0.1,
    "h4": 0.1,
}
"""What counts as 1 inside the engine."""
_NARROWING = 2.0
"""How the best width goes with h4: a peaked profile (h4 > 0) is narrower than the Gaussian that fits it."""
_CORNERS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


def scaled_space(setup: Setup, found: Starts, ivar: np.ndarray) -> ParameterSpace:
    """Return the parameter space scaled to each spectrum: its strongest line or its noise counts as 1."""
    peak = np.nanmax(np.abs(found.strength), axis=(0, 2), initial=0.0)
    highest = ivar.max(axis=1)
    noise = np.where(highest > 0, 1.0 / np.sqrt(np.where(highest > 0, highest, 1.0)), 1.0)
    size = np.maximum(peak, noise)
    roles = [name.rsplit(".", 1)[1] for name in setup.space.structure.element_names]
    scale = np.array([_SCALES.get(role, np.nan) for role in roles])
    return setup.space.with_scale(np.where(np.isnan(scale), size[:, None], scale))


def named_starts(setup: Setup, found: Starts) -> list[Named]:
    """Return what the search found, start by start, by name.

    Gauss-Hermite lines have minima of their own, narrow and skewed or broad and flat-topped, which the search for
    Gaussians doesn't see. All starts but the first and its rival also try other h3 and h4, with the width that goes with
    them; every other one does so where the search found its best.
    """
    model = setup.model
    ways: list[Named] = []
    for k, (velocity, sigma, strength) in enumerate(zip(found.velocity, found.sigma, found.strength)):
        way: dict[str, np.ndarray] = {}
        if k > 1 and k % 2 == 0 and "gauss_hermite" in model.shapes:
            velocity, sigma, strength = found.velocity[0], found.sigma[0], found.strength[0]
        for i, name in enumerate(model.names):
            way[f"{name}.{model.strengths[i]}"] = strength[:, i]
            way[f"{name}.velocity"] = velocity[:, i]
            way[f"{name}.velocity_dispersion"] = sigma[:, i]
            if k > 1 and model.shapes[i] == "gauss_hermite":
                h3, h4 = _corner(setup, i, k // 2 - 1)
                way |= {f"{name}.h3": np.full(len(sigma), h3), f"{name}.h4": np.full(len(sigma), h4)}
                way[f"{name}.velocity_dispersion"] = sigma[:, i] * np.exp(-_NARROWING * h4)
        ways.append(way)
    return ways


def starts_of(setup: Setup, way: Named) -> Starts | None:
    """Return one named start as the search would have found it; None if a spectrum has none."""
    model = setup.model
    parts = [
        np.stack([way[f"{name}.{role}"] for name, role in zip(model.names, roles)], axis=1)[None]
        for roles in (["velocity"] * len(model.names), ["velocity_dispersion"] * len(model.names), model.strengths)
    ]
    return Starts(*parts) if all(np.isfinite(part).all() for part in parts) else None


def _corner(setup: Setup, i: int, j: int) -> tuple[float, float]:
    """Return h3 and h4 of the `j`-th other shape of line `i`: corners of their bounds in turn, all pairs of two components."""
    group = setup.groups[i]
    signs = _CORNERS[(j + group * (j // len(_CORNERS))) % len(_CORNERS)]
    values = []
    for role, sign in zip(("h3", "h4"), signs):
        item, guess = getattr(setup.lines[i].kinematics, role), setup.guess_shape[f"{setup.lines[i].name}.{role}"]
        low, high = (max(item.lower, -0.3), min(item.upper, 0.3)) if isinstance(item, Bounded) else (guess, guess)
        values.append(0.5 * (low + high) + 0.4 * (high - low) * sign if low < high else guess)
    return values[0], values[1]


def pack_named(setup: Setup, space: ParameterSpace, way: Named, n: int) -> np.ndarray:
    """Return one start as free vectors (1, n, n_free), NaN rows where it isn't one; shapes start as they were declared."""
    given: dict[str, np.ndarray] = {}
    missing = np.zeros(n, bool)
    for name in setup.model.parameter_names:
        value = way[name] if name in way else np.full(n, setup.guess_shape[name])
        if not name.endswith((".flux", ".amplitude")):
            missing |= ~np.isfinite(value)
        given[name] = value
    # A moving bound must not see NaN, and zero is no width.
    free = {
        entry.name: np.nan_to_num(np.where(missing, VELOCITY_SCALE, given[entry.name]), posinf=0.0, neginf=0.0)
        for entry in space.structure.free
    }
    x = pack_starts(space, free, n)
    x[:, missing] = np.nan
    return x


def narrowed(space: ParameterSpace, lower: Named, upper: Named, n: int) -> ParameterSpace:
    """Return the space with other bounds of free parameters, where these are narrower."""
    if not lower and not upper:
        return space
    names = space.structure.element_names
    low, high = (np.array(np.broadcast_to(np.asarray(side, float), (n, len(names)))) for side in (space.lower, space.upper))
    for j, name in enumerate(names):
        if name in lower:
            low[:, j] = np.fmax(low[:, j], lower[name])
        if name in upper:
            high[:, j] = np.fmin(high[:, j], upper[name])
    return replace(space, lower=low, upper=high)
