"""`optimize_fit` and the frozen continuum against spectra made here with NumPy: values, errors, and what lies far away."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import pytest
from scipy.special import erf

import ifujax
from ifujax import Bounded, EmissionModel, Kinematics, Line
from ifujax.errors import IfujaxWarning
from ifujax.lines.config import ContinuumOptions, FitOptions, LineFitConfig
from tests.reference import reference_data

C = 299792.458
LINES = {"n2a": 6548.04, "ha": 6562.8, "n2b": 6583.46}
RATIO = {"n2a": 0.33, "ha": 1.0, "n2b": 1.0}
SPECTRA = 500
Mode = Literal["joint", "rejection"]


@dataclass(frozen=True)
class Made:
    """Spectra of unit noise on a curved continuum, and what they were made with."""

    cube: ifujax.Cube
    flux: dict[str, np.ndarray]
    velocity: np.ndarray
    sigma: np.ndarray


@cache
def made(seed: int, sigma: tuple[float, float], velocity: tuple[float, float], far: bool = False) -> Made:
    """Three lines, integrated over pixels; `far` adds a feature at 6640 Angstrom and makes the [N II] lines as bright."""
    rng = np.random.default_rng(seed)
    step = 1.25
    wavelength = np.arange(6350.0, 6780.0, step)
    s, v, peak = rng.uniform(*sigma, SPECTRA), rng.uniform(*velocity, SPECTRA), rng.uniform(8.0, 25.0, SPECTRA)
    x = (wavelength - 6563.0) / 200.0
    data = np.repeat((20.0 + 3.0 * x - 2.0 * x**2)[:, None], SPECTRA, axis=1)
    edges = np.append(wavelength - step / 2, wavelength[-1] + step / 2)
    flux = {}
    for name, rest in LINES.items():
        q = (edges / rest) ** 2
        below = 0.5 * (1.0 + erf((C * (q - 1.0) / (q + 1.0))[:, None] / s / np.sqrt(2.0) - v / s / np.sqrt(2.0)))
        flux[name] = peak * (1.0 if far else RATIO[name]) * np.sqrt(2.0 * np.pi) * s * rest / C
        data = data + flux[name] * np.diff(below, axis=0) / step
    if far:
        data = data + (40.0 * np.exp(-0.5 * ((wavelength - 6640.0) / 1.75) ** 2))[:, None]
    data = (data + rng.standard_normal(data.shape))[:, None, :]
    cube = ifujax.Cube(data, wavelength, uncertainty=np.ones_like(data), uncertainty_kind="variance")
    return Made(cube, flux, v, s)


def fitted(problem: Made, mode: Mode, names: tuple[str, ...] = tuple(LINES), bound: float = 600.0) -> ifujax.CubeFit:
    """Fit with a guess of 0 and 50 km/s and windows of 5 sigma."""
    kinematics = Kinematics(Bounded(-bound, bound, start=0.0), Bounded(10.0, 600.0, start=50.0))
    model = EmissionModel(tuple(Line(name, LINES[name], kinematics) for name in names), continuum_degree=2)
    options = FitOptions(optimize_fit=True, optimization_window=5.0)
    return ifujax.fit_cube(problem.cube, LineFitConfig(model, continuum=ContinuumOptions(mode), fit=options))


def pulls(fit: ifujax.CubeFit, problem: Made) -> dict[str, np.ndarray]:
    line = "ha"
    truth = {"flux": problem.flux[line], "velocity": problem.velocity, "velocity_dispersion": problem.sigma}
    return {name: ((fit[line, name] - value) / fit.error[line, name]).ravel() for name, value in truth.items()}


@pytest.mark.parametrize("mode", ["joint", "rejection"])
@pytest.mark.parametrize(
    ("sigma", "velocity"), [((120.0, 160.0), (-60.0, 60.0)), ((100.0, 150.0), (100.0, 200.0))], ids=["broader", "shifted"]
)
def test_guesses_far_off_leave_values_and_errors_right(
    sigma: tuple[float, float], velocity: tuple[float, float], mode: Mode
) -> None:
    problem = made(1, sigma, velocity)
    fit = fitted(problem, mode)
    assert (fit.status == 0).all()
    assert np.mean(fit.reduced_chi2) == pytest.approx(1.0, abs=0.05)
    for name, pull in pulls(fit, problem).items():
        print(f"{mode} {name}: coverage {np.mean(np.abs(pull) < 1):.3f}, mean {pull.mean():+.2f}, median {np.median(pull):+.2f}")
        assert abs(np.median(pull)) < 0.2, name
        # A frozen continuum has errors of its own, which those of the lines don't hold.
        assert (0.62 if mode == "joint" else 0.58) <= np.mean(np.abs(pull) < 1) <= 0.75, name


@pytest.mark.parametrize("mode", ["joint", "rejection"])
def test_features_beyond_the_windows_stay_out(mode: Mode) -> None:
    """[N II] as bright as H-alpha, and another line, none declared; bounds would let H-alpha reach any of them."""
    problem = made(2, (50.0, 90.0), (-60.0, 60.0), far=True)
    fit = fitted(problem, mode, names=("ha",), bound=1500.0)
    assert (fit.status == 0).all()
    assert np.mean(fit.reduced_chi2) == pytest.approx(1.0, abs=0.1)
    for name, pull in pulls(fit, problem).items():
        assert abs(np.median(pull)) < 0.2, name
        assert np.mean(np.abs(pull) < 1) > 0.6, name
        assert np.mean(np.abs(pull) > 5) < 0.01, name


def test_a_frozen_continuum_lies_on_the_continuum() -> None:
    """Thresholds of 2 and 3 and broad lines: neither lifts it."""
    problem = made(1, (120.0, 160.0), (-60.0, 60.0))
    fit = fitted(problem, "rejection")
    x = (problem.cube.wavelength - 6563.0) / 200.0
    truth = 20.0 + 3.0 * x - 2.0 * x**2
    apart = fit.spectra(np.arange(SPECTRA), components=False).continuum - truth
    # One pixel's noise is 1: a polynomial of 3 coefficients through 300 pixels scatters by 0.1.
    assert np.abs(apart.mean(axis=0)).max() < 0.03
    assert apart.std(axis=0).max() < 0.25


def test_where_the_rest_does_not_tell_the_continuum_the_first_polynomial_stays() -> None:
    """A line about as wide as the window."""
    rng = np.random.default_rng(5)
    wavelength = np.arange(6530.0, 6596.0, 1.25)
    width = 350.0 * 6562.8 / C
    data = 20.0 + 30.0 * np.exp(-0.5 * ((wavelength - 6562.8) / width) ** 2)[:, None, None]
    data = data + rng.standard_normal((wavelength.size, 1, 20))
    cube = ifujax.Cube(data, wavelength, uncertainty=np.ones_like(data), uncertainty_kind="variance")
    kinematics = Kinematics(Bounded(-200.0, 200.0, start=0.0), Bounded(10.0, 600.0, start=350.0))
    model = EmissionModel((Line("ha", 6562.8, kinematics),), continuum_degree=6)
    fit = ifujax.fit_cube(cube, LineFitConfig(model, continuum=ContinuumOptions("rejection")))
    assert (fit.status == 0).all()
    level = fit.spectra(np.arange(20), components=False).continuum
    assert np.abs(level - 20.0).max() < 40.0  # nothing runs away between the ends


@pytest.mark.slow
def test_the_model_of_ifscubes_own_example_has_no_steps() -> None:
    """Windows of 5 x 50 km/s about lines of 140 km/s."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        config = ifujax.read_config(reference_data("line_fitting", "halpha_gh.cfg"))
        assert config.fit.optimize_fit
        loading = {k: v for k, v in asdict(config.loading).items() if k not in ("spatial_mask", "nan_spaxels", "vortab")}
        spectrum = ifujax.read_spectrum(reference_data("line_fitting", "manga_onedspec.fits"), **loading)
        fit = ifujax.fit_spectrum(spectrum, replace(config, fit=replace(config.fit, starts=8))).as_cube
    spectra = fit.spectra(np.array([0]))
    lines = np.asarray(spectra.lines[0])
    inside = lines > 0.01 * lines.max()
    # A Gaussian of at least 120 km/s at 69 km/s a pixel falls by less than 0.4 of its peak from one pixel to the next.
    assert np.abs(np.diff(lines))[inside[1:] | inside[:-1]].max() < 0.4 * lines.max()
    windows = fit.setup.line_windows
    assert windows is not None
    beyond = ~((fit.cube.rest_wavelength >= windows[:, :1]) & (fit.cube.rest_wavelength <= windows[:, 1:])).any(axis=0)
    assert lines[beyond].max() > 0.1 * lines.max()


def test_windows_follow_lines_beside_their_guess() -> None:
    """Centres at the edges of windows of +-250 km/s: half of each line lies beyond, and its error is that of the whole line."""
    problem = made(4, (50.0, 90.0), (200.0, 250.0))
    fit, whole = fitted(problem, "rejection", bound=400.0), fitted(problem, "joint", bound=400.0)
    assert (fit.status == 0).all()
    for name, pull in pulls(fit, problem).items():
        assert abs(np.median(pull)) < 0.2, name
        assert 0.58 <= np.mean(np.abs(pull) < 1) <= 0.75, name
        assert np.median(fit.error["ha", name] / whole.error["ha", name]) == pytest.approx(1.0, abs=0.1)
