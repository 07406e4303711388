"""IFSCube's vector of free parameters, beside ours: it keeps those that equality constraints remove here."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifujax.inference.batching import padded
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed, Tied
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import working_precision
from ifujax.lines.config import SHAPE_PARAMETERS, Line
from ifujax.lines.ifscube.stopping import Moves
from ifujax.lines.setup import Setup
from ifujax.lines.starts.packing import pack_named

_BLOCK = 64
"""Spectra a compiled call."""
_ROUNDING = 1e-12
"""What packing a solution again may move it by, relative to 1."""


class Packing:
    """What IFSCube packs: one amplitude a line, the rest once a kinematic group.

    Attributes
    ----------
    packed : array (n_packed, lines, 3 or 5)
        Change of the table of amplitude, velocity, sigma[, h3, h4] with each packed parameter: 1 or 0, and for the lines
        that share the scale of a fixed one (section 5.5) their ratio to it.
    is_amplitude : array (n_packed,) bool
    packed_names, declared, leaders
        Name and declaration of each packed parameter, and its first entry (line, slot).
    shares_scale : bool
        Whether fixed lines share the scale of the first of them.
    n_constraints : int
        Equalities and inequalities, which all count as lost degrees of freedom.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        roles = SHAPE_PARAMETERS[setup.lines[0].shape]
        shape = (len(setup.lines), 1 + len(roles))
        packed: list[np.ndarray] = []
        declared: list[Declaration] = []
        leading: list[Line] = []
        for i, line in enumerate(setup.lines):
            item = line.strength_declaration
            if isinstance(item, Fixed) or _follows(line):
                continue
            packed.append(_entries(shape, i, 0))
            declared.append(item)
            leading.append(line)
        for number in range(max(setup.groups) + 1):
            members = [group == number for group in setup.groups]
            group = setup.lines[members.index(True)].kinematics
            for slot, role in enumerate(roles, start=1):
                item = getattr(group, role)
                if not isinstance(item, Fixed):
                    packed.append(_entries(shape, members, slot))
                    declared.append(item)
        self.packed, self.declared = np.stack(packed), tuple(declared)
        self.leaders = [tuple(np.argwhere(entries == 1.0)[0]) for entries in packed]
        self.packed_names = tuple(f"{setup.lines[line].name}.{('amplitude', *roles)[slot]}" for line, slot in self.leaders)
        self.n_constraints = sum(_constraints(item) for item in declared)
        self.is_amplitude = np.arange(len(packed)) < len(leading)
        followed = any(_follows(line) for line in setup.lines)
        self.shares_scale = followed
        self._scales = [(q, f"{line.name}.amplitude") for q, line in enumerate(leading) if followed and _is_fixed(line)]

    @property
    def n_packed(self) -> int:
        """Number of packed parameters."""
        return len(self.packed)

    def moves(self, space: ParameterSpace, solution: np.ndarray, scale: np.ndarray) -> Moves:
        """Return how parameters move the tables of `solution` (n, parameters), which must be finite.

        Parameters
        ----------
        space : ParameterSpace
            As it was fitted.
        solution : array (n, parameters)
            In the order of the model's `parameter_names`.
        scale : array (n,)
            From `flux_scale`.
        """
        n, names = len(solution), self.setup.model.parameter_names
        way = dict(zip(names, solution.T))
        x = pack_named(self.setup, space, way, n)[0]
        wide = space.broadcast(n)
        parts = []
        with working_precision("float64"):
            for first in range(0, n, _BLOCK):
                block = padded(np.arange(first, min(first + _BLOCK, n)), _BLOCK)
                mine = jax.tree.map(lambda leaf, block=block: leaf[block], wide)
                found = _linearised(names, mine, x[block])
                parts.append([np.asarray(array)[: n - first] for array in found])
        tangent, lower, upper = (np.concatenate([part[k] for part in parts]) for k in range(3))
        tangent = np.moveaxis(tangent, 1, 2).reshape(n, x.shape[1], *self.packed.shape[1:])
        packed = self.packed.copy()
        for q, name in self._scales:
            moved = tangent[0, self.setup.space.structure.element_names.index(name)]
            packed[q] = moved / moved[self.packed[q] == 1.0]
        unit = np.where(self.is_amplitude, scale[:, None], 1.0)
        return Moves(packed, unit, tangent, x, lower, upper)

    def at_bound(self, space: ParameterSpace, solution: np.ndarray) -> np.ndarray:
        """Return which free parameters (n, n_free) of `solution` (n, parameters), which must be finite, lie at their bounds."""
        n = len(solution)
        x = pack_named(self.setup, space, dict(zip(self.setup.model.parameter_names, solution.T)), n)[0]
        # All rows at once, on columns: a vmap would compile anew for every number of them.
        with working_precision("float64"):
            sides = jax.tree.map(np.transpose, space.broadcast(n)).box()
        low, high = (np.stack([np.broadcast_to(np.asarray(side), n) for side in each], axis=1) for each in sides)
        near = _ROUNDING * (1.0 + np.abs(x))
        return np.asarray((x <= low + near) | (x >= high - near))


def _entries(shape: tuple[int, int], lines: Any, slot: int) -> np.ndarray:
    entries = np.zeros(shape)
    entries[lines, slot] = 1.0
    return entries


def _is_fixed(line: Line) -> bool:
    return isinstance(line.kinematics.velocity, Fixed) and isinstance(line.kinematics.velocity_dispersion, Fixed)


def _follows(line: Line) -> bool:
    """Whether the line is one of IFSCube's fixed features, scaled with the first of them."""
    return _is_fixed(line) and isinstance(line.strength_declaration, Tied)


def _constraints(item: Declaration) -> int:
    if isinstance(item, Tied):
        return 1
    return (item.above is not None) + (item.below is not None) if isinstance(item, Bounded) else 0


@partial(jax.jit, static_argnums=0)
def _linearised(names: tuple[str, ...], space: ParameterSpace, x: Any) -> Any:
    """Jacobian of the named parameters (n, parameters, n_free), and the limits of the free vector."""

    def row(space: ParameterSpace, x: Any) -> Any:
        def values(x: Any) -> Any:
            params = space.unpack(x)
            return jnp.stack([params[name] for name in names])

        low, high = space.box()
        return jax.jacfwd(values)(x), jnp.stack(low), jnp.stack(high)

    return jax.vmap(row)(space, x)
