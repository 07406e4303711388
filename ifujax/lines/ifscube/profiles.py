"""IFSCube's line profiles: sampled at pixel centres, its fourth Gauss-Hermite polynomial wrong by a sign."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifujax.models.doppler import C_KMS, velocity_of


@dataclass(frozen=True)
class LineParameters:
    """IFSCube's parameters of each line, (lines, n): amplitude, velocity and observed sigma (km/s)[, h3 and h4].

    `rest_wavelength` is (lines,), Angstrom. `h3` and `h4` are None for Gaussians: IFSCube has one shape for all lines.
    """

    rest_wavelength: np.ndarray
    amplitude: np.ndarray
    velocity: np.ndarray
    sigma: np.ndarray
    h3: np.ndarray | None = None
    h4: np.ndarray | None = None

    @property
    def table(self) -> np.ndarray:
        """All of them as (n, lines, 3 or 5), amplitude first."""
        columns = [self.amplitude, self.velocity, self.sigma]
        if self.h3 is not None and self.h4 is not None:
            columns += [self.h3, self.h4]
        return np.moveaxis(np.stack(columns), 0, -1).swapaxes(0, 1)


def line_profiles(wavelength: np.ndarray, rest_wavelength: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the flux density of each line, (n, lines, wave).

    Parameters
    ----------
    wavelength : array (wave,)
        Rest frame, Angstrom.
    rest_wavelength : array (lines,)
    table : array (n, lines, 3 or 5)
        Amplitude, velocity, sigma[, h3, h4].

    Notes
    -----
    ``A exp(-w^2 / 2) [1 + h3 H3 + h4 H4] / (1 + v/c)`` with ``w = (v - V) / sigma`` and v the relativistic velocity
    of the pixel (section 4). Kept fault: ``H4 = (4 w^4 - 12 w^2 - 3) / sqrt(24)``, where van der Marel & Franx (1993)
    have + 3.
    """
    velocity = velocity_of(wavelength[None, :], np.asarray(rest_wavelength)[:, None])
    amplitude, centre, sigma = (table[..., k, None] for k in range(3))
    w = (velocity[None] - centre) / sigma
    value = amplitude * np.exp(-0.5 * w**2) / (1.0 + velocity / C_KMS)[None]
    if table.shape[-1] == 5:
        third = (2.0 * np.sqrt(2.0) * w**3 - 3.0 * np.sqrt(2.0) * w) / np.sqrt(6.0)
        fourth = (4.0 * w**4 - 12.0 * w**2 - 3.0) / np.sqrt(24.0)
        value = value * (1.0 + table[..., 3, None] * third + table[..., 4, None] * fourth)
    return value
