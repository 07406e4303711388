"""Emission lines written again for numpyro, and sampled at length: a reference that shares no code with ifujax.

Profiles, priors and the transformation of moving bounds are written from their definitions; only numpyro's sampler is in
both. One compilation serves all spectra of a layout (``jit_model_args``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS
from scipy.stats import norm, rankdata

C = 299792.458


@dataclass(frozen=True)
class Group:
    """Lines of one velocity and dispersion; `above` is the group whose dispersion this one's exceeds."""

    name: str
    hermite: bool = False
    above: str | None = None


@dataclass(frozen=True)
class Layout:
    """What is compiled: `lines` are (rest wavelength, group, flux, ratio to it); `fluxes` their names."""

    groups: tuple[Group, ...]
    fluxes: tuple[str, ...]
    lines: tuple[tuple[float, str, str, float], ...]
    degree: int = 1


@dataclass(frozen=True)
class Problem:
    """One spectrum and the numbers of its priors.

    `edges` (w + 1,) rest Angstrom; `good` which pixels count; `tau` {flux: scale of its HalfNormal}; `velocity` and `dispersion`
    {group: (low, high)}, uniform; `lsf_fwhm` observed Angstrom and `redshift`; `continuum_scale` that of the coefficients'
    normal prior about 0; `start` {parameter: value}.
    """

    edges: np.ndarray
    values: np.ndarray
    sigma: np.ndarray
    good: np.ndarray
    tau: Mapping[str, float]
    velocity: Mapping[str, tuple[float, float]]
    dispersion: Mapping[str, tuple[float, float]]
    lsf_fwhm: float
    start: Mapping[str, float]
    redshift: float = 0.0
    continuum_scale: float = 1e4


@dataclass(frozen=True)
class Reference:
    """Draws {name: (chain, draw)} and how far to trust them: worst split R-hat and worst rank-normalised bulk ESS."""

    draws: dict[str, np.ndarray]
    rhat: float
    ess: float
    divergences: int


def _integrals(velocity_edges: Any, sigma: Any, h3: Any, h4: Any, hermite: bool = True) -> Any:
    """Share of a line's flux in each pixel. The antiderivative of exp(-w^2/2) H_n(w) follows from He_(n-1)."""
    w = velocity_edges / sigma
    if not hermite:
        return jnp.diff(jax.scipy.special.erf(w / np.sqrt(2.0)) / 2.0, axis=-1)
    density = jnp.exp(-0.5 * w * w) / np.sqrt(2.0 * np.pi)
    # H3 = (2 He3 + 3 He1) / sqrt 3 and H4 = (4 He4 + 12 He2 + 3 He0) / sqrt 24; He_n integrates to -He_(n-1)
    third = -(2.0 * (w**2 - 1.0) + 3.0) / np.sqrt(3.0)
    fourth = -(4.0 * (w**3 - 3.0 * w) + 12.0 * w) / np.sqrt(24.0)
    area = 1.0 + 3.0 / np.sqrt(24.0) * h4
    below = jax.scipy.special.erf(w / np.sqrt(2.0)) / 2.0 + density * (h3 * third + h4 * fourth) / area
    return jnp.diff(below, axis=-1)


def _velocities(edges: Any, rest: Any) -> Any:
    ratio = edges / rest
    return C * (ratio**2 - 1.0) / (ratio**2 + 1.0)


@lru_cache(maxsize=8)
def _sampler(layout: Layout, pixels: int, warmup: int, draws: int, chains: int, dense: bool) -> MCMC:
    # One for each number of pixels: a sampler that has run keeps the shapes that it has seen.
    kernel = NUTS(_model(layout), dense_mass=dense, target_accept_prob=0.9 if dense else 0.8)
    return MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )


