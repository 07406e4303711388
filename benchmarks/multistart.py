"""The lowest chi2 that 20 random starts find: the reference for wrong minima, one or several kinematic components.

Each start runs a bounded Levenberg-Marquardt in numba (active set, hand-written Jacobian) to a tight tolerance; the best two are
evaluated again and polished by ``scipy.optimize.least_squares(method="trf")`` with a NumPy model of its own, whose chi2 counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ifujax.simulate import SimulatedSpectra
from ifujax.simulate.profiles import (
    FWHM_PER_SIGMA,
    SPEED_OF_LIGHT,
    gaussian_line,
    lsf_sigma_velocity,
    pixel_edges,
    velocity_of,
)
from ifujax.simulate.simulated_spectra import polynomial_coordinate

FloatArray = NDArray[np.float64]
VELOCITY_BOUNDS = (-600.0, 600.0)
DISPERSION_BOUNDS = (20.0, 500.0)


@dataclass(frozen=True)
class BestOfStarts:
    """What the starts found.

    Attributes
    ----------
    names : tuple of str
        ``"<line>.flux"``, ``"<group>.velocity"``, ``"<group>.velocity_dispersion"``, ``"continuum.0"`` ...
    parameters : (n, p) ndarray
    chi2 : (n,) ndarray
        The lowest chi2 of all starts.
    chi2_starts : (n, n_starts) ndarray
        Where each start ended, before polishing.
    polish_gain : (n,) ndarray
        How much scipy still gained over the best start: small, or the starts weren't converged.
    """

    names: tuple[str, ...]
    parameters: FloatArray
    chi2: FloatArray
    chi2_starts: FloatArray
    polish_gain: FloatArray


def best_of_starts(
    problem: SimulatedSpectra,
    n_starts: int = 20,
    *,
    seed: int = 0,
    velocity: tuple[float, float] = VELOCITY_BOUNDS,
    dispersion: tuple[float, float] = DISPERSION_BOUNDS,
    n_polish: int = 2,
    rows: slice = slice(None),
) -> BestOfStarts:
    """Fit every spectrum from `n_starts` random starts within the bounds and keep the best.

    Free parameters: the flux (>= 0) of each line, velocity and intrinsic dispersion of each group, and as many continuum
    coefficients as the simulation has. The starts are uniform in velocity, log-uniform in dispersion and flux.

    Parameters
    ----------
    problem : SimulatedSpectra
    n_starts : int
    seed : int
    velocity, dispersion : (float, float)
        Bounds of every group, km/s.
    n_polish : int
        How many of the best starts scipy polishes.
    rows : slice
        Which spectra.
    """
    setup = _Setup.of(problem, velocity, dispersion)
    data, weight = problem.values[rows], 1.0 / np.sqrt(problem.variance[rows])
    starts = setup.random_starts(data, n_starts, np.random.default_rng(seed))
    ends = np.empty_like(starts)
    chi2_starts = np.empty(starts.shape[:2])
    _fit_starts(
        np.ascontiguousarray(data),
        np.ascontiguousarray(weight),
        starts,
        setup.lower,
        setup.upper,
        setup.group,
        setup.rest,
        setup.axes,
        setup.widths,
        setup.powers,
        setup.lsf,
        setup.integrated,
        ends,
        chi2_starts,
    )
    parameters, chi2, gain = np.empty((len(data), setup.lower.size)), np.empty(len(data)), np.empty(len(data))
    for i in range(len(data)):
        candidates = []
        for j in np.argsort(chi2_starts[i])[:n_polish]:
            before = float(np.sum(setup.residuals(ends[i, j], data[i], weight[i]) ** 2))
            candidates.append((before, ends[i, j]))
            candidates.append(setup.polish(ends[i, j], data[i], weight[i]))
        chi2[i], parameters[i] = min(candidates, key=lambda item: item[0])
        gain[i] = candidates[0][0] - chi2[i]
    return BestOfStarts(setup.names, parameters, chi2, chi2_starts, gain)


@dataclass(frozen=True)
class _Setup:
    """A simulation as arrays: fluxes, velocities, dispersions and continuum, in this order."""

    problem: SimulatedSpectra
    names: tuple[str, ...]
    group: NDArray[np.int64]  # (lines,)
    n_groups: int
    rest: FloatArray  # (lines,)
    axes: FloatArray  # (lines, w or w + 1): velocities of pixel centres or edges
    widths: FloatArray  # (w,)
    powers: FloatArray  # (degree + 1, w)
    lsf: float  # sigma, Angstrom
    integrated: bool
    lower: FloatArray
    upper: FloatArray

    @classmethod
    def of(cls, problem: SimulatedSpectra, velocity: tuple[float, float], dispersion: tuple[float, float]) -> _Setup:
        groups = list(dict.fromkeys(line.group for line in problem.lines))
        n_lines, n_groups, n_powers = len(problem.lines), len(groups), problem.truth["continuum"].shape[1]
        integrated = problem.profile == "integrated"
        edges = pixel_edges(problem.wavelength)
        counts = (n_lines, n_groups, n_groups, n_powers)
        lower = np.repeat([0.0, velocity[0], dispersion[0], -np.inf], counts)
        upper = np.repeat([np.inf, velocity[1], dispersion[1], np.inf], counts)
        names = [f"{line.name}.flux" for line in problem.lines]
        names += [f"{group}.velocity" for group in groups] + [f"{group}.velocity_dispersion" for group in groups]
        names += [f"continuum.{k}" for k in range(n_powers)]
        return cls(
            problem=problem,
            names=tuple(names),
            group=np.array([groups.index(line.group) for line in problem.lines]),
            n_groups=n_groups,
            rest=np.array([line.wavelength for line in problem.lines]),
            axes=np.stack([velocity_of(edges if integrated else problem.wavelength, line.wavelength) for line in problem.lines]),
            widths=np.diff(edges),
            powers=polynomial_coordinate(problem.wavelength)[None, :] ** np.arange(n_powers)[:, None],
            lsf=problem.lsf_fwhm / FWHM_PER_SIGMA,
            integrated=integrated,
            lower=lower,
            upper=upper,
        )

    def random_starts(self, data: FloatArray, n_starts: int, rng: np.random.Generator) -> FloatArray:
        """Return starts (n, n_starts, p)."""
        n, n_lines = len(data), self.rest.size
        starts = np.zeros((n, n_starts, self.lower.size))
        level = np.median(data, axis=1)
        height = np.maximum(data.max(axis=1) - level, 1e-3 * np.abs(data).max(axis=1))
        v, s = slice(n_lines, n_lines + self.n_groups), slice(n_lines + self.n_groups, n_lines + 2 * self.n_groups)
        shape = (n, n_starts, self.n_groups)
        starts[:, :, v] = rng.uniform(self.lower[v], self.upper[v], shape)
        starts[:, :, s] = np.exp(rng.uniform(np.log(self.lower[s]), np.log(self.upper[s]), shape))
        share = np.exp(rng.uniform(np.log(0.05), 0.0, (n, n_starts, n_lines)))
        sigma = starts[:, :, s][:, :, self.group]
        starts[:, :, :n_lines] = height[:, None, None] * share * np.sqrt(2 * np.pi) * sigma * self.rest / SPEED_OF_LIGHT
        starts[:, :, n_lines + 2 * self.n_groups] = level[:, None]
        return starts

    def residuals(self, x: FloatArray, data: FloatArray, weight: FloatArray) -> FloatArray:
        """Return weighted residuals from the simulator's own profile: not the numba code."""
        n_lines = self.rest.size
        total = x[n_lines + 2 * self.n_groups :] @ self.powers
        for i, line in enumerate(self.problem.lines):
            velocity, dispersion = x[n_lines + self.group[i]], x[n_lines + self.n_groups + self.group[i]]
            sigma = np.hypot(dispersion, lsf_sigma_velocity(self.problem.lsf_fwhm, velocity, line.wavelength))
            total = total + gaussian_line(self.problem.wavelength, line.wavelength, x[i], velocity, sigma, self.problem.profile)
        return (total - data) * weight

    def jacobian(self, x: FloatArray, data: FloatArray, weight: FloatArray) -> FloatArray:
        """Return the Jacobian (w, p) from the numba code."""
        columns, residual = np.empty((x.size, data.size)), np.empty(data.size)
        _rows(
            x, self.group, self.n_groups, self.rest, self.axes, self.widths, self.powers, self.lsf, self.integrated, data, weight,
            columns, residual,
        )  # fmt: skip
        return columns.T

    def polish(self, x: FloatArray, data: FloatArray, weight: FloatArray) -> tuple[float, FloatArray]:
        fit = least_squares(
            self.residuals,
            np.clip(x, self.lower, self.upper),
            self.jacobian,
            bounds=(self.lower, self.upper),
            method="trf",
            x_scale="jac",
            ftol=1e-12,
            xtol=1e-10,
            gtol=1e-12,
            max_nfev=50,
            args=(data, weight),
        )
        return 2.0 * float(fit.cost), fit.x


