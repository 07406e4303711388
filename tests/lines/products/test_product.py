"""The products of a fitted cube: what is in the files, and that no half of one is left behind."""

from __future__ import annotations

import errno
import warnings

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS
from matplotlib.figure import Figure

from ifujax import simulate
from ifujax.errors import DataError, UsageError
from ifujax.inference.parameter_space.declarations import Bounded, Tied
from ifujax.inference.status import NO_DATA, SKIPPED, STATUS_FLAGS, WARN_FLAGS
from ifujax.io import streamed
from ifujax.lines.config import LSF, EmissionModel, Kinematics, Line
from ifujax.lines.figures import example_spaxels, strongest_line
from ifujax.lines.products.headers import cube_header
from ifujax.lines.products.maps import extension_names
from ifujax.lines.products.product import BAD_INPUT, SPAXEL_FAILED
from ifujax.lines.run import fit_cube

SHAPE = (5, 6)
NAN, MASKED = (1, 2), (3, 4)
IFSCUBE = [
    "PRIMARY",
    "RESTWAVE",
    "FITSPEC",
    "VAR",
    "FITCONT",
    "STELLAR",
    "MODEL",
    "SOLUTION",
    "RED_CHI",
    "INIGUESS",
    "FLUX_M",
    "FLUX_D",
    "EQW_M",
    "EQW_D",
    "STATUS",
    "MASK2D",
    "SPECIDX",
    "PARNAMES",
    "FEATWL",
    "FITCONFIG",
]
OURS = [
    "SOLUTION_ERR", "FLUX_M_ERR", "FLUX_D_ERR", "EQW_M_ERR", "EQW_D_ERR", "VELDISP", "VELDISP_ERR", "WARN", "LINEWARN", "DOF",
    "STRETCH", "NOISECOR", "FLAGS",
]  # fmt: skip
LINES = ("ha", "n2b")


@pytest.fixture(scope="module")
def fit():
    disc = simulate.cube(SHAPE, nan_spaxels=[NAN], masked_spaxels=[MASKED], bad_fraction=0.01, scale_radius=20.0, seed=1)
    kin = Kinematics(Bounded(-400, 400, start=0), Bounded(20, 400, start=80))
    model = EmissionModel(
        [
            Line("ha", 6562.80, kin),
            Line("n2b", 6583.46, kin),
            Line("n2a", 6548.04, kin, flux=Tied("n2b.flux / 3.06")),
        ],
        continuum_degree=1,
        lsf=LSF.constant(disc.lsf_fwhm),
    )
    return fit_cube(disc.cube, model, window=(6480, 6660))


