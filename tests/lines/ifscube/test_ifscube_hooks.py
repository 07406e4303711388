"""What ``ifscube_compat`` makes of a configuration and a cube before anything is fitted."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest

import ifujax
from ifujax.data.cube import Cube
from ifujax.errors import IfujaxWarning, UsageError
from ifujax.lines.config import FitOptions, LineFitConfig
from ifujax.lines.dialect import parse_config
from ifujax.lines.ifscube.adapt import adapted_config, adapted_cube, difference_step
from ifujax.lines.ifscube.fitter import CompatFitter
from ifujax.lines.ifscube.preparation import CompatPrepared, start_amplitudes
from tests.lines.ifscube.ifscube_runs import CUBES, FOLDER, RUNS, load
from tests.reference import reference_data

TEXT = """
[fit]
ifscube_compat: yes
fitting_window: 6450:6650
{fit}
[continuum]
degree: 1
n_iterate: 2
line_weight: 0
{sections}
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -300:300
sigma: 100, 40:300
"""
WAVE = np.arange(6400.0, 6800.0, 1.25)
Z = 0.02


def config(fit: str = "", sections: str = "", more: str = "") -> LineFitConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        return parse_config(TEXT.format(fit=fit, sections=sections) + more)


def quiet(settings: LineFitConfig) -> LineFitConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        return adapted_config(settings)


def cube(**planes) -> Cube:
    rng = np.random.default_rng(4)
    shape = (len(WAVE), 2, 3)
    values = 5.0 + rng.normal(0.0, 0.1, shape)
    return Cube(values, WAVE * (1.0 + Z), redshift=Z, **planes)


def fitter(settings: LineFitConfig, data: Cube) -> CompatFitter:
    settings, data = quiet(settings), adapted_cube(data)
    assert settings.fit.window is not None
    return CompatFitter(data.cut(*settings.fit.window), settings, data)


@pytest.mark.parametrize("name", RUNS)
def test_packed_parameters_guesses_and_dof(name: str) -> None:
    run = load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        settings = ifujax.read_config(reference_data(*FOLDER, f"{name}.cfg"))
        settings = replace(
            settings,
            fit=replace(settings.fit, ifscube_compat=True),
            model=replace(settings.model, profile="sampled"),
            continuum=replace(settings.continuum, mode="rejection"),
        )
        if name in CUBES:
            data = ifujax.read_cube(reference_data("line_fitting", "ngc3081_cube.fits"), **asdict(settings.loading))
        else:
            planes = {key: run.stored[key].reshape(-1, 1, 1) for key in ("data", "flags", "stellar")}
            data = Cube(planes["data"], run.wavelength, flags=planes["flags"], stellar=planes["stellar"])
        ours = fitter(settings, data)
    packing = ours.packing
    assert (packing.n_packed, packing.n_constraints) == (len(run.stored["packed"]), len(run.stored["constraints"]))
    # The same entries of the table, in whatever order.
    assert {each.tobytes() for each in packing.packed} == {each.tobytes() for each in run.packed}
    guess = [ours.guess[name] for name in ours.setup.model.parameter_names]
    np.testing.assert_allclose(guess, run.stored["initial_guess"], rtol=1e-6)
    n_good = (~run.plane("mask")).sum(axis=0)
    expected = n_good / float(run.stored["instrument_dispersion"]) - packing.n_packed - packing.n_constraints - 1
    np.testing.assert_allclose(ours.dof(n_good), expected)
    assert difference_step(settings) == float(run.config["minimization"]["eps"])
    assert ours.axis[ours.inside].tolist() == ours.cube.rest_wavelength.tolist()


def test_fixed_features_share_one_scale() -> None:
    broad = """
