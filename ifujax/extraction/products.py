"""Files of sources in the format of MPDAF's `Source`, and AutoSpec's log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ifujax import __version__
from ifujax.extraction.results import SourceResult
from ifujax.extraction.spectra import SourceSpectrum
from ifujax.io.output import atomic_path

_FORMAT = "0.6"
"""Version of the format."""
RUN_CARD = "RUNID"
"""Of the run that wrote a file: a run that was stopped knows its own."""
_AXES = {"air": "AWAV", "vacuum": "WAVE", "unknown": "WAVE"}


def source_hdus(result: SourceResult, origin: Mapping[str, str], cube_name: str, run: str = "") -> fits.HDUList:
    """Return the extensions of a source, in MPDAF's order: spectra, images, cubes.

    Parameters
    ----------
    result : SourceResult
        With status 0.
    origin : mapping of str to str
        ``FROM``, ``FROM_V``, ``CUBE``, ``CUBE_V``.
    cube_name : str
        The cube's file, where `origin` names none.
    run : str
        Identifier of the run.
    """
    primary = fits.PrimaryHDU()
    primary.header["EXTEND"] = True
    primary.header.extend(_primary(result, origin, cube_name, run))
    hdus = fits.HDUList([primary])
    config = result.config
    spectral = _spectral_cards(result.wavelength, _AXES[result.medium])
    tabulated = spectral is None
    for name, spectrum in _kept_spectra(result).items():
        hdus += _pair("SPE", name, spectrum.values, spectrum.variance, spectral or fits.Header(), result.unit)
    celestial = _celestial_cards(result.celestial)
    if config.keep_images and result.white is not None:
        white = f"{config.name_prefix}WHITE"
        hdus += _pair("IMA", white, result.white, result.white_variance, celestial, result.unit)
        for name, image in result.images.items():
            hdus += _pair("IMA", name, image, None, celestial, "")
    if config.keep_segmentations:
        for name, labels in result.segmentations.items():
            kind = np.uint8 if labels.max() < 256 else np.int32
            hdus += _pair("IMA", name, labels.astype(kind), None, celestial, "")
    classic = result.classic
    if classic is not None:
        if config.keep_masks:
            for name, mask in classic.masks.items():
                hdus += _pair("IMA", name, mask.astype(np.uint8), None, celestial, "")
        if config.keep_maps:
            for name, image in classic.maps.items():
                hdus += _pair("IMA", name, image, None, celestial, "")
    if config.keep_cubes and result.cube is not None:
        cards = _cube_cards(result.celestial, spectral)
        bad = result.cube.bad
        variance = None if result.cube.variance is None else np.where(bad, 0.0, result.cube.variance)
        hdus += _pair(
            "CUB", config.name_prefix.rstrip("_"), np.where(bad, np.nan, result.cube.values), variance, cards, result.unit
        )
        for name, values in ({} if classic is None else classic.cubes).items():
            hdus += _pair("CUB", name, values, variance, cards, result.unit)
    if tabulated:
        column = fits.Column("wavelength", "D", unit="Angstrom", array=result.wavelength)
        hdus.append(fits.BinTableHDU.from_columns([column], name="TAB_WAVELENGTH"))
    return hdus


def write_source(
    path: str | Path,
    result: SourceResult,
    *,
    origin: Mapping[str, str] | None = None,
    cube_name: str = "",
    run: str = "",
    overwrite: bool = False,
) -> Path:
    """Write the file of a source, which `mpdaf.sdetect.Source.from_file` opens.

    Raises
    ------
    UsageError
        If the file exists and `overwrite` is false.
    DataError
        If it can't be written.
    """
    hdus = source_hdus(result, origin or {}, cube_name, run)
    with atomic_path(path, overwrite) as temporary:
        hdus.writeto(temporary, checksum=True)
    return Path(path)


def run_of(path: Path) -> str | None:
    """Return which run wrote a file of a source; None where it is no such file."""
    try:
        return str(fits.getval(path, RUN_CARD, 0))
    except (OSError, KeyError, IndexError, TypeError):
        return None


def _kept_spectra(result: SourceResult) -> dict[str, SourceSpectrum]:
    """All spectra, or the final ones: the reference, the cross-correlations, and the scene's."""
    if result.config.keep_spectra or result.classic is None:
        return result.spectra
    final = (result.classic.reference, "CROSS_CORRELATION", "SCENE")
    return {name: spectrum for name, spectrum in result.spectra.items() if name.startswith(final)}


