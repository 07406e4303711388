"""Gauss-Hermite profiles against their definition: polynomials, integrals, derivatives, float32."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from ifujax.inference.precision import working_precision
from ifujax.models import hermite
from ifujax.models.hermite import flux_over_gaussian
from ifujax.models.profiles import gaussian_integrated, gaussian_sampled

hermite_integrated = jax.jit(hermite.hermite_integrated)
hermite_sampled = jax.jit(hermite.hermite_sampled, static_argnames="h4_constant")
COEFFICIENTS = [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (-0.3, 0.3), (0.3, -0.3), (0.05, 0.2)]
CENTRE, SIGMA = 37.0, 85.0


def density(v: float, h3: float, h4: float, constant: float = 3.0) -> float:
    """Unit Gaussian part, as van der Marel & Franx write it."""
    w = (v - CENTRE) / SIGMA
    third = (2 * np.sqrt(2) * w**3 - 3 * np.sqrt(2) * w) / np.sqrt(6)
    fourth = (4 * w**4 - 12 * w**2 + constant) / np.sqrt(24)
    return float(np.exp(-0.5 * w * w) * (1 + h3 * third + h4 * fourth))


@pytest.mark.parametrize("constant", [3.0, -3.0])
@pytest.mark.parametrize(("h3", "h4"), COEFFICIENTS)
def test_sampled(h3: float, h4: float, constant: float) -> None:
    velocity = np.linspace(-700.0, 700.0, 57)
    shift = 1.0 / (1.0 + velocity / 3e5)
    with working_precision("float64"):
        ours = np.asarray(hermite_sampled(jnp.asarray(velocity), jnp.asarray(shift), CENTRE, SIGMA, h3, h4, h4_constant=constant))
        plain = np.asarray(gaussian_sampled(jnp.asarray(velocity), jnp.asarray(shift), CENTRE, SIGMA))
    np.testing.assert_allclose(ours, [density(v, h3, h4, constant) * s for v, s in zip(velocity, shift)], rtol=1e-12, atol=1e-16)
    if h3 == h4 == 0:
        np.testing.assert_allclose(ours, plain, rtol=1e-14)


def test_faulty_constant_is_a_change_of_the_gaussian_part() -> None:
    """IFSCube's profile is the textbook one of smaller amplitude and larger coefficients."""
    velocity, h3, h4 = jnp.linspace(-400.0, 400.0, 41), 0.08, 0.15
    part = 1.0 - 6.0 * h4 / np.sqrt(24.0)
    faulty = hermite_sampled(velocity, jnp.ones(41), 0.0, 100.0, h3, h4, h4_constant=-3.0)
    textbook = part * hermite_sampled(velocity, jnp.ones(41), 0.0, 100.0, h3 / part, h4 / part)
    np.testing.assert_allclose(faulty, textbook, atol=1e-6)


@pytest.mark.parametrize(("h3", "h4"), COEFFICIENTS)
def test_integrated(h3: float, h4: float) -> None:
    edges = np.array([-600.0, -300.0, -120.0, -80.0, 0.0, 30.0, 55.0, 140.0, 500.0])
    width = np.diff(edges) * 0.02
    norm = np.sqrt(2 * np.pi) * SIGMA * (1 + 3 * h4 / np.sqrt(24))
    truth = [quad(density, a, b, (h3, h4), epsabs=1e-13, epsrel=1e-12)[0] / norm for a, b in pairwise(edges)]
    with working_precision("float64"):
        ours = hermite_integrated(jnp.asarray(edges), jnp.asarray(1 / width), CENTRE, SIGMA, h3, h4)
        np.testing.assert_allclose(np.asarray(ours) * width, truth, atol=1e-13)
        if h3 == h4 == 0:
            plain = gaussian_integrated(jnp.asarray(edges), jnp.asarray(1 / width), CENTRE, SIGMA)
            np.testing.assert_allclose(ours, plain, rtol=1e-14)


@pytest.mark.parametrize("constant", [3.0, -3.0])
@pytest.mark.parametrize(("h3", "h4"), COEFFICIENTS)
def test_flux(h3: float, h4: float, constant: float) -> None:
    """Sum of the samples over sqrt(2 pi) sigma, and of the pixels of unit flux."""
    velocity = jnp.linspace(-1500.0, 1500.0, 601)
    sampled = hermite_sampled(velocity, jnp.ones(601), CENTRE, SIGMA, h3, h4, h4_constant=constant)
    total = float(jnp.sum(sampled)) * 5.0 / (np.sqrt(2 * np.pi) * SIGMA)
    assert total == pytest.approx(float(flux_over_gaussian(h4, h4_constant=constant)), abs=2e-6)
    integrated = hermite_integrated(velocity, jnp.ones(600), CENTRE, SIGMA, h3, h4)
    assert float(jnp.sum(integrated)) == pytest.approx(1.0, abs=2e-6)


@pytest.mark.parametrize(("h3", "h4"), COEFFICIENTS)
def test_derivatives(h3: float, h4: float) -> None:
    with working_precision("float64"):
        edges = jnp.linspace(-500.0, 500.0, 41)

        def profile(theta: jax.Array) -> jax.Array:
            return hermite_integrated(edges, jnp.ones(40), theta[0], theta[1], theta[2], theta[3])

        theta = jnp.asarray([CENTRE, SIGMA, h3, h4])
        slopes = np.asarray(jax.jit(jax.jacfwd(profile))(theta))
        for k, step in enumerate((0.01, 0.01, 1e-4, 1e-4)):
            move = jnp.zeros(4).at[k].set(step)
            numerical = np.asarray(profile(theta + move) - profile(theta - move)) / (2 * step)
            np.testing.assert_allclose(slopes[:, k], numerical, atol=1e-6 * np.abs(slopes[:, k]).max())


@pytest.mark.parametrize(("h3", "h4"), COEFFICIENTS)
def test_float32(h3: float, h4: float) -> None:
    edges = np.linspace(-3000.0, 3000.0, 121)
    with working_precision("float64"):
        exact = np.asarray(hermite_integrated(jnp.asarray(edges), jnp.ones(120), CENTRE, SIGMA, h3, h4))
    single = hermite_integrated(jnp.asarray(edges, jnp.float32), jnp.ones(120), CENTRE, SIGMA, h3, h4)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(single, np.float64), exact, atol=3e-6 * exact.max())
