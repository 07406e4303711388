"""Products read back: ifujax's own, and IFSCube's of both generations."""

from __future__ import annotations

import gzip
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from matplotlib.figure import Figure
from scipy.special import voigt_profile

import ifujax
from ifujax import simulate
from ifujax.inference.status import CONSTANT_DATA, NOT_CONVERGED, NOT_FINITE, SKIPPED
from ifujax.lines.config import LineFitConfig
from ifujax.lines.products.ifscube import status_sentence, translated_status
from ifujax.lines.products.load import load_fit
from ifujax.lines.products.width_planes import width_planes
from ifujax.lines.spectrum import fit_spectrum
from ifujax.lines.velocity_width import VelocityWidth, WidthMaps
from ifujax.models.doppler import velocity_of
from ifujax.models.emission import FWHM_OF_SIGMA
from tests.lines.products.ifscube_products import (
    C,
    as_2018,
    from_npz,
    small_cube,
    small_spectrum,
    with_draws,
    write_2018,
    write_today,
)
from tests.reference import reference_data

GOOD = (slice(1, None), slice(None))
"""Rows of `small_cube` without special cases."""


def relative(found, expected):
    return np.nanmax(np.abs(found - expected)) / np.nanmax(np.abs(expected))


# Today's IFSCube -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory):
    contents = small_cube()
    return contents, load_fit(write_today(tmp_path_factory.mktemp("today") / "cube_linefit.fits", contents))


def test_maps_of_ifscube(gaussian):
    contents, fit = gaussian
    assert (fit.generation, fit.redshift, fit.lines, fit.shape) == ("ifscube", 0.1, ("ha", "n2"), (3, 4))
    assert fit.line_wavelengths == (6562.8, 6583.46)
    planes = contents.solution.reshape(2, 3, 3, 4)
    for i, line in enumerate(fit.lines):
        for k, name in enumerate(("amplitude", "velocity", "sigma")):
            np.testing.assert_array_equal(fit[line, name][GOOD], planes[i, k][GOOD])
        np.testing.assert_array_equal(fit[line, "velocity_dispersion"], fit[line, "sigma"])
        for extension, name in (("FLUX_M", "flux"), ("FLUX_D", "flux_direct"), ("EQW_M", "equivalent_width")):
            np.testing.assert_array_equal(fit[line, name][GOOD], contents.measured[extension][i][GOOD])
    assert fit.config["fit.fitting_window"] == "6500:6640"
    assert "snr" not in fit.quantities


def test_status_is_translated_and_failed_spaxels_are_nan(gaussian):
    contents, fit = gaussian
    expected = [SKIPPED.value, NOT_CONVERGED.value, NOT_CONVERGED.value, CONSTANT_DATA.value]
    assert fit.status[0].tolist() == expected
    assert np.all(fit.status[1:] == 0)
    assert fit.ifscube_status[0].tolist() == [1, 1, 9, 0]
    for quantity in fit.quantities:
        assert np.isnan(fit["ha", quantity][0, [0, 1, 3]]).all(), quantity
    # what IFSCube did not finish is marked, and kept
    assert fit["ha", "velocity"][0, 2] == contents.solution[1, 0, 2]
    assert np.isfinite(fit.reduced_chi2[0, 2])
    assert np.isnan(fit.reduced_chi2[0, 0])
    assert "8 fitted" in fit.summary()
    assert "1 skipped" in fit.summary()


def test_spectra_of_ifscube(gaussian):
    contents, fit = gaussian
    spectra = fit.spectra(np.array([5, 2]))
    here = contents.data[:, 1, 1]
    np.testing.assert_allclose(spectra.rest_wavelength, contents.wavelength)
    np.testing.assert_allclose(spectra.data[0], here)
    # IFSCube scales the data by 1 + z, but leaves the variance alone
    np.testing.assert_allclose(spectra.variance[0], contents.variance[:, 1, 1] * 1.1**2)
    np.testing.assert_allclose(spectra.model[0], contents.model[:, 1, 1])
    assert relative(spectra.components.sum(axis=1), spectra.lines) < 1e-12
    np.testing.assert_array_equal(spectra.fitted[0], np.isfinite(contents.model[:, 1, 1]))
    assert any("variance" in note for note in fit.notes)


