"""Exact posterior of lines that share one velocity and one dispersion: a grid of these two, all else integrated.

NumPy alone, and independent of what is tested. At each point of the grid the fluxes (HalfNormal priors) have a truncated normal
distribution and the continuum (flat prior) a normal one. Two free fluxes; velocity and dispersion uniform within bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.special import log_ndtr, logsumexp, ndtri_exp

from ifujax.simulate.profiles import gaussian_line, lsf_sigma_velocity
from ifujax.simulate.simulated_spectra import polynomial_coordinate

Bounds = tuple[float, float]
_NODES, _WEIGHTS = leggauss(80)
_DEEP = 25.0
"""Log posterior below the peak at which the grid may end."""


@dataclass(frozen=True)
class GridProblem:
    """One spectrum and its priors.

    `lines` are (rest wavelength, which of the two fluxes, ratio to it); `tau` the scale of each flux's HalfNormal prior;
    `degree` that of the continuum, a polynomial in -1 to 1 over the pixels.
    """

    wavelength: np.ndarray
    values: np.ndarray
    sigma: np.ndarray
    good: np.ndarray
    lines: Sequence[tuple[float, int, float]]
    tau: tuple[float, float]
    velocity: Bounds
    dispersion: Bounds
    lsf_fwhm: float
    degree: int = 1

    def templates(self, velocity: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
        """Flux densities per unit flux, (points, 2, pixels)."""
        result = np.zeros((len(velocity), 2, len(self.wavelength)))
        for rest, which, ratio in self.lines:
            sigma = np.hypot(dispersion, lsf_sigma_velocity(self.lsf_fwhm, velocity, rest))
            result[:, which] += ratio * gaussian_line(self.wavelength, rest, np.ones(len(velocity)), velocity, sigma)
        return result

    @property
    def basis(self) -> np.ndarray:
        """Whitened continuum, (pixels, degree + 1); Legendre polynomials, for the draws of their coefficients."""
        coordinate = polynomial_coordinate(self.wavelength)
        return np.polynomial.legendre.legvander(coordinate, self.degree) * (self.good / self.sigma)[:, None]


@dataclass(frozen=True)
class _Block:
    """Gaussian of the two fluxes at each point of the grid, before truncation."""

    mean: np.ndarray  # (points, 2)
    variance: np.ndarray  # (points, 2, 2)
    log_weight: np.ndarray  # (points,), truncation included


def _block(problem: GridProblem, velocity: np.ndarray, dispersion: np.ndarray) -> _Block:
    weight = problem.good / problem.sigma
    orthonormal = np.linalg.qr(problem.basis)[0]
    data = np.where(problem.good, problem.values, 0.0) * weight
    data = data - orthonormal @ (orthonormal.T @ data)
    columns = problem.templates(velocity, dispersion) * weight
    columns = columns - (columns @ orthonormal) @ orthonormal.T
    precision = columns @ columns.swapaxes(1, 2) + np.diag(1.0 / np.square(problem.tau))
    variance = np.linalg.inv(precision)
    right = columns @ data
    mean = np.einsum("pij,pj->pi", variance, right)
    log_weight = 0.5 * np.einsum("pi,pi->p", mean, right) - 0.5 * np.linalg.slogdet(precision)[1]
    log_density = _first_flux(mean, variance)[1]
    return _Block(mean, variance, log_weight + logsumexp(log_density, axis=1))


def _second_given_first(mean: np.ndarray, variance: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slope = variance[:, 0, 1] / variance[:, 0, 0]
    spread = np.sqrt(variance[:, 1, 1] - slope * variance[:, 0, 1])
    return mean[:, 1:] + slope[:, None] * (first - mean[:, :1]), spread[:, None]


def _first_flux(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the first flux (points, nodes), and the log of density times weight, the second flux being integrated."""
    s1 = np.sqrt(variance[:, 0, 0])
    # Where the second flux is pressed against 0 the first one follows it.
    pressed = mean[:, 0] - variance[:, 0, 1] / variance[:, 1, 1] * np.minimum(mean[:, 1], 0.0)
    low_mean, high_mean = np.minimum(mean[:, 0], pressed), np.maximum(mean[:, 0], pressed)
    low = np.maximum(low_mean - 9.0 * s1, 0.0)
    tail = np.where(high_mean > -3.0 * s1, high_mean + 9.0 * s1, 40.0 * s1**2 / np.maximum(-high_mean, s1))
    half = 0.5 * (np.maximum(tail, 0.1 * s1) - low)
    first = low[:, None] + half[:, None] * (1.0 + _NODES)
    inner, spread = _second_given_first(mean, variance, first)
    z = (first - mean[:, :1]) / s1[:, None]
    log_density = -0.5 * z * z + log_ndtr(inner / spread) + np.log(half[:, None] * _WEIGHTS) - np.log(s1)[:, None]
    return first, log_density - 0.5 * np.log(2.0 * np.pi)


