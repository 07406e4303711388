"""What ifujax is measured against: scipy and a hand-written numba loop, on the three-line problem.

Seven free parameters, in this order: the peak amplitudes of [N II] 6548, H-alpha and [N II] 6583, one velocity, one observed
dispersion (km/s), and the constant and slope of the continuum. The model of each line is Gaussian in velocity space
(`ifujax.simulate.profiles`), either ``"sampled"`` at pixel centres (what the published numbers used) or ``"integrated"``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import erf, exp, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import ndtr

from ifujax.simulate import SimulatedSpectra
from ifujax.simulate.profiles import SPEED_OF_LIGHT, pixel_edges, velocity_of
from ifujax.simulate.simulated_spectra import polynomial_coordinate

FloatArray = NDArray[np.float64]
REST = np.array([6548.04, 6562.80, 6583.46])
N_PARAMETERS = 7
MAX_ITERATIONS = 100
START_VELOCITY, START_SIGMA = 0.0, 120.0


@dataclass(frozen=True)
class Timing:
    """CPU and wall seconds of one call, and its result."""

    cpu: float
    wall: float
    result: Any


@dataclass(frozen=True)
class ThreeLines:
    """The three-line problem as plain arrays."""

    data: FloatArray  # (n, w)
    weight: FloatArray  # (n, w), 1 / sigma
    velocity: FloatArray  # (3, w), of the pixel centres
    edge_velocity: FloatArray  # (3, w + 1)
    coordinate: FloatArray  # (w,), -1 to 1
    width: FloatArray  # (w,), Angstrom
    start: FloatArray  # (7,), the same for all
    integrated: bool


def three_lines(sample: SimulatedSpectra) -> ThreeLines:
    """Return the arrays of `simulate.three_line_problem`; the profile is that of the simulation."""
    edges = pixel_edges(sample.wavelength)
    # One start for all: typical amplitude and level of the sample, the line where it is at rest
    level = float(np.median(sample.values))
    amplitude = float(np.median(sample.values.max(axis=1) - np.median(sample.values, axis=1)))
    start = np.array([amplitude / 3, amplitude, amplitude, START_VELOCITY, START_SIGMA, level, 0.0])
    return ThreeLines(
        data=np.ascontiguousarray(sample.values),
        weight=np.ascontiguousarray(1.0 / np.sqrt(sample.variance)),
        velocity=np.stack([velocity_of(sample.wavelength, rest) for rest in REST]),
        edge_velocity=np.stack([velocity_of(edges, rest) for rest in REST]),
        coordinate=polynomial_coordinate(sample.wavelength),
        width=np.diff(edges),
        start=start,
        integrated=sample.profile == "integrated",
    )


def measure(call: Callable[[], Any], repeat: int = 1) -> Timing:
    """Return the fastest of `repeat` calls by CPU time of this process (all its threads)."""
    best: Timing | None = None
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        timing = Timing(time.process_time() - cpu, time.perf_counter() - wall, result)
        if best is None or timing.cpu < best.cpu:
            best = timing
    if best is None:
        raise ValueError(f"repeat must be positive; got {repeat}. Give 1 or more.")
    return best


# ---------------------------------------------------------------- scipy


def model(problem: ThreeLines, x: FloatArray) -> FloatArray:
    """Return the model of one spectrum, (w,), in NumPy."""
    velocity, sigma = x[3], x[4]
    total = x[5] + x[6] * problem.coordinate
    if problem.integrated:
        w = (problem.edge_velocity - velocity) / sigma
        flux = x[:3] * sqrt(2 * np.pi) * sigma * REST / SPEED_OF_LIGHT
        return total + flux @ np.diff(ndtr(w), axis=1) / problem.width
    w = (problem.velocity - velocity) / sigma
    return total + x[:3] @ (np.exp(-0.5 * w**2) / (1.0 + problem.velocity / SPEED_OF_LIGHT))


def scipy_lm(problem: ThreeLines, rows: slice = slice(None)) -> tuple[FloatArray, FloatArray]:
    """Fit with ``least_squares(method="lm")`` and its numeric Jacobian; return parameters (n, 7) and chi2 (n,)."""
    data, weight = problem.data[rows], problem.weight[rows]
    parameters, chi2 = np.empty((len(data), N_PARAMETERS)), np.empty(len(data))
    for i in range(len(data)):
        fit = least_squares(
            lambda x, i=i: (model(problem, x) - data[i]) * weight[i], problem.start, method="lm", x_scale="jac", ftol=1e-6
        )
        parameters[i], chi2[i] = fit.x, 2.0 * fit.cost
    return parameters, chi2


# ---------------------------------------------------------------- numba: what a C programmer would write


@njit(fastmath=True, cache=True, inline="always")
def _solve7(matrix, gradient, damping, step):  # pragma: no cover - compiled
    """Solve (A + damping diag A) step = gradient by Cholesky; return False where it isn't positive definite."""
    n = gradient.size
    factor = np.empty((N_PARAMETERS, N_PARAMETERS))
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            if i == j:
                total *= 1.0 + damping
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i == j:
                if total <= 0.0:
                    return False
                factor[i, i] = sqrt(total)
            else:
                factor[i, j] = total / factor[j, j]
    for i in range(n):
        total = gradient[i]
        for k in range(i):
            total -= factor[i, k] * step[k]
        step[i] = total / factor[i, i]
    for i in range(n - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, n):
            total -= factor[k, i] * step[k]
        step[i] = total / factor[i, i]
    return True


