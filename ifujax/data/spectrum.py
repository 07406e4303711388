"""One spectrum as the file has it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from ifujax.data.blocks import window_planes
from ifujax.data.cube import Cube
from ifujax.data.spaxels import as_variance, flagged
from ifujax.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """A spectrum in the observed frame, as stored in its file: a `Cube` of one spaxel.

    Parameters
    ----------
    values : (wave,) array
        Flux density per wavelength.
    wavelength : (wave,) array
        Angstrom, ascending, in `medium`.
    uncertainty : (wave,) array, optional
    uncertainty_kind : "variance", "error" (1 sigma) or "ivar" (inverse variance), optional
        What `uncertainty` holds; both or neither must be given.
    flags : (wave,) array, optional
        Non-zero = bad, or zero = bad with `flags_zero_is_bad`.
    flags_zero_is_bad : bool
    flag_bits : int, optional
        Only these bits of the flags are bad.
    stellar : (wave,) array, optional
        Subtracted before a fit.
    redshift : float
        Defines the rest frame: ``wavelength / (1 + redshift)``, ``values * (1 + redshift)``.
    unit : str
        BUNIT as written.
    medium : "air", "vacuum" or "unknown"
    header : `~astropy.io.fits.Header`
        The primary header.
    path : Path, optional
    notes : tuple of str
        Sentences about what was taken for what.

    Raises
    ------
    DataError
        If shapes disagree or the wavelengths don't ascend.

    Examples
    --------
    >>> spectrum = Spectrum(np.ones(3), [5000.0, 5001.0, 5002.0], redshift=0.1)
    >>> spectrum.as_cube().shape
    (3, 1, 1)
    """

    values: np.ndarray
    wavelength: np.ndarray
    uncertainty: np.ndarray | None = None
    uncertainty_kind: str | None = None
    flags: np.ndarray | None = None
    flags_zero_is_bad: bool = False
    flag_bits: int | None = None
    stellar: np.ndarray | None = None
    redshift: float = 0.0
    unit: str = ""
    medium: str = "unknown"
    header: fits.Header = field(default_factory=fits.Header)
    path: Path | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("values", "uncertainty", "flags", "stellar"):
            plane = getattr(self, name)
            if plane is not None:
                object.__setattr__(self, name, np.asarray(plane))
        object.__setattr__(self, "wavelength", np.asarray(self.wavelength, dtype=np.float64))
        if self.values.ndim != 1:
            raise DataError(f"values must have one axis; got shape {self.values.shape}. Give a spectrum, or make a Cube.")
        for name in ("uncertainty", "flags", "stellar"):
            plane = getattr(self, name)
            if plane is not None and plane.shape != self.values.shape:
                raise DataError(
                    f"{name} must have the shape of the data, {self.values.shape}; got {plane.shape}. They belong together."
                )
        self.as_cube()  # checks all the rest

    def __repr__(self) -> str:
        extras = [self.uncertainty_kind or "no uncertainty"]
        extras += [name for name in ("flags", "stellar") if getattr(self, name) is not None]
        return (
            f"<Spectrum {self.path.name if self.path else ''}: {self.values.size} wavelengths "
            f"{self.wavelength[0]:.2f} to {self.wavelength[-1]:.2f} Angstrom ({self.medium}), "
            f"redshift {self.redshift:g}, {', '.join(extras)}>"
        )

    @property
    def rest_wavelength(self) -> np.ndarray:
        """Pixel centres in the rest frame, Angstrom, shape (wave,)."""
        return self.wavelength / (1.0 + self.redshift)

    @property
    def bad(self) -> np.ndarray:
        """(wave,) bool: flagged, or data, stellar or uncertainty not finite, or the uncertainty not positive."""
        bad = ~np.isfinite(self.values)
        if self.stellar is not None:
            bad |= ~np.isfinite(self.stellar)
        if self.flags is not None:
            bad |= flagged(self.flags, self.flag_bits, self.flags_zero_is_bad)
        if self.uncertainty is not None and self.uncertainty_kind is not None:
            variance = as_variance(np.asarray(self.uncertainty, dtype=np.float64), self.uncertainty_kind)
            bad |= ~(np.isfinite(variance) & (variance > 0))
        return bad

    def as_cube(self) -> Cube:
        """Return the same as a cube of shape (wave, 1, 1): what `ifujax.fit_cube` takes."""

        def image(plane: np.ndarray | None) -> Any:
            return None if plane is None else plane[:, None, None]

        return Cube(
            values=image(self.values),
            wavelength=self.wavelength,
            uncertainty=image(self.uncertainty),
            uncertainty_kind=self.uncertainty_kind,
            flags=image(self.flags),
            flags_zero_is_bad=self.flags_zero_is_bad,
            flag_bits=self.flag_bits,
            stellar=image(self.stellar),
            redshift=self.redshift,
            unit=self.unit,
            medium=self.medium,
            header=self.header,
            path=self.path,
            notes=self.notes,
        )

    def cut(self, low: float, high: float) -> Spectrum:
        """Return the part between two rest-frame wavelengths (Angstrom, ends included).

        Raises
        ------
        UsageError
            If `low` isn't below `high`.
        DataError
            If no pixel lies between them.
        """
        keep = window_planes(self.rest_wavelength, (low, high), self.redshift)
        names = ("values", "wavelength", "uncertainty", "flags", "stellar")
        return replace(self, **{name: getattr(self, name)[keep] for name in names if getattr(self, name) is not None})

    def check(self) -> Spectrum:
        """Look at the values and return the spectrum, noted; see `Cube.check`."""
        return replace(self, notes=self.as_cube().check().notes)

    def plot(self, window: tuple[float, float] | None = None) -> Figure:
        """Return a figure in the rest frame, with the 1 sigma band; bad pixels are shaded.

        Parameters
        ----------
        window : (low, high), optional
            Rest-frame Angstrom.
        """
        from ifujax.data.figures import spectrum_figure

        return spectrum_figure(self, window, self.path.name if self.path else "")
