"""A simulated cube: a rotating, fading disc of ionised gas, as a MUSE-like data cube with known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifujax.errors import UsageError
from ifujax.simulate.profiles import Profile
from ifujax.simulate.simulated_spectra import HALPHA_LINES, SimulatedLine, SimulatedSpectra, spectra

if TYPE_CHECKING:
    from astropy.io import fits

    from ifujax.data.cube import Cube

FloatArray = NDArray[np.float64]

MUSE_UNIT = "10**(-20)*erg/s/cm**2/Angstrom"


@dataclass(frozen=True)
class SimulatedCube:
    """A simulated cube and its true maps.

    Attributes
    ----------
    wavelength : (w,) ndarray
        Observed frame, Angstrom, air.
    values, variance : (w, y, x) ndarray
        As in a file: flux densities in the observed frame, float32, NaN where flagged.
    flags : (w, y, x) ndarray of uint8
        Non-zero = bad.
    model : (w, y, x) ndarray
        The noise-free cube, observed frame, float32.
    truth : dict of str to ndarray
        (y, x) maps of what `simulate.spectra` returns: ``"ha.flux"``, ``"ha.velocity"``, ``"ha.velocity_dispersion"``,
        ``"snr"``, ... Velocities are relative to `redshift`; equivalent widths are in the rest frame.
    spatial_mask : (y, x) ndarray of bool
        True = to be skipped.
    redshift : float
    unit : str
    lines : tuple of SimulatedLine
    lsf_fwhm : float
        Angstrom, observed frame.
    """

    wavelength: FloatArray
    values: NDArray[np.float32]
    variance: NDArray[np.float32]
    flags: NDArray[np.uint8]
    model: NDArray[np.float32]
    truth: dict[str, FloatArray]
    spatial_mask: NDArray[np.bool_]
    redshift: float
    unit: str
    lines: tuple[SimulatedLine, ...]
    lsf_fwhm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(wave, y, x)."""
        n_wave, n_y, n_x = self.values.shape
        return n_wave, n_y, n_x

    @cached_property
    def cube(self) -> Cube:
        """The simulation as the `ifujax.data.cube.Cube` that `ifujax.fit_cube` takes."""
        from astropy.wcs import WCS

        from ifujax.data.cube import Cube

        header = self.header()
        return Cube(
            values=self.values,
            wavelength=self.wavelength,
            uncertainty=self.variance,
            uncertainty_kind="variance",
            flags=self.flags,
            stellar=None,
            spatial_mask=self.spatial_mask if self.spatial_mask.any() else None,
            redshift=self.redshift,
            unit=self.unit,
            medium="air",
            header=header,
            celestial=WCS(header).celestial,
            path=None,
            notes=("simulated by ifujax.simulate.cube",),
        )

    def header(self) -> fits.Header:
        """Return the header of the DATA extension: MUSE-like, 0.2 arcsec spaxels, wavelengths in air."""
        from astropy.io import fits

        _, n_y, n_x = self.shape
        step = float(self.wavelength[1] - self.wavelength[0])
        cards = {
            "OBJECT": ("simulated disc", "made by ifujax.simulate"),
            "BUNIT": (self.unit, "unit of the data"),
            "CRPIX1": (n_x + 1) / 2,
            "CRPIX2": (n_y + 1) / 2,
            "CRPIX3": 1.0,
            "CRVAL1": 63.3553,
            "CRVAL2": 10.4653,
            "CRVAL3": float(self.wavelength[0]),
            "CD1_1": -0.2 / 3600,
            "CD1_2": 0.0,
            "CD2_1": 0.0,
            "CD2_2": 0.2 / 3600,
            "CD1_3": 0.0,
            "CD2_3": 0.0,
            "CD3_1": 0.0,
            "CD3_2": 0.0,
            "CD3_3": step,
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CTYPE3": "AWAV",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "CUNIT3": "Angstrom",
            "RADESYS": "FK5",
            "EQUINOX": 2000.0,
        }
        header = fits.Header()
        for name, value in cards.items():
            header[name] = value
        return header

    def write_muse(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a FITS file as the MUSE pipeline does: an empty primary, DATA, STAT (variance) and DQ.

        Parameters
        ----------
        path : str or Path
            Where to write. A name that ends in .gz is compressed.
        overwrite : bool
            Replace an existing file.

        Raises
        ------
        UsageError, DataError
            As `ifujax.io.output.atomic_path`: if the file exists and `overwrite` is False, or can't be written.
        """
        from astropy.io import fits

        from ifujax.io.output import atomic_path

        primary = fits.PrimaryHDU()
        primary.header["TELESCOP"] = "ESO-VLT-U4"
        primary.header["INSTRUME"] = "MUSE"
        primary.header["OBJECT"] = ("simulated disc", "made by ifujax.simulate")
        header = self.header()
        units = {"DATA": self.unit, "STAT": f"({self.unit})**2", "DQ": ""}
        planes = {"DATA": self.values, "STAT": self.variance, "DQ": self.flags.astype(np.int32)}
        extensions = []
        for name, plane in planes.items():
            extension = fits.ImageHDU(plane, header=header, name=name)
            if units[name]:
                extension.header["BUNIT"] = units[name]
            else:
                del extension.header["BUNIT"]
            extensions.append(extension)
        with atomic_path(path, overwrite) as temporary:
            fits.HDUList([primary, *extensions]).writeto(temporary)
        return Path(path)


def cube(
    shape: tuple[int, int] = (20, 24),
    lines: Sequence[SimulatedLine] = HALPHA_LINES,
    *,
    wavelength: ArrayLike | None = None,
    redshift: float = 0.01,
    peak_snr: float = 50.0,
    rotation: float = 180.0,
    inclination: float = 50.0,
    position_angle: float = 30.0,
    velocity: float = 0.0,
    dispersion: tuple[float, float] = (60.0, 120.0),
    scale_radius: float | None = None,
    continuum: tuple[float, ...] = (5.0, 0.5),
    noise: float = 1.0,
    lsf_fwhm: float = 2.5,
    profile: Profile = "integrated",
    nan_spaxels: Sequence[tuple[int, int]] = (),
    masked_spaxels: Sequence[tuple[int, int]] = (),
    bad_fraction: float = 0.0,
    unit: str = MUSE_UNIT,
    seed: int = 0,
) -> SimulatedCube:
    """Simulate a cube of a rotating disc: brightness falls outwards, the centre is hotter.

    Parameters
    ----------
    shape : (int, int)
        Spaxels in y and x.
    lines : sequence of SimulatedLine
        Lines, all in one kinematic group; the relative fluxes are drawn once per spaxel.
    wavelength : (w,) array_like, optional
        Observed wavelengths, Angstrom. By default 1.25 Angstrom pixels that reach 120 Angstrom beyond the lines.
    redshift : float
        Systemic redshift; velocities are relative to it.
    peak_snr : float
        Peak S/N per pixel of the brightest line in the centre; it falls as exp(-r / scale_radius).
    rotation : float
        Asymptotic rotation velocity, km/s, before projection.
    inclination, position_angle : float
        Degrees; the position angle of the receding side is counted from +y towards -x (north through east).
    velocity : float
        Systemic velocity relative to the redshift, km/s.
    dispersion : (float, float)
        Intrinsic dispersion far out and in the centre, km/s.
    scale_radius : float, optional
        Of the brightness, in spaxels; a third of the shorter side by default.
    continuum : tuple of float
        Polynomial coefficients (constant first, coordinate from -1 to 1) in the centre, in units of the noise; they fade
        half as fast as the lines.
    noise : float
        Standard deviation per pixel, in `unit`.
    lsf_fwhm : float
        Instrumental FWHM, Angstrom, observed frame.
    profile : {"integrated", "sampled"}
        See `ifujax.simulate.profiles.gaussian_line`.
    nan_spaxels, masked_spaxels : sequence of (y, x)
        Spaxels whose data and variance are NaN (and flagged), and spaxels in the spatial mask.
    bad_fraction : float
        Fraction of single voxels that are NaN and flagged.
    unit : str
        Flux-density unit.
    seed : int
        Seed of the generator.

    Returns
    -------
    SimulatedCube

    Examples
    --------
    >>> from ifujax import simulate
    >>> disc = simulate.cube((4, 5), seed=3)
    >>> disc.truth["ha.velocity"].shape
    (4, 5)
    """
    n_y, n_x = shape
    if n_y < 1 or n_x < 1:
        raise UsageError(f"shape must hold at least one spaxel; got {shape}. Give (y, x).")
    if not 0.0 <= bad_fraction < 1.0:
        raise UsageError(f"bad_fraction must lie in [0, 1); got {bad_fraction:g}. Give the fraction of voxels to spoil.")
    for name, spaxels in (("nan_spaxels", nan_spaxels), ("masked_spaxels", masked_spaxels)):
        for y, x in spaxels:
            if not (0 <= y < n_y and 0 <= x < n_x):
                raise UsageError(f"{name} must lie within {shape}; got ({y}, {x}). Give 0-based (y, x).")
    zoom = 1.0 + redshift
    wavelength = wavelengths_about(lines, zoom) if wavelength is None else np.asarray(wavelength, dtype=np.float64)
    scale_radius = min(shape) / 3.0 if scale_radius is None else scale_radius

    radius, towards_receding = disc_geometry(shape, inclination, position_angle)
    fading = np.exp(-radius / scale_radius)
    turnover = 0.5 * scale_radius
    rotating = rotation * np.sin(np.radians(inclination)) * (2.0 / np.pi) * np.arctan(radius / turnover) * towards_receding
    widths = dispersion[0] + (dispersion[1] - dispersion[0]) * fading

    # Rest frame: F_lambda is (1 + z) times larger and wavelengths (1 + z) times smaller, so fluxes stay
    simulated = spectra(
        n_y * n_x,
        lines,
        wavelength=wavelength / zoom,
        velocity=(velocity + rotating).ravel(),
        velocity_dispersion=widths.ravel(),
        continuum=[zoom * noise * value * np.sqrt(fading).ravel() for value in continuum],
        noise=zoom * noise,
        snr=(peak_snr * fading).ravel(),
        lsf_fwhm=lsf_fwhm / zoom,
        profile=profile,
        seed=seed,
    )

    return packed(
        simulated,
        shape,
        wavelength,
        redshift=redshift,
        lsf_fwhm=lsf_fwhm,
        unit=unit,
        nan_spaxels=nan_spaxels,
        masked_spaxels=masked_spaxels,
        bad_fraction=bad_fraction,
        seed=seed,
    )


def wavelengths_about(lines: Sequence[SimulatedLine], zoom: float) -> FloatArray:
    """Return observed wavelengths in steps of 1.25 Angstrom that reach 120 Angstrom beyond the lines."""
    reach = [line.wavelength * zoom for line in lines]
    return np.arange(np.floor(min(reach)) - 120.0, max(reach) + 120.0, 1.25)


def packed(
    simulated: SimulatedSpectra,
    shape: tuple[int, int],
    wavelength: FloatArray,
    *,
    redshift: float,
    lsf_fwhm: float,
    unit: str,
    nan_spaxels: Sequence[tuple[int, int]] = (),
    masked_spaxels: Sequence[tuple[int, int]] = (),
    bad_fraction: float = 0.0,
    seed: int,
) -> SimulatedCube:
    """Return rest-frame spectra, one a spaxel, as the cube that is observed; parameters are those of `cube`."""
    (n_y, n_x), zoom = shape, 1.0 + redshift

    def as_planes(rows: FloatArray, scale: float) -> NDArray[np.float32]:
        return np.ascontiguousarray((rows * scale).T.reshape(wavelength.size, n_y, n_x), dtype=np.float32)

    values, variance = as_planes(simulated.values, 1 / zoom), as_planes(simulated.variance, 1 / zoom**2)
    # a generator of its own, so that spoiling voxels doesn't change the noise of the others
    flags = (np.random.default_rng((seed, 1)).random(values.shape) < bad_fraction).astype(np.uint8)
    for y, x in nan_spaxels:
        flags[:, y, x] = 1
    values[flags != 0] = np.nan
    variance[flags != 0] = np.nan
    spatial_mask = np.zeros(shape, dtype=bool)
    for y, x in masked_spaxels:
        spatial_mask[y, x] = True
    truth = {name: item.reshape(n_y, n_x) for name, item in simulated.truth.items() if item.ndim == 1}
    return SimulatedCube(
        wavelength=wavelength,
        values=values,
        variance=variance,
        flags=flags,
        model=as_planes(simulated.model, 1 / zoom),
        truth=truth,
        spatial_mask=spatial_mask,
        redshift=redshift,
        unit=unit,
        lines=simulated.lines,
        lsf_fwhm=lsf_fwhm,
    )


def disc_geometry(shape: tuple[int, int], inclination: float, position_angle: float) -> tuple[FloatArray, FloatArray]:
    """Return the radius in the plane of the disc (spaxels) and the cosine of the azimuth from the receding side."""
    y, x = np.indices(shape, dtype=np.float64)
    y, x = y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2
    angle = np.radians(position_angle)
    major = -x * np.sin(angle) + y * np.cos(angle)
    minor = (x * np.cos(angle) + y * np.sin(angle)) / max(np.cos(np.radians(inclination)), 0.1)
    radius = np.hypot(major, minor)
    return radius, np.divide(major, radius, out=np.zeros(shape), where=radius > 0)
