"""Files of PyCASSO: observed and synthetic spectra of galaxies, in the rest frame and in air."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits

from ifujax.io.fits import FitsFile
from ifujax.io.layouts import Layout, has_axes

DATA_BITS = 0x00FF | 0x1000
"""No data, bad pixel, gap, telluric, bad segment, low signal to noise, overlap; 0x1000 is DIVING3D's."""
SYNTHESIS_BITS = 0x0600
"""The synthesis failed, or doesn't reach this wavelength; bad where its spectrum is subtracted.

Not bad: 0x0100 and 0x0800, which say that the synthesis left the pixel out, as it does with emission lines."""
_NORMALISED = (0.7, 1.4)
"""Where the flux in the window of normalisation lies if the spectra were divided by it."""
_WINDOW = (5590.0, 5680.0)


def pycasso(file: FitsFile, axes: int, forced: bool) -> Layout | None:
    """F_OBS, F_VAR (variance) or F_ERR (1 sigma), F_FLAG (bits), F_SYN (the stellar spectrum to subtract)."""
    names = [hdu.name.upper() for hdu in file.hdus]

    def plane(name: str) -> int | None:
        index = names.index(name) if name in names else None
        return index if index is not None and has_axes(file, index, axes) else None

    science = plane("F_OBS")
    if science is None:
        return None
    variance, error, flags, stellar = (plane(name) for name in ("F_VAR", "F_ERR", "F_FLAG", "F_SYN"))
    uncertainty = error if variance is None else variance
    kind = None if uncertainty is None else "error" if variance is None else "variance"
    bits = None if flags is None else DATA_BITS | (SYNTHESIS_BITS if stellar is not None else 0)
    parts = [
        "F_OBS",
        "no uncertainty"
        if uncertainty is None
        else f"{names[uncertainty]} as its {'1 sigma error' if error == uncertainty else kind}",
        "no flags" if bits is None else f"F_FLAG as flags (bits {bits:#x} are bad)",
        "nothing to subtract" if stellar is None else "F_SYN as the stellar spectrum",
    ]
    note = f"{file.path.name} was read as a file of PyCASSO: {', '.join(parts)}."
    norm = names.index("FOBS_NORM") if "FOBS_NORM" in names else None
    return Layout(science, uncertainty, kind, flags, stellar, bits, norm=norm, notes=(note,))


def medium(header: fits.Header) -> tuple[str, tuple[str, ...]]:
    """Return "air" and a note for the primary header of a PyCASSO file, else nothing."""
    if not any(card.startswith("PYCASSO") for card in header):
        return "", ()
    return "air", ("PyCASSO converts wavelengths to air and to the rest frame, whatever CTYPE and its own REDSHIFT say.",)


def normalisation(
    file: FitsFile, index: int, values: Any, wavelength: np.ndarray, header: fits.Header
) -> tuple[np.ndarray | None, str]:
    """Return FOBS_NORM as a factor for (wave, y, x) planes if these were divided by it, and a note.

    Older files hold spectra divided by their flux in STARLIGHT's window of normalisation, newer ones don't,
    and both have FOBS_NORM: the spectra themselves tell.
    """
    shape = tuple(np.shape(values))
    if file.image_shape(index) not in (shape[1:], (1,)):
        return None, f"{file.label(index)} isn't used: its shape is {file.image_shape(index)}."
    norm = np.broadcast_to(np.asarray(file.image(index), dtype=np.float64), shape[1:])
    low, high = (_number(header, f"STARLIGHT {card}", default) for card, default in zip(("llow_norm", "lupp_norm"), _WINDOW))
    inside = np.flatnonzero((wavelength >= low) & (wavelength <= high))
    usable = np.isfinite(norm) & (norm > 0)
    if inside.size == 0 or not usable.any():
        return None, f"{file.label(index)} isn't used: the file doesn't reach its window, {low:g} to {high:g} Angstrom."
    part = np.asarray(values[inside[0] : inside[-1] + 1], dtype=np.float64)[:, usable]
    level = np.median(np.where(np.isfinite(part), part, 0.0), axis=0)
    divided = np.mean((level > _NORMALISED[0]) & (level < _NORMALISED[1])) > 0.9
    spread = norm[usable].max() > 2 * norm[usable].min() or abs(np.median(norm[usable]) - 1) > 0.5
    if not (divided and spread):
        return None, f"{file.label(index)} isn't used: the spectra are not divided by it."
    return np.where(usable, norm, np.nan), f"The spectra were divided by {file.label(index)}: they were multiplied by it."


def _number(header: fits.Header, card: str, default: float) -> float:
    try:
        return float(str(header.get(card, default)))
    except ValueError:
        return default
