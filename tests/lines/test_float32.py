"""The float32 option: the same fits as in float64, far within the errors."""

from __future__ import annotations

import numpy as np
import pytest

import ifujax
from ifujax.simulate import three_line_problem
from tests.lines.problems import as_cube, as_model


@pytest.mark.parametrize("factor", [1.0, 1e-20])
def test_float32_agrees_with_float64(factor: float) -> None:
    problem = three_line_problem(256, seed=11)
    cube, model = as_cube(problem, factor=factor), as_model(problem)
    double = ifujax.fit_cube(cube, model)
    single = ifujax.fit_cube(cube, model, precision="float32")
    np.testing.assert_array_equal(single.status, double.status)
    detected = double["ha", "snr"] > 5
    assert detected.sum() > 150
    for quantity in ("flux", "velocity", "velocity_dispersion", "equivalent_width"):
        error = double.error["ha", quantity][detected]
        off = np.abs(single["ha", quantity] - double["ha", quantity])[detected] / error
        assert off.max() < 0.05, quantity
        np.testing.assert_allclose(single.error["ha", quantity][detected], error, rtol=0.01)
