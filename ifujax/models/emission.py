"""Emission lines on a polynomial continuum: the model of ONE spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ifujax.models.continuum import legendre_basis
from ifujax.models.doppler import C_KMS, doppler_factor, velocity_of
from ifujax.models.lsf import LineSpread
from ifujax.models.profiles import flux_of_amplitude, gaussian_integrated, gaussian_resolved, gaussian_sampled


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["velocity", "inverse", "squared_width", "window", "basis", "width", "pixel_velocity", "background"],
    meta_fields=[],
)
@dataclass(frozen=True)
class SpectralCoords:
    """What the model needs of the wavelength axis, worked out once in float64.

    Attributes
    ----------
    velocity : array (lines, n_pix) or (lines, n_pix + 1)
        Velocity of pixel centres (sampled), middles (resolved) or edges (else) relative to each line, km/s.
    inverse : array (lines, n_pix) or (n_pix,)
        ``1 / (1 + v / c)`` of each centre (sampled), velocity over wavelength width (resolved), or 1 / pixel width.
    squared_width : array (lines, n_pix) or (lines, 0)
        Squared velocity widths of the pixels (resolved only).
    window : array (lines, n_pix) or (lines, 0)
        1 where a line may contribute, 0 beyond its window; empty for no limit.
    basis : array (K, n_pix)
        Continuum basis.
    width : array (n_pix,)
        Pixel widths, Angstrom; 0 for padding.
    pixel_velocity : array (lines, n_pix)
        Velocity of pixel centres, for measuring windows.
    background : array (n_pix,) or (0,)
        What was taken off the data before the fit: stellar model and frozen continuum; empty for nothing.
    """

    velocity: Any
    inverse: Any
    squared_width: Any
    window: Any
    basis: Any
    width: Any
    pixel_velocity: Any
    background: Any


COORDS_AXES = SpectralCoords(None, None, None, None, None, None, None, 0)
"""All fits share the wavelength axis; each has its own background."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rest_wavelengths", "redshift", "spread"],
    meta_fields=["names", "strengths", "profile", "resolved", "n_continuum", "windowed"],
)
@dataclass(frozen=True)
class EmissionSpectrum:
    """Gaussian lines plus a Legendre continuum, as a function of named parameters.

    Parameters of line `n`: ``n.flux`` (data unit x Angstrom) or ``n.amplitude``, ``n.velocity`` and
    ``n.velocity_dispersion`` (km/s, intrinsic where there is an LSF).

    Attributes
    ----------
    rest_wavelengths : array (lines,)
        Angstrom.
    redshift : scalar
        Of the frame in which velocities are measured; the LSF is looked up at observed wavelengths.
    spread : LineSpread or None
    names, strengths : tuple of str
        Line names, and "flux" or "amplitude" for each.
    profile : "integrated" or "sampled"
    resolved : bool
        Whether pixels are narrow enough for `gaussian_resolved`, an integrated profile's cheaper form.
    n_continuum : int
        Coefficients of the continuum: the linear block. 0 for none.
    windowed : bool
        Whether lines are cut beyond their windows.
    """

    names: tuple[str, ...]
    strengths: tuple[str, ...]
    profile: Literal["integrated", "sampled"]
    resolved: bool
    n_continuum: int
    windowed: bool
    rest_wavelengths: Any
    redshift: Any
    spread: LineSpread | None

    @property
    def linear_names(self) -> tuple[str, ...]:
        """Names of the continuum coefficients."""
        return tuple(f"continuum.{k}" for k in range(self.n_continuum))

    def coords(
        self, rest_edges: np.ndarray, window: tuple[float, float], line_windows: np.ndarray | None, n_pix: int
    ) -> SpectralCoords:
        """Work out the coordinates of a wavelength axis (NumPy, float64), padded to `n_pix`.

        Parameters
        ----------
        rest_edges : array (m + 1,)
            Pixel edges, rest Angstrom, ascending.
        window : (low, high)
            What the continuum basis maps to [-1, 1].
        line_windows : array (lines, 2), optional
            Rest wavelengths between which each line may contribute.
        n_pix : int
            Padded number of pixels, m or more.
        """
        m = len(rest_edges) - 1
        step = rest_edges[-1] - rest_edges[-2]
        edges = np.concatenate([rest_edges, rest_edges[-1] + step * np.arange(1, n_pix - m + 1)])
        centres = 0.5 * (edges[1:] + edges[:-1])
        rest = np.asarray(self.rest_wavelengths, dtype=np.float64)[:, None]
        at_centres = velocity_of(centres, rest)
        width = np.diff(edges)
        squared_width = np.zeros((len(rest), 0))
        if self.profile == "integrated":
            velocity, inverse = velocity_of(edges, rest), 1.0 / width
            if self.resolved:
                step = np.diff(velocity, axis=1)
                velocity, inverse, squared_width = 0.5 * (velocity[:, 1:] + velocity[:, :-1]), step / width, step**2
        else:
            velocity, inverse = at_centres, 1.0 / (1.0 + at_centres / C_KMS)
        inside = np.zeros((len(rest), 0))
        if line_windows is not None:
            inside = ((centres >= line_windows[:, :1]) & (centres <= line_windows[:, 1:])).astype(np.float64)
        basis = legendre_basis(centres, *window, self.n_continuum - 1) if self.n_continuum else np.zeros((0, n_pix))
        basis[:, m:] = 0.0  # padding lies outside [-1, 1], where polynomials explode
        width = np.where(np.arange(n_pix) < m, width, 0.0)
        return SpectralCoords(velocity, inverse, squared_width, inside, basis, width, at_centres, np.zeros((0, n_pix)))

    def observed_sigma(self, params: Mapping[str, Array], i: int) -> Array:
        """Return the observed velocity dispersion of line `i` (km/s): intrinsic and LSF in quadrature."""
        intrinsic = params[f"{self.names[i]}.velocity_dispersion"]
        if self.spread is None:
            return intrinsic
        shift = doppler_factor(params[f"{self.names[i]}.velocity"])
        seen_at = self.rest_wavelengths[i] * (1.0 + self.redshift) * shift
        instrumental = self.spread.velocity_sigma(seen_at)
        return jnp.sqrt(intrinsic * intrinsic + instrumental * instrumental)

    def flux(self, params: Mapping[str, Array], i: int) -> Array:
        """Return the integrated flux of line `i`."""
        strength = params[f"{self.names[i]}.{self.strengths[i]}"]
        if self.strengths[i] == "flux":
            return strength
        return strength * flux_of_amplitude(self.observed_sigma(params, i), self.rest_wavelengths[i])

    def amplitude(self, params: Mapping[str, Array], i: int) -> Array:
        """Return the peak amplitude of line `i`: flux c / (sqrt(2 pi) sigma lambda0)."""
        strength = params[f"{self.names[i]}.{self.strengths[i]}"]
        if self.strengths[i] == "amplitude":
            return strength
        return strength / flux_of_amplitude(self.observed_sigma(params, i), self.rest_wavelengths[i])

    def line(self, params: Mapping[str, Array], coords: SpectralCoords, i: int) -> Array:
        """Return the flux density of line `i`, (n_pix,)."""
        centre, sigma = params[f"{self.names[i]}.velocity"], self.observed_sigma(params, i)
        if self.profile == "integrated" and self.resolved:
            density = gaussian_resolved(coords.velocity[i], coords.squared_width[i], coords.inverse[i], centre, sigma)
            shape = density * self.flux(params, i)
        elif self.profile == "integrated":
            shape = gaussian_integrated(coords.velocity[i], coords.inverse, centre, sigma) * self.flux(params, i)
        else:
            shape = gaussian_sampled(coords.velocity[i], coords.inverse[i], centre, sigma) * self.amplitude(params, i)
        return shape * coords.window[i] if self.windowed else shape

    def lines(self, params: Mapping[str, Array], coords: SpectralCoords) -> Array:
        """Return the sum of all lines, (n_pix,)."""
        total = self.line(params, coords, 0)
        for i in range(1, len(self.names)):
            total = total + self.line(params, coords, i)
        return total

    def __call__(self, params: Mapping[str, Array], coords: SpectralCoords) -> Array:
        """Return the lines alone: for data whose continuum has been taken off."""
        return self.lines(params, coords)

    def design(self, params: Mapping[str, Array], coords: SpectralCoords) -> tuple[tuple[Array, ...], Array]:
        """Return the continuum basis as columns, and the lines as the offset."""
        return tuple(coords.basis[k] for k in range(self.n_continuum)), self.lines(params, coords)

    def continuum(self, linear: Array, coords: SpectralCoords) -> Array:
        """Return the continuum under the lines, (n_pix,): fitted polynomial plus background."""
        total = coords.background if coords.background.shape[-1] else jnp.zeros_like(coords.width)
        for k in range(linear.shape[0]):
            total = total + linear[k] * coords.basis[k]
        return total
