"""The normal between two limits, against scipy, and against quadrature where the limits are close."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr, ndtri_exp
from scipy.stats import norm, truncnorm

from ifujax.inference.parameter_space.truncated import log_ndtri, truncated_normal
from ifujax.inference.precision import working_precision

ENDS = [-200.0, -40.0, -8.0, -3.0, -0.5, 0.0, 0.3, 2.0, 8.0, 40.0, 200.0]
U = [1e-9, 1e-3, 0.2, 0.5, 0.9, 0.999, 1 - 1e-9]
LOW, HIGH, SHARE = np.array([(low, high, u) for low in ENDS for high in ENDS if low < high for u in U]).T
WIDTHS = np.geomspace(1e-12, 1e-1, 23)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)


two_sided = jax.jit(truncated_normal)
above = jax.jit(lambda u, low: truncated_normal(u, low, None))
below = jax.jit(lambda u, high: truncated_normal(u, None, high))


def run(function, *given, precision="float64"):
    """Return quantiles and log masses."""
    with working_precision(precision) as dtype:
        x, mass = (np.asarray(leaf) for leaf in function(*(np.asarray(array, dtype) for array in given)))
    assert x.dtype == mass.dtype == dtype
    return x.astype(float), mass.astype(float)


def scipy_log_mass(low, high):
    """Log masses from what scipy divides a truncated density by, at the limit nearest to the centre."""
    at = np.clip(0.0, low, high)
    return norm.logpdf(at) - truncnorm.logpdf(at, low, high)


def close_masses(low, high):
    """Logs of masses between limits that are close: quadrature relative to the density in the middle."""
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    offset = half[:, None] * NODES
    terms = WEIGHTS * np.exp(-offset * (middle[:, None] + 0.5 * offset))
    return np.log(half * terms.sum(axis=1)) + norm.logpdf(middle)


def test_quantile_of_any_log_probability():
    log_p = -np.concatenate([np.geomspace(1e-12, 29.99, 40), np.geomspace(30.01, 3e4, 40)])
    with working_precision("float64"):
        found = np.asarray(jax.jit(log_ndtri)(log_p))
    np.testing.assert_allclose(found, ndtri_exp(log_p), rtol=1e-9)
    tail = log_p < -1e-3  # near certainty the logarithm says little of x
    np.testing.assert_allclose(log_ndtr(found[tail]), log_p[tail], rtol=1e-10)
    assert (np.diff(found) < 0).all()


def test_two_limits_against_scipy():
    x, mass = run(two_sided, SHARE, LOW, HIGH)
    np.testing.assert_allclose(mass, scipy_log_mass(LOW, HIGH), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(x, truncnorm.ppf(SHARE, LOW, HIGH), rtol=1e-7, atol=1e-7)
    assert ((x >= LOW) & (x <= HIGH)).all()
    # Where scipy loses digits: the quantile's own probability.
    mirrored = LOW > 0
    outer, end = np.where(mirrored, -HIGH, LOW), np.where(mirrored, -x, x)
    share = np.where(mirrored, 1 - SHARE, SHARE)
    middle = (SHARE > 1e-4) & (SHARE < 1 - 1e-4)
    np.testing.assert_allclose(scipy_log_mass(outer, end)[middle], (mass + np.log(share))[middle], rtol=0, atol=1e-9)


def test_two_limits_mirrored():
    x, mass = run(two_sided, SHARE, LOW, HIGH)
    other, same = run(two_sided, 1 - SHARE, -HIGH, -LOW)
    np.testing.assert_allclose(same, mass, rtol=1e-14)
    middle = (SHARE > 1e-4) & (SHARE < 1 - 1e-4)
    np.testing.assert_allclose(other[middle], -x[middle], rtol=1e-9, atol=1e-9)


def test_one_limit():
    limit, u = (grid.ravel() for grid in np.meshgrid(ENDS, U))
    x, mass = run(above, u, limit)
    np.testing.assert_allclose(mass, log_ndtr(-limit), rtol=1e-13, atol=1e-15)
    assert (x >= limit).all()
    np.testing.assert_allclose(log_ndtr(-x), log_ndtr(-limit) + np.log1p(-u), rtol=1e-11, atol=1e-12)
    x, mass = run(below, u, limit)
    np.testing.assert_allclose(mass, log_ndtr(limit), rtol=1e-13, atol=1e-15)
    assert (x <= limit).all()
    np.testing.assert_allclose(log_ndtr(x), log_ndtr(limit) + np.log(u), rtol=1e-11, atol=1e-12)


def test_no_limit():
    u = np.array(U)
    with working_precision("float64"):
        x, mass = truncated_normal(jnp.asarray(u), None, None)
        np.testing.assert_allclose(np.asarray(x), norm.ppf(u), rtol=1e-9, atol=1e-12)
        assert not np.asarray(mass).any()


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_limits_that_are_close(precision):
    # From where density and difference of cdfs are both flat to rounding, through the switch between the two.
    eps, close = np.finfo(precision).eps, {"float64": 1e-8, "float32": 3e-3}[precision]
    low, width = (grid.ravel() for grid in np.meshgrid([-30.0, -3.0, -0.02, 0.0, 0.5, 5.0, 30.0], WIDTHS))
    low = low.astype(precision).astype(float)
    high = (low + width).astype(precision).astype(float)
    apart = high > low
    low, high = low[apart], high[apart]
    expected = close_masses(low, high)
    for u in (0.1, 0.5, 0.97):
        x, mass = run(two_sided, np.full(low.shape, u), low, high, precision=precision)
        assert (np.abs(mass - expected) < close).all()
        assert ((x >= low) & (x <= high)).all()
        share = np.exp(close_masses(low, np.maximum(x, low + 1e-6 * (high - low))) - expected)
        # Half an ulp of x, and the slope that is neglected where the two ways meet.
        assert (np.abs(share - u) < 2 * eps * np.abs(low) / (high - low) + 0.3 * eps ** (1 / 3)).all()


def test_limits_that_coincide_are_finite():
    x, mass = run(two_sided, [0.3, 0.5], [1.0, -40.0], [1.0, -40.0])
    np.testing.assert_array_equal(x, [1.0, -40.0])
    assert np.isfinite(mass).all()


def test_float32():
    inner = (np.abs(LOW) <= 40) & (np.abs(HIGH) <= 40) & (SHARE > 1e-4) & (SHARE < 0.9995)
    low, high, u = LOW[inner], HIGH[inner], SHARE[inner]
    x, mass = run(two_sided, u, low, high, precision="float32")
    np.testing.assert_allclose(mass, scipy_log_mass(low, high), rtol=2e-6, atol=2e-6)
    expected = truncnorm.ppf(u, low, high)
    # Far out the density falls by e within 1 / x: x is known to a few ulp of its square.
    np.testing.assert_allclose(x, expected, rtol=3e-6, atol=3e-5)
    assert ((x >= low) & (x <= high)).all()
    x, mass = run(above, u, low, precision="float32")
    np.testing.assert_allclose(x, truncnorm.ppf(u, low, np.inf), rtol=3e-6, atol=3e-5)
    np.testing.assert_allclose(mass, log_ndtr(-low), rtol=2e-6, atol=2e-6)
    assert (x >= low).all()


def test_draws_follow_the_truncated_density(rng):
    u = rng.random(4000)
    for low, high in ((-0.5, 0.7), (3.0, 9.0), (-60.0, -50.0)):
        x, _ = run(two_sided, u, np.full(4000, low), np.full(4000, high))
        np.testing.assert_allclose(np.sort(truncnorm.cdf(x, low, high)), np.sort(u), atol=1e-9)
