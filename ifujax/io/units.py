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
_ALIASES = {
    "spaxel": "pixel",
    "Ang": "Angstrom",
    "ang": "Angstrom",
    "AA": "Angstrom",
    "Angstroms": "Angstrom",
    "A": "Angstrom",
    "Å": "Angstrom",
    "counts": "count",
}
"""Spellings of other programs."""


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
    parsed = parsed_unit(unit)
    if parsed is None:
        return None
    try:
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
    """Return the unit that a BUNIT means, or None if it can't be told. ``A`` beside other units is Angstrom, not ampere.

    Examples
    --------
    >>> f"{parsed_unit('10**(-20)*erg/s/cm**2/A').to('erg s-1 cm-2 Angstrom-1'):g}"
    '1e-20'
    """
    spelled = re.sub(r"[A-Za-zÅ]+", lambda word: _ALIASES.get(word.group(), word.group()), text) if text.strip() != "A" else text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", units.UnitsWarning)
            return units.Unit(spelled)
    except (ValueError, TypeError, AttributeError):
        return None


def squared_unit(unit: str) -> str:
    """Return the unit of a variance of data in `unit`, as the FITS standard writes it where it can."""
    parsed = parsed_unit(unit) if unit else None
    if parsed is not None:
        with contextlib.suppress(ValueError):
            return (parsed**2).to_string("fits")
    return f"({unit})**2" if unit else ""


def fits_unit(text: str, *, power: int = 1, times: str = "") -> str:
    """Return a unit as the FITS standard spells it; one that astropy can't read stays as it was written.

    Parameters
    ----------
    text : str
        Such as ``"10**(-20)*erg/s/cm**2/Angstrom"``.
    power : int
        The unit is raised to it.
    times : str
        A unit to multiply by.

    Examples
    --------
    >>> fits_unit("10**(-20)*erg/s/cm**2/Angstrom", times="Angstrom")
    '10**-20 erg s-1 cm-2'
    """
    text = text.strip()
    if not text:
        return ""
    parsed = parsed_unit(text)
    try:
        if parsed is None:
            raise ValueError(text)
        unit = parsed**power * (units.Unit(times) if times else units.dimensionless_unscaled)
        unit = units.CompositeUnit(_decade(float(unit.scale.real)), unit.bases, unit.powers)
        return " ".join(sorted(unit.to_string("fits").split(), key=_habit))
    except (ValueError, TypeError, AttributeError):
        plain = text.encode("ascii", "replace").decode()
        plain = f"({plain})**{power}" if power != 1 else plain
        return f"{plain} {times}".strip()


def _habit(word: str) -> tuple[bool, int]:
    """Sort key: scale and numerator first, then s-1 cm-2 Angstrom-1 as the field writes it."""
    under = word[-2:-1] == "-" and not word.startswith("10**")
    order = ("s-", "cm-", "Angstrom-")
    return under, next((i for i, name in enumerate(order) if under and word.startswith(name)), -1)


def _decade(scale: float) -> float:
    """Round a scale that is a power of ten but for floating-point noise: FITS allows no other."""
    exponent = round(float(np.log10(scale)))
    return 10.0**exponent if abs(scale / 10.0**exponent - 1) < 1e-9 else scale