def _model(layout: Layout) -> Any:
    hermite = any(group.hermite for group in layout.groups)

    def model(data: dict[str, Any]) -> None:
        kinematics: dict[str, tuple[Any, Any, Any, Any]] = {}
        for group in layout.groups:
            low, high = data["velocity"][group.name]
            velocity = numpyro.sample(f"{group.name}.velocity", dist.Uniform(low, high))
            low, high = data["dispersion"][group.name]
            if group.above is not None:
                low = jnp.clip(kinematics[group.above][1], low, high)
            share = numpyro.sample(f"{group.name}.share", dist.Uniform(0.0, 1.0))
            dispersion = numpyro.deterministic(f"{group.name}.velocity_dispersion", low + share * (high - low))
            h3 = h4 = 0.0
            if group.hermite:
                h3 = numpyro.sample(f"{group.name}.h3", dist.Uniform(-0.3, 0.3))
                h4 = numpyro.sample(f"{group.name}.h4", dist.Uniform(-0.3, 0.3))
            kinematics[group.name] = velocity, dispersion, h3, h4
        fluxes = {name: numpyro.sample(f"{name}.flux", dist.HalfNormal(data["tau"][name])) for name in layout.fluxes}
        # All lines as rows of one array: a few large operations instead of many small ones.
        velocity, dispersion, h3, h4 = (
            jnp.stack([jnp.asarray(kinematics[group][k]) for _, group, _, _ in layout.lines])[:, None] for k in range(4)
        )
        strength = jnp.stack([ratio * fluxes[flux] for _, _, flux, ratio in layout.lines])
        rest = np.array([line[0] for line in layout.lines])[:, None]
        beta = velocity / C
        centre = rest * jnp.sqrt((1.0 + beta) / (1.0 - beta)) * (1.0 + data["redshift"])
        instrumental = data["lsf_fwhm"] / np.sqrt(8.0 * np.log(2.0)) * C / centre
        sigma = jnp.sqrt(dispersion**2 + instrumental**2)
        inside = _integrals(_velocities(data["edges"][None, :], rest) - velocity, sigma, h3, h4, hermite)
        total = jnp.sum(strength[:, None] * inside, axis=0) / jnp.diff(data["edges"])
        # Coefficients in units of their errors about a line-free estimate; the prior is on the coefficients themselves.
        coefficients = []
        for k in range(layout.degree + 1):
            unit, zero = data["unit"][k], data["zero"][k]
            raw = numpyro.sample(f"raw.{k}", dist.Normal(-zero / unit, data["continuum_scale"] / unit))
            coefficients.append(numpyro.deterministic(f"continuum.{k}", zero + unit * raw))
        total = total + jnp.sum(jnp.stack(coefficients)[:, None] * data["basis"], axis=0)
        pull = (data["values"] - total) * data["weight"]
        numpyro.factor("likelihood", -0.5 * jnp.sum(pull * pull))

    return model


def _arrays(layout: Layout, problem: Problem) -> dict[str, Any]:
    middle = 0.5 * (problem.edges[1:] + problem.edges[:-1])
    x = 2.0 * (middle - middle[0]) / (middle[-1] - middle[0]) - 1.0
    basis = np.polynomial.legendre.legvander(x, layout.degree).T
    weight = problem.good / problem.sigma
    values = np.where(problem.good, problem.values, 0.0)
    covariance = np.linalg.inv((basis * weight) @ (basis * weight).T)
    guess = covariance @ ((basis * weight) @ (values * weight))
    data = {
        "edges": problem.edges,
        "values": values,
        "weight": weight,
        "basis": basis,
        "unit": np.sqrt(np.diag(covariance)),
        "zero": np.array([problem.start.get(f"continuum.{k}", guess[k]) for k in range(layout.degree + 1)]),
        "tau": dict(problem.tau),
        "velocity": {name: np.array(limits) for name, limits in problem.velocity.items()},
        "dispersion": {name: np.array(limits) for name, limits in problem.dispersion.items()},
        "lsf_fwhm": problem.lsf_fwhm,
        "redshift": problem.redshift,
        "continuum_scale": problem.continuum_scale,
    }
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype=np.float64), data)


