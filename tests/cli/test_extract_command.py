"""``ifujax extract``: AutoSpec's folders and new ones, what is written, what fails, and that nothing is lost."""

from __future__ import annotations

import re

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from ifujax.cli.app import main
from ifujax.cli.job import Run
from ifujax.io.demo import demo_file
from ifujax.io.spectra import read_spectrum
from tests.extraction.fields import WAVELENGTH, field
from tests.reference import reference_data

CENTRE = (150.0, 2.0)
X, Y = np.array([7.3, 20.1, 22.4]), np.array([9.2, 20.6, 7.8])


def celestial() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], CENTRE, [15.5, 15.5], [-5.5e-5, 5.5e-5]
    wcs.wcs.cd = np.diag([-0.2 / 3600, 0.2 / 3600])
    return wcs


def write_cube(path, values, variance, wavelength=WAVELENGTH):
    header = celestial().to_header()
    header.update(
        {
            "CTYPE3": "AWAV",
            "CRVAL3": wavelength[0],
            "CRPIX3": 1.0,
            "CUNIT3": "Angstrom",
            "BUNIT": "10**(-20)*erg/s/cm**2/Angstrom",
        }
    )
    header["CD3_3"] = wavelength[1] - wavelength[0]
    for name in ("CD1_1", "CD2_2"):
        header[name] = (-1 if name == "CD1_1" else 1) * 0.2 / 3600
    for name in ("PC1_1", "PC2_2", "CDELT1", "CDELT2"):
        header.pop(name, None)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(values.astype("f4"), header, name="DATA")]
    if variance is not None:
        hdus.append(fits.ImageHDU(variance.astype("f4"), header, name="STAT"))
    fits.HDUList(hdus).writeto(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder with a cube of three sources and their catalogue."""
    monkeypatch.chdir(tmp_path)
    spectra = np.array([[4.0], [8.0], [2.0]]) * (1 + 2 * np.exp(-0.5 * (WAVELENGTH - 6500) ** 2 / 100))
    made = field(np.random.default_rng(1), X, Y, spectra, WAVELENGTH)
    write_cube("cube.fits", made.cube.values, made.cube.uncertainty)
    ra, dec = celestial().wcs_pix2world(X, Y, 0)
    rows = [f"{k + 11} {a:.7f} {d:.7f}" for k, (a, d) in enumerate(zip(ra, dec))]
    (tmp_path / "cat.txt").write_text("# id ra dec\n" + "\n".join(rows) + "\n")
    return tmp_path


def run(*arguments):
    return main(["extract", "cube.fits", "--catalog", "cat.txt", *arguments])


def test_what_is_written(folder, capsys):
    assert run("--aper", "0.6,1.0", "--output", "out") == 0
    said = capsys.readouterr().out
    assert "3 of 3 sources extracted" in said
    assert re.search(r"PSF: FWHM (0.69|0.70)", said)
    names = sorted(path.name for path in (folder / "out").iterdir() if not path.name.startswith("."))
    assert names == sorted(["logs", "summary.ecsv", *(f"Source_{k}.{end}" for k in (11, 12, 13) for end in ("fits", "png"))])
    table = Table.read(folder / "out" / "summary.ecsv")
    assert list(table["id"]) == ["11", "12", "13"]
    assert table["success"].all()
    np.testing.assert_allclose(table["flux_scene"], [4.0, 8.0, 2.0], rtol=0.03)
    assert table.meta["psf"]["fwhm_arcsec"] == pytest.approx(0.7, abs=0.02)
    with fits.open(folder / "out" / "Source_12.fits", checksum=True) as file:
        header = file[0].header
        assert (header["ID"], header["CUBE"], header["EXT"], header["FORMAT"]) == (12, "cube.fits", "ifujax", "0.6")
        for name in ("MUSE_SKY", "MUSE_TOT_SKYSUB", "MUSE_APER_0.6_SKYSUB", "MUSE_WHITE_SKYSUB", "MUSE_WHITE_CONTSUB_SKYSUB",
                     "CROSS_CORRELATION_SKYSUB", "CROSS_CORRELATION_CONTSUB_SKYSUB", "SCENE", "HORNE"):  # fmt: skip
            assert f"SPE_{name}_DATA" in file
            assert f"SPE_{name}_STAT" in file
        stamp = WCS(file["IMA_MUSE_WHITE_DATA"].header)
        x, y = stamp.wcs_world2pix(header["RA"], header["DEC"], 0)
        white = file["IMA_MUSE_WHITE_DATA"].data
        assert np.unravel_index(np.nanargmax(white), white.shape) == (round(float(y)), round(float(x)))
    spectrum = read_spectrum(folder / "out" / "Source_12.fits", redshift=0.0)
    np.testing.assert_allclose(spectrum.wavelength, WAVELENGTH)
    assert np.median(spectrum.values) == pytest.approx(8.0, rel=0.03)
    assert spectrum.medium == "air"
    assert "SPE_SCENE_DATA was taken" in spectrum.notes[0]
    other = read_spectrum(folder / "out" / "Source_12.fits", scidata="SPE_MUSE_TOT_SKYSUB_DATA", redshift=0.0)
    assert other.uncertainty is not None


def test_mpdaf_opens_it(folder):
    sdetect = pytest.importorskip("mpdaf.sdetect", reason="mpdaf has no wheel for this Python")
    assert run("--output", "out", "--no-plots", "--out-sub") == 0
    source = sdetect.Source.from_file(str(folder / "out" / "Source_11.fits"))
    assert source.ID == 11
    assert {"SCENE", "MUSE_TOT_SKYSUB"} <= set(source.spectra)
    np.testing.assert_allclose(source.spectra["SCENE"].wave.coord(), WAVELENGTH)
    assert source.images["MUSE_WHITE"].shape == (25, 25)
    assert source.cubes["MUSE"].shape == (len(WAVELENGTH), 25, 25)
    assert str(source.spectra["SCENE"].unit).replace(" ", "").startswith("1e-20")


def test_bad_sources_do_not_stop_the_others(folder, capsys):
    with open("cat.txt", "a") as file:
        file.write("14 150.1 2.0\n15 sky 2.0\n11 150.0 2.0\n16 150.0 89\n")
    assert run("--output", "out", "--no-plots") == 0
    table = Table.read(folder / "out" / "summary.ecsv")
    reasons = {(str(row["id"]), bool(row["success"])): str(row["reason"]) for row in table}
    assert ("11", True) in reasons
    assert "must lie in the field" in reasons["14", False]
    assert "sexagesimal" in reasons["15", False]
    assert "unique" in reasons["11", False]
    assert ("16", False) in reasons
    assert sum(table["success"]) == 3
    assert "source 14: the position must lie in the field" in capsys.readouterr().err


def test_no_source_is_a_failure(folder, capsys):
    (folder / "cat.txt").write_text("1 150.1 2.0\n")
    assert run("--output", "out", "--no-plots") == 1
    assert "0 of 1 sources" in capsys.readouterr().out


def test_nothing_is_overwritten(folder, capsys):
    assert run("--output", "out", "--id", "11", "--no-plots") == 0
    before = (folder / "out" / "Source_11.fits").read_bytes()
    assert run("--output", "out", "--id", "11", "--no-plots") == 1
    assert "must not exist" in capsys.readouterr().err
    assert (folder / "out" / "Source_11.fits").read_bytes() == before
    assert run("--output", "out", "--id", "11", "--no-plots", "-o") == 0
    assert run("--output", "out", "--id", "99") == 2
    assert "--id" in capsys.readouterr().err


def test_a_stopped_run_goes_on(folder, monkeypatch, capsys):
    write = Run.write

    def stops(self, name, make):
        if name == "source 13":
            raise KeyboardInterrupt
        write(self, name, make)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "write", stops)
        assert run("--output", "out", "--no-plots") == 130
    assert "goes on where it was" in capsys.readouterr().err
    first = (folder / "out" / "Source_11.fits").stat().st_mtime_ns
    assert not (folder / "out" / "Source_13.fits").exists()
    assert run("--output", "out", "--no-plots") == 0
    assert (folder / "out" / "Source_11.fits").stat().st_mtime_ns == first
    assert (folder / "out" / "Source_13.fits").exists()


def test_settings_of_sources_in_the_catalogue(folder):
    lines = (folder / "cat.txt").read_text().splitlines()
    rows = ["id,ra,dec,size,ref,sky_subtraction"]
    own = (("4", "", "no"), ("", "0.6", ""), ("3", "x", ""))
    rows += [",".join([*line.split(), *cells]) for line, cells in zip(lines[1:], own)]
    (folder / "cat.txt").write_text("\n".join(rows) + "\n")
    assert run("--output", "out", "--mode", "cat", "--aper", "0.6", "--no-plots") == 0
    shapes = {}
    for k in (11, 12, 13):
        with fits.open(folder / "out" / f"Source_{k}.fits") as file:
            shapes[k] = (file["IMA_MUSE_WHITE_DATA"].shape, file[0].header["REFSPEC"], "SPE_MUSE_SKY_DATA" in file)
    assert shapes == {
        11: ((20, 20), "MUSE_WHITE", False), 12: ((25, 25), "MUSE_APER_0.6", True), 13: ((15, 15), "MUSE_WHITE", True)
    }  # fmt: skip
    table = Table.read(folder / "out" / "summary.ecsv")
    assert "other_reference" in table["flags"][2]


def test_no_variance_and_given_psf(folder):
    with fits.open("cube.fits") as file:
        write_cube("bare.fits", file["DATA"].data, None)
    arguments = ["extract", "bare.fits", "--catalog", "cat.txt", "--psf", "0.7,50,-0.03,7000", "--no-plots", "--output", "out"]
    assert main(arguments) == 0
    table = Table.read(folder / "out" / "summary.ecsv")
    assert all("no_variance" in flags for flags in table["flags"])
    np.testing.assert_allclose(table["flux_scene"], [4.0, 8.0, 2.0], rtol=0.03)
    with fits.open(folder / "out" / "Source_11.fits") as file:
        assert "SPE_MUSE_TOT_SKYSUB_STAT" not in file
        assert "SPE_SCENE_STAT" in file


def test_logarithmic_wavelengths(folder):
    wavelength = 4750.0 * np.exp(2e-3 * np.arange(300))
    made = field(np.random.default_rng(2), X, Y, np.full((3, 300), 5.0), wavelength)
    write_cube("log.fits", made.cube.values, made.cube.uncertainty)
    with fits.open("log.fits", mode="update") as file:
        for name in ("DATA", "STAT"):
            file[name].header.update({"CTYPE3": "AWAV-LOG", "CRVAL3": 4750.0, "CD3_3": 4750.0 * 2e-3})
    assert main(["extract", "log.fits", "--catalog", "cat.txt", "--no-plots", "--output", "out", "-q"]) == 0
    spectrum = read_spectrum(folder / "out" / "Source_11.fits", redshift=0.0)
    np.testing.assert_allclose(spectrum.wavelength, wavelength, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract"], 2, "param.py of AutoSpec"),
        (["extract", "cube.fits"], 2, "--catalog must be given"),
        (["extract", "cube.fits", "--catalog", "none.txt"], 1, "isn't there"),
        (["extract", "none.fits", "--catalog", "cat.txt"], 1, "none.fits"),
        (["extract", "cube.fits", "--catalog", "cat.txt", "--aper", "wide"], 2, "--aper must be radii"),
        (["extract", "cube.fits", "--catalog", "cat.txt", "--psf", "0.7"], 2, "--psf must be FWHM"),
        (["extract", "cube.fits", "--catalog", "cat.txt", "--psf", "cat.txt"], 1, "columns fwhm and beta|must be a table"),
        (["extract", "cube.fits", "--catalog", "cat.txt", "--img", "none.fits"], 1, "none.fits"),
        (["extract", "cube.fits", "--catalog", "cat.txt", "--cmap", "colourful", "--output", "o"], 2, "colormap must be"),
        (["extract", "cube.fits", "--catalog", "cat.txt", "--output", "cat.txt"], 1, "--output must be a folder"),
        (["extract", "cube.fits", "--catalog", "cat.txt", "--size", "-3"], 2, "size must be"),
        (["extract", "cube.fits", "--catalog", "cat.txt", "--sky_degree", "9"], 2, "sky_degree must be"),
    ],
)
def test_what_is_wrong_is_said(folder, capsys, arguments, code, message):

    assert main(arguments) == code
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "output" / "summary.ecsv").exists()


@pytest.mark.slow
def test_autospec_folder(tmp_path, monkeypatch):
    """The command in a folder with AutoSpec's own param.py, its segmentation maps given: its spectra to 1e-6."""
    stored = np.load(reference_data("source_extraction", "autospec", "run_minicube.npz"), allow_pickle=True)
    home = reference_data("source_extraction", "autospec", "run_minicube")
    monkeypatch.chdir(tmp_path)
    for name in ("param.py", "catalog.txt"):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    (tmp_path / "datacube.fits").symlink_to(demo_file("minicube.fits"))
    with fits.open(demo_file("minicube.fits")) as file:
        cards = WCS(file["DATA"].header).celestial.to_header()
        shape = file["DATA"].shape[1:]
    for source in "1234568":
        x, y = WCS(cards).wcs_world2pix(*stored[f"{source}/radec"], 0)
        first = int(np.floor(y + 0.5)) - 12, int(np.floor(x + 0.5)) - 12
        names = {"hst.fits": "IMA_HST", "SEG_A.fits": "IMA_SEG_MUSE_WHITE", "SEG_B.fits": "IMA_SEG_HST"}
        for name, key in names.items():
            stamp = stored[f"{source}/{key}_DATA"]
            whole = np.zeros(shape, stamp.dtype.newbyteorder("=")) if "SEG" in name else np.full(shape, np.nan)
            inside = tuple(slice(max(at, 0), min(at + 25, n)) for at, n in zip(first, shape))
            whole[inside] = stamp[tuple(slice(part.start - at, part.stop - at) for part, at in zip(inside, first))]
            fits.HDUList([fits.PrimaryHDU(whole, cards)]).writeto(name, overwrite=True)
        masks = ["--no-use-imgs", "--seg", "SEG_A.fits", "--seg", "SEG_B.fits", "--max-distance", "99"]
        assert main(["extract", "--id", source, *masks, "--no-scene", "--no-plots", "--output", f"out{source}", "-q"]) == 0
        with fits.open(f"out{source}/Source_{source}.fits") as file:
            assert file[0].header["CUBE"] == "minicube.fits"
            compared = 0
            for key in stored.files:
                if not key.startswith(f"{source}/SPE_") or not np.any(stored[key]):
                    continue
                name, theirs = key.split("/")[1], stored[key].astype(float)
                limit = 1e-5 if name.startswith("SPE_CROSS_CORRELATION_CONTSUB") else 1e-6
                assert np.nanmax(np.abs(file[name].data - theirs)) < limit * np.nanmax(np.abs(theirs)), key
                compared += 1
            assert compared >= 12
