"""Named problems: the simulations that benchmarks and statistical tests share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ifujax.simulate.profiles import Profile
from ifujax.simulate.simulated_spectra import HALPHA_LINES, LogUniform, SimulatedLine, SimulatedSpectra, Uniform, spectra

BENCHMARK_SNR = LogUniform(2.0, 50.0)
"""Peak S/N of the brightest line in the benchmarks."""


def three_line_problem(
    n: int = 8192,
    n_pix: int = 300,
    seed: int = 1,
    *,
    snr: LogUniform | Uniform | float = BENCHMARK_SNR,
    profile: Profile = "integrated",
    lsf_fwhm: float = 0.0,
) -> SimulatedSpectra:
    """Return the benchmark: [N II] and H-alpha with one velocity and one width on a linear continuum.

    Seven free parameters (three fluxes, velocity, dispersion, two continuum coefficients), noise 1 per pixel, peak S/N of the
    brightest line log-uniform between 2 and 50, `n_pix` pixels between 6450 and 6680 Angstrom, velocities within 250 km/s,
    dispersions of 50 to 200 km/s. From one common start a Levenberg-Marquardt fit needs 10.7 iterations and ends in a wrong
    minimum in 5 to 6 % of the spectra.
    """
    return spectra(
        n,
        HALPHA_LINES,
        wavelength=np.linspace(6450.0, 6680.0, n_pix),
        velocity=Uniform(-250.0, 250.0),
        velocity_dispersion=Uniform(50.0, 200.0),
        continuum=(Uniform(2.0, 20.0), Uniform(-2.0, 2.0)),
        noise=1.0,
        snr=snr,
        lsf_fwhm=lsf_fwhm,
        profile=profile,
        seed=seed,
    )


def two_component_problem(
    n: int = 2000,
    n_pix: int = 300,
    seed: int = 2,
    *,
    snr: LogUniform | Uniform | float = BENCHMARK_SNR,
    profile: Profile = "integrated",
    lsf_fwhm: float = 0.0,
) -> SimulatedSpectra:
    """Return [N II] and H-alpha, each with a narrow and a broad component, on a linear continuum.

    Twelve free parameters. The broad lines (``ha_broad``, ``n2a_broad``, ``n2b_broad``) have their own velocity and dispersion;
    `snr` is the peak S/N of the brightest single component.
    """
    narrow = tuple(replace(line, group="narrow") for line in HALPHA_LINES)
    # A broad component as bright as 0.3 to 2 times the narrow one, with line ratios of its own
    broad = (
        SimulatedLine("n2a_broad", 6548.04, Uniform(0.1, 0.6), "broad"),
        SimulatedLine("ha_broad", 6562.80, Uniform(0.3, 2.0), "broad"),
        SimulatedLine("n2b_broad", 6583.46, Uniform(0.3, 1.8), "broad"),
    )
    return spectra(
        n,
        narrow + broad,
        wavelength=np.linspace(6440.0, 6690.0, n_pix),
        velocity={"narrow": Uniform(-200.0, 200.0), "broad": Uniform(-300.0, 300.0)},
        velocity_dispersion={"narrow": Uniform(40.0, 120.0), "broad": Uniform(200.0, 400.0)},
        continuum=(Uniform(2.0, 20.0), Uniform(-2.0, 2.0)),
        noise=1.0,
        snr=snr,
        lsf_fwhm=lsf_fwhm,
        profile=profile,
        seed=seed,
    )
