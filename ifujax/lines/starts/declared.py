"""Starts that the user declared: numbers, ``peak``/``mean``/``median`` of each spectrum, moments, lines at the noise."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from ifujax.inference.parameter_space.declarations import Bounded, Fixed
from ifujax.inference.precision import working_precision
from ifujax.lines.setup import Setup

_REACH = 3.0
"""Half-width, in guessed sigma, of where moments are taken."""
Named = Mapping[str, np.ndarray]


def declared_start(setup: Setup, residual: np.ndarray, ivar: np.ndarray) -> dict[str, np.ndarray]:
    """Return the declared guesses of every spectrum, ``{"line.parameter": (n,)}``.

    Parameters
    ----------
    residual, ivar : array (n, n_pix)
        Data less continuum; inverse variance, 0 = masked. ``peak``, ``mean`` and ``median`` are those of each
        spectrum's residual over its usable pixels; a strength without a guess starts at the peak.
    """
    used = ivar > 0
    held = np.where(used, residual, np.nan)
    empty = ~used.any(axis=1)
    held[empty] = 0.0
    amplitudes = {"peak": np.nanmax(held, axis=1), "mean": np.nanmean(held, axis=1), "median": np.nanmedian(held, axis=1)}
    deepest = np.nanmin(held, axis=1)
    result: dict[str, np.ndarray] = {}
    for i, line in enumerate(setup.lines):
        item = line.strength_declaration
        start = item.value if isinstance(item, Fixed) else item.start if isinstance(item, Bounded) else None
        if isinstance(start, (int, float)):
            strength = np.full(len(residual), float(start))
        else:
            chosen = amplitudes.get(start or "peak", amplitudes["peak"])
            if start in (None, "peak") and setup.strength_range[i, 1] <= 0:
                chosen = deepest  # the peak of an absorption line
            strength = _as_strength(setup, i, chosen, setup.guess_sigma[i])
        result[f"{line.name}.{line.strength}"] = _within(item, strength)
        result[f"{line.name}.velocity"] = np.full(len(residual), setup.guess_velocity[i])
        result[f"{line.name}.velocity_dispersion"] = np.full(len(residual), setup.guess_sigma[i])
    return result


def moment_start(
    setup: Setup, residual: np.ndarray, ivar: np.ndarray, pixel_velocity: np.ndarray, width: np.ndarray
) -> dict[str, np.ndarray]:
    """Return peak, mean and mean deviation of the data within 3 sigma of each guess, or the guess where these break its bounds.

    Parameters
    ----------
    pixel_velocity : array (lines, n_pix)
        km/s.
    width : array (n_pix,)
        Pixel widths, 0 for padding.
    """
    result = declared_start(setup, residual, ivar)
    used = (ivar > 0) & (width > 0)
    for i, line in enumerate(setup.lines):
        near = np.abs(pixel_velocity[i] - setup.guess_velocity[i]) <= _REACH * setup.guess_sigma[i]
        weight = np.where(used & near, residual, 0.0) * width
        total = weight.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (weight * pixel_velocity[i]).sum(axis=1) / total
            deviation = (weight * np.abs(pixel_velocity[i] - mean[:, None])).sum(axis=1) / total
        peak = np.where(used & near, residual, -np.inf).max(axis=1, initial=-np.inf)
        sigma = _inside(line.kinematics.velocity_dispersion, deviation, result[f"{line.name}.velocity_dispersion"])
        result[f"{line.name}.velocity"] = _inside(line.kinematics.velocity, mean, result[f"{line.name}.velocity"])
        result[f"{line.name}.velocity_dispersion"] = sigma
        name = f"{line.name}.{line.strength}"
        result[name] = _inside(line.strength_declaration, _as_strength(setup, i, peak, sigma), result[name])
    return result


def trivial_start(setup: Setup, residual: np.ndarray, ivar: np.ndarray) -> dict[str, np.ndarray]:
    """Return lines whose amplitude is the residuals' rms, at the declared velocities and dispersions."""
    result = declared_start(setup, residual, ivar)
    used = ivar > 0
    rms = np.sqrt((np.where(used, residual, 0.0) ** 2).sum(axis=1) / np.maximum(used.sum(axis=1), 1))
    for i, line in enumerate(setup.lines):
        strength = _as_strength(setup, i, rms, setup.guess_sigma[i])
        result[f"{line.name}.{line.strength}"] = _within(line.strength_declaration, strength)
    return result


def _as_strength(setup: Setup, i: int, amplitude: np.ndarray, sigma: np.ndarray | float) -> np.ndarray:
    """Turn a peak into what the line's strength is, with the shape and the LSF at the guess."""
    model = setup.model
    if model.strengths[i] == "amplitude":
        return amplitude
    name = model.names[i]
    guess = {f"{name}.velocity": setup.guess_velocity[i], f"{name}.velocity_dispersion": setup.guess_sigma[i]}
    guess |= {key: value for key, value in setup.guess_shape.items() if key.startswith(f"{name}.")}
    with working_precision("float64"):
        ratio = float(model.flux_over_amplitude({key: jnp.asarray(value) for key, value in guess.items()}, i))
    return amplitude * (ratio * sigma / setup.guess_sigma[i])


def _within(item: object, values: np.ndarray) -> np.ndarray:
    return np.clip(values, item.lower, item.upper) if isinstance(item, Bounded) else values


def _inside(item: object, values: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    if not isinstance(item, Bounded):
        return otherwise
    return np.where(np.isfinite(values) & (values > item.lower) & (values < item.upper), values, otherwise)
