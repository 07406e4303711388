"""Simulation-based calibration: data sets whose truth is drawn from the prior, and ranks of that truth among draws.

Talts et al. (2018, arXiv:1804.06788): where the posterior is right, the rank of the truth among independent draws is uniform.
Nothing here uses `ifujax.models` or `ifujax.inference` but to declare the model: priors are drawn and spectra are made
with NumPy alone.

Coefficients of the continuum are ranked too, although their truth is not drawn from their prior, which is next to flat. A flat
prior of a location is the right Haar measure: the posterior moves along with the data, ``p(c - c0 | y + B c0)`` doesn't depend
on the true c0, and so ranks are uniform whatever c0 is. For the same reason the other parameters only know the part of the
data that is orthogonal to the continuum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.stats import chisquare, kstest

import ifujax
from ifujax.data.cube import Cube
from ifujax.simulate.profiles import SPEED_OF_LIGHT, gaussian_line, lsf_sigma_velocity, pixel_edges, velocity_of
from ifujax.simulate.simulated_spectra import polynomial_coordinate

N2A, HA, N2B = 6548.04, 6562.80, 6583.46
N2_RATIO = 3.06
LSF_FWHM = 2.5
WAVELENGTH = 6470.0 + 1.25 * np.arange(160)
"""One axis for all data sets: programs are compiled once."""
RANKED_DRAWS = 99
BINS = 20

Truth = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A model with proper priors.

    `model(tau)` declares it with fluxes ~ HalfNormal(tau); `prior(rng, n, tau)` draws its parameters, ``{name: (n,)}``;
    `lines` (line, name of the flux, ratio of its flux to that, line whose kinematics it has); `ranked` what is tested;
    `taus` the scales of the fluxes: noise is 1 a pixel, so that the smallest means next to no line at all.
    """

    name: str
    model: Callable[[float], ifujax.EmissionModel]
    prior: Callable[[np.random.Generator, int, float], Truth]
    lines: tuple[tuple[str, float, str, float, str], ...]
    ranked: tuple[str, ...]
    taus: tuple[float, ...]


def _flux(tau: float) -> ifujax.Bounded:
    return ifujax.Bounded(0.0, prior=ifujax.HalfNormal(tau))


def _model(*lines: ifujax.Line) -> ifujax.EmissionModel:
    return ifujax.EmissionModel(lines, continuum_degree=1, lsf=ifujax.LSF.constant(LSF_FWHM))


def _tied(name: str) -> ifujax.Tied:
    return ifujax.Tied(f"{name}.flux / {N2_RATIO}")


def _one_model(tau: float) -> ifujax.EmissionModel:
    gas = ifujax.Kinematics(ifujax.Bounded(-400.0, 400.0, 0.0), ifujax.Bounded(10.0, 300.0, 150.0))
    return _model(
        ifujax.Line("n2a", N2A, gas, flux=_tied("n2b")),
        ifujax.Line("ha", HA, gas, flux=_flux(tau)),
        ifujax.Line("n2b", N2B, gas, flux=_flux(tau)),
    )


def _one_prior(rng: np.random.Generator, n: int, tau: float) -> Truth:
    return {
        "ha.velocity": rng.uniform(-400.0, 400.0, n),
        "ha.velocity_dispersion": rng.uniform(10.0, 300.0, n),
        "ha.flux": np.abs(rng.normal(0.0, tau, n)),
        "n2b.flux": np.abs(rng.normal(0.0, tau, n)),
    }


def _two_model(tau: float) -> ifujax.EmissionModel:
    narrow = ifujax.Kinematics(ifujax.Bounded(-200.0, 200.0, 0.0), ifujax.Bounded(20.0, 150.0, 80.0))
    broad = ifujax.Kinematics(
        ifujax.Bounded(-300.0, 300.0, 0.0), ifujax.Bounded(20.0, 400.0, 200.0, above="ha.velocity_dispersion")
    )
    return _model(
        ifujax.Line("ha", HA, narrow, flux=_flux(tau)),
        ifujax.Line("n2b", N2B, narrow, flux=_flux(tau)),
        ifujax.Line("n2a", N2A, narrow, flux=_tied("n2b")),
        ifujax.Line("ha_broad", HA, broad, flux=_flux(tau)),
        ifujax.Line("n2b_broad", N2B, broad, flux=_flux(tau)),
        ifujax.Line("n2a_broad", N2A, broad, flux=_tied("n2b_broad")),
    )


