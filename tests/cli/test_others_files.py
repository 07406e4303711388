"""The command line among links, files of others and forged chunks: nothing is lost, and nothing forged is believed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from ifujax.cli.app import main
from ifujax.lines.results import CubeFit

CONFIG = """\
[loading]
redshift: 0
[fit]
fit_continuum: yes
[continuum]
degree: 1
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -300:300
sigma: 100, 20:300
"""
CHUNKS, LOCK, PRODUCT = ".cube_linefit.fits.chunks", ".cube_linefit.fits.lock", "cube_linefit.fits"
SOMEBODY = 54321
PEAK, SIGMA = 50.0, 110.0
FLUX = PEAK * np.sqrt(2 * np.pi) * SIGMA / 299792.458 * 6562.8
"""Of the line in the cube of `folder`, in every spaxel."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder with a small cube of one Gaussian line, beside another one that holds somebody's files."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    wavelength = 6500.0 + 1.25 * np.arange(112)  # as many pixels as in other tests of the command: programs are shared
    offset = (wavelength / 6562.8 - 1) * 299792.458
    line = 10.0 + PEAK * np.exp(-0.5 * (offset / SIGMA) ** 2)
    noise = np.random.default_rng(11).standard_normal((len(wavelength), 2, 3))
    cube = (line[:, None, None] + noise).astype(np.float32)
    cards = {"CTYPE3": "AWAV", "CUNIT3": "Angstrom", "CRPIX3": 1.0, "CRVAL3": wavelength[0], "CD3_3": 1.25}
    data = fits.ImageHDU(cube, fits.Header(cards), name="DATA")
    variance = fits.ImageHDU(np.ones_like(cube), fits.Header(cards), name="STAT")
    fits.HDUList([fits.PrimaryHDU(), data, variance]).writeto("cube.fits")
    Path("ha.cfg").write_text(CONFIG)
    (tmp_path / "theirs").mkdir()
    for name in ("thesis.tex", "identity.json", "fit-000000000.npz", "README.txt"):
        (tmp_path / "theirs" / name).write_text("precious")
    return tmp_path


