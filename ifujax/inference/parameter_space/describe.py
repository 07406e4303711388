"""A parameter space as a table of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.inference.parameter_space.priors import number_text, spelled
from ifujax.inference.parameter_space.space_priors import Place, places
from ifujax.inference.parameter_space.structure import Entry

if TYPE_CHECKING:
    from ifujax.inference.parameter_space.space import ParameterSpace

_HEAD = ("parameter", "bounds", "prior", "fixed or tied")


def describe_space(space: ParameterSpace) -> str:
    """Return a table: parameter, bounds, prior, and what a parameter that is not free is fixed at or tied to."""
    at = {place.entry.name: place for place in places(space.structure)}
    rows: list[tuple[str, ...]] = [_HEAD]
    n_fixed = 0
    for entry in space.structure.entries:
        name = entry.name if entry.shape == () else f"{entry.name} {list(entry.shape)}"
        if entry.kind == "free":
            rows.append((name, _bounds(space, at[entry.name]), _prior(space, at[entry.name]), ""))
        elif entry.kind == "fixed":
            rows.append((name, "", "", number_text(np.asarray(space.fixed)[..., n_fixed : n_fixed + entry.size])))
            n_fixed += entry.size
        else:
            rows.append((name, "", "", "" if entry.expression is None else f"= {entry.expression.text}"))
    widths = [max(len(row[c]) for row in rows) for c in range(len(_HEAD))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def _bounds(space: ParameterSpace, place: Place) -> str:
    entry, at = place.entry, slice(place.first, place.first + place.entry.size)
    ends = [number_text(np.asarray(side)[..., at]) for side in (space.lower, space.upper)]
    low = _end(ends[0], entry.has_lower, entry.above, "max")
    high = _end(ends[1], entry.has_upper, entry.below, "min")
    return f"{low or '-inf'} to {high or 'inf'}" if low or high else "none"


def _end(number: str, has_number: bool, expression: Any, joined: str) -> str:
    if expression is None:
        return number if has_number else ""
    return f"{joined}({number}, {expression.text})" if has_number else expression.text


def _prior(space: ParameterSpace, place: Place) -> str:
    entry = place.entry
    if entry.prior is None:
        return "uniform" if all(entry.sides) else "none (improper)"
    if entry.recipe is not None:
        numbers = np.asarray(space.prior_numbers)[..., place.numbers : place.numbers + entry.recipe.size]
        return spelled(entry.recipe.build(numbers.reshape(-1, entry.recipe.size)[0]))
    return _gaussian(space, entry, slice(place.numbers, place.numbers + entry.size))


def _gaussian(space: ParameterSpace, entry: Entry, at: slice) -> str:
    mean, sigma = np.asarray(space.prior_mean)[..., at], np.asarray(space.prior_sigma)[..., at]
    if entry.prior == "half_normal":
        return f"HalfNormal({number_text(sigma)})"
    if entry.prior == "log_normal":
        return f"LogNormal({number_text(np.exp(mean))}, {number_text(sigma)})"
    return f"Normal({number_text(mean)}, {number_text(sigma)})"
