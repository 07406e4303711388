"""Images of several layouts, what is masked in them, and that they come back as they were written."""

from __future__ import annotations

import bz2
import gzip

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.images import base_name, image_wcs, merged_header, read_image, read_image_header, write_image
from tests.io.files import SKY, image, table, write

VALUES = np.arange(12.0).reshape(3, 4) + 1
FLUX = "10**(-20)*erg/s/cm**2/Angstrom"


def flags() -> np.ndarray:
    plane = np.zeros((3, 4), np.uint8)
    plane[1, 2] = 4
    return plane


def test_mpdaf_layout(tmp_path):
    path = write(
        tmp_path / "a.b.fits",
        image("DATA", VALUES.astype(np.float32), {**SKY, "BUNIT": FLUX}),
        image("STAT", VALUES * 2),
        image("DQ", flags()),
        primary={"TELESCOP": "ESO", "OBJECT": "x"},
    )
    found = read_image(path)
    assert found.values.dtype == np.float64
    assert np.isnan(found.values[1, 2])
    assert np.isfinite(found.values).sum() == 11
    np.testing.assert_array_equal(found.variance, VALUES * 2)
    assert (found.unit, found.name) == (FLUX, "a.b")
    assert found.header["TELESCOP"] == "ESO"
    assert found.header["CRVAL1"] == 63.0
    assert "XTENSION" not in found.header
    np.testing.assert_allclose(found.celestial.wcs.crval, [63.0, 10.0])


@pytest.mark.parametrize(("name", "power"), [("VAR", 1), ("ERR", 2)])
def test_hst_layout(tmp_path, name, power):
    path = write(tmp_path / "a.fits", image("SCI", VALUES), image(name, VALUES), image("DQ", flags()), image("WHT", VALUES))
    found = read_image(path)
    np.testing.assert_array_equal(found.variance, VALUES**power)
    assert np.isnan(found.values[1, 2])


def test_no_uncertainty_is_guessed(tmp_path):
    path = write(tmp_path / "a.fits", image("SCI", VALUES), image("WHT", VALUES), image("ERROR", VALUES), image("STAT", VALUES))
    assert read_image(path).variance is None
    np.testing.assert_array_equal(read_image(path, variance="ERROR").variance, VALUES)  # it is what it is named as


def test_primary_and_only_image(tmp_path):
    bad = VALUES.copy()
    bad[0, 0] = np.inf
    fits.PrimaryHDU(bad).writeto(tmp_path / "p.fits")
    assert np.isnan(read_image(tmp_path / "p.fits").values[0, 0])
    path = write(tmp_path / "o.fits", table("T", a=np.arange(3.0)), image("IM", VALUES[None]))
    assert read_image(path).shape == (3, 4)
    path = write(tmp_path / "two.fits", image("A", VALUES), image("B", VALUES))
    with pytest.raises(DataError, match=r"data must be named.*A \(3, 4\); B \(3, 4\)"):
        read_image(path)
    assert read_image(path, data="B").shape == (3, 4)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, None])
def test_compressed(tmp_path, pack):
    whole = tmp_path / "a.fits"
    hdu = image("DATA", VALUES.astype(np.float32), SKY)
    if pack is None:
        packed = tmp_path / "a.fits.fz"
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(VALUES.astype(np.int16), name="DATA")]).writeto(packed)
    else:
        write(whole, hdu)
        packed = tmp_path / f"a.fits.{'gz' if pack is gzip.compress else 'bz2'}"
        packed.write_bytes(pack(whole.read_bytes()))
    found = read_image(packed)
    np.testing.assert_array_equal(found.values, VALUES)
    assert found.name == "a"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: write(p, image("DATA", np.ones((5, 3, 4)))), "must hold a 2-D image.*looks like a cube"),
        (lambda p: write(p, table("T", a=np.arange(3.0))), "must hold a 2-D image; got none, the file has no image"),
        (lambda p: p.write_bytes(b""), "empty file"),
        (lambda p: p.write_bytes(b"hello" * 100), "doesn't begin with SIMPLE"),
        (lambda p: (write(p, image("DATA", np.ones((90, 90)))), p.write_bytes(p.read_bytes()[:20000])), "complete FITS file"),
        (lambda p: write(p, image("DATA", VALUES), image("STAT", VALUES.T)), "variance must have the shape of the data"),
        (lambda p: write(p, image("DATA", VALUES), image("DQ", flags().T)), "flags must have the shape of the data"),
        (lambda p: None, "no file of that name"),
    ],
)
def test_bad_files(tmp_path, make, message):
    make(tmp_path / "a.fits")
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "a.fits")