[broad]
rest_wavelength: 6562.8
amplitude: 4
velocity: 0
sigma: 900
fixed: yes
[broad_n2]
rest_wavelength: 6583.46
amplitude: 1
velocity: 0
sigma: 900
fixed: yes
"""
    ours = fitter(config(more=broad), cube())
    packing, setup = ours.packing, ours.setup
    assert (packing.n_packed, packing.n_constraints) == (4, 0)
    solution = np.array([[2.0, 10.0, 80.0, 4.0, 0.0, 900.0, 1.0, 0.0, 900.0]])
    moves = packing.moves(setup.space.with_scale(np.ones(setup.space.n_free)), solution, np.array([3.0]))
    scale = moves.packed[np.flatnonzero(moves.packed[:, 1, 0])[0]]
    assert scale[:, 0].tolist() == [0.0, 1.0, 0.25]
    assert moves.unit[0].tolist() == [3.0, 3.0, 1.0, 1.0]


def test_variance_and_stellar_spectrum_are_not_shifted() -> None:
    stellar = np.full((len(WAVE), 2, 3), 2.0)
    variance = np.full((len(WAVE), 2, 3), 0.01)
    data = cube(uncertainty=variance, uncertainty_kind="variance", stellar=stellar)
    prepared = fitter(config(), data).preparation(np.arange(6))
    assert isinstance(prepared, CompatPrepared)
    used = prepared.ivar > 0
    np.testing.assert_allclose(prepared.ivar[used], 100.0)
    np.testing.assert_allclose(prepared.stellar, 2.0)
    np.testing.assert_allclose(prepared.continuum.mean(), 5.0 * (1.0 + Z) - 2.0, rtol=0.01)
    for kind, plane in (("error", 0.1), ("ivar", 100.0)):
        other = cube(uncertainty=np.full(variance.shape, plane), uncertainty_kind=kind)
        np.testing.assert_allclose(fitter(config(), other).preparation(np.arange(6)).ivar[used], 100.0)


def test_flagged_pixels_count_in_the_continuum_but_not_in_the_fit() -> None:
    flags = np.zeros((len(WAVE), 2, 3), int)
    flags[150:170] = 1
    clean = cube(flags=flags)
    values = np.array(clean.values)
    values[150:170] *= 1.05
    spiky = replace(clean, values=values)
    first, second = (fitter(config(), data).preparation(np.arange(6)) for data in (clean, spiky))
    assert isinstance(first, CompatPrepared)
    assert isinstance(second, CompatPrepared)
    assert np.array_equal(first.ivar > 0, second.ivar > 0)
    assert (np.abs(first.continuum - second.continuum).max(axis=1) > 1e-3).all()


def test_amplitude_keywords_are_those_of_the_whole_cube() -> None:
    flags = np.zeros((len(WAVE), 2, 3), int)
    data = cube(flags=flags)
    data.values[100, 1, 2], data.values[101, 0, 0] = 50.0, 90.0
    flags[101, 0, 0] = 1
    good = data.values[flags == 0] * (1.0 + Z)
    found = start_amplitudes(data, ["peak", "mean", "median"])
    assert found == pytest.approx({"peak": 50.0 * (1.0 + Z), "mean": good.mean(), "median": np.median(good)})


def test_options_that_ifscube_ignores_are_named_and_dropped() -> None:
    settings = config("guess_parameters: yes\nminimum_good_fraction: 0.5", "[equivalent_width]\nsigma_factor: 3")
    with pytest.warns(IfujaxWarning, match="guess_parameters.*minimum_good_fraction.*sigma_factor: no effect") as caught:
        found = adapted_config(settings)
    assert len(caught) == 1
    assert found.fit == replace(FitOptions(), window=(6450.0, 6650.0), ifscube_compat=True)
    assert found.equivalent_width.sigma_factor == 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted_config(config())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (config("profile: integrated"), "profile: sampled; got integrated"),
        (config("lsf: 2.5"), "no lsf"),
        (config("", "mode: joint"), "mode: rejection; got joint"),
        (config("function: voigt"), "one shape for all lines, gaussian or gauss_hermite; got voigt"),
    ],
)
def test_what_ifscube_could_not_do_is_refused(settings: LineFitConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        adapted_config(settings)


def test_a_given_continuum_is_refused() -> None:
    with pytest.raises(UsageError, match="continuum must not be given with ifscube_compat"):
        ifujax.fit_cube(cube(), config(), continuum=np.ones(len(WAVE)))


def test_difference_step() -> None:
    assert difference_step(config()) == 1e-3
    assert difference_step(config("", "[minimization]\nmaxiter: 50")) == pytest.approx(1.5e-8, rel=0.01)
    assert difference_step(config("method: differential_evolution")) == 0.0
    assert quiet(config("function: gauss_hermite")).model.h4_convention == "ifscube"
