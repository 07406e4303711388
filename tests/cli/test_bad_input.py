"""Bad input through the command line: one line that says what to do, the right exit code, nothing left behind."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from ifujax import simulate
from ifujax.cli.app import main
from ifujax.inference.status import BAD_VARIANCE, NO_DATA, NOISE_ESTIMATED, SKIPPED

SHAPE = (3, 4)
CONFIG = """\
[loading]
scidata: DATA
variance: STAT
flags: DQ
redshift: 0.01
[fit]
fitting_window: 6500:6630
fit_continuum: yes
[continuum]
degree: 1
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -600:600
sigma: 100, 20:500
"""
N2 = """\
[n2]
rest_wavelength: 6583.46
amplitude: peak, 0:
velocity: 0, -600:600
sigma: 100, 20:500, ha.sigma
"""
MAPS = ("SOLUTION", "SOLUTION_ERR", "FLUX_M", "FLUX_M_ERR", "FLUX_D", "EQW_M", "EQW_M_ERR", "RED_CHI", "STATUS", "WARN")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    disc = simulate.cube(
        SHAPE,
        (simulate.SimulatedLine("ha", 6562.8),),
        wavelength=np.arange(6560.0, 6700.0, 1.25),
        scale_radius=20.0,
        seed=4,
    )
    return disc.write_muse(tmp_path_factory.mktemp("cube") / "good.fits")


@pytest.fixture
def folder(tmp_path, monkeypatch, good):
    """A folder with a good cube and configuration; what the command sets in the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(good, "cube.fits")
    Path("ha.cfg").write_text(CONFIG)
    return tmp_path


def fit(capsys, *options, cube="cube.fits", config="ha.cfg"):
    # Blocks as small as those of other tests of the command: programs are shared.
    code = main(["fit-cube", str(cube), "-c", str(config), "--no-cache", "-q", "--chunk-size", "8", *options])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, err


def refused(capsys, folder, code, *expected, options=(), keeps_chunks=False, **names):
    """Check that the fit ends with `code` and one line that holds `expected`, and leaves no file (or finished chunks only)."""
    before = sorted(folder.rglob("*"))
    found, err = fit(capsys, *options, **names)
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("ifujax: error: ")
    for text in expected:
        assert text in lines[0]
    assert found == code
    left = [path for path in sorted(folder.rglob("*")) if not (keeps_chunks and ".chunks" in str(path))]
    assert left == before


def change(**edits):
    """Edit extensions of cube.fits: ``change(STAT=function of the HDU)``."""
    with fits.open("cube.fits") as hdus:
        for name, edit in edits.items():
            edit(hdus[name])
        hdus.writeto("changed.fits", overwrite=True)
    os.replace("changed.fits", "cube.fits")


def product(name="cube_linefit.fits"):
    with fits.open(name) as hdus:
        return {name: hdus[name].data.copy() for name in MAPS}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda raw: b"", "empty"),
        (lambda raw: b"once upon a time\n" * 500, "FITS"),
        (lambda raw: raw[:4000], "truncated"),
        (lambda raw: raw[: len(raw) // 2], "truncated in"),
        (lambda raw: gzip.compress(raw)[: len(raw) // 10], "ended before"),
    ],
)
def test_damaged_file(capsys, folder, good, content, expected):
    (folder / "cube.fits").write_bytes(content(good.read_bytes()))
    refused(capsys, folder, 1, "cube.fits", expected)


def test_no_file(capsys, folder):
    refused(capsys, folder, 1, "none.fits", "Check the path", cube="none.fits")
    refused(capsys, folder, 1, "folder", cube=".")


def test_missing_extension(capsys, folder):
    Path("ha.cfg").write_text(CONFIG.replace("STAT", "STTA"))
    refused(capsys, folder, 1, "'STTA'", "Did you mean 'STAT'?")


def test_wrong_shapes(capsys, folder):
    change(STAT=lambda hdu: setattr(hdu, "data", hdu.data[:, :2]))
    refused(capsys, folder, 1, "variance must have the shape of the data", "(112, 3, 4)", "(112, 2, 4)")
    change(DATA=lambda hdu: setattr(hdu, "data", hdu.data[0]))
    refused(capsys, folder, 1, "three axes")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATA", np.nan, "NaN in every pixel"),
        ("DQ", 1, "flags_zero_is_bad"),
        ("STAT", 0.0, "variance must be positive"),
        ("STAT", -1.0, "variance must be positive"),
    ],
)
def test_cube_without_a_usable_pixel(capsys, folder, name, value, expected):
    change(**{name: lambda hdu: hdu.data.fill(value)})
    refused(capsys, folder, 1, expected)


