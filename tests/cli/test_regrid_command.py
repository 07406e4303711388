"""``ifujax regrid``: names, units, what is said and written, and that an error leaves nothing."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from ifujax.cli.app import main
from ifujax.images.filters import ACS_FILTERS
from ifujax.io.images import read_image
from ifujax.io.locks import output_lock

UNIT = "10**(-20)*erg/s/cm**2/Angstrom"


def cards(shape: tuple[int, ...], step: float) -> dict:
    return {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 53.16, "CRVAL2": -27.78, "CUNIT1": "deg", "CUNIT2": "deg",
        "CRPIX1": (shape[-1] + 1) / 2, "CRPIX2": (shape[-2] + 1) / 2, "CD1_1": -step / 3600, "CD1_2": 0.0, "CD2_1": 0.0,
        "CD2_2": step / 3600,
    }  # fmt: skip


def write(path, values, step, name="DATA", primary=(), **more):
    first, hdu = fits.PrimaryHDU(), fits.ImageHDU(values, name=name)
    first.header.update(dict(primary))
    hdu.header.update({**cards(values.shape, step), **more})
    fits.HDUList([first, hdu]).writeto(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder with an image and a cube of MUSE, and images of HST in two filters."""
    monkeypatch.chdir(tmp_path)
    y, x = np.indices((160, 160)) - 79.5
    star = np.exp(-0.5 * (x**2 + y**2) / 4.0) + 0.01
    write("IMAGE_F1.fits.fits", np.ones((20, 24), np.float32), 0.2, BUNIT=UNIT)
    write("bare.fits", np.ones((20, 24), np.float32), 0.2)
    write(
        "CUBE.fits",
        np.ones((3, 20, 24), np.float32),
        0.2,
        BUNIT=UNIT,
        CTYPE3="AWAV",
        CRVAL3=5000.0,
        CD3_3=1.25,
        CUNIT3="Angstrom",
    )
    write("f606w.fits", star, 0.05, "SCI", {"TELESCOP": "HST", "FILTER": "F606W"}, BUNIT="ELECTRONS/S")
    write("f814w.fits", star, 0.05, "SCI", {"INSTRUME": "ACS", "FILTER1": "CLEAR1L", "FILTER2": "F814W"}, BUNIT="ELECTRONS/S")
    write("f999w.fits", star, 0.05, "SCI", {"FILTER": "F999W"})
    write("far.fits", star, 0.05, "SCI", {"FILTER": "F606W"}, CRVAL1=63.0)
    return tmp_path


def products(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("hst_", ".")))


def test_two_images(folder, capsys):
    assert main(["regrid", "IMAGE_F1.fits.fits", "f606w.fits", "f814w.fits", "--field", "F1"]) == 0
    assert products(folder) == ["hst_F606W_for_F1.fits", "hst_F814W_for_F1.fits"]
    out = capsys.readouterr().out
    assert "f606w.fits: F606W, on 20 x 24 pixels (y, x), 100 % of them covered" in out
    assert "wrote hst_F814W_for_F1.fits" in out
    for name, known in (("F606W", ACS_FILTERS["F606W"]), ("F814W", ACS_FILTERS["F814W"])):
        found = read_image(f"hst_{name}_for_F1.fits")
        assert found.unit == UNIT
        total = (2 * np.pi * 4.0 + 0.01 * 20 * 24 * 16) * known.photflam * 1e20
        assert found.values.sum() == pytest.approx(total, rel=2e-3)
        assert found.header["FILTER"] == name
        assert found.header["PHOTFLAM"] == known.photflam
    np.testing.assert_allclose(found.celestial.wcs.crpix, [12.5, 10.5])


def test_cube_quiet_overwrite_and_folder(folder, capsys):
    (folder / "out").mkdir()
    command = ["regrid", "CUBE.fits", "f606w.fits", "--quiet", "--directory", "out"]
    assert main(command) == 0
    assert [path.name for path in (folder / "out").iterdir()] == ["hst_F606W_for_CUBE.fits"]
    assert capsys.readouterr().out == ""
    assert main(command) == 1
    assert "output must not exist" in capsys.readouterr().err
    assert main([*command, "-o"]) == 0


def test_unit_where_muse_has_none(folder, capsys):
    assert main(["regrid", "bare.fits", "f606w.fits"]) == 1
    assert "bare.fits must have a flux unit; got no BUNIT. Say --unit" in capsys.readouterr().err
    assert main(["regrid", "bare.fits", "f606w.fits", "--unit", "1e-20 erg/s/cm2/Angstrom"]) == 0
    assert main(["regrid", "bare.fits", "f606w.fits", "--unit", "Jy", "-o"]) == 1
    assert "must have a unit of flux density" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope.fits", "f606w.fits"], 1, "no file of that name"),
        (["IMAGE_F1.fits.fits", "nope.fits"], 1, "no file of that name"),
        (["IMAGE_F1.fits.fits", "far.fits"], 1, "the images must overlap"),
        (["IMAGE_F1.fits.fits", "f999w.fits"], 2, "unknown HST filter 'F999W'"),
        (["IMAGE_F1.fits.fits", "f606w.fits", "f999w.fits"], 2, "unknown HST filter 'F999W'"),
        (["IMAGE_F1.fits.fits", "bare.fits"], 2, "must name its filter"),
        (["IMAGE_F1.fits.fits", "f606w.fits", "far.fits"], 2, "a name of its own"),
        (["IMAGE_F1.fits.fits", "text.fits"], 1, "doesn't begin with SIMPLE"),
        (["IMAGE_F1.fits.fits", "f606w.fits", "--field", "a/b"], 2, "--field must be a name for files"),
        (["IMAGE_F1.fits.fits", "f606w.fits", "--directory", "nope"], 1, "in an existing folder"),
        (["IMAGE_F1.fits.fits"], 2, "Missing argument"),
        (["IMAGE_F1.fits.fits", "f606w.fits", "--feild", "x"], 2, "No such option"),
    ],
)
def test_errors_leave_nothing(folder, capsys, arguments, code, message):
    (folder / "text.fits").write_text("hello, I am text" * 10)
    assert main(["regrid", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert products(folder) == []


def test_one_bad_image_of_several(folder, capsys):
    fits.setval("far.fits", "FILTER", value="F775W")
    assert main(["regrid", "IMAGE_F1.fits.fits", "far.fits", "f606w.fits", "--field", "x"]) == 1
    assert products(folder) == ["hst_F606W_for_x.fits"]
    assert "the images must overlap" in capsys.readouterr().err


def test_help_teaches(capsys):
    assert main(["regrid", "--help"]) == 0
    out = capsys.readouterr().out
    assert "ifujax regrid IMAGE_UDF-01.fits hst_f606w.fits" in out
    assert "Exit code: 0 done" in out


def test_an_image_that_another_run_makes(folder, capsys):
    taken = "hst_F606W_for_f1.fits"
    with output_lock(taken):
        assert main(["regrid", "IMAGE_F1.fits.fits", "f606w.fits", "f814w.fits", "--field", "f1", "-q"]) == 1
        assert capsys.readouterr().err.startswith(f"ifujax: error: f606w.fits: output {taken} is being written by another run (")
    assert products(folder) == ["hst_F814W_for_f1.fits"]
