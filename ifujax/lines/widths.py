"""Velocity percentiles of emission lines: pure functions of one spectrum's fit.

The velocity below which a share p of a line's flux lies solves ``C(v; theta) = p`` with the cumulative profile C,
known in closed form (of a Voigt profile, by quadrature). Its derivative by the parameters is that of one Newton step,
``-(dC/dtheta) / (dC/dv)``, taken at the solution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ifujax.inference.uncertainty import Derived
from ifujax.models.doppler import C_KMS, doppler_factor, velocity_of
from ifujax.models.emission import EmissionSpectrum, SpectralCoords
from ifujax.models.hermite import hermite_cumulative, hermite_mean
from ifujax.models.voigt import lorentzian_cumulative, voigt_cumulative

NAMES = ("width", "lower", "upper", "median", "centroid")
"""What is measured of a profile, km/s."""
ONE_SIGMA = 0.15865525393145707
"""Share of a Gaussian's flux more than one sigma below its centre."""
_HALVINGS = 60
NEIGHBOURS = 2
"""Pixels on either side that say how flux is spread within a pixel."""


@dataclass(frozen=True)
class VelocityQuantities:
    """Velocity percentiles of some lines together, with respect to one reference wavelength.

    Attributes
    ----------
    lines : tuple of int
        Indices of the lines.
    reference : float
        The wavelength that has velocity 0, rest Angstrom.
    percent : float
        Share of the flux between the lower and the upper velocity.
    reach : float
        How far the window of the measurement on the data goes from the median, in distances to the percentiles
        that lie at one sigma of a Gaussian.
    kernel : tuple of float
        By which the data are smoothed before; empty for none.
    """

    lines: tuple[int, ...]
    reference: float
    percent: float
    reach: float
    kernel: tuple[float, ...] = ()

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the flux below the lower, the median and the upper velocity."""
        tail = 0.5 - 0.005 * self.percent
        return tail, 0.5, 1.0 - tail

    def from_model(self, model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords) -> dict[str, Array]:
        """Return ``model.*``, ``intrinsic.*`` (without the LSF, if there is one), ``direct.*``, and the window.

        The `direct` ones are those of the model within the window; their derivatives are those of what is read off
        the data less the other lines and the continuum.
        """
        seen = _Profiles.of(self, model, params, model)
        lower, median, upper, below, above = seen.percentiles((*self.shares, ONE_SIGMA, 1.0 - ONE_SIGMA))
        result = {f"model.{name}": value for name, value in _named(lower, median, upper, seen.mean()).items()}
        if model.spread is not None:
            own = _Profiles.of(self, model, params, replace(model, spread=None))
            lower, middle, upper = own.percentiles(self.shares)
            result |= {f"intrinsic.{name}": value for name, value in _named(lower, middle, upper, own.mean()).items()}
        low, high = self._window(*lax.stop_gradient((below, median, above)))
        ends = seen.cumulative(jnp.stack([low, high]))
        result |= {"window.low": low, "window.high": high, "window.flux": seen.unit * seen.total * (ends[1] - ends[0])}
        held = lax.stop_gradient(params)
        now, then = (sum(model.line(each, coords, i) for i in self.lines) for each in (params, held))
        at, response = self._responses(model, held, coords, low, high)
        for name in NAMES:
            result[f"direct.{name}"] = at[name] + jnp.sum(response[name] * (now - then))
        return result

    def from_residuals(self, model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords) -> dict[str, Array]:
        """Return the first-order response of the `direct` quantities to residuals."""
        seen = _Profiles.of(self, model, params, model)
        low, high = self._window(*seen.percentiles((ONE_SIGMA, 0.5, 1.0 - ONE_SIGMA)))
        response = self._responses(model, params, coords, low, high)[1]
        return {f"direct.{name}": response[name] for name in NAMES}

    def _window(self, below: Array, median: Array, above: Array) -> tuple[Array, Array]:
        """Ends of the window in which the data are measured, km/s."""
        return median - self.reach * (median - below), median + self.reach * (above - median)

    def _responses(
        self, model: EmissionSpectrum, params: Any, coords: SpectralCoords, low: Array, high: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Quantities of the model within the window, and their derivatives by the flux density in each pixel.

        A velocity below which a share p of the flux F lies moves by ``-(dF(<v) - p dF) / (dF/dv)``.
        """
        profiles = _Profiles.of(self, model, params, model)
        outside, end = profiles.cumulative(jnp.stack([low, high]))
        levels = jnp.stack([outside + share * (end - outside) for share in self.shares])
        at = profiles.percentiles(levels)
        density = profiles.unit * profiles.total * profiles.slope(at)
        line = model.rest_wavelengths[self.lines[0]] * doppler_factor(coords.pixel_velocity[self.lines[0]])
        starts, stops = (velocity_of(line + side * coords.width, self.reference) for side in (-0.5, 0.5))

        def below(velocity: Array) -> Array:
            """Share of each pixel that lies below a velocity."""
            return jnp.clip((velocity - starts) / jnp.where(stops > starts, stops - starts, 1.0), 0.0, 1.0)

        def flux_below(velocity: Array) -> Any:
            """Derivative of the flux below a velocity by that in each pixel."""
            shares = jnp.stack(pixel_shares(below(velocity)))
            padded = jnp.pad(shares, [(0, 0), (NEIGHBOURS, NEIGHBOURS)])
            last = 2 * NEIGHBOURS
            # Each pixel counts in its own part and in those of its neighbours.
            return sum(padded[last - k, k : k + shares.shape[1]] for k in range(last + 1))

        start, stop = flux_below(low), flux_below(high)
        lower, median, upper = (
            -coords.width * (flux_below(at[k]) - start - share * (stop - start)) / density[k]
            for k, share in enumerate(self.shares)
        )
        inside = below(high) - below(low)
        middle = 0.5 * (jnp.clip(starts, low, high) + jnp.clip(stops, low, high))
        flux = sum(model.line(params, coords, i) for i in self.lines) * coords.width * inside
        total = jnp.sum(flux)
        mean = jnp.sum(flux * middle) / total
        response = _named(lower, median, upper, coords.width * inside * (middle - mean) / total)
        if self.kernel:
            kernel = jnp.asarray(self.kernel, mean.dtype)
            response = {name: jnp.convolve(value, kernel, mode="same") for name, value in response.items()}
        return _named(at[0], at[1], at[2], mean), response


