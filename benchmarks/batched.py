"""The three-line problem through ifujax as `fit_cube` goes through it: line-free continuum, start search, fit, errors.

The baselines do only the fit, from a common start; `stage_seconds` tells what each of our stages takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from baselines import ThreeLines
from numpy.typing import NDArray

import ifujax.inference.least_squares as least_squares
from ifujax import Bounded, EmissionModel, Kinematics, LeastSquaresOptions, Line, Observations, fit_batch
from ifujax.inference.batching import pad_pixels, pixel_bucket
from ifujax.inference.runner import Runner
from ifujax.lines.config import LineFitConfig
from ifujax.lines.continuum import fit_rejection, rejection_weights
from ifujax.lines.setup import prepare
from ifujax.lines.starts.packing import named_starts, pack_named, scaled_space
from ifujax.lines.starts.search import StartFinder
from ifujax.models.emission import COORDS_AXES
from ifujax.simulate import SimulatedSpectra

VELOCITY, DISPERSION = (-600.0, 600.0), (20.0, 500.0)


stage_seconds: dict[str, float] = {}
"""CPU seconds of each stage in the last call."""


@contextmanager
def _stage(name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    stage_seconds[name] = time.process_time() - began


class _Timed(Runner):
    """The engine's runner, its two stages timed."""

    def solve(self, *arguments):
        with _stage("iterations"):
            return super().solve(*arguments)

    def finish(self, *arguments):
        with _stage("errors"):
            return super().finish(*arguments)


least_squares.Runner = _Timed


def prepare_ifujax(precision: str) -> Callable[[SimulatedSpectra, ThreeLines, slice], Callable[[], NDArray[np.float64]]]:
    """Return an entry's `prepare`: compiles, and gives the call that fits and returns chi2."""

    def prepare_entry(sample: SimulatedSpectra, problem: ThreeLines, rows: slice) -> Callable[[], NDArray[np.float64]]:
        fit = _fitter(sample, precision)
        values, ivar = problem.data[rows], problem.weight[rows] ** 2
        fit(values[:64], ivar[:64])  # compiles
        return lambda: fit(values, ivar)

    return prepare_entry


def _fitter(sample: SimulatedSpectra, precision: str) -> Callable[..., NDArray[np.float64]]:
    kinematics = Kinematics(Bounded(*VELOCITY, start=0.0), Bounded(*DISPERSION, start=120.0))
    lines = tuple(Line(line.name, line.wavelength, kinematics) for line in sample.lines)
    config = LineFitConfig(EmissionModel(lines, continuum_degree=1, profile=sample.profile))
    setup = prepare(config, sample.edges, 0.0)
    window = (float(sample.wavelength[0]), float(sample.wavelength[-1]))
    n_pix = pixel_bucket(len(sample.wavelength))
    coords = setup.model.coords(sample.edges, window, n_pix)
    finder = StartFinder(setup, coords.pixel_velocity, coords.width)
    weights = rejection_weights(sample.wavelength, setup.model.rest_wavelengths, setup.guess_sigma, 0.0, ())
    options = LeastSquaresOptions(linear="eliminate", max_iter=config.fit.max_iter, tolerance=config.fit.tolerance)

    def fit(values: NDArray[np.float64], ivar: NDArray[np.float64]) -> NDArray[np.float64]:
        with _stage("continuum"):
            good = ivar > 0
            continuum = fit_rejection(
                sample.wavelength, window, values, good, weights, degree=1, n_iterate=0, lower_threshold=2.0, upper_threshold=3.0
            ).continuum
            residual, values, ivar = (pad_pixels(array, n_pix) for array in (values - continuum, values, ivar))
        with _stage("start search"):
            found = finder.find(residual, ivar, 1, np.arange(len(values)))
            space = scaled_space(setup, found, ivar)
            start = np.concatenate([pack_named(setup, space, way, len(values)) for way in named_starts(setup, found)])
        observations = Observations(values, ivar, replace(coords, background=np.zeros((len(values), 0))), COORDS_AXES)
        return fit_batch(setup.model, space, observations, start, options=options, precision=precision).chi2

    return fit
