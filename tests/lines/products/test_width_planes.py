"""The velocity widths that ``[velocity_width]`` puts into the products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

import ifujax
from ifujax import simulate
from ifujax.inference.parameter_space.declarations import Bounded
from ifujax.lines.config import EmissionModel, FitOptions, Kinematics, Line, LineFitConfig, VelocityWidthOptions


@pytest.fixture(scope="module")
def fit():
    kinematics = Kinematics(Bounded(-400, 400, start=0), Bounded(20, 400, start=80))
    lines = (Line("ha", 6562.8, kinematics), Line("n2", 6583.46, kinematics))
    config = LineFitConfig(
        EmissionModel(lines),
        fit=FitOptions(window=(6480.0, 6640.0)),
        velocity_width=VelocityWidthOptions((("ha",), ("ha", "n2")), 90.0),
    )
    return ifujax.fit_cube(simulate.cube((2, 3), nan_spaxels=[(0, 0)], scale_radius=30.0, seed=2).cube, config)


def test_products_hold_what_velocity_width_returns(fit, tmp_path) -> None:
    alone = fit.velocity_width("ha", 90.0)
    both = fit.velocity_width(["ha", "n2"], 90.0, rest_wavelength=0.5 * (6562.8 + 6583.46))
    with fits.open(fit.write(tmp_path / "product.fits")) as product:
        header, error = product["VWIDTH_M"].header, product["VWIDTH_M_ERR"].data
        planes = {header[f"PLANE{k:03d}"]: plane for k, plane in enumerate(product["VWIDTH_M"].data, start=1)}
        direct = product["VWIDTH_D"].data
        assert header["OBJECT"] == "VWIDTH_M"
        assert "VWIDTH_I" not in product  # without an LSF it would be the same
    assert list(planes)[:6] == ["ha width", "ha lower", "ha upper", "ha median", "ha centroid", "ha+n2 width"]
    np.testing.assert_array_equal(planes["ha width"], alone.model.width)
    np.testing.assert_array_equal(planes["ha+n2 centroid"], both.model.centroid)
    np.testing.assert_array_equal(error[0], alone.model.error.width)
    np.testing.assert_array_equal(direct[3], alone.direct.median)
    assert np.isnan(planes["ha width"][0, 0])
    with fits.open(fit.write_maps(tmp_path / "maps.fits")) as maps:
        np.testing.assert_array_equal(maps["HA_WIDTH_M"].data, alone.model.width)
        np.testing.assert_array_equal(maps["HA+N2_UPPER_D_ERR"].data, both.direct.error.upper)
    # W90 of a Gaussian.
    np.testing.assert_allclose(alone.model.width[1], 2 * 1.6448536 * fit["ha", "sigma"][1], rtol=1e-4)


def test_lines_outside_the_window_drop_out(fit) -> None:
    assert [each.lines for each in fit.configured_widths] == [("ha",), ("ha", "n2")]
    without = replace(fit.config, velocity_width=VelocityWidthOptions((("gone",), ("n2", "gone"))))
    assert [each.lines for each in replace(fit, config=without).configured_widths] == [("n2",)]
