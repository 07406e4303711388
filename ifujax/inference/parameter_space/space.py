"""The parameter space: constraints turned into a reparameterisation.

Fixed and tied parameters leave the vector that is fitted; an inequality between parameters
becomes a coordinate measured from the moving bound. What is left lives in a box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ifujax.errors import UsageError, unknown
from ifujax.inference.parameter_space import space_priors
from ifujax.inference.parameter_space.constraints import dependency_order
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed
from ifujax.inference.parameter_space.describe import describe_space
from ifujax.inference.parameter_space.distributions import numbers_of
from ifujax.inference.parameter_space.inheritance import with_inherited_bounds
from ifujax.inference.parameter_space.priors import Prior, location_and_scale
from ifujax.inference.parameter_space.structure import Entry, Structure, entry_of, moving_kind
from ifujax.inference.parameter_space.transforms import BoxKind, box_kind, from_line, to_line

__all__ = ["Entry", "ParameterSpace", "Structure", "UnconstrainedSpace"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["lower", "upper", "scale", "fixed", "prior_mean", "prior_sigma", "prior_numbers"],
    meta_fields=["structure"],
)
@dataclass(frozen=True)
class ParameterSpace:
    """Named parameters of ONE fit and the box in which its free vector lives.

    Build it with `ParameterSpace.build`. The numbers are traced, so that changing them never
    recompiles; with a leading batch axis they differ from fit to fit.

    Attributes
    ----------
    structure : Structure
        Names, shapes, ties: static.
    lower, upper, scale : array (n,) or (batch, n)
        Bounds in the parameters' units, and the size that counts as 1 inside.
    fixed : array (n_fixed,) or (batch, n_fixed)
        Values of fixed parameters.
    prior_mean, prior_sigma : array (n_prior,) or (batch, n_prior)
        Of Gaussian, half-normal and (of the logarithm) log-normal priors, element by element.
    prior_numbers : array (n_numbers,) or (batch, n_numbers)
        What the other distributions are made from, entry by entry.
    """

    structure: Structure
    lower: Any
    upper: Any
    scale: Any
    fixed: Any
    prior_mean: Any
    prior_sigma: Any
    prior_numbers: Any

    @classmethod
    def build(
        cls,
        declarations: Mapping[str, Declaration],
        *,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        scale: Mapping[str, float] | None = None,
    ) -> ParameterSpace:
        """Build a space from declarations.

        Parameters
        ----------
        declarations : mapping of str to Bounded, Fixed or Tied
        shapes : mapping, optional
            Shapes of parameters that are arrays; scalars otherwise.
        scale : mapping, optional
            A typical size of each parameter, 1 by default.

        Raises
        ------
        UsageError
            For unknown names, cycles, bounds on a tie that can't be kept, or no free parameter.
        """
        shapes, scale = dict(shapes or {}), dict(scale or {})
        for name in (*shapes, *scale):
            if name not in declarations:
                raise UsageError(unknown("parameter", name, declarations))
        entries = [entry_of(name, item, shapes.get(name, ()), declarations) for name, item in declarations.items()]
        depends = {
            entry.name: [n for e in (entry.expression, entry.above, entry.below) if e is not None for n in e.names]
            for entry in entries
        }
        order = dependency_order(depends)
        declarations = with_inherited_bounds(declarations, entries, order)
        index = {entry.name: i for i, entry in enumerate(entries)}
        entries = [entry_of(e.name, declarations[e.name], e.shape, declarations) for e in entries]
        structure = Structure(tuple(entries), tuple(index[name] for name in order))
        lower, upper, scales, fixed, means, sigmas, numbers = [], [], [], [], [], [], []
        for entry in entries:
            item = declarations[entry.name]
            if isinstance(item, Bounded):
                lower += [item.lower] * entry.size
                upper += [item.upper] * entry.size
                scales += [float(scale.get(entry.name, 1.0))] * entry.size
                if entry.prior == "distribution":
                    numbers += numbers_of(item.prior)
                elif item.prior is not None:
                    mean, sigma = location_and_scale(item.prior)
                    means += [mean] * entry.size
                    sigmas += [sigma] * entry.size
            elif isinstance(item, Fixed):
                fixed += [item.value] * entry.size
        arrays = [np.asarray(values, dtype=np.float64) for values in (lower, upper, scales, fixed, means, sigmas, numbers)]
        return cls(structure, *arrays)

    @classmethod
    def stack(cls, spaces: Sequence[ParameterSpace]) -> ParameterSpace:
        """Return spaces of one form as one, with a leading batch axis: bounds and other numbers of each fit are its own.

        Parameters
        ----------
        spaces : sequence of ParameterSpace
            The space of each fit, without a batch axis.

        Raises
        ------
        UsageError
            For no spaces at all, or spaces that differ in more than numbers.

        Examples
        --------
        >>> from ifujax import Bounded, ParameterSpace
        >>> spaces = [ParameterSpace.build({"dx": Bounded(middle - 1, middle + 1)}) for middle in (0.0, 0.5)]
        >>> ParameterSpace.stack(spaces).lower
        array([[-1. ],
               [-0.5]])
        """
        if not spaces:
            raise UsageError("spaces must hold one space or more; got none.")
        for each in spaces:
            if each.structure != spaces[0].structure:
                raise UsageError(
                    "spaces must have the same parameters, declared in the same way; got spaces of different structure. "
                    "Fit those of each structure by themselves."
                )
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *spaces)

    def with_scale(self, scale: ArrayLike) -> ParameterSpace:
        """Return a copy with another `scale`, (n,) or (batch, n)."""
        return replace(self, scale=np.asarray(scale, dtype=np.float64))

    @property
    def names(self) -> tuple[str, ...]:
        return self.structure.names

    @property
    def n_free(self) -> int:
        return self.structure.n_free

    def unpack(self, x: Sequence[Any] | Any) -> dict[str, Any]:
        """Return every named parameter of one fit from its free vector `x` (a sequence of scalars).

        Works on scalars: batch it with ``jax.vmap``.
        """
        return self.assemble(lambda entry, i, values: self._value(entry, i, x[i], values))

    def assemble(self, element: Callable[[Entry, int, Mapping[str, Any]], Any]) -> dict[str, Any]:
        """Return every named parameter, `element` giving those of the free vector from the values of what they depend on."""
        starts, fixed_at, i_fixed, i_free = {}, {}, 0, 0
        for entry in self.structure.entries:
            if entry.kind == "free":
                starts[entry.name] = i_free
                i_free += entry.size
            elif entry.kind == "fixed":
                fixed_at[entry.name] = i_fixed
                i_fixed += entry.size
        values: dict[str, Any] = {}
        for i in self.structure.order:
            entry = self.structure.entries[i]
            if entry.kind == "free":
                items = [element(entry, starts[entry.name] + k, values) for k in range(entry.size)]
            elif entry.kind == "fixed":
                items = [self.fixed[fixed_at[entry.name] + k] for k in range(entry.size)]
            else:
                items = [entry.expression(values)]  # type: ignore[misc]
            values[entry.name] = items[0] if entry.shape == () else jnp.stack(items).reshape(entry.shape)
        return {entry.name: values[entry.name] for entry in self.structure.entries}

    def pack(self, params: Mapping[str, Any]) -> list[Any]:
        """Return the free vector of one fit, as a list, from named parameters; the inverse of `unpack`."""
        x: list[Any] = []
        for entry in self.structure.entries:
            if entry.kind != "free":
                continue
            flat = [params[entry.name]] if entry.shape == () else list(jnp.reshape(params[entry.name], (entry.size,)))
            for value in flat:
                i = len(x)
                if not entry.moving:
                    x.append(value / self.scale[i])
                    continue
                low, high = self.moving_bounds(entry, i, params)
                kind = moving_kind(entry)
                if kind == "both":
                    width = high - low
                    x.append(jnp.where(width > 0, (value - low) / jnp.where(width > 0, width, 1.0), 0.5))
                else:
                    x.append((value - low if kind == "lower" else high - value) / self.scale[i])
        return x

    def box(self) -> tuple[list[Any], list[Any]]:
        """Return the lower and upper limits of the free vector of one fit."""
        low: list[Any] = []
        high: list[Any] = []
        for entry in self.structure.free:
            for _ in range(entry.size):
                i = len(low)
                if not entry.moving:
                    low.append(self.lower[i] / self.scale[i])
                    high.append(self.upper[i] / self.scale[i])
                else:
                    low.append(jnp.zeros_like(self.scale[i]))
                    high.append(jnp.where(moving_kind(entry) == "both", 1.0, jnp.inf) * jnp.ones_like(self.scale[i]))
        return low, high

    def to_unconstrained(self, x: Sequence[Any]) -> tuple[list[Any], Any]:
        """Map a free vector to the unconstrained one; also return ``log |dx/dz|`` there."""
        low, high = self.box()
        z = [to_line(kind, *item) for kind, item in zip(self.box_kinds(), zip(x, low, high))]
        return z, self.from_unconstrained(z)[1]

    def from_unconstrained(self, z: Sequence[Any]) -> tuple[list[Any], Any]:
        """Map an unconstrained vector to the free one; also return ``log |dx/dz|``."""
        low, high = self.box()
        pairs = [from_line(kind, *item) for kind, item in zip(self.box_kinds(), zip(z, low, high))]
        return [x for x, _ in pairs], sum((jacobian for _, jacobian in pairs), jnp.zeros(()))

    def log_jacobians(self, z: Sequence[Any]) -> list[Any]:
        """Return ``log |dx/dz|`` of each element at an unconstrained vector."""
        low, high = self.box()
        return [from_line(kind, *item)[1] for kind, item in zip(self.box_kinds(), zip(z, low, high))]

    def prior_residuals(self, params: Mapping[str, Any]) -> list[Any]:
        """Return ``(mean - value) / sigma`` for each Gaussian or half-normal prior: extra rows of the least-squares problem."""
        rows: list[Any] = []
        for place in space_priors.places(self.structure):
            if place.entry.has_residual:
                for k, value in enumerate(place.entry.flat(params[place.entry.name])):
                    at = place.numbers + k
                    rows.append((self.prior_mean[at] - value) / self.prior_sigma[at])
        return rows

    def log_prior(self, x: Sequence[Any]) -> Any:
        """Return the log prior density of the free vector of one fit: the sum of `log_priors`."""
        return sum(self.log_priors(x), jnp.zeros(()))

    def log_priors(self, x: Sequence[Any]) -> list[Any]:
        """Return the log prior density of each element of the free vector of one fit, given those that move its bounds.

        Densities are those of the elements of `x`, not of the parameters in their units, and normalised; 0 for
        what has no proper prior (see `require_proper`). `x` must lie within the box: nothing is checked.
        """
        return space_priors.log_priors(self, x)

    def from_uniform(self, u: Sequence[Any]) -> list[Any]:
        """Return the free vector of one fit whose elements lie at the quantiles `u`, within (0, 1), of their priors.

        It lies within the box, never on its sides. Uniform `u` give draws from the prior.

        Raises
        ------
        UsageError
            For a prior that is not proper.
        """
        self.require_proper()
        return space_priors.from_uniform(self, u)

    def gaussian_prior(self, i: int) -> tuple[Any, Any]:
        """Return mean and sigma of the Gaussian or half-normal prior of element `i` of the free vector, in its units.

        An infinite sigma for a parameter without such a prior.
        """
        return space_priors.gaussian_prior(self, i)

    def require_proper(self) -> None:
        """Raise UsageError that names the free parameters without a proper prior: with an open side and no prior."""
        space_priors.require_proper(self.structure)

    def with_priors(self, priors: Mapping[str, Prior]) -> ParameterSpace:
        """Return a copy in which free parameters that have no prior get one.

        Parameters
        ----------
        priors : mapping of str to prior
            By name. The numbers of `Normal`, `HalfNormal` and `LogNormal` may be arrays (batch,), one for each fit. Bounds
            are narrowed as in `Bounded`; a prior that was declared stays.

        Raises
        ------
        UsageError
            For a name that is no free parameter, or a prior that does not suit the bounds.
        """
        return space_priors.with_priors(self, priors)

    def describe(self) -> str:
        """Return a table of all parameters: bounds, prior, or what they are fixed at or tied to."""
        return describe_space(self)

    def broadcast(self, batch: int, dtype: Any = np.float64) -> ParameterSpace:
        """Return the space with every number given a leading batch axis (NumPy)."""

        def expand(leaf: Any) -> np.ndarray:
            leaf = np.asarray(leaf, dtype=dtype)
            if leaf.ndim == 2 and leaf.shape[0] != batch:
                raise UsageError(f"parameter numbers must be (n,) or ({batch}, n); got shape {leaf.shape}.")
            return np.broadcast_to(leaf, (batch, leaf.shape[-1]))

        return jax.tree.map(expand, self)

    def _value(self, entry: Entry, i: int, x: Any, values: Mapping[str, Any]) -> Any:
        if not entry.moving:
            return x * self.scale[i]
        low, high = self.moving_bounds(entry, i, values)
        kind = moving_kind(entry)
        if kind == "both":
            return low + x * (high - low)
        return low + x * self.scale[i] if kind == "lower" else high - x * self.scale[i]

    def moving_bounds(self, entry: Entry, i: int, values: Mapping[str, Any]) -> tuple[Any, Any]:
        """Bounds of a parameter limited by others; where they cross, the fixed bounds win."""
        low, high = self.lower[i], self.upper[i]
        if entry.above is not None:
            low = jnp.clip(entry.above(values), self.lower[i], self.upper[i])
        if entry.below is not None:
            high = jnp.clip(entry.below(values), low, self.upper[i])
        return low, high

    def box_kinds(self) -> list[BoxKind]:
        """Return which sides of the box of each element there are."""
        kinds: list[BoxKind] = []
        for entry in self.structure.free:
            fixed_kind: BoxKind = box_kind(entry.has_lower, entry.has_upper)
            # Measured from the bound that moves, whichever side it is on: from 0 upwards.
            moved_kind: BoxKind = "both" if entry.moving and moving_kind(entry) == "both" else "lower"
            kinds.extend(moved_kind if entry.moving else fixed_kind for _ in range(entry.size))
        return kinds


@partial(jax.tree_util.register_dataclass, data_fields=["space"], meta_fields=[])
@dataclass(frozen=True)
class UnconstrainedSpace:
    """A parameter space seen through its bijections: the free vector is unbounded."""

    space: ParameterSpace

    @property
    def structure(self) -> Structure:
        return self.space.structure

    def unpack(self, z: Sequence[Any]) -> dict[str, Any]:
        return self.space.unpack(self.space.from_unconstrained(z)[0])

    def prior_residuals(self, params: Mapping[str, Any]) -> list[Any]:
        return self.space.prior_residuals(params)

    def box(self) -> tuple[list[Any], list[Any]]:
        low, high = self.space.box()
        return [jnp.full_like(v, -jnp.inf) for v in low], [jnp.full_like(v, jnp.inf) for v in high]
