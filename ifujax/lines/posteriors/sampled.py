"""The draws of some spaxels as arrays: which variables there are, their summaries, and what is known of each spaxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.sampling.draws import Draws
from ifujax.inference.status import NO_FIT, NOT_ASKED
from ifujax.lines.chunk import LINE_QUANTITIES, SHAPE_QUANTITIES
from ifujax.lines.posteriors.quantities import log_ratio
from ifujax.lines.posteriors.selection import Chosen
from ifujax.lines.posteriors.summaries import STATISTICS, summarise
from ifujax.models.emission import EmissionSpectrum

LARGEST_IN_MEMORY = 4e9
"""Bytes of draws that are held in memory at most."""
RATIO, WIDTH, CONTINUUM = "ratio", "velocity_width", "continuum"
"""Variables that do not belong to a line."""
DIAGNOSTICS = {
    "tier": np.int8,
    "khat": np.float32,
    "ess": np.float32,
    "rhat": np.float32,
    "ess_bulk": np.float32,
    "ess_tail": np.float32,
    "divergences": np.int32,
    "status": np.int32,
}
"""What is known of each spaxel's draws, and as which type it is kept."""


@dataclass(frozen=True)
class Layout:
    """Variables of a posterior: one for each quantity of the lines, and those of ratios, velocity widths and the continuum.

    Attributes
    ----------
    lines, quantities : tuple of str
    ratios : tuple of (numerator, denominator)
    groups : tuple of tuple of str
        Lines whose velocity width is measured together.
    n_continuum : int
        Coefficients of the continuum.
    chains, draws : int
        Draws of each chain.
    """

    lines: tuple[str, ...]
    quantities: tuple[str, ...]
    ratios: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, ...], ...]
    n_continuum: int
    chains: int
    draws: int

    @classmethod
    def of(
        cls,
        model: EmissionSpectrum,
        ratios: Sequence[tuple[str, str]],
        groups: Sequence[tuple[str, ...]],
        chains: int,
        draws: int,
    ) -> Layout:
        """Return the layout for a model; `draws` are those of each chain."""
        own = {role for i in range(len(model.names)) for role in model.parameters(i)}
        quantities = tuple(name for name in LINE_QUANTITIES if not name.endswith("_direct"))
        quantities += tuple(name for name in SHAPE_QUANTITIES if name in own)
        return cls(model.names, quantities, tuple(ratios), tuple(groups), model.n_continuum, chains, draws)

    @property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """Names of the elements of each variable, in order; only variables that have any."""
        every = dict.fromkeys(self.quantities, self.lines) | {
            RATIO: tuple(ratio_name(*pair) for pair in self.ratios),
            WIDTH: tuple(group_name(group) for group in self.groups),
            CONTINUUM: tuple(str(k) for k in range(self.n_continuum)),
        }
        return {name: elements for name, elements in every.items() if elements}

    @property
    def bytes_per_spaxel(self) -> int:
        """Memory of the draws of one spaxel."""
        return 4 * self.chains * self.draws * sum(len(elements) for elements in self.variables.values())


def ratio_name(numerator: str, denominator: str) -> str:
    return f"{numerator}/{denominator}"


def group_name(lines: Sequence[str]) -> str:
    return "+".join(lines)


