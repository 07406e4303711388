"""What a file of posterior draws holds: variables, dimensions, names and units; and the same as datasets of xarray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.errors import UsageError, unknown

if TYPE_CHECKING:
    import xarray

POSTERIOR, STATISTICS = "posterior", "sample_stats"
"""Names of the groups, as ArviZ has them."""


@dataclass(frozen=True)
class Variable:
    """What a variable of the file holds.

    Attributes
    ----------
    dim : str
        Dimension beside (chain, draw, y, x), such as "line"; empty for none.
    unit, long_name : str
    dtype : str
        Only of statistics: draws are float32.
    attributes : mapping
        Further attributes: text, numbers, or sequences of numbers.
    """

    dim: str = ""
    unit: str = ""
    long_name: str = ""
    dtype: str = "float32"
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> float:
        """What a statistic is where there is none: NaN, or 0 for integers."""
        return np.nan if np.dtype(self.dtype).kind == "f" else 0

    def described(self) -> dict[str, Any]:
        """Return all attributes."""
        named = {"units": self.unit, "long_name": self.long_name}
        return {name: text for name, text in named.items() if text} | plain_attributes(self.attributes)


@dataclass(frozen=True)
class PosteriorLayout:
    """Shape and names of the draws of a cube.

    Attributes
    ----------
    shape : (int, int)
        (y, x)
    chains, draws : int
        Draws of each chain.
    coords : mapping of str to sequence of str or int
        Names along each further dimension: ``{"line": ("ha", "n2b"), "coefficient": (0, 1)}``.
    variables : mapping of str to Variable
        Of the group "posterior".
    statistics : mapping of str to Variable
        Maps of the group "sample_stats". Without a value they are NaN, integers 0.
    attributes : mapping
        Of the file and of both groups: versions, seed, configuration.

    Examples
    --------
    >>> layout = PosteriorLayout((20, 20), 4, 250, {"line": ("ha",)}, {"flux": Variable("line", "erg s-1 cm-2")})
    >>> layout.block_shape("flux")
    (4, 250, 1)
    """

    shape: tuple[int, int]
    chains: int
    draws: int
    coords: Mapping[str, Sequence[str] | Sequence[int]]
    variables: Mapping[str, Variable]
    statistics: Mapping[str, Variable] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(*self.shape, self.chains, self.draws) < 1:
            raise UsageError(f"shape, chains and draws must be 1 or more; got {self.shape}, {self.chains}, {self.draws}.")
        for name, variable in self.variables.items():
            if name in self.coords:
                raise UsageError(f"variables must not be named like a dimension; got {name!r}. Rename one of the two.")
            if variable.dim and variable.dim not in self.coords:
                raise UsageError(f"variable {name!r}: " + unknown("dimension", variable.dim, self.coords))

    def block_shape(self, variable: str) -> tuple[int, ...]:
        """Return the shape of one spaxel's draws."""
        dim = self.variables[variable].dim
        return (self.chains, self.draws, len(self.coords[dim])) if dim else (self.chains, self.draws)

    def dims(self, variable: str) -> tuple[str, ...]:
        """Return the names of the dimensions."""
        dim = self.variables[variable].dim
        return ("chain", "draw", dim, "y", "x") if dim else ("chain", "draw", "y", "x")

    def described(self) -> dict[str, Any]:
        """Return the attributes of the file and the groups."""
        made = {"created_at": datetime.now(UTC).isoformat(timespec="seconds"), "creation_library": "ifujax"}
        return made | plain_attributes(self.attributes)

    def coordinates(self) -> dict[str, np.ndarray]:
        """Return the values along every dimension: 0-based pixels along y and x."""
        own = {name: np.asarray(values) for name, values in self.coords.items()}
        sizes = {"chain": self.chains, "draw": self.draws, "y": self.shape[0], "x": self.shape[1]}
        return own | {name: np.arange(size, dtype=np.int32) for name, size in sizes.items()}


def datasets(
    layout: PosteriorLayout, rows: np.ndarray, draws: Mapping[str, np.ndarray], statistics: Mapping[str, np.ndarray]
) -> dict[str, xarray.Dataset]:
    """Return draws in memory as what is read of a file of them: a dataset for each group.

    Parameters
    ----------
    layout : PosteriorLayout
    rows : (n,) array of int
        Flat indices ``y * n_x + x``; the other spaxels are NaN.
    draws : mapping of str to array (n, chain, draw) or (n, chain, draw, elements)
    statistics : mapping of str to array (n,), or to whole maps [y, x]
    """
    import xarray

    every = layout.coordinates()
    contents: dict[str, dict[str, Any]] = {POSTERIOR: {}, STATISTICS: {}}
    for name, values in draws.items():
        flat = np.full((*layout.block_shape(name), layout.shape[0] * layout.shape[1]), np.nan, np.float32)
        flat[..., rows] = np.moveaxis(values, 0, -1)
        image = flat.reshape(*flat.shape[:-1], *layout.shape)
        contents[POSTERIOR][name] = (layout.dims(name), image, layout.variables[name].described())
    for name, values in statistics.items():
        each = layout.statistics[name]
        image = np.full(layout.shape, each.missing, each.dtype)
        if np.shape(values) == layout.shape:
            image[...] = values
        else:
            image.flat[rows] = values
        contents[STATISTICS][name] = (("y", "x"), image, each.described())
    result = {}
    for group, variables in contents.items():
        used = {dim for dims, _, _ in variables.values() for dim in dims}
        result[group] = xarray.Dataset(
            variables, {name: values for name, values in every.items() if name in used}, layout.described()
        )
    return result


def spaxel_datasets(
    layout: PosteriorLayout, row: int, draws: Mapping[str, np.ndarray], statistics: Mapping[str, Any]
) -> dict[str, xarray.Dataset]:
    """Return the draws (chain, draw) or (chain, draw, elements) of one spaxel as datasets without y and x.

    `statistics` are numbers. The place of the spaxel is in the coordinates ``x`` and ``y``.
    """
    alone = replace(layout, shape=(1, 1))
    groups = datasets(
        alone,
        np.zeros(1, int),
        {name: np.asarray(values)[None] for name, values in draws.items()},
        {name: np.reshape(value, (1, 1)) for name, value in statistics.items()},
    )
    y, x = divmod(row, layout.shape[1])
    return {name: group.assign_coords(y=[y], x=[x]).isel(y=0, x=0) for name, group in groups.items()}


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as netCDF can hold them: text, numbers, and sequences of numbers; nothing for None."""
    plain = {}
    for name, value in attributes.items():
        if isinstance(value, (bool, np.bool_)):
            plain[name] = np.int8(value)
        elif isinstance(value, (str, int, float, np.number)):
            plain[name] = value
        elif isinstance(value, (Sequence, np.ndarray)) and np.asarray(value).dtype.kind in "iuf":
            plain[name] = np.asarray(value)
        elif value is not None:
            plain[name] = str(value)
    return plain
