"""A data cube as the file has it."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.data.blocks import window_planes
from ifujax.data.checks import KINDS, check_pixels
from ifujax.data.spaxels import Spaxels, as_variance, check_flag_bits, flagged, gather, memory_map
from ifujax.errors import DataError, IfujaxWarning, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.data.image import Image
    from ifujax.data.spectrum import Spectrum
    from ifujax.data.tools import Combine, Filter, SpatialNoise


@dataclass(frozen=True, eq=False, repr=False)
class Cube:
    """A data cube in the observed frame, as stored in its file.

    Nothing is read or converted until `spaxels` is called: the arrays may be memory maps, of either
    byte order.

    Parameters
    ----------
    values : (wave, y, x) array
        Flux density per wavelength.
    wavelength : (wave,) array
        Angstrom, ascending, in `medium`.
    uncertainty : (wave, y, x) array, optional
    uncertainty_kind : "variance", "error" (1 sigma) or "ivar" (inverse variance), optional
        What `uncertainty` holds; both or neither must be given.
    flags : (wave, y, x) array, optional
        Non-zero = bad, or zero = bad with `flags_zero_is_bad`.
    flags_zero_is_bad : bool
    flag_bits : int, optional
        Only these bits of the flags are bad.
    stellar : (wave, y, x) array, optional
        Subtracted before a fit.
    spatial_mask : (y, x) bool array, optional
        True = skip this spaxel.
    bins : (y, x) int array, optional
        Voronoi bin of each spaxel, negative for none: spaxels of one bin hold the same spectrum.
    redshift : float
        Defines the rest frame: ``wavelength / (1 + redshift)``, ``values * (1 + redshift)``.
    unit : str
        BUNIT as written.
    medium : "air", "vacuum" or "unknown"
    header : `~astropy.io.fits.Header`
        The primary header.
    celestial : `~astropy.wcs.WCS`, optional
        The two spatial axes.
    path : Path, optional
    notes : tuple of str
        Sentences about what was taken for what.
    tables : mapping of str to table HDU
        Tables of the file that belong to the product too (``VOR``, ``VORPLUS``).

    Raises
    ------
    DataError
        If shapes disagree or the wavelengths don't ascend.
    """

    values: Any
    wavelength: np.ndarray
    uncertainty: Any | None = None
    uncertainty_kind: str | None = None
    flags: Any | None = None
    flags_zero_is_bad: bool = False
    flag_bits: int | None = None
    stellar: Any | None = None
    spatial_mask: np.ndarray | None = None
    bins: np.ndarray | None = None
    redshift: float = 0.0
    unit: str = ""
    medium: str = "unknown"
    header: fits.Header = field(default_factory=fits.Header)
    celestial: WCS | None = None
    path: Path | None = None
    notes: tuple[str, ...] = ()
    tables: Mapping[str, fits.BinTableHDU] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(np.shape(self.values))
        if len(shape) != 3:
            raise DataError(f"values must have three axes (wave, y, x); got shape {shape}. Give a data cube.")
        wavelength = np.asarray(self.wavelength, dtype=np.float64)
        object.__setattr__(self, "wavelength", wavelength)
        if wavelength.shape != shape[:1]:
            raise DataError(
                f"wavelength must have one value per plane; got shape {wavelength.shape} for a cube of shape {shape}. "
                "Give a vector as long as the first axis."
            )
        if not np.all(np.isfinite(wavelength)) or np.any(np.diff(wavelength) <= 0) or np.any(wavelength <= 0):
            raise DataError("wavelength must be finite, positive and ascending; got other values. Sort the planes by wavelength.")
        for name in ("uncertainty", "flags", "stellar"):
            plane = getattr(self, name)
            if plane is not None and tuple(np.shape(plane)) != shape:
                raise DataError(
                    f"{name} must have the shape of the data, {shape}; got {tuple(np.shape(plane))}. Give planes of one cube."
                )
        if self.spatial_mask is not None:
            mask = np.asarray(self.spatial_mask) != 0
            object.__setattr__(self, "spatial_mask", mask)
            if mask.shape != shape[1:]:
                raise DataError(f"spatial_mask must have shape (y, x) = {shape[1:]}; got {mask.shape}. Give a 2-D image.")
        if self.bins is not None:
            bins = np.asarray(self.bins)
            if bins.shape != shape[1:] or not np.issubdtype(bins.dtype, np.integer):
                raise DataError(
                    f"bins must be integers of shape (y, x) = {shape[1:]}; got {bins.dtype} of shape {bins.shape}. "
                    "Give the bin number of each spaxel, -1 for none."
                )
            object.__setattr__(self, "bins", np.where(bins < 0, -1, bins).astype(np.int32))
        if self.flag_bits is not None:
            check_flag_bits(self.flag_bits, self.flags_zero_is_bad)
        if (self.uncertainty is None) != (self.uncertainty_kind is None):
            raise UsageError(
                f"uncertainty and uncertainty_kind must be given together; got kind {self.uncertainty_kind!r}. "
                f"Say which of {', '.join(KINDS)} the plane is."
            )
        if self.uncertainty_kind is not None and self.uncertainty_kind not in KINDS:
            raise UsageError(f"uncertainty_kind must be one of {', '.join(KINDS)}; got {self.uncertainty_kind!r}.")
        if not (np.isfinite(self.redshift) and self.redshift > -1):
            raise UsageError(f"redshift must be a finite number above -1; got {self.redshift}. Give z, not a velocity.")

    def __repr__(self) -> str:
        n, ny, nx = self.shape
        extras = [self.uncertainty_kind or "no uncertainty"]
        extras += [name for name in ("flags", "stellar", "spatial_mask", "bins") if getattr(self, name) is not None]
        return (
            f"<Cube {self.path.name if self.path else ''}: {n} wavelengths "
            f"{self.wavelength[0]:.2f} to {self.wavelength[-1]:.2f} Angstrom ({self.medium}), "
            f"{ny} x {nx} spaxels (y, x), redshift {self.redshift:g}, {', '.join(extras)}>"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(wave, y, x)``."""
        n, ny, nx = np.shape(self.values)
        return int(n), int(ny), int(nx)

    @property
    def n_spaxels(self) -> int:
        """Number of spaxels, masked ones included."""
        return self.shape[1] * self.shape[2]

    @property
    def rest_wavelength(self) -> np.ndarray:
        """Pixel centres in the rest frame, Angstrom, shape (wave,)."""
        return self.wavelength / (1.0 + self.redshift)

    @property
    def rest_edges(self) -> np.ndarray:
        """Pixel edges in the rest frame, Angstrom, shape (wave + 1,): mid-points, extrapolated at both ends."""
        centres = self.rest_wavelength
        if centres.size < 2:
            raise DataError(
                f"the cube must have two wavelengths at least to have pixel edges; got {centres.size}. Widen the cut."
            )
        middle = 0.5 * (centres[1:] + centres[:-1])
        return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])

    def cut(self, low: float, high: float) -> Cube:
        """Return the planes between two rest-frame wavelengths (Angstrom, inclusive), as views.

        Raises
        ------
        UsageError
            If `low` isn't below `high`.
        DataError
            If no plane lies between them.
        """
        keep = window_planes(self.rest_wavelength, (low, high), self.redshift)
        planes = {
            name: None if getattr(self, name) is None else getattr(self, name)[keep]
            for name in ("uncertainty", "flags", "stellar")
        }
        return replace(self, values=self.values[keep], wavelength=self.wavelength[keep], **planes)

    def spaxels(self, rows: np.ndarray) -> Spaxels:
        """Return rest-frame float64 copies of the spaxels with flat indices ``rows = y * nx + x``.

        Only these spaxels are read. `spatial_mask` isn't applied: the caller chooses the rows.

        Raises
        ------
        UsageError
            If an index lies outside the image.
        """
        rows = np.asarray(rows)
        if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
            raise UsageError(f"rows must be a vector of integers; got {rows.dtype} of shape {rows.shape}. Give y * nx + x.")
        rows = rows.astype(np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.n_spaxels):
            raise UsageError(
                f"rows must lie within 0 to {self.n_spaxels - 1}; got {rows.min()} to {rows.max()}. Give y * nx + x."
            )
        stretch = 1.0 + self.redshift
        values = gather(self.values, rows, np.float64)
        values *= stretch
        bad = ~np.isfinite(values)
        if self.flags is not None:
            bad |= flagged(gather(self.flags, rows), self.flag_bits, self.flags_zero_is_bad)
        stellar = None
        if self.stellar is not None:
            stellar = gather(self.stellar, rows, np.float64)
            stellar *= stretch
            bad |= ~np.isfinite(stellar)
        variance = None
        dropped = np.zeros(rows.size, dtype=np.int64)
        if self.uncertainty is not None and self.uncertainty_kind is not None:
            variance = as_variance(gather(self.uncertainty, rows, np.float64), self.uncertainty_kind)
            variance *= stretch**2
            useless = ~(np.isfinite(variance) & (variance > 0))
            dropped = np.count_nonzero(useless & ~bad, axis=1)
            bad |= useless
            variance[bad] = 1.0
        # The values of bad pixels are replaced, not only given no weight: 0 * nan is nan.
        values[bad] = 0.0
        if stellar is not None:
            stellar[bad] = 0.0
        return Spaxels(values, variance, stellar, bad, dropped)

    def check(self) -> Cube:
        """Look at pixel values of the cube (after `cut`: only evenly spaced planes are read) and return it, noted.

        Warns if most pixels are flagged, or if data squared over the uncertainty plane is implausible.
        Both sentences are also added to `notes`.

        Raises
        ------
        DataError
            If no pixel can be used: all NaN, all flagged, none with a positive uncertainty, or all spaxels masked.
        """
        notes = check_pixels(self)
        for note in notes:
            warnings.warn(note, IfujaxWarning, stacklevel=2)
        return replace(self, notes=self.notes + tuple(notes)) if notes else self

    def release(self) -> None:
        """Let the operating system drop the pages of memory-mapped planes from this process's memory."""
        for name in ("values", "uncertainty", "flags", "stellar"):
            mapped = memory_map(getattr(self, name))
            if mapped is not None and hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def aperture_spectrum(
        self, x: float, y: float, radius: float, combine: Combine = "sum", correlation: SpatialNoise | None = None
    ) -> Spectrum:
        """Return the spectrum of the spaxels whose centres lie within a circle.

        Bad pixels and masked spaxels are left out; in a sum they count as the mean of the others. Noise is taken as
        independent between spaxels, unless `correlation` says otherwise. The spectrum is flagged where more than half of the
        pixels are bad.

        Parameters
        ----------
        x, y : float
            Centre, 0-based pixels.
        radius : float
            Pixels; 0 on the centre of a spaxel is that spaxel.
        combine : "sum", "mean" or "median"
            The variance of a sum is the sum of variances, that of a mean is ``1 / n**2`` of it, and that of a
            median of more than two is ``pi / 2`` times that of the mean (many spaxels, normal noise).
        correlation : optional
            ``fit.noise_correlation`` of a fit of the cube: errors are multiplied by its `factor` of these spaxels.

        Raises
        ------
        UsageError
            If the circle holds no spaxel, or for an unknown way to combine.
        DataError
            If all of its spaxels are masked.
        """
        from ifujax.data.tools import aperture_spectrum

        return aperture_spectrum(self, x, y, radius, combine, correlation)

    def image(self, wavelength: float, fwhm: float, filter: Filter = "box") -> Image:  # noqa: A002
        """Return the mean flux density through a filter, in the rest frame (flux density times ``1 + z``).

        Both filters are weighted means over wavelength, the pixels that a box cuts by their exact share. Bad pixels
        are left out; there is no value where less than half of the filter's weight is left. Times `fwhm`, the image
        of a box is the integrated flux.

        Parameters
        ----------
        wavelength, fwhm : float
            Centre and full width at half maximum, rest-frame Angstrom.
        filter : "box" or "gaussian"

        Raises
        ------
        UsageError
            If the filter isn't known or has no width.
        DataError
            If the box, or more than 1 % of the Gaussian, lies outside the cube.
        """
        from ifujax.data.tools import filter_image

        return filter_image(self, wavelength, fwhm, filter)

    def snr_map(self, window: tuple[float, float] = (6050.0, 6200.0)) -> Image:
        """Return the signal to noise per pixel in a rest-frame window (Angstrom).

        The mean of the data over the mean of the errors; without an uncertainty, over the standard deviation
        about a straight line.

        Raises
        ------
        UsageError, DataError
            If the window is empty or outside the cube.
        """
        from ifujax.data.tools import snr_map

        return snr_map(self, window)

    def peak(self, window: tuple[float, float] | None = None) -> tuple[int, int]:
        """Return (x, y) of the spaxel with the largest sum over wavelength, bad pixels and masked spaxels left out.

        Parameters
        ----------
        window : (low, high), optional
            Rest-frame Angstrom; all wavelengths by default.

        Raises
        ------
        DataError
            If there is no usable pixel.
        """
        from ifujax.data.tools import peak

        return peak(self, window)

    def centroid(self, window: tuple[float, float] | None = None) -> tuple[float, float]:
        """Return (x, y) of the centre of light: spaxels weighted by their sum over wavelength, where it is positive.

        Arguments and errors as `peak`.
        """
        from ifujax.data.tools import centroid

        return centroid(self, window)

    def plot(self, x: int, y: int, window: tuple[float, float] | None = None) -> Figure:
        """Return a figure of one spaxel in the rest frame, with its 1 sigma band; bad pixels are shaded.

        Parameters
        ----------
        x, y : int
            0-based pixels.
        window : (low, high), optional
            Rest-frame Angstrom.

        Raises
        ------
        UsageError
            If there is no such spaxel.
        """
        from ifujax.data.figures import spectrum_figure

        return spectrum_figure(self.spectrum(x, y), window, f"x = {x}, y = {y}")

    def spectrum(self, x: int, y: int) -> Spectrum:
        """Return one spaxel. 0-based pixels.

        Raises
        ------
        UsageError
            If there is no such spaxel.
        """
        from ifujax.data.spectrum import Spectrum

        _, ny, nx = self.shape
        if not (0 <= x < nx and 0 <= y < ny):
            raise UsageError(f"x, y must lie within 0..{nx - 1}, 0..{ny - 1}; got x={x}, y={y}.")
        row = np.array([int(y) * nx + int(x)])
        planes = {name: getattr(self, name) for name in ("values", "uncertainty", "flags", "stellar")}
        own = {name: None if plane is None else gather(plane, row)[0] for name, plane in planes.items()}
        same = (
            "wavelength",
            "uncertainty_kind",
            "flags_zero_is_bad",
            "flag_bits",
            "redshift",
            "unit",
            "medium",
            "header",
            "path",
        )
        return Spectrum(**own, **{name: getattr(self, name) for name in same}, notes=self.notes)
