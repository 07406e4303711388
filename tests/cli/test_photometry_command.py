"""``ifujax fit-photometry``: its table, its files, options together, and that bad input leaves nothing.

Most tests hold every parameter with ``--method fourier``: there is nothing to fit then, and nothing to compile.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from ifujax.cli.app import main
from ifujax.errors import DataError
from ifujax.inference.status import NOISE_ESTIMATED, NOT_CONVERGED
from ifujax.io.images import read_image, write_image
from ifujax.io.locks import output_lock
from tests.small_pair import ALL_FIXED, PHOTFLAM, regridded, small_pair, star_position, write_small_pair

QUICK = [part for name, value in ALL_FIXED.items() for part in (f"--{name}", str(value))]
INPUTS = {"muse.fits", "hst.fits", "hst_on_muse.fits", "hst_counts.fits", "hst_unknown.fits"}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    write_small_pair(folder)
    return folder


@pytest.fixture
def folder(originals, tmp_path, monkeypatch):
    """Work in a folder with the small pair."""
    for name in INPUTS:
        (tmp_path / name).symlink_to(originals / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} - INPUTS


def run(*arguments) -> int:
    return main(["fit-photometry", *map(str, arguments)])


def star(radius: float = 1.6) -> list[str]:
    ra, dec = star_position()
    return ["--star", f"{ra:.7f}", f"{dec:.7f}", str(radius)]


def write_muse(path, **changes) -> None:
    write_image(path, replace(small_pair().muse, **changes))


def test_table_of_the_older_tool(folder, capsys):
    assert run("hst_on_muse.fits", "muse.fits", *QUICK) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "# MUSE ID Method  Flux    FWHM    beta     Flux    x-offset  y-offset  ra-offset dec-offset  RMS"
    assert lines[2].startswith("#-------- ------ -------")
    fields = lines[3].split()
    assert fields[:8] == ["muse", "image", "0.9000", "0.6500", "2.8000", "0.05000", "0.10000", "-0.15000"]
    assert len(lines) == 4
    assert err == ""
    assert made(folder) == set()


def test_everything_that_can_be_written(folder, capsys):
    options = ["--save", "--apply", "--hardcopy", "png", "--table", "all.json", "--directory", "out", "--title", "My title"]
    (folder / "out").mkdir()
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, *options, "--verbose") == 0
    names = {"image.fits", "hst_model.fits", "residual.fits", "aligned.fits", "image_fit.png"}
    assert {path.name for path in (folder / "out").iterdir()} == {f"muse_{name}" for name in names}
    assert made(folder) == {"out", "all.json"}
    out, err = capsys.readouterr()
    assert out.startswith("Report of HST image (fourier) photometry fit of MUSE observation muse\n")
    assert "fwhm                0.65   fixed" in out
    assert "wrote out/muse_aligned.fits" in err
    assert "wrote all.json" in err
    header = fits.getheader(folder / "out" / "muse_aligned.fits")
    assert header["ALIGNED"] == "crpix"
    assert header["HSTIMAGE"] == "hst_on_muse.fits"
    shift = read_image("out/muse_aligned.fits").celestial.wcs.crpix - small_pair().muse.celestial.wcs.crpix
    np.testing.assert_allclose(shift, [0.1 / 0.2, -0.15 / 0.2])
    found = json.loads((folder / "all.json").read_text())
    assert found["command"].startswith("ifujax fit-photometry --fix-scale 0.9 --fix-bg 0.05 --fix-dx 0.1 --fix-dy -0.15")
    assert found["command"].endswith("--verbose hst_on_muse.fits muse.fits")
    assert found["results"][0]["options"]["method"] == "fourier"
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, *options) == 1
    assert "output must not exist" in capsys.readouterr().err
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, *options, "-o", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_none_is_not_given_and_numbers_may_be_negative(folder, capsys):
    words = ["--extramask", "none", "--hardcopy", "none", "--title", "none", "--regions", "none", "--init_dx", "none"]
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, *words, "--fix_bg=-0.05", "--table", "t.json") == 0
    assert made(folder) == {"t.json"}
    assert "-0.05000" in capsys.readouterr().out
    found = json.loads((folder / "t.json").read_text())
    assert "--title none" in found["command"]
    assert found["results"][0]["options"]["init_dx"] is None


def test_positions(folder):
    for given, position in ((["--resample"], "resample"), (["--position", "crval"], "crval"), (["--apply"], "crpix")):
        assert run("hst_on_muse.fits", "muse.fits", *QUICK, *given, "-o", "-q") == 0
        assert fits.getheader(folder / "muse_aligned.fits")["ALIGNED"] == position


def test_several_images_one_of_them_bad(folder, capsys):
    write_muse("empty.fits", values=np.full((48, 48), np.nan), variance=None)
    write_muse("third.fits", values=small_pair().muse.values + 1)
    (folder / "text.fits").write_text("hello, I am text" * 10)
    images = ["muse.fits", "empty.fits", "nowhere.fits", "text.fits", "third.fits"]
    before = made(folder)
    assert run("hst_on_muse.fits", *images, *QUICK, "--save", "--table", "t.ecsv") == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["muse", "third"]
    assert sum(line.startswith("#") for line in lines) == 3
    errors = [line for line in err.splitlines() if "error" in line]
    assert [line.split(":")[2].strip() for line in errors] == ["empty.fits", "nowhere.fits", "text.fits"]
    kinds = ("image", "hst_model", "residual")
    assert made(folder) - before == {"t.ecsv"} | {f"{name}_{kind}.fits" for name in ("muse", "third") for kind in kinds}
    assert Table.read("t.ecsv")["name"].tolist() == ["muse", "third"]


def test_unit_of_images_that_have_none(folder, capsys):
    """With the unit, HST in counts per second becomes a flux density; without, it stays as it is."""
    unit = small_pair().muse.unit
    counts = replace(regridded(), values=regridded().values * 1e-20 / (5 * PHOTFLAM), unit="electrons/s")
    write_image(
        "counts.fits", replace(counts, cards={"FILTER": ("F606W", ""), "PHOTFLAM": (5 * PHOTFLAM, ""), "PHOTPLAM": (5921.0, "")})
    )
    write_muse("bare.fits", unit="")
    write_muse("blind.fits", unit="", celestial=None)
    images = ["bare.fits", "nowhere.fits", "blind.fits", "muse.fits"]
    assert run("counts.fits", *images, *QUICK, "--save", "--unit", unit) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[3:]] == ["bare", "muse"]
    errors = [line for line in err.splitlines() if not line.startswith("wrote")]
    assert [line.split(":")[1:3] for line in errors] == [[" error", " nowhere.fits"], [" error", " blind.fits"]]
    model = read_image("muse_hst_model.fits")
    np.testing.assert_array_equal(read_image("bare_hst_model.fits").values, model.values)
    assert read_image("bare_hst_model.fits").unit == unit
    assert run("counts.fits", "bare.fits", *QUICK, "--save", "-oq") == 0
    assert "bare has no unit (BUNIT)" in capsys.readouterr().err
    peaks = [np.nanmax(each.values) - np.nanmedian(each.values) for each in (model, read_image("bare_hst_model.fits"))]
    assert peaks[0] == pytest.approx(5 * peaks[1], rel=0.01)
    # The unit of a file holds
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, "--unit", "Jy") == 0
    assert capsys.readouterr().err == f"ifujax: warning: --unit has no effect on muse.fits: its BUNIT is {unit}.\n"


def test_interrupted(folder, capsys, monkeypatch):
    """It does not go on by itself, as fits of cubes do: what is finished stays, and is in the way."""
    from ifujax.photometry import products

    write, saved = products.write_images, []

    def interrupted(result, *of):
        if saved:
            raise KeyboardInterrupt
        saved.append(result.name)
        return write(result, *of)

    monkeypatch.setattr(products, "write_images", interrupted)
    write_muse("third.fits")
    command = ["hst_on_muse.fits", "muse.fits", "third.fits", *QUICK, "--save", "--table", "t.ecsv"]
    assert run(*command) == 130
    err = capsys.readouterr().err
    assert "goes on where it was" not in err
    assert err.endswith("those that were are kept: leave out their inputs, or replace them with --overwrite.\n")
    kinds = ("image", "hst_model", "residual")
    assert made(folder) == {"third.fits"} | {f"muse_{kind}.fits" for kind in kinds}
    assert run(*command) == 1
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run(*command, "--overwrite") == 0
    assert made(folder) == {"third.fits", "t.ecsv"} | {f"{name}_{kind}.fits" for name in ("muse", "third") for kind in kinds}


def test_figures_are_looked_for_by_the_extension_that_is_written(folder, capsys):
    (folder / "muse_image_fit.PNG").write_text("precious")
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, "--hardcopy", "PNG") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "output must not exist; got muse_image_fit.PNG" in err


@pytest.mark.parametrize("taken", ["muse_aligned.fits", "fit.ecsv"])
def test_a_file_that_another_run_makes(folder, capsys, taken):
    with output_lock(taken):
        command = ["hst_on_muse.fits", "muse.fits", *QUICK, "--save", "--apply", "--table", "fit.ecsv"]
        assert run(*command) == 1
        out, err = capsys.readouterr()
        assert out == ""  # it is found before the fit
        assert err.startswith(f"ifujax: error: output {taken} is being written by another run (process ")
    assert made(folder) == set()


def test_an_image_whose_files_another_run_makes_is_left_out(folder, capsys):
    write_muse("third.fits")
    with output_lock("muse_image.fits"):
        assert run("hst_on_muse.fits", "muse.fits", "third.fits", *QUICK, "--save") == 1
        out, err = capsys.readouterr()
        assert [line.split()[0] for line in out.splitlines()[3:]] == ["third"]
        assert err.startswith("ifujax: error: muse.fits: output muse_image.fits is being written by another run (process ")
        with output_lock("third_image.fits"):
            assert run("hst_on_muse.fits", "muse.fits", "third.fits", *QUICK, "--save", "--table", "t.ecsv", "-o") == 1
    assert made(folder) == {"third.fits"} | {f"third_{kind}.fits" for kind in ("image", "hst_model", "residual")}


def test_options_of_the_other_method_are_mentioned(folder, capsys):
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, "--noise", "scaled", "--sampling", "native", "--taper", "5") == 0
    err = capsys.readouterr().err
    assert err == "ifujax: warning: --noise, --sampling have no effect with --method fourier, only with --method forward.\n"
    # Of the forward method, before it reads anything else
    assert run("nowhere.fits", "muse.fits", "--taper", "5") == 1
    assert "warning: --taper has no effect with --method forward" in capsys.readouterr().err
    assert run("nowhere.fits", "muse.fits", "--taper", "0", "--hst-sampled", "0") == 1
    assert "warning: --taper has no effect with --method forward" in capsys.readouterr().err
    # A star takes them all the same
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, *star(), "--noise", "scaled", "-o") == 0
    assert "--noise has no effect on images with --method fourier" in capsys.readouterr().err


def test_display_without_one(folder, capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, "--display", "--nowait") == 0
    out, err = capsys.readouterr()
    assert "--display: there is no display" in err
    assert err.count("\n") == 1
    assert len(out.splitlines()) == 4


def test_display_with_one(folder, capsys, monkeypatch):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(plt, "switch_backend", lambda name: None)
    monkeypatch.setattr(plt, "show", lambda block: shown.append((block, [plt.figure(n).canvas for n in plt.get_fignums()])))
    monkeypatch.setattr(plt, "pause", lambda seconds: shown.append(seconds))
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, "--display") == 0
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, "--display", "--nowait") == 0
    assert [each if isinstance(each, float) else each[0] for each in shown] == [True, False, 0.5]
    for canvas in shown[0][1]:
        assert canvas.figure.axes[0].get_title() == "data"
    plt.close("all")
    assert capsys.readouterr().err == ""


def test_fit_that_fails(folder, capsys, monkeypatch):
    from ifujax.photometry import run as fits_of

    fit = fits_of.fit_fourier
    monkeypatch.setattr(fits_of, "fit_fourier", lambda *of, **more: replace(fit(*of, **more), status=NOT_CONVERGED.value))
    assert run("hst_on_muse.fits", "muse.fits", *QUICK, "--save", "--apply", "--table", "t.ecsv", "--hardcopy", "png") == 1
    out, err = capsys.readouterr()
    assert err == "ifujax: error: muse: the image fit failed: iteration limit reached before convergence\n"
    assert len(out.splitlines()) == 4
    assert made(folder) == set()


def test_output_that_fails_leaves_the_others(folder, capsys, monkeypatch):
    from ifujax.photometry import products

    write = products.write_aligned

    def fail(result, *of):
        if result.name == "muse":
            raise DataError("output must fit on its disk; got a full disk.")
        return write(result, *of)

    monkeypatch.setattr(products, "write_aligned", fail)
    write_muse("third.fits")
    assert run("hst_on_muse.fits", "muse.fits", "third.fits", *QUICK, "--save", "--apply") == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[3:]] == ["muse", "third"]
    assert "ifujax: error: muse.fits: output must fit" in err
    kinds = ("image", "hst_model", "residual")
    rest = {f"{name}_{kind}.fits" for name in ("muse", "third") for kind in kinds}
    assert made(folder) == {"third.fits", "third_aligned.fits"} | rest


def test_what_can_be_written_is_where_there_is_no_scale_to_divide_by(folder, capsys):
    options = ["--method", "fourier", "--fix-scale", "0", *QUICK[4:]]
    assert run("hst_on_muse.fits", "muse.fits", *options, "--apply", "--save", "--table", "fit.json") == 1
    assert "scale" in capsys.readouterr().err
    assert {"fit.json", "muse_residual.fits"} <= made(folder)
    assert "muse_aligned.fits" not in made(folder)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["hst.fits", "far.fits"], 1, "far"),
        (["hst.fits", "muse.fits", "--star", "10", "-20", "2"], 2, "star must lie within the image"),
        (["hst.fits", "muse.fits", "--star", "338.2343", "-60.5649", "0"], 2, "positive radius"),
        (["hst.fits", "empty.fits"], 1, "muse must have usable pixels; got none in empty"),
        (["hst.fits", "masked.fits"], 1, "muse must have usable pixels; got none in masked"),
        (["hst.fits", "no_wcs.fits"], 1, "must have celestial coordinates; got none in no_wcs"),
        (["text.fits", "muse.fits"], 1, "text.fits"),
        (["hst.fits", "text.fits"], 1, "text.fits"),
        (["nowhere.fits", "muse.fits"], 1, "no file of that name"),
        (["hst_unknown.fits", "muse.fits"], 2, "unknown HST filter 'F999W'"),
        (["hst.fits", "muse.fits", "--method", "fourier"], 1, "must have the same pixels with method 'fourier'"),
        (["hst.fits", "muse.fits", "--extramask", "hst.fits"], 1, "extramask must have the pixels of muse"),
        (["hst.fits", "muse.fits", "--extramask", "nowhere.fits"], 1, "no file of that name"),
        (["hst.fits", "muse.fits", "--regions", "nowhere.reg"], 1, "nowhere.reg"),
        (["hst.fits", "muse.fits", "--regions", "bad.reg"], 2, "bad.reg"),
        (["hst.fits", "muse.fits", "--regions", "beside.reg"], 1, "must leave pixels"),
        (["hst.fits", "muse.fits", "--save", "--apply"], 1, "output must not exist; got muse_aligned.fits"),
        (["hst.fits", "muse.fits", "--apply", "--directory", "no"], 1, "in an existing folder"),
        (["hst.fits", "muse.fits", "muse.fits", "--save"], 2, "a name of its own"),
        (["hst.fits", "muse.fits", "--table", "muse.fits", "-o"], 2, "a name of its own"),
        (["hst.fits", "muse.fits", "--table", "t.csv"], 2, "unknown table format '.csv'"),
        (["hst.fits", "muse.fits", "--hardcopy", "xyz"], 2, "unknown figure format 'xyz'"),
        (["hst.fits", "muse.fits", "--position", "crval", "--resample"], 2, "--position must be resample"),
        (["hst.fits", "muse.fits", "--fix_dx", "abc"], 2, "must be a number or none; got 'abc'"),
        (["hst.fits", "muse.fits", "--fix_beta", "0.5"], 2, "fix_beta must be 1.01 or more"),
        (["hst.fits", "muse.fits", "--hst_fwhm", "-1"], 2, "--hst-fwhm must be positive"),
        (["hst.fits", "muse.fits", "--margin", "-1"], 2, "margin must lie between"),
        (["hst.fits", "muse.fits", "--elliptical", "--method", "fourier"], 2, "elliptical must be left out"),
        (["hst.fits", "muse.fits", "--star", "1", "2"], 2, "--star"),
        (["hst.fits"], 2, "Missing argument"),
    ],
)
def test_bad_input_leaves_nothing(folder, capsys, arguments, code, message):
    (folder / "text.fits").write_text("hello, I am text" * 10)
    (folder / "bad.reg").write_text("fk5\nvector(1,2,3,4)\n")
    (folder / "beside.reg").write_text("image\ncircle(500,500,3)\n")
    (folder / "muse_aligned.fits").write_text("precious")
    empty = np.full((48, 48), np.nan)
    write_muse("empty.fits", values=empty)
    write_muse("no_wcs.fits", celestial=None)
    write_muse("masked.fits")
    with fits.open("masked.fits", mode="append") as hdus:
        hdus.append(fits.ImageHDU(np.ones((48, 48), np.uint8), name="DQ"))
    away = small_pair().muse.celestial.deepcopy()
    away.wcs.crval = [10.0, -60.5649]
    write_muse("far.fits", celestial=away)
    before = made(folder)
    assert run(*arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("ifujax: error: ")
    assert err.count("\n") == 1
    assert made(folder) == before
    assert (folder / "muse_aligned.fits").read_text() == "precious"


def test_help_teaches(capsys):
    assert main(["fit-photometry", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.count("  ifujax fit-photometry hst") == 3
    assert "Exit code: 0 done" in out
    for option in ("--unit UNIT", "--directory DIR"):
        assert f"  {option} " in out
    assert "--output-dir" not in out


@pytest.mark.slow
def test_fit_with_defaults_and_a_star(folder, capsys):
    """The star's lines, the sky's errors, HST in counts per second, images without variance; one compilation for all."""
    write_muse("bare.fits", variance=None)
    images = ["muse.fits", "bare.fits", "far.fits"]
    assert run("hst_counts.fits", *images, *star(), "--regions", "none", "--table", "t.ecsv", "--hardcopy", "png") == 1
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()[3:]] == [
        [name, method] for name in ("muse", "bare") for method in ("image", "stars")
    ]
    assert "error: far.fits" in err
    table = Table.read("t.ecsv")
    truth = small_pair().truth
    for name, limit in {"scale": 0.01, "fwhm": 0.01, "dx": 0.005, "dy": 0.005}.items():
        assert np.abs(table[name] - truth[name]).max() < limit, name
        assert (table[f"{name}_err"] > 0).all()
    estimated = (table["warn"] & NOISE_ESTIMATED.value) > 0
    assert estimated[2]
    assert not estimated[0]
    assert "bare, image fit: no variance given" in err
    assert {"muse_image_fit.png", "muse_star_fit.png", "bare_star_fit.png"} <= made(folder)


@pytest.mark.slow
def test_all_options_together(folder, capsys):
    mask = np.zeros((48, 48))
    mask[:6] = 1
    write_muse("mask.fits", values=mask, variance=None)
    (folder / "keep.reg").write_text("image\nbox(24.5,24.5,44,44,0)\n-circle(8,40,3)\n")
    options = [
        *star(), "--extramask", "mask.fits", "--regions", "keep.reg", "--apply", "--resample", "--taper", "9", "--segment",
        "--init_dx", "0.2", "--init_dy", "-0.2", "--min_scale", "0.1", "--margin", "1", "--fix_beta", "2.8", "--fix_bg", "none",
        "--hst_fwhm", "0.085", "--hst_beta", "1.6", "--elliptical", "--rotation", "--noise", "correlated", "--sampling", "native",
        "--save", "--hardcopy", "pdf", "--title", "", "--table", "t.fits", "--verbose", "--display", "--nowait",
    ]  # fmt: skip
    assert run("hst.fits", "muse.fits", *options) == 0
    out, err = capsys.readouterr()
    assert "Report of HST image photometry fit of MUSE observation muse" in out
    assert "Report of HST stars photometry fit of MUSE observation muse" in out
    assert "--taper, --segment have no effect" in err
    kinds = {"image.fits", "hst_model.fits", "residual.fits", "aligned.fits", "image_fit.pdf", "star_fit.pdf"}
    assert made(folder) == {"mask.fits", "keep.reg", "t.fits"} | {f"muse_{kind}" for kind in kinds}
    table = Table.read("t.fits")
    assert table["beta"].tolist() == [2.8, 2.8]
    assert table["beta_fixed"].tolist() == [True, True]
    assert abs(table["rotation"][0]) < 0.3
    assert table["ellipticity"][0] < 0.05
    assert np.abs(table["dx"] - 0.1).max() < 0.02
    used = np.isfinite(read_image("muse_image.fits").values)
    assert not used[:6].any()
    assert not used[39, 7]
    assert used[20:28, 20:28].all()
    assert fits.getheader("muse_aligned.fits")["ALIGNED"] == "resample"


@pytest.mark.slow
def test_star_with_the_older_method(folder, capsys):
    options = [*star(2.5), "--taper", "5", "--extramask", "none", "--resample", "--hst_fwhm", "0.085", "--fix_beta", "2.8"]
    assert run("hst_on_muse.fits", "muse.fits", *options, "--method", "fourier") == 0
    image, stars = (line.split() for line in capsys.readouterr().out.splitlines()[3:])
    assert (image[1], stars[1]) == ("image", "stars")
    assert abs(float(image[6]) - 0.1) < 0.03
    assert abs(float(stars[6]) - 0.1) < 0.01
    assert made(folder) == {"muse_aligned.fits"}


def test_swapped_images_are_a_wrong_command(folder, capsys):
    before = made(folder)
    for muse in (["hst.fits"], ["hst.fits", "hst_counts.fits"]):
        assert run("muse.fits", *muse, "--table", "out.ecsv") == 2
        said = capsys.readouterr()
        assert said.out == ""
        lines = [line for line in said.err.splitlines() if line.strip()]
        assert len(lines) == 1
        assert "hst must have pixels no larger than those of muse" in lines[0]
        assert "swapped" in lines[0]
    assert made(folder) == before


def test_options_of_the_psf_of_hst_and_the_loss(folder, capsys):
    held = ["--fix-dx", "0.1", "--fix-dy", "-0.15", "--fix-beta", "2.8", "--fix-fwhm", "0.65"]
    plain = ["hst.fits", "muse.fits", *held, "--quiet"]
    assert run(*plain, "--table", "plain.json") == 0
    assert run(*plain, "--hst-fwhm-error", "0.02", "--hst-beta-error", "0.1", "--table", "known.json") == 0
    one, two = (json.loads((folder / name).read_text())["results"][0] for name in ("plain.json", "known.json"))
    assert two["options"]["hst_psf_error"] == [0.02, 0.1]
    assert two["scale"]["value"] == one["scale"]["value"]
    assert two["scale"]["error"] > 1.2 * one["scale"]["error"]
    assert one["significance"] > 50
    assert set(one["misfit"]) == {"x", "y", "share", "expected", "ra_dec"}
    assert run(*plain, "--hst-sampled", "0.05", "--loss", "student_t", "--table", "other.json") == 0
    options = json.loads((folder / "other.json").read_text())["results"][0]["options"]
    assert (options["hst_psf"]["sampled"], options["loss"]) == (0.05, "student_t")
    capsys.readouterr()
    assert run("hst.fits", "muse.fits", "--hst-beta-error", "-1") == 2
    assert "hst_psf_error must be" in capsys.readouterr().err
