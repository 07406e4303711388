"""Lines that are not plain emission Gaussians: absorption, Gauss-Hermite, Lorentzian, Voigt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import voigt_profile

import ifujax
from ifujax.data.cube import Cube
from ifujax.errors import UsageError
from ifujax.inference.parameter_space.declarations import Bounded, Fixed, Tied
from ifujax.lines.config import EmissionModel, FitOptions, Kinematics, Line, LineFitConfig
from ifujax.simulate.profiles import SPEED_OF_LIGHT, velocity_of

HA, N2 = 6562.8, 6583.46
WAVELENGTH = np.arange(6480.0, 6660.0, 1.25)
LEVEL, NOISE, CENTRE, SIGMA, FLUX = 10.0, 0.1, 50.0, 120.0, 60.0
H3, H4, FWHM = 0.1, 0.08, 150.0
FINE = 16
"""Sub-pixels over which the truth is averaged: the fit integrates over pixels."""


def mean_over_pixels(shape, rest: float = HA) -> np.ndarray:
    """Average a function of velocity, per km/s, over each pixel, per Angstrom."""
    step = (np.arange(FINE) + 0.5) / FINE - 0.5
    fine = WAVELENGTH[:, None] + 1.25 * step[None, :]
    velocity = velocity_of(fine, rest)
    # dv / dlambda of the relativistic Doppler formula: 4 c q / (lambda (1 + q)^2).
    q = (fine / rest) ** 2
    return (shape(velocity) * 4 * SPEED_OF_LIGHT * q / (fine * (1 + q) ** 2)).mean(axis=1)


def gaussian(velocity: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * ((velocity - CENTRE) / SIGMA) ** 2) / (np.sqrt(2 * np.pi) * SIGMA)


def hermite(velocity: np.ndarray) -> np.ndarray:
    """Textbook profile of unit flux (van der Marel & Franx 1993)."""
    w = (velocity - CENTRE) / SIGMA
    third = (2 * np.sqrt(2) * w**3 - 3 * np.sqrt(2) * w) / np.sqrt(6)
    fourth = (4 * w**4 - 12 * w**2 + 3) / np.sqrt(24)
    return gaussian(velocity) * (1 + H3 * third + H4 * fourth) / (1 + 3 * H4 / np.sqrt(24))


SHAPES = {
    "gaussian": (gaussian, {"velocity_dispersion": SIGMA}),
    "gauss_hermite": (hermite, {"velocity_dispersion": SIGMA, "h3": H3, "h4": H4}),
    "lorentzian": (lambda v: voigt_profile(v - CENTRE, 0.0, FWHM / 2), {"velocity_dispersion": FWHM / 2.354820045}),
    "voigt": (lambda v: voigt_profile(v - CENTRE, SIGMA, FWHM / 2), {"velocity_dispersion": SIGMA, "lorentz_fwhm": FWHM}),
}


def cube_of(signal: np.ndarray, n: int = 24, noise: float = NOISE, seed: int = 5) -> Cube:
    rng = np.random.default_rng(seed)
    data = LEVEL + signal[:, None, None] + noise * rng.standard_normal((WAVELENGTH.size, 1, n))
    return Cube(data, WAVELENGTH, uncertainty=np.full(data.shape, noise**2), uncertainty_kind="variance")


def model_of(shape: str, flux: Bounded = Bounded(0.0), **more) -> EmissionModel:
    kinematics = Kinematics(Bounded(-500, 500, start=0), Bounded(20, 500, start=100))
    return EmissionModel([Line("ha", HA, kinematics, flux=flux, shape=shape, **more)], continuum_degree=1)


@pytest.mark.parametrize("shape", [*(name for name in SHAPES if name != "voigt"), pytest.param("voigt", marks=pytest.mark.slow)])
def test_truth_is_found_within_errors(shape: str) -> None:
    profile, parameters = SHAPES[shape]
    fit = ifujax.fit_cube(cube_of(FLUX * mean_over_pixels(profile)), model_of(shape))
    assert (fit.status == 0).all()
    for name, truth in {"flux": FLUX, "velocity": CENTRE, **parameters}.items():
        pulls = (fit["ha", name] - truth) / fit.error["ha", name]
        # The mean of 24 has an error of 0.2; 4 of them, and a little for what isn't linear.
        assert abs(pulls.mean()) < 0.9, name
        assert 0.5 < pulls.std() < 1.6, name
        # Not by large errors.
        assert fit.error["ha", name].max() < 0.3 * (abs(truth) if name != "velocity" else SIGMA) + 0.02, name
    spectra = fit.spectra(np.array([0]))
    assert spectra.lines[0].sum() * 1.25 == pytest.approx(fit["ha", "flux"][0, 0], rel=0.06)  # a Lorentzian's wings go on


@pytest.mark.parametrize("profile", ["integrated", pytest.param("sampled", marks=pytest.mark.slow)])
def test_peak_and_flux_belong_together(profile: str) -> None:
    """For every shape the reported peak, times the profile of unit peak, has the reported flux."""
    for shape in ("gaussian", "gauss_hermite", "lorentzian"):
        truth, _ = SHAPES[shape]
        cube = cube_of(FLUX * mean_over_pixels(truth), n=1, noise=0.02)
        fit = ifujax.fit_cube(cube, replace(model_of(shape), profile=profile))
        width = fit["ha", "sigma"][0, 0] * HA / SPEED_OF_LIGHT
        factor = np.sqrt(2 * np.pi) if shape != "lorentzian" else 0.5 * np.pi * 2.354820045
        if shape == "gauss_hermite":
            factor *= 1 + 3 * fit["ha", "h4"][0, 0] / np.sqrt(24)
        assert fit["ha", "flux"][0, 0] == pytest.approx(fit["ha", "amplitude"][0, 0] * width * factor, rel=1e-10)


def test_absorption_lines_mirror_emission_lines() -> None:
    """The same data, upside down: the same start search, the same fit."""
    signal = FLUX * mean_over_pixels(gaussian)
    up = cube_of(signal)
    down = replace(up, values=2 * LEVEL - up.values)
    emission = ifujax.fit_cube(up, model_of("gaussian"))
    absorption = ifujax.fit_cube(down, model_of("gaussian", Bounded(upper=0.0)))
    either = ifujax.fit_cube(down, model_of("gaussian", Bounded()))
    assert (absorption.status == 0).all()
    for fit in (absorption, either):
        np.testing.assert_allclose(fit["ha", "flux"], -emission["ha", "flux"], rtol=1e-6)
        np.testing.assert_allclose(fit["ha", "velocity"], emission["ha", "velocity"], atol=1e-4)
    assert (absorption["ha", "equivalent_width"] > 0).all()
    assert ((absorption.warn & ifujax.inference.status.NO_DETECTION.value) == 0).all()


def test_absorption_under_emission() -> None:
    """A narrow line in emission on a broad one in absorption, as Balmer lines of old stars have it."""
    broad = 60.0 * mean_over_pixels(lambda v: np.exp(-0.5 * (v / 600.0) ** 2) / (np.sqrt(2 * np.pi) * 600.0))
    narrow = 30.0 * mean_over_pixels(lambda v: np.exp(-0.5 * (v / 80.0) ** 2) / (np.sqrt(2 * np.pi) * 80.0))
    lines = [
        Line("emission", HA, Kinematics(Bounded(-200, 200, start=0), Bounded(30, 200, start=80)), flux=Bounded(0.0)),
        Line("absorption", HA, Kinematics(Fixed(0.0), Bounded(300, 1000, start=600)), flux=Bounded(upper=0.0)),
    ]
    fit = ifujax.fit_cube(cube_of(narrow - broad), EmissionModel(lines, continuum_degree=0))
    for line, truth in (("emission", 30.0), ("absorption", -60.0)):
        pulls = (fit[line, "flux"] - truth) / fit.error[line, "flux"]
        assert abs(pulls.mean()) < 0.9


def test_shapes_may_mix_and_share_kinematics() -> None:
    """A Gauss-Hermite and a Gaussian line of one group share velocity and dispersion; only one of them has h3 and h4."""
    signal = FLUX * mean_over_pixels(hermite) + 0.5 * FLUX * mean_over_pixels(gaussian, N2)
    kinematics = Kinematics(Bounded(-500, 500, start=0), Bounded(20, 500, start=100))
    lines = [
        Line("ha", HA, kinematics, shape="gauss_hermite"),
        Line("n2", N2, kinematics, flux=Tied("ha.flux * 0.5")),
    ]
    fit = ifujax.fit_cube(cube_of(signal), EmissionModel(lines))
    np.testing.assert_array_equal(fit["ha", "velocity"], fit["n2", "velocity"])
    assert np.isnan(fit["n2", "h3"]).all()
    pulls = (fit["ha", "h3"] - H3) / fit.error["ha", "h3"]
    assert abs(pulls.mean()) < 0.9
    np.testing.assert_allclose(fit["n2", "flux"], 0.5 * fit["ha", "flux"])


def test_lsf_is_taken_off_a_lorentzian_and_a_voigt_profile() -> None:
    lsf = 2.5
    instrumental = lsf / 2.354820045 * SPEED_OF_LIGHT / HA
    seen = FLUX * mean_over_pixels(lambda v: voigt_profile(v - CENTRE, instrumental, FWHM / 2))
    fit = ifujax.fit_cube(cube_of(seen), replace(model_of("lorentzian"), lsf=ifujax.LSF.constant(lsf)))
    pulls = (fit["ha", "velocity_dispersion"] - FWHM / 2.354820045) / fit.error["ha", "velocity_dispersion"]
    assert abs(pulls.mean()) < 0.9
    assert (fit["ha", "sigma"] > fit["ha", "velocity_dispersion"]).all()


def test_ifscube_h4_is_the_textbook_one_under_other_names() -> None:
    """A'=A(1-1.2247 h4) and so on: the two families hold the same profiles (specification, 4)."""
    cube = cube_of(FLUX * mean_over_pixels(hermite), n=4)
    fits = {
        convention: ifujax.fit_cube(cube, replace(model_of("gauss_hermite"), profile="sampled", h4_convention=convention))
        for convention in ("textbook", "ifscube")
    }
    ours, theirs = fits["textbook"], fits["ifscube"]
    np.testing.assert_allclose(ours.chi2, theirs.chi2, rtol=1e-7)
    factor = 1 - 6 / np.sqrt(24) * theirs["ha", "h4"]
    np.testing.assert_allclose(ours["ha", "h4"], theirs["ha", "h4"] / factor, atol=1e-4)
    np.testing.assert_allclose(ours["ha", "amplitude"], theirs["ha", "amplitude"] * factor, rtol=1e-4)
    with pytest.raises(UsageError, match="h4_convention"):
        replace(model_of("gauss_hermite"), h4_convention="ifscube")


