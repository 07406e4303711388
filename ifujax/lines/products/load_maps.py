"""Reading the file of ``--maps`` back, and what reading products needs as well: tables, numbers, coordinates."""

from __future__ import annotations

import warnings

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from ifujax.inference.status import NOT_FINITE
from ifujax.io.fits import FitsFile, header_text
from ifujax.lines.products.loaded import LoadedFit
from ifujax.lines.products.maps import extension_names

ORDER = (
    *("flux", "amplitude", "velocity", "velocity_dispersion", "sigma", "snr"),
    *("equivalent_width", "flux_direct", "equivalent_width_direct", "h3", "h4", "lorentz_fwhm"),
)
"""Quantities in the order in which they are listed; any other follows."""


def load_maps(file: FitsFile) -> LoadedFit:
    """Read a file with an extension for each line and quantity: that of ``--maps``, or a choice among components."""
    header = file.header(0)
    lines = tuple(dict.fromkeys(header_text(hdu.header, "LINE") for hdu in file.hdus if "LINE" in hdu.header))
    prefixes, rest = extension_names(lines), dict.fromkeys(lines, np.nan)
    values: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    others: dict[str, np.ndarray] = {}
    head, unit = header, ""
    for index, hdu in enumerate(file.hdus):
        if file.image_shape(index) is None:
            continue
        array = np.asarray(file.image(index), dtype=np.float64)
        if "LINE" not in hdu.header:
            others[hdu.name.upper()] = array
            continue
        line = header_text(hdu.header, "LINE")
        name = hdu.name[len(prefixes[lines.index(line)]) + 1 :].lower()
        target = errors if name.endswith("_err") else values
        target.setdefault(name.removesuffix("_err"), np.full((len(lines), *array.shape), np.nan))[lines.index(line)] = array
        rest[line] = number(header_text(hdu.header, "RESTWAVE"))
        head, unit = hdu.header, header_text(hdu.header, "BUNIT") if name == "amplitude" else unit
    shape = next(iter(values.values())).shape[1:]
    status = others.get("STATUS", np.where(np.isfinite(values["flux"]).any(axis=0), 0, NOT_FINITE.value))
    found = {"status": status.astype(np.int32), "warn": others.get("WARN", np.zeros(shape)).astype(np.int32)}
    if "warn" in values:
        found["linewarn"] = np.nan_to_num(values.pop("warn")).astype(np.int32)
    found["reduced_chi2"] = others.get("RED_CHI", np.full(shape, np.nan))
    found |= {name.lower(): array for name, array in others.items() if name not in ("STATUS", "WARN", "RED_CHI")}
    notes = ["A file of maps: it holds no spectra."]
    if "choice" in found:
        notes.append("Each spaxel has the numbers of the candidate that was chosen there: see maps['choice'].")
    return LoadedFit(
        path=file.path,
        generation="ifujax",
        redshift=float(np.nan_to_num(number(header_text(header, "REDSHIFT")))),
        lines=lines,
        line_wavelengths=tuple(rest.values()),
        shapes=("gauss_hermite" if "h4" in values else "gaussian",) * len(lines),
        profile="integrated" if header_text(header, "PROFILE") == "integrated" else "sampled",
        h4_constant=-3.0 if header_text(header, "H4CONV") == "ifscube" else 3.0,
        unit=unit,
        config=dict(pairs(file, "FITCONFIG")),
        notes=tuple(notes),
        values=ordered(values),
        errors=ordered(errors),
        draws={},
        widths={},
        maps=found,
        celestial=celestial(head),
        cube=None,
        continuum=None,
        model=None,
        is_spectrum=False,
    )


def pairs(file: FitsFile, name: str, columns: tuple[int, int] = (0, 1)) -> list[tuple[str, str]]:
    """Return two columns of a table as text; nothing if the file hasn't got them."""
    found = [i for i, hdu in enumerate(file.hdus) if hdu.name.upper() == name]
    table = file.table(found[0]) if found else None
    if table is None or len(table.columns) <= max(columns):
        return []
    first, second = (table.data.field(k) for k in columns)
    return [(str(a).strip(), str(b).strip()) for a, b in zip(first, second)]


def number(text: str) -> float:
    """Return what a text says; NaN if that is no number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def ordered(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return quantities in the order in which they are listed."""
    return {name: values[name] for name in sorted(values, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))}


def celestial(header: fits.Header) -> WCS | None:
    """Return the spatial coordinates of a map, which ifujax's products have and IFSCube's lack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        wcs = WCS(header).celestial
    return wcs if wcs.naxis == 2 else None
