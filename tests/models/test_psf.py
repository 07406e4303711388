"""Moffat profiles and their transforms against Bessel functions, quadrature and FFTs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln, kve

from ifujax.inference.precision import working_precision
from ifujax.models.psf import (
    ImagePSF,
    MoffatPSF,
    RadialGrid,
    ellipse_components,
    ellipse_of,
    log_moffat_mtf,
    moffat_alpha,
)

LOG_Z = np.linspace(np.log(1e-4), np.log(60.0), 150)


def bessel(log_z: np.ndarray, beta: float) -> np.ndarray:
    """log of 2 z^nu K_nu(2z) / Gamma(nu), Trujillo et al. 2001, by scipy."""
    z, nu = np.exp(log_z), beta - 1.0
    return np.log(2.0) + nu * log_z + np.log(kve(nu, 2.0 * z)) - 2.0 * z - gammaln(nu)


@pytest.mark.parametrize("beta", [1.02, 1.3, 1.6, 2.0, 2.8, 4.765, 8.0, 20.0])
def test_transform_is_the_bessel_function(beta: float) -> None:
    with working_precision("float64"):
        found = np.asarray(log_moffat_mtf(jnp.asarray(LOG_Z), beta))
    np.testing.assert_allclose(found, bessel(LOG_Z, beta), atol=2e-12)


def test_transform_in_float32() -> None:
    found = np.asarray(log_moffat_mtf(jnp.asarray(LOG_Z, jnp.float32), jnp.float32(2.8)))
    np.testing.assert_allclose(found, bessel(LOG_Z, 2.8), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("beta", [1.1, 2.5, 12.0])
def test_slopes_against_differences(beta: float) -> None:
    with working_precision("float64"):
        z = LOG_Z[::10]
        slopes = jax.jvp(log_moffat_mtf, (z, np.float64(beta)), (np.ones_like(z), np.float64(0.0)))[1]
        by_beta = jax.jvp(log_moffat_mtf, (z, np.float64(beta)), (np.zeros_like(z), np.float64(1.0)))[1]
    step = 1e-5
    np.testing.assert_allclose(slopes, (bessel(z + step, beta) - bessel(z - step, beta)) / (2 * step), rtol=1e-5, atol=1e-8)
    differences = (bessel(np.asarray(z), beta + step) - bessel(np.asarray(z), beta - step)) / (2 * step)
    np.testing.assert_allclose(by_beta, differences, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("fwhm", "beta"), [(0.085, 1.6), (0.65, 2.8), (2.0, 6.0)])
def test_interpolation_over_a_whole_image(fwhm: float, beta: float) -> None:
    """What the fit evaluates: a few nodes stand for all frequencies of an image of 40 arcsec and twice its limit."""
    log_k = np.linspace(np.log(1.0 / 40.0), np.log(7.1), 999)
    radial = RadialGrid(log_k[0], log_k[-1])
    with working_precision("float64"):
        size = jnp.log(jnp.pi * moffat_alpha(fwhm, beta))
        values = log_moffat_mtf(jnp.asarray(radial.nodes) + size, beta)
        found = np.exp(np.asarray(radial.evaluate(radial.coefficients(values), jnp.asarray(radial.twice_argument(log_k)))))
        expected = np.exp(bessel(log_k + float(size), beta))
    assert np.abs(found - expected).max() < 2e-7


def test_fwhm_and_flux() -> None:
    with working_precision("float64"):
        psf = MoffatPSF(0.7, 2.5)
        assert float(psf(0.35, 0.0) / psf(0.0, 0.0)) == pytest.approx(0.5, abs=1e-12)
        total = quad(lambda r: 2 * np.pi * r * float(psf(r, 0.0)), 0, 200.0, limit=400)[0]
        beyond = (1.0 + (200.0 / float(moffat_alpha(0.7, 2.5))) ** 2) ** -1.5
    assert total + beyond == pytest.approx(1.0, abs=1e-7)


def test_ellipse() -> None:
    with working_precision("float64"):
        psf = MoffatPSF(0.8, 3.0, ellipticity=0.3, angle=30.0)
        major = 0.4 / np.sqrt(0.7)  # fwhm is the geometric mean of the widths along the axes
        c, s = np.cos(np.deg2rad(30.0)), np.sin(np.deg2rad(30.0))
        assert float(psf(major * c, major * s) / psf(0.0, 0.0)) == pytest.approx(0.5, abs=1e-10)
        minor = 0.7 * major
        assert float(psf(-minor * s, minor * c) / psf(0.0, 0.0)) == pytest.approx(0.5, abs=1e-10)
        for ellipticity, angle in ((0.3, 30.0), (0.05, 170.0), (0.6, 95.0)):
            found = ellipse_of(*ellipse_components(ellipticity, angle))
            np.testing.assert_allclose([float(x) for x in found], [ellipticity, angle], rtol=1e-10)


@pytest.mark.parametrize("pixel", [0.0, 0.2])
def test_transform_of_an_image_of_the_profile(pixel: float) -> None:
    n, step = 600, 0.05
    x = (np.arange(n) - n // 2) * step
    with working_precision("float64"):
        psf = MoffatPSF(0.6, 3.5, 0.25, 70.0, pixel)
        image = np.asarray(psf(jnp.asarray(x)[None, :], jnp.asarray(x)[:, None])) * step**2
        k = np.fft.fftfreq(n, step)[:60:7]
        expected = np.fft.fft2(np.fft.ifftshift(image)).real[:60:7, :60:7]
        found = np.asarray(psf.mtf(jnp.asarray(k)[None, :], jnp.asarray(k)[:, None]))
        # The same from the image itself, wherever its frequencies lie
        given = np.asarray(ImagePSF(image, step).mtf(k[None, :], k[:, None]))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(given, expected, atol=1e-12)


def test_many_frequencies_are_those_of_few() -> None:
    k = np.linspace(0.0, 5.0, 1200)
    with working_precision("float64"):
        psf = MoffatPSF(0.1, 1.6, 0.2, 20.0)
        many = np.asarray(psf.mtf(k, 0.3 * k))
        few = np.array([float(psf.mtf(at, 0.3 * at)) for at in k[::100]])
    assert many[0] == 1.0
    np.testing.assert_allclose(many[::100], few, atol=1e-11)
