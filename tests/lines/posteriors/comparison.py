"""Quantiles of our posteriors beside those of a long numpyro run of its own model: simulated spectra and real MUSE spaxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

import ifujax
from ifujax.errors import DataError
from ifujax.io.demo import minicube_path
from ifujax.simulate.profiles import pixel_edges
from tests.lines.posteriors import reference_numpyro
from tests.lines.posteriors.calibration import HA, LSF_FWHM, N2_RATIO, N2A, N2B, ONE, WAVELENGTH, draws_of, simulated
from tests.lines.posteriors.reference_numpyro import Group, Layout, Problem, Reference, quantile_error, quantile_ess

QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)
LAYOUT = Layout(
    (Group("ha"),), ("ha", "n2b"), ((N2A, "ha", "n2b", 1.0 / N2_RATIO), (HA, "ha", "ha", 1.0), (N2B, "ha", "n2b", 1.0))
)
COMPARED = ("ha.velocity", "ha.velocity_dispersion", "ha.flux", "n2b.flux", "continuum.0", "continuum.1")
REAL_WINDOW, REAL_REDSHIFT, REAL_LSF = (6480.0, 6650.0), 0.0859, 2.55
REAL_VELOCITY, REAL_DISPERSION = (-600.0, 600.0), (20.0, 400.0)
WEAK = 1000.0
"""HalfNormal of the fluxes where none is declared, in units of the noise of a flux; a posterior can't tell 900 from 1000."""


@dataclass(frozen=True)
class Spaxel:
    """What both sides get of one spaxel, and what ours made of it: `draws` {parameter: (chain, draw)}."""

    name: str
    problem: Problem
    draws: dict[str, np.ndarray]
    tier: int
    ess: float
    status: int


@dataclass(frozen=True)
class Difference:
    """A quantile of a parameter: ours less the reference, over their Monte Carlo error, and over the posterior's width."""

    parameter: str
    quantile: float
    sigmas: float
    widths: float


def simulated_spaxels(per_tau: int, seed: int = 31) -> Iterator[Spaxel]:
    """Spaxels of the one-component model, truths from its priors: next to no line, faint lines, bright lines."""
    for k, tau in enumerate(ONE.taus):
        cube, _ = simulated(ONE, ONE.prior(np.random.default_rng((seed, k)), per_tau, tau), seed + k)
        fit = ifujax.fit_cube(cube, ONE.model(tau))
        post = ifujax.sample(fit, seed=seed)
        for i in range(per_tau):
            problem = Problem(
                edges=pixel_edges(WAVELENGTH),
                values=cube.values[:, 0, i],
                sigma=np.ones(len(WAVELENGTH)),
                good=fit.spectra(np.array([i])).fitted[0],
                tau={"ha": tau, "n2b": tau},
                velocity={"ha": (-400.0, 400.0)},
                dispersion={"ha": (10.0, 300.0)},
                lsf_fwhm=LSF_FWHM,
                start=_start(fit, i),
            )
            yield _spaxel(f"simulated, tau {tau:g}, S/N {fit['ha', 'snr'].flat[i]:.1f}", problem, post, i)


def real_spaxels(n: int) -> Iterator[Spaxel]:
    """Spaxels of the MUSE cube of Abell 478, from the faintest H-alpha to the brightest; no prior is declared."""
    try:
        cube = ifujax.read_cube(minicube_path(), redshift=REAL_REDSHIFT)
    except DataError as error:
        pytest.skip(f"no MUSE cube here: {error}")
    fit = ifujax.fit_cube(cube, real_model(), window=REAL_WINDOW)
    order = np.argsort(fit["ha", "snr"].ravel())
    # Quadratic: more of the faint ones, where posteriors are far from normal.
    chosen = order[np.round(np.linspace(0.02, 0.99, n) ** 2 * len(order)).astype(int)]
    where = np.zeros(len(order), bool)
    where[chosen] = True
    post = ifujax.sample(fit, seed=5, where=where.reshape(fit.shape))
    for i, row in enumerate(np.flatnonzero(where).tolist()):
        data = fit.spectra(np.array([row]))
        sigma = np.sqrt(data.variance[0])  # type: ignore[index]
        good = data.fitted[0]
        width = np.median(np.diff(data.rest_wavelength))
        typical = np.median(sigma[good]) * np.sqrt(2.0 * np.sqrt(np.pi) * 3.0 * width)  # of a line of 3 Angstrom
        problem = Problem(
            edges=np.asarray(fit.cube.rest_edges),
            values=data.data[0],
            sigma=np.where(good, sigma, 1.0),
            good=good,
            tau={"ha": WEAK * typical, "n2b": WEAK * typical},
            velocity={"ha": REAL_VELOCITY},
            dispersion={"ha": REAL_DISPERSION},
            lsf_fwhm=REAL_LSF,
            start=_start(fit, row),
            redshift=REAL_REDSHIFT,
            continuum_scale=1e4 * float(np.median(sigma[good])),
        )
        y, x = divmod(row, fit.shape[1])
        yield _spaxel(f"MUSE x={x} y={y}, S/N {fit['ha', 'snr'].flat[row]:.1f}", problem, post, i)