def _primary(result: SourceResult, origin: Mapping[str, str], cube_name: str, run: str) -> fits.Header:
    header = fits.Header()
    source = result.source
    number = int(source.id) if source.id.lstrip("+-").isdigit() and len(source.id) < 18 else _number_of(source.id)
    cards = [
        ("ID", number, "object ID u.unitless %d"),
        ("RA", source.ra, "RA u.degree %.7f"),
        ("DEC", source.dec, "DEC u.degree %.7f"),
        ("FROM", origin.get("FROM", ""), "detection software"),
        ("FROM_V", origin.get("FROM_V", ""), "version of the detection software"),
        ("CUBE", (origin.get("CUBE") or cube_name).rsplit("/", 1)[-1], "datacube"),
        ("CUBE_V", origin.get("CUBE_V", ""), "version of the datacube"),
        ("EXT", "ifujax", "extraction software"),
        ("EXT_V", __version__, "version of the extraction software"),
        ("SRC_V", "", ""),
        ("DATE", time.strftime("%Y-%m-%d %H:%M:%S"), "Creation date"),
        ("AUTHOR", "ifujax", "Origin of the file"),
        ("FORMAT", _FORMAT, "Version of the Source format"),
    ]
    for card in cards:
        header.append(card)
    header["IDNAME"] = (source.id, "Identifier as in the catalogue")
    header[RUN_CARD] = (run, "Of the run that wrote this file")
    header["STATUS"] = (result.status, "0 = extracted")
    header["WARN"] = (result.warn, "Advisory bits")
    from ifujax.extraction.flags import WARN_FLAGS

    for k, flag in enumerate(WARN_FLAGS, 1):
        header[f"WBIT{k}"] = (flag.value, flag.sentence)
    if result.classic is not None:
        header["REFSPEC"] = (result.classic.reference, "Reference of the cross-correlation")
    return header


def _number_of(name: str) -> int:
    """A number for a name: MPDAF's sources have no others."""
    import zlib

    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def _pair(
    kind: str, name: str, values: np.ndarray, variance: np.ndarray | None, cards: fits.Header, unit: str
) -> list[fits.ImageHDU]:
    """The extensions of an object and of its variance."""
    data = values if values.dtype.kind in "iu" else values.astype(np.float32)
    hdu = fits.ImageHDU(data, cards.copy(), name=f"{kind}_{name}_DATA")
    hdu.header["BUNIT"] = (_unit(unit), "data unit type")
    made = [hdu]
    if variance is not None:
        stat = fits.ImageHDU(variance.astype(np.float32), cards.copy(), name=f"{kind}_{name}_STAT")
        stat.header["BUNIT"] = (_unit(unit, 2), "data unit type")
        made.append(stat)
    return made


def _unit(text: str, power: int = 1) -> str:
    from ifujax.io.units import parsed_unit

    unit = parsed_unit(text) if text else None
    if unit is None:
        return text if power == 1 else ""
    return (unit**power).to_string("fits") if _fits_spells(unit**power) else str(unit**power)


def _fits_spells(unit) -> bool:
    try:
        unit.to_string("fits")
    except ValueError:
        return False
    return True


def _spectral_cards(wavelength: np.ndarray, kind: str) -> fits.Header | None:
    """A linear or logarithmic axis (Greisen et al. 2006, A&A 446, 747); None where the wavelengths are neither."""
    step = (wavelength[-1] - wavelength[0]) / max(len(wavelength) - 1, 1)
    number = np.arange(len(wavelength))
    if np.abs(wavelength - (wavelength[0] + step * number)).max() > 1e-3 * abs(step):
        ratio = np.log(wavelength[-1] / wavelength[0]) / max(len(wavelength) - 1, 1)
        if np.abs(wavelength - wavelength[0] * np.exp(ratio * number)).max() > 1e-3 * abs(step):
            return None
        step, kind = wavelength[0] * ratio, f"{kind}-LOG"
    header = fits.Header()
    for name, value in (
        ("WCSAXES", 1), ("CRVAL1", float(wavelength[0])), ("CRPIX1", 1.0), ("CUNIT1", "Angstrom"), ("CTYPE1", kind),
        ("CDELT1", float(step)),
    ):  # fmt: skip
        header[name] = value
    return header


def _celestial_cards(celestial: WCS | None) -> fits.Header:
    """Coordinates with a CD matrix, as MPDAF has them."""
    header = fits.Header()
    if celestial is None:
        return header
    made = celestial.to_header()
    for name in ("WCSAXES", "CRPIX1", "CRPIX2", "CUNIT1", "CUNIT2", "CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "LONPOLE", "LATPOLE",
                 "RADESYS", "EQUINOX"):  # fmt: skip
        if name in made:
            header[name] = made[name]
    matrix = celestial.pixel_scale_matrix
    for i in (0, 1):
        for j in (0, 1):
            header[f"CD{i + 1}_{j + 1}"] = float(matrix[i, j])
    return header


def _cube_cards(celestial: WCS | None, spectral: fits.Header | None) -> fits.Header:
    header = _celestial_cards(celestial)
    if spectral is not None:
        header["WCSAXES"] = 3
        for name, value in (
            ("CRVAL3", spectral["CRVAL1"]), ("CRPIX3", 1.0), ("CUNIT3", "Angstrom"), ("CTYPE3", spectral["CTYPE1"]),
            ("CD3_3", spectral["CDELT1"]), ("CD1_3", 0.0), ("CD2_3", 0.0), ("CD3_1", 0.0), ("CD3_2", 0.0),
        ):  # fmt: skip
            header[name] = value
    return header
