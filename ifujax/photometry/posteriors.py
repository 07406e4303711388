"""Posteriors of image fits: draws of every parameter, where errors to first order are not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.least_squares import evaluate_batch
from ifujax.inference.precision import working_precision
from ifujax.inference.sampling.draws import Draws
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.sample import sample_batch
from ifujax.inference.starts import pack_starts
from ifujax.models.psf import ellipse_components
from ifujax.photometry.forward.fit import engine_of, make_group, model_of

if TYPE_CHECKING:
    from ifujax.photometry.forward.preparation import Prepared
    from ifujax.photometry.results import ImagePhotometry


def sample_image(
    result: ImagePhotometry, *, draws: int = 1000, seed: int = 0, sampling: SamplingOptions | None = None
) -> dict[str, np.ndarray]:
    """Draw from the posterior of an image fit.

    Scale and background have flat priors and are integrated out exactly; shifts and FWHM are uniform within their bounds, beta
    has the prior of the options. Points in the others are weighed by importance sampling, or, where that fails, drawn by NUTS.

    Parameters
    ----------
    result : ImagePhotometry
        Of ``method="forward"``.
    draws : int
        A multiple of 4.
    seed : int
    sampling : SamplingOptions, optional
        Wins over `draws`.

    Returns
    -------
    dict of str to array (chain, draw)
        ``scale``, ``bg``, ``dx``, ``dy``, ``fwhm``, ``beta`` and what else was fitted; ``status`` (see
        `ifujax.POSTERIOR_FLAGS`), ``khat``, ``ess`` and ``tier`` are numbers.

    Raises
    ------
    UsageError
        For a fit that failed, one in Fourier space, which has no likelihood, or one with another loss than "gaussian".
    """
    _require_likelihood(result)
    options, values = result.options, result.outcome.values
    sampling = sampling or SamplingOptions(draws=draws)
    if options.fix_scale is None and values["scale"] <= options.min_scale:
        raise UsageError(f"sample needs a scale that was fitted; got {result.name}, held at min_scale {options.min_scale:g}.")
    held = all(getattr(options, f"fix_{name}") is not None for name in ("dx", "dy", "fwhm", "beta"))
    if held and not (options.elliptical or options.rotation):
        return _linear_draws(result, sampling, seed)
    found, model = _drawn(result, sampling, seed)
    kept = {name: np.asarray(value[0]) for name, value in found.params.items()}
    kept |= {name: np.asarray(found.linear[0, ..., k]) for k, name in enumerate(model)}
    if result.prepared is not None and "rotation" in kept:
        kept["rotation"] = kept["rotation"] + result.prepared.rotation
    kept |= {name: np.asarray(getattr(found, name)[0]) for name in ("status", "khat", "ess", "tier")}
    return kept


def _linear_draws(result: ImagePhotometry, sampling: SamplingOptions, seed: int) -> dict[str, np.ndarray]:
    """Draw scale and background where all else is fixed: their posterior is the Gaussian of the fit."""
    shape = (sampling.chains, sampling.draws // sampling.chains)
    names = [name for name in result.covariance_names if name in ("scale", "bg")]
    where = [result.covariance_names.index(name) for name in names]
    kept = {name: np.full(shape, value) for name, value in result.outcome.values.items()}
    if names:
        mean = np.array([result.value(name).value for name in names])
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_normal(mean, result.covariance[np.ix_(where, where)], size=shape)
        kept |= {name: drawn[..., k] for k, name in enumerate(names)}
    sound = {"status": 0, "khat": np.nan, "ess": float(sampling.draws), "tier": 0}
    return kept | {name: np.asarray(value) for name, value in sound.items()}


def _require_likelihood(result: ImagePhotometry) -> None:
    if result.prepared is None:
        raise UsageError(
            "sample needs a fit with method 'forward'; got one in Fourier space, whose residuals have no known noise."
        )
    if result.options.loss != "gaussian":
        raise UsageError(
            f"sample needs loss 'gaussian', whose scale and background are integrated out; got {result.options.loss!r}. "
            "The errors of the fit are those of its loss."
        )
    if result.status:
        raise UsageError(f"sample needs a fit that succeeded; got {result.name}: {result.reason}.")


def _drawn(result: ImagePhotometry, sampling: SamplingOptions, seed: int) -> tuple[Draws, tuple[str, ...]]:
    prepared = cast("Prepared", result.prepared)
    model = model_of(prepared, result.options)
    engine = engine_of(model, result.options)
    group = make_group([prepared], model, result.options)
    free = [entry.name for entry in group.space.structure.free]
    values = dict(result.outcome.values)
    if result.options.elliptical:
        with working_precision("float64"):
            e1, e2 = ellipse_components(values["ellipticity"], values["angle"])
            values |= {"e1": float(e1), "e2": float(e2)}
    if result.options.rotation:
        values["rotation"] -= prepared.rotation
    x = pack_starts(group.space, {name: np.array([values[name]]) for name in free}, 1)[0]
    fit = evaluate_batch(group.model, group.space, group.obs, x, options=engine)
    return (
        sample_batch(group.model, group.space, group.obs, fit, options=engine, sampling=sampling, seed=seed),
        group.model.linear_names,
    )
