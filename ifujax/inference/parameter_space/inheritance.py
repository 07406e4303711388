"""Bounds of tied parameters, handed on to the free ones that they follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.parameter_space.declarations import Declaration, Fixed, Tied

if TYPE_CHECKING:
    from ifujax.inference.parameter_space.structure import Entry


def with_inherited_bounds(
    declarations: Mapping[str, Declaration], entries: Sequence[Entry], order: Sequence[str]
) -> dict[str, Declaration]:
    """Hand the bounds of tied parameters on to the free ones that they follow.

    A bound on ``b = 3 a + 1`` is a bound on `a`. Where a tie follows several parameters the bound
    must already hold for all values that theirs allow.
    """
    result = dict(declarations)
    by_name = {entry.name: entry for entry in entries}
    for name in reversed(order):
        item = result[name]
        if not isinstance(item, Tied) or (np.isneginf(item.lower) and np.isposinf(item.upper)):
            continue
        affine = by_name[name].expression.affine()  # type: ignore[union-attr]
        if affine is None:
            raise UsageError(_cannot_keep(name, item))
        factors = {n: f for n, f in affine[0].items() if f != 0}
        if len(factors) == 1:
            (other, factor), constant = next(iter(factors.items())), affine[1]
            ends = sorted([(item.lower - constant) / factor, (item.upper - constant) / factor])
            result[other] = _narrowed(other, result[other], ends[0], ends[1], name)
        elif not _range_within(factors, affine[1], result, item):
            raise UsageError(_cannot_keep(name, item))
    return result


def _narrowed(name: str, item: Declaration, lower: float, upper: float, because: str) -> Declaration:
    if isinstance(item, Fixed):
        if not lower <= item.value <= upper:
            raise UsageError(f"fixed value of {name!r} must suit the bounds of {because!r}; got {item.value:g}.")
        return item
    low, high = max(item.lower, lower), min(item.upper, upper)
    if not low < high:
        raise UsageError(f"bounds of {because!r} must leave room for {name!r}; got none. Widen one of them.")
    if isinstance(item, Tied):
        return replace(item, lower=low, upper=high)
    start = item.start
    if isinstance(start, (int, float)):
        start = float(np.clip(start, low, high))
    try:
        return replace(item, lower=low, upper=high, start=start)
    except UsageError as error:
        raise UsageError(f"{name!r}, with the bounds of {because!r}: {error}") from None


def _range_within(factors: Mapping[str, float], constant: float, items: Mapping[str, Declaration], tie: Tied) -> bool:
    low = high = constant
    for name, factor in factors.items():
        item = items[name]
        ends = (item.value, item.value) if isinstance(item, Fixed) else (item.lower, item.upper)
        low += min(factor * ends[0], factor * ends[1])
        high += max(factor * ends[0], factor * ends[1])
    return bool(tie.lower <= low and high <= tie.upper)


def _cannot_keep(name: str, item: Tied) -> str:
    return (
        f"bounds of {name!r} must follow from those of what it is tied to; {item.expression!r} can leave "
        f"[{item.lower:g}, {item.upper:g}]. Remove these bounds, or bound the other parameters."
    )
