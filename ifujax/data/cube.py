"""A data cube as the file has it, and the rest-frame spectra of chosen spaxels."""

from __future__ import annotations

import mmap
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.errors import DataError, IfujaxWarning, UsageError

KINDS = ("variance", "error", "ivar")
_SAMPLED_PLANES = 24
"""Wavelength planes that a check of pixel values looks at: a full cube is too large to read twice."""
_PLAUSIBLE_SNR = (1e-4, 1e5)
"""Median signal to noise per pixel outside this range means that the plane isn't what it was named."""
_EDGE = 1e-12
"""Relative slack of `Cube.cut`: dividing by 1 + z rounds a limit that the user copied from the axis."""


@dataclass(frozen=True, eq=False)
class Spaxels:
    """Rest-frame spectra of `n` spaxels, float64, finite everywhere.

    Attributes
    ----------
    values : (n, wave) array
        Flux density times ``1 + z``; 0 where `bad`.
    variance : (n, wave) array or None
        Variance times ``(1 + z)**2``; 1 where `bad`. None if the cube has no uncertainty.
    stellar : (n, wave) array or None
        Spectrum to subtract, times ``1 + z``; 0 where `bad`.
    bad : (n, wave) bool array
        Flagged, or data, stellar or variance not finite, or variance (error, ivar) not positive.
    dropped_variance : (n,) int array
        Pixels with finite data, not flagged, whose variance isn't a positive finite number.
    """

    values: np.ndarray
    variance: np.ndarray | None
    stellar: np.ndarray | None
    bad: np.ndarray
    dropped_variance: np.ndarray


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
    stellar : (wave, y, x) array, optional
        Subtracted before a fit.
    spatial_mask : (y, x) bool array, optional
        True = skip this spaxel.
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
    stellar: Any | None = None
    spatial_mask: np.ndarray | None = None
    redshift: float = 0.0
    unit: str = ""
    medium: str = "unknown"
    header: fits.Header = field(default_factory=fits.Header)
    celestial: WCS | None = None
    path: Path | None = None
    notes: tuple[str, ...] = ()

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
        extras += [name for name in ("flags", "stellar", "spatial_mask") if getattr(self, name) is not None]
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
        if not low < high:
            raise UsageError(f"the window must be low:high with low below high; got {low:g}:{high:g}. Swap the limits.")
        rest = self.rest_wavelength
        first = int(np.searchsorted(rest, low - _EDGE * abs(low), side="left"))
        last = int(np.searchsorted(rest, high + _EDGE * abs(high), side="right"))
        if first >= last:
            raise DataError(
                f"the window must overlap the cube, {rest[0]:.2f} to {rest[-1]:.2f} Angstrom in the rest frame at redshift "
                f"{self.redshift:g}; got {low:g} to {high:g}. Change the window or the redshift."
            )
        keep = slice(first, last)
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
        values = _gather(self.values, rows, np.float64)
        values *= stretch
        bad = ~np.isfinite(values)
        if self.flags is not None:
            bad |= self._flagged(_gather(self.flags, rows))
        stellar = None
        if self.stellar is not None:
            stellar = _gather(self.stellar, rows, np.float64)
            stellar *= stretch
            bad |= ~np.isfinite(stellar)
        variance = None
        dropped = np.zeros(rows.size, dtype=np.int64)
        if self.uncertainty is not None and self.uncertainty_kind is not None:
            variance = _as_variance(_gather(self.uncertainty, rows, np.float64), self.uncertainty_kind)
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
        if self.spatial_mask is not None and self.spatial_mask.all():
            raise DataError(
                "spatial_mask must leave one spaxel at least; got a mask that skips all. Non-zero means skip: invert it."
            )
        if not self._any_good():
            raise DataError(
                "the cube must have finite values in the window; got NaN in every pixel. Check scidata and the window."
            )
        if self.uncertainty is not None and not self._any_good(use_uncertainty=True):
            raise DataError(
                f"{self.uncertainty_kind} must be positive and finite in one pixel at least; got a plane without any. "
                "Check which plane it names, or name none: the noise is then estimated from the data."
            )
        notes = []
        if self.flags is not None:
            if not self._any_good(use_flags=True):
                raise DataError(
                    "flags must leave one finite pixel at least; got a plane that flags all. "
                    + self._flags_advice(self.flags_zero_is_bad)
                )
            share = float(np.mean([self._flagged(plane).mean() for plane in self._sampled(self.flags)]))
            if share > 0.5:
                notes.append(f"flags reject {100 * share:.0f} % of the pixels. " + self._flags_advice(self.flags_zero_is_bad))
        notes += self._implausible_uncertainty()
        for note in notes:
            warnings.warn(note, IfujaxWarning, stacklevel=2)
        return replace(self, notes=self.notes + tuple(notes)) if notes else self

    def release(self) -> None:
        """Let the operating system drop the pages of memory-mapped planes from this process's memory."""
        for name in ("values", "uncertainty", "flags", "stellar"):
            mapped = _memory_map(getattr(self, name))
            if mapped is not None and hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)

    @staticmethod
    def _flags_advice(zero_is_bad: bool) -> str:
        if zero_is_bad:
            return "Zero was taken as bad; if non-zero means bad, use flags_zero_is_bad: no."
        return "Non-zero was taken as bad; if zero means bad, use flags_zero_is_bad: yes."

    def _flagged(self, plane: np.ndarray) -> np.ndarray:
        flagged = plane == 0 if self.flags_zero_is_bad else plane != 0
        return flagged | np.isnan(plane) if np.issubdtype(plane.dtype, np.floating) else flagged

    def _sampled(self, array: Any) -> list[np.ndarray]:
        chosen = np.unique(np.linspace(0, self.shape[0] - 1, _SAMPLED_PLANES).round().astype(int))
        keep = slice(None) if self.spatial_mask is None else ~self.spatial_mask
        return [np.asarray(array[i])[keep].ravel() for i in chosen]

    def _any_good(self, use_flags: bool = False, use_uncertainty: bool = False) -> bool:
        keep = slice(None) if self.spatial_mask is None else ~self.spatial_mask
        # From the middle outwards: edges are often empty, and the first good plane ends the search.
        for i in sorted(range(self.shape[0]), key=lambda i: abs(i - self.shape[0] // 2)):
            good = np.isfinite(np.asarray(self.values[i])[keep])
            if use_flags:
                good &= ~self._flagged(np.asarray(self.flags[i])[keep])  # type: ignore[index]
            if use_uncertainty:
                plane = np.asarray(self.uncertainty[i])[keep]  # type: ignore[index]
                good &= np.isfinite(plane) & (plane > 0)
            if good.any():
                return True
        return False

    def _implausible_uncertainty(self) -> list[str]:
        if self.uncertainty is None or self.uncertainty_kind is None:
            return []
        data = np.concatenate(self._sampled(self.values)).astype(np.float64)
        plane = np.concatenate(self._sampled(self.uncertainty)).astype(np.float64)
        good = np.isfinite(data) & np.isfinite(plane) & (data != 0) & (plane > 0)
        if self.flags is not None:
            good &= ~self._flagged(np.concatenate(self._sampled(self.flags)))
        if not good.any():
            return []
        # Logarithms: squares of 1e-170 underflow.
        log_data, log_plane = np.log10(np.abs(data[good])), np.log10(plane[good])
        power = {"variance": -0.5, "error": -1.0, "ivar": 0.5}
        snr = {kind: float(np.median(log_data + power[kind] * log_plane)) for kind in KINDS}
        low, high = np.log10(_PLAUSIBLE_SNR)
        found = snr[self.uncertainty_kind]
        if low <= found <= high:
            return []
        others = [f"{kind} would give 1e{snr[kind]:+.1f}" for kind in KINDS if low <= snr[kind] <= high]
        return [
            f"{self.uncertainty_kind} is implausible: the median signal to noise per pixel would be 1e{found:+.1f}"
            + (f" ({', '.join(others)})" if others else "")
            + ". Check what the plane holds and name it as variance, error or ivar."
        ]


def _gather(array: Any, rows: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Return a copy of spaxels `rows` of a (wave, y, x) array as (n, wave), reading little more than them."""
    n_wave, _, nx = array.shape
    dtype = array.dtype.newbyteorder("=") if dtype is None else dtype
    if rows.size == 0:
        return np.zeros((0, n_wave), dtype=dtype)
    first_y, last_y = int(rows.min()) // nx, int(rows.max()) // nx + 1
    if (last_y - first_y) * nx <= 2 * rows.size + nx:
        # Rows of the image are contiguous in each plane: one slice, far faster than picking spaxels.
        block = np.asarray(array[:, first_y:last_y, :]).reshape(n_wave, -1)
        columns = rows - first_y * nx
        if np.array_equal(columns, np.arange(columns[0], columns[0] + columns.size)):
            picked = block[:, columns[0] : columns[0] + columns.size]
        else:
            picked = block[:, columns]
    else:
        picked = np.asarray(array[:, rows // nx, rows % nx])
    # "C" order: astype alone would keep the transposed layout.
    return np.array(picked.T, dtype=dtype, order="C")


def _as_variance(plane: np.ndarray, kind: str) -> np.ndarray:
    if kind == "variance":
        return plane
    positive = plane > 0
    if kind == "error":
        # The square of a negative error would look usable.
        return np.where(positive, plane, np.nan) ** 2
    with np.errstate(over="ignore"):
        return 1.0 / np.where(positive, plane, np.nan)


def _memory_map(array: Any) -> mmap.mmap | None:
    """The mmap that `array`, or the array that it is a view of, rests on."""
    while array is not None:
        if isinstance(array, mmap.mmap):
            return array
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return None