@pytest.fixture(scope="module")
def product(fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("product") / "out.fits"
    calls = []
    assert fit.write(path, progress=lambda *call: calls.append(call)) == path
    assert calls[-1] == ("write", 30, 30)
    with fits.open(path, memmap=False) as file:
        file.verify("exception")
        yield file


def test_extensions_have_ifscubes_names_and_numbers(product):
    assert [hdu.name for hdu in product] == IFSCUBE + OURS


def test_shapes(fit, product):
    n_wave = fit.cube.shape[0]
    for name in ("FITSPEC", "VAR", "FITCONT", "STELLAR", "MODEL", "FLAGS"):
        assert product[name].data.shape == (n_wave, *SHAPE)
    assert product["RESTWAVE"].data.shape == (n_wave,)
    assert product["SOLUTION"].data.shape == product["SOLUTION_ERR"].data.shape == (9, *SHAPE)
    assert product["INIGUESS"].data.shape == (9,)
    for name in ("FLUX_M", "FLUX_D", "EQW_M", "EQW_D"):
        assert product[name].data.shape == product[f"{name}_ERR"].data.shape == (3, *SHAPE)
    for name in ("RED_CHI", "STATUS", "WARN", "MASK2D", "DOF"):
        assert product[name].data.shape == SHAPE
    assert product["STATUS"].data.dtype.kind == product["WARN"].data.dtype.kind == "i"
    assert product["FITSPEC"].data.dtype.itemsize == 4


def test_planes_are_the_fits_maps(fit, product):
    names = [(row["component"], row["parameter"]) for row in product["PARNAMES"].data]
    assert names[:4] == [("ha", "amplitude"), ("ha", "velocity"), ("ha", "sigma"), ("n2b", "amplitude")]
    for k, key in enumerate(names):
        np.testing.assert_array_equal(product["SOLUTION"].data[k], fit[key])
        np.testing.assert_array_equal(product["SOLUTION_ERR"].data[k], fit.error[key])
    for k, line in enumerate(fit.lines):
        np.testing.assert_array_equal(product["FLUX_M"].data[k], fit[line, "flux"])
        np.testing.assert_array_equal(product["EQW_D_ERR"].data[k], fit.error[line, "equivalent_width_direct"])
    np.testing.assert_array_equal(product["STATUS"].data, fit.status)
    np.testing.assert_array_equal(product["RED_CHI"].data, fit.reduced_chi2)
    np.testing.assert_allclose(product["FEATWL"].data["rest_wavelength"], [6562.80, 6583.46, 6548.04])


def test_cubes_are_the_fits_spectra(fit, product):
    n_wave = fit.cube.shape[0]
    spectra = fit.spectra(np.arange(30))
    model = product["MODEL"].data.reshape(n_wave, -1).T
    np.testing.assert_allclose(model, spectra.model, rtol=1e-6)
    np.testing.assert_allclose(
        model, product["FITCONT"].data.reshape(n_wave, -1).T + spectra.components.sum(axis=1), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(product["FITSPEC"].data, fit.cube.values * (1 + fit.cube.redshift), rtol=1e-6)
    good = np.isfinite(fit.cube.uncertainty)
    np.testing.assert_allclose(product["VAR"].data[good], fit.cube.uncertainty[good] * (1 + fit.cube.redshift) ** 2, rtol=1e-6)
    assert not product["STELLAR"].data.any()
    # Model, data and variance of the file give the chi2 that the file reports.
    fitted = product["FLAGS"].data == 0
    pulls = np.where(fitted, (product["FITSPEC"].data - product["MODEL"].data) ** 2 / product["VAR"].data, 0).sum(axis=0)
    done = fit.status == 0
    np.testing.assert_allclose(pulls[done], (product["RED_CHI"].data * product["DOF"].data)[done], rtol=1e-4)
    assert np.array_equal(fitted.sum(axis=0)[done], fit.n_good[done])


def test_what_was_not_fitted_is_nan_with_its_bit(product):
    assert product["STATUS"].data[NAN] == NO_DATA.value
    assert product["STATUS"].data[MASKED] == SKIPPED.value
    assert product["MASK2D"].data[MASKED] == 1
    assert product["MASK2D"].data.sum() == 1
    for spaxel in (NAN, MASKED):
        for name in ("MODEL", "FITCONT", "SOLUTION", "SOLUTION_ERR", "FLUX_M", "FLUX_D", "EQW_M", "EQW_D_ERR"):
            assert np.isnan(product[name].data[:, *spaxel]).all(), name
        assert np.isnan(product["RED_CHI"].data[spaxel])
        assert (product["FLAGS"].data[:, *spaxel] & SPAXEL_FAILED.value).all()
    others = product["STATUS"].data == 0
    assert others.sum() == 28
    assert np.isfinite(product["MODEL"].data[:, others]).all()


def test_flags(fit, product):
    flags = product["FLAGS"].data
    assert np.array_equal((flags & BAD_INPUT.value) != 0, np.asarray(fit.cube.flags) != 0)
    assert product["FLAGS"].header["BIT0"] == "bad_input"


def test_bits_are_explained(product):
    for name, flags in (("STATUS", STATUS_FLAGS), ("WARN", WARN_FLAGS)):
        header = product[name].header
        for flag in flags:
            assert header[f"BIT{flag.value.bit_length() - 1}"] == flag.name
            assert f"{flag.value}: {flag.sentence}" in "".join(header["COMMENT"])


def test_header_says_how_it_was_made(fit, product):
    header = product[0].header
    assert header["REDSHIFT"] == fit.cube.redshift
    assert header["CONTMODE"] == "joint"
    assert header["PROFILE"] == "integrated"
    assert header["VELCONV"] == "relativistic"
    assert header["EWSIGN"] == "negative"
    assert header["NOISE"] == "given"
    assert header["ERRSCALE"] is False
    assert header["LSF"] == "constant"
    assert header["CREATOR"].startswith("ifujax ")
    assert header["OBJECT"] == "simulated disc"
    assert not {"CRVAL1", "CTYPE3", "BUNIT", "CD1_1"} & set(header)
    config = dict(zip(product["FITCONFIG"].data["parameters"], product["FITCONFIG"].data["values"]))
    assert "n2b.flux / 3.06" in config["n2a.flux"]
    assert len(config["ha.velocity"]) > 64  # nothing is cut
    assert product["FITCONFIG"].columns["values"].format == f"{max(64, *map(len, config.values()))}A"


def test_coordinates(fit, product):
    celestial = fit.cube.celestial
    corner = celestial.pixel_to_world_values(5, 4)
    for name in ("FITSPEC", "MODEL", "FLAGS", "SOLUTION", "FLUX_M_ERR", "STATUS", "RED_CHI", "WARN"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wcs = WCS(product[name].header)
        assert wcs.naxis == product[name].data.ndim
        np.testing.assert_allclose(wcs.celestial.pixel_to_world_values(5, 4), corner, rtol=1e-12)
    cube = WCS(product["MODEL"].header)
    rest = cube.pixel_to_world_values(0, 0, np.arange(fit.cube.shape[0]))[2] * 1e10
    np.testing.assert_allclose(rest, product["RESTWAVE"].data, rtol=1e-9)
    header = product["FITSPEC"].header
    assert (header["CTYPE3"], header["CUNIT3"], header["CRPIX3"]) == ("AWAV", "Angstrom", 1.0)


def test_logarithmic_and_irregular_axes(fit):
    from dataclasses import replace

    n = fit.cube.shape[0]
    logarithmic = 7000 * np.exp(3e-4 * np.arange(n))
    header = cube_header(replace(fit.cube, wavelength=logarithmic, redshift=0.0))
    assert header["CTYPE3"] == "AWAV-LOG"
    given = WCS(header).pixel_to_world_values(0, 0, np.arange(n))[2] * 1e10
    np.testing.assert_allclose(given, logarithmic, rtol=1e-9)
    irregular = np.linspace(80, 90, n) ** 2 + np.sin(np.arange(n))
    assert cube_header(replace(fit.cube, wavelength=irregular))["CTYPE3"] == "PIXEL"
    alone = cube_header(replace(fit.cube, celestial=None))
    assert WCS(alone).pixel_to_world_values(0, 0, 0)[2] * 1e10 == pytest.approx(fit.cube.rest_wavelength[0])


def test_units(product):
    density = units.Unit("1e-20 erg s-1 cm-2 Angstrom-1")
    for name, unit in (
        ("FITSPEC", density),
        ("VAR", density**2),
        ("MODEL", density),
        ("FLUX_M", density * units.AA),
        ("FLUX_D_ERR", density * units.AA),
        ("EQW_M", units.AA),
        ("RESTWAVE", units.AA),
    ):
        found = units.Unit(product[name].header["BUNIT"], format="fits")
        assert found.is_equivalent(unit)
        assert found.to(unit) == pytest.approx(1.0)
    header = product["SOLUTION"].header
    assert "BUNIT" not in header
    assert header["PLANE002"] == "ha velocity"
    assert header["PUNIT002"] == "km s-1"


def test_maps(fit, tmp_path):
    path = fit.write_maps(tmp_path / "maps.fits")
    with fits.open(path) as file:
        file.verify("exception")
        names = [hdu.name for hdu in file]
        assert len(set(names)) == len(names)
        for line in fit.lines:
            for quantity in fit.quantities:
                hdu = file[f"{line}_{quantity}".upper()]
                np.testing.assert_array_equal(hdu.data, fit[line, quantity])
                assert hdu.header["LINE"] == line
                assert WCS(hdu.header).has_celestial
                if quantity != "snr":
                    np.testing.assert_array_equal(file[f"{hdu.name}_ERR"].data, fit.error[line, quantity])
                    units.Unit(hdu.header["BUNIT"], format="fits")
        assert "HA_SNR_ERR" not in names
        np.testing.assert_array_equal(file["STATUS"].data, fit.status)
        assert file["STATUS"].header["BIT0"] == "no_data"
        assert file["HA_VELOCITY_DISPERSION"].data[0, 0] < file["HA_SIGMA"].data[0, 0]
        assert "FITCONFIG" in names


def test_lines_that_differ_in_case_alone_keep_names_of_their_own():
    assert extension_names(["ha", "Ha", "n2"]) == ["HA", "HA2", "N2"]


@pytest.mark.parametrize("write", ["write", "write_maps"])
def test_nothing_is_replaced_unasked(fit, tmp_path, write):
    path = tmp_path / "out.fits"
    path.write_text("mine")
    with pytest.raises(UsageError, match="overwrite"):
        getattr(fit, write)(path)
    assert path.read_text() == "mine"
    getattr(fit, write)(path, overwrite=True)
    assert fits.getdata(path, "STATUS").shape == SHAPE
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_file(fit, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(streamed.os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match="full disk"):
        fit.write(tmp_path / "out.fits.gz")
    assert list(tmp_path.iterdir()) == []


def test_space_is_claimed_with_zeros_where_it_must_be(tmp_path, monkeypatch):
    monkeypatch.delattr(streamed.os, "posix_fallocate", raising=False)
    path = tmp_path / "a.fits"
    fits.PrimaryHDU().writeto(path)
    maps = streamed.append_large(path, [streamed.LargeImage("A", (3, 4, 5), "int16"), streamed.LargeImage("B", (2, 2))])
    maps["A"][:, 1:3, :] = 7
    maps["B"][1] = 0.5
    streamed.release(maps)
    del maps
    with fits.open(path, memmap=False) as file:
        assert file["A"].data.sum() == 7 * 3 * 2 * 5
        assert file["B"].data.tolist() == [[0, 0], [0.5, 0.5]]


def test_compressed_product(fit, product, tmp_path):
    path = fit.write(tmp_path / "out.fits.gz")
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    np.testing.assert_array_equal(fits.getdata(path, "MODEL"), product["MODEL"].data)


def test_figures(fit):
    line = strongest_line(fit)
    assert line in LINES
    chosen = example_spaxels(fit, line)
    assert chosen[0][0] == "brightest"
    assert len({(x, y) for _, x, y in chosen}) == len(chosen) == 3
    for figure in (fit.plot(x=2, y=2), fit.plot(x=NAN[1], y=NAN[0]), fit.plot_map("ha", "velocity"), fit.plot_page()):
        assert isinstance(figure, Figure)
        figure.canvas.draw()
    with pytest.raises(UsageError, match="line"):
        fit.plot_page("hb")
