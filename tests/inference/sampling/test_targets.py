"""The posterior density against brute force, and draws of the coefficients that it integrates out."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_expit, logsumexp
from scipy.stats import t as student

from ifujax import Bounded, HalfNormal, LeastSquaresOptions
from ifujax.inference.precision import working_precision
from ifujax.inference.sampling.targets import draw_linear, log_density
from tests.inference.sampling.problems import CONTINUUM, Lines, X, lines_numpy, target_of, wide_line

SIGMA = 0.4
BOXES = np.array([(-4.0, 4.0), (0.3, 3.0), (0.0, 50.0)])
Z = np.array([[0.1, -0.4, -2.0], [0.4, 0.3, -2.5], [-1.5, 1.0, -1.0], [3.0, -2.0, -4.0], [0.0, 0.0, 6.0]])


# Compiled once for all targets of a kind.
density_at = jax.jit(jax.vmap(log_density, in_axes=(None, 0)))
drawn_from = jax.jit(jax.vmap(draw_linear, in_axes=(None, None, 0)))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    root = 1 / rng.uniform(0.5 * SIGMA, 2 * SIGMA, X.size)
    return lines_numpy(0.5, 1.2, [5.0]) + CONTINUUM @ [2.0, -3.0] + rng.normal(size=X.size) / root, root


def densities(target, z=Z, precision="float64"):
    with working_precision(precision) as dtype:
        found = density_at(target, z.astype(dtype))
        assert found.dtype == dtype
        return np.asarray(found, dtype=float)


def values_of(z):
    """Return (..., 3) values in their bounds, and the log density of the uniform prior of `z`."""
    return BOXES[:, 0] + (BOXES[:, 1] - BOXES[:, 0]) * expit(z), (log_expit(z) + log_expit(-z)).sum(axis=-1)


def brute_force(data, linear_sigma):
    """Integrate likelihood times prior over a grid of both coefficients, at each of Z."""
    values, root = data
    at, log_prior = values_of(Z)
    rest = values - lines_numpy(at[:, 0], at[:, 1], [at[:, 2]])
    spread = np.full(2, np.inf) if linear_sigma is None else np.asarray(linear_sigma)
    precision = (CONTINUUM * root[:, None] ** 2).T @ CONTINUUM + np.diag(spread**-2.0)
    axis = np.linalg.cholesky(np.linalg.inv(precision))
    grid = np.stack(np.meshgrid(*[np.linspace(-9, 9, 61)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    found = []
    for residual, prior in zip(rest, log_prior):
        centre = np.linalg.solve(precision, (CONTINUUM * root[:, None] ** 2).T @ residual)
        coefficients = centre + grid @ axis.T
        chi2 = (((residual - coefficients @ CONTINUUM.T) * root) ** 2).sum(axis=1) + ((coefficients / spread) ** 2).sum(axis=1)
        found.append(logsumexp(-0.5 * chi2) + prior)
    return np.array(found)


@pytest.mark.parametrize("linear_sigma", [None, (0.5, 3.0)])
def test_eliminated_coefficients_are_integrated_out(data, linear_sigma):
    found = densities(target_of(Lines(), wide_line(), *data, linear_sigma=linear_sigma))
    expected = brute_force(data, linear_sigma)
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-9, atol=1e-9)


def test_a_block_whose_columns_depend_on_the_parameters(data):
    # The determinant then counts: the strength as a coefficient, with the width of its column sampled.
    from tests.inference.problems import Peak

    values, root = data
    boxes = {"centre": Bounded(-4, 4), "width": Bounded(0.3, 3.0)}
    found = densities(target_of(Peak(), boxes, values, root), Z[:4, :2])
    expected = []
    for centre, width in values_of(Z)[0][:4, :2]:
        design = np.stack([np.exp(-0.5 * ((X - centre) / width) ** 2), np.ones_like(X)], axis=1) * root[:, None]
        _, rest, _, _ = np.linalg.lstsq(design, values * root)
        expected.append(-0.5 * rest[0] - 0.5 * np.linalg.slogdet(design.T @ design)[1])
    expected = np.array(expected) + (log_expit(Z) + log_expit(-Z))[:4, :2].sum(axis=1)
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_units_do_not_matter(data, factor, precision):
    values, root = data
    expected = densities(target_of(Lines(), wide_line(), values, root, linear_sigma=(0.5, 3.0)))
    scaled = target_of(
        *(Lines(), wide_line(first=Bounded(0, 50 * factor)), values * factor, root / factor),
        linear_sigma=(0.5 * factor, 3.0 * factor),
        scale={"first": factor},
        precision=precision,
    )
    found = densities(scaled, precision=precision)
    close = {"float64": 1e-9, "float32": 3e-3}[precision]
    # Rounding is relative to chi2.
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=close / 30, atol=close)


def test_masked_pixels_do_not_matter(data):
    values, root = data
    keep = np.arange(X.size) % 7 != 3
    # Pixels that aren't there, and pixels that are masked, whatever they hold.
    expected = densities(target_of(Lines(), wide_line(), values[keep], root[keep], coords=X[keep]))
    for fill in (0.0, 1e30):
        found = densities(target_of(Lines(), wide_line(), np.where(keep, values, fill), np.where(keep, root, 0.0)))
        np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-10, atol=1e-10)


def test_nothing_but_masked_pixels_leaves_the_prior(data):
    values, root = data
    target = target_of(Lines(), wide_line(), np.zeros_like(values), np.zeros_like(root), linear_sigma=(1.0, 2.0))
    found, expected = densities(target), values_of(Z)[1]
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-12)
    with working_precision("float64"):
        slopes = jax.jit(jax.grad(log_density, argnums=1))(target, jnp.asarray(Z[0]))
        assert np.isfinite(np.asarray(slopes)).all()


def test_student_t(data):
    values, root = data
    boxes = wide_line(level=Bounded(-10, 10), slope=Bounded(-10, 10, prior=HalfNormal(3.0)))
    z = np.concatenate([Z, 0.1 * np.ones((len(Z), 2))], axis=1)
    options = LeastSquaresOptions(loss="student_t", degrees=3.0)
    masked = replace(target_of(Lines(), boxes, values, root, options=options), root_weight=np.where(np.arange(40) < 5, 0, root))
    found = densities(masked, z)
    at, log_prior = values_of(Z)
    level, slope = -10 + 20 * expit(0.1), 10 * expit(0.1)
    residual = (values - lines_numpy(at[:, 0], at[:, 1], [at[:, 2]]) - CONTINUUM @ [level, slope]) * root
    expected = student.logpdf(residual[:, 5:], 3).sum(axis=1) + log_prior
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-9)


@pytest.mark.parametrize("linear_sigma", [None, (0.05, 0.2)])
def test_draws_of_the_coefficients(data, linear_sigma):
    values, root = data
    target = target_of(Lines(), wide_line(), values, root, linear_sigma=linear_sigma)
    params = {"centre": 0.3, "width": 1.0, "first": 4.0}
    with working_precision("float64"):
        drawn = np.asarray(drawn_from(target, params, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))
    tight = np.zeros(2) if linear_sigma is None else np.asarray(linear_sigma) ** -2.0
    weighted = CONTINUUM * root[:, None] ** 2
    covariance = np.linalg.inv(weighted.T @ CONTINUUM + np.diag(tight))
    mean = covariance @ weighted.T @ (values - lines_numpy(0.3, 1.0, [4.0]))
    np.testing.assert_allclose(drawn[0], mean, rtol=1e-10)
    # A draw is the mean and a factor of the covariance times the normals.
    factor = (drawn[1:] - drawn[0]).T
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-10)


def test_no_coefficients_to_draw(data):
    boxes = wide_line(level=Bounded(-10, 10), slope=Bounded(-10, 10))
    target = target_of(Lines(), boxes, *data, options=LeastSquaresOptions())
    params = {"centre": 0.3, "width": 1.0, "first": 4.0, "level": 1.0, "slope": 0.0}
    with working_precision("float64"):
        assert draw_linear(target, params, jnp.zeros(0)).shape == (0,)
