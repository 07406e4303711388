"""A simulated cube whose spaxels hold one or two kinematic components, and how well each of them can be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifujax.errors import UsageError
from ifujax.simulate.profiles import gaussian_line, lsf_sigma_velocity, peak_flux_density
from ifujax.simulate.simulated_cube import MUSE_UNIT, SimulatedCube, disc_geometry, packed, wavelengths_about
from ifujax.simulate.simulated_spectra import (
    HALPHA_LINES,
    Quantity,
    SimulatedLine,
    SimulatedSpectra,
    Uniform,
    draw,
    polynomial_coordinate,
    spectra,
)

FloatArray = NDArray[np.float64]

OFFSET = Uniform(0.0, 300.0)
"""km/s by which an outflow is off, unless it is said otherwise."""
DISPERSION_RATIO = Uniform(1.5, 3.0)
FLUX_RATIO = Uniform(0.1, 1.0)
_ROWS_AT_ONCE = 256
_STEP = 0.05
"""km/s: half the step of central differences, some ten thousandth of the narrowest line."""


def outflow(
    shape: tuple[int, int] = (20, 24),
    lines: Sequence[SimulatedLine] = HALPHA_LINES,
    *,
    wavelength: ArrayLike | None = None,
    redshift: float = 0.01,
    peak_snr: float = 50.0,
    rotation: float = 180.0,
    inclination: float = 50.0,
    position_angle: float = 30.0,
    dispersion: tuple[float, float] = (50.0, 90.0),
    scale_radius: float | None = None,
    opening_angle: float = 90.0,
    offset: Quantity = OFFSET,
    dispersion_ratio: Quantity = DISPERSION_RATIO,
    flux_ratio: Quantity = FLUX_RATIO,
    continuum: tuple[float, ...] = (5.0, 0.5),
    noise: float = 1.0,
    lsf_fwhm: float = 2.5,
    unit: str = MUSE_UNIT,
    seed: int = 0,
) -> SimulatedCube:
    """Simulate a rotating disc with a bipolar outflow along its minor axis, seen as a second, broader component of each line.

    Parameters
    ----------
    shape : (int, int)
        Spaxels in y and x.
    lines : sequence of SimulatedLine
        Lines of the disc. Those of the outflow have the same wavelengths, line ratios of their own and ``_broad`` after
        their names.
    opening_angle : float
        Full angle of each of the two cones, degrees: 0 for no outflow at all, 180 for one everywhere.
    offset : Quantity
        Velocity of the outflow relative to the disc in the same spaxel, km/s: receding in one cone, approaching in the other.
    dispersion_ratio, flux_ratio : Quantity
        The outflow's intrinsic dispersion and total flux over those of the disc in the same spaxel.

    The other parameters are those of `ifujax.simulate.cube`.

    Returns
    -------
    SimulatedCube
        `truth` also holds ``"components"``, 1 or 2; and for each line ``"<line>.flux_error"``, the error that its flux has in
        a fit of the components that are there, at best (`flux_errors`): NaN for lines that are not there, as all
        their other entries.

    Examples
    --------
    >>> from ifujax import simulate
    >>> galaxy = simulate.outflow((6, 8), seed=2)
    >>> sorted(set(galaxy.truth["components"].ravel().tolist()))
    [1.0, 2.0]
    """
    if min(shape) < 1:
        raise UsageError(f"shape must hold at least one spaxel; got {shape}. Give (y, x).")
    if not 0.0 <= opening_angle <= 180.0:
        raise UsageError(f"opening_angle must lie within 0 and 180 degrees; got {opening_angle:g}. Give each cone's full angle.")
    rng = np.random.default_rng((seed, 2))
    n = shape[0] * shape[1]
    zoom = 1.0 + redshift
    wavelength = wavelengths_about(lines, zoom) if wavelength is None else np.asarray(wavelength, dtype=np.float64)
    scale_radius = min(shape) / 3.0 if scale_radius is None else scale_radius
    radius, towards_receding = disc_geometry(shape, inclination, position_angle)
    fading = np.exp(-radius / scale_radius).ravel()
    turning = (2.0 / np.pi) * np.arctan(2.0 * radius / scale_radius)
    disc_velocity = (rotation * np.sin(np.radians(inclination)) * turning * towards_receding).ravel()
    disc_width = dispersion[0] + (dispersion[1] - dispersion[0]) * fading
    angle, side = _minor_axis(shape, position_angle)
    there = ((angle <= 0.5 * opening_angle) & (opening_angle > 0)).ravel()

    rest = np.array([line.wavelength for line in lines])
    fluxes = np.stack([draw(line.flux, n, rng, f"flux of {line.name}") for line in lines])
    observed = np.hypot(disc_width, lsf_sigma_velocity(lsf_fwhm / zoom, disc_velocity, float(rest.mean())))
    peaks = np.stack([peak_flux_density(flux, observed, wave) for flux, wave in zip(fluxes, rest)])
    fluxes *= peak_snr * fading * zoom * noise / peaks.max(axis=0)
    ratios = np.stack([draw(line.flux, n, rng, f"flux of {line.name}") for line in lines])
    broad = ratios / ratios.sum(axis=0) * there * draw(flux_ratio, n, rng, "flux_ratio") * fluxes.sum(axis=0)

    simulated = spectra(
        n,
        [replace(line, flux=flux, group="disc") for line, flux in zip(lines, fluxes)]
        + [replace(line, name=f"{line.name}_broad", flux=flux, group="outflow") for line, flux in zip(lines, broad)],
        wavelength=wavelength / zoom,
        velocity={"disc": disc_velocity, "outflow": disc_velocity + side.ravel() * draw(offset, n, rng, "offset")},
        velocity_dispersion={
            "disc": disc_width,
            "outflow": disc_width * draw(dispersion_ratio, n, rng, "dispersion_ratio"),
        },
        continuum=[zoom * noise * value * np.sqrt(fading) for value in continuum],
        noise=zoom * noise,
        lsf_fwhm=lsf_fwhm / zoom,
        seed=seed,
    )
    for name, error in flux_errors(simulated).items():
        simulated.truth[f"{name}.flux_error"] = error
    for line in lines:
        for name in [key for key in simulated.truth if key.startswith(f"{line.name}_broad.")]:
            simulated.truth[name] = np.where(there, simulated.truth[name], np.nan)
    simulated.truth["components"] = np.where(there, 2.0, 1.0)
    return packed(simulated, shape, wavelength, redshift=redshift, lsf_fwhm=lsf_fwhm, unit=unit, seed=seed)


def flux_errors(sample: SimulatedSpectra) -> dict[str, FloatArray]:
    """Return the smallest error that an unbiased estimate of each line's flux can have (Cramer-Rao), ``{line: (n,)}``.

    From the Fisher matrix of all parameters at their true values: fluxes, velocity and dispersion of each group, continuum.
    Groups without flux are taken to be known not to be there; their lines get NaN.
    """
    lines, n = sample.lines, len(sample)
    groups = list(dict.fromkeys(line.group for line in lines))
    result = {line.name: np.full(n, np.nan) for line in lines}
    powers = polynomial_coordinate(sample.wavelength)[None, :] ** np.arange(sample.truth["continuum"].shape[1])[:, None]
    flux = np.stack([sample.truth[f"{line.name}.flux"] for line in lines], axis=1)
    there = np.stack([flux[:, [line.group == group for line in lines]].any(axis=1) for group in groups], axis=1)
    for combination in np.unique(there, axis=0):
        present = [group for group, here in zip(groups, combination) if here]
        some = [line for line in lines if line.group in present]
        rows = np.flatnonzero((there == combination).all(axis=1))
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE]
            slopes = _slopes(sample, some, present, part)
            fixed = np.broadcast_to(powers, (len(part), *powers.shape))
            whitened = np.concatenate([slopes, fixed], axis=1) / np.sqrt(sample.variance[part])[:, None]
            size = np.sqrt((whitened**2).sum(axis=2))
            unit = whitened / size[:, :, None]
            covariance = np.linalg.inv(unit @ np.swapaxes(unit, 1, 2))
            for i, line in enumerate(some):
                result[line.name][part] = np.sqrt(covariance[:, i, i]) / size[:, i]
    return result


def _slopes(sample: SimulatedSpectra, lines: list[SimulatedLine], groups: list[str], rows: np.ndarray) -> FloatArray:
    """Return derivatives (n, parameters, w) of spectra by each flux, then by each group's velocity and dispersion."""
    slopes = np.zeros((len(rows), len(lines) + 2 * len(groups), sample.wavelength.size))

    def profile(line: SimulatedLine, flux: ArrayLike, v: FloatArray, s: FloatArray) -> FloatArray:
        sigma = np.hypot(s, lsf_sigma_velocity(sample.lsf_fwhm, v, line.wavelength))
        return gaussian_line(sample.wavelength, line.wavelength, flux, v, sigma, sample.profile)

    for i, line in enumerate(lines):
        flux, v, s = (sample.truth[f"{line.name}.{name}"][rows] for name in ("flux", "velocity", "velocity_dispersion"))
        slopes[:, i] = profile(line, 1.0, v, s)
        j = len(lines) + 2 * groups.index(line.group)
        slopes[:, j] += (profile(line, flux, v + _STEP, s) - profile(line, flux, v - _STEP, s)) / (2 * _STEP)
        slopes[:, j + 1] += (profile(line, flux, v, s + _STEP) - profile(line, flux, v, s - _STEP)) / (2 * _STEP)
    return slopes


def _minor_axis(shape: tuple[int, int], position_angle: float) -> tuple[FloatArray, FloatArray]:
    """Return the angle of each spaxel from the minor axis (degrees, 0 to 90), and on which side of the major axis it lies."""
    y, x = np.indices(shape, dtype=np.float64)
    y, x = y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2
    turn = np.radians(position_angle)
    major, minor = -x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) + y * np.sin(turn)
    return np.degrees(np.arctan2(np.abs(major), np.abs(minor))), np.where(minor < 0, -1.0, 1.0)
