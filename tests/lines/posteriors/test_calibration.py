"""Simulation-based calibration of posteriors, and what it can see: ranks of truths drawn from the prior are uniform."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp

import ifujax
from ifujax.lines.config import LineFitConfig
from ifujax.lines.setup import prepare
from ifujax.simulate.profiles import gaussian_line, pixel_edges
from tests.lines.posteriors.calibration import (
    HERMITE,
    ONE,
    TWO,
    WAVELENGTH,
    Case,
    calibrate,
    hermite_line,
    p_values,
    ranks,
    report,
    simulated,
)

SETS = {ONE: 200, TWO: 250, HERMITE: 250}
"""Data sets for each scale of the fluxes: 500 and more of each model."""
CASES = pytest.mark.parametrize("case", [ONE, TWO, HERMITE], ids=lambda case: case.name)


@pytest.mark.slow
@CASES
def test_ranks_are_uniform(case: Case) -> None:
    p: dict[str, float] = {}
    shares: dict[str, list[np.ndarray]] = {}
    for k, tau in enumerate(case.taus):
        run = calibrate(case, tau, SETS[case], seed=101 + k)
        tier, status = run.post.tier.ravel(), run.post.status.ravel()
        p |= report(run.title, run.ranks)
        for name, each in run.shares.items():
            shares.setdefault(name, []).append(each)
        signal = np.nanmedian(run.fit["ha", "snr"])
        print(f"    median S/N {signal:.1f}; NUTS for {np.mean(tier == 2):.1%}, with a status bit {np.mean(status != 0):.1%}")
    worst = min(p, key=p.__getitem__)
    print(f"smallest of {len(p)} p-values: {p[worst]:.4f} ({worst})")
    assert p[worst] > 0.05 / len(p), worst
    # Of 500 truths 12.5 lie beyond each stated 2.5 %; 29 of them, which was the finding of 5.9 %, do by chance once in 30,000.
    beyond = {}
    for name, parts in shares.items():
        share = np.concatenate(parts)
        for side, count in (("above", np.sum(share > 0.975)), ("below", np.sum(share < 0.025))):
            beyond[f"{name} {side}"] = float(binomtest(int(count), len(share), 0.025).pvalue)
            print(f"    {name:<28} {side} the stated 2.5 %: {count / len(share):.3f}")
    worst = min(beyond, key=beyond.__getitem__)
    assert beyond[worst] > 0.05 / len(beyond), worst


def test_ranks_quick() -> None:
    """Wrong priors, units or signs show in a few dozen data sets."""
    run = calibrate(ONE, 30.0, 60, seed=7)
    p = report(run.title, run.ranks)
    assert min(p.values()) > 0.02 / len(p)


@pytest.mark.slow
def test_laplace_draws_are_not_calibrated() -> None:
    """What the fit's symmetric errors say fails the same test where lines are faint, by far."""
    tau, n = 8.0, 200
    cube, truth = simulated(ONE, ONE.prior(np.random.default_rng(101), n, tau), 101)
    fit = ifujax.fit_cube(cube, ONE.model(tau))
    rng = np.random.default_rng(5)
    found = {}
    for name in ("ha.velocity", "ha.velocity_dispersion", "ha.flux", "n2b.flux"):
        line, quantity = name.split(".")
        value, error = fit[line, quantity].ravel(), fit.error[line, quantity].ravel()
        known = np.isfinite(error)
        assert known.sum() > 0.7 * n
        draws = value[known, None] + error[known, None] * rng.standard_normal((known.sum(), 400))
        found[name] = ranks(draws, truth[name][known])
    p = report("Laplace", found)
    assert sum(value < 1e-4 for value in p.values()) >= 4


@pytest.mark.parametrize("n", [500])
def test_what_ranks_can_see(n: int, rng: np.random.Generator) -> None:
    """Exact draws pass; those off by a third of a standard deviation, too narrow or too wide by a third, don't."""
    truth = rng.normal(0.0, 1.0, n)
    data = truth + rng.normal(0.0, 0.7, n)
    variance = 1.0 / (1.0 + 1.0 / 0.7**2)
    mean, sd = variance * data / 0.7**2, np.sqrt(variance)
    noise = rng.standard_normal((n, 4, 250))

    def smallest(shift: float, stretch: float) -> float:
        return min(p_values(ranks((mean + shift * sd)[:, None, None] + stretch * sd * noise, truth)).values())

    assert smallest(0.0, 1.0) > 0.025
    for wrong in ((0.33, 1.0), (0.0, 0.67), (0.0, 1.5)):
        assert smallest(*wrong) < 1e-4, wrong


@CASES
def test_prior_draws_are_those_of_the_space(case: Case) -> None:
    """`ParameterSpace.from_uniform` against priors drawn with NumPy: each parameter, and the share of a moving bound."""
    n, tau = 4000, 20.0
    space = prepare(LineFitConfig(case.model(tau)), pixel_edges(WAVELENGTH), 0.0).space
    u = np.random.default_rng(3).random((n, space.n_free))

    def one(u: jax.Array) -> dict[str, jax.Array]:
        return space.unpack(space.from_uniform([u[i] for i in range(space.n_free)]))

    with jax.enable_x64(True):
        mine = {name: np.asarray(value) for name, value in jax.jit(jax.vmap(one))(u).items()}
    other = case.prior(np.random.default_rng(4), n, tau)
    for params in (mine, other):
        if "ha_broad.velocity_dispersion" in params:
            low = params["ha.velocity_dispersion"]
            params["share"] = (params["ha_broad.velocity_dispersion"] - low) / (400.0 - low)
            assert abs(np.corrcoef(params["share"], low)[0, 1]) < 5.0 / np.sqrt(n)
    p = {name: ks_2samp(mine[name], other[name]).pvalue for name in other}
    assert min(p.values()) > 0.01 / len(p), p


def test_hermite_line_without_h3_and_h4_is_gaussian() -> None:
    zero, v, s = np.zeros(3), np.array([-250.0, 3.0, 280.0]), np.array([64.0, 90.0, 240.0])
    flux = np.array([3.0, 50.0, 0.0])
    found = hermite_line(WAVELENGTH, 6562.8, flux, v, s, zero, zero)
    np.testing.assert_allclose(found, gaussian_line(WAVELENGTH, 6562.8, flux, v, s), rtol=1e-6, atol=1e-9)
    skewed = hermite_line(WAVELENGTH, 6562.8, flux, v, s, zero + 0.2, zero - 0.2)
    np.testing.assert_allclose(skewed.sum(axis=1) * 1.25, flux, rtol=1e-6, atol=1e-9)