def test_describe_says_what_ifscube_said(gaussian):
    fit = gaussian[1]
    assert "6562.8 Angstrom" in fit.describe(1, 1)
    assert "IFSCube's status 9: iteration limit" in fit.describe(2, 0)
    assert "+-" not in fit.describe(1, 1)
    assert "left out" in fit.describe(0, 0)
    assert "one value" in fit.describe(3, 0)
    with pytest.raises(ifujax.UsageError, match=r"0\.\.3"):
        fit.describe(4, 0)


def test_figures(gaussian):
    fit = gaussian[1]
    figure = fit.plot(1, 1)
    assert isinstance(figure, Figure)
    # only the fitting window is shown
    assert figure.axes[0].get_xlim() == (6500.0, 6640.0)
    assert isinstance(fit.plot(0, 0), Figure)
    assert isinstance(fit.plot_map("ha", "velocity"), Figure)
    assert isinstance(fit.plot_map("ha", "equivalent_width"), Figure)


def test_what_the_file_lacks_is_an_error_that_says_so(gaussian):
    fit = gaussian[1]
    with pytest.raises(ifujax.DataError, match="Monte Carlo"):
        fit.error["ha", "flux"]
    with pytest.raises(ifujax.UsageError, match="Did you mean 'ha'"):
        fit.error["hb", "flux"]
    with pytest.raises(ifujax.UsageError, match="unknown quantity"):
        fit["ha", "h3"]
    with pytest.raises(ifujax.DataError, match="Use reduced_chi2"):
        _ = fit.chi2
    with pytest.raises(ifujax.UsageError, match="a line and a quantity"):
        fit["ha"]
    with pytest.raises(ifujax.DataError, match="got none"):
        fit.velocity_width("ha")


def test_h4_is_converted_to_the_textbook(tmp_path):
    contents = small_cube(hermite=True)
    path = write_today(tmp_path / "gh.fits", contents)
    fit, raw = load_fit(path), load_fit(path, convert_h4=False)
    amplitude, h3, h4 = (contents.solution.reshape(2, 5, 3, 4)[0, k][GOOD] for k in (0, 3, 4))
    left = 1 - 6 / np.sqrt(24) * h4
    np.testing.assert_allclose(fit["ha", "amplitude"][GOOD], amplitude * left)
    np.testing.assert_allclose(fit["ha", "h3"][GOOD], h3 / left)
    np.testing.assert_allclose(fit["ha", "h4"][GOOD], h4 / left)
    np.testing.assert_array_equal(raw["ha", "h4"][GOOD], h4)
    # both describe the profile that IFSCube fitted
    for each in (fit, raw):
        spectra = each.spectra(np.arange(4, 12))
        assert relative(spectra.components.sum(axis=1), spectra.lines) < 1e-12
    assert any("wrong sign" in note for note in fit.notes)
    assert not any("converted" in note for note in raw.notes)


