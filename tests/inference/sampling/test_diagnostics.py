"""Diagnostics of chains against ArviZ, over kinds of chains, and where there is nothing to judge."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

from ifujax import UsageError
from ifujax.inference.sampling import diagnostics


def reference(kind, draws):
    """ArviZ's number for one quantity (chain, draw): before 1.0 from the package itself, then from its part for arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from arviz_stats.base import array_stats as arviz
        except ImportError:
            import arviz
    if kind == "rhat":
        return float(np.asarray(arviz.rhat(draws, method="rank")))
    return float(np.asarray(arviz.ess(draws, method=kind, prob=(0.05, 0.95) if kind == "tail" else None)))


def autoregressive(rng, rho, shape):
    x = rng.normal(size=shape)
    for i in range(1, shape[-1]):
        x[..., i] = rho * x[..., i - 1] + np.sqrt(1 - rho**2) * x[..., i]
    return x


def chains(kind):
    rng = np.random.default_rng(7)
    if kind == "stuck chain":
        x = autoregressive(rng, 0.3, (5, 4, 120))
        x[:, 1] = x[:, 1, :1]
        return x
    if kind == "heavy tails":
        return rng.standard_cauchy((5, 3, 77))
    if kind == "ties":
        return np.round(autoregressive(rng, 0.5, (5, 4, 100)))
    if kind == "chains apart":
        return autoregressive(rng, 0.2, (5, 4, 60)) + np.arange(4)[:, None]
    if kind == "trend":
        return autoregressive(rng, 0.2, (5, 4, 150)) + np.linspace(0, 3, 150)
    rho, shape = {
        "independent": (0.0, (5, 4, 250)),
        "slow": (0.95, (5, 4, 251)),
        "very slow": (0.999, (5, 4, 300)),
        "antithetic": (-0.6, (5, 4, 100)),
        "two chains": (0.5, (5, 2, 90)),
        "short": (0.0, (5, 4, 7)),
        "shortest": (0.0, (5, 4, 4)),
    }[kind]
    return autoregressive(rng, rho, shape)


@pytest.mark.parametrize(
    "kind",
    [
        *("independent", "slow", "very slow", "antithetic", "two chains", "short", "shortest"),
        *("stuck chain", "heavy tails", "ties", "chains apart", "trend"),
    ],
)
def test_agrees_with_arviz(kind):
    draws = chains(kind)
    found = diagnostics.diagnose(draws)
    for mine, alone, name in (
        (found.rhat, diagnostics.rhat(draws), "rhat"),
        (found.ess_bulk, diagnostics.ess_bulk(draws), "bulk"),
        (found.ess_tail, diagnostics.ess_tail(draws), "tail"),
    ):
        expected = [reference(name, row) for row in draws]
        np.testing.assert_allclose(mine, expected, rtol=1e-10)
        np.testing.assert_array_equal(mine, alone)


def test_what_they_say():
    good = diagnostics.diagnose(chains("independent"))
    assert (good.rhat < 1.02).all()
    assert (good.ess_bulk > 700).all()
    for kind in ("stuck chain", "chains apart", "trend", "very slow"):
        bad = diagnostics.diagnose(chains(kind))
        assert (bad.rhat > 1.05).all(), kind
        # One chain stuck near the median is for R-hat to find.
        assert kind == "stuck chain" or (bad.ess_bulk < 150).all(), kind


def test_leading_axes_and_pieces(rng):
    draws = rng.normal(size=(3, 200, 4, 20))
    found = diagnostics.diagnose(draws)
    assert found.rhat.shape == (3, 200)
    alone = diagnostics.diagnose(draws[2, 187])
    assert alone.ess_bulk.shape == ()
    for name in ("rhat", "ess_bulk", "ess_tail"):
        assert getattr(found, name)[2, 187] == getattr(alone, name)
    assert diagnostics.diagnose(draws[:0]).rhat.shape == (0, 200)
    # Draws in float32, as they are stored, are judged in float64.
    np.testing.assert_allclose(diagnostics.ess_bulk(draws.astype(np.float32)), found.ess_bulk, rtol=1e-10)


@pytest.mark.parametrize("value", [3.0, np.nan, np.inf, -np.inf])
def test_nothing_to_judge(rng, value):
    draws = rng.normal(size=(4, 4, 50))
    expected = diagnostics.diagnose(draws)
    broken = draws.copy()
    if value == 3.0:
        broken[1] = value
    else:
        broken[1, 2, 5] = value
    found = diagnostics.diagnose(broken)
    for name in ("rhat", "ess_bulk", "ess_tail"):
        mine = getattr(found, name)
        assert np.isnan(mine[1])
        np.testing.assert_array_equal(np.delete(mine, 1), np.delete(getattr(expected, name), 1))


def test_constant_chains_that_differ():
    draws = np.broadcast_to(np.arange(4.0)[:, None], (4, 50))
    assert diagnostics.rhat(draws) == np.inf
    assert diagnostics.ess_bulk(draws) < 10


@pytest.mark.parametrize("shape", [(10,), (4, 3), (2, 0, 10)])
def test_refuses_too_few(shape):
    with pytest.raises(UsageError, match=r"draws must .* got shape"):
        diagnostics.diagnose(np.zeros(shape))


@pytest.mark.slow
def test_faster_than_arviz(rng):
    draws = rng.normal(size=(1536, 4, 250))
    diagnostics.diagnose(draws[:10])
    start = time.process_time()
    diagnostics.diagnose(draws)
    mine = time.process_time() - start
    start = time.process_time()
    for row in draws[:150]:
        for kind in ("rhat", "bulk", "tail"):
            reference(kind, row)
    theirs = (time.process_time() - start) * len(draws) / 150
    # Measured: 7.
    assert theirs > 4 * mine
