"""One spectrum: the same fit as a cube of one spaxel, its product, its figures, its command."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from matplotlib.figure import Figure

import ifujax
from ifujax import simulate
from ifujax.cli.app import main
from ifujax.errors import UsageError
from ifujax.lines.figures import line_groups

CONFIG = """\
[loading]
scidata: SCI
variance: VAR
redshift: 0.01
[fit]
fitting_window: 6480:6640
fit_continuum: yes
{more}
[continuum]
degree: 1
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -400:400
sigma: 80, 20:400
k_group: 0
[n2]
rest_wavelength: 6583.46
amplitude: peak, 0:
k_group: 0
"""


@pytest.fixture(scope="module")
def disc():
    return simulate.cube((3, 3), bad_fraction=0.02, scale_radius=30.0, seed=8)


@pytest.fixture(scope="module")
def spectrum(disc):
    return disc.cube.spectrum(1, 1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "halpha.cfg"
    path.write_text(CONFIG.format(more=""))
    return path


@pytest.fixture(scope="module")
def fit(spectrum, config):
    return ifujax.fit_spectrum(spectrum, ifujax.read_config(config))


@pytest.fixture
def file(spectrum, tmp_path):
    """A spectrum as a simple file has it."""
    cards = {"CRVAL1": spectrum.wavelength[0], "CDELT1": 1.25, "CRPIX1": 1.0, "CUNIT1": "Angstrom", "CTYPE1": "AWAV"}
    header = fits.Header(cards)
    planes = [
        fits.ImageHDU(np.asarray(plane, np.float64), header, name=name)
        for name, plane in (("SCI", spectrum.values), ("VAR", spectrum.uncertainty))
    ]
    path = tmp_path / "nucleus.fits"
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path)
    return path


def test_agrees_with_the_cube(disc, config, fit) -> None:
    cube = ifujax.fit_cube(disc.cube, ifujax.read_config(config))
    assert fit.status == cube.status[1, 1] == 0
    for line in fit.lines:
        for name in fit.quantities:
            assert fit[line, name] == pytest.approx(cube[line, name][1, 1], rel=1e-5, nan_ok=True)
            assert fit.error[line, name] == pytest.approx(cube.error[line, name][1, 1], rel=1e-5, nan_ok=True)
    assert fit.chi2 == pytest.approx(cube.chi2[1, 1], rel=1e-8)
    assert fit.dof == cube.dof[1, 1]


def test_says_what_it_found(fit) -> None:
    assert isinstance(fit["ha", "flux"], float)
    assert dict(fit.error)["ha", "flux"] == fit.error["ha", "flux"]
    text = fit.describe()
    assert "spaxel" not in text
    assert "n2 (6583.46 Angstrom)" in text
    assert "reduced chi2" in fit.summary()


def test_a_cube_is_no_spectrum(disc, config) -> None:
    with pytest.raises(UsageError, match="must be a Spectrum; got Cube. Use read_spectrum, or fit_cube"):
        ifujax.fit_spectrum(disc.cube, ifujax.read_config(config))


def test_figures(fit) -> None:
    assert isinstance(fit.plot(), Figure)
    groups = line_groups(fit.as_cube)
    assert len(groups) == 1  # H-alpha and [N II] touch
    low, high = groups[0]
    assert low < 6562.8 < 6583.46 < high
    axes = fit.plot(focused=True).axes
    assert axes[0].get_xlim()[0] >= low - 1.25


def test_product_has_no_spatial_axes(fit, tmp_path) -> None:
    path = fit.write(tmp_path / "out.fits")
    with fits.open(path) as product:
        shapes = {hdu.name: hdu.data.shape for hdu in product if hdu.is_image and hdu.data is not None}
        n = fit.spectra.rest_wavelength.size
        assert {shapes[name] for name in ("RESTWAVE", "FITSPEC", "VAR", "FITCONT", "STELLAR", "MODEL", "FLAGS")} == {(n,)}
        assert shapes["SOLUTION"] == shapes["SOLUTION_ERR"] == shapes["INIGUESS"] == (6,)
        assert shapes["FLUX_M"] == shapes["EQW_D"] == (2,)
        assert shapes["RED_CHI"] == (1, 1)
        assert shapes["STATUS"] == (1,)
        assert "MASK2D" not in shapes
        assert "SPECIDX" not in [hdu.name for hdu in product]
        assert product["SOLUTION"].data[1] == fit["ha", "velocity"]
        np.testing.assert_allclose(product["MODEL"].data, fit.spectra.model[0], rtol=1e-6)
        header = product["FITSPEC"].header
        assert header["CRVAL1"] == pytest.approx(fit.spectra.rest_wavelength[0])
        for hdu in product:
            assert not {"CRVAL2", "CRVAL3", "CD3_3", "CTYPE2"} & set(hdu.header), hdu.name


class TestCommand:
    """``ifujax fit-spectrum``."""

    def test_writes_product_and_picture(self, file, config, tmp_path, monkeypatch, capsys, fit) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["fit-spectrum", str(file), "-c", str(config), "-p", "--no-cache"]) == 0
        out = capsys.readouterr().out
        assert "nucleus.fits: chi2" in out
        assert "wrote nucleus_linefit.fits" in out
        with fits.open(tmp_path / "nucleus_linefit.fits") as product:
            assert product["FLUX_M"].data[0] == pytest.approx(fit["ha", "flux"], rel=1e-3)  # flags are not in the file
        assert (tmp_path / "nucleus_linefit.png").read_bytes().startswith(b"\x89PNG")
        # Nothing is overwritten unless asked for, and no lock stays behind.
        assert sorted(path.name for path in tmp_path.iterdir()) == ["nucleus.fits", "nucleus_linefit.fits", "nucleus_linefit.png"]
        assert main(["fit-spectrum", str(file), "-c", str(config), "--no-cache"]) == 1
        assert "must not exist" in capsys.readouterr().err
        assert main(["fit-spectrum", str(file), "-c", str(config), "-l", "--no-cache"]) == 0
        assert "skipped" in capsys.readouterr().out

    def test_one_bad_file_does_not_stop_the_others(self, file, config, tmp_path, monkeypatch, capsys) -> None:
        monkeypatch.chdir(tmp_path)
        bad = tmp_path / "bad.fits"
        bad.write_text("no FITS")
        assert main(["fit-spectrum", str(bad), str(file), "-c", str(config), "--focused-plot", "-q", "--no-cache"]) == 1
        assert "bad.fits must be a FITS file" in capsys.readouterr().err
        assert (tmp_path / "nucleus_linefit.fits").exists()

    def test_options_of_cubes_have_no_effect(self, file, tmp_path, monkeypatch, capsys) -> None:
        monkeypatch.chdir(tmp_path)
        recipe = tmp_path / "cube.cfg"
        recipe.write_text(CONFIG.format(more="").replace("[loading]", "[loading]\nspatial_mask: MASK"))
        assert main(["fit-spectrum", str(file), "-c", str(recipe), "--no-cache"]) == 0
        assert "[loading] spatial_mask: no effect on a spectrum" in capsys.readouterr().err
        assert main(["fit-spectrum", str(file), "-c", str(recipe), "-c", str(recipe), "--no-cache"]) == 2
        assert "--config must be given once" in capsys.readouterr().err
