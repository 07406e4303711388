"""The PSF of HST: its errors, its sampling, pixels too large for it, and images in the wrong order. Truths by numpy alone."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import pytest

import ifujax
from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference.precision import working_precision
from tests.photometry.point_scenes import (
    HST_BETA,
    HST_FWHM,
    TRUTH,
    Points,
    as_image,
    hst_image,
    moffat,
    muse_image,
    muse_signal,
    scene,
)


@lru_cache
def hst() -> ifujax.Image:
    return hst_image(scene())


@lru_cache
def muse(seed: int = 1) -> ifujax.Image:
    return muse_image(muse_signal(scene()), seed)


def fit(fwhm: float = HST_FWHM, beta: float = HST_BETA, **options) -> ifujax.ImagePhotometry:
    return ifujax.fit_image_photometry(hst(), muse(), hst_psf=ifujax.MoffatPSF(fwhm, beta), **options)


@pytest.mark.parametrize("options", [{}, {"noise": "correlated"}, {"loss": "student_t"}])
def test_errors_are_those_of_fits_with_other_psfs(options) -> None:
    plain = fit(**options)
    for error in ((0.008, 0.0), (0.0, 0.1)):
        known = fit(hst_psf_error=error, **options)
        ends = [fit(HST_FWHM + side * error[0], HST_BETA + side * error[1], **options) for side in (-1, 1)]
        for name in TRUTH:
            assert known.value(name).value == plain.value(name).value
            added = np.sqrt(known.value(name).error ** 2 - plain.value(name).error ** 2)
            moved = 0.5 * abs(ends[1].value(name).value - ends[0].value(name).value)
            assert added == pytest.approx(moved, rel=0.1, abs=0.05 * plain.value(name).error)
    both, tied = (fit(hst_psf_error=error, **options) for error in ((0.008, 0.1), (0.008, 0.1, 0.9)))
    each = [fit(hst_psf_error=error, **options).fwhm.error ** 2 - plain.fwhm.error**2 for error in ((0.008, 0.0), (0.0, 0.1))]
    assert both.fwhm.error**2 == pytest.approx(plain.fwhm.error**2 + sum(each), rel=1e-6)
    # FWHM falls as either grows with the other held: correlated errors add up
    between = tied.fwhm.error**2 - both.fwhm.error**2
    assert abs(between) == pytest.approx(2 * 0.9 * np.sqrt(each[0] * each[1]), rel=1e-6)


def test_intervals_hold_what_a_wrong_psf_does() -> None:
    """PSFs drawn from their errors: FWHM and scale scatter by what is said, and hold the truth as often as they should."""
    rng, error = np.random.default_rng(4), (0.01, 0.12)
    size = {"fwhm": [], "scale": []}
    for seed in range(40):
        psf = ifujax.MoffatPSF(HST_FWHM + error[0] * rng.normal(), HST_BETA + error[1] * rng.normal())
        found = ifujax.fit_image_photometry(hst(), muse(seed), hst_psf=psf, hst_psf_error=error)
        for name, pulls in size.items():
            pulls.append((found.value(name).value - TRUTH[name]) / found.value(name).error)
    for name, pulls in size.items():
        print(f"{name}: mean {np.mean(pulls):+.2f}, width {np.std(pulls):.2f}")
        assert abs(np.mean(pulls)) < 3.5 / np.sqrt(40)
        assert abs(np.std(pulls) - 1.0) < 3.5 / np.sqrt(80)


def test_a_sampled_profile() -> None:
    """Its transform is that of an image that holds the profile at the centres of pixels, too large ones too."""
    pixel, n = 0.06, 1500
    f = np.array([0.0, 0.7, 2.4])
    x = (np.arange(n) - n // 2) * pixel
    wave = np.exp(-2j * np.pi * f[:, None] * x)
    image = moffat(x[None, :] ** 2 + x[:, None] ** 2, 0.1, 2.5) * pixel**2
    expected = np.real(wave @ image @ wave.T)
    psf = ifujax.MoffatPSF(0.1, 2.5, sampled=pixel)
    with working_precision("float64"):
        found = np.asarray(psf.mtf(f[None, :], f[:, None]))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    whole = np.asarray(ifujax.MoffatPSF(0.1, 2.5).mtf(f[None, :], f[:, None]))
    assert np.abs(whole - expected).max() > 1e-3
    many = np.linspace(0.0, 4.0, 50)
    with working_precision("float64"):
        # Many frequencies are interpolated
        every, some = (np.asarray(psf.mtf(each[None, :], each[:, None])) for each in (many, many[::7]))
    np.testing.assert_allclose(every[::7, ::7], some, atol=1e-9)


def test_flux_of_stars_in_the_middle_of_hst_pixels() -> None:
    """0.05 arcsec: the transform of the profile misses 0.4 % of the scale, that of its samples nothing."""
    points = scene()
    at = [(np.floor(each / 0.05) + 0.5) * 0.05 for each in (points.x, points.y)]
    centred = Points(at[0], at[1], points.flux)
    image = muse_image(muse_signal(centred), 1, noise=np.zeros((48, 48)))
    bias = []
    for sampled in (0.0, 0.05):
        psf = ifujax.MoffatPSF(HST_FWHM, HST_BETA, sampled=sampled)
        found = ifujax.fit_image_photometry(hst_image(centred, pixel=0.05), image, hst_psf=psf)
        bias.append(found.scale.value / TRUTH["scale"] - 1.0)
    assert bias[0] == pytest.approx(-0.0041, abs=5e-4)
    assert abs(bias[1]) < 5e-4


def test_pixels_too_large_for_the_psf_are_warned_of() -> None:
    coarse = hst_image(scene(), pixel=0.06)
    with pytest.warns(IfujaxWarning, match=r"are 0.06 arcsec, more than 0.6 of the FWHM of its PSF, 0.085"):
        ifujax.fit_image_photometry(coarse, muse())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ifujax.fit_image_photometry(coarse, muse(), hst_psf=ifujax.MoffatPSF(HST_FWHM, HST_BETA, sampled=0.06))
        ifujax.fit_image_photometry(hst_image(scene(), pixel=0.05), muse())


def test_swapped_images_are_refused() -> None:
    for call in (
        lambda: ifujax.fit_image_photometry(muse(), hst()),
        lambda: ifujax.fit_image_photometry(muse(), [hst(), hst()]),
        lambda: list(ifujax.iterate_image_photometry(muse(), [hst()], on_error=lambda image, error: None)),
        lambda: ifujax.fit_star_photometry(muse(), hst(), (53.1, -27.8, 1.6)),
        lambda: ifujax.fit_joint_photometry(muse(), [hst(), hst()], [5000.0, 6000.0]),
    ):
        with pytest.raises(UsageError, match=r"hst must have pixels no larger .* got 0.2 arcsec .* 0.03 .* swapped") as raised:
            call()
        assert "\n" not in str(raised.value)


def test_errors_of_a_star_go_on() -> None:
    star = Points(np.array([0.1]), np.array([-0.05]), np.array([60.0]))
    image = hst_image(star, size=6.0)
    noisy = as_image(image.values + np.random.default_rng(1).normal(0, 0.02, image.shape), 0.03, np.full(image.shape, 0.02**2))
    of_star = ifujax.fit_star_photometry(noisy, muse_image(muse_signal(star), 1), (53.1, -27.8, 1.6))
    error = of_star.hst_psf_error
    assert error[:2] == (of_star.detail("hst_fwhm").error, of_star.detail("hst_beta").error)
    assert 0.2 < error[2] < 1.0
    assert ifujax.PhotometryOptions(hst_psf=of_star.hst_psf, hst_psf_error=error).hst_psf_error == error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hst_psf_error": (0.1,)}, "hst_psf_error must be"),
        ({"hst_psf_error": (0.1, -1.0)}, "hst_psf_error must be"),
        ({"hst_psf_error": (0.1, 0.1, 1.2)}, "hst_psf_error must be"),
        ({"hst_psf_error": 0.1}, "hst_psf_error must be"),
        ({"hst_psf_error": (0.1, 0.1), "method": "fourier"}, "hst_psf_error must be left out with method 'fourier'"),
        ({"hst_psf": ifujax.ImagePSF(np.ones((3, 3)), 0.03), "hst_psf_error": (0.1, 0.1)}, "left out with an ImagePSF"),
        ({"hst_psf": ifujax.MoffatPSF(0.085, 1.6, sampled=-1.0)}, "sampled of 0 or more"),
        ({"hst_psf": ifujax.MoffatPSF(0.085, 1.6, sampled=0.05), "method": "fourier"}, "round MoffatPSF"),
    ],
)
def test_options_that_cannot_be(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        ifujax.PhotometryOptions(**options)


@pytest.mark.slow
def test_joint_fits_share_the_errors() -> None:
    images, waves, error = [muse(1), muse(2)], [6000.0, 9000.0], (0.008, 0.0)

    def joint(fwhm: float, **options) -> ifujax.JointPhotometry:
        return ifujax.fit_joint_photometry(hst(), images, waves, hst_psf=ifujax.MoffatPSF(fwhm, HST_BETA), **options)

    plain, known = joint(HST_FWHM), joint(HST_FWHM, hst_psf_error=error)
    ends = [joint(HST_FWHM + side * error[0]) for side in (-1, 1)]
    moved = 0.5 * abs(ends[1].fwhm_at(plain.reference).value - ends[0].fwhm_at(plain.reference).value)
    assert np.sqrt(known.fwhm.error**2 - plain.fwhm.error**2) == pytest.approx(moved, rel=0.01)
    for i, image in enumerate(known.images):
        moved = 0.5 * abs(ends[1].images[i].scale.value - ends[0].images[i].scale.value)
        assert np.sqrt(image.scale.error**2 - plain.images[i].scale.error ** 2) == pytest.approx(moved, rel=0.01)
    assert known.fwhm_at(7000.0).error > plain.fwhm_at(7000.0).error
