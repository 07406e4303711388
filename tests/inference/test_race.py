"""A race of starts ends where all starts together would; chi2 is compared with the parabola that errors assume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares

from ifujax import Bounded, Observations, ParameterSpace, fit_batch
from ifujax.inference.parabola import errors_hold, rises
from ifujax.inference.status import ERRORS_NOT_TRUSTED, OTHER_MINIMUM

X = np.linspace(-6.0, 6.0, 80)


def bump(params, x):
    return params["height"] * np.e ** (-0.5 * ((x - params["centre"]) / params["width"]) ** 2)


SPACE = ParameterSpace.build({"height": Bounded(0.0), "centre": Bounded(-6.0, 6.0), "width": Bounded(0.2, 4.0)})


def two_bumps(rng: np.random.Generator, n: int) -> np.ndarray:
    """A strong and a weaker bump: a fit of one bump has a minimum at either."""
    strong, weak = rng.uniform(-4.5, -1.5, (2, n, 1)) * np.array([1, -1])[:, None, None]
    clean = 20 * np.exp(-0.5 * ((X - strong) / 0.5) ** 2) + 12 * np.exp(-0.5 * ((X - weak) / 0.5) ** 2)
    return clean + rng.normal(size=clean.shape)


def starts(n: int) -> np.ndarray:
    centres = np.linspace(-5.5, 5.5, 9)
    return np.stack([np.tile([10.0, centre, 1.0], (n, 1)) for centre in centres])


def test_the_lowest_start_wins_the_race(rng) -> None:
    values = two_bumps(rng, 60)
    obs = Observations(values, np.ones_like(values), X, None)
    every = fit_batch(bump, SPACE, obs, starts(60))
    raced = fit_batch(bump, SPACE, obs, starts(60), race=True)
    np.testing.assert_allclose(raced.chi2, every.chi2, rtol=1e-6)
    np.testing.assert_allclose(raced.params["centre"], every.params["centre"], atol=1e-3)
    assert (raced.status == 0).all()


def test_one_start_is_no_race(rng) -> None:
    values = two_bumps(rng, 5)
    obs = Observations(values, np.ones_like(values), X, None)
    one, other = (fit_batch(bump, SPACE, obs, starts(5)[3:4], race=race) for race in (False, True))
    np.testing.assert_array_equal(one.x, other.x)


def test_another_minimum_nearly_as_low_makes_errors_unsure() -> None:
    """Two bumps of the same height are two solutions; one is none."""
    clean = np.exp(-0.5 * ((X - 3) / 0.5) ** 2)
    values = 20 * np.stack([clean + clean[::-1] * (1 + 1e-4), clean])
    fit = fit_batch(bump, SPACE, Observations(values, np.ones_like(values), X, None), starts(2))
    assert ((fit.warn & OTHER_MINIMUM.value) != 0).tolist() == [True, False]
    assert ((fit.warn & ERRORS_NOT_TRUSTED.value) != 0).tolist() == [True, False]


class TestParabola:
    """chi2 at one and two errors."""

    def test_a_linear_model_is_one(self, rng) -> None:
        def model(params, x):
            return params["a"] + params["b"] * x

        values = rng.normal(size=(7, len(X)))
        obs = Observations(values, np.ones_like(values), X, None)
        space = ParameterSpace.build({"a": Bounded(), "b": Bounded()})
        fit = fit_batch(model, space, obs, {"a": 0.0, "b": 0.0})
        actual, said, _ = rises(model, space, obs, fit.x)
        np.testing.assert_allclose(actual, said, atol=1e-6)
        np.testing.assert_allclose(said, np.full(said.shape, 4.0), rtol=1e-5)

    def test_rises_are_those_of_chi2_itself(self) -> None:
        """Against chi2 with one parameter held two errors away and the others fitted by scipy."""
        values = 4.0 * np.exp(-0.5 * ((X - 0.3) / 0.8) ** 2)[None]
        obs = Observations(values, np.ones_like(values), X, None)
        fit = fit_batch(bump, SPACE, obs, {"height": 4.0, "centre": 0.2, "width": 1.0})
        actual, _, which = rises(bump, SPACE, obs, fit.x)
        assert which == [0, 1, 2]
        error = np.sqrt(np.diag(fit.covariance[0]))
        for j in which:
            for m, step in enumerate((-2.0, 2.0)):
                others = [k for k in which if k != j]
                x = fit.x[0].copy()
                x[j] += step * error[j]

                def residual(free, x=x, others=others):
                    moved = x.copy()
                    moved[others] = free
                    height, centre, width = moved
                    return values[0] - height * np.exp(-0.5 * ((X - centre) / width) ** 2)

                profile = 2 * least_squares(residual, x[others], xtol=1e-12, ftol=1e-12).cost - fit.chi2[0]
                assert actual[0, j, m] == pytest.approx(profile, rel=0.02)
                assert actual[0, j, m] > profile - 1e-8

    def test_bright_bumps_are_trusted_and_faint_ones_are_not(self, rng) -> None:
        heights = np.repeat([40.0, 0.6], 40)
        clean = heights[:, None] * np.exp(-0.5 * (X / 0.8) ** 2)
        values = clean + rng.normal(size=clean.shape)
        obs = Observations(values, np.ones_like(values), X, None)
        fit = fit_batch(bump, SPACE, obs, {"height": 1.0, "centre": 0.0, "width": 0.8})
        hold = errors_hold(bump, SPACE, obs, fit.x)
        assert hold[:40].all()
        assert hold[40:].all(axis=1).mean() < 0.6
        single = errors_hold(bump, SPACE, obs, fit.x, precision="float32")
        assert (single == hold).mean() > 0.99

    def test_only_moves_within_the_bounds_count(self, rng) -> None:
        values = 30 * np.exp(-0.5 * ((X - 1.0) / 0.8) ** 2)[None] + rng.normal(size=(1, len(X)))
        obs = Observations(values, np.ones_like(values), X, None)
        space = ParameterSpace.build({"height": Bounded(0.0), "centre": Bounded(-6.0, 0.7), "width": Bounded(0.2, 4.0)})
        fit = fit_batch(bump, space, obs, {"height": 10.0, "centre": 0.0, "width": 1.0})
        assert fit.params["centre"][0] == pytest.approx(0.7)
        actual, _, _ = rises(bump, space, obs, fit.x)
        assert actual[0, 1, 1] < 1e-3 < actual[0, 1, 0]  # further up there is nothing

    def test_rows_without_a_fit(self) -> None:
        values = np.zeros((2, len(X)))
        obs = Observations(values, np.ones_like(values), X, None)
        assert errors_hold(bump, SPACE, obs, np.full((2, 3), np.nan)).all()


def test_what_is_held_has_no_error(rng) -> None:
    """Bounds that coincide hold a parameter: the others have the errors of a fit without it."""
    values = 20 * np.exp(-0.5 * (X / 0.8) ** 2)[None] + rng.normal(size=(1, len(X)))
    obs = Observations(values, np.ones_like(values), X, None)
    held = replace(SPACE, lower=np.array([0.0, -6.0, 0.8]), upper=np.array([np.inf, 6.0, 0.8]))
    one = fit_batch(bump, held, obs, {"height": 10.0, "centre": 0.3, "width": 0.8})
    free = fit_batch(bump, SPACE, obs, {"height": 10.0, "centre": 0.3, "width": 0.8})
    assert one.status[0] == 0
    assert np.isnan(one.error["width"][0])
    assert one.error["height"][0] < free.error["height"][0]
    assert one.error["height"][0] == pytest.approx(
        1 / np.sqrt((np.exp(-(((X - one.params["centre"][0]) / 0.8) ** 2))).sum()), rel=1e-3
    )
