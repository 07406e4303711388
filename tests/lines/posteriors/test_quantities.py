"""What is worked out of each draw, against the definitions and against what fits report."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from ifujax.errors import UsageError
from ifujax.inference.precision import working_precision
from ifujax.lines.chunk import ChunkFitter
from ifujax.lines.collection import Collection
from ifujax.lines.config import VelocityWidthOptions
from ifujax.lines.posteriors.quantities import log_ratio, quantities_of, ratio_pairs
from ifujax.lines.posteriors.summaries import QUANTILES, STATISTICS, quantile, summarise
from ifujax.lines.results import CubeFit
from ifujax.lines.run import as_config
from ifujax.lines.widths import VelocityQuantities
from ifujax.models.doppler import C_KMS
from ifujax.simulate import SimulatedLine, SimulatedSpectra, spectra, three_line_problem, two_component_problem
from tests.lines.problems import as_cube, as_model

N = 6


def unfitted(problem: SimulatedSpectra, shape: str = "gaussian") -> CubeFit:
    """A fit that was never made: what is derived of draws depends on its set-up only."""
    model = as_model(problem)
    config = as_config(replace(model, lines=tuple(replace(line, shape=shape) for line in model.lines)))
    fitter = ChunkFitter(as_cube(problem), config, None)
    return CubeFit.of(fitter, Collection(fitter).all, 0.0)


@lru_cache
def one_component(shape: str = "gaussian", lsf: float = 0.0) -> tuple[CubeFit, dict[str, np.ndarray]]:
    """A fit and draws of its parameters."""
    problem = three_line_problem(N, 160, seed=5, snr=30.0, lsf_fwhm=lsf)
    more = {"h3": np.linspace(-0.1, 0.1, N), "h4": np.linspace(0.1, -0.05, N), "lorentz_fwhm": np.linspace(20.0, 300.0, N)}
    fit = unfitted(problem, shape)
    return fit, {
        name: more[name.split(".")[1]] if name.split(".")[1] in more else problem.truth[name]
        for name in fit.setup.model.parameter_names
    }


@lru_cache
def two_components() -> tuple[CubeFit, dict[str, np.ndarray]]:
    problem = two_component_problem(N, 160, seed=6, snr=60.0)
    fit = unfitted(problem)
    return fit, {name: problem.truth[name] for name in fit.setup.model.parameter_names}


LEVEL = (10.0, 1.0)
"""Continuum coefficients."""


def derive(fit: CubeFit, params: dict[str, np.ndarray], what: Any) -> dict[str, np.ndarray]:
    """Work `what` out of some draws."""
    shared = jax.tree.map(np.asarray, replace(fit.fitter.coords, background=np.zeros(0)))
    with working_precision("float64"):
        run = jax.jit(jax.vmap(partial(what, fit.setup.model), in_axes=(0, None, None)))
        return {name: np.asarray(value) for name, value in run(params, np.array(LEVEL), shared).items()}


@pytest.mark.parametrize("shape", ["gaussian", "gauss_hermite", "voigt"])
def test_what_is_derived_of_each_draw(shape: str) -> None:
    fit, params = one_component(shape, 2.5)
    quantities, _ = quantities_of(fit, ["ha"])
    found = derive(fit, params, quantities)
    lines = quantities.lines
    expected = derive(fit, params, lambda *args: lines.from_model(*args, lines.held(*args)))
    assert set(found) == {f"{line}.{name}" for line in fit.lines for name in ("amplitude", "sigma", "equivalent_width")} | {
        "width.0"
    }
    for name in found.keys() - {"width.0"}:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    expected = derive(
        fit, params, lambda *args: {"w": VelocityQuantities((1,), 6562.8, 80.0, 5.0).from_model(*args)["model.width"]}
    )
    np.testing.assert_allclose(found["width.0"], expected["w"], rtol=2e-6)


def test_gaussian_lines() -> None:
    fit, params = one_component()
    found = derive(fit, params, quantities_of(fit, ["n2b"])[0])
    edges = fit.cube.rest_edges
    middle = 0.5 * (edges[1:] + edges[:-1])
    continuum = LEVEL[0] + LEVEL[1] * (2 * (middle - middle[0]) / (middle[-1] - middle[0]) - 1)
    for line, rest in (("n2a", 6548.04), ("ha", 6562.80), ("n2b", 6583.46)):
        flux, centre, sigma = (params[f"{line}.{name}"] for name in ("flux", "velocity", "velocity_dispersion"))
        np.testing.assert_allclose(found[f"{line}.sigma"], sigma)
        np.testing.assert_allclose(found[f"{line}.amplitude"], flux * C_KMS / (np.sqrt(2 * np.pi) * sigma * rest))
        for k in range(N):
            velocity = [C_KMS * ((each / rest) ** 2 - 1) / ((each / rest) ** 2 + 1) for each in (edges, middle)]
            inside = np.abs(velocity[1] - centre[k]) <= 5 * sigma[k]
            profile = flux[k] * np.diff(norm.cdf(velocity[0], centre[k], sigma[k]))
            expected = -np.sum(profile[inside] / continuum[inside])
            assert abs(found[f"{line}.equivalent_width"][k] / expected - 1) < 2e-3
    np.testing.assert_allclose(found["width.0"], 2 * norm.ppf(0.9) * params["n2b.velocity_dispersion"], rtol=1e-6)


def test_w80_of_two_components() -> None:
    fit, params = two_components()
    pair = ("ha", "ha_broad")
    found = derive(fit, params, quantities_of(fit, [pair, "ha"])[0])
    for k in range(N):
        flux, centre, sigma = (
            np.array([params[f"{line}.{name}"][k] for line in pair]) for name in ("flux", "velocity", "velocity_dispersion")
        )

        def missing(velocity: float, share: float, flux=flux, centre=centre, sigma=sigma) -> float:
            return float((flux * norm.cdf(velocity, centre, sigma)).sum() / flux.sum() - share)

        low, high = (brentq(missing, -4000.0, 4000.0, args=(share,)) for share in (0.1, 0.9))
        assert abs(found["width.0"][k] / (high - low) - 1) < 2e-6
    np.testing.assert_allclose(found["width.1"], 2 * norm.ppf(0.9) * params["ha.velocity_dispersion"], rtol=1e-6)


def test_widths_of_the_configuration() -> None:
    problem = two_component_problem(2, 160, seed=6, snr=60.0)
    options = VelocityWidthOptions((("ha", "ha_broad"), ("n2a", "n2b"), ("absent",)), 90.0)
    config = replace(as_config(as_model(problem)), velocity_width=options)
    fit = replace(two_components()[0], config=config)
    derived, groups = quantities_of(fit, None)
    assert groups == (("ha", "ha_broad"), ("n2a", "n2b"))
    assert [each.percent for each in derived.widths] == [90.0, 90.0]
    assert derived.widths[1].reference == pytest.approx((6548.04 + 6583.46) / 2)
    assert quantities_of(fit, ())[1] == ()
    assert quantities_of(fit, ["ha"])[0] is quantities_of(fit, ["ha"])[0]  # the same object: nothing compiles twice
    assert hash(derived)
    with pytest.raises(UsageError, match="lines must have one rest wavelength"):
        quantities_of(fit, [("n2a", "n2b")])
    with pytest.raises(UsageError, match="unknown line 'haa'.*'ha'"):
        quantities_of(fit, ["haa"])
    with pytest.raises(UsageError, match="widths must be a sequence of lines; got the text 'ha'"):
        quantities_of(fit, "ha")
    with pytest.raises(UsageError, match="widths must name each group once"):
        quantities_of(fit, ["ha", ("ha",)])


def bpt_fit(names: tuple[str, ...], rest: tuple[float, ...]) -> CubeFit:
    lines = [SimulatedLine(name, wavelength) for name, wavelength in zip(names, rest)]
    problem = spectra(1, lines, wavelength=np.arange(4800.0, 6650.0, 5.0), velocity_dispersion=300.0, snr=50.0)
    return unfitted(problem)


def test_pairs_of_the_diagram() -> None:
    expected = (("n2", "ha"), ("o3", "hb"))
    air, vacuum = (6562.8, 4861.33, 5006.84, 6583.46), (6564.6, 4862.7, 5008.24, 6585.27)
    for rest in (air, vacuum):
        fit = bpt_fit(("H-alpha", "H-beta", "OIII", "NII"), rest)
        assert ratio_pairs(fit, "bpt-n2") == (("NII", "H-alpha"), ("OIII", "H-beta"))
    fit = bpt_fit(("ha", "hb", "o3", "n2"), air)
    assert ratio_pairs(fit, ["bpt-n2", ("n2", "ha"), ("ha", "hb")]) == (*expected, ("ha", "hb"))
    with pytest.raises(UsageError, match="it needs hb at 4862 Angstrom and found none. Give ratios="):
        ratio_pairs(one_component()[0], "bpt-n2")
    with pytest.raises(UsageError, match=r"unknown ratio 'bpt-s2'. Did you mean 'bpt-n2'\?"):
        ratio_pairs(fit, ["bpt-s2"])
    with pytest.raises(UsageError, match="unknown line 'hb'"):
        ratio_pairs(one_component()[0], [("ha", "hb")])
    with pytest.raises(UsageError, match="two different lines; got 'ha' twice"):
        ratio_pairs(fit, [("ha", "ha")])
    with pytest.raises(UsageError, match="ratios must be pairs of lines"):
        ratio_pairs(fit, [("ha", "hb", "n2")])
    # Two components at one wavelength: which of them is meant can't be told.
    twice = two_components()[0]
    with pytest.raises(UsageError, match="bpt-n2"):
        ratio_pairs(twice, "bpt-n2")


def test_ratio_of_fluxes_without_a_sign() -> None:
    with np.errstate(all="raise"):
        found = log_ratio(np.array([10.0, -1.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, -1.0]))
    np.testing.assert_array_equal(found, [1.0, np.nan, np.nan, np.nan])
    tiny = log_ratio(np.array([2e-20]), np.array([1e-20]))
    np.testing.assert_allclose(tiny, np.log10(2.0))


def test_summaries_are_those_of_numpy(rng: np.random.Generator) -> None:
    draws = rng.standard_normal((5, 1000)) * 1e-20
    draws[1, :30] = np.nan  # few: left out
    draws[2, :60] = np.nan  # too many
    draws[3] = np.nan
    found = summarise(draws.astype(np.float32))
    kept = draws.astype(np.float32).astype(np.float64)
    expected = np.stack([*np.nanquantile(kept[[0, 1, 4]], QUANTILES, axis=1)]).T
    np.testing.assert_allclose(found[[0, 1, 4], : len(QUANTILES)], expected, rtol=1e-12)
    np.testing.assert_allclose(found[[0, 1, 4], -2], np.nanmean(kept[[0, 1, 4]], axis=1), rtol=1e-9)
    np.testing.assert_allclose(found[[0, 1, 4], -1], np.nanstd(kept[[0, 1, 4]], axis=1, ddof=1), rtol=1e-9)
    assert np.isnan(found[[2, 3]]).all()
    assert found.shape == (5, len(STATISTICS))
    np.testing.assert_allclose(quantile(kept, 0.3)[[0, 1, 4]], np.nanquantile(kept[[0, 1, 4]], 0.3, axis=1), rtol=1e-12)
    assert np.isnan(quantile(kept, 0.3)[[2, 3]]).all()
