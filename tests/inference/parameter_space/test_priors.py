"""Priors: densities, quantiles, what is refused, and what they do in a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import scipy.stats as st

from ifujax import (
    Bounded,
    Fixed,
    HalfNormal,
    LeastSquaresOptions,
    LogNormal,
    Normal,
    Observations,
    ParameterSpace,
    Tied,
    UsageError,
    fit_batch,
)
from ifujax.inference.parameter_space.densities import log_normal_mass
from ifujax.inference.parameter_space.priors import spelled


@dataclass(frozen=True)
class Logistic:
    """A prior of a user's own: no pytree, no support, no quantiles."""

    width: float

    def log_prob(self, value):
        return -value / self.width - 2.0 * jnp.log1p(jnp.exp(-value / self.width)) - math.log(self.width)

    def cdf(self, value):
        return jax.nn.sigmoid(value / self.width)


def truncated(frozen, low=-np.inf, high=np.inf):
    """Density and cdf of a scipy distribution between bounds."""
    below, above = frozen.cdf(low), frozen.cdf(high)
    return lambda v: frozen.pdf(v) / (above - below), lambda v: (frozen.cdf(v) - below) / (above - below)


CASES = {
    "uniform": (Bounded(-2.0, 3.0), truncated(st.uniform(-2, 5))),
    "normal": (Bounded(prior=Normal(1.0, 2.0)), truncated(st.norm(1, 2))),
    "normal above": (Bounded(2.5, prior=Normal(1.0, 2.0)), truncated(st.truncnorm(0.75, np.inf, 1, 2))),
    "normal below": (Bounded(upper=-3.0, prior=Normal(1.0, 2.0)), truncated(st.truncnorm(-np.inf, -2, 1, 2))),
    "normal between": (Bounded(-1.0, 1.5, prior=Normal(1.0, 2.0)), truncated(st.truncnorm(-1, 0.25, 1, 2))),
    "normal in a tail": (Bounded(7.0, 9.0, prior=Normal(1.0, 2.0)), truncated(st.truncnorm(3, 4, 1, 2))),
    "half normal": (Bounded(prior=HalfNormal(3.0)), truncated(st.halfnorm(scale=3))),
    "half normal between": (Bounded(1.0, 4.0, prior=HalfNormal(3.0)), truncated(st.halfnorm(scale=3), 1, 4)),
    "log normal": (Bounded(prior=LogNormal(120.0, 0.5)), truncated(st.lognorm(0.5, scale=120))),
    "log normal between": (Bounded(50.0, 300.0, prior=LogNormal(120.0, 0.5)), truncated(st.lognorm(0.5, scale=120), 50, 300)),
    "log normal below": (Bounded(upper=100.0, prior=LogNormal(120.0, 0.5)), truncated(st.lognorm(0.5, scale=120), 0, 100)),
    "exponential": (Bounded(0.5, prior=dist.Exponential(0.7)), truncated(st.expon(scale=1 / 0.7), 0.5)),
    "gamma": (Bounded(prior=dist.Gamma(2.0, 0.1)), truncated(st.gamma(2, scale=10))),
    "gamma between": (Bounded(5.0, 40.0, prior=dist.Gamma(2.0, 0.1)), truncated(st.gamma(2, scale=10), 5, 40)),
    "beta": (Bounded(-3.0, 0.8, prior=dist.Beta(2.0, 3.0)), truncated(st.beta(2, 3), 0, 0.8)),
    "student": (Bounded(prior=dist.StudentT(3.0, 1.0, 2.0)), truncated(st.t(3, 1, 2))),
    "cauchy below": (Bounded(upper=4.0, prior=dist.Cauchy(0.0, 1.0)), truncated(st.cauchy(), -np.inf, 4)),
    "of the user": (Bounded(upper=8.0, prior=Logistic(2.0)), truncated(st.logistic(scale=2), -np.inf, 8)),
}


def many(function, space, points, precision=True):
    """`function(space, row)` for each row of points, as NumPy."""
    with jax.enable_x64(precision):
        mapped = jax.jit(jax.vmap(lambda space, row: function(space, list(row))))
        dtype = np.float64 if precision else np.float32
        return jax.tree.map(np.asarray, mapped(space.broadcast(len(points), dtype), np.asarray(points, dtype)))


