"""Expressions between parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifujax import UsageError
from ifujax.inference.parameter_space.constraints import dependency_order, parse

KNOWN = ("a", "b", "n2 [6583].flux")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a / 3.06", 2.0 / 3.06),
        ("-a + 2*b", 8.0),
        ("sqrt(a**2 + b**2)", np.hypot(2.0, 5.0)),
        ("min(a, b) - max(a, 1)", 0.0),
        ("n2 [6583].flux * 0.5", 3.5),
        ("(a - (b - a)) / -4", 0.25),
    ],
)
def test_arithmetic(text, value):
    assert float(parse(text, KNOWN)({"a": 2.0, "b": 5.0, "n2 [6583].flux": 7.0})) == pytest.approx(value)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5))
def test_affine_form_agrees_with_evaluation(factor, constant, a):
    expression = parse(f"2 * ({factor!r} * a - b) / 4 + {constant!r}", ("a", "b"))
    factors, offset = expression.affine()
    direct = expression({"a": a, "b": 3.0})
    assert factors.get("a", 0.0) * a + factors["b"] * 3.0 + offset == pytest.approx(float(direct), abs=1e-9)


def test_not_affine():
    assert parse("a * b", KNOWN).affine() is None
    assert parse("sqrt(a)", KNOWN).affine() is None
    assert parse("1 / a", KNOWN).affine() is None


@pytest.mark.parametrize("text", ["a +", "__import__('os')", "a if b else 1", "a[0]", "lambda: a", "'a'", "a and b", "True", ""])
def test_only_arithmetic(text):
    with pytest.raises(UsageError):
        parse(text, KNOWN, where="tie of 'c'")


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"n2 \[6583\]\.flux"):
        parse("n2_flux * 2", ("n2 [6583].flux",), where="tie of 'c'")


def test_order_and_cycle():
    order = dependency_order({"c": ["b"], "b": ["a"], "a": []})
    assert order == ["a", "b", "c"]
    with pytest.raises(UsageError, match="a -> b -> a"):
        dependency_order({"a": ["b"], "b": ["a"]})
