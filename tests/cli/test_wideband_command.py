"""``ifujax wideband``: names of products, options, and that an error leaves nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ifujax import simulate
from ifujax.cli.app import main
from ifujax.cli.wideband import image_name
from ifujax.images.wideband import bandpass_image, read_filter_curve
from ifujax.io.cubes import read_cube
from ifujax.io.images import read_image
from ifujax.io.locks import output_lock


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    disc = simulate.cube(
        (5, 6), (simulate.SimulatedLine("ha", 6562.8),), wavelength=np.arange(6500.0, 6700.0, 1.25), scale_radius=20.0, seed=4
    )
    return disc.write_muse(tmp_path_factory.mktemp("cube") / "DATACUBE_one.fits")


@pytest.fixture
def folder(tmp_path, monkeypatch, cube):
    monkeypatch.chdir(tmp_path)
    Path("DATACUBE_one.fits").symlink_to(cube)
    Path("mycube2.fits").symlink_to(cube)
    Path("F650W.v2.dat").write_text("# Angstrom throughput\n6510 0.0\n6550 0.8\n6600 0.9\n6680 0.1\n")
    return tmp_path


def products(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "mage" in path.name.lower() or path.name.startswith("."))


def test_several_cubes(folder, capsys):
    assert main(["wideband", "F650W.v2.dat", "DATACUBE_one.fits", "mycube2.fits"]) == 0
    assert products(folder) == ["F650W_IMAGE_one.fits", "F650W_myimage2.fits"]
    out = capsys.readouterr().out
    assert "DATACUBE_one.fits: 5 x 6 pixels (y, x) through F650W.v2.dat" in out
    assert "wrote F650W_myimage2.fits" in out
    found = read_image("F650W_IMAGE_one.fits")
    expected = bandpass_image(read_cube("DATACUBE_one.fits"), *read_filter_curve("F650W.v2.dat"))
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.variance, expected.variance)
    assert found.unit == expected.unit
    assert found.header["WLPRCURV"] == "F650W.v2.dat"


def test_options(folder, capsys):
    x, y = read_filter_curve("F650W.v2.dat")
    Path("nm.dat").write_text("\n".join(f"{a / 10:.6f} {b}" for a, b in zip(x, y, strict=True)))
    common = ["--quiet", "--wave_units", "nm", "--prefix", "p"]
    assert main(["wideband", "nm.dat", "mycube2.fits", *common, "--photon_weighting", "--nprocess", "4"]) == 0
    assert capsys.readouterr().out == ""
    cube = read_cube("mycube2.fits")
    np.testing.assert_allclose(
        read_image("p_myimage2.fits").values, bandpass_image(cube, x, y, photon_weighting=True).values, rtol=1e-10
    )
    assert main(["wideband", "nm.dat", "mycube2.fits", *common, "--interpolation", "cubic"]) == 1
    assert "output must not exist" in capsys.readouterr().err
    assert main(["wideband", "nm.dat", "mycube2.fits", *common, "--interpolation", "cubic", "--overwrite"]) == 0
    np.testing.assert_allclose(
        read_image("p_myimage2.fits").values, bandpass_image(cube, x, y, interpolation="cubic").values, rtol=1e-10
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["F650W.v2.dat", "nope.fits"], 1, "no file of that name"),
        (["nope.dat", "mycube2.fits"], 1, "No such file"),
        (["mycube2.fits", "mycube2.fits"], 1, "must be a text file with two columns"),
        (["F650W.v2.dat", "mycube2.fits", "--wave-units", "um"], 1, "Check the curve's unit"),
        (["F650W.v2.dat", "mycube2.fits", "--wave-units", "Hz"], 2, "unit must be one of length"),
        (["F650W.v2.dat", "mycube2.fits", "--prefix", "a/b"], 2, "--prefix must be the beginning"),
        (["F650W.v2.dat", "mycube2.fits", "mycube2.fits"], 2, "a name of its own"),
        (["F650W.v2.dat", "mycube2.fits", "--interpolation", "cubik"], 2, "Invalid value for '--interpolation'"),
        (["F650W.v2.dat"], 2, "Missing argument"),
    ],
)
def test_errors_leave_nothing(folder, capsys, arguments, code, message):
    assert main(["wideband", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert products(folder) == []


@pytest.mark.parametrize(
    ("cube", "name"),
    [
        ("DATACUBE_UDF-01.fits", "p_IMAGE_UDF-01.fits"),
        ("/x/MyCube.fits.gz", "p_Myimage.fits"),
        ("datacube_cube.fits", "p_image_cube.fits"),
        ("field.fits.fz", "p_field.fits"),
    ],
)
def test_names(cube, name):
    assert image_name(Path(cube), "p") == name


def test_help_teaches(capsys):
    assert main(["wideband", "--help"]) == 0
    out = capsys.readouterr().out
    assert "ifujax wideband F775W.dat DATACUBE_UDF-01.fits" in out
    assert "6800.0      0.0002" in out


def test_an_image_that_another_run_makes(folder, capsys):
    before = sorted(folder.iterdir())
    with output_lock("F650W_myimage2.fits"):
        assert main(["wideband", "F650W.v2.dat", "mycube2.fits", "-o"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("ifujax: error: output F650W_myimage2.fits is being written by another run (process ")
    assert sorted(folder.iterdir()) == before
