"""Draws as the installed ArviZ takes them: `InferenceData` of version 0, `DataTree` since version 1."""

from __future__ import annotations

import subprocess
import sys

import arviz
import numpy as np
import pytest
import xarray

from ifujax.inference.sampling.arviz import as_arviz

NEW = int(arviz.__version__.split(".")[0]) >= 1


@pytest.fixture
def groups():
    draws = np.random.default_rng(1).normal(100.0, 5.0, (4, 250, 2))
    coords = {"chain": np.arange(4), "draw": np.arange(250), "line": ["ha", "n2b"]}
    return {
        "posterior": xarray.Dataset({"flux": (("chain", "draw", "line"), draws)}, coords, {"seed": 1}),
        "sample_stats": xarray.Dataset({"tier": ((), np.int8(1))}),
    }


def test_container_of_the_installed_version(groups):
    found = as_arviz(groups)
    assert type(found).__name__ == ("DataTree" if NEW else "InferenceData")
    names = found.children if NEW else found.groups()
    assert list(names) == ["posterior", "sample_stats"]
    posterior = found["posterior"].to_dataset() if NEW else found["posterior"]
    xarray.testing.assert_identical(posterior, groups["posterior"])
    assert int(found["sample_stats"]["tier"]) == 1


def test_arviz_works_on_it(groups):
    summary = arviz.summary(as_arviz(groups))
    assert list(summary.index) == ["flux[ha]", "flux[n2b]"]
    means = summary["mean"].astype(float)
    np.testing.assert_allclose(means, groups["posterior"]["flux"].mean(["chain", "draw"]), rtol=0.01)
    assert (summary["r_hat"].astype(float) < 1.02).all()


def test_no_warning_of_arviz_is_passed_on():
    program = """
import warnings
warnings.simplefilter("error")
import xarray
from ifujax.inference.sampling.arviz import as_arviz
print(as_arviz({"posterior": xarray.Dataset({"x": (("chain", "draw"), [[1.0]])})})["posterior"]["x"].values)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("[[1.]]\n", 0), done.stderr
