"""Voronoi bins, and spaxels of NaN."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.cubes import read_cube
from tests.io.files import LINEAR, SHAPE, data, generic, image, table, write

BINS = np.array([[0, 0, 1, 1, 1], [0, 2, 2, 1, 3], [4, 4, 2, 3, 3], [4, 5, 5, 5, -1]])
BINNED = (np.arange(20.0)[:, None, None] * (BINS + 7)).astype(np.float32)


def voronoi(x: np.ndarray, y: np.ndarray) -> fits.BinTableHDU:
    return table("VOR", xcoords=x, ycoords=y, binNum=BINS[BINS >= 0])


def binned(path, *, transposed: bool = False, primary: dict | None = None, cube: np.ndarray = BINNED):
    y, x = np.nonzero(BINS >= 0)
    first, second = (y, x) if transposed else (x, y)
    plus = table("VORPLUS", ubin=np.arange(6), sn=np.linspace(10, 11, 6))
    return write(path, image("SCI", cube, LINEAR), voronoi(first, second), plus, primary=primary)


def test_ifscube_table(tmp_path):
    cube = read_cube(binned(tmp_path / "c.fits", primary={"VORBIN": True}))
    np.testing.assert_array_equal(cube.bins, BINS)
    assert set(cube.tables) == {"VOR", "VORPLUS"}
    np.testing.assert_array_equal(cube.tables["VORPLUS"].data["ubin"], np.arange(6))
    assert "6 bins of spaxels" in cube.notes[-1]
    assert "bins" in repr(cube)
    assert cube.cut(5010, 5020).bins is not None


def test_table_is_used_only_if_the_header_or_the_user_says_so(tmp_path):
    path = binned(tmp_path / "c.fits")
    cube = read_cube(path)
    assert cube.bins is None
    assert set(cube.tables) == {"VOR", "VORPLUS"}
    assert "name vortab: VOR" in cube.notes[-1]
    np.testing.assert_array_equal(read_cube(path, vortab="VOR").bins, BINS)


def test_coordinates_the_other_way_round(tmp_path):
    cube = read_cube(binned(tmp_path / "c.fits", transposed=True, primary={"VORBIN": True}))
    np.testing.assert_array_equal(cube.bins, BINS)
    assert "xcoords was taken as the row" in " ".join(cube.notes)


def test_image_of_numbers(tmp_path):
    numbers = np.where(BINS < 0, np.nan, BINS)
    path = generic(tmp_path / "c.fits", None, image("BINID", numbers), image("WRONG", numbers[:2]))
    with pytest.warns(IfujaxWarning, match=r"don't hold the same spectrum.*Bin the cube first"):
        cube = read_cube(path, vortab="BINID")
    np.testing.assert_array_equal(cube.bins, BINS)
    with pytest.raises(DataError, match=r"shape \(y, x\) = \(4, 5\); got \(2, 5\)"):
        read_cube(path, vortab="WRONG")
    with pytest.raises(DataError, match="vortab must name an extension.*leave vortab out"):
        read_cube(path, vortab="BINS")


def test_wrong_tables(tmp_path):
    wrong = table("T", x=np.arange(3), y=np.arange(3))
    far = table("FAR", xcoords=np.array([9]), ycoords=np.array([9]), binNum=np.array([0]))
    none = table("NONE", xcoords=np.array([1]), ycoords=np.array([1]), binNum=np.array([-1]))
    path = generic(tmp_path / "c.fits", None, wrong, far, none)
    with pytest.raises(DataError, match="columns xcoords, ycoords and binNum; got x, y"):
        read_cube(path, vortab="T")
    with pytest.raises(DataError, match=r"image of 5 by 4; its coordinates reach x = 9, y = 9"):
        read_cube(path, vortab="FAR")
    with pytest.raises(DataError, match="must hold a bin"):
        read_cube(path, vortab="NONE")
    with pytest.raises(DataError, match="VORBIN = T: the table of bins must name"):
        read_cube(generic(tmp_path / "d.fits", primary={"VORBIN": True}))


def test_nan_spaxels(tmp_path):
    values, stellar = data(), data()
    values[:, 0, 0], values[3, 1, 1] = np.nan, np.nan
    stellar[:, 2, 2] = np.nan
    mask = np.zeros(SHAPE[1:], dtype=np.int16)
    mask[3, 4] = 1
    planes = image("SCI", values, LINEAR), image("SYN", stellar), image("SKIP", mask)
    path = write(tmp_path / "c.fits", *planes)

    def skipped(**options) -> set[tuple[int, int]]:
        found = read_cube(path, **options).spatial_mask
        return set() if found is None else {(int(y), int(x)) for y, x in np.argwhere(found)}

    assert skipped() == set()
    assert skipped(nan_spaxels="all") == {(0, 0)}
    assert skipped(nan_spaxels="any") == {(0, 0), (1, 1)}
    assert skipped(nan_spaxels="all", stellar="SYN") == {(0, 0), (2, 2)}
    assert skipped(nan_spaxels="any", spatial_mask="SKIP") == {(0, 0), (1, 1), (3, 4)}
    assert "2 spaxels with any NaN" in read_cube(path, nan_spaxels="any").notes[-1]
    with pytest.raises(UsageError, match="unknown nan_spaxels 'some'"):
        read_cube(path, nan_spaxels="some")
