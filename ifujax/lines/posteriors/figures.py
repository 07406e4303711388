"""Figures of a posterior: pairs of parameters, models over the data, maps of percentiles, tiers and diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.batching import padded
from ifujax.inference.precision import working_precision
from ifujax.inference.sampling.draws import TIERS
from ifujax.inference.status import NOT_ASKED, POSTERIOR_FLAGS, decode
from ifujax.lines.figures import _KINDS, _TITLES, spaxel_panel, spectrum_figure
from ifujax.lines.posteriors.sampled import CONTINUUM, RATIO, WIDTH
from ifujax.models.continuum import legendre_basis
from ifujax.plotting import MapPanel
from ifujax.plotting.posterior import plot_pairs, plot_predictive
from ifujax.plotting.posterior_maps import PercentilePanel, TierPanel, Window, plot_percentiles, plot_tiers, posterior_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.lines.posteriors.results import CubePosterior
    from ifujax.models.emission import EmissionSpectrum, SpectralCoords

MOST = 8
"""Parameters of a pair plot."""
SHOWN = (0.16, 0.5, 0.84)
"""Percentiles of a figure of maps."""
_MARGIN, _SMALL = 2, 0.25
"""Spaxels about those that were sampled, where maps show these alone; the share of the field up to which they do."""
_MODELS, _BLOCK = 400, 50
"""Draws whose models make the bands."""
_KINEMATIC = ("velocity", "velocity_dispersion", "sigma", "h3", "h4", "lorentz_fwhm")
_ROLES = ("flux", "amplitude", "velocity", "velocity_dispersion", "h3", "h4", "lorentz_fwhm")
"""Parameters of a line."""

Parameter = tuple[str, str]


def pair_figure(post: CubePosterior, x: int, y: int, parameters: Sequence[Parameter] | None = None) -> Figure:
    """Return a pair plot of one spaxel, 0-based pixels.

    Parameters
    ----------
    post : CubePosterior
    x, y : int
    parameters : sequence of (line, quantity), optional
        By default up to eight that are free, those of the most significant lines first.

    Raises
    ------
    UsageError
        If the spaxel has no draws, or for unknown names.
    """
    _require_draws(post, x, y)
    found = _free(post, x, y) if parameters is None else list(parameters)
    draws = [post.draws(name, quantity, x, y).ravel() for name, quantity in found]
    more = "; parameters of the most significant lines" if parameters is None and len(found) == MOST else ""
    return plot_pairs(
        np.stack(draws, axis=1),
        [_named(name, quantity) for name, quantity in found],
        [post.units[quantity] for _, quantity in found],
        title=f"x = {x}, y = {y}: {_state(post, x, y)}{more}",
    )


def predictive_figure(post: CubePosterior, x: int, y: int) -> Figure:
    """Return a figure of one spaxel: data, and the models of its draws. 0-based pixels.

    Raises
    ------
    UsageError
        If the spaxel has no draws.
    """
    _require_draws(post, x, y)
    panel = spaxel_panel(post.fit, x, y, f"x = {x}, y = {y}: {_state(post, x, y)}")
    return plot_predictive(panel, models_of_draws(post, x, y))


def percentile_figure(post: CubePosterior, line: str, quantity: str) -> Figure:
    """Return a figure of the maps of 16, 50 and 84 %; kinematics only where the line is detected.

    Raises
    ------
    UsageError
        For an unknown line or quantity.
    """
    return plot_percentiles(_percentiles(post, line, quantity), wcs=post.fit.cube.celestial, window=_window(post))


def tiers_figure(post: CubePosterior) -> Figure:
    """Return a figure of what made each spaxel's draws, and of status, k-hat, effective sample size and R-hat."""
    return plot_tiers(_tiers(post), wcs=post.fit.cube.celestial, window=_window(post))


