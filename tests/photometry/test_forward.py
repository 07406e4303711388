"""The forward fit: recovery without noise, options, masks, failures, batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ifujax
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.images.regrid import regrid_like
from ifujax.inference import status as bits
from ifujax.simulate import random_scene, simulate_muse
from tests.photometry.scenes import NAMES, SHAPE, TRUTH, pair


def assert_recovered(fit: ifujax.ImagePhotometry, truth=TRUTH, share: float = 0.5) -> None:
    """Every parameter within a share of its error for the noise of the variance, where there is no noise."""
    assert fit.status == 0
    for name in NAMES:
        found = fit.value(name)
        assert abs(found.value - truth[name]) < share * found.error, (name, found, truth[name])


def test_recovers_a_pair_without_noise() -> None:
    fit = ifujax.fit_image_photometry(pair().hst, pair().muse)
    assert_recovered(fit)
    assert fit.warn == bits.CHI2_NOT_1.value  # there is no noise where the variance says so
    assert fit.rms_error < 0.004
    assert fit.n_good == SHAPE[0] * SHAPE[1]
    assert np.nanmax(np.abs(fit.residual.values)) < 0.1
    assert fit.name == "muse"
    np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance)), [fit.value(n).error for n in fit.covariance_names])


@pytest.mark.slow
def test_regridded_hst_gives_the_same() -> None:
    native = ifujax.fit_image_photometry(pair().hst, pair().muse)
    fit = ifujax.fit_image_photometry(regrid_like(pair().hst, pair().muse), pair().muse)
    assert "low-passed" in fit.fit_report()
    for name in NAMES:
        one, other = native.value(name), fit.value(name)
        assert abs(one.value - other.value) < 0.6 * other.error, (name, one, other)
        # An arcsec along the edges and the highest frequencies are lost
        assert one.error < other.error < 3.0 * one.error


def test_shift_of_several_pixels_from_nothing() -> None:
    fit = ifujax.fit_image_photometry(pair(dx=-1.37, dy=1.61).hst, pair(dx=-1.37, dy=1.61).muse)
    assert_recovered(fit, {**TRUTH, "dx": -1.37, "dy": 1.61})
    far = ifujax.fit_image_photometry(
        pair(dx=-1.37, dy=1.61).hst, pair(dx=-1.37, dy=1.61).muse, margin=0.5, init_dx=-1.2, init_dy=1.4
    )
    assert far.dx.value == pytest.approx(fit.dx.value, abs=1e-4)


def test_masked_pixels_do_not_count() -> None:
    """Regions, an extra mask and NaN: what is there changes nothing, nothing is tapered."""
    muse = pair().muse
    spoilt = muse.values.copy()
    spoilt[20:27, 30:36] += 50.0
    spoilt[3, 3] = np.nan
    extra = np.zeros(SHAPE, int)
    extra[20:27, 30:36] = 7
    fit = ifujax.fit_image_photometry(pair().hst, replace(muse, values=spoilt), extramask=extra)
    assert_recovered(fit)
    assert fit.n_good == SHAPE[0] * SHAPE[1] - 42 - 1
    assert np.isnan(fit.data.values[20:27, 30:36]).all()
    spoilt[~np.isnan(spoilt)] = muse.values[~np.isnan(spoilt)]
    # The region lies where HST has it; MUSE is moved by +0.6, -1.15 pixels
    regions = ["image", "-box(20.5,30.5,6,8,0)"]
    fit = ifujax.fit_image_photometry(pair().hst, muse, regions=regions)
    assert_recovered(fit)
    lost = np.isnan(fit.data.values)
    assert lost.sum() == 48
    y, x = np.nonzero(lost)
    assert (y.mean(), x.mean()) == (29.5 - 1, 19.5 + 1)


def test_star_alone_and_without_it() -> None:
    scene = random_scene(5, size_arcsec=18.0, n_galaxies=14, n_stars=4)
    star = min(scene.stars, key=lambda each: np.hypot(each.east, each.north))
    ra = scene.ra + star.east / 3600.0 / np.cos(np.deg2rad(scene.dec))
    position = (ra, scene.dec + star.north / 3600.0, 1.2)
    inside = ifujax.fit_image_photometry(pair().hst, pair().muse, star=position)
    assert inside.n_good == pytest.approx(np.pi * 36, rel=0.06)
    assert_recovered(inside)
    outside = ifujax.fit_image_photometry(pair().hst, pair().muse, star=position, regions="notstar")
    assert outside.n_good + inside.n_good == SHAPE[0] * SHAPE[1]
    assert_recovered(outside)
    everything = ifujax.fit_image_photometry(pair().hst, pair().muse, star=position, regions="none")
    assert everything.n_good == SHAPE[0] * SHAPE[1]


def test_without_variance_the_noise_is_estimated() -> None:
    noisy = pair(seed=3)
    known = ifujax.fit_image_photometry(noisy.hst, noisy.muse)
    fit = ifujax.fit_image_photometry(noisy.hst, replace(noisy.muse, variance=None))
    assert fit.warn & bits.NOISE_ESTIMATED.value
    for name in NAMES:
        assert fit.value(name).value == pytest.approx(known.value(name).value, abs=0.02 * known.value(name).error)
        assert fit.value(name).error == pytest.approx(known.value(name).error, rel=0.06)
    assert known.warn == 0


def test_wrong_variances_and_the_prior() -> None:
    """Variances that are 300 times too large would let the prior of beta win; scaled noise means that they don't."""
    noisy = pair(seed=3, beta=3.8)
    known = ifujax.fit_image_photometry(noisy.hst, noisy.muse)
    wrong = replace(noisy.muse, variance=300.0 * noisy.muse.variance)
    fooled = ifujax.fit_image_photometry(noisy.hst, wrong)
    assert fooled.warn & bits.CHI2_NOT_1.value
    assert fooled.beta.value < known.beta.value - 2 * known.beta.error
    for noise in ("scaled", "correlated"):
        fit = ifujax.fit_image_photometry(noisy.hst, wrong, noise=noise)
        for name in NAMES:
            assert fit.value(name).value == pytest.approx(known.value(name).value, abs=0.1 * known.value(name).error)
            assert fit.value(name).error == pytest.approx(known.value(name).error, rel=0.2)
        assert fit.reduced_chi2 == pytest.approx(1 / 300, rel=0.1)
    assert np.sum(fit.prepared.ivar > 0) == fit.n_good


