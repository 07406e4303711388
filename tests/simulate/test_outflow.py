"""The simulated outflow: where it is, and how well its lines can be measured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from ifujax import simulate
from ifujax.errors import UsageError
from ifujax.simulate.profiles import gaussian_line, lsf_sigma_velocity

LINES = (simulate.SimulatedLine("ha", 6562.80, 1.0), simulate.SimulatedLine("n2b", 6583.46, simulate.Uniform(0.3, 1.2)))


def test_two_components_are_where_they_are_said_to_be() -> None:
    galaxy = simulate.outflow((12, 14), LINES, seed=1)
    there = galaxy.truth["components"] == 2
    assert 0.3 < there.mean() < 0.7
    for name in ("flux", "velocity", "flux_error", "velocity_dispersion"):
        np.testing.assert_array_equal(np.isfinite(galaxy.truth[f"ha_broad.{name}"]), there)
        assert np.isfinite(galaxy.truth[f"ha.{name}"]).all()
    offset = (galaxy.truth["ha_broad.velocity"] - galaxy.truth["ha.velocity"])[there]
    assert offset.min() < -200
    assert offset.max() > 200
    assert np.abs(offset).max() <= 300
    ratio = (galaxy.truth["ha_broad.velocity_dispersion"] / galaxy.truth["ha.velocity_dispersion"])[there]
    assert ratio.min() >= 1.5
    assert ratio.max() <= 3
    # The model holds both, and its flux is that of all lines.
    stretch = 1.01
    step = np.gradient(galaxy.wavelength / stretch)[:, None, None]
    level = np.median(galaxy.model, axis=0)
    flux = ((galaxy.model - level) * step).sum(axis=0) * stretch
    total = sum(np.nan_to_num(galaxy.truth[f"{line.name}.flux"]) for line in galaxy.lines)
    np.testing.assert_allclose(flux, total, rtol=0.1, atol=30.0)
    assert galaxy.truth["snr"].max() == pytest.approx(50.0, rel=0.2)


def test_everywhere_or_nowhere() -> None:
    assert (simulate.outflow((5, 6), LINES, opening_angle=180.0).truth["components"] == 2).all()
    assert (simulate.outflow((5, 6), LINES, opening_angle=0.0).truth["components"] == 1).all()


def test_the_same_seed_gives_the_same_cube() -> None:
    one, two, other = (simulate.outflow((4, 5), LINES, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.values, two.values)
    assert (one.values != other.values).any()


def test_flux_errors_are_those_of_the_curvature() -> None:
    """Against scipy's finite differences of a model written here: two components, then one."""
    galaxy = simulate.outflow((6, 7), LINES, peak_snr=80.0, seed=5)
    wave = galaxy.wavelength / 1.01
    x = 2 * (wave - wave[0]) / (wave[-1] - wave[0]) - 1
    for count in (2, 1):
        y, col = np.argwhere(galaxy.truth["components"] == count)[3]
        lines = [line for line in galaxy.lines if count == 2 or not line.name.endswith("_broad")]
        truth = {
            line.name: [galaxy.truth[f"{line.name}.{k}"][y, col] for k in ("flux", "velocity", "velocity_dispersion")]
            for line in lines
        }
        groups = list(dict.fromkeys(line.group for line in lines))

        def residual(p, lines=lines, groups=groups):
            total = p[0] + p[1] * x
            for i, line in enumerate(lines):
                v, s = p[2 + len(lines) + 2 * groups.index(line.group) :][:2]
                sigma = np.hypot(s, lsf_sigma_velocity(galaxy.lsf_fwhm / 1.01, v, line.wavelength))
                total = total + gaussian_line(wave, line.wavelength, p[2 + i], v, sigma)
            return total / 1.01  # the noise is 1 in the observed frame

        kinematics = [truth[next(line.name for line in lines if line.group == group)][1:] for group in groups]
        start = np.array([5.0, 0.5, *(truth[line.name][0] for line in lines), *np.ravel(kinematics)])
        jacobian = least_squares(residual, start, jac="3-point", x_scale=np.maximum(np.abs(start), 1.0), max_nfev=1).jac
        errors = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))[2 : 2 + len(lines)]
        ours = [galaxy.truth[f"{line.name}.flux_error"][y, col] for line in lines]
        np.testing.assert_allclose(ours, errors, rtol=1e-3)


def test_wrong_use() -> None:
    with pytest.raises(UsageError, match="opening_angle must lie within 0 and 180"):
        simulate.outflow((4, 5), opening_angle=200.0)
    with pytest.raises(UsageError, match="shape must hold at least one spaxel"):
        simulate.outflow((0, 5))
