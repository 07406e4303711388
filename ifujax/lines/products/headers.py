"""Header cards that products share: units, coordinates, the meaning of bits, and how the fit was made."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from ifujax.inference.status import Flag

if TYPE_CHECKING:
    from ifujax.data.cube import Cube
    from ifujax.lines.results import CubeFit

_LINEAR = 1e-6
"""Largest deviation from a linear (or logarithmic) axis, relative to the wavelength, that a header may hide."""
_STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|EXTLEVEL|BSCALE|BZERO|BLANK|BUNIT|"
    r"CHECKSUM|DATASUM|DATAMIN|DATAMAX|END|Z?TILE\d*|ZIMAGE|ZCMPTYPE|"
    r"WCSAXES|WCSNAME|C(TYPE|UNIT|RVAL|RPIX|DELT|ROTA|RDER|SYER|NAME)\d+[A-Z]?|(CD|PC|PV|PS)\d+_\d+[A-Z]?|LONPOLE|LATPOLE"
)
"""Cards of the input's primary header that describe its own array, not the observation."""


def map_header(cube: Cube, axes: int = 2) -> fits.Header:
    """Return the spatial coordinates as FITS cards, for images with `axes` axes.

    The matrix is written as CDi_j, which every viewer reads and which mixes with a spectral CD3_3.
    """
    header = fits.Header()
    if cube.celestial is None:
        return header
    header["WCSAXES"] = axes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distortions have no place in a rectified cube
        cards = cube.celestial.to_header()
        matrix = np.asarray(cube.celestial.pixel_scale_matrix)
    for card in cards.cards:
        if card.keyword != "WCSAXES" and not re.fullmatch(r"PC\d_\d|CD\d_\d|CDELT\d|NAXIS\d?", card.keyword):
            header.append(card)
    for i in range(2):
        for j in range(2):
            header[f"CD{i + 1}_{j + 1}"] = float(matrix[i, j])
    return header


def cube_header(cube: Cube) -> fits.Header:
    """Return spatial and rest-frame spectral coordinates as FITS cards.

    A linear or logarithmic axis is described exactly (FITS paper III); any other is left to RESTWAVE.
    """
    header = map_header(cube, axes=3)
    header["WCSAXES"] = 3
    if cube.celestial is None:  # a matrix with some elements needs all
        header["CD1_1"], header["CD2_2"] = 1.0, 1.0
    header.update(spectral_cards(cube, 3))
    return header


def spectral_cards(cube: Cube, axis: int) -> fits.Header:
    """Return the rest-frame wavelength axis as FITS cards for axis number `axis`."""
    rest = cube.rest_wavelength
    kind, note = {"air": ("AWAV", "rest wavelength in air"), "vacuum": ("WAVE", "rest wavelength in vacuum")}.get(
        cube.medium, ("WAVE", "rest wavelength; air or vacuum as in the input")
    )
    index = np.arange(rest.size)
    step = (rest[-1] - rest[0]) / max(rest.size - 1, 1)
    log_step = np.log(rest[-1] / rest[0]) / max(rest.size - 1, 1)
    if np.max(np.abs(rest - rest[0] - step * index) / rest) <= _LINEAR:
        suffix = ""
    elif np.max(np.abs(np.log(rest / rest[0]) - log_step * index)) <= _LINEAR:
        suffix, step = "-LOG", rest[0] * log_step
    else:
        suffix, step = None, 1.0
    header = fits.Header()
    header[f"CRPIX{axis}"] = 1.0
    if suffix is None:
        header[f"CTYPE{axis}"] = ("PIXEL", "irregular: wavelengths are in RESTWAVE")
        header[f"CRVAL{axis}"] = 1.0
    else:
        header[f"CTYPE{axis}"] = (kind + suffix, note)
        header[f"CUNIT{axis}"] = "Angstrom"
        header[f"CRVAL{axis}"] = float(rest[0])
    header[f"CD{axis}_{axis}"] = float(step)
    return header


def bit_cards(header: fits.Header, flags: Iterable[Flag], zero: str) -> None:
    """Add what each bit means: ``BITn`` names it, a comment explains it."""
    header["COMMENT"] = f"0: {zero}; otherwise the sum of these bits:"
    for flag in flags:
        bit = flag.value.bit_length() - 1
        header[f"BIT{bit}"] = (flag.name, f"value {flag.value}")
        header["COMMENT"] = f"{flag.value}: {flag.sentence}"


