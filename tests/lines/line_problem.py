"""Emission-line problems with known truth, made with numpy and scipy alone, and what `fit_cube` takes of them.

A line of flux F is spread over velocity as a normal distribution (relativistic Doppler velocities of the pixels' edges); its
width is the intrinsic one and that of the LSF, taken where the line is observed, in quadrature. Everything here is in units of
the noise (`LineProblem.unit` is what it counts as in the cube).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import OptimizeResult, least_squares, lsq_linear
from scipy.special import erf

import ifujax
from ifujax.data.cube import Cube

C = 299792.458
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True)
class Structure:
    """What programs are compiled for: all of a problem but its numbers.

    Attributes
    ----------
    group : tuple of int
        Kinematic group of each line, numbered in the order of declaration.
    ties : tuple of (i, j, ratio)
        The flux of line i is that of line j over `ratio`.
    lsf : "none", "constant" or "polynomial"
    degree : int
        Of the continuum.
    n_pix : int
    resolved : bool
        Whether pixels are narrow against the least dispersion that the bounds allow (without LSF).
    """

    group: tuple[int, ...]
    ties: tuple[tuple[int, int, float], ...] = ()
    lsf: str = "none"
    degree: int = 1
    n_pix: int = 256
    resolved: bool = True

    @property
    def n_groups(self) -> int:
        return max(self.group) + 1

    def reordered(self, order: Sequence[int]) -> Structure:
        """Return the structure with lines in another order: `order` holds indices of lines here."""
        place = {old: new for new, old in enumerate(order)}
        labels = list(dict.fromkeys(self.group[old] for old in order))
        ties = tuple(sorted((place[i], place[j], ratio) for i, j, ratio in self.ties))
        return replace(self, group=tuple(labels.index(self.group[old]) for old in order), ties=ties)

    def __str__(self) -> str:
        ties = f" {len(self.ties)} tied" if self.ties else ""
        return f"{''.join(map(str, self.group))}{ties} lsf={self.lsf} degree={self.degree} {self.n_pix} pix"


@dataclass(frozen=True)
class LineProblem:
    """Spectra (k, n_pix) of one model, each with a truth of its own.

    `x` (k, n): fluxes of the lines that are not tied, velocities and dispersions of the groups, continuum coefficients
    (Legendre). `sigma` is the noise that the variance states, `bad` flagged pixels. `lsf` are coefficients of the FWHM
    (observed Angstrom) in ``wavelength - reference``. Bounds and guesses: (groups, 2) and (groups,).
    """

    structure: Structure
    labels: tuple[str, ...]
    rest: np.ndarray
    wavelength: np.ndarray
    redshift: float
    lsf: tuple[float, ...]
    reference: float
    velocity_bounds: np.ndarray
    dispersion_bounds: np.ndarray
    guess_velocity: np.ndarray
    guess_dispersion: np.ndarray
    x: np.ndarray
    values: np.ndarray
    sigma: np.ndarray
    bad: np.ndarray
    unit: float = 1.0
    emission: bool = True

    def __len__(self) -> int:
        return len(self.x)

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the lines: programs are shared by problems of one structure."""
        return tuple(f"l{i}" for i in range(len(self.rest)))

    @cached_property
    def lines(self) -> NumpyLines:
        return NumpyLines(self)

    def cube(self) -> Cube:
        """One row of spaxels."""

        def plane(array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(array.T[:, None, :])

        return Cube(
            plane(self.values * self.unit),
            self.wavelength,
            uncertainty=plane((self.sigma * self.unit) ** 2),
            uncertainty_kind="variance",
            flags=plane(self.bad.astype(np.int16)),
            redshift=self.redshift,
        )

    def model(self) -> ifujax.EmissionModel:
        """What is declared: guesses, bounds, ties, LSF and continuum of the problem."""
        tied = {i: f"l{j}.flux / {ratio}" for i, j, ratio in self.structure.ties}
        bounds = zip(self.velocity_bounds, self.guess_velocity, self.dispersion_bounds, self.guess_dispersion)
        groups = [
            ifujax.Kinematics(
                velocity=ifujax.Bounded(*map(float, v), start=float(v0)),
                velocity_dispersion=ifujax.Bounded(*map(float, s), start=float(s0)),
            )
            for v, v0, s, s0 in bounds
        ]
        free = ifujax.Bounded(0.0) if self.emission else ifujax.Bounded(upper=0.0)
        lines = [
            ifujax.Line(name, float(rest), groups[g], flux=ifujax.Tied(tied[i]) if i in tied else free)
            for i, (name, rest, g) in enumerate(zip(self.names, self.rest, self.structure.group))
        ]
        lsf = None
        if self.structure.lsf != "none":
            lsf = (
                ifujax.LSF.constant(self.lsf[0])
                if self.structure.lsf == "constant"
                else ifujax.LSF.polynomial(self.lsf, self.reference)
            )
        return ifujax.EmissionModel(lines, continuum_degree=self.structure.degree, lsf=lsf)

    def truth(self) -> dict[str, np.ndarray]:
        """Values (k,) by ``line.quantity``, in the cube's units; kinematics of groups without any flux are NaN."""
        flux, velocity, dispersion = self.lines.split(self.x)
        result = {}
        for i, name in enumerate(self.names):
            g = self.structure.group[i]
            seen = (np.abs(flux[:, [j for j, other in enumerate(self.structure.group) if other == g]]) > 0).any(axis=1)
            result[f"{name}.flux"] = flux[:, i] * self.unit
            result[f"{name}.velocity"] = np.where(seen, velocity[:, g], np.nan)
            result[f"{name}.velocity_dispersion"] = np.where(seen, dispersion[:, g], np.nan)
        return result

    def reordered(self, order: Sequence[int]) -> LineProblem:
        """Return the same data and the same model, its lines declared in another order."""
        structure = self.structure.reordered(order)
        group = list(dict.fromkeys(self.structure.group[old] for old in order))
        flux, velocity, dispersion = self.lines.split(self.x)
        rest = self.x[:, self.lines.n_flux + 2 * self.structure.n_groups :]
        free = [new for new in range(len(order)) if new not in {i for i, _, _ in structure.ties}]
        flux = flux[:, list(order)][:, free]
        return replace(
            self,
            structure=structure,
            labels=tuple(self.labels[old] for old in order),
            rest=self.rest[list(order)],
            velocity_bounds=self.velocity_bounds[group],
            dispersion_bounds=self.dispersion_bounds[group],
            guess_velocity=self.guess_velocity[group],
            guess_dispersion=self.guess_dispersion[group],
            x=np.concatenate([flux, velocity[:, group], dispersion[:, group], rest], axis=1),
        )


class NumpyLines:
    """The model of a problem as a function of its free vector, with its derivatives, and scipy's fit of it."""

    def __init__(self, problem: LineProblem) -> None:
        structure = problem.structure
        self.group, self.n_groups = np.array(structure.group), structure.n_groups
        n = len(self.group)
        tied = {i: (j, ratio) for i, j, ratio in structure.ties}
        free = [i for i in range(n) if i not in tied]
        self.n_flux = len(free)
        self.spread = np.zeros((n, self.n_flux))
        for i in range(n):
            j, ratio = tied.get(i, (i, 1.0))
            self.spread[i, free.index(j)] = 1.0 / ratio
        middle = 0.5 * (problem.wavelength[1:] + problem.wavelength[:-1])
        self.edges = np.concatenate([[2 * problem.wavelength[0] - middle[0]], middle, [2 * problem.wavelength[-1] - middle[-1]]])
        q = (self.edges / (1.0 + problem.redshift) / problem.rest[:, None]) ** 2
        self.velocity = C * (q - 1.0) / (q + 1.0)
        self.width = np.diff(self.edges)
        self.observed = problem.rest * (1.0 + problem.redshift)
        self.lsf, self.reference = problem.lsf, problem.reference
        axis = np.interp(problem.wavelength, problem.wavelength[[0, -1]], [-1.0, 1.0])
        self.basis = np.polynomial.legendre.legvander(axis, structure.degree).T
        self.problem = problem

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return fluxes (..., lines), velocities and dispersions (..., groups)."""
        n, g = self.n_flux, self.n_groups
        return x[..., :n] @ self.spread.T, x[..., n : n + g], x[..., n + g : n + 2 * g]

    def observed_sigma(self, i: int, velocity: float, dispersion: float) -> float:
        """Dispersion of line `i`, km/s, LSF included."""
        if not self.lsf:
            return dispersion
        beta = velocity / C
        at = self.observed[i] * np.sqrt((1 + beta) / (1 - beta))
        fwhm = np.polynomial.polynomial.polyval(at - self.reference, self.lsf)
        return float(np.hypot(dispersion, fwhm / FWHM * C / at))

    def profile(self, i: int, velocity: float, sigma: float) -> np.ndarray:
        """Mean flux density in the pixels of line `i` at unit flux, observed dispersion `sigma`."""
        return 0.5 * np.diff(erf((self.velocity[i] - velocity) / (np.sqrt(2.0) * sigma))) / self.width

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the spectrum (n_pix,) and its derivatives (n, n_pix); that of the LSF's drift with velocity is left out."""
        flux, velocity, dispersion = self.split(x)
        n, g = self.n_flux, self.n_groups
        jacobian = np.zeros((len(x), self.width.size))
        jacobian[n + 2 * g :] = self.basis
        total = x[n + 2 * g :] @ self.basis
        for i, own in enumerate(self.group):
            sigma = self.observed_sigma(i, velocity[own], dispersion[own])
            t = (self.velocity[i] - velocity[own]) / sigma
            shape = 0.5 * np.diff(erf(t / np.sqrt(2.0))) / self.width
            density = np.exp(-0.5 * t * t) / np.sqrt(2.0 * np.pi) / sigma
            total = total + flux[i] * shape
            jacobian[:n] += self.spread[i][:, None] * shape
            jacobian[n + own] -= flux[i] * np.diff(density) / self.width
            jacobian[n + g + own] -= flux[i] * np.diff(density * t) / self.width * dispersion[own] / sigma
        return total, jacobian

    def chi2(self, x: np.ndarray, values: np.ndarray, weight: np.ndarray) -> float:
        """Return chi2 with the continuum that suits `x` best. `weight` is 1 / sigma, 0 where masked."""
        bare = np.array(x)
        bare[self.n_flux + 2 * self.n_groups :] = 0.0
        left = (np.where(weight > 0, values, 0.0) - self(bare)[0]) * weight
        columns = (self.basis * weight).T
        return float(np.sum((left - columns @ np.linalg.lstsq(columns, left, rcond=None)[0]) ** 2))

    def distance(self, x: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
        """Return the squared distance of `x` from the truth by the information at `x`, the continuum marginalised."""
        m = self.n_flux + 2 * self.n_groups
        columns = (self(x)[1] * weight).T
        q, _ = np.linalg.qr(columns[:, m:])
        lines = columns[:, :m] - q @ (q.T @ columns[:, :m])
        return float(np.sum((lines @ (x - truth)[:m]) ** 2))

    def group_snr(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the S/N of each group (groups,): that of a matched filter for all its lines together."""
        flux, velocity, dispersion = self.split(x)
        total = np.zeros((self.n_groups, self.width.size))
        for i, g in enumerate(self.group):
            sigma = self.observed_sigma(i, velocity[g], dispersion[g])
            total[g] += flux[i] * self.profile(i, velocity[g], sigma)
        return np.sqrt(np.sum((total * weight) ** 2, axis=1))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        p = self.problem
        flux = np.tile([0.0, np.inf] if p.emission else [-np.inf, 0.0], (self.n_flux, 1))
        both = np.concatenate(
            [flux, p.velocity_bounds, p.dispersion_bounds, np.tile([-np.inf, np.inf], (p.structure.degree + 1, 1))]
        )
        return both[:, 0], both[:, 1]

    def guess(self, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the start at the declared kinematics, with the fluxes and the continuum that suit them best."""
        p, m = self.problem, self.n_flux + 2 * self.n_groups
        x = np.concatenate([np.ones(self.n_flux), p.guess_velocity, p.guess_dispersion, np.zeros(p.structure.degree + 1)]).astype(
            float
        )
        linear = np.r_[: self.n_flux, m : len(x)]
        lower, upper = self.bounds()
        columns = (self(x)[1][linear] * weight).T
        scale = np.maximum(np.linalg.norm(columns, axis=0), 1e-12)
        data = np.where(weight > 0, values, 0.0) * weight
        x[linear] = lsq_linear(columns / scale, data, (lower[linear], upper[linear])).x / scale
        return x

    def scipy(self, x0: np.ndarray, values: np.ndarray, weight: np.ndarray) -> OptimizeResult:
        """Return scipy's bounded least squares (trust region reflective) from `x0`; ``2 * cost`` is chi2."""
        lower, upper = self.bounds()
        room = np.where(np.isfinite(upper - lower), 1e-6 * (upper - lower), 1e-9)
        x0 = np.clip(x0, lower + room, upper - room)
        good = weight > 0
        data = values[good]

        def residual(x: np.ndarray) -> np.ndarray:
            return (self(x)[0][good] - data) * weight[good]

        def jacobian(x: np.ndarray) -> np.ndarray:
            return (self(x)[1][:, good] * weight[good]).T

        return least_squares(residual, x0, jacobian, bounds=(lower, upper), x_scale="jac", ftol=1e-10, xtol=1e-10, gtol=1e-10)
