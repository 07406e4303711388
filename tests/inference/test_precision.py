"""Precision is a context: threads, calls before and after, the caller's default, several devices."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ifujax import Bounded, LeastSquaresOptions, ParameterSpace, UsageError, fit_batch, solve_linear
from ifujax.inference import runner
from ifujax.inference.precision import working_precision
from tests.inference.problems import START, Peak, peaks

SPACE = ParameterSpace.build({"centre": Bounded(-5, 5), "width": Bounded(0.2, 5)})
SHORT = {name: START[name] for name in ("centre", "width")}
OPTIONS = LeastSquaresOptions(linear="eliminate", warm_up=False)


def fit(precision="float64", rows=12):
    return fit_batch(Peak(), SPACE, peaks(np.random.default_rng(1), rows)[0], SHORT, options=OPTIONS, precision=precision)


def test_float32_before_and_after_changes_nothing():
    assert jnp.ones(2).dtype == np.float32
    early = fit("float32")
    double = fit()
    late = fit("float32")
    assert jnp.ones(2).dtype == np.float32  # the caller's default is what it was
    for result in (early, double, late):
        assert result.params["centre"].dtype == np.float64
        assert result.chi2.dtype == np.float64
        assert (result.status == 0).all()
    np.testing.assert_array_equal(early.params["centre"], late.params["centre"])
    # Both are right to their own rounding, and not to the other's.
    assert (np.abs(early.params["centre"] - double.params["centre"]) < 1e-2 * double.error["centre"]).all()
    np.testing.assert_allclose(early.chi2, double.chi2, rtol=1e-5)
    assert (early.chi2 != double.chi2).any()
    assert np.array_equal(early.chi2, early.chi2.astype(np.float32))
    assert not np.array_equal(double.chi2, double.chi2.astype(np.float32))


def test_threads_do_not_meet():
    expected = {"float64": fit(), "float32": fit("float32")}
    kinds = ["float64", "float32"] * 3
    with ThreadPoolExecutor(3) as pool:
        for kind, result in zip(kinds, pool.map(fit, kinds)):
            np.testing.assert_array_equal(result.chi2, expected[kind].chi2)
            np.testing.assert_array_equal(result.params["width"], expected[kind].params["width"])
    assert jnp.ones(2).dtype == np.float32


def test_programs_get_arrays_of_their_own_precision(monkeypatch):
    # Left to cast float64 itself, jax mixes up threads of different precision: one call in a hundred ended with an XLA error.
    @partial(jax.tree_util.register_dataclass, data_fields=["low", "scale"], meta_fields=["linear_names"])
    @dataclass(frozen=True)
    class Shifted(Peak):
        low: np.ndarray = field(default_factory=lambda: np.zeros(2))
        scale: np.generic = field(default_factory=lambda: np.float64(1.0))

        def design(self, params, x):
            (shape, level), offset = super().design(params, x)
            return (shape * self.scale, level), offset + self.low.sum()

    seen = set()
    iterate = runner._iterate

    def spy(model, options, block, state, n_steps):
        kinds = {np.asarray(leaf).dtype for leaf in jax.tree.leaves((model, block, state))}
        seen.add((state.x.dtype, frozenset(kind for kind in kinds if kind.kind == "f")))
        return iterate(model, options, block, state, n_steps)

    monkeypatch.setattr(runner, "_iterate", spy)
    fit_batch(
        Shifted(),
        SPACE,
        peaks(np.random.default_rng(1), 3)[0],
        SHORT,
        options=LeastSquaresOptions(linear="eliminate", warm_up=True),
    )
    assert seen == {(np.dtype(kind), frozenset({np.dtype(kind)})) for kind in ("float32", "float64")}


def test_inside_float64_of_the_caller():
    with jax.enable_x64(True):
        inside = fit("float32")
        assert jnp.ones(2).dtype == np.float64
    np.testing.assert_array_equal(inside.chi2, fit("float32").chi2)


def test_the_context_is_left_after_an_error():
    with working_precision("float64"):
        assert jnp.ones(2).dtype == np.float64
    with pytest.raises(ZeroDivisionError), working_precision("float64"):
        divmod(1, 0)
    assert jnp.ones(2).dtype == np.float32


def test_linear_solves_keep_the_default_too():
    design = np.vander(np.linspace(-1, 1, 20), 3)
    result = solve_linear(design, np.ones((2, 20)), np.ones((2, 20)))
    assert result.coefficients.dtype == np.float64
    assert jnp.ones(2).dtype == np.float32


def test_unknown_precision():
    with pytest.raises(UsageError, match="float64"):
        fit("double")


FOUR = """
import sys
import jax, numpy as np
from tests.inference.test_precision import fit
assert len(jax.devices()) == 4, jax.devices()
result = fit(rows=150)
assert jax.numpy.ones(2).dtype == np.float32
np.savez(sys.argv[1], chi2=result.chi2, status=result.status, width=result.params["width"], error=result.error["width"])
"""


def test_four_host_devices(tmp_path):
    root = Path(__file__).resolve().parents[2]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    environment = {**os.environ, **flags}
    file = tmp_path / "four.npz"
    done = subprocess.run(
        [sys.executable, "-c", FOUR, file], cwd=root, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert file.exists(), done.stderr[-2000:]
    one, four = fit(rows=150), np.load(file)
    np.testing.assert_array_equal(four["status"], one.status)
    np.testing.assert_allclose(four["chi2"], one.chi2, rtol=1e-8)
    assert (np.abs(four["width"] - one.params["width"]) < 1e-3 * one.error["width"]).all()
    np.testing.assert_allclose(four["error"], one.error["width"], rtol=1e-5)