@pytest.mark.parametrize(
    ("card", "value", "expected"),
    [
        ("CD3_3", -1.25, "wavelengths must ascend"),
        ("CUNIT3", "furlong", "unit of length; got 'furlong'"),
        ("CD3_3", 0.0, "CD3_3"),
    ],
)
def test_wavelength_axis(capsys, folder, card, value, expected):
    change(DATA=lambda hdu: hdu.header.set(card, value))
    refused(capsys, folder, 1, expected)


def test_all_lines_outside(capsys, folder):
    Path("ha.cfg").write_text(CONFIG.replace("6562.8", "5006.8"))
    refused(capsys, folder, 2, "ha", "6499.4", "Check the redshift")
    Path("ha.cfg").write_text(CONFIG.replace("6500:6630", "5000:5100"))
    refused(capsys, folder, 1, "rest frame", "5000 to 5100", "redshift")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("sigma: 100, 20:500", "sigma: 100, 20:500, n2.sigma", "cycle"),
        ("[continuum]", "[continum]", "Did you mean 'continuum'?"),
        ("fitting_window", "fiting_window", "Did you mean 'fitting_window'?"),
        ("amplitude", "amplitud", "Did you mean 'amplitude'?"),
        ("[fit]", "[fit]\nfunction: lorentzien", "function"),
        ("20:500", "500:20", "below the upper one"),
        ("20:500", "20:500, < broad.sigma", "unknown feature 'broad'"),
        ("rest_wavelength: 6562.8", "rest_wavelength: red", "positive number"),
        ("[loading]", "loading", "[fit]"),
    ],
)
def test_bad_configuration(capsys, folder, before, after, expected):
    assert before in CONFIG
    Path("ha.cfg").write_text(CONFIG.replace(before, after) + N2)
    refused(capsys, folder, 2, "ha.cfg", expected)


def test_configuration_that_is_none(capsys, folder):
    refused(capsys, folder, 2, "'hb.cfg'", "Did you mean 'ha.cfg'?", config="hb.cfg")
    Path("ha.cfg").write_bytes(bytes(range(256)))
    refused(capsys, folder, 2, "text file")


def test_output_that_cannot_be(capsys, folder, monkeypatch):
    Path("old.fits").write_bytes(b"precious")
    for option in ("--output", "--maps"):
        refused(capsys, folder, 1, "old.fits", "--overwrite", options=(option, "old.fits"))
        refused(capsys, folder, 1, "Create absent first", options=(option, "absent/out.fits"))
        refused(capsys, folder, 2, "different from the inputs", options=("-o", option, "cube.fits"))
    assert Path("old.fits").read_bytes() == b"precious"
    # The tests may run as root, whom no mode stops.
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    refused(capsys, folder, 1, "no permission")


def test_absent_gpu(capsys, folder):
    # Where there is one, the tests run with JAX_PLATFORMS=cpu, which hides it.
    refused(capsys, folder, 2, "--device", "ifujax[gpu]", options=("--device", "gpu"))