def _interpolation() -> tuple[tuple[float, ...], ...]:
    """Coefficients, highest power first, of what each of five pixels adds to the flux in a part of the middle one.

    The cumulative flux is Lagrange's polynomial through the six edges.
    """
    edges = np.arange(-NEIGHBOURS, NEIGHBOURS + 2)
    rows = []
    for pixel in range(-NEIGHBOURS, NEIGHBOURS + 1):
        total = np.zeros(len(edges))
        for k in edges:
            counted = float(0 <= pixel < k) - float(k <= pixel < 0)  # cumulative flux at edge k, 0 at edge 0
            others = edges[edges != k]
            total += counted * np.poly(others) / np.prod(k - others)
        rows.append(tuple(total.tolist()))
    return tuple(rows)


_INTERPOLATION = _interpolation()


def pixel_shares(part: Any) -> list[Any]:
    """Return what five pixels, the third one being the pixel itself, add to the flux in the first `part` of a pixel.

    By the polynomial that has the mean flux densities of all five. For a part of 1 it is the pixel's own flux alone.
    """
    shares = []
    for row in _INTERPOLATION:
        value = row[0] * part
        for coefficient in row[1:-1]:
            value = (value + coefficient) * part
        shares.append(value)  # the constant is 0
    return shares


def _named(lower: Array, median: Array, upper: Array, centroid: Array) -> dict[str, Array]:
    return dict(zip(NAMES, (upper - lower, lower, upper, median, centroid)))


