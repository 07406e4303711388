"""Voronoi bins: which bin each spaxel belongs to, from IFSCube's table or an image of bin numbers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from astropy.io import fits

from ifujax.errors import DataError, IfujaxWarning
from ifujax.io.fits import Extension, FitsFile

_COLUMNS = ("xcoords", "ycoords", "binnum")
_KEPT = ("VOR", "VORPLUS")


def kept_tables(file: FitsFile) -> dict[str, fits.BinTableHDU]:
    """Return copies of the tables that a product takes over, by name."""
    found = {}
    for i, hdu in enumerate(file.hdus):
        if hdu.name.upper() in _KEPT and file.table(i) is not None and hdu.name.upper() not in found:
            found[hdu.name.upper()] = fits.BinTableHDU(np.array(hdu.data), header=hdu.header.copy(), name=hdu.name)
    return found


def read_bins(
    file: FitsFile, vortab: Extension, header: fits.Header, values: Any, image: int | None
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the bin number of each spaxel (y, x), -1 for none, and notes; None for a cube that isn't binned.

    Parameters
    ----------
    file : FitsFile
    vortab : extension, optional
        A table with columns xcoords, ycoords, binNum (0-based), or an image of bin numbers; without it, the table VOR
        if the primary header has ``VORBIN = T``.
    header : Header
        The primary one.
    values : (wave, y, x) array
        The data: spaxels of one bin must hold the same spectrum.
    image : int or None
        HDU of an image of bin numbers that belongs to the instrument's layout.

    Raises
    ------
    DataError
        If the table or image can't be that of the data.
    """
    names = [hdu.name.upper() for hdu in file.hdus]
    notes: tuple[str, ...] = ()
    if vortab is not None:
        index = file.find(vortab, "vortab")
    elif header.get("VORBIN") is True:
        index = file.find("VOR", "VORBIN = T: the table of bins")
    elif image is not None:
        index = image
    else:
        if "VOR" in names:
            notes = (f"{file.path.name} has a table VOR but not VORBIN = T: name vortab: VOR to fit one spaxel per bin.",)
        return None, notes
    shape = tuple(np.shape(values))[1:]
    table = file.table(index)
    middle = np.asarray(values[np.shape(values)[0] // 2], dtype=np.float64)
    if table is None:
        bins = _from_image(file, index, shape)
    else:
        bins, notes = _from_table(table, file.label(index), shape, middle)
    if _differing(bins, middle):
        text = f"the spaxels of a bin of {file.label(index)} don't hold the same spectrum"
        if vortab is None and table is None:
            return None, (f"{text}: the bins are not used.",)
        text += ", though one of them is fitted for all. Bin the cube first, or leave vortab out."
        warnings.warn(text, IfujaxWarning, stacklevel=3)
        notes += (text,)
    count = np.unique(bins[bins >= 0]).size
    if count == 0:
        raise DataError(f"vortab must hold a bin at least; got none in {file.label(index)}. Leave it out, or name another.")
    return bins, (*notes, f"{count} bins of spaxels from {file.label(index)}: each is fitted once.")


def _from_image(file: FitsFile, index: int, shape: tuple[int, ...]) -> np.ndarray:
    found = file.image_shape(index)
    # Three axes: the MaNGA DAP keeps a plane of bin numbers for each step, the binned spectra first.
    if found is None or len(found) not in (2, 3) or found[-2:] != shape:
        raise DataError(
            f"vortab must be a table, or an image with shape (y, x) = {shape}; got {found} in {file.label(index)}. Name one."
        )
    plane = np.asarray(file.image(index))
    plane = np.asarray(plane[0] if len(found) == 3 else plane, dtype=np.float64)
    return np.where(np.isfinite(plane) & (plane >= 0), plane, -1).astype(np.int64)


def _from_table(table: Any, where: str, shape: tuple[int, ...], plane: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    columns = {name.lower(): name for name in table.columns.names}
    if any(name not in columns for name in _COLUMNS):
        raise DataError(
            f"vortab must be a table with columns xcoords, ycoords and binNum; got {', '.join(table.columns.names)} in {where}. "
            "Name another one."
        )
    x, y, number = (np.asarray(table.data[columns[name]]).astype(np.int64) for name in _COLUMNS)
    fits_as_is, swapped = _image(x, y, number, shape), _image(y, x, number, shape)
    if fits_as_is is None and swapped is None:
        ends = "is empty" if x.size == 0 else f"reach x = {x.max()}, y = {y.max()}"
        raise DataError(f"{where} must hold 0-based pixels of an image of {shape[1]} by {shape[0]}; its coordinates {ends}.")
    if fits_as_is is not None and (swapped is None or _differing(fits_as_is, plane) <= _differing(swapped, plane)):
        return fits_as_is, ()
    return swapped if swapped is not None else np.empty(0), (f"{where}: xcoords was taken as the row, since the data fit that.",)


def _image(x: np.ndarray, y: np.ndarray, number: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    if x.size == 0 or x.min() < 0 or y.min() < 0 or x.max() >= shape[1] or y.max() >= shape[0]:
        return None
    bins = np.full(shape, -1, dtype=np.int64)
    bins[y, x] = np.where(number < 0, -1, number)
    return bins


def _differing(bins: np.ndarray, plane: np.ndarray) -> int:
    """Number of spaxels whose value isn't that of the first of their bin: 0 if these are the bins of the data."""
    chosen = (bins >= 0) & np.isfinite(plane)
    _, first, member = np.unique(bins[chosen], return_index=True, return_inverse=True)
    one = plane[chosen]
    return int(np.count_nonzero(one != one[first][member]))
