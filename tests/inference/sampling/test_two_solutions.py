"""Posteriors with a second solution that the fit knows nothing of: both samplers must find it, with its share."""

from __future__ import annotations

from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr, logsumexp

from ifujax import Bounded, HalfNormal, Observations, ParameterSpace, fit_batch
from ifujax.inference import status as bits
from ifujax.inference.sampling import chains
from ifujax.inference.sampling.nuts import run_nuts
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.sample import sample_batch
from tests.inference.sampling.problems import CONTINUUM, ELIMINATE, Lines, X, lines_numpy, wide_line

SIGMA, TAU = 0.5, 6.0
METHODS = pytest.mark.parametrize("method", ["auto", "nuts"])
WAYS = {"auto": SamplingOptions(), "nuts": SamplingOptions(method="nuts"), "too many": SamplingOptions(max_sampled=1)}
"""The last goes to NUTS as models with many parameters do, without any importance sampling."""


def log_share_of_a_line(values, centre, width):
    """Log posterior at each (centre, width) of one line: its strength and the continuum are integrated. NumPy."""
    project = np.linalg.qr(CONTINUUM)[0]
    line = lines_numpy(centre, width, [1.0])
    line = line - (line @ project) @ project.T
    square, cross = (line**2).sum(axis=-1) / SIGMA**2 + TAU**-2, line @ values / SIGMA**2
    return 0.5 * cross**2 / square - 0.5 * np.log(square) + log_ndtr(cross / np.sqrt(square))


@cache
def two_lines():
    """Spectra of two lines, a model of one, and a fit to that on the left: P(centre > 0) of each, by a grid.

    Lines, noise and axis are mirror images of themselves: next to nothing tells the sides apart.
    """
    rng = np.random.default_rng(11)
    left, right = np.full(4, -2.0), np.full(4, 2.0)
    clean = lines_numpy(left, 0.5, [np.full(4, 3.5)]) + lines_numpy(right, 0.5, [3.5 + np.array([0.0, 0.02, -0.02, 0.03])])
    noise = rng.normal(scale=SIGMA, size=clean.shape)
    values = clean + np.where(X < 0, noise, noise[:, ::-1]) + CONTINUUM @ [2.0, -1.0]
    obs = Observations(values, np.full_like(values, SIGMA**-2), X)
    space = ParameterSpace.build(wide_line(first=Bounded(0, 50, prior=HalfNormal(TAU))))
    fit = fit_batch(Lines(), space, obs, {"centre": -1.9, "width": 0.6, "first": 3.0}, options=ELIMINATE)
    centre, width = np.meshgrid(np.linspace(-4, 4, 1601), np.linspace(0.3, 3.0, 301), indexing="ij")
    shares = []
    for values in obs.values:
        density = log_share_of_a_line(values, centre, width)
        shares.append(np.exp(logsumexp(density[centre > 0]) - logsumexp(density)))
    return space, obs, fit, np.array(shares)


@pytest.mark.parametrize("way", WAYS)
def test_two_equal_lines_and_a_model_of_one(way):
    space, obs, fit, exact = two_lines()
    assert (fit.params["centre"] < 0).all()  # the fits know of one side
    assert exact[0] == pytest.approx(0.5, abs=1e-6)
    assert (np.abs(exact - 0.5) < 0.4).all()
    draws = sample_batch(Lines(), space, obs, fit, options=ELIMINATE, sampling=WAYS[way], seed=4)
    assert draws.status.tolist() == [0] * len(exact)
    assert draws.tier.tolist() == [1 if way == "auto" else 2] * len(exact)
    found = (draws.params["centre"].reshape(len(exact), -1) > 0).mean(axis=1)
    pull = (found - exact) / np.sqrt(exact * (1 - exact) / draws.ess)
    assert np.abs(pull).max() < 3.5
    assert np.sqrt((pull**2).mean()) < 1.7


@pytest.mark.slow
def test_chains_that_can_not_meet_say_so(monkeypatch):
    """Each starts at a solution of its own; without jumps none ever leaves it."""
    space, obs, fit, _ = two_lines()
    monkeypatch.setattr(chains, "run_nuts", lambda *args, jumps, **options: run_nuts(*args, **options))
    draws = sample_batch(Lines(), space, obs, fit, options=ELIMINATE, sampling=WAYS["nuts"], seed=4)
    assert ((draws.status & bits.CHAINS_DISAGREE.value) != 0).all()


T = np.linspace(0.0, 20.0, 60)
AXIS = np.linspace(-20.0, 20.0, 160)


def decays(params, t):
    return params["a"] * jnp.exp(-t / params["one"]) + params["b"] * jnp.exp(-t / params["other"])


def pulse(params, x):
    """A double exponential, all but its kink."""
    return params["height"] * jnp.exp(-jnp.sqrt((x - params["centre"]) ** 2 + 0.04) / params["width"])


@METHODS
def test_names_that_the_data_do_not_know(method):
    """Of two decays each has the shorter time with a probability of a half, whichever it is in the fit."""
    rng = np.random.default_rng(3)
    values = 4.0 * np.exp(-T / 8.0) + 3.0 * np.exp(-T / 0.7) + rng.normal(scale=0.25, size=(3, T.size))
    obs = Observations(values, np.full_like(values, 16.0), T)
    boxes = {"a": Bounded(0, 20), "b": Bounded(0, 20), "one": Bounded(0.05, 60), "other": Bounded(0.05, 60)}
    space = ParameterSpace.build(boxes)
    fit = fit_batch(decays, space, obs, {"a": 4.0, "b": 3.0, "one": 8.0, "other": 0.7})
    assert (fit.params["one"] > fit.params["other"]).all()
    draws = sample_batch(decays, space, obs, fit, sampling=SamplingOptions(method=method), seed=2)
    assert draws.status.tolist() == [0, 0, 0]
    shorter = (draws.params["other"] < draws.params["one"]).reshape(3, -1).mean(axis=1)
    pull = (shorter - 0.5) / np.sqrt(0.25 / draws.ess)
    assert np.abs(pull).max() < 3.5


@METHODS
def test_a_fit_in_the_wrong_minimum(method):
    """The fit has the lesser of two pulses: its chi2 is 20 to 120 above that of the other, which has all of the posterior."""
    rng = np.random.default_rng(6)
    clean = 2.2 * np.exp(-np.abs(AXIS + 7.0) / 0.5) + 3.2 * np.exp(-np.abs(AXIS - 9.0) / 0.5)
    values = clean + rng.normal(scale=0.4, size=(4, AXIS.size))
    obs = Observations(values, np.full_like(values, 0.4**-2), AXIS)
    space = ParameterSpace.build({"centre": Bounded(-20, 20), "width": Bounded(0.1, 4), "height": Bounded(0, 20)})
    fit = fit_batch(pulse, space, obs, {"centre": -7.1, "width": 0.6, "height": 2.0})
    better = fit_batch(pulse, space, obs, {"centre": 9.1, "width": 0.6, "height": 3.0})
    assert (fit.params["centre"] < 0).all()
    assert (fit.chi2 - better.chi2 > 20).all()
    assert (fit.chi2 - better.chi2 < 120).all()
    draws = sample_batch(pulse, space, obs, fit, sampling=SamplingOptions(method=method), seed=2)
    assert draws.status.tolist() == [0] * 4
    assert (np.abs(draws.params["centre"] - 9.0) < 1.0).all()
