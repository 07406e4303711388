"""The FITS product: IFSCube's extensions, trimmed to the fitting window, with errors, units and coordinates.

A cube of a large mosaic never sits in memory: its extensions are claimed on the disk and filled
some image rows at a time.
"""

from __future__ import annotations

import bz2
import gzip
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from ifujax.inference.status import SKIPPED, STATUS_FLAGS, WARN_FLAGS, Flag
from ifujax.io.output import atomic_path
from ifujax.io.streamed import LargeImage, append_large, release
from ifujax.io.units import fits_unit
from ifujax.lines.chunk import SHAPE_QUANTITIES
from ifujax.lines.products.headers import (
    bit_cards,
    configuration_table,
    cube_header,
    map_header,
    noise_table,
    primary_header,
    spectral_cards,
    text_column,
)
from ifujax.lines.products.width_planes import width_planes
from ifujax.progress import Progress

if TYPE_CHECKING:
    from ifujax.data.cube import Cube
    from ifujax.lines.results import CubeFit


PARAMETERS = ("amplitude", "velocity", "sigma")
"""Planes of SOLUTION for each line, in IFSCube's order, before those of its shape."""
SPELLINGS = {"h3": "h_3", "h4": "h_4"}
"""Names of parameters where IFSCube's differ."""
BAD_INPUT = Flag(1, "bad_input", "flagged, not finite, or without a positive variance in the input")
LEFT_OUT = Flag(2, "left_out", "good in the input but not fitted: an outlier of the continuum, or outside the windows")
SPAXEL_FAILED = Flag(4, "spaxel_failed", "its spaxel has no fit: see STATUS")
VOXEL_FLAGS = (BAD_INPUT, LEFT_OUT, SPAXEL_FAILED)
"""Bits of the extension FLAGS."""
_OF_CUBES = ("MASK2D", "SPECIDX")
"""Extensions that a spectrum's product has not."""
_SPATIAL = re.compile(r"WCSAXES|C(TYPE|UNIT|RVAL|RPIX)\d|CD\d_\d|LONPOLE|LATPOLE|RADESYS|EQUINOX|WCSNAME|MJDREF|FIT_[XY]0")
_BIT = re.compile(r"BIT\d+$")
_BUDGET = 24e6
"""Bytes of line components computed at a time."""
_PACKED = {".gz": gzip.open, ".bz2": bz2.open}


def write_product(
    fit: CubeFit, path: Path, *, overwrite: bool = False, progress: Progress | None = None, spectrum: bool = False
) -> Path:
    """Write a fit in IFSCube's layout, whole or not at all.

    Cubes: FITSPEC, VAR, FITCONT, STELLAR, MODEL, FLAGS (wave, y, x). SOLUTION (for each line: peak amplitude, velocity,
    observed sigma, then h_3, h_4 or lorentz_fwhm: see PARNAMES), FLUX_M, FLUX_D, EQW_M, EQW_D (one plane a line), each with
    its ``_ERR``; RED_CHI, DOF, STATUS, WARN, MASK2D (y, x); LINEWARN (line, y, x); STRETCH (wavelength, width, share; y, x):
    the worst residuals; tables SPECIDX, PARNAMES, FEATWL, FITCONFIG, NOISECOR. DISP and MC_RUNS (realisation, plane, y, x)
    after Monte Carlo runs, VWIDTH_M, VWIDTH_D and VWIDTH_I where ``[velocity_width]`` asks for them.

    Parameters
    ----------
    fit : CubeFit
    path : Path
        A name that ends in .gz or .bz2 is compressed.
    overwrite : bool
    progress : callable, optional
        Called with ("write", spaxels done, all).
    spectrum : bool
        The cube is one spectrum: its extensions lose the spatial axes, as IFSCube's of spectra.

    Raises
    ------
    UsageError, DataError
        As `ifujax.io.output.atomic_path`: the file exists, can't be written, or the disk is full.
    """
    path = Path(path)
    with atomic_path(path, overwrite) as temporary:
        pack = _PACKED.get(path.suffix.lower())
        if pack is None:
            _write(fit, temporary, progress, spectrum)
            return path
        plain = temporary.with_name(temporary.name + ".plain")
        # Made before its name can be seen from that of the other: nobody plants a link there.
        with temporary.open("xb") as target:
            try:
                _write(fit, plain, progress, spectrum)
                with plain.open("rb") as source, pack(target, "wb") as packed:
                    shutil.copyfileobj(source, packed, 1 << 20)
            finally:
                plain.unlink(missing_ok=True)
    return path


