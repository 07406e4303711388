"""Priors between bounds, of one number, in JAX: log density and quantiles, stable far in the tails.

A side of the bounds that isn't there is None: infinite bounds make gradients NaN.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erfcx, log_ndtr, logsumexp, ndtr

from ifujax.inference.parameter_space.truncated import truncated_normal

_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_FARTHEST = 1e15
"""Standard deviations beyond which a limit counts as there: squares must stay within float32's range."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_BISECTIONS = 64


@jax.custom_jvp
def log_cdf(x: Array) -> Array:
    """Log of the standard normal cdf."""
    return log_ndtr(x)


@log_cdf.defjvp
def _log_cdf_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # JAX's own rule subtracts squares and loses all digits in the far tail.
    (x,), (dx,) = primals, tangents
    value = log_cdf(x)
    far = math.sqrt(2.0 / math.pi) / erfcx(-jnp.minimum(x, 0.0) / math.sqrt(2.0))
    near = jnp.exp(-0.5 * jnp.square(jnp.maximum(x, 0.0)) - _LOG_ROOT_2PI) / ndtr(jnp.maximum(x, 0.0))
    return value, jnp.where(x < 0, far, near) * dx


def log_normal_mass(low: Array | None, high: Array | None) -> Array:
    """Return the log of the standard normal's mass between limits; None for one that isn't there.

    Limits that coincide count as 1 apart, so that gradients are finite.
    """
    if low is None and high is None:
        return jnp.zeros(())
    if low is None or high is None:
        return log_cdf(jnp.clip(high, -_FARTHEST, _FARTHEST) if low is None else -jnp.clip(low, -_FARTHEST, _FARTHEST))
    low, high = jnp.clip(low, -_FARTHEST, _FARTHEST), jnp.clip(high, -_FARTHEST, _FARTHEST)
    mirrored = low > 0
    a, b = jnp.where(mirrored, -high, low), jnp.where(mirrored, -low, high)
    width, middle = b - a, 0.5 * (a + b)
    # Close together the difference of cdfs loses its digits: the Taylor series of the density about the middle.
    narrow = width * (1.0 + jnp.abs(middle)) < 0.1
    w, m = jnp.where(narrow & (width > 0), width, 0.05), jnp.where(narrow, middle, 0.0)
    w2, p = w * w, jnp.square(m * w)
    near = jnp.log(w) - 0.5 * m * m - _LOG_ROOT_2PI + jnp.log1p((p - w2) / 24.0 + (p * p - 6.0 * p * w2 + 3.0 * w2 * w2) / 1920.0)
    near = jnp.where(width > 0, near, 0.0)
    a, b = jnp.where(narrow, -1.0, a), jnp.where(narrow, 1.0, b)
    left = b <= 0
    log_a, log_b = log_cdf(jnp.where(left, a, -2.0)), log_cdf(jnp.where(left, b, -1.0))
    tail = log_b + jnp.log(-jnp.expm1(log_a - log_b))
    centre = jnp.log1p(-ndtr(jnp.where(left, -1.0, a)) - ndtr(-jnp.where(left, 1.0, b)))
    return jnp.where(narrow, near, jnp.where(left, tail, centre))


def normal_log_density(value: Array, mean: Array, sigma: Array, low: Array | None, high: Array | None) -> Array:
    """Log density of a Gaussian between bounds; the half one has mean 0 and a bound of 0."""
    t = (value - mean) / sigma
    ends = [None if end is None else (end - mean) / sigma for end in (low, high)]
    return -0.5 * t * t - _LOG_ROOT_2PI - jnp.log(sigma) - log_normal_mass(*ends)


def log_normal_log_density(value: Array, mean: Array, sigma: Array, low: Array | None, high: Array | None) -> Array:
    """Log density of a log-normal between bounds; `mean` and `sigma` are of the natural logarithm."""
    log_value = _safe_log(value)
    ends = [None if end is None else _safe_log(end) for end in (low, high)]
    return normal_log_density(log_value, mean, sigma, ends[0], ends[1]) - log_value


