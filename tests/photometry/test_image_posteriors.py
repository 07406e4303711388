"""Posteriors of image fits against the errors of the fit, where the two must agree, and where they must not."""

from __future__ import annotations

import numpy as np
import pytest

import ifujax
from ifujax.errors import UsageError
from ifujax.images.regrid import regrid_like
from tests.photometry.scenes import NAMES, pair


@pytest.mark.slow
def test_bright_scene_is_gaussian() -> None:
    fit = ifujax.fit_image_photometry(pair(seed=3).hst, pair(seed=3).muse)
    draws = fit.sample(draws=1000, seed=1)
    assert draws["status"] == 0
    assert draws["khat"] < 0.7
    for name in NAMES:
        value, error = fit.value(name).value, fit.value(name).error
        assert draws[name].shape == (4, 250)
        assert abs(draws[name].mean() - value) < 0.2 * error
        assert draws[name].std() == pytest.approx(error, rel=0.1)
    where = [fit.covariance_names.index(name) for name in ("fwhm", "beta")]
    size = np.sqrt(np.diag(fit.covariance))
    expected = fit.covariance[where[0], where[1]] / size[where[0]] / size[where[1]]
    found = np.corrcoef(draws["fwhm"].ravel(), draws["beta"].ravel())[0, 1]
    assert found == pytest.approx(expected, abs=0.1)
    again = fit.sample(draws=1000, seed=1)
    np.testing.assert_array_equal(again["fwhm"], draws["fwhm"])


@pytest.mark.slow
def test_what_the_data_do_not_know_is_the_prior() -> None:
    """A scene so faint that beta is not constrained: its posterior is its prior.

    The scale is held: a flat prior of it would favour wide images of point sources, whose scale is known worst.
    """
    faint = pair(scale=0.01, seed=5)
    fit = ifujax.fit_image_photometry(faint.hst, faint.muse, fix_scale=0.001)
    draws = fit.sample(draws=1000)
    prior = np.random.default_rng(0).normal(2.8, 1.0, 20000)
    prior = prior[prior > 1.01]
    assert draws["beta"].mean() == pytest.approx(prior.mean(), abs=0.25)
    assert draws["beta"].std() == pytest.approx(prior.std(), rel=0.2)


def test_fits_without_a_likelihood() -> None:
    regridded = regrid_like(pair().hst, pair().muse)
    fixed = {"fix_fwhm": 0.65, "fix_beta": 2.8, "fix_dx": 0.12, "fix_dy": -0.23}
    fit = ifujax.fit_image_photometry(regridded, pair().muse, method="fourier", **fixed)
    with pytest.raises(UsageError, match="method 'forward'"):
        fit.sample()


def test_only_scale_and_background_are_free() -> None:
    """Nothing is left to sample but a Gaussian."""
    held = {"fix_dx": 0.12, "fix_dy": -0.23, "fix_fwhm": 0.65, "fix_beta": 2.8}
    fit = ifujax.fit_image_photometry(pair(seed=3).hst, pair(seed=3).muse, **held)
    draws = fit.sample(draws=4000, seed=2)
    for name in ("scale", "bg"):
        assert draws[name].shape == (4, 1000)
        assert abs(draws[name].mean() - fit.value(name).value) < 0.1 * fit.value(name).error
        assert draws[name].std() == pytest.approx(fit.value(name).error, rel=0.05)
    assert (draws["fwhm"] == 0.65).all()
    one = ifujax.fit_image_photometry(pair(seed=3).hst, pair(seed=3).muse, **held, fix_scale=0.95).sample(draws=400)
    assert (one["scale"] == 0.95).all()
    assert draws["status"] == 0


def test_a_scale_held_at_its_limit_has_no_draws() -> None:
    fit = ifujax.fit_image_photometry(pair(seed=3).hst, pair(seed=3).muse, min_scale=2.0)
    with pytest.raises(UsageError, match="held at min_scale 2"):
        fit.sample()
