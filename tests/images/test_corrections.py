"""Corrections of a MUSE image: signs, what is conserved, and that nothing is blurred."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.data.image import Image
from ifujax.errors import DataError, UsageError
from ifujax.images.corrections import apply_corrections

STEP = 0.2
SHAPE = (40, 50)
Y, X = np.indices(SHAPE, dtype=float)


def star(x: float, y: float, sigma: float = 1.6) -> np.ndarray:
    return 10 * np.exp(-0.5 * ((X - x) ** 2 + (Y - y) ** 2) / sigma**2)


def make(values: np.ndarray, variance: np.ndarray | None = None) -> Image:
    header = fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 63.0, "CRVAL2": 60.0, "CRPIX1": 25.0, "CRPIX2": 20.0,
         "CD1_1": -STEP / 3600, "CD2_2": STEP / 3600, "CUNIT1": "deg", "CUNIT2": "deg"}
    )  # fmt: skip
    return Image(values, variance, unit="x", celestial=WCS(header), header=header, name="muse")


def test_scale_and_zero():
    muse = make(0.8 * star(20, 20) + 0.3, np.full(SHAPE, 0.5))
    found = apply_corrections(muse, 0.4, 0.2, 0, 0, 0.3, 0.8, corrections=("scale", "zero"))
    np.testing.assert_allclose(found.values, star(20, 20), atol=1e-12)
    np.testing.assert_allclose(found.variance, 0.5 / 0.64)
    assert found.celestial is muse.celestial
    np.testing.assert_allclose(apply_corrections(muse, 0, 0, 0, 0, 0.3, 0.8, corrections="zero").values, muse.values - 0.3)
    np.testing.assert_allclose(apply_corrections(muse, 0, 0, 0, 0, 0.3, 0.8, corrections="scale").values, muse.values / 0.8)
    assert apply_corrections(replace(muse, variance=None), 0, 0, 0, 0, 0.3, 0.8).variance is None
    np.testing.assert_array_equal(muse.values, 0.8 * star(20, 20) + 0.3)


@pytest.mark.parametrize("position", ["crpix", "crval", "resample"])
def test_position(position):
    """HST has a star at pixel (20, 18) of this grid; MUSE shows it at (22, 17): dx = 2 pixels, dy = -1."""
    dx, dy = 2 * STEP, -1 * STEP
    muse = make(star(22, 17))
    ra, dec = muse.celestial.wcs_pix2world(20, 18, 0)
    ra2, dec2 = muse.celestial.wcs_pix2world(22, 17, 0)
    found = apply_corrections(muse, dx, dy, (ra2 - ra) * 3600, (dec2 - dec) * 3600, 0, 1, corrections=["xy"], position=position)
    y, x = np.unravel_index(np.nanargmax(found.values), SHAPE)
    at = found.celestial.wcs_pix2world(x, y, 0)
    # CRVAL by coordinate differences is right at the middle of the field, up to convergence of the meridians elsewhere
    np.testing.assert_allclose((at[0] - ra) * 3600 * np.cos(np.deg2rad(60)), 0, atol=2e-4)
    np.testing.assert_allclose((at[1] - dec) * 3600, 0, atol=2e-4)
    if position == "crpix":
        np.testing.assert_allclose(found.celestial.wcs.crpix, [27.0, 19.0])
        assert (found.header["CRPIX1"], found.header["CRPIX2"]) == (pytest.approx(27.0), pytest.approx(19.0))
        assert muse.header["CRPIX1"] == 25.0
        np.testing.assert_allclose(muse.celestial.wcs.crpix, [25.0, 20.0])
    if position != "resample":
        np.testing.assert_array_equal(found.values, muse.values)


def test_resampling_moves_without_blur():
    muse = make(star(22.3, 17.4) + 0.7, np.full(SHAPE, 2.0))
    found = apply_corrections(muse, 0.3 * STEP, -0.6 * STEP, 0, 0, 0, 1, corrections="xy", position="resample")
    good = np.isfinite(found.values)
    np.testing.assert_allclose(found.values[good], (star(22.0, 18.0) + 0.7)[good], atol=5e-4 * 10)
    assert (found.values - 0.7)[good].sum() == pytest.approx(star(22, 18).sum(), rel=1e-6)
    np.testing.assert_allclose(found.variance[good], 2.0)
    # What comes from beyond the edge isn't known: the last column and the first row.
    assert not good[0].any()
    assert not good[:, -1].any()
    assert good[1:, :-1].all()


def test_flux_of_any_source_is_conserved(rng):
    values = np.zeros(SHAPE)
    values[15:25, 15:35] = rng.normal(0, 1, (10, 20))
    found = apply_corrections(make(values), 0.37 * STEP, 0.51 * STEP, 0, 0, 0, 1, position="resample")
    assert np.nansum(found.values) == pytest.approx(values.sum(), abs=1e-4)


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (-1, 3)])
def test_whole_pixels_change_no_value(rng, shift):
    values = rng.normal(0, 1, SHAPE)
    values[10, 12] = np.nan
    found = apply_corrections(make(values), shift[0] * STEP, shift[1] * STEP, 0, 0, 0, 1, position="resample").values
    expected = np.roll(values, (-shift[1], -shift[0]), (0, 1))
    inside = (X + shift[0] >= 0) & (X + shift[0] < SHAPE[1]) & (Y + shift[1] >= 0) & (Y + shift[1] < SHAPE[0])
    expected[~inside] = np.nan
    np.testing.assert_array_equal(found, expected)


def test_masked_pixels_stay_local():
    values = star(22, 17) + 5
    values[17, 24] = np.nan
    values[30:, :10] = np.nan
    found = apply_corrections(make(values), 0.5 * STEP, 0.25 * STEP, 0, 0, 0, 1, position="resample").values
    assert np.isnan(found[16:18, 23:25]).all()
    assert np.isfinite(found[5:28, 5:20]).all()
    assert np.isnan(found[31, 5])
    whole = apply_corrections(make(star(22, 17) + 5), 0.5 * STEP, 0.25 * STEP, 0, 0, 0, 1, position="resample").values
    good = np.isfinite(found)
    assert np.abs(found - whole)[good].max() < 0.2  # next to the hole; 2 % of the star's peak
    assert np.abs(found - whole)[:, 34:][good[:, 34:]].max() < 1e-4
    nothing = make(np.full(SHAPE, np.nan))
    assert np.isnan(apply_corrections(nothing, 0.1, 0.1, 0, 0, 0, 1, position="resample").values).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corrections": ("xy", "zeros")}, "unknown correction 'zeros'. Did you mean 'zero'"),
        ({"position": "crpx"}, "unknown position 'crpx'. Did you mean 'crpix'"),
        ({"dx": np.nan}, "must be finite; got dx=nan"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": -1.0}, "scale must be positive"),
    ],
)
def test_wrong_use(change, message):
    numbers = {"dx": 0.0, "dy": 0.0, "dra": 0.0, "ddec": 0.0, "bg": 0.0, "scale": 1.0}
    with pytest.raises(UsageError) as caught:
        apply_corrections(make(star(20, 20)), **{**numbers, **change})
    assert message in str(caught.value)


def test_position_needs_coordinates():
    bare = replace(make(star(20, 20)), celestial=None)
    with pytest.raises(DataError, match="must have celestial coordinates"):
        apply_corrections(bare, 0.1, 0, 0, 0, 0, 1)
    assert apply_corrections(bare, 0.1, 0, 0, 0, 0, 2, corrections="scale").values.max() == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize("position", ["crpix", "crval", "resample"])
@pytest.mark.parametrize("cards", ["CD", "PC"])
def test_rotation(position, cards):
    """HST's places, turned about the centre and moved, are where MUSE shows stars: corrected, each has its own coordinates."""
    dx, dy, angle = 0.37, -0.26, 4.0
    centre = np.array([(SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2])
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])
    places = np.array([[14.0, 12.0], [36.0, 11.0], [33.0, 29.0]])
    seen = (places - centre) @ turn.T + centre + np.array([dx, dy]) / STEP
    image = make(sum(star(*each) for each in seen))
    if cards == "PC":
        header = image.celestial.to_header()
        image = replace(image, celestial=WCS(header), header=header)
    sky = image.celestial.wcs_pix2world(places, 0)
    found = apply_corrections(image, dx, dy, 0, 0, 0, 1, rotation=angle, corrections="xy", position=position)
    at = places if position == "resample" else seen
    np.testing.assert_allclose((found.celestial.wcs_pix2world(at, 0) - sky) * 3600, 0, atol=2e-3)
    np.testing.assert_allclose((WCS(found.header).wcs_pix2world(at, 0) - sky) * 3600, 0, atol=2e-3)
    if position == "resample":
        good = np.isfinite(found.values)
        np.testing.assert_allclose(found.values[good], sum(star(*each) for each in places)[good], atol=5e-3)
    else:
        np.testing.assert_array_equal(found.values, image.values)


def test_offsets_on_the_sky_follow_from_those_in_pixels():
    muse = make(star(22, 17))
    pixels = apply_corrections(muse, 0.4, -0.2)
    sky = apply_corrections(muse, 0.4, -0.2, position="crval")
    np.testing.assert_allclose(pixels.celestial.wcs_pix2world(25, 20, 0), sky.celestial.wcs_pix2world(25, 20, 0), atol=1e-7)
    np.testing.assert_array_equal(pixels.values, muse.values)
