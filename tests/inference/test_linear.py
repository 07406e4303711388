"""`solve_linear` against NumPy's and scipy's solvers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.optimize import nnls

from ifujax import DataError, UsageError, solve_linear
from ifujax.inference import status as bits


@pytest.fixture(params=["shared", "per row"])
def problem(request, rng):
    design = rng.normal(size=(40, 5) if request.param == "shared" else (9, 40, 5)) * np.array([1, 1e3, 1e-3, 1, 1])
    values, ivar = rng.normal(size=(9, 40)), rng.uniform(0.5, 2.0, size=(9, 40))
    return design, values, ivar


def rows(design, batch):
    return np.broadcast_to(design, (batch, *design.shape[-2:]))


def test_agrees_with_lapack(problem):
    design, values, ivar = problem
    fit = solve_linear(design, values, ivar)
    for one, row, weight, found, covariance, chi2 in zip(
        rows(design, 9), values, ivar, fit.coefficients, fit.covariance, fit.chi2
    ):
        root = np.sqrt(weight)
        expected, rest = np.linalg.lstsq(one * root[:, None], row * root)[:2]
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        np.testing.assert_allclose(covariance, np.linalg.inv((one.T * weight) @ one), rtol=1e-9)
        assert chi2 == pytest.approx(rest[0])
    np.testing.assert_allclose(fit.error, np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2)))
    np.testing.assert_allclose(np.sum(ivar * (values - fit.model(design)) ** 2, axis=1), fit.chi2)
    assert (fit.status == 0).all()


@pytest.mark.parametrize("factor", [1e-20, 1e20])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_units_do_not_matter(problem, factor, precision):
    design, values, ivar = problem
    fit = solve_linear(design, values, ivar)
    scaled = solve_linear(design, values * factor, ivar / factor**2, precision=precision)
    close = 1e-9 if precision == "float64" else 1e-4
    assert (np.abs(scaled.coefficients / factor - fit.coefficients) < close * fit.error).all()
    np.testing.assert_allclose(scaled.error / factor, fit.error, rtol=close)
    np.testing.assert_allclose(scaled.chi2, fit.chi2, rtol=close)


def test_nearly_degenerate_columns_keep_their_digits():
    x = np.linspace(1.0, 2.0, 60)
    design = x[:, None] ** np.arange(6)  # powers of an uncentred coordinate: condition number 1e7, squared 1e14
    truth = np.array([1.0, -2.0, 3.0, -4.0, 5.0, -6.0])
    fit = solve_linear(design, (design @ truth)[None], np.ones((1, 60)))
    np.testing.assert_allclose(fit.coefficients[0], truth, rtol=1e-6)


def test_lower_limits(problem):
    design, values, ivar = problem
    root = np.sqrt(ivar)
    fit = solve_linear(design, values, ivar, lower=0)
    expected = [nnls(d * r[:, None], v * r)[0] for d, r, v in zip(rows(design, 9), root, values)]
    np.testing.assert_allclose(fit.coefficients / fit.error, expected / fit.error, atol=1e-9)
    np.testing.assert_array_equal((fit.warn & bits.AT_BOUND.value) != 0, (fit.coefficients == 0).any(axis=1))
    floor = np.array([-0.1, 0.0, 0.2, -1.0, 0.05])
    shifted = solve_linear(design, values + rows(design, 9) @ floor, ivar, lower=floor)
    np.testing.assert_allclose((shifted.coefficients - floor) / fit.error, expected / fit.error, atol=1e-8)
    assert (shifted.coefficients >= floor).all()


@pytest.mark.parametrize("lower", [None, 0.0])
def test_penalty(problem, lower):
    design, values, ivar = problem
    root = np.random.default_rng(2).normal(size=(3, 5)) * 5
    fit = solve_linear(design, values, ivar, penalty=root.T @ root, lower=lower)
    for one, row, weight, found, error in zip(rows(design, 9), values, np.sqrt(ivar), fit.coefficients, fit.error):
        tall, right = np.vstack([one * weight[:, None], root]), np.append(row * weight, np.zeros(3))
        expected = np.linalg.lstsq(tall, right)[0] if lower is None else nnls(tall, right)[0]
        np.testing.assert_allclose(found / error, expected / error, atol=1e-8)


def test_bad_rows_fail_alone(problem):
    design, values, ivar = problem
    fit = solve_linear(design, values, ivar)
    values, ivar = values.copy(), ivar.copy()
    values[0], ivar[1], ivar[2, 4:], values[3, 5] = np.nan, 0, 0, np.inf
    other = solve_linear(design, values, ivar)
    assert other.status.tolist() == [1, 1, 2, 0, 0, 0, 0, 0, 0]
    assert np.isnan(other.coefficients[:3]).all()
    assert np.isnan(other.chi2[:3]).all()
    assert other.n_good[3] == 39
    np.testing.assert_array_equal(other.coefficients[4:], fit.coefficients[4:])
    with pytest.raises(DataError, match="3 of 9 linear fits failed; the first, row 0: no usable pixel"):
        other.raise_if_failed()


def test_a_column_without_data(problem):
    design, values, ivar = problem
    design = design.copy()
    design[..., 2] = 0
    fit = solve_linear(design, values, ivar)
    assert (fit.warn == bits.UNCONSTRAINED.value).all()
    assert (fit.coefficients[:, 2] == 0).all()
    assert np.isnan(fit.error[:, 2]).all()
    assert np.isfinite(np.delete(fit.error, 2, axis=1)).all()


def test_clipping_finds_the_outliers(rng):
    x = np.linspace(-1, 1, 200)
    design = np.polynomial.legendre.legvander(x, 3)
    truth = rng.normal(size=(12, 4))
    values = truth @ design.T + rng.normal(scale=0.1, size=(12, 200))
    hit = rng.random(values.shape) < 0.05
    spoilt, ivar = np.where(hit, values + 4.0, values), np.full(values.shape, 100.0)
    fit = solve_linear(design, spoilt, ivar, clip=(3, 3), n_iterate=20)
    assert not fit.used[hit].any()
    assert fit.used[~hit].mean() > 0.99
    np.testing.assert_array_equal(fit.n_good, fit.used.sum(axis=1))
    pulls = (fit.coefficients - truth) / fit.error
    assert 0.7 < pulls.std() < 1.4
    one_sided = solve_linear(design, spoilt, ivar, clip=(np.inf, 3), n_iterate=20)
    assert not one_sided.used[hit].any()


def test_misuse(problem):
    design, values, ivar = problem
    for bad, message in (
        ({"penalty": np.ones((3, 3))}, "penalty must have shape"),
        ({"penalty": np.triu(np.ones((5, 5)))}, "symmetric"),
        ({"lower": [0, 1]}, "lower must"),
        ({"bandwidth": 9}, "bandwidth must lie"),
        ({"bandwidth": 1}, "bandwidth must be 4 or more"),
        ({"bandwidth": 4, "lower": 0}, "lower must be None"),
        ({"clip": (3, -1)}, "clip must"),
    ):
        with pytest.raises(UsageError, match=message):
            solve_linear(design, values, ivar, **bad)
    with pytest.raises(UsageError, match="design must have shape"):
        solve_linear(design[..., :-1, :], values, ivar)


def test_model_evaluates_elsewhere():
    x = np.linspace(0, 1, 30)
    knots = np.r_[[0.0] * 3, np.linspace(0, 1, 8), [1.0] * 3]
    values = np.sin(3 * x)[None] * np.array([[1.0], [2.0]])
    fit = solve_linear(BSpline.design_matrix(x, knots, 3).toarray(), values, np.ones_like(values), bandwidth=3)
    fine = np.linspace(0.1, 0.9, 7)
    np.testing.assert_allclose(fit.model(BSpline.design_matrix(fine, knots, 3).toarray())[1], 2 * np.sin(3 * fine), atol=1e-3)
    assert fit.covariance is None
    assert fit.error is None
