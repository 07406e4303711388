"""The fit of one of several candidates that are to be compared: the same pixels, and starts from the simpler ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import IfujaxWarning
from ifujax.lines.chunk import ChunkFitter, ChunkResult, Guess
from ifujax.lines.config import LineFitConfig
from ifujax.lines.preparation import LineRegions, Preparation
from ifujax.lines.results import CubeFit
from ifujax.lines.selection.nested import starts_beside
from ifujax.lines.setup import Setup, prepare
from ifujax.lines.starts.search import StartFinder
from ifujax.progress import Progress


@dataclass(frozen=True)
class Comparison:
    """What a fit shares with others: the configurations of all `candidates`, and the fits of `simpler` ones, simplest first."""

    candidates: tuple[LineFitConfig, ...]
    simpler: tuple[CubeFit, ...] = ()

    def fitter(
        self,
        cube: Cube,
        config: LineFitConfig,
        frozen: np.ndarray | None,
        precision: str,
        devices: Sequence[Any] | str | None,
        *,
        warm_up: bool,
    ) -> ComparedFitter:
        """Return what fits one of the candidates; parameters are those of `ChunkFitter`."""
        return ComparedFitter(self, cube, config, frozen, precision, devices, warm_up=warm_up)

    def setups(self, cube: Cube) -> list[Setup]:
        """Return the lines of all candidates: noise, outliers and a frozen continuum are sought where none has any."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IfujaxWarning)  # each candidate's own fit warns
            return [prepare(config, cube.rest_edges, cube.redshift) for config in self.candidates]


class ComparedFitter(ChunkFitter):
    """Fits spaxels with the pixels and the noise that all candidates agree on, also from the solutions of simpler ones."""

    def __init__(
        self,
        comparison: Comparison,
        cube: Cube,
        config: LineFitConfig,
        frozen: np.ndarray | None,
        precision: str = "float64",
        devices: Sequence[Any] | str | None = None,
        *,
        warm_up: bool = False,
    ) -> None:
        super().__init__(cube, config, frozen, precision, devices, warm_up=warm_up)
        self.comparison = comparison
        setups = comparison.setups(cube)
        self.preparation = Preparation(cube, config, self.setup, frozen, LineRegions.of(*setups))
        if config.continuum.mode == "rejection":
            coords = [setup.model.coords(cube.rest_edges, self.preparation.window, self.preparation.n_pix) for setup in setups]
            finders = (StartFinder(setup, axis.pixel_velocity, axis.width) for setup, axis in zip(setups, coords))
            self.preparation.find_lines(*finders)

    def fit(self, rows: np.ndarray, progress: Progress | None = None, guess: Guess | None = None) -> ChunkResult:
        """Run all steps on some spaxels (flat indices)."""
        for simple in reversed(self.comparison.simpler) if guess is None else ():
            guess = starts_beside(simple, self, rows)
            if guess is not None:
                break
        return super().fit(rows, progress, guess)
