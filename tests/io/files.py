"""Small FITS files in the layouts that readers know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

SHAPE = (20, 4, 5)
LINEAR = {"CRVAL3": 5000.0, "CRPIX3": 1.0, "CD3_3": 2.0, "CTYPE3": "AWAV", "CUNIT3": "Angstrom"}
SKY = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 63.0, "CRVAL2": 10.0, "CRPIX1": 2.0, "CRPIX2": 2.0,
    "CD1_1": -5e-5, "CD2_2": 5e-5, "CUNIT1": "deg", "CUNIT2": "deg",
}  # fmt: skip


def data() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + 1


def image(name: str, array: np.ndarray, cards: dict | None = None) -> fits.ImageHDU:
    hdu = fits.ImageHDU(array, name=name)
    hdu.header.update(cards or {})
    return hdu


def table(name: str, **columns) -> fits.BinTableHDU:
    """A table; a column is an array, or (array, unit)."""
    made = []
    for column, content in columns.items():
        array, unit = content if isinstance(content, tuple) else (content, None)
        array = np.asarray(array)
        code = {"f": "E" if array.dtype.itemsize == 4 else "D", "i": "K", "u": "K"}[array.dtype.kind]
        size = "" if array.ndim == 1 else str(int(np.prod(array.shape[1:])))
        made.append(fits.Column(column, size + code, unit, array=array))
    return fits.BinTableHDU.from_columns(made, name=name)


def write(path: Path, *hdus, primary: dict | None = None) -> Path:
    first = fits.PrimaryHDU()
    first.header.update(primary or {})
    fits.HDUList([first, *hdus]).writeto(path)
    return path


def generic(path: Path, cards: dict | None = None, *more, primary: dict | None = None) -> Path:
    return write(path, image("SCI", data(), (LINEAR | SKY) if cards is None else cards), *more, primary=primary)