def page_figure(post: CubePosterior, line: str | None = None) -> Figure:
    """Return one page: percentiles of a line's flux, velocity and dispersion, tiers and diagnostics.

    Of a cube of one spaxel, which has no maps, it is the figure of the data and the models.

    Parameters
    ----------
    line : str, optional
        By default the one that is detected in most spaxels.

    Raises
    ------
    UsageError
        For an unknown line.
    """
    fit = post.fit
    if post.shape == (1, 1):
        return predictive_figure(post, 0, 0) if post.tier[0, 0] else spectrum_figure(fit)
    if line is None:
        counts = [(int(post.detected(name).sum()), float(np.nansum(np.abs(post[name, "flux"])))) for name in post.lines]
        line = post.lines[counts.index(max(counts))]
    rows = [_percentiles(post, line, quantity) for quantity in ("flux", "velocity", "velocity_dispersion")]
    name = fit.cube.path.name if fit.cube.path else "cube"
    detected, sampled = int(post.detected(line).sum()), int((post.tier > 0).sum())
    caption = (
        f"{post.draws_per_spaxel} draws of {_counted(sampled, 'each of ')} (seed {post.seed}). Percentiles of the posterior in "
        f"one colour scale: the true value lies below the map of 16 % with a probability of 16 %, and so on. Velocity and "
        f"dispersion are shown where {line} is detected ({_counted(detected)}): elsewhere they fill their bounds."
    )
    window = _window(post)
    if window is not None:
        caption += f" Maps show the part of the field, {fit.shape[1]} x {fit.shape[0]} spaxels, that was sampled."
    title = f"{name}: posterior of {line}"
    return posterior_page([*rows, _tiers(post)], title, caption, wcs=fit.cube.celestial, window=window)


def _counted(number: int, before: str = "") -> str:
    """Return "1 spaxel", or the number of several after some words."""
    return "1 spaxel" if number == 1 else f"{before}{number:,} spaxels"


def models_of_draws(post: CubePosterior, x: int, y: int, most: int = _MODELS) -> np.ndarray:
    """Return the models (draws, wave) of up to `most` draws of one spaxel, evenly chosen, with continuum and stellar spectrum."""
    fit = post.fit
    row = y * fit.shape[1] + x
    model = fit.setup.model
    spaxel = {name: each.reshape(-1, each.shape[-1]) for name, each in post.spaxel(x, y).items()}
    total = next(iter(spaxel.values())).shape[0]
    some = np.linspace(0, total - 1, min(most, total)).astype(int)
    params = {}
    for i, line in enumerate(model.names):
        for role in model.parameters(i):
            params[f"{line}.{role}"] = spaxel[role][some, i].astype(np.float64)
    base = fit.spectra(np.array([row]), components=False)
    n_wave = len(base.rest_wavelength)
    found = np.empty((len(some), n_wave))
    shared = jax.tree.map(np.asarray, fit.fitter.coords)
    with working_precision("float64"):
        for first in range(0, len(some), _BLOCK):
            block = padded(np.arange(first, min(first + _BLOCK, len(some))), _BLOCK)
            part = np.asarray(_lines_of(model, shared, {name: values[block] for name, values in params.items()}))
            found[first : first + _BLOCK] = part[: len(some) - first, :n_wave]
    found += base.continuum[0]
    if CONTINUUM in spaxel:
        rest = 0.5 * (fit.cube.rest_edges[1:] + fit.cube.rest_edges[:-1])
        ends = fit.cube.rest_wavelength[[0, -1]]
        coefficients = spaxel[CONTINUUM][some] - fit.found.linear[row]
        found += coefficients @ legendre_basis(rest, ends[0], ends[1], coefficients.shape[1] - 1)
    return found if base.stellar is None else found + base.stellar[0]


@jax.jit
def _lines_of(model: EmissionSpectrum, coords: SpectralCoords, params: Any) -> Any:
    return jax.vmap(lambda each: model.lines(each, coords))(params)


def _require_draws(post: CubePosterior, x: int, y: int) -> None:
    if not post.tier[y, x]:
        flags = decode(int(post.status[y, x]), POSTERIOR_FLAGS)
        why = "; ".join(flag.sentence for flag in flags)
        raise UsageError(f"x, y must be a spaxel with draws; got x={x}, y={y}: {why}. post.tier > 0 has the others.")