def _start(layout: Layout, problem: Problem, data: dict[str, Any], chains: int, seed: int) -> dict[str, np.ndarray]:
    """Unconstrained starts: the first chains about the given values, the last one at a draw from the priors of the kinematics."""
    rng = np.random.default_rng(seed)
    start: dict[str, float] = {}

    def logit(share: float) -> float:
        share = min(max(share, 0.02), 0.98)
        return np.log(share) - np.log1p(-share)

    for group in layout.groups:
        low, high = problem.velocity[group.name]
        start[f"{group.name}.velocity"] = logit((problem.start[f"{group.name}.velocity"] - low) / (high - low))
        low, high = problem.dispersion[group.name]
        if group.above is not None:
            low = float(np.clip(problem.start[f"{group.above}.velocity_dispersion"], low, high - 1e-3))
        start[f"{group.name}.share"] = logit((problem.start[f"{group.name}.velocity_dispersion"] - low) / (high - low))
        for name in ("h3", "h4") if group.hermite else ():
            start[f"{group.name}.{name}"] = logit((problem.start[f"{group.name}.{name}"] + 0.3) / 0.6)
    for name in layout.fluxes:
        start[f"{name}.flux"] = np.log(max(problem.start[f"{name}.flux"], 0.01 * problem.tau[name]))
    for k in range(layout.degree + 1):
        start[f"raw.{k}"] = 0.0
    return {name: value + 0.1 * rng.standard_normal(chains) for name, value in start.items()}


def sample(
    layout: Layout, problem: Problem, *, warmup: int = 1000, draws: int = 5000, chains: int = 4, dense: bool = True, seed: int = 0
) -> Reference:
    """Run NUTS on one spectrum in float64."""
    with jax.enable_x64(True):
        data = _arrays(layout, problem)
        mcmc = _sampler(layout, len(problem.values), warmup, draws, chains, dense)
        start = _start(layout, problem, data, chains, seed)
        mcmc.run(jax.random.key(seed), jax.tree.map(jnp.asarray, data), init_params=jax.tree.map(jnp.asarray, start))
        found = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
        divergences = int(np.asarray(mcmc.get_extra_fields()["diverging"]).sum())
    found = {name: value for name, value in found.items() if not name.startswith("raw") and not name.endswith(".share")}
    return Reference(
        found,
        max(float(split_gelman_rubin(normal_scores(value))) for value in found.values()),
        min(bulk_ess(value) for value in found.values()),
        divergences,
    )


def normal_scores(draws: np.ndarray) -> np.ndarray:
    """Replace draws (chain, draw) by normal scores of their ranks (Vehtari et al. 2021)."""
    rank = rankdata(draws).reshape(draws.shape)
    return norm.ppf((rank - 0.375) / (draws.size + 0.25))


def _split(draws: np.ndarray) -> np.ndarray:
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def bulk_ess(draws: np.ndarray) -> float:
    """Effective sample size of rank-normalised split chains; `draws` (chain, draw)."""
    return float(effective_sample_size(_split(normal_scores(draws))))


def quantile_ess(draws: np.ndarray, q: float) -> float:
    """Effective sample size of the `q` quantile: that of the indicator of lying below it; `draws` (chain, draw)."""
    below = (draws <= np.quantile(draws, q)).astype(np.float64)
    return float(effective_sample_size(_split(below)))


def quantile_error(draws: np.ndarray, q: float, ess: float) -> float:
    """Return the Monte Carlo error of the `q` quantile of `ess` independent draws from the distribution of `draws`.

    Half the distance between the quantiles one binomial standard deviation, ``sqrt(q (1 - q) / ess)``, either way.
    """
    step = np.sqrt(q * (1.0 - q) / ess)
    low, high = np.quantile(draws, [max(q - step, 0.0), min(q + step, 1.0)])
    return 0.5 * float(high - low)
