"""Simulators with known truth: tests, examples and benchmarks all use them.

NumPy and float64 only; they share no code with `ifujax.models`, so that each can check the other.
"""

from ifujax.simulate.field import SimulatedField, simulate_field
from ifujax.simulate.images import SimulatedPair, simulate_hst, simulate_image_pair, simulate_muse
from ifujax.simulate.outflow import flux_errors, outflow
from ifujax.simulate.problems import three_line_problem, two_component_problem
from ifujax.simulate.scene import Galaxy, Scene, Star, random_scene
from ifujax.simulate.simulated_cube import SimulatedCube, cube
from ifujax.simulate.simulated_spectra import HALPHA_LINES, LogUniform, SimulatedLine, SimulatedSpectra, Uniform, spectra

__all__ = [
    "HALPHA_LINES",
    "Galaxy",
    "LogUniform",
    "Scene",
    "SimulatedCube",
    "SimulatedField",
    "SimulatedLine",
    "SimulatedPair",
    "SimulatedSpectra",
    "Star",
    "Uniform",
    "cube",
    "flux_errors",
    "outflow",
    "random_scene",
    "simulate_field",
    "simulate_hst",
    "simulate_image_pair",
    "simulate_muse",
    "spectra",
    "three_line_problem",
    "two_component_problem",
]
