"""Ten ways in which a model is wrong about its data: [N II], H-alpha and [S II] in one group, one thing amiss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.signal import lfilter

from tests.lines.line_problem import LineProblem, Structure
from tests.lines.random_models import with_spectra

Misfit = Callable[[LineProblem, np.random.Generator], LineProblem]
_HALPHA = 1
"""Index of H-alpha."""


def base(rng: np.random.Generator, n_spectra: int, snr: tuple[float, float] = (20.0, 50.0)) -> LineProblem:
    """Return spectra that the model describes, H-alpha's peak at S/N `snr`, pixels and LSF of MUSE."""
    wavelength = 6460.0 + 1.25 * np.arange(256)
    problem = LineProblem(
        structure=Structure((0, 0, 0, 0, 0), ((2, 0, 3.06),), "constant", 1, 256),
        labels=("[N II] 6583", "H-alpha", "[N II] 6548", "[S II] 6716", "[S II] 6731"),
        rest=np.array([6583.45, 6562.82, 6548.05, 6716.44, 6730.82]),
        wavelength=wavelength,
        redshift=0.0,
        lsf=(2.6,),
        reference=0.0,
        velocity_bounds=np.array([[-400.0, 400.0]]),
        dispersion_bounds=np.array([[5.0, 600.0]]),
        guess_velocity=np.zeros(1),
        guess_dispersion=np.array([100.0]),
        x=np.zeros((0, 0)),
        values=np.zeros((0, 0)),
        sigma=np.zeros((0, 0)),
        bad=np.zeros((0, 0), bool),
    )
    fluxes = np.array([0.6, 1.0, 0.35, 0.3])
    return with_spectra(problem, rng, n_spectra, snr=snr, dispersion=(60.0, 180.0), masks=False, fluxes=fluxes)


def _added(problem: LineProblem, extra: np.ndarray) -> LineProblem:
    return replace(problem, values=problem.values + extra)


def _shape(problem: LineProblem, k: int, sigma: float, shift: float = 0.0) -> np.ndarray:
    """A Gaussian of unit peak about H-alpha, km/s."""
    velocity = problem.lines.velocity[_HALPHA]
    centre = problem.lines.split(problem.x[k])[1][0] + shift
    middle = 0.5 * (velocity[1:] + velocity[:-1])
    return np.exp(-0.5 * ((middle - centre) / sigma) ** 2)


def _peak(problem: LineProblem) -> np.ndarray:
    """Peak of H-alpha (k,)."""
    flux, velocity, dispersion = problem.lines.split(problem.x)
    lines = problem.lines
    sigma = [lines.observed_sigma(_HALPHA, v, s) for v, s in zip(velocity[:, 0], dispersion[:, 0])]
    return np.array([f * lines.profile(_HALPHA, v, s).max() for f, v, s in zip(flux[:, _HALPHA], velocity[:, 0], sigma)])


def absorption(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """Stellar absorption under H-alpha, 350 km/s broad, a quarter as deep as the line is high."""
    shapes = np.array([_shape(problem, k, 350.0, rng.normal(0.0, 50.0)) for k in range(len(problem))])
    return _added(problem, -0.25 * _peak(problem)[:, None] * shapes)


def broad_component(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """A broad H-alpha, 900 km/s, a fifth as high as the narrow one."""
    shapes = np.array([_shape(problem, k, 900.0, rng.normal(0.0, 200.0)) for k in range(len(problem))])
    return _added(problem, 0.2 * _peak(problem)[:, None] * shapes)


def missing_line(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """Another line within H-alpha's wing, 200 to 350 km/s off, 0.4 as high."""
    shapes = np.array([_shape(problem, k, 90.0, rng.choice([-1, 1]) * rng.uniform(200, 350)) for k in range(len(problem))])
    return _added(problem, 0.4 * _peak(problem)[:, None] * shapes)


def wrong_lsf(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """An LSF said to be 1.8 times as wide as it is, of lines that are narrow themselves."""
    narrow = np.array(problem.x)
    narrow[:, problem.lines.n_flux + 1] = rng.uniform(10.0, 40.0, len(problem))
    clean = np.array([problem.lines(row)[0] for row in narrow])
    noise = problem.sigma * rng.standard_normal(clean.shape)
    return replace(problem, x=narrow, values=clean + noise, lsf=(1.8 * problem.lsf[0],))


def wrong_redshift(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """A redshift that is 700 to 1,500 km/s off, beyond the bounds."""
    shift = rng.choice([-1, 1]) * rng.uniform(700.0, 1500.0)
    moved = np.array(problem.x)
    moved[:, problem.lines.n_flux] += shift
    clean = np.array([problem.lines(row)[0] for row in moved])
    return replace(problem, x=moved, values=clean + problem.sigma * rng.standard_normal(clean.shape))


def small_variance(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """A variance half of what it is."""
    return replace(problem, sigma=problem.sigma / np.sqrt(2.0))


def correlated_noise(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """Noise with a correlation of 0.6 between neighbours (first order), its variance as stated."""
    clean = np.array([problem.lines(row)[0] for row in problem.x])
    white = rng.standard_normal((len(problem), clean.shape[1] + 100))
    noise = lfilter([np.sqrt(1.0 - 0.6**2)], [1.0, -0.6], white, axis=1)[:, 100:]
    return replace(problem, values=clean + problem.sigma * noise)


def bent_continuum(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """A continuum of degree 6 under a straight line."""
    axis = np.linspace(-1.0, 1.0, len(problem.wavelength))
    coefficients = np.concatenate([np.zeros((2, len(problem))), rng.normal(0.0, 2.5, (5, len(problem)))])
    return _added(problem, np.polynomial.legendre.legval(axis, coefficients))


def cosmic_ray(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """Two pixels within the line, 15 to 30 noise too high."""
    extra = np.zeros_like(problem.values)
    for k in range(len(problem)):
        velocity, _ = problem.lines.split(problem.x[k])[1:]
        at = int(np.searchsorted(problem.lines.velocity[_HALPHA], velocity[0] + rng.uniform(-150.0, 150.0)))
        extra[k, at : at + 2] = rng.uniform(15.0, 30.0)
    return _added(problem, extra)


def wrong_ratio(problem: LineProblem, rng: np.random.Generator) -> LineProblem:
    """[N II] 6548 as strong as 6583 / 1.6, tied to a third."""
    flux, velocity, dispersion = problem.lines.split(problem.x)
    lines = problem.lines
    extra = [
        f[0] * (1 / 1.6 - 1 / 3.06) * lines.profile(2, v[0], lines.observed_sigma(2, v[0], s[0]))
        for f, v, s in zip(flux, velocity, dispersion)
    ]
    return _added(problem, np.array(extra))


MISFITS: dict[str, Misfit] = {
    "absorption under a line": absorption,
    "missing broad component": broad_component,
    "missing line nearby": missing_line,
    "wrong LSF": wrong_lsf,
    "wrong redshift": wrong_redshift,
    "underestimated variance": small_variance,
    "correlated noise": correlated_noise,
    "high-order continuum": bent_continuum,
    "cosmic ray": cosmic_ray,
    "wrong flux ratio": wrong_ratio,
}


def draw_misfit(name: str, rng: np.random.Generator, n_spectra: int) -> LineProblem:
    """Return `n_spectra` spectra with one thing amiss."""
    return MISFITS[name](base(rng, n_spectra), rng)
