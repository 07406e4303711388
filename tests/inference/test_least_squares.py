"""`fit_batch` against scipy, one problem at a time, and its promises about bad rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ifujax import (
    Bounded,
    DataError,
    Fixed,
    LeastSquaresOptions,
    Normal,
    Observations,
    ParameterSpace,
    Tied,
    UsageError,
    fit_batch,
)
from ifujax.inference import status as bits
from tests.inference.problems import START, Peak, X, peak_numpy, peaks, scipy_fit

MODEL = Peak()
WIDE = ParameterSpace.build(
    {"centre": Bounded(-5, 5), "width": Bounded(0.2, 5), "height": Bounded(-1e3, 1e3), "level": Bounded(-1e3, 1e3)}
)
TIGHT = ParameterSpace.build(
    {"centre": Bounded(-0.5, 0.8), "width": Bounded(0.9, 1.2), "height": Bounded(0, 8), "level": Bounded(-1, 0.2)}
)
FAST = LeastSquaresOptions(warm_up=False)
"""Half the compilation."""
NAMES = ("centre", "width", "height", "level")


def table(mapping):
    return np.stack([mapping[name] for name in NAMES], axis=1)


@pytest.fixture(scope="module")
def data():
    return peaks(np.random.default_rng(5), 24)[0]


@pytest.fixture(scope="module")
def wide(data):
    return fit_batch(MODEL, WIDE, data, START)


def test_agrees_with_scipy(data, wide):
    assert (wide.status == 0).all()
    for row in range(data.batch):
        best = scipy_fit(lambda t, row=row: (data.values[row] - peak_numpy(t)) / 0.3, list(START.values()))
        covariance = np.linalg.inv(best.jac.T @ best.jac)
        assert wide.chi2[row] == pytest.approx(2 * best.cost, rel=1e-8)
        error = np.sqrt(np.diag(covariance))
        best.x[1] = abs(best.x[1])  # scipy was given no bounds
        assert (np.abs(table(wide.params)[row] - best.x) < 2e-3 * error).all()
        np.testing.assert_allclose(table(wide.error)[row], error, rtol=2e-3)
        assert (np.abs(np.abs(wide.covariance[row]) - np.abs(covariance)) < 3e-3 * np.outer(error, error)).all()


@pytest.mark.parametrize("start", [START | {"width": 1.2, "height": 8.0}, START | {"centre": -0.5, "width": 0.9, "level": 0.2}])
def test_agrees_with_scipy_on_a_box_from_a_start_on_its_edge(data, start):
    fit = fit_batch(MODEL, TIGHT, data, start)
    low, high = np.array([-0.5, 0.9, 0, -1]), np.array([0.8, 1.2, 8, 0.2])
    inner = [0.1, 1.0, 5.0, 0.0]
    assert (fit.status == 0).all()
    values = table(fit.params)
    assert ((values >= low) & (values <= high)).all()
    on_edge = ((values == low) | (values == high)).any(axis=1)
    assert on_edge.sum() > 10
    np.testing.assert_array_equal((fit.warn & bits.AT_BOUND.value) != 0, on_edge)
    assert (table(fit.error) > 0).all()
    for row in range(data.batch):
        best = scipy_fit(lambda t, row=row: (data.values[row] - peak_numpy(t)) / 0.3, inner, low, high)
        assert fit.chi2[row] <= 2 * best.cost * (1 + 1e-7) + 1e-6


def test_bijections_agree_with_the_active_set(data, wide):
    # Inside the box, that is: at a bound their slopes vanish, which is why they are not the default.
    space = ParameterSpace.build(
        {"centre": Bounded(-5, 5), "width": Bounded(0.2, 5), "height": Bounded(0), "level": Bounded(upper=9)}
    )
    line = fit_batch(MODEL, space, data, START, options=LeastSquaresOptions(bounds="transform", warm_up=False))
    assert (line.status == 0).all()
    np.testing.assert_allclose(line.chi2, wide.chi2, rtol=1e-7)
    assert (np.abs(table(line.params) - table(wide.params)) < 2e-3 * table(wide.error)).all()
    np.testing.assert_allclose(table(line.error), table(wide.error), rtol=2e-3)


def test_bad_rows_fail_alone(data, wide):
    values, ivar = data.values.copy(), data.ivar.copy()
    values[1] = np.nan
    ivar[4] = 0
    ivar[6, 3:] = 0
    values[8, 20:30] = np.nan
    values[9] = 1e30
    start = {name: np.full(data.batch, value) for name, value in START.items()}
    start["width"][11] = np.nan
    fit = fit_batch(MODEL, WIDE, Observations(values, ivar, X), start)
    assert fit.status[[1, 4, 6, 11]].tolist() == [
        bits.NO_DATA.value,
        bits.NO_DATA.value,
        bits.TOO_FEW_PIXELS.value,
        bits.NOT_FINITE.value,
    ]
    assert np.isnan(fit.params["centre"][[1, 4, 6, 11]]).all()
    assert np.isnan(fit.chi2[[1, 4, 6, 11]]).all()
    assert fit.n_good[8] == 50
    assert fit.status[8] == 0
    untouched = [row for row in range(data.batch) if row not in (1, 4, 6, 8, 9, 11)]
    for name in NAMES:
        np.testing.assert_array_equal(fit.params[name][untouched], wide.params[name][untouched])
        np.testing.assert_array_equal(fit.error[name][untouched], wide.error[name][untouched])
    np.testing.assert_array_equal(fit.chi2[untouched], wide.chi2[untouched])
    with pytest.raises(DataError, match=r"[45] of 24 fits failed"):
        fit.raise_if_failed()
    assert wide.raise_if_failed() is wide


def test_one_slow_row_changes_no_other(data, wide):
    start = {name: np.full(data.batch, value) for name, value in START.items()}
    start["width"][3], start["centre"][3], start["height"][3] = 4.9, 4.9, 500.0
    fit = fit_batch(MODEL, WIDE, data, start)
    others = np.arange(data.batch) != 3
    assert fit.n_iter[3] > np.median(fit.n_iter)
    np.testing.assert_array_equal(table(fit.params)[others], table(wide.params)[others])


def test_order_and_chunks_do_not_matter(data, wide):
    order = np.random.default_rng(0).permutation(data.batch)
    fit = fit_batch(MODEL, WIDE, Observations(data.values[order], data.ivar[order], X), START)
    np.testing.assert_allclose(fit.chi2, wide.chi2[order], rtol=1e-8)
    assert (np.abs(table(fit.params) - table(wide.params)[order]) < 1e-3 * table(wide.error)[order]).all()
    few = fit_batch(MODEL, WIDE, Observations(data.values[:5], data.ivar[:5], X), START, options=FAST)
    np.testing.assert_allclose(few.chi2, wide.chi2[:5], rtol=1e-8)


@pytest.mark.parametrize("factor", [1e-20, 1e20])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_units_do_not_matter(data, wide, factor, precision):
    linear = Bounded(-1e3 * factor, 1e3 * factor)
    space = ParameterSpace.build(
        {"centre": Bounded(-5, 5), "width": Bounded(0.2, 5), "height": linear, "level": linear},
        scale={"height": factor, "level": factor},
    )
    start = START | {"height": 5.0 * factor, "level": 0.0}
    fit = fit_batch(MODEL, space, Observations(data.values * factor, data.ivar / factor**2, X), start, precision=precision)
    assert (fit.status == 0).all()
    unit = np.array([1, 1, factor, factor])
    tolerance = 1e-3 if precision == "float64" else 2e-2
    assert (np.abs(table(fit.params) / unit - table(wide.params)) < tolerance * table(wide.error)).all()
    np.testing.assert_allclose(fit.chi2, wide.chi2, rtol=1e-8 if precision == "float64" else 1e-4)


@pytest.mark.parametrize("linear", ["eliminate", "nnls"])
def test_eliminated_block_gives_the_same_fit(data, wide, linear):
    # All true heights and, after this shift, levels are positive: both ways must find the same minimum.
    shift = 3.0
    shifted = Observations(data.values + shift, data.ivar, X)
    space = ParameterSpace.build({"centre": Bounded(-5, 5), "width": Bounded(0.2, 5)})
    fit = fit_batch(
        MODEL, space, shifted, {"centre": 0.0, "width": 1.5}, options=LeastSquaresOptions(linear=linear, warm_up=False)
    )
    assert fit.covariance_names == NAMES
    assert fit.n_free == 4
    np.testing.assert_allclose(fit.chi2, wide.chi2, rtol=1e-8)
    np.testing.assert_allclose(fit.linear[:, 1] - shift, wide.params["level"], atol=1e-4)
    for k, name in enumerate(("height", "level")):
        np.testing.assert_allclose(fit.linear_error[:, k], wide.error[name], rtol=2e-3)
    np.testing.assert_allclose(fit.error["width"], wide.error["width"], rtol=2e-3)


def test_nonnegative_coefficients(data):
    space = ParameterSpace.build({"centre": Bounded(-5, 5), "width": Bounded(0.2, 5)})
    values = data.values - 1.2
    obs = Observations(values, data.ivar, X)
    fit = fit_batch(MODEL, space, obs, {"centre": 0.0, "width": 1.5}, options=LeastSquaresOptions(linear="nnls", warm_up=False))
    assert (fit.status == 0).all()
    assert (fit.linear >= 0).all()
    assert (fit.linear[:, 1] == 0).sum() > 10
    for row in range(8):
        low, high = [-5, 0.2, 0, 0], [5, 5, np.inf, np.inf]
        best = scipy_fit(lambda t, row=row: (values[row] - peak_numpy(t)) / 0.3, [0, 1.5, 5, 0.1], low, high)
        assert fit.chi2[row] <= 2 * best.cost * (1 + 1e-7)


def test_student_t_loss(data):
    nu = 3.0
    values = data.values.copy()
    values[:, ::9] += 8.0
    options = LeastSquaresOptions(loss="student_t", degrees=nu, warm_up=False)
    fit = fit_batch(MODEL, WIDE, Observations(values, data.ivar, X), START, options=options)
    assert (fit.status == 0).all()

    def rho(z):
        inner = 1 + z / nu
        return np.array([(nu + 1) * np.log(inner), (nu + 1) / nu / inner, -(nu + 1) / nu**2 / inner**2])

    for row in range(6):
        best = scipy_fit(lambda t, row=row: (values[row] - peak_numpy(t)) / 0.3, table(fit.params)[row], loss=rho)
        assert fit.chi2[row] == pytest.approx(2 * best.cost, abs=1e-3)
        plain = scipy_fit(lambda t, row=row: (values[row] - peak_numpy(t)) / 0.3, list(START.values()))
        assert abs(table(fit.params)[row, 3] - table(plain_params(plain))[0, 3]) > 0.1  # and outliers would have mattered


def test_student_t_loss_with_a_linear_block(data):
    """A linear block that is solved for at each step ends where scipy's robust fit of all parameters does."""
    nu = 3.0
    values = data.values.copy()
    values[:, ::9] += 8.0
    options = LeastSquaresOptions(loss="student_t", degrees=nu, linear="eliminate", warm_up=False)
    space = ParameterSpace.build({"centre": Bounded(-5, 5), "width": Bounded(0.2, 5)})
    fit = fit_batch(MODEL, space, Observations(values, data.ivar, X), {"centre": 0.0, "width": 1.5}, options=options)
    assert (fit.status == 0).all()

    def rho(z):
        inner = 1 + z / nu
        return np.array([(nu + 1) * np.log(inner), (nu + 1) / nu / inner, -(nu + 1) / nu**2 / inner**2])

    for row in range(6):
        start = [fit.params["centre"][row], fit.params["width"][row], *fit.linear[row]]
        best = scipy_fit(lambda t, row=row: (values[row] - peak_numpy(t)) / 0.3, start, loss=rho)
        assert fit.chi2[row] == pytest.approx(2 * best.cost, abs=1e-3)
        assert fit.linear[row] == pytest.approx(best.x[2:], abs=0.02)


