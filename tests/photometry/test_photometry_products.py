"""Files of results: images with what was fitted in their headers, the corrected image, tables in three formats."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.inference.status import NOT_CONVERGED
from ifujax.io.images import read_image
from ifujax.photometry.products import (
    aligned_image,
    fit_cards,
    product_path,
    table_format,
    without_pixels,
    write_aligned,
    write_images,
    write_table,
)
from ifujax.photometry.results import ImagePhotometry
from ifujax.photometry.run import fit_image_photometry
from tests.photometry.test_photometry_figures import of_forward, star_result
from tests.small_pair import ALL_FIXED, regridded, small_pair


@pytest.fixture(scope="module")
def image() -> ImagePhotometry:
    muse = small_pair().muse
    header = fits.Header([("OBJECT", "UDF-01"), ("FILTER", "F606W"), ("TELESCOP", "ESO-VLT-U4"), ("NOTHING", 1)])
    named = replace(muse, header=header)
    return of_forward(fit_image_photometry(regridded(), named, **ALL_FIXED))


@pytest.fixture
def failed(image) -> ImagePhotometry:
    return replace(image, outcome=replace(image.outcome, status=NOT_CONVERGED.value))


def test_images(image, tmp_path):
    paths = write_images(image, tmp_path / "a.b", cards={"HSTIMAGE": ("hst_é.fits", "Image of HST")})
    assert [path.name for path in paths] == ["a.b_image.fits", "a.b_hst_model.fits", "a.b_residual.fits"]
    data, model, residual = (read_image(path) for path in paths)
    np.testing.assert_array_equal(data.values, image.outcome.data)
    np.testing.assert_array_equal(residual.values, data.values - model.values)
    assert data.unit == image.muse.unit
    np.testing.assert_allclose(data.celestial.wcs.crpix, image.muse.celestial.wcs.crpix)
    header = fits.getheader(paths[1])
    assert (header["OBJECT"], header["FILTER"], header["TELESCOP"]) == ("UDF-01", "F606W", "ESO-VLT-U4")
    assert "NOTHING" not in header
    assert header["HSTIMAGE"] == "hst_\\xe9.fits"
    assert header["FITFWHM"] == 0.65
    assert header["ERRFWHM"] == 0.012
    assert header["FITSCALE"] == 0.9
    assert "fixed" in header.comments["FITSCALE"]
    assert "ERRSCALE" not in header
    assert header["FITDRA"] == pytest.approx(image.dra.value)
    assert (header["FITNPIX"], header["FITSTAT"], header["FITMETH"]) == (1080, 0, "forward")
    assert "FITELLIP" not in header
    with pytest.raises(UsageError, match="must not exist"):
        write_images(image, tmp_path / "a.b")
    write_images(image, tmp_path / "a.b", overwrite=True)
    assert len(list(tmp_path.iterdir())) == 3


def test_cards_leave_out_what_is_not_finite(image, failed):
    values = dict(image.outcome.values) | {"beta": np.nan}
    errors = dict(image.outcome.errors) | {"fwhm": np.inf}
    cards = fit_cards(replace(failed, outcome=replace(failed.outcome, values=values, errors=errors, rms=np.nan)))
    assert not {"FITBETA", "ERRFWHM", "FITRMS", "FITDRA"} & set(cards)
    assert cards["FITFWHM"][0] == 0.65
    assert cards["FITSTAT"][0] == NOT_CONVERGED.value
    for name, (value, comment) in fit_cards(image).items():
        assert len(str(fits.Card(name, value, comment)).rstrip()) <= 80  # astropy would warn, and cut the comment


@pytest.mark.parametrize("position", ["crpix", "crval", "resample"])
def test_aligned(image, tmp_path, position):
    path = write_aligned(image, tmp_path / "muse", position=position)
    assert path.name == "muse_aligned.fits"
    found, muse = read_image(path), image.muse
    assert found.header["ALIGNED"] == position
    assert found.header["FITDX"] == 0.1
    assert found.header["OBJECT"] == "UDF-01"
    if position == "resample":
        np.testing.assert_allclose(found.celestial.wcs.crpix, muse.celestial.wcs.crpix)
        assert np.nanmax(np.abs(found.values * 0.9 + 0.05 - muse.values)) > 1
        return
    np.testing.assert_allclose(found.values, (muse.values - 0.05) / 0.9)
    np.testing.assert_allclose(found.variance, muse.variance / 0.81)
    # HST's source at (x, y) lies at (x + dx, y + dy) of MUSE: there the corrected image has its coordinates
    there = found.celestial.wcs_pix2world(20 + 0.1 / 0.2, 30 - 0.15 / 0.2, 0)
    np.testing.assert_allclose(there, muse.celestial.wcs_pix2world(20, 30, 0), atol=2e-8)


def test_aligned_other_image_and_corrections(image):
    other = Image(np.ones((48, 48)), celestial=image.muse.celestial)
    found = aligned_image(image, other, corrections=("scale",))
    np.testing.assert_allclose(found.values, 1 / 0.9)
    np.testing.assert_allclose(found.celestial.wcs.crpix, other.celestial.wcs.crpix)
    np.testing.assert_allclose(aligned_image(star_result(), other, ("zero",)).values, 1 - 0.005)


def test_scales_that_say_little(image, tmp_path):
    def scaled(value: float, error: float) -> ImagePhotometry:
        values, errors = dict(image.outcome.values) | {"scale": value}, dict(image.outcome.errors) | {"scale": error}
        outcome = replace(
            image.outcome, values=values, errors=errors, covariance_names=("scale",), covariance=np.array([[error**2]])
        )
        return replace(image, outcome=outcome)

    with pytest.raises(DataError, match="must have a positive scale"):
        write_aligned(scaled(0.0, 0.1), tmp_path / "muse")
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(IfujaxWarning, match=r"hardly known, 0.2 \+/- 0.1"):
        aligned_image(scaled(0.2, 0.1))
    aligned_image(scaled(0.2, 0.1), corrections=["xy"])


def test_failed_fits_give_no_images(failed, tmp_path):
    for write in (write_images, write_aligned):
        with pytest.raises(DataError, match="must have succeeded to write images; got: iteration limit"):
            write(failed, tmp_path / "muse")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", ["ecsv", "fits"])
def test_tables(image, failed, tmp_path, extension):
    named = replace(image, name="é")
    path = write_table([named, star_result(), failed], tmp_path / f"t.{extension}", command="ifujax é")
    table = Table.read(path)
    assert len(table) == 3
    assert table["method"].tolist() == ["image", "stars", "image"]
    assert table["name"][0] in ("é", "\\xe9")
    np.testing.assert_allclose(table["fwhm"], 0.65)
    np.testing.assert_allclose(table["fwhm_err"], [0.012, 0.01, 0.012])
    assert table["fwhm"].unit == table["hst_dx_err"].unit == "arcsec"
    assert table["bg"].unit.is_equivalent("erg / (s cm2 Angstrom)")
    assert table["fwhm_fixed"].tolist() == [False, False, False]
    assert table["scale_fixed"].tolist() == [True, False, True]
    assert table["muse_flux"][1] == 270.0
    assert not np.isfinite(np.ma.filled(table["muse_flux"], np.nan)[0])
    assert table["status"].tolist() == [0, 0, NOT_CONVERGED.value]
    meta = {key.lower(): value for key, value in table.meta.items()}
    assert meta["command"] in ("ifujax é", "ifujax \\xe9")
    assert "ifujax 0" in meta["versions"]


def test_json(image, failed, tmp_path):
    values = dict(image.outcome.values) | {"beta": np.nan}
    broken = replace(failed, outcome=replace(failed.outcome, values=values))
    path = write_table([image, star_result(), broken], tmp_path / "t.JSON", command="ifujax x")

    def refuse(text: str) -> None:
        raise AssertionError(text)

    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)  # NaN is no JSON
    assert found["command"] == "ifujax x"
    assert set(found["versions"]) == {"python", "ifujax", "numpy", "scipy", "jax", "astropy"}
    first, star, last = found["results"]
    assert first["fwhm"] == {"value": 0.65, "error": 0.012, "fixed": False}
    assert first["covariance"] == [[0.012**2]]
    assert first["covariance_names"] == ["fwhm"]
    assert first["options"]["fix_beta"] == 2.8
    assert first["options"]["hst_psf"]["fwhm"] == 0.085
    assert first["unit"] == image.muse.unit
    assert star["muse_flux"]["value"] == 270.0
    assert last["beta"]["value"] is None
    assert last["reason"].startswith("iteration limit")


def test_refused_tables(image, tmp_path):
    with pytest.raises(UsageError, match=r"unknown table format '.csv'. Did you mean '.ecsv'"):
        write_table([image], tmp_path / "t.csv")
    with pytest.raises(UsageError, match="one at least"):
        write_table([], tmp_path / "t.ecsv")
    path = write_table([image], tmp_path / "t.ecsv")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="must not exist"):
        write_table([image], path)
    assert path.read_bytes() == before
    assert table_format("a.b.FITS") == "fits"
    assert product_path("x/a.b", "fit", ".png").name == "a.b_fit.png"


def test_without_pixels(image):
    for result in (image, star_result()):
        light = without_pixels(result)
        assert light.summary() == result.summary()
        assert light.as_dict() == result.as_dict()
        assert light.muse.values.strides == (0, 0)
    assert without_pixels(image).prepared is None
