"""Which free parameters enter a model linearly, so that they can be integrated out.

A parameter does where the model says so (``model.linear_in``) and what else was declared leaves it so: its prior is
uniform or Gaussian, its bounds don't move, and all that is tied to it follows it in a straight line and enters linearly too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ifujax.inference.parameter_space.space import Structure


@dataclass(frozen=True)
class Split:
    """Positions in the free vector: those that are sampled, and those that are integrated given the others."""

    sampled: tuple[int, ...]
    integrated: tuple[int, ...]


def split(model: Any, structure: Structure) -> Split:
    """Sort the elements of the free vector."""
    allowed = set(getattr(model, "linear_in", ()))
    spoiled: set[str] = set()
    for entry in structure.entries:
        for bound in (entry.above, entry.below):
            if bound is not None:
                spoiled |= set(bound.names)
    # Last things first: what is spoiled passes it on to what it follows.
    for i in reversed(structure.order):
        entry = structure.entries[i]
        if entry.expression is not None:
            straight = entry.expression.affine() is not None
            if entry.name not in allowed or entry.name in spoiled or not straight:
                spoiled |= set(entry.expression.names)
    integrated, sampled, position = [], [], 0
    for entry in structure.free:
        linear = (
            entry.name in allowed
            and entry.name not in spoiled
            and entry.shape == ()
            and not entry.moving
            and entry.prior in (None, "normal", "half_normal")
        )
        (integrated if linear else sampled).extend(range(position, position + entry.size))
        position += entry.size
    if not sampled:  # all is linear: samplers need something to move
        sampled.append(integrated.pop(0))
    return Split(tuple(sampled), tuple(integrated))