@njit(cache=True)
def _rows(
    x, group, n_groups, rest, axes, widths, powers, lsf, integrated, data, weight, columns, residual
):  # pragma: no cover - compiled
    """Fill weighted residuals (w,) and Jacobian columns (p, w); return chi2. Lines end at 9 sigma (1e-18 of the peak)."""
    n_pix, n_lines, n_powers = data.size, rest.size, powers.shape[0]
    columns[:, :] = 0.0
    for p in range(n_pix):
        residual[p] = -data[p]
    for k in range(n_powers):
        for p in range(n_pix):
            columns[n_lines + 2 * n_groups + k, p] = powers[k, p]
            residual[p] += x[n_lines + 2 * n_groups + k] * powers[k, p]
    for line in range(n_lines):
        iv, js = n_lines + group[line], n_lines + n_groups + group[line]
        velocity, dispersion, flux = x[iv], x[js], x[line]
        beta = velocity / SPEED_OF_LIGHT
        instrument = lsf * SPEED_OF_LIGHT * (1.0 - beta * beta) / (rest[line] * sqrt((1.0 + beta) / (1.0 - beta)))
        sigma = sqrt(dispersion * dispersion + instrument * instrument)
        chain = dispersion / sigma
        # the instrumental width in km/s changes, a little, with the wavelength of the line
        drift = instrument * instrument / sigma * (0.5 / (1.0 + beta) - 1.5 / (1.0 - beta)) / SPEED_OF_LIGHT
        inverse = 1.0 / sigma
        axis = axes[line]
        first = np.searchsorted(axis, velocity - 9.0 * sigma)
        last = np.searchsorted(axis, velocity + 9.0 * sigma)
        if integrated:
            first, last = max(first - 1, 0), min(last, n_pix)
            if first >= last:
                continue
            w_low = (axis[first] - velocity) * inverse
            cdf_low, pdf_low = 0.5 * erf(w_low * 0.7071067811865476), 0.3989422804014327 * exp(-0.5 * w_low * w_low)
            for p in range(first, last):
                w_high = (axis[p + 1] - velocity) * inverse
                cdf_high, pdf_high = 0.5 * erf(w_high * 0.7071067811865476), 0.3989422804014327 * exp(-0.5 * w_high * w_high)
                profile = (cdf_high - cdf_low) / widths[p]
                columns[line, p] = profile
                residual[p] += flux * profile
                slope = flux * inverse * (pdf_low * w_low - pdf_high * w_high) / widths[p]
                columns[iv, p] += flux * inverse * (pdf_low - pdf_high) / widths[p] + drift * slope
                columns[js, p] += chain * slope
                cdf_low, pdf_low, w_low = cdf_high, pdf_high, w_high
        else:
            unit = SPEED_OF_LIGHT / (2.5066282746310002 * sigma * rest[line])
            for p in range(first, last):
                w = (axis[p] - velocity) * inverse
                profile = unit * exp(-0.5 * w * w) / (1.0 + axis[p] / SPEED_OF_LIGHT)
                columns[line, p] = profile
                residual[p] += flux * profile
                slope = flux * profile * (w * w - 1.0) * inverse
                columns[iv, p] += flux * profile * w * inverse + drift * slope
                columns[js, p] += chain * slope
    chi2 = 0.0
    for p in range(n_pix):
        residual[p] *= weight[p]
        chi2 += residual[p] * residual[p]
        for k in range(columns.shape[0]):
            columns[k, p] *= weight[p]
    return chi2


