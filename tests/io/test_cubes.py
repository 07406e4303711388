"""Readers: what they recognise, what they refuse, and what they say."""

from __future__ import annotations

import bz2
import gzip
import warnings
from dataclasses import fields
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.cubes import read_cube
from ifujax.io.spectra import read_spectrum
from ifujax.io.wavelength import angstrom_per
from ifujax.lines.config import LoadingOptions
from tests.io.files import LINEAR, SHAPE, SKY, data, generic, image, write


def muse(path: Path) -> Path:
    quality = np.zeros(SHAPE, dtype=np.uint8)
    quality[3] = 1
    cards = LINEAR | SKY | {"BUNIT": "10**(-20)*erg/s/cm**2/Angstrom", "HDUCLASS": "ESO"}
    return write(path, image("DATA", data(), cards), image("STAT", data() * 0 + 4), image("DQ", quality))


def test_readers_take_what_a_configuration_can_say():
    said = {field.name for field in fields(LoadingOptions)}
    assert said <= set(signature(read_cube).parameters)
    assert said - {"spatial_mask", "nan_spaxels", "vortab"} <= set(signature(read_spectrum).parameters)


# What is recognised


def test_muse(tmp_path):
    cube = read_cube(muse(tmp_path / "cube.fits"), redshift=0.0859)
    assert cube.shape == SHAPE
    assert cube.medium == "air"
    assert cube.uncertainty_kind == "variance"
    assert cube.unit == "10**(-20)*erg/s/cm**2/Angstrom"
    assert cube.celestial.naxis == 2
    assert cube.celestial.wcs.ctype[0] == "RA---TAN"
    np.testing.assert_allclose(cube.wavelength, 5000 + 2 * np.arange(20))
    taken = cube.check().spaxels(np.arange(20))
    assert taken.bad[:, 3].all()
    assert taken.bad.sum() == 20
    assert "MUSE or MPDAF" in cube.notes[0]
    assert "STAT as its variance" in cube.notes[0]


def test_mpdaf_with_nan_for_masked_pixels(tmp_path):
    values = data()
    values[2, 1, 1] = np.nan
    cube = read_cube(write(tmp_path / "c.fits", image("DATA", values, LINEAR), image("STAT", data())), redshift=0)
    assert cube.flags is None
    assert cube.spaxels(np.arange(20)).bad.sum() == 1


def test_planes_are_memory_maps_and_outlive_the_file(tmp_path):
    cube = read_cube(muse(tmp_path / "cube.fits"), redshift=0)
    assert isinstance(cube.values, np.memmap)
    assert isinstance(cube.cut(5010, 5020).values, np.memmap)
    cube.release()
    np.testing.assert_array_equal(cube.values, data())


@pytest.mark.parametrize("suffix", ["gz", "bz2"])
def test_compressed_files(tmp_path, suffix):
    plain = muse(tmp_path / "cube.fits")
    packed = tmp_path / f"cube.fits.{suffix}"
    packed.write_bytes({"gz": gzip.compress, "bz2": bz2.compress}[suffix](plain.read_bytes()))
    np.testing.assert_array_equal(read_cube(packed, redshift=0).values, data())


def test_tile_compressed_images(tmp_path):
    hdus = [fits.CompImageHDU(data(), name="SCI", compression_type="GZIP_2", quantize_level=0)]
    hdus[0].header.update(LINEAR | SKY)
    hdus.append(fits.CompImageHDU(np.zeros(SHAPE, dtype=np.int16), name="MASK"))
    path = write(tmp_path / "cube.fits.fz", *hdus)
    cube = read_cube(path, flags="MASK")
    np.testing.assert_array_equal(cube.values, data())
    assert cube.flags.dtype.kind == "i"
    assert cube.celestial is not None


def test_scaled_integers_are_loaded(tmp_path):
    scaled = image("SCI", data(), LINEAR)
    scaled.scale("int16", bzero=100.0, bscale=0.5)
    flags = image("MASK", np.full(SHAPE, 40000, dtype=np.uint16))
    cube = read_cube(write(tmp_path / "c.fits", scaled, flags), flags="MASK")
    np.testing.assert_allclose(cube.values, data(), atol=0.5)
    assert cube.flags.min() == 40000


@pytest.mark.parametrize("kind", ["variance", "error", "ivar"])
def test_named_uncertainty(tmp_path, kind):
    cube = read_cube(generic(tmp_path / "c.fits", None, image("UNC", data() * 0 + 3)), **{kind: "UNC"})
    assert cube.uncertainty_kind == kind
    assert cube.uncertainty.max() == 3


