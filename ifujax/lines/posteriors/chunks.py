"""Draws of some spaxels of a fitted cube, from the same data and noise as the fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import numpy as np

from ifujax.inference.batching import padded
from ifujax.inference.least_squares import evaluate_batch, fit_batch
from ifujax.inference.observations import Observations
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.results import FitResult
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.sample import sample_batch
from ifujax.lines.chunk import ChunkFitter
from ifujax.lines.posteriors.default_priors import DefaultPriors, default_priors
from ifujax.lines.posteriors.quantities import DrawQuantities
from ifujax.lines.posteriors.sampled import Layout, Sampled
from ifujax.lines.posteriors.selection import error_scale
from ifujax.lines.posteriors.whitened import WhitenedSpectrum, whitened, whitened_quantities
from ifujax.lines.results import CubeFit
from ifujax.lines.starts.packing import Named, pack_named, scaled_space, starts_of
from ifujax.progress import Progress

_EVALUATED = 64
"""Solutions are evaluated in blocks of this size, however few they are: another size is another last digit."""


class ChunkSampler:
    """Samples any spaxels of one fitted cube; holds what all chunks share."""

    def __init__(self, fit: CubeFit, quantities: DrawQuantities, layout: Layout, sampling: SamplingOptions, seed: int) -> None:
        self.fit = fit
        self.quantities, self.layout, self.sampling, self.seed = quantities, layout, sampling, seed

    def __call__(self, rows: np.ndarray, progress: Progress | None = None) -> Sampled:
        """Draw from the posteriors of spaxels (flat indices) that have a fit."""
        fitter, setup = self.fit.fitter, self.fit.setup
        options = replace(fitter.options, warm_up=False)
        posed = problem(self.fit, rows)
        white = fitter.correlation is not None
        found = sample_batch(
            posed.model,
            posed.space,
            posed.obs,
            _refitted(fitter, posed) if white else _evaluated(fitter, posed),
            options=options,
            sampling=self.sampling,
            linear_sigma=posed.priors.continuum if setup.model.n_continuum else None,
            seed=self.seed,
            ids=rows,
            derived=whitened_quantities(self.quantities) if white else self.quantities,
            precision=fitter.precision,
            devices=fitter.devices,
            progress=progress,
        )
        return Sampled.of(self.layout, found)

    def fingerprint(self, rows: np.ndarray) -> str:
        """Return what tells the draws of these spaxels from others: of another fit, priors, seed, or number of draws."""
        space = self.fit.setup.space  # not every prior shows in the fit
        digest = hashlib.sha256(repr((self.layout, self.sampling, self.seed, self.quantities, space.describe())).encode())
        noise = [] if self.fit.fitter.correlation is None else [self.fit.fitter.correlation]
        for array in (rows, self.fit.found.solution[rows], self.fit.found.chi2[rows], *noise, *jax.tree.leaves(space)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Problem:
    """What is sampled of some spaxels. `space` has all priors, `priors` are those that nobody declared; `solution` is by name.

    Where noise is correlated, `model` and `obs` are seen through a filter that makes it independent.
    """

    model: Any
    space: ParameterSpace
    priors: DefaultPriors
    obs: Observations
    solution: Named


def problem(fit: CubeFit, rows: np.ndarray) -> Problem:
    """Prepare spaxels (flat indices) that have a fit; UsageError for parameters without a proper prior."""
    fitter, setup = fit.fitter, fit.setup
    ready = fitter.preparation(rows)
    ready = replace(ready, ivar=ready.ivar / error_scale(fit, rows)[:, None] ** 2)
    solution = dict(zip(setup.model.parameter_names, fit.found.solution[rows].T))
    found = starts_of(setup, solution)
    space = setup.space if found is None else scaled_space(setup, found, ready.ivar)
    # Powers of two: values and the free vector differ by an exact factor, whatever else is in the chunk.
    space = space.with_scale(2.0 ** np.round(np.log2(space.scale)))
    priors = default_priors(setup, ready.ivar, fitter.coords.width)
    model, obs = setup.model, fitter.observations(ready)
    if fitter.correlation is not None:
        model, obs = WhitenedSpectrum(model), whitened(obs, fitter.correlation)
    return Problem(model, priors.of(space), priors, obs, solution)


def _refitted(fitter: ChunkFitter, posed: Problem) -> FitResult:
    """Return fits to whitened data, from the stored solutions: those weighted them as if noise were independent."""
    return fit_batch(
        posed.model,
        posed.space,
        posed.obs,
        pack_named(fitter.setup, posed.space, posed.solution, posed.obs.batch)[0],
        options=replace(fitter.options, warm_up=False, residual_sums=False),
        precision=fitter.precision,
        devices=fitter.devices,
    )


def _evaluated(fitter: ChunkFitter, posed: Problem) -> FitResult:
    """Return the fits at stored solutions."""
    obs, n = posed.obs, posed.obs.batch
    full = padded(np.arange(n), -(-n // _EVALUATED) * _EVALUATED)
    result = evaluate_batch(
        fitter.setup.model,
        jax.tree.map(lambda leaf: leaf[full], posed.space.broadcast(n)),
        Observations(obs.values[full], obs.ivar[full], obs.coords_of(full), obs.coords_axes),
        pack_named(fitter.setup, posed.space, posed.solution, n)[0][full],
        options=replace(fitter.options, warm_up=False),
        precision=fitter.precision,
        devices=fitter.devices,
    )

    def cut(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: array[:n] for name, array in value.items()}
        return value[:n] if isinstance(value, np.ndarray) else value

    return replace(result, **{item.name: cut(getattr(result, item.name)) for item in fields(result)})