def drawn(space, u, precision=True):
    return many(lambda space, row: jnp.stack(space.from_uniform(row)), space, u, precision)


def log_prior(space, x):
    return many(lambda space, row: space.log_prior(row), space, x)


def values(space, x, name):
    return many(lambda space, row: space.unpack(row)[name], space, x)


# --- densities and quantiles ---------------------------------------------------------------------

NAMES = list(CASES)
SCALE = 4.0


@pytest.fixture(scope="module")
def everything():
    """All cases as the parameters of one space: they are independent, and compile once."""
    return ParameterSpace.build({name: declared for name, (declared, _) in CASES.items()}, scale=dict.fromkeys(CASES, SCALE))


def all_of_it(space, row):
    """The free vector at quantiles, its log densities, and the unconstrained vector."""
    x = space.from_uniform(row)
    return jnp.stack(x), jnp.stack(space.log_priors(x)), jnp.stack(space.to_unconstrained(x)[0])


def drawn_everything(everything, precision):
    eps = np.finfo(np.float64 if precision else np.float32).eps
    u = np.concatenate([[1e-15, 1e-7, 1.0 - eps], np.linspace(0.001, 0.999, 201), np.random.default_rng(3).random(2000)])
    return u, *many(all_of_it, everything, np.repeat(u[:, None], len(CASES), axis=1), precision)


@pytest.fixture(scope="module")
def quantiles(everything):
    return drawn_everything(everything, True)


@pytest.fixture(scope="module")
def quantiles_in_float32(everything):
    return drawn_everything(everything, False)


@pytest.mark.parametrize("case", CASES)
def test_density_and_quantiles_against_scipy(case, quantiles):
    pdf, cdf = CASES[case][1]
    u, (x, log_density, _) = quantiles[0][3:], (array[3:, NAMES.index(case)] for array in quantiles[1:])
    np.testing.assert_allclose(cdf(SCALE * x), u, atol=2e-9)
    np.testing.assert_allclose(log_density, np.log(SCALE * pdf(SCALE * x)), atol=1e-8)
    assert st.kstest(SCALE * x[201:], cdf).pvalue > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_density_and_quantiles_of_a_float32_fit(case, quantiles_in_float32):
    pdf, cdf = CASES[case][1]
    u, (x, log_density, _) = quantiles_in_float32[0][3:], (array[3:, NAMES.index(case)] for array in quantiles_in_float32[1:])
    assert x.dtype == np.float32
    x = SCALE * x.astype(float)
    np.testing.assert_allclose(cdf(x), u, atol=2e-4)
    np.testing.assert_allclose(log_density, np.log(SCALE * pdf(x)), atol=1e-4)


def test_quantiles_never_lie_on_a_side_of_the_box(quantiles, quantiles_in_float32):
    assert np.isfinite(quantiles[3]).all()
    assert np.isfinite(quantiles_in_float32[3]).all()


@pytest.mark.parametrize("precision", [True, False])
def test_slopes_are_finite_up_to_the_bounds(everything, precision):
    """Where the density is; that of numpyro's own distributions is undefined on the bounds themselves."""
    low, high = np.asarray(everything.lower), np.asarray(everything.upper)
    eps = 1e-9 if precision else 1e-5
    inner = []
    for side, sign in ((low, 1.0), (high, -1.0)):
        there = np.nan_to_num(side, posinf=0.3, neginf=0.3)
        inner.append(np.where(np.isfinite(side), there + sign * eps * (1.0 + abs(there)), np.clip(0.3, low, high)))
    within = [np.where(np.isfinite(side), near, side) for side, near in zip((low, high), inner)]
    far = [np.clip(value, *within) for value in (1e3, 1e12)]
    own = np.array([everything.structure.free[i].prior != "distribution" for i in range(len(CASES))])
    ends = [np.where(own & np.isfinite(side), np.nan_to_num(side), middle) for side, middle in zip((low, high), inner)]
    points = np.array([*inner, *far, *ends]) / SCALE

    def slopes(space, row):
        return jnp.stack(jax.grad(lambda row: sum(space.log_priors(row)))(row))

    assert np.isfinite(many(slopes, everything, points, precision)).all()