def test_extensions_by_number_and_version(tmp_path):
    mask = np.zeros(SHAPE[1:], dtype=np.int64)
    mask[1, 2] = 7
    first, second = image("MASK", mask * 0), image("MASK", mask)
    second.ver = 2
    path = generic(tmp_path / "c.fits", None, first, second, image("VAR", data()))
    cube = read_cube(path, scidata=1, variance="4", spatial_mask="mask, 2")
    assert cube.spatial_mask.sum() == 1
    assert cube.spatial_mask[1, 2]
    assert cube.uncertainty_kind == "variance"
    assert not read_cube(path, variance="VAR", spatial_mask="MASK").spatial_mask.any()


def test_the_only_cube_is_found_and_primary_may_hold_it(tmp_path):
    hdu = fits.PrimaryHDU(data())
    hdu.header.update(LINEAR)
    hdu.writeto(tmp_path / "c.fits")
    assert read_cube(tmp_path / "c.fits").shape == SHAPE
    assert read_cube(tmp_path / "c.fits", scidata="PRIMARY").shape == SHAPE
    two = write(tmp_path / "two.fits", image("FLUX", data(), LINEAR), image("MODEL", data(), LINEAR))
    with pytest.raises(DataError, match=r"2 images with three axes.*FLUX \(20, 4, 5\); MODEL"):
        read_cube(two)
    assert read_cube(two, stellar="MODEL").stellar is not None


def test_unnamed_uncertainty_is_not_guessed(tmp_path):
    path = generic(tmp_path / "c.fits", None, image("F_ERR", data()), image("OVERRUN", data()))
    with pytest.warns(IfujaxWarning, match=r"has F_ERR: it isn't used.*variance: F_ERR"):
        cube = read_cube(path)
    assert cube.uncertainty is None
    assert "F_ERR" in cube.notes[-1]


def test_redshift(tmp_path):
    path = generic(tmp_path / "c.fits", primary={"REDSHIFT": 0.01})
    assert read_cube(path).redshift == 0.01
    with pytest.warns(IfujaxWarning, match=r"redshift 0.02 was used, not REDSHIFT = 0.01"):
        assert read_cube(path, redshift=0.02).redshift == 0.02
    bad = generic(tmp_path / "bad.fits", primary={"REDSHIFT": "high"})
    with pytest.raises(DataError, match=r"REDSHIFT.*'high'"):
        read_cube(bad)
    assert read_cube(bad, redshift=0.0).redshift == 0.0
    with pytest.raises(UsageError, match="redshift"):
        read_cube(path, redshift=-2)


# Wavelengths


@pytest.mark.parametrize(
    ("unit", "factor"), [("m", 1e-10), ("nm", 0.1), ("um", 1e-4), ("Angstroms", 1), ("A", 1), ("MICRON", 1e-4)]
)
def test_length_units(tmp_path, unit, factor):
    cards = {"CRVAL3": 5000 * factor, "CDELT3": 2 * factor, "CUNIT3": unit, "CTYPE3": "WAVE"}
    cube = read_cube(generic(tmp_path / "c.fits", cards))
    np.testing.assert_allclose(cube.wavelength, 5000 + 2 * np.arange(20))
    assert cube.medium == "vacuum"


def test_unit_spellings():
    assert angstrom_per("0.1 nm") == pytest.approx(1)
    assert angstrom_per("s") is None
    assert angstrom_per("parrots") is None


def test_step_cards(tmp_path):
    cards = {"CRVAL3": 5000.0, "CDELT3": 4.0, "PC3_3": 0.5, "CRPIX3": 3.0, "CUNIT3": "Angstrom"}
    cube = read_cube(generic(tmp_path / "a.fits", cards))
    np.testing.assert_allclose(cube.wavelength[:3], [4996, 4998, 5000])
    assert cube.medium == "unknown"
    # CD matrix for the sky only, and CDELT3: not the standard, but common.
    cube = read_cube(generic(tmp_path / "b.fits", SKY | {"CRVAL3": 5000.0, "CDELT3": 2.0, "CUNIT3": "Angstrom"}))
    np.testing.assert_allclose(cube.wavelength[1], 5002)
    with pytest.raises(DataError, match="CD3_1 must be 0"):
        read_cube(generic(tmp_path / "c.fits", LINEAR | {"CD3_1": 0.1}))
    with pytest.raises(DataError, match="must have CRVAL3"):
        read_cube(generic(tmp_path / "d.fits", {"CRVAL3": 5000.0}))


