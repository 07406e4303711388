"""Star fits: recovery, honest errors, and what must not go wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy import integrate, special

import ifujax
from ifujax.data.image import Image
from ifujax.errors import DataError, UsageError
from ifujax.inference import status as bits
from ifujax.inference.parameter_space.priors import Normal
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.stars.fit import NAMES, Star, fit_stars, star_pixels
from ifujax.photometry.stars.models import PER_PIXEL, filtered_profile
from tests.reference import reference_data
from tests.small_pair import small_pair, star_position

MUSE = {"flux": 380.0, "bg": 0.05, "dx": 0.12, "dy": -0.23, "fwhm": 0.65, "beta": 2.8}
HST = {"flux": 400.0, "bg": 0.02, "dx": 0.01, "dy": 0.02, "fwhm": 0.14, "beta": 2.5}
TRUTH = {"scale": 0.95, "bg": 0.05 - 0.95 * 0.02 * 16, "dx": 0.11, "dy": -0.25, "fwhm": 0.65, "beta": 2.8}


def fit_pair(muse, hst, **settings):
    return fit_all([(muse, hst)], **settings)[0]


def fit_all(pairs, beta_prior=None, **options):
    return fit_stars(pairs, PhotometryOptions(beta_prior=beta_prior, **options))


def moffat(x, y, of):
    a2 = of["fwhm"] ** 2 / (4 * (2 ** (1 / of["beta"]) - 1))
    return (of["beta"] - 1) / (math.pi * a2) * (1 + ((x - of["dx"]) ** 2 + (y - of["dy"]) ** 2) / a2) ** -of["beta"]


def star(of, pixel, radius, sigma=None, rng=None, fine=1):
    """A star on square pixels, averaged over `fine` points along their sides."""
    half = int(radius / pixel) + 1
    grid = np.arange(-half, half + 1) * pixel
    y, x = (each.ravel() for each in np.meshgrid(grid, grid, indexing="ij"))
    inside = np.hypot(x, y) < radius
    x, y = x[inside], y[inside]
    offsets = ((np.arange(fine) + 0.5) / fine - 0.5) * pixel
    mean = np.mean([moffat(x + ox, y + oy, of) for oy in offsets for ox in offsets], axis=0)
    values = of["bg"] + of["flux"] * pixel**2 * mean
    if rng is not None:
        values = values + rng.normal(scale=sigma, size=values.shape)
    return Star(values, None if sigma is None else np.full(values.shape, sigma**2), x, y, (pixel, pixel))


def test_recovery_without_noise():
    found = fit_pair(star(MUSE, 0.2, 3.0, 0.05), star(HST, 0.05, 1.0, 0.05))
    assert found.status == 0
    assert found.warn == bits.CHI2_NOT_1.value  # there is no noise where the variance says so
    for name, value in TRUTH.items():
        assert found.values[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    for which, truth in (("muse", MUSE), ("hst", HST)):
        for name, value in truth.items():
            assert found.details[f"{which}_{name}"] == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert found.rms < 1e-5
    np.testing.assert_allclose(found.muse_model, found.muse.values, atol=1e-5)
    np.testing.assert_allclose(found.hst_model, found.hst.values, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), [found.errors[name] for name in NAMES])
    # In quadrature
    e, v = found.detail_errors, found.details
    assert found.errors["dx"] == pytest.approx(np.hypot(e["muse_dx"], e["hst_dx"]))
    relative = np.hypot(e["muse_flux"] / v["muse_flux"], e["hst_flux"] / v["hst_flux"])
    assert found.errors["scale"] == pytest.approx(found.values["scale"] * relative)
    # The covariance of scale and bg has no simple form: from the two images' own
    assert found.covariance[0, 1] < 0


@pytest.mark.slow
def test_stars_in_a_batch_are_those_fitted_alone(rng):
    pairs = [
        (star(MUSE | {"flux": flux}, 0.2, radius, 0.05, rng), star(HST, 0.05, 0.8, 0.05, rng))
        for flux, radius in ((380, 3.0), (100, 1.4), (200, 2.0))
    ]
    together = fit_all(pairs)
    for pair, found in zip(pairs, together):
        alone = fit_pair(*pair)
        assert found.muse is pair[0]
        for name in NAMES:
            assert abs(found.values[name] - alone.values[name]) < 1e-3 * found.errors[name]
            assert found.errors[name] == pytest.approx(alone.errors[name], rel=1e-3)


def test_units_do_not_matter(rng):
    pair = star(MUSE, 0.2, 2.0, 0.05, rng), star(HST, 0.05, 0.8, 0.05, rng)
    plain = fit_pair(*pair)
    for factor in (1e-20, 1e20):
        scaled = [replace(each, values=each.values * factor, variance=each.variance * factor**2) for each in pair]
        found = fit_pair(*scaled)
        for name in NAMES:
            unit = factor if name == "bg" else 1.0
            assert abs(found.values[name] / unit - plain.values[name]) < 1e-3 * plain.errors[name]
        without = fit_pair(*(replace(each, variance=None) for each in scaled))
        assert without.warn == bits.NOISE_ESTIMATED.value
        assert without.errors["fwhm"] == pytest.approx(plain.errors["fwhm"], rel=0.1)


@pytest.mark.slow
def test_the_psf_before_its_pixels():
    of = HST | {"fwhm": 0.3, "dx": 0.07, "dy": -0.04}
    muse, hst = star(MUSE, 0.2, 3.0, 0.05, fine=40), star(of, 0.1, 1.5, 0.05, fine=40)
    before = fit_pair(muse, hst, integrate_pixels=True)
    assert before.values["fwhm"] == pytest.approx(0.65, abs=2e-4)
    assert before.values["beta"] == pytest.approx(2.8, abs=2e-3)
    assert before.details["hst_fwhm"] == pytest.approx(0.3, abs=2e-4)
    assert before.values["scale"] == pytest.approx(0.95, abs=1e-3)
    sampled = fit_pair(muse, hst)
    assert sampled.values["fwhm"] > 0.66


@pytest.mark.slow
def test_fixed_values_and_a_prior(rng):
    pair = star(MUSE, 0.2, 2.0, 0.5, rng), star(HST, 0.05, 0.8, 0.5, rng)
    free = fit_pair(*pair)
    fixed = fit_pair(*pair, fix_fwhm=0.65, fix_beta=2.8)
    assert fixed.values["fwhm"] == 0.65
    assert fixed.errors["beta"] == 0
    assert fixed.covariance_names == ("scale", "bg", "dx", "dy")
    assert fixed.errors["scale"] < free.errors["scale"]
    assert free.details["hst_fwhm"] == pytest.approx(fixed.details["hst_fwhm"])  # the HST image's own stays free
    prior = Normal(free.values["beta"], 0.5 * free.errors["beta"])
    narrowed = fit_pair(*pair, beta_prior=prior)
    assert narrowed.values["beta"] == pytest.approx(free.values["beta"], abs=0.01)
    assert narrowed.errors["beta"] == pytest.approx(free.errors["beta"] / 5**0.5, rel=0.01)
    prior = Normal(2.5, 0.5 * free.errors["beta"])
    pulled = fit_pair(*pair, beta_prior=prior)
    assert 2.5 < pulled.values["beta"] < free.values["beta"]
    # A prior has its due weight where the noise must be estimated too
    without = fit_pair(*(replace(each, variance=None) for each in pair), beta_prior=prior)
    assert without.values["beta"] == pytest.approx(pulled.values["beta"], abs=0.2 * pulled.errors["beta"])


def covered(pairs, truth, **settings):
    """Share of fits whose 68.3 % interval holds the truth, by parameter."""
    found = fit_all(pairs, **settings)
    assert all(each.status == 0 for each in found)
    return {n: np.mean([abs(each.values[n] - v) < each.errors[n] for each in found]) for n, v in truth.items()}


@pytest.mark.parametrize("variance", ["given", "estimated"])
def test_errors_cover(variance):
    rng = np.random.default_rng(8)
    pairs = [(star(MUSE, 0.2, 2.0, 0.3, rng), star(HST, 0.1, 1.2, 0.3, rng)) for _ in range(400)]
    if variance == "estimated":
        pairs = [tuple(replace(each, variance=None) for each in pair) for pair in pairs]
    share = covered(pairs, TRUTH | {"bg": 0.05 - 0.95 * 0.02 * 4}, sampling="native")
    print(variance, {name: round(float(value), 3) for name, value in share.items()})
    assert all(0.61 < value < 0.755 for value in share.values()), share  # 3 sigma of 400 draws


def correlated(rng, shape):
    """Noise of unit variance that four neighbours share, as drizzling makes it."""
    white = rng.normal(size=(shape[0] + 1, shape[1] + 1))
    return (white[1:, 1:] + white[:-1, 1:] + white[1:, :-1] + white[:-1, :-1]) / 2


def test_errors_cover_under_correlated_noise_of_unknown_size(rng):
    y, x = (np.indices((33, 33)) - 16) * 0.2
    clean = 0.05 + 380 * 0.04 * moffat(x, y, MUSE)
    fine_y, fine_x = (np.indices((41, 41)) - 20) * 0.05
    hst = star_pixels(image(400 * 0.05**2 * moffat(fine_x, fine_y, HST), 0.05, variance=np.full((41, 41), 1e-4)), 150.0, 2.0, 0.9)
    pairs = []
    for _ in range(300):
        noisy = clean + 0.3 * correlated(rng, clean.shape)
        pairs.append((star_pixels(image(noisy, variance=np.full(clean.shape, 100.0)), 150.0, 2.0, 3.0), hst))
    share = {}
    for noise in ("scaled", "correlated"):
        found = fit_all(pairs, noise=noise)
        assert np.median([f.muse_chi2 / f.muse.values.size for f in found]) == pytest.approx(0.3**2 / 100.0, rel=0.1)
        share[noise] = {}
        for name in ("fwhm", "beta", "dx", "dy", "flux"):
            off = np.array([f.details[f"muse_{name}"] - MUSE[name] for f in found])
            share[noise][name] = float(np.mean(np.abs(off) < [f.detail_errors[f"muse_{name}"] for f in found]))
    print(share)
    assert all(value < 0.58 for value in share["scaled"].values())
    assert all(0.6 < value < 0.755 for value in share["correlated"].values())


def test_correlated_noise_needs_places():
    with pytest.raises(UsageError, match="Cut it out by star_pixels"):
        fit_pair(star(MUSE, 0.2, 3.0, 0.05), star(HST, 0.05, 1.0, 0.05), noise="correlated")


# --- images -------------------------------------------------------------------------------------------------------------


def image(values, pixel=0.2, angle=0.0, variance=None):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [(n + 1) / 2 for n in values.shape[::-1]]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = np.diag([-1.0, 1.0]) @ turn * pixel / 3600
    return Image(values, variance, celestial=wcs, name="field")


def test_masked_pixels_are_left_out(rng):
    y, x = (np.indices((41, 41)) - 20) * 0.2
    clean = 0.05 + 380 * 0.04 * moffat(x, y, MUSE)
    variance = np.full(clean.shape, 0.0025)
    whole = star_pixels(image(clean, variance=variance), 150.0, 2.0, 3.05)
    assert whole.values.size == np.count_nonzero(np.hypot(x, y) < 3.05)
    np.testing.assert_allclose([whole.x.min(), whole.y.max()], [-3.0, 3.0], atol=1e-6)
    bad = clean.copy()
    bad[20:23, 24:29] = np.nan
    variance[10, 20] = 0.0
    cut = star_pixels(image(bad, variance=variance), 150.0, 2.0, 3.05)
    assert cut.values.size == whole.values.size - 16
    assert cut.warn == bits.BAD_VARIANCE.value
    found = fit_pair(cut, star(HST, 0.05, 1.0, 0.05))
    assert found.warn == bits.BAD_VARIANCE.value | bits.CHI2_NOT_1.value
    for name, value in TRUTH.items():
        assert found.values[name] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_a_turned_image_on_pixels_of_its_own():
    """Offsets count along the axes of the MUSE image, however the other is turned."""
    y, x = (np.indices((41, 41)) - 20) * 0.2
    muse = image(0.05 + 380 * 0.04 * moffat(x, y, MUSE))
    turned = image(np.zeros((101, 101)), 0.05, angle=0.6)
    sky = turned.celestial.wcs_pix2world(*np.indices((101, 101))[::-1].reshape(2, -1), 0)
    at = [(v - 20.0) * 0.2 for v in muse.celestial.wcs_world2pix(*sky, 0)]
    turned = replace(turned, values=(0.02 + 400 * 0.0025 * moffat(*at, HST)).reshape(101, 101))
    found = fit_pair(star_pixels(muse, 150, 2, 3.0), star_pixels(turned, 150, 2, 1.0, like=muse))
    for name, value in TRUTH.items():
        assert found.values[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_stars_that_can_not_be_cut_out():
    blank = image(np.ones((41, 61)))
    with pytest.raises(UsageError, match=r"within the image field, 41 x 61 pixels \(y, x\); got RA 150.1"):
        star_pixels(blank, 150.1, 2.0, 3.0)
    with pytest.raises(UsageError, match="radius must be positive"):
        star_pixels(blank, 150.0, 2.0, 0.0)
    with pytest.raises(DataError, match="7 usable pixels or more; got 1"):
        star_pixels(blank, 150.0, 2.0, 0.15)
    with pytest.raises(DataError, match="celestial coordinates"):
        star_pixels(Image(np.ones((5, 5))), 150.0, 2.0, 3.0)
    with pytest.raises(DataError, match="usable pixels or more; got 0"):
        star_pixels(image(np.full((41, 61), np.nan)), 150.0, 2.0, 3.0)


def test_fits_that_fail_or_wander():
    good = star(HST, 0.05, 1.0, 0.05)
    flat = replace(star(MUSE, 0.2, 2.0, 0.05), values=np.ones_like(star(MUSE, 0.2, 2.0).values))
    found = fit_pair(flat, good)
    assert found.status & bits.CONSTANT_DATA.value
    assert all(math.isnan(found.values[name]) and math.isnan(found.errors[name]) for name in NAMES)
    # A galaxy of exponential profile, and a slope: no Moffat function, but no runaway either
    base = star(MUSE, 0.2, 3.0, 0.05)
    for values in (20 * np.exp(-np.hypot(base.x, base.y) / 0.8), base.x + 3.0, -base.values):
        found = fit_pair(replace(base, values=values), good)
        if found.status == 0:
            assert 1.01 <= found.values["beta"] <= 30
            assert abs(found.details["muse_dx"]) <= base.reach
            assert found.values["fwhm"] > 0
    for bad, message in (
        ({"fix_fwhm": -1.0}, "fix_fwhm"),
        ({"fix_beta": 0.9}, "fix_beta"),
        ({"fix_beta": 40.0}, "between 1.01 and 30"),
    ):
        with pytest.raises(UsageError, match=message):
            fit_pair(base, good, **bad)
    with pytest.raises(UsageError, match="as long as values"):
        replace(base, x=base.x[1:])
    with pytest.raises(DataError, match="variance must be positive"):
        replace(base, variance=np.zeros_like(base.values))


def test_profile_of_a_filtered_star():
    fwhm, beta, pixel = 0.085, 1.6, 0.2
    table, spacing = filtered_profile(fwhm, beta, pixel, 512)
    assert spacing == pixel / PER_PIXEL
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))

    def power(f):
        z = 2 * math.pi * f * alpha
        mtf = 2 * (z / 2) ** (beta - 1) * special.kv(beta - 1, z) / special.gamma(beta - 1) if z else 1.0
        f = f * 2 * pixel
        return mtf * (0.42 + 0.5 * math.cos(math.pi * f) + 0.08 * math.cos(2 * math.pi * f))

    for i in (0, 17, 60, 300):
        r = i * spacing
        wanted = integrate.quad(lambda f, r=r: 2 * math.pi * f * special.j0(2 * math.pi * f * r) * power(f), 0, 2.5, limit=200)[0]
        assert table[0, i] == pytest.approx(wanted, abs=1e-7 * table[0, 0])
    np.testing.assert_allclose(np.gradient(table[0])[1:-1], table[1, 1:-1], atol=2e-3 * np.abs(table[1]).max())


# --- reference data -----------------------------------------------------------------------------------------------------


def read(*parts):
    with fits.open(reference_data("image_photometry", *parts)) as hdus:
        values = hdus["DATA"].data.astype(float)
        if "DQ" in hdus:
            values[hdus["DQ"].data != 0] = np.nan
        variance = hdus["STAT"].data.astype(float) if "STAT" in hdus else None
        return Image(values, variance, celestial=WCS(hdus["DATA"].header))


def stored(*parts):
    return json.loads(reference_data("image_photometry", *parts).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hdfs_starA", "hdfs_starA_beta2.5", "hdfs_starB", "hdfs_starB_beta2.5"])
def test_stored_results_of_the_muse_side(name):
    """The older tool's fit of the MUSE image is sound; errors from residuals there."""
    run = stored("real_fits.json")[name]
    kwargs = dict(run["kwargs"])
    place = kwargs.pop("star")
    muse = replace(read("hdfs", run["muse"]), variance=None)
    found = fit_pair(star_pixels(muse, *place), star_pixels(read("hdfs", run["hst"]), *place), **kwargs)
    for key in ("fwhm", "beta", "dx", "dy", "bg", "flux"):
        theirs = run[f"muse_{key}"]
        # Their coordinates are rounded to a ten-thousandth of a pixel or so
        assert abs(found.details[f"muse_{key}"] - theirs["value"]) <= 2e-3 * theirs["stdev"] + 1e-9
        assert found.detail_errors[f"muse_{key}"] == pytest.approx(theirs["stdev"], rel=1e-3)
    assert found.rms == pytest.approx(run["rms_error"], rel=1e-4)


