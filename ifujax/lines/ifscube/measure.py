"""Fluxes and equivalent widths as IFSCube integrates them, from the fitted parameters and the spectra."""

from __future__ import annotations

import numpy as np

from ifujax.lines.ifscube.continuum import width_continuum
from ifujax.lines.ifscube.profiles import LineParameters, line_profiles
from ifujax.lines.ifscube.windows import flux_ranges, trapezoid, width_ranges

MEASURED = ("flux", "flux_direct", "equivalent_width", "equivalent_width_direct")
"""What IFSCube writes as FLUX_M, FLUX_D, EQW_M and EQW_D."""
_ROWS_AT_ONCE = 256


def measure(
    axis: np.ndarray,
    inside: slice,
    window: tuple[float, float],
    data: np.ndarray,
    continuum: np.ndarray,
    stellar: np.ndarray | None,
    lines: LineParameters,
) -> dict[str, np.ndarray]:
    """Return IFSCube's fluxes and equivalent widths (section 5.4).

    Parameters
    ----------
    axis : array (wave,)
        **All** wavelengths of the file, rest Angstrom: windows of broad lines reach past the fitting window.
    inside : slice
        The m pixels of the fitting window among them.
    window : (low, high)
        The fitting window itself.
    data : array (n, m)
        Data times ``1 + z``, as read: flagged pixels keep their values, NaN stays NaN.
    continuum : array (n, m)
        From `pseudo_continuum`.
    stellar : array (n, m), optional
        As read. Kept fault: not multiplied by ``1 + z``.
    lines : LineParameters
        NaN for spectra that were not fitted.

    Returns
    -------
    dict
        ``flux``, ``flux_direct``, ``equivalent_width`` and ``equivalent_width_direct``, each (lines, n). Data unit times
        Angstrom, and rest Angstrom; emission has negative widths. All but `flux` are NaN where the line's window holds
        NaN data (`equivalent_width` excepted) or reaches past the fitting window, where IFSCube has no continuum. Kept
        fault: the direct width has the other lines in it.
    """
    parts = []
    for first in range(0, len(data), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        starlight = 0.0 if stellar is None else stellar[rows]
        spectra = _Spectra(axis, inside, window, data[rows], continuum[rows], starlight)
        parts.append(spectra.measure(lines.rest_wavelength, lines.table[rows]))
    return {name: np.concatenate([part[k] for part in parts], axis=1) for k, name in enumerate(MEASURED)}


class _Spectra:
    """Some spectra: the data, what the lines stand on, and what the widths are divided by."""

    def __init__(
        self,
        axis: np.ndarray,
        inside: slice,
        window: tuple[float, float],
        data: np.ndarray,
        continuum: np.ndarray,
        stellar: np.ndarray | float,
    ) -> None:
        self.axis, self.inside, self.data = axis, inside, data
        self.left = data - continuum - stellar
        self.level = width_continuum(axis[inside], window, continuum + stellar)

    def _part(self, spectra: np.ndarray, first: int, past: int) -> np.ndarray:
        """Return pixels `first` to `past` of the whole axis, NaN outside the fitting window."""
        result = np.full((len(spectra), past - first), np.nan)
        low, high = max(first, self.inside.start), min(past, self.inside.stop)
        if low < high:
            result[:, low - first : high - first] = spectra[:, low - self.inside.start : high - self.inside.start]
        return result

    def measure(self, rest_lines: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Return the four quantities, (4, lines, n)."""
        lost = np.asarray(np.isnan(table.reshape(len(table), -1)).any(axis=1))
        table = np.where(lost[:, None, None], 1.0, table)
        result = np.full((4, len(rest_lines), len(table)), np.nan)
        for i, rest in enumerate(rest_lines):
            velocity, sigma = table[:, i, 1], table[:, i, 2]
            of_flux = flux_ranges(self.axis, rest, velocity, sigma)
            of_width = width_ranges(self.axis, rest, velocity, sigma)
            # Only the pixels that some spectrum needs: whole ranges hold thousands.
            first, past = int(min(of_flux[0].min(), of_width[0].min())), int(max(of_flux[1].max(), of_width[1].max()))
            wave = self.axis[first:past]
            each = line_profiles(wave, rest_lines, table)
            mine = each[:, i]
            left, level, data = (self._part(spectra, first, past) for spectra in (self.left, self.level, self.data))
            flux_ends, width_ends = ([end - first for end in ends] for ends in (of_flux, of_width))
            result[0, i] = trapezoid(wave, mine, *flux_ends)
            result[1, i] = trapezoid(wave, left - (each.sum(axis=1) - mine), *flux_ends)
            result[2, i] = trapezoid(wave, -mine / level, *width_ends)
            result[3, i] = trapezoid(wave, 1.0 - data / level, *width_ends)
        result[:, :, lost] = np.nan
        return result
