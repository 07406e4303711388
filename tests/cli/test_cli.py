"""The command line: exit codes, one-line messages, and the names of what it writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ifujax import __version__
from ifujax.cli.app import main, normalise_options
from ifujax.cli.line_job import plan_outputs
from ifujax.cli.outputs import product_name
from ifujax.cli.runtime import parse_device
from ifujax.errors import UsageError
from ifujax.lines.config import OutputOptions

CONFIG = """
[fit]
fit_continuum: yes
optimize_fit: no
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -300:300
sigma: 100, 40:300
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in; what the command sets in the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ha.cfg").write_text(CONFIG)
    return tmp_path


def run(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def one_line(err):
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("ifujax: error: ")
    return lines[0]


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["-h"], ["fit-cube", "--help"], ["fit-cube", "-h"], ["demo", "-h"], ["cite", "-h"]]
)
def test_help(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "Usage: ifujax" in out


def test_help_teaches(capsys):
    _, out, _ = run(capsys, "fit-cube", "--help")
    assert "ifujax fit-cube mycube.fits -c halpha.cfg" in out
    assert "[ha]\n" in out
    assert "rest_wavelength: 6562.80\n" in out


def test_version_and_cite(capsys):
    assert run(capsys, "--version")[:2] == (0, f"ifujax {__version__}\n")
    assert "@software{ifujax," in run(capsys, "cite")[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit-cube", "--foo", "x.fits", "-c", "ha.cfg"], "--foo"),
        (["fit-cub"], "'fit-cube'"),
        (["fit-cube", "x.fits"], "--config"),
        (["fit-cube", "-c", "ha.cfg"], "CUBE"),
        (["fit-cube", "x.fits", "-c", "none.cfg"], "none.cfg"),
        (["fit-cube", "x.fits", "-c", "ha.cfg", "--device", "tpu"], "--device"),
        (["fit-cube", "x.fits", "-c", "ha.cfg", "--device", "gpu:2"], "--device"),
        (["fit-cube", "x.fits", "-c", "ha.cfg", "--threads", "0"], "--threads"),
        (["fit-cube", "x.fits", "-c", "ha.cfg", "--chunk_size", "0"], "--chunk-size"),
        (["fit-cube", "x.fits", "-c", "ha.cfg", "--precision", "float16"], "float16"),
        (["fit-cube", "x.fits", "y.fits", "-c", "ha.cfg", "--maps", "m.fits"], "--maps"),
        (["fit-cube", "x.fits", "x.fits", "-c", "ha.cfg"], "x_linefit.fits"),
    ],
)
def test_usage_errors(capsys, folder, arguments, expected):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert expected in one_line(err)


def test_missing_cube(capsys, folder):
    code, _, err = run(capsys, "fit-cube", "x.fits", "-c", "ha.cfg", "-q")
    assert code == 1
    assert "x.fits" in one_line(err)


def test_missing_cubes_are_all_reported(capsys, folder):
    code, _, err = run(capsys, "fit-cube", "x.fits", "y.fits", "-c", "ha.cfg", "-q")
    assert code == 1
    assert [line.startswith("ifujax: error: ") for line in err.splitlines()] == [True, True]


def test_existing_product_is_found_before_the_cube_is_read(capsys, folder):
    (folder / "x_linefit.fits").write_bytes(b"precious")
    (folder / "x.fits").write_bytes(b"not a cube")
    code, _, err = run(capsys, "fit-cube", "x.fits", "-c", "ha.cfg")
    assert code == 1
    assert "x_linefit.fits" in one_line(err)
    assert "--overwrite" in err
    assert (folder / "x_linefit.fits").read_bytes() == b"precious"


def test_folder_of_the_maps_is_checked_first(capsys, folder):
    code, _, err = run(capsys, "fit-cube", "x.fits", "-c", "ha.cfg", "--maps", "nowhere/maps.fits")
    assert code == 1
    assert "nowhere" in one_line(err)


def test_no_file_is_left(capsys, folder):
    (folder / "x.fits").write_bytes(b"not a cube")
    before = sorted(path.name for path in folder.iterdir())
    code, _, err = run(capsys, "fit-cube", "x.fits", "-c", "ha.cfg", "-p", "--maps", "m.fits", "-q")
    assert code == 1
    one_line(err)
    assert [name for name in sorted(path.name for path in folder.iterdir()) if name != "cache"] == before


def test_command_in_a_process_of_its_own(folder):
    done = subprocess.run(
        [sys.executable, "-m", "ifujax", "fit-cube", "x.fits", "-c", "ha.cfg", "--device", "cpu:4", "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("ifujax: error: ")


def test_both_spellings():
    assert normalise_options(["fit-cube", "a_b.fits", "--chunk_size", "5", "--no_cache", "--maps=a_b.fits", "--", "--x_y"]) == [
        *["fit-cube", "a_b.fits", "--chunk-size", "5", "--no-cache", "--maps=a_b.fits", "--", "--x_y"]
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("data/a.fits", "a_linefit.fits"),
        ("a.fits.gz", "a_linefit.fits"),
        ("a.FITS.bz2", "a_linefit.fits"),
        ("a.fits.fz", "a_linefit.fits"),
        ("a.b.fits", "a.b_linefit.fits"),
        ("a", "a_linefit.fits"),
        ("a.fits.fits", "a.fits_linefit.fits"),
    ],
)
def test_product_name(name, expected):
    assert product_name(Path(name), "_linefit") == expected


def test_plan_of_one_cube():
    (plan,) = plan_outputs([Path("in/a.fits")], OutputOptions(out_image="out/b.fits"), maps=Path("m.fits"), plot=True)
    assert plan.written == [Path("out/b.fits"), Path("m.fits"), Path("out/b.png")]


@pytest.mark.parametrize(
    ("cubes", "options", "more"),
    [
        (["a.fits", "b.fits"], OutputOptions(out_image="o.fits"), {}),
        (["x/a.fits", "y/a.fits"], OutputOptions(), {}),
        (["a.fits"], OutputOptions(suffix=""), {}),
        (["a.fits"], OutputOptions(), {"maps": Path("a_linefit.fits")}),
        (["a.fits"], OutputOptions(write_fits=False), {}),
    ],
)
def test_plans_that_clash(cubes, options, more):
    with pytest.raises(UsageError):
        plan_outputs([Path(each) for each in cubes], options, **more)


def test_devices():
    assert parse_device("cpu:4").count == 4
    assert parse_device("GPU").platform == "gpu"
    with pytest.raises(UsageError, match="cpu:0"):
        parse_device("cpu:0")