def _write(fit: CubeFit, path: Path, progress: Progress | None, spectrum: bool) -> None:
    cube = fit.cube
    rest = fits.ImageHDU(cube.rest_wavelength, spectral_cards(cube, 1), name="RESTWAVE")
    rest.header["BUNIT"] = "Angstrom"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # cards of the input that break the standard
        primary = fits.PrimaryHDU(header=primary_header(fit))
        fits.HDUList([primary, rest]).writeto(path, output_verify="silentfix+ignore")
    large = (lambda images: [_flattened(image, cube) for image in images]) if spectrum else list
    maps = append_large(path, large(_cubes(fit)))
    with fits.open(path, mode="append") as file:
        theirs, ours = _images(fit)
        for hdu in [*theirs, *_tables(fit), *ours]:
            if spectrum and hdu.name in _OF_CUBES:
                continue
            file.append(_without_space(hdu) if spectrum and hdu.is_image else hdu)
    maps |= append_large(path, large([_flags_image(fit)]))
    views: dict[str, Any] = {name: array.reshape(cube.shape) for name, array in maps.items()} if spectrum else maps
    _fill(fit, views, progress)
    for array in maps.values():
        array.flush()


def _flattened(image: LargeImage, cube: Cube) -> LargeImage:
    """Return the same extension for one spectrum."""
    header = spectral_cards(cube, 1)
    header.extend(
        card for card in image.header.cards if card.keyword in ("BUNIT", "OBJECT", "COMMENT") or _BIT.match(card.keyword)
    )
    return LargeImage(image.name, image.shape[:1], image.dtype, header)


def _without_space(hdu: fits.ImageHDU) -> fits.ImageHDU:
    """Return a map's extension for one spectrum: a vector of its planes, or IFSCube's shapes of STATUS and RED_CHI."""
    data = np.asarray(hdu.data)
    if hdu.name == "STATUS":
        data = data.ravel()
    elif data.ndim > 2:
        data = data[..., 0, 0]
    header = hdu.header.copy()
    for card in list(header):
        if _SPATIAL.match(card):
            del header[card]
    return fits.ImageHDU(data, header, name=hdu.name)


def _cubes(fit: CubeFit) -> list[LargeImage]:
    cube = fit.cube
    dtype = "float64" if np.dtype(cube.values.dtype).itemsize == 8 else "float32"
    # The square of an error in single precision may not be representable in it.
    variance = dtype if cube.uncertainty_kind == "variance" else "float64"
    density = fits_unit(cube.unit)
    contents = {
        "FITSPEC": (dtype, density, "data, rest frame: (1+z) times the input"),
        "VAR": (
            variance,
            fits_unit(cube.unit, power=2),
            "variance, times (1+z)^2 as the data's square" if not fit.config.fit.ifscube_compat else "variance as in the input",
        ),
        "FITCONT": (dtype, density, "continuum of the fit"),
        "STELLAR": (dtype, density, "stellar spectrum that was subtracted"),
        "MODEL": (dtype, density, "lines + continuum + stellar"),
    }
    if cube.uncertainty is None:
        contents["VAR"] = ("float64", contents["VAR"][1], "estimated from line-free residuals, one value a spaxel")
    images = []
    for name, (kind, unit, meaning) in contents.items():
        header = cube_header(cube)
        if unit:
            header["BUNIT"] = unit
        header["OBJECT"] = (name, meaning)
        images.append(LargeImage(name, cube.shape, kind, header))
    return images


def _flags_image(fit: CubeFit) -> LargeImage:
    header = cube_header(fit.cube)
    header["OBJECT"] = ("FLAGS", "voxels that were not fitted, and why")
    bit_cards(header, VOXEL_FLAGS, "fitted")
    return LargeImage("FLAGS", fit.cube.shape, "uint8", header)


def _fill(fit: CubeFit, maps: dict[str, np.memmap], progress: Progress | None) -> None:
    cube = fit.cube
    n_wave, ny, nx = cube.shape
    stretch = 1.0 + cube.redshift
    step = max(1, int(_BUDGET / (8 * n_wave * nx * (len(fit.lines) + 4))))
    for y in range(0, ny, step):
        last = min(y + step, ny)
        rows = np.arange(y * nx, last * nx)
        spectra = fit.spectra(rows, components=False)
        failed = fit.found.status[rows] != 0
        continuum = np.where(failed[:, None], np.nan, spectra.continuum)
        model = continuum + spectra.lines
        if spectra.variance is not None:
            variance = np.where(spectra.bad, np.nan, spectra.variance)
        else:
            variance = np.broadcast_to(fit.found.noise[rows, None] ** 2, model.shape)
        flags = np.where(spectra.bad, BAD_INPUT.value, np.where(spectra.fitted, 0, LEFT_OUT.value))
        flags = flags | np.where(failed, SPAXEL_FAILED.value, 0)[:, None]

        def image(values: np.ndarray, height: int = last - y) -> np.ndarray:
            return values.T.reshape(n_wave, height, nx)

        here = np.s_[:, y:last, :]
        with np.errstate(over="ignore", invalid="ignore"):
            # As in the file, flagged voxels too: whoever looks at them should see them.
            maps["FITSPEC"][here] = np.asarray(cube.values[here], np.float64) * stretch
            maps["VAR"][here] = image(variance)
            maps["FITCONT"][here] = image(continuum)
            if cube.stellar is not None:
                stellar = np.asarray(cube.stellar[here], np.float64) * stretch
                maps["STELLAR"][here] = stellar
                maps["MODEL"][here] = image(model) + stellar
            else:
                maps["MODEL"][here] = image(model)
        maps["FLAGS"][here] = image(flags)
        release(maps)
        cube.release()
        if progress is not None:
            progress("write", last * nx, ny * nx)


