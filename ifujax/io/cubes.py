"""Reading data cubes: MUSE and MPDAF files as they are, any other by the names of its extensions."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, WcsError

from ifujax.data.cube import KINDS, Cube
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.fits import FitsFile, header_text, open_fits
from ifujax.io.wavelength import WavelengthAxis, medium_of, wavelength_from_header, wavelength_from_vector

Extension = str | int | None
_UNCERTAINTY_WORDS = {
    "ERR", "ERROR", "ERRORS", "STD", "SIGMA", "UNC", "UNCERT", "UNCERTAINTY", "NOISE", "RMS", "IVAR", "IVARIANCE", "VAR",
    "VARIANCE", "STAT", "WEIGHT", "WHT",
}  # fmt: skip
_WAVELENGTH_COLUMNS = ("wavelength", "wave", "lambda", "lam")


@dataclass(frozen=True)
class _Planes:
    """HDU numbers of the planes."""

    scidata: int
    uncertainty: int | None
    kind: str | None
    flags: int | None
    notes: tuple[str, ...]


def read_cube(
    path: str | Path,
    *,
    redshift: float | None = None,
    scidata: Extension = None,
    variance: Extension = None,
    error: Extension = None,
    ivar: Extension = None,
    flags: Extension = None,
    stellar: Extension = None,
    wavelength: Extension = None,
    primary: Extension = None,
    wcs_axis: int | None = None,
    spatial_mask: Extension = None,
    flags_zero_is_bad: bool = False,
) -> Cube:
    """Read a data cube. Planes stay on disk until they are used, unless they are tile-compressed.

    An extension is given by its name, its number, or ``"NAME, extver"``. If none of `scidata`,
    `variance`, `error`, `ivar` and `flags` is named, a MUSE or MPDAF file is recognised: DATA,
    STAT (a variance), DQ (non-zero is bad). Other files: the uncertainty is what it is named as,
    and none is used if none is named.

    Parameters
    ----------
    path : str or Path
        A FITS file: plain, .gz, .bz2 or .fz.
    redshift : float, optional
        Wins over REDSHIFT in the primary header; 0 where there is neither.
    scidata : extension, optional
        Flux density, (wave, y, x). ``SCI``, or the only 3-D image, if not named.
    variance, error, ivar : extension, optional
        One of them at most: variance, 1 sigma, or inverse variance.
    flags : extension, optional
        Non-zero is bad; zero is bad with `flags_zero_is_bad`.
    stellar : extension, optional
        Subtracted before a fit.
    wavelength : extension, optional
        Vector of observed wavelengths, an image or a table column; wins over the WCS.
    primary : extension, optional
        Whose header is kept and searched for REDSHIFT; the first HDU if not named.
    wcs_axis : int, optional
        FITS axis (1-based) of the wavelength; 3 if not given.
    spatial_mask : extension, optional
        (y, x) image, non-zero = skip the spaxel.

    Returns
    -------
    Cube
        `Cube.notes` says what was taken for what. Pixel values aren't looked at: see `Cube.check`.

    Raises
    ------
    DataError
        If the file, an extension, a shape or the wavelength axis can't be used.
    UsageError
        If more than one uncertainty is named, or an argument has an impossible value.

    Examples
    --------
    >>> cube = read_cube("minicube.fits", redshift=0.0859)  # doctest: +SKIP
    >>> cube = read_cube("gmos.fits", scidata="SCI", variance="ERR")  # doctest: +SKIP
    """
    named = {"variance": variance, "error": error, "ivar": ivar}
    given = [kind for kind in KINDS if named[kind] is not None]
    if len(given) > 1:
        raise UsageError(
            f"one of variance, error and ivar must be named at most; got {' and '.join(given)}. Keep what the plane is."
        )
    if wcs_axis is not None and wcs_axis not in (1, 2, 3):
        raise UsageError(f"wcs_axis must be 1, 2 or 3 for a cube; got {wcs_axis}. Give the FITS axis of the wavelength.")
    if redshift is not None and not (np.isfinite(redshift) and redshift > -1):
        raise UsageError(f"redshift must be a finite number above -1; got {redshift}. Give z, not a velocity.")
    kind = given[0] if given else None
    with open_fits(path) as file:
        planes = _planes(file, scidata, named[kind] if kind else None, kind, flags, stellar)
        shape = file.image_shape(planes.scidata)
        if shape is None or len(shape) != 3:
            raise DataError(
                f"scidata must be an image with three axes; got {file.label(planes.scidata)} with shape {shape}. "
                f"Name one of: {_candidates(file)}."
            )
        head = file.header(planes.scidata)
        first = file.header(file.find(0 if primary is None else primary, "primary"))
        axis = _spectral_axis(head, wcs_axis, file.label(planes.scidata)) if wavelength is None else wcs_axis or 3

        def plane(index: int | None, argument: str) -> np.ndarray | None:
            if index is None:
                return None
            found = file.image_shape(index)
            if found != shape:
                hint = " Name a 2-D image as spatial_mask." if argument == "flags" and found == shape[1:] else ""
                raise DataError(
                    f"{argument} must have the shape of the data, {shape}; got {found} in {file.label(index)}."
                    + (hint or " Name the plane that belongs to the data.")
                )
            return np.moveaxis(file.image(index), 3 - axis, 0)

        notes = planes.notes
        z, z_notes = _redshift(redshift, first, file.path.name)
        n_wave = shape[3 - axis]
        waves = _wavelengths(file, planes.scidata, wavelength, n_wave, axis, first)
        mask = None if spatial_mask is None else _mask(file, spatial_mask, shape[: 3 - axis] + shape[4 - axis :])
        celestial, wcs_notes = _spatial_wcs(head, axis)
        unused, message = _unused_uncertainty(file, planes, stellar) if planes.uncertainty is None else ((), "")
        if message:
            warnings.warn(message, IfujaxWarning, stacklevel=2)
        notes += z_notes + waves.notes + wcs_notes + unused
        values = plane(planes.scidata, "scidata")
        return Cube(
            values=values,
            wavelength=waves.values,
            uncertainty=plane(planes.uncertainty, planes.kind or "variance"),
            uncertainty_kind=planes.kind,
            flags=plane(planes.flags, "flags"),
            flags_zero_is_bad=flags_zero_is_bad,
            stellar=plane(None if stellar is None else file.find(stellar, "stellar"), "stellar"),
            spatial_mask=mask,
            redshift=z,
            unit=header_text(head, "BUNIT") or header_text(first, "BUNIT"),
            medium=waves.medium,
            header=first.copy(),
            celestial=celestial,
            path=file.path,
            notes=notes,
        )


def _planes(
    file: FitsFile, scidata: Extension, uncertainty: Extension, kind: str | None, flags: Extension, stellar: Extension
) -> _Planes:
    names = [hdu.name.upper() for hdu in file.hdus]
    if scidata is None and uncertainty is None and flags is None and _is_muse(file, names):
        stat = names.index("STAT") if "STAT" in names else None
        quality = names.index("DQ") if "DQ" in names else None
        note = (
            f"{file.path.name} was read as a MUSE or MPDAF cube: DATA"
            + (", STAT as its variance" if stat is not None else ", without a variance")
            + (", DQ as flags (non-zero is bad)." if quality is not None else ", masked pixels as NaN.")
        )
        return _Planes(names.index("DATA"), stat, None if stat is None else "variance", quality, (note,))
    second = None if uncertainty is None or kind is None else file.find(uncertainty, kind)
    third = None if flags is None else file.find(flags, "flags")
    fourth = None if stellar is None else file.find(stellar, "stellar")
    if scidata is not None:
        science = file.find(scidata, "scidata")
    elif "SCI" in names:
        science = names.index("SCI")
    else:
        cubes = [i for i in range(len(names)) if len(file.image_shape(i) or ()) == 3 and i not in (second, third, fourth)]
        if len(cubes) != 1:
            raise DataError(
                f"scidata must be named for {file.path.name}, which has no SCI and {len(cubes)} images with three axes. "
                f"Name one of: {_candidates(file)}."
            )
        science = cubes[0]
    note = f"Data: {file.label(science)}" + (f"; {kind}: {file.label(second)}." if second is not None else ", no uncertainty.")
    return _Planes(science, second, kind, third, (note,))


def _is_muse(file: FitsFile, names: list[str]) -> bool:
    if "DATA" not in names:
        return False
    index = names.index("DATA")
    eso = header_text(file.header(index), "HDUCLASS").upper() == "ESO"
    return len(file.image_shape(index) or ()) == 3 and (eso or "STAT" in names or "DQ" in names)


def _candidates(file: FitsFile) -> str:
    names = file.names
    found = [f"{names[i]} {file.image_shape(i)}" for i in range(len(names)) if file.image_shape(i)]
    return "; ".join(found) or "none, the file has no image"


def _spectral_axis(header: fits.Header, wcs_axis: int | None, where: str) -> int:
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


def _wavelengths(file: FitsFile, science: int, wavelength: Extension, n: int, axis: int, primary: fits.Header) -> WavelengthAxis:
    head = file.header(science)
    if wavelength is None:
        return wavelength_from_header(head, n, axis, file.label(science), primary=primary)
    index = file.find(wavelength, "wavelength")
    own = file.header(index)
    stated = (header_text(own, "CTYPE1"), header_text(head, f"CTYPE{axis}"))
    ctype = next((text for text in stated if medium_of(text) != "unknown"), "")
    table = file.table(index)
    if table is None:
        if file.image_shape(index) is None:
            raise DataError(
                f"wavelength must be a vector of {n} values; got no data in {file.label(index)}. Name another extension."
            )
        unit = header_text(own, "BUNIT") or header_text(own, "CUNIT1")
        return wavelength_from_vector(file.image(index), n, unit, ctype, file.label(index))
    columns = [c for c in table.columns if c.name.lower() in _WAVELENGTH_COLUMNS] or list(table.columns)
    if len(columns) != 1:
        raise DataError(
            f"wavelength must be a vector; got the table {file.label(index)} with columns {', '.join(table.columns.names)}. "
            "Call the right column 'wavelength'."
        )
    return wavelength_from_vector(table.data[columns[0].name], n, str(columns[0].unit or ""), ctype, file.label(index))


def _mask(file: FitsFile, key: Extension, shape: tuple[int, ...]) -> np.ndarray:
    index = file.find(key if key is not None else 0, "spatial_mask")
    found = file.image_shape(index)
    if found != shape:
        hint = "Name a 3-D plane as flags." if found is not None and len(found) == 3 else "Name a 2-D image of the same field."
        raise DataError(f"spatial_mask must have shape (y, x) = {shape}; got {found} in {file.label(index)}. {hint}")
    return np.asarray(file.image(index)) != 0


def _redshift(argument: float | None, header: fits.Header, name: str) -> tuple[float, tuple[str, ...]]:
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
        warnings.warn(message, IfujaxWarning, stacklevel=3)
        return argument, (message,)
    return argument, ()


def _spatial_wcs(header: fits.Header, axis: int) -> tuple[WCS | None, tuple[str, ...]]:
    """The celestial WCS, or the linear one of the spatial axes, or None with a note."""
    spatial = [a for a in (1, 2, 3) if a != axis]
    if not any(f"{card}{a}" in header for card in ("CRVAL", "CRPIX", "CTYPE") for a in spatial):
        return None, ()
    head = header.copy()
    # The wavelength's unit and type are ours to judge; odd ones make wcslib refuse the whole header.
    for card in (f"CUNIT{axis}", f"CTYPE{axis}"):
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


def _unused_uncertainty(file: FitsFile, planes: _Planes, stellar: Extension) -> tuple[tuple[str, ...], str]:
    """A note and a warning where the file has what looks like an uncertainty that nobody named."""
    shape = file.image_shape(planes.scidata)
    taken = {planes.scidata, planes.flags, None if stellar is None else file.find(stellar, "stellar")}
    found = [
        name
        for i, name in enumerate(file.names)
        if i not in taken and file.image_shape(i) == shape and set(re.split(r"[\W_\d]+", name.upper())) & _UNCERTAINTY_WORDS
    ]
    if not found:
        return (), ""
    message = (
        f"no uncertainty was named, but {file.path.name} has {', '.join(found)}: it isn't used. "
        f"Name it as what it holds, e.g. variance: {found[0]}, error: {found[0]} or ivar: {found[0]}."
    )
    return (message,), message
