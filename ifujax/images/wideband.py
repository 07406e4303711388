"""The image that a filter would have made of a cube: planes weighted by exact integrals of the filter's curve."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy import units
from scipy.interpolate import CubicSpline, PPoly

from ifujax.data.blocks import blocks
from ifujax.data.cube import Cube
from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning, UsageError, unknown
from ifujax.io.images import base_name

Interpolation = Literal["linear", "cubic"]
_INTERPOLATIONS = ("linear", "cubic")
_LOST = 0.005
"""Share of the curve's integral beyond the cube above which there is a warning."""


def read_filter_curve(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a filter curve: text of two columns, wavelength and sensitivity; ``#`` begins a comment.

    Columns beyond the second are ignored; a curve that descends is reversed.

    Returns
    -------
    wavelengths, sensitivities : (n,) arrays
        In the file's units.

    Raises
    ------
    DataError
        If the file can't be read, or holds no such curve.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise DataError(f"{path} must be a text file with two columns; got: {reason}. Check the path.") from error
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            rows.append((float(words[0]), float(words[1])))
        except (ValueError, IndexError):
            raise DataError(
                f"{path} must have a wavelength and a sensitivity in each line; got {line.strip()[:60]!r} in line {number}. "
                "Begin comments with #."
            ) from None
    if len(rows) < 2:
        raise DataError(f"{path} must hold a curve of two points or more; got {len(rows)}. Check that it is the right file.")
    wavelengths, sensitivities = np.array(rows).T
    if wavelengths[0] > wavelengths[-1]:
        wavelengths, sensitivities = wavelengths[::-1], sensitivities[::-1]
    try:
        return _checked(wavelengths, sensitivities)
    except UsageError as error:
        raise DataError(f"{path}: {error}") from None


def bandpass_image(
    cube: Cube,
    wavelengths: np.ndarray,
    sensitivities: np.ndarray,
    *,
    unit: str | None = "Angstrom",
    interpolation: Interpolation = "linear",
    photon_weighting: bool = False,
) -> Image:
    """Return the mean flux density of a cube through a filter.

    Each plane counts with the integral of the curve between its edges, exact for the chosen interpolation; the edges are clipped
    to the curve, which is zero beyond its ends. Bad pixels are left out, and their planes' weights with them. The part of the
    curve beyond the cube is missing: the rest is normalised.

    Parameters
    ----------
    cube : Cube
        Read a few planes at a time. Its redshift plays no part: all is in the observed frame.
    wavelengths, sensitivities : (n,) arrays
        The curve, ascending, in the medium (air or vacuum) of the cube.
    unit : str or None
        Of `wavelengths`; None: numbers of planes, counted from 0.
    interpolation : "linear" or "cubic"
        Between the points of the curve; cubic: a not-a-knot spline.
    photon_weighting : bool
        Weigh by the curve times the wavelength, as a detector that counts photons does.

    Returns
    -------
    Image
        ``sum(w d) / sum(w)`` and, with an uncertainty, ``sum(w**2 v) / sum(w)**2``: covariance between planes is ignored. NaN
        where no plane is good.

    Warns
    -----
    IfujaxWarning
        If more than 0.5 % of the curve's integral lies beyond the cube.

    Raises
    ------
    UsageError
        For a curve, unit or interpolation that can't be used.
    DataError
        If the curve doesn't overlap the cube.
    """
    if interpolation not in _INTERPOLATIONS:
        raise UsageError(unknown("interpolation", str(interpolation), _INTERPOLATIONS))
    if photon_weighting and unit is None:
        raise UsageError("unit must be one of length with photon_weighting; got None. Give the curve's wavelengths.")
    curve_x, curve_y = _checked(wavelengths, sensitivities)
    edges = _edges(np.arange(cube.shape[0], dtype=np.float64) if unit is None else cube.wavelength)
    if unit is not None:
        curve_x = curve_x * _to_angstrom(unit)
    curve = _curve(curve_x, curve_y, interpolation, photon_weighting)
    inside = np.clip(edges, curve_x[0], curve_x[-1])
    weights = np.diff(curve.antiderivative()(inside))
    used = np.flatnonzero(np.diff(inside) > 0)
    whole = float(curve.integrate(curve_x[0], curve_x[-1]))
    kept = float(weights.sum())
    if used.size == 0 or kept <= 0 or whole <= 0:
        raise DataError(
            f"the filter curve must overlap the cube, {edges[0]:.2f} to {edges[-1]:.2f}; got {curve_x[0]:.2f} to "
            f"{curve_x[-1]:.2f}, with nothing of it inside. Check the curve's unit."
        )
    if 1 - kept / whole > _LOST:
        message = f"{100 * (1 - kept / whole):.2g}% of the integrated filter curve is beyond the edges of the cube."
        warnings.warn(message, IfujaxWarning, stacklevel=2)
    values, variance = _collapse(cube, weights, slice(int(used[0]), int(used[-1]) + 1))
    return Image(
        values=values,
        variance=variance,
        unit=cube.unit,
        title="bandpass",
        celestial=cube.celestial,
        cards={
            "WLPROJ": (True, "Mean flux density through a filter"),
            "WLPRTYPE": ("curve", "Type of filter"),
            "WLPRPHOT": (photon_weighting, "Weighted by photons (curve times wavelength)"),
            "WLPRINTP": (interpolation, "Between the points of the curve"),
        },
        name="" if cube.path is None else base_name(cube.path),
        header=cube.header,
    )


def _checked(wavelengths: Any, sensitivities: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        x, y = (np.array(each, dtype=np.float64) for each in (wavelengths, sensitivities))
    except (TypeError, ValueError) as error:
        raise UsageError(f"the filter curve must be numbers; got {error}. Give two vectors.") from None
    if x.ndim != 1 or x.shape != y.shape or x.size < 2:
        raise UsageError(f"the filter curve must be two vectors of one length, 2 or more; got shapes {x.shape} and {y.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (np.diff(x) > 0).all()):
        raise UsageError(
            "the filter curve must be finite, its wavelengths ascending; got others. Sort it, and drop repeated ones."
        )
    return x, y


def _to_angstrom(unit: str) -> float:
    try:
        given: Any = units.Unit(unit)
        return float(given.to(units.AA))
    except (ValueError, TypeError, AttributeError, units.UnitConversionError):
        raise UsageError(f"unit must be one of length; got {unit!r}. Say Angstrom, nm or um.") from None


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of planes: mid-points, extrapolated at both ends."""
    if centres.size < 2:
        raise DataError(f"the cube must have two planes or more; got {centres.size}. Use its image.")
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _curve(x: np.ndarray, y: np.ndarray, interpolation: str, photon_weighting: bool) -> PPoly:
    """The curve, times the wavelength if photons count, as a piecewise polynomial."""
    if interpolation == "cubic":
        if x.size < 4:
            raise UsageError(f"the filter curve must have four points or more for cubic; got {x.size}. Use linear.")
        curve = CubicSpline(x, y)
        coefficients = np.asarray(curve.c)
    else:
        coefficients = np.stack([np.diff(y) / np.diff(x), y[:-1]])
    if photon_weighting:
        # x = knot + t in each piece; in units of the middle, so that the numbers stay small.
        zero = np.zeros((1, x.size - 1))
        raised = np.concatenate([coefficients, zero]) + x[:-1] * np.concatenate([zero, coefficients])
        coefficients = raised / (0.5 * (x[0] + x[-1]))
    return PPoly(coefficients, x, extrapolate=False)


def _collapse(cube: Cube, weights: np.ndarray, planes: slice) -> tuple[np.ndarray, np.ndarray | None]:
    shape = cube.shape[1:]
    total, seen, spread = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for block in blocks(cube, planes):
        part = weights[block.planes]
        total += np.tensordot(part, block.values, 1)  # bad values are 0
        seen += part.sum()
        bad = block.bad.any(axis=(1, 2))
        if bad.any():
            seen -= np.tensordot(part[bad], block.bad[bad].astype(np.float64), 1)
        if block.variance is not None:
            block.variance[block.bad] = 0.0
            spread += np.tensordot(part**2, block.variance, 1)
        cube.release()
    good = seen > 1e-12 * weights.sum()
    if cube.spatial_mask is not None:
        good &= ~cube.spatial_mask
    divisor = np.where(good, seen, np.nan)
    return total / divisor, None if cube.uncertainty is None else spread / divisor**2
