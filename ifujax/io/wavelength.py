"""The wavelength axis of a FITS file, from its WCS or from a vector, in Angstrom."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.io import fits

from ifujax.errors import DataError
from ifujax.io.fits import header_text

_SPELLINGS = {
    "a": 1.0, "aa": 1.0, "ang": 1.0, "angs": 1.0, "angst": 1.0, "angstrom": 1.0, "angstroms": 1.0, "ångström": 1.0, "å": 1.0,
    "nanometer": 10.0, "nanometers": 10.0, "nanometre": 10.0, "nanometres": 10.0, "nm": 10.0,
    "um": 1e4, "micron": 1e4, "microns": 1e4, "micrometer": 1e4, "micrometers": 1e4, "mum": 1e4, "µm": 1e4, "μm": 1e4,
    "m": 1e10, "meter": 1e10, "meters": 1e10, "metre": 1e10, "metres": 1e10,
}  # fmt: skip
"""Angstrom per unit for spellings that the FITS standard doesn't have but files do (IRAF's "A" isn't an ampere)."""
_PLAUSIBLE = (1000.0, 300000.0)
"""Angstrom: what a wavelength without a unit must lie within to be taken for Angstrom."""
_LOGARITHMS = ((2.9, 5.5), (6.9, 12.7))
"""Ranges that log10 and ln of a wavelength in Angstrom fall into: no cube has such wavelengths."""
_OTHER_AXES = ("FREQ", "ENER", "WAVN", "VRAD", "VOPT", "ZOPT", "VELO", "BETA", "FELO", "RA--", "DEC-", "GLON", "GLAT")
_ADVICE = "Put the wavelengths in a 1-D image extension with BUNIT and name it: wavelength: NAME."


@dataclass(frozen=True, eq=False)
class WavelengthAxis:
    """Wavelengths (Angstrom, ascending), the medium that the file states, and what was assumed."""

    values: np.ndarray
    medium: str
    notes: tuple[str, ...] = ()


def angstrom_per(unit: str) -> float | None:
    """Return the number of Angstrom in one `unit` of length, or None if it isn't one."""
    text = unit.strip()
    try:
        factor: Any = units.Unit(text).to(units.AA)
        return float(factor)
    except (ValueError, TypeError, units.UnitConversionError):
        return _SPELLINGS.get(text.casefold())


def medium_of(ctype: str) -> str:
    """``"air"`` for AWAV, ``"vacuum"`` for WAVE (FITS WCS paper III), else ``"unknown"``."""
    kind = ctype.strip().upper().split("-")[0]
    return {"AWAV": "air", "WAVE": "vacuum"}.get(kind, "unknown")


def wavelength_from_header(
    header: fits.Header, n: int, axis: int, where: str, *, primary: fits.Header | None = None
) -> WavelengthAxis:
    """Return the wavelengths of FITS axis `axis` (1-based).

    Linear axes use CDn_n, or else CDELTn x PCn_n. Logarithmic ones: CTYPE WAVE-LOG or AWAV-LOG,
    ``CRVAL exp(step (p - CRPIX) / CRVAL)`` (Greisen et al. 2006, section 3), or IRAF's
    ``DC-FLAG = 1``, ``10**(CRVAL + step (p - CRPIX))``.

    Parameters
    ----------
    header : Header of the data
    n : int
        Number of pixels.
    axis : int
    where : str
        Names the extension in messages.
    primary : Header, optional
        Searched for DC-FLAG where `header` has none.

    Raises
    ------
    DataError
        If there is no wavelength axis, it depends on position, its unit is unknown, or it descends.
    """
    ctype = header_text(header, f"CTYPE{axis}").upper()
    if ctype[:4] in _OTHER_AXES:
        raise DataError(
            f"{where}: CTYPE{axis} must be a wavelength; got {ctype!r}. Set wcs_axis to the wavelength's, or: {_ADVICE}"
        )
    kind, _, algorithm = ctype.partition("-")
    algorithm = algorithm.strip("-")
    if kind in ("WAVE", "AWAV") and algorithm not in ("", "LOG"):
        raise DataError(f"{where}: CTYPE{axis} must be linear or logarithmic; got {ctype!r}. {_ADVICE}")
    step = _step(header, axis, where)
    if f"CRVAL{axis}" not in header or step is None:
        raise DataError(f"{where} must have CRVAL{axis} and CD{axis}_{axis} or CDELT{axis}; got no such cards. {_ADVICE}")
    start = _number(header, f"CRVAL{axis}", 0.0, where)
    reference = _number(header, f"CRPIX{axis}", 1.0, where)
    offset = np.arange(1, n + 1) - reference
    dc_flag = header.get("DC-FLAG", (primary if primary is not None else {}).get("DC-FLAG", 0))
    notes: tuple[str, ...] = ()
    if algorithm == "LOG":
        if start <= 0:
            raise DataError(f"{where}: CRVAL{axis} must be positive for {ctype}; got {start:g}. {_ADVICE}")
        values = start * np.exp(offset * step / start)
        notes = (f"The wavelengths of {where} are logarithmic ({ctype}).",)
    elif str(dc_flag).strip() == "1":
        values = start + offset * step
        # Above, 10**values would overflow: these are wavelengths, not logarithms.
        if np.max(np.abs(values)) > 30:
            raise DataError(
                f"{where}: DC-FLAG = 1 must come with log10 of the wavelength; got CRVAL{axis} = {start:g}. "
                f"Set DC-FLAG to 0 or correct CRVAL{axis}."
            )
        values = 10.0**values
        notes = (f"The wavelengths of {where} are logarithmic (DC-FLAG = 1).",)
    else:
        values = start + offset * step
    unit = header_text(header, f"CUNIT{axis}")
    if not unit:
        # IRAF keeps the unit here.
        found = re.search(r"units=(\w+)", header_text(header, f"WAT{axis}_001"))
        unit = found.group(1) if found else ""
    # CRVAL stays, also for logarithmic axes: the pixel p becomes n + 1 - p.
    advice = (
        f"Reverse every plane along the wavelength, e.g. data[::-1], set CRPIX{axis} = {n + 1 - reference:g} "
        f"and change the sign of the step ({-step:g})."
    )
    return _finish(values, unit, ctype, where, notes, f"CUNIT{axis}", advice)