TRUE = {
    "S1": {"scale": 0.95, "bg": 0.05, "dx": 0.12, "dy": -0.23, "fwhm": 0.65, "beta": 2.8},
    "S2": {"scale": 1.1, "bg": -0.03, "dx": -0.45, "dy": 0.31, "fwhm": 0.45, "beta": 2.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["S1", "S2"])
def test_scale_of_a_regridded_star(case):
    """A Moffat function can't follow the wings of a filtered star, the filtered profile can."""
    place = stored("synth", "synth_star_fits.json")[f"{case}_star"]["kwargs"]["star"]
    muse = star_pixels(read("synth", f"star_{case}_noiseless.fits"), *place)
    hst = star_pixels(read("synth", "star_hst_on_muse.fits"), *place)
    truth = TRUE[case]
    filtered, plain = fit_pair(muse, hst), fit_pair(muse, hst, sampling="native")
    print(case, "scale", truth["scale"], filtered.values["scale"], plain.values["scale"])
    assert filtered.values["scale"] == pytest.approx(truth["scale"], rel=1e-3)
    assert filtered.values["bg"] == pytest.approx(truth["bg"], abs=1e-3)
    assert 1.03 < plain.values["scale"] / truth["scale"] < 1.08
    for name in ("fwhm", "beta"):
        assert filtered.values[name] == pytest.approx(truth[name], rel=1e-4)


def test_scale_of_a_native_star():
    """A star of flux 80 in the scene, alone enough, on pixels of 0.05 arcsec."""
    muse, hst = read("synth", "S1_noiseless.fits"), read("synth", "hst_native.fits")
    place = [float(v) for v in muse.celestial.wcs_pix2world(117.75, 66.375, 0)]
    found = fit_pair(star_pixels(muse, *place, 2.0), star_pixels(hst, *place, 0.8, like=muse))
    print({name: round(found.values[name], 5) for name in NAMES})
    assert found.values["scale"] == pytest.approx(0.95, rel=1e-3)
    assert found.details["hst_flux"] == pytest.approx(80, rel=1e-3)
    assert found.details["hst_fwhm"] == pytest.approx(0.085, rel=5e-3)
    for name in ("dx", "dy", "fwhm"):
        assert found.values[name] == pytest.approx(TRUE["S1"][name], abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["S1", "S2"])
def test_coverage_of_the_reference_stars(case):
    place = stored("synth", "synth_star_fits.json")[f"{case}_star"]["kwargs"]["star"]
    clean = read("synth", f"star_{case}_noiseless.fits")
    hst = star_pixels(read("synth", "star_hst_on_muse.fits"), *place)
    pairs = []
    for i in range(1000):
        noise = np.random.default_rng(2000 + i).normal(0, 0.05, clean.shape)
        pairs.append((star_pixels(replace(clean, values=clean.values + noise), *place), hst))
    share = covered(pairs, TRUE[case])
    print(case, {name: round(float(value), 3) for name, value in share.items()})
    assert all(0.63 < value < 0.73 for value in share.values()), share


def test_backgrounds_of_pixels_of_two_sizes_are_compared_as_the_image_fit_does():
    """A sky of HST, per pixel of its own: both methods say how much less of it MUSE has."""
    pair = small_pair()
    hst = replace(pair.hst, values=pair.hst.values + 0.05)
    place = (*star_position(), 1.6)
    of_star = ifujax.fit_star_photometry(hst, pair.muse, place)
    of_image = ifujax.fit_image_photometry(hst, pair.muse)
    assert of_image.bg.value == pytest.approx(0.05 - 0.9 * 0.05 * 16, abs=5 * of_image.bg.error)
    assert of_star.bg.value == pytest.approx(of_image.bg.value, abs=5 * of_star.bg.error)


def test_sampling_says_what_hst_is():
    muse, hst = star(MUSE, 0.2, 3.0, 0.05), star({**HST, "fwhm": 0.6}, 0.19, 1.6, 0.05)
    assert fit_pair(muse, hst).detail_errors["hst_fwhm"] == 0.0  # a known PSF, low-passed
    assert fit_pair(muse, hst, sampling="native").details["hst_fwhm"] == pytest.approx(0.6, abs=1e-3)
    with pytest.raises(UsageError, match="round MoffatPSF without a pixel"):
        fit_pair(muse, hst, hst_psf=ifujax.MoffatPSF(0.085, 1.6, pixel=0.03))


def test_several_hst_images_and_options_of_other_fits():
    pair = small_pair()
    place = (*star_position(), 1.6)
    found = ifujax.fit_star_photometry([pair.hst, pair.hst], [pair.muse, pair.muse], place, integrate_pixels=True)
    assert len(found) == 2
    assert found[0].fwhm.value == found[1].fwhm.value
    assert found[0].hst_psf.pixel == pytest.approx(0.05)
    assert found[0].psf.pixel == pytest.approx(0.2)
    with pytest.raises(UsageError, match="option of a star fit"):
        ifujax.fit_star_photometry(pair.hst, pair.muse, place, margin=3.0)


def test_variances_of_muse_that_are_wrong_are_told_of():
    """HST, whose noise is estimated, does not hide it."""
    pair = small_pair()
    wrong = replace(pair.muse, variance=pair.muse.variance * 100)
    found = ifujax.fit_star_photometry(replace(pair.hst, variance=None), wrong, (*star_position(), 1.6))
    assert found.warn & bits.CHI2_NOT_1.value
    assert "no variance of HST given" in found.reason
    mended = ifujax.fit_star_photometry(pair.hst, wrong, (*star_position(), 1.6), noise="scaled")
    assert not mended.warn & bits.CHI2_NOT_1.value