@pytest.mark.parametrize("hermite", [False, True])
def test_monte_carlo_runs_give_errors(tmp_path, hermite):
    contents = with_draws(small_cube(hermite=hermite))
    fit = load_fit(write_today(tmp_path / "mc.fits", contents))
    draws = contents.draws.reshape(40, 2, -1, 3, 4)[:, 0]
    np.testing.assert_allclose(fit.error["ha", "velocity"][GOOD], draws[:, 1].std(axis=0)[GOOD])
    assert fit.draws["velocity"].shape == (40, 2, 3, 4)
    amplitude, sigma = draws[:, 0], draws[:, 2]
    h4 = draws[:, 4] if hermite else 0.0
    peak = amplitude * (1 - 6 / np.sqrt(24) * h4)
    np.testing.assert_allclose(fit.error["ha", "amplitude"][GOOD], peak.std(axis=0)[GOOD])
    flux = amplitude * sigma * (1 - 3 / np.sqrt(24) * h4) * np.sqrt(2 * np.pi) * 6562.8 / C
    np.testing.assert_allclose(fit.error["ha", "flux"][GOOD], flux.std(axis=0)[GOOD])
    np.testing.assert_allclose(fit["ha", "snr"][GOOD], (fit["ha", "flux"] / fit.error["ha", "flux"])[GOOD])
    with pytest.raises(ifujax.DataError, match="those of"):
        fit.error["ha", "equivalent_width"]
    assert any("last noise realisation" in note for note in fit.notes)
    # the model in the file is not that of the solution then
    spectra = fit.spectra(np.array([5]))
    np.testing.assert_allclose(spectra.lines, spectra.components.sum(axis=1))
    assert isinstance(fit.plot_map("ha", "velocity"), Figure)


def test_without_draws_the_errors_that_need_them_are_left_out(tmp_path):
    path = write_today(tmp_path / "mc.fits", with_draws(small_cube(hermite=True)), leave_out=("MC_RUNS",))
    fit = load_fit(path)
    assert set(fit.errors) == {"velocity", "sigma", "velocity_dispersion"}
    assert any("without MC_RUNS" in note for note in fit.notes)
    assert {"amplitude", "h3", "h4"} <= set(load_fit(path, convert_h4=False).errors)


@pytest.mark.parametrize("hermite", [False, True])
def test_a_spectrum_gives_numbers(tmp_path, hermite):
    contents = small_spectrum(small_cube(hermite=hermite))
    fit = load_fit(write_today(tmp_path / "s.fits", contents))
    assert fit.shape == (1, 1)
    assert fit["ha", "velocity"] == contents.solution[1]
    assert (fit.status, fit.ifscube_status, fit.reduced_chi2) == (0, 0, 1.2)
    assert fit["n2", "flux"] == contents.measured["FLUX_M"][1]
    spectra = fit.spectra()
    np.testing.assert_allclose(spectra.data[0], contents.data)
    assert relative(spectra.components.sum(axis=1), spectra.lines) < 1e-12
    assert isinstance(fit.plot(), Figure)
    assert fit.describe().startswith("s.fits: ")


def test_no_variance_is_told_from_one_of_ones(tmp_path):
    contents = small_cube()
    fit = load_fit(write_today(tmp_path / "a.fits", replace(contents, variance=np.ones_like(contents.variance))))
    assert fit.spectra(np.array([5])).variance is None
    assert any("1 everywhere" in note for note in fit.notes)
    assert isinstance(fit.plot(1, 1), Figure)


def test_missing_extensions_are_named_in_one_warning(tmp_path):
    left_out = ("FITSPEC", "FLUX_M", "STATUS", "FEATWL")
    path = write_today(tmp_path / "a.fits", replace(small_cube(), config={"ha.rest_wavelength": "6562.8"}), leave_out=left_out)
    with pytest.warns(ifujax.IfujaxWarning, match=r"a\.fits lacks FITSPEC, FLUX_M, FEATWL, STATUS") as caught:
        fit = load_fit(path)
    assert len(caught) == 1
    assert fit.status[0].tolist() == [SKIPPED.value, NOT_CONVERGED.value, 0, 0]
    assert fit.ifscube_status is None
    assert fit.line_wavelengths[0] == 6562.8
    assert np.isnan(fit.line_wavelengths[1])
    assert "flux" not in fit.quantities
    with pytest.raises(ifujax.DataError, match="FITSPEC and RESTWAVE"):
        fit.plot(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ifujax.IfujaxWarning)
        assert load_fit(path, rest_wavelength={"n2": 6583.0}).line_wavelengths[1] == 6583.0


