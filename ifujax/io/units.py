"""Units: what a BUNIT means; flux densities per frequency become per wavelength, since the fits integrate over wavelength."""

from __future__ import annotations

import contextlib
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units

_LIGHT = 2.99792458e18
"""Speed of light in Angstrom per second."""
_AREAS: dict[str, Any] = {
    "": units.dimensionless_unscaled,
    " arcsec-2": units.arcsec**2,
    " pix-1": units.pix,
    " beam-1": units.beam,
}
_PER_FREQUENCY = units.erg / units.s / units.cm**2 / units.Hz
_PER_WAVELENGTH = units.erg / units.s / units.cm**2 / units.AA


@dataclass(frozen=True, eq=False)
class Conversion:
    """Multiply flux densities by `factor` (one a wavelength); they are then in `unit`."""

    factor: np.ndarray
    unit: str
    note: str


def per_wavelength(unit: str, wavelength: np.ndarray) -> Conversion | None:
    """Return how to convert a unit such as ``"MJy/sr"`` to ``erg s-1 cm-2 Angstrom-1``, or None if it isn't per frequency.

    ``f_lambda = f_nu c / lambda**2`` with the observed wavelength (Angstrom, (wave,)). Surface brightness per
    steradian becomes per square arcsecond.

    Examples
    --------
    >>> per_wavelength("Jy", np.array([5000.0])).factor
    array([1.19916983e-12])
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", units.UnitsWarning)
            parsed: Any = units.Unit(unit)
            whole = {suffix: parsed * area for suffix, area in _AREAS.items()}
            suffix = next((suffix for suffix, each in whole.items() if each.is_equivalent(_PER_FREQUENCY)), None)
            if suffix is None:
                return None
            scale = float(whole[suffix].to(_PER_FREQUENCY))
    except (ValueError, TypeError, AttributeError):
        return None
    text = f"erg s-1 cm-2 Angstrom-1{suffix}"
    note = (
        f"The data are per frequency ({unit}): they were converted to flux densities per wavelength, {text}, "
        "which is the unit of amplitudes and continua; fluxes are integrals of it."
    )
    return Conversion(scale * _LIGHT / wavelength**2, text, note)


def parsed_unit(text: str) -> Any | None:
    """Return the unit that a BUNIT means, or None if it can't be told. ``A`` in a flux density is Angstrom, not ampere.

    Examples
    --------
    >>> f"{parsed_unit('10**(-20)*erg/s/cm**2/A').to('erg s-1 cm-2 Angstrom-1'):g}"
    '1e-20'
    """
    known = [unit for each in (text, re.sub(r"\b(A|Ang|Angstroms)\b", "Angstrom", text)) if (unit := _parsed(each)) is not None]
    return next((unit for unit in known if unit.is_equivalent(_PER_WAVELENGTH)), known[0] if known else None)


def _parsed(text: str) -> Any | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", units.UnitsWarning)
            return units.Unit(text)
    except (ValueError, TypeError, AttributeError):
        return None


def squared_unit(unit: str) -> str:
    """Return the unit of a variance of data in `unit`, as the FITS standard writes it where it can."""
    parsed = parsed_unit(unit) if unit else None
    if parsed is not None:
        with contextlib.suppress(ValueError):
            return (parsed**2).to_string("fits")
    return f"({unit})**2" if unit else ""
