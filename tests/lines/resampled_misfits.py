"""Spectra that a model of three Gaussian lines on a polynomial does not describe, ten kinds of them. NumPy and SciPy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import erf, voigt_profile

C = 299792.458
REST = {"n2a": 6548.05, "ha": 6562.8, "n2b": 6583.46}
WAVE = 6425.0 + 1.25 * np.arange(240)
Rng = np.random.Generator


def gaussian(rest: float, velocity: float, sigma: float) -> np.ndarray:
    """Return mean flux densities in the pixels of a line of unit flux; relativistic velocities, km/s."""
    q = (np.append(WAVE - 0.625, WAVE[-1] + 0.625) / rest) ** 2
    below = 0.5 * erf((C * (q - 1) / (q + 1) - velocity) / (np.sqrt(2) * sigma))
    return np.diff(below) / 1.25


def _base(rng: Rng) -> tuple[float, float, float]:
    """Velocity, dispersion, and flux of H-alpha for a peak of 5 to 60 times the noise."""
    sigma = rng.uniform(60, 140)
    return rng.uniform(-100, 100), sigma, rng.uniform(5, 60) * np.sqrt(2 * np.pi) * sigma / C * REST["ha"]


def _lines(v: float, s: float, f: float, ratio: float = 0.4) -> np.ndarray:
    return f * (gaussian(REST["ha"], v, s) + ratio * gaussian(REST["n2b"], v, s) + ratio / 3 * gaussian(REST["n2a"], v, s))


def nothing(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    return np.zeros_like(WAVE)


def stellar(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    """Absorption features all over the spectrum, of a few pixels to thirty."""
    total = np.zeros_like(WAVE)
    for _ in range(25):
        total -= rng.exponential(1.0) * np.exp(-0.5 * ((WAVE - rng.uniform(WAVE[0], WAVE[-1])) / rng.uniform(2.5, 15.0)) ** 2)
    return total * rng.uniform(0.3, 2.5)


def balmer(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    """Absorption under the line, broader than it."""
    return -rng.uniform(0.05, 0.6) * f * gaussian(REST["ha"], v + rng.uniform(-50, 50), rng.uniform(200, 500))


def broad(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    return rng.uniform(0.1, 1.0) * f * gaussian(REST["ha"], v + rng.uniform(-200, 200), rng.uniform(250, 600))


def neighbour(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    return rng.uniform(0.05, 0.6) * f * gaussian(REST["ha"], v + rng.choice([-1, 1]) * s * rng.uniform(2, 5), s)


def lorentzian(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    """A Voigt profile in place of the Gaussian."""
    width = s / C * REST["ha"]
    x = WAVE - REST["ha"] * (1 + v / C)
    return f * (voigt_profile(x, 0.6 * width, width * rng.uniform(0.2, 1.0)) - gaussian(REST["ha"], v, s))


def doubled(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    apart = s * rng.uniform(0.6, 2.0)
    halves = gaussian(REST["ha"], v - apart, 0.7 * s) + gaussian(REST["ha"], v + apart, 0.7 * s) * rng.uniform(0.3, 1.0)
    return f * (halves - gaussian(REST["ha"], v, s))


def step(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    return rng.uniform(1, 6) * (rng.uniform(6500, 6640) < WAVE)


def sky(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    """What a line of the sky left, on the flank of the line."""
    x = (WAVE - REST["ha"] * (1 + v / C) - rng.uniform(-4, 4)) / 1.1
    return rng.uniform(3, 20) * (-x if rng.random() < 0.5 else 1.0) * np.exp(-0.5 * x**2)


def skewed(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    """A second, narrower line on the flank: a skewed profile."""
    return rng.uniform(0.1, 0.8) * f * gaussian(REST["ha"], v + rng.choice([-1, 1]) * s * rng.uniform(0.7, 1.5), 0.5 * s)


def forgotten(rng: Rng, v: float, s: float, f: float) -> np.ndarray:
    """A line that nobody declared, close enough to [N II] to matter."""
    return rng.uniform(0.05, 0.6) * f * gaussian(REST["n2b"], v + rng.choice([-1, 1]) * s * rng.uniform(2, 4), s)


KINDS: tuple[Callable[..., np.ndarray], ...] = (
    stellar, balmer, broad, neighbour, lorentzian, doubled, step, sky, skewed, forgotten,
)  # fmt: skip


def spectra(kind: Callable[..., np.ndarray], n: int, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return spectra (wave, n) without noise, independent noise of 1, and velocity, dispersion and flux of H-alpha."""
    rng = np.random.default_rng(seed)
    data, truth = np.empty((len(WAVE), n)), np.empty((3, n))
    for i in range(n):
        v, s, f = _base(rng)
        data[:, i] = _lines(v, s, f) + rng.uniform(20, 60) + rng.uniform(-0.02, 0.02) * (WAVE - WAVE.mean())
        data[:, i] += kind(rng, v, s, f)
        truth[:, i] = v, s, f
    return data, rng.standard_normal(data.shape), dict(zip(("velocity", "velocity_dispersion", "flux"), truth))


def every(n: int, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Yield name, spectra, noise and truth of each kind of misfit."""
    for k, kind in enumerate(KINDS):
        yield kind.__name__, *spectra(kind, n, seed + k)