def wavelength_from_vector(values: np.ndarray, n: int, unit: str, ctype: str, where: str) -> WavelengthAxis:
    """Return wavelengths from a vector of any sampling; `unit` as written in its file, possibly empty.

    Raises
    ------
    DataError
        If it isn't a vector of `n` ascending wavelengths in a known unit.
    """
    vector = np.asarray(values, dtype=np.float64).squeeze()
    if vector.shape != (n,):
        raise DataError(
            f"wavelength must be a vector of {n} values, one per pixel of the data; got shape {np.shape(values)} in {where}."
        )
    return _finish(
        vector, unit.strip(), ctype, where, (), "BUNIT", "Reverse the vector and all planes along it, e.g. data[::-1]."
    )


def _finish(
    values: np.ndarray, unit: str, ctype: str, where: str, notes: tuple[str, ...], card: str, reverse: str
) -> WavelengthAxis:
    if not np.all(np.isfinite(values)):
        raise DataError(f"{where}: wavelengths must be finite; got NaN or infinity. {_ADVICE}")
    low, high = float(values.min()), float(values.max())
    medium = medium_of(ctype)
    if unit:
        factor = angstrom_per(unit)
        if factor is None:
            raise DataError(
                f"{where}: {card} must be a unit of length; got {unit!r}. Set {card} to 'Angstrom', 'nm', 'um' or 'm'."
            )
    elif _PLAUSIBLE[0] <= low and high <= _PLAUSIBLE[1]:
        factor = 1.0
        notes += (f"{where} doesn't state the unit of its wavelengths: Angstrom was assumed ({low:.6g} to {high:.6g}).",)
    elif medium != "unknown" and _PLAUSIBLE[0] <= low * 1e10 and high * 1e10 <= _PLAUSIBLE[1]:
        factor = 1e10
        notes += (f"{where} doesn't state the unit of its wavelengths: metres, the standard's default, were assumed.",)
    else:
        factor = None
    if (factor == 1.0 or factor is None) and any(a < low and high < b for a, b in _LOGARITHMS):
        raise DataError(
            f"{where}: wavelengths must be in a unit of length; got {low:.6g} to {high:.6g}, which look like logarithms. "
            f"Set DC-FLAG = 1 if they are log10 of Angstrom, or: {_ADVICE}"
        )
    if factor is None:
        raise DataError(
            f"{where}: the unit of the wavelengths must be stated; got none and {low:.6g} to {high:.6g} can't be Angstrom. "
            f"Set {card} to 'nm', 'um' or 'm'."
        )
    steps = np.diff(values)
    if values.size > 1 and np.all(steps < 0):
        raise DataError(f"{where}: wavelengths must ascend; got descending ones, {values[0]:.6g} to {values[-1]:.6g}. {reverse}")
    if np.any(steps <= 0):
        raise DataError(
            f"{where}: wavelengths must ascend; got repeated or unordered ones. Sort the vector and the planes by wavelength."
        )
    if low <= 0:
        raise DataError(f"{where}: wavelengths must be positive; got {low:g}. Correct the wavelength axis, or: {_ADVICE}")
    return WavelengthAxis(values * factor, medium, notes)


def _step(header: fits.Header, axis: int, where: str) -> float | None:
    """Wavelength per pixel. CDn_n wins, as in the standard; files with CDi_j for the sky and CDELT3 exist too."""
    cdelt = f"CDELT{axis}" in header
    step = None
    if _number(header, f"CD{axis}_{axis}", 0.0, where) != 0:
        step, matrix = _number(header, f"CD{axis}_{axis}", 0.0, where), "CD"
    elif cdelt:
        step, matrix = _number(header, f"CDELT{axis}", 0.0, where) * _number(header, f"PC{axis}_{axis}", 1.0, where), "PC"
    if step is None or step == 0:
        return None
    for other in (1, 2, 3):
        card = f"{matrix}{axis}_{other}"
        if other != axis and _number(header, card, 0.0, where) != 0:
            raise DataError(
                f"{where}: {card} must be 0, one wavelength per plane; got {header[card]}. Resample the cube to a common axis."
            )
    return step


def _number(header: fits.Header, card: str, default: float, where: str) -> float:
    try:
        value: Any = header.get(card, default)
        return float(value)
    except (TypeError, ValueError, fits.VerifyError) as error:
        raise DataError(f"{where}: {card} must be a number; got something else. Correct the header.") from error
