"""What is static about a parameter space: names, shapes, ties, kinds of bounds and priors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.parameter_space.constraints import Expression, parse
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed, Tied
from ifujax.inference.parameter_space.distributions import Recipe
from ifujax.inference.parameter_space.priors import PriorKind, kind_of


@dataclass(frozen=True)
class Entry:
    """One named parameter, everything about it that is not a number."""

    name: str
    shape: tuple[int, ...]
    kind: Literal["free", "fixed", "tied"]
    expression: Expression | None = None
    above: Expression | None = None
    below: Expression | None = None
    has_lower: bool = False
    has_upper: bool = False
    prior: PriorKind | None = None
    recipe: Recipe | None = None
    """How to make its prior from numbers, where that is a distribution of another kind."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def moving(self) -> bool:
        """Whether a bound of it is an expression of other parameters."""
        return self.above is not None or self.below is not None

    @property
    def has_residual(self) -> bool:
        """Whether its prior is one more residual of a least-squares problem."""
        return self.prior in ("normal", "half_normal")

    @property
    def sides(self) -> tuple[bool, bool]:
        """Whether it is bounded below and above, by numbers or by other parameters."""
        return self.has_lower or self.above is not None, self.has_upper or self.below is not None

    def flat(self, value: Any) -> list[Any]:
        """Return the elements of its value."""
        return [value] if self.shape == () else list(jnp.reshape(value, (self.size,)))


@dataclass(frozen=True)
class Structure:
    """Static half of a parameter space. `order` evaluates every entry after those it needs."""

    entries: tuple[Entry, ...]
    order: tuple[int, ...]

    @property
    def free(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.kind == "free")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.entries)

    @property
    def n_free(self) -> int:
        """Length of the vector that is fitted."""
        return sum(entry.size for entry in self.free)

    @property
    def element_names(self) -> tuple[str, ...]:
        """One name for each element of the fitted vector; arrays get an index."""
        return tuple(entry.name if entry.shape == () else f"{entry.name}[{i}]" for entry in self.free for i in range(entry.size))


def moving_kind(entry: Entry) -> Literal["both", "lower", "upper"]:
    """Which sides are bounded once the expressions count too; one is, for sure."""
    lower, upper = entry.sides
    return "both" if lower and upper else "lower" if lower else "upper"


def entry_of(name: str, item: Declaration, shape: tuple[int, ...], known: Mapping[str, Declaration]) -> Entry:
    """Return the entry of a declared parameter, its expressions parsed."""

    def expression(text: str | None, role: str) -> Expression | None:
        if text is None:
            return None
        if shape != ():
            raise UsageError(f"{role} of {name!r} must belong to a single number; it has shape {shape}.")
        return parse(text, known, where=f"{role} of {name!r}")

    if isinstance(item, Tied):
        return Entry(name, shape, "tied", expression=expression(item.expression, "tie"))
    if isinstance(item, Fixed):
        return Entry(name, shape, "fixed")
    if isinstance(item, Bounded):
        kind = None if item.prior is None else kind_of(item.prior)
        return Entry(
            name,
            shape,
            "free",
            above=expression(item.above, "lower limit"),
            below=expression(item.below, "upper limit"),
            has_lower=bool(np.isfinite(item.lower)),
            has_upper=bool(np.isfinite(item.upper)),
            prior=kind,
            recipe=Recipe.of(item.prior) if kind == "distribution" else None,
        )
    raise UsageError(f"{name!r} must be declared with Bounded, Fixed or Tied; got {type(item).__name__}.")