def _two_prior(rng: np.random.Generator, n: int, tau: float) -> Truth:
    dispersion = rng.uniform(20.0, 150.0, n)
    truth = {
        "ha.velocity": rng.uniform(-200.0, 200.0, n),
        "ha.velocity_dispersion": dispersion,
        "ha_broad.velocity": rng.uniform(-300.0, 300.0, n),
        # The bound moves: uniform between the narrow component's dispersion and 400
        "ha_broad.velocity_dispersion": dispersion + rng.uniform(0.0, 1.0, n) * (400.0 - dispersion),
    }
    return truth | {f"{line}.flux": np.abs(rng.normal(0.0, tau, n)) for line in ("ha", "n2b", "ha_broad", "n2b_broad")}


def _hermite_model(tau: float) -> ifujax.EmissionModel:
    gas = ifujax.Kinematics(
        ifujax.Bounded(-300.0, 300.0, 0.0),
        ifujax.Bounded(40.0, 250.0, 120.0),
        ifujax.Bounded(-0.3, 0.3, 0.0),
        ifujax.Bounded(-0.3, 0.3, 0.0),
    )
    return _model(ifujax.Line("ha", HA, gas, flux=_flux(tau), shape="gauss_hermite"))


def _hermite_prior(rng: np.random.Generator, n: int, tau: float) -> Truth:
    return {
        "ha.velocity": rng.uniform(-300.0, 300.0, n),
        "ha.velocity_dispersion": rng.uniform(40.0, 250.0, n),
        "ha.h3": rng.uniform(-0.3, 0.3, n),
        "ha.h4": rng.uniform(-0.3, 0.3, n),
        "ha.flux": np.abs(rng.normal(0.0, tau, n)),
    }


# Amplitudes join flux and dispersion: their ranks know whether the draws of these two belong together.
ONE = Case(
    "one component",
    _one_model,
    _one_prior,
    (("n2a", N2A, "n2b", 1 / N2_RATIO, "ha"), ("ha", HA, "ha", 1.0, "ha"), ("n2b", N2B, "n2b", 1.0, "ha")),
    ("ha.velocity", "ha.velocity_dispersion", "ha.flux", "n2b.flux", "ha.amplitude", "continuum.0", "continuum.1"),
    (1.0, 8.0, 100.0),
)
TWO = Case(
    "two components",
    _two_model,
    _two_prior,
    (
        ("ha", HA, "ha", 1.0, "ha"),
        ("n2b", N2B, "n2b", 1.0, "ha"),
        ("n2a", N2A, "n2b", 1 / N2_RATIO, "ha"),
        ("ha_broad", HA, "ha_broad", 1.0, "ha_broad"),
        ("n2b_broad", N2B, "n2b_broad", 1.0, "ha_broad"),
        ("n2a_broad", N2A, "n2b_broad", 1 / N2_RATIO, "ha_broad"),
    ),
    (
        *(f"{line}.{name}" for line in ("ha", "ha_broad") for name in ("velocity", "velocity_dispersion", "flux", "amplitude")),
        "n2b.flux",
        "n2b_broad.flux",
        "continuum.0",
        "continuum.1",
    ),
    (10.0, 150.0),
)
HERMITE = Case(
    "Gauss-Hermite",
    _hermite_model,
    _hermite_prior,
    (("ha", HA, "ha", 1.0, "ha"),),
    ("ha.velocity", "ha.velocity_dispersion", "ha.h3", "ha.h4", "ha.flux", "ha.amplitude", "continuum.0", "continuum.1"),
    (10.0, 150.0),
)


