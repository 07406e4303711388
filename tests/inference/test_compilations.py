"""Changing numbers never recompiles: a model counts how often it is traced."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax import (
    Bounded,
    Fixed,
    LeastSquaresOptions,
    Normal,
    Observations,
    ParameterSpace,
    Tied,
    fit_batch,
    fit_joint,
    solve_linear,
)
from ifujax.inference import linear
from tests.inference.problems import X

CALLS: Counter[str] = Counter()


@partial(jax.tree_util.register_dataclass, data_fields=["ratio"], meta_fields=["kind"])
@dataclass(frozen=True)
class Counted:
    """A pair of lines, the second `ratio` times the first: a number of the model, not of its type."""

    ratio: Any
    kind: str = "gaussian"

    def __call__(self, params: Any, coords: Any) -> Any:
        CALLS[self.kind] += 1
        shape = jnp.exp(-0.5 * ((coords["x"] - params["centre"]) / params["width"]) ** 2)
        other = jnp.exp(-0.5 * ((coords["x"] - params["centre"] - 3.0) / params["width"]) ** 2)
        return params["height"] * (shape + self.ratio * other) + params["level"] + params["copy"] * 0.0


def problem(rng, batch=20, n_pix=60, lower=-5.0, fixed=0.1, ratio=0.5, prior=0.3):
    space = ParameterSpace.build(
        {
            "centre": Bounded(lower, 5.0, prior=Normal(0.0, prior)),
            "width": Bounded(0.2, 5),
            "height": Bounded(),
            "level": Fixed(fixed),
            "copy": Tied("height * 2"),
        },
        scale={"height": 1.0 / ratio},
    )
    values = rng.normal(size=(batch, n_pix)) + 5 * np.exp(-0.5 * X[:n_pix] ** 2)
    obs = Observations(values, np.full_like(values, rng.uniform(0.5, 1.5)), {"x": X[:n_pix] + rng.uniform(-0.1, 0.1)})
    return Counted(np.float64(ratio)), space, obs, {"centre": 0.0, "width": 1.0, "height": rng.uniform(3, 6)}


def test_fit_batch_traces_once(rng):
    options = LeastSquaresOptions(warm_up=False)
    CALLS.clear()
    fit_batch(*problem(rng), options=options)
    first = CALLS["gaussian"]
    assert first > 0
    fit_batch(*problem(rng), options=options)  # other data, coordinates, starts
    fit_batch(*problem(rng, lower=-3.0, fixed=0.7, ratio=0.25, prior=2.0), options=options)  # bounds, ratios, priors, scale
    fit_batch(*problem(rng, batch=33), options=options)  # as many rows as fall into the same bucket
    model, space, obs, start = problem(rng)
    upper = np.array(space.broadcast(obs.batch).upper)
    upper[:, 1] = np.linspace(1.0, 2.0, obs.batch)
    fit_batch(model, replace(space, upper=upper), obs, start, options=options)  # bounds that differ from row to row
    masked = np.array(obs.ivar)
    masked[:, ::3] = 0
    fit_batch(model, space, Observations(obs.values, masked, obs.coords), start, options=options)
    assert CALLS["gaussian"] == first
    # What is static does: another kind of model.
    fit_batch(replace(model, kind="other"), space, obs, start, options=options)
    assert CALLS["other"] == first


def test_fit_joint_traces_once(rng):
    def split(model, space, obs, start):
        shared = ParameterSpace.build({"width": Bounded(0.2, float(space.upper[1]))})
        local = ParameterSpace.build(
            {"centre": Bounded(float(space.lower[0]), 5.0), "height": Bounded(), "level": Fixed(0.1), "copy": Tied("height")}
        )
        return model, shared, local, obs, start

    CALLS.clear()
    fit_joint(*split(*problem(rng)))
    first = CALLS["gaussian"]
    fit_joint(*split(*problem(rng, lower=-2.0, ratio=0.1)))
    assert CALLS["gaussian"] == first


def test_solve_linear_compiles_once(rng):
    def solve(**options):
        solve_linear(rng.normal(size=(30, 7)), rng.normal(size=(11, 30)), np.full((11, 30), rng.uniform(1, 2)), **options)
        return linear._solve._cache_size()

    first = solve(clip=(3, 3), n_iterate=2)
    assert solve(clip=(2, 4), n_iterate=9) == first
    assert solve() == first