def test_without_wavelengths_there_are_no_spectra(tmp_path):
    contents = small_cube()
    path = write_today(tmp_path / "a.fits", replace(contents, wavelength=contents.wavelength**1.01), leave_out=("RESTWAVE",))
    with pytest.warns(ifujax.IfujaxWarning, match="lacks RESTWAVE"):
        fit = load_fit(path)
    assert fit.cube is None
    assert np.isfinite(fit["ha", "velocity"][GOOD]).all()
    # a linear axis is in the header too
    with pytest.warns(ifujax.IfujaxWarning, match="lacks RESTWAVE"):
        fit = load_fit(write_today(tmp_path / "b.fits", contents, leave_out=("RESTWAVE",)))
    np.testing.assert_allclose(fit.rest_wavelength, contents.wavelength)


def test_codes_of_other_methods():
    solution = np.ones((3, 1, 6))
    solution[:, 0, 5] = 0.0
    codes, skipped = np.array([[0, 1, 2, 3, 98, 1]]), np.zeros((1, 6), bool)
    found = translated_status(codes, solution, skipped, method="trust-constr", fixed=False)[0]
    # 0 of trust-constr is not success
    assert found.tolist() == [NOT_CONVERGED.value, 0, 0, NOT_CONVERGED.value, 1, NOT_CONVERGED.value]
    found = translated_status(codes, solution, skipped, method="slsqp", fixed=True)[0]
    assert found[:2].tolist() == [0, 0]
    assert found[5] == NOT_CONVERGED.value
    solution[:, 0, :2] = np.nan
    found = translated_status(codes, solution, skipped, method="slsqp", fixed=False)[0]
    assert found[:3].tolist() == [NOT_FINITE.value, SKIPPED.value, NOT_CONVERGED.value]
    assert "evaluation limit" in status_sentence(0, "trust-constr")
    assert "no sentence" in status_sentence(77)


# The release of 2018 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hermite", [False, True])
def test_2018_in_angstrom_becomes_kilometres(tmp_path, hermite):
    today = small_cube(hermite=hermite, h4_constant=3.0)
    fit = load_fit(write_2018(tmp_path / "old.fits", as_2018(today)))
    assert (fit.generation, fit.redshift) == ("ifscube-2018", 0.1)
    planes = today.solution.reshape(2, -1, 3, 4)
    for i, line in enumerate(fit.lines):
        np.testing.assert_allclose(fit[line, "velocity"][GOOD], planes[i, 1][GOOD], atol=1e-6)
        np.testing.assert_allclose(fit[line, "sigma"][GOOD], planes[i, 2][GOOD])
        np.testing.assert_allclose(fit[line, "amplitude"][GOOD], planes[i, 0][GOOD])
        # to 1 + v / c, which the profile of 2018 doesn't have
        np.testing.assert_allclose(fit[line, "flux"][GOOD], today.measured["FLUX_M"][i][GOOD], rtol=1e-3)
        np.testing.assert_array_equal(fit[line, "equivalent_width"][GOOD], today.measured["EQW_M"][i][GOOD])
        if hermite:
            np.testing.assert_array_equal(fit[line, "h4"][GOOD], planes[i, 4][GOOD])
    np.testing.assert_array_equal(fit.reduced_chi2[GOOD], today.reduced_chi2[GOOD])
    assert fit.status[0].tolist() == [SKIPPED.value, NOT_CONVERGED.value, NOT_CONVERGED.value, CONSTANT_DATA.value]
    spectra = fit.spectra(np.array([5]))
    np.testing.assert_allclose(spectra.data[0], today.data[:, 1, 1])
    np.testing.assert_allclose(spectra.rest_wavelength, today.wavelength)
    assert spectra.variance is None
    assert relative(spectra.components.sum(axis=1), spectra.lines) < 1e-3
    assert isinstance(fit.plot(1, 1), Figure)
    assert any("1 + z" in note for note in fit.notes)


