"""Reading spectra: images, IRAF's bands, planes of known instruments, columns of tables."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits

from ifujax.data.spectrum import Spectrum
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.axes import find_wavelengths, spectrum_axis
from ifujax.io.fits import Extension, FitsFile, header_text, open_fits
from ifujax.io.instruments import INSTRUMENTS
from ifujax.io.iraf import find_bands, multispec_wavelengths, read_bands
from ifujax.io.layouts import Layout, Named, candidates, choose_layout, has_axes, other_reader
from ifujax.io.planes import check_arguments, find_redshift, flag_meaning, scaled, unused_uncertainty
from ifujax.io.pycasso import medium, normalisation
from ifujax.io.sources import of_source
from ifujax.io.spectrum_tables import Columns, find_table, read_table
from ifujax.io.units import per_wavelength
from ifujax.io.wavelength import WavelengthAxis


def read_spectrum(
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
    flags_zero_is_bad: bool = False,
    flag_bits: int | None = None,
    instrument: str | None = None,
) -> Spectrum:
    """Read a spectrum, from an image or a table.

    The planes may be images of one axis (as `read_cube` takes those of a cube, files of instruments included), the
    bands of an IRAF image, or columns of a table: wavelength or loglam, flux, and error, variance or ivar. Columns are
    named like extensions.

    Parameters
    ----------
    path : str or Path
        A FITS file: plain, .gz, .bz2 or .fz.
    redshift, scidata, variance, error, ivar, flags, stellar, wavelength, primary, flags_zero_is_bad, flag_bits, instrument
        As for `read_cube`; `scidata` names an extension or a column.
    wcs_axis : int, optional
        Which of the header's axes is the wavelength, if it describes several and CTYPE doesn't tell.

    Returns
    -------
    Spectrum
        `Spectrum.notes` says what was taken for what.

    Raises
    ------
    DataError
        If the file, an extension, a column, a length or the wavelength axis can't be used.
    UsageError
        If more than one uncertainty is named, or an argument has an impossible value.

    Examples
    --------
    >>> spectrum = read_spectrum("ngc6300_nuc.fits")  # doctest: +SKIP
    >>> spectrum = read_spectrum("spec-0266-51602-0001.fits", redshift=0.02)  # doctest: +SKIP
    """
    kinds = {"variance": variance, "error": error, "ivar": ivar}
    named = check_arguments(kinds, scidata, flags, stellar, flag_bits, flags_zero_is_bad, redshift)
    if wcs_axis is not None and wcs_axis not in (1, 2, 3):
        raise UsageError(f"wcs_axis must be 1, 2 or 3; got {wcs_axis}. Give the FITS axis of the wavelength.")
    with open_fits(path) as file:
        first = file.header(file.find(0 if primary is None else primary, "primary"))
        named, source_notes = of_source(file, named)
        scidata = named.scidata
        banded = _bands(file, named)
        pictured = banded is not None or any(has_axes(file, i, 1) for i in range(len(file.hdus)))
        table = find_table(file, scidata, pictured) if instrument is None else None
        known_medium, medium_notes = medium(first)
        norm = None
        if table is not None:
            parts = read_table(file, table, named, wavelength)
        elif banded is not None:
            parts = _from_bands(file, banded, named, wavelength, wcs_axis, first)
        else:
            layout = choose_layout(file, 1, named, instrument, INSTRUMENTS, "read_spectrum")
            known_medium, norm = layout.medium or known_medium, layout.norm
            bits = flag_meaning(layout, file, flag_bits, flags_zero_is_bad)
            parts = _from_images(file, layout, bits, wavelength, wcs_axis, first)
            parts = replace(parts, notes=parts.notes + unused_uncertainty(file, layout))
        if parts.flags is None and flag_bits is not None:
            raise UsageError(f"flag_bits must come with flags; got none in {file.path.name}. Name them: flags: NAME.")
        z, z_notes = find_redshift(redshift, first, file.path.name)
        notes = source_notes + parts.notes + z_notes + parts.waves.notes + medium_notes
        unit, factor = parts.unit, None
        if norm is not None:
            found, note = normalisation(file, norm, parts.values[:, None, None], parts.waves.values, first)
            factor = None if found is None else found.ravel()
            notes += (note,)
        conversion = per_wavelength(unit, parts.waves.values)
        if conversion is not None:
            factor = conversion.factor * (1.0 if factor is None else factor)
            unit = conversion.unit
            notes += (conversion.note,)
            warnings.warn(f"{file.path.name}: {conversion.note}", IfujaxWarning, stacklevel=2)
        return Spectrum(
            values=np.asarray(scaled(parts.values, factor)),
            wavelength=parts.waves.values,
            uncertainty=_array(scaled(parts.uncertainty, factor, parts.kind)),
            uncertainty_kind=parts.kind,
            flags=parts.flags,
            flags_zero_is_bad=flags_zero_is_bad,
            flag_bits=parts.flag_bits,
            stellar=_array(scaled(parts.stellar, factor)),
            redshift=z,
            unit=unit,
            medium=known_medium or parts.waves.medium,
            header=first.copy(),
            path=file.path,
            notes=notes,
        )


def _bands(file: FitsFile, named: Named) -> int | None:
    """The HDU of an IRAF image with bands: the one that is named, else the first image of the file."""
    if named.scidata is not None:
        index = file.find(named.scidata, "scidata") if file.has(named.scidata) else None
    else:
        index = next((i for i in range(len(file.hdus)) if file.image_shape(i)), None)
    return index if index is not None and find_bands(file, index) is not None else None


def _from_bands(
    file: FitsFile, index: int, named: Named, wavelength: Extension, wcs_axis: int | None, primary: fits.Header
) -> Columns:
    values, sigma, notes = read_bands(file, index)
    layout = Layout(index, flag_bits=named.flag_bits, notes=notes)
    for argument, key in ((named.kind or "variance", named.uncertainty), ("flags", named.flags), ("stellar", named.stellar)):
        if key is not None:
            raise DataError(
                f"{argument} must be left out for {file.label(index)}, whose BANDIDs say what is what; got {key}. Remove it."
            )
    waves = _wavelengths(file, layout, wavelength, values.size, wcs_axis, primary)
    kind = None if sigma is None else "error"
    return Columns(values, waves, sigma, kind, None, None, None, _unit(file, index, primary), notes)


def _from_images(
    file: FitsFile, layout: Layout, bits: int | None, wavelength: Extension, wcs_axis: int | None, primary: fits.Header
) -> Columns:
    if not has_axes(file, layout.science, 1):
        raise DataError(
            f"scidata must be an image with one axis; got {file.label(layout.science)} with shape "
            f"{file.image_shape(layout.science)}. Name one of: {candidates(file)}.{other_reader(file, 1, 'read_spectrum')}"
        )

    def plane(index: int | None, argument: str) -> np.ndarray | None:
        if index is None:
            return None
        found = np.asarray(file.image(index)).squeeze()
        if found.shape != values.shape:
            raise DataError(
                f"{argument} must have the shape of the data, {values.shape}; got {found.shape} in {file.label(index)}. "
                "Name the plane that belongs to the data."
            )
        return found.astype(found.dtype.newbyteorder("="))

    values = np.asarray(file.image(layout.science), dtype=np.float64).squeeze()
    own = wavelength if wavelength is not None else layout.wavelength
    return Columns(
        values=values,
        waves=_wavelengths(file, layout, own, values.size, wcs_axis, primary),
        uncertainty=plane(layout.uncertainty, layout.kind or "variance"),
        kind=layout.kind,
        flags=plane(layout.flags, "flags"),
        flag_bits=bits,
        stellar=plane(layout.stellar, "stellar"),
        unit=_unit(file, layout.science, primary),
        notes=layout.notes,
    )


def _wavelengths(
    file: FitsFile, layout: Layout, wavelength: Extension, n: int, wcs_axis: int | None, primary: fits.Header
) -> WavelengthAxis:
    head, where = file.header(layout.science), file.label(layout.science)
    if wavelength is None:
        found = multispec_wavelengths(head, n, where)
        if found is not None:
            return found
    axis = spectrum_axis(head, wcs_axis, where) if wavelength is None else wcs_axis or 1
    return find_wavelengths(file, layout.science, wavelength, n, axis, primary)


def _unit(file: FitsFile, index: int, primary: fits.Header) -> str:
    return header_text(file.header(index), "BUNIT") or header_text(primary, "BUNIT")


def _array(plane: object | None) -> np.ndarray | None:
    return None if plane is None else np.asarray(plane)