def primary_header(fit: CubeFit) -> fits.Header:
    """Return the input's primary header, without what described its own array, and how the fit was made."""
    import astropy
    import jax

    from ifujax import __version__

    cube, config = fit.cube, fit.config
    header = fits.Header()
    for card in cube.header.cards:
        if not _STRUCTURE.fullmatch(card.keyword):
            header.append(card, end=True)
    rest = cube.rest_wavelength
    cards: dict[str, tuple[Any, str]] = {
        "REDSHIFT": (cube.redshift, "of the rest frame"),
        "DATE": (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "UTC, when this file was written"),
        "INFILE": (cube.path.name if cube.path else "", "input cube"),
        "CREATOR": (f"ifujax {__version__}", "program and version"),
        "JAXVER": (jax.__version__, "version of jax"),
        "NUMPYVER": (np.__version__, "version of numpy"),
        "ASTROVER": (astropy.__version__, "version of astropy"),
        "FITLOW": (float(rest[0]), "[Angstrom] first rest wavelength of the window"),
        "FITHIGH": (float(rest[-1]), "[Angstrom] last rest wavelength of the window"),
        "MEDIUM": (cube.medium, "of the wavelengths"),
        "FRAME": ("rest", "flux densities are (1+z) times the input's"),
        "CONTMODE": (fit.mode, "continuum: joint, rejection, given or none"),
        "CONTDEG": (-1 if fit.fitter.preparation.degree is None else fit.fitter.preparation.degree, "degree, -1: none"),
        "PROFILE": (config.model.profile, "line profile: mean over pixels, or sampled"),
        "LSF": (config.model.lsf.kind if config.model.lsf else "none", "instrumental width taken off dispersions"),
        "VELCONV": ("relativistic", "v = c (q-1)/(q+1), q = (wave/rest)^2"),
        "SIGMATYP": ("observed", "sigma in SOLUTION holds the LSF"),
        "AMPLTYP": ("peak", "amplitude in SOLUTION; of the Gaussian part with h3, h4"),
        "H4CONV": (config.model.h4_convention, "constant of H4: textbook +3, ifscube -3"),
        "EWSIGN": ("negative", "sign of emission in equivalent widths"),
        "NOISE": ("estimated" if cube.uncertainty is None else "given", "from line-free residuals, or an input plane"),
        "ERRTYPE": ("montecarlo" if fit.found.draws.shape[1] else "covariance", "where errors come from"),
        "ERRSCALE": (config.fit.noise != "given", "errors multiplied by sqrt(reduced chi2)"),
        "ERRNOISE": (config.fit.noise, "what errors rest on: given, scaled, correlated"),
        "OPTFIT": (config.fit.optimize_fit, "lines sought in windows"),
        "STARTS": (config.fit.starts, "starting points per spaxel"),
        "NFREE": (fit.n_free, "free parameters per spaxel"),
    }
    for keyword, (value, comment) in cards.items():
        header.remove(keyword, ignore_missing=True, remove_all=True)
        header[keyword] = (value, comment)
    for sentence in (
        "Conventions of this fit:",
        "- errors (_ERR) are 1 sigma, from the covariance of the fit or Monte Carlo runs (ERRTYPE).",
        "- NaN: not fitted (see STATUS), or not constrained by the data.",
        "- velocities are relative to REDSHIFT and positive when receding.",
        "- FLUX_M and FLUX_D are integrated fluxes as observed: (1+z) cancels.",
        "- dispersions without an LSF hold the instrument's width.",
        *(f"- {note}" for note in cube.notes),
    ):
        header["COMMENT"] = sentence.encode("ascii", "replace").decode()
    return header


def configuration(fit: CubeFit) -> list[tuple[str, str]]:
    """Return the configuration as it was written, or else as it was declared in Python."""
    config = fit.config
    if config.text:
        return list(config.text.items())
    rows = []
    for line in config.model.lines:
        rows.append((f"{line.name}.rest_wavelength", str(line.rest_wavelength)))
        rows.append((f"{line.name}.{line.strength}", repr(line.strength_declaration)))
        rows.append((f"{line.name}.velocity", repr(line.kinematics.velocity)))
        rows.append((f"{line.name}.velocity_dispersion", repr(line.kinematics.velocity_dispersion)))
    for name in ("continuum_degree", "profile", "lsf"):
        rows.append((f"model.{name}", repr(getattr(config.model, name))))
    for section in ("continuum", "fit"):
        options = getattr(config, section)
        if is_dataclass(options):
            rows += [(f"{section}.{item.name}", repr(getattr(options, item.name))) for item in fields(options)]
    return rows


def configuration_table(fit: CubeFit) -> fits.BinTableHDU:
    """Return FITCONFIG: columns ``parameters`` and ``values``, as wide as the longest text."""
    names, values = zip(*configuration(fit))
    return fits.BinTableHDU.from_columns([text_column("parameters", names), text_column("values", values)], name="FITCONFIG")


def noise_table(fit: CubeFit) -> fits.BinTableHDU:
    """Return NOISECOR: the correlation of the noise at offsets in wavelength (pixels) and in the image (spaxels)."""
    known = fit.noise_correlation
    rows = [(k, 0, 0, value, error) for k, (value, error) in enumerate(zip(known.spectral, known.spectral_error))]
    if known.spatial is not None and known.spatial_error is not None:
        n = known.spatial.shape[0] // 2
        rows += [
            (0, dy, dx, known.spatial[n + dy, n + dx], known.spatial_error[n + dy, n + dx])
            for dy in range(n + 1)
            for dx in range(-n, n + 1)
            if dy > 0 or dx > 0
        ]
    names = ("wave", "y", "x", "correlation", "error")
    columns = [fits.Column(name, "J" if k < 3 else "D", array=np.array([row[k] for row in rows])) for k, name in enumerate(names)]
    table = fits.BinTableHDU.from_columns(columns, name="NOISECOR")
    table.header["INFLATE"] = (known.inflation, "errors grow by, on average, along wavelength")
    table.header["REACH"] = (known.along.reach, "pixels of wavelength that are significant")
    if np.isfinite(known.b):
        table.header["SLOPE_B"] = (known.b, "noise of sums of N spaxels: 1 + b log10(N)")
    return table


def text_column(name: str, texts: Iterable[str], least: int = 64) -> fits.Column:
    """Return a column of strings that cuts none of them (FITS tables hold ASCII: the rest is escaped)."""
    plain = [str(text).encode("ascii", "backslashreplace").decode() for text in texts]
    return fits.Column(name, f"{max([least, *map(len, plain)])}A", array=np.array(plain, dtype=str))
