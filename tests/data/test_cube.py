"""The cube: views, rest-frame spaxels, what counts as bad, and the checks after a cut."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from ifujax.data import Cube
from ifujax.errors import DataError, IfujaxWarning, UsageError


def make(shape=(12, 4, 5), **changes) -> Cube:
    rng = np.random.default_rng(1)
    options = {
        "values": rng.normal(5.0, 1.0, shape).astype(">f4"),
        "wavelength": 5000.0 + 2.0 * np.arange(shape[0]),
        "uncertainty": np.full(shape, 4.0, dtype=">f4"),
        "uncertainty_kind": "variance",
        "redshift": 0.1,
    }
    return Cube(**(options | changes))


def test_rest_frame_grid():
    cube = make()
    np.testing.assert_allclose(cube.rest_wavelength, cube.wavelength / 1.1)
    edges = cube.rest_edges
    assert edges.shape == (13,)
    np.testing.assert_allclose(0.5 * (edges[1:] + edges[:-1]), cube.rest_wavelength)
    assert cube.n_spaxels == 20
    assert "redshift 0.1" in repr(cube)


def test_cut_is_inclusive_and_a_view():
    cube = make()
    rest = cube.rest_wavelength
    cut = cube.cut(rest[2], rest[6])
    np.testing.assert_array_equal(cut.wavelength, cube.wavelength[2:7])
    assert np.shares_memory(cut.values, cube.values)
    assert np.shares_memory(cut.uncertainty, cube.uncertainty)


def test_cut_outside_gives_the_range_of_the_cube():
    with pytest.raises(DataError, match=r"4545\.45 to 4565\.45.*got 6000 to 6100"):
        make().cut(6000, 6100)
    with pytest.raises(UsageError, match="low below high"):
        make().cut(6100, 6000)


@pytest.mark.parametrize(
    "rows", [np.arange(20), np.arange(5, 15), np.arange(3, 9), np.array([7]), np.array([19, 0, 7]), np.array([6, 5, 9])]
)
def test_spaxels_are_the_right_ones_in_the_rest_frame(rows):
    cube = make()
    taken = cube.spaxels(rows)
    expected = np.asarray(cube.values, dtype=float).reshape(12, -1).T[rows] * 1.1
    np.testing.assert_allclose(taken.values, expected, rtol=1e-15)
    np.testing.assert_allclose(taken.variance, np.full((rows.size, 12), 4.0 * 1.1**2))
    assert taken.values.dtype == np.float64
    assert taken.values.flags.c_contiguous
    assert taken.values.dtype.isnative
    assert not taken.bad.any()
    assert taken.stellar is None


def test_spaxels_are_copies_and_no_rows_are_fine():
    cube = make(values=np.ones((12, 4, 5)), uncertainty=np.ones((12, 4, 5)))
    taken = cube.spaxels(np.arange(20))
    taken.values[:] = 0
    taken.variance[:] = 0
    assert cube.values.min() == 1
    assert cube.uncertainty.min() == 1
    assert cube.spaxels(np.array([], dtype=int)).values.shape == (0, 12)


@pytest.mark.parametrize("rows", [np.array([20]), np.array([-1]), np.array([1.5]), np.array([[1]])])
def test_wrong_rows(rows):
    with pytest.raises(UsageError, match="rows must"):
        make().spaxels(rows)


@pytest.mark.parametrize(("kind", "plane"), [("variance", 4.0), ("error", 2.0), ("ivar", 0.25)])
@pytest.mark.parametrize("broken", [0.0, -1.0, np.nan, np.inf])
def test_uncertainty_kinds_and_unusable_values(kind, plane, broken):
    uncertainty = np.full((12, 4, 5), plane)
    uncertainty[3, 0, 1] = broken
    cube = make(uncertainty=uncertainty, uncertainty_kind=kind)
    with np.errstate(all="raise"):
        taken = cube.spaxels(np.arange(20))
    # An infinite inverse variance is a variance of zero: no more usable than the others.
    assert taken.bad.sum() == 1
    assert taken.bad[1, 3]
    assert taken.values[1, 3] == 0
    assert taken.variance[1, 3] == 1
    np.testing.assert_array_equal(taken.dropped_variance, [0, 1] + [0] * 18)
    np.testing.assert_allclose(taken.variance[0], 4.84)


def test_bad_pixels_are_replaced_everywhere():
    values, stellar, flags = np.ones((12, 4, 5)), np.full((12, 4, 5), 0.5), np.zeros((12, 4, 5), dtype=np.uint8)
    values[0, 0, 0], stellar[1, 0, 0], flags[2, 0, 0] = np.nan, np.inf, 4
    taken = make(values=values, stellar=stellar, flags=flags).spaxels(np.arange(20))
    np.testing.assert_array_equal(np.argwhere(taken.bad), [[0, 0], [0, 1], [0, 2]])
    for plane in (taken.values, taken.variance, taken.stellar):
        assert np.isfinite(plane).all()
    assert taken.stellar[0, 3] == pytest.approx(0.55)
    assert taken.dropped_variance.sum() == 0


def test_flags_may_mean_the_opposite():
    flags = np.ones((12, 4, 5))
    flags[3, 0, 0] = 0
    flags[4, 0, 0] = np.nan
    bad = make(flags=flags, flags_zero_is_bad=True).spaxels(np.arange(20)).bad
    np.testing.assert_array_equal(np.argwhere(bad), [[0, 3], [0, 4]])


def test_extreme_units_survive():
    cube = make(values=np.full((12, 4, 5), 1e-150), uncertainty=np.full((12, 4, 5), 1e-151), uncertainty_kind="error")
    assert not cube.spaxels(np.arange(20)).bad.any()
    cube.check()


def test_check_of_a_good_cube_changes_nothing(recwarn):
    cube = make()
    assert cube.check() is cube
    assert not recwarn.list


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.full((12, 4, 5), np.nan)}, "finite values"),
        ({"flags": np.ones((12, 4, 5))}, "flags_zero_is_bad: yes"),
        ({"uncertainty": np.zeros((12, 4, 5)), "uncertainty_kind": "variance"}, "variance must be positive"),
        ({"flags": np.zeros((12, 4, 5)), "flags_zero_is_bad": True}, "flags_zero_is_bad: no"),
        ({"spatial_mask": np.ones((4, 5), dtype=bool)}, "spatial_mask"),
    ],
)
def test_check_refuses_a_cube_without_usable_pixels(changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes).check()


def test_check_finds_the_one_good_spaxel():
    values = np.full((12, 4, 5), np.nan)
    values[11, 3, 4] = 1.0
    assert make(values=values).check().shape == (12, 4, 5)


def test_check_warns_of_mostly_flagged_pixels():
    flags = np.ones((12, 4, 5))
    flags[:, 0] = 0
    with pytest.warns(IfujaxWarning, match=r"75 %.*flags_zero_is_bad: yes"):
        checked = make(flags=flags).check()
    assert "75 %" in checked.notes[-1]


def test_check_warns_of_a_variance_named_error():
    values, variance = np.full((12, 4, 5), 1e-16), np.full((12, 4, 5), 1e-33)
    with pytest.warns(IfujaxWarning, match=r"error is implausible.*variance would give"):
        make(values=values, uncertainty=variance, uncertainty_kind="error").check()
    with pytest.warns(IfujaxWarning, match=r"variance is implausible.*error would give"):
        make(values=values, uncertainty=np.sqrt(variance), uncertainty_kind="variance").check()
    with pytest.warns(IfujaxWarning, match="ivar is implausible"):
        make(values=values, uncertainty=variance, uncertainty_kind="ivar").check()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"values": np.ones((12, 4))}, DataError, "three axes"),
        ({"wavelength": np.arange(1, 9)}, DataError, "one value per plane"),
        ({"wavelength": np.arange(12, 0, -1)}, DataError, "ascending"),
        ({"uncertainty": np.ones((12, 4, 4))}, DataError, r"\(12, 4, 5\); got \(12, 4, 4\)"),
        ({"flags": np.ones((4, 5))}, DataError, r"\(12, 4, 5\); got \(4, 5\)"),
        ({"spatial_mask": np.ones((5, 4))}, DataError, r"\(4, 5\); got \(5, 4\)"),
        ({"uncertainty_kind": None}, UsageError, "together"),
        ({"uncertainty_kind": "sigma"}, UsageError, "one of variance"),
        ({"redshift": -1.0}, UsageError, "redshift"),
    ],
)
def test_construction_is_checked(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_release_drops_pages_and_keeps_the_data(tmp_path):
    path = tmp_path / "plane.raw"
    np.ones((12, 4, 5), dtype=">f4").tofile(path)
    cube = make(values=np.memmap(path, dtype=">f4", mode="r", shape=(12, 4, 5))).cut(4546, 4560)
    from ifujax.data.spaxels import memory_map

    assert isinstance(memory_map(cube.values), mmap.mmap)
    cube.release()
    assert cube.values.sum() == cube.values.size
    make().release()