@dataclass(frozen=True)
class Sampled:
    """Draws of some spaxels, one row a spaxel.

    Attributes
    ----------
    draws : dict of str to array (n, chain, draw, elements)
        float32; empty where they are on disk only.
    summary : dict of str to array (n, elements, statistics)
        float32, `STATISTICS` of each.
    diagnostics : dict of str to array (n,)
        Those of `DIAGNOSTICS`.
    """

    draws: dict[str, np.ndarray]
    summary: dict[str, np.ndarray]
    diagnostics: dict[str, np.ndarray]

    @classmethod
    def of(cls, layout: Layout, found: Draws) -> Sampled:
        """Gather what the engine drew."""
        shape = (len(found.status), layout.chains, layout.draws)
        known = dict(found.params) | dict(found.derived)
        nothing = np.full(shape, np.nan, np.float32)
        draws = {
            quantity: np.stack([known.get(f"{line}.{quantity}", nothing).astype(np.float32) for line in layout.lines], axis=-1)
            for quantity in layout.quantities
        }
        if layout.ratios:
            pairs = [log_ratio(*(known[f"{line}.flux"] for line in pair)) for pair in layout.ratios]
            draws[RATIO] = np.stack(pairs, axis=-1).astype(np.float32)
        if layout.groups:
            widths = [known[f"width.{k}"] for k in range(len(layout.groups))]
            draws[WIDTH] = np.stack(widths, axis=-1).astype(np.float32)
        if layout.n_continuum:
            draws[CONTINUUM] = found.linear.astype(np.float32)
        diagnostics = {name: np.asarray(getattr(found, name)).astype(kind) for name, kind in DIAGNOSTICS.items()}
        return cls(draws, {name: _summary(each) for name, each in draws.items()}, diagnostics)

    @classmethod
    def empty(cls, layout: Layout, n: int, *, with_draws: bool) -> Sampled:
        """Return room for `n` spaxels."""
        sizes = {name: len(elements) for name, elements in layout.variables.items()}
        shape = (n, layout.chains, layout.draws)
        return cls(
            {name: np.full((*shape, size), np.nan, np.float32) for name, size in sizes.items()} if with_draws else {},
            {name: np.full((n, size, len(STATISTICS)), np.nan, np.float32) for name, size in sizes.items()},
            {name: np.full(n, np.nan if np.dtype(kind).kind == "f" else 0, kind) for name, kind in DIAGNOSTICS.items()},
        )

    def put(self, rows: slice, part: Sampled) -> None:
        """Take the rows of a part; its draws only where there is room for draws."""
        for mine, theirs in ((self.draws, part.draws), (self.summary, part.summary), (self.diagnostics, part.diagnostics)):
            for name, array in mine.items():
                array[rows] = theirs[name]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name, to be kept."""
        return {
            f"{kind}-{name}": array for kind in ("draws", "summary", "diagnostics") for name, array in getattr(self, kind).items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Sampled:
        """Return what `arrays` was made of."""
        parts: dict[str, dict[str, np.ndarray]] = {"draws": {}, "summary": {}, "diagnostics": {}}
        for name, array in arrays.items():
            kind, _, variable = name.partition("-")
            parts[kind][variable] = array
        return cls(**parts)


def check_memory(layout: Layout, spaxels: int, advice: str) -> None:
    """Raise UsageError unless the draws of so many spaxels can be held in memory; call it before a long computation."""
    size = layout.bytes_per_spaxel * spaxels
    if size > LARGEST_IN_MEMORY:
        raise UsageError(
            f"draws must take less than {LARGEST_IN_MEMORY / 1e9:g} GB of memory; got {size / 1e9:.1f} GB for {spaxels} "
            f"spaxel{'' if spaxels == 1 else 's'} with {layout.chains * layout.draws} draws each. {advice}"
        )


def status_map(chosen: Chosen, status: np.ndarray | None) -> np.ndarray:
    """Return the status (spaxels,) of all spaxels, from that of the sampled ones (0 without)."""
    own = np.zeros(len(chosen.rows), np.int32) if status is None else status
    without = np.where(chosen.asked, NO_FIT.value, NOT_ASKED.value)
    return np.where(chosen.index < 0, without, own[chosen.index]).astype(np.int32)


def _summary(draws: np.ndarray) -> np.ndarray:
    """Summarise (n, chain, draw, elements): (n, elements, statistics)."""
    flat = np.moveaxis(draws.reshape(len(draws), -1, draws.shape[-1]), -1, 1)
    n, elements, count = flat.shape
    return summarise(flat.reshape(n * elements, count)).reshape(n, elements, -1).astype(np.float32)
