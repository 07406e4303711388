"""Files of instruments: what each plane is taken for."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.data.scaled import Scaled
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.cubes import read_cube
from ifujax.io.instruments import MANGA_DAP_BITS, MANGA_DRP_BITS
from tests.io.files import LINEAR, SHAPE, SKY, data, generic, image, table, write
from tests.reference import reference_data

ROWS = np.arange(20)
LOGARITHMIC = {"CRVAL3": 3.62e-7, "CRPIX3": 1.0, "CD3_3": 8.33e-11, "CTYPE3": "WAVE-LOG", "CUNIT3": "m"}


def flags(**bits: int) -> np.ndarray:
    """A plane of flags: `plane_n=value` sets plane n."""
    plane = np.zeros(SHAPE, dtype=np.int32)
    for name, value in bits.items():
        plane[int(name.split("_")[1])] = value
    return plane


def bad_planes(cube) -> list[int]:
    bad = cube.spaxels(ROWS).bad
    assert (bad.all(axis=0) == bad.any(axis=0)).all()
    return np.flatnonzero(bad.any(axis=0)).tolist()


# MaNGA


def manga(path: Path, mask: np.ndarray, *more, name: str = "MANGA_DRP3PIXMASK") -> Path:
    waves = 3620.0 * 10 ** (1e-4 * np.arange(20))
    return write(
        path,
        image("FLUX", data(), LOGARITHMIC | SKY | {"BUNIT": "1E-17 erg/s/cm^2/Ang/spaxel"}),
        image("IVAR", data() * 0 + 0.25),
        image("MASK", mask),
        image("WAVE", waves),
        *more,
        primary={"MASKNAME": name},
    )


def test_manga(tmp_path):
    mask = flags(p_1=1 << 0, p_2=1 << 1, p_3=1 << 2, p_4=1 << 3, p_5=1 << 10, p_6=1 << 5, p_7=1 << 30)
    cube = read_cube(manga(tmp_path / "c.fits", mask), redshift=0)
    assert (cube.uncertainty_kind, cube.medium, cube.flag_bits) == ("ivar", "vacuum", MANGA_DRP_BITS)
    assert cube.unit == "1E-17 erg/s/cm^2/Ang/spaxel"
    np.testing.assert_allclose(cube.wavelength, 3620.0 * 10 ** (1e-4 * ROWS))
    assert bad_planes(cube) == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(cube.spaxels(ROWS).variance[0, 0], 4.0)
    assert isinstance(cube.values, np.memmap)
    assert "MaNGA cube (DRP)" in cube.notes[0]
    assert "0x40f" in cube.notes[0]


def test_manga_bits_of_ones_own(tmp_path):
    mask = flags(p_1=1 << 0, p_6=1 << 5)
    assert bad_planes(read_cube(manga(tmp_path / "c.fits", mask), redshift=0, flag_bits=32)) == [6]
    with pytest.raises(UsageError, match="flags_zero_is_bad must be left out"):
        read_cube(tmp_path / "c.fits", flags_zero_is_bad=True)


def test_manga_dap_with_bins(tmp_path):
    bins = np.arange(20).reshape(4, 5)
    bins[0, 0] = -1
    mask = flags(p_1=1 << 1, p_2=1 << 5)
    path = manga(tmp_path / "c.fits", mask, image("BINID", np.stack([bins, bins * 0])), name="MANGA_DAPSPECMASK")
    cube = read_cube(path, redshift=0)
    assert cube.flag_bits == MANGA_DAP_BITS
    assert bad_planes(cube) == [1]
    np.testing.assert_array_equal(cube.bins, bins)
    shared = manga(tmp_path / "d.fits", mask, image("BINID", np.stack([bins * 0, bins])), name="MANGA_DAPSPECMASK")
    cube = read_cube(shared, redshift=0)
    assert cube.bins is None
    assert "bins are not used" in " ".join(cube.notes)


# JWST


def jwst(path: Path, cards: dict, *more, primary: dict | None = None) -> Path:
    quality = flags(p_3=1, p_4=4, p_5=513).astype(np.uint32)
    head = {"TELESCOP": "JWST", "FLUXEXT": "SCI", "ERREXT": "ERR", "ERRTYPE": "ERR", "MASKEXT": "DQ"} | (primary or {})
    science = image("SCI", data(), SKY | {"BUNIT": "MJy/sr", "CUNIT3": "um", "CRPIX3": 1.0} | cards)
    return write(path, science, image("ERR", data() * 0 + 2), image("DQ", quality), image("WMAP", data()), *more, primary=head)


def test_jwst_becomes_per_wavelength(tmp_path):
    path = jwst(tmp_path / "c.fits", {"CRVAL3": 5.0, "CDELT3": 0.1, "CTYPE3": "WAVE"})
    with pytest.warns(IfujaxWarning, match=r"per frequency \(MJy/sr\).*erg s-1 cm-2 Angstrom-1 arcsec-2"):
        cube = read_cube(path, redshift=0)
    np.testing.assert_allclose(cube.wavelength, 50000 + 1000 * ROWS)
    assert (cube.medium, cube.uncertainty_kind) == ("vacuum", "error")
    assert isinstance(cube.values, Scaled)
    assert isinstance(cube.values.base, np.memmap)
    assert bad_planes(cube) == [3, 5]
    density = units.Quantity(data()[2, 1, 1] * 1e6, "Jy").to(
        "erg s-1 cm-2 Angstrom-1", units.spectral_density(5.2 * units.um)
    ).value / units.sr.to("arcsec2")
    taken = cube.spaxels(np.array([6]))
    np.testing.assert_allclose(taken.values[0, 2], density)
    np.testing.assert_allclose(taken.variance[0, 2], (2 * density / data()[2, 1, 1]) ** 2)
    # The integral over wavelength of a flat f_lambda line is what it should be in any part of the cube.
    cut = cube.cut(52000, 53000)
    assert isinstance(cut.values, Scaled)
    np.testing.assert_allclose(cut.spaxels(np.array([6])).values[0, 0], density)
    assert cut.check().notes == cut.notes


def test_jwst_wavelength_table(tmp_path):
    waves = np.geomspace(5.0, 28.0, 20)
    look_up = {"CTYPE3": "WAVE-TAB", "PS3_0": "WCS-TABLE", "PS3_1": "wavelength", "CRVAL3": 1.0, "CDELT3": 1.0}
    columns = [
        fits.Column("nelem", "I", array=[20]),
        fits.Column("wavelength", "20E", "um", dim="(1,20)", array=waves[None, :, None]),
    ]
    lookup = fits.BinTableHDU.from_columns(columns, name="WCS-TABLE")
    path = jwst(tmp_path / "c.fits", look_up, lookup)
    with pytest.warns(IfujaxWarning, match="per frequency"):
        cube = read_cube(path, redshift=0)
    np.testing.assert_allclose(cube.wavelength, waves * 1e4, rtol=1e-6)
    assert cube.medium == "vacuum"
    assert cube.celestial.has_celestial
    # Half-way between entries, as the standard has it.
    path = jwst(tmp_path / "half.fits", look_up | {"CRVAL3": 1.25, "CD3_3": 0.5}, lookup)
    with pytest.warns(IfujaxWarning, match="per frequency"):
        half = read_cube(path, redshift=0)
    expected = np.interp(1.25 + 0.5 * ROWS, 1 + ROWS, waves * 1e4)
    np.testing.assert_allclose(half.wavelength, expected, rtol=1e-6)
    with fits.open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wcs = WCS(file["SCI"].header, file)
        # wcslib leaves the numbers of the table as they are, micrometres.
        np.testing.assert_allclose(wcs.sub([3]).wcs_pix2world(ROWS[:, None], 0)[:, 0] * 1e4, half.wavelength, rtol=1e-6)
    beyond = jwst(tmp_path / "beyond.fits", look_up | {"CRVAL3": 2.0}, lookup)
    with pytest.raises(DataError, match=r"within the 20 wavelengths of .*got 2 to 21.*wavelength: NAME"):
        read_cube(beyond)
    with pytest.raises(DataError, match="PS3_0 of .* must name an extension"):
        read_cube(jwst(tmp_path / "none.fits", look_up))


def test_jwst_kinds_of_error(tmp_path):
    cards = {"CRVAL3": 5.0, "CDELT3": 0.1, "CTYPE3": "WAVE", "BUNIT": "erg/s/cm2/Angstrom"}
    assert read_cube(jwst(tmp_path / "v.fits", cards, primary={"ERRTYPE": "VAR"}), redshift=0).uncertainty_kind == "variance"
    with pytest.raises(DataError, match=r"ERRTYPE .* got 'IERR'"):
        read_cube(jwst(tmp_path / "i.fits", cards, primary={"ERRTYPE": "IERR"}))


def test_inverse_variance_is_converted_too(tmp_path):
    path = generic(tmp_path / "c.fits", LINEAR | {"BUNIT": "Jy"}, image("IV", data() * 0 + 4))
    with pytest.warns(IfujaxWarning, match="per frequency"):
        taken = read_cube(path, ivar="IV").spaxels(ROWS)
    np.testing.assert_allclose(np.sqrt(taken.variance[0]) / taken.values[0], 0.5 / data()[:, 0, 0])


# Gemini


def test_gemini(tmp_path):
    path = generic(tmp_path / "c.fits", None, image("VAR", data() * 0 + 3), image("DQ", flags(p_2=8)))
    cube = read_cube(path)
    assert cube.uncertainty_kind == "variance"
    assert bad_planes(cube) == [2]
    assert "Gemini kind: SCI, VAR as its variance, DQ as flags" in cube.notes[0]


def test_gemini_err_is_neither(tmp_path):
    path = generic(tmp_path / "c.fits", None, image("ERR", data()), image("DQ", flags(p_2=8)))
    with pytest.warns(IfujaxWarning, match=r"has ERR: it isn't used.*variance: ERR, error: ERR"):
        cube = read_cube(path)
    assert cube.uncertainty is None
    assert bad_planes(cube) == [2]
    with pytest.warns(IfujaxWarning, match="ERR"):
        assert read_cube(path, instrument="GMOS").uncertainty is None
    assert read_cube(path, instrument="gmos", variance="ERR").uncertainty_kind == "variance"


def test_the_gmos_example():
    path = reference_data("line_fitting", "ngc3081_cube.fits")
    with pytest.warns(IfujaxWarning, match="ERR: it isn't used"):
        cube = read_cube(path)
    assert any("spatial_mask: MASK" in note for note in cube.notes)
    with pytest.warns(IfujaxWarning, match=r"error is implausible.*variance would give"):
        read_cube(path, error="ERR").check()
    good = read_cube(path, scidata="SCI", variance="ERR", spatial_mask="MASK", nan_spaxels="all")
    assert good.check() is good
    assert good.redshift == pytest.approx(0.007976)


# PyCASSO


def pycasso(path: Path, norm: float | np.ndarray | None = None, divided: bool = False, *more) -> Path:
    values = np.full(SHAPE, 3.0) * np.arange(1, 21).reshape(4, 5)
    shape = np.broadcast_to(np.ones(()) if norm is None else norm, SHAPE[1:])
    values = np.ones(SHAPE) if divided else values
    cards = {
        "CRVAL3": 5.55e-7, "CRPIX3": 1.0, "CDELT3": 1.0, "CUNIT3": "m", "CTYPE3": "WAVE",
        "PC1_1": -2.8e-4, "PC2_2": 2.8e-4, "PC3_3": 1e-9, "CDELT1": 1.0, "CDELT2": 1.0,
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
    }  # fmt: skip
    planes = [image("F_OBS", values, cards), image("F_ERR", values * 0.1, cards), image("F_SYN", values * 0.5, cards)]
    planes.append(image("F_FLAG", flags(p_1=2, p_2=0x100, p_3=0x400, p_4=0x800, p_5=0x40), cards))
    if norm is not None:
        planes.append(image("FOBS_NORM", np.array(shape, dtype=float)))
    return write(path, *planes, *more, primary={"HIERARCH PYCASSO REDSHIFT": 0.09})


def test_pycasso(tmp_path):
    cube = read_cube(pycasso(tmp_path / "c.fits"))
    assert (cube.uncertainty_kind, cube.medium, cube.redshift) == ("error", "air", 0.0)
    np.testing.assert_allclose(cube.wavelength, 5550 + 10 * ROWS)
    # Bits that say that the synthesis left a pixel out (as it does with lines) don't make it bad.
    assert bad_planes(cube) == [1, 3, 5]
    taken = cube.spaxels(ROWS)
    np.testing.assert_allclose(taken.stellar[3, 0], 6.0)
    np.testing.assert_allclose(taken.variance[3, 0], 1.44)
    assert cube.celestial.has_celestial
    assert any("rest frame" in note for note in cube.notes)


def test_pycasso_normalised_spectra(tmp_path):
    norm = np.linspace(0.1, 5.0, 20).reshape(4, 5)
    cube = read_cube(pycasso(tmp_path / "a.fits", norm, True))
    taken = cube.spaxels(ROWS)
    np.testing.assert_allclose(taken.values[:, 0], norm.ravel())
    np.testing.assert_allclose(np.sqrt(taken.variance[:, 0]), 0.1 * norm.ravel())
    np.testing.assert_allclose(taken.stellar[:, 0], 0.5 * norm.ravel())
    assert any("multiplied by it" in note for note in cube.notes)
    cube = read_cube(pycasso(tmp_path / "b.fits", 3.0 * np.arange(1, 21).reshape(4, 5), False))
    np.testing.assert_allclose(cube.spaxels(ROWS).values[:, 0], 3.0 * np.arange(1, 21))
    assert any("not divided by it" in note for note in cube.notes)


# Which is which


def test_forced_instruments(tmp_path):
    path = generic(tmp_path / "c.fits", None, image("STUFF", data() * 0 + 9))
    with pytest.raises(
        DataError, match=r"instrument must be that of the file; got 'manga'.*SCI \(20, 4, 5\); STUFF.*name the planes"
    ):
        read_cube(path, instrument="manga")
    with pytest.raises(UsageError, match="unknown instrument 'mango'. Did you mean 'manga'"):
        read_cube(path, instrument="mango")
    cube = read_cube(path, instrument="gmos", variance="STUFF")
    assert cube.uncertainty.max() == 9
    only = write(tmp_path / "d.fits", image("DATA", data(), LINEAR))
    assert read_cube(only, instrument="muse").uncertainty is None


def test_naming_a_plane_switches_recognition_off(tmp_path):
    path = manga(tmp_path / "c.fits", flags(p_1=1 << 20))
    cube = read_cube(path, scidata="FLUX", ivar="IVAR", flags="MASK", redshift=0)
    assert cube.flag_bits is None
    assert bad_planes(cube) == [1]
    assert cube.medium == "vacuum"
    cube = read_cube(path, instrument="manga", flags="MASK", redshift=0)
    assert (cube.flag_bits, cube.uncertainty_kind) == (None, "ivar")
    # The stellar spectrum and the wavelengths may be named beside a layout.
    more = manga(tmp_path / "d.fits", flags(), image("SYN", data()), image("AIR", 4000.0 + ROWS), table("T", x=ROWS))
    cube = read_cube(more, stellar="SYN", wavelength="AIR", redshift=0)
    assert (cube.uncertainty_kind, cube.wavelength[0]) == ("ivar", 4000.0)
    assert cube.stellar is not None


def test_flag_bits(tmp_path):
    high = flags(p_1=3, p_2=-(1 << 31))
    path = generic(tmp_path / "c.fits", None, image("Q", high), image("SMALL", high.astype(np.uint8)), image("F", high * 1.0))
    assert bad_planes(read_cube(path, flags="Q", flag_bits=2 | 1 << 31)) == [1, 2]
    assert bad_planes(read_cube(path, flags="SMALL", flag_bits=2 | 1024)) == [1]
    assert bad_planes(read_cube(path, flags="F", flag_bits=1)) == [1]
    with pytest.raises(UsageError, match="flag_bits must come with flags"):
        read_cube(path, flag_bits=1)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match="flag_bits must be a positive"):
            read_cube(path, flags="Q", flag_bits=wrong)
    with pytest.raises(UsageError, match="must not be given together"):
        read_cube(path, flags="Q", flag_bits=1, flags_zero_is_bad=True)