def real_model() -> ifujax.EmissionModel:
    """H-alpha and [N II] with one velocity and dispersion; fluxes without an upper bound."""
    gas = ifujax.Kinematics(ifujax.Bounded(*REAL_VELOCITY, start=0.0), ifujax.Bounded(*REAL_DISPERSION, start=120.0))
    return ifujax.EmissionModel(
        (
            ifujax.Line("n2a", N2A, gas, flux=ifujax.Tied(f"n2b.flux / {N2_RATIO}")),
            ifujax.Line("ha", HA, gas),
            ifujax.Line("n2b", N2B, gas),
        ),
        continuum_degree=1,
        lsf=ifujax.LSF.constant(REAL_LSF),
    )


def _start(fit: ifujax.CubeFit, row: int) -> dict[str, float]:
    names = (("ha", "velocity"), ("ha", "velocity_dispersion"), ("ha", "flux"), ("n2b", "flux"))
    return {f"{line}.{name}": float(fit[line, name].flat[row]) for line, name in names}


def _spaxel(name: str, problem: Problem, post: ifujax.CubePosterior, i: int) -> Spaxel:
    draws = {parameter: draws_of(post, parameter)[i].astype(np.float64) for parameter in COMPARED}
    of = post.sampled.diagnostics
    return Spaxel(name, problem, draws, int(of["tier"][i]), float(of["ess"][i]), int(of["status"][i]))


def effective_draws(spaxel: Spaxel, parameter: str, q: float) -> float:
    """Return of how many independent draws our quantile is worth.

    Draws of chains: by the autocorrelation of lying below the quantile. Draws of importance sampling are independent but for
    repeats of the same point: ``n^2 / sum of (times each point occurs)^2``, Kish's size of what was handed out.
    """
    draws = spaxel.draws[parameter]
    if spaxel.tier == 2:
        return quantile_ess(draws, q)
    times = np.unique(spaxel.draws["ha.velocity"], return_counts=True)[1]
    return draws.size**2 / float(np.sum(times.astype(float) ** 2))


def compare(spaxel: Spaxel, reference: Reference) -> list[Difference]:
    """Return the differences of all quantiles of all parameters."""
    found = []
    for parameter in COMPARED:
        ours, theirs = spaxel.draws[parameter], reference.draws[parameter]
        for q in QUANTILES:
            error = np.hypot(
                quantile_error(theirs, q, quantile_ess(theirs, q)),
                quantile_error(theirs, q, effective_draws(spaxel, parameter, q)),
            )
            off = float(np.quantile(ours, q) - np.quantile(theirs, q))
            found.append(Difference(parameter, q, off / error, off / float(theirs.std())))
    return found


def run_reference(spaxel: Spaxel, draws: int, seed: int = 0) -> Reference:
    """Run numpyro until its chains agree, four times as long if need be."""
    reference = reference_numpyro.sample(LAYOUT, spaxel.problem, draws=draws, seed=seed)
    if reference.rhat > 1.005 or reference.ess < 2000:
        longer = replace(spaxel.problem, start=dict(spaxel.problem.start))
        reference = reference_numpyro.sample(LAYOUT, longer, draws=4 * draws, seed=seed + 1)
    return reference


def describe(spaxel: Spaxel, reference: Reference, differences: list[Difference]) -> str:
    """Return one line about a spaxel."""
    sigmas = np.abs([item.sigmas for item in differences])
    widths = np.abs([item.widths for item in differences])
    tier = {0: "none", 1: "importance", 2: "NUTS"}[spaxel.tier]
    worst = differences[int(sigmas.argmax())]
    return (
        f"{spaxel.name:<34} {tier:<11} ESS {spaxel.ess:6.0f} | reference R-hat {reference.rhat:.4f} ESS {reference.ess:6.0f} "
        f"div. {reference.divergences:3d} | within 2: {np.mean(sigmas <= 2.0):5.1%}, worst {sigmas.max():.1f} "
        f"({worst.parameter} {worst.quantile:g}), {widths.max():.2f} sd"
    )