def test_units_do_not_matter() -> None:
    fit = ifujax.fit_image_photometry(pair(seed=3).hst, pair(seed=3).muse)
    for factor in (1e-20, 1e20):
        hst, muse = pair(seed=3).hst, pair(seed=3).muse
        scaled = replace(muse, values=muse.values * factor, variance=muse.variance * factor**2)
        again = ifujax.fit_image_photometry(replace(hst, values=hst.values * factor), scaled)
        for name in NAMES:
            unit = factor if name == "bg" else 1.0
            assert again.value(name).value / unit == pytest.approx(fit.value(name).value, abs=1e-3 * fit.value(name).error)
            assert again.value(name).error / unit == pytest.approx(fit.value(name).error, rel=1e-4)


def test_fixed_parameters_keep_their_values() -> None:
    fit = ifujax.fit_image_photometry(pair().hst, pair().muse, fix_dx=0.1, fix_beta=2.5)
    assert (fit.dx.value, fit.dx.error, fit.dx.fixed) == (0.1, 0.0, True)
    assert (fit.beta.value, fit.beta.fixed) == (2.5, True)
    assert not fit.fwhm.fixed
    assert len(fit.covariance_names) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scale", "bg", "fwhm"])
def test_fixed_linear_parameters(name: str) -> None:
    fit = ifujax.fit_image_photometry(pair().hst, pair().muse, **{f"fix_{name}": TRUTH[name]})
    assert fit.value(name).fixed
    for other in NAMES:
        if other != name:
            assert abs(fit.value(other).value - TRUTH[other]) < 0.5 * fit.value(other).error


@pytest.mark.slow
def test_least_scale() -> None:
    fit = ifujax.fit_image_photometry(pair().hst, pair().muse, min_scale=1.2)
    assert fit.scale.value == 1.2
    assert np.isnan(fit.scale.error)
    assert fit.warn & bits.AT_BOUND.value


