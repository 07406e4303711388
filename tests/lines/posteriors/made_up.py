"""A posterior of a small cube whose draws are made up, so that what shows it can be tested without a sampler."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ifujax import simulate
from ifujax.inference.parameter_space.declarations import Bounded, Tied
from ifujax.inference.sampling.draws import Draws
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.status import DIVERGENT, FEW_EFFECTIVE, NO_DRAWS, UNEVEN_WEIGHTS
from ifujax.lines.config import LSF, EmissionModel, Kinematics, Line
from ifujax.lines.posteriors.results import CubePosterior
from ifujax.lines.posteriors.sampled import Layout, Sampled
from ifujax.lines.posteriors.selection import Chosen
from ifujax.lines.results import CubeFit
from ifujax.lines.run import fit_cube

SHAPE = (9, 11)
NAN, NOT_ASKED_Y = (1, 2), 7
"""(y, x) of a spaxel without data; rows of the image from which on nothing was asked for."""
CHAINS, DRAWS = 4, 100


@lru_cache
def a_fit() -> CubeFit:
    disc = simulate.cube(SHAPE, nan_spaxels=[NAN], scale_radius=3.0, seed=1)
    kin = Kinematics(Bounded(-400, 400, start=0), Bounded(20, 400, start=80))
    model = EmissionModel(
        [
            Line("ha", 6562.80, kin),
            Line("n2b", 6583.46, kin),
            Line("n2a", 6548.04, kin, flux=Tied("n2b.flux / 3.06")),
        ],
        continuum_degree=1,
        lsf=LSF.constant(disc.lsf_fwhm),
    )
    return fit_cube(disc.cube, model, window=(6480, 6660))


@lru_cache
def a_posterior(ratios: tuple[tuple[str, str], ...] = (("n2b", "ha"),), groups: tuple[tuple[str, ...], ...] = (("ha",),)):
    """Return draws that scatter about the fit by its errors; fluxes are positive."""
    fit = a_fit()
    where = np.zeros(SHAPE, bool)
    where[:NOT_ASKED_Y] = True
    chosen = Chosen.of(fit, where)
    n, rng = len(chosen.rows), np.random.default_rng(5)
    model = fit.setup.model
    layout = Layout.of(model, ratios, groups, CHAINS, DRAWS)
    shape = (n, CHAINS, DRAWS)
    noise = {"velocity": rng.normal(size=shape), "sigma": rng.normal(size=shape)}
    noise["velocity_dispersion"] = noise["sigma"]
    known = {}
    for i, line in enumerate(fit.lines):
        for quantity in layout.quantities:
            value, error = (each[quantity][i, chosen.rows][:, None, None] for each in (fit.values, fit.errors))
            error = np.where(np.isfinite(error), error, 10.0)
            draws = value + error * noise.get(quantity, rng.normal(size=shape))
            if quantity in ("flux", "amplitude"):
                # the positive part of a normal distribution, by its inverse
                draws = np.abs(draws)
            known[f"{line}.{quantity}"] = draws
    known |= {f"width.{k}": 2.56 * known[f"{group[0]}.sigma"] for k, group in enumerate(groups)}
    linear = fit.found.linear[chosen.rows][:, None, None, :] + rng.normal(size=(*shape, model.n_continuum))
    tier = np.where(rng.random(n) < 0.8, 1, 2).astype(np.int8)
    tier[4] = 0
    nuts = tier == 2
    khat = np.where(nuts, rng.uniform(0.7, 1.2, n), rng.uniform(0.0, 0.6, n))
    status = np.zeros(n, np.int32)
    status[3], status[4] = UNEVEN_WEIGHTS.value | FEW_EFFECTIVE.value, NO_DRAWS.value
    status[np.flatnonzero(nuts)[0]] = DIVERGENT.value
    for values in (*known.values(), linear):
        values[4] = np.nan
    ess = rng.uniform(250, 900, n)
    found = Draws(
        params={},
        linear=linear,
        derived=known,
        tier=tier,
        khat=khat,
        ess=ess,
        rhat=np.where(nuts, rng.uniform(1.0, 1.01, n), np.nan),
        ess_bulk=np.where(nuts, ess, np.nan),
        ess_tail=np.where(nuts, 0.8 * ess, np.nan),
        divergences=np.where(status == DIVERGENT.value, 3, 0),
        status=status,
    )
    return CubePosterior(
        fit=fit,
        layout=layout,
        chosen=chosen,
        sampled=Sampled.of(layout, found),
        sampling=SamplingOptions(draws=CHAINS * DRAWS),
        seed=11,
        store=None,
        seconds=1.5,
    )
