"""What image fits say against themselves: a chi2 that is not that of noise, residuals with structure, and where.

Truths are made by numpy and astropy alone: `point_scenes`.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage, stats

import ifujax
from ifujax.inference.goodness import chi2_window
from ifujax.inference.status import CHI2_NOT_1, CORRELATED_NOISE, STRUCTURED_RESIDUALS
from ifujax.photometry.goodness import chi2_is_off, judge
from tests.photometry.point_scenes import TRUTH, Points, drizzled, hst_image, moffat, muse_image, muse_signal, scene

SHAPE = (160, 160)
NOISES = ("variance", "scaled", "correlated")


@lru_cache
def hst() -> ifujax.Image:
    return hst_image(scene())


def with_star(dx: float = 0.0, factor: float = 1.0, **changes: float) -> np.ndarray:
    """The scene whose brightest star has moved, or has another flux."""
    points = scene()
    x, flux = points.x.copy(), points.flux.copy()
    x[0] += dx
    flux[0] *= factor
    return muse_signal(Points(x, points.y, flux), **changes)


def fits(signal: np.ndarray, seeds: range, **options) -> list[ifujax.ImagePhotometry]:
    return ifujax.fit_image_photometry(hst(), [muse_image(signal, seed) for seed in seeds], **options)


def pulls(fit: ifujax.ImagePhotometry) -> np.ndarray:
    return np.array([(fit.value(name).value - value) / fit.value(name).error for name, value in TRUTH.items()])


def test_window_is_that_of_chi2() -> None:
    """Its ends, but for the allowance, have the chance of 4 sigma on either side, exactly by the gamma function."""
    for dof in (30, 300, 25600):
        low, high = chi2_window(dof, sigmas=4.0, allowance=0.1)
        chances = stats.chi2.cdf(low / 0.9 * dof, dof), stats.chi2.sf(high / 1.1 * dof, dof)
        assert all(1.5e-5 < chance < 6e-5 for chance in chances)
    assert chi2_is_off(1.24 * 25600, 25600)
    assert not chi2_is_off(1.24 * 25600, 25600, spread=100.0)
    assert not chi2_is_off(1.07 * 25600, 25600)
    assert not chi2_is_off(1.8 * 40, 40)


@pytest.mark.parametrize("kind", ["independent", "drizzled"])
def test_noise_is_noise(kind: str) -> None:
    """Of a few hundred images of noise around a right model, at most two in a hundred say anything."""
    rng = np.random.default_rng(3)
    y, x = np.indices((60, 60))
    model = 10.0 * moffat((x - 30.0) ** 2 + (y - 25.0) ** 2, 4.0, 2.8)
    used = np.hypot(x - 29.5, y - 29.5) < 29.0
    said: Counter[int] = Counter()
    for _ in range(300):
        noise = rng.normal(size=(60, 60)) if kind == "independent" else drizzled(rng, (60, 60))
        found = judge(noise, used, model, (0.2, 0.2), n_free=6, stated=True, allowed=kind == "drizzled")
        said[found.warn] += 1
        assert found.misfit is not None
        assert found.misfit.share > found.misfit.expected
    assert said[0] >= 294


def test_misfit_is_found_where_it_is() -> None:
    noise = np.random.default_rng(5).normal(size=SHAPE)
    used = np.ones(SHAPE, bool)
    used[:, 40:60] = False
    noise[100:103, 70:72] += 6.0
    found = judge(noise, used, np.zeros(SHAPE), (0.2, 0.25), n_free=2, stated=True)
    assert found.warn == STRUCTURED_RESIDUALS.value
    assert found.misfit is not None
    assert (found.misfit.x, found.misfit.y) == pytest.approx((70.5, 101.0), abs=0.3)
    own = np.s_[99:104, 69:73]
    assert found.misfit.share == pytest.approx(np.sum(noise[own] ** 2) / np.sum(noise[used] ** 2), rel=0.05)
    assert found.misfit.expected == pytest.approx(20 / used.sum())


def test_misfit_spread_over_sources() -> None:
    """A tenth more noise in every bright pixel is within what variances may be wrong by; twice as much variance is not."""
    rng = np.random.default_rng(6)
    model = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0) ** 2
    bright = model > np.quantile(model, 0.9)
    for factor, expected in ((1.04, 0), (2.0, STRUCTURED_RESIDUALS.value)):
        noise = rng.normal(size=SHAPE) * np.where(bright, np.sqrt(factor), 1.0)
        assert judge(noise, np.ones(SHAPE, bool), model, (0.2, 0.2), n_free=6, stated=True).warn & ~CHI2_NOT_1.value == expected


def test_correlated_noise_is_told_where_errors_do_not_know() -> None:
    signal = muse_signal(scene())
    images = [muse_image(signal, seed, noise=drizzled(np.random.default_rng(seed), signal.shape)) for seed in range(6)]
    for noise in NOISES:
        found = ifujax.fit_image_photometry(hst(), images, noise=noise)
        assert {fit.warn for fit in found} == {0 if noise == "correlated" else CORRELATED_NOISE.value}


@pytest.mark.parametrize("noise", NOISES)
def test_moved_star(noise: str) -> None:
    """A star that moved by 0.25 arcsec pulls the shift off by many errors, and is named in every noise mode."""
    found = fits(with_star(dx=0.25), range(6), noise=noise)
    assert np.median([pulls(fit)[2] for fit in found]) > 10.0
    for fit in found:
        assert fit.warn & STRUCTURED_RESIDUALS.value
        assert bool(fit.warn & CHI2_NOT_1.value) == (noise == "variance")
        # The star lies at -1.5 + 0.12 arcsec, 1.3 - 0.23 from the middle, and to 0.25 to the right of that
        assert fit.misfit is not None
        assert fit.misfit.x == pytest.approx(23.5 + (-1.38 + 0.15) / 0.2, abs=1.5)
        assert fit.misfit.y == pytest.approx(23.5 + 1.07 / 0.2, abs=1.5)
        assert fit.misfit.share > 0.3
        assert fit.misfit.expected == pytest.approx(25 / 2304)
        ra, dec = fit.misfit_sky
        assert ra == pytest.approx(53.1 - (fit.misfit.x - 23.5) * 0.2 / 3600 / np.cos(np.deg2rad(27.8)), abs=1e-6)
        assert dec == pytest.approx(-27.8 + (fit.misfit.y - 23.5) * 0.2 / 3600, abs=1e-6)
        assert f"square arcsecond about x {fit.misfit.x:.1f}, y {fit.misfit.y:.1f}, RA 53.1" in fit.reason
        assert "worst square arcsecond" in fit.fit_report()
    table = ifujax.photometry_table(found)
    assert np.all(table["misfit_share"] > 0.3)
    assert found[0].as_dict()["misfit"]["x"] == found[0].misfit.x
    marked = found[0].plot().axes[2]
    assert len(marked.patches) == 1
    assert not fits(with_star(), range(1), noise=noise)[0].plot().axes[2].patches


def moved_points(turn: float) -> Points:
    points, angle = scene(), np.deg2rad(turn)
    x = points.x * np.cos(angle) - points.y * np.sin(angle)
    return Points(x, points.x * np.sin(angle) + points.y * np.cos(angle), points.flux)


def misfits() -> dict[str, np.ndarray]:
    points, right = scene(), with_star()
    y, x = np.indices(right.shape)
    stars, rest = (Points(points.x[s], points.y[s], points.flux[s]) for s in (np.s_[:6], np.s_[6:]))
    return {
        "a star that moved": with_star(dx=0.25),
        "a star that moved a little": with_star(dx=0.05),
        "a variable star": with_star(factor=1.3),
        "a new source": muse_signal(Points(np.append(points.x, 2.0), np.append(points.y, -2.0), np.append(points.flux, 20.0))),
        "a slope of the background": right + 0.1 * (x - 24) / 24,
        "a saturated star": np.minimum(right, 0.6 * right.max()),
        "a trail": right + np.where(np.abs(y - x - 5) < 1, 0.3, 0.0),
        "a rotation": muse_signal(moved_points(2.0)),
        "two PSFs": muse_signal(stars, fwhm=0.8) + muse_signal(rest, bg=0.0),
        "variances a third too small": right,
    }


@pytest.mark.slow
def test_flags_of_ten_misfits_and_of_none() -> None:
    """Misses at most 5 % of fits that are more than 3 errors off, false alarms at most 2 %, in each noise mode."""
    for noise in NOISES:
        off = missed = 0
        for name, signal in misfits().items():
            size = 1.15 if name == "variances a third too small" else 1.0
            drawn = [size * np.random.default_rng(seed).normal(size=signal.shape) for seed in range(10)]
            images = [muse_image(signal, seed, noise=each) for seed, each in enumerate(drawn)]
            for fit in ifujax.fit_image_photometry(hst(), images, noise=noise):
                far = bool(np.abs(pulls(fit)).max() > 3.0)
                off, missed = off + far, missed + (far and not fit.warn)
        right = fits(with_star(), range(100, 200), noise=noise)
        alarms = sum(fit.warn != 0 for fit in right)
        print(f"{noise:11} {off} fits off, {missed} missed; {alarms} false alarms of {len(right)}")
        assert off > 30
        assert missed <= 0.05 * off
        assert alarms <= 0.02 * len(right)