def cube_mix(
    case: Case, n: int, rng: np.random.Generator, *, empty: float = 0.15, snr: tuple[float, float] = (2.0, 50.0)
) -> Truth:
    """Return parameters as cubes have them: a share of spaxels without lines, H-alpha of log-uniform S/N in the others.

    Kinematics as of the prior. S/N is that of a flux whose width and continuum are known; [N II] has 0.3 to 1.2 times the flux
    of H-alpha, broad lines 0.3 to 2 times that of the narrow ones.
    """
    truth = case.prior(rng, n, 1.0)
    sigma = HA / SPEED_OF_LIGHT * np.hypot(truth["ha.velocity_dispersion"], lsf_sigma_velocity(LSF_FWHM, 0.0, HA))
    noise = np.sqrt(2.0 * np.sqrt(np.pi) * sigma * (WAVELENGTH[1] - WAVELENGTH[0]))
    truth["ha.flux"] = noise * np.exp(rng.uniform(np.log(snr[0]), np.log(snr[1]), n)) * (rng.random(n) >= empty)
    for name, of, low, high in (("n2b", "ha", 0.3, 1.2), ("ha_broad", "ha", 0.3, 2.0), ("n2b_broad", "ha_broad", 0.3, 1.2)):
        if f"{name}.flux" in truth:
            truth[f"{name}.flux"] = truth[f"{of}.flux"] * rng.uniform(low, high, n)
    return truth


def simulated(case: Case, truth: Truth, seed: int) -> tuple[Cube, Truth]:
    """Return spectra of parameters (one row of spaxels, redshift 0, noise 1) and the truth with what follows from it."""
    rng = np.random.default_rng((seed, 7))
    n = len(truth["ha.flux"])
    level = np.stack([rng.uniform(5.0, 20.0, n), rng.uniform(-2.0, 2.0, n)], axis=1)
    coordinate = polynomial_coordinate(WAVELENGTH)
    values = level[:, :1] + level[:, 1:] * coordinate
    truth = truth | {"continuum.0": level[:, 0], "continuum.1": level[:, 1]}
    for line, rest, flux_of, ratio, leader in case.lines:
        velocity = truth[f"{leader}.velocity"]
        sigma = np.hypot(truth[f"{leader}.velocity_dispersion"], lsf_sigma_velocity(LSF_FWHM, velocity, rest))
        flux = ratio * truth[f"{flux_of}.flux"]
        per_flux = SPEED_OF_LIGHT / (np.sqrt(2.0 * np.pi) * sigma * rest)
        if f"{leader}.h4" in truth:
            h3, h4 = truth[f"{leader}.h3"], truth[f"{leader}.h4"]
            values += hermite_line(WAVELENGTH, rest, flux, velocity, sigma, h3, h4)
            per_flux = per_flux / (1.0 + 3.0 * h4 / np.sqrt(24.0))
        else:
            values += gaussian_line(WAVELENGTH, rest, flux, velocity, sigma)
        truth[f"{line}.amplitude"] = flux * per_flux
    values += rng.standard_normal(values.shape)
    planes = np.ascontiguousarray(values.T[:, None, :])
    return Cube(planes, WAVELENGTH, uncertainty=np.ones_like(planes), uncertainty_kind="variance"), truth


def hermite_line(
    wavelength: np.ndarray, rest: float, flux: np.ndarray, velocity: np.ndarray, sigma: np.ndarray, h3: np.ndarray, h4: np.ndarray
) -> np.ndarray:
    """Return mean flux densities (n, w) of Gauss-Hermite lines: van der Marel & Franx (1993), by quadrature in each pixel."""
    edges = pixel_edges(wavelength)
    limits = velocity_of(edges, rest)
    nodes, weights = leggauss(16)
    half = 0.5 * np.diff(limits)
    v = 0.5 * (limits[1:] + limits[:-1])[:, None] + half[:, None] * nodes
    w = (v - velocity[:, None, None]) / sigma[:, None, None]
    third = (2.0 * np.sqrt(2.0) * w**3 - 3.0 * np.sqrt(2.0) * w) / np.sqrt(6.0)
    fourth = (4.0 * w**4 - 12.0 * w**2 + 3.0) / np.sqrt(24.0)
    profile = np.exp(-0.5 * w * w) * (1.0 + h3[:, None, None] * third + h4[:, None, None] * fourth)
    inside = half * (profile @ weights)
    total = np.sqrt(2.0 * np.pi) * sigma * (1.0 + 3.0 * h4 / np.sqrt(24.0))
    return (flux / total)[:, None] * inside / np.diff(edges)


