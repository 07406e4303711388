"""Fits with Student's t: what outliers do to values, and whether errors are right. Truths by numpy alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

import ifujax
from ifujax.errors import UsageError
from ifujax.inference.status import CHI2_NOT_1, STRUCTURED_RESIDUALS
from tests.photometry.point_scenes import TRUTH, Points, drizzled, hst_image, muse_image, muse_signal, scene


@lru_cache
def hst() -> ifujax.Image:
    return hst_image(scene())


@lru_cache
def right() -> np.ndarray:
    return muse_signal(scene())


def moved() -> np.ndarray:
    points = scene()
    x = points.x.copy()
    x[0] += 0.25
    return muse_signal(Points(x, points.y, points.flux))


def pulls(found: list[ifujax.ImagePhotometry]) -> np.ndarray:
    return np.array([[(fit.value(name).value - value) / fit.value(name).error for name, value in TRUTH.items()] for fit in found])


def test_a_star_that_moved_hardly_pulls() -> None:
    images = [muse_image(moved(), seed) for seed in range(8)]
    plain, robust = (ifujax.fit_image_photometry(hst(), images, loss=loss) for loss in ("gaussian", "student_t"))
    off = [np.median(pulls(found), axis=0) for found in (plain, robust)]
    assert off[0][2] > 20.0
    assert np.abs(off[1]).max() < 2.5
    for fit in robust:
        assert fit.warn & STRUCTURED_RESIDUALS.value  # it is still said where
        assert not fit.warn & CHI2_NOT_1.value
        assert fit.reduced_chi2 == pytest.approx(np.nansum((fit.residual.values / 0.05) ** 2) / (fit.n_good - fit.n_free))


def test_without_outliers_little_is_lost() -> None:
    images = [muse_image(right(), seed) for seed in range(8)]
    plain, robust = (ifujax.fit_image_photometry(hst(), images, loss=loss) for loss in ("gaussian", "student_t"))
    for one, two in zip(plain, robust):
        assert two.warn == 0
        for name in TRUTH:
            assert two.value(name).value == pytest.approx(one.value(name).value, abs=1.5 * one.value(name).error)
            # Student's t with 4 degrees of freedom has 92 % of the information of normal noise
            assert 0.95 < two.value(name).error / one.value(name).error < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["variance", "scaled", "correlated"])
def test_errors_cover_with_outliers(noise: str) -> None:
    """One pixel in fifty is off by up to thirty sigma, of either sign: 68 % intervals hold the truth as often as they should."""
    images = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        drawn = drizzled(rng, (48, 48)) if noise == "correlated" else rng.normal(size=(48, 48))
        bad = rng.random((48, 48)) < 0.02
        images.append(muse_image(right(), seed, noise=np.where(bad, rng.uniform(-30.0, 30.0, (48, 48)), drawn)))
    found = ifujax.fit_image_photometry(hst(), images, noise=noise, loss="student_t")
    size = np.abs(pulls(found))
    inside = (size < 1.0).mean(axis=0)
    plain = ifujax.fit_image_photometry(hst(), images[:40], noise=noise)
    wider = [np.median([fit.value(name).error for fit in some]) for name in ("dx",) for some in (plain, found)]
    print(f"{noise:11} coverage {dict(zip(TRUTH, inside.round(2)))}, error of dx {wider[0]:.2g} without, {wider[1]:.2g} with it")
    assert np.abs(inside.mean() - 0.683) < 0.04
    assert np.abs(inside - 0.683).max() < 0.15
    if noise == "scaled":
        # Outliers are in the scale of all errors without it
        assert wider[1] < 0.6 * wider[0]


def test_where_it_is_not_taken() -> None:
    muse = muse_image(right(), 1)
    with pytest.raises(UsageError, match="loss must be one of gaussian, student_t"):
        ifujax.PhotometryOptions(loss="huber")
    with pytest.raises(UsageError, match="loss must be left out with method 'fourier'"):
        ifujax.PhotometryOptions(loss="student_t", method="fourier")
    with pytest.raises(UsageError, match="sample needs loss 'gaussian'"):
        ifujax.fit_image_photometry(hst(), muse, loss="student_t").sample()
    with pytest.raises(UsageError, match="loss must be left out in a joint fit"):
        ifujax.fit_joint_photometry(hst(), [muse, muse], [5000.0, 6000.0], loss="student_t")