@pytest.mark.parametrize("argument", ["data", "variance", "flags"])
def test_named_extension_must_exist(tmp_path, argument):
    path = write(tmp_path / "a.fits", image("DATA", VALUES))
    with pytest.raises(DataError, match=f"{argument} must name an extension"):
        read_image(path, **{argument: "NOPE"})


def test_round_trip(tmp_path):
    values = np.where(flags() > 0, np.nan, VALUES * 1.1)
    header = fits.Header([("TELESCOP", "HST"), ("SECRET", 1), ("PHOTFLAM", 7e-20), ("CRPIX1", 99.0)])
    made = Image(values, VALUES, unit=FLUX, celestial=WCS(fits.Header(SKY)), header=header, cards={"MINE": (3, "x")})
    path = write_image(tmp_path / "out.fits", made)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DATA", "STAT", "DQ"]
        assert hdus[0].header["PHOTFLAM"] == 7e-20
        assert hdus[0].header["MINE"] == 3
        assert "SECRET" not in hdus[0].header
        assert hdus["STAT"].header["BUNIT"] == "10**-40 erg2 Angstrom-2 s-2 cm-4"
        assert hdus["DATA"].header["CRPIX1"] == 2.0  # of the coordinates, not of the header
    back = read_image(path)
    np.testing.assert_array_equal(back.values, values)
    np.testing.assert_array_equal(back.variance, VALUES)
    np.testing.assert_allclose(back.celestial.wcs_pix2world(7, 9, 0), made.celestial.wcs_pix2world(7, 9, 0), rtol=1e-14)
    with pytest.raises(UsageError, match="must not exist"):
        write_image(path, made)
    write_image(path, Image(VALUES), overwrite=True)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DATA"]


def test_header_of_the_extension_wins(tmp_path):
    path = write(tmp_path / "a.fits", image("SCI", VALUES, {"FILTER": "F606W"}), primary={"FILTER": "CLEAR", "OBSERVER": "me"})
    header = read_image_header(path)
    assert (header["FILTER"], header["OBSERVER"]) == ("F606W", "me")
    assert "NAXIS1" not in header
    first = fits.Header([("HIERARCH ESO TEL NAME", "x"), ("COMMENT", "kept")])
    assert merged_header(first, first)["ESO TEL NAME"] == "x"


def test_coordinates_in_the_primary_header_only(tmp_path):
    path = write(tmp_path / "a.fits", image("SCI", VALUES), primary=SKY)
    np.testing.assert_allclose(read_image(path).celestial.wcs.crval, [63.0, 10.0])


def test_unusable_coordinates_are_said():
    assert image_wcs(fits.Header()) is None
    twice = fits.Header({**SKY, "CTYPE2": "RA---TAN"})
    with pytest.warns(IfujaxWarning, match="its coordinates can't be used"):
        assert image_wcs(twice) is None


@pytest.mark.parametrize(
    ("name", "base"),
    [("/x/a.fits", "a"), ("a.b.fits.gz", "a.b"), ("A.FITS", "A"), ("a.fit.bz2", "a"), ("a.fits.fz", "a"), ("a", "a")],
)
def test_base_name(name, base):
    assert base_name(name) == base
