"""A tree of batched arrays as one array: one transfer from a device in place of a hundred."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@partial(jax.tree_util.register_dataclass, data_fields=["array"], meta_fields=["tree", "shapes"])
@dataclass(frozen=True)
class Packed:
    """Leaves side by side: `array` (batch, numbers); `shapes` those of the leaves of `tree` without the batch."""

    array: Array
    tree: Any
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, values: Any, dtype: Any) -> Packed:
        """Pack a tree of arrays (batch, ...); traced."""
        leaves, tree = jax.tree.flatten(values)
        flat = [leaf.reshape(leaf.shape[0], -1).astype(dtype) for leaf in leaves]
        return cls(jnp.concatenate(flat, axis=1), tree, tuple(leaf.shape[1:] for leaf in leaves))

    def unpacked(self, array: np.ndarray) -> Any:
        """Return the tree of a packed array (n, numbers): views of it."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        leaves = [
            array[:, end - math.prod(shape) : end].reshape(len(array), *shape) for end, shape in zip(ends.tolist(), self.shapes)
        ]
        return jax.tree.unflatten(self.tree, leaves)
