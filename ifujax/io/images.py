"""Reading and writing images: MPDAF's layout, that of HST, or the only 2-D image of a FITS file."""

from __future__ import annotations

import contextlib
import re
import warnings
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, WcsError

from ifujax.data.image import Image
from ifujax.data.spaxels import as_variance, flagged
from ifujax.errors import DataError, IfujaxWarning
from ifujax.io.fits import Extension, FitsFile, header_text, open_fits
from ifujax.io.layouts import candidates
from ifujax.io.output import atomic_path
from ifujax.io.units import squared_unit

_LAYOUTS = (("DATA", (("STAT", "variance"),)), ("SCI", (("VAR", "variance"), ("ERR", "error"))))
"""Names of the data, and of the uncertainties that come with them and what these are."""
_FLAGS = "DQ"
_STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|EXTEND|EXTNAME|EXTVER|EXTLEVEL|INHERIT|NEXTEND|CHECKSUM|DATASUM"
    r"|BSCALE|BZERO|BLANK|Z(IMAGE|BITPIX|NAXIS\d*|CMPTYPE|TILE\d+|QUANTIZ|DITHER0|SIMPLE|TENSION)|TFIELDS|T(TYPE|FORM)\d+|THEAP|END"
)
_TEXT = ("COMMENT", "HISTORY", "")
_KEPT = (
    "ORIGIN", "TELESCOP", "INSTRUME", "DETECTOR", "CAMERA", "FILTER", "FILTER1", "FILTER2", "FILTNAM1", "FILTNAM2", "MJD-OBS",
    "DATE-OBS", "EXPTIME", "FSCALE", "OBSERVER", "OBJECT", "TARGNAME", "DATE", "PHOTFLAM", "PHOTPLAM", "PHOTZPT", "PHOTBW",
)  # fmt: skip
"""Cards that say what an image shows: kept when it is written again."""


@dataclass(frozen=True)
class _Planes:
    """HDU numbers of an image's planes."""

    data: int
    uncertainty: int | None = None
    kind: str = "variance"
    flags: int | None = None


def base_name(path: str | Path) -> str:
    """Return a file's name without folder, ``.fits`` and the ending of compression."""
    name = Path(path).name
    return re.sub(r"(?i)(\.(fits|fit|fts))?(\.(gz|bz2|fz))?$", "", name, count=1) or name


def read_image(path: str | Path, *, data: Extension = None, variance: Extension = None, flags: Extension = None) -> Image:
    """Read an image with its variance, flags and coordinates.

    The data are ``DATA`` with the variance ``STAT`` and the flags ``DQ`` (MPDAF, MUSE), ``SCI`` with ``VAR`` (a variance) or
    ``ERR`` (1 sigma) and ``DQ`` (HST and others), the primary HDU, or the only 2-D image of the file. No other plane is taken
    for an uncertainty unless it is named.

    Parameters
    ----------
    path : str or Path
        A FITS file: plain, .gz, .bz2 or .fz.
    data, variance, flags : extension, optional
        A name, a number, or ``"NAME, extver"``. What is named as `variance` is taken as one, whatever its name.

    Returns
    -------
    Image
        float64; NaN where the flags are not zero or the data not finite. Its `header` is the primary header, updated by the
        data's.

    Raises
    ------
    DataError
        If the file is missing, empty, truncated or not FITS, has no 2-D image or several, an extension that is named isn't
        there, or shapes disagree.

    Examples
    --------
    >>> image = read_image("IMAGE-HDFS-1.34.fits")  # doctest: +SKIP
    >>> image = read_image("hst_drz.fits", data="SCI")  # doctest: +SKIP
    """
    with open_fits(path) as file:
        planes = _find_planes(file, data, variance, flags)
        values = np.array(_plane(file, planes.data), dtype=np.float64)
        bad = ~np.isfinite(values)
        uncertainty = None
        if planes.uncertainty is not None:
            raw = np.array(_matching(file, planes.uncertainty, values.shape, planes.kind), dtype=np.float64)
            uncertainty = as_variance(raw, planes.kind)
        if planes.flags is not None:
            bad |= flagged(np.asarray(_matching(file, planes.flags, values.shape, "flags")))
        values[bad] = np.nan
        first, head = file.header(0), file.header(planes.data)
        celestial = image_wcs(head, file)
        if celestial is None and planes.data != 0:
            celestial = image_wcs(first, file)
        return Image(
            values=values,
            variance=uncertainty,
            unit=header_text(head, "BUNIT") or header_text(first, "BUNIT"),
            celestial=celestial,
            name=base_name(path),
            header=merged_header(first, head),
        )


def read_image_header(path: str | Path, *, data: Extension = None) -> fits.Header:
    """Return the header that `read_image` would keep, without reading pixels. Raises as that does."""
    with open_fits(path) as file:
        return merged_header(file.header(0), file.header(_find_planes(file, data, None, None).data))


