"""Emission lines on a polynomial continuum: the model of ONE spectrum."""

from __future__ import annotations

import math
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
from ifujax.models.hermite import flux_over_gaussian, hermite_integrated, hermite_sampled
from ifujax.models.lsf import LineSpread
from ifujax.models.profiles import flux_of_amplitude, gaussian_integrated, gaussian_resolved, gaussian_sampled
from ifujax.models.voigt import (
    lorentzian_flux_of_amplitude,
    lorentzian_integrated,
    lorentzian_sampled,
    voigt_flux_of_amplitude,
    voigt_integrated,
    voigt_sampled,
)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["velocity", "inverse", "squared_width", "basis", "width", "pixel_velocity", "background"],
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
    basis: Any
    width: Any
    pixel_velocity: Any
    background: Any


COORDS_AXES = SpectralCoords(None, None, None, None, None, None, 0)
"""All fits share the wavelength axis; each has its own background."""


FWHM_OF_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
"""FWHM over standard deviation of a Gaussian."""
_OWN_PARAMETERS = {"gauss_hermite": ("h3", "h4"), "voigt": ("lorentz_fwhm",)}
"""Parameters of a shape beside velocity and dispersion."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rest_wavelengths", "redshift", "spread"],
    meta_fields=["names", "strengths", "shapes", "profile", "resolved", "n_continuum", "h4_constant"],
)
@dataclass(frozen=True)
class EmissionSpectrum:
    """Lines plus a Legendre continuum, as a function of named parameters.

    Parameters of line `n`: ``n.flux`` (data unit x Angstrom) or ``n.amplitude``, ``n.velocity`` and
    ``n.velocity_dispersion`` (km/s, intrinsic where there is an LSF); ``n.h3`` and ``n.h4`` of Gauss-Hermite
    lines, whose LSF broadens the Gaussian part; ``n.lorentz_fwhm`` (km/s) of Voigt profiles. A Lorentzian has a
    FWHM of 2.3548 ``velocity_dispersion`` and is convolved with the LSF.

    Attributes
    ----------
    rest_wavelengths : array (lines,)
        Angstrom.
    redshift : scalar
        Of the frame in which velocities are measured; the LSF is looked up at observed wavelengths.
    spread : LineSpread or None
    names, strengths : tuple of str
        Line names, and "flux" or "amplitude" for each.
    shapes : tuple of str
        "gaussian", "gauss_hermite", "lorentzian" or "voigt" for each.
    profile : "integrated" or "sampled"
    resolved : bool
        Whether pixels are narrow enough for `gaussian_resolved`, an integrated profile's cheaper form.
    n_continuum : int
        Coefficients of the continuum: the linear block. 0 for none.
    h4_constant : float
        Constant term of H4: 3, or the -3 of IFSCube 1.3.
    """

    names: tuple[str, ...]
    strengths: tuple[str, ...]
    shapes: tuple[str, ...]
    profile: Literal["integrated", "sampled"]
    resolved: bool
    n_continuum: int
    rest_wavelengths: Any
    redshift: Any
    spread: LineSpread | None
    h4_constant: float = 3.0

    def parameters(self, i: int) -> tuple[str, ...]:
        """Return the names of line `i`'s parameters: strength, velocity, dispersion, and those of its shape."""
        return (self.strengths[i], "velocity", "velocity_dispersion", *_OWN_PARAMETERS.get(self.shapes[i], ()))

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """``line.parameter`` of every line, in order."""
        return tuple(f"{name}.{parameter}" for i, name in enumerate(self.names) for parameter in self.parameters(i))

    @property
    def linear_in(self) -> tuple[str, ...]:
        """Names of the parameters that the spectrum is linear in: the strengths."""
        return tuple(f"{name}.{strength}" for name, strength in zip(self.names, self.strengths))

    @property
    def linear_names(self) -> tuple[str, ...]:
        """Names of the continuum coefficients."""
        return tuple(f"continuum.{k}" for k in range(self.n_continuum))

    def coords(self, rest_edges: np.ndarray, window: tuple[float, float], n_pix: int) -> SpectralCoords:
        """Work out the coordinates of a wavelength axis (NumPy, float64), padded to `n_pix`.

        Parameters
        ----------
        rest_edges : array (m + 1,)
            Pixel edges, rest Angstrom, ascending.
        window : (low, high)
            What the continuum basis maps to [-1, 1].
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
        basis = legendre_basis(centres, *window, self.n_continuum - 1) if self.n_continuum else np.zeros((0, n_pix))
        basis[:, m:] = 0.0  # padding lies outside [-1, 1], where polynomials explode
        width = np.where(np.arange(n_pix) < m, width, 0.0)
        return SpectralCoords(velocity, inverse, squared_width, basis, width, at_centres, np.zeros((0, n_pix)))

    def _get(self, params: Mapping[str, Array], i: int, parameter: str) -> Array:
        return params[f"{self.names[i]}.{parameter}"]

    def widths(self, params: Mapping[str, Array], i: int) -> tuple[Any, Any]:
        """Return the Gaussian dispersion, LSF included, and the FWHM of the Lorentzian part (km/s), or None."""
        own = self._get(params, i, "velocity_dispersion")
        instrumental = None
        if self.spread is not None:
            shift = doppler_factor(self._get(params, i, "velocity"))
            instrumental = self.spread.velocity_sigma(self.rest_wavelengths[i] * (1.0 + self.redshift) * shift)
        if self.shapes[i] == "lorentzian":
            return instrumental, FWHM_OF_SIGMA * own
        lorentz = self._get(params, i, "lorentz_fwhm") if self.shapes[i] == "voigt" else None
        return own if instrumental is None else jnp.sqrt(own * own + instrumental * instrumental), lorentz

    def observed_sigma(self, params: Mapping[str, Array], i: int) -> Array:
        """Return the observed velocity dispersion of line `i` (km/s): intrinsic and LSF in quadrature.

        Where there is a Lorentzian part: FWHM / 2.3548 of the Voigt profile, to 0.02 % (Olivero & Longbothum 1977).
        """
        sigma, lorentz = self.widths(params, i)
        if lorentz is None:
            return sigma
        if sigma is None:
            return lorentz / FWHM_OF_SIGMA
        gauss = FWHM_OF_SIGMA * sigma
        return (0.5346 * lorentz + jnp.sqrt(0.2166 * lorentz * lorentz + gauss * gauss)) / FWHM_OF_SIGMA

    def flux_over_amplitude(self, params: Mapping[str, Array], i: int) -> Array:
        """Return flux over amplitude of line `i`, Angstrom; it needs the parameters of its shape only."""
        rest = self.rest_wavelengths[i]
        sigma, lorentz = self.widths(params, i)
        if sigma is None:
            return lorentzian_flux_of_amplitude(lorentz, rest)
        if lorentz is not None:
            return voigt_flux_of_amplitude(sigma, lorentz, rest)
        ratio = flux_of_amplitude(sigma, rest)
        if self.shapes[i] == "gauss_hermite":
            ratio = ratio * flux_over_gaussian(self._get(params, i, "h4"), h4_constant=self.h4_constant)
        return ratio

    def flux(self, params: Mapping[str, Array], i: int) -> Array:
        """Return the integrated flux of line `i`."""
        strength = self._get(params, i, self.strengths[i])
        return strength if self.strengths[i] == "flux" else strength * self.flux_over_amplitude(params, i)

    def amplitude(self, params: Mapping[str, Array], i: int) -> Array:
        """Return the peak amplitude of line `i`: for a Gaussian flux c / (sqrt(2 pi) sigma lambda0).

        Of a Gauss-Hermite line it is the peak of the Gaussian part.
        """
        strength = self._get(params, i, self.strengths[i])
        return strength if self.strengths[i] == "amplitude" else strength / self.flux_over_amplitude(params, i)

    def line(self, params: Mapping[str, Array], coords: SpectralCoords, i: int) -> Array:
        """Return the flux density of line `i`, (n_pix,)."""
        if self.profile == "integrated":
            return self._integrated(params, coords, i) * self.flux(params, i)
        return self._sampled(params, coords, i) * self.amplitude(params, i)

    def _integrated(self, params: Mapping[str, Array], coords: SpectralCoords, i: int) -> Array:
        """Mean flux density in each pixel per unit flux."""
        centre = self._get(params, i, "velocity")
        sigma, lorentz = self.widths(params, i)
        if self.resolved:
            return gaussian_resolved(coords.velocity[i], coords.squared_width[i], coords.inverse[i], centre, sigma)
        axis = coords.velocity[i], coords.inverse
        if sigma is None:
            return lorentzian_integrated(*axis, centre, lorentz)
        if lorentz is not None:
            return voigt_integrated(*axis, centre, sigma, lorentz)
        if self.shapes[i] == "gauss_hermite":
            return hermite_integrated(*axis, centre, sigma, self._get(params, i, "h3"), self._get(params, i, "h4"))
        return gaussian_integrated(*axis, centre, sigma)

    def _sampled(self, params: Mapping[str, Array], coords: SpectralCoords, i: int) -> Array:
        """Flux density at pixel centres per unit amplitude."""
        centre = self._get(params, i, "velocity")
        sigma, lorentz = self.widths(params, i)
        axis = coords.velocity[i], coords.inverse[i]
        if sigma is None:
            return lorentzian_sampled(*axis, centre, lorentz)
        if lorentz is not None:
            scale = voigt_flux_of_amplitude(sigma, lorentz, C_KMS)  # amplitude per unit flux in velocity
            return voigt_sampled(*axis, centre, sigma, lorentz) * scale
        if self.shapes[i] == "gauss_hermite":
            h3, h4 = self._get(params, i, "h3"), self._get(params, i, "h4")
            return hermite_sampled(*axis, centre, sigma, h3, h4, h4_constant=self.h4_constant)
        return gaussian_sampled(*axis, centre, sigma)

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
