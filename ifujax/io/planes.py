"""What the readers of cubes and of spectra share: arguments, redshift, unused planes, the spatial WCS."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, WcsError

from ifujax.data.checks import KINDS
from ifujax.data.scaled import Scaled
from ifujax.data.spaxels import check_flag_bits
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.fits import Extension, FitsFile
from ifujax.io.layouts import Layout, Named

_UNCERTAINTY_WORDS = {
    "ERR", "ERROR", "ERRORS", "STD", "SIGMA", "UNC", "UNCERT", "UNCERTAINTY", "NOISE", "RMS", "IVAR", "IVARIANCE", "VAR",
    "VARIANCE", "STAT", "WEIGHT", "WHT",
}  # fmt: skip


def check_arguments(
    uncertainties: dict[str, Extension],
    scidata: Extension,
    flags: Extension,
    stellar: Extension,
    flag_bits: int | None,
    flags_zero_is_bad: bool,
    redshift: float | None,
) -> Named:
    """Return what was named, or raise UsageError for arguments that no file could satisfy."""
    given = [kind for kind in KINDS if uncertainties[kind] is not None]
    if len(given) > 1:
        raise UsageError(
            f"one of variance, error and ivar must be named at most; got {' and '.join(given)}. Keep what the plane is."
        )
    if redshift is not None and not (np.isfinite(redshift) and redshift > -1):
        raise UsageError(f"redshift must be a finite number above -1; got {redshift}. Give z, not a velocity.")
    if flag_bits is not None:
        check_flag_bits(flag_bits, flags_zero_is_bad)
    kind = given[0] if given else None
    return Named(scidata, uncertainties[kind] if kind else None, kind, flags, stellar, flag_bits)


def flag_meaning(layout: Layout, file: FitsFile, flag_bits: int | None, flags_zero_is_bad: bool) -> int | None:
    """Return the bits that are bad, None for any.

    Raises
    ------
    UsageError
        If bits are given and there are no flags, or zero is said to be bad in a file whose bits are known.
    """
    if flag_bits is not None and layout.flags is None:
        raise UsageError(f"flag_bits must come with flags; got none in {file.path.name}. Name them: flags: NAME.")
    if flags_zero_is_bad and layout.flag_bits is not None:
        raise UsageError(
            f"flags_zero_is_bad must be left out for {file.path.name}, whose flags are bits {layout.flag_bits:#x}; got yes. "
            "Remove it, or name the planes."
        )
    return layout.flag_bits


def find_redshift(argument: float | None, header: fits.Header, name: str, stacklevel: int = 3) -> tuple[float, tuple[str, ...]]:
    """Return the redshift that was given, or REDSHIFT of the header, or 0, and a note. Warns if the two differ.

    Raises
    ------
    DataError
        If the header's can't be used and none was given.
    """
    written: Any = header.get("REDSHIFT")
    stated: float | None = None
    if written is not None and not isinstance(written, fits.card.Undefined):
        try:
            stated = float(written)
        except (TypeError, ValueError) as error:
            if argument is None:
                raise DataError(f"REDSHIFT of {name} must be a number; got {written!r}. Give the redshift yourself.") from error
    if argument is None:
        if stated is None:
            return 0.0, ("No redshift was given and the header has none: 0.",)
        if not (np.isfinite(stated) and stated > -1):
            raise DataError(f"REDSHIFT of {name} must be a finite number above -1; got {stated}. Give the redshift yourself.")
        return stated, (f"Redshift {stated:g} from the header.",)
    argument = float(argument)
    if stated is not None and abs(stated - argument) > 1e-7:
        message = f"redshift {argument:g} was used, not REDSHIFT = {stated:g} of the header of {name}."
        warnings.warn(message, IfujaxWarning, stacklevel=stacklevel)
        return argument, (message,)
    return argument, ()


def spatial_wcs(header: fits.Header, axis: int) -> tuple[WCS | None, tuple[str, ...]]:
    """The celestial WCS, or the linear one of the spatial axes, or None with a note."""
    spatial = [a for a in (1, 2, 3) if a != axis]
    if not any(f"{card}{a}" in header for card in ("CRVAL", "CRPIX", "CTYPE") for a in spatial):
        return None, ()
    head = header.copy()
    # The wavelength's unit and type are ours to judge; odd ones make wcslib refuse the whole header.
    for card in (f"CUNIT{axis}", f"CTYPE{axis}", *(f"PS{axis}_{i}" for i in range(3)), *(f"PV{axis}_{i}" for i in range(4))):
        head.remove(card, ignore_missing=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            full = WCS(head)
            wcs = full.celestial
            if wcs.naxis != 2:
                wcs = full.sub(spatial)
    except (WcsError, ValueError, TypeError, KeyError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return None, (f"The spatial WCS can't be used: {reason}",)
    return wcs, ()


def unused_uncertainty(file: FitsFile, layout: Layout, stacklevel: int = 3) -> tuple[str, ...]:
    """Warn, and return a note, where the file has what looks like an uncertainty that nobody named."""
    if layout.uncertainty is not None:
        return ()
    shape = file.image_shape(layout.science)
    taken = {layout.science, layout.flags, layout.stellar, layout.wavelength}
    found = [
        name
        for i, name in enumerate(file.names)
        if i not in taken and file.image_shape(i) == shape and set(re.split(r"[\W_\d]+", name.upper())) & _UNCERTAINTY_WORDS
    ]
    if not found:
        return ()
    message = (
        f"no uncertainty was named, but {file.path.name} has {', '.join(found)}: it isn't used. "
        f"Name it as what it holds, e.g. variance: {found[0]}, error: {found[0]} or ivar: {found[0]}."
    )
    warnings.warn(message, IfujaxWarning, stacklevel=stacklevel)
    return (message,)


def scaled(plane: Any | None, factor: np.ndarray | None, kind: str | None = None) -> Any | None:
    """Return a plane times a factor: of flux densities, or of their uncertainty if its `kind` is given."""
    if plane is None or factor is None:
        return plane
    power = {None: 1, "error": 1, "variance": 2, "ivar": -2}[kind]
    return Scaled(plane, np.abs(factor) ** power if kind else factor)