MOVING = {
    "both, uniform": Bounded(10.0, 500.0, above="narrow"),
    "both": Bounded(10.0, 500.0, above="narrow", prior=LogNormal(60.0, 0.5)),
    "lower": Bounded(above="narrow", prior=Normal(0.0, 20.0)),
    "upper": Bounded(below="2 * narrow", prior=Normal(100.0, 40.0)),
    "half normal": Bounded(below="narrow", prior=HalfNormal(50.0)),
    "distribution": Bounded(10.0, 500.0, above="narrow", prior=dist.Gamma(2.0, 0.05)),
    "far in the tail": Bounded(0.0, 500.0, above="narrow", prior=Normal(0.0, 1.5)),
}


def test_normalised_between_bounds_that_move():
    scale = {"narrow": 7.0} | dict.fromkeys(MOVING, 30.0)
    space = ParameterSpace.build(MOVING | {"narrow": Bounded(20.0, 80.0)}, scale=scale)
    u = np.linspace(0, 1, 4002)[1:-1]
    shares = [np.column_stack([*[u] * len(MOVING), np.full_like(u, narrow)]) for narrow in (0.1, 0.6, 0.9)]
    every_x, log_density, _ = many(all_of_it, space, np.concatenate(shares))
    for x, density in zip(np.split(every_x, 3), np.split(np.exp(log_density), 3)):
        for k, kind in enumerate(MOVING):
            # The integral of the density from one quantile to another is the difference of their shares.
            between = scipy.integrate.cumulative_trapezoid(density[:, k], x[:, k], initial=0.0)
            sign = -1.0 if kind == "upper" else 1.0  # measured downwards from an upper bound
            np.testing.assert_allclose(sign * between, u - u[0], atol=3e-4, err_msg=kind)


def test_draws_keep_to_their_order_with_chains_of_bounds():
    space = ParameterSpace.build(
        {"c": Bounded(0, 9, above="b"), "a": Bounded(0, 9), "b": Bounded(0, 9, above="a", prior=Normal(4, 2)), "t": Tied("a + c")}
    )
    x = drawn(space, np.random.default_rng(0).random((500, 3)))
    named = many(lambda space, row: space.unpack(row), space, x)
    assert (named["a"] < named["b"]).all()
    assert (named["b"] < named["c"]).all()
    assert ((x > 0) & (x < [1, 9, 1])).all()
    first = space.structure.element_names.index("a")
    np.testing.assert_allclose(np.sort(values(space, x, "a")) / 9, np.sort(x[:, first]) / 9)


def test_bounds_that_have_met_leave_nothing_undefined():
    space = ParameterSpace.build({"wide": Bounded(0, 5, above="narrow", prior=Normal(1, 2)), "narrow": Bounded(0, 20)})
    x = np.array([[0.3, 12.0], [0.3, 5.0], [0.3, 4.9999999]])

    def of(space, row):
        return jax.value_and_grad(lambda row: space.log_prior(row))(row), space.from_uniform([0.5, 0.9])

    (value, slope), x = many(of, space, x)
    np.testing.assert_allclose(value, -np.log(20), atol=1e-6)
    assert np.isfinite(slope).all()
    assert np.isfinite(x).all()


def test_arrays_have_one_prior_for_each_element():
    space = ParameterSpace.build(
        {"a": Bounded(prior=Normal(1, 2)), "c": Bounded(prior=HalfNormal(3)), "g": Bounded(prior=dist.Exponential(2.0))},
        shapes={"c": (2,), "g": (2,)},
    )
    x = np.array([[0.5, 1.0, 2.0, 0.1, 0.7]])
    expected = (
        st.norm(1, 2).logpdf(0.5) + st.halfnorm(scale=3).logpdf([1, 2]).sum() + st.expon(scale=0.5).logpdf([0.1, 0.7]).sum()
    )
    assert log_prior(space, x) == pytest.approx(expected)
    single = many(lambda space, row: jnp.stack(space.log_priors(row)), space, x)
    assert single.shape == (1, 5)
    assert single[0, 2] == pytest.approx(st.halfnorm(scale=3).logpdf(2))


