"""Wrong minima: our fits against the best of 20 random starts, polished by ``scipy.optimize.least_squares``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ifujax
from ifujax.simulate import SimulatedSpectra, three_line_problem, two_component_problem
from tests.lines.problems import as_cube, as_model

# Under the name that the benchmarks import it by: numba's cache remembers it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from multistart import best_of_starts  # noqa: E402

WORSE = 0.1
"""chi2 above the reference that counts as another minimum."""


def excess_of(problem: SimulatedSpectra, starts: int) -> np.ndarray:
    """Our chi2 less the reference's, which is given the pixels that the fit kept, the same model and bounds."""
    fit = ifujax.fit_cube(as_cube(problem), as_model(problem), starts=starts)
    assert not fit.status.any()
    kept = fit.spectra(np.arange(len(problem))).fitted
    # Pixels without weight: the root of the inverse variance is small, and its square is 0.
    reference = best_of_starts(replace(problem, variance=np.where(kept, problem.variance, 1e300)))
    excess = fit.chi2.ravel() - reference.chi2
    edges = [-np.inf, -WORSE, -1e-3, 1e-3, WORSE, 1.0, 10.0, np.inf]
    counts = np.histogram(excess, edges)[0]
    print(f"\n{len(problem)} spectra, starts={starts}: {100 * np.mean(excess <= WORSE):.2f} % within +{WORSE}; chi2 less reference:")
    print("    " + ", ".join(f"{low:g}..{high:g}: {n}" for low, high, n in zip(edges, edges[1:], counts)))
    if (excess > WORSE).any():
        print("    worse (row, excess):", [(int(i), round(float(excess[i]), 2)) for i in np.argsort(-excess)[:10] if excess[i] > WORSE])
    return excess


def test_one_component_quick() -> None:
    assert np.mean(excess_of(three_line_problem(200, seed=11), 1) <= WORSE) >= 0.995


@pytest.mark.slow
def test_one_component() -> None:
    assert np.mean(excess_of(three_line_problem(2000), 1) <= WORSE) >= 0.995


@pytest.mark.slow
def test_two_components() -> None:
    problem = two_component_problem(2000)
    seconds = {}
    for starts in (1, 8, 12):
        share = np.mean(excess_of(problem, starts) <= WORSE)
        fit = ifujax.fit_cube(as_cube(problem), as_model(problem), starts=starts)  # compiled by now
        seconds[starts] = fit.seconds
    print("\ncost over one start: " + ", ".join(f"{n} starts {s / seconds[1]:.1f}" for n, s in seconds.items()))
    assert share >= 0.97