def _safe_log(value: Array) -> Array:
    """Log of what may be 0: then that of next to the smallest number, where a log-normal has no mass and no slope."""
    least = 1e4 * jnp.finfo(value.dtype).tiny  # slopes there are still within the range of floats
    return jnp.log(jnp.where(value > least, value, least))


def distribution_log_density(distribution: Any, value: Array, low: Array | None, high: Array | None) -> Array:
    """Log density of a distribution between bounds."""
    return distribution.log_prob(value) - _log_mass(distribution, value, low, high)


def _log_mass(distribution: Any, like: Array, low: Array | None, high: Array | None) -> Array:
    tiny = jnp.finfo(like.dtype).tiny
    if low is None and high is None:
        return jnp.zeros_like(like)
    if low is None:
        return jnp.log(jnp.maximum(distribution.cdf(high), tiny))
    if high is None:
        return jnp.log(jnp.maximum(1.0 - distribution.cdf(low), tiny))
    mass = distribution.cdf(high) - distribution.cdf(low)
    # Close together, or far out, the difference loses its digits: quadrature of the density.
    lost = mass < 1e3 * jnp.finfo(like.dtype).eps
    width = jnp.where(high > low, high - low, 1.0)
    nodes = low + (0.5 * jnp.asarray(1.0 + _NODES, like.dtype)) * width
    terms = jax.vmap(distribution.log_prob)(nodes) + jnp.asarray(np.log(0.5 * _WEIGHTS), like.dtype)
    return jnp.where(lost, logsumexp(terms) + jnp.log(width), jnp.log(jnp.where(lost, 1.0, mass)))


def normal_quantile(u: Array, mean: Array, sigma: Array, low: Array | None, high: Array | None) -> Array:
    """Quantile of a Gaussian between bounds."""
    ends = [None if end is None else jnp.clip((end - mean) / sigma, -_FARTHEST, _FARTHEST) for end in (low, high)]
    return _within(mean + sigma * truncated_normal(u, ends[0], ends[1])[0], low, high)


def log_normal_quantile(u: Array, mean: Array, sigma: Array, low: Array | None, high: Array | None) -> Array:
    """Quantile of a log-normal between bounds."""
    ends = [None if end is None else _safe_log(end) for end in (low, high)]
    return _within(jnp.exp(normal_quantile(u, mean, sigma, ends[0], ends[1])), low, high)


def distribution_quantile(distribution: Any, u: Array, low: Array | None, high: Array | None, *, has_icdf: bool) -> Array:
    """Quantile of a distribution between bounds; bisection of its cdf where it has no inverse."""
    least = jnp.zeros_like(u) if low is None else distribution.cdf(low)
    most = jnp.ones_like(u) if high is None else distribution.cdf(high)
    share = least + u * (most - least)
    if has_icdf:
        edge = jnp.finfo(u.dtype).eps
        return _within(distribution.icdf(jnp.clip(share, jnp.finfo(u.dtype).tiny, 1.0 - 0.5 * edge)), low, high)
    return _within(_bisected(distribution, share, low, high), low, high)


def _bisected(distribution: Any, share: Array, low: Array | None, high: Array | None) -> Array:
    """Invert a cdf. Open sides are searched in logarithmic steps, which know no scale."""

    def value_at(s: Array) -> Array:
        if low is not None and high is not None:
            return low + s * (high - low)
        if low is None and high is None:
            return jnp.sinh(s)
        return low + jnp.exp(s) if low is not None else high - jnp.exp(-s)  # type: ignore[operator]

    largest = 0.9 * math.log(float(jnp.finfo(share.dtype).max))
    start = (0.0, 1.0) if low is not None and high is not None else (-largest, largest)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        above = distribution.cdf(value_at(middle)) < share
        return jnp.where(above, middle, ends[0]), jnp.where(above, ends[1], middle)

    first = tuple(jnp.full_like(share, end) for end in start)
    below, above = jax.lax.fori_loop(0, _BISECTIONS, halve, first)
    return value_at(0.5 * (below + above))


def _within(value: Array, low: Array | None, high: Array | None) -> Array:
    value = value if low is None else jnp.maximum(value, low)
    return value if high is None else jnp.minimum(value, high)
