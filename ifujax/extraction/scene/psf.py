"""The point-spread function of a field at every wavelength, and where the catalogue's positions lie on the cube."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ifujax.errors import DataError
from ifujax.inference.precision import working_precision
from ifujax.models.psf import moffat

_PIECE, _SHORTEST = 1 << 16, 1 << 10
"""Pixels that are worked out at a time: lengths are powers of two, so that few programs are compiled."""
USUAL_SLOPE = -0.03
"""Relative change of the FWHM per 1000 Angstrom that fields of MUSE have (Bacon et al. 2017, A&A 608, A1)."""
PER = 1000.0
"""Angstrom that slopes and drifts are given per."""


@dataclass(frozen=True)
class FieldPSF:
    """A Moffat profile whose width changes with wavelength, as the pixels of the cube sample it.

    ``fwhm (1 + slope (w - wavelength) / 1000 Angstrom)``; positions are those of the catalogue moved by ``dx``, ``dy`` and, by
    differential refraction, ``drift_x (w - wavelength) / 1000 Angstrom`` and so on.

    Parameters
    ----------
    fwhm : float
        Arcsec, at `wavelength`.
    beta : float
        Exponent, above 1.
    slope : float
        Relative change of the FWHM per 1000 Angstrom.
    wavelength : float
        Angstrom.
    e1, e2 : float
        Ellipticity, see `ifujax.models.psf.stretch`.
    dx, dy : float
        Arcsec along the axes of the pixels.
    drift_x, drift_y : float
        Arcsec per 1000 Angstrom.

    Examples
    --------
    >>> psf = FieldPSF(fwhm=0.7, beta=2.8, slope=-0.03, wavelength=7000.0)
    >>> round(psf.fwhm_at(9000.0), 3)
    0.658
    """

    fwhm: float
    beta: float
    slope: float = 0.0
    wavelength: float = 7000.0
    e1: float = 0.0
    e2: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    drift_x: float = 0.0
    drift_y: float = 0.0

    def fwhm_at(self, wavelength: Any) -> Any:
        """Return the FWHM in arcsec at a wavelength in Angstrom."""
        return self.fwhm * (1.0 + self.slope * (wavelength - self.wavelength) / PER)

    @property
    def vector(self) -> np.ndarray:
        """The parameters as `profiles` takes them."""
        return np.array(
            [np.log(self.fwhm), 1.0 / self.beta, self.slope, self.dx, self.dy, self.e1, self.e2, self.drift_x, self.drift_y]
        )

    @classmethod
    def of(cls, vector: np.ndarray, wavelength: float) -> FieldPSF:
        """Return the one that a vector stands for."""
        log_fwhm, inverse, slope, dx, dy, e1, e2, drift_x, drift_y = (float(each) for each in vector)
        return cls(float(np.exp(log_fwhm)), 1.0 / inverse, slope, wavelength, e1, e2, dx, dy, drift_x, drift_y)

    def profiles(self, x: np.ndarray, y: np.ndarray, wavelengths: np.ndarray, area: float) -> np.ndarray:
        """Return the share of a source's flux in pixels at distances `x`, `y` (arcsec) from it, (wavelength, ...) array.

        Parameters
        ----------
        x, y : array
            Of one shape: pixel centre less catalogue position.
        wavelengths : (wave,) array
            Angstrom.
        area : float
            Of a pixel, square arcsec.
        """
        return _in_pieces(
            lambda at_x, at_y: _profiles(self.vector, at_x, at_y, _relative(wavelengths, self.wavelength), area), x, y
        )


def read_psf(path: str | Path) -> FieldPSF:
    """Return the PSF of a table that ``ifujax fit-photometry --table`` wrote; of several rows the median.

    Raises
    ------
    DataError
        If the file can't be read, or has no columns ``fwhm`` and ``beta``.
    """
    from astropy.io.registry import IORegistryError
    from astropy.table import Table

    try:
        table = Table.read(path)
    except (OSError, ValueError, KeyError, TypeError, IORegistryError) as error:
        raise DataError(f"the PSF must be a table of fit-photometry, or FWHM,BETA; got {path}: {error}.") from None
    missing = [name for name in ("fwhm", "beta") if name not in table.colnames]
    if missing:
        raise DataError(f"{path} must have columns fwhm and beta, as those of fit-photometry; got {', '.join(table.colnames)}.")
    fwhm, beta = (float(np.nanmedian(np.asarray(table[name], float))) for name in ("fwhm", "beta"))
    if not (fwhm > 0 and beta > 1):
        raise DataError(f"{path} must hold a fitted PSF; got FWHM {fwhm} and beta {beta}.")
    return FieldPSF(fwhm, beta, slope=USUAL_SLOPE)


NAMES = ("log_fwhm", "inverse_beta", "slope", "dx", "dy", "e1", "e2", "drift_x", "drift_y")
"""Of the elements of `FieldPSF.vector`."""


def profiles_and_slopes(
    vector: np.ndarray, free: tuple[int, ...], x: np.ndarray, y: np.ndarray, relative: np.ndarray, area: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return `FieldPSF.profiles` and its derivatives by the elements `free` of the vector, which come first."""
    every = _in_pieces(lambda at_x, at_y: _with_slopes(vector, at_x, at_y, relative, area, free), x, y)
    return every[0], every[1:]


def _in_pieces(function: Callable[[np.ndarray, np.ndarray], Array], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what a function of two vectors gives, its last axis in the shape of `x`; few lengths are compiled."""
    flat_x, flat_y = x.ravel(), y.ravel()
    parts = []
    with working_precision("float64"):
        for first in range(0, max(flat_x.size, 1), _PIECE):
            piece = slice(first, first + _PIECE)
            size = flat_x[piece].size
            length = min(_PIECE, max(_SHORTEST, 1 << (max(size, 1) - 1).bit_length()))
            padded = [np.pad(each[piece], (0, length - size)) for each in (flat_x, flat_y)]
            parts.append(np.asarray(function(*padded))[..., :size])
    every = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    return every.reshape(*every.shape[:-1], *x.shape)


def _relative(wavelengths: np.ndarray, reference: float) -> np.ndarray:
    return (np.asarray(wavelengths, float) - reference) / PER


def _shape(vector: Array, x: Any, y: Any, relative: Any, area: Any) -> Array:
    """The Moffat profile; `relative` broadcasts against `x` and `y`."""
    log_fwhm, inverse, slope, dx, dy, e1, e2, drift_x, drift_y = (vector[k] for k in range(9))
    fwhm = jnp.exp(log_fwhm) * (1.0 + slope * relative)
    return area * moffat(x - dx - drift_x * relative, y - dy - drift_y * relative, fwhm, 1.0 / inverse, e1, e2)


@jax.jit
def _profiles(vector: Array, x: Array, y: Array, relative: Array, area: Any) -> Array:
    return _shape(vector, x[None], y[None], relative[:, None], area)


@partial(jax.jit, static_argnames=("free",))
def _with_slopes(vector: Array, x: Array, y: Array, relative: Array, area: Any, free: tuple[int, ...]) -> Array:
    """The profiles, then their derivative by each element of `free`, (1 + n, wave, pixel)."""

    def along(k: int) -> tuple[Array, Array]:
        direction = jnp.zeros(len(NAMES), vector.dtype).at[k].set(1.0)
        return jax.jvp(lambda v: _shape(v, x[None], y[None], relative[:, None], area), (vector,), (direction,))

    value = _shape(vector, x[None], y[None], relative[:, None], area)
    return jnp.stack([value, *(along(k)[1] for k in free)])