@pytest.mark.parametrize("options", [(), ("--output", "out.fits.gz"), ("--maps", "maps.fits")])
def test_full_disk(capsys, folder, monkeypatch, options):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if options[:1] == ("--maps",):
        monkeypatch.setattr(fits.HDUList, "writeto", full)
        Path("ha.cfg").write_text(CONFIG.replace("[fit]", "[fit]\nwrite_fits: no"))
    else:
        monkeypatch.setattr("ifujax.io.streamed._claim", full)
    refused(capsys, folder, 1, "full disk", "Free space", options=options, keeps_chunks=True)
    # What was fitted is not lost: with room on the disk the same command only has to write.
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert main(["fit-cube", "cube.fits", "-c", "ha.cfg", "--chunk-size", "8", *options]) == 0
    assert "going on from 2 finished chunks of" in capsys.readouterr().out
    assert not list(folder.glob(".*"))


def test_line_outside_the_window_is_left_out_with_a_warning(capsys, folder):
    Path("ha.cfg").write_text(CONFIG + N2.replace("6583.46", "5006.8").replace(", ha.sigma", "").replace("n2", "o3"))
    code, err = fit(capsys)
    assert code == 0
    assert len(err.splitlines()) == 1
    assert err.startswith("ifujax: warning: left out, outside the fitting window")
    assert err.rstrip().endswith("o3.")
    with fits.open("cube_linefit.fits") as hdus:
        assert list(hdus["FEATWL"].data["feature"]) == ["ha"]


def test_bad_spaxels_change_no_other(capsys, folder):
    assert fit(capsys, "--output", "before.fits") == (0, "")
    before = product("before.fits")
    assert not before["STATUS"].any()

    def spoil_data(hdu):
        hdu.data[:, 0, 1] = np.nan
        hdu.data[::2, 1, 1] = np.inf
        hdu.data[:, 2, 0] = 1e30 * (-1.0) ** np.arange(len(hdu.data))

    def spoil_variance(hdu):
        hdu.data[:, 0, 2] = 0.0
        hdu.data[:, 1, 3] = -1.0
        hdu.data[30:33, 1, 0] = 0.0

    def flag(hdu):
        hdu.data[:, 2, 3] = 1

    change(DATA=spoil_data, STAT=spoil_variance, DQ=flag)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 2] = 1
    with fits.open("cube.fits", mode="append") as hdus:
        hdus.append(fits.ImageHDU(mask, name="SKIP"))
    Path("ha.cfg").write_text(CONFIG.replace("flags: DQ", "flags: DQ\nspatial_mask: SKIP"))
    code, _ = fit(capsys)
    assert code == 0
    after = product()
    expected = np.zeros(SHAPE, int)
    for y, x in ((0, 1), (0, 2), (1, 3), (2, 3)):
        expected[y, x] = NO_DATA.value
    expected[2, 2] = SKIPPED.value
    settled = np.ones(SHAPE, bool)
    settled[2, 0] = False  # whatever becomes of absurd data
    np.testing.assert_array_equal(after["STATUS"][settled], expected[settled])
    for y, x in ((0, 2), (1, 3), (1, 0)):
        assert after["WARN"][y, x] & BAD_VARIANCE.value
    for name in MAPS:
        if name not in ("STATUS", "WARN"):
            assert np.isnan(after[name][..., expected != 0]).all(), name
            assert np.isfinite(after[name][..., 1, 1]).all(), name  # half its pixels are left
    untouched = settled & (expected == 0)
    untouched[1, :2] = False
    for name in MAPS:
        np.testing.assert_array_equal(after[name][..., untouched], before[name][..., untouched], err_msg=name)


def test_cube_without_variance_says_so(capsys, folder):
    Path("ha.cfg").write_text(CONFIG.replace("variance: STAT\n", ""))
    code, err = fit(capsys)
    assert code == 0
    assert [line.startswith("ifujax: warning: ") for line in err.splitlines()] == [True, True]
    assert "variance: STAT" in err
    assert "estimated" in err
    assert (product()["WARN"] & NOISE_ESTIMATED.value).all()
