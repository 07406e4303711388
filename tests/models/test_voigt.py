"""Lorentzian and Voigt profiles against scipy's Faddeeva function, quadrature and their limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import wofz

from ifujax.inference.precision import working_precision
from ifujax.models import voigt
from ifujax.models.profiles import gaussian_integrated
from ifujax.models.voigt import lorentzian_flux_of_amplitude, voigt_flux_of_amplitude

# Compiled: operation by operation each would be compiled by itself.
lorentzian_sampled, lorentzian_integrated = jax.jit(voigt.lorentzian_sampled), jax.jit(voigt.lorentzian_integrated)
voigt_density, voigt_sampled, voigt_integrated = map(jax.jit, (voigt.voigt_density, voigt.voigt_sampled, voigt.voigt_integrated))

ROOT_2 = np.sqrt(2.0)
HEIGHTS = [0.0, 1e-300, 1e-20, 1e-12, 1e-8, 1e-4, 1e-2, 0.1, 0.5, 1.0, 3.0, 5.0, 5.3, 5.32, 6.0, 10.0, 100.0, 1000.0]
X = np.concatenate([np.linspace(0.0, 12.0, 1201), np.geomspace(12.0, 1000.0, 200)])


def exact(offset: np.ndarray, sigma: float, fwhm: float) -> np.ndarray:
    return wofz((offset + 0.5j * fwhm) / (ROOT_2 * sigma)).real / (np.sqrt(2 * np.pi) * sigma)


def exact_shares(edges: np.ndarray, sigma: float, fwhm: float, parts: int = 12) -> np.ndarray:
    """Integrals over pixels by 12-point Gauss-Legendre over many parts of each."""
    points, weights = np.polynomial.legendre.leggauss(12)
    fine = np.concatenate([np.linspace(a, b, parts, endpoint=False) for a, b in pairwise(edges)] + [edges[-1:]])
    middle, half = 0.5 * (fine[1:] + fine[:-1]), 0.5 * np.diff(fine)
    total = half * (exact(middle[:, None] + half[:, None] * points, sigma, fwhm) @ weights)
    return total.reshape(-1, parts).sum(axis=1)


@pytest.mark.parametrize("y", HEIGHTS)
@pytest.mark.parametrize("sigma", [1.0, 73.0])
def test_density(y: float, sigma: float) -> None:
    """Relative to itself, wings included, at any ratio of the widths."""
    offset, fwhm = X * ROOT_2 * sigma, 2 * ROOT_2 * sigma * y
    with working_precision("float64"):
        ours = np.asarray(voigt_density(jnp.asarray(offset), jnp.asarray(sigma), jnp.asarray(fwhm)))
    truth = exact(offset, sigma, fwhm)
    seen = truth > 1e-280
    np.testing.assert_allclose(ours[seen], truth[seen], rtol=2e-11)
    assert np.all(ours[~seen] <= 1e-279)


@pytest.mark.parametrize("y", [0.0, 1e-20, 1e-6, 1e-3, 0.1, 1.0, 5.3, 10.0, 1000.0])
def test_density_float32(y: float) -> None:
    sigma, x = 60.0, X.astype(np.float32)
    fwhm = np.float32(2 * ROOT_2 * sigma * y)
    offset = (x * ROOT_2 * sigma).astype(np.float32)
    ours = np.asarray(voigt_density(jnp.asarray(offset), jnp.float32(sigma), jnp.asarray(fwhm)), np.float64)
    truth = exact(offset.astype(np.float64), sigma, float(fwhm))
    assert np.isfinite(ours).all()
    # The exponent's rounding grows with the square of x.
    np.testing.assert_allclose(ours, truth, rtol=3e-5, atol=1e-30)


@jax.jit
def slope_of(at: tuple, tangent: tuple) -> jax.Array:
    return jax.jvp(voigt_density, at, tangent)[1]


@pytest.mark.parametrize("fwhm", [0.0, 1e-6, 3.0, 60.0, 300.0, 900.0, 901.5, 5000.0])
def test_derivatives(fwhm: float) -> None:
    """By analytic derivatives of the Faddeeva function, and by finite differences through jax."""
    sigma, offset = 60.0, np.linspace(-700.0, 700.0, 141)
    z = (offset + 0.5j * fwhm) / (ROOT_2 * sigma)
    w = wofz(z)
    slope = -2.0 * z * w + 2j / np.sqrt(np.pi)
    norm = np.sqrt(2 * np.pi) * sigma
    truth = (
        slope.real / (norm * ROOT_2 * sigma),
        -(w + z * slope).real / (norm * sigma),
        -slope.imag / (2 * norm * ROOT_2 * sigma),
    )
    with working_precision("float64"):
        at = (jnp.asarray(offset), jnp.asarray(sigma), jnp.asarray(fwhm))
        zero = (jnp.zeros(141), jnp.zeros(()), jnp.zeros(()))
        for k in range(3):
            tangent = zero[:k] + (jnp.ones_like(at[k]),) + zero[k + 1 :]
            ours = np.asarray(slope_of(at, tangent))
            np.testing.assert_allclose(ours, truth[k], atol=1e-8 * np.abs(truth[k]).max(), rtol=0)
        gradient = jax.jit(jax.grad(lambda o, s, f: jnp.sum(voigt_density(o, s, f) ** 2), argnums=(1, 2)))(*at)
        values = np.asarray(voigt_density(*at))
        np.testing.assert_allclose(gradient, [2 * np.sum(values * truth[1]), 2 * np.sum(values * truth[2])], rtol=1e-7)


@partial(jax.jit, static_argnums=0)
def slopes_of(profile: Callable, axis: jax.Array, *scalars: jax.Array) -> tuple:
    """Derivatives by centre, sigma and fwhm of a profile of 41 pixels."""
    return jax.jacfwd(lambda *s: profile(axis, jnp.ones(41), *s), argnums=(0, 1, 2))(*scalars)


@pytest.mark.parametrize("sigma", [0.0, 1e-300, 1e-3])
def test_without_normal_part(sigma: float) -> None:
    """The Lorentzian, with finite derivatives."""
    fwhm, velocity = 50.0, np.linspace(-400.0, 400.0, 41)
    edges = np.linspace(-500.0, 510.0, 42)
    with working_precision("float64"):
        scalars = (jnp.asarray(3.0), jnp.asarray(sigma), jnp.asarray(fwhm))
        ones = jnp.ones(41)
        sampled = np.asarray(voigt_sampled(jnp.asarray(velocity), ones, *scalars))
        lorentzian = np.asarray(lorentzian_sampled(jnp.asarray(velocity), ones, 3.0, fwhm)) * 2 / (np.pi * fwhm)
        np.testing.assert_allclose(sampled, lorentzian, rtol=1e-7)
        integrated = voigt_integrated(jnp.asarray(edges), ones, *scalars)
        np.testing.assert_allclose(integrated, lorentzian_integrated(jnp.asarray(edges), ones, 3.0, fwhm), rtol=1e-6)
        for profile, axis in ((voigt_sampled, velocity), (voigt_integrated, edges)):
            slopes = slopes_of(profile, jnp.asarray(axis), *scalars)
            assert all(np.isfinite(slope).all() for slope in slopes)
            assert np.abs(slopes[1]).max() < 1e-6


def test_without_lorentzian_part() -> None:
    edges = np.linspace(-2000.0, 2040.0, 42)  # pixels wider than the line
    with working_precision("float64"):
        scalars = (jnp.asarray(3.0), jnp.asarray(20.0), jnp.asarray(0.0))
        integrated = voigt_integrated(jnp.asarray(edges), jnp.ones(41), *scalars)
        np.testing.assert_allclose(integrated, gaussian_integrated(jnp.asarray(edges), jnp.ones(41), 3.0, 20.0), atol=1e-14)
        slopes = slopes_of(voigt_integrated, jnp.asarray(edges), *scalars)
        assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize(
    ("pixel", "tolerance"), [(0.25, 1e-7), (0.5, 1.2e-5), (0.75, 2e-4), (1.0, 8e-4), (3.0, 0.01), (10.0, 0.02)]
)
@pytest.mark.parametrize("fwhm", [0.3, 1.0, 3.0, 10.0])
def test_integrated(pixel: float, tolerance: float, fwhm: float) -> None:
    """What the documentation says of pixels of `pixel` times the profile's full width at half maximum."""
    total = 0.5346 * fwhm + np.sqrt(0.2166 * fwhm**2 + 5.545)  # Olivero & Longbothum 1977, sigma 1
    for shift in (0.0, 0.21, 0.5):
        edges = (np.arange(-12.0, 13.0) + shift) * pixel * total
        truth = exact_shares(edges, 1.0, fwhm, parts=max(4, int(12 * pixel)))
        with working_precision("float64"):
            shares = voigt_integrated(jnp.asarray(edges), jnp.ones(24), jnp.asarray(0.0), jnp.asarray(1.0), jnp.asarray(fwhm))
        np.testing.assert_allclose(shares, truth, atol=tolerance * truth.max(), rtol=0)