def test_2018_spectrum_keeps_its_status_in_a_card(tmp_path):
    contents = replace(as_2018(small_spectrum(small_cube())), status=np.float64(94))
    fit = load_fit(write_2018(tmp_path / "old.fits", contents))
    assert fit.ifscube_status == 94
    assert fit.status == NOT_CONVERGED.value
    assert "no effect on chi2" in fit.describe()
    assert fit.reduced_chi2 == 1.2


def test_the_release_between(tmp_path):
    """Velocities already, and reduced chi2 still in SOLUTION; no RESTWAVE, FEATWL and STATUS."""
    today = small_cube()
    contents = replace(today, config={f"{line}.rest_wavelength": str(at) for line, at in today.rest.items()})
    fit = load_fit(write_2018(tmp_path / "between.fits", contents))
    assert fit.generation == "ifscube-2018"
    np.testing.assert_array_equal(fit["ha", "velocity"][GOOD], today.solution[1][GOOD])
    np.testing.assert_array_equal(fit.spectra(np.array([5])).data[0], today.data[:, 1, 1])
    assert fit.line_wavelengths == (6562.8, 6583.46)


def test_2018_rest_wavelengths_can_be_given(tmp_path):
    today = small_cube()
    path = write_2018(tmp_path / "old.fits", replace(as_2018(today), config={"loading.redshift": "0.1"}))
    with pytest.warns(ifujax.IfujaxWarning, match="rest wavelength of ha, n2"):
        fit = load_fit(path)
    assert np.isnan(fit["ha", "velocity"]).all()
    assert np.isfinite(fit["ha", "sigma"][GOOD]).all()
    fit = load_fit(path, rest_wavelength={"ha": 6562.8, "n2": 6583.46})
    np.testing.assert_allclose(fit["n2", "velocity"][GOOD], today.solution[4][GOOD], atol=1e-6)
    with pytest.raises(ifujax.UsageError, match="unknown line 'hb'"):
        load_fit(path, rest_wavelength={"hb": 4861.3})


def test_rest_wavelengths_that_the_file_has_are_not_replaced(tmp_path):
    path = write_today(tmp_path / "a.fits", small_cube())
    with pytest.raises(ifujax.UsageError, match="relative to that"):
        load_fit(path, rest_wavelength={"ha": 6560.0})


# ifujax's own --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own():
    """A fit with two shapes of lines, an LSF, Monte Carlo runs, and spaxels without a fit."""
    disc = simulate.cube((2, 3), nan_spaxels=[(0, 1)], masked_spaxels=[(1, 2)], bad_fraction=0.01, scale_radius=20.0, seed=1)
    kin = ifujax.Kinematics(ifujax.Bounded(-400, 400, start=0), ifujax.Bounded(20, 400, start=80))
    model = ifujax.EmissionModel(
        [ifujax.Line("ha", 6562.80, kin, shape="gauss_hermite"), ifujax.Line("n2b", 6583.46, kin)],
        continuum_degree=1,
        lsf=ifujax.LSF.constant(disc.lsf_fwhm),
    )
    options = ifujax.FitOptions(window=(6480, 6660), monte_carlo=3, seed=4)
    return ifujax.fit_cube(disc.cube, LineFitConfig(model, fit=options))


@pytest.fixture(scope="module")
def again(own, tmp_path_factory):
    return load_fit(own.write(tmp_path_factory.mktemp("own") / "out.fits"))


def test_own_product_gives_the_same_numbers(own, again):
    assert again.generation == "ifujax"
    assert again.lines == own.lines
    assert again.redshift == own.cube.redshift
    for line in own.lines:
        for quantity in own.quantities:
            np.testing.assert_array_equal(again[line, quantity], own[line, quantity], err_msg=f"{line} {quantity}")
            if quantity != "snr":
                np.testing.assert_array_equal(again.error[line, quantity], own.error[line, quantity])
    for name in ("status", "warn", "dof"):
        np.testing.assert_array_equal(getattr(again, name), getattr(own, name))
    np.testing.assert_allclose(again.chi2, own.chi2)
    np.testing.assert_array_equal(again.draws["velocity"], own.draws["velocity"])
    assert again.quantities == own.quantities
    assert again.units == {name: own.units[name] for name in own.quantities}
    assert again.ifscube_status is None
    assert again.shapes == ("gauss_hermite", "gaussian")


