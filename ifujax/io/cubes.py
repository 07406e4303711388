"""Reading data cubes: those of known instruments as they are, any other by the names of its extensions."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import DataError, IfujaxWarning, UsageError, unknown
from ifujax.io.axes import cube_axis, find_wavelengths
from ifujax.io.bins import kept_tables, read_bins
from ifujax.io.fits import Extension, FitsFile, header_text, open_fits
from ifujax.io.instruments import INSTRUMENTS
from ifujax.io.layouts import candidates, choose_layout, other_reader
from ifujax.io.planes import check_arguments, find_redshift, flag_meaning, scaled, spatial_wcs, unused_uncertainty
from ifujax.io.pycasso import medium, normalisation
from ifujax.io.units import per_wavelength


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
    flag_bits: int | None = None,
    nan_spaxels: Literal["all", "any"] | None = None,
    vortab: Extension = None,
    instrument: str | None = None,
) -> Cube:
    """Read a data cube. Planes stay on disk until they are used, unless they are tile-compressed or scaled integers.

    An extension is given by its name, its number, or ``"NAME, extver"``. If none of `scidata`, `variance`, `error`,
    `ivar` and `flags` is named, files of MUSE and MPDAF, MaNGA, JWST, PyCASSO and of the Gemini kind are recognised.
    Other files: the uncertainty is what it is named as, and none is used if none is named. Flux densities per
    frequency become per wavelength. See "Input files" in the documentation.

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
        Non-zero is bad; zero is bad with `flags_zero_is_bad`, some bits are with `flag_bits`.
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
    flag_bits : int, optional
        Sum of the bits that are bad; those of the instrument, else any, if not given.
    nan_spaxels : "all" or "any", optional
        Also skip spaxels whose data or stellar spectrum are all NaN, or hold any NaN. Reads the whole file.
    vortab : extension, optional
        Bins of spaxels that share one spectrum: a table with columns xcoords, ycoords, binNum, or an image of
        numbers. The table VOR if the primary header has ``VORBIN = T``.
    instrument : "muse", "manga", "jwst", "pycasso" or "gmos", optional
        Read it as such a file; planes that are named as well win over its own.

    Returns
    -------
    Cube
        `Cube.notes` says what was taken for what. Pixel values aren't looked at: see `Cube.check`.

    Raises
    ------
    DataError
        If the file, an extension, a shape or the wavelength axis can't be used, or the instrument isn't that of the file.
    UsageError
        If more than one uncertainty is named, or an argument has an impossible value.

    Examples
    --------
    >>> cube = read_cube("minicube.fits", redshift=0.0859)  # doctest: +SKIP
    >>> cube = read_cube("gmos.fits", scidata="SCI", variance="ERR")  # doctest: +SKIP
    """
    kinds = {"variance": variance, "error": error, "ivar": ivar}
    named = check_arguments(kinds, scidata, flags, stellar, flag_bits, flags_zero_is_bad, redshift)
    if wcs_axis is not None and wcs_axis not in (1, 2, 3):
        raise UsageError(f"wcs_axis must be 1, 2 or 3 for a cube; got {wcs_axis}. Give the FITS axis of the wavelength.")
    if nan_spaxels not in (None, "all", "any"):
        raise UsageError(unknown("nan_spaxels", str(nan_spaxels), ("all", "any")))
    with open_fits(path) as file:
        layout = choose_layout(file, 3, named, instrument, INSTRUMENTS, "read_cube")
        shape = file.image_shape(layout.science)
        if shape is None or len(shape) != 3:
            raise DataError(
                f"scidata must be an image with three axes; got {file.label(layout.science)} with shape {shape}. "
                f"Name one of: {candidates(file)}.{other_reader(file, 3, 'read_cube')}"
            )
        head = file.header(layout.science)
        first = file.header(file.find(0 if primary is None else primary, "primary"))
        own = wavelength if wavelength is not None else layout.wavelength
        axis = cube_axis(head, wcs_axis, file.label(layout.science)) if own is None else wcs_axis or 3
        bits = flag_meaning(layout, file, flag_bits, flags_zero_is_bad)

        def plane(index: int | None, argument: str) -> Any:
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

        z, z_notes = find_redshift(redshift, first, file.path.name)
        waves = find_wavelengths(file, layout.science, own, shape[3 - axis], axis, first)
        image_shape = shape[: 3 - axis] + shape[4 - axis :]
        mask = None if spatial_mask is None else _mask(file, spatial_mask, image_shape)
        celestial, wcs_notes = spatial_wcs(head, axis)
        notes = layout.notes + z_notes + waves.notes + wcs_notes + unused_uncertainty(file, layout)
        known_medium, medium_notes = medium(first)
        notes += medium_notes + _unused_mask(file, layout.science, spatial_mask, image_shape)
        values = plane(layout.science, "scidata")
        uncertainty = plane(layout.uncertainty, layout.kind or "variance")
        background = plane(layout.stellar, "stellar")
        unit = header_text(head, "BUNIT") or header_text(first, "BUNIT")
        bins, bin_notes = read_bins(file, vortab, first, values, layout.bins)
        notes += bin_notes
        factor = None
        if layout.norm is not None:
            factor, note = normalisation(file, layout.norm, values, waves.values, first)
            notes += (note,)
        conversion = per_wavelength(unit, waves.values)
        if conversion is not None:
            factor = conversion.factor[:, None, None] * (1.0 if factor is None else factor)
            unit = conversion.unit
            notes += (conversion.note,)
            warnings.warn(f"{file.path.name}: {conversion.note}", IfujaxWarning, stacklevel=2)
        cube = Cube(
            values=scaled(values, factor),
            wavelength=waves.values,
            uncertainty=scaled(uncertainty, factor, layout.kind),
            uncertainty_kind=layout.kind,
            flags=plane(layout.flags, "flags"),
            flags_zero_is_bad=flags_zero_is_bad,
            flag_bits=bits,
            stellar=scaled(background, factor),
            spatial_mask=mask,
            bins=bins,
            redshift=z,
            unit=unit,
            medium=layout.medium or known_medium or waves.medium,
            header=first.copy(),
            celestial=celestial,
            path=file.path,
            notes=notes,
            tables=kept_tables(file),
        )
    return cube if nan_spaxels is None else _without_nan(cube, nan_spaxels)


def _mask(file: FitsFile, key: Extension, shape: tuple[int, ...]) -> np.ndarray:
    index = file.find(key if key is not None else 0, "spatial_mask")
    found = file.image_shape(index)
    if found != shape:
        hint = "Name a 3-D plane as flags." if found is not None and len(found) == 3 else "Name a 2-D image of the same field."
        raise DataError(f"spatial_mask must have shape (y, x) = {shape}; got {found} in {file.label(index)}. {hint}")
    return np.asarray(file.image(index)) != 0


def _unused_mask(file: FitsFile, science: int, spatial_mask: Extension, shape: tuple[int, ...]) -> tuple[str, ...]:
    """A note where the file has an image called a mask that isn't used."""
    if spatial_mask is not None:
        return ()
    found = [
        name for i, name in enumerate(file.names) if file.image_shape(i) == shape and "MASK" in name.upper() and i != science
    ]
    return tuple(f"{file.path.name} has an image {name}: it isn't used. To skip spaxels: spatial_mask: {name}." for name in found)


def _without_nan(cube: Cube, which: Literal["all", "any"]) -> Cube:
    """Return the cube with spaxels masked whose data or stellar spectrum are all NaN, or hold any."""

    join = np.all if which == "all" else np.any
    combine = np.logical_and if which == "all" else np.logical_or
    data = stellar = np.full(cube.shape[1:], which == "all")
    for part in range(0, cube.shape[0], 16):
        planes = slice(part, part + 16)
        data = combine(data, join(np.isnan(np.asarray(cube.values[planes])), axis=0))
        if cube.stellar is not None:
            stellar = combine(stellar, join(np.isnan(np.asarray(cube.stellar[planes])), axis=0))
        cube.release()
    skip = data if cube.stellar is None else data | stellar
    mask = skip if cube.spatial_mask is None else skip | cube.spatial_mask
    note = f"{int(skip.sum())} spaxels with {which} NaN are skipped."
    return replace(cube, spatial_mask=mask, notes=(*cube.notes, note))
