"""Which plane of a file is what: as the user named them, or as a known instrument writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ifujax.errors import DataError, UsageError, unknown
from ifujax.io.fits import Extension, FitsFile


@dataclass(frozen=True)
class Named:
    """The planes that the user named; `kind` says what `uncertainty` is."""

    scidata: Extension = None
    uncertainty: Extension = None
    kind: str | None = None
    flags: Extension = None
    stellar: Extension = None
    flag_bits: int | None = None


@dataclass(frozen=True)
class Layout:
    """HDU numbers of the planes, and what is known of them.

    Attributes
    ----------
    science : int
    uncertainty : int or None
    kind : "variance", "error", "ivar" or None
        What `uncertainty` is.
    flags, stellar : int or None
    flag_bits : int or None
        Bits that are bad; None = any.
    wavelength : int or None
        A vector of wavelengths; None = the WCS.
    medium : str
        Known from the instrument's documentation; empty = as the header says.
    norm : int or None
        A map that the spectra may have been divided by.
    bins : int or None
        An image of bin numbers.
    notes : tuple of str
    """

    science: int
    uncertainty: int | None = None
    kind: str | None = None
    flags: int | None = None
    stellar: int | None = None
    flag_bits: int | None = None
    wavelength: int | None = None
    medium: str = ""
    norm: int | None = None
    bins: int | None = None
    notes: tuple[str, ...] = ()


Recogniser = Callable[[FitsFile, int, bool], Layout | None]
"""Takes the file, the number of axes of the data (3 or 1) and whether the user says that it is this instrument's."""


def choose_layout(
    file: FitsFile, axes: int, named: Named, instrument: str | None, known: dict[str, Recogniser], reader: str
) -> Layout:
    """Return the layout of a file.

    Instruments are tried in order if neither the data, an uncertainty nor flags are named. One that the
    user names must fit the file; planes that are named as well win over its own.

    Raises
    ------
    UsageError
        If the instrument isn't known.
    DataError
        If it doesn't fit, or a plane is missing or can't be told.
    """
    _require_extensions(file, named)
    found = None
    if instrument is not None:
        if instrument.casefold() not in known:
            raise UsageError(unknown("instrument", instrument, known))
        found = known[instrument.casefold()](file, axes, True)
        if found is None:
            raise DataError(
                f"instrument must be that of the file; got {instrument!r}, whose planes {file.path.name} doesn't have: "
                f"{candidates(file)}. Leave instrument out, or name the planes."
            )
    elif named.scidata is None and named.uncertainty is None and named.flags is None:
        found = next((layout for recogniser in known.values() if (layout := recogniser(file, axes, False)) is not None), None)
    if found is None:
        return _generic(file, axes, named, reader)
    return _overridden(file, found, named)


def _require_extensions(file: FitsFile, named: Named) -> None:
    """Raise one DataError for all the extensions that are named and missing."""
    keys = {"scidata": named.scidata, named.kind or "variance": named.uncertainty, "flags": named.flags, "stellar": named.stellar}
    missing = {argument: key for argument, key in keys.items() if key is not None and not file.has(key)}
    if len(missing) == 1:
        ((argument, key),) = missing.items()
        file.find(key, argument)
    if missing:
        images = [file.names[i] for i in range(len(file.hdus)) if file.image_shape(i)]
        keep = f"Say scidata: {images[0]}, and leave" if "scidata" in missing and len(images) == 1 else "Name others, or leave"
        raise DataError(
            f"{', '.join(missing)} must name extensions of {file.path.name}; it has no {', '.join(map(str, missing.values()))}. "
            f"Known: {', '.join(file.names)}. {keep} {', '.join(each for each in missing if each != 'scidata')} out."
        )


def _overridden(file: FitsFile, found: Layout, named: Named) -> Layout:
    """Return a recognised layout with the planes that the user named in place of its own."""
    if named.scidata is not None:
        found = replace(found, science=file.find(named.scidata, "scidata"), norm=None)
    if named.uncertainty is not None and named.kind is not None:
        found = replace(found, uncertainty=file.find(named.uncertainty, named.kind), kind=named.kind)
    if named.flags is not None:
        found = replace(found, flags=file.find(named.flags, "flags"), flag_bits=None)
    if named.stellar is not None:
        found = replace(found, stellar=file.find(named.stellar, "stellar"))
    if named.flag_bits is not None:
        found = replace(found, flag_bits=named.flag_bits)
    return found


def _generic(file: FitsFile, axes: int, named: Named, reader: str) -> Layout:
    names = [hdu.name.upper() for hdu in file.hdus]
    second = None if named.uncertainty is None or named.kind is None else file.find(named.uncertainty, named.kind)
    third = None if named.flags is None else file.find(named.flags, "flags")
    fourth = None if named.stellar is None else file.find(named.stellar, "stellar")
    if named.scidata is not None:
        science = file.find(named.scidata, "scidata")
    elif "SCI" in names:
        science = names.index("SCI")
    else:
        taken = (second, third, fourth)
        fitting = [i for i in range(len(names)) if has_axes(file, i, axes) and i not in taken]
        if len(fitting) != 1:
            what = "images with three axes" if axes == 3 else "1-D images"
            raise DataError(
                f"scidata must be named for {file.path.name}, which has no SCI and {len(fitting)} {what}. "
                f"Name one of: {candidates(file)}.{other_reader(file, axes, reader)}"
            )
        science = fitting[0]
    label = f"; {named.kind}: {file.label(second)}." if second is not None else ", no uncertainty."
    return Layout(science, second, named.kind, third, fourth, named.flag_bits, notes=(f"Data: {file.label(science)}{label}",))


def has_axes(file: FitsFile, index: int, axes: int) -> bool:
    """Whether an HDU is an image with three axes, or one with a single axis longer than 1."""
    shape = file.image_shape(index)
    if shape is None:
        return False
    if axes == 3:
        return len(shape) == 3
    size = 1
    for length in shape:
        size *= length
    return size == max(shape) > 1


def candidates(file: FitsFile) -> str:
    """Return names and shapes of the images, for messages."""
    names = file.names
    found = [f"{names[i]} {file.image_shape(i)}" for i in range(len(names)) if file.image_shape(i)]
    return "; ".join(found) or "none, the file has no image"


def other_reader(file: FitsFile, axes: int, reader: str) -> str:
    """Return a sentence that sends the user to the reader of cubes, or of spectra, if the file is for that one."""
    other = 1 if axes == 3 else 3
    if any(has_axes(file, i, axes) for i in range(len(file.hdus))) or not any(
        has_axes(file, i, other) for i in range(len(file.hdus))
    ):
        return ""
    what = "a spectrum: use read_spectrum (fit-spectrum)" if axes == 3 else "a cube: use read_cube (fit-cube)"
    return f" It looks like {what}, not {reader}."