def plain_params(best):
    return {name: np.array([value]) for name, value in zip(NAMES, best.x)}


def test_priors_are_rows(data):
    space = ParameterSpace.build(
        {"centre": Bounded(-5, 5), "width": Bounded(0.2, 5, prior=Normal(1.0, 0.05)), "height": Bounded(), "level": Bounded()}
    )
    fit = fit_batch(MODEL, space, data, START, options=FAST)
    for row in range(6):

        def residual(t, row=row):
            return np.append((data.values[row] - peak_numpy(t)) / 0.3, (t[1] - 1.0) / 0.05)

        best = scipy_fit(residual, list(START.values()))
        assert fit.chi2[row] == pytest.approx(2 * best.cost, rel=1e-8)
        assert fit.error["width"][row] == pytest.approx(np.sqrt(np.linalg.inv(best.jac.T @ best.jac)[1, 1]), rel=1e-3)


def test_ties_fixed_values_and_bounds_per_row(data):
    space = ParameterSpace.build(
        {"centre": Bounded(-5, 5), "width": Fixed(1.1), "height": Bounded(), "level": Tied("height / 20")}
    )
    upper = np.full((data.batch, 2), np.inf)
    upper[:, 0] = np.linspace(-1, 1, data.batch)
    space = replace(space, upper=upper)
    fit = fit_batch(MODEL, space, data, {"centre": -2.0, "height": 5.0}, options=FAST)
    assert (fit.status == 0).all()
    assert (fit.params["centre"] <= upper[:, 0]).all()
    assert (fit.params["width"] == 1.1).all()
    assert (fit.error["width"] == 0).all()
    np.testing.assert_allclose(fit.params["level"], fit.params["height"] / 20)
    np.testing.assert_allclose(fit.error["level"], fit.error["height"] / 20, rtol=1e-6)