@pytest.mark.slow
def test_an_image_without_the_scene_ends_at_the_least_scale() -> None:
    """What fits best with a negative scale is held at the default limit, 0, and spoils no other image."""
    muse = pair(seed=3).muse
    negative = replace(muse, values=-muse.values)
    fixed = {"fix_dx": 0.12, "fix_dy": -0.23, "fix_fwhm": 0.65, "fix_beta": 2.8}
    bad, good = ifujax.fit_image_photometry(pair().hst, [negative, muse], **fixed)
    assert bad.scale.value == 0.0
    assert np.isnan(bad.scale.error)
    assert bad.warn & bits.AT_BOUND.value
    assert good.scale.value == pytest.approx(TRUTH["scale"], abs=3 * good.scale.error)


@pytest.mark.slow
def test_elliptical_psf() -> None:
    given = pair(ellipticity=0.25, angle=40.0)
    fit = ifujax.fit_image_photometry(given.hst, given.muse, elliptical=True)
    assert fit.ellipticity.value == pytest.approx(0.25, abs=0.5 * fit.ellipticity.error)
    assert fit.angle.value == pytest.approx(40.0, abs=0.5 * fit.angle.error)
    assert_recovered(fit)
    round_one = ifujax.fit_image_photometry(given.hst, given.muse)
    assert round_one.chi2 > fit.chi2 + 100


@pytest.mark.slow
@pytest.mark.parametrize("rotation", [0.4, -2.0])
def test_rotation(rotation: float) -> None:
    given = pair(rotation=rotation)
    fit = ifujax.fit_image_photometry(given.hst, given.muse, rotation=True)
    assert fit.rotation.value == pytest.approx(rotation, abs=0.5 * fit.rotation.error)
    assert_recovered(fit)


@pytest.mark.slow
def test_psf_before_the_pixels() -> None:
    given = pair(integrate_pixels=True, hst_options=None)
    fit = ifujax.fit_image_photometry(given.hst, given.muse, integrate_pixels=True)
    # HST's own pixels, 0.05 arcsec, are in its image too
    assert fit.fwhm.value == pytest.approx(0.65, abs=3 * fit.fwhm.error)
    sampled = ifujax.fit_image_photometry(given.hst, given.muse)
    assert 0.008 < sampled.fwhm.value - fit.fwhm.value < 0.03


def test_many_images_are_those_of_each(tmp_path) -> None:
    muses = [pair(seed=i).muse for i in range(5)]
    together = ifujax.fit_image_photometry(pair().hst, muses)
    alone = ifujax.fit_image_photometry(pair().hst, muses[3])
    assert [each.status for each in together] == [0] * 5
    for name in NAMES:
        assert together[3].value(name).value == pytest.approx(alone.value(name).value, abs=1e-6 * alone.value(name).error)
        assert together[3].value(name).error == pytest.approx(alone.value(name).error, rel=1e-9)
    assert len({each.dx.value for each in together}) == 5
    iterator = ifujax.iterate_image_photometry(pair().hst, muses[:2])
    assert next(iterator).dx.value == together[0].dx.value


def test_psf_is_an_object_for_other_jobs() -> None:
    psf = ifujax.fit_image_photometry(pair().hst, pair().muse).psf
    assert isinstance(psf, ifujax.MoffatPSF)
    assert float(psf.mtf(0.0, 0.0)) == 1.0


def test_celestial_offsets() -> None:
    fit = ifujax.fit_image_photometry(pair().hst, pair().muse)
    # East is left: +x is west, and RA falls
    dec = np.deg2rad(pair().scene.dec)
    assert fit.dra.value * np.cos(dec) == pytest.approx(-fit.dx.value, rel=1e-4)
    assert fit.dra_cosdec.value == pytest.approx(-fit.dx.value, rel=1e-4)
    assert fit.ddec.value == pytest.approx(fit.dy.value, rel=1e-4)
    assert fit.dra.error == pytest.approx(fit.dx.error / np.cos(dec), rel=1e-3)
    assert fit.ddec.error > 0


