"""Whether an image shows the scene: noise has no pointing, and says so; what is there is seen. Truths by numpy alone."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage, stats

import ifujax
from ifujax.errors import IfujaxWarning
from ifujax.images.regrid import regrid_like
from ifujax.inference.status import NO_DETECTION
from ifujax.photometry.detection import Search, gain_of, search_of
from tests.photometry.point_scenes import SIGMA, TRUTH, Points, drizzled, hst_image, muse_image, muse_signal, scene

LOST = ("dx", "dy", "fwhm", "beta")


@lru_cache
def hst() -> ifujax.Image:
    return hst_image(scene())


def faint(share: float) -> np.ndarray:
    return TRUTH["bg"] + share * (muse_signal(scene()) - TRUTH["bg"])


def test_trials_of_a_search() -> None:
    """The chance that the maximum of smooth noise exceeds a level, against 2000 drawn fields."""
    rng, width, n = np.random.default_rng(2), 3.0, 64
    highest = []
    for _ in range(2000):
        field = ndimage.gaussian_filter(rng.normal(size=(n, n)), width, mode="wrap")
        highest.append(field.max() * 2.0 * width * np.sqrt(np.pi))  # of variance 1
    f = np.fft.fftfreq(n)
    # What the field is blurred by is the template: its power
    power = np.exp(-4.0 * np.pi**2 * width**2 * (f[:, None] ** 2 + f[None] ** 2))
    search = search_of(power, f, f, (n, n), (1e-3, 1e-3), widths=False)
    blur = 0.7 / 2.3548  # that search_of adds
    grown = np.sqrt(width**2 / (width**2 + blur**2))
    # A constant is fitted as well: the mean, a part of 36 of the power, is no part of the template
    assert search.sizes[2] == pytest.approx(n**2 / (2.0 * width**2) * grown**2 * 37.2 / 36.2, rel=0.01)
    for level in (3.5, 4.0):
        chance = float(stats.norm.sf(search.significance(level)))
        seen = float(np.mean(np.array(highest) > level))
        assert seen == pytest.approx(chance, rel=0.35)
    assert Search((1.0, 0.0, 0.0, 0.0)).significance(4.0) == pytest.approx(4.0)
    assert 49.0 < search.significance(50.0) < 50.0


def test_one_pixel_is_no_source() -> None:
    before, after = np.zeros((9, 9)), np.zeros((9, 9))
    before[4, 4] = 50.0
    assert gain_of(before, after) == 0.0
    before[4, 5] = before[5, 4] = 50.0
    assert gain_of(before, after) == pytest.approx(7500.0)


def test_noise_has_no_pointing() -> None:
    found = ifujax.fit_image_photometry(hst(), [muse_image(np.full((48, 48), 0.05), seed) for seed in range(40)])
    assert sum(fit.warn & NO_DETECTION.value == 0 for fit in found) <= 2
    assert np.std([fit.dx.value for fit in found]) > 0.8  # that of all shifts that are looked for
    fit = found[0]
    assert fit.status == 0
    assert fit.significance < 3.0
    for name in LOST:
        assert np.isnan(fit.value(name).error)
        assert not fit.value(name).fixed
    assert fit.bg.value == pytest.approx(0.05, abs=5 * fit.bg.error)
    assert fit.scale.error > 0
    assert np.isnan(fit.dra.error)
    assert "nothing is detected" in fit.reason
    assert "nan" in fit.fit_report()
    with pytest.warns(IfujaxWarning, match="nothing is detected"):
        fit.corrected(corrections="xy")
    assert len(fit.plot().axes) >= 3


def test_a_scene_is_seen() -> None:
    found = ifujax.fit_image_photometry(hst(), [muse_image(faint(0.03), seed) for seed in range(20)])
    assert [fit.warn & NO_DETECTION.value for fit in found] == [0] * 20
    for fit in found:
        assert abs(fit.dx.value - TRUTH["dx"]) < 5 * fit.dx.error
        assert fit.significance > 5.0


def test_a_bad_pixel_is_no_detection() -> None:
    signal = np.full((48, 48), 0.05)
    signal[20, 30] += 40 * SIGMA
    found = ifujax.fit_image_photometry(hst(), [muse_image(signal, seed) for seed in range(5)])
    assert all(fit.warn & NO_DETECTION.value for fit in found)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["variance", "scaled", "correlated"])
@pytest.mark.parametrize("kind", ["independent", "drizzled"])
def test_misses_and_false_alarms(noise: str, kind: str) -> None:
    """Noise that passes for a scene: at most 5 % (0.1 % is meant). A scene that is taken for noise: at most 2 %."""

    def images(signal: np.ndarray, seeds: range) -> list[ifujax.Image]:
        made = {"independent": lambda rng: rng.normal(size=signal.shape), "drizzled": lambda rng: drizzled(rng, signal.shape)}
        return [muse_image(signal, seed, noise=made[kind](np.random.default_rng(seed))) for seed in seeds]

    nothing = ifujax.fit_image_photometry(hst(), images(np.full((48, 48), 0.05), range(100)), noise=noise)
    there = ifujax.fit_image_photometry(hst(), images(faint(0.06), range(100, 200)), noise=noise)
    missed = sum(not fit.warn & NO_DETECTION.value for fit in nothing)
    alarms = sum(bool(fit.warn & NO_DETECTION.value) for fit in there)
    print(f"{noise:11} {kind:11} {missed} of 100 images of noise detected, {alarms} of 100 scenes not")
    assert missed <= 2
    assert alarms <= 2


def test_stars() -> None:
    """A star alone in both images; the same place without one in MUSE, and in HST."""
    star = Points(np.array([0.1]), np.array([-0.05]), np.array([60.0]))
    place = (53.1, -27.8, 1.6)
    other = hst_image(star, size=6.0)
    noisy = replace(other, values=other.values + np.random.default_rng(1).normal(0, 0.01, other.shape))
    empty = replace(noisy, values=np.random.default_rng(2).normal(0, 0.01, other.shape))
    signal, nothing = muse_signal(star), np.full((48, 48), 0.05)
    seen = ifujax.fit_star_photometry(noisy, [muse_image(signal, seed) for seed in range(10)], place)
    assert not any(fit.warn & NO_DETECTION.value for fit in seen)
    unseen = ifujax.fit_star_photometry(noisy, [muse_image(nothing, seed) for seed in range(20)], place)
    assert sum(bool(fit.warn & NO_DETECTION.value) for fit in unseen) >= 19
    first = next(fit for fit in unseen if fit.warn & NO_DETECTION.value)
    assert np.isnan([first.value(name).error for name in LOST]).all()
    assert first.scale.error > 0
    assert np.isnan(first.detail("muse_dx").error)
    assert np.isfinite(first.detail("hst_dx").error)
    without = ifujax.fit_star_photometry(empty, muse_image(signal, 1), place)
    assert without.warn & NO_DETECTION.value
    assert np.isnan(without.scale.error)


def test_fourier_fits() -> None:
    muse = muse_image(muse_signal(scene()), 1)
    other = regrid_like(hst(), muse)
    fit = ifujax.fit_image_photometry(other, muse, method="fourier")
    assert not fit.warn & NO_DETECTION.value
    nothing = [muse_image(np.full((48, 48), 0.05), seed) for seed in range(8)]
    found = ifujax.fit_image_photometry(other, nothing, method="fourier")
    good = [each for each in found if not each.status]
    assert len(good) >= 6
    assert sum(bool(each.warn & NO_DETECTION.value) for each in good) >= len(good) - 1
    assert all(np.isnan(each.dx.error) for each in good if each.warn & NO_DETECTION.value)


@pytest.mark.slow
def test_joint_fits() -> None:
    """An exposure without the scene has no shift, and leaves that of the others alone; if none has the scene, nothing has."""
    nothing = muse_image(np.full((48, 48), 0.05), 3)
    mixed = ifujax.fit_joint_photometry(hst(), [muse_image(muse_signal(scene()), 1), nothing], [6000.0, 6000.0])
    assert [bool(image.warn & NO_DETECTION.value) for image in mixed.images] == [False, True]
    assert not mixed.warn & NO_DETECTION.value
    assert np.isnan(mixed.images[1].dx.error)
    assert mixed.images[1].fwhm.error == mixed.fwhm.error
    assert mixed.fwhm.value == pytest.approx(TRUTH["fwhm"], abs=4 * mixed.fwhm.error)
    none = ifujax.fit_joint_photometry(hst(), [nothing, muse_image(np.full((48, 48), 0.05), 4)], [6000.0, 6000.0])
    assert none.warn & NO_DETECTION.value
    assert np.isnan(none.fwhm.error)
    assert "nan" in none.fit_report()
