"""What ``fit-cube`` and ``demo`` do around a fit: a stand-in takes the place of the fit itself."""

import os

import numpy as np
import pytest
from matplotlib.figure import Figure

from ifujax.cli import fit_cube as command
from ifujax.cli.app import main
from ifujax.errors import DataError

CONFIG = """
[loading]
redshift: 0.1
[fit]
fit_continuum: yes
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -300:300
sigma: 100, 40:300
"""


class Errors:
    def __getitem__(self, key):
        return np.ones((2, 3))


class StandIn:
    """As much of a CubeFit as the commands use."""

    status = np.zeros((2, 3), int)
    error = Errors()

    class cube:
        unit, redshift = "erg", 0.1

    def __getitem__(self, key):
        return np.full((2, 3), 10.0)

    def describe(self, x, y):
        return f"spaxel x={x}, y={y}"

    def summary(self):
        return "6 spaxels: 6 fitted; median reduced chi2 1.00"

    def write(self, path, overwrite=False):
        path.write_text("product")

    def write_maps(self, path, overwrite=False):
        path.write_text("maps")

    def plot_page(self, line=None):
        return Figure(figsize=(1, 1))


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Work in an empty folder; collect what the fit is asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(command, "prepare", lambda *_: None)
    monkeypatch.setattr("ifujax.cli.demo.prepare", lambda *_: None)
    collected = []

    def read_cube(path, **loading):
        if path.name == "bad.fits":
            raise DataError("the cube must be good; got a bad one.")
        collected.append(loading)
        return path

    def fit_cube(cube, config, *, progress, precision, chunk_size, checkpoint):
        progress("fit", 6, 6)
        collected.append((cube.name, precision, chunk_size))
        return StandIn()

    monkeypatch.setattr("ifujax.io.cubes.read_cube", read_cube)
    monkeypatch.setattr("ifujax.lines.run.fit_cube", fit_cube)
    (tmp_path / "ha.cfg").write_text(CONFIG)
    for name in ("a.fits", "a.fits.gz", "b.fits", "bad.fits", "minicube.fits"):
        (tmp_path / name).write_text(name)
    return collected


def test_everything_asked_for_is_written(calls, tmp_path, capsys):
    options = ["-c", "ha.cfg", "-p", "--maps", "m.fits", "--chunk_size", "7", "--precision", "float32"]
    assert main(["fit-cube", "a.fits.gz", *options]) == 0
    assert calls[0]["redshift"] == 0.1
    assert calls[1] == ("a.fits.gz", "float32", 7)
    out = capsys.readouterr().out
    assert out.startswith("a.fits.gz: 6 spaxels: 6 fitted; median reduced chi2 1.00, 0.0 s of them compiling (")
    for name in ("a_linefit.fits", "a_linefit.png", "m.fits"):
        assert (tmp_path / name).stat().st_size > 0
        assert f"wrote {name}" in out
    assert main(["fit-cube", "a.fits.gz", *options]) == 1
    assert main(["fit-cube", "a.fits.gz", *options, "-o"]) == 0


def test_disp_prints_every_solution(calls, tmp_path, capsys):
    (tmp_path / "ha.cfg").write_text(CONFIG + "[minimization]\ndisp: yes\n")
    assert main(["fit-cube", "a.fits", "-c", "ha.cfg"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("spaxel")]
    assert said == [f"spaxel x={x}, y={y}" for y in range(2) for x in range(3)]


def test_one_bad_cube_does_not_stop_the_others(calls, tmp_path, capsys):
    assert main(["fit-cube", "bad.fits", "b.fits", "-c", "ha.cfg", "-q"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "ifujax: error: bad.fits: the cube must be good; got a bad one.\n"
    assert (tmp_path / "b_linefit.fits").exists()
    assert not (tmp_path / "bad_linefit.fits").exists()


def test_demo(calls, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ifujax.io.demo.minicube_path", lambda progress: tmp_path / "minicube.fits")
    assert main(["demo", "--directory", "here"]) == 0
    out = capsys.readouterr().out
    assert "H-alpha is detected (flux above 5 times its error) in 6 of 6 spaxels." in out
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "halpha.cfg",
        "minicube_linefit.fits",
        "minicube_linefit.png",
        "minicube_maps.fits",
    ]
    assert main(["demo", "--directory", "here"]) == 1
    assert main(["demo", "--directory", "here", "--overwrite", "-q"]) == 0
    assert main(["demo", "--directory", "ha.cfg"]) == 1


def test_interrupted(calls, monkeypatch, capsys, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ifujax.lines.run.fit_cube", interrupted)
    assert main(["fit-cube", "a.fits", "-c", "ha.cfg"]) == 130
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "the same command goes on where it was" in err
    assert not (tmp_path / "a_linefit.fits").exists()
