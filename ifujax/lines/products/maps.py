"""The file of maps: one named 2-D extension for each line and quantity, as DS9, QFitsView and Cubeviz open them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from ifujax.inference.status import STATUS_FLAGS, WARN_FLAGS
from ifujax.io.output import atomic_path
from ifujax.lines.chunk import SHAPE_QUANTITIES
from ifujax.lines.products.headers import bit_cards, configuration_table, map_header, primary_header
from ifujax.lines.products.width_planes import width_planes

if TYPE_CHECKING:
    from ifujax.data.cube import Cube
    from ifujax.lines.config import Line
    from ifujax.lines.results import CubeFit
    from ifujax.lines.selection.results import ComponentFit

MEANINGS = {
    "flux": "integrated flux of the model",
    "amplitude": "peak flux density of the line",
    "velocity": "relative to REDSHIFT, relativistic",
    "velocity_dispersion": "of the line itself (LSF taken off)",
    "sigma": "observed dispersion, with the LSF",
    "snr": "flux over its error",
    "equivalent_width": "of the model, rest frame, emission < 0",
    "flux_direct": "integrated flux of the data",
    "equivalent_width_direct": "of the data, rest frame, emission < 0",
    "h3": "Gauss-Hermite coefficient of skewness",
    "h4": "Gauss-Hermite coefficient of peakedness, see H4CONV",
    "lorentz_fwhm": "of the Lorentzian part",
}


def write_maps(fit: CubeFit, path: Path, *, overwrite: bool = False) -> Path:
    """Write every map of a fit as an extension of its own, whole or not at all.

    ``HA_FLUX``, ``HA_FLUX_ERR``, ``HA_VELOCITY``, ..., ``HA_WARN`` for each line and quantity (those of lines with
    common kinematics are repeated), the velocity widths of ``[velocity_width]``, then STATUS, WARN, RED_CHI, DOF and
    the table FITCONFIG.

    Parameters
    ----------
    fit : CubeFit
    path : Path
        A name that ends in .gz or .bz2 is compressed.
    overwrite : bool

    Raises
    ------
    UsageError, DataError
        As `ifujax.io.output.atomic_path`: the file exists, can't be written, or the disk is full.
    """
    path = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # cards of the input that break the standard
        images = [*line_maps(fit, fit.setup.lines), *_width_maps(fit), *fit_maps(fit)]
        hdus = fits.HDUList([fits.PrimaryHDU(header=primary_header(fit)), *images])
        hdus.append(configuration_table(fit))
        with atomic_path(path, overwrite) as temporary:
            hdus.writeto(temporary, output_verify="silentfix+ignore")
    return path


def extension_names(lines: Sequence[str]) -> list[str]:
    """Return the upper-case name of each line; FITS can't tell ``Ha`` from ``ha``, so the second becomes ``HA2``."""
    seen: Counter[str] = Counter()
    names: list[str] = []
    for line in lines:
        name = "".join(letter if letter.isascii() and letter.isprintable() else "_" for letter in line).upper()
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}{seen[name]}"
        while unique in names:
            unique += "_"
        names.append(unique)
    return names


def line_maps(fit: CubeFit | ComponentFit, lines: Sequence[Line]) -> list[fits.ImageHDU]:
    """Return an image for each of the fit's `lines` and quantities, and for its error."""
    units = {name: unit.replace("km/s", "km s-1") for name, unit in fit.units.items()}
    hdus = []
    for prefix, line, settings in zip(extension_names(fit.lines), fit.lines, lines):
        for quantity in fit.quantities:
            if quantity in SHAPE_QUANTITIES and quantity not in settings.parameters:
                continue
            for suffix, source in (("", fit), ("_ERR", fit.error)):
                if quantity == "snr" and suffix:
                    continue
                meaning = f"1 sigma error of {prefix}_{quantity.upper()}" if suffix else MEANINGS[quantity]
                name, values = f"{prefix}_{quantity.upper()}{suffix}", source[line, quantity]
                hdu = map_image(fit.cube, name, values, meaning, units[quantity])
                hdu.header["LINE"] = line
                hdu.header["RESTWAVE"] = (settings.rest_wavelength, "[Angstrom] rest wavelength of the line")
                hdus.append(hdu)
        warn = map_image(fit.cube, f"{prefix}_WARN", fit.line_warn(line).astype(np.int32), f"advisory bits of {line}")
        warn.header["LINE"] = line
        bit_cards(warn.header, WARN_FLAGS, "nothing to say")
        hdus.append(warn)
    return hdus


def _width_maps(fit: CubeFit) -> list[fits.ImageHDU]:
    hdus = []
    for planes in width_planes(fit):
        for name, values, errors in zip(planes.names, planes.values, planes.errors):
            title = f"{name.replace(' ', '_').upper()}_{planes.suffix}"
            hdus.append(map_image(fit.cube, title, values, planes.meaning, "km s-1"))
            hdus.append(map_image(fit.cube, f"{title}_ERR", errors, f"1 sigma error of {title}", "km s-1"))
    return hdus


def fit_maps(fit: CubeFit | ComponentFit) -> list[fits.ImageHDU]:
    """Return the images that say how the fit went."""
    status = map_image(fit.cube, "STATUS", fit.status.astype(np.int32), "0 = fitted")
    bit_cards(status.header, STATUS_FLAGS, "fitted")
    warn = map_image(fit.cube, "WARN", fit.warn.astype(np.int32), "advisory bits")
    bit_cards(warn.header, WARN_FLAGS, "nothing to say")
    return [
        status,
        warn,
        map_image(fit.cube, "RED_CHI", fit.reduced_chi2, "chi2 over degrees of freedom"),
        map_image(fit.cube, "DOF", fit.dof, "degrees of freedom"),
    ]


def map_image(cube: Cube, name: str, values: np.ndarray, meaning: str, unit: str = "") -> fits.ImageHDU:
    """Return a map of a cube as an extension, with the cube's spatial coordinates."""
    header = map_header(cube)
    if unit:
        header["BUNIT"] = unit
    header["CONTENT"] = meaning
    return fits.ImageHDU(values, header, name=name)