def test_own_spectra_and_lines(own, again):
    rows = np.flatnonzero(own.status.ravel() == 0)
    mine, theirs = again.spectra(rows), own.spectra(rows)
    for name in ("data", "continuum", "lines", "model"):
        # files of float32 data hold float32 models
        assert relative(np.where(theirs.bad, 0, getattr(mine, name)), np.where(theirs.bad, 0, getattr(theirs, name))) < 1e-5, name
    np.testing.assert_array_equal(mine.fitted, theirs.fitted)
    np.testing.assert_array_equal(mine.bad, theirs.bad)
    assert relative(mine.components, theirs.components) < 1e-9


@pytest.mark.parametrize("shape", ["voigt", "lorentzian"])
def test_lines_with_lorentzian_wings(again, shape):
    """sigma holds the whole profile's width and velocity_dispersion the line's own: the instrument is what is left."""
    gauss, lorentz = 70.0, 180.0
    whole = 0.5346 * lorentz + np.hypot(np.sqrt(0.2166) * lorentz, FWHM_OF_SIGMA * gauss)
    own = lorentz / FWHM_OF_SIGMA if shape == "lorentzian" else 60.0
    numbers = {"amplitude": 2.0, "velocity": 30.0, "sigma": whole / FWHM_OF_SIGMA, "velocity_dispersion": own}
    numbers |= {"lorentz_fwhm": lorentz} if shape == "voigt" else {}
    values = {name: np.full((2, *again.shape), value) for name, value in numbers.items()}
    fit = replace(again, shapes=(shape, "gaussian"), values=values, profile="sampled")
    line = fit.spectra(np.array([0])).components[0, 0]
    v = velocity_of(fit.rest_wavelength, 6562.8)
    expected = 2.0 * voigt_profile(v - 30.0, gauss, lorentz / 2) / voigt_profile(0.0, gauss, lorentz / 2) / (1 + v / C)
    assert relative(line, expected) < 2e-3


def test_own_velocity_widths(own, tmp_path):
    """As `ifujax.lines.products.product` writes them, without the time that they take."""
    widths = [VelocityWidth(("ha",), 80.0, 6562.8, *[_width_maps(own.shape, k) for k in (1, 2, 3)])]
    widths.append(VelocityWidth(("ha", "n2b"), 80.0, 6573.13, *[_width_maps(own.shape, k) for k in (4, 5, 6)]))
    path = own.write(tmp_path / "out.fits")
    for planes in width_planes(SimpleNamespace(configured_widths=widths)):
        header = fits.Header({"EXTNAME": f"VWIDTH_{planes.suffix}"})
        header.update({f"PLANE{k:03d}": name for k, name in enumerate(planes.names, start=1)})
        fits.append(path, planes.values, header)
        fits.append(path, planes.errors, fits.Header({"EXTNAME": f"VWIDTH_{planes.suffix}_ERR"}))
    again = load_fit(path)
    for mine in widths:
        found = again.velocity_width(mine.lines)
        assert (found.lines, found.percent, found.rest_wavelength) == (mine.lines, 80.0, pytest.approx(mine.rest_wavelength))
        for kind in ("model", "direct", "intrinsic"):
            for name in ("width", "lower", "upper", "median", "centroid"):
                ours, theirs = getattr(found, kind), getattr(mine, kind)
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
                np.testing.assert_array_equal(getattr(ours.error, name), getattr(theirs.error, name))
    with pytest.raises(ifujax.DataError, match=r"those of ha, ha\+n2b only"):
        again.velocity_width("n2b")


def _width_maps(shape, seed):
    rng = np.random.default_rng(seed)
    return WidthMaps(*rng.normal(size=(5, *shape)), error=WidthMaps(*rng.normal(size=(5, *shape))))