def test_priors_of_the_free_vector_follow_its_unconstrained_view():
    space = ParameterSpace.build({"a": Bounded(0, prior=LogNormal(2, 0.5)), "b": Bounded(-1, 4)}, scale={"a": 3.0})

    def density(space, z):
        x, log_slope = space.from_unconstrained(z)
        assert len(space.log_jacobians(z)) == 2
        return space.log_prior(x) + log_slope, sum(space.log_jacobians(z)) - log_slope

    grid = np.linspace(-9, 9, 361)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    log_density, difference = many(density, space, np.column_stack([a.ravel(), b.ravel()]))
    assert np.abs(difference).max() < 1e-12
    total = scipy.integrate.trapezoid(scipy.integrate.trapezoid(np.exp(log_density).reshape(a.shape), grid), grid)
    assert total == pytest.approx(1.0, abs=1e-3)


def reference_log_mass(low, high):
    """By quadrature of the density relative to its largest value."""
    peak = min(max(0.0, low), high)
    scale = 1.0 / max(abs(peak), 1.0)
    ends = (low - peak) / scale, (high - peak) / scale
    function = lambda s: math.exp(-peak * s * scale - 0.5 * (s * scale) ** 2)  # noqa: E731
    ends = max(ends[0], -60.0), min(ends[1], 60.0)
    area = scipy.integrate.quad(function, *ends, epsabs=0, epsrel=1e-12, limit=400)[0] * scale
    return math.log(area) - 0.5 * peak**2 - 0.5 * math.log(2 * math.pi)


