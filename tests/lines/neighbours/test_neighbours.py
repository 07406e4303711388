"""Who is near whom, in which order rings come, and medians that leave out what is not known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ifujax.data.cube import Cube
from ifujax.lines.neighbours.teaching import BATCH, Neighbourhood, centre_of, row_median


def cube_of(ny: int, nx: int, bins: np.ndarray | None = None) -> Cube:
    values = np.zeros((2, ny, nx))
    values[:, 1, 3] = 5.0
    values[:, 1, 1] = 3.0
    return Cube(values, np.array([5000.0, 5001.0]), bins=bins)


def test_neighbours_are_those_within_the_radius() -> None:
    rows = np.array([0, 1, 2, 5, 6, 10, 14])  # of an image 5 wide
    near = Neighbourhood(cube_of(3, 5), rows, 1.0).table(np.arange(7))
    assert [sorted(line[line >= 0]) for line in near.tolist() for line in [np.array(line)]] == [
        [1, 3], [0, 2, 4], [1], [0, 4, 5], [1, 3], [3], [],
    ]  # fmt: skip
    wider = Neighbourhood(cube_of(3, 5), rows, 1.5).table(np.array([4, 6]))
    assert sorted(wider[0][wider[0] >= 0]) == [0, 1, 2, 3, 5]
    assert (wider[1] < 0).all()


def test_radius_against_all_distances() -> None:
    rng = np.random.default_rng(3)
    rows = np.flatnonzero(rng.random(13 * 17) < 0.7)
    where = Neighbourhood(cube_of(13, 17), rows, 3.0)
    mine = rng.permutation(len(rows))[:40]
    apart = np.hypot(*(where.position[mine][:, None] - where.position[None]).T).T
    for line, expected in zip(where.table(mine), (apart <= 3.0) & (apart > 0)):
        assert np.array_equal(line[line >= 0], np.flatnonzero(expected))


def test_bins_are_near_where_they_touch() -> None:
    bins = np.array([[0, 0, 0, 1], [0, 2, 2, 1], [3, 3, -1, 4]])
    rows = np.array([3, 0, 5, 11])  # bin 3 is not fitted
    where = Neighbourhood(cube_of(3, 4, bins), rows, 1.0)
    found = [set(line[line >= 0].tolist()) for line in where.table(np.arange(4))]
    assert found == [{1, 2, 3}, {0, 2}, {0, 1}, {0}]
    np.testing.assert_allclose(where.position, [[0.5, 3.0], [0.25, 0.75], [1.0, 1.5], [2.0, 3.0]])


def test_rings_hold_all_spaxels_once_and_come_in_order() -> None:
    where = Neighbourhood(cube_of(30, 40), np.arange(1200), 2.0)
    rings = where.rings((19.5, 14.5))
    assert np.array_equal(np.sort(np.concatenate(rings)), np.arange(1200))
    assert min(len(ring) for ring in rings) >= BATCH
    distance = [np.round(np.hypot(*(where.position[ring] - (14.5, 19.5)).T)) for ring in rings]
    assert all(inner.max() < outer.min() for inner, outer in pairwise(distance))
    assert len(Neighbourhood(cube_of(3, 5), np.arange(15), 2.0).rings((0.0, 0.0))) == 1


@pytest.mark.parametrize(
    ("wanted", "expected"), [(None, (2.0, 1.0)), ("peak", (3.0, 1.0)), ("cofm", (2.25, 1.0)), ((1, 2), (1.0, 2.0))]
)
def test_centre(wanted, expected: tuple[float, float]) -> None:
    assert centre_of(cube_of(3, 5), wanted) == pytest.approx(expected)


def test_median_without_nan() -> None:
    values = np.array([[3.0, np.nan, 1.0, 2.0], [np.nan] * 4, [4.0, 1.0, np.nan, np.nan], [1.0, 2.0, 3.0, 9.0]])
    np.testing.assert_array_equal(row_median(values), [2.0, np.nan, 2.5, 2.5])
    assert np.isnan(row_median(np.zeros((2, 0)))).all()
