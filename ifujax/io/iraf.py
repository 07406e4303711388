"""Spectra as IRAF writes them: bands of one image, and wavelengths in its own cards."""

from __future__ import annotations

import re

import numpy as np
from astropy.io import fits

from ifujax.errors import DataError
from ifujax.io.fits import FitsFile, header_text
from ifujax.io.wavelength import WavelengthAxis, wavelength_from_vector

_RESAMPLE = "Resample it in IRAF (dispcor, or scopy with format=onedspec), or name a vector: wavelength: NAME."


def find_bands(file: FitsFile, index: int) -> tuple[int, ...] | None:
    """Return the shape (band, 1, wave) or (band, wave) of an image whose bands BANDIDn describes, else None.

    Raises
    ------
    DataError
        If it holds several spectra.
    """
    shape = file.image_shape(index)
    named = sum(re.fullmatch(r"BANDID\d+", card) is not None for card in file.header(index))
    if shape is None or len(shape) not in (2, 3) or named < 2 or shape[0] != named:
        return None
    spectra = shape[1] if len(shape) == 3 else 1
    if spectra > 1:
        raise DataError(
            f"{file.label(index)} must hold one spectrum; got {spectra} (shape {shape}). Take one out, e.g. with IRAF's scopy."
        )
    return shape


def read_bands(file: FitsFile, index: int) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return the first band, the band whose BANDIDn begins with sigma (1 sigma errors) if there is one, and notes."""
    head, label = file.header(index), file.label(index)
    planes = np.asarray(file.image(index), dtype=np.float64)
    planes = planes.reshape(planes.shape[0], planes.shape[-1])
    names = [header_text(head, f"BANDID{k + 1}") for k in range(len(planes))]
    sigma = next((k for k, name in enumerate(names) if k and name.lower().startswith("sigma")), None)
    unused = [f"{k + 1} ({name})" for k, name in enumerate(names) if k not in (0, sigma)]
    notes = [f"Data: band 1 of {label} ({names[0]}); " + (f"1 sigma error: band {sigma + 1}." if sigma else "no uncertainty.")]
    if unused:
        notes.append(f"Not used: band {', '.join(unused)} of {label}.")
    return planes[0], None if sigma is None else planes[sigma], tuple(notes)


def multispec_wavelengths(header: fits.Header, n: int, where: str) -> WavelengthAxis | None:
    """Return the wavelengths of IRAF's MULTISPEC system, linear or log10, or None for another system.

    ``WAT2_*`` holds ``spec1 = "aperture beam type w1 dw nw z ..."``: ``w = (w1 + i dw) / (1 + z)`` for type 0 and
    ``10**(w1 + i dw) / (1 + z)`` for type 1 (Valdes 1993, the IRAF/NOAO spectral world coordinate systems).

    Raises
    ------
    DataError
        For a dispersion function, or one that can't be read.
    """
    if not header_text(header, "CTYPE1").upper().startswith("MULTISPE"):
        return None
    # Cards hold 68 characters; astropy strips the blanks that end one.
    text = "".join(str(header[card]).ljust(68) for card in sorted(header) if re.fullmatch(r"WAT2_\d{3}", card))
    found = re.search(r'spec1\s*=\s*"([^"]*)"', text)
    try:
        numbers = [float(each) for each in found.group(1).split()] if found else []
        kind, start, step, redshift = int(numbers[2]), numbers[3], numbers[4], numbers[6]
    except (ValueError, IndexError):
        kind, start, step, redshift = -1, 0.0, 0.0, 0.0
    if kind not in (0, 1):
        what = {2: "a dispersion function", -1: "none that can be read"}.get(kind, f"type {kind}")
        raise DataError(f"{where}: the MULTISPEC wavelengths must be linear or logarithmic; got {what}. {_RESAMPLE}")
    values = start + step * np.arange(n)
    if kind == 1:
        values = 10.0**values
    units = re.search(r"units=(\w+)", header_text(header, "WAT1_001"))
    axis = wavelength_from_vector(values / (1.0 + redshift), n, units.group(1) if units else "", "", where)
    note = f"The wavelengths of {where} are those of its WAT2 cards ({'linear' if kind == 0 else 'logarithmic'})."
    return WavelengthAxis(axis.values, axis.medium, (*axis.notes, note))