def exact_draws(problem: GridProblem, n: int = 20000, seed: int = 0, points: int = 141) -> dict[str, np.ndarray]:
    """Return independent draws: velocity, velocity_dispersion, flux0, flux1, continuum.0 and so on, each (n,).

    The grid is refined until it holds the posterior tightly; draws are uniform within its cells.
    """
    rng = np.random.default_rng(seed)
    v_range, s_range = problem.velocity, problem.dispersion
    for _ in range(6):
        v, v_step = _cells(v_range, points)
        s, s_step = _cells(s_range, points)
        grid_v, grid_s = (axis.ravel() for axis in np.meshgrid(v, s, indexing="ij"))
        parts = [_block(problem, grid_v[i : i + 4096], grid_s[i : i + 4096]) for i in range(0, len(grid_v), 4096)]
        block = _Block(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("mean", "variance", "log_weight")))
        deep = (block.log_weight > block.log_weight.max() - _DEEP).reshape(points, points)
        new_v = _trimmed(v, v_step, deep.any(axis=1), problem.velocity)
        new_s = _trimmed(s, s_step, deep.any(axis=0), problem.dispersion)
        shrunk = (new_v[1] - new_v[0]) * (new_s[1] - new_s[0]) < 0.6 * (v_range[1] - v_range[0]) * (s_range[1] - s_range[0])
        if not shrunk:
            break
        v_range, s_range = new_v, new_s
    probability = np.exp(block.log_weight - logsumexp(block.log_weight))
    cell = rng.choice(len(probability), n, p=probability / probability.sum())
    velocity = grid_v[cell] + v_step * rng.uniform(-0.5, 0.5, n)
    dispersion = grid_s[cell] + s_step * rng.uniform(-0.5, 0.5, n)
    draws = {"velocity": velocity, "velocity_dispersion": dispersion}
    mean, variance = block.mean[cell], block.variance[cell]
    draws["flux0"] = _draw_first(mean, variance, rng)
    inner, spread = _second_given_first(mean, variance, draws["flux0"][:, None])
    draws["flux1"] = _above_zero(inner[:, 0], spread[:, 0], rng)
    return draws | _continuum(problem, draws, rng)


def _cells(limits: Bounds, points: int) -> tuple[np.ndarray, float]:
    step = (limits[1] - limits[0]) / points
    return limits[0] + step * (np.arange(points) + 0.5), step


def _trimmed(axis: np.ndarray, step: float, deep: np.ndarray, limits: Bounds) -> Bounds:
    inside = axis[deep]
    return max(inside[0] - 1.5 * step, limits[0]), min(inside[-1] + 1.5 * step, limits[1])


def _draw_first(mean: np.ndarray, variance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the first flux by inverting its cumulative distribution, piecewise linear between many nodes."""
    result = np.empty(len(mean))
    for i in range(0, len(mean), 2048):
        rows = slice(i, i + 2048)
        nodes, log_density = _first_flux(mean[rows], variance[rows])
        low, high = nodes[:, :1], nodes[:, -1:]
        fine = low + (high - low) * np.linspace(0.0, 1.0, 601)
        s1 = np.sqrt(variance[rows, 0, 0])[:, None]
        inner, spread = _second_given_first(mean[rows], variance[rows], fine)
        log_density = -0.5 * ((fine - mean[rows, :1]) / s1) ** 2 + log_ndtr(inner / spread)
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        below = np.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), axis=1)
        below = np.concatenate([np.zeros((len(below), 1)), below], axis=1) / below[:, -1:]
        u = rng.random(len(below))
        right = np.minimum((below < u[:, None]).sum(axis=1), 600)
        at = np.arange(len(below))
        share = (u - below[at, right - 1]) / np.maximum(below[at, right] - below[at, right - 1], 1e-300)
        result[rows] = fine[at, right - 1] + share * (fine[at, right] - fine[at, right - 1])
    return result


def _above_zero(mean: np.ndarray, spread: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal draws that are positive, exact in the far tail: by the log of the survival function."""
    log_survival = log_ndtr(mean / spread) + np.log(rng.random(len(mean)))
    return np.maximum(mean - spread * ndtri_exp(log_survival), 0.0)


def _continuum(problem: GridProblem, draws: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    basis = problem.basis
    gram = np.linalg.inv(basis.T @ basis)
    factor = np.linalg.cholesky(gram)
    weight = problem.good / problem.sigma
    data = np.where(problem.good, problem.values, 0.0) * weight
    result = np.empty((len(draws["flux0"]), basis.shape[1]))
    for i in range(0, len(result), 2048):
        rows = slice(i, i + 2048)
        fluxes = np.stack([draws["flux0"][rows], draws["flux1"][rows]], axis=1)
        lines = np.einsum("pk,pkw->pw", fluxes, problem.templates(draws["velocity"][rows], draws["velocity_dispersion"][rows]))
        result[rows] = (data - lines * weight) @ basis @ gram
    result += rng.standard_normal(result.shape) @ factor.T
    return {f"continuum.{k}": result[:, k] for k in range(result.shape[1])}
