"""What the options of [fit] do to a cube's fit, each against a plain fit of the same data."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import ifujax
from ifujax import simulate
from ifujax.errors import DataError, UsageError
from ifujax.inference import status as bits
from ifujax.inference.parameter_space.declarations import Bounded, Fixed, Tied
from ifujax.lines.chunk import ChunkFitter
from ifujax.lines.config import EmissionModel, EquivalentWidthOptions, FitOptions, Kinematics, Line, LineFitConfig
from ifujax.lines.starts.declared import declared_start, moment_start

SHAPE = (4, 5)
WINDOW = (6480.0, 6640.0)


@pytest.fixture(scope="module")
def disc():
    return simulate.cube(SHAPE, nan_spaxels=[(0, 0)], bad_fraction=0.02, scale_radius=20.0, seed=3)


@pytest.fixture(scope="module")
def cube(disc):
    return disc.cube


def config_of(**options) -> LineFitConfig:
    kinematics = Kinematics(Bounded(-400, 400, start=20.0), Bounded(20, 400, start=80))
    lines = (
        Line("ha", 6562.8, kinematics, amplitude=Bounded(0.0, start="peak")),
        Line("n2", 6583.46, kinematics, flux=Bounded(0.0, start=12.0)),
    )
    return LineFitConfig(EmissionModel(lines, continuum_degree=1), fit=FitOptions(window=WINDOW, **options))


@pytest.fixture(scope="module")
def plain(cube):
    return ifujax.fit_cube(cube, config_of())


class TestDeclaredStarts:
    def test_words_are_of_each_spectrum(self, cube) -> None:
        fitter = ChunkFitter(cube.cut(*WINDOW), config_of(), None)
        ready = fitter.preparation(np.arange(3, 9))
        used = ready.ivar > 0
        for word, of in (("peak", np.max), ("mean", np.mean), ("median", np.median)):
            line = replace(fitter.setup.lines[0], amplitude=Bounded(-np.inf, start=word))
            setup = replace(fitter.setup, lines=(line, *fitter.setup.lines[1:]))
            found = declared_start(setup, ready.residual, ready.ivar)["ha.amplitude"]
            expected = [of(values[good]) for values, good in zip(ready.residual, used)]
            np.testing.assert_allclose(found, expected)
        start = declared_start(fitter.setup, ready.residual, ready.ivar)
        assert (start["n2.flux"] == 12.0).all()
        assert (start["ha.velocity"] == 20.0).all()

    def test_moments_keep_the_guess_where_they_break_bounds(self, cube) -> None:
        fitter = ChunkFitter(cube.cut(*WINDOW), config_of(), None)
        ready = fitter.preparation(np.arange(1, 20))
        coords = fitter.coords
        free = moment_start(fitter.setup, ready.residual, ready.ivar, coords.pixel_velocity, coords.width)
        assert (free["ha.velocity"] != 20.0).any()
        narrow = Kinematics(Bounded(19.9, 20.1, start=20.0), Bounded(79.9, 80.1, start=80))
        lines = tuple(replace(line, kinematics=narrow) for line in fitter.setup.lines)
        held = moment_start(replace(fitter.setup, lines=lines), ready.residual, ready.ivar, coords.pixel_velocity, coords.width)
        assert (held["ha.velocity"] == 20.0).all()
        assert (held["ha.velocity_dispersion"] == 80.0).all()

    @pytest.mark.parametrize("option", ["guess_parameters", "trivial"])
    def test_one_more_start_never_ends_higher(self, cube, plain, option: str) -> None:
        fit = ifujax.fit_cube(cube, config_of(**{option: True}))
        fitted = plain.status == 0
        assert (fit.chi2[fitted] <= plain.chi2[fitted] * (1 + 1e-7)).all()


def test_fixed_evaluates_the_guesses(cube) -> None:
    fit = ifujax.fit_cube(cube, config_of(fixed=True))
    fitted = fit.status == 0
    assert fitted.sum() == fit.status.size - 1
    assert (fit["ha", "velocity"][fitted] == 20.0).all()
    np.testing.assert_allclose(fit["n2", "flux"][fitted], 12.0)
    assert np.isnan(fit.error["ha", "flux"]).all()
    assert np.isnan(fit["ha", "flux"][0, 0])
    # The continuum is linear and is solved for: chi2 is that of the reported model.
    row = int(np.flatnonzero(fitted.ravel())[5])
    spectra = fit.spectra(np.array([row]))
    pulls = (spectra.data - spectra.model) / np.sqrt(spectra.variance)
    assert np.sum(np.where(spectra.fitted, pulls, 0.0) ** 2) == pytest.approx(fit.chi2.ravel()[row], rel=1e-9)


def test_jacobian_blanks_lines_with_a_free_parameter_that_does_nothing(cube) -> None:
    """A line that is not there (flux at its bound, 0) has no velocity."""
    free, narrow = Kinematics(Bounded(-400, 400), Bounded(20, 400)), Kinematics(Bounded(-20, 20), Bounded(70, 90))
    lines = (Line("ha", 6562.8, free), Line("nothing", 6520.0, narrow, flux=Bounded(upper=0.0)))
    config = LineFitConfig(EmissionModel(lines, continuum_degree=1), fit=FitOptions(window=WINDOW))
    loose = ifujax.fit_cube(cube, config)
    strict = ifujax.fit_cube(cube, replace(config, fit=replace(config.fit, test_jacobian=True)))
    without = np.isnan(loose["nothing", "velocity"]) & (loose.status == 0)
    assert without.any()
    assert np.isfinite(loose["nothing", "flux"][without]).all()
    assert np.isnan(strict["nothing", "flux"][without]).all()
    np.testing.assert_array_equal(strict["ha", "flux"], loose["ha", "flux"])


def test_minimum_good_fraction(cube) -> None:
    flags = np.zeros(cube.shape, np.uint8)
    flags[::2, 2, 3] = 1
    half = replace(cube, flags=flags)
    fit = ifujax.fit_cube(half, config_of(minimum_good_fraction=0.8))
    assert fit.status[2, 3] == bits.FEW_GOOD_PIXELS.value
    assert np.isnan(fit["ha", "flux"][2, 3])
    assert fit.status[2, 2] == 0
    assert ifujax.fit_cube(half, config_of(minimum_good_fraction=0.3)).status[2, 3] == 0


def test_sig_threshold_blanks_faint_lines(cube, plain) -> None:
    snr = plain["n2", "snr"]
    threshold = float(np.nanmedian(snr))
    fit = ifujax.fit_cube(cube, config_of(sig_threshold=threshold))
    np.testing.assert_array_equal(np.isnan(fit["n2", "flux"]), ~(snr >= threshold))
    np.testing.assert_array_equal(fit.status, plain.status)


class TestOneSpaxel:
    def test_numbers(self, cube, plain) -> None:
        fit = ifujax.fit_cube(cube, config_of(individual_spec=(3, 2)))
        assert (fit.status == 0).sum() == 1
        assert fit.status[0, 1] == bits.SKIPPED.value
        np.testing.assert_allclose(fit["ha", "flux"][2, 3], plain["ha", "flux"][2, 3], rtol=1e-6)

    @pytest.mark.parametrize("word", ["peak", "cofm"])
    def test_words(self, cube, word: str) -> None:
        fit = ifujax.fit_cube(cube, config_of(individual_spec=word))
        y, x = np.argwhere(fit.status == 0)[0]
        expected = cube.peak() if word == "peak" else tuple(round(v) for v in cube.centroid())
        assert (x, y) == expected

    def test_outside_and_masked(self, cube) -> None:
        with pytest.raises(UsageError, match="individual_spec must be x, y within"):
            ifujax.fit_cube(cube, config_of(individual_spec=(9, 0)))
        mask = np.zeros(SHAPE, bool)
        mask[2, 3] = True
        with pytest.raises(DataError, match="not masked"):
            ifujax.fit_cube(replace(cube, spatial_mask=mask), config_of(individual_spec=(3, 2)))


def test_bins_are_fitted_once(cube, plain) -> None:
    """Spaxels of a Voronoi bin hold one spectrum; the others have no bin."""
    bins = np.full(SHAPE, -1)
    bins[1, 1:3], bins[2, 2:4] = 0, 7
    values, variance = cube.values.copy(), cube.uncertainty.copy()
    flags = cube.flags.copy()
    for array in (values, variance, flags):
        array[:, 1, 2], array[:, 2, 3] = array[:, 1, 1], array[:, 2, 2]
    binned = replace(cube, values=values, uncertainty=variance, flags=flags, bins=bins)
    seen = []
    fit = ifujax.fit_cube(binned, config_of(), progress=lambda stage, done, total: seen.append(total))
    assert set(seen) == {2}
    np.testing.assert_allclose(fit["ha", "flux"][1, 1:3], plain["ha", "flux"][1, 1], rtol=1e-6)
    np.testing.assert_allclose(fit["ha", "flux"][2, 2:4], plain["ha", "flux"][2, 2], rtol=1e-6)
    assert (fit.status[bins < 0] == bits.SKIPPED.value).all()
    spectra = fit.spectra(np.array([1 * SHAPE[1] + 2]))
    assert np.isfinite(spectra.model).all()


def test_wider_window_reads_more_of_the_data(cube, plain) -> None:
    """sigma_factor moves the edges of what is summed: a narrower window loses a known part of the residuals only."""
    assert EquivalentWidthOptions() == EquivalentWidthOptions(5.0)
    fit = ifujax.fit_cube(cube, replace(config_of(), equivalent_width=EquivalentWidthOptions(2.0)))
    np.testing.assert_array_equal(fit["ha", "flux"], plain["ha", "flux"])
    narrow, wide = (each.error["ha", "flux_direct"] for each in (fit, plain))
    fitted = np.isfinite(narrow)
    assert (wide[fitted] > narrow[fitted]).all()


def test_fixed_parameters_have_no_error(cube) -> None:
    kinematics = Kinematics(Fixed(20.0), Fixed(90.0))
    fit = ifujax.fit_cube(cube, EmissionModel([Line("ha", 6562.8, kinematics)]), window=WINDOW)
    fitted = fit.status == 0
    assert (fit.error["ha", "velocity"][fitted] == 0).all()
    assert (fit["ha", "velocity"][fitted] == 20.0).all()


class TestBins:
    """Masks and single spaxels within Voronoi bins."""

    @staticmethod
    def binned(cube, mask=None):
        bins = np.zeros(SHAPE, int)
        bins[:, 3:] = 1
        return replace(cube, bins=bins, spatial_mask=mask)

    def test_a_masked_spaxel_does_not_take_its_bin_with_it(self, cube) -> None:
        mask = np.zeros(SHAPE, bool)
        mask[0, :2] = True
        fit = ifujax.fit_cube(self.binned(cube, mask), config_of())
        np.testing.assert_array_equal(fit.status, np.where(mask, bits.SKIPPED.value, 0))
        assert (fit["ha", "flux"][1:, :3] == fit["ha", "flux"][0, 2]).all()
        assert fit["ha", "flux"][0, 3] != fit["ha", "flux"][0, 2]

    def test_one_spaxel_is_one_spaxel(self, cube) -> None:
        fit = ifujax.fit_cube(self.binned(cube), config_of(individual_spec=(1, 1)))
        assert np.argwhere(fit.status == 0).tolist() == [[1, 1]]


def test_thresholds_leave_unfitted_guesses_alone(cube) -> None:
    fit = ifujax.fit_cube(cube, config_of(fixed=True, sig_threshold=3.0, test_jacobian=True))
    assert np.isfinite(fit["ha", "flux"][fit.status == 0]).all()


def test_jacobian_looks_at_a_line_s_own_parameters(cube) -> None:
    kinematics = [Kinematics(Bounded(-400, 400), Bounded(20, 400)) for _ in range(2)]
    lines = (Line("ha", 6562.8, kinematics[0]), Line("n2", 6583.46, kinematics[1], shape="gauss_hermite"))
    config = LineFitConfig(EmissionModel(lines), fit=FitOptions(window=WINDOW, test_jacobian=True))
    fit = ifujax.fit_cube(cube, config)
    assert np.isfinite(fit["ha", "flux"][fit.status == 0]).all()


def test_tied_lines_have_the_guess_of_their_leader(cube) -> None:
    """Windows of optimize_fit are about the guesses."""
    lines = (
        Line("ha", 6562.8, Kinematics(Bounded(500, 1500, start=800.0), Bounded(20, 400, start=90.0))),
        Line("n2", 6583.46, Kinematics(Tied("ha.velocity + 10"), Tied("ha.velocity_dispersion * 2"))),
    )
    config = LineFitConfig(EmissionModel(lines), fit=FitOptions(window=WINDOW, optimize_fit=True, optimization_window=5.0))
    setup = ChunkFitter(cube.cut(*WINDOW), config, None).setup
    np.testing.assert_allclose(setup.guess_velocity, [800.0, 810.0])
    np.testing.assert_allclose(setup.guess_sigma, [90.0, 180.0])
    assert setup.line_windows is not None
    np.testing.assert_allclose(
        setup.line_windows.mean(axis=1), [6562.8 * (1 + 800 / 299792.458), 6583.46 * (1 + 810 / 299792.458)]
    )


def test_lines_broader_than_their_guess_keep_their_wings() -> None:
    """Wings beyond what the guess reaches are clipped by the rejection polynomial, but are no outliers."""
    wavelength = np.arange(6350.0, 6780.0, 1.25)
    rng = np.random.default_rng(4)
    sigma, flux = 500.0, 1000.0
    width = sigma * 6562.8 / 299792.458
    profile = flux * np.exp(-0.5 * ((wavelength - 6562.8) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    data = 20 + profile[:, None, None] + rng.standard_normal((wavelength.size, 1, 200))
    for variance in (np.ones_like(data), None):
        kind = None if variance is None else "variance"
        broad = ifujax.Cube(data, wavelength, uncertainty=variance, uncertainty_kind=kind)
        kinematics = Kinematics(Bounded(-200, 200, start=0.0), Bounded(10, 1500, start=100.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ifujax.IfujaxWarning)  # that there is no variance
            fit = ifujax.fit_cube(broad, EmissionModel([Line("ha", 6562.8, kinematics)]))
        for name, truth in (("flux", flux), ("sigma", sigma)):
            pulls = (fit["ha", name] - truth) / fit.error["ha", name]
            assert abs(pulls.mean()) < 0.25, (name, kind)
            assert pulls.std() == pytest.approx(1.0, abs=0.2)
        assert np.median(fit.reduced_chi2) == pytest.approx(1.0, abs=0.1)
