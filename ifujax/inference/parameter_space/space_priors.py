"""The priors of a parameter space: density and quantiles of its free vector, and which of them are proper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ifujax.errors import UsageError, unknown
from ifujax.inference.parameter_space import densities
from ifujax.inference.parameter_space.distributions import Recipe, numbers_of
from ifujax.inference.parameter_space.priors import Prior, check_prior, kind_of, location_and_scale, support_of
from ifujax.inference.parameter_space.structure import Entry, Structure, moving_kind

if TYPE_CHECKING:
    from ifujax.inference.parameter_space.space import ParameterSpace


@dataclass(frozen=True)
class Place:
    """A free entry, the position of its elements in the free vector, and that of its prior's numbers among their like."""

    entry: Entry
    first: int
    numbers: int


def places(structure: Structure) -> list[Place]:
    """Return the free entries with their places, in order."""
    found: list[Place] = []
    first = gaussian = other = 0
    for entry in structure.free:
        found.append(Place(entry, first, other if entry.prior == "distribution" else gaussian))
        first += entry.size
        if entry.recipe is not None:
            other += entry.recipe.size
        elif entry.prior is not None:
            gaussian += entry.size
    return found


def log_priors(space: ParameterSpace, x: Sequence[Any]) -> list[Any]:
    """Return the log prior density of each element of a free vector."""
    values = space.unpack(x)
    found: list[Any] = []
    for place in places(space.structure):
        for k, value in enumerate(place.entry.flat(values[place.entry.name])):
            found.append(_log_density(space, place, k, value, values))
    return found


def _log_density(space: ParameterSpace, place: Place, k: int, value: Any, values: Mapping[str, Any]) -> Any:
    entry, i = place.entry, place.first + k
    low, high = _limits(space, entry, i, values)
    moves = entry.moving and moving_kind(entry) == "both"
    if entry.prior is None and (moves or low is None or high is None):
        return jnp.zeros_like(value)  # uniform in the share of the way between bounds that move; or not proper
    unit = high - low if moves and low is not None and high is not None else space.scale[i]
    if entry.prior is None:
        return jnp.log(unit) - jnp.log(high - low)  # type: ignore[operator]
    if entry.recipe is not None:
        density = densities.distribution_log_density(_distribution(space, place), value, low, high)
    else:
        function = densities.log_normal_log_density if entry.prior == "log_normal" else densities.normal_log_density
        at = place.numbers + k
        density = function(value, space.prior_mean[at], space.prior_sigma[at], low, high)
    # Where bounds that move have met, the element does nothing, and is uniform.
    return jnp.where(unit > 0, density + jnp.log(jnp.where(unit > 0, unit, 1.0)), 0.0)


def from_uniform(space: ParameterSpace, u: Sequence[Any]) -> list[Any]:
    """Return the free vector at quantiles `u` of the priors."""
    by_name = {place.entry.name: place for place in places(space.structure)}

    def value_of(entry: Entry, i: int, values: Mapping[str, Any]) -> Any:
        place = by_name[entry.name]
        low, high = _limits(space, entry, i, values)
        if entry.prior is None:
            return low + u[i] * (high - low)
        if entry.recipe is not None:
            distribution = _distribution(space, place)
            return densities.distribution_quantile(distribution, u[i], low, high, has_icdf=entry.recipe.has_icdf)
        function = densities.log_normal_quantile if entry.prior == "log_normal" else densities.normal_quantile
        at = place.numbers + i - place.first
        return function(u[i], space.prior_mean[at], space.prior_sigma[at], low, high)

    x = space.pack(space.assemble(value_of))
    return [_inside(kind, *item) for kind, item in zip(space.box_kinds(), zip(x, *space.box()))]


def _inside(kind: str, x: Any, low: Any, high: Any) -> Any:
    """Keep rounding from putting an element on a side of its box, which lies at infinity for samplers."""
    info = jnp.finfo(x.dtype)
    if kind in ("both", "lower"):
        x = jnp.maximum(x, low + 2.0 * info.eps * jnp.abs(low) + info.tiny)
    if kind in ("both", "upper"):
        x = jnp.minimum(x, high - 2.0 * info.eps * jnp.abs(high) - info.tiny)
    return x


def gaussian_prior(space: ParameterSpace, i: int) -> tuple[Any, Any]:
    """Return mean and sigma of the Gaussian prior of element `i`, in units of the free vector."""
    for place in places(space.structure):
        k = i - place.first
        if 0 <= k < place.entry.size and place.entry.has_residual:
            at = place.numbers + k
            return space.prior_mean[at] / space.scale[i], space.prior_sigma[at] / space.scale[i]
    return jnp.zeros_like(space.scale[i]), jnp.full_like(space.scale[i], jnp.inf)


