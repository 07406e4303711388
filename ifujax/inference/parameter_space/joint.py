"""The parameters of one block of a joint fit: shared ones first, then its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from ifujax.inference.parameter_space.space import ParameterSpace, Structure, UnconstrainedSpace


def empty_space() -> ParameterSpace:
    """Return a space without parameters."""
    return ParameterSpace(Structure((), ()), *(np.zeros(0) for _ in range(7)))


@partial(jax.tree_util.register_dataclass, data_fields=["shared", "local"], meta_fields=[])
@dataclass(frozen=True)
class JointSpace:
    """Two spaces seen as one. It has no priors: those of the shared parameters must count once, not once a block."""

    shared: Any
    local: Any

    @property
    def structure(self) -> Structure:
        entries = (*self.shared.structure.entries, *self.local.structure.entries)
        return Structure(tuple(replace(entry, prior=None) for entry in entries), tuple(range(len(entries))))

    def unconstrained(self) -> JointSpace:
        """Return the same with both spaces seen through their bijections."""
        return JointSpace(UnconstrainedSpace(self.shared), UnconstrainedSpace(self.local))

    def unpack(self, x: Sequence[Any]) -> dict[str, Any]:
        n = self.shared.structure.n_free
        return {**self.shared.unpack(x[:n]), **self.local.unpack(x[n:])}

    def prior_residuals(self, params: Mapping[str, Any]) -> list[Any]:
        return []

    def box(self) -> tuple[list[Any], list[Any]]:
        (low, high), (own_low, own_high) = self.shared.box(), self.local.box()
        return [*low, *own_low], [*high, *own_high]
