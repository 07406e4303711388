"""The standard normal between two limits: probability and quantiles, far into the tails.

With the limits conditional on what was drawn before, this is one step of the sequential sampler of
Geweke (1991), Hajivassiliou & McFadden (1998, Econometrica 66, 863) and Keane (1994): GHK.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import log_ndtr, ndtri

_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_DEEP = -30.0
"""Log probability below which `ndtri` is not trusted with a linear one."""


def log_ndtri(log_p: Array) -> Array:
    """Return x with ``log_ndtr(x) = log_p``, however small the probability is."""
    # Near certainty it is the probability of the opposite that has the digits.
    likely = log_p > -0.5
    shallow = ndtri(jnp.where(likely, -jnp.expm1(log_p), jnp.exp(jnp.maximum(log_p, _DEEP))))
    shallow = jnp.where(likely, -shallow, shallow)
    deep = jnp.minimum(log_p, _DEEP)
    # log Phi(-t) = -t^2/2 - log(t sqrt(2 pi)) + O(1/t^2), then Newton.
    t2 = -2.0 * (deep + _LOG_ROOT_2PI)
    x = -jnp.sqrt(t2 - jnp.log(t2))
    for _ in range(3):
        value = log_ndtr(x)
        x = x - (value - deep) * jnp.exp(value + 0.5 * x * x + _LOG_ROOT_2PI)
    return jnp.where(log_p < _DEEP, x, shallow)


def _between(low: Array, high: Array, mirrored: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Limits on the side where both probabilities are small, so that their difference keeps its digits.

    Returns them (where `mirrored`, of minus the number), the log mass, the log of the probability below the upper one, the
    share of that between them, and whether that has lost digits to rounding (then the density is flat there).
    """
    below, above = jnp.where(mirrored, -high, low), jnp.where(mirrored, -low, high)
    log_low, log_high = log_ndtr(below), log_ndtr(above)
    gap = -jnp.expm1(log_low - log_high)
    # A flat density is off by a 24th of the square of this, the difference by its rounding.
    narrow = gap < float(jnp.finfo(gap.dtype).eps) ** (1.0 / 3.0)
    middle, width = 0.5 * (below + above), above - below
    flat = -0.5 * middle * middle - _LOG_ROOT_2PI + jnp.log(jnp.where(narrow & (width > 0), width, 1.0))
    total = jnp.where(narrow, flat, log_high + jnp.log(jnp.where(narrow, 1.0, gap)))
    return below, above, total, log_high, gap, narrow


def truncated_normal(u: Array, low: Array | None, high: Array | None) -> tuple[Array, Array]:
    """Return the `u`-quantile of a standard normal between `low` and `high`, and the log of the mass there.

    None for a limit that isn't there. ``0 < u < 1``.
    """
    if low is None:
        if high is None:
            return ndtri(u), jnp.zeros_like(u)
        mass = log_ndtr(high)
        return log_ndtri(mass + jnp.log(u)), mass
    if high is None:
        # Mirrored: the mass above `low` is the one below -low.
        mass = log_ndtr(-low)
        return -log_ndtri(mass + jnp.log1p(-u)), mass
    # On the side of the smaller probability: of limits on both sides of 0, that of the quantile itself.
    mirrored = (low > 0) | ((high > 0) & (u > 0.5))
    below, above, total, log_high, gap, narrow = _between(low, high, mirrored)
    share = jnp.where(mirrored, 1.0 - u, u)
    x = log_ndtri(log_high + jnp.log((1.0 - gap) + share * gap))
    x = jnp.where(narrow, below + share * (above - below), jnp.clip(x, below, above))
    return jnp.where(mirrored, -x, x), total
