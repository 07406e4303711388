"""Wavelengths and widths in Angstrom, as IFSCube's 2018 dialect has them, and the velocities of the model.

A section of that dialect gives the line's centre as ``wavelength``, whose first value is the rest wavelength too, and
``sigma`` in Angstrom. Centres follow the relativistic Doppler shift of `ifujax.models.doppler`. A width in Angstrom is
``velocity_dispersion / c`` times the wavelength of the line: the fitted one in constraints, which therefore hold exactly in
Angstrom, and the rest wavelength for first guesses and bounds, which are plain numbers.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ifujax.lines.dialect.grammar import Triple
from ifujax.models.doppler import C_KMS


def velocity_at(wavelength: float, rest: float) -> float:
    """Return the velocity (km/s) of a line seen at `wavelength`; no bound (infinite) where that is 0 or less, or infinite."""
    if wavelength <= 0 or math.isinf(wavelength):
        return math.copysign(math.inf, wavelength if wavelength else -1.0)
    ratio = wavelength / rest
    shorter = min(ratio, 1.0 / ratio) if ratio else 0.0
    q = shorter * shorter
    return math.copysign(C_KMS * (1.0 - q) / (1.0 + q), ratio - 1.0)


def wavelength_at(velocity: float, rest: float) -> float:
    """Return the wavelength (Angstrom) at which a line is seen, the inverse of `velocity_at`."""
    if abs(velocity) >= C_KMS:
        return math.copysign(math.inf, velocity)
    beta = velocity / C_KMS
    return rest * math.sqrt((1.0 + beta) / (1.0 - beta))


def velocity_per_angstrom(wavelength: float, rest: float) -> float:
    """Return the slope of `velocity_at` (km/s per Angstrom)."""
    ratio = wavelength / rest
    return 4.0 * C_KMS * ratio / (ratio * ratio + 1.0) ** 2 / rest


def dispersion_of(width: float, rest: float) -> float:
    """Return the velocity dispersion (km/s) of a width in Angstrom at the rest wavelength."""
    return C_KMS * (width / rest)


def width_of(dispersion: float, rest: float) -> float:
    """Return the width in Angstrom at the rest wavelength, the inverse of `dispersion_of`."""
    return dispersion / C_KMS * rest


TO_KMS = {"velocity": velocity_at, "sigma": dispersion_of}
TO_ANGSTROM = {"velocity": wavelength_at, "sigma": width_of}
"""Conversions of numbers by the parameter's name in the model's dialect; all of them rise with their argument."""


def in_kms(triple: Triple, parameter: str, rest: float) -> Triple:
    """Convert first guess and bounds of a centre or a width; the constraint stays as it is."""
    if parameter not in TO_KMS:
        return triple
    convert = TO_KMS[parameter]
    return replace(
        triple, guess=convert(float(triple.guess), rest), lower=convert(triple.lower, rest), upper=convert(triple.upper, rest)
    )


def shift_text(velocity: str) -> str:
    """Return the expression of fitted over rest wavelength, of the name of a velocity."""
    return f"sqrt((1.0 + {velocity} / {C_KMS}) / (1.0 - {velocity} / {C_KMS}))"


def wavelength_text(velocity: str, rest: float) -> str:
    """Return the expression of a fitted wavelength (Angstrom)."""
    return f"({rest!r} * {shift_text(velocity)})"


def width_text(dispersion: str, velocity: str, rest: float) -> str:
    """Return the expression of a width in Angstrom at the fitted wavelength."""
    return f"({dispersion} * {rest!r} / {C_KMS} * {shift_text(velocity)})"


def velocity_text(wavelength: str, rest: float) -> str:
    """Return the expression of the velocity at which a line is seen at the expression `wavelength`."""
    # c (q - 1) / (q + 1), with q written once: expressions grow with each tie.
    return f"{C_KMS} * (1.0 - 2.0 / ((({wavelength}) / {rest!r}) ** 2.0 + 1.0))"


def dispersion_text(width: str, velocity: str, rest: float) -> str:
    """Return the expression of the velocity dispersion of the expression `width`, at the line's own fitted wavelength."""
    return f"({width}) * {C_KMS} / ({rest!r} * {shift_text(velocity)})"
