"""The result may not depend on the data's unit, the chunks, the order of the spaxels, or the number of devices."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest

import ifujax
from ifujax.simulate import SimulatedSpectra, three_line_problem
from tests.lines.problems import as_cube, as_model

ROOT = Path(__file__).resolve().parents[2]
N = 400
SCALING = ("flux", "amplitude", "flux_direct")


@dataclass(frozen=True)
class Outcome:
    values: dict[tuple[str, str], np.ndarray]
    errors: dict[tuple[str, str], np.ndarray]
    chi2: np.ndarray
    status: np.ndarray
    warn: np.ndarray


def outcome_of(problem: SimulatedSpectra, factor: float = 1.0, **options) -> Outcome:
    """Fit the data times `factor`; what scales with the data is divided by it again."""
    fit = ifujax.fit_cube(as_cube(problem, factor=factor), as_model(problem), **options)
    values, errors = {}, {}
    for line in fit.lines:
        for name in fit.quantities:
            unit = factor if name in SCALING else 1.0
            values[line, name] = fit[line, name].ravel() / unit
            errors[line, name] = fit.error[line, name].ravel() / unit
    return Outcome(values, errors, fit.chi2.ravel(), fit.status.ravel(), fit.warn.ravel())


def assert_same(one: Outcome, two: Outcome) -> None:
    np.testing.assert_array_equal(two.status, one.status)
    np.testing.assert_array_equal(two.warn, one.warn)
    worst = np.nanmax(np.abs(two.chi2 / one.chi2 - 1.0))
    apart = {}
    for key, value in one.values.items():
        if key[1] == "snr":
            continue
        np.testing.assert_array_equal(np.isnan(two.values[key]), np.isnan(value))
        apart[key] = np.nanmax(np.abs(two.values[key] - value) / one.errors[key])
        np.testing.assert_allclose(two.errors[key], one.errors[key], rtol=1e-3)
    key = max(apart, key=lambda key: apart[key])
    print(f"\nchi2 within {worst:.2g} relative; {'.'.join(key)} within {apart[key]:.2g} of its error, the others closer")
    assert worst <= 1e-8
    assert apart[key] <= 1e-3


@pytest.fixture(scope="module")
def problem() -> SimulatedSpectra:
    return three_line_problem(N, seed=7)


@pytest.fixture(scope="module")
def usual(problem: SimulatedSpectra) -> Outcome:
    return outcome_of(problem)


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_unit(problem: SimulatedSpectra, usual: Outcome, factor: float) -> None:
    assert_same(usual, outcome_of(problem, factor))


@pytest.mark.parametrize("chunk_size", [1, 37, 256])
def test_chunks(problem: SimulatedSpectra, usual: Outcome, chunk_size: int) -> None:
    if chunk_size > 1:
        assert_same(usual, outcome_of(problem, chunk_size=chunk_size))
        return
    few = replace(problem, values=problem.values[:10], variance=problem.variance[:10])
    assert_same(outcome_of(few), outcome_of(few, chunk_size=chunk_size))


def test_order(problem: SimulatedSpectra, usual: Outcome) -> None:
    order = np.random.default_rng(3).permutation(N)
    permuted = replace(problem, values=problem.values[order], variance=problem.variance[order])
    back = np.argsort(order)
    other = outcome_of(permuted)
    assert_same(
        usual,
        Outcome(
            {key: value[back] for key, value in other.values.items()},
            {key: value[back] for key, value in other.errors.items()},
            other.chi2[back],
            other.status[back],
            other.warn[back],
        ),
    )


_SCRIPT = """
import pickle, sys
import jax
from ifujax.simulate import three_line_problem
from tests.lines.test_invariance import N, outcome_of
assert len(jax.devices()) == 4
with open(sys.argv[1], "wb") as file:
    pickle.dump(outcome_of(three_line_problem(N, seed=7), devices="cpu"), file)
"""


def test_four_devices(usual: Outcome, tmp_path: Path) -> None:
    if len(jax.devices()) != 1:
        pytest.skip("this process has several devices itself")
    path = tmp_path / "outcome.pickle"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4".strip()
    subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(path)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        timeout=500,
    )
    assert_same(usual, pickle.loads(path.read_bytes()))
