"""Distributions other than the Gaussian ones as priors: checked once, then carried as plain numbers.

A distribution is a pytree whose leaves are its numbers. They join the numbers of the parameter space, so that changing
them never recompiles; what is left is its recipe, which is static.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.precision import working_precision


@dataclass(frozen=True)
class Recipe:
    """Static half of a distribution. `whole` is the object itself where it is no pytree."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    has_icdf: bool
    whole: Any = None

    @classmethod
    def of(cls, distribution: Any) -> Recipe:
        """Take a distribution apart, one that `check_distribution` has passed."""
        leaves, tree = jax.tree.flatten(distribution)
        if jax.tree_util.all_leaves([distribution]):
            return cls(None, (), _has_icdf(distribution), distribution)
        return cls(tree, tuple(np.shape(leaf) for leaf in leaves), _has_icdf(distribution))

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return sum(prod(shape) for shape in self.shapes)

    def build(self, numbers: Any) -> Any:
        """Put the distribution together again from its numbers (size,)."""
        if self.tree is None:
            return self.whole
        leaves, first = [], 0
        for shape in self.shapes:
            count = prod(shape)
            leaves.append(jnp.reshape(numbers[first : first + count], shape))
            first += count
        return jax.tree.unflatten(self.tree, leaves)


def numbers_of(distribution: Any) -> list[float]:
    """Return the numbers of a distribution, in the order of its recipe."""
    if jax.tree_util.all_leaves([distribution]):
        return []
    flat = [np.asarray(leaf, dtype=np.float64).ravel() for leaf in jax.tree.leaves(distribution)]
    return np.concatenate(flat).tolist() if flat else []


def cdf_at(distribution: Any, value: float) -> float:
    """Return a distribution's cdf at a number, or at an infinite end."""
    if np.isinf(value):
        return float(value > 0)
    with working_precision("float64"):
        whole = Recipe.of(distribution).build(np.array(numbers_of(distribution)))
        return float(whole.cdf(jnp.asarray(value, jnp.float64)))


def check_distribution(distribution: Any) -> None:
    """Raise UsageError for what can't be a prior of one number."""
    name = getattr(distribution, "__name__", type(distribution).__name__)
    kinds = "Give Normal, HalfNormal, LogNormal, or a distribution that has log_prob and cdf, such as numpyro's."
    if isinstance(distribution, type) or not all(callable(getattr(distribution, n, None)) for n in ("log_prob", "cdf")):
        what = f"the class {name}, without numbers" if isinstance(distribution, type) else name
        raise UsageError(f"prior must be a distribution; got {what}. {kinds}")
    shape = (*getattr(distribution, "batch_shape", ()), *getattr(distribution, "event_shape", ()))
    if shape:
        raise UsageError(f"prior must be a distribution of a single number; got {name} of shape {shape}. Give it scalars.")
    if getattr(distribution, "is_discrete", False):
        raise UsageError(f"prior must have a density; got {name}, a distribution of whole numbers. {kinds}")
    if jax.tree_util.all_leaves([distribution]):
        if getattr(type(distribution), "__hash__", None) is None:
            raise UsageError(f"prior must be a pytree or hashable; got {name}. Make it a frozen dataclass.")
    elif any(np.asarray(leaf).dtype.kind not in "fiu" for leaf in jax.tree.leaves(distribution)):
        raise UsageError(f"prior must hold real numbers; got {name} with other values. {kinds}")
    with working_precision("float64"):
        try:
            whole = Recipe.of(distribution).build(np.array(numbers_of(distribution)))
            at = jnp.asarray(_middle(whole), jnp.float64)
            values = float(whole.cdf(at)), float(whole.log_prob(at))
        except (NotImplementedError, ImportError, AttributeError) as error:
            raise UsageError(
                f"prior must have a density and a cdf; got {name}, which lacks one ({_reason(error)}). {kinds}"
            ) from None
    if not (np.isfinite(values).all() and 0 <= values[0] <= 1):
        raise UsageError(f"prior must be proper, with finite numbers; got {name} with cdf {values[0]:g}. Correct its numbers.")


def _has_icdf(distribution: Any) -> bool:
    """Whether a distribution knows its quantiles; numpyro's base class has a method that only raises."""
    if not callable(getattr(distribution, "icdf", None)):
        return False
    with working_precision("float64"):
        try:
            distribution.icdf(jnp.asarray(0.5))
        except (NotImplementedError, ImportError, AttributeError):
            return False
    return True


def _middle(distribution: Any) -> float:
    """Return a value at which a distribution has a density: its median, or a point of its support."""
    if _has_icdf(distribution):
        return float(distribution.icdf(jnp.asarray(0.5, jnp.float64)))
    support = getattr(distribution, "support", None)
    low, high = (float(np.asarray(getattr(support, n, none))) for n, none in (("lower_bound", -np.inf), ("upper_bound", np.inf)))
    if np.isfinite(low) and np.isfinite(high):
        return 0.5 * (low + high)
    return low + 1.0 if np.isfinite(low) else high - 1.0 if np.isfinite(high) else 0.0


def _reason(error: Exception) -> str:
    text = str(error).split("\n")[0].strip().rstrip(".")
    return text[:80] or type(error).__name__