def run(capsys, *arguments):
    code = main(["fit-cube", "cube.fits", "-c", "ha.cfg", "-q", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def tree(folder: Path) -> dict[str, object]:
    """Everything about everything in a folder, but when folders changed; links not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else os.readlink(path) if path.is_symlink() else None
        changed = 0 if path.is_dir() else facts.st_mtime_ns
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_uid, changed, facts.st_ino, content)
    return found


def refused(capsys, folder, match, *arguments):
    before = tree(folder)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("ifujax: error: ")
    assert match in err
    assert err.count("\n") == 1
    assert tree(folder) == before


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("options", [(), ("-o",), ("--no-resume",), ("-o", "-l")])
def test_a_link_in_place_of_the_chunks(capsys, folder, damaged, options):
    if damaged:
        raw = Path("cube.fits").read_bytes()
        Path("cube.fits").write_bytes(raw[: len(raw) // 2])
    Path(CHUNKS).symlink_to(folder / "theirs")
    refused(capsys, folder, "is a link", *options)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("options", [(), ("-o",), ("--no-resume",), ("-o", "-l")])
def test_a_link_in_place_of_the_lock(capsys, folder, damaged, options):
    if damaged:
        raw = Path("cube.fits").read_bytes()
        Path("cube.fits").write_bytes(raw[: len(raw) // 2])
    Path(LOCK).symlink_to(folder / "theirs" / "thesis.tex")
    refused(capsys, folder, f"{LOCK} must be a file of a run; it is a link", *options)


def test_links_at_the_other_outputs(capsys, folder):
    # Their locks are taken before anything of the first output is touched.
    Path(".maps.fits.lock").symlink_to(folder / "theirs" / "thesis.tex")
    Path(".partial-0123456789ab-maps.fits").write_text("half")
    refused(capsys, folder, ".maps.fits.lock must be a file of a run", "--maps", "maps.fits", "-p")
    Path(".maps.fits.lock").unlink()
    Path(CHUNKS).symlink_to(folder / "theirs")
    refused(capsys, folder, "is a link", "--maps", "maps.fits", "-p")


def test_a_folder_that_holds_somebodys_files(capsys, folder):
    (folder / "theirs").rename(CHUNKS)
    refused(capsys, folder, "holds 'thesis.tex', which no run puts there")


def test_a_damaged_cube_costs_no_chunks(capsys, folder, monkeypatch):
    stopped(capsys, monkeypatch)
    before = tree(Path(CHUNKS))
    raw = Path("cube.fits").read_bytes()
    Path("cube.fits").write_bytes(raw[: len(raw) // 2])
    code, _, err = run(capsys)
    assert code == 1
    assert "complete FITS file" in err
    assert tree(Path(CHUNKS)) == before


def stopped(capsys, monkeypatch):
    """Make a fit that is stopped before its product is written."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CubeFit, "write", interrupt)
        assert run(capsys, "--chunk-size", "3")[0] == 130
    assert len(list(Path(CHUNKS).glob("fit-*.npz"))) == 2
    assert not Path(PRODUCT).exists()


def forge():
    """Make every strength of all chunks seven times what it was."""
    for path in Path(CHUNKS).glob("fit-*.npz"):
        with np.load(path) as arrays:
            forged = {name: 7 * arrays[name] if arrays[name].dtype == float else arrays[name] for name in arrays.files}
        np.savez(path, **forged)
        raw = path.read_bytes()
        comment = f"{len(forged)} arrays".encode()
        path.write_bytes(raw[:-2] + len(comment).to_bytes(2, "little") + comment)  # as an archive of a run has it


def fluxes():
    return np.ravel(np.asarray(fits.getdata(PRODUCT, "FLUX_M")))


def test_forged_chunks(capsys, folder, monkeypatch):
    stopped(capsys, monkeypatch)
    forge()
    again = ("--chunk-size", "3")
    # That it would work: in a folder of one's own they are one's own.
    assert run(capsys, *again)[0] == 0
    np.testing.assert_allclose(fluxes() / FLUX, 7, rtol=0.3)
    Path(PRODUCT).unlink()

    stopped(capsys, monkeypatch)
    forge()
    Path(CHUNKS).chmod(0o777)
    refused(capsys, folder, "can be written to by others", *again)
    Path(CHUNKS).chmod(0o700)
    chunk = sorted(Path(CHUNKS).glob("fit-*.npz"))[0]
    chunk.chmod(0o666)
    refused(capsys, folder, f"holds '{chunk.name}', which can be written to by others", *again)
    chunk.chmod(0o600)
    Path(CHUNKS).rename(folder / "forged")
    Path(CHUNKS).symlink_to(folder / "forged")
    refused(capsys, folder, "is a link", *again)
    Path(CHUNKS).unlink()
    (folder / "forged").rename(CHUNKS)
    if os.geteuid() == 0:
        os.chown(chunk, SOMEBODY, SOMEBODY)
        refused(capsys, folder, f"holds '{chunk.name}', which belongs to another user", *again)
        os.chown(CHUNKS, SOMEBODY, SOMEBODY)
        refused(capsys, folder, "belongs to another user", *again)
        refused(capsys, folder, "belongs to another user", *again, "--no-resume")
        os.chown(chunk, 0, 0)
        os.chown(CHUNKS, 0, 0)
    # As the message says; and the fit is right.
    Path(CHUNKS).chmod(0o777)
    assert run(capsys, *again, "--no-resume") == (0, "", "")
    np.testing.assert_allclose(fluxes() / FLUX, 1, rtol=0.1)
    assert sorted(path.name for path in Path().iterdir()) == ["cube.fits", PRODUCT, "ha.cfg"]


def test_a_note_in_a_folder_that_others_can_write_to_overwrites_nothing(capsys, folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CubeFit, "write_maps", interrupt)
        assert run(capsys, "--chunk-size", "3", "--maps", "maps.fits")[0] == 130
    assert Path(PRODUCT).exists()
    Path(CHUNKS).chmod(0o777)
    refused(capsys, folder, f"output must not exist; got {PRODUCT}", "--chunk-size", "3", "--maps", "maps.fits")
    Path(CHUNKS).chmod(0o700)
    assert run(capsys, "--chunk-size", "3", "--maps", "maps.fits")[0] == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_only_be_read(capsys, folder):
    Path.cwd().chmod(0o500)
    try:
        refused(capsys, folder, "no permission")
    finally:
        Path.cwd().chmod(0o700)
