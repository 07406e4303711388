"""Reading what a command is given: whether a file is a cube or a spectrum, and its planes as the configuration names them."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ifujax.errors import IfujaxWarning

if TYPE_CHECKING:
    from ifujax.data.cube import Cube
    from ifujax.data.image import Image
    from ifujax.data.spectrum import Spectrum
    from ifujax.lines.config import LoadingOptions

_OF_SPAXELS = ("spatial_mask", "nan_spaxels", "vortab")
"""Options of [loading] that mean nothing for a spectrum."""

ImageOrCube = TypeVar("ImageOrCube", "Image", "Cube")


def holds_cube(path: Path, scidata: str | int | None = None) -> bool:
    """Whether a file is a cube: an image of three axes, two of them at least longer than 1, is `scidata`, or in the file.

    The bands of an IRAF spectrum are no cube, nor is a table.

    Raises
    ------
    DataError
        If the file can't be read.
    """
    from ifujax.io.fits import open_fits
    from ifujax.io.iraf import find_bands

    with open_fits(path) as file:
        every = range(len(file.hdus))
        if scidata is not None and file.has(scidata):
            every = [file.find(scidata, "scidata")]
        for index in every:
            shape = file.image_shape(index) or ()
            if len(shape) == 3 and sum(length > 1 for length in shape) > 1 and find_bands(file, index) is None:
                return True
    return False


def read_cube_as(path: Path, loading: LoadingOptions) -> Cube:
    """Read a cube as [loading] of a configuration says."""
    from ifujax.io.cubes import read_cube

    return read_cube(path, **asdict(loading))


def in_stated_unit(found: ImageOrCube, unit: str | None, path: Path) -> ImageOrCube:
    """Return an image or cube with the unit that ``--unit`` states, if the file has none.

    Warns
    -----
    IfujaxWarning
        If the file has another one, which then holds.
    """
    if unit is None or found.unit == unit:
        return found
    if not found.unit:
        return replace(found, unit=unit)
    warnings.warn(f"--unit has no effect on {path}: its BUNIT is {found.unit}.", IfujaxWarning, stacklevel=2)
    return found


def read_spectrum_as(path: Path, loading: LoadingOptions) -> Spectrum:
    """Read a spectrum as [loading] of a configuration says.

    Warns
    -----
    IfujaxWarning
        For options that only cubes have: a configuration may serve both.
    """
    from ifujax.io.spectra import read_spectrum

    options = asdict(loading)
    left = [option for option in _OF_SPAXELS if options.pop(option) is not None]
    spectrum = read_spectrum(path, **options)
    if left:
        named = ", ".join(f"[loading] {option}" for option in left)
        warnings.warn(f"{named}: no effect on a spectrum, which has no spaxels.", IfujaxWarning, stacklevel=2)
    return spectrum
