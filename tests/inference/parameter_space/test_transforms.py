"""Bijections between boxes and the line."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ifujax.inference.parameter_space.transforms import box_kind, from_line, to_line

BOXES = {"both": (-2.0, 5.0), "lower": (1.5, np.inf), "upper": (-np.inf, 3.0), "none": (-np.inf, np.inf)}
Z = np.array([-8.0, -1.0, 0.0, 0.3, 4.0])


@pytest.mark.parametrize("kind", BOXES)
def test_bijection(kind):
    low, high = BOXES[kind]
    with jax.enable_x64(True):
        z = jnp.asarray(Z)
        x, log_slope = from_line(kind, z, jnp.asarray(low), jnp.asarray(high))
        back = to_line(kind, x, jnp.asarray(low), jnp.asarray(high))
        slope = jax.vmap(jax.grad(lambda v: from_line(kind, v, jnp.asarray(low), jnp.asarray(high))[0]))(z)
        x, log_slope, back, slope = (np.asarray(item) for item in (x, log_slope, back, slope))
    assert np.all((x > low) & (x < high))
    np.testing.assert_allclose(back, Z, atol=1e-9)
    np.testing.assert_allclose(log_slope, np.log(np.abs(slope)), atol=1e-9)


@pytest.mark.parametrize("kind", BOXES)
def test_nan_stays_nan(kind):
    low, high = BOXES[kind]
    assert np.isnan(from_line(kind, jnp.array(jnp.nan), jnp.array(low), jnp.array(high))[0])


def test_kind_follows_the_sides():
    kinds = [box_kind(*sides) for sides in ((True, True), (True, False), (False, True), (False, False))]
    assert kinds == ["both", "lower", "upper", "none"]
