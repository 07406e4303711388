"""Simulated images: against brute-force convolution, formulas and their own conventions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve

from ifujax import simulate
from ifujax.errors import DataError, UsageError
from ifujax.simulate import rendering
from ifujax.simulate.rendering import MoffatPSF, covariance_matrix, render_gaussians
from ifujax.simulate.scene import PROFILES, profile_mixture

LONE_STAR = simulate.Scene(stars=(simulate.Star(1.0, -2.0, 100.0),))
FEW = simulate.random_scene(11, n_galaxies=6, n_stars=2, size_arcsec=10.0)


def one_gaussian(shape, x, y, covariance, psf, **options):
    return render_gaussians(shape, np.ones(1), np.array([[x, y]]), covariance[None], psf, **options)


def normal(x, y, covariance):
    inverse = np.linalg.inv(covariance)
    square = inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y
    return np.exp(-0.5 * square) / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))


def centroid(image):
    y, x = np.indices(image.shape)
    return np.array([np.sum(image * x), np.sum(image * y)]) / image.sum()


@pytest.mark.parametrize("beta", [1.1, 1.6, 2.8, 5.0, 30.0])
def test_the_mixture_is_the_moffat(beta):
    psf = MoffatPSF(3.0, beta, 0.3, 25.0)
    y, x = np.indices((140, 90))
    expected = psf(x - 40.3, y - 69.8)
    image = one_gaussian((140, 90), 40.3, 69.8, np.zeros((2, 2)), psf)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-10 * expected.max())


@pytest.mark.parametrize("psf", [MoffatPSF(3.25, 2.8), MoffatPSF(2.0, 2.0, 0.2, -40.0), MoffatPSF(5.0, 10.0, 0.1, 80.0)])
@pytest.mark.parametrize("shape", [(2.5, 0.8, 33.0), (1.2, 1.2, 0.0)])
def test_convolution_against_brute_force(psf, shape):
    covariance = covariance_matrix(*shape)
    # grids 8 times finer than the pixels; the Gaussian ends at 8 sigma, the Moffat nowhere within reach
    fine, half, reach = 8, 20, 20
    at = np.arange(-reach * fine, reach * fine + 1) / fine
    far = np.arange(-(half + reach) * fine, (half + reach) * fine + 1) / fine
    gaussian = normal(at[None, :] - 0.3, at[:, None] + 0.2, covariance)
    brute = fftconvolve(psf(far[None, :], far[:, None]), gaussian, mode="valid")[::fine, ::fine] / fine**2
    image = one_gaussian((2 * half + 1, 2 * half + 1), half + 0.3, half - 0.2, covariance, psf)
    assert brute.shape == image.shape
    np.testing.assert_allclose(image, brute, rtol=0, atol=1e-9 * brute.max())


def test_hst_wings_against_quadrature():
    # narrower than a pixel and far out, where a finite grid would fail: integral over the Gaussian by Gauss-Hermite
    psf, covariance = MoffatPSF(1.7, 1.6), covariance_matrix(1.5, 0.6, 70.0)
    image = one_gaussian((400, 420), 30.4, 25.7, covariance, psf)
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    axes = np.linalg.cholesky(covariance)
    u, v = np.meshgrid(nodes, nodes)
    x, y = axes[0, 0] * u, axes[1, 0] * u + axes[1, 1] * v
    for px, py in ((30, 26), (33, 20), (60, 31), (419, 399)):
        expected = np.sum(np.outer(weights, weights) * psf(px - 30.4 - x, py - 25.7 - y)) / (2 * np.pi)
        np.testing.assert_allclose(image[py, px], expected, rtol=1e-6, atol=1e-9 * image.max())
    assert image[399, 419] < 1e-6 * image.max()


@pytest.mark.parametrize("shape", [(0.0, 0.0, 0.0), (1.5, 0.4, 52.0)])
@pytest.mark.parametrize("psf", [MoffatPSF(1.7, 1.6), MoffatPSF(3.0, 2.8, 0.2, 20.0)])
def test_integrals_over_pixels(shape, psf):
    covariance = covariance_matrix(*shape)
    whole = one_gaussian((40, 45), 20.4, 19.7, covariance, psf, integrate_pixels=True)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    expected = np.zeros((40, 45))
    for dy, wy in zip(0.5 * nodes, 0.5 * weights):
        for dx, wx in zip(0.5 * nodes, 0.5 * weights):
            expected += wx * wy * one_gaussian((40, 45), 20.4 - dx, 19.7 - dy, covariance, psf)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-9 * whole.max())


def test_tiles_do_not_show(monkeypatch):
    image = simulate.simulate_hst(FEW, (300, 270), centre=(0.3, -0.1)).values
    monkeypatch.setattr(rendering, "_TILE", 1000)
    whole = simulate.simulate_hst(FEW, (300, 270), centre=(0.3, -0.1)).values
    np.testing.assert_allclose(image, whole, rtol=0, atol=1e-9 * whole.max())


def test_total_fluxes():
    # a Moffat holds 1 - (1 + r^2/alpha^2)^(1 - beta) within r: the square image lies between two circles
    galaxy = simulate.Galaxy(0.3, 0.2, 50.0, 0.6, 0.4, 30.0)
    for integrate_pixels in (False, True):
        image = simulate.simulate_muse(
            simulate.Scene((galaxy,)), (401, 401), fwhm=0.7, beta=3.5, sigma=0.0, integrate_pixels=integrate_pixels
        )
        alpha = MoffatPSF(0.7, 3.5).alpha
        outside = [(1 + (r / alpha) ** 2) ** -2.5 for r in (40.1 - 4, 57.0)]
        assert 50.0 * (1 - outside[0]) <= image.values.sum() <= 50.0 * (1 - outside[1] / 2)


def test_profiles_have_their_flux_and_half_light_radius():
    for profile in PROFILES:
        weights, sigmas = profile_mixture(profile)
        assert weights.sum() == pytest.approx(1.0, abs=1e-14)
        assert np.sum(weights * np.exp(-0.5 / sigmas**2)) == pytest.approx(0.5, abs=1e-12)
    weights, sigmas = profile_mixture("exponential")
    r = np.linspace(0.0, 3.0, 31)[:, None]
    sum_of_gaussians = np.sum(weights / (2 * np.pi * sigmas**2) * np.exp(-0.5 * (r / sigmas) ** 2), axis=1)
    h = 1 / 1.67834699
    exponential = np.exp(-r[:, 0] / h) / (2 * np.pi * h**2)
    np.testing.assert_allclose(sum_of_gaussians[1:], exponential[1:], rtol=0.02)


def test_widths_and_angle_of_the_psf():
    psf = MoffatPSF(0.8, 2.5, ellipticity=0.25, angle=30.0)
    major, minor = 0.8 / np.sqrt(0.75), 0.8 * np.sqrt(0.75)
    cos, sin = np.cos(np.radians(30.0)), np.sin(np.radians(30.0))
    peak = psf(np.zeros(1), np.zeros(1))[0]
    x, y = 0.5 * np.array([major * cos, -minor * sin]), 0.5 * np.array([major * sin, minor * cos])
    np.testing.assert_allclose(psf(x, y), 0.5 * peak, rtol=1e-12)
    assert peak == pytest.approx(MoffatPSF(0.8, 2.5)(np.zeros(1), np.zeros(1))[0])
    image = simulate.simulate_muse(LONE_STAR, ellipticity=0.25, angle=30.0, sigma=0.0).values
    core = image**3  # its moments converge
    y, x = np.indices(image.shape) - centroid(core)[::-1, None, None]
    xx, yy, xy = np.sum(core * x * x), np.sum(core * y * y), np.sum(core * x * y)
    assert np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) == pytest.approx(30.0, abs=0.5)


@pytest.mark.parametrize("angle", [0.0, 37.0, -120.0])
def test_hst_sources_are_where_the_coordinates_say(angle):
    image = simulate.simulate_hst(LONE_STAR, (200, 220), angle=angle, centre=(0.5, -1.2), fwhm=0.3, beta=4.0)
    wcs = image.celestial
    dec = LONE_STAR.dec - 2.0 / 3600
    ra = LONE_STAR.ra + 1.0 / 3600 / np.cos(np.radians(dec))
    x, y = (float(value) for value in wcs.wcs_world2pix(ra, dec, 0))
    np.testing.assert_allclose(centroid(image.values**2), (x, y), atol=2e-3)
    north = np.array(wcs.wcs_world2pix(LONE_STAR.ra, LONE_STAR.dec + 1e-4, 0)) - wcs.wcs_world2pix(LONE_STAR.ra, LONE_STAR.dec, 0)
    # +y is at this position angle, so north is as far from +y, to the side of -x on which west isn't
    assert np.degrees(np.arctan2(north[0], north[1])) == pytest.approx(angle, abs=1e-3)


def test_offsets_are_along_the_pixel_axes():
    still = simulate.simulate_muse(LONE_STAR, (80, 90), sigma=0.0, beta=4.0, orientation=25.0)
    moved = simulate.simulate_muse(LONE_STAR, (80, 90), sigma=0.0, beta=4.0, orientation=25.0, dx=0.6, dy=-0.4)
    np.testing.assert_allclose(moved.values[:-2, 3:], still.values[2:, :-3], rtol=1e-12)
    part = simulate.simulate_muse(LONE_STAR, (80, 90), sigma=0.0, beta=4.0, orientation=25.0, dx=0.5, dy=-0.3)
    np.testing.assert_allclose(centroid(part.values**2) - centroid(still.values**2), [2.5, -1.5], atol=1e-4)
    assert still.header.tostring() == moved.header.tostring()
    dec = LONE_STAR.dec - 2.0 / 3600
    ra = LONE_STAR.ra + 1.0 / 3600 / np.cos(np.radians(dec))
    np.testing.assert_allclose(centroid(still.values**2), still.celestial.wcs_world2pix(ra, dec, 0), atol=2e-3)


def test_rotation_is_from_x_to_y_about_the_centre():
    still = simulate.simulate_muse(FEW, (61, 61), sigma=0.0).values
    turned = simulate.simulate_muse(FEW, (61, 61), sigma=0.0, rotation=90.0).values
    np.testing.assert_allclose(turned, still[::-1].T, rtol=1e-9, atol=1e-9)
    moved = simulate.simulate_muse(FEW, (61, 61), sigma=0.0, rotation=90.0, dx=0.4).values
    np.testing.assert_allclose(moved[:, 2:], turned[:, :-2], rtol=1e-9, atol=1e-9)


def test_scale_background_and_noise():
    clean = simulate.simulate_muse(FEW, (60, 70), seed=None)
    scaled = simulate.simulate_muse(FEW, (60, 70), seed=None, scale=0.9, bg=0.3)
    np.testing.assert_allclose(scaled.values, 0.9 * clean.values + 0.3, rtol=1e-12)
    np.testing.assert_allclose(clean.variance, 0.05**2)
    sigma = np.linspace(0.01, 0.2, 60 * 70).reshape(60, 70)
    noisy = simulate.simulate_muse(FEW, (60, 70), sigma=sigma, seed=4)
    pull = (noisy.values - clean.values) / noisy.error
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * pull.size))
    assert simulate.simulate_muse(FEW, (60, 70), sigma=0.0).variance is None


def test_pair_with_masks_and_other_noise():
    masks = {"masked_edge": 2, "masked_blocks": [(10, 15, 20, 30)], "masked_pixels": 12, "orientation": 10.0}
    pair = simulate.simulate_image_pair(
        FEW, seed=5, muse_shape=(50, 60), hst_shape=(240, 280), hst_noise=0.01, dx=0.2, muse_options=masks
    )
    bad = ~np.isfinite(pair.muse.values)
    assert bad[:2].all()
    assert bad[:, -2:].all()
    assert bad[10:15, 20:30].all()
    edge_and_block = 50 * 60 - 46 * 56 + 50
    assert edge_and_block < bad.sum() <= edge_and_block + 12
    np.testing.assert_array_equal(np.isnan(pair.muse.variance), bad)
    assert pair.truth["dx"] == 0.2
    assert pair.muse.unit == pair.hst.unit == pair.muse.header["BUNIT"] == "10**-20 erg Angstrom-1 s-1 cm-2"
    other = pair.with_noise(6)
    np.testing.assert_array_equal(np.isnan(other.muse.values), bad)
    assert (other.muse.values[~bad] != pair.muse.values[~bad]).all()
    assert (other.hst.values != pair.hst.values).all()
    again = other.with_noise(5)
    np.testing.assert_array_equal(again.muse.values, pair.muse.values)
    np.testing.assert_array_equal(again.hst.values, pair.hst.values)
    direct = simulate.simulate_muse(FEW, (50, 60), dx=0.2, seed=5, **masks)
    np.testing.assert_array_equal(direct.values, pair.muse.values)
    direct = simulate.simulate_hst(FEW, (240, 280), noise=0.01, seed=5)
    np.testing.assert_array_equal(direct.values, pair.hst.values)


def test_the_flux_of_a_source_is_the_same_in_both():
    pair = simulate.simulate_image_pair(
        LONE_STAR, muse_shape=(100, 100), hst_shape=(400, 400), fwhm=0.6, beta=3.0, hst_fwhm=0.2, hst_beta=3.0, sigma=0.0
    )
    assert pair.hst.variance is None
    np.testing.assert_allclose([pair.hst.values.sum(), pair.muse.values.sum()], 100.0, rtol=2e-3)


def test_random_scenes():
    scene = simulate.random_scene(3, n_galaxies=200, n_stars=50, size_arcsec=20.0)
    assert scene == simulate.random_scene(3, n_galaxies=200, n_stars=50, size_arcsec=20.0)
    assert scene != simulate.random_scene(4, n_galaxies=200, n_stars=50, size_arcsec=20.0)
    assert (len(scene.galaxies), len(scene.stars)) == (200, 50)
    assert max(max(abs(each.east), abs(each.north)) for each in scene.galaxies) <= 10.0
    assert max(max(abs(each.east), abs(each.north)) for each in scene.stars) <= 8.0
    assert {each.profile for each in scene.galaxies} == set(PROFILES)
    assert all(0.1 <= each.radius <= 0.8 and 4 <= each.flux <= 200 for each in scene.galaxies)
    assert scene.flux == pytest.approx(sum(scene.gaussians()[0]) + sum(scene.points()[0]))


def test_an_empty_scene_is_background():
    image = simulate.simulate_muse(simulate.Scene(), (5, 6), bg=2.0, sigma=0.0)
    np.testing.assert_array_equal(image.values, np.full((5, 6), 2.0))


def test_bad_arguments_are_named():
    with pytest.raises(DataError, match="beta must be larger than 1"):
        simulate.simulate_hst(FEW, (10, 10), beta=1.0)
    with pytest.raises(DataError, match="fwhm must be"):
        simulate.simulate_muse(FEW, (10, 10), fwhm=float("nan"))
    with pytest.raises(DataError, match="ellipticity must lie"):
        simulate.simulate_muse(FEW, (10, 10), ellipticity=1.0)
    with pytest.raises(DataError, match="shape must be"):
        simulate.simulate_muse(FEW, (0, 10))
    with pytest.raises(DataError, match="pixel must be"):
        simulate.simulate_hst(FEW, (10, 10), pixel=0.0)
    with pytest.raises(DataError, match="noise must be"):
        simulate.simulate_muse(FEW, (10, 10), sigma=-1.0)
    with pytest.raises(DataError, match="radius must be"):
        simulate.Galaxy(0, 0, 1.0, 0.0)
    with pytest.raises(DataError, match="axis_ratio must"):
        simulate.Galaxy(0, 0, 1.0, 1.0, 1.2)
    with pytest.raises(UsageError, match="Did you mean 'spheroid'"):
        simulate.Galaxy(0, 0, 1.0, 1.0, profile="speroid")
    with pytest.raises(DataError, match="size_arcsec must be larger"):
        simulate.random_scene(0, size_arcsec=3.0)
    with pytest.raises(DataError, match="star_flux must be"):
        simulate.random_scene(0, star_flux=(3.0, 1.0))
