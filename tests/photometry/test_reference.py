"""The transform of HST: alignment, pixel scales, rotation, coverage, and what regridding leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ifujax.errors import DataError, UsageError
from ifujax.images.regrid import regrid_like
from ifujax.models.psf import MoffatPSF
from ifujax.photometry.forward.reference import Grid, aliases, blackman_window, blurred, good_size, low_pass, transform_hst
from ifujax.simulate import random_scene, simulate_hst
from tests.photometry.scenes import pair

HST_PSF = MoffatPSF(0.085, 1.6)


def seen(pairing, hst=None, **options) -> np.ndarray:
    """The HST image as MUSE pixels show it through a PSF of 0.7 arcsec, aliases left out."""
    transform = transform_hst(pairing.hst if hst is None else hst, pairing.muse, HST_PSF, **options)
    return transform.grid.cut(blurred(transform, 0.9, 3.0))


def test_sizes() -> None:
    for n in (20, 33, 64, 200, 321, 1000):
        size = good_size(n)
        assert n <= size <= 1.16 * n + 14
        assert size % 2 == 0
        for prime in (2, 3, 5):
            while size % prime == 0:
                size //= prime
        assert size == 1


def test_aliases_are_one_frequency_to_the_pixels() -> None:
    fy, fx = aliases((24, 32), (0.2, 0.25), 2)
    x, y = np.arange(32) * 0.25, np.arange(24) * 0.2
    for frequencies, at in ((fx, x), (fy, y)):
        waves = np.exp(2j * np.pi * frequencies[..., None] * at)
        np.testing.assert_allclose(waves[0], waves[1], atol=1e-10)
    assert np.abs(fx[1]).min() > 0.999 * np.abs(fx[0]).max()


def test_native_pixels_of_any_size_and_angle_agree() -> None:
    """0.05 arcsec falls on the MUSE pixels, 0.04 and a rotated image are interpolated: the scene is the same."""
    expected = seen(pair())
    for pixel, angle in ((0.04, 0.0), (0.05, 25.0)):
        size = int(19.0 / pixel) // 2 * 2
        scene = random_scene(5, size_arcsec=18.0, n_galaxies=14, n_stars=4)
        hst = simulate_hst(scene, (size, size), pixel, angle=angle)
        found = seen(pair(), hst)
        assert np.abs(found - expected).max() < 3e-3 * expected.max()


def test_flux_is_per_muse_pixel() -> None:
    uniform = replace(pair().hst, values=np.full(pair().hst.shape, 2.0))
    np.testing.assert_allclose(seen(pair(), uniform), 2.0 * 16.0, rtol=1e-5)


def test_rotation_turns_about_the_centre() -> None:
    hst, turned = seen(pair()), seen(pair(), rotation=90.0)
    # +x goes to +y: columns become rows
    np.testing.assert_allclose(turned, np.rot90(hst, -1), atol=5e-3 * hst.max())


def test_regridded() -> None:
    """Divided by the window of regridding, and low-passed: what is left is the scene below the low-pass."""
    grid_hst = regrid_like(pair().hst, pair().muse)
    transform = transform_hst(grid_hst, pair().muse, HST_PSF)
    native = transform_hst(pair().hst, pair().muse, HST_PSF)
    assert transform.transform.shape[:2] == (1, 1)
    assert transform.window is not None
    fy, fx = native.frequencies
    window = low_pass(fy[:1], fx[:1], native.grid.step)[0, 0]
    np.testing.assert_array_equal(transform.window, window)
    smooth = native.transform[0, 0] * window
    inner = transform.grid.cut(transform.covered)
    back = [transform.grid.cut(np.fft.irfft2(each, s=native.grid.shape)) for each in (smooth, transform.transform[0, 0])]
    # Far from the edges, where the regridded image ends
    middle = slice(16, -16)
    assert np.abs(back[0] - back[1])[middle, middle].max() < 0.02 * np.abs(back[0]).max()
    assert not inner[:4].any()
    assert inner[6:-6, 6:-6].all()


def test_window_is_that_of_the_regridding_code() -> None:
    fy, fx = aliases((32, 32), (0.2, 0.2), 1)
    window = blackman_window(fy, fx, (0.2, 0.2))[0, 0]
    assert window[0, 0] == pytest.approx(1.0)
    assert window[16, 0] == pytest.approx(0.0, abs=1e-12)
    assert (low_pass(fy, fx, (0.2, 0.2))[0, 0][window < 0.02] == 0).all()  # never divided by next to nothing


def test_holes_and_places_without_data() -> None:
    values = pair().hst.values.copy()
    expected = seen(pair())
    values[200, 150] = np.nan  # one bad pixel of sixteen: filled in
    transform = transform_hst(replace(pair().hst, values=values), pair().muse, HST_PSF)
    assert transform.grid.cut(transform.covered).all()
    assert np.abs(transform.grid.cut(blurred(transform, 0.9, 3.0)) - expected).max() < 0.02 * expected.max()
    values[:, :140] = 0.0  # a part of the field that HST did not see
    transform = transform_hst(replace(pair().hst, values=values), pair().muse, HST_PSF)
    covered = transform.grid.cut(transform.covered)
    first = (140 - (360 - 192) / 2) / 4  # MUSE pixel at which data begin, and 1 arcsec beyond
    assert not covered[:, : int(first + 4)].any()
    assert covered[:, int(first + 7) :].all()


def test_no_overlap_and_nothing_there() -> None:
    celestial = pair().muse.celestial.deepcopy()
    celestial.wcs.crval = celestial.wcs.crval + np.array([0.0, 0.02])
    with pytest.raises(DataError, match="images must overlap"):
        transform_hst(pair().hst, replace(pair().muse, celestial=celestial), HST_PSF)
    with pytest.raises(DataError, match="must have usable pixels"):
        transform_hst(replace(pair().hst, values=np.zeros(pair().hst.shape)), pair().muse, HST_PSF)
    with pytest.raises(UsageError, match="sampling must be one of"):
        transform_hst(pair().hst, pair().muse, HST_PSF, sampling="none")


def test_grid() -> None:
    grid = Grid.around(pair().muse)
    image = np.arange(48.0 * 48.0).reshape(48, 48)
    np.testing.assert_array_equal(grid.cut(grid.place(image, -1.0)), image)
    assert grid.place(image, -1.0)[0, 0] == -1.0
    assert grid.x[grid.offset[1]] == pytest.approx(-23.5 * 0.2)
    wider = Grid.around(pair().muse, least=(150, 40))
    assert wider.shape[0] >= 150
    assert wider.shape[1] == grid.shape[1]
