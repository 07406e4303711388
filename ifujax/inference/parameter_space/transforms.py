"""Bijections between a box and the unconstrained line, one element at a time.

Which of them serves an element depends on which of its sides are bounded; that is static, the
bounds themselves are traced.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

BoxKind = Literal["both", "lower", "upper", "none"]


def box_kind(has_lower: bool, has_upper: bool) -> BoxKind:
    """Name the kind of box an element lives in."""
    return "both" if has_lower and has_upper else "lower" if has_lower else "upper" if has_upper else "none"


def from_line(kind: BoxKind, z: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Map unconstrained `z` into the box; return the value and ``log |dx/dz|``.

    Two bounds: logistic. One bound: exponential distance from it. None: identity.
    """
    if kind == "both":
        fraction = jax.nn.sigmoid(z)
        return lower + (upper - lower) * fraction, jnp.log(upper - lower) + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
    if kind == "lower":
        return lower + jnp.exp(z), z
    if kind == "upper":
        return upper - jnp.exp(z), z
    return z, jnp.zeros_like(z)


def to_line(kind: BoxKind, x: Array, lower: Array, upper: Array) -> Array:
    """Inverse of `from_line`. A value on a bound maps to plus or minus infinity."""
    if kind == "both":
        return jnp.log(x - lower) - jnp.log(upper - x)
    if kind == "lower":
        return jnp.log(x - lower)
    if kind == "upper":
        return jnp.log(upper - x)
    return x