@njit(fastmath=True, cache=True)
def _rows_sampled(x, velocity, correction, coordinate, data, weight, reach, columns, residual):  # pragma: no cover - compiled
    """Fill the weighted residuals (w,) and Jacobian columns (7, w) of one spectrum; return chi2."""
    n_pix = data.size
    inverse = 1.0 / x[4]
    for p in range(n_pix):
        residual[p] = x[5] + x[6] * coordinate[p] - data[p]
        columns[3, p] = 0.0
        columns[4, p] = 0.0
    for line in range(3):
        amplitude = x[line] * inverse
        first = np.searchsorted(velocity[line], x[3] - reach * x[4])
        last = np.searchsorted(velocity[line], x[3] + reach * x[4])
        columns[line, :first] = 0.0
        columns[line, last:] = 0.0
        for p in range(first, last):
            w = (velocity[line, p] - x[3]) * inverse
            # fastmath: no branch, exp of a very negative number is 0
            profile = exp(-0.5 * w * w) * correction[line, p]
            columns[line, p] = profile * weight[p]
            residual[p] += x[line] * profile
            slope = amplitude * profile * w
            columns[3, p] += slope
            columns[4, p] += slope * w
    chi2 = 0.0
    for p in range(n_pix):
        residual[p] *= weight[p]
        columns[3, p] *= weight[p]
        columns[4, p] *= weight[p]
        columns[5, p] = weight[p]
        columns[6, p] = weight[p] * coordinate[p]
        chi2 += residual[p] * residual[p]
    return chi2


@njit(fastmath=True, cache=True)
def _rows_integrated(x, edge_velocity, scale, coordinate, data, weight, reach, columns, residual):  # pragma: no cover - compiled
    """As `_rows_sampled` for pixel-integrated lines: one erf and one exp an edge."""
    n_pix = data.size
    inverse = 1.0 / x[4]
    for p in range(n_pix):
        residual[p] = x[5] + x[6] * coordinate[p] - data[p]
        columns[3, p] = 0.0
        columns[4, p] = 0.0
    for line in range(3):
        first = min(max(np.searchsorted(edge_velocity[line], x[3] - reach * x[4]) - 1, 0), n_pix)
        last = min(np.searchsorted(edge_velocity[line], x[3] + reach * x[4]), n_pix)
        columns[line, :first] = 0.0
        columns[line, last:] = 0.0
        w_low = (edge_velocity[line, first] - x[3]) * inverse
        cdf_low = 0.5 * erf(w_low * 0.7071067811865476)
        pdf_low = 0.3989422804014327 * exp(-0.5 * w_low * w_low)
        for p in range(first, last):
            w_high = (edge_velocity[line, p + 1] - x[3]) * inverse
            cdf_high = 0.5 * erf(w_high * 0.7071067811865476)
            pdf_high = 0.3989422804014327 * exp(-0.5 * w_high * w_high)
            share = cdf_high - cdf_low
            # amplitude to mean flux density: A sqrt(2 pi) sigma lambda0 / c / width
            unit = scale[line, p]
            profile = unit * x[4] * share
            columns[line, p] = profile * weight[p]
            residual[p] += x[line] * profile
            columns[3, p] += x[line] * unit * (pdf_low - pdf_high)
            columns[4, p] += x[line] * unit * (share + pdf_low * w_low - pdf_high * w_high)
            cdf_low, pdf_low, w_low = cdf_high, pdf_high, w_high
    chi2 = 0.0
    for p in range(n_pix):
        residual[p] *= weight[p]
        columns[3, p] *= weight[p]
        columns[4, p] *= weight[p]
        columns[5, p] = weight[p]
        columns[6, p] = weight[p] * coordinate[p]
        chi2 += residual[p] * residual[p]
    return chi2


