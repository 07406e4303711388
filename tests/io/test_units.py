"""Units as other programs write them, and as products spell them."""

from __future__ import annotations

import numpy as np
import pytest

from ifujax.io.units import fits_unit, parsed_unit, per_wavelength, squared_unit

FLUX = "10**(-20)*erg/s/cm**2/Angstrom"


def test_other_units():
    assert parsed_unit("COUNTS/S") is None
    assert parsed_unit("A").is_equivalent("ampere")
    assert squared_unit("") == ""
    assert squared_unit("COUNTS/S") == "(COUNTS/S)**2"


@pytest.mark.parametrize("unit", [FLUX, "1e-20 erg/s/cm2/A", "10^-20 erg s^-1 cm^-2 Angstrom^-1", "1E-20 erg/s/cm2/Ang"])
def test_units_of_flux_density(unit):
    assert parsed_unit(unit).to("erg s-1 cm-2 Angstrom-1") == pytest.approx(1e-20, rel=1e-12)


@pytest.mark.parametrize(
    "unit", ["", "10**(-20)*erg/s/cm**2/Angstrom", "1E-17 erg/s/cm^2/Ang/spaxel", "parrots", "counts", "adu"]
)
def test_other_units_stay(unit):
    assert per_wavelength(unit, np.array([5000.0])) is None


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("Jy", "erg s-1 cm-2 Angstrom-1"),
        ("1e-26 erg/s/cm2/Hz", "erg s-1 cm-2 Angstrom-1"),
        ("mJy/pix", "erg s-1 cm-2 Angstrom-1 pix-1"),
    ],
)
def test_per_frequency(unit, expected):
    waves = np.array([5000.0, 10000.0])
    found = per_wavelength(unit, waves)
    assert found.unit == expected
    jansky = {"Jy": 1.0, "1e-26 erg/s/cm2/Hz": 1e-3, "mJy/pix": 1e-3}[unit]
    np.testing.assert_allclose(found.factor, jansky * 1e-23 * 2.99792458e18 / waves**2)


@pytest.mark.parametrize(
    ("text", "flux"),
    [
        ("10**(-20)*erg/s/cm**2/Angstrom", "10**-20 erg s-1 cm-2"),
        ("1e-17 erg/s/cm^2/Ang", "10**-17 erg s-1 cm-2"),
        ("erg/s/cm2/A", "erg s-1 cm-2"),
        ("DN per lenslet", "DN per lenslet Angstrom"),
        ("", ""),
    ],
)
def test_fits_unit(text, flux):
    assert fits_unit(text, times="Angstrom") == flux


def test_per_frequency_and_spaxel() -> None:
    """3 Jy at 6600 Angstrom: c / wavelength**2 = 6.882e14 Hz / Angstrom."""
    conversion = per_wavelength("Jy/spaxel", np.array([6600.0]))
    assert conversion is not None
    np.testing.assert_allclose(3.0 * np.asarray(conversion.factor), 2.0647e-12, rtol=1e-4)