def test_table_and_report() -> None:
    fit = ifujax.fit_image_photometry(pair().hst, pair().muse)
    lines = fit.summary().split("\n")
    assert lines[0] == "# MUSE ID Method  Flux    FWHM    beta     Flux    x-offset  y-offset  ra-offset dec-offset  RMS"
    assert lines[2] == "#-------- ------ ------- ------- ------- --------- --------- --------- --------- --------- -------"
    assert lines[3].split()[:2] == ["muse", "image"]
    assert float(lines[3].split()[2]) == pytest.approx(fit.scale.value, abs=1e-4)
    assert fit.summary(header=False) == lines[3]
    report = fit.fit_report()
    assert "fwhm" in report
    assert "+/-" in report
    assert "correlations" in report
    assert "chi2 per degree of freedom far from 1" in report
    assert "low-passed" not in report


def test_bad_input() -> None:
    hst, muse = pair().hst, pair().muse
    nothing = replace(muse, values=np.full(SHAPE, np.nan))
    for change, error, message in (
        ({"muse": nothing}, DataError, "muse must have usable pixels"),
        ({"muse": replace(muse, variance=np.zeros(SHAPE))}, DataError, "variance must be positive somewhere"),
        ({"muse": replace(muse, celestial=None)}, DataError, "celestial coordinates"),
        ({"muse": []}, UsageError, "an image at least"),
        ({"hst": [hst, hst], "muse": [muse]}, UsageError, "hst must be one image, or one for each of the 1"),
        ({"extramask": np.ones(SHAPE)}, DataError, "muse must have usable pixels"),
        ({"extramask": np.ones((3, 3))}, UsageError, "extramask must have the shape"),
        ({"star": (10.0, 20.0, 2.0)}, UsageError, "star must lie within the image"),
        ({"star": (10.0, 20.0)}, UsageError, "star must be"),
        ({"star": (10.0, 20.0, -1.0)}, UsageError, "positive radius"),
        ({"fix_btea": 2.5}, UsageError, "unknown option 'fix_btea'.*fix_beta"),
        ({"fix_beta": 0.5}, UsageError, "fix_beta must be"),
        ({"fix_fwhm": -1.0}, UsageError, "fix_fwhm must lie between"),
        ({"fix_scale": 0.5, "min_scale": 0.7}, UsageError, "fix_scale must be min_scale"),
        ({"method": "other"}, UsageError, "method must be one of"),
        ({"method": "fourier"}, DataError, "same pixels with method 'fourier'"),
        ({"method": "fourier", "elliptical": True}, UsageError, "elliptical must be left out"),
        ({"margin": np.nan}, UsageError, "margin must lie"),
        ({"hst": replace(hst, unit="electrons/s", header=None)}, UsageError, "filter"),
        ({"edge": 30.0, "hst": regrid_like(hst, muse)}, DataError, "must share 50 usable pixels"),
    ):
        arguments = {"hst": hst, "muse": muse, **change}
        with pytest.raises(error, match=message):
            ifujax.fit_image_photometry(arguments.pop("hst"), arguments.pop("muse"), **arguments)
    with pytest.raises(UsageError, match="an image must be an Image"):
        ifujax.fit_image_photometry(3, muse)


def test_constant_image_fails() -> None:
    fit = ifujax.fit_image_photometry(pair().hst, replace(pair().muse, values=np.full(SHAPE, 3.0)))
    assert fit.status & bits.CONSTANT_DATA.value
    assert np.isnan([fit.value(name).value for name in NAMES]).all()
    assert "nothing to fit" in fit.reason


def test_muse_without_a_unit_is_warned_of() -> None:
    with pytest.warns(IfujaxWarning, match="has no unit"):
        fit = ifujax.fit_image_photometry(pair().hst, replace(pair().muse, unit=""))
    assert fit.scale.value == pytest.approx(TRUTH["scale"], abs=fit.scale.error)


