"""Errors: how often the 68 % interval holds the truth, over many simulated spectra."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import binom, norm

import ifujax
from ifujax.errors import IfujaxWarning
from ifujax.inference.status import AT_BOUND
from ifujax.simulate import HALPHA_LINES, LogUniform, SimulatedSpectra, Uniform, spectra
from tests.lines.problems import as_cube, as_model

ONE_SIGMA = float(norm.cdf(1.0) - norm.cdf(-1.0))
TRUTH_OF = {"flux_direct": "flux", "equivalent_width_direct": "equivalent_width"}
PER_LINE = ("flux", "amplitude", "equivalent_width", "flux_direct", "equivalent_width_direct")
SHARED = ("velocity", "velocity_dispersion", "sigma")


def sample(n: int, degree: int, seed: int = 5, least_snr: float = 5.0) -> SimulatedSpectra:
    """H-alpha and [N II] as a spectrograph with an LSF of 2.6 Angstrom sees them, the brightest peak 5 to 50 times the noise."""
    return spectra(
        n,
        HALPHA_LINES,
        wavelength=np.arange(6450.0, 6690.0, 1.15),
        velocity=Uniform(-250.0, 250.0),
        velocity_dispersion=Uniform(60.0, 200.0),
        continuum=(Uniform(5.0, 20.0), Uniform(-2.0, 2.0), Uniform(-1.0, 1.0))[: degree + 1],
        snr=LogUniform(least_snr, 50.0),
        lsf_fwhm=2.6,
        seed=seed,
    )


def pulls_of(problem: SimulatedSpectra, **options) -> tuple[dict[str, np.ndarray], int]:
    """(estimate - truth) / error of everything that is reported, in fits without a parameter at a bound."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no variance plane", IfujaxWarning)
        fit = ifujax.fit_cube(as_cube(problem, **options), as_model(problem))
    assert not fit.status.any()
    free = ((fit.warn & AT_BOUND.value) == 0).ravel()
    pulls = {}
    for line in fit.lines:
        for name in PER_LINE + (SHARED if line == "ha" else ()):
            truth = problem.truth[f"{line}.{TRUTH_OF.get(name, name)}"]
            pulls[f"{line}.{name}"] = ((fit[line, name] - truth) / fit.error[line, name]).ravel()[free]
    return pulls, int(free.sum())


def coverage_of(pulls: dict[str, np.ndarray]) -> dict[str, float]:
    coverage = {}
    for name, pull in pulls.items():
        assert np.isfinite(pull).all(), name
        coverage[name] = float(np.mean(np.abs(pull) <= 1.0))
        robust = 0.5 * np.diff(np.percentile(pull, [15.87, 84.13]))[0]
        print(f"    {name:<28}{100 * coverage[name]:6.2f} %   pull: median {np.median(pull):+.3f}, half width {robust:.3f}")
    return coverage


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.slow
def test_coverage(degree: int) -> None:
    pulls, n = pulls_of(sample(4300, degree))
    print(f"\n{n} fits, continuum of degree {degree}:")
    assert n >= 4000
    for name, share in coverage_of(pulls).items():
        assert 0.65 <= share <= 0.71, name


def test_coverage_quick() -> None:
    pulls, n = pulls_of(sample(500, 1, seed=6))
    print(f"\n{n} fits:")
    # Of correct intervals one quantity in a thousand falls outside these.
    low, high = (binom.ppf(p, n, ONE_SIGMA) / n for p in (0.0005, 0.9995))
    for name, share in coverage_of(pulls).items():
        assert low <= share <= high, name


@pytest.mark.slow
def test_coverage_with_estimated_noise() -> None:
    """The noise of each spectrum is estimated to some 6 %, and 3 % too high: wider limits, not a target."""
    pulls, n = pulls_of(sample(2000, 1), variance=False)
    print(f"\n{n} fits without a variance:")
    for name, share in coverage_of(pulls).items():
        assert 0.64 <= share <= 0.74, name