def test_mass_of_the_normal_and_its_slopes():
    limits = [(-1, 1), (-0.01, 0.02), (2, 2.0001), (5, 5.02), (5, 9), (-9, -8), (30, 31), (-8, 9), (40, 1e6), (-1e7, -300)]
    limits = np.array([*limits, (1e-9, 2e-9), (-5, 0), (-0.05, 0.06), (0.3, 0.37)])
    with jax.enable_x64(True):
        both = jax.vmap(jax.value_and_grad(lambda ends: log_normal_mass(ends[0], ends[1])))(jnp.asarray(limits))
        value, slopes = (np.asarray(array) for array in both)
    for k, (low, high) in enumerate(limits):
        expected = reference_log_mass(low, high)
        assert value[k] == pytest.approx(expected, rel=1e-9, abs=1e-9)
        log_slopes = [-0.5 * end * end - 0.5 * math.log(2 * math.pi) - expected for end in (low, high)]
        np.testing.assert_allclose(slopes[k], [-math.exp(log_slopes[0]), math.exp(log_slopes[1])], rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("precision", [False, True])
@pytest.mark.parametrize("side", ["lower", "upper", "both"])
def test_slopes_are_right_far_beyond_a_bound_that_moves(side, precision):
    kinds = {"lower": {"above": "edge"}, "upper": {"below": "edge"}, "both": {"above": "edge", "upper": 1e9}}
    space = ParameterSpace.build({"v": Bounded(prior=Normal(0, 1), **kinds[side]), "edge": Bounded(-5000, 5000)})
    edge = -1000.0 if side == "upper" else 1000.0

    def both(space, row):
        return jax.value_and_grad(lambda x: space.log_prior([row[0], x]))(row[1])

    step = 1e-12 if side == "both" else 1e-3
    value, slope = many(both, space, [[step, edge]], precision)
    # Beyond the edge e the density falls as exp(-e t): at t, e^(-e t) e, up to t^2 and e^-2.
    t = step * 1e9 if side == "both" else step
    expected = -1000 * t - 0.5 * t * t + math.log(1000) + 1e-6 + (math.log(1e9) if side == "both" else 0.0) - math.log(10000)
    assert value[0] == pytest.approx(expected, abs=1e-3 if precision else 0.1)  # squares of 1000 in float32
    by_hand = (-t + 1e-3) * np.sign(edge)
    assert slope[0] == pytest.approx(by_hand, abs=2e-5 if precision else 1e-3)


# --- one space, many fits ------------------------------------------------------------------------


def test_numbers_of_each_fit():
    sigma, median = np.array([1.0, 10.0, 100.0]), np.array([1.0, 2.0, 3.0])
    space = ParameterSpace.build(
        {"own": Bounded(prior=Normal(5, 1)), "a": Bounded(-3), "g": Bounded(prior=dist.Gamma(2.0, 1.0)), "b": Bounded()}
    )
    space = space.with_priors({"b": LogNormal(median, 0.3), "a": HalfNormal(sigma)})
    assert [entry.prior for entry in space.structure.entries] == ["normal", "half_normal", "distribution", "log_normal"]
    space.require_proper()
    x = np.array([[5.5, 2.0, 1.0, 2.5]] * 3)
    expected = st.norm(5, 1).logpdf(5.5) + st.halfnorm(scale=sigma).logpdf(2.0) + st.gamma(2).logpdf(1.0)
    np.testing.assert_allclose(log_prior(space, x), expected + st.lognorm(0.3, scale=median).logpdf(2.5), rtol=1e-12)
    medians = drawn(space, np.full((3, 4), 0.5))
    np.testing.assert_allclose(medians[:, 1], st.halfnorm(scale=sigma).median())
    np.testing.assert_allclose(medians[:, 3], median)
    with pytest.raises(UsageError, match="parameter numbers"):
        space.broadcast(4)
    again = space.with_priors({"a": Normal(0, 1)})  # has one
    assert again.structure == space.structure


def test_priors_added_later_narrow_the_bounds():
    space = ParameterSpace.build({"a": Bounded(upper=4.0), "b": Bounded(-2, 2), "c": Fixed(1.0), "t": Tied("a")})
    later = space.with_priors({"a": HalfNormal(1.0), "b": dist.Uniform(-5.0, 1.0)})
    declared = ParameterSpace.build(
        {
            "a": Bounded(upper=4.0, prior=HalfNormal(1.0)),
            "b": Bounded(-2, 2, prior=dist.Uniform(-5.0, 1.0)),
            "c": Fixed(1.0),
            "t": Tied("a"),
        }
    )
    assert later.structure == declared.structure
    for one, other in zip(jax.tree.leaves(later), jax.tree.leaves(declared)):
        np.testing.assert_array_equal(one, other)
    assert space.lower[0] == -np.inf
    with pytest.raises(UsageError, match="unknown free parameter 'bb'.*Did you mean 'b'"):
        space.with_priors({"bb": Normal(0, 1)})
    with pytest.raises(UsageError, match="unknown free parameter 't'"):
        space.with_priors({"t": Normal(0, 1)})
    with pytest.raises(UsageError, match="'b': prior must have at least 1e-06 of its mass"):
        space.with_priors({"b": Normal(np.array([0.0, 90.0]), 1.0)})
    with pytest.raises(UsageError, match="bounds of 'a' must leave room"):
        ParameterSpace.build({"a": Bounded(-3, 0)}).with_priors({"a": HalfNormal(1.0)})


def test_gaussian_priors_in_units_of_the_free_vector():
    space = ParameterSpace.build(
        {
            "a": Bounded(prior=Normal(6, 3)),
            "u": Bounded(0, 1),
            "h": Bounded(prior=HalfNormal(4)),
            "l": Bounded(prior=LogNormal(1, 1)),
        },
        scale={"a": 3.0, "h": 2.0},
    )
    assert [tuple(map(float, space.gaussian_prior(i))) for i in range(4)] == [(2, 1), (0, math.inf), (0, 2), (0, math.inf)]


def test_other_numbers_do_not_recompile():
    traced = []

    @jax.jit
    def density(space, x):
        traced.append(1)
        return space.log_prior([x, x])

    with jax.enable_x64(True):
        for rate in (1.0, 3.0):
            space = ParameterSpace.build({"g": Bounded(prior=dist.Gamma(2.0, rate)), "n": Bounded(prior=LogNormal(rate, 2.0))})
            expected = st.gamma(2, scale=1 / rate).logpdf(0.7) + st.lognorm(2, scale=rate).logpdf(0.7)
            assert float(density(space, jnp.asarray(0.7))) == pytest.approx(expected)
    assert len(traced) == 1


# --- what is declared ----------------------------------------------------------------------------


def test_positive_priors_raise_the_lower_bound():
    assert Bounded(-5, 8, prior=HalfNormal(1)).lower == 0
    assert Bounded(2, 8, prior=LogNormal(3, 1)).lower == 2
    declared = Bounded(-5, 8, prior=dist.Uniform(1.0, 3.0))
    assert (declared.lower, declared.upper) == (1, 3)
    assert Bounded(-5, 8, prior=Normal(0, 1)).lower == -5
    with pytest.raises(UsageError, match=r"start must lie within the bounds \[0, inf\]; got -1"):
        Bounded(start=-1, prior=HalfNormal(1))


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Normal(0, -1), "positive sigma; got Normal(mean=0, sigma=-1)"),
        (lambda: Normal(math.nan, 1), "finite mean"),
        (lambda: Normal("0", [1, 2, "x"]), "positive sigma"),
        (lambda: HalfNormal(math.inf), "Give HalfNormal(sigma)"),
        (lambda: HalfNormal(np.array([1.0, 0.0])), "Give HalfNormal(sigma)"),
        (lambda: LogNormal(-2, 1), "Give LogNormal(median, sigma)"),
        (lambda: Bounded(prior=Normal(np.zeros(3), 1)), "single numbers"),
        (lambda: Bounded(10, 12, prior=Normal(0, 1)), "at least 1e-06 of its mass within the bounds [10, 12]; got 7.6e-24"),
        (lambda: Bounded(10, 12, prior=HalfNormal(1)), "of its mass"),
        (lambda: Bounded(1e4, 1e5, prior=LogNormal(1, 1)), "of its mass"),
        (lambda: Bounded(90, prior=dist.Gamma(2.0, 1.0)), "of its mass"),
        (lambda: Bounded(-2, -1, prior=HalfNormal(1)), "leave room for the prior"),
        (lambda: Bounded(-2, -1, prior=dist.Gamma(2.0, 1.0)), "leave room for the prior"),
        (lambda: Bounded(prior=3), "must be a distribution; got int"),
        (lambda: Bounded(prior=dist.Gamma), "the class Gamma, without numbers"),
        (lambda: Bounded(prior=dist.Poisson(2.0)), "distribution of whole numbers"),
        (lambda: Bounded(prior=dist.Normal(jnp.zeros(3), 1.0)), "of a single number; got Normal of shape (3,)"),
        (lambda: Bounded(prior=dist.Dirichlet(jnp.ones(3))), "of a single number"),
        (lambda: Bounded(prior=dist.VonMises(0.0, 1.0)), "got VonMises, which lacks one"),
        (lambda: Bounded(prior=dist.ImproperUniform(dist.constraints.real, (), ())), "got ImproperUniform"),
        (lambda: Bounded(prior=Logistic(math.nan)), "must be proper"),
        (
            lambda: ParameterSpace.build({"a": Bounded(prior=Normal(0, 1)), "b": Tied("a", lower=50)}),
            "'a', with the bounds of 'b': prior",
        ),
    ],
)
def test_what_is_refused(declare, message):
    with pytest.raises(UsageError) as caught:
        declare()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_improper_priors_are_named():
    space = ParameterSpace.build(
        {
            "ha.flux": Bounded(0),
            "v": Bounded(-1, 1),
            "w": Bounded(0, above="v"),
            "n": Bounded(prior=Normal(0, 1)),
            "b": Bounded(0, below="ha.flux"),
        }
    )
    with pytest.raises(UsageError, match="ha.flux, w have neither.*'prior: flux ~ normal"):
        space.require_proper()
    with pytest.raises(UsageError, match="ha.flux, w"):
        drawn(space, np.full((1, 5), 0.5))
    assert np.isfinite(log_prior(space, np.full((1, 5), 0.5))).all()
    space.with_priors({"ha.flux": HalfNormal(1), "w": Normal(0, 3)}).require_proper()