def test_integrated_derivatives() -> None:
    with working_precision("float64"):
        edges = jnp.linspace(-600.0, 600.0, 49)

        def profile(theta: jax.Array) -> jax.Array:
            return voigt_integrated(edges, jnp.ones(48), theta[0], theta[1], theta[2])

        theta = jnp.asarray([12.0, 60.0, 45.0])
        slopes = np.asarray(jax.jit(jax.jacfwd(profile))(theta))
        for k in range(3):
            move = jnp.zeros(3).at[k].set(0.01)
            numerical = np.asarray(profile(theta + move) - profile(theta - move)) / 0.02
            np.testing.assert_allclose(slopes[:, k], numerical, atol=1e-7 * np.abs(slopes[:, k]).max())


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_lorentzian_integrated(precision: str) -> None:
    """Relative precision holds in the far wings, where a difference of arctangents has none."""
    edges = np.array([-90000.0, -89950.0, -3000.0, -50.0, 0.0, 7.0, 60.0, 2000.0, 80000.0, 80060.0])
    half = 20.0
    low, high = (edges[:-1] - 7.0) / half, (edges[1:] - 7.0) / half
    # Far from the line the integral is (1/low - 1/high), less its next order.
    truth = np.diff(np.arctan((edges - 7.0) / half)) / np.pi
    for far in (0, -1):
        truth[far] = (1 / low[far] - 1 / high[far] - (1 / low[far] ** 3 - 1 / high[far] ** 3) / 3) / np.pi
    with working_precision(precision):
        dtype = jnp.dtype(precision)
        ours = lorentzian_integrated(jnp.asarray(edges, dtype), jnp.ones(9, dtype), dtype.type(7.0), dtype.type(2 * half))
    np.testing.assert_allclose(np.asarray(ours, np.float64), truth, rtol=1e-10 if precision == "float64" else 2e-6)


def test_fluxes_of_amplitudes() -> None:
    """Peak times flux / amplitude is the flux, per Angstrom at rest."""
    c, rest = 299792.458, 6562.8
    lorentzian = 1.0 / float(lorentzian_flux_of_amplitude(jnp.asarray(80.0), rest))
    assert lorentzian == pytest.approx(2.0 / (np.pi * 80.0) * c / rest, rel=1e-6)
    voigt = 1.0 / float(voigt_flux_of_amplitude(jnp.asarray(60.0), jnp.asarray(80.0), rest))
    assert voigt == pytest.approx(float(exact(np.zeros(1), 60.0, 80.0)[0]) * c / rest, rel=1e-6)
    # Of the sampled profile, the sum over a wide velocity axis.
    velocity = jnp.linspace(-2e5, 2e5, 20001)
    total = float(jnp.sum(voigt_sampled(velocity, jnp.ones(20001), 0.0, jnp.asarray(60.0), jnp.asarray(80.0)))) * 20.0
    assert total == pytest.approx(1.0 - 80.0 / (np.pi * 2e5), abs=2e-5)
