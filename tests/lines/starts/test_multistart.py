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
sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))
from multistart import best_of_starts

WORSE = 0.1
"""chi2 above the reference that counts as another minimum."""


def fit_of(problem: SimulatedSpectra, starts: int) -> ifujax.CubeFit:
    fit = ifujax.fit_cube(as_cube(problem), as_model(problem), starts=starts)
    assert not fit.status.any()
    return fit


def reference_chi2(problem: SimulatedSpectra, kept: np.ndarray) -> np.ndarray:
    """The lowest chi2 of 20 starts with the same model, bounds and pixels: masked ones get next to no weight."""
    return best_of_starts(replace(problem, variance=np.where(kept, problem.variance, 1e300))).chi2


def share_of(excess: np.ndarray, title: str) -> float:
    """Print the distribution of our chi2 less the reference's; return the share that isn't worse."""
    share = float(np.mean(excess <= WORSE))
    edges = [-np.inf, -WORSE, -1e-3, 1e-3, WORSE, 1.0, 10.0, np.inf]
    counts = np.histogram(excess, edges)[0]
    print(f"\n{title}: {100 * share:.2f} % of {len(excess)} within +{WORSE} of the reference; chi2 less the reference's:")
    print("    " + ", ".join(f"{low:g}..{high:g}: {n}" for low, high, n in zip(edges, edges[1:], counts)))
    worst = [i for i in np.argsort(-excess)[:10] if excess[i] > WORSE]
    print("    worst rows: " + (", ".join(f"{i}: {excess[i]:.2f}" for i in worst) or "none"))
    return share


def one_component(n: int, seed: int) -> float:
    problem = three_line_problem(n, seed=seed)
    fit = fit_of(problem, 1)
    kept = fit.spectra(np.arange(n)).fitted
    return share_of(fit.chi2.ravel() - reference_chi2(problem, kept), "one component, 1 start")


def two_components(n: int, seed: int, several: tuple[int, ...]) -> dict[int, float]:
    """Shares by number of starts, and what these cost."""
    problem = two_component_problem(n, seed=seed)
    fits = {starts: fit_of(problem, starts) for starts in several}
    kept = fits[several[0]].spectra(np.arange(n)).fitted
    reference = reference_chi2(problem, kept)
    shares, seconds = {}, {}
    for starts, fit in fits.items():
        shares[starts] = share_of(fit.chi2.ravel() - reference, f"two components, starts={starts}")
        seconds[starts] = min(fit_of(problem, starts).seconds for _ in range(2))  # compiled by now
    first = several[0]
    print("    time: " + ", ".join(f"{k} starts {s:.2f} s ({s / seconds[first]:.1f} x)" for k, s in seconds.items()))
    return shares


def test_one_component_quick() -> None:
    assert one_component(200, seed=11) >= 0.995


def test_two_components_quick() -> None:
    assert two_components(200, 12, (12,))[12] >= 0.97


@pytest.mark.slow
def test_one_component() -> None:
    assert one_component(2000, seed=1) >= 0.995


@pytest.mark.slow
def test_two_components() -> None:
    shares = two_components(2000, 2, (1, 8, 12, 16))
    assert shares[12] >= 0.97
    assert shares[8] >= 0.97
