"""Checks of pixel values that a reader must not spend time on: is there anything to fit, and is it plausible?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.data.spaxels import flagged
from ifujax.errors import DataError

if TYPE_CHECKING:
    from ifujax.data.cube import Cube

KINDS = ("variance", "error", "ivar")
"""What an uncertainty can be: variance, 1 sigma, inverse variance."""
_SAMPLED_PLANES = 24
"""Wavelength planes that a check of pixel values looks at: a full cube is too large to read twice."""
_PLAUSIBLE_SNR = (1e-4, 1e5)
"""Median signal to noise per pixel outside this range means that the plane isn't what it was named."""


def check_pixels(cube: Cube) -> list[str]:
    """Return sentences about flags and an uncertainty that look wrong.

    Raises
    ------
    DataError
        If no pixel can be used.
    """
    if cube.spatial_mask is not None and cube.spatial_mask.all():
        raise DataError("spatial_mask must leave one spaxel at least; got a mask that skips all. Non-zero means skip: invert it.")
    if not _any_good(cube):
        raise DataError("the cube must have finite values in the window; got NaN in every pixel. Check scidata and the window.")
    if cube.uncertainty is not None and not _any_good(cube, use_uncertainty=True):
        raise DataError(
            f"{cube.uncertainty_kind} must be positive and finite in one pixel at least; got a plane without any. "
            "Check which plane it names, or name none: the noise is then estimated from the data."
        )
    notes = []
    if cube.flags is not None:
        if not _any_good(cube, use_flags=True):
            raise DataError("flags must leave one finite pixel at least; got a plane that flags all. " + _flags_advice(cube))
        share = float(np.mean([_flagged(cube, plane).mean() for plane in _sampled(cube, cube.flags)]))
        if share > 0.5:
            notes.append(f"flags reject {100 * share:.0f} % of the pixels. " + _flags_advice(cube))
    return notes + _implausible_uncertainty(cube)


def _flags_advice(cube: Cube) -> str:
    if cube.flags_zero_is_bad:
        return "Zero was taken as bad; if non-zero means bad, use flags_zero_is_bad: no."
    if cube.flag_bits is not None:
        return f"Bits {cube.flag_bits:#x} were taken as bad; name others with flag_bits."
    return "Non-zero was taken as bad; if zero means bad, use flags_zero_is_bad: yes; if only some bits do, flag_bits."


def _flagged(cube: Cube, plane: np.ndarray) -> np.ndarray:
    return flagged(plane, cube.flag_bits, cube.flags_zero_is_bad)


def _kept(cube: Cube) -> Any:
    return slice(None) if cube.spatial_mask is None else ~cube.spatial_mask


def _sampled(cube: Cube, array: Any) -> list[np.ndarray]:
    chosen = np.unique(np.linspace(0, cube.shape[0] - 1, _SAMPLED_PLANES).round().astype(int))
    keep = _kept(cube)
    return [np.asarray(array[i])[keep].ravel() for i in chosen]


def _any_good(cube: Cube, use_flags: bool = False, use_uncertainty: bool = False) -> bool:
    keep = _kept(cube)
    # From the middle outwards: edges are often empty, and the first good plane ends the search.
    for i in sorted(range(cube.shape[0]), key=lambda i: abs(i - cube.shape[0] // 2)):
        good = np.isfinite(np.asarray(cube.values[i])[keep])
        if use_flags and cube.flags is not None:
            good &= ~_flagged(cube, np.asarray(cube.flags[i])[keep])
        if use_uncertainty and cube.uncertainty is not None:
            plane = np.asarray(cube.uncertainty[i])[keep]
            good &= np.isfinite(plane) & (plane > 0)
        if good.any():
            return True
    return False


def _implausible_uncertainty(cube: Cube) -> list[str]:
    if cube.uncertainty is None or cube.uncertainty_kind is None:
        return []
    data = np.concatenate(_sampled(cube, cube.values)).astype(np.float64)
    plane = np.concatenate(_sampled(cube, cube.uncertainty)).astype(np.float64)
    good = np.isfinite(data) & np.isfinite(plane) & (data != 0) & (plane > 0)
    if cube.flags is not None:
        good &= ~_flagged(cube, np.concatenate(_sampled(cube, cube.flags)))
    if not good.any():
        return []
    # Logarithms: squares of 1e-170 underflow.
    log_data, log_plane = np.log10(np.abs(data[good])), np.log10(plane[good])
    power = {"variance": -0.5, "error": -1.0, "ivar": 0.5}
    snr = {kind: float(np.median(log_data + power[kind] * log_plane)) for kind in KINDS}
    low, high = np.log10(_PLAUSIBLE_SNR)
    found = snr[cube.uncertainty_kind]
    if low <= found <= high:
        return []
    others = [f"{kind} would give 1e{snr[kind]:+.1f}" for kind in KINDS if low <= snr[kind] <= high]
    return [
        f"{cube.uncertainty_kind} is implausible: the median signal to noise per pixel would be 1e{found:+.1f}"
        + (f" ({', '.join(others)})" if others else "")
        + ". Check what the plane holds and name it as variance, error or ivar."
    ]
