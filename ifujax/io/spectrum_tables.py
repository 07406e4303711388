"""Spectra in binary tables: which column is what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ifujax.errors import DataError, unknown
from ifujax.io.fits import Extension, FitsFile, header_text
from ifujax.io.instruments import JWST_BITS
from ifujax.io.layouts import Named
from ifujax.io.wavelength import WavelengthAxis, wavelength_from_vector

_WAVELENGTH = ("wavelength", "wave", "lambda", "lam", "wl")
_LOGARITHM = ("loglam", "loglambda", "log_lambda")
_FLUX = ("flux", "flux_density", "f_lambda", "flam", "data")
_UNCERTAINTY = {
    "variance": ("variance", "var", "flux_var", "flux_variance"),
    "error": ("error", "err", "flux_error", "flux_err", "fluxerr", "err_flux", "error_flux", "sigma", "e_flux"),
    "ivar": ("ivar", "flux_ivar", "inverse_variance"),
}
_FLAGS = ("flags", "flag", "mask", "dq", "qual", "quality", "and_mask")
_STELLAR = ("stellar", "stellar_continuum")
SDSS_BITS = 1 << 18 | 1 << 22 | 1 << 23 | 1 << 24
"""SPPIXMASK, set in all exposures: FULLREJECT, NOSKY, BRIGHTSKY, NODATA."""


@dataclass(frozen=True, eq=False)
class Columns:
    """What a table holds, as vectors."""

    values: np.ndarray
    waves: WavelengthAxis
    uncertainty: np.ndarray | None
    kind: str | None
    flags: np.ndarray | None
    flag_bits: int | None
    stellar: np.ndarray | None
    unit: str
    notes: tuple[str, ...]


def find_table(file: FitsFile, scidata: Extension, has_image: bool) -> int | None:
    """Return the table that holds the spectrum, or None.

    That is the one that is named, or has a column of that name; if nothing is named and the file has no image
    of a spectrum, the first one with wavelengths and fluxes.
    """
    tables = [i for i in range(len(file.hdus)) if file.table(i) is not None]
    if scidata is not None:
        if file.has(scidata):
            index = file.find(scidata, "scidata")
            return index if index in tables else None
        return next((i for i in tables if _column(file.table(i), str(scidata)) is not None), None)
    if has_image:
        return None
    return next((i for i in tables if _first(file.table(i), _WAVELENGTH + _LOGARITHM) and _first(file.table(i), _FLUX)), None)


def read_table(file: FitsFile, index: int, named: Named, wavelength: Extension) -> Columns:
    """Return the spectrum of a table; what is named are its columns.

    Raises
    ------
    DataError
        If a column is missing or its length isn't that of the others.
    """
    table: Any = file.table(index)
    where = file.label(index)

    def pick(name: Extension, argument: str, known: tuple[str, ...], required: bool = False) -> str | None:
        if name is None or (argument == "scidata" and file.has(name) and file.find(name, argument) == index):
            found = _first(table, known)
        else:
            found = _column(table, str(name))
            required = True
        if found is None and required:
            text = unknown("column", str(known[0] if name is None else name), table.columns.names)
            raise DataError(f"{argument} must name a column of {where}; got {text}")
        return found

    flux = pick(named.scidata, "scidata", _FLUX, required=True)
    wave = pick(wavelength, "wavelength", _WAVELENGTH + _LOGARITHM, required=True)
    kind = named.kind
    if kind is not None:
        noise = pick(named.uncertainty, kind, _UNCERTAINTY[kind])
    else:
        kind = next((kind for kind, known in _UNCERTAINTY.items() if _first(table, known)), None)
        noise = None if kind is None else _first(table, _UNCERTAINTY[kind])
    mask, stellar = pick(named.flags, "flags", _FLAGS), pick(named.stellar, "stellar", _STELLAR)
    values = _vector(table, flux, np.float64)

    def vector(column: str | None, argument: str, dtype: Any = np.float64) -> np.ndarray | None:
        if column is None:
            return None
        found = _vector(table, column, dtype)
        if found.shape != values.shape:
            raise DataError(f"{argument} must be as long as {flux}, {values.shape}; got {found.shape} in {column} of {where}.")
        return found

    first = file.header(0)
    jwst, sdss = header_text(first, "TELESCOP").upper() == "JWST", (mask or "").lower() == "and_mask"
    bits = named.flag_bits or (
        None if mask is None or named.flags is not None else JWST_BITS if jwst else SDSS_BITS if sdss else None
    )
    notes = [
        f"Data: column {flux} of {where}"
        + (f"; {kind}: {noise}" if noise else ", no uncertainty")
        + (f"; flags: {mask}" + (f" (bits {bits:#x} are bad)" if bits else "") if mask else "")
        + (f"; stellar: {stellar}." if stellar else ".")
    ]
    return Columns(
        values=values,
        waves=_wavelengths(table, wave or "", values.size, where, "WAVE" if jwst or sdss else ""),
        uncertainty=vector(noise, kind or "variance"),
        kind=kind,
        flags=vector(mask, "flags", None),
        flag_bits=bits,
        stellar=vector(stellar, "stellar"),
        unit=_unit(table, flux) or header_text(file.header(index), "BUNIT") or header_text(first, "BUNIT"),
        notes=tuple(notes),
    )


def _wavelengths(table: Any, column: str, n: int, where: str, ctype: str) -> WavelengthAxis:
    values = _vector(table, column, np.float64)
    if column.lower() in _LOGARITHM:
        return wavelength_from_vector(10.0**values, n, "Angstrom", ctype, where)
    return wavelength_from_vector(values, n, _unit(table, column), ctype, where)


def _vector(table: Any, column: str | None, dtype: Any) -> np.ndarray:
    values = np.asarray(table.data[column])
    values = values.astype(values.dtype.newbyteorder("=")) if dtype is None else values.astype(dtype)
    # One row with a vector in it, or one number a row.
    return np.atleast_1d(values.squeeze())


def _unit(table: Any, column: str | None) -> str:
    return next((str(each.unit or "") for each in table.columns if each.name == column), "")


def _column(table: Any, name: str) -> str | None:
    return next((each for each in table.columns.names if each.lower() == name.strip().lower()), None)


def _first(table: Any, known: tuple[str, ...]) -> str | None:
    return next((found for each in known if (found := _column(table, each)) is not None), None)
