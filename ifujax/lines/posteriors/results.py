"""`CubePosterior`: draws, quantiles and limits of the spaxels of a cube, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.errors import DataError, UsageError, unknown
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.io.posteriors import PosteriorReader
from ifujax.lines.posteriors.quantities import log_ratio
from ifujax.lines.posteriors.sampled import CONTINUUM, RATIO, WIDTH, Layout, Sampled, group_name, ratio_name, status_map
from ifujax.lines.posteriors.selection import Chosen
from ifujax.lines.posteriors.summaries import QUANTILES, STATISTICS, quantile
from ifujax.lines.results import CubeFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DETECTION = 3.0
"""A line is detected where the median of its flux is beyond this times half its 16 to 84 % range."""


def fingerprint(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from a later one of its name: when it was written, and its size. None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class Maps:
    """One statistic of every quantity: ``post.error["ha", "flux"]``, or ``post.error("ha", "flux")``."""

    def __init__(self, post: CubePosterior, statistic: str) -> None:
        self._post, self._statistic = post, statistic

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        return self._post._statistic(self._statistic, key)

    def __call__(self, line: str, quantity: str) -> np.ndarray:
        return self[line, quantity]


@dataclass(frozen=True, eq=False, repr=False)
class CubePosterior:
    """Posteriors of the spaxels of a cube. ``post["ha", "flux"]`` is the [y, x] map of the median.

    Quantities of each line: ``flux``, ``amplitude``, ``velocity``, ``velocity_dispersion``, ``sigma``, ``equivalent_width``,
    and those of its shape, in the units of the fit. Ratios and velocity widths that were asked for are named like
    ``post["n2/ha", "ratio"]`` (decimal logarithm) and ``post["ha", "velocity_width"]``, continuum coefficients
    ``post["0", "continuum"]``. Maps are NaN where a spaxel was not sampled, or where more than 5 % of the draws have no
    value (an equivalent width above a continuum that may not be positive, the logarithm of a negative ratio).

    Attributes
    ----------
    fit : CubeFit
    layout : Layout
        Names of all quantities.
    chosen : Chosen
        Which spaxels were sampled.
    sampled : Sampled
        Draws (none with a `store`), summaries and diagnostics.
    sampling : SamplingOptions
    seed : int
    store : Path or None
        The file that holds the draws.
    seconds : float
        Wall time.
    written : tuple of int, optional
        `fingerprint` of that file; a DataError is raised where its draws are asked for and it has another.
    """

    fit: CubeFit
    layout: Layout = field(repr=False)
    chosen: Chosen = field(repr=False)
    sampled: Sampled = field(repr=False)
    sampling: SamplingOptions
    seed: int
    store: Path | None
    seconds: float
    written: tuple[int, int] | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)"""
        return self.fit.shape

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of the lines."""
        return self.layout.lines

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what is known of each line."""
        return self.layout.quantities

    @property
    def ratios(self) -> tuple[tuple[str, str], ...]:
        """Pairs of lines whose ratios were asked for."""
        return self.layout.ratios

    @property
    def widths(self) -> tuple[tuple[str, ...], ...]:
        """Groups of lines whose velocity widths were asked for."""
        return self.layout.groups

    @property
    def units(self) -> dict[str, str]:
        """Unit of each quantity."""
        own = self.fit.units
        named = {name: own[name] for name in self.quantities}
        return named | {RATIO: "dex", WIDTH: "km/s", CONTINUUM: own["amplitude"]}

    @property
    def method(self) -> str:
        """How the draws were to be made: auto, importance or nuts."""
        return self.sampling.method

    @property
    def draws_per_spaxel(self) -> int:
        """Draws of each spaxel, all chains together."""
        return self.sampling.draws

    def _find(self, key: Any) -> tuple[str, int]:
        """Return the variable and the place of a line (ratio, group, coefficient) and quantity in it."""
        if not (isinstance(key, tuple) and len(key) == 2):
            raise UsageError(f"key must be a line and a quantity, such as ['ha', 'flux']; got {key!r}.")
        name, quantity = str(key[0]), key[1]
        every = self.layout.variables
        if quantity not in every:
            raise UsageError(unknown("quantity", str(quantity), every))
        if name not in every[quantity]:
            raise UsageError(
                unknown({RATIO: RATIO, WIDTH: "group", CONTINUUM: "coefficient"}.get(quantity, "line"), name, every[quantity])
            )
        return quantity, every[quantity].index(name)

    def _image(self, values: np.ndarray, missing: float = np.nan) -> np.ndarray:
        """Spread values of the sampled spaxels over the image."""
        index = self.chosen.index
        flat = np.where(index >= 0, values[index], np.asarray(missing, values.dtype))
        return flat.reshape(self.shape)

    def _statistic(self, statistic: str, key: Any) -> np.ndarray:
        variable, k = self._find(key)
        summary = self.sampled.summary[variable][:, k].astype(np.float64)
        if statistic == "error":
            high, low = (summary[:, QUANTILES.index(q)] for q in (0.84, 0.16))
            return self._image(0.5 * (high - low))
        return self._image(summary[:, STATISTICS.index(statistic)])

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        return self._statistic("q50", key)

    @cached_property
    def error(self) -> Maps:
        """Half the range from the 16 % to the 84 % quantile, by line and quantity."""
        return Maps(self, "error")

    @cached_property
    def mean(self) -> Maps:
        """Posterior means, by line and quantity."""
        return Maps(self, "mean")

    @cached_property
    def sd(self) -> Maps:
        """Posterior standard deviations, by line and quantity."""
        return Maps(self, "sd")

    def quantile(self, line: str, quantity: str, q: float) -> np.ndarray:
        """Return the [y, x] map of a quantile.

        Those at 0.025, 0.05, 0.16, 0.5, 0.84, 0.95 and 0.975 are at hand; others are worked out from the draws.
        """
        variable, k = self._find((line, quantity))
        if not 0 < q < 1:
            raise UsageError(f"q must lie between 0 and 1; got {q}. Give 0.5 for the median.")
        for known, name in zip(QUANTILES, STATISTICS):
            if abs(q - known) < 1e-9:
                return self._statistic(name, (line, quantity))
        if self.store is None:
            draws = self.sampled.draws[variable][..., k]
            return self._image(quantile(draws.reshape(len(draws), -1), q))
        return self._reader(self.store).map(variable, lambda draws: quantile(draws, q), k)

    def upper_limit(self, line: str, quantity: str = "flux", level: float = 0.95) -> np.ndarray:
        """Return the [y, x] map of the value below which a quantity lies with a probability of `level`."""
        return self.quantile(line, quantity, level)

    def detected(self, line: str) -> np.ndarray:
        """Return [y, x] whether a line is detected: the median of its flux is beyond 3 times half its 16 to 84 % range.

        Where it is not, `upper_limit` is what the data say of its flux. False where a spaxel was not sampled.
        """
        with np.errstate(invalid="ignore"):
            return np.abs(self[line, "flux"]) > DETECTION * self.error[line, "flux"]

    def ratio(self, numerator: str, denominator: str, q: float = 0.5) -> np.ndarray:
        """Return the [y, x] map of a quantile of the decimal logarithm of a flux ratio.

        Any pair of lines may be asked for where the draws are in memory, else those of ``ratios=``.
        """
        for name in (numerator, denominator):
            if name not in self.lines:
                raise UsageError(unknown("line", name, self.lines))
        if (numerator, denominator) in self.ratios:
            return self.quantile(ratio_name(numerator, denominator), RATIO, q)
        if (denominator, numerator) in self.ratios:
            return -self.quantile(ratio_name(denominator, numerator), RATIO, 1.0 - q)
        if self.store is not None:
            raise UsageError(
                f"ratio must be one of those asked for, as the draws are on disk; got {ratio_name(numerator, denominator)}. "
                f"Sample with ratios=[({numerator!r}, {denominator!r})]."
            )
        if not 0 < q < 1:
            raise UsageError(f"q must lie between 0 and 1; got {q}. Give 0.5 for the median.")
        top, bottom = (self.sampled.draws["flux"][..., self.lines.index(name)] for name in (numerator, denominator))
        return self._image(quantile(log_ratio(top, bottom).reshape(len(top), -1), q))

    def velocity_width(self, lines: str | tuple[str, ...], q: float = 0.5) -> np.ndarray:
        """Return the [y, x] map of a quantile of a velocity width that was asked for with ``widths=``, km/s."""
        return self.quantile(lines if isinstance(lines, str) else group_name(lines), WIDTH, q)

    def draws(self, line: str, quantity: str, x: int, y: int) -> np.ndarray:
        """Return the draws (chain, draw) of a quantity of one spaxel; NaN where it was not sampled. 0-based pixels."""
        variable, k = self._find((line, quantity))
        return self.spaxel(x, y)[variable][..., k]

    def spaxel(self, x: int, y: int) -> dict[str, np.ndarray]:
        """Return all draws of one spaxel: (chain, draw, elements) of each variable (`Layout.variables` names the elements)."""
        row = self.fit._row(x, y)
        k = int(self.chosen.index[row])
        if k < 0:
            shape = (self.layout.chains, self.layout.draws)
            return {name: np.full((*shape, len(each)), np.nan) for name, each in self.layout.variables.items()}
        if self.store is None:
            return {name: array[k].astype(np.float64) for name, array in self.sampled.draws.items()}
        return {name: array.astype(np.float64) for name, array in self._reader(self.store).spaxel(row).items()}

    def _reader(self, store: Path) -> PosteriorReader:
        """Return what reads the draws from a file, which must be the one that was written with the summaries."""
        found = fingerprint(store)
        if found is not None and self.written not in (None, found):
            raise DataError(
                f"file of draws must be the one that was written with this posterior; got a newer one, {store}. "
                "Sample again, with another store=."
            )
        return PosteriorReader(store)

    def to_arviz(self, x: int | None = None, y: int | None = None) -> Any:
        """Return the draws as ArviZ takes them: `arviz.InferenceData` (ArviZ 0) or `xarray.DataTree` (1 and later).

        Parameters
        ----------
        x, y : int, optional
            One spaxel; by default all of them, from a `store` as they are used. 0-based pixels.
        """
        from ifujax.inference.sampling.arviz import as_arviz
        from ifujax.lines.posteriors.store import groups_of

        if (x is None) != (y is None):
            raise UsageError(f"x and y must be given both or not at all; got x={x}, y={y}.")
        return as_arviz(groups_of(self, x, y))

    def _diagnostic(self, name: str) -> np.ndarray:
        values = self.sampled.diagnostics[name]
        if values.dtype.kind == "f":
            return self._image(values.astype(np.float64))
        return self._image(values, 0)

    @property
    def tier(self) -> np.ndarray:
        """[y, x] int8: 0 no draws, 1 importance sampling, 2 NUTS."""
        return self._diagnostic("tier")

    @property
    def khat(self) -> np.ndarray:
        """[y, x] Pareto k-hat of importance sampling."""
        return self._diagnostic("khat")

    @property
    def ess(self) -> np.ndarray:
        """[y, x] effective number of the draws, of the worst parameter, in its centre and its tails."""
        return self._diagnostic("ess")

    @property
    def rhat(self) -> np.ndarray:
        """[y, x] R-hat of the worst parameter; NaN for importance sampling."""
        return self._diagnostic("rhat")

    @property
    def ess_bulk(self) -> np.ndarray:
        """[y, x] bulk effective sample size of the worst parameter; NaN for importance sampling."""
        return self._diagnostic("ess_bulk")

    @property
    def ess_tail(self) -> np.ndarray:
        """[y, x] tail effective sample size of the worst parameter; NaN for importance sampling."""
        return self._diagnostic("ess_tail")

    @property
    def divergences(self) -> np.ndarray:
        """[y, x] number of divergent transitions of NUTS."""
        return self._diagnostic("divergences")

    @property
    def status(self) -> np.ndarray:
        """[y, x] int32: 0 = trustworthy, else why not (`ifujax.POSTERIOR_FLAGS`)."""
        return status_map(self.chosen, self.sampled.diagnostics["status"]).reshape(self.shape)

    def describe(self, x: int, y: int) -> str:
        """Return the posterior of one spaxel in words and numbers: medians, 68 % ranges, 95 % limits, diagnostics, priors."""
        from ifujax.lines.posteriors.words import description

        return description(self, x, y)

    def summary(self) -> str:
        """Return one line: how many spaxels were sampled, by what, how many are not to be trusted, time."""
        from ifujax.lines.posteriors.words import summary

        return summary(self)

    def __repr__(self) -> str:
        ny, nx = self.shape
        return f"<CubePosterior {ny} x {nx} spaxels (y, x), lines {', '.join(self.lines)}: {self.summary()}>"

    def plot(self, x: int, y: int, parameters: Sequence[tuple[str, str]] | None = None) -> Figure:
        """Return a pair plot of one spaxel's posterior. 0-based pixels.

        Parameters
        ----------
        parameters : sequence of (line, quantity), optional
            What to show; by default the free parameters of the most significant lines.
        """
        from ifujax.lines.posteriors.figures import pair_figure

        self.fit._row(x, y)
        return pair_figure(self, x, y, parameters)

    def plot_predictive(self, x: int, y: int) -> Figure:
        """Return a figure of one spaxel's data and the models of its draws. 0-based pixels."""
        from ifujax.lines.posteriors.figures import predictive_figure

        self.fit._row(x, y)
        return predictive_figure(self, x, y)

    def plot_map(self, line: str, quantity: str) -> Figure:
        """Return a figure of the maps of the 16, 50 and 84 % quantiles."""
        from ifujax.lines.posteriors.figures import percentile_figure

        self._find((line, quantity))
        return percentile_figure(self, line, quantity)

    def plot_tiers(self) -> Figure:
        """Return a figure of what made each spaxel's draws, and of their diagnostics."""
        from ifujax.lines.posteriors.figures import tiers_figure

        return tiers_figure(self)

    def plot_page(self, line: str | None = None) -> Figure:
        """Return one page: percentiles of a line (the most detected one by default), tiers and diagnostics."""
        from ifujax.lines.posteriors.figures import page_figure

        return page_figure(self, line)

    def write(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write maps of percentiles and diagnostics to a FITS file."""
        from ifujax.lines.posteriors.product import write_posterior_product

        return write_posterior_product(self, Path(path), overwrite=overwrite)
