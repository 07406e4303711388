"""``ifujax sample``: what it asks for, writes and refuses; stand-ins take the place of fit and draws where they don't matter."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray
from astropy.io import fits
from matplotlib.figure import Figure

from ifujax import simulate
from ifujax.cli import sample as command
from ifujax.cli.app import main
from ifujax.cli.inputs import holds_cube
from ifujax.inference.status import NO_FIT
from ifujax.io.checkpoint import ChunkStore
from ifujax.io.locks import output_lock

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
velocity: 0, -400:400
sigma: 100, 20:400
k_group: 0
[n2]
rest_wavelength: 6583.46
amplitude: peak, 0:
k_group: 0
"""
SHAPE = (3, 4)
OUTPUTS = ["cube_posterior.fits", "cube_posterior.nc", "cube_posterior.png"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    lines = (simulate.SimulatedLine("ha", 6562.8), simulate.SimulatedLine("n2", 6583.46, 0.4))
    disc = simulate.cube(SHAPE, lines, wavelength=np.arange(6560.0, 6700.0, 1.25), scale_radius=20.0, seed=4)
    return disc.write_muse(tmp_path_factory.mktemp("cube") / "good.fits")


@pytest.fixture
def folder(tmp_path, monkeypatch, good):
    """A folder with a good cube, a spectrum and a configuration; what the command sets in the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(good, "cube.fits")
    with fits.open(good) as hdus:
        planes = [fits.PrimaryHDU()]
        for name in ("DATA", "STAT", "DQ"):
            plane = fits.ImageHDU(hdus[name].data[:, 1, 1], name=name)
            plane.header.update({"CRVAL1": 6560.0, "CDELT1": 1.25, "CRPIX1": 1.0, "CTYPE1": "AWAV", "CUNIT1": "Angstrom"})
            planes.append(plane)
        fits.HDUList(planes).writeto("spectrum.fits")
    Path("ha.cfg").write_text(CONFIG)
    return tmp_path


@dataclass(frozen=True)
class StandIn:
    """As much of a posterior as the command uses."""

    store: Path

    def summary(self):
        return "12 spaxels: 11 by importance sampling, 1 by NUTS"

    def describe(self):
        return "400 draws"

    def write(self, path, overwrite=False):
        path.write_text("percentiles")

    def plot_page(self):
        assert self.store.read_text() == "draws"  # by its last name
        return Figure(figsize=(1, 1))


@pytest.fixture
def calls(folder, monkeypatch):
    """Collect what fit and draws are asked for; both keep two chunks."""
    monkeypatch.setattr(command, "prepare", lambda *_: None)
    collected = SimpleNamespace(fits=[], samples=[])

    def keep(checkpoint, name):
        for i in range(2):
            if checkpoint is not None and checkpoint.get(f"{name}-{i}") is None:
                checkpoint.put(f"{name}-{i}", {"flux": np.ones(2)})

    def fit_cube(cube, config, *, checkpoint=None, **options):
        collected.fits.append((cube, options))
        keep(checkpoint, "fit")
        return SimpleNamespace(summary=lambda: "12 spaxels: 12 fitted")

    def sample(fit, *, store, progress, checkpoint, **options):
        collected.samples.append(options)
        progress("sample", 12, 12)
        keep(checkpoint, "sample")
        store.write_text("draws")
        return StandIn(store)

    monkeypatch.setattr("ifujax.lines.posteriors.run.sample", sample)
    monkeypatch.setattr("ifujax.lines.spectrum.fit_spectrum", fit_cube)
    # Last: the module of spectra, imported just now, keeps the `fit_cube` that it finds.
    monkeypatch.setattr("ifujax.lines.run.fit_cube", fit_cube)
    return collected


def run(capsys, *arguments, config="ha.cfg"):
    code = main(["sample", *arguments, "-c", str(config)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def files(folder):
    kept = ("cube.fits", "spectrum.fits", "ha.cfg", "cache")
    return sorted(path.name for path in folder.iterdir() if path.name not in kept)


def refused(capsys, folder, code, *expected, options=(), file="cube.fits", **more):
    """Check that the command ends with `code` and one line that holds `expected`, and leaves no file."""
    before = sorted(folder.rglob("*"))
    found, out, err = run(capsys, file, "-q", *options, **more)
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("ifujax: error: ")
    for text in expected:
        assert text in lines[0]
    assert (found, out) == (code, "")
    assert sorted(folder.rglob("*")) == before


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_help_teaches(capsys):
    assert main(["sample", "--help"]) == 0
    out = capsys.readouterr().out
    assert "ifujax sample mycube.fits -c halpha.cfg" in out
    assert "prior: velocity ~ normal(0, 100); sigma ~ log_normal(120, 0.5)" in out


def test_what_is_asked_for_and_written(calls, folder, capsys):
    options = ["-p", "--method", "nuts", "--draws", "400", "--seed", "7", "--chunk_size", "5", "--ratio", "n2/ha"]
    code, out, err = run(capsys, "cube.fits", *options, "--width", "ha", "--width", "ha+n2")
    assert (code, err.count("warning")) == (0, 0)
    assert files(folder) == OUTPUTS
    assert Path("cube_posterior.nc").read_text() == "draws"
    assert calls.fits[0][1]["chunk_size"] == 5
    assert calls.samples == [
        {
            "method": "nuts",
            "draws": 400,
            "seed": 7,
            "chunk_size": 5,
            "ratios": [("n2", "ha")],
            "widths": [("ha",), ("ha", "n2")],
            "where": None,
        }
    ]
    said = out.splitlines()
    assert said[0] == "cube.fits: fit: 12 spaxels: 12 fitted"
    assert said[1].startswith("cube.fits: posteriors: 12 spaxels: 11 by importance sampling, 1 by NUTS, ")
    assert said[2:] == ["  wrote cube_posterior.nc", "  wrote cube_posterior.fits", "  wrote cube_posterior.png"]
    # What is there stands in the way, each of them.
    assert run(capsys, "cube.fits")[0] == 1
    assert run(capsys, "cube.fits", "-o", "-q")[:2] == (0, "")
    assert calls.samples[1]["widths"] is None
    assert calls.samples[1]["method"] == "auto"


def test_names_of_the_outputs(calls, folder, capsys):
    assert run(capsys, "cube.fits", "--no-fits", "-q")[0] == 0
    assert files(folder) == ["cube_posterior.nc"]
    assert run(capsys, "cube.fits", "--output", "faint.nc", "-q")[0] == 0
    assert files(folder) == ["cube_posterior.nc", "faint.fits", "faint.nc"]
    refused(capsys, folder, 2, "--output must end in .nc; got faint.fits.", options=("--output", "faint.fits"))
    refused(capsys, folder, 2, "--output must be given with one file only", options=("spectrum.fits", "--output", "x.nc"))


@pytest.mark.parametrize(
    ("options", "spaxels"),
    [
        (["--spaxels", "3,0"], [(3, 0)]),
        (["--spaxels", "3,0", "--spaxels", "1, 2"], [(3, 0), (1, 2)]),
        (["--region", "1:2,0:1"], [(1, 0), (2, 0), (1, 1), (2, 1)]),
        (["--region", "3:3,2:2", "--spaxels", "0,0"], [(3, 2), (0, 0)]),
        (["--where", "map.fits"], [(2, 1), (0, 2)]),
        (["--where", "map.fits[OTHER]", "--spaxels", "1,1"], [(3, 2), (1, 1)]),
    ],
)
def test_chosen_spaxels(calls, folder, capsys, options, spaxels):
    first, second = np.zeros(SHAPE), np.zeros(SHAPE, np.uint8)
    first[1, 2], first[2, 0], first[0, 0] = 1.0, -3.0, np.nan
    second[2, 3] = 1
    cards = [fits.PrimaryHDU(), fits.ImageHDU(first, name="FIRST"), fits.ImageHDU(second, name="OTHER")]
    fits.HDUList(cards).writeto("map.fits")
    assert run(capsys, "cube.fits", "-q", *options)[0] == 0
    expected = np.zeros(SHAPE, bool)
    for x, y in spaxels:
        expected[y, x] = True
    np.testing.assert_array_equal(calls.samples[0]["where"], expected)
    # The others are not fitted, unless fits learn from each other.
    np.testing.assert_array_equal(calls.fits[0][0].spatial_mask, ~expected)
    Path("ha.cfg").write_text(CONFIG.replace("[fit]", "[fit]\nrefit: yes"))
    assert run(capsys, "cube.fits", "-q", "-o", *options)[0] == 0
    assert calls.fits[1][0].spatial_mask is None
    np.testing.assert_array_equal(calls.samples[1]["where"], expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--draws", "0"], "--draws must be 4 or more; got 0."),
        (["--draws", "-4"], "--draws must be 4 or more; got -4."),
        (["--draws", "1002"], "--draws must be a multiple of the 4 chains; got 1002. Say --draws 1004."),
        (["--draws", "many"], "--draws"),
        (["--seed", "-1"], "--seed must be a whole number from 0 to 4294967295; got -1."),
        (["--seed", "4294967296"], "--seed must be a whole number from 0 to 4294967295; got 4294967296."),
        (["--chunk-size", "0"], "--chunk-size must be 1 or more; got 0."),
        (["--method", "laplace"], "--method"),
        (["--ratio", "n2/hb"], "--ratio: unknown line 'hb'. Did you mean 'ha'?"),
        (["--ratio", "n2"], "--ratio must be two lines with a slash between; got 'n2'."),
        (["--ratio", "ha/ha"], "ratios must be of two different lines"),
        (["--bpt"], "it needs hb at 4862 Angstrom"),
        (["--width", "ha+hb"], "--width: unknown line 'hb'."),
        (["--spaxels", "7"], "--spaxels must be two numbers x,y, counted from 0; got '7'."),
        (["--spaxels", "-1,0"], "--spaxels must be two numbers"),
        (["--spaxels", "4,0"], "--spaxels must lie within 0..3, 0..2; got 4,0."),
        (["--region", "1:2"], "--region must be two ranges"),
        (["--region", "2:1,0:1"], "--region must have ranges that ascend"),
        (["--region", "0:3,0:3"], "--region must lie within 0..3, 0..2; got 0:3,0:3."),
        (["--where", "zero.fits"], "--where must be non-zero somewhere"),
        (["-c", "ha.cfg"], "--config must be given once; got 2"),
        (["--device", "tpu"], "--device"),
    ],
)
def test_options_that_cannot_be(folder, capsys, options, expected):
    fits.PrimaryHDU(np.zeros(SHAPE)).writeto("zero.fits")
    refused(capsys, folder, 2, expected, options=options)


def test_files_that_cannot_be(folder, capsys):
    fits.PrimaryHDU(np.ones((2, 2))).writeto("small.fits")
    Path("text.fits").write_text("once upon a time")
    refused(capsys, folder, 1, "none.fits", "Check the path", file="none.fits")
    refused(capsys, folder, 1, "none.fits", "Check the path", options=("--where", "none.fits"))
    refused(capsys, folder, 1, "text.fits", "FITS", file="text.fits")
    refused(capsys, folder, 1, "--where must be an image of the cube's shape (y, x) = (3, 4)", options=("--where", "small.fits"))
    refused(capsys, folder, 1, "--where must hold a 2-D image", options=("--where", "spectrum.fits"))
    refused(capsys, folder, 1, "--where must be a 2-D image", options=("--where", "cube.fits[DATA]"))
    refused(capsys, folder, 1, "'DTA'", "Did you mean 'DATA'?", options=("--where", "cube.fits[DTA]"))
    refused(capsys, folder, 2, "must be left out for a spectrum", file="spectrum.fits", options=("--spaxels", "0,0"))
    refused(capsys, folder, 1, "It looks like a spectrum", file="spectrum.fits", options=("--cube",))
    refused(capsys, folder, 1, "It looks like a cube", options=("--spectrum",))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("velocity: 0, -400:400", "velocity: 0", "ha.velocity"),
        ("sigma: 100, 20:400", "sigma: 100, 20:", "ha.velocity_dispersion"),
        ("[fit]", "[fit]\nifscube_compat: yes", "[fit] ifscube_compat must be no"),
        ("[fit]", "[fit]\nfixed: yes", "[fit] fixed must be no"),
        ("sigma: 100, 20:400", "sigma: 100, 20:400\nprior: sigma ~ normal(900, 1)", "prior"),
        ("sigma: 100, 20:400", "sigma: 100, 20:400\nprior: sgma ~ normal(90, 1)", "sgma"),
        ("6562.8", "5006.8", "6499"),
    ],
)
def test_configurations_that_cannot_be_sampled(folder, capsys, before, after, expected):
    assert before in CONFIG
    Path("ha.cfg").write_text(CONFIG.replace(before, after).replace("6583.46", "5020.0" if "5006" in after else "6583.46"))
    refused(capsys, folder, 2, expected)


def test_outputs_that_cannot_be(calls, folder, capsys, monkeypatch):
    Path("cube_posterior.fits").write_text("precious")
    refused(capsys, folder, 1, "cube_posterior.fits", "--overwrite")
    assert Path("cube_posterior.fits").read_text() == "precious"
    refused(capsys, folder, 1, "Create absent first", options=("--output", "absent/x.nc"))
    shutil.copy("cube.fits", "cube.nc")
    refused(capsys, folder, 2, "different from the inputs", file="cube.nc", options=("--output", "cube.nc", "-o"))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    refused(capsys, folder, 1, "no permission", options=("-o",))
    assert calls.samples == []


def test_an_output_that_another_run_makes(calls, folder, capsys):
    with output_lock("cube_posterior.nc"):
        before = files(folder)
        code, out, err = run(capsys, "cube.fits", "-o")
        assert (code, out) == (1, "")
        assert err.startswith("ifujax: error: output cube_posterior.nc is being written by another run")
        code, out, _ = run(capsys, "cube.fits", "-l")
        assert code == 0
        assert out.startswith("cube.fits: skipped: ")
        assert files(folder) == before
    assert calls.samples == []


def test_one_bad_file_does_not_stop_the_others(calls, folder, capsys):
    Path("bad.fits").write_text("none")
    code, _, err = run(capsys, "bad.fits", "cube.fits", "-q")
    assert code == 1
    assert err.startswith("ifujax: error: bad.fits: ")
    assert files(folder) == ["bad.fits", "cube_posterior.fits", "cube_posterior.nc"]


def test_interrupted_and_resumed(calls, folder, capsys, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(StandIn, "write", interrupt)
        assert run(capsys, "cube.fits", "-p")[0] == 130
    # The draws are complete, the percentiles are not there; nothing of it is in the way of the same command.
    assert files(folder) == [".cube_posterior.nc.chunks", "cube_posterior.nc"]
    code, out, err = run(capsys, "cube.fits", "-p")
    assert (code, err.count("warning")) == (0, 0)
    assert "cube.fits: going on from 4 finished chunks of an earlier run" in out
    assert files(folder) == OUTPUTS
    assert run(capsys, "cube.fits", "-p")[0] == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--draws", "400"], "draws"),
        (["--seed", "1"], "seed"),
        (["--method", "nuts"], "method"),
        (["--spaxels", "0,0"], "chosen spaxels"),
        (["--ratio", "n2/ha"], "ratios"),
        (["--width", "ha"], "widths"),
    ],
)
def test_what_draws_depend_on_starts_them_afresh(calls, folder, capsys, monkeypatch, options, reason):
    with monkeypatch.context() as patched:
        patched.setattr("ifujax.cli.job.Run.write", interrupt)
        assert run(capsys, "cube.fits")[0] == 130
    code, out, err = run(capsys, "cube.fits", *options)
    assert code == 0
    assert "going on" not in out
    assert f"2 finished chunks of an earlier run that was to make cube_posterior.nc are discarded: {reason} differ" in err
    assert files(folder) == OUTPUTS[:2]


def test_a_spectrum_is_seen_from_the_file(calls, folder, capsys):
    assert holds_cube(Path("cube.fits"))
    assert not holds_cube(Path("spectrum.fits"))
    with fits.open("cube.fits") as hdus:
        collapsed = fits.ImageHDU(hdus["DATA"].data.sum(axis=(1, 2)), name="TOTAL")
        fits.HDUList([*hdus, collapsed]).writeto("both.fits")
    assert holds_cube(Path("both.fits"))
    assert not holds_cube(Path("both.fits"), "TOTAL")
    assert holds_cube(Path("both.fits"), "DATA")
    fits.PrimaryHDU(np.ones((1, 1, 9))).writeto("thin.fits")
    assert not holds_cube(Path("thin.fits"))
    bands = fits.PrimaryHDU(np.ones((4, 1, 9)))
    bands.header.update({f"BANDID{k}": "spectrum" for k in range(1, 5)})
    bands.writeto("iraf.fits")
    assert not holds_cube(Path("iraf.fits"))
    assert run(capsys, "spectrum.fits", "-q")[0] == 0
    assert "where" in calls.samples[0]
    assert calls.samples[0]["where"] is None
    assert calls.fits[0][0].values.ndim == 1


def draws_of(path="cube_posterior.nc"):
    """All draws and statistics of a file, by name."""
    found = {}
    for group in ("posterior", "sample_stats"):
        with xarray.open_dataset(path, group=group, engine="h5netcdf") as data:
            found |= {name: data[name].values for name in data.data_vars}
    return found


def percentiles(path="cube_posterior.fits"):
    with fits.open(path) as hdus:
        return {hdu.name: hdu.data.copy() for hdu in hdus if hdu.is_image and hdu.data is not None}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


OPTIONS = ("--draws", "200", "--chunk-size", "4", "--ratio", "n2/ha", "--width", "ha")


@pytest.mark.slow
def test_from_a_cube_to_files(folder, capsys):
    code, out, err = run(capsys, "cube.fits", "-p", *OPTIONS)
    assert code == 0, err
    assert "12 spaxels sampled" in out
    assert files(folder) == OUTPUTS
    whole, maps = draws_of(), percentiles()
    assert whole["flux"].shape == (4, 50, 2, *SHAPE)
    assert whole["ratio"].shape == whole["velocity_width"].shape == (4, 50, 1, *SHAPE)
    assert not whole["status"].any()
    flux = whole["flux"].reshape(200, 2, *SHAPE)
    np.testing.assert_allclose(maps["HA_FLUX"], np.median(flux[:, 0], axis=0), rtol=1e-5)
    np.testing.assert_allclose(maps["HA_FLUX_POST"][4], np.quantile(flux[:, 0], 0.84, axis=0), rtol=1e-5)
    np.testing.assert_allclose(whole["ratio"][:, :, 0], np.log10(flux[:, 1] / flux[:, 0]).reshape(4, 50, *SHAPE), atol=1e-5)
    assert {"N2_HA_LOGRATIO", "HA_W80", "TIER", "STATUS"} <= maps.keys()
    assert Path("cube_posterior.png").read_bytes().startswith(b"\x89PNG")
    # One spaxel alone has the same draws; the fit beneath them differs by rounding.
    assert run(capsys, "cube.fits", "--output", "one.nc", "--spaxels", "2,1", "-q", *OPTIONS)[0] == 0
    one = draws_of("one.nc")
    spread = whole["velocity"][..., 1, 2].std()
    np.testing.assert_allclose(one["velocity"][..., 1, 2], whole["velocity"][..., 1, 2], atol=1e-3 * spread)
    others = np.ones(SHAPE, bool)
    others[1, 2] = False
    assert np.isnan(one["velocity"][..., others]).all()
    assert (one["status"][others] == 1024).all()
    assert one["status"][1, 2] == 0


@pytest.mark.slow
def test_resumed_draws_are_the_same_to_the_bit(folder, capsys, monkeypatch):
    assert run(capsys, "cube.fits", "-q", *OPTIONS)[0] == 0
    whole, maps = draws_of(), percentiles()
    put = ChunkStore.put

    def put_some(store, name, arrays):
        if len(list(store.folder.glob("sample-*.npz"))) == 1:
            raise KeyboardInterrupt
        put(store, name, arrays)

    with monkeypatch.context() as patched:
        patched.setattr(ChunkStore, "put", put_some)
        assert run(capsys, "cube.fits", "-q", "-o", *OPTIONS)[0] == 130
    assert len(list(Path(".cube_posterior.nc.chunks").glob("*.npz"))) == 4  # three of the fit, one of the draws
    same(draws_of(), whole)  # the products of the run before are whole
    code, out, _ = run(capsys, "cube.fits", "-o", *OPTIONS)
    assert code == 0
    assert "going on from 4 finished chunks" in out
    same(draws_of(), whole)
    same(percentiles(), maps)
    assert files(folder) == OUTPUTS[:2]


@pytest.mark.slow
def test_killed_and_resumed(folder):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}

    def start(where):
        where.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "ifujax", "sample", "../cube.fits", "-c", "../ha.cfg", *OPTIONS]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=where, env=environment, **pipes)

    said, _ = start(folder / "whole").communicate(timeout=280)
    whole = draws_of(folder / "whole" / "cube_posterior.nc")
    killed = start(folder / "killed")
    while killed.poll() is None and not list((folder / "killed").glob(".*.chunks/sample-*.npz")):
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, said
    said, _ = start(folder / "killed").communicate(timeout=280)
    assert "going on from " in said
    same(draws_of(folder / "killed" / "cube_posterior.nc"), whole)
    assert sorted(path.name for path in (folder / "killed").iterdir()) == OUTPUTS[:2]


@pytest.mark.slow
def test_from_a_spectrum_to_files(folder, capsys):
    code, out, err = run(capsys, "spectrum.fits", "-p", "--draws", "200")
    assert code == 0, err
    assert "200 draws by importance sampling" in out
    found = draws_of("spectrum_posterior.nc")
    assert found["flux"].shape == (4, 50, 2, 1, 1)
    assert percentiles("spectrum_posterior.fits")["HA_FLUX"].shape == (1, 1)
    assert Path("spectrum_posterior.png").exists()


@pytest.mark.slow
def test_lines_that_are_not_there_and_spaxels_without_data(folder, capsys):
    with fits.open("cube.fits") as hdus:
        hdus["DATA"].data[:, 0, 1] = np.nan
        hdus["DATA"].data[:, 2, 2] = np.random.default_rng(3).normal(0.0, np.sqrt(hdus["STAT"].data[:, 2, 2]))
        hdus.writeto("faint.fits")
    code, out, err = run(capsys, "faint.fits", "--region", "1:2,0:2", *OPTIONS)
    assert code == 0, err
    assert "5 spaxels sampled" in out
    found, maps = draws_of("faint_posterior.nc"), percentiles("faint_posterior.fits")
    assert found["status"][0, 1] == NO_FIT.value
    assert np.isnan(found["flux"][..., 0, 1]).all()
    assert maps["HA_DETECTED"][2, 2] == 0
    assert 0 < maps["HA_FLUX_UL95"][2, 2] < 0.2 * maps["HA_FLUX"][1, 2]
    # Nothing is known of its velocity but its bounds.
    assert np.ptp(found["velocity"][..., 0, 2, 2]) > 700