def _limits(space: ParameterSpace, entry: Entry, i: int, values: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the bounds of element `i`, None for a side without."""
    low, high = space.moving_bounds(entry, i, values) if entry.moving else (space.lower[i], space.upper[i])
    has_lower, has_upper = entry.sides
    return low if has_lower else None, high if has_upper else None


def _distribution(space: ParameterSpace, place: Place) -> Any:
    recipe: Recipe = place.entry.recipe  # type: ignore[assignment]
    return recipe.build(space.prior_numbers[place.numbers : place.numbers + recipe.size])


def require_proper(structure: Structure) -> None:
    """Raise UsageError that names the free parameters without a proper prior."""
    names = [entry.name for entry in structure.free if entry.prior is None and not all(entry.sides)]
    if names:
        raise UsageError(
            f"priors must be proper to be sampled; {', '.join(names)} {'has' if len(names) == 1 else 'have'} neither two bounds "
            f"nor a prior. Give bounds on both sides, or a prior: Bounded(..., prior=Normal(mean, sigma)), in a configuration "
            f"file 'prior: {names[0].rsplit('.', 1)[-1]} ~ normal(mean, sigma)'."
        )


def with_priors(space: ParameterSpace, priors: Mapping[str, Prior]) -> ParameterSpace:
    """Return a space in which free parameters without a prior get one."""
    free = [entry.name for entry in space.structure.free]
    for name in priors:
        if name not in free:
            raise UsageError(unknown("free parameter", name, free))
    lower, upper = (np.array(side, dtype=np.float64) for side in (space.lower, space.upper))
    at = {place.entry.name: place for place in places(space.structure)}
    entries, means, sigmas, numbers = [], [], [], []
    for entry in space.structure.entries:
        place = at.get(entry.name)
        prior = priors.get(entry.name) if entry.prior is None else None
        if place is not None and prior is not None:
            entry = _with_prior(place, prior, lower, upper)
            if entry.recipe is not None:
                numbers += numbers_of(prior)
            else:
                mean, sigma = location_and_scale(prior)
                means += [mean] * entry.size
                sigmas += [sigma] * entry.size
        elif place is not None and entry.recipe is not None:
            numbers += _columns(space.prior_numbers, place.numbers, entry.recipe.size)
        elif place is not None and entry.prior is not None:
            means += _columns(space.prior_mean, place.numbers, entry.size)
            sigmas += _columns(space.prior_sigma, place.numbers, entry.size)
        entries.append(entry)
    return replace(
        space,
        structure=replace(space.structure, entries=tuple(entries)),
        lower=lower,
        upper=upper,
        prior_mean=_stacked(means),
        prior_sigma=_stacked(sigmas),
        prior_numbers=_stacked(numbers),
    )


def _with_prior(place: Place, prior: Prior, lower: np.ndarray, upper: np.ndarray) -> Entry:
    """Return an entry with a prior; its bounds in `lower` and `upper` are narrowed in place."""
    entry = place.entry
    low, high = support_of(prior)
    for i in range(place.first, place.first + entry.size):
        lower[..., i], upper[..., i] = np.maximum(lower[..., i], low), np.minimum(upper[..., i], high)
        if not (lower[..., i] < upper[..., i]).all():
            raise UsageError(f"bounds of {entry.name!r} must leave room for its prior; got none. Widen them.")
        try:
            check_prior(prior, lower[..., i], upper[..., i])
        except UsageError as error:
            raise UsageError(f"{entry.name!r}: {error}") from None
    has_lower, has_upper = entry.has_lower or bool(np.isfinite(low)), entry.has_upper or bool(np.isfinite(high))
    kind = kind_of(prior)
    recipe = Recipe.of(prior) if kind == "distribution" else None
    return replace(entry, prior=kind, recipe=recipe, has_lower=has_lower, has_upper=has_upper)


def _columns(array: Any, first: int, count: int) -> list[np.ndarray]:
    return [np.asarray(array)[..., i] for i in range(first, first + count)]


def _stacked(columns: Sequence[Any]) -> np.ndarray:
    """Join columns, numbers or (batch,), to (n,) or (batch, n)."""
    arrays = np.broadcast_arrays(*(np.asarray(column, dtype=np.float64) for column in columns)) if columns else []
    return np.stack(arrays, axis=-1) if columns else np.zeros(0)