def test_further_maps_are_found_by_name(own, tmp_path):
    path = own.write(tmp_path / "out.fits")
    fits.append(path, np.arange(6.0).reshape(2, 3), fits.Header({"EXTNAME": "W80"}))
    fits.append(path, np.arange(6.0), fits.Header({"EXTNAME": "NOMAP"}))
    again = load_fit(path)
    assert again.maps["w80"][1, 2] == 5.0
    assert set(again.maps) == {"status", "warn", "linewarn", "reduced_chi2", "dof", "stretch", "w80"}


def test_own_product_reads_like_the_fit(own, again):
    y, x = np.argwhere(own.status == 0)[0]
    assert again.describe(x, y).splitlines()[1:] == own.describe(x, y).splitlines()[1:]
    assert isinstance(again.plot(int(x), int(y)), Figure)
    assert isinstance(again.plot_map("ha", "velocity"), Figure)
    assert again.celestial is not None


def test_compressed_products_and_maps(own, tmp_path):
    fit = load_fit(own.write(tmp_path / "out.fits.gz"))
    np.testing.assert_array_equal(fit["ha", "flux"], own["ha", "flux"])
    maps = load_fit(own.write_maps(tmp_path / "maps.fits"))
    assert maps.lines == own.lines
    assert set(maps.quantities) == set(own.quantities)
    for line in own.lines:
        for quantity in own.quantities:
            np.testing.assert_array_equal(maps[line, quantity], own[line, quantity], err_msg=f"{line} {quantity}")
    np.testing.assert_array_equal(maps.error["ha", "velocity"], own.error["ha", "velocity"])
    np.testing.assert_array_equal(maps.status, own.status)
    np.testing.assert_allclose(maps.chi2, own.chi2)
    assert maps.units["flux"] == own.units["flux"]
    assert isinstance(maps.plot_map("n2b", "flux"), Figure)
    with pytest.raises(ifujax.DataError, match="must hold spectra"):
        maps.plot(0, 0)


def test_a_choice_among_components_has_its_maps(own, tmp_path):
    path = own.write_maps(tmp_path / "chosen.fits")
    fits.append(path, np.array([[0, 1, -1], [1, 1, 0]]), fits.Header({"EXTNAME": "CHOICE"}))
    chosen = load_fit(path)
    assert chosen.maps["choice"].tolist() == [[0, 1, -1], [1, 1, 0]]
    assert any("chosen" in note for note in chosen.notes)


def test_own_spectrum_gives_the_same_numbers(own, tmp_path):
    y, x = np.argwhere(own.status == 0)[0]
    alone = fit_spectrum(own.cube.spectrum(int(x), int(y)), own.config)
    fit = load_fit(alone.write(tmp_path / "s.fits"))
    assert fit.is_spectrum
    assert fit["ha", "velocity"] == alone["ha", "velocity"]
    assert fit.error["ha", "flux"] == alone.error["ha", "flux"]
    assert (fit.status, fit.dof) == (alone.status, alone.dof)
    assert fit.draws["velocity"].shape == (3, 2, 1, 1)
    np.testing.assert_allclose(fit.spectra().model, alone.spectra.model, rtol=1e-5)
    assert fit.describe().splitlines()[1:] == alone.describe().splitlines()[1:]


# Files that can't be read --------------------------------------------------------------------------------------------


def test_files_that_are_no_product(tmp_path):
    data = fits.ImageHDU(np.zeros((5, 2, 2)), name="DATA")
    fits.HDUList([fits.PrimaryHDU(), data]).writeto(tmp_path / "data.fits")
    with pytest.raises(ifujax.DataError, match=r"SOLUTION and PARNAMES.*got PRIMARY, DATA.*fit it first"):
        load_fit(tmp_path / "data.fits")
    with pytest.raises(ifujax.DataError, match="no file of that name"):
        load_fit(tmp_path / "none.fits")
    whole = write_today(tmp_path / "a.fits", small_cube())
    cut = tmp_path / "cut.fits"
    cut.write_bytes(whole.read_bytes()[:60000])
    with pytest.raises(ifujax.DataError, match="complete FITS file"):
        load_fit(cut)
    with gzip.open(tmp_path / "b.fits.gz", "wb") as file:
        file.write(whole.read_bytes())
    assert load_fit(tmp_path / "b.fits.gz").generation == "ifscube"