@dataclass(frozen=True)
class _Profiles:
    """Profiles of several lines as functions of velocity relative to one wavelength, and their fluxes in some `unit`.

    `shapes` (centre, sigma, FWHM of the Lorentzian part, h3, h4), None for what a shape does not have; `origins`
    the velocity at which each line's own rest wavelength lies.
    """

    shapes: tuple[tuple[Any, ...], ...]
    fluxes: tuple[Array, ...]
    origins: tuple[Array, ...]
    unit: Array

    @classmethod
    def of(cls, quantities: VelocityQuantities, model: EmissionSpectrum, params: Any, seen_by: EmissionSpectrum) -> _Profiles:
        """Return the lines of `quantities` in a `model`, as wide as `seen_by` says."""
        shapes = []
        for i in quantities.lines:
            name = model.names[i]
            skew, kurtosis = (params[f"{name}.{k}"] if model.shapes[i] == "gauss_hermite" else None for k in ("h3", "h4"))
            shapes.append((params[f"{name}.velocity"], *seen_by.widths(params, i), skew, kurtosis))
        fluxes = tuple(model.flux(params, i) for i in quantities.lines)
        # In units of the sum, as a number: squares of raw fluxes leave float32's range.
        unit = lax.stop_gradient(jnp.abs(sum(fluxes[1:], start=fluxes[0])))
        fluxes = tuple(flux / jnp.where(unit > 0, unit, 1.0) for flux in fluxes)
        origins = tuple(velocity_of(model.rest_wavelengths[i], quantities.reference) for i in quantities.lines)
        return cls(tuple(shapes), fluxes, origins, unit)

    @property
    def total(self) -> Array:
        """Flux of all lines, in `unit`."""
        return sum(self.fluxes[1:], start=self.fluxes[0])

    def _held(self) -> _Profiles:
        return _Profiles(
            lax.stop_gradient(self.shapes), lax.stop_gradient(self.fluxes), lax.stop_gradient(self.origins), self.unit
        )

    def cumulative(self, velocity: Array) -> Array:
        """Return the share of the flux below velocities (k,)."""
        share = jnp.zeros_like(velocity)
        for (centre, sigma, lorentz, skew, kurtosis), flux, origin in zip(self.shapes, self.fluxes, self.origins):
            # Relativistic sum: as seen from the line's own rest wavelength.
            own = (velocity - origin) / (1.0 - velocity * (origin / C_KMS**2))
            if sigma is None:
                below = lorentzian_cumulative(own, centre, lorentz)
            elif lorentz is not None:
                below = voigt_cumulative(own, centre, sigma, lorentz)
            elif skew is not None:
                below = hermite_cumulative(own, centre, sigma, skew, kurtosis)
            else:
                below = 0.5 * lax.erf((own - centre) / (2.0**0.5 * sigma))
            share = share + flux * (0.5 + below)
        return share / self.total

    def slope(self, velocity: Array) -> Array:
        """Return the normalised profile at velocities (k,), 1 / (km/s)."""
        return jax.jvp(self.cumulative, (velocity,), (jnp.ones_like(velocity),))[1]

    def _ends(self, tail: Array) -> tuple[Array, Array]:
        """Velocities between which all but much less than a share `tail` of every line lies, on either side."""
        lows, highs = [], []
        for (centre, sigma, lorentz, _, _), origin in zip(self.shapes, self.origins):
            reach = (0.0 if sigma is None else 10.0 * sigma) + (0.0 if lorentz is None else lorentz / tail)
            for side, ends in ((-reach, lows), (reach, highs)):
                ends.append((centre + side + origin) / (1.0 + (centre + side) * origin / C_KMS**2))
        return jnp.min(jnp.stack(lows)), jnp.max(jnp.stack(highs))

    def percentiles(self, shares: Any) -> Array:
        """Return the velocities (k,) below which `shares` of the flux lie.

        Where the cumulative profile is not monotonic (lines of both signs, negative lobes) it is one that has the share below it.
        """
        held = self._held()
        shares = lax.stop_gradient(jnp.asarray(shares, self.total.dtype))
        low, high = (jnp.full_like(shares, 1.0) * end for end in held._ends(jnp.min(jnp.minimum(shares, 1.0 - shares))))

        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            less = held.cumulative(middle) < shares
            return jnp.where(less, middle, ends[0]), jnp.where(less, ends[1], middle)

        low, high = lax.fori_loop(0, _HALVINGS, halve, (low, high))
        found = 0.5 * (low + high)
        return found - (self.cumulative(found) - shares) / held.slope(found)

    def mean(self) -> Array:
        """Return the flux-weighted mean velocity; the centre stands for that of a Lorentzian or Voigt profile."""
        total = jnp.zeros_like(self.total)
        for (centre, sigma, _, skew, kurtosis), flux, origin in zip(self.shapes, self.fluxes, self.origins):
            own = centre if skew is None else hermite_mean(centre, sigma, skew, kurtosis)
            total = total + flux * (own + origin) / (1.0 + own * origin / C_KMS**2)
        return total / self.total


@lru_cache(maxsize=64)
def velocity_quantities(
    lines: tuple[int, ...], reference: float, percent: float, reach: float, kernel: tuple[float, ...] = ()
) -> Derived:
    """Return what the engine is to derive; the same object for the same options, so that nothing compiles twice."""
    quantities = VelocityQuantities(lines, reference, percent, reach, kernel)
    return Derived(quantities.from_model, quantities.from_residuals)
