"""Faults and edges of `ifujax.lines.ifscube` that IFSCube's stored runs do not reach, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ifujax.errors import UsageError
from ifujax.lines.config import ContinuumOptions
from ifujax.lines.ifscube import (
    LineParameters,
    chi_square,
    degrees_of_freedom,
    fitted_pixels,
    flux_scale,
    line_profiles,
    loop_order,
    measure,
    pseudo_continuum,
)
from ifujax.lines.ifscube.windows import flux_ranges, trapezoid, width_ranges
from ifujax.models.doppler import C_KMS

WAVE = np.arange(6400.0, 6700.0)
REST = np.array([6562.8])
WINDOW = (6450.0, 6650.0)
OPTIONS = ContinuumOptions("rejection", n_iterate=3, lower_threshold=3.0, upper_threshold=3.0, line_weight=0.0)


INSIDE = slice(50, 251)
"""The window's pixels."""


def continuum_of(values: np.ndarray, **options) -> np.ndarray:
    return pseudo_continuum(WAVE, values, REST, np.array([100.0]), OPTIONS, 1, **options).continuum


def test_continuum_ignores_the_line() -> None:
    values = np.stack([2.0 + 0.01 * (WAVE - 6500.0), np.full(len(WAVE), np.nan), np.full(len(WAVE), 3.0)])
    expected = values[0].copy()
    values[0, np.abs(WAVE - 6562.8) < 6.5] = 50.0
    found = continuum_of(values)
    np.testing.assert_allclose(found[0], expected, rtol=1e-10)
    assert np.isnan(found[1]).all()
    # Residuals of exactly zero are not rejected altogether.
    np.testing.assert_allclose(found[2], 3.0)


def test_pixel_after_a_nan_is_lost_in_single_precision_only() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(10.0, 1.0, (1, len(WAVE)))
    values[0, 100] = np.nan
    less = values.copy()
    less[0, 101] = np.nan
    wild = values.copy()
    wild[0, 101] = 12.0
    assert np.array_equal(continuum_of(values, single_precision=True), continuum_of(less), equal_nan=True)
    assert not np.array_equal(continuum_of(values), continuum_of(less), equal_nan=True)
    assert np.array_equal(continuum_of(wild, single_precision=True), continuum_of(less), equal_nan=True)


def test_wrong_sign_of_the_fourth_polynomial() -> None:
    table = np.array([[[1.0, 0.0, 100.0, 0.0, 0.1]]])
    peak = line_profiles(REST, REST, table)[0, 0, 0]
    assert peak == pytest.approx(1.0 - 3.0 * 0.1 / np.sqrt(24.0))
    # The textbook's profile with converted parameters (section 4).
    less = 1.0 - 6.0 * 0.1 / np.sqrt(24.0)
    w = np.array([-1.3, 0.4, 2.0])
    waves = REST[0] * np.sqrt((1 + 100 * w / C_KMS) / (1 - 100 * w / C_KMS))
    textbook = less * np.exp(-0.5 * w**2) * (1 + 0.1 / less * (4 * w**4 - 12 * w**2 + 3) / np.sqrt(24.0)) / (1 + 100 * w / C_KMS)
    np.testing.assert_allclose(line_profiles(waves, REST, table)[0, 0], textbook, rtol=1e-9)


def test_optimize_fit_takes_the_pixel_below_its_low_edge() -> None:
    half = 3.0 * 100.0 * REST[0] / C_KMS  # 6.567: 6556.233 to 6569.367
    assert half == pytest.approx(6.567, abs=1e-3)
    inside = fitted_pixels(WAVE, WINDOW, REST, np.array([100.0]), 3.0)
    assert WAVE[inside].tolist() == list(np.arange(6556.0, 6570.0))
    # It ends with the data, and with the window.
    assert WAVE[fitted_pixels(WAVE, (6560.0, 6561.0), REST, np.array([100.0]), 3.0)].tolist() == [6560.0, 6561.0]


def line(amplitude: float, velocity: float, sigma: float) -> LineParameters:
    return LineParameters(REST, *(np.array([[value]]) for value in (amplitude, velocity, sigma)))


def measured(parameters: LineParameters, stellar: float | None = None) -> dict[str, float]:
    data = 4.0 + line_profiles(WAVE, REST, np.nan_to_num(parameters.table, nan=1.0)).sum(axis=1)[:, INSIDE]
    starlight = None if stellar is None else np.full(data.shape, stellar)
    continuum = np.full(data.shape, 4.0 - (stellar or 0.0))
    found = measure(WAVE, INSIDE, WINDOW, data, continuum, starlight, parameters)
    return {name: float(value[0, 0]) for name, value in found.items()}


