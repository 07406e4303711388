"""Simulators with known truth: tests, examples and benchmarks all use them.

NumPy and float64 only; they share no code with `ifujax.models`, so that each can check the other.
"""

from ifujax.simulate.outflow import flux_errors, outflow
from ifujax.simulate.problems import three_line_problem, two_component_problem
from ifujax.simulate.simulated_cube import SimulatedCube, cube
from ifujax.simulate.simulated_spectra import HALPHA_LINES, LogUniform, SimulatedLine, SimulatedSpectra, Uniform, spectra

__all__ = [
    "HALPHA_LINES",
    "LogUniform",
    "SimulatedCube",
    "SimulatedLine",
    "SimulatedSpectra",
    "Uniform",
    "cube",
    "flux_errors",
    "outflow",
    "spectra",
    "three_line_problem",
    "two_component_problem",
]
