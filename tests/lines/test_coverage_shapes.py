"""Errors of Gauss-Hermite lines: how often the 68 % interval holds the truth, and of their velocity widths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import cumulative_trapezoid
from scipy.stats import binom

import ifujax
from ifujax.data.cube import Cube
from ifujax.inference.status import AT_BOUND
from ifujax.lines.config import EmissionModel, Kinematics, Line
from ifujax.models.doppler import velocity_of
from tests.lines.test_coverage import ONE_SIGMA

HA = 6562.8
WAVELENGTH = np.arange(6490.0, 6640.0, 1.1)
EDGES = np.append(WAVELENGTH - 0.55, WAVELENGTH[-1] + 0.55)
GRID = np.linspace(-1500.0, 1500.0, 12001)
PARAMETERS = ("flux", "velocity", "velocity_dispersion", "h3", "h4")
WIDTHS = ("width", "lower", "upper", "median", "centroid")


def simulated(n: int, snr: float, seed: int) -> tuple[Cube, dict[str, np.ndarray]]:
    """Lines of unit noise, and the truth; profiles are integrated numerically from their definition."""
    rng = np.random.default_rng(seed)
    truth = {
        "velocity": rng.uniform(-100.0, 100.0, n),
        "velocity_dispersion": rng.uniform(90.0, 150.0, n),
        "h3": rng.uniform(-0.1, 0.1, n),
        "h4": rng.uniform(-0.05, 0.1, n),
    }
    truth["flux"] = snr * truth["velocity_dispersion"] * np.sqrt(2 * np.pi) * HA / 299792.458 * np.exp(rng.uniform(0.0, 1.0, n))
    truth |= {name: np.empty(n) for name in WIDTHS}
    level = rng.uniform(10.0, 20.0, n)
    data = np.empty((len(WAVELENGTH), 1, n))
    for row in range(n):
        w = (GRID - truth["velocity"][row]) / truth["velocity_dispersion"][row]
        third = (2 * np.sqrt(2) * w**3 - 3 * np.sqrt(2) * w) / np.sqrt(6)
        fourth = (4 * w**4 - 12 * w**2 + 3) / np.sqrt(24)
        profile = np.exp(-0.5 * w * w) * (1 + truth["h3"][row] * third + truth["h4"][row] * fourth)
        below = cumulative_trapezoid(profile, GRID, initial=0.0)
        mean = np.sum(GRID * profile) / np.sum(profile)
        below /= below[-1]
        at_edges = np.interp(velocity_of(EDGES, HA), GRID, below)
        data[:, 0, row] = level[row] + truth["flux"][row] * np.diff(at_edges) / np.diff(EDGES)
        inner = np.abs(w) < 2.5  # there the profile is positive and its integral rises
        lower, median, upper = np.interp((0.1, 0.5, 0.9), below[inner], GRID[inner])
        for name, value in zip(WIDTHS, (upper - lower, lower, upper, median, mean)):
            truth[name][row] = value
    data += rng.standard_normal(data.shape)
    return Cube(data, WAVELENGTH, uncertainty=np.ones_like(data), uncertainty_kind="variance"), truth


def coverage_of(n: int, snr: float, seed: int) -> dict[str, float]:
    cube, truth = simulated(n, snr, seed)
    model = EmissionModel([Line("ha", HA, Kinematics(), shape="gauss_hermite")], continuum_degree=0)
    fit = ifujax.fit_cube(cube, model)
    assert not fit.status.any()
    free = ((fit.warn & AT_BOUND.value) == 0).ravel()
    assert free.mean() > 0.98
    widths = fit.velocity_width("ha")
    named = {
        name: (fit["ha", name], fit.error["ha", name], truth[name]) for name in (*PARAMETERS, "flux_direct") if name in truth
    }
    named["flux_direct"] = fit["ha", "flux_direct"], fit.error["ha", "flux_direct"], truth["flux"]
    for kind in ("model", "direct"):
        maps = getattr(widths, kind)
        named |= {f"{kind}.{name}": (getattr(maps, name), getattr(maps.error, name), truth[name]) for name in WIDTHS}
    result = {}
    for name, (value, error, true) in named.items():
        pull = ((value - true) / error).ravel()[free]
        result[name] = float(np.mean(np.abs(pull) <= 1.0))
        print(f"    {name:<22}{100 * result[name]:6.2f} %   pull: median {np.median(pull):+.3f}")
    return result


def test_coverage_quick() -> None:
    low, high = (binom.ppf(p, 300, ONE_SIGMA) / 300 for p in (0.0005, 0.9995))
    for name, share in coverage_of(300, 60.0, seed=3).items():
        assert low <= share <= high, name


@pytest.mark.slow
def test_coverage() -> None:
    for name, share in coverage_of(4000, 40.0, seed=11).items():
        assert 0.65 <= share <= 0.71, name