@pytest.mark.parametrize("stellar", [None, 1.5])
def test_a_clean_line_has_its_flux_and_width(stellar: float | None) -> None:
    found = measured(line(2.0, 0.0, 150.0), stellar)
    flux = 2.0 * 150.0 / C_KMS * REST[0] * np.sqrt(2.0 * np.pi)
    for name, expected in (
        ("flux", flux), ("flux_direct", flux), ("equivalent_width", -flux / 4.0), ("equivalent_width_direct", -flux / 4.0),
    ):  # fmt: skip
        assert found[name] == pytest.approx(expected, rel=1e-4), name


def test_a_window_past_the_fitting_window_has_a_model_flux_only() -> None:
    found = measured(line(2.0, 0.0, 900.0))  # 5 sigma: 6464 to 6661
    assert np.isfinite(found["flux"])
    assert np.isnan([found["flux_direct"], found["equivalent_width"], found["equivalent_width_direct"]]).all()
    assert np.isnan(list(measured(line(np.nan, np.nan, np.nan)).values())).all()


def test_no_continuum_has_no_width() -> None:
    zero = np.zeros((1, 201))
    found = measure(WAVE, INSIDE, WINDOW, np.ones((1, 201)), zero, None, line(1.0, 0.0, 100.0))
    assert np.isnan(found["equivalent_width"]).all()
    assert np.isfinite(found["flux_direct"]).all()


def test_windows_have_their_own_edges_and_centres() -> None:
    velocity, sigma = np.array([3000.0]), np.array([200.0])
    # Flux: 6562.8 (1 + v/c) = 6628.47, +- 22.11; width: relativistic 6628.80, +- 21.89.
    first, past = flux_ranges(WAVE, REST[0], velocity, sigma)
    assert (WAVE[first[0]], WAVE[past[0] - 1]) == (6606.0, 6650.0)
    first, past = width_ranges(WAVE, REST[0], velocity, sigma)
    assert (WAVE[first[0]], WAVE[past[0] - 1]) == (6607.0, 6650.0)
    # On a pixel: the flux takes its low edge and leaves its high one; the width leaves both.
    half = 5.0 * 100.0 * 6500.0 / C_KMS
    wave = np.array([6500.0 - half, 6500.0, 6500.0 + half])
    zero, sigma = np.zeros(1), np.array([100.0])
    assert [int(end[0]) for end in flux_ranges(wave, 6500.0, zero, sigma)] == [0, 2]
    assert [int(end[0]) for end in width_ranges(wave, 6500.0, zero, sigma)] == [1, 2]


def test_trapezoid() -> None:
    rng = np.random.default_rng(0)
    wave, values = np.sort(rng.random(20)), rng.normal(size=(3, 20))
    values[0, 3] = np.nan
    found = trapezoid(wave, values, np.array([4, 2, 7]), np.array([20, 9, 8]))
    expected = [float(np.trapezoid(row, at)) for row, at in ((values[0, 4:], wave[4:]), (values[1, 2:9], wave[2:9]))]
    np.testing.assert_allclose(found, [*expected, 0.0])
    assert np.isnan(trapezoid(wave, values[:1], np.array([3]), np.array([9])))[0]


def test_scale_chi2_and_degrees_of_freedom() -> None:
    data = np.array([np.arange(-5.0, 6.0), np.zeros(11), np.full(11, np.nan)])
    good = np.ones((3, 11), bool)
    good[0, 0] = good[2] = False
    scale = flux_scale(data, good)
    assert scale.tolist() == [pytest.approx(np.percentile(np.abs(data[0, 1:]), 90)), 1.0, 1.0]
    residual = np.full((3, 11), 2.0)
    assert chi_square(residual, np.full((3, 11), 4.0), good, scale).tolist() == [10.0, 11.0, 0.0]
    assert chi_square(residual, None, good, scale)[0] == pytest.approx(40.0 / scale[0] ** 2)
    assert degrees_of_freedom(np.array([80]), 10, 3, 2.3)[0] == pytest.approx(80 / 2.3 - 14)


def test_orders() -> None:
    fitted = np.ones((3, 4), bool)
    fitted[0, 0] = False
    assert loop_order(fitted).tolist()[0] == [0, 1]
    image = np.zeros((3, 4))
    image[1, 2] = 5.0
    # The brightest is at y = 1, x = 2: the walk starts at y = 2, x = 1.
    assert loop_order(fitted, spiral=True, center="peak", image=image).tolist()[0] == [2, 1]
    assert loop_order(fitted, spiral=True, center=(2.0, 1.0)).tolist()[:4] == [[1, 2], [1, 3], [2, 2], [1, 1]]
    assert loop_order(fitted, spiral=True).tolist()[:2] == [[1, 2], [1, 1]]
    with pytest.raises(UsageError, match="image"):
        loop_order(fitted, spiral=True, center="cofm")
