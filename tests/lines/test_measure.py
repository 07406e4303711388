"""Fluxes and equivalent widths read off spectra: windows, local continua, bad pixels; against sums in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

import ifujax
from ifujax.data.cube import Cube
from ifujax.errors import UsageError
from ifujax.lines.config import ContinuumOptions, EmissionModel, EquivalentWidthOptions, Kinematics, Line, LineFitConfig
from ifujax.models.doppler import velocity_of
from tests.lines.test_coverage import ONE_SIGMA

WAVELENGTH = np.arange(6480.0, 6650.0, 1.1)
EDGES = np.append(WAVELENGTH - 0.55, WAVELENGTH[-1] + 0.55)
WINDOWS = (6485.0, 6515.0, 6600.0, 6640.0)
LINES = {"ha": (6562.8, 400.0), "n2": (6583.46, 160.0)}
CENTRE, SIGMA, NOISE = 60.0, 130.0, 0.5
SCALED = (WAVELENGTH - 6565.0) / 85.0
CONTINUUM = 40.0 + 6.0 * SCALED - 9.0 * SCALED**2


def spectrum() -> np.ndarray:
    total = CONTINUUM.copy()
    for rest, flux in LINES.values():
        total += flux * np.diff(ndtr((velocity_of(EDGES, rest) - CENTRE) / SIGMA)) / np.diff(EDGES)
    return total


def cube_of(n: int, seed: int = 2, **planes) -> Cube:
    data = spectrum()[:, None, None] + NOISE * np.random.default_rng(seed).standard_normal((len(WAVELENGTH), 1, n))
    return Cube(data, WAVELENGTH, uncertainty=np.full(data.shape, NOISE**2), uncertainty_kind="variance", **planes)


def config_of(windows: tuple[float, float, float, float] | None = None, factor: float = 5.0, **continuum) -> LineFitConfig:
    gas = Kinematics()
    lines = [Line(name, rest, gas, continuum_windows=windows if name == "ha" else None) for name, (rest, _) in LINES.items()]
    options = ContinuumOptions(**continuum)
    return LineFitConfig(
        EmissionModel(lines, continuum_degree=2), continuum=options, equivalent_width=EquivalentWidthOptions(factor)
    )


def in_window(fit: ifujax.CubeFit, name: str, factor: float) -> np.ndarray:
    """Pixels whose centre lies within so many observed sigma of a line, (n, wave)."""
    velocity = velocity_of(WAVELENGTH, LINES[name][0])[None, :]
    return np.abs(velocity - fit[name, "velocity"].T) <= factor * fit[name, "sigma"].T


def local_line(continuum: np.ndarray) -> np.ndarray:
    first, second = (np.abs(WAVELENGTH - 0.5 * (low + high)) <= 0.5 * (high - low) for low, high in (WINDOWS[:2], WINDOWS[2:]))
    inside = first | second
    slope, level = np.polyfit(WAVELENGTH[inside] - 6565.0, continuum[inside], 1)
    return level + slope * (WAVELENGTH - 6565.0)


@pytest.mark.parametrize(("windows", "factor"), [(None, 5.0), (None, 2.0), (WINDOWS, 5.0)])
def test_against_sums_over_pixels(windows: tuple | None, factor: float) -> None:
    fit = ifujax.fit_cube(cube_of(6), config_of(windows, factor))
    spectra = fit.spectra(np.arange(6))
    width = np.diff(EDGES)
    for i, name in enumerate(LINES):
        inside = in_window(fit, name, factor)
        continuum = spectra.continuum
        if windows is not None and name == "ha":
            continuum = np.stack([local_line(each) for each in continuum])
        line, residual = spectra.components[:, i], spectra.data - spectra.model
        # Of the line's flux all counts, of the residuals those within the window.
        direct = fit[name, "flux"][0] + (residual * inside * width).sum(axis=1)
        np.testing.assert_allclose(fit[name, "flux_direct"][0], direct, rtol=1e-9)
        model_width = -(line * inside * width / continuum).sum(axis=1)
        np.testing.assert_allclose(fit[name, "equivalent_width"][0], model_width, rtol=1e-9)
        direct_width = model_width - (residual * inside * width / continuum).sum(axis=1)
        np.testing.assert_allclose(fit[name, "equivalent_width_direct"][0], direct_width, rtol=1e-9)


def test_errors_of_widths_against_a_local_continuum() -> None:
    """The straight line's uncertainty is the fitted continuum's."""
    fit = ifujax.fit_cube(cube_of(400, seed=4), config_of(WINDOWS))
    profile = np.diff(ndtr((velocity_of(EDGES, LINES["ha"][0]) - CENTRE) / SIGMA))
    truth = -LINES["ha"][1] * np.sum(profile / local_line(CONTINUUM))
    other = -LINES["ha"][1] * np.sum(profile / CONTINUUM)
    low, high = (binom.ppf(p, 400, ONE_SIGMA) / 400 for p in (0.0005, 0.9995))
    for name in ("equivalent_width", "equivalent_width_direct"):
        pull = ((fit["ha", name] - truth) / fit.error["ha", name]).ravel()
        print(f"    {name}: {100 * np.mean(np.abs(pull) <= 1):.1f} %, median pull {np.median(pull):+.3f}")
        assert low <= np.mean(np.abs(pull) <= 1) <= high
        # And it is another number than that against the continuum under the line.
        assert abs(truth - other) > 4 * np.median(fit.error["ha", name])


def test_windows_without_data_are_refused() -> None:
    with pytest.raises(UsageError, match="continuum_windows of 'ha'.*6400 to 6450"):
        ifujax.fit_cube(cube_of(1), config_of((6400.0, 6450.0, 6600.0, 6640.0)))


@pytest.mark.parametrize("mode", ["joint", "rejection"])
@pytest.mark.parametrize("with_stellar", [True, False])
def test_bad_pixel_under_a_line(mode: str, with_stellar: bool) -> None:
    """The continuum that was taken off before the fit is known there all the same."""
    flags = np.zeros((len(WAVELENGTH), 1, 2), np.int8)
    flags[np.abs(WAVELENGTH - 6563.0) < 1.0, 0, 0] = 1
    cube = cube_of(2, flags=flags)
    if with_stellar:
        cube = replace(cube, stellar=np.broadcast_to(0.9 * CONTINUUM[:, None, None], cube.shape).copy())
    fit = ifujax.fit_cube(cube, config_of(mode=mode))
    truth = -LINES["ha"][1] / CONTINUUM[np.abs(WAVELENGTH - 6563.0).argmin()]
    for name in ("equivalent_width", "equivalent_width_direct"):
        np.testing.assert_allclose(fit["ha", name], truth, rtol=0.06)
