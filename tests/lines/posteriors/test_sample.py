"""From a fit to posteriors: maps and draws, what they may not depend on, resuming, limits, wrong use."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy.stats import halfnorm

import ifujax
from ifujax.data.cube import Cube
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.inference import status as bits
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.status import NOT_ASKED
from ifujax.io.checkpoint import ChunkStore
from ifujax.lines.posteriors import run as run_module
from ifujax.lines.posteriors import sampled as sampled_module
from ifujax.lines.posteriors.chunks import ChunkSampler
from ifujax.lines.posteriors.quantities import quantities_of
from ifujax.lines.posteriors.results import CubePosterior
from ifujax.lines.posteriors.run import sample
from ifujax.lines.posteriors.sampled import Layout
from ifujax.lines.results import CubeFit
from ifujax.lines.run import as_config
from ifujax.simulate import SimulatedSpectra, Uniform, spectra
from ifujax.simulate.simulated_spectra import SimulatedLine

SHAPE = (3, 4)
EMPTY = (1, 2)
"""(y, x) of a spaxel without data."""
DRAWS = 400
WAVELENGTH = np.arange(6500.0, 6640.0, 1.5)
LINES = (SimulatedLine("ha", 6562.80), SimulatedLine("n2", 6583.46, Uniform(0.3, 0.8)))


def model(**options) -> ifujax.EmissionModel:
    gas = ifujax.Kinematics(ifujax.Bounded(-500, 500, start=0.0), ifujax.Bounded(30, 400, start=120.0))
    return ifujax.EmissionModel([ifujax.Line(line.name, line.wavelength, gas, **options) for line in LINES], continuum_degree=1)


@lru_cache
def problem() -> SimulatedSpectra:
    snr = np.linspace(4.0, 30.0, SHAPE[0] * SHAPE[1])
    return spectra(len(snr), LINES, wavelength=WAVELENGTH, continuum=(10.0, 1.0), noise=1.0, snr=snr, seed=3)


def cube_of(made: SimulatedSpectra, shape: tuple[int, int], variance: bool = True, factor: float = 1.0) -> Cube:
    values = made.values.T.reshape(-1, *shape).copy() * factor
    plane = made.variance.T.reshape(values.shape).copy() * factor**2
    return Cube(
        values, made.wavelength, uncertainty=plane if variance else None, uncertainty_kind="variance" if variance else None
    )


@lru_cache
def galaxy() -> CubeFit:
    cube = cube_of(problem(), SHAPE)
    cube.values[:, EMPTY[0], EMPTY[1]] = np.nan
    return ifujax.fit_cube(cube, model())


def drawn(fit: CubeFit | ifujax.SpectrumFit, **options) -> CubePosterior:
    """What is asked for as usual: programs are compiled once."""
    return sample(fit, **{"draws": DRAWS, "ratios": [("n2", "ha")], "widths": ["ha"]} | options)


@lru_cache
def sampled() -> CubePosterior:
    return drawn(galaxy())


def all_draws(post: CubePosterior) -> dict[str, np.ndarray]:
    return {name: np.stack([post.spaxel(x, y)[name] for y, x in np.ndindex(*post.shape)]) for name in post.layout.variables}


def assert_same(one: CubePosterior, two: CubePosterior) -> None:
    ours, theirs = all_draws(one), all_draws(two)
    for name, draws in ours.items():
        np.testing.assert_array_equal(theirs[name], draws, err_msg=name)
    for name in ("tier", "khat", "ess", "rhat", "status"):
        np.testing.assert_array_equal(getattr(two, name), getattr(one, name), err_msg=name)
    np.testing.assert_array_equal(two["ha", "flux"], one["ha", "flux"])


def test_maps() -> None:
    post, truth = sampled(), problem().truth
    assert post.shape == SHAPE
    fitted = galaxy().status == 0
    assert fitted.sum() == SHAPE[0] * SHAPE[1] - 1
    assert (post.tier[fitted] > 0).all()
    for line in ("ha", "n2"):
        for quantity in ("flux", "velocity", "velocity_dispersion", "amplitude", "equivalent_width", "sigma"):
            pull = (post[line, quantity].ravel() - truth[f"{line}.{quantity}"]) / post.error[line, quantity].ravel()
            assert np.abs(pull[fitted.ravel()]).max() < 4.5, (line, quantity)
            draws = np.stack([post.draws(line, quantity, x, y) for y, x in np.ndindex(*SHAPE)]).reshape(*SHAPE, -1)
            for q in (0.025, 0.16, 0.5, 0.84, 0.3):
                expected = np.quantile(draws[fitted], q, axis=-1)
                np.testing.assert_allclose(post.quantile(line, quantity, q)[fitted], expected, rtol=1e-5)
            np.testing.assert_allclose(post.mean[line, quantity][fitted], draws[fitted].mean(axis=-1), rtol=1e-5)
            np.testing.assert_allclose(post.sd(line, quantity)[fitted], draws[fitted].std(axis=-1, ddof=1), rtol=1e-4)
            high, low = (post.quantile(line, quantity, q) for q in (0.84, 0.16))
            np.testing.assert_allclose(post.error[line, quantity], 0.5 * (high - low))
    np.testing.assert_array_equal(post.upper_limit("n2"), post.quantile("n2", "flux", 0.95))
    # Where lines are bright the posterior is the fit's parabola.
    bright = fitted & (galaxy()["ha", "snr"] > 20)
    assert bright.sum() > 4
    ratio = (post.error["ha", "flux"] / galaxy().error["ha", "flux"])[bright]
    np.testing.assert_allclose(ratio, 1.0, atol=0.2)
    assert post.detected("ha")[bright].all()
    assert post.draws("ha", "flux", 0, 0).shape == (4, DRAWS // 4)
    assert (post.lines, post.quantities[:3]) == (("ha", "n2"), ("flux", "amplitude", "velocity"))
    assert (post.draws_per_spaxel, post.method, post.seed) == (DRAWS, "auto", 0)
    assert post.units["velocity"] == "km/s"


def test_ratios_and_widths() -> None:
    post = sampled()
    n2, ha = (post.spaxel(3, 2)["flux"][..., k] for k in (1, 0))
    expected = np.log10(n2 / ha)
    np.testing.assert_allclose(post.draws("n2/ha", "ratio", 3, 2), expected, atol=1e-5)
    np.testing.assert_allclose(post.ratio("n2", "ha", 0.16)[2, 3], np.quantile(expected, 0.16), atol=1e-5)
    np.testing.assert_allclose(post.ratio("ha", "n2", 0.84), -post.ratio("n2", "ha", 0.16))
    np.testing.assert_array_equal(post["n2/ha", "ratio"], post.ratio("n2", "ha"))
    sigma = post.draws("ha", "sigma", 3, 2)
    np.testing.assert_allclose(post.draws("ha", "velocity_width", 3, 2), 2.5631031310892007 * sigma, rtol=1e-5)
    np.testing.assert_array_equal(post.velocity_width("ha"), post["ha", "velocity_width"])
    # One that was not asked for, while the draws are there.
    plain = drawn(galaxy(), ratios=())
    np.testing.assert_allclose(plain.ratio("n2", "ha", 0.3), post.ratio("n2", "ha", 0.3), atol=1e-5)
    assert plain.ratios == ()


def test_spaxels_without_a_fit() -> None:
    post = sampled()
    y, x = EMPTY
    assert post.status[EMPTY] == bits.NO_FIT.value
    assert post.tier[EMPTY] == 0
    assert np.isnan([post["ha", "flux"][EMPTY], post.khat[EMPTY], post.ess[EMPTY], post.ratio("n2", "ha")[EMPTY]]).all()
    assert np.isnan(post.draws("ha", "flux", x, y)).all()
    assert not post.detected("ha")[EMPTY]
    assert "not sampled: no fit: no usable pixel" in post.describe(x, y)
    with pytest.raises(DataError, match="spaxels to sample must have a fit; 11 of 12 spaxels have one"):
        drawn(galaxy(), where=[(x, y)])


def test_where() -> None:
    post = sampled()
    chosen = np.zeros(SHAPE, bool)
    chosen[[0, 2], [1, 3]] = True
    asked = [drawn(galaxy(), where=chosen), drawn(galaxy(), where=[(3, 2), (1, 0)])]
    for some in asked:
        assert_same(asked[0], some)
        for y, x in ((0, 1), (2, 3)):
            np.testing.assert_array_equal(some.draws("n2", "velocity", x, y), post.draws("n2", "velocity", x, y))
            assert some.khat[y, x] == post.khat[y, x]
        assert (some.status[~chosen] == NOT_ASKED.value).all()
        assert np.isnan(some["ha", "flux"][~chosen]).all()
        assert some.describe(0, 0) == "spaxel x=0, y=0: not sampled: not asked for."
    one = drawn(galaxy(), where=(3, 2))
    assert (one.tier > 0).sum() == 1


@pytest.mark.parametrize("chunk_size", [1, 5])
def test_chunks_do_not_matter(chunk_size: int) -> None:
    assert_same(sampled(), drawn(galaxy(), chunk_size=chunk_size))


def test_more_draws_come_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {draws: run_module._chunk_of(draws) for draws in (4, 1000, 4000, 4004, 32000, 128000, 10**7)}
    assert sizes == {4: 256, 1000: 256, 4000: 256, 4004: 248, 32000: 32, 128000: 8, 10**7: 8}
    honest, made = ChunkSampler.__call__, []

    def counted(self: ChunkSampler, rows: np.ndarray, progress: Callable | None = None):
        made.append(len(rows))
        return honest(self, rows, progress)

    monkeypatch.setattr(ChunkSampler, "__call__", counted)
    monkeypatch.setattr(run_module, "_CHUNK_DRAWS", 9 * DRAWS)
    assert_same(sampled(), drawn(galaxy()))
    assert made == [8, 3]


def test_units_do_not_matter_but_the_seed_does() -> None:
    where = [(3, 2)]
    usual = drawn(galaxy(), where=where)
    tiny = drawn(ifujax.fit_cube(cube_of(problem(), SHAPE, factor=1e-20), model()), where=where)
    for quantity, factor in (("velocity", 1.0), ("flux", 1e20)):
        shift = factor * tiny["ha", quantity] - usual["ha", quantity]
        assert np.abs(shift / usual.error["ha", quantity])[2, 3] < 0.1
    other = drawn(galaxy(), where=where, seed=1)
    assert (other.draws("ha", "flux", 3, 2) != usual.draws("ha", "flux", 3, 2)).all()


def test_bins_are_sampled_once() -> None:
    bins = np.array([[0, 0, 1, 1], [2, 0, 1, -1], [2, 2, 3, 3]])
    plain = cube_of(problem(), SHAPE)
    mask = np.zeros(SHAPE, bool)
    mask[0, 0] = True  # the first of bin 0
    fit = ifujax.fit_cube(replace(plain, bins=bins, spatial_mask=mask), model())
    post = drawn(fit)
    assert len(post.chosen.rows) == 4
    for k in range(4):
        inside = (bins == k) & ~mask
        assert np.isfinite(post["ha", "flux"][inside]).all()
        assert np.ptp(post["ha", "flux"][inside]) == 0
    for y, x in ((0, 0), (1, 3)):
        assert np.isnan(post["ha", "flux"][y, x])
        assert post.status[y, x] == bits.NO_FIT.value
    # Another member of the bin alone: the same draws.
    one = drawn(fit, where=[(1, 1)])
    np.testing.assert_array_equal(one.draws("ha", "flux", 1, 1), post.draws("ha", "flux", 1, 0))
    assert one.status[0, 1] == NOT_ASKED.value


def test_a_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, made = sampled(), []
    honest = ChunkSampler.__call__

    def counted(self: ChunkSampler, rows: np.ndarray, progress: Callable | None = None):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(rows)
        return honest(self, rows, progress)

    monkeypatch.setattr(ChunkSampler, "__call__", counted)
    options = {"chunk_size": 4}
    identity = {"input": "galaxy"}
    with ChunkStore.open(tmp_path / "out.nc", identity) as kept, pytest.raises(KeyboardInterrupt):
        drawn(galaxy(), checkpoint=kept, **options)
    assert len(made) == 2
    made.append(np.arange(0))  # the brake is off
    told = []
    with ChunkStore.open(tmp_path / "out.nc", identity) as kept:
        assert kept.resumed == 2
        post = drawn(galaxy(), checkpoint=kept, progress=lambda *args: told.append(args), **options)
        assert len(made) == 4
        assert_same(expected, post)
        assert told[0] == ("compile", 0, 11)
        assert told[-1] == ("sample", 11, 11)
        counts = [done for stage, done, _ in told if stage == "sample"]
        assert counts == sorted(counts)
        # What is kept is of this seed and these draws.
        other = drawn(galaxy(), checkpoint=kept, **options | {"seed": 1})
        assert len(made) == 7
        assert (other["ha", "flux"] != post["ha", "flux"]).all()
        drawn(galaxy(), checkpoint=kept, **options)
        assert len(made) == 7


def test_chunks_of_other_priors_are_not_taken() -> None:
    def named(prior: ifujax.LogNormal) -> str:
        gas = ifujax.Kinematics(ifujax.Bounded(-500, 500, start=0.0), ifujax.Bounded(30, 400, start=120.0, prior=prior))
        config = as_config(ifujax.EmissionModel([ifujax.Line("ha", 6562.80, gas)], continuum_degree=1))
        # Guesses alone, the same for all: no fitter is compiled for a prior that least squares does not see.
        fit = ifujax.fit_cube(galaxy().cube, replace(config, fit=replace(config.fit, fixed=True)))
        quantities, _ = quantities_of(fit, None)
        layout = Layout.of(fit.setup.model, (), (), 4, 100)
        return ChunkSampler(fit, quantities, layout, SamplingOptions(), seed=0).fingerprint(np.arange(4))

    assert named(ifujax.LogNormal(120.0, 0.5)) == named(ifujax.LogNormal(120.0, 0.5))
    assert named(ifujax.LogNormal(120.0, 0.5)) != named(ifujax.LogNormal(120.0, 0.5000001))


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = sampled().layout
    held = sum(draws.nbytes for draws in sampled().sampled.draws.values())
    assert layout.bytes_per_spaxel * 11 == held
    monkeypatch.setattr(sampled_module, "LARGEST_IN_MEMORY", held - 1)
    with pytest.raises(UsageError, match=r"draws must take less than .* 11 spaxels with 400 draws each. Give store=.*where="):
        drawn(galaxy())
    monkeypatch.setattr(sampled_module, "LARGEST_IN_MEMORY", held)
    drawn(galaxy())


def test_noise_scaled_as_the_errors_are() -> None:
    cube = cube_of(problem(), SHAPE)
    cube = replace(cube, uncertainty=np.asarray(cube.uncertainty) / 9.0)
    config = as_config(model())
    fit = ifujax.fit_cube(cube, replace(config, fit=replace(config.fit, scale_errors=True)))
    post = drawn(fit, where=[(3, 2), (2, 2)])
    for y, x in ((2, 3), (2, 2)):
        assert fit.reduced_chi2[y, x] > 5
        assert abs(post.sd["ha", "velocity"][y, x] / fit.error["ha", "velocity"][y, x] - 1) < 0.2
    assert "the root of the reduced chi2" in post.describe(3, 2)
    # Without one there is nothing to scale.
    for value in (np.nan, 0.0):
        chi2 = fit.found.chi2.copy()
        chi2[11] = value
        without = drawn(replace(fit, found=replace(fit.found, chi2=chi2)), where=[(3, 2), (2, 2)])
        reason = f"no noise: it is scaled by the root of the reduced chi2 (noise: scaled), which is {value:g}."
        assert without.describe(3, 2) == f"spaxel x=3, y=2: not sampled: {reason}"
    for chi2 in (np.zeros(12), np.full(12, np.nan)):
        noiseless = replace(fit, found=replace(fit.found, chi2=chi2))
        for where, count in ((None, 12), ([(3, 2)], 1)):
            with pytest.raises(DataError, match=rf"reduced chi2 above 0.*got none in {count} that were fitted"):
                drawn(noiseless, where=where)


@pytest.mark.parametrize("mode", ["given", "rejection"])
def test_frozen_continuum_and_peaks(mode: str) -> None:
    """The posterior is that of the lines above a continuum that is known; errors of the fit also hold those of a polynomial."""
    config = as_config(model(amplitude=ifujax.Bounded(0.0)))
    config = replace(config, continuum=replace(config.continuum, mode="rejection"))
    given = problem().continuum[0] if mode == "given" else None
    fit = ifujax.fit_cube(cube_of(problem(), SHAPE), config, continuum=given)
    post = drawn(fit, where=[(3, 2)])
    assert "continuum" not in post.layout.variables
    polynomial = fit.spectra(np.array([2 * SHAPE[1] + 3])).continuum[0] / (1.0 + fit.cube.redshift)
    known = fit if mode == "given" else ifujax.fit_cube(fit.cube, config, continuum=polynomial)
    for quantity in ("flux", "amplitude", "equivalent_width", "velocity"):
        assert abs(post["ha", quantity] - fit["ha", quantity])[2, 3] < fit.error["ha", quantity][2, 3]
        np.testing.assert_allclose(post.sd["ha", quantity][2, 3], known.error["ha", quantity][2, 3], rtol=0.25)
        assert known.error["ha", quantity][2, 3] <= fit.error["ha", quantity][2, 3]
    flux = [post.draws(line, "flux", 3, 2) for line in ("n2", "ha")]
    np.testing.assert_allclose(post.draws("n2/ha", "ratio", 3, 2), np.log10(flux[0] / flux[1]), atol=1e-5)
    assert "ha.amplitude" in post.describe(3, 2)


@pytest.mark.slow
def test_chains_do_not_see_each_other() -> None:
    """Chains amplify the last digit: the draws are the same to the last one."""
    where = [(3, 2), (1, 0), (2, 0)]
    together = drawn(galaxy(), method="nuts", where=where)
    assert (together.tier[together.status == 0] == 2).any()
    apart = drawn(galaxy(), method="nuts", where=where, chunk_size=1)
    assert_same(together, apart)
    alone = drawn(galaxy(), method="nuts", where=where[:1])
    np.testing.assert_array_equal(alone.draws("ha", "flux", 3, 2), together.draws("ha", "flux", 3, 2))
    # And the posterior is that of importance sampling.
    usual = sampled()
    for quantity in ("flux", "velocity", "velocity_dispersion"):
        for x, y in where:
            shift = (together["ha", quantity] - usual["ha", quantity])[y, x] / usual.error["ha", quantity][y, x]
            assert abs(shift) < 0.3, (quantity, x, y)


def test_estimated_noise_is_told_once() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit = ifujax.fit_cube(cube_of(problem(), SHAPE, variance=False), model())
        post = drawn(fit, chunk_size=1, where=[(3, 2), (2, 2)])
    told = [str(each.message) for each in told if issubclass(each.category, IfujaxWarning)]
    assert sum("the posteriors rest on the noise" in text for text in told) == 1
    assert "the noise was estimated from the data" in post.describe(3, 2)
    assert np.isfinite(post["ha", "flux"][2, 3])


def test_spectrum() -> None:
    spectrum = ifujax.Spectrum(problem().values[11], WAVELENGTH, uncertainty=problem().variance[11], uncertainty_kind="variance")
    fit = ifujax.fit_spectrum(spectrum, model())
    post = drawn(fit)
    assert isinstance(post["ha", "flux"], float)
    assert abs(post["ha", "flux"] - fit["ha", "flux"]) < fit.error["ha", "flux"]
    assert post.error["ha", "flux"] == pytest.approx(fit.error["ha", "flux"], rel=0.3)
    assert (post.status, post.detected("ha")) == (0, True)
    assert post.tier in (1, 2)
    assert post.draws("ha", "velocity").shape == (4, DRAWS // 4)
    assert post.quantile("ha", "flux", 0.16) < post.mean["ha", "flux"] < post.upper_limit("ha")
    assert post.ratio("n2", "ha") == post["n2/ha", "ratio"]
    assert post.velocity_width("ha") > 0
    assert post.describe().startswith("spectrum: 400 draws by ")
    assert "spectrum sampled" in repr(post)
    with pytest.raises(UsageError, match="where must not be given for a spectrum"):
        drawn(fit, where=[(0, 0)])


def test_words() -> None:
    post = sampled()
    text = post.describe(3, 2)
    assert text.startswith("spaxel x=3, y=2: 400 draws by ")
    for part in (
        "ha (6562.8 Angstrom)\n",
        "    flux ",
        "log n2/ha",
        "W80 of ha",
        "km/s",
        "priors:",
        "ha.flux",
        "HalfNormal(",
        "dex",
    ):
        assert part in text, part
    low, middle, high = (post.quantile("ha", "velocity", q)[2, 3] for q in (0.16, 0.5, 0.84))
    assert f"{middle:.5g} +{high - middle:.2g} -{middle - low:.2g} km/s" in text
    assert post.summary().startswith("11 spaxels sampled (")
    assert "1 without a fit; 400 draws each" in post.summary()
    assert repr(post).startswith("<CubePosterior 3 x 4 spaxels (y, x), lines ha, n2: 11 spaxels")


def test_figures_and_product(tmp_path: Path) -> None:
    post = sampled()
    figures = [
        post.plot(3, 2),
        post.plot(3, 2, [("ha", "flux"), ("n2/ha", "ratio")]),
        post.plot_predictive(3, 2),
        post.plot_map("n2", "flux"),
        post.plot_map("n2/ha", "ratio"),
        post.plot_tiers(),
        post.plot_page(),
    ]
    assert all(len(figure.axes) > 1 for figure in figures)
    with fits.open(post.write(tmp_path / "maps.fits")) as file:
        np.testing.assert_allclose(file["HA_FLUX"].data, post["ha", "flux"], rtol=1e-6)
        np.testing.assert_array_equal(file["STATUS"].data, post.status)


def test_wrong_names() -> None:
    post = sampled()
    with pytest.raises(UsageError, match="unknown line 'hb'"):
        post.plot_map("hb", "flux")
    with pytest.raises(UsageError, match="x, y must lie within"):
        post.plot_predictive(9, 9)
    with pytest.raises(UsageError, match=r"unknown line 'haa'. Did you mean 'ha'\?"):
        post["haa", "flux"]
    with pytest.raises(UsageError, match=r"unknown quantity 'flucks'. Did you mean 'flux'\?"):
        post.error["ha", "flucks"]
    with pytest.raises(UsageError, match="unknown ratio 'ha/n2'"):
        post["ha/n2", "ratio"]
    with pytest.raises(UsageError, match="unknown group 'n2'"):
        post.velocity_width("n2")
    with pytest.raises(UsageError, match="key must be a line and a quantity"):
        post["ha"]
    with pytest.raises(UsageError, match="q must lie between 0 and 1; got 84"):
        post.quantile("ha", "flux", 84)
    with pytest.raises(UsageError, match="x, y must lie within 0..3, 0..2"):
        post.draws("ha", "flux", 4, 0)


def test_wrong_use(tmp_path: Path) -> None:
    fit = galaxy()
    for options, text in (
        ({"where": np.ones((4, 3), bool)}, r"where must be a bool map of the cube's shape \(3, 4\)"),
        ({"where": np.zeros(SHAPE, bool)}, "where must be True in one spaxel at least"),
        ({"where": [(4, 0)]}, r"where must hold x, y within 0..3, 0..2; got 4, 0"),
        ({"where": [1.5, 2.0]}, "where must be a bool map"),
        ({"draws": 401}, "draws must be a multiple of the 4 chains; got 401. Say 404."),
        ({"method": "nutz"}, "unknown method 'nutz'. Did you mean 'nuts'"),
        ({"chunk_size": 0}, "chunk_size must be 1 or more"),
        ({"ratios": [("ha", "hb")]}, "unknown line 'hb'"),
        ({"widths": ["hb"]}, "unknown line 'hb'"),
        ({"seed": -1}, "seed must be"),
        ({"store": tmp_path / "draws.zarr"}, r"store must be a netCDF file; got .*draws.zarr. Name it .*draws.nc"),
    ):
        with pytest.raises(UsageError, match=text):
            sample(fit, **options)
    with pytest.raises(UsageError, match="fit must be a CubeFit or a SpectrumFit; got Cube. Fit the data again"):
        sample(fit.cube)
    path = fit.write(tmp_path / "fit.fits")
    with pytest.raises(UsageError, match="got a LoadedFit, which holds no data. Fit the data again"):
        sample(ifujax.load_fit(path))
    config = as_config(model())
    fixed = ifujax.fit_cube(fit.cube, replace(config, fit=replace(config.fit, fixed=True)))
    with pytest.raises(UsageError, match="fit must have fitted something; got one with fixed: yes"):
        sample(fixed)
    component = ifujax.ComponentFit((fit, fit), ("one", "two"), "bic", 10.0, 0.0)
    with pytest.raises(UsageError, match=r"got a ComponentFit.*fit.fits\[1\] is two.*where=fit.choice == k"):
        sample(component)
    # A velocity without bounds: said before anything is sampled.
    gas = ifujax.Kinematics(velocity=ifujax.Bounded())
    loose = ifujax.fit_cube(fit.cube, ifujax.EmissionModel([ifujax.Line("ha", 6562.8, gas)]))
    with pytest.raises(UsageError, match="ha.velocity"):
        sample(loose)


def test_compat_fits_are_refused() -> None:
    config = as_config(model(amplitude=ifujax.Bounded(0.0, start="peak")))
    config = replace(
        config,
        model=replace(config.model, profile="sampled"),
        continuum=replace(config.continuum, mode="rejection"),
        fit=replace(config.fit, ifscube_compat=True, fixed=True),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        fit = ifujax.fit_cube(galaxy().cube, config)
    with pytest.raises(UsageError, match="fit must be made without ifscube_compat"):
        sample(fit)


def test_lines_that_are_not_there() -> None:
    # The shape of `galaxy` and its number of draws: nothing is compiled for them.
    noise = np.random.default_rng(8).standard_normal((SHAPE[0] * SHAPE[1], WAVELENGTH.size))
    fit = ifujax.fit_cube(cube_of(replace(problem(), values=10.0 + noise, variance=np.ones_like(noise)), SHAPE), model())
    post = drawn(fit, where=[(0, 0), (1, 0)])
    own = 4.0  # noise of the flux of such a line, roughly
    for x in (0, 1):
        for line, rest in (("ha", "6562.8"), ("n2", "6583.46")):
            amplitude = post.draws(line, "amplitude", x, 0)
            assert amplitude.min() >= 0
            # Against the bound: there is no gap above 0.
            assert np.quantile(amplitude, 0.02) < 0.1 * np.quantile(amplitude, 0.95)
            assert 0 < post.upper_limit(line)[0, x] < 8 * own
            text = post.describe(x, 0)
            assert f"{line} ({rest} Angstrom): not detected, 95 % limits" in text
            assert f"< {post.upper_limit(line)[0, x]:.5g}" in text
        velocity = post.draws("ha", "velocity", x, 0)
        assert velocity.min() < -350  # nothing is known of it
        assert velocity.max() > 350
    assert not (post.detected("ha") | post.detected("n2")).any()


@pytest.mark.slow
def test_limits_cover() -> None:
    """Lines drawn from the prior, most of them not detected: a 95 % limit is above 95 % of them."""
    count, scale = 600, 8.0
    rng = np.random.default_rng(5)
    truth = halfnorm.rvs(scale=scale, size=count, random_state=rng)
    made = spectra(
        count,
        [SimulatedLine("ha", 6562.8, truth)],
        wavelength=np.arange(6530.0, 6596.0, 1.5),
        velocity=Uniform(-200.0, 200.0),
        velocity_dispersion=Uniform(80.0, 160.0),
        continuum=(10.0,),
        seed=6,
    )
    gas = ifujax.Kinematics(ifujax.Bounded(-200, 200, start=0.0), ifujax.Bounded(80, 160, start=120.0))
    line = ifujax.Line("ha", 6562.8, gas, flux=ifujax.Bounded(0.0, prior=ifujax.HalfNormal(scale)))
    fit = ifujax.fit_cube(cube_of(made, (20, 30)), ifujax.EmissionModel([line], continuum_degree=0))
    post = sample(fit, draws=400, sampling=SamplingOptions())
    assert (fit.status == 0).all()
    assert np.mean(~post.detected("ha")) > 0.5
    for level in (0.5, 0.84, 0.95):
        covered = np.mean(post.upper_limit("ha", level=level).ravel() > truth)
        spread = np.sqrt(level * (1 - level) / count)
        print(f"{100 * level:.0f} % limits cover {100 * covered:.1f} +- {100 * spread:.1f} %")
        assert abs(covered - level) < 3.5 * spread


def test_draws_on_disk(tmp_path: Path) -> None:
    memory, told = sampled(), []
    path = tmp_path / "draws.nc"
    options = {"store": path, "chunk_size": 4}
    post = drawn(galaxy(), progress=lambda *args: told.append(path.exists()), **options)
    assert not any(told)  # nothing has that name before all is written
    assert path.is_file()
    assert not post.sampled.draws
    assert_same(memory, post)
    np.testing.assert_allclose(post.quantile("ha", "flux", 0.3), memory.quantile("ha", "flux", 0.3), rtol=1e-6)
    np.testing.assert_array_equal(post.ratio("n2", "ha", 0.16), memory.ratio("n2", "ha", 0.16))
    with pytest.raises(UsageError, match=r"ratio must be one of those asked for.*ratios=\[\('ha', 'n2'\)\]"):
        replace(post, layout=replace(post.layout, ratios=())).ratio("ha", "n2")
    assert post.describe(3, 2) == memory.describe(3, 2)
    for data in (post.to_arviz(), memory.to_arviz()):
        group = data["posterior"]
        assert group["flux"].dims == ("chain", "draw", "line", "y", "x")
        np.testing.assert_array_equal(group["flux"].sel(line="n2").isel(x=3, y=2), memory.draws("n2", "flux", 3, 2))
        assert group["ratio"].sel(pair="n2/ha").shape == (4, DRAWS // 4, *SHAPE)
        assert (group["velocity"].attrs["units"], group["velocity_width"].attrs["percent"]) == ("km/s", 80.0)
        assert group["continuum"].sizes["coefficient"] == 2
        np.testing.assert_array_equal(data["sample_stats"]["status"], memory.status)
        assert group.attrs["seed"] == 0
        assert "ha.flux: Bounded(" in group.attrs["configuration"]
    for data in (post.to_arviz(3, 2), memory.to_arviz(3, 2)):
        assert data["posterior"]["velocity"].dims == ("chain", "draw", "line")
        assert data["sample_stats"]["tier"] == memory.tier[2, 3]
    with pytest.raises(UsageError, match="x and y must be given both"):
        memory.to_arviz(x=3)
    with pytest.raises(UsageError, match="output must not exist"):
        drawn(galaxy(), **options)
    # Draws of another run are not taken for those of this one.
    newer = drawn(galaxy(), overwrite=True, **options | {"where": [(3, 2)]})
    for read in (
        lambda: post.quantile("ha", "flux", 0.3),
        lambda: post.draws("ha", "flux", 3, 2),
        lambda: post.to_arviz(),
        lambda: post.to_arviz(3, 2),
    ):
        with pytest.raises(DataError, match=r"must be the one that was written with this posterior; got a newer one, .*draws.nc"):
            read()
    np.testing.assert_array_equal(newer.draws("ha", "flux", 3, 2), memory.draws("ha", "flux", 3, 2))
    path.rename(tmp_path / "elsewhere.nc")
    moved = replace(newer, store=tmp_path / "elsewhere.nc")
    np.testing.assert_array_equal(moved.draws("ha", "flux", 3, 2), memory.draws("ha", "flux", 3, 2))
    with pytest.raises(DataError, match="must be readable.*Was it moved"):
        newer.draws("ha", "flux", 3, 2)


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped leaves no file; the next one makes it of what was kept."""
    path, honest, made = tmp_path / "draws.nc", ChunkSampler.__call__, []

    def counted(self: ChunkSampler, rows: np.ndarray, progress: Callable | None = None):
        made.append(rows)
        if len(made) == 3:
            raise KeyboardInterrupt
        return honest(self, rows, progress)

    monkeypatch.setattr(ChunkSampler, "__call__", counted)
    options = {"store": path, "chunk_size": 4}
    with ChunkStore.open(path, {}) as kept, pytest.raises(KeyboardInterrupt):
        drawn(galaxy(), checkpoint=kept, **options)
    assert [each.name for each in tmp_path.iterdir() if not each.name.startswith(".draws")] == []
    with ChunkStore.open(path, {}) as kept:
        post = drawn(galaxy(), checkpoint=kept, **options)
        kept.remove()
    assert [len(rows) for rows in made] == [4, 4, 3, 3]
    assert_same(sampled(), post)
