"""Which parameters count as linear, given what else was declared."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ifujax import Bounded, Fixed, HalfNormal, LogNormal, Normal, ParameterSpace, Tied
from ifujax.inference.sampling.blocks import split

STRENGTHS = SimpleNamespace(linear_in=("a", "b", "c"))
BOX = Bounded(0, 10)


def integrated(declarations, model=STRENGTHS, shapes=None):
    """Return the names of what is integrated; the rest must be sampled."""
    structure = ParameterSpace.build({"v": Bounded(-1, 1), **declarations}, shapes=shapes).structure
    found = split(model, structure)
    assert sorted(found.sampled + found.integrated) == list(range(structure.n_free))
    assert found.sampled == tuple(sorted(found.sampled))
    return {structure.element_names[i] for i in found.integrated}


@pytest.mark.parametrize(
    "prior", [Bounded(0, 10), Bounded(0, prior=Normal(1, 2)), Bounded(prior=Normal(1, 2)), Bounded(prior=HalfNormal(3))]
)
def test_uniform_and_gaussian_priors_qualify(prior):
    assert integrated({"a": prior, "b": BOX}) == {"a", "b"}


def test_other_priors_do_not():
    import numpyro.distributions as dist

    assert integrated({"a": Bounded(0, 10, prior=LogNormal(1, 1)), "b": BOX}) == {"b"}
    assert integrated({"a": Bounded(0, 10, prior=dist.Gamma(2.0, 1.0)), "b": BOX}) == {"b"}
    # Even one that is Gaussian by another name.
    assert integrated({"a": Bounded(0, 10, prior=dist.Normal(1.0, 1.0)), "b": BOX}) == {"b"}


def test_the_model_says_what_is_linear():
    assert integrated({"a": BOX, "d": BOX}) == {"a"}
    assert integrated({"a": BOX}, model=object()) == set()
    assert integrated({"a": BOX, "d": BOX}, model=SimpleNamespace(linear_in=())) == set()


@pytest.mark.parametrize(
    ("tie", "expected"),
    [
        ("a / 3.06", {"a", "c"}),
        ("2 * a - c / 4 + 1", {"a", "c"}),
        ("a * c", set()),
        ("a ** 2", {"c"}),
        ("sqrt(c)", {"a"}),
        ("a * v", {"c"}),
        ("1 / a", {"c"}),
        ("a * k", {"c"}),  # linear for a fixed number, but the tie does not know that
    ],
)
def test_what_is_tied_must_follow_in_a_straight_line(tie, expected):
    assert integrated({"a": BOX, "b": Tied(tie), "c": BOX, "k": Fixed(2.0)}) == expected


def test_ties_to_what_does_not_enter_linearly():
    assert integrated({"a": BOX, "width": Tied("2 * a"), "c": BOX}) == {"c"}


def test_chains_of_ties():
    assert integrated({"a": BOX, "b": Tied("2 * a"), "c": Tied("b + 1")}) == {"a"}
    # Whatever the order of declaration, the last link spoils the first.
    for order in (("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")):
        items = {"a": BOX, "b": Tied("2 * a"), "c": Tied("b ** 2")}
        assert integrated({name: items[name] for name in order}) == set()
    assert integrated({"a": BOX, "b": Tied("2 * a"), "width": Tied("b + 1"), "c": BOX}) == {"c"}


def test_bounds_that_move():
    # Neither what moves nor what moves it, directly or through a tie.
    assert integrated({"a": BOX, "b": Bounded(0, 10, below="a"), "c": BOX}) == {"c"}
    assert integrated({"a": BOX, "v2": Bounded(0, 10, above="a"), "c": BOX}) == {"c"}
    assert integrated({"a": BOX, "b": Tied("3 * a"), "v2": Bounded(0, 40, above="b"), "c": BOX}) == {"c"}
    # Nor what a tie that is moved by it follows.
    assert integrated({"a": Bounded(0, 10, below="c"), "b": Tied("a / 2"), "c": BOX}) == set()


def test_fixed_parameters_and_arrays():
    assert integrated({"a": Fixed(2.0), "b": BOX, "c": Tied("a + b")}) == {"b"}
    # Positions count elements: what follows an array comes later.
    assert integrated({"a": BOX, "v3": BOX, "b": BOX}, shapes={"a": (2,), "v3": (3,)}) == {"b"}


def test_priors_given_later_count():
    space = ParameterSpace.build({"v": Bounded(-1, 1), "a": Bounded(0), "b": BOX}).with_priors(
        {"a": HalfNormal(np.arange(1.0, 4))}
    )
    assert split(STRENGTHS, space.structure).integrated == (1, 2)
    space = ParameterSpace.build({"v": Bounded(-1, 1), "a": Bounded(0), "b": BOX}).with_priors({"a": LogNormal(1.0, 1.0)})
    assert split(STRENGTHS, space.structure).integrated == (2,)


def test_something_is_sampled_always():
    found = split(STRENGTHS, ParameterSpace.build({"v": Fixed(0.0), "a": BOX, "b": BOX}).structure)
    assert (found.sampled, found.integrated) == ((0,), (1,))