def test_declarations_print_the_same_in_each_run():
    declared = Bounded(0, prior=dist.Gamma(2.0, 1 / 3))
    assert repr(declared) == repr(Bounded(0, prior=dist.Gamma(2.0, 1 / 3)))
    assert "prior=Gamma(2, 0.333333" in repr(declared)
    assert repr(Bounded(0, 1)) == "Bounded(lower=0, upper=1, start=None, above=None, below=None, prior=None)"
    assert repr(Bounded(0, 1, prior=Normal(0.1, 2))).endswith("prior=Normal(0.1, 2))")
    assert spelled(Logistic(2.0)) == "Logistic(width=2.0)"


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (dist.TruncatedNormal(100.0, 50.0, low=0.0), "LeftTruncatedDistribution(Normal(100, 50), 0)"),
        (dist.StudentT(3.0, 100.0, 30.0), "StudentT(3, 100, 30)"),
        (
            dist.MixtureSameFamily(dist.Categorical(probs=np.array([0.3, 0.7])), dist.Normal(np.array([1.0, 2.0]), 0.5)),
            "MixtureSameFamily(CategoricalProbs([0.3, 0.7]), Normal([1, 2], 0.5))",
        ),
        (
            dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(5.0, 2.0)),
            "TransformedDistribution(Normal(0, 1), [AffineTransform(5, 2)])",
        ),
        (
            dist.TransformedDistribution(
                dist.Normal(0.0, 1.0), [dist.transforms.AffineTransform(5.0, 2.0), dist.transforms.AffineTransform(1.0, 3.0).inv]
            ),
            "TransformedDistribution(Normal(0, 1), [AffineTransform(5, 2), _InverseTransform(AffineTransform(1, 3))])",
        ),
    ],
)
def test_priors_are_told_with_all_their_numbers(prior, text):
    assert spelled(prior) == text
    assert text in ParameterSpace.build({"v": Bounded(-10, 1000, prior=prior)}).describe()


