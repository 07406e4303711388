"""Simulated spectra as what `fit_cube` takes: a (wave, 1, n) cube and a model of the same lines."""

from __future__ import annotations

import numpy as np

import ifujax
from ifujax.data.cube import Cube
from ifujax.lines.config import LSF
from ifujax.simulate import SimulatedSpectra

VELOCITY = (-600.0, 600.0)
DISPERSION = (20.0, 500.0)
GUESSES = {"gas": 120.0, "narrow": 80.0, "broad": 250.0}
"""Guessed dispersion of each kinematic group, km/s."""


def as_cube(problem: SimulatedSpectra, *, variance: bool = True, factor: float = 1.0) -> Cube:
    """One row of spaxels, redshift 0; the data times `factor`."""
    values = np.ascontiguousarray(problem.values.T[:, None, :] * factor)
    plane = np.ascontiguousarray(problem.variance.T[:, None, :] * factor**2) if variance else None
    return Cube(values, problem.wavelength, uncertainty=plane, uncertainty_kind="variance" if variance else None)


def as_model(problem: SimulatedSpectra, continuum_degree: int | None = None) -> ifujax.EmissionModel:
    """The model that the spectra were made with: free fluxes, kinematics by group, the continuum's degree."""
    kinematics = {
        group: ifujax.Kinematics(
            velocity=ifujax.Bounded(*VELOCITY, start=0.0),
            velocity_dispersion=ifujax.Bounded(*DISPERSION, start=GUESSES[group]),
        )
        for group in dict.fromkeys(line.group for line in problem.lines)
    }
    return ifujax.EmissionModel(
        [ifujax.Line(line.name, line.wavelength, kinematics[line.group]) for line in problem.lines],
        continuum_degree=problem.truth["continuum"].shape[1] - 1 if continuum_degree is None else continuum_degree,
        profile=problem.profile,
        lsf=LSF.constant(problem.lsf_fwhm) if problem.lsf_fwhm else None,
    )