def _images(fit: CubeFit) -> tuple[list[fits.ImageHDU], list[Any]]:
    """Return IFSCube's image extensions in its order (scripts may count them), and extensions that it hasn't."""
    density, flux = fits_unit(fit.cube.unit), fits_unit(fit.cube.unit, times="Angstrom")
    planes = parameter_planes(fit)
    names = [f"{line} {SPELLINGS.get(parameter, parameter)}" for line, parameter in planes]
    units = [{"amplitude": density, "h3": "", "h4": ""}.get(parameter, "km s-1") for _, parameter in planes]
    solution = _image(fit, "SOLUTION", _planes(fit, fit.values), "parameters: see PARNAMES", "", names, units)
    guesses = np.array([_guess(fit, line, parameter) for line, parameter in planes])
    guess = _image(fit, "INIGUESS", guesses, "declared guesses; NaN: found in each spaxel", "", names, units)
    guess.header["COMMENT"] = "Starts are searched in every spaxel. sigma here is that of the line itself."
    theirs = [solution, _image(fit, "RED_CHI", fit.reduced_chi2, "chi2 over degrees of freedom")]
    if fit.found.draws.shape[1]:
        runs = np.stack([fit.draws[name][:, fit.lines.index(line)] for line, name in planes], axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # spaxels without a fit
            scatter = np.nanstd(runs, axis=0, ddof=1)
        theirs.append(_image(fit, "DISP", scatter, "standard deviation of MC_RUNS", "", names, units))
        theirs.append(_image(fit, "MC_RUNS", runs, "Monte Carlo draws: run, plane, y, x", "", names, units))
    theirs.append(guess)
    ours = [_image(fit, "SOLUTION_ERR", _planes(fit, fit.errors), "1 sigma errors of SOLUTION", "", names, units)]
    contents = (
        ("FLUX_M", "flux", flux, "integrated flux of the model"),
        ("FLUX_D", "flux_direct", flux, "integrated flux of the data"),
        ("EQW_M", "equivalent_width", "Angstrom", "equivalent width of the model, emission < 0"),
        ("EQW_D", "equivalent_width_direct", "Angstrom", "equivalent width of the data, emission < 0"),
    )
    for name, quantity, unit, meaning in contents:
        values, errors = (source[quantity].reshape(-1, *fit.shape) for source in (fit.values, fit.errors))
        theirs.append(_image(fit, name, values, meaning, unit, fit.lines))
        ours.append(_image(fit, f"{name}_ERR", errors, f"1 sigma errors of {name}", unit, fit.lines))
    for name, source in (("VELDISP", fit.values), ("VELDISP_ERR", fit.errors)):
        meaning = "velocity dispersion, LSF taken off" if source is fit.values else "1 sigma errors of VELDISP"
        ours.append(_image(fit, name, source["velocity_dispersion"].reshape(-1, *fit.shape), meaning, "km s-1", fit.lines))
    for planes in width_planes(fit):
        name = f"VWIDTH_{planes.suffix}"
        ours.append(_image(fit, name, planes.values, planes.meaning, "km s-1", planes.names))
        ours.append(_image(fit, f"{name}_ERR", planes.errors, f"1 sigma errors of {name} (covariance)", "km s-1", planes.names))
    status = _image(fit, "STATUS", fit.status.astype(np.int32), "0 = fitted")
    bit_cards(status.header, STATUS_FLAGS, "fitted")
    warn = _image(fit, "WARN", fit.warn.astype(np.int32), "advisory bits")
    bit_cards(warn.header, WARN_FLAGS, "nothing to say")
    skipped = ((fit.status & SKIPPED.value) != 0).astype(np.uint8)
    theirs += [status, _image(fit, "MASK2D", skipped, "1 = skipped")]
    each = np.stack([fit.line_warn(line) for line in fit.lines]).astype(np.int32)
    own = _image(fit, "LINEWARN", each, "advisory bits of each line", "", fit.lines)
    bit_cards(own.header, WARN_FLAGS, "nothing to say")
    ours += [warn, own, _image(fit, "DOF", fit.dof, "degrees of freedom"), *noise_hdus(fit)]
    return theirs, ours


def noise_hdus(fit: CubeFit) -> list[Any]:
    """Return where residuals are worst, and how the noise is correlated."""
    at = fit.worst_stretch
    planes = np.stack([at.wavelength, at.width, at.share]).astype(np.float32)
    names = ("wavelength", "width", "share of chi2")
    stretch = _image(fit, "STRETCH", planes, "worst stretch of the residuals", "", names, ("Angstrom", "Angstrom", ""))
    return [stretch, noise_table(fit)]


def parameter_planes(fit: CubeFit) -> list[tuple[str, str]]:
    """Return (line, quantity) of each plane of SOLUTION."""
    return [
        (line.name, quantity)
        for line in fit.setup.lines
        for quantity in (*PARAMETERS, *(name for name in line.parameters if name in SHAPE_QUANTITIES))
    ]


def _planes(fit: CubeFit, source: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the parameters, line after line, as (planes, y, x)."""
    lines = fit.lines
    return np.stack([source[name][lines.index(line)] for line, name in parameter_planes(fit)]).reshape(-1, *fit.shape)


def _guess(fit: CubeFit, line: str, parameter: str) -> float:
    i, setup = fit.lines.index(line), fit.setup
    known = {"amplitude": np.nan, "velocity": setup.guess_velocity[i], "sigma": setup.guess_sigma[i]}
    return float(known[parameter] if parameter in known else setup.guess_shape[f"{line}.{parameter}"])


def _image(
    fit: CubeFit,
    name: str,
    data: np.ndarray,
    meaning: str,
    unit: str = "",
    planes: Sequence[str] = (),
    plane_units: Sequence[str] = (),
) -> fits.ImageHDU:
    header = map_header(fit.cube, data.ndim) if data.ndim > 1 else fits.Header()
    if data.ndim == 3 and fit.cube.celestial is not None:
        header["CTYPE3"], header["CRPIX3"], header["CRVAL3"], header["CD3_3"] = "PLANE", 1.0, 1.0, 1.0
    if unit:
        header["BUNIT"] = unit
    header["OBJECT"] = (name, meaning)
    # IFSCube's cards: the first spaxel that was tried, the profile and the number of lines.
    first = int(_tried(fit)[0])
    header["FIT_X0"], header["FIT_Y0"] = first % fit.shape[1], first // fit.shape[1]
    header["FUNCTION"], header["NFUNC"] = function_of(fit), len(fit.lines)
    for i, plane in enumerate(planes, start=1):
        header[f"PLANE{i:03d}"] = plane
    for i, each in enumerate(plane_units, start=1):
        header[f"PUNIT{i:03d}"] = (each, "unit of the plane")
    return fits.ImageHDU(data, header, name=name)


def function_of(fit: CubeFit) -> str:
    """Return the shape of the lines, or "mixed"."""
    shapes = set(fit.setup.model.shapes)
    return shapes.pop() if len(shapes) == 1 else "mixed"


def _tried(fit: CubeFit) -> np.ndarray:
    """Flat indices of the spaxels that were not skipped; all, if every one was."""
    tried = np.flatnonzero((fit.found.status & SKIPPED.value) == 0)
    return tried if tried.size else np.arange(fit.cube.n_spaxels)


def _tables(fit: CubeFit) -> list[fits.BinTableHDU]:
    rows = _tried(fit)
    nx = fit.shape[1]
    index = fits.BinTableHDU.from_columns(
        [fits.Column("row", "K", array=rows // nx), fits.Column("column", "K", array=rows % nx)], name="SPECIDX"
    )
    parameters = fits.BinTableHDU.from_columns(
        [
            text_column("component", [line for line, _ in parameter_planes(fit)]),
            text_column("parameter", [SPELLINGS.get(name, name) for _, name in parameter_planes(fit)]),
        ],
        name="PARNAMES",
    )
    rest = np.array([line.rest_wavelength for line in fit.setup.lines], dtype=np.float64)
    features = fits.BinTableHDU.from_columns(
        [
            text_column("feature", fit.lines),
            fits.Column("rest_wavelength", "D", unit="Angstrom", array=rest),
            text_column("shape", fit.setup.model.shapes),
        ],
        name="FEATWL",
    )
    return [index, parameters, features, *fit.cube.tables.values(), configuration_table(fit)]