@njit(cache=True)
def _solve(matrix, gradient, free, damping, step):  # pragma: no cover - compiled
    """Solve the damped normal equations of the free parameters; the others don't move."""
    n = gradient.size
    factor = np.zeros((n, n))
    step[:] = 0.0
    for i in range(n):
        if not free[i]:
            continue
        for j in range(i + 1):
            if not free[j]:
                continue
            total = matrix[i, j]
            if i == j:
                total = total * (1.0 + damping)
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i == j:
                if total <= 1e-14 * matrix[i, i]:
                    return False
                factor[i, i] = sqrt(total)
            else:
                factor[i, j] = total / factor[j, j]
    for i in range(n):
        if free[i]:
            total = gradient[i]
            for k in range(i):
                total -= factor[i, k] * step[k]
            step[i] = total / factor[i, i]
    for i in range(n - 1, -1, -1):
        if free[i]:
            total = step[i]
            for k in range(i + 1, n):
                total -= factor[k, i] * step[k]
            step[i] = total / factor[i, i]
    return True


@njit(cache=True)
def _fit_starts(
    data, weight, starts, lower, upper, group, rest, axes, widths, powers, lsf, integrated, ends, chi2_ends
):  # pragma: no cover - compiled
    n, n_starts, n_par = starts.shape
    n_pix = data.shape[1]
    n_groups = group.max() + 1
    columns, trial_columns = np.empty((n_par, n_pix)), np.empty((n_par, n_pix))
    residual, trial_residual = np.empty(n_pix), np.empty(n_pix)
    matrix, gradient, step, trial = np.empty((n_par, n_par)), np.empty(n_par), np.empty(n_par), np.empty(n_par)
    free = np.empty(n_par, dtype=np.bool_)
    for i in range(n):
        for start in range(n_starts):
            x = starts[i, start].copy()
            now = _rows(x, group, n_groups, rest, axes, widths, powers, lsf, integrated, data[i], weight[i], columns, residual)
            damping, fresh, quiet = 1e-2, True, 0
            for _ in range(500):
                if fresh:
                    for a in range(n_par):
                        for b in range(a + 1):
                            matrix[a, b] = np.dot(columns[a], columns[b])
                        gradient[a] = -np.dot(columns[a], residual)
                        # at a bound and pushed outwards, or without any effect (flux 0): doesn't move
                        outwards = (x[a] <= lower[a] and gradient[a] <= 0.0) or (x[a] >= upper[a] and gradient[a] >= 0.0)
                        free[a] = matrix[a, a] > 0.0 and not outwards
                    fresh = False
                then = np.inf
                if _solve(matrix, gradient, free, damping, step):
                    for k in range(n_par):
                        trial[k] = min(max(x[k] + step[k], lower[k]), upper[k])
                    then = _rows(
                        trial, group, n_groups, rest, axes, widths, powers, lsf, integrated, data[i], weight[i],
                        trial_columns, trial_residual,
                    )  # fmt: skip
                if then <= now:
                    gain = now - then
                    x[:] = trial
                    columns, trial_columns = trial_columns, columns
                    residual, trial_residual = trial_residual, residual
                    now, fresh = then, True
                    damping = max(0.2 * damping, 1e-9)
                    # twice in a row: one short step isn't convergence
                    quiet = quiet + 1 if gain <= 1e-9 * now else 0
                    if quiet == 2:
                        break
                else:
                    damping *= 4.0
                    if damping > 1e10:
                        break
            ends[i, start] = x
            chi2_ends[i, start] = now
