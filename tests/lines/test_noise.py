"""Noise as real cubes have it: its correlation, errors that allow for it, and bits for fits that are no fits."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy.special import erf

import ifujax
from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference import status as bits
from ifujax.lines.config import FitOptions, LineFitConfig
from ifujax.lines.dialect import parse_config
from tests.lines import resampled_misfits as misfits

SIDE, N = 30, 120
WAVE = 6565.0 + 1.25 * (np.arange(N) - N // 2)


def half_way(rng: np.random.Generator, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """Noise interpolated half way between pixels along some axes: 0.5 with the next one."""
    noise = rng.standard_normal([n + (k in axes) for k, n in enumerate(shape)])
    for axis in axes:
        noise = np.moveaxis(noise, axis, 0)
        noise = np.moveaxis((noise[1:] + noise[:-1]) / np.sqrt(2), 0, axis)
    return noise


def one_model(degree: int = 1) -> ifujax.EmissionModel:
    kinematics = ifujax.Kinematics(ifujax.Bounded(-500.0, 500.0, start=0.0), ifujax.Bounded(20.0, 500.0, start=100.0))
    return ifujax.EmissionModel([ifujax.Line(*each, kinematics) for each in misfits.REST.items()], continuum_degree=degree)


@cache
def a_cube(axes: tuple[int, ...] = (0,)) -> ifujax.Cube:
    """The same spectrum everywhere: velocity 30, dispersion 110, flux 150, continuum 30; stated errors 1.3 times too small."""
    q = (np.append(WAVE - 0.625, WAVE[-1] + 0.625)[None] / np.array([*misfits.REST.values()])[:, None]) ** 2
    velocity = misfits.C * (q - 1) / (q + 1)
    share = np.diff(0.5 * erf((velocity - 30.0) / (np.sqrt(2) * 110.0)), axis=1) / 1.25
    spectrum = 150.0 * (share[1] + 0.4 * share[2] + 0.4 / 3 * share[0]) + 30.0
    noise = half_way(np.random.default_rng(9), (N, SIDE, SIDE), axes)
    return ifujax.Cube(spectrum[:, None, None] + 1.3 * noise, WAVE, np.ones(noise.shape), "variance")


@cache
def a_fit(noise: str, axes: tuple[int, ...] = (0,)) -> ifujax.CubeFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        return ifujax.fit_cube(a_cube(axes), one_model(), noise=noise)


def pulls(fit: ifujax.CubeFit, truth: dict[str, float]) -> dict[str, float]:
    """Scatter of values about the truth in units of their errors."""
    width = fit.velocity_width("ha")
    found = {name: (fit["ha", name] - value) / fit.error["ha", name] for name, value in truth.items()} | {
        "W80": (width.model.width - 2.5631031 * truth["velocity_dispersion"]) / width.model.error.width,
        "direct W80": (width.direct.width - np.nanmean(width.direct.width)) / width.direct.error.width,
    }
    return {name: float(np.sqrt(np.nanmean(each**2))) for name, each in found.items()}


TRUTH = {"velocity": 30.0, "velocity_dispersion": 110.0, "flux": 150.0, "flux_direct": 150.0}


def test_errors_allow_for_correlation() -> None:
    """Scatter over 900 spaxels is 1 error, of parameters and of everything that is derived or read off the data."""
    given, right = (pulls(a_fit(noise), TRUTH) for noise in ("scaled", "correlated"))
    uncertain = 4.0 / np.sqrt(2 * SIDE**2)
    for name, scatter in right.items():
        # What is read off the data is not linear in the noise: with independent noise it scatters by 1.12 errors here.
        assert scatter == pytest.approx(1.12 if name == "direct W80" else 1.0, abs=uncertain), (name, scatter)
        assert given[name] > 1.25 * scatter, (name, given[name])
    # The level of the noise is that of the residuals as well.
    fit = a_fit("correlated")
    assert fit.noise_correlation.spectral[1:4] == pytest.approx([0.5, 0.0, 0.0], abs=0.02)
    equivalent = fit["ha", "equivalent_width"]
    assert np.std(equivalent) == pytest.approx(np.median(fit.error["ha", "equivalent_width"]), rel=uncertain)


def test_correlated_noise_is_told_where_errors_leave_it_out() -> None:
    with pytest.warns(IfujaxWarning, match=r"noise is correlated along wavelength \(0\.[45]\d.*noise='correlated'") as told:
        fit = ifujax.fit_cube(a_cube(), one_model())
    assert len(told) == 1
    assert ((fit.warn & bits.CORRELATED_NOISE.value) > 0).all()
    right = a_fit("correlated")
    assert not (right.warn & bits.CORRELATED_NOISE.value).any()
    assert "allow for noise that is correlated" in right.describe(0, 0)
    # The same values; and correlation that the whole cube has is no structure.
    np.testing.assert_array_equal(right["ha", "flux"], fit["ha", "flux"])
    for each in (fit, right):
        assert ((each.warn & bits.STRUCTURED_RESIDUALS.value) > 0).mean() < 0.03


def test_independent_noise_is_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = ifujax.fit_cube(a_cube(()), one_model())
    assert not (given.warn & (bits.CORRELATED_NOISE.value)).any()
    # 1.3 times the stated errors: chi2 says so, and it is no structure.
    assert ((given.warn & bits.CHI2_NOT_1.value) > 0).mean() > 0.1
    assert ((given.warn & bits.STRUCTURED_RESIDUALS.value) > 0).mean() < 0.03
    right = a_fit("correlated", ())
    ratio = np.median(right.error["ha", "velocity"] / given.error["ha", "velocity"])
    assert ratio == pytest.approx(1.3, abs=0.04)


def test_results_do_not_depend_on_chunks() -> None:
    cube = a_cube().cut(6510.0, 6610.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        whole, parts = (ifujax.fit_cube(cube, one_model(), noise="correlated", chunk_size=size) for size in (900, 200))
    np.testing.assert_allclose(parts.error["ha", "flux"], whole.error["ha", "flux"], rtol=1e-5)
    np.testing.assert_allclose(parts.noise_correlation.spectral, whole.noise_correlation.spectral, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(parts.warn, whole.warn)


def test_monte_carlo_draws_are_correlated() -> None:
    config = LineFitConfig(one_model(), fit=FitOptions(monte_carlo=60, noise="correlated"))
    few = np.ones((SIDE, SIDE), bool)
    few[:6] = False
    cube = replace(a_cube(), spatial_mask=few)
    fit = ifujax.fit_cube(cube, config)
    expected = a_fit("correlated").error["ha", "velocity"][:6]
    ratio = np.nanmedian(fit.error["ha", "velocity"][:6] / expected)
    assert ratio == pytest.approx(1.0, abs=0.06)
    assert fit.draws["velocity"].shape == (60, 3, SIDE, SIDE)


def test_options_have_one_mechanism() -> None:
    assert FitOptions().noise == "given"
    scaled = FitOptions(scale_errors=True)
    assert (scaled.noise, scaled.scale_errors) == ("scaled", True)
    assert FitOptions(noise="scaled").scale_errors
    assert not FitOptions(noise="correlated", scale_errors=True).scale_errors
    with pytest.raises(UsageError, match="noise"):
        FitOptions(noise="white")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ifscube_compat"):
        FitOptions(noise="correlated", ifscube_compat=True)
    text = "[fit]\nfitting_window: 6450:6650\nnoise: {}\n[ha]\nrest_wavelength: 6562.8\namplitude: 1\nvelocity: 0\nsigma: 100\n"
    assert parse_config(text.format("correlated")).fit.noise == "correlated"
    with pytest.raises(UsageError, match="noise"):
        parse_config(text.format("white"))


def test_spatial_correlation_and_sums_over_apertures() -> None:
    fit = a_fit("correlated", (1, 2))
    known = fit.noise_correlation
    assert known.spatial is not None
    middle = known.spatial.shape[0] // 2
    assert known.spatial[middle : middle + 2, middle : middle + 2] == pytest.approx(np.array([[1, 0.5], [0.5, 0.25]]), abs=0.03)
    assert known.factor(1) == pytest.approx(1.0)
    disc = np.hypot(*(np.indices((9, 9)) - 4.0)) <= 3.0
    expected = np.sqrt(
        sum(
            max(0, 1 - abs(dy) / 2) * max(0, 1 - abs(dx) / 2) * (disc & np.roll(disc, (dy, dx), (0, 1))).sum()
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        )
        / disc.sum()
    )
    assert known.factor(disc) == pytest.approx(expected, rel=0.05)
    assert 0.3 < known.b < 0.6
    cube = fit.cube
    plain, right = (cube.aperture_spectrum(11.0, 11.0, 3.0, correlation=each) for each in (None, known))
    assert np.sqrt(right.uncertainty / plain.uncertainty) == pytest.approx(known.factor(disc), rel=1e-6)
    assert "independent spaxels" in right.notes[-1]
    with pytest.raises(UsageError, match="spaxels"):
        known.factor(np.zeros((3, 3), bool))


def test_a_spectrum_has_its_own_correlation() -> None:
    cube = a_cube()
    spectrum = ifujax.Spectrum(cube.values[:, 3, 4], WAVE, np.ones(N), "variance")
    fit = ifujax.fit_spectrum(spectrum, one_model(), noise="correlated")
    known = fit.as_cube.noise_correlation
    assert known.spectral[1] == pytest.approx(0.5, abs=0.3)
    assert 0.05 < known.spectral_error[1] < 0.15
    assert known.spatial is None
    assert np.isnan(known.b)
    with pytest.raises(UsageError, match="spaxels"):
        known.factor(3)


def test_product_holds_what_residuals_say(tmp_path: Path) -> None:
    fit = a_fit("correlated", (1, 2))
    fit.write(tmp_path / "out.fits")
    with fits.open(tmp_path / "out.fits") as file:
        assert file[0].header["ERRNOISE"] == "correlated"
        planes, table = file["STRETCH"].data, file["NOISECOR"]
        assert planes.shape == (3, SIDE, SIDE)
        at = fit.worst_stretch
        np.testing.assert_allclose(planes, np.stack([at.wavelength, at.width, at.share]), rtol=1e-6)
        side = (table.data["wave"] == 0) & (table.data["y"] == 0) & (table.data["x"] == 1)
        assert table.data["correlation"][side] == pytest.approx(0.5, abs=0.03)
        assert table.header["SLOPE_B"] == pytest.approx(fit.noise_correlation.b)
    loaded = ifujax.load_fit(tmp_path / "out.fits")
    np.testing.assert_array_equal(loaded.warn, fit.warn)


def test_bad_fits_say_where() -> None:
    """A broad line that nobody declared, too low in any pixel to pass for an outlier."""
    data, noise, _ = misfits.spectra(misfits.nothing, 60, 3)
    data = data + 2.5 * np.exp(-0.5 * ((misfits.WAVE - 6640.0) / 7.0) ** 2)[:, None]
    cube = ifujax.Cube((data + noise).reshape(-1, 6, 10), misfits.WAVE, np.ones((240, 6, 10)), "variance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        fit = ifujax.fit_cube(cube, one_model())
    flagged = (fit.warn & bits.STRUCTURED_RESIDUALS.value) > 0
    assert flagged.mean() > 0.95
    at = fit.worst_stretch
    assert (np.abs(at.wavelength - 6640.0) < 0.5 * at.width + 8.0)[flagged].mean() > 0.95
    y, x = np.argwhere(flagged)[0]
    assert f"worst at {at.wavelength[y, x]:.1f} Angstrom" in fit.describe(x, y)


def _fitted(data: np.ndarray, degree: int) -> ifujax.CubeFit:
    cube = ifujax.Cube(data.reshape(240, 1, -1), misfits.WAVE, np.ones((240, 1, data.shape[1])), "variance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        return ifujax.fit_cube(cube, one_model(degree))


@pytest.mark.slow
def test_misses_and_false_alarms() -> None:
    """Ten kinds of misfits that put a parameter more than 3 errors off, where residuals hold anything of them.

    What they can hold is chi2 of the best fit to the spectrum without noise: with less than some 30, not even a filter of the
    right shape stands out among the places where noise might do the same.
    """
    left, flagged = [], []
    for name, data, noise, truth in misfits.every(300, 100):
        degree = 5 if name == "stellar" else 1
        clean, fit = _fitted(data, degree), _fitted(data + noise, degree)
        bias = [(clean["ha", q].ravel() - t) / fit.error["ha", q].ravel() for q, t in truth.items()]
        off = (fit.status == 0).ravel() & (clean.status == 0).ravel() & (np.nanmax(np.abs(bias), axis=0) > 3)
        assert off.sum() > 50, name
        left.append(clean.chi2.ravel()[off])
        flagged.append((fit.warn.ravel()[off] & (bits.STRUCTURED_RESIDUALS.value | bits.CHI2_NOT_1.value)) > 0)
    held, found = np.concatenate(left), np.concatenate(flagged)
    assert found[held > 100].mean() > 0.99
    assert found[held > 60].mean() > 0.97
    assert found[(held > 40) & (held <= 60)].mean() > 0.6
    for degree in (1, 5):
        data, noise, _ = misfits.spectra(misfits.nothing, 2000, 7 + degree)
        fit = _fitted(data + noise, degree)
        alarms = fit.warn.ravel() & (bits.STRUCTURED_RESIDUALS.value | bits.CHI2_NOT_1.value)
        assert (alarms > 0).mean() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_coverage_on_simulated_drizzles(axes: tuple[int, ...]) -> None:
    """68 % errors hold the truth in 65 to 71 % (2.5 standard deviations of the count more are allowed)."""
    rng, side = np.random.default_rng(21), 40
    data, _, truth = misfits.spectra(misfits.nothing, side**2, 5)
    noise = half_way(rng, (240, side, side), axes)
    cube = ifujax.Cube(data.reshape(noise.shape) + noise, misfits.WAVE, np.ones(noise.shape), "variance")
    bright = (truth["flux"] > 12.0 * np.sqrt(2 * np.pi) * truth["velocity_dispersion"] / misfits.C * 6562.8).reshape(side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        fit = ifujax.fit_cube(cube, one_model(), noise="correlated")
    width = fit.velocity_width("ha").model
    found = {name: (fit["ha", name], fit.error["ha", name], truth[name]) for name in truth}
    found["W80"] = (width.width, width.error.width, 2.5631031 * truth["velocity_dispersion"])
    found["flux_direct"] = (fit["ha", "flux_direct"], fit.error["ha", "flux_direct"], truth["flux"])
    for name, (value, error, right) in found.items():
        inside = np.abs(value - right.reshape(value.shape)) < error
        share = inside[bright & (fit.status == 0)].mean()
        spare = 2.5 * np.sqrt(0.683 * 0.317 / bright.sum())
        assert 0.65 - spare < share < 0.71 + spare, (name, share)
