"""The parameter space: what is packed, tied, bounded and mapped to the line."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ifujax import Bounded, Fixed, Normal, ParameterSpace, Tied, UsageError


def unpacked(space, x):
    with jax.enable_x64(True):
        return {name: np.asarray(value) for name, value in space.unpack([jnp.asarray(v) for v in x]).items()}


def packed(space, params):
    with jax.enable_x64(True):
        return np.array([float(v) for v in space.pack({name: jnp.asarray(v) for name, v in params.items()})])


def test_round_trip_with_arrays_ties_and_fixed():
    space = ParameterSpace.build(
        {"ratio": Tied("a / b"), "a": Bounded(0, 10), "b": Fixed(4.0), "c": Bounded()},
        shapes={"c": (2, 2)},
        scale={"a": 5.0},
    )
    assert space.n_free == 5
    assert space.structure.element_names == ("a", "c[0]", "c[1]", "c[2]", "c[3]")
    x = np.array([0.4, 1.0, 2.0, 3.0, 4.0])
    params = unpacked(space, x)
    assert params["a"] == pytest.approx(2.0)
    assert params["ratio"] == pytest.approx(0.5)
    assert params["c"].shape == (2, 2)
    np.testing.assert_allclose(packed(space, params), x)


@pytest.mark.parametrize(
    "wide",
    [Bounded(10, 500, above="narrow"), Bounded(10, above="narrow"), Bounded(below="narrow"), Bounded(1, 90, below="2*narrow")],
)
def test_inequality_becomes_a_moving_bound(wide):
    space = ParameterSpace.build({"wide": wide, "narrow": Bounded(20, 80)})
    for narrow in (25.0, 75.0):
        for x in (0.0, 0.3, 0.9):
            params = unpacked(space, [x, narrow])
            if wide.above:
                assert params["wide"] >= narrow
            if wide.below:
                assert params["wide"] <= 2 * narrow
            assert wide.lower <= params["wide"] <= wide.upper
            np.testing.assert_allclose(packed(space, params), [x, narrow], atol=1e-12)


def test_chain_of_inequalities_holds_whatever_the_order():
    space = ParameterSpace.build({"c": Bounded(0, 9, above="b"), "a": Bounded(0, 9), "b": Bounded(0, 9, above="a")})
    params = unpacked(space, [0.5, 3.0, 0.5])
    assert (params["a"], params["b"], params["c"]) == (3.0, 6.0, 7.5)


def test_bounds_of_a_tie_are_inherited():
    space = ParameterSpace.build({"b": Tied("3 * a + 1", lower=4, upper=7), "a": Bounded(-10, 10)})
    assert (float(space.lower[0]), float(space.upper[0])) == (1.0, 2.0)
    space = ParameterSpace.build({"b": Tied("-a", lower=-3), "c": Tied("2 * b", upper=2.0), "a": Bounded()})
    assert (float(space.lower[0]), float(space.upper[0])) == (-1.0, 3.0)


@pytest.mark.parametrize(
    ("declarations", "message"),
    [
        ({"a": Tied("b"), "b": Tied("a")}, "cycle"),
        ({"a": Bounded(above="b"), "b": Bounded(above="a")}, "cycle"),
        ({"a": Bounded(0, 1), "b": Tied("aa * 2")}, "Did you mean 'a'"),
        ({"a": Bounded(0, 1), "b": Tied("a * a", upper=0.5)}, "bounds of 'b'"),
        ({"a": Bounded(0, 1), "b": Tied("a + 5", upper=2)}, "leave room"),
        ({"a": Fixed(3.0), "b": Tied("a", upper=2)}, "fixed value"),
        ({"a": 3.0}, "Bounded, Fixed or Tied"),
    ],
)
def test_bad_declarations(declarations, message):
    with pytest.raises(UsageError, match=message):
        ParameterSpace.build(declarations)


@pytest.mark.parametrize("bounds", [(3, 1), (1, 1), (float("nan"), 1)])
def test_bad_bounds(bounds):
    with pytest.raises(UsageError, match="lower < upper"):
        Bounded(*bounds)


def space_of_all_kinds():
    return ParameterSpace.build(
        {
            "both": Bounded(-2, 3),
            "lower": Bounded(1),
            "upper": Bounded(upper=4),
            "line": Bounded(),
            "moving": Bounded(0, 100, above="lower"),
            "beyond": Bounded(above="both"),
        },
        scale={"both": 3.0, "lower": 0.1},
    )


def test_log_determinant_against_autodiff():
    space = space_of_all_kinds()
    with jax.enable_x64(True):
        z = jnp.asarray([0.3, -0.7, 0.2, 1.1, -0.4, 0.8])
        jacobian = np.asarray(jax.jacfwd(lambda v: jnp.stack(space.from_unconstrained(list(v))[0]))(z))
        x, log_slope = space.from_unconstrained(list(z))
        back, same = space.to_unconstrained(x)
        np.testing.assert_allclose(float(log_slope), np.linalg.slogdet(jacobian)[1], rtol=1e-10)
        np.testing.assert_allclose([float(v) for v in back], np.asarray(z), atol=1e-10)
        assert float(same) == pytest.approx(float(log_slope))
        low, high = space.box()
        assert all(a <= b <= c for a, b, c in zip(map(float, low), map(float, x), map(float, high)))


def test_nan_is_not_hidden():
    params = unpacked(space_of_all_kinds(), [np.nan, 2.0, 0.0, 0.0, 0.5, 0.5])
    assert np.isnan(params["both"])
    assert np.isnan(params["beyond"])
    assert np.isfinite(params["moving"])


def test_prior_rows():
    space = ParameterSpace.build({"a": Bounded(prior=Normal(3, 2)), "b": Bounded(), "c": Bounded(prior=Normal(0, 0.5))})
    with jax.enable_x64(True):
        rows = [float(v) for v in space.prior_residuals({"a": jnp.array(1.0), "b": jnp.array(9.0), "c": jnp.array(1.0)})]
    assert rows == [1.0, -2.0]


def test_numbers_per_fit():
    space = ParameterSpace.build({"a": Bounded(0, 1), "b": Fixed(2.0)})
    wide = space.with_scale(np.ones((5, 1))).broadcast(5)
    assert wide.lower.shape == (5, 1)
    assert wide.fixed.shape == (5, 1)
    with pytest.raises(UsageError, match="parameter numbers"):
        space.with_scale(np.ones((4, 1))).broadcast(5)


def test_spaces_of_one_form_are_stacked():
    spaces = [ParameterSpace.build({"a": Bounded(low, 9.0), "b": Fixed(low)}, scale={"a": 2.0}) for low in (0.0, 1.0, 2.0)]
    stacked = ParameterSpace.stack(spaces)
    assert stacked.structure == spaces[0].structure
    np.testing.assert_array_equal(stacked.lower, [[0.0], [1.0], [2.0]])
    np.testing.assert_array_equal(stacked.fixed, [[0.0], [1.0], [2.0]])
    np.testing.assert_array_equal(stacked.scale, np.full((3, 1), 2.0))
    with pytest.raises(UsageError, match="different structure"):
        ParameterSpace.stack([spaces[0], ParameterSpace.build({"a": Bounded(0.0)})])
    with pytest.raises(UsageError, match="got none"):
        ParameterSpace.stack([])
