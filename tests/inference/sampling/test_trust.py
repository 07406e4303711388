"""What weighted draws are worth: errors of quantiles against repetitions, and halves that differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from ifujax.inference.sampling.trust import PROBABILITIES, judge, repeats


def weighted(rng, rows, points, sigma, n=2):
    """Points of a Gaussian of this width, weighted to follow a standard one in the first parameter."""
    values = rng.normal(size=(rows, points, n))
    values[:, :, 0] *= sigma
    log_weight = norm.logpdf(values[:, :, 0]) - norm.logpdf(values[:, :, 0], scale=sigma)
    return values, log_weight


@pytest.mark.parametrize("sigma", [0.9, 1.0, 1.5])
def test_effective_numbers_are_those_of_the_worst_quantile(sigma, rng):
    rows, points = 400, 2000
    values, log_weight = weighted(rng, rows, points, sigma, n=1)
    found = np.median(judge(values, log_weight).ess)
    weight = np.exp(log_weight)
    weight /= weight.sum(axis=1, keepdims=True)
    below = values[:, :, 0, None] <= norm.ppf(PROBABILITIES)
    p = np.array(PROBABILITIES)
    # How much these probabilities scatter from row to row says what each row is worth.
    scatter = (weight[:, :, None] * below).sum(axis=1).var(axis=0)
    assert found == pytest.approx((p * (1 - p) / scatter).min(), rel=0.2)
    if sigma < 1:  # tails that hardly any point reaches: Kish's number is far too large
        assert found < 0.7 / np.median((weight**2).sum(axis=1))
    else:
        assert found < 1.1 * points


def test_halves_that_are_alike_differ_by_their_errors(rng):
    values, log_weight = weighted(rng, 300, 2000, 1.3, n=3)
    plain, halved = judge(values, log_weight), judge(values, log_weight, (log_weight[:, :900], log_weight[:, 900:] + 7.0))
    assert np.isnan(plain.pull).all()
    assert (halved.ess <= plain.ess).all()
    assert np.median(halved.ess / plain.ess) > 0.85
    assert (halved.pull < 4).mean() > 0.99
    assert 1.5 < np.median(halved.pull) < 2.6  # the largest of 15 differences


def test_a_half_that_misses_a_part_is_seen(rng):
    """One in ten of the second half's points lies where the first never was."""
    values = rng.normal(size=(200, 2000, 2))
    values[:, 1000::10, 1] += 6.0
    log_weight = np.zeros((200, 2000))
    verdict = judge(values, log_weight, (log_weight[:, :1000], log_weight[:, 1000:]))
    assert (verdict.pull > 4).mean() > 0.95
    assert (verdict.ess < judge(values, log_weight).ess / 2).all()


def test_one_point_with_all_the_weight_is_worth_nothing(rng):
    values = rng.normal(size=(1, 50, 2))
    log_weight = np.full((1, 50), -np.inf)
    log_weight[0, 7] = 3.0
    assert judge(values, log_weight).ess.tolist() == [0.0]
    none = judge(values, np.full((1, 50), -np.inf), (np.full((1, 25), -np.inf), np.full((1, 25), -np.inf)))
    assert none.ess.tolist() == [0.0]


def test_heavy_tails_and_ties(rng):
    values = student(2).rvs(size=(50, 1000, 1), random_state=rng)
    assert np.median(judge(values, np.zeros((50, 1000))).ess) == pytest.approx(1000, rel=0.1)
    whole = np.round(values)  # many equal values
    assert (judge(whole, np.zeros((50, 1000))).ess > 900).all()


def test_repeats():
    counts, distinct = repeats(np.array([[0, 0, 3, 3], [1, 2, 3, 0]]), 5)
    assert counts.tolist() == [[2, 0, 0, 2, 0], [1, 1, 1, 1, 0]]
    assert distinct.tolist() == [0.5, 1.0]