def test_unknown_shape_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="gauss_hermite"):
        Line("ha", HA, Kinematics(), shape="gauss_hermit")  # type: ignore[arg-type]


class TestMonteCarlo:
    """Errors from noise realisations."""

    @staticmethod
    def fitted(**options) -> ifujax.CubeFit:
        config = LineFitConfig(model_of("gaussian"), fit=FitOptions(monte_carlo=60, **options))
        return ifujax.fit_cube(cube_of(FLUX * mean_over_pixels(gaussian), n=12), config)

    def test_scatter_agrees_with_the_covariance(self) -> None:
        drawn = self.fitted()
        plain = ifujax.fit_cube(drawn.cube, model_of("gaussian"))
        for name in ("flux", "velocity", "sigma", "equivalent_width", "flux_direct"):
            np.testing.assert_array_equal(drawn["ha", name], plain["ha", name])
            ratio = drawn.error["ha", name] / plain.error["ha", name]
            assert ratio.mean() == pytest.approx(1.0, abs=0.1), name  # 720 draws: 3 %

    def test_all_draws_are_kept_and_reproducible(self) -> None:
        one, two = self.fitted(seed=3), self.fitted(seed=3)
        assert one.draws["flux"].shape == (60, 1, 1, 12)
        np.testing.assert_array_equal(one.draws["flux"], two.draws["flux"])
        np.testing.assert_allclose(one.draws["flux"].std(axis=0, ddof=1)[0], one.error["ha", "flux"], rtol=1e-6)
        assert not np.array_equal(one.draws["flux"], self.fitted(seed=4).draws["flux"])

    def test_draws_do_not_depend_on_chunks(self) -> None:
        config = LineFitConfig(model_of("gaussian"), fit=FitOptions(monte_carlo=5))
        cube = cube_of(FLUX * mean_over_pixels(gaussian), n=12)
        whole, parts = ifujax.fit_cube(cube, config), ifujax.fit_cube(cube, config, chunk_size=5)
        np.testing.assert_allclose(whole.draws["flux"], parts.draws["flux"], rtol=1e-5)