def thinned(draws: np.ndarray, n: int = RANKED_DRAWS) -> np.ndarray:
    """Return `n` draws of each row, evenly spaced through all chains; `draws` (rows, ...)."""
    flat = draws.reshape(len(draws), -1)
    return flat[:, np.linspace(0, flat.shape[1] - 1, n).round().astype(int)]


def ranks(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return how many of the thinned draws of each row lie below the truth, 0 to `RANKED_DRAWS`; ties are halved at random."""
    few = thinned(draws)
    coin = np.random.default_rng(99).random(len(truth))
    equal = (few == truth[:, None]).sum(axis=1)
    return (few < truth[:, None]).sum(axis=1) + np.floor(coin * (equal + 1)).astype(int)


def shares_below(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the share of all draws (rows, ...) of each row that lies below its truth."""
    return (draws.reshape(len(draws), -1) < truth[:, None]).mean(axis=1)


def p_values(rank: np.ndarray) -> dict[str, float]:
    """Return the p-values of uniform ranks: chi2 of `BINS` equal bins, and Kolmogorov-Smirnov."""
    counts = np.bincount(rank // ((RANKED_DRAWS + 1) // BINS), minlength=BINS)
    # Ranks are whole numbers; a uniform number within each makes them continuous.
    spread = (rank + np.random.default_rng(98).random(len(rank))) / (RANKED_DRAWS + 1)
    return {"chi2": float(chisquare(counts).pvalue), "ks": float(kstest(spread, "uniform").pvalue)}


def report(title: str, by_name: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Print a table and return every p-value, ``{"name chi2": p, "name ks": p}``."""
    found = {}
    print(f"\n{title}")
    for name, rank in by_name.items():
        p = p_values(rank)
        found |= {f"{title}: {name} {test}": value for test, value in p.items()}
        spread = rank / RANKED_DRAWS
        inside = np.mean(np.abs(spread - 0.5) < 0.34)
        print(
            f"    {name:<28} chi2 p {p['chi2']:.4f}  KS p {p['ks']:.4f}  mean rank {spread.mean():.3f}  "
            f"within the central 68 %: {100 * inside:.1f} %"
        )
    return found


def draws_of(post: ifujax.CubePosterior, name: str) -> np.ndarray:
    """Return the draws (spaxel, chain, draw) of ``line.quantity`` or ``continuum.k``, in the order of the spaxels."""
    line, quantity = name.split(".")
    variable, element = ("continuum", quantity) if line == "continuum" else (quantity, line)
    return post.sampled.draws[variable][..., post.layout.variables[variable].index(element)]


@dataclass(frozen=True)
class Calibration:
    """Ranks {parameter: (n,)} of one case and scale of the fluxes, and the fit and posterior that they are of.

    `shares` are those of all draws below the truth.
    """

    case: Case
    tau: float
    truth: Truth
    fit: ifujax.CubeFit
    post: ifujax.CubePosterior
    ranks: dict[str, np.ndarray]
    shares: dict[str, np.ndarray]

    @property
    def title(self) -> str:
        return f"{self.case.name}, fluxes ~ HalfNormal({self.tau:g})"


def calibrate(case: Case, tau: float, n: int, seed: int, **options: object) -> Calibration:
    """Draw `n` truths from the prior, fit and sample their spectra, and rank the truths."""
    cube, truth = simulated(case, case.prior(np.random.default_rng(seed), n, tau), seed)
    fit = ifujax.fit_cube(cube, case.model(tau))
    post = ifujax.sample(fit, seed=seed, **options)  # type: ignore[arg-type]
    fitted = (fit.status == 0).ravel()
    assert fitted.mean() >= 0.99, fit.summary()
    found, shares = {}, {}
    for name in case.ranked:
        draws = draws_of(post, name)
        # Data sets left out would bias the ranks of the others.
        assert np.isfinite(draws).all(), f"{name}: no draws for {np.sum(~np.isfinite(draws).all(axis=(1, 2)))} of {n}"
        found[name] = ranks(draws, truth[name][fitted])
        shares[name] = shares_below(draws, truth[name][fitted])
    return Calibration(case, tau, truth, fit, post, found, shares)
