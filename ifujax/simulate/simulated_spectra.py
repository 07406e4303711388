"""Simulated spectra: emission lines on a polynomial continuum with Gaussian noise and known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifujax.errors import UsageError, unknown
from ifujax.simulate.profiles import Profile, gaussian_line, lsf_sigma_velocity, peak_flux_density, pixel_edges, wavelength_of

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Uniform:
    """A quantity drawn uniformly between `low` and `high`, once per spectrum."""

    low: float
    high: float


@dataclass(frozen=True)
class LogUniform:
    """A quantity whose logarithm is drawn uniformly between those of `low` and `high`."""

    low: float
    high: float


Quantity = float | ArrayLike | Uniform | LogUniform
"""A number, one value per spectrum, or a distribution to draw from."""


@dataclass(frozen=True)
class SimulatedLine:
    """One emission line of a simulation.

    Parameters
    ----------
    name : str
        Name in the truth dictionary.
    wavelength : float
        Rest wavelength, Angstrom.
    flux : float, array_like, Uniform or LogUniform
        Integrated flux; relative to the other lines of the spectrum when `snr` is given to `spectra`.
    group : str
        Lines of one group share velocity and dispersion.
    """

    name: str
    wavelength: float
    flux: Quantity = 1.0
    group: str = "gas"


HALPHA_LINES = (
    SimulatedLine("n2a", 6548.04, Uniform(0.1, 0.4)),
    SimulatedLine("ha", 6562.80, 1.0),
    SimulatedLine("n2b", 6583.46, Uniform(0.3, 1.2)),
)
"""H-alpha and the [N II] doublet (air wavelengths, free ratios)."""


@dataclass(frozen=True)
class SimulatedSpectra:
    """Simulated spectra and what was put into them.

    Attributes
    ----------
    wavelength : (w,) ndarray
        Pixel centres, rest frame, Angstrom.
    values, variance : (n, w) ndarray
        Flux densities with noise, and the variance of that noise.
    model, continuum : (n, w) ndarray
        The noise-free spectra, and their continuum alone.
    truth : dict of str to ndarray
        ``"<line>.flux"``, ``"<line>.velocity"``, ``"<line>.velocity_dispersion"`` (intrinsic), ``"<line>.sigma"`` (observed),
        ``"<line>.amplitude"`` (peak, `peak_flux_density`), ``"<line>.equivalent_width"`` (Angstrom, emission negative; NaN where
        the continuum isn't positive), each (n,); ``"continuum"`` (n, degree + 1), ``"snr"`` (n,), the peak amplitude of the
        brightest line over the noise at its centre.
    lines : tuple of SimulatedLine
    lsf_fwhm : float
        Instrumental FWHM, Angstrom (0: none).
    profile : str
        ``"integrated"`` or ``"sampled"``.
    """

    wavelength: FloatArray
    values: FloatArray
    variance: FloatArray
    model: FloatArray
    continuum: FloatArray
    truth: dict[str, FloatArray]
    lines: tuple[SimulatedLine, ...]
    lsf_fwhm: float
    profile: Profile

    def __len__(self) -> int:
        """Return the number of spectra."""
        return self.values.shape[0]

    @property
    def edges(self) -> FloatArray:
        """Pixel edges, (w + 1,), Angstrom."""
        return pixel_edges(self.wavelength)


def draw(quantity: Quantity, n: int, rng: np.random.Generator, name: str = "quantity") -> FloatArray:
    """Return `n` values of a quantity: a number repeated, an array checked, or a distribution drawn from."""
    if isinstance(quantity, Uniform):
        return rng.uniform(quantity.low, quantity.high, n)
    if isinstance(quantity, LogUniform):
        return np.exp(rng.uniform(np.log(quantity.low), np.log(quantity.high), n))
    values = np.asarray(quantity, dtype=np.float64)
    if values.shape not in ((), (n,)):
        raise UsageError(
            f"{name} must be a number, {n} values or a distribution; got shape {values.shape}. Use Uniform(low, high)."
        )
    return np.broadcast_to(values, (n,)).copy()


def polynomial_coordinate(wavelength: ArrayLike) -> FloatArray:
    """Return the coordinate of the continuum polynomial: -1 at the first pixel, +1 at the last."""
    wavelength = np.asarray(wavelength, dtype=np.float64)
    return 2.0 * (wavelength - wavelength[0]) / (wavelength[-1] - wavelength[0]) - 1.0


def spectra(
    n: int,
    lines: Sequence[SimulatedLine] = HALPHA_LINES,
    *,
    wavelength: ArrayLike | None = None,
    velocity: Quantity | Mapping[str, Quantity] = Uniform(-200.0, 200.0),
    velocity_dispersion: Quantity | Mapping[str, Quantity] = Uniform(60.0, 200.0),
    continuum: Sequence[Quantity] = (1.0,),
    noise: ArrayLike = 1.0,
    snr: Quantity | None = None,
    lsf_fwhm: float = 0.0,
    profile: Profile = "integrated",
    seed: int = 0,
) -> SimulatedSpectra:
    """Simulate emission-line spectra with known truth, in the rest frame.

    Parameters
    ----------
    n : int
        Number of spectra.
    lines : sequence of SimulatedLine
        The lines; those of one `group` share their kinematics.
    wavelength : (w,) array_like, optional
        Pixel centres, Angstrom, ascending. By default 1.25 Angstrom pixels that reach 100 Angstrom beyond the lines.
    velocity, velocity_dispersion : Quantity or mapping of group to Quantity
        km/s; the dispersion is the intrinsic one.
    continuum : sequence of Quantity
        Coefficients of a polynomial, constant first, in `polynomial_coordinate`.
    noise : array_like
        Standard deviation of the noise: a number, (w,), or (n, w).
    snr : Quantity, optional
        Peak signal-to-noise ratio of the brightest line of each spectrum. The fluxes are scaled to reach it (their ratios stay);
        without it they are used as given.
    lsf_fwhm : float
        FWHM of a Gaussian line spread function, Angstrom in the rest frame, added in quadrature.
    profile : {"integrated", "sampled"}
        See `ifujax.simulate.profiles.gaussian_line`.
    seed : int
        Seed of the generator: the same arguments and seed give the same spectra.

    Returns
    -------
    SimulatedSpectra

    Examples
    --------
    >>> from ifujax import simulate
    >>> sample = simulate.spectra(3, snr=simulate.LogUniform(2, 50), seed=1)
    >>> sample.values.shape == (3, sample.wavelength.size)
    True
    """
    if n < 1 or not lines:
        raise UsageError(f"n and lines must name at least one spectrum and one line; got {n} and {len(lines)}. Give more.")
    rng = np.random.default_rng(seed)
    if wavelength is None:
        reach = [line.wavelength for line in lines]
        wavelength = np.arange(min(reach) - 100.0, max(reach) + 100.0, 1.25)
    wavelength = np.asarray(wavelength, dtype=np.float64)
    widths = np.diff(pixel_edges(wavelength))
    sigma_noise = np.broadcast_to(np.asarray(noise, dtype=np.float64), (n, wavelength.size))

    groups = list(dict.fromkeys(line.group for line in lines))
    velocities = _by_group(velocity, groups, n, rng, "velocity")
    dispersions = _by_group(velocity_dispersion, groups, n, rng, "velocity_dispersion")
    coefficients = (
        np.stack([draw(item, n, rng, "continuum") for item in continuum], axis=1) if len(continuum) else np.zeros((n, 1))
    )
    powers = polynomial_coordinate(wavelength)[None, :] ** np.arange(coefficients.shape[1])[:, None]
    level = coefficients @ powers

    truth: dict[str, FloatArray] = {"continuum": coefficients}
    fluxes, sigmas, signals = {}, {}, []
    for line in lines:
        fluxes[line.name] = draw(line.flux, n, rng, f"flux of {line.name}")
        v = velocities[line.group]
        sigmas[line.name] = np.hypot(dispersions[line.group], lsf_sigma_velocity(lsf_fwhm, v, line.wavelength))
        nearest_pixel = np.abs(wavelength[None, :] - wavelength_of(v, line.wavelength)[:, None]).argmin(axis=1)
        here = sigma_noise[np.arange(n), nearest_pixel]
        signals.append(peak_flux_density(fluxes[line.name], sigmas[line.name], line.wavelength) / here)
    brightest = np.max(signals, axis=0)
    scale = np.ones(n) if snr is None else draw(snr, n, rng, "snr") / brightest
    truth["snr"] = scale * brightest

    model = level.copy()
    for line in lines:
        flux, v, s = scale * fluxes[line.name], velocities[line.group], sigmas[line.name]
        profile_values = gaussian_line(wavelength, line.wavelength, flux, v, s, profile)
        model += profile_values
        with np.errstate(divide="ignore", invalid="ignore"):
            equivalent = -np.sum(np.where(level > 0, profile_values / level, np.nan) * widths, axis=1)
        truth |= {
            f"{line.name}.flux": flux,
            f"{line.name}.velocity": v,
            f"{line.name}.velocity_dispersion": dispersions[line.group],
            f"{line.name}.sigma": s,
            f"{line.name}.amplitude": peak_flux_density(flux, s, line.wavelength),
            f"{line.name}.equivalent_width": equivalent,
        }
    values = model + sigma_noise * rng.standard_normal(model.shape)
    return SimulatedSpectra(
        wavelength=wavelength,
        values=values,
        variance=sigma_noise**2,
        model=model,
        continuum=level,
        truth=truth,
        lines=tuple(lines),
        lsf_fwhm=lsf_fwhm,
        profile=profile,
    )


def _by_group(
    quantity: Quantity | Mapping[str, Quantity], groups: Sequence[str], n: int, rng: np.random.Generator, name: str
) -> dict[str, FloatArray]:
    """Draw a kinematic quantity once for each group of lines."""
    if isinstance(quantity, Mapping):
        for group in quantity:
            if group not in groups:
                raise UsageError(unknown(f"group in {name}", group, groups))
        for group in groups:
            if group not in quantity:
                raise UsageError(f"{name} must have a value for every group; got none for {group!r}. Add it.")
        return {group: draw(quantity[group], n, rng, f"{name} of {group}") for group in groups}
    return {group: draw(quantity, n, rng, name) for group in groups}
