"""IFSCube's refit and its resting point, against hand-made examples and scipy's own minimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize

from ifujax.errors import UsageError
from ifujax.lines.ifscube import flux_scale, forward_difference_point, line_profiles, sequential_refit
from ifujax.lines.ifscube.refit import INVALID_BOUNDS, BoundsChange, earlier_neighbours, is_near
from ifujax.lines.ifscube.stopping import Moves
from tests.lines.ifscube.ifscube_runs import load

GUESS, LOWER, UPPER = np.array([1.0, 0.0]), np.array([0.0, -200.0]), np.array([np.inf, 200.0])
CHANGE = BoundsChange.of_slots((0.5, 30.0), np.array([0, 1]))


def test_neighbours_reach_farther_in_y() -> None:
    away = np.array([[0, 1], [0, 2], [2, 0], [1, -1], [1, 2]])
    # sqrt(dy^2 + dx^4): 1, 4, 2, 1.41, 4.12
    assert is_near(away, 3.0).tolist() == [True, False, True, True, False]
    assert is_near(away, 1.0).tolist() == [False] * 5


@pytest.mark.parametrize("radius", [1.0, 1.5, 3.0, 4.2])
def test_earlier_neighbours_are_all_of_them(radius: float) -> None:
    rng = np.random.default_rng(2)
    order = rng.permutation(np.argwhere(rng.random((9, 7)) > 0.2))
    for i, found in enumerate(earlier_neighbours(order, radius)):
        assert found.tolist() == np.flatnonzero(is_near(order[:i] - order[i], radius)).tolist()


def test_starts_and_bounds_come_from_fitted_neighbours() -> None:
    order = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [9, 9]])
    asked: dict[int, tuple[list[float], ...]] = {}
    given = [([4.0, 190.0], 0), ([8.0, np.nan], 0), ([50.0, 50.0], 9), ([1.0, 1.0], 0), ([1.0, 1.0], 0)]

    def fit_some(which: np.ndarray, guess: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.update({int(i): (guess[k].tolist(), lower[k].tolist(), upper[k].tolist()) for k, i in enumerate(which)})
        return np.array([given[i][0] for i in which]), np.array([given[i][1] for i in which])

    solution, status = sequential_refit(order, GUESS, LOWER, UPPER, fit_some, radius=2.5, change=CHANGE)
    assert status.tolist() == [0, 0, 9, 0, 0]
    assert asked[0] == ([1.0, 0.0], [0.0, -200.0], [np.inf, 200.0])
    # An unbounded side stays so; the narrowed bounds stay within the original ones.
    assert asked[1] == ([4.0, 190.0], [2.0, 160.0], [np.inf, 200.0])
    assert asked[2] == ([6.0, 190.0], [3.0, 160.0], [np.inf, 200.0])
    # The third failed and the second has no velocity: amplitude from the second alone, velocity from nobody.
    assert asked[3] == ([8.0, 0.0], [4.0, -30.0], [np.inf, 30.0])
    assert asked[4] == asked[0]
    np.testing.assert_array_equal(solution[:, 0], [4.0, 8.0, 50.0, 1.0, 1.0])


def test_bounds_that_leave_nothing_fail() -> None:
    order = np.array([[0, 0], [1, 0], [2, 0]])
    results = iter([([0.0, 0.0], 0), ([3.0, 3.0], 0)])

    def fit_some(which: np.ndarray, *_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [next(results) for _ in which]
        return np.array([each[0] for each in found]), np.array([each[1] for each in found])

    # A neighbour's amplitude of 0 narrows to 0:0 where the original has an upper bound.
    solution, status = sequential_refit(order, GUESS, LOWER, np.array([9.0, 200.0]), fit_some, radius=1.5, change=CHANGE)
    assert status.tolist() == [0, INVALID_BOUNDS, 0]
    assert np.isnan(solution[1]).all()
    with pytest.raises(UsageError, match="bounds_change must have 3 values"):
        BoundsChange.of_slots((0.5, 30.0), np.array([0, 1, 2]))


def test_a_bright_spaxel_is_held_by_its_faint_neighbours() -> None:
    """The fault that matters: hard narrowed bounds, seen through a real one-spaxel fit."""
    wave, rest = np.arange(6500.0, 6620.0, 1.25), np.array([6562.8])
    order = np.array([[0, 0], [1, 0], [2, 0]])
    truth = np.array([[1.0, 20.0, 100.0], [10.0, 30.0, 110.0], [1.5, 40.0, 120.0]])
    data = line_profiles(wave, rest, truth[:, None, :])[:, 0]

    def fit_some(which: np.ndarray, guess: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for k, i in enumerate(which):

            def residual(x: np.ndarray, i: int = i) -> np.ndarray:
                return line_profiles(wave, rest, x[None, None])[0, 0] - data[i]

            found.append(least_squares(residual, guess[k], bounds=(lower[k], upper[k]), x_scale=[1, 50, 50]))
        return np.array([each.x for each in found]), np.array([0 if each.success else 8 for each in found])

    start, low, high = np.array([1.0, 0.0, 150.0]), np.array([0.0, -200.0, 40.0]), np.array([50.0, 200.0, 300.0])
    change = BoundsChange.of_slots((1.0, 50.0, 30.0), np.arange(3))
    free, _ = sequential_refit(order, start, low, high, fit_some, radius=1.5, change=None)
    np.testing.assert_allclose(free, truth, rtol=1e-4)
    held, status = sequential_refit(order, start, low, high, fit_some, radius=1.5, change=change)
    assert status.tolist() == [0, 0, 0]
    assert held[1, 0] == pytest.approx(2.0 * held[0, 0], rel=1e-4)


def moves_of(table: np.ndarray, scale: np.ndarray, ratio: float | None) -> tuple[Moves, list[int]]:
    """Two lines that share velocity and sigma; the second's amplitude tied to the first's or free."""
    packed = np.zeros((4, 2, 3))
    packed[0, 0, 0] = packed[1, :, 1] = packed[2, :, 2] = packed[3, 1, 0] = 1.0
    tangent = packed
    free = [0, 1, 2, 3]
    if ratio is not None:
        tangent, free = tangent[:3].copy(), [0, 1, 2]
        tangent[0, 1, 0] = ratio
    n = len(table)
    unit = np.stack([scale, np.ones(n), np.ones(n), scale], axis=1)
    value = np.stack([table[:, 0, 0], table[:, 0, 1], table[:, 0, 2], table[:, 1, 0]], axis=1)[:, free]
    bounds = np.array([[0.0, np.inf], [-200.0, 200.0], [40.0, 300.0], [0.0, np.inf]])[free]
    tangents = np.broadcast_to(tangent, (n, *tangent.shape))
    return Moves(packed, unit, tangents, value, *(np.tile(bounds[:, k], (n, 1)) for k in range(2))), free


@pytest.mark.parametrize("ratio", [None, 3.0])
def test_resting_point_is_that_of_scipy(ratio: float | None) -> None:
    rng = np.random.default_rng(3)
    wave, rest = np.arange(6500.0, 6620.0, 0.7), np.array([6562.8, 6583.46])
    truth = np.array([[[0.05, 30.0, 120.0], [0.15, 30.0, 120.0]], [[0.5, -50.0, 90.0], [1.5, -50.0, 90.0]]]) * 1e-15
    truth[..., 1:] *= 1e15
    values = line_profiles(wave, rest, truth).sum(axis=1) + rng.normal(0.0, 2e-18, (2, len(wave)))
    weights = np.full(values.shape, 1.0 / (2e-18) ** 2)
    scale, step = np.array([1e-15, 1e-15]), 1e-3
    for i in range(2):

        def photometry_table(x: np.ndarray, i: int = i) -> np.ndarray:
            second = x[3] if ratio is None else ratio * x[0]
            return np.array([[[x[0] * scale[i], x[1], x[2]], [second * scale[i], x[1], x[2]]]])

        def residual(x: np.ndarray, i: int = i, photometry_table=photometry_table) -> np.ndarray:
            return (values[i] - line_profiles(wave, rest, photometry_table(x)).sum(axis=1)[0]) * np.sqrt(weights[i])

        x0 = [0.3, 0.0, 100.0] + ([0.3] if ratio is None else [])
        best = least_squares(residual, x0, x_scale=[0.1, 50, 50, 0.1][: len(x0)], xtol=1e-15, ftol=1e-15, gtol=1e-15).x
        table = photometry_table(best)
        moves, _ = moves_of(table, scale[i : i + 1], ratio)
        ours = forward_difference_point(wave, rest, values[i : i + 1], weights[i : i + 1], table, moves, step)

        # scipy's SLSQP on IFSCube's four parameters, the tie a constraint, to its end and from afar.
        def chi2(p: np.ndarray, i: int = i) -> float:
            both = np.array([[[p[0] * scale[i], p[1], p[2]], [p[3] * scale[i], p[1], p[2]]]])
            return float((weights[i] * (values[i] - line_profiles(wave, rest, both).sum(axis=1)[0]) ** 2).sum())

        tie = [] if ratio is None else [{"type": "eq", "fun": lambda p: p[3] - ratio * p[0]}]
        options = {"eps": step, "ftol": 1e-12, "maxiter": 500}
        theirs = minimize(chi2, [1.0, 0.0, 150.0, ratio or 1.0], method="SLSQP", constraints=tie, options=options).x
        shift = np.abs(theirs[[0, 3]] - table[0, :, 0] / scale[i])
        assert shift.max() > 2e-4  # it is another place than the minimum
        assert np.abs(ours[0, :, 0] / scale[i] - theirs[[0, 3]]).max() < 0.1 * shift.max()
        np.testing.assert_allclose(ours[0, 0, 1:], theirs[1:3], rtol=0, atol=0.1)


def test_a_line_without_flux_stays_and_a_bound_holds() -> None:
    wave, rest = np.arange(6500.0, 6620.0, 0.7), np.array([6562.8, 6583.46])
    table = np.array([[[0.0, 0.0, 100.0], [0.0, 0.0, 100.0]]])
    moves, _ = moves_of(table, np.ones(1), None)
    values = np.full((1, len(wave)), -0.1)
    found = forward_difference_point(wave, rest, values, np.ones_like(values), table, moves)
    assert np.array_equal(found, table)


@pytest.mark.parametrize(("name", "median"), [("halpha_cube__ngc3081", 1e-4), ("halpha_cube_noconstr", 1e-4)])
def test_resting_point_is_where_ifscube_stopped(name: str, median: float) -> None:
    run = load(name)
    table, theirs = run.table(run.optimum["solution_local"]), run.table()
    data, good = run.spectra("data"), ~run.spectra("mask")
    scale = flux_scale(data, good)
    tied = len(run.stored["constraints"]) == 1
    packed = tangent = run.packed
    if tied:  # the last amplitude is 3.06 times the first
        tangent = tangent[:4].copy()
        tangent[0, 2, 0] = 3.06
    leaders = [tuple(np.argwhere(entries == 1.0)[0]) for entries in packed]
    value = np.stack([table[:, line, slot] for line, slot in leaders], axis=1)
    is_amplitude = np.array([slot == 0 for _, slot in leaders])
    n, n_free = len(table), len(tangent)
    wide = np.full((n, n_free), np.inf)
    moves = Moves(
        packed,
        np.where(is_amplitude, scale[:, None], 1.0),
        np.broadcast_to(tangent, (n, *tangent.shape)),
        value[:, :n_free],
        -wide,
        wide,
    )
    values = np.where(good, data - run.spectra("pseudo_continuum") - run.spectra("stellar"), 0.0)
    assert run.variance is not None
    ours = forward_difference_point(
        run.wavelength, run.rest_lines, values, good / run.variance, table, moves, float(run.config["minimization"]["eps"])
    )
    converged = run.plane("status")[0] == 0

    def apart(of: np.ndarray) -> np.ndarray:
        return np.abs(of[:, :, 0] * of[:, :, 2] / (theirs[:, :, 0] * theirs[:, :, 2]) - 1.0)[converged]

    assert np.median(apart(ours)) < median < np.median(apart(table))
    assert np.mean(apart(ours) < 1e-3) > 0.95
    assert apart(ours).max() < 2e-3