@pytest.mark.parametrize(("ctype", "medium"), [("WAVE-LOG", "vacuum"), ("AWAV-LOG", "air")])
def test_logarithmic_ctype(tmp_path, ctype, medium):
    cards = {"CRVAL3": 3.6e-7, "CRPIX3": 1.0, "CD3_3": 8.3e-11, "CTYPE3": ctype, "CUNIT3": "m"}
    cube = read_cube(generic(tmp_path / "c.fits", cards))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(fits.Header(cards)).sub([3])
    expected = wcs.all_pix2world(np.arange(20), 0)[0] * 1e10
    np.testing.assert_allclose(cube.wavelength, expected, rtol=1e-12)
    assert cube.medium == medium


@pytest.mark.parametrize("place", ["data", "primary"])
def test_iraf_logarithm(tmp_path, place):
    cards = {"CRVAL3": 3.7, "CD3_3": 1e-4, "CTYPE3": "LAMBDA", "WAT3_001": "wtype=linear label=Wavelength units=angstroms"}
    flag = {"DC-FLAG": 1}
    path = generic(tmp_path / "c.fits", cards | (flag if place == "data" else {}), primary=flag if place == "primary" else {})
    np.testing.assert_allclose(read_cube(path).wavelength, 10 ** (3.7 + 1e-4 * np.arange(20)))


def test_undeclared_logarithm_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"look like logarithms.*DC-FLAG = 1"):
        read_cube(generic(tmp_path / "c.fits", {"CRVAL3": 3.7, "CD3_3": 1e-4}))


def test_missing_unit(tmp_path):
    cube = read_cube(generic(tmp_path / "a.fits", {"CRVAL3": 5000.0, "CD3_3": 2.0}))
    assert any("Angstrom was assumed" in note for note in cube.notes)
    with pytest.raises(DataError, match=r"can't be Angstrom.*CUNIT3"):
        read_cube(generic(tmp_path / "b.fits", {"CRVAL3": 500.0, "CD3_3": 0.2}))
    cube = read_cube(generic(tmp_path / "c.fits", {"CRVAL3": 5e-7, "CD3_3": 2e-10, "CTYPE3": "WAVE"}))
    assert cube.wavelength[1] == pytest.approx(5002)
    assert any("metres" in note for note in cube.notes)


def test_wavelength_vector(tmp_path):
    waves = np.geomspace(0.5, 0.6, 20)
    vector = image("WAVE", waves, {"BUNIT": "um"})
    table = fits.BinTableHDU.from_columns([fits.Column("WAVELENGTH", "20D", "nm", array=[waves * 1000])], name="TAB")
    path = generic(tmp_path / "c.fits", {}, vector, table, image("SHORT", waves[:5], {"BUNIT": "um"}))
    for name in ("WAVE", "TAB"):
        np.testing.assert_allclose(read_cube(path, wavelength=name).wavelength, waves * 1e4)
    with pytest.raises(DataError, match="20 values, one per pixel"):
        read_cube(path, wavelength="SHORT")


def test_wavelength_on_another_axis(tmp_path):
    cards = {"CRVAL1": 5000.0, "CD1_1": 2.0, "CTYPE1": "WAVE", "CUNIT1": "Angstrom"}
    path = write(tmp_path / "c.fits", image("SCI", np.moveaxis(data(), 0, 2), cards))
    with pytest.raises(DataError, match="wcs_axis: 1"):
        read_cube(path)
    cube = read_cube(path, wcs_axis=1)
    np.testing.assert_array_equal(cube.values, data())
    np.testing.assert_array_equal(cube.spaxels(np.array([6])).values[0], data()[:, 1, 1])
    with pytest.raises(UsageError, match="wcs_axis"):
        read_cube(path, wcs_axis=4)


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"CD3_3": -2.0}, r"descending ones, 5000 to 4962.*Reverse every plane.*CRPIX3 = 20"),
        ({"CUNIT3": "parrot"}, "unit of length; got 'parrot'. Set CUNIT3 to"),
        ({"CUNIT3": "Hz", "CTYPE3": "FREQ"}, "must be a wavelength; got 'FREQ'"),
        ({"CTYPE3": "WAVE-TAB"}, "linear or logarithmic.*wavelength: NAME"),
        ({"CRVAL3": "blue"}, "CRVAL3 must be a number"),
    ],
)
def test_unusable_wavelengths(tmp_path, cards, message):
    with pytest.raises(DataError, match=message) as caught:
        read_cube(generic(tmp_path / "c.fits", LINEAR | cards))
    assert "\n" not in str(caught.value)