def test_planes_that_don_t_fit_their_names(tmp_path):
    contents = small_cube()
    path = write_today(tmp_path / "a.fits", replace(contents, solution=contents.solution[:4]))
    with pytest.raises(ifujax.DataError, match="a plane for each of the 6 rows"):
        load_fit(path)
    path = write_today(tmp_path / "b.fits", replace(contents, model=contents.model[:, 0]))
    with pytest.raises(ifujax.DataError, match=r"MODEL\] must have the shape \(181, 3, 4\).*got \(181, 4\)"):
        load_fit(path)
    path = write_today(tmp_path / "c.fits", replace(contents, measured=contents.measured | {"FLUX_M": contents.solution}))
    with pytest.raises(ifujax.DataError, match=r"FLUX_M\] must have the shape \(2, 3, 4\)"):
        load_fit(path)
    spectrum = small_spectrum(contents)
    path = write_today(tmp_path / "d.fits", replace(spectrum, status=np.zeros(2)))
    with pytest.raises(ifujax.DataError, match=r"STATUS\] must have the shape \(\)"):
        load_fit(path)
    path = write_today(tmp_path / "e.fits", replace(spectrum, variance=spectrum.variance[1:]))
    with pytest.raises(ifujax.DataError, match=r"VAR\] must have the shape \(181\)"):
        load_fit(path)


# IFSCube's own runs --------------------------------------------------------------------------------------------------


def test_a_gaussian_run_of_ifscube(tmp_path):
    contents = from_npz(
        reference_data("line_fitting", "ifscube", "halpha_cube__ngc3081.npz"), {"fit.fitting_window": "6200:6650"}
    )
    fit = load_fit(write_today(tmp_path / "a.fits", contents))
    assert (fit.status == 0).sum() == 42
    assert (fit.ifscube_status == 9).sum() == 4
    assert (fit.status == SKIPPED.value).sum() == 2
    np.testing.assert_array_equal(fit["ha", "velocity"], contents.solution[4])
    spectra = fit.spectra(np.arange(2, 48))
    # its spectra are in float32, and lines are a part of them
    assert relative(spectra.components.sum(axis=1), np.nan_to_num(spectra.lines)) < 1e-5
    assert isinstance(fit.plot(3, 3), Figure)


def test_a_gauss_hermite_run_of_ifscube(tmp_path):
    contents = from_npz(reference_data("line_fitting", "ifscube", "halpha_cube_gh_norefit.npz"), {})
    fit = load_fit(write_today(tmp_path / "a.fits", contents))
    spectra = fit.spectra(np.arange(48))
    shown = np.isfinite(spectra.lines)
    total = np.where(shown, spectra.components.sum(axis=1), np.nan)
    assert relative(total, spectra.lines) < 1e-5
    assert fit.shapes == ("gauss_hermite",) * 3
    assert not np.allclose(fit["ha", "h4"], contents.solution[9])


@pytest.mark.parametrize("name", ["halpha_gauss__manga", "halpha_gauss_ngc6300"])
def test_a_spectrum_of_ifscube(tmp_path, name):
    contents = from_npz(reference_data("line_fitting", "ifscube", f"{name}.npz"), {})
    fit = load_fit(write_today(tmp_path / "a.fits", contents))
    assert fit["ha_b", "sigma"] == contents.solution[14]
    assert fit.status == 0
    spectra = fit.spectra()
    shown = np.isfinite(spectra.lines)
    assert relative(np.where(shown, spectra.components.sum(axis=1), np.nan), spectra.lines) < 1e-5
    assert isinstance(fit.plot(), Figure)