def write_image(path: str | Path, image: Image, overwrite: bool = False) -> Path:
    """Write an image in MPDAF's layout: ``DATA``, ``STAT`` where it has a variance, ``DQ`` where pixels are masked.

    The primary header takes the cards of `Image.header` that say what the image shows (telescope, filter, date, photometric
    calibration), then `Image.cards`, which ``DATA`` has too. Masked pixels are NaN in ``DATA`` and 1 in ``DQ``.

    Raises
    ------
    UsageError
        If the file exists and `overwrite` is false.
    DataError
        If it can't be written.
    """
    first = fits.PrimaryHDU()
    if image.header is not None:
        for card in image.header.cards:
            if card.keyword not in _KEPT:
                continue
            with contextlib.suppress(ValueError, fits.VerifyError):  # a card that breaks the standard is not passed on
                if not isinstance(card.value, fits.card.Undefined):
                    first.header[card.keyword] = (card.value, card.comment)
    for key, (value, comment) in image.cards.items():
        first.header[key] = (value, comment)
    coordinates = fits.Header()
    if image.celestial is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            coordinates = image.celestial.to_header(relax=True)
        if not coordinates.get("MJDREF"):
            coordinates.remove("MJDREF", ignore_missing=True)  # 0, made up by wcslib
    masked = ~np.isfinite(image.values)
    planes: list[tuple[str, np.ndarray, str]] = [("DATA", np.asarray(image.values, dtype=np.float64), image.unit)]
    if image.variance is not None:
        planes.append(("STAT", np.asarray(image.variance, dtype=np.float64), squared_unit(image.unit)))
    if masked.any():
        planes.append(("DQ", masked.astype(np.uint8), ""))
    hdus = fits.HDUList([first])
    for name, plane, unit in planes:
        hdu = fits.ImageHDU(plane, header=coordinates, name=name)
        if unit:
            hdu.header["BUNIT"] = unit
        if name == "DATA":
            for key, (value, comment) in image.cards.items():
                hdu.header[key] = (value, comment)
        hdus.append(hdu)
    with atomic_path(path, overwrite) as temporary:
        hdus.writeto(temporary)
    return Path(path)


def image_wcs(header: fits.Header, file: FitsFile | None = None) -> WCS | None:
    """Return the celestial WCS of a header, else its linear one, or None where it has none. Warns of one that can't be used."""
    if not any(card in header for card in ("CTYPE1", "CRVAL1", "CD1_1", "CDELT1")):
        return None
    lookup = file.hdus if file is not None and any(card in header for card in ("CPDIS1", "CPDIS2", "D2IMDIS1")) else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            full = WCS(header, fobj=lookup)
            wcs = full.celestial
            wcs = wcs if wcs.naxis == 2 else full.sub([1, 2])
            wcs.wcs.set()  # finds what is wrong now, not when it is used
            return wcs
    except (WcsError, ValueError, TypeError, KeyError, AssertionError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        name = "the image" if file is None else file.path.name
        warnings.warn(f"{name}: its coordinates can't be used: {reason}", IfujaxWarning, stacklevel=3)
        return None


def merged_header(first: fits.Header, extension: fits.Header) -> fits.Header:
    """Return a copy of the primary header, updated by the extension's; without cards of structure."""
    # Whole cards, not values: headers of thousands of cards would take seconds to parse.
    own = [] if extension is first else [card for card in extension.cards if card.keyword not in _TEXT]
    newer = {card.keyword: card for card in own}
    cards = [newer.pop(card.keyword, card) for card in first.cards] + list(newer.values())
    return fits.Header([copy(card) for card in cards if not _STRUCTURE.fullmatch(card.keyword)])


def _find_planes(file: FitsFile, data: Extension, variance: Extension, flags: Extension) -> _Planes:
    names = [hdu.name.upper() for hdu in file.hdus]
    index = file.find(data, "data") if data is not None else _find_data(file, names)
    found = file.image_shape(index)
    if not _is_image(found):
        advice = " It looks like a cube: make an image of it first (ifujax wideband)." if found and len(found) == 3 else ""
        raise DataError(
            f"{file.path.name} must hold a 2-D image; got {found or 'no image'} in {file.label(index)}. "
            f"Name one of: {candidates(file)}.{advice}"
        )
    kind, uncertainty = "variance", None
    companions = dict(_LAYOUTS).get(names[index], ())
    if variance is not None:
        uncertainty = file.find(variance, "variance")
    else:
        for name, meaning in companions:
            if name in names:
                kind, uncertainty = meaning, names.index(name)
                break
    if flags is not None:
        return _Planes(index, uncertainty, kind, file.find(flags, "flags"))
    return _Planes(index, uncertainty, kind, names.index(_FLAGS) if companions and _FLAGS in names else None)


def _find_data(file: FitsFile, names: list[str]) -> int:
    for name, _ in _LAYOUTS:
        if name in names:
            return names.index(name)
    fitting = [i for i in range(len(names)) if _is_image(file.image_shape(i))]
    if 0 in fitting:
        return 0
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"data must be named for {file.path.name}, which has neither DATA nor SCI and {len(fitting)} 2-D images. "
            f"Name one of: {candidates(file)}."
        )
    cube = any(len(file.image_shape(i) or ()) == 3 for i in range(len(names)))
    advice = "It looks like a cube: make an image of it first (ifujax wideband)." if cube else "Check that it is the right file."
    raise DataError(f"{file.path.name} must hold a 2-D image; got {candidates(file)}. {advice}")


def _is_image(shape: tuple[int, ...] | None) -> bool:
    """Two axes; more only if they have one pixel."""
    return shape is not None and len(shape) >= 2 and all(length == 1 for length in shape[:-2]) and min(shape) > 0


def _plane(file: FitsFile, index: int) -> np.ndarray:
    plane = file.image(index)
    return plane.reshape(plane.shape[-2:])


def _matching(file: FitsFile, index: int, shape: tuple[int, ...], argument: str) -> np.ndarray:
    found = file.image_shape(index)
    if not _is_image(found) or found is None or tuple(found[-2:]) != shape:
        raise DataError(
            f"{argument} must have the shape of the data, {shape}; got {found} in {file.label(index)}. "
            "Name the plane that belongs to the data."
        )
    return _plane(file, index)