def test_known_edges_without_hst_beyond() -> None:
    """HST that ends where MUSE does: pixels next to its edge, into which unknown light is blurred, are left out."""
    muse = simulate_muse(random_scene(5, size_arcsec=18.0, n_galaxies=14, n_stars=4), SHAPE, 0.2, seed=None, sigma=0.05, **TRUTH)
    hst = pair().hst
    values = hst.values.copy()
    values[:84], values[-84:], values[:, :84], values[:, -84:] = 0.0, 0.0, 0.0, 0.0
    fit = ifujax.fit_image_photometry(replace(hst, values=values), muse)
    assert fit.n_good < 0.75 * SHAPE[0] * SHAPE[1]
    assert np.isnan(fit.data.values[:, :4]).all()
    for name in NAMES:
        assert abs(fit.value(name).value - TRUTH[name]) < 2 * fit.value(name).error, name


def test_correlated_errors_keep_the_prior_and_what_is_not_constrained() -> None:
    """With white noise both kinds of errors agree, also where the prior of beta says most of it."""
    faint = pair(seed=3, sigma=1.5)
    plain, fit = (ifujax.fit_image_photometry(faint.hst, faint.muse, noise=noise) for noise in ("variance", "correlated"))
    assert plain.beta.error > 0.5
    for name in NAMES:
        assert fit.value(name).error == pytest.approx(plain.value(name).error, rel=0.25), name
    held = {"fix_beta": 2.8, "fix_fwhm": 0.65, "margin": 0.1, "noise": "correlated"}
    upside_down = ifujax.fit_image_photometry(pair().hst, replace(pair().muse, values=-pair().muse.values), **held)
    assert upside_down.scale.value == 0.0
    assert np.isfinite(upside_down.bg.error)


def test_ellipse_has_covariance() -> None:
    fit = ifujax.fit_image_photometry(pair(seed=3).hst, pair(seed=3).muse, elliptical=True)
    assert {"ellipticity", "angle"} <= set(fit.covariance_names)
    for name in fit.covariance_names:
        k = fit.covariance_names.index(name)
        assert np.sqrt(fit.covariance[k, k]) == pytest.approx(fit.value(name).error)


def test_bad_variances_are_told() -> None:
    muse = pair(seed=3).muse
    variance = muse.variance.copy()
    variance[5, 5:8] = 0.0
    fit = ifujax.fit_image_photometry(pair(seed=3).hst, replace(muse, variance=variance))
    assert fit.warn == bits.BAD_VARIANCE.value
    assert fit.n_good == SHAPE[0] * SHAPE[1] - 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taper": 5}, "taper must be left out with method 'forward'"),
        ({"segment": True}, "segment must be left out with method 'forward'"),
        ({"method": "fourier", "noise": "scaled"}, "noise must be left out with method 'fourier'"),
        ({"method": "fourier", "taper": -1}, "taper must be 0 or more"),
        ({"min_scale": np.inf}, "min_scale must be a number"),
        ({"hst_psf": ifujax.MoffatPSF(0.0, 1.6)}, "hst_psf must have a positive fwhm"),
        ({"hst_psf": ifujax.MoffatPSF(0.085, 1.0)}, "a beta of 1.01 or more"),
        ({"method": "fourier", "hst_psf": ifujax.MoffatPSF(0.085, 1.6, pixel=0.05)}, "round MoffatPSF without a pixel"),
    ],
)
def test_options_that_cannot_be(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        ifujax.PhotometryOptions(**options)


def test_a_match_beyond_the_search_is_told_of() -> None:
    """An image that points 4 arcsec elsewhere is not found within 2; what is found is no good, and where to look is said."""
    far = pair(dx=-4.0, dy=3.0, seed=2)
    with pytest.warns(IfujaxWarning, match=r"dx = -4\.0, dy = \+3\.0 arcsec, further away than the search goes"):
        ifujax.fit_image_photometry(far.hst, far.muse)
    fit = ifujax.fit_image_photometry(far.hst, far.muse, margin=5.0)
    assert fit.dx.value == pytest.approx(-4.0, abs=5 * fit.dx.error)
    with pytest.raises(UsageError, match="star must be given with regions 'notstar'"):
        ifujax.fit_image_photometry(far.hst, far.muse, regions="notstar")