# The spatial WCS


def test_linear_spatial_axes_are_kept(tmp_path):
    cards = LINEAR | {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR", "CRVAL1": 6.7, "CD1_1": -0.1, "CD2_2": -0.1, "CUNIT3": "Angstroms"}
    cube = read_cube(generic(tmp_path / "c.fits", cards))
    assert cube.celestial.naxis == 2
    assert cube.celestial.wcs.crval[0] == 6.7
    assert read_cube(generic(tmp_path / "none.fits", LINEAR)).celestial is None


# Bad input


@pytest.mark.parametrize(
    "argument", ["scidata", "variance", "error", "ivar", "flags", "stellar", "wavelength", "primary", "spatial_mask"]
)
def test_missing_extension_is_never_a_default(tmp_path, argument):
    path = generic(tmp_path / "c.fits", None, image("FLAGS", data()))
    with pytest.raises(DataError, match=rf"{argument} must name an extension.*Did you mean 'FLAGS'\? Known: PRIMARY, SCI, FLAGS"):
        read_cube(path, **{argument: "FLAG"})


def test_more_than_one_uncertainty(tmp_path):
    with pytest.raises(UsageError, match="got variance and ivar"):
        read_cube(generic(tmp_path / "c.fits"), variance="A", ivar="B")


@pytest.mark.parametrize(
    ("argument", "array", "message"),
    [
        ("variance", np.ones((20, 4, 4)), r"\(20, 4, 5\); got \(20, 4, 4\)"),
        ("flags", np.ones((4, 5)), "spatial_mask"),
        ("spatial_mask", np.ones(SHAPE), "as flags"),
        ("spatial_mask", np.ones((5, 4)), r"\(4, 5\); got \(5, 4\)"),
        ("scidata", np.ones((4, 5)), r"three axes.*SCI \(20, 4, 5\)"),
    ],
)
def test_wrong_shapes(tmp_path, argument, array, message):
    with pytest.raises(DataError, match=message):
        read_cube(generic(tmp_path / "c.fits", None, image("EXTRA", array)), **{argument: "EXTRA"})


@pytest.mark.parametrize("keep", [100, 4000, 9000, 17500])
def test_truncated(tmp_path, keep):
    path = muse(tmp_path / "c.fits")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"complete FITS file.*again") as caught:
        read_cube(path)
    assert "\n" not in str(caught.value)


def test_missing_padding_is_harmless(tmp_path):
    path = muse(tmp_path / "c.fits")
    path.write_bytes(path.read_bytes()[:-100])
    assert read_cube(path).shape == SHAPE


@pytest.mark.parametrize("suffix", ["gz", "bz2"])
@pytest.mark.parametrize("inner", [False, True], ids=["archive", "content"])
def test_truncated_inside_compression(tmp_path, suffix, inner):
    content = muse(tmp_path / "c.fits").read_bytes()
    pack = {"gz": gzip.compress, "bz2": bz2.compress}[suffix]
    path = tmp_path / f"c.fits.{suffix}"
    path.write_bytes(pack(content[:9000]) if inner else pack(content)[: len(pack(content)) // 2])
    with pytest.raises(DataError, match="truncated or damaged"):
        read_cube(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty file"), (b"a,b\n1,2\n", "doesn't begin with SIMPLE"), (b"\x1f\x8b12345678", "damaged")]
)
def test_not_fits(tmp_path, content, message):
    path = tmp_path / "c.fits"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_cube(path)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="Check the path"):
        read_cube(tmp_path / "absent.fits")
    with pytest.raises(DataError, match="folder"):
        read_cube(tmp_path)


def test_cards_without_a_value(tmp_path):
    cube = read_cube(generic(tmp_path / "c.fits", LINEAR | {"CUNIT3": None, "BUNIT": None}, primary={"REDSHIFT": None}))
    assert cube.unit == ""
    assert cube.redshift == 0
    assert any("Angstrom was assumed" in note for note in cube.notes)


def test_flag_warning_names_the_option(tmp_path):
    flags = np.ones(SHAPE, dtype=np.uint8)
    flags[:, 0] = 0
    with pytest.warns(IfujaxWarning, match="flags_zero_is_bad: yes"):
        read_cube(generic(tmp_path / "c.fits", None, image("MASK", flags)), flags="MASK").check()
