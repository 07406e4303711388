"""The density of the parameters that are sampled, those that enter linearly integrated out with their bounds.

Given the sampled ones, the others are Gaussian within a box. The mass in the box comes from drawing them one after the other
(GHK, see `truncated`): its estimate is unbiased, so that weights made with it are exact, and the draws come with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.parameter_space.truncated import truncated_normal
from ifujax.inference.sampling.blocks import Split
from ifujax.inference.sampling.targets import Gaussian, Target, integrate, log_likelihood, prior_precision, whitened_design

_FLAT = 1e3
"""Sigma of a Gaussian that counts as flat, in widths of its box."""


@partial(jax.tree_util.register_dataclass, data_fields=["z", "x", "log_target", "log_prior", "drawn"], meta_fields=[])
@dataclass(frozen=True)
class Point:
    """One point of importance sampling.

    `z` (d,) unconstrained values of what is sampled, `x` (d,) its elements of the free vector; `log_target` the log of its
    marginal posterior density, up to a constant; `log_prior` that of its prior, normalised; `drawn` (J,) the free vector's
    integrated elements.
    """

    z: Array
    x: Array
    log_target: Array
    log_prior: Array
    drawn: Array


def weigh(split: Split, target: Target, z: Array, from_prior: Array, u: Array) -> Point:
    """Evaluate one point.

    Parameters
    ----------
    z : array (d,)
        Where, unless `from_prior`.
    from_prior : bool scalar
        Draw the point from the prior instead.
    u : array (n,)
        Uniform numbers, one for each element of the free vector.
    """
    space = target.space
    n = space.n_free
    prior_x = space.from_uniform([u[i] if i in split.sampled else jnp.full_like(u[i], 0.5) for i in range(n)])
    prior_z, _ = space.to_unconstrained(prior_x)
    # What is integrated stands at its prior median here, where it changes nothing but a constant.
    at = list(prior_z)
    for k, i in enumerate(split.sampled):
        at[i] = jnp.where(from_prior, prior_z[i], z[k])
    x, _ = space.from_unconstrained(at)
    jacobians = space.log_jacobians(at)
    densities = space.log_priors(x)
    log_prior = sum((densities[i] + jacobians[i] for i in split.sampled), jnp.zeros(()))
    if target.options.loss == "gaussian":
        found, size = _gaussian(split, target, x)
        log_mass, drawn = _draw_within(split, target, found, size, u)
        value = found.log_value + log_mass
    else:  # nothing is integrated
        value, drawn = log_likelihood(target, space.unpack(x)), jnp.zeros((0,))
    here, there = (jnp.stack([vector[i] for i in split.sampled]) for vector in (at, x))
    return Point(here, there, value + log_prior, log_prior, drawn)


def _gaussian(split: Split, target: Target, x: list[Array]) -> tuple[Gaussian, int]:
    """Integrate over the eliminated block and the integrated elements, these last; also return the size of the block."""
    space = target.space

    def residual_at(strengths: list[Array]) -> Array:
        full = list(x)
        for i, value in zip(split.integrated, strengths):
            full[i] = value
        return whitened_design(target, space.unpack(full))[2]

    zero = [jnp.zeros_like(x[i]) for i in split.integrated]
    full = list(x)
    for i in split.integrated:
        full[i] = jnp.zeros_like(x[i])
    columns, unit, residual = whitened_design(target, space.unpack(full))

    def slope(j: int) -> Array:
        # One live input a pass: lines that it doesn't touch drop out at trace time.
        return -jax.jvp(lambda value: residual_at([*zero[:j], value, *zero[j + 1 :]]), (zero[j],), (jnp.ones_like(zero[j]),))[1]

    precision = prior_precision(target, len(columns), unit)
    pull = [jnp.zeros(())] * len(columns)
    for mean, sigma in _gaussian_priors(split, space):
        precision.append(1.0 / (sigma * sigma))
        pull.append(mean / (sigma * sigma))
    everything = [*columns, *(slope(j) for j in range(len(split.integrated)))]
    return integrate(everything, residual, precision, pull), len(columns)


def _gaussian_priors(split: Split, space: ParameterSpace) -> list[tuple[Array, Array]]:
    """Return mean and sigma of the priors of the integrated elements, bounds aside.

    A uniform prior is a Gaussian so much wider than its box that it is flat there: where no pixel feels a strength, the
    integral over it needs a scale.
    """
    low, high = space.box()
    found = []
    for i in split.integrated:
        mean, sigma = space.gaussian_prior(i)
        if space.box_kinds()[i] == "both":
            flat = ~jnp.isfinite(sigma)
            mean, sigma = jnp.where(flat, 0.5 * (low[i] + high[i]), mean), jnp.where(flat, _FLAT * (high[i] - low[i]), sigma)
        found.append((mean, sigma))
    return found


def _draw_within(split: Split, target: Target, found: Gaussian, first: int, u: Array) -> tuple[Array, Array]:
    """Draw the integrated elements within their bounds, one given the others before; return the log mass and the draws."""
    low, high = target.space.box()
    kinds = target.space.box_kinds()
    count = len(found.mean)
    log_mass = jnp.zeros(())
    drawn: list[Array] = [jnp.zeros(())] * count
    for k in reversed(range(first, count)):
        i = split.integrated[k - first]
        sigma = found.factor[k][k]  # the reciprocal of the factor's diagonal
        centre = found.mean[k]
        for later in range(k + 1, count):
            centre = centre - found.factor[later][k] * sigma * (drawn[later] - found.mean[later])
        lower = (low[i] * found.size[k] - centre) / sigma if kinds[i] in ("both", "lower") else None
        upper = (high[i] * found.size[k] - centre) / sigma if kinds[i] in ("both", "upper") else None
        step, mass = truncated_normal(u[i], lower, upper)
        drawn[k] = centre + sigma * step
        log_mass = log_mass + mass
    # Rounding must not put a draw beyond its bounds.
    values = [jnp.clip(drawn[k] / found.size[k], low[i], high[i]) for k, i in zip(range(first, count), split.integrated)]
    return log_mass, jnp.stack(values) if values else jnp.zeros((0,))