def _state(post: CubePosterior, x: int, y: int) -> str:
    """Return what made the draws, and how far they can be trusted, in a few words."""
    if TIERS[int(post.tier[y, x])] == "nuts":
        text = f"NUTS, R-hat {post.rhat[y, x]:.3f}, effective sample size {post.ess[y, x]:.0f}"
    else:
        text = f"importance sampling, k-hat {post.khat[y, x]:.2f}, effective sample size {post.ess[y, x]:.0f}"
    flags = decode(int(post.status[y, x]), POSTERIOR_FLAGS)
    return f"{text} ({', '.join(flag.name.replace('_', ' ') for flag in flags)})" if flags else text


def _free(post: CubePosterior, x: int, y: int) -> list[Parameter]:
    """Return up to eight free parameters, in the order of quantities and lines; those of the most significant lines."""
    free = {entry.name for entry in post.fit.setup.space.structure.free}
    flux = [post.draws(line, "flux", x, y) for line in post.lines]
    with np.errstate(invalid="ignore", divide="ignore"):
        significance = [abs(float(np.median(each) / np.std(each))) for each in flux]
    found: list[Parameter] = []
    for i in np.argsort(-np.nan_to_num(significance), kind="stable"):
        line = post.lines[i]
        # of a strength that is an amplitude the flux is shown too
        known = {"flux" if role == "amplitude" else role for role in _ROLES if f"{line}.{role}" in free}
        found += [(line, quantity) for quantity in _ROLES if quantity in known]
    return sorted(found[:MOST] or [(post.lines[0], "flux")], key=lambda each: (_ROLES.index(each[1]), post.lines.index(each[0])))


def _named(name: str, quantity: str) -> str:
    title = {RATIO: "log {}", WIDTH: "{} width", CONTINUUM: "continuum {}"}.get(quantity)
    short = {"velocity_dispersion": "dispersion"}
    return title.format(name) if title else f"{name} {short.get(quantity, _TITLES.get(quantity, quantity))}"


def _window(post: CubePosterior) -> Window | None:
    """Return the rows and columns about the spaxels that were sampled, if these are a small part of the field."""
    places = np.nonzero(post.chosen.index.reshape(post.shape) >= 0)
    sides = zip(places, post.shape)
    rows, columns = (slice(max(int(at.min()) - _MARGIN, 0), min(int(at.max()) + _MARGIN + 1, size)) for at, size in sides)
    shown = (rows.stop - rows.start) * (columns.stop - columns.start)
    return (rows, columns) if shown <= _SMALL * post.shape[0] * post.shape[1] else None


def _percentiles(post: CubePosterior, line: str, quantity: str) -> PercentilePanel:
    maps = np.stack([post.quantile(line, quantity, q) for q in SHOWN])
    mask = ~post.detected(line) if quantity in _KINEMATIC else None
    title = _named(line, quantity) if quantity in (RATIO, WIDTH, CONTINUUM) else f"{line} {_TITLES.get(quantity, quantity)}"
    if mask is not None:
        title += ", where the line is detected"
    labels = [f"{100 * q:g} %" for q in SHOWN]
    return PercentilePanel(maps, labels, title, post.units[quantity], _KINDS.get(quantity, "dispersion"), mask)


def _tiers(post: CubePosterior) -> TierPanel:
    status, without = post.status, (post.status & NOT_ASKED.value) != 0
    names = {0: "trustworthy"}
    for value in np.unique(status[~without]):
        flags = decode(int(value), POSTERIOR_FLAGS)
        if flags:
            names[int(value)] = ",\n".join(flag.name.replace("_", " ") for flag in flags)
    limits = post.sampling
    with np.errstate(invalid="ignore"):
        uneven = int(np.sum(post.khat >= limits.max_khat))
        apart = int(np.sum(post.rhat > limits.max_rhat))
    others = [
        MapPanel(status, "can they be trusted?", kind="status", mask=without, names=names),
        MapPanel(post.khat, f"Pareto k-hat ({uneven:,} not below {limits.max_khat:g})", kind="dispersion"),
        MapPanel(post.ess, "effective sample size", kind="snr"),
    ]
    if np.isfinite(post.rhat).any():
        others.append(MapPanel(post.rhat, f"R-hat ({apart:,} above {limits.max_rhat:g})", kind="dispersion"))
    return TierPanel(post.tier, without, others)
