"""IFSCube's stored runs as arrays: what the tests of `ifujax.lines.ifscube` compare with."""

from __future__ import annotations

import configparser
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ifujax.lines.config import ContinuumOptions
from ifujax.lines.ifscube import LineParameters
from tests.reference import reference_data

FOLDER = ("line_fitting", "ifscube")
CUBES = ("halpha_cube__ngc3081", "halpha_cube_noconstr", "halpha_cube_gh_norefit")
RUNS = (*CUBES, "halpha_gauss__manga", "halpha_gauss_ngc6300")


@dataclass(frozen=True)
class Run:
    """One run: only the spaxels that IFSCube fitted, (n, wave) or (lines, n), in its fit order."""

    stored: dict[str, np.ndarray]
    optimum: dict[str, np.ndarray]
    config: configparser.ConfigParser

    def plane(self, name: str) -> np.ndarray:
        """One of the spectra or maps, (first axis, n)."""
        array = self.stored[name]
        array = array.reshape(len(array), -1) if array.ndim in (1, 3) else array.reshape(1, -1)
        return array[:, self.rows]

    def spectra(self, name: str) -> np.ndarray:
        """One of the planes of spectra, (n, wave)."""
        plane = self.plane(name).T
        return plane if plane.dtype == bool else plane.astype(np.float64)

    @cached_property
    def rows(self) -> np.ndarray:
        """Flat indices of the fitted spaxels."""
        columns = self.stored["data"].shape[-1] if self.stored["data"].ndim == 3 else 1
        return self.stored["spaxel_indices"] @ np.array([columns, 1])

    @property
    def wavelength(self) -> np.ndarray:
        return self.stored["wavelength"]

    @property
    def rest_lines(self) -> np.ndarray:
        return self.stored["feature_wavelengths"]

    @property
    def window(self) -> tuple[float, float]:
        low, high = self.config["fit"]["fitting_window"].split(":")
        return float(low), float(high)

    @property
    def continuum(self) -> tuple[ContinuumOptions, int]:
        """How the continuum was fitted, and its degree."""
        said = self.config["continuum"]
        options = ContinuumOptions(
            "rejection",
            n_iterate=int(said["n_iterate"]),
            lower_threshold=float(said["lower_threshold"]),
            upper_threshold=float(said["upper_threshold"]),
            line_weight=float(said.get("line_weight", "1.0")),
        )
        return options, int(said["degree"])

    @property
    def variance(self) -> np.ndarray | None:
        variance = self.spectra("variance")
        return None if (self.stored["variance"] == 1.0).all() else variance

    @property
    def guess_sigma(self) -> np.ndarray:
        return self.stored["initial_guess"].reshape(len(self.rest_lines), -1)[:, 2]

    def table(self, solution: np.ndarray | None = None) -> np.ndarray:
        """A solution, IFSCube's own by default, as (n, lines, 3 or 5)."""
        solution = self.stored["solution"] if solution is None else solution
        solution = solution.reshape(len(solution), -1)[:, self.rows]
        return np.moveaxis(solution.reshape(len(self.rest_lines), -1, len(self.rows)), -1, 0)

    def parameters(self) -> LineParameters:
        return as_parameters(self.rest_lines, self.table())

    @cached_property
    def packed(self) -> np.ndarray:
        """Entries of the table that each packed parameter sets: 1 there, (n_packed, lines, 3 or 5)."""
        groups = json.loads(str(self.stored["k_groups"]))
        leader = {name: members[0] for members in groups.values() for name in members}
        index = {tuple(pair): q for q, pair in enumerate(self.stored["packed"].tolist())}
        names = [tuple(pair) for pair in self.stored["parameter_names"].tolist()]
        which = np.array([index.get((f, p), index.get((leader[f], p))) for f, p in names]).reshape(len(self.rest_lines), -1)
        return np.stack([which == q for q in range(len(index))]).astype(float)


def as_parameters(rest_lines: np.ndarray, table: np.ndarray) -> LineParameters:
    return LineParameters(rest_lines, *np.moveaxis(table, -1, 0).swapaxes(1, 2))


@lru_cache(maxsize=len(RUNS))
def load(name: str) -> Run:
    """Load a run, or skip the test."""
    with np.load(reference_data(*FOLDER, f"{name}.npz"), allow_pickle=True) as file:
        stored = dict(file)
    with np.load(reference_data(*FOLDER, f"{name}__optimum.npz")) as file:
        optimum = dict(file)
    config = configparser.ConfigParser()
    config.read(reference_data(*FOLDER, f"{name}.cfg"))
    return Run(stored, optimum, config)
