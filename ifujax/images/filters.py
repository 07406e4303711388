"""Filters of HST: what a count per second is worth, from an image's header or the table of ACS."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from astropy.io import fits

from ifujax.data.image import Image
from ifujax.errors import UsageError, unknown

_ZERO = 2.408
"""``ab_zero = -2.5 log10(photflam) - 5 log10(pivot) - 2.408``, photflam in erg/s/cm2/Angstrom and pivot in Angstrom."""


@dataclass(frozen=True)
class HstFilter:
    """A filter of an HST camera.

    Attributes
    ----------
    name : str
        Upper case, such as ``F814W``.
    ab_zero : float
        AB magnitude of one count (electron) per second.
    pivot : float
        Pivot wavelength, Angstrom.
    photflam : float
        Flux density of one count (electron) per second, erg/s/cm2/Angstrom.
    bandwidth : float
        As PHOTBW: rms bandwidth, Angstrom; NaN where it isn't known.
    """

    name: str
    ab_zero: float
    pivot: float
    photflam: float
    bandwidth: float


ACS_FILTERS = {
    row[0]: HstFilter(*row)
    for row in (
        ("F435W", 25.68, 4328.2, 3.11e-19, 298.2),
        ("F475W", 26.06, 4746.9, 1.82e-19, 420.2),
        ("F555W", 25.72, 5361.0, 1.96e-19, 360.1),
        ("F606W", 26.51, 5921.1, 7.73e-20, 672.3),
        ("F625W", 25.91, 6311.4, 1.18e-19, 415.4),
        ("F775W", 25.69, 7692.4, 9.74e-20, 434.4),
        ("F814W", 25.94, 8057.0, 7.05e-20, 652.0),
        ("F850LP", 24.87, 9033.1, 1.50e-19, 525.7),
    )
}
"""ACS/WFC: zero points as the eXtreme Deep Field has them; F475W, F555W and F625W for 2012-01-01."""


def ab_zero(photflam: float, pivot: float) -> float:
    """Return the AB magnitude of one count per second.

    Parameters
    ----------
    photflam : float
        erg/s/cm2/Angstrom for one count per second.
    pivot : float
        Angstrom.

    Examples
    --------
    >>> round(ab_zero(7.05e-20, 8057.0), 2)
    25.94
    """
    return -2.5 * math.log10(photflam) - 5 * math.log10(pivot) - _ZERO


def hst_filter_info(source: Image | fits.Header | str) -> HstFilter:
    """Return the filter of an HST image.

    The name is FILTER, else the one of FILTER1 and FILTER2 (ACS) that isn't clear, else FILTNAM1 or FILTNAM2 (WFPC2). PHOTFLAM,
    PHOTPLAM and PHOTBW of the header win over the table of ACS/WFC, so that any camera that has them will do.

    Parameters
    ----------
    source : Image, header or str
        A name alone is looked up in the table of ACS/WFC.

    Raises
    ------
    UsageError
        If the filter can't be told, or isn't in the table while the header has no calibration.

    Examples
    --------
    >>> hst_filter_info("F606W").pivot
    5921.1
    """
    if isinstance(source, str):
        name = source.strip().upper()
        if name not in ACS_FILTERS:
            raise UsageError(unknown("HST filter", source, ACS_FILTERS))
        return ACS_FILTERS[name]
    header = source.header if isinstance(source, Image) else source
    if header is None:
        raise UsageError("the image must have a header to tell its filter; got none. Read it from its file, or give the name.")
    name = _name(header)
    photflam, pivot, bandwidth = (_positive(header, card) for card in ("PHOTFLAM", "PHOTPLAM", "PHOTBW"))
    if photflam is not None and pivot is not None:
        return HstFilter(name, ab_zero(photflam, pivot), pivot, photflam, math.nan if bandwidth is None else bandwidth)
    instrument = str(header.get("INSTRUME", "ACS")).strip().upper()
    if instrument not in ("ACS", ""):
        raise UsageError(
            f"the header must have PHOTFLAM and PHOTPLAM for images of {instrument}; got none for {name}. "
            "The built-in table is that of ACS: add the cards to the header."
        )
    if name not in ACS_FILTERS:
        raise UsageError(f"{unknown('HST filter', name, ACS_FILTERS)} For others the header needs PHOTFLAM and PHOTPLAM.")
    found = ACS_FILTERS[name]
    if photflam is None:
        return found
    return replace(found, photflam=photflam, ab_zero=ab_zero(photflam, found.pivot))


def _name(header: fits.Header) -> str:
    found: dict[str, str] = {}
    for card in ("FILTER", "FILTER1", "FILTER2", "FILTNAM1", "FILTNAM2"):
        value: Any = header.get(card)
        # WFPC2 counts its filters in FILTER1 and FILTER2: numbers aren't names.
        if isinstance(value, str) and value.strip() and not value.strip().isdigit():
            found[card] = value.strip().upper()
    for name in found.values():
        if not name.startswith("CLEAR") and name != "N/A":
            return name
    listed = ", ".join(f"{card} = {name}" for card, name in found.items()) or "none of them"
    raise UsageError(
        f"the header must name its filter in FILTER, FILTER1, FILTER2, FILTNAM1 or FILTNAM2; got {listed}. "
        "Add FILTER, such as F814W, to the primary header."
    )


def _positive(header: fits.Header, card: str) -> float | None:
    value: Any = header.get(card)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 and math.isfinite(number) else None  # 0: not calibrated
