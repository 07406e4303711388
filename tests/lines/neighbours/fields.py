"""Simulated fields of rotating gas with gaps, made spaxel by spaxel from spectra with known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import ifujax
from ifujax.data.cube import Cube
from ifujax.lines.config import LineFitConfig
from ifujax.simulate import SimulatedLine, SimulatedSpectra, spectra

HA, N2 = 6562.8, 6583.46
WAVELENGTH = np.arange(6500.0, 6650.0, 1.25)
"""One for all fields: programs are compiled once."""


@dataclass(frozen=True)
class Field:
    """A simulated cube, its true spectra (one a spaxel, row by row) and where there is no line at all."""

    cube: Cube
    truth: SimulatedSpectra
    gap: np.ndarray


def rotation(size: int, amplitude: float = 150.0) -> np.ndarray:
    """Velocities (size, size) of a disc that turns about the vertical axis."""
    y, x = np.indices((size, size)) - (size - 1) / 2.0
    return amplitude * x / np.hypot(np.hypot(x, y), 3.0)


def as_field(truth: SimulatedSpectra, size: int, gap: np.ndarray | None = None, masked: np.ndarray | None = None) -> Field:
    """Spectra as a square cube."""

    def planes(rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(rows.T.reshape(-1, size, size))

    cube = Cube(
        planes(truth.values),
        truth.wavelength,
        uncertainty=planes(truth.variance),
        uncertainty_kind="variance",
        spatial_mask=masked,
    )
    return Field(cube, truth, np.zeros((size, size), bool) if gap is None else gap)


def field_with_gaps(size: int = 32, seed: int = 3) -> Field:
    """H-alpha and [N II] of a fading disc; a band of noise alone eight spaxels wide, and masked spaxels."""
    y, x = np.indices((size, size)) - (size - 1) / 2.0
    gap = (y > 3.0) & (y < 12.0)
    masked = (np.abs(x + 6) < 2) & (np.abs(y + 5) < 2)
    snr = np.where(gap, 1e-3, 12.0 * np.exp(-np.hypot(x, y) / 9.0))
    truth = spectra(
        size * size,
        (SimulatedLine("ha", HA, 1.0), SimulatedLine("n2b", N2, 0.5)),
        wavelength=WAVELENGTH,
        velocity=rotation(size).ravel(),
        velocity_dispersion=80.0,
        continuum=(5.0,),
        snr=snr.ravel(),
        seed=seed,
    )
    return as_field(truth, size, gap, masked)


def field_with_aliases(size: int = 20, snr: float = 4.0, seed: int = 1) -> Field:
    """Faint H-alpha with fainter [N II]: within wide bounds one may pass for the other, 940 km/s away."""
    truth = spectra(
        size * size,
        (SimulatedLine("ha", HA, 1.0), SimulatedLine("n2b", N2, 0.25)),
        wavelength=WAVELENGTH,
        velocity=rotation(size).ravel(),
        velocity_dispersion=80.0,
        continuum=(5.0,),
        snr=snr,
        seed=seed,
    )
    return as_field(truth, size)


def field_of_two_discs(size: int = 20, snr: float = 20.0, seed: int = 2) -> Field:
    """H-alpha of two discs that turn against each other: ``a`` narrower and brighter than ``b``."""
    velocity = rotation(size).ravel()
    truth = spectra(
        size * size,
        (SimulatedLine("a", HA, 1.0, "one"), SimulatedLine("b", HA, 0.6, "two")),
        wavelength=WAVELENGTH,
        velocity={"one": velocity, "two": -velocity},
        velocity_dispersion={"one": 45.0, "two": 60.0},
        continuum=(5.0,),
        snr=snr,
        seed=seed,
    )
    return as_field(truth, size)


def model_of_one(reach: float = 400.0) -> LineFitConfig:
    """H-alpha and [N II] with one velocity within +-`reach` km/s; strengths bounded on both sides."""
    gas = ifujax.Kinematics(ifujax.Bounded(-reach, reach, start=0.0), ifujax.Bounded(20.0, 300.0, start=80.0))
    flux = ifujax.Bounded(0.0, 1e6)
    lines = [ifujax.Line("ha", HA, gas, flux=flux), ifujax.Line("n2b", N2, gas, flux=flux)]
    return LineFitConfig(ifujax.EmissionModel(tuple(lines), continuum_degree=0))


def model_of_two(**second: object) -> LineFitConfig:
    """Two H-alpha lines that are declared alike, but for what is given of the second one's kinematics."""
    alike = {"velocity": ifujax.Bounded(-500.0, 500.0, start=0.0), "velocity_dispersion": ifujax.Bounded(20.0, 300.0, start=80.0)}
    one, two = ifujax.Kinematics(**alike), ifujax.Kinematics(**(alike | second))  # type: ignore[arg-type]
    lines = [ifujax.Line("a", HA, one), ifujax.Line("b", HA, two)]
    return LineFitConfig(ifujax.EmissionModel(tuple(lines), continuum_degree=0))
