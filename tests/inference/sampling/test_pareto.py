"""Pareto-smoothed weights against ArviZ, known tails, and weights that can't be smoothed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from ifujax import UsageError
from ifujax.inference.sampling.pareto import kish_ess, psis

try:
    from arviz_stats.base import array_stats
except ImportError:
    array_stats = None


def reference(log_weights):
    """ArviZ's smoothed log weights and k-hat of one row; its array interface takes log likelihoods, of the other sign."""
    if array_stats is not None:
        smoothed, khat = array_stats.psislw(-log_weights)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import arviz

            smoothed, khat = arviz.psislw(log_weights.copy())
    return np.asarray(smoothed), float(np.asarray(khat))


# Sizes whose tail is a whole number: later versions of ArviZ round it down, earlier ones and this one up.
SIZES = (100, 400, 900) if array_stats is not None else (37, 100, 400, 900, 1000, 2048)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [-0.3, 0.1, 0.5, 0.9, 3.0])
def test_agrees_with_arviz(rng, size, shape):
    log_weights = np.log(stats.genpareto.rvs(shape, size=(8, size), random_state=rng) + 0.1) + 100 * rng.normal(size=(8, 1))
    smoothed, khat = psis(log_weights)
    for row in range(8):
        expected, expected_khat = reference(log_weights[row])
        np.testing.assert_allclose(smoothed[row], expected, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(khat[row], expected_khat, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [0.0, 0.4, 0.8])
def test_finds_the_shape(rng, shape):
    log_weights = np.log(stats.genpareto.rvs(shape, size=(50, 20_000), random_state=rng) + 0.5)
    # The prior draws the shape towards a half by 10 / (10 + 425) of the way.
    assert psis(log_weights)[1].mean() == pytest.approx(shape + (0.5 - shape) * 10 / 435, abs=0.04)


def test_weights_are_normalised_ordered_and_the_body_kept(rng):
    log_weights = rng.normal(size=(6, 500)) * np.arange(1, 7)[:, None]
    before = log_weights.copy()
    smoothed, _ = psis(log_weights)
    np.testing.assert_array_equal(log_weights, before)
    np.testing.assert_allclose(np.exp(smoothed).sum(axis=1), 1, rtol=1e-12)
    assert (np.diff(np.take_along_axis(smoothed, np.argsort(log_weights, axis=1), axis=1), axis=1) >= 0).all()
    body = np.argsort(log_weights, axis=1)[:, :-68]
    shift = np.take_along_axis(smoothed - log_weights, body, axis=1)
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=1e-12)


def test_a_constant_changes_nothing_nor_do_neighbours(rng):
    log_weights = 2 * rng.normal(size=(5, 300))
    log_weights[3, :40] = log_weights[3].max() - 1  # ties: a shorter tail
    smoothed, khat = psis(log_weights)
    far, far_khat = psis(log_weights + 1e5)
    np.testing.assert_allclose(far, smoothed, atol=1e-8)
    np.testing.assert_allclose(far_khat, khat, atol=1e-8)
    for row in range(5):
        alone, alone_khat = psis(log_weights[row : row + 1])
        np.testing.assert_array_equal(alone[0], smoothed[row])
        assert alone_khat[0] == khat[row]


def test_better_estimates_than_raw_weights(rng):
    # A half-normal proposal that is too narrow for the exponential it is meant for.
    x = np.abs(rng.normal(size=(300, 1000)))
    log_weights = -x + 0.5 * x**2
    smoothed, _ = psis(log_weights)
    raw = np.exp(log_weights - np.log(np.exp(log_weights).sum(axis=1, keepdims=True)))
    means = (np.exp(smoothed) * x).sum(axis=1), (raw * x).sum(axis=1)
    errors = [np.sqrt(np.mean((mean - 1) ** 2)) for mean in means]
    assert errors[0] < errors[1]
    assert kish_ess(smoothed).min() > 1.2 * kish_ess(log_weights).min()


def test_special_rows(rng):
    good = rng.normal(size=200)
    rows = np.stack(
        [
            good,
            np.zeros(200),  # all weights equal
            1e-15 * good,  # ... to rounding
            np.where(np.arange(200) < 150, -np.inf, good),  # weights of zero
            np.where(np.arange(200) == 3, 0.0, -900.0 + good),  # one weight has it all
            np.full(200, -np.inf),
            np.where(np.arange(200) == 3, np.nan, good),
            np.where(np.arange(200) == 3, np.inf, good),
        ]
    )
    smoothed, khat = psis(rows)
    np.testing.assert_array_equal(smoothed[0], psis(rows[:1])[0][0])
    assert np.isfinite(khat[[0, 3]]).all()
    np.testing.assert_array_equal(khat[1:3], 0)
    np.testing.assert_allclose(np.exp(smoothed[1:3]), 1 / 200, rtol=1e-12)
    np.testing.assert_array_equal(np.exp(smoothed[3, :150]), 0)
    assert np.exp(smoothed[3]).sum() == pytest.approx(1)
    assert khat[4] == np.inf
    assert np.exp(smoothed[4, 3]) == pytest.approx(1)
    assert np.isnan(khat[5:]).all()
    assert np.isnan(smoothed[5:]).all()
    assert psis(np.zeros((0, 50)))[1].shape == (0,)


@pytest.mark.parametrize("size", [1, 2, 10, 20])
def test_too_few_weights(rng, size):
    smoothed, khat = psis(rng.normal(size=(2, size)))
    np.testing.assert_allclose(np.exp(smoothed).sum(axis=1), 1)
    assert (khat == (0 if size == 1 else np.inf)).all()


def test_kish():
    np.testing.assert_allclose(kish_ess(np.log([[1.0, 1, 1, 1], [1, 1e-300, 1e-300, 1e-300]]) + 500), [4, 1])
    assert kish_ess(np.array([0.0, -np.inf, 0.0])) == pytest.approx(2)
    assert np.isnan(kish_ess(np.full(3, -np.inf)))


def test_refuses():
    with pytest.raises(UsageError, match="log_weights must"):
        psis(np.zeros(5))
