"""The spectrum: a cube of one spaxel, its cut and its figure."""

from __future__ import annotations

import numpy as np
import pytest

from ifujax.data import Spectrum
from ifujax.errors import DataError, IfujaxWarning, UsageError

N = 12


def make(**changes) -> Spectrum:
    options = {
        "values": np.arange(1.0, N + 1),
        "wavelength": 5000.0 + 2.0 * np.arange(N),
        "uncertainty": np.full(N, 2.0),
        "uncertainty_kind": "error",
        "flags": np.zeros(N, dtype=np.int16),
        "stellar": np.full(N, 0.5),
        "redshift": 0.1,
        "unit": "erg/s/cm2/Angstrom",
    }
    return Spectrum(**(options | changes))


def test_as_cube_holds_the_same():
    spectrum = make(flags=np.arange(N), flag_bits=8)
    cube = spectrum.as_cube()
    assert cube.shape == (N, 1, 1)
    taken = cube.spaxels(np.array([0]))
    np.testing.assert_array_equal(taken.bad[0], spectrum.bad)
    np.testing.assert_array_equal(np.flatnonzero(spectrum.bad), [8, 9, 10, 11])
    np.testing.assert_allclose(taken.values[0, :8], spectrum.values[:8] * 1.1)
    np.testing.assert_allclose(taken.variance[0, :8], 4 * 1.1**2)
    assert (cube.unit, cube.redshift) == (spectrum.unit, 0.1)


@pytest.mark.parametrize(
    ("changes", "bad"),
    [
        ({"values": [np.nan] + [1.0] * (N - 1)}, [0]),
        ({"stellar": [1.0, np.inf] + [1.0] * (N - 2)}, [1]),
        ({"uncertainty": [1.0, 1.0, 0.0, -1.0] + [1.0] * (N - 4)}, [2, 3]),
        ({"flags": np.r_[0, 1, np.zeros(N - 2)]}, [1]),
        ({"flags": np.r_[0, np.ones(N - 1)], "flags_zero_is_bad": True}, [0]),
    ],
)
def test_bad_pixels(changes, bad):
    np.testing.assert_array_equal(np.flatnonzero(make(**changes).bad), bad)


def test_cut_is_inclusive():
    spectrum = make()
    rest = spectrum.rest_wavelength
    np.testing.assert_allclose(rest, spectrum.wavelength / 1.1)
    part = spectrum.cut(rest[2], rest[6])
    np.testing.assert_array_equal(part.values, spectrum.values[2:7])
    assert part.stellar.shape == part.flags.shape == (5,)
    with pytest.raises(DataError, match="overlap the data"):
        spectrum.cut(1, 2)
    with pytest.raises(UsageError, match="low below high"):
        spectrum.cut(2, 1)


def test_without_uncertainty():
    spectrum = make(uncertainty=None, uncertainty_kind=None, flags=None, stellar=None)
    assert not spectrum.bad.any()
    assert "no uncertainty" in repr(spectrum)
    assert spectrum.cut(4550, 4560).uncertainty is None


def test_check_notes():
    with pytest.warns(IfujaxWarning, match="flags reject"):
        checked = make(flags=np.r_[0, 0, np.ones(N - 2)]).check()
    assert "flags reject" in checked.notes[-1]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"values": np.ones((N, 1, 1))}, DataError, "one axis; got shape"),
        ({"stellar": np.ones(3)}, DataError, r"stellar must have the shape of the data, \(12,\); got \(3,\)"),
        ({"wavelength": np.arange(N)[::-1]}, DataError, "ascending"),
        ({"wavelength": np.arange(1, N)}, DataError, "one value per plane"),
        ({"uncertainty_kind": "sigma"}, UsageError, "one of variance"),
        ({"redshift": -2}, UsageError, "redshift"),
        ({"flag_bits": 0}, UsageError, "flag_bits"),
    ],
)
def test_construction_is_checked(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


def test_figure():
    figure = make(flags=np.r_[0, 1, np.zeros(N - 2)]).plot(window=(4550, 4560))
    (ax,) = figure.axes
    low, high = ax.get_xlim()
    assert 4550 <= low < high <= 4560
    assert ax.collections  # the band of the error
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert len(make(uncertainty=None, uncertainty_kind=None, stellar=None).plot().axes) == 1
