"""Where a file keeps its wavelengths: which axis of the WCS, a vector, a table, or a look-up table of the WCS."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

from ifujax.errors import DataError
from ifujax.io.fits import Extension, FitsFile, header_text
from ifujax.io.wavelength import WavelengthAxis, medium_of, wavelength_from_header, wavelength_from_vector

_COLUMNS = ("wavelength", "wave", "lambda", "lam")
_SPECTRAL = ("WAVE", "AWAV", "LAMBDA", "WAVELENGTH")
"""What CTYPE begins with on a wavelength axis: the standard's two, and the words of IRAF scripts."""


def is_spectral(ctype: str) -> bool:
    """Whether a CTYPE says wavelength."""
    return ctype.strip().upper().split("-")[0] in _SPECTRAL


def cube_axis(header: fits.Header, wcs_axis: int | None, where: str) -> int:
    """Return the FITS axis (1-based) of a cube's wavelength: the one that was named, else 3.

    Raises
    ------
    DataError
        If CTYPE says that it is another one.
    """
    if wcs_axis is not None:
        return wcs_axis
    kinds = {axis: header_text(header, f"CTYPE{axis}").upper() for axis in (1, 2, 3)}
    spectral = [axis for axis, kind in kinds.items() if medium_of(kind) != "unknown"]
    if spectral and 3 not in spectral:
        raise DataError(
            f"{where} must have its wavelength on FITS axis 3; got CTYPE{spectral[0]} = {kinds[spectral[0]]!r}. "
            f"Say so: wcs_axis: {spectral[0]}."
        )
    return 3


def spectrum_axis(header: fits.Header, wcs_axis: int | None, where: str) -> int:
    """Return the number in CRVALn and the like that describes a spectrum's wavelength.

    The header of a spectrum that was cut out of a cube may still describe three axes.

    Raises
    ------
    DataError
        If it describes several and none or more than one is said to be a wavelength.
    """
    if wcs_axis is not None:
        return wcs_axis
    described = [n for n in (1, 2, 3) if f"CRVAL{n}" in header]
    if len(described) < 2:
        return described[0] if described else 1
    spectral = [n for n in described if is_spectral(header_text(header, f"CTYPE{n}"))]
    if len(spectral) == 1:
        return spectral[0]
    likely = next((n for n in described if 1e3 < _number(header.get(f"CRVAL{n}")) < 3e5), described[-1])
    axes = "; ".join(f"{n}: CTYPE{n} = {header_text(header, f'CTYPE{n}')!r}, CRVAL{n} = {header[f'CRVAL{n}']}" for n in described)
    raise DataError(
        f"{where} must say which of its {len(described)} axes is the wavelength; got {axes}. Say so, e.g. wcs_axis: {likely}."
    )


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")


def find_wavelengths(
    file: FitsFile, science: int, wavelength: Extension, n: int, axis: int, primary: fits.Header
) -> WavelengthAxis:
    """Return the wavelengths of a plane: of the extension that was named, else of the header's WCS.

    Raises
    ------
    DataError
        If they can't be used; see `wavelength_from_header` and `wavelength_from_vector`.
    """
    head = file.header(science)
    if wavelength is not None:
        return _from_extension(file, file.find(wavelength, "wavelength"), n, header_text(head, f"CTYPE{axis}"))
    if header_text(head, f"CTYPE{axis}").upper().endswith("-TAB") and header_text(head, f"PS{axis}_0"):
        return _from_look_up(file, science, n, axis)
    return wavelength_from_header(head, n, axis, file.label(science), primary=primary)


def _from_extension(file: FitsFile, index: int, n: int, data_ctype: str) -> WavelengthAxis:
    own = file.header(index)
    stated = (header_text(own, "CTYPE1"), data_ctype)
    ctype = next((text for text in stated if medium_of(text) != "unknown"), "")
    table = file.table(index)
    if table is None:
        if file.image_shape(index) is None:
            raise DataError(
                f"wavelength must be a vector of {n} values; got no data in {file.label(index)}. Name another extension."
            )
        unit = header_text(own, "BUNIT") or header_text(own, "CUNIT1")
        return wavelength_from_vector(file.image(index), n, unit, ctype, file.label(index))
    columns = [c for c in table.columns if c.name.lower() in _COLUMNS] or list(table.columns)
    if len(columns) != 1:
        raise DataError(
            f"wavelength must be a vector; got the table {file.label(index)} with columns {', '.join(table.columns.names)}. "
            "Call the right column 'wavelength'."
        )
    return wavelength_from_vector(table.data[columns[0].name], n, str(columns[0].unit or ""), ctype, file.label(index))


def _from_look_up(file: FitsFile, science: int, n: int, axis: int) -> WavelengthAxis:
    """Wavelengths of a -TAB axis: a table column, looked up at ``CRVAL + CDELT (p - CRPIX)`` counted from 1.

    Greisen et al. 2006 (FITS WCS paper III), section 6; without an index vector (PSn_2).
    """
    head, where = file.header(science), file.label(science)
    name, column = header_text(head, f"PS{axis}_0"), header_text(head, f"PS{axis}_1")
    version = head.get(f"PV{axis}_1", 1)
    index = file.find(f"{name}, {int(float(str(version)))}" if version != 1 else name, f"PS{axis}_0 of {where}")
    table = file.table(index)
    if table is None or column.lower() not in [one.lower() for one in table.columns.names] or header_text(head, f"PS{axis}_2"):
        raise DataError(
            f"{where}: PS{axis}_0 and PS{axis}_1 must name a table and its column of wavelengths, without an index vector; "
            f"got {name!r}, {column!r}. Name a vector of wavelengths yourself: wavelength: NAME."
        )
    found = next(one for one in table.columns if one.name.lower() == column.lower())
    values = np.asarray(table.data[found.name], dtype=np.float64).ravel()
    start, reference = (float(str(head.get(f"{card}{axis}", 1.0))) for card in ("CRVAL", "CRPIX"))
    step = float(str(head.get(f"CD{axis}_{axis}", head.get(f"CDELT{axis}", 1.0))))
    positions = start + step * (np.arange(1, n + 1) - reference)
    if values.size == 0 or positions.min() < 1 - 1e-9 or positions.max() > values.size + 1e-9:
        raise DataError(
            f"{where}: the {n} pixels must lie within the {values.size} wavelengths of {file.label(index)}; "
            f"got {positions.min():g} to {positions.max():g}. Name a vector of wavelengths yourself: wavelength: NAME."
        )
    vector = np.interp(positions, np.arange(1, values.size + 1), values)
    unit = str(found.unit or "") or header_text(head, f"CUNIT{axis}")
    axis_found = wavelength_from_vector(vector, n, unit, header_text(head, f"CTYPE{axis}"), file.label(index))
    note = f"The wavelengths are those of {file.label(index)}."
    return WavelengthAxis(axis_found.values, axis_found.medium, (*axis_found.notes, note))
