"""Densities with strengths integrated out within their bounds, and the strengths drawn on the way, against grids."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from scipy.special import expit, log_expit, logsumexp
from scipy.stats import lognorm, norm, qmc

from ifujax import Bounded, HalfNormal, LogNormal, Normal
from ifujax.inference.precision import working_precision
from ifujax.inference.sampling.blocks import split
from ifujax.inference.sampling.marginal import weigh
from tests.inference.sampling.problems import CONTINUUM, Lines, X, lines_numpy, target_of

SIGMA = 0.7
TIGHT = np.array([3.0, 5.0])
BOXES = np.array([(-30.0, 30.0), (0.2, 4.0)])
SHAPES = {"centre": Bounded(*BOXES[0]), "width": Bounded(*BOXES[1])}
# The third lies so far off that the lines leave no trace in the data, not even rounding.
Z = np.array([[0.02, -0.9], [0.10, 0.0], [2.5, -3.0], [-0.05, -0.5], [0.02, -2.5]])
FAR = 2
PRIORS = {
    "box": (Bounded(0, 15), lambda s: np.zeros_like(s)),
    "narrow box": (Bounded(7, 7.5), lambda s: np.zeros_like(s)),
    "box below": (Bounded(-9, -2), lambda s: np.zeros_like(s)),
    "box with a prior": (Bounded(-1, 6, prior=Normal(5.0, 1.0)), lambda s: -0.5 * (s - 5.0) ** 2),
    "positive": (Bounded(prior=HalfNormal(3.0)), lambda s: -0.5 * (s / 3.0) ** 2),
    "negative": (Bounded(-np.inf, -0.5, prior=Normal(1.0, 2.0)), lambda s: -0.5 * ((s - 1.0) / 2.0) ** 2),
    "any": (Bounded(prior=Normal(-2.0, 1.5)), lambda s: -0.5 * ((s + 2.0) / 1.5) ** 2),
}
POINTS = 1024
"""Of every call: a number of points that is new is compiled anew."""
weigh_all = partial(jax.jit, static_argnums=0)(jax.vmap(weigh, in_axes=(None, None, 0, 0, 0)))


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(11)
    return lines_numpy(0.5, 1.2, [3.0, 1.0]) + CONTINUUM @ [2.0, -1.0] + rng.normal(scale=SIGMA, size=X.size)


def problem(values, *names, shapes=SHAPES, precision="float64"):
    """Return a target whose strengths have priors of these names, and what is sampled of it."""
    model = Lines(("first", "second")[: len(names)])
    boxes = dict(shapes) | {strength: PRIORS[name][0] for strength, name in zip(model.linear_in, names)}
    target = target_of(model, boxes, values, np.full(X.size, 1 / SIGMA), linear_sigma=TIGHT, precision=precision)
    return split(model, target.space.structure), target


def weighed(split, target, z, u, from_prior=False, precision="float64"):
    count = len(z)
    with working_precision(precision) as dtype:
        z, u = (np.resize(array, (POINTS, array.shape[1])).astype(dtype) for array in (z, u))
        found = weigh_all(split, target, z, np.full(POINTS, from_prior), u)
        return jax.tree.map(lambda leaf: np.asarray(leaf, dtype=float)[:count], found)


def evenly_spread(n):
    """Points of the unit cube (POINTS, n), off its sides."""
    return qmc.Sobol(n, scramble=False).random(POINTS) + 0.5 / POINTS


def on_grid(values, z, names, size=1201):
    """Log density of the strengths (positions, grid points), the continuum integrated out, on a grid; and its points."""
    at = BOXES[:, 0] + (BOXES[:, 1] - BOXES[:, 0]) * expit(z)
    axes = []
    for name in names:
        item = PRIORS[name][0]
        axes.append(np.linspace(max(item.lower, -12.0), min(item.upper, 15.0), size))
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(names))
    log_prior = sum(PRIORS[name][1](mesh[:, k]) for k, name in enumerate(names))
    # Chi2 with the continuum integrated out is a quadratic form of the residual.
    inverse = np.linalg.inv(CONTINUUM.T @ CONTINUUM / SIGMA**2 + np.diag(TIGHT**-2.0))
    form = np.eye(X.size) / SIGMA**2 - CONTINUUM @ inverse @ CONTINUUM.T / SIGMA**4
    found = []
    for centre, width in at:
        units = np.eye(2)[: len(names)]
        lines = np.stack([lines_numpy(centre, width, unit) for unit in units])
        square, cross = lines @ form @ lines.T, lines @ form @ values
        found.append(-0.5 * np.einsum("gi,ij,gj->g", mesh, square, mesh) + mesh @ cross + log_prior)
    # Trapezia: the ends count half.
    ends = [np.where((axis == axis[0]) | (axis == axis[-1]), 0.5, 1.0) for axis in axes]
    weight = np.prod(np.stack(np.meshgrid(*ends, indexing="ij")), axis=0).ravel()
    return np.array(found) + np.log(weight), mesh


def log_prior_of(z):
    return (log_expit(z) + log_expit(-z)).sum(axis=-1)


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "positive"])
def test_one_strength_is_integrated_within_its_bounds(values, name):
    which, target = problem(values, name)
    assert which.integrated == (2,)
    found = weighed(which, target, Z, np.full((len(Z), 3), 0.3))
    grid, mesh = on_grid(values, Z, [name], size=200001)
    expected = logsumexp(grid, axis=1) + log_prior_of(Z)
    np.testing.assert_allclose(found.log_target - found.log_target[0], expected - expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.log_prior, log_prior_of(Z), rtol=1e-9)
    # What was drawn lies at the quantile 0.3 of the same density.
    share = np.exp(grid - logsumexp(grid, axis=1)[:, None]).cumsum(axis=1)
    at = [np.interp(drawn, mesh[:, 0], row) for drawn, row in zip(found.drawn[:, 0], share)]
    np.testing.assert_allclose(at, 0.3, atol=2e-3)


@pytest.mark.parametrize("names", [("any", "positive"), ("box", "box"), ("positive", "box"), ("positive", "box below")])
def test_two_blended_strengths(values, names):
    which, target = problem(values, *names)
    assert which.integrated == (2, 3)
    grid, mesh = on_grid(values, Z, names, size=601)
    expected = logsumexp(grid, axis=1) + log_prior_of(Z)
    u = evenly_spread(4)
    found = [weighed(which, target, np.tile(z, (POINTS, 1)), u) for z in Z]
    log_target = np.stack([part.log_target for part in found])
    average = logsumexp(log_target, axis=1)
    np.testing.assert_allclose(average - average[0], expected - expected[0], rtol=1e-3, atol=5e-3)
    # The pairs, weighted, have the moments and the quantiles of the truncated Gaussian.
    for k, density in enumerate(np.exp(grid - logsumexp(grid, axis=1)[:, None])):
        weight = np.exp(log_target[k] - average[k])
        drawn = found[k].drawn
        mean, sd = density @ mesh, np.sqrt(density @ (mesh - density @ mesh) ** 2)
        np.testing.assert_allclose(weight @ drawn, mean, atol=0.02 * sd.max(), rtol=0)
        correlation = density @ np.prod((mesh - mean) / sd, axis=1)
        assert weight @ np.prod((drawn - mean) / sd, axis=1) == pytest.approx(correlation, abs=0.05)
        for j in (0, 1):
            nodes = np.unique(mesh[:, j])
            at = np.searchsorted(nodes, mean[j] + sd[j] * np.array([-1.0, 0.0, 1.5])).clip(1, len(nodes) - 1)
            for edge in 0.5 * (nodes[at] + nodes[at - 1]):
                below = density @ (mesh[:, j] < edge)
                assert weight @ (drawn[:, j] < edge) == pytest.approx(below, abs=0.02)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_draws_keep_within_the_bounds_to_the_last_digit(values, rng, precision):
    which, target = problem(values, "positive", "box below", precision=precision)
    found = weighed(which, target, 2 * rng.normal(size=(POINTS, 2)), rng.random((POINTS, 4)), precision=precision)
    first, second = found.drawn.T
    assert (first >= 0).all()
    assert ((second >= -9) & (second <= -2)).all()
    assert np.isfinite(found.log_target).all()


def test_the_prior_is_normalised_and_drawn_from(values):
    shapes = {"centre": Bounded(*BOXES[0], prior=Normal(5.0, 20.0)), "width": Bounded(*BOXES[1], prior=LogNormal(1.0, 0.6))}
    which, target = problem(values, "positive", shapes=shapes)
    axis = np.linspace(-16, 15, 32)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    found = weighed(which, target, z, np.full((len(z), 3), 0.5))
    assert np.exp(found.log_prior).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=1e-4)
    u = evenly_spread(3)
    found = weighed(which, target, np.zeros((POINTS, 2)), u, from_prior=True)
    for k, prior in enumerate((norm(5, 20), lognorm(0.6))):
        low, high = prior.cdf(BOXES[k])
        np.testing.assert_allclose(found.x[:, k], prior.ppf(low + u[:, k] * (high - low)), rtol=1e-7)
    # Where it says that the points are.
    np.testing.assert_allclose(BOXES[:, 0] + (BOXES[:, 1] - BOXES[:, 0]) * expit(found.z), found.x, rtol=1e-7)
    again = weighed(which, target, found.z, u)
    np.testing.assert_allclose(again.log_target, found.log_target, rtol=1e-7)
    np.testing.assert_allclose(again.log_prior, found.log_prior, rtol=1e-6)


def test_the_prior_alone_where_all_is_masked(rng):
    which, target = problem(np.zeros(X.size), "positive", "box")
    target = replace(target, root_weight=np.zeros(X.size))
    z, u = rng.normal(size=(POINTS, 2)), rng.random((POINTS, 4))
    found = weighed(which, target, z, u)
    np.testing.assert_allclose(np.diff(found.log_target - found.log_prior), 0, atol=1e-6)
    np.testing.assert_allclose(found.drawn[:, 0], 3 * norm.ppf(0.5 + 0.5 * u[:, 2]), rtol=1e-6)
    np.testing.assert_allclose(found.drawn[:, 1], 15 * u[:, 3], rtol=1e-5)


def test_float32(values, rng):
    z, u = Z + 0.1 * rng.normal(size=Z.shape), rng.random((len(Z), 4))
    expected = weighed(*problem(values, "positive", "box"), z, u)
    found = weighed(*problem(values, "positive", "box", precision="float32"), z, u, precision="float32")
    np.testing.assert_allclose(found.log_target, expected.log_target, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.drawn, expected.drawn, rtol=1e-3, atol=1e-3)
