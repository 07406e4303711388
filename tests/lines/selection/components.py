"""Candidates with one and two components, and how well the second one can be measured: tests and benchmarks share them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

import ifujax
from ifujax.simulate import SimulatedCube, SimulatedLine

ONE_LINE = (SimulatedLine("ha", 6562.80, 1.0),)


def candidates(lines: tuple[SimulatedLine, ...] = ONE_LINE, degree: int = 1) -> list[ifujax.EmissionModel]:
    """One component, and a second one at least as broad."""
    lsf = ifujax.LSF.constant(2.5)
    narrow = ifujax.Kinematics(ifujax.Bounded(-500, 500, start=0), ifujax.Bounded(20, 400, start=80))
    broad = ifujax.Kinematics(
        ifujax.Bounded(-800, 800, start=0), ifujax.Bounded(20, 800, start=200, above=f"{lines[0].name}.velocity_dispersion")
    )
    first = tuple(ifujax.Line(line.name, line.wavelength, narrow) for line in lines)
    second = tuple(ifujax.Line(f"{line.name}_broad", line.wavelength, broad) for line in lines)
    return [ifujax.EmissionModel(each, continuum_degree=degree, lsf=lsf) for each in (first, first + second)]


def second_snr(cube: SimulatedCube) -> np.ndarray:
    """True flux over the error that it can have at best, of the second component's best line; 0 where there is none."""
    names = [line.name for line in cube.lines if line.name.endswith("_broad")]
    return np.nan_to_num([cube.truth[f"{name}.flux"] / cube.truth[f"{name}.flux_error"] for name in names]).max(axis=0)


def expected_gain(cube: SimulatedCube, one: ifujax.EmissionModel) -> np.ndarray:
    """By how much a second component lowers chi2 without noise: the chi2 of one component in the noise-free cube."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "noise is correlated", ifujax.IfujaxWarning)  # there is nothing but misfit
        return ifujax.fit_cube(replace(cube.cube, values=cube.model), one).chi2
