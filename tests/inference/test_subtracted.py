"""Errors of fits to data from which something fitted to the same data was subtracted, against the whole operator as a matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ifujax.errors import UsageError
from ifujax.inference.least_squares import fit_batch
from ifujax.inference.observations import Observations
from ifujax.inference.parameter_space.declarations import Bounded
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.subtracted import Subtracted
from ifujax.inference.uncertainty import Derived

N = 64
X = np.linspace(-1.0, 1.0, N)
BASIS = np.stack([np.ones(N), X, 1.5 * X**2 - 0.5])


@partial(jax.tree_util.register_dataclass, data_fields=["x", "below"], meta_fields=[])
@dataclass(frozen=True)
class Axis:
    x: Any
    below: Any


def bump(params: Any, coords: Axis) -> Any:
    return params["height"] * jnp.exp(-0.5 * ((coords.x - 0.1) / 0.15) ** 2) + params["slope"] * coords.x**3


def over_level(model: Any, params: Any, linear: Any, coords: Axis) -> dict[str, Any]:
    return {"ratio": params["height"] / coords.below[40], "sum": 2.0 * params["height"]}


def weights(model: Any, params: Any, linear: Any, coords: Axis) -> dict[str, Any]:
    return {"sum": jnp.where(jnp.abs(coords.x) < 0.3, 0.5 / coords.below, 0.0)}


def more_below(coords: Axis, shift: Any) -> Axis:
    return Axis(coords.x, coords.below + shift)


NAMES = ("height", "slope", "ratio", "sum")
DERIVED = Derived(over_level, weights)


@dataclass
class Problem:
    """One spectrum, and by what standard deviations of noise, and coefficients that are off, move everything (`NAMES`)."""

    obs: Observations
    space: ParameterSpace
    matrix: np.ndarray
    by_coefficients: np.ndarray
    start: dict[str, float]


def problem(unit: float, correlation: np.ndarray | None = None) -> Problem:
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.5, 2.0, N) * unit
    root = np.where((np.arange(N) > 5) & (np.arange(N) % 7 > 0), 1.0 / sigma, 0.0)
    used = np.where((np.abs(X - 0.1) > 0.25) | (np.arange(N) % 5 == 0), rng.uniform(0.5, 1.5, N), 0.0)  # also in masked pixels
    normal = (BASIS * used) @ BASIS.T
    first = np.linalg.solve(normal, BASIS * used)  # coefficients of data
    true = unit * (20.0 + 3.0 * X) + unit * 30.0 * np.exp(-0.5 * ((X - 0.1) / 0.15) ** 2)
    below = BASIS.T @ (first @ true)

    def everything(data: np.ndarray, off: np.ndarray | float = 0.0) -> np.ndarray:
        """Both fits, by plain least squares."""
        level = BASIS.T @ (first @ data + off)
        slopes = np.stack([np.exp(-0.5 * ((X - 0.1) / 0.15) ** 2), X**3]) * root
        found = np.linalg.solve(slopes @ slopes.T, slopes @ ((data - level) * root))
        left = np.where(root > 0, data - level - np.exp(-0.5 * ((X - 0.1) / 0.15) ** 2) * found[0] - X**3 * found[1], 0.0)
        counted = np.where(np.abs(X) < 0.3, 0.5 / below, 0.0)  # to first order at these weights
        counted_sum = 2.0 * found[0] + counted @ left
        return np.array([found[0], found[1], found[0] / level[40], counted_sum])

    step = 1e-4 * unit
    by_coefficients = np.stack([(everything(true, d) - everything(true, -d)) / (2.0 * step) for d in np.eye(3) * step], axis=1)
    step = 1e-4 * sigma
    matrix = np.stack([(everything(true + d) - everything(true - d)) / 2e-4 for d in np.diag(step)], axis=1)
    subtracted = Subtracted(BASIS, (used * sigma)[None], np.linalg.inv(normal)[None], np.zeros(1), more_below)
    obs = Observations((true - below)[None], root[None] ** 2, Axis(X, below[None]), Axis(None, 0), correlation, subtracted)
    space = ParameterSpace.build({"height": Bounded(), "slope": Bounded()}).with_scale(np.full(2, unit))
    return Problem(obs, space, matrix, by_coefficients, {"height": unit * 30.0, "slope": 0.0})


def errors_of(case: Problem, precision: str = "float64") -> dict[str, float]:
    fit = fit_batch(bump, case.space, case.obs, case.start, derived=DERIVED, precision=precision)
    assert not fit.status.any()
    return {name: float(value[0]) for name, value in (fit.error | fit.derived_error).items()}


def toeplitz(correlation: np.ndarray | None) -> np.ndarray:
    lags = np.zeros(N)
    lags[: 1 if correlation is None else len(correlation)] = 1.0 if correlation is None else correlation
    return lags[np.abs(np.subtract.outer(np.arange(N), np.arange(N)))]


@pytest.mark.parametrize("correlation", [None, np.array([1.0, 0.4, 0.1])], ids=["independent", "correlated"])
@pytest.mark.parametrize(("unit", "precision", "rtol"), [(1.0, "float64", 1e-6), (1e-18, "float32", 1e-3)])
def test_errors_are_those_of_both_steps(correlation: np.ndarray | None, unit: float, precision: str, rtol: float) -> None:
    case = problem(unit, correlation)
    expected = np.sqrt(np.diag(case.matrix @ toeplitz(correlation) @ case.matrix.T))
    found = errors_of(case, precision)
    np.testing.assert_allclose([found[name] for name in NAMES], expected, rtol=rtol)


def test_covariance_of_parameters() -> None:
    case = problem(1.0)
    fit = fit_batch(bump, case.space, case.obs, case.start, derived=DERIVED)
    np.testing.assert_allclose(fit.covariance[0], (case.matrix @ case.matrix.T)[:2, :2], rtol=1e-6)


def test_extra_variance() -> None:
    """A share more of the variance that the coefficients pass on, by itself."""
    case = problem(1.0)
    subtracted = case.obs.subtracted
    assert subtracted is not None
    more = replace(case, obs=replace(case.obs, subtracted=replace(subtracted, extra=np.array([0.5]))))
    response = np.asarray(subtracted.response)[0]
    plain, found = errors_of(case), errors_of(more)
    gained = np.array([found[name] ** 2 - plain[name] ** 2 for name in NAMES])
    assert (gained > 0).all()
    by_moves = case.by_coefficients @ response
    np.testing.assert_allclose(gained, 0.5 * np.diag(by_moves @ by_moves.T), rtol=1e-5)


def test_moved_is_what_noise_subtracts() -> None:
    subtracted = problem(1.0).obs.subtracted
    assert subtracted is not None
    rng = np.random.default_rng(2)
    noise, other = rng.standard_normal((2, 1, N))
    expected = np.asarray(subtracted.response)[0] @ noise[0] @ BASIS
    np.testing.assert_allclose(subtracted.moved(noise, other)[0], expected, rtol=1e-12)
    more = replace(subtracted, extra=np.array([0.25]))
    expected = np.asarray(subtracted.response)[0] @ (noise[0] + 0.5 * other[0]) @ BASIS
    np.testing.assert_allclose(more.moved(noise, other)[0], expected, rtol=1e-12)


def test_shape_is_checked() -> None:
    obs = problem(1.0).obs
    with pytest.raises(UsageError, match="subtracted must have a weight"):
        Observations(obs.values[:, 1:], obs.ivar[:, 1:], obs.coords, obs.coords_axes, None, obs.subtracted)