@njit(fastmath=True, cache=True)
def _normal(columns, residual, matrix, gradient):  # pragma: no cover - compiled
    n_pix = residual.size
    for i in range(N_PARAMETERS):
        for j in range(i + 1):
            total = 0.0
            for p in range(n_pix):
                total += columns[i, p] * columns[j, p]
            matrix[i, j] = total
        total = 0.0
        for p in range(n_pix):
            total -= columns[i, p] * residual[p]
        gradient[i] = total


@njit(fastmath=True, cache=True)
def _fit_batch(data, weight, velocity, factor, coordinate, start, integrated, reach, tolerance):  # pragma: no cover - compiled
    n, n_pix = data.shape
    parameters = np.empty((n, N_PARAMETERS))
    chi2 = np.empty(n)
    iterations = np.zeros(n, dtype=np.int64)
    # two sets of columns: those of an accepted trial become the current ones by a swap
    columns, trial_columns = np.empty((N_PARAMETERS, n_pix)), np.empty((N_PARAMETERS, n_pix))
    residual, trial_residual = np.empty(n_pix), np.empty(n_pix)
    matrix, gradient = np.empty((N_PARAMETERS, N_PARAMETERS)), np.empty(N_PARAMETERS)
    step, x, trial = np.empty(N_PARAMETERS), np.empty(N_PARAMETERS), np.empty(N_PARAMETERS)
    for i in range(n):
        x[:] = start
        if integrated:
            now = _rows_integrated(x, velocity, factor, coordinate, data[i], weight[i], reach, columns, residual)
        else:
            now = _rows_sampled(x, velocity, factor, coordinate, data[i], weight[i], reach, columns, residual)
        damping, growth = 1e-3, 2.0
        _normal(columns, residual, matrix, gradient)
        for iteration in range(MAX_ITERATIONS):
            iterations[i] = iteration + 1
            ok = _solve7(matrix, gradient, damping, step)
            if ok:
                predicted = 0.0
                for k in range(N_PARAMETERS):
                    trial[k] = x[k] + step[k]
                    predicted += step[k] * (gradient[k] + damping * matrix[k, k] * step[k])
                ok = trial[4] > 1.0 and trial[4] < 5000.0
            if not ok:
                damping *= growth
                growth *= 2.0
                continue
            if integrated:
                then = _rows_integrated(
                    trial, velocity, factor, coordinate, data[i], weight[i], reach, trial_columns, trial_residual
                )
            else:
                then = _rows_sampled(
                    trial, velocity, factor, coordinate, data[i], weight[i], reach, trial_columns, trial_residual
                )
            gain = now - then
            if gain >= 0.0:
                done = gain <= tolerance * now
                x, trial = trial, x
                columns, trial_columns = trial_columns, columns
                residual, trial_residual = trial_residual, residual
                now = then
                if done:
                    break
                # Nielsen (1999): damping from the ratio of actual to predicted gain
                ratio = 2.0 * gain / predicted - 1.0
                damping *= max(0.1, 1.0 - ratio * ratio * ratio)
                growth = 2.0
                _normal(columns, residual, matrix, gradient)
            else:
                if -gain <= 1e-12 * now:
                    break
                damping *= growth
                growth *= 2.0
        parameters[i] = x
        chi2[i] = now
    return parameters, chi2, iterations


def numba_lm(
    problem: ThreeLines, rows: slice = slice(None), *, reach: float = 37.0, tolerance: float = 1e-6
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Fit with a scalar Levenberg-Marquardt loop in numba: hand-written Jacobian, fastmath, one thread.

    `reach` cuts each line at so many sigma. The default is where a float64 profile becomes a denormal number: every pixel that
    holds anything is computed, as in the models it is compared with; 6 saves most of the exponentials
    and is what a hand-written program might do. Stops when an accepted step lowers chi2 by less than `tolerance` of it.

    Returns parameters (n, 7), chi2 (n,), iterations (n,).
    """
    if problem.integrated:
        velocity = problem.edge_velocity
        factor = sqrt(2 * np.pi) * REST[:, None] / SPEED_OF_LIGHT / problem.width
    else:
        velocity = problem.velocity
        factor = 1.0 / (1.0 + problem.velocity / SPEED_OF_LIGHT)
    data, weight = problem.data[rows], problem.weight[rows]
    return _fit_batch(data, weight, velocity, factor, problem.coordinate, problem.start, problem.integrated, reach, tolerance)
