"""Draws of both samplers against the exact posterior, over many spectra: a bias far below the noise of a single one shows."""

from __future__ import annotations

import numpy as np
import pytest

import ifujax
from tests.lines.posteriors.calibration import HA, LSF_FWHM, N2_RATIO, N2A, N2B, ONE, WAVELENGTH, draws_of, simulated
from tests.lines.posteriors.exact_grid import GridProblem, exact_draws
from tests.lines.posteriors.reference_numpyro import quantile_error, quantile_ess

LINES = ((N2A, 1, 1.0 / N2_RATIO), (HA, 0, 1.0), (N2B, 1, 1.0))
NAMES = {
    "ha.velocity": "velocity",
    "ha.velocity_dispersion": "velocity_dispersion",
    "ha.flux": "flux0",
    "n2b.flux": "flux1",
    "continuum.0": "continuum.0",
    "continuum.1": "continuum.1",
}
QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)


def exact(values: np.ndarray, good: np.ndarray, tau: float, n: int, seed: int) -> dict[str, np.ndarray]:
    problem = GridProblem(
        WAVELENGTH, values, np.ones(len(values)), good, LINES, (tau, tau), (-400.0, 400.0), (10.0, 300.0), LSF_FWHM
    )
    found = exact_draws(problem, n, seed=seed, points=91)
    return {name: found[other] for name, other in NAMES.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "spectra"), [("importance", 64), ("nuts", 32)])
@pytest.mark.parametrize("tau", [8.0, 100.0])
def test_quantiles_on_average(method: str, spectra: int, tau: float) -> None:
    cube, _ = simulated(ONE, ONE.prior(np.random.default_rng(51), spectra, tau), 51)
    fit = ifujax.fit_cube(cube, ONE.model(tau))
    post = ifujax.sample(fit, method=method, seed=3)
    good = fit.spectra(np.arange(spectra)).fitted
    off, noise = np.empty((2, spectra, len(NAMES), len(QUANTILES)))
    for i in range(spectra):
        truth = exact(cube.values[:, 0, i], good[i], tau, 5000, i)
        for k, (name, draws) in enumerate(truth.items()):
            ours = draws_of(post, name)[i].astype(np.float64)
            off[i, k] = (np.quantile(ours, QUANTILES) - np.quantile(draws, QUANTILES)) / draws.std()
            for j, q in enumerate(QUANTILES):
                independent = quantile_ess(ours, q) if method == "nuts" else 0.5 * post.sampled.diagnostics["ess"][i]
                noise[i, k, j] = quantile_error(draws, q, float(independent)) / draws.std()
    mean, error = off.mean(axis=0), off.std(axis=0) / np.sqrt(spectra)
    print(f"\n{method}, fluxes ~ HalfNormal({tau:g}), {spectra} spectra: mean differences of quantiles, in posterior sd")
    for k, name in enumerate(NAMES):
        print(f"    {name:<24}" + "  ".join(f"{m:+.3f} +- {e:.3f}" for m, e in zip(mean[k], error[k])))
    print(f"    largest of a single spectrum: {np.abs(off).max():.2f}, {np.abs(off / noise).max():.1f} Monte Carlo errors")
    assert np.abs(mean / error).max() < 4.5
    assert np.abs(mean).max() < 0.08
    # A quantile between two modes may be off by much, and its Monte Carlo error says so.
    assert not ((np.abs(off) > 0.25) & (np.abs(off) > 5.0 * noise)).any()
