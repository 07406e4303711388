"""The baselines agree with each other: a benchmark against a wrong fit would prove nothing.

Not collected by default: ``python -m pytest benchmarks/test_baselines.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from baselines import model, numba_lm, scipy_lm, three_lines
from multistart import _Setup, best_of_starts

from ifujax import simulate

PROFILES = ["sampled", "integrated"]


@pytest.mark.parametrize("profile", PROFILES)
def test_model_is_that_of_the_simulator(profile):
    sample = simulate.three_line_problem(3, profile=profile)
    problem = three_lines(sample)
    for i in range(3):
        truth = {key: value[i] for key, value in sample.truth.items()}
        amplitudes = [truth[f"{name}.amplitude"] for name in ("n2a", "ha", "n2b")]
        x = np.array([*amplitudes, truth["ha.velocity"], truth["ha.sigma"], *truth["continuum"]])
        np.testing.assert_allclose(model(problem, x), sample.model[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("profile", PROFILES)
def test_scipy_and_numba_agree(profile):
    problem = three_lines(simulate.three_line_problem(300, profile=profile))
    rows = slice(0, 300)
    _, slow = scipy_lm(problem, rows)
    x, fast, _ = numba_lm(problem, rows)
    # Both start at one place, a few percent of the spectra have two minima near it
    same = np.abs(fast - slow) < 0.01
    assert same.mean() > 0.9
    assert abs(np.mean(fast < slow - 0.1) - np.mean(fast > slow + 0.1)) < 0.05
    again = np.array([np.sum(((model(problem, x[i]) - problem.data[i]) * problem.weight[i]) ** 2) for i in range(300)])
    np.testing.assert_allclose(again, fast, rtol=1e-9)
    _, cut, _ = numba_lm(problem, rows, reach=6.0)
    assert np.mean(np.abs(cut - fast) < 0.01) > 0.97


@pytest.mark.parametrize("lsf_fwhm", [0.0, 2.5])
@pytest.mark.parametrize("profile", PROFILES)
def test_multistart_jacobian(profile, lsf_fwhm):
    sample = simulate.two_component_problem(1, profile=profile, lsf_fwhm=lsf_fwhm)
    setup = _Setup.of(sample, (-600.0, 600.0), (20.0, 500.0))
    data, weight = sample.values[0], 1 / np.sqrt(sample.variance[0])
    x = setup.random_starts(sample.values, 1, np.random.default_rng(4))[0, 0]
    analytic = setup.jacobian(x, data, weight)
    for k in range(x.size):
        step = 1e-4 * max(abs(x[k]), 1.0)
        ahead, behind = x.copy(), x.copy()
        ahead[k] += step
        behind[k] -= step
        numeric = (setup.residuals(ahead, data, weight) - setup.residuals(behind, data, weight)) / (2 * step)
        np.testing.assert_allclose(analytic[:, k], numeric, atol=1e-5 * np.abs(numeric).max() + 1e-9)


def test_multistart_is_below_the_truth_and_independent_of_the_seed():
    sample = simulate.three_line_problem(100)
    one, two = best_of_starts(sample, 20, seed=1), best_of_starts(sample, 20, seed=2)
    np.testing.assert_allclose(one.chi2, two.chi2, atol=1e-4)
    at_truth = np.sum((sample.values - sample.model) ** 2 / sample.variance, axis=1)
    assert (one.chi2 <= at_truth).all()
    assert one.polish_gain.max() < 1e-2
    assert one.names[3:5] == ("gas.velocity", "gas.velocity_dispersion")
