"""From what the user declared to what the engine fits: model, parameter space, line windows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference.parameter_space.constraints import parse
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed, Tied
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.lines.config import LSF, SHAPE_PARAMETERS, EmissionModel, Kinematics, Line, LineFitConfig
from ifujax.models.doppler import C_KMS
from ifujax.models.emission import EmissionSpectrum
from ifujax.models.lsf import LineSpread
from ifujax.models.profiles import LARGEST_RESOLVED_PIXEL

VELOCITY_SCALE = 100.0
"""km/s that count as 1 inside the engine."""


@dataclass(frozen=True)
class Setup:
    """A fit of emission lines made ready for one wavelength axis.

    `guess_velocity` and `guess_sigma` (lines,) are the declared guesses in km/s, `guess_shape` those of the shapes' own
    parameters by name; `strength_range` (lines, 2) what the strengths may be: 0 or infinite; `reach` (lines, 2) the
    rest wavelengths that a line can affect; `line_windows` those in which it is sought
    (`optimize_fit`), or None.
    """

    lines: tuple[Line, ...]
    model: EmissionSpectrum
    space: ParameterSpace
    guess_velocity: np.ndarray
    guess_sigma: np.ndarray
    guess_shape: Mapping[str, float]
    strength_range: np.ndarray
    reach: np.ndarray
    line_windows: np.ndarray | None

    @property
    def groups(self) -> tuple[int, ...]:
        """The number of each line's kinematic group."""
        return kinematic_groups(self.lines)


def prepare(config: LineFitConfig, rest_edges: np.ndarray, redshift: float) -> Setup:
    """Build the model and its parameter space for a rest-frame wavelength axis.

    Lines outside the window are left out with a warning; UsageError when none remains or when
    another parameter is tied to one of them.
    """
    lines = _inside(config.model, rest_edges)
    joint = config.continuum.mode == "joint"
    degree = config.model.continuum_degree
    rest = np.array([line.rest_wavelength for line in lines])
    guesses = _guesses(_declarations(lines))
    velocity = np.array([guesses[f"{line.name}.velocity"] for line in lines])
    sigma = np.array([guesses[f"{line.name}.velocity_dispersion"] for line in lines])
    windows = None
    if config.fit.optimize_fit and not config.fit.ifscube_compat:  # there the windows only choose pixels
        half = config.fit.optimization_window * sigma / C_KMS
        centre = rest * (1.0 + velocity / C_KMS)
        windows = np.stack([centre * (1.0 - half), centre * (1.0 + half)], axis=1)
    model = EmissionSpectrum(
        names=tuple(line.name for line in lines),
        strengths=tuple(line.strength for line in lines),
        shapes=tuple(line.shape for line in lines),
        profile=config.model.profile,
        resolved=_resolved(config, lines, rest_edges, redshift),
        n_continuum=degree + 1 if joint and degree is not None else 0,
        rest_wavelengths=rest,
        redshift=np.float64(redshift),
        spread=_line_spread(config.model.lsf),
        h4_constant=-3.0 if config.model.h4_convention == "ifscube" else 3.0,
    )
    space = ParameterSpace.build(_declarations(lines))
    shape = {f"{line.name}.{role}": guesses[f"{line.name}.{role}"] for line in lines for role, _ in _items(line)[3:]}
    return Setup(
        lines, model, space, velocity, sigma, shape, _strength_range(lines), _reach(lines, rest, velocity, sigma), windows
    )


def followers(setup: Setup, name: str) -> list[str]:
    """Return the parameters that a free one decides: itself, and those that are tied to it, directly or through others."""
    entries = {entry.name: entry for entry in setup.space.structure.entries}

    def rests_on(other: str) -> bool:
        expression = entries[other].expression
        return other == name or (expression is not None and any(map(rests_on, expression.names)))

    return [other for other in entries if rests_on(other)]


def _inside(model: EmissionModel, rest_edges: np.ndarray) -> tuple[Line, ...]:
    low, high = rest_edges[0], rest_edges[-1]
    kept = tuple(line for line in model.lines if low <= line.rest_wavelength <= high)
    outside = [line.name for line in model.lines if line not in kept]
    if not kept:
        raise UsageError(
            f"lines must lie in the fitting window, {low:.1f} to {high:.1f} Angstrom (rest); got none of "
            f"{', '.join(outside)} there. Check the redshift, the window and the rest wavelengths."
        )
    if outside:
        warnings.warn(
            f"left out, outside the fitting window {low:.1f} to {high:.1f} Angstrom (rest): {', '.join(outside)}.",
            IfujaxWarning,
            stacklevel=3,
        )
    for line in kept:
        for role, item in _items(line):
            for text in _expressions(item):
                named = [name for name in outside if f"{name}." in text]
                if named:
                    raise UsageError(
                        f"{line.name}.{role} must not depend on {named[0]!r}, which lies outside the fitting window; "
                        f"got {text!r}. Widen the window or remove the constraint."
                    )
    return kept


def _items(line: Line) -> list[tuple[str, Declaration]]:
    """Name and declaration of each of a line's parameters, its strength first."""
    shape = [(role, getattr(line.kinematics, role)) for role in SHAPE_PARAMETERS[line.shape]]
    return [(line.strength, line.strength_declaration), *shape]


def _expressions(item: Declaration) -> list[str]:
    if isinstance(item, Tied):
        return [item.expression]
    return [text for text in (item.above, item.below) if text] if isinstance(item, Bounded) else []