def test_table_of_all_parameters():
    space = ParameterSpace.build(
        {
            "flux": Bounded(0),
            "v": Bounded(-300, 300, prior=Normal(0, 100)),
            "wide": Bounded(10, above="2 * v", prior=LogNormal(120, 0.5)),
            "h": Bounded(prior=dist.Gamma(2.0, 1.0)),
            "c": Bounded(-1, 1),
            "ratio": Tied("flux / 3"),
            "k": Fixed(2.5),
        },
        shapes={"c": (2,)},
    )
    rows = [row.split("  ") for row in space.describe().splitlines()]
    cells = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert cells == {
        "parameter": ["bounds", "prior", "fixed or tied"],
        "flux": ["0 to inf", "none (improper)"],
        "v": ["-300 to 300", "Normal(0, 100)"],
        "wide": ["max(10, 2 * v) to inf", "LogNormal(120, 0.5)"],
        "h": ["0 to inf", "Gamma(2, 1)"],
        "c [2]": ["-1 to 1", "uniform"],
        "ratio": ["= flux / 3"],
        "k": ["2.5"],
    }
    later = space.with_priors({"flux": HalfNormal(np.array([1.0, 20.0]))})
    assert "HalfNormal(1 to 20)" in later.describe()


# --- fits ----------------------------------------------------------------------------------------


def level(params, coords):
    return params["level"] + 0.0 * coords


@pytest.mark.parametrize(
    ("prior", "mean", "counts"),
    [
        (Normal(2.0, 0.05), 2.0, True),
        (HalfNormal(0.05), 0.0, True),
        (LogNormal(0.1, 0.2), 0, False),
        (dist.Normal(2.0, 0.05), 0, False),
    ],
)
def test_a_prior_in_a_fit_is_one_more_residual(prior, mean, counts):
    coords = np.arange(8.0)
    values = 1.0 + 0.3 * np.random.default_rng(5).normal(size=(3, 8))
    obs = Observations(values, np.full_like(values, 1 / 0.09), coords)
    space = ParameterSpace.build({"level": Bounded(-10, 10, prior=prior)})
    fit = fit_batch(level, space, obs, {"level": 0.5}, options=LeastSquaresOptions(warm_up=False))
    precision = 8 / 0.09 + (1 / 0.05**2 if counts else 0.0)
    expected = (values.sum(axis=1) / 0.09 + (mean / 0.05**2 if counts else 0.0)) / precision
    np.testing.assert_allclose(fit.params["level"], expected, rtol=1e-6)
    np.testing.assert_allclose(fit.error["level"], precision**-0.5, rtol=1e-6)
    pull = (expected - mean) / 0.05 if counts else 0.0
    np.testing.assert_allclose(fit.chi2, ((values - expected[:, None]) ** 2).sum(axis=1) / 0.09 + pull**2, rtol=1e-6)


def test_a_half_normal_prior_stops_at_zero():
    values = np.array([[-0.5, -0.2, 0.1], [0.5, 0.2, 0.4]])
    space = ParameterSpace.build({"level": Bounded(prior=HalfNormal(1.0))})
    fit = fit_batch(level, space, Observations(values, np.ones_like(values), np.arange(3.0)), {"level": 0.2})
    np.testing.assert_allclose(fit.params["level"], [0.0, 1.1 / 4.0], atol=1e-7)
