"""`SpectrumPosterior`: that of a cube of one spaxel, numbers in place of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.lines.posteriors.results import CubePosterior, Maps
from ifujax.lines.spectrum import SpectrumFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Numbers:
    """One statistic of every quantity of a spectrum: ``post.error["ha", "flux"]``, or ``post.error("ha", "flux")``."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps

    def __getitem__(self, key: tuple[str, str]) -> float:
        return float(self._maps[key][0, 0])

    def __call__(self, line: str, quantity: str) -> float:
        return self[line, quantity]


@dataclass(frozen=True, eq=False, repr=False)
class SpectrumPosterior:
    """Posterior of a spectrum. ``post["ha", "flux"]`` is the median.

    The quantities are those of `CubePosterior`; what are maps there are numbers here.

    Attributes
    ----------
    fit : SpectrumFit
    as_cube : CubePosterior
        The same posterior as that of a cube of one spaxel.
    """

    fit: SpectrumFit
    as_cube: CubePosterior = field(repr=False)

    def __getitem__(self, key: tuple[str, str]) -> float:
        return float(self.as_cube[key][0, 0])

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of the lines."""
        return self.as_cube.lines

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what is known of each line."""
        return self.as_cube.quantities

    @property
    def ratios(self) -> tuple[tuple[str, str], ...]:
        """Pairs of lines whose ratios were asked for."""
        return self.as_cube.ratios

    @property
    def widths(self) -> tuple[tuple[str, ...], ...]:
        """Groups of lines whose velocity widths were asked for."""
        return self.as_cube.widths

    @property
    def units(self) -> dict[str, str]:
        """Unit of each quantity."""
        return self.as_cube.units

    @property
    def seed(self) -> int:
        return self.as_cube.seed

    @property
    def method(self) -> str:
        """How the draws were to be made: auto, importance or nuts."""
        return self.as_cube.method

    @property
    def store(self) -> Path | None:
        """The file that holds the draws."""
        return self.as_cube.store

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.as_cube.seconds

    @property
    def error(self) -> Numbers:
        """Half the range from the 16 % to the 84 % quantile, by line and quantity."""
        return Numbers(self.as_cube.error)

    @property
    def mean(self) -> Numbers:
        """Posterior means, by line and quantity."""
        return Numbers(self.as_cube.mean)

    @property
    def sd(self) -> Numbers:
        """Posterior standard deviations, by line and quantity."""
        return Numbers(self.as_cube.sd)

    def quantile(self, line: str, quantity: str, q: float) -> float:
        """Return a quantile."""
        return float(self.as_cube.quantile(line, quantity, q)[0, 0])

    def upper_limit(self, line: str, quantity: str = "flux", level: float = 0.95) -> float:
        """Return the value below which a quantity lies with a probability of `level`."""
        return self.quantile(line, quantity, level)

    def detected(self, line: str) -> bool:
        """Return whether a line is detected: the median of its flux is beyond 3 times half its 16 to 84 % range."""
        return bool(self.as_cube.detected(line)[0, 0])

    def ratio(self, numerator: str, denominator: str, q: float = 0.5) -> float:
        """Return a quantile of the decimal logarithm of a flux ratio."""
        return float(self.as_cube.ratio(numerator, denominator, q)[0, 0])

    def velocity_width(self, lines: str | tuple[str, ...], q: float = 0.5) -> float:
        """Return a quantile of a velocity width that was asked for with ``widths=``, km/s."""
        return float(self.as_cube.velocity_width(lines, q)[0, 0])

    def draws(self, line: str, quantity: str) -> np.ndarray:
        """Return the draws (chain, draw) of a quantity; NaN where there are none."""
        return self.as_cube.draws(line, quantity, 0, 0)

    @property
    def tier(self) -> int:
        """0 no draws, 1 importance sampling, 2 NUTS."""
        return int(self.as_cube.tier[0, 0])

    @property
    def khat(self) -> float:
        """Pareto k-hat of importance sampling."""
        return float(self.as_cube.khat[0, 0])

    @property
    def ess(self) -> float:
        """Effective number of the draws, of the worst parameter, in its centre and its tails."""
        return float(self.as_cube.ess[0, 0])

    @property
    def rhat(self) -> float:
        """R-hat of the worst parameter; NaN for importance sampling."""
        return float(self.as_cube.rhat[0, 0])

    @property
    def ess_bulk(self) -> float:
        """Bulk effective sample size of the worst parameter; NaN for importance sampling."""
        return float(self.as_cube.ess_bulk[0, 0])

    @property
    def ess_tail(self) -> float:
        """Tail effective sample size of the worst parameter; NaN for importance sampling."""
        return float(self.as_cube.ess_tail[0, 0])

    @property
    def divergences(self) -> int:
        """Number of divergent transitions of NUTS."""
        return int(self.as_cube.divergences[0, 0])

    @property
    def status(self) -> int:
        """0 = trustworthy, else why not (`ifujax.inference.status.POSTERIOR_FLAGS`)."""
        return int(self.as_cube.status[0, 0])

    def describe(self) -> str:
        """Return the posterior in words and numbers: medians, 68 % ranges, 95 % limits, diagnostics, priors."""
        path = self.fit.spectrum.path
        return self.as_cube.describe(0, 0).replace("spaxel x=0, y=0", path.name if path else "spectrum", 1)

    def summary(self) -> str:
        """Return one line: what made the draws, whether they are to be trusted, time."""
        return self.as_cube.summary().replace("1 spaxel sampled", "spectrum sampled", 1)

    def __repr__(self) -> str:
        return f"<SpectrumPosterior, lines {', '.join(self.lines)}: {self.summary()}>"

    def to_arviz(self) -> Any:
        """Return the draws as ArviZ takes them: `arviz.InferenceData` (ArviZ 0) or `xarray.DataTree` (1 and later)."""
        return self.as_cube.to_arviz(0, 0)

    def plot(self, parameters: Sequence[tuple[str, str]] | None = None) -> Figure:
        """Return a pair plot of the posterior, or of some (line, quantity) of it."""
        return self.as_cube.plot(0, 0, parameters)

    def plot_predictive(self) -> Figure:
        """Return a figure of the data and the models of the draws."""
        return self.as_cube.plot_predictive(0, 0)

    def write(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write percentiles and diagnostics to a FITS file, as maps of one spaxel."""
        return self.as_cube.write(path, overwrite=overwrite)
