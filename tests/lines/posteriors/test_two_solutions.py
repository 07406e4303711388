"""A model of one line where there are two alike, 400 km/s apart: both samplers must give each its half of the posterior."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf, log_ndtr, logsumexp

import ifujax
from ifujax.data.cube import Cube

REST, C, TAU, NOISE = 6562.80, 299792.458, 100.0, 1.0
WAVELENGTH = 6530.0 + 1.25 * np.arange(56)
N = 6


def line(velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Mean flux densities of Gaussians of unit flux in each pixel (..., pixels). NumPy and SciPy alone."""
    edges = np.concatenate([WAVELENGTH - 0.625, WAVELENGTH[-1:] + 0.625])
    centre, width = REST * (1.0 + velocity / C), REST * sigma / C
    below = 0.5 * (1.0 + erf((edges - centre[..., None]) / (np.sqrt(2.0) * width[..., None])))
    return np.diff(below, axis=-1) / 1.25


def spectra() -> np.ndarray:
    """Two equal lines of S/N 8 on a sloping continuum. What is added scatters less than the errors say: neither side wins."""
    rng = np.random.default_rng(4)
    clean = 22.0 * (line(np.array(-200.0), np.array(70.0)) + line(np.array(200.0), np.array(70.0)))
    return clean + 8.0 + 0.02 * (WAVELENGTH - REST) + 0.15 * NOISE * rng.standard_normal((N, len(WAVELENGTH)))


def share_above_zero(values: np.ndarray) -> float:
    """Exact P(v > 0): flux and continuum integrated, on a grid of velocity and dispersion."""
    velocity, sigma = np.meshgrid(np.linspace(-600, 600, 1201), np.linspace(20, 200, 121), indexing="ij")
    basis = np.linalg.qr(np.stack([np.ones_like(WAVELENGTH), WAVELENGTH - REST], axis=1))[0]
    shapes = line(velocity, sigma)
    shapes = shapes - (shapes @ basis) @ basis.T
    square, cross = (shapes**2).sum(axis=-1) / NOISE**2 + TAU**-2, shapes @ values / NOISE**2
    density = 0.5 * cross**2 / square - 0.5 * np.log(square) + log_ndtr(cross / np.sqrt(square))
    return float(np.exp(logsumexp(density[velocity > 0]) - logsumexp(density)))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "tier"), [("auto", 1), ("nuts", 2)])
def test_two_lines_and_a_model_of_one(method: str, tier: int) -> None:
    values = spectra()
    exact = np.array([share_above_zero(each) for each in values])
    assert ((exact > 0.03) & (exact < 0.97)).all()
    assert exact.min() < 0.5 < exact.max()
    planes = np.ascontiguousarray(values.T[:, None, :])
    cube = Cube(planes, WAVELENGTH, uncertainty=np.full_like(planes, NOISE**2), uncertainty_kind="variance")
    gas = ifujax.Kinematics(ifujax.Bounded(-600.0, 600.0, -180.0), ifujax.Bounded(20.0, 200.0, 80.0))
    flux = ifujax.Bounded(0.0, prior=ifujax.HalfNormal(TAU))
    fit = ifujax.fit_cube(cube, ifujax.EmissionModel((ifujax.Line("ha", REST, gas, flux=flux),), continuum_degree=1))
    post = ifujax.sample(fit, method=method, seed=3)
    assert (post.status == 0).all(), post.summary()
    assert (post.tier == tier).all()
    found = np.array([(post.draws("ha", "velocity", x, 0) > 0).mean() for x in range(N)])
    pull = (found - exact) / np.sqrt(exact * (1.0 - exact) / post.ess.ravel())
    print(f"{method}: P(v > 0) {found.round(3)}, exact {exact.round(3)}, differences over their errors {pull.round(1)}")
    assert np.abs(pull).max() < 3.5