def test_a_parameter_without_effect_is_said_to_be_unconstrained(data):
    obs = Observations(data.values[:3], data.ivar[:3], X)
    space = ParameterSpace.build({"centre": Bounded(-5, 5), "width": Bounded(0.2, 5), "height": Fixed(0.0), "level": Bounded()})
    fit = fit_batch(MODEL, space, obs, {"centre": 0.0, "width": 1.0, "level": 0.0}, options=FAST)
    assert (fit.status == 0).all()
    assert (fit.warn & bits.UNCONSTRAINED.value).all()
    assert np.isnan(fit.error["centre"]).all()
    np.testing.assert_allclose(fit.error["level"], 0.3 / np.sqrt(60), rtol=1e-6)


def test_several_starts_keep_the_best(data, wide):
    first = np.broadcast_to([4.5, 0.3, 0.0, 0.0], (data.batch, 4))
    second = np.broadcast_to([0.0, 1.5, 5.0, 0.0], (data.batch, 4))
    none = np.full((data.batch, 4), np.nan)
    fit = fit_batch(MODEL, WIDE, data, np.stack([first, second, none]))
    np.testing.assert_allclose(fit.chi2, np.minimum(fit.chi2, wide.chi2), rtol=1e-8)


def test_a_plain_function_is_a_model(data):
    fit = fit_batch(straight, ParameterSpace.build({"level": Bounded()}), data, {"level": 0.0}, options=FAST)
    np.testing.assert_allclose(fit.params["level"], data.values.mean(axis=1), atol=1e-6)


def straight(params, x):
    return params["level"] + 0.0 * x


def test_misuse_is_told_before_anything_is_compiled(data):
    with pytest.raises(UsageError, match="Did you mean 'height'"):
        fit_batch(MODEL, WIDE, data, START | {"hight": 1.0})
    with pytest.raises(UsageError, match="level missing"):
        fit_batch(MODEL, WIDE, data, {name: START[name] for name in NAMES[:3]})
    with pytest.raises(UsageError, match="start must have shape"):
        fit_batch(MODEL, WIDE, data, np.zeros((3, 4)))
    with pytest.raises(UsageError, match="model must be"):
        fit_batch({"a": 1}.keys(), WIDE, data, START)
    with pytest.raises(UsageError, match="loss must be one of"):
        LeastSquaresOptions(loss="huber")
    with pytest.raises(UsageError, match="ivar must"):
        Observations(np.zeros((1, 2)), np.array([[1.0, -1.0]]))
