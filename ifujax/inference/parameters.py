"""The parameter space: constraints turned into a reparameterisation.

Fixed and tied parameters leave the vector that is fitted; an inequality between parameters
becomes a coordinate measured from the moving bound. What is left lives in a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ifujax.errors import UsageError, unknown
from ifujax.inference.constraints import Expression, dependency_order, parse
from ifujax.inference.declarations import Bounded, Declaration, Fixed, Tied
from ifujax.inference.transforms import box_kind, from_line, to_line


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
    has_prior: bool = False

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def moving(self) -> bool:
        """Whether a bound of it is an expression of other parameters."""
        return self.above is not None or self.below is not None


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


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["lower", "upper", "scale", "fixed", "prior_mean", "prior_sigma"],
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
    prior_mean, prior_sigma : array (n_prior,)
        Gaussian priors, in the order of the entries that have one.
    """

    structure: Structure
    lower: Any
    upper: Any
    scale: Any
    fixed: Any
    prior_mean: Any
    prior_sigma: Any

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
        entries = [_entry(name, item, shapes.get(name, ()), declarations) for name, item in declarations.items()]
        depends = {
            entry.name: [n for e in (entry.expression, entry.above, entry.below) if e is not None for n in e.names]
            for entry in entries
        }
        order = dependency_order(depends)
        declarations = _with_inherited_bounds(declarations, entries, order)
        index = {entry.name: i for i, entry in enumerate(entries)}
        entries = [_entry(e.name, declarations[e.name], e.shape, declarations) for e in entries]
        structure = Structure(tuple(entries), tuple(index[name] for name in order))
        lower, upper, scales, fixed, means, sigmas = [], [], [], [], [], []
        for entry in entries:
            item = declarations[entry.name]
            if isinstance(item, Bounded):
                lower += [item.lower] * entry.size
                upper += [item.upper] * entry.size
                scales += [float(scale.get(entry.name, 1.0))] * entry.size
                if item.prior is not None:
                    means += [item.prior.mean] * entry.size
                    sigmas += [item.prior.sigma] * entry.size
            elif isinstance(item, Fixed):
                fixed += [item.value] * entry.size
        arrays = [np.asarray(values, dtype=np.float64) for values in (lower, upper, scales, fixed, means, sigmas)]
        return cls(structure, *arrays)

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
        starts, position, fixed_at, i_fixed, i_free = {}, 0, {}, 0, 0
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
                position = starts[entry.name]
                items = [self._value(entry, position + k, x[position + k], values) for k in range(entry.size)]
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
                low, high = self._moving_bounds(entry, i, params)
                kind = _moving_kind(entry)
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
                    high.append(jnp.where(_moving_kind(entry) == "both", 1.0, jnp.inf) * jnp.ones_like(self.scale[i]))
        return low, high

    def to_unconstrained(self, x: Sequence[Any]) -> tuple[list[Any], Any]:
        """Map a free vector to the unconstrained one; also return ``log |dx/dz|`` there."""
        low, high = self.box()
        z = [to_line(kind, *item) for kind, item in zip(self._box_kinds(), zip(x, low, high))]
        return z, self.from_unconstrained(z)[1]

    def from_unconstrained(self, z: Sequence[Any]) -> tuple[list[Any], Any]:
        """Map an unconstrained vector to the free one; also return ``log |dx/dz|``."""
        low, high = self.box()
        pairs = [from_line(kind, *item) for kind, item in zip(self._box_kinds(), zip(z, low, high))]
        return [x for x, _ in pairs], sum((jacobian for _, jacobian in pairs), jnp.zeros(()))

    def prior_residuals(self, params: Mapping[str, Any]) -> list[Any]:
        """Return ``(mean - value) / sigma`` for each Gaussian prior: extra rows of the least-squares problem."""
        rows: list[Any] = []
        for entry in self.structure.entries:
            if entry.has_prior:
                flat = [params[entry.name]] if entry.shape == () else list(jnp.reshape(params[entry.name], (entry.size,)))
                for value in flat:
                    rows.append((self.prior_mean[len(rows)] - value) / self.prior_sigma[len(rows)])
        return rows

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
        low, high = self._moving_bounds(entry, i, values)
        kind = _moving_kind(entry)
        if kind == "both":
            return low + x * (high - low)
        return low + x * self.scale[i] if kind == "lower" else high - x * self.scale[i]

    def _moving_bounds(self, entry: Entry, i: int, values: Mapping[str, Any]) -> tuple[Any, Any]:
        """Bounds of a parameter limited by others; where they cross, the fixed bounds win."""
        low, high = self.lower[i], self.upper[i]
        if entry.above is not None:
            low = jnp.clip(entry.above(values), self.lower[i], self.upper[i])
        if entry.below is not None:
            high = jnp.clip(entry.below(values), low, self.upper[i])
        return low, high

    def _box_kinds(self) -> list[Any]:
        kinds: list[Any] = []
        for entry in self.structure.free:
            fixed_kind = box_kind(entry.has_lower, entry.has_upper)
            moving_kind = "both" if entry.moving and _moving_kind(entry) == "both" else "lower"
            kinds += [moving_kind if entry.moving else fixed_kind] * entry.size
        return kinds


def _moving_kind(entry: Entry) -> Literal["both", "lower", "upper"]:
    """Which sides are bounded once the expressions count too; one is, for sure."""
    lower = entry.has_lower or entry.above is not None
    upper = entry.has_upper or entry.below is not None
    return "both" if lower and upper else "lower" if lower else "upper"


def _entry(name: str, item: Declaration, shape: tuple[int, ...], known: Mapping[str, Declaration]) -> Entry:
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
        return Entry(
            name,
            shape,
            "free",
            above=expression(item.above, "lower limit"),
            below=expression(item.below, "upper limit"),
            has_lower=bool(np.isfinite(item.lower)),
            has_upper=bool(np.isfinite(item.upper)),
            has_prior=item.prior is not None,
        )
    raise UsageError(f"{name!r} must be declared with Bounded, Fixed or Tied; got {type(item).__name__}.")


def _with_inherited_bounds(
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
    return replace(item, lower=low, upper=high, start=start)


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
