"""The draws of a cube as a file, and as datasets: names, units and where they come from."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ifujax import __version__
from ifujax.inference.sampling.draws import TIERS
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.status import POSTERIOR_FLAGS
from ifujax.io.posteriors import PosteriorLayout, PosteriorWriter, Variable, datasets, spaxel_datasets
from ifujax.lines.posteriors.sampled import CONTINUUM, DIAGNOSTICS, RATIO, WIDTH, Layout, Sampled, check_memory, status_map
from ifujax.lines.posteriors.selection import Chosen
from ifujax.lines.products.headers import configuration
from ifujax.lines.results import CubeFit

if TYPE_CHECKING:
    from ifujax.lines.posteriors.results import CubePosterior

_LONG_NAMES = {
    "flux": "integrated flux",
    "amplitude": "peak flux density",
    "velocity": "velocity",
    "velocity_dispersion": "intrinsic velocity dispersion",
    "sigma": "observed velocity dispersion",
    "equivalent_width": "equivalent width, emission negative",
    "h3": "Gauss-Hermite coefficient h3",
    "h4": "Gauss-Hermite coefficient h4",
    "lorentz_fwhm": "width of the Lorentzian part",
    RATIO: "decimal logarithm of a ratio of fluxes",
    WIDTH: "width between velocities that hold a share of the flux",
    CONTINUUM: "coefficients of Legendre polynomials over the fitting window",
    "tier": "what made the draws",
    "khat": "Pareto k-hat of importance sampling",
    "ess": "effective sample size",
    "rhat": "R-hat of NUTS, worst parameter",
    "ess_bulk": "bulk effective sample size of NUTS, worst parameter",
    "ess_tail": "tail effective sample size of NUTS, worst parameter",
    "divergences": "divergent transitions of NUTS",
    "status": "0: trustworthy, else a sum of bits",
}
_DIMENSIONS = {RATIO: "pair", WIDTH: "group", CONTINUUM: "coefficient"}
"""Of variables that do not belong to a line. (A dimension may not be named like a variable that has others beside it.)"""


def file_layout(fit: CubeFit, layout: Layout, units: dict[str, str], sampling: SamplingOptions, seed: int) -> PosteriorLayout:
    """Return what a file of the draws holds."""
    coords: dict[str, Any] = {}
    variables = {}
    for name, elements in layout.variables.items():
        dim = _DIMENSIONS.get(name, "line")
        coords[dim] = tuple(range(len(elements))) if name == CONTINUUM else elements
        more = {"percent": width_percent(fit)} if name == WIDTH else {}
        variables[name] = Variable(dim, units[name], _LONG_NAMES[name], attributes=more)
    statistics = {name: Variable("", "", _LONG_NAMES[name], np.dtype(kind).name) for name, kind in DIAGNOSTICS.items()}
    meanings = {
        "tier": {"flag_values": np.arange(len(TIERS)), "flag_meanings": " ".join(TIERS)},
        "status": {
            "flag_masks": [flag.value for flag in POSTERIOR_FLAGS],
            "flag_meanings": " ".join(flag.name for flag in POSTERIOR_FLAGS),
        },
    }
    for name, more in meanings.items():
        statistics[name] = Variable("", "", _LONG_NAMES[name], np.dtype(DIAGNOSTICS[name]).name, more)
    return PosteriorLayout(fit.shape, layout.chains, layout.draws, coords, variables, statistics, _origin(fit, sampling, seed))


def width_percent(fit: CubeFit) -> float:
    """Return the share of the flux that velocity widths hold, per cent."""
    options = fit.config.velocity_width
    return 80.0 if options is None else options.width


def _origin(fit: CubeFit, sampling: SamplingOptions, seed: int) -> dict[str, Any]:
    """Return the attributes that say where draws come from."""
    cube = fit.cube
    return {
        "creation_library_version": __version__,
        **{f"{name}_version": version(name) for name in ("jax", "numpy", "numpyro")},
        "input": cube.path.name if cube.path else "",
        "redshift": cube.redshift,
        "medium": cube.medium,
        "window": [float(cube.rest_wavelength[0]), float(cube.rest_wavelength[-1])],
        "rest_wavelengths": [line.rest_wavelength for line in fit.setup.lines],
        "continuum_mode": fit.mode,
        "noise": "estimated" if cube.uncertainty is None else "given",
        "scale_errors": fit.config.fit.scale_errors,
        "noise_of_errors": fit.config.fit.noise,
        "noise_correlation": [] if fit.fitter.correlation is None else fit.fitter.correlation.tolist(),
        "seed": seed,
        "sampling": repr(sampling),
        "method": sampling.method,
        "priors": fit.setup.space.describe(),
        "default_priors": (
            "strengths without bounds: half-normal (normal where they may be negative) of 1000 times the noise of the line; "
            "continuum: normal of 10000 times the noise of a pixel"
        ),
        "configuration": "\n".join(f"{name}: {value}" for name, value in configuration(fit)),
    }


class DrawsFile:
    """Writes chunks of draws into a file, each to all spaxels that it stands for; complete when left without an error."""

    def __init__(self, path: str | Path, layout: PosteriorLayout, chosen: Chosen, *, overwrite: bool) -> None:
        self._writer = PosteriorWriter(path, layout, overwrite=overwrite)
        self._shape, self._chosen = layout.shape, chosen

    def __enter__(self) -> Self:
        self._writer.__enter__()
        self._writer.put_maps({"status": status_map(self._chosen, None).reshape(self._shape)})
        return self

    def put(self, first: int, part: Sampled) -> None:
        """Write a chunk; `first` is the place of its first row among all that are sampled."""
        spaxels, take = self._chosen.members(first, first + len(part.diagnostics["status"]))
        self._writer.put(spaxels, part.draws, part.diagnostics, take)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, trace)


def layout_of(post: CubePosterior) -> PosteriorLayout:
    """Return what a file of a posterior holds."""
    return file_layout(post.fit, post.layout, post.units, post.sampling, post.seed)


def groups_of(post: CubePosterior, x: int | None = None, y: int | None = None) -> dict[str, Any]:
    """Return the draws of a posterior, of one spaxel or of all, as datasets of xarray by group.

    Raises
    ------
    UsageError
        For all spaxels of an image that would take too much memory.
    """
    if x is not None and y is not None:
        row = post.fit._row(x, y)
        named = {name: getattr(post, name)[y, x] for name in DIAGNOSTICS}
        return spaxel_datasets(layout_of(post), row, post.spaxel(x, y), named)
    if post.store is not None:
        return post._reader(post.store).groups()
    check_memory(post.layout, post.fit.cube.n_spaxels, "Give x and y of one spaxel.")
    spaxels, take = post.chosen.members(0, len(post.chosen.rows))
    draws = {name: array[take] for name, array in post.sampled.draws.items()}
    return datasets(layout_of(post), spaxels, draws, {name: getattr(post, name) for name in DIAGNOSTICS})
