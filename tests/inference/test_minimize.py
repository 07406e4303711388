"""Objectives that are not sums of squares, against scipy."""

from __future__ import annotations

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from ifujax import Bounded, Fixed, Normal, ParameterSpace, Tied, UsageError, minimize_batch
from ifujax.inference import status as bits

SPACE = ParameterSpace.build({"rate": Bounded(0), "time": Bounded(0.1, 10), "floor": Bounded(0, 100)})
START = {"rate": 30.0, "time": 1.0, "floor": 1.0}


@pytest.fixture(autouse=True)
def solvers_may_broadcast():
    """Their solvers, and not our code, rely on broadcasting between ranks."""
    import jax

    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield
    jax.config.update("jax_numpy_rank_promotion", "raise")


def poisson(params, data):
    """Negative log-likelihood of counts that decay."""
    mean = params["rate"] * jnp.exp(-data["t"] / params["time"]) + params["floor"]
    return jnp.sum(mean - data["counts"] * jnp.log(mean))


@pytest.fixture
def data(rng):
    t = np.broadcast_to(np.linspace(0, 5, 40), (6, 40))
    return {"t": t, "counts": rng.poisson(50 * np.exp(-t / 1.3) + 20).astype(float)}


@pytest.mark.parametrize(("method", "max_iter"), [("lbfgs", 200), ("adam", 2000)])
def test_agrees_with_scipy(data, method, max_iter):
    options = {"tolerance": 1e-3} if method == "lbfgs" else {"tolerance": 0.02, "learning_rate": 0.1}
    fit = minimize_batch(poisson, SPACE, START, data=data, method=method, max_iter=max_iter, **options)
    # Adam is slow along a valley; what it has not finished it says so.
    good = np.flatnonzero(fit.status == 0)
    assert len(good) >= (6 if method == "lbfgs" else 4)
    assert set(fit.status) <= {0, bits.NOT_CONVERGED.value}
    for row in good:

        def objective(theta, row=row):
            mean = theta[0] * np.exp(-data["t"][row] / theta[1]) + theta[2]
            return np.sum(mean - data["counts"][row] * np.log(mean))

        best = minimize(objective, [50, 1.3, 20], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 5000})
        assert fit.value[row] == pytest.approx(best.fun, rel=1e-7)
        np.testing.assert_allclose([fit.params[name][row] for name in ("rate", "time", "floor")], best.x, rtol=5e-3)


def test_errors_are_those_of_the_curvature(data):
    """The curvature of Poisson counts is known in closed form; ties and fixed values follow it, and the truth lies within."""
    space = ParameterSpace.build(
        {
            "rate": Bounded(0),
            "time": Fixed(1.3),
            "floor": Bounded(0, 100),
            "twice": Tied("2 * rate"),
        },
        scale={"rate": 30.0},
    )
    fit = minimize_batch(poisson, space, {"rate": 30.0, "floor": 1.0}, data=data, tolerance=1e-3)
    assert fit.covariance_names == ("rate", "floor")
    assert (fit.status == 0).all()
    assert (fit.warn == 0).all()
    for row in range(6):
        shape = np.stack([np.exp(-data["t"][row] / 1.3), np.ones(40)])
        mean = fit.params["rate"][row] * shape[0] + fit.params["floor"][row]
        expected = np.linalg.inv(shape * data["counts"][row] / mean**2 @ shape.T)
        np.testing.assert_allclose(fit.covariance[row], expected, rtol=1e-6)
        np.testing.assert_allclose(fit.error["rate"][row], np.sqrt(expected[0, 0]), rtol=1e-6)
    np.testing.assert_allclose(fit.error["twice"], 2 * fit.error["rate"])
    assert (fit.error["time"] == 0).all()
    assert (np.abs(fit.params["rate"] - 50) < 4 * fit.error["rate"]).all()
    assert (np.abs(fit.params["floor"] - 20) < 4 * fit.error["floor"]).all()


def test_what_is_at_a_bound_or_not_felt_is_said(data):
    space = ParameterSpace.build({"rate": Bounded(0), "time": Fixed(1.3), "floor": Bounded(25, 100), "idle": Bounded(0, 1)})
    fit = minimize_batch(poisson, space, {"rate": 30.0, "floor": 40.0, "idle": 0.5}, data=data, tolerance=0.01)
    assert (fit.status == 0).all()
    assert (fit.warn == bits.AT_BOUND.value | bits.UNCONSTRAINED.value).all()
    np.testing.assert_allclose(fit.params["floor"], 25.0, atol=0.01)
    assert np.isnan(fit.error["idle"]).all()
    assert np.isfinite(fit.error["rate"]).all()


def test_bad_rows_priors_and_limits(data):
    counts = data["counts"].copy()
    counts[2, 5] = np.nan
    data = {"t": data["t"], "counts": counts}
    space = ParameterSpace.build(
        {"rate": Bounded(0), "time": Bounded(0.1, 10, prior=Normal(3.0, 1e-3)), "floor": Bounded(0, 100)}
    )
    fit = minimize_batch(poisson, space, START | {"floor": 0.0, "time": 3.0}, data=data, tolerance=1e-3)
    good = np.arange(6) != 2
    assert fit.status[2] == bits.NOT_FINITE.value
    assert np.isnan(fit.params["rate"][2])
    assert (fit.status[good] == 0).all()
    np.testing.assert_allclose(fit.params["time"][good], 3.0, atol=5e-3)
    short = minimize_batch(poisson, SPACE, START, data=data, max_iter=2, method="adam")
    assert (short.status[good] == bits.NOT_CONVERGED.value).all()


def test_misuse(data):
    with pytest.raises(UsageError, match="method must be one of lbfgs, adam"):
        minimize_batch(poisson, SPACE, START, data=data, method="newton")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one row a fit"):
        minimize_batch(poisson, SPACE, START, data={"t": data["t"], "counts": data["counts"][:3]})


def test_solvers_are_imported_only_when_used():
    code = "import sys, ifujax.inference.minimize; assert not {'jaxopt', 'optax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
