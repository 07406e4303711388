"""Mixtures of t distributions: densities, draws, and how they follow weighted points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal, multivariate_t
from scipy.stats import t as student

from ifujax.inference.sampling.proposals import DEGREES, Mixture, adapt

MEAN = np.array([[[0.0, 1.0], [4.0, -2.0], [-3.0, 0.0]], [[1.0, 1.0], [1.5, 1.0], [0.0, 9.0]]])
COVARIANCE = np.array([[[1.0, 0.5], [0.5, 2.0]], [[0.3, 0.0], [0.0, 0.1]], [[2.0, -1.2], [-1.2, 1.0]]])
SHARE = np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])


@pytest.fixture
def mixture():
    return Mixture(SHARE, MEAN, np.linalg.cholesky(np.stack([COVARIANCE, COVARIANCE[::-1]])))


def generators(count, seed=1):
    return [np.random.default_rng([seed, row]) for row in range(count)]


def test_density_against_scipy(mixture, rng):
    z = 3 * rng.normal(size=(2, 50, 2))
    found = mixture.log_density(z)
    for row, shapes in enumerate((COVARIANCE, COVARIANCE[::-1])):
        parts = [
            np.log(share) + multivariate_t(mean, shape, df=DEGREES).logpdf(z[row])
            for share, mean, shape in zip(SHARE[row], MEAN[row], shapes)
        ]
        np.testing.assert_allclose(found[row], logsumexp(parts, axis=0), rtol=1e-12)


def test_density_integrates_to_one(mixture):
    # Tangents of evenly spaced angles reach far enough for tails of power laws.
    angle = np.linspace(-np.pi / 2, np.pi / 2, 801)[1:-1]
    axis, slope = 3 * np.tan(angle), 3 / np.cos(angle) ** 2 * (angle[1] - angle[0])
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(1, -1, 2)
    total = (np.exp(mixture.log_density(np.repeat(z, 2, axis=0))) * np.outer(slope, slope).ravel()).sum(axis=1)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    one = Mixture.single(np.array([[2.0]]), np.array([[[9.0]]]))
    total = (np.exp(one.log_density(axis[None, :, None])) * slope).sum()
    assert total == pytest.approx(1, abs=1e-6)


def test_a_share_of_zero_counts_for_nothing(mixture, rng):
    z = rng.normal(size=(2, 9, 2))
    less = Mixture(np.array([[0.4, 0.6, 0.0]] * 2), mixture.mean, mixture.factor)
    rest = Mixture(np.array([[0.4, 0.6]] * 2), mixture.mean[:, :2], mixture.factor[:, :2])
    np.testing.assert_allclose(less.log_density(z), rest.log_density(z))
    np.testing.assert_array_equal(less.draw(generators(2), 64), rest.draw(generators(2), 64))


def test_draws_follow_the_density(mixture):
    count = 40000
    z = mixture.draw(generators(2), count)
    for row, shapes in enumerate((COVARIANCE, COVARIANCE[::-1])):
        # Marginals along three directions: of a t distribution each is one.
        for along in ([1.0, 0.0], [0.0, 1.0], [0.6, -0.8]):
            along = np.array(along)
            parts = [student(DEGREES, along @ m, np.sqrt(along @ c @ along)) for m, c in zip(MEAN[row], shapes)]
            cdf = sum(share * part.cdf(z[row] @ along) for share, part in zip(SHARE[row], parts))
            assert kstest(cdf, "uniform").pvalue > 1e-3
    # Averages of ratios of densities are 1: the other way to say it.
    other = Mixture.single(np.array([[0.5, 0.5]] * 2), np.stack([4 * np.eye(2)] * 2))
    ratio = np.exp(other.log_density(z) - mixture.log_density(z))
    np.testing.assert_allclose(ratio.mean(axis=1), 1, atol=5 * ratio.std(axis=1).max() / np.sqrt(count))


def test_components_are_drawn_in_proportion_exactly():
    apart = Mixture(SHARE, 1e6 * MEAN, np.broadcast_to(np.eye(2), (2, 3, 2, 2)))
    z = apart.draw(generators(2), 100)
    nearest = np.argmin(np.abs(z[:, :, None] - apart.mean[:, None]).sum(axis=3), axis=2)
    assert [np.bincount(row).tolist() for row in nearest] == [[50, 20, 30], [10, 60, 30]]


def test_rows_do_not_know_of_each_other(mixture, rng):
    both, last = mixture.draw(generators(2), 64), mixture.of(slice(1, 2)).draw(generators(2)[1:], 64)
    np.testing.assert_array_equal(last[0], both[1])
    z, log_weight = rng.normal(size=(2, 300, 2)), rng.normal(size=(2, 300))
    floor = np.stack([np.eye(2)] * 2)
    whole, part = adapt(z, log_weight, floor, 3, 1.2), adapt(z[1:], log_weight[1:], floor[1:], 3, 1.2)
    stacked = Mixture.stacked([whole.of(slice(0, 1)), part])
    for name in ("share", "mean", "factor"):
        np.testing.assert_array_equal(getattr(stacked, name), getattr(whole, name))


def weighted_modes(rng, shares, means, sigma, count=4000, spread=6.0):
    """Points (1, count, d) of a wide Gaussian, weighted to follow modes of these shares."""
    d = len(means[0])
    z = spread * rng.normal(size=(count, d))
    parts = [np.log(s) + multivariate_normal(m, sigma**2 * np.eye(d)).logpdf(z) for s, m in zip(shares, means)]
    log_weight = logsumexp(parts, axis=0) - multivariate_normal(np.zeros(d), spread**2 * np.eye(d)).logpdf(z)
    return z[None], log_weight[None]


def test_adaptation_to_one_mode(rng):
    covariance = np.array([[2.0, -1.0], [-1.0, 1.0]])
    z = rng.multivariate_normal([3.0, -4.0], covariance, size=20000)[None]
    found = adapt(z, np.zeros((1, 20000)), np.eye(2)[None], 1, 1.2)
    np.testing.assert_allclose(found.mean[0, 0], [3.0, -4.0], atol=0.05)
    factor = found.factor[0, 0]
    np.testing.assert_allclose(factor @ factor.T / 1.44, covariance, atol=0.06)


@pytest.mark.parametrize("components", [2, 3, 4])
def test_adaptation_finds_separate_modes(rng, components):
    shares, means, sigma = [0.7, 0.3], [(-5.0, 3.0), (5.0, -3.0)], 0.8
    z, log_weight = weighted_modes(rng, shares, means, sigma)
    whole = adapt(z, log_weight, sigma**2 * np.eye(2)[None], components, 1.0)
    assert whole.share[0, -1] == pytest.approx(0.15)  # the wide one, about all of them
    found = Mixture(whole.share[:, :-1] / 0.85, whole.mean[:, :-1], whole.factor[:, :-1])
    assert found.share.sum() == pytest.approx(1)
    # Each component belongs to one of the modes, and those of a mode have its share together.
    distance = np.linalg.norm(found.mean[0][:, None] - np.array(means)[None], axis=2)
    assert (distance.min(axis=1) < 1.5 * sigma).all()
    owner = distance.argmin(axis=1)
    np.testing.assert_allclose([found.share[0][owner == k].sum() for k in (0, 1)], shares, atol=0.06)
    for k, mean in enumerate(means):
        mine = found.share[0][owner == k]
        np.testing.assert_allclose(mine @ found.mean[0][owner == k] / mine.sum(), mean, atol=0.3)
    # Importance sampling from it is efficient: the density is close to what it follows.
    drawn = found.draw(generators(1), 4000)
    parts = [np.log(s) + multivariate_normal(m, sigma**2 * np.eye(2)).logpdf(drawn[0]) for s, m in zip(shares, means)]
    log_ratio = logsumexp(parts, axis=0) - found.log_density(drawn)[0]
    weight = np.exp(log_ratio)
    assert weight.mean() == pytest.approx(1, abs=0.05)
    assert weight.sum() ** 2 / (weight**2).sum() > 0.7 * 4000


def test_adaptation_to_a_single_point_keeps_a_width(rng):
    log_weight = np.full((1, 500), -1e4)
    log_weight[0, 7] = 0.0
    z = rng.normal(size=(1, 500, 3))
    for components in (1, 3):
        found = adapt(z, log_weight, 0.04 * np.eye(3)[None], components, 1.0)
        np.testing.assert_allclose(found.mean[0], np.broadcast_to(z[0, 7], (components + 1, 3)), atol=1e-6)
        size = np.sqrt(np.einsum("mij,mij->mi", found.factor[0], found.factor[0]))
        assert (size > 1e-2).all()
        assert (size < 0.3).all()
        assert np.isfinite(found.log_density(z)).all()