def kinematic_groups(lines: tuple[Line, ...]) -> tuple[int, ...]:
    """Return the number of each line's kinematic group: lines of a group share a Kinematics object."""
    shared: list[Kinematics] = []
    numbers = []
    for line in lines:
        number = next((k for k, each in enumerate(shared) if each is line.kinematics), len(shared))
        if number == len(shared):
            shared.append(line.kinematics)
        numbers.append(number)
    return tuple(numbers)


def _declarations(lines: tuple[Line, ...]) -> dict[str, Declaration]:
    """Name every parameter; lines that share a Kinematics object follow the first of them."""
    leaders: dict[tuple[int, str], str] = {}
    groups = kinematic_groups(lines)
    result: dict[str, Declaration] = {}
    for line, group in zip(lines, groups):
        strength = line.strength_declaration
        result[f"{line.name}.{line.strength}"] = replace(strength, start=None) if isinstance(strength, Bounded) else strength
        for role, item in _items(line)[1:]:
            leader = leaders.setdefault((group, role), line.name)
            result[f"{line.name}.{role}"] = item if leader == line.name else Tied(f"{leader}.{role}")
    return result


_FALLBACK = {"velocity": 0.0, "velocity_dispersion": 100.0, "h3": 0.0, "h4": 0.0, "lorentz_fwhm": 0.0}
"""Guesses where none is declared; strengths have none."""


def _guesses(declarations: Mapping[str, Declaration]) -> dict[str, float]:
    """Return the guess of every parameter but strengths; tied ones follow the guesses of those that they are tied to."""
    found: dict[str, float] = {}
    expressions = {}
    for name, item in declarations.items():
        fallback = _FALLBACK.get(name.rsplit(".", 1)[1])
        if isinstance(item, Tied):
            expressions[name] = parse(item.expression, declarations, where=f"tie of {name!r}")
        elif fallback is not None:
            found[name] = _guess(item, fallback)
    for _ in range(len(expressions)):
        for name, expression in expressions.items():
            if name not in found and set(expression.names) <= found.keys():
                found[name] = float(expression({other: found[other] for other in expression.names}))
    # What follows a strength has no guess.
    return {name: _FALLBACK.get(name.rsplit(".", 1)[1], np.nan) for name in declarations} | found


def _guess(item: Declaration, fallback: float) -> float:
    if isinstance(item, Fixed):
        return item.value
    if isinstance(item, Bounded):
        if isinstance(item.start, (int, float)):
            return float(item.start)
        if np.isfinite(item.lower) and np.isfinite(item.upper):
            return float(np.clip(fallback, item.lower, item.upper))
    return fallback


def _strength_range(lines: tuple[Line, ...]) -> np.ndarray:
    """Signs that each strength may have, as limits 0 or infinity; tied lines follow those that they are tied to."""
    limits = {}
    for line in lines:
        item = line.strength_declaration
        if isinstance(item, Bounded):
            limits[line.name] = (0.0 if item.lower >= 0 else -np.inf, 0.0 if item.upper <= 0 else np.inf)
        elif isinstance(item, Fixed):
            limits[line.name] = (0.0, np.inf) if item.value >= 0 else (-np.inf, 0.0)
    both = list(limits.values())
    # Ties are ratios nearly always: where all free lines are in emission, so are the tied ones.
    others = both[0] if both and all(pair == both[0] for pair in both) else (-np.inf, np.inf)
    return np.array([limits.get(line.name, others) for line in lines])


def _reach(lines: tuple[Line, ...], rest: np.ndarray, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Rest wavelengths to which each line may contribute: its velocity bounds, and 3 guessed sigma more."""
    ends = []
    for line, v, s in zip(lines, velocity, sigma):
        item = line.kinematics.velocity
        low, high = (item.lower, item.upper) if isinstance(item, Bounded) else (v, v)
        low, high = max(low, v - 1000.0), min(high, v + 1000.0)
        ends.append((low - 3.0 * s, high + 3.0 * s))
    return rest[:, None] * (1.0 + np.array(ends) / C_KMS)


def _resolved(config: LineFitConfig, lines: tuple[Line, ...], rest_edges: np.ndarray, redshift: float) -> bool:
    """Whether all lines are Gaussians and the narrowest that the bounds allow is wide against the pixels."""
    if any(line.shape != "gaussian" for line in lines):
        return False
    spread = _line_spread(config.model.lsf)
    for line in lines:
        item = line.kinematics.velocity_dispersion
        narrowest = item.value if isinstance(item, Fixed) else item.lower
        if not np.isfinite(narrowest) or narrowest <= 0:
            narrowest = 0.0
        if spread is not None:
            ends = np.array([rest_edges[0], line.rest_wavelength, rest_edges[-1]]) * (1.0 + redshift)
            narrowest = np.hypot(narrowest, np.asarray(spread.velocity_sigma(ends)).min())
        pixel = C_KMS * np.diff(rest_edges).max() / line.rest_wavelength
        if pixel > LARGEST_RESOLVED_PIXEL * narrowest:
            return False
    return True


def _line_spread(lsf: LSF | None) -> LineSpread | None:
    if lsf is None:
        return None
    leaves: tuple[Any, ...] = (np.array(lsf.values), np.array(lsf.wavelengths), np.float64(lsf.reference))
    return LineSpread(lsf.kind, *leaves)
