"""`CubeFit`: the maps of a fitted cube, their errors, and the spectra behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import UsageError, unknown
from ifujax.inference.goodness import Structure
from ifujax.inference.status import STATUS_FLAGS, STRUCTURED_RESIDUALS, WARN_FLAGS, Flag, decode
from ifujax.inference.uncertainty import Derived
from ifujax.lines.chunk import ChunkFitter, ChunkResult
from ifujax.lines.config import LineFitConfig
from ifujax.lines.line_spectra import line_spectra
from ifujax.lines.noise import WorstStretch, in_words, judged, noise_scale, worst_in_words, worst_stretch
from ifujax.lines.setup import Setup
from ifujax.models.continuum import legendre_basis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.lines.spatial_noise import NoiseCorrelation
    from ifujax.lines.velocity_width import VelocityWidth

_PLAUSIBLE = (1.0 / 3.0, 3.0)
"""Median reduced chi2 beyond which a summary says that something doesn't fit."""
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Spectra:
    """Spectra of some spaxels, rest frame: each (n, wave); `lines` the sum of `components` (n, lines, wave).

    `bad` voxels are unusable in the input; `fitted` ones had a weight in the fit.
    """

    rest_wavelength: np.ndarray
    data: np.ndarray
    variance: np.ndarray | None
    bad: np.ndarray
    stellar: np.ndarray | None
    continuum: np.ndarray
    lines: np.ndarray
    components: np.ndarray
    fitted: np.ndarray

    @property
    def model(self) -> np.ndarray:
        """Lines, continuum and stellar model together."""
        total = self.continuum + self.lines
        return total if self.stellar is None else total + self.stellar


class ErrorMaps:
    """1 sigma errors, indexed like the fit itself: ``fit.error["ha", "velocity"]``."""

    def __init__(self, fit: CubeFit) -> None:
        self._fit = fit

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        return self._fit._map(self._fit.errors, key)


@dataclass(frozen=True, eq=False, repr=False)
class CubeFit:
    """A fitted cube. ``fit["ha", "velocity"]`` is a [y, x] map, ``fit.error["ha", "velocity"]`` its error.

    Quantities of each line: ``flux`` (data unit x Angstrom), ``amplitude`` (peak, data unit), ``velocity``,
    ``velocity_dispersion`` (intrinsic) and ``sigma`` (observed), all km/s, ``snr`` (flux over its error),
    ``equivalent_width`` (rest Angstrom, emission negative), and ``flux_direct`` and ``equivalent_width_direct``, read
    off the data; ``h3``, ``h4`` and ``lorentz_fwhm`` of lines whose shape has them. NaN where there is no fit, or
    where the data do not constrain the quantity. Flux densities are those of the rest frame, (1 + z) times the
    file's; integrated fluxes are the observed ones.

    Attributes
    ----------
    cube : Cube
        Cut to the fitting window.
    config : LineFitConfig
    seconds : float
        Wall time of the fit.
    """

    cube: Cube
    config: LineFitConfig
    fitter: ChunkFitter = field(repr=False)
    found: ChunkResult = field(repr=False)
    seconds: float

    @classmethod
    def of(cls, fitter: ChunkFitter, found: ChunkResult, seconds: float) -> CubeFit:
        """Make a fit of a chunk that holds every spaxel."""
        return cls(fitter.cube, fitter.config, fitter, found, seconds)

    @property
    def setup(self) -> Setup:
        """Lines, model and parameter space."""
        return self.fitter.setup

    @property
    def n_free(self) -> int:
        """Free parameters of one spaxel."""
        return self.fitter.n_free

    @cached_property
    def values(self) -> Mapping[str, np.ndarray]:
        """Every quantity, (lines, spaxels)."""
        named = {name: self.found.values[:, :, q].T for q, name in enumerate(self.fitter.quantities)}
        with np.errstate(invalid="ignore", divide="ignore"):
            named["snr"] = named["flux"] / self.errors["flux"]
        return named

    @cached_property
    def errors(self) -> Mapping[str, np.ndarray]:
        """1 sigma errors of every quantity, (lines, spaxels)."""
        named = {name: self.found.errors[:, :, q].T for q, name in enumerate(self.fitter.quantities)}
        named["snr"] = np.full_like(named["flux"], np.nan)
        return named

    @property
    def draws(self) -> Mapping[str, np.ndarray]:
        """Monte Carlo draws of every quantity, (realisations, lines, y, x); empty without them."""
        return {
            name: np.moveaxis(self.found.draws[..., q], 0, -1).reshape(*self.found.draws.shape[1:3], *self.shape)
            for q, name in enumerate(self.fitter.quantities)
        }

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of the fitted lines."""
        return self.setup.model.names

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what is reported of each line."""
        names = self.fitter.quantities
        at = names.index("sigma") + 1
        return (*names[:at], "snr", *names[at:])

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)"""
        return self.cube.shape[1], self.cube.shape[2]

    def _image(self, flat: np.ndarray) -> np.ndarray:
        return flat.reshape(self.shape)

    def _map(self, source: Mapping[str, np.ndarray], key: tuple[str, str]) -> np.ndarray:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise UsageError(f"key must be a line and a quantity, such as ['ha', 'flux']; got {key!r}.")
        line, quantity = key
        if line not in self.lines:
            raise UsageError(unknown("line", line, self.lines))
        if quantity not in self.quantities:
            raise UsageError(unknown("quantity", quantity, self.quantities))
        return self._image(source[quantity][self.lines.index(line)])

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        return self._map(self.values, key)

    @cached_property
    def error(self) -> ErrorMaps:
        """1 sigma errors by line and quantity."""
        return ErrorMaps(self)

    @property
    def status(self) -> np.ndarray:
        """[y, x] int32: 0 = fitted, else why not (`ifujax.STATUS_FLAGS`)."""
        return self._image(self.found.status)

    @property
    def warn(self) -> np.ndarray:
        """[y, x] int32: advisory bits (`ifujax.WARN_FLAGS`)."""
        return self._image(self.found.warn)

    def line_warn(self, line: str) -> np.ndarray:
        """Return the advisory bits [y, x] that concern one line: what is known, and how well, differs from line to line.

        Of a line, ``no_detection`` says that its own flux is below 3 errors; bits of the whole spectrum (``chi2_not_1`` and
        the like) are in `warn` alone.
        """
        if line not in self.lines:
            raise UsageError(unknown("line", line, self.lines))
        return self._image(self.found.line_warn[:, self.lines.index(line)])

    @property
    def chi2(self) -> np.ndarray:
        """[y, x] sum of squared residuals over sigma."""
        return self._image(self.found.chi2)

    @property
    def n_good(self) -> np.ndarray:
        """[y, x] number of pixels that were fitted."""
        return self._image(self.found.n_good)

    @property
    def dof(self) -> np.ndarray:
        """[y, x] degrees of freedom: pixels (over `instrument_dispersion`) less free parameters."""
        return self.fitter.dof(self.n_good)

    @property
    def reduced_chi2(self) -> np.ndarray:
        """[y, x] chi2 over degrees of freedom; NaN where there are none."""
        dof = self.dof
        return np.where(dof > 0, self.chi2 / np.where(dof > 0, dof, 1), np.nan)

    @property
    def mode(self) -> str:
        """What became of the continuum: joint, rejection, given or none."""
        return "given" if self.fitter.frozen is not None else self.config.continuum.mode

    def spectra(self, rows: np.ndarray, *, components: bool = True) -> Spectra:
        """Return data and model of some spaxels.

        Parameters
        ----------
        rows : array of int
            Flat indices ``y * n_x + x``.
        components : bool
            Whether to work out each line by itself; else `Spectra.components` has no lines.
        """
        rows = np.asarray(rows, dtype=int)
        spaxels = self.cube.spaxels(rows)
        n_wave = self.cube.shape[0]
        model = self.setup.model
        solution = dict(zip(model.parameter_names, self.found.solution[rows].T))
        if components:
            each = line_spectra(model, self.fitter.coords, solution, n_wave, each=True)
            total = each.sum(axis=1)
        else:
            each = np.empty((len(rows), 0, n_wave))
            total = line_spectra(model, self.fitter.coords, solution, n_wave, each=False)
        if self.found.linear.shape[1]:
            rest = 0.5 * (self.cube.rest_edges[1:] + self.cube.rest_edges[:-1])
            axis = rest if model.n_continuum else self.cube.rest_wavelength
            ends = self.cube.rest_wavelength[[0, -1]]
            continuum = self.found.linear[rows] @ legendre_basis(axis, ends[0], ends[1], self.found.linear.shape[1] - 1)
        else:
            continuum = np.zeros((len(rows), n_wave))
        if self.fitter.frozen is not None:
            frozen = (
                self.fitter.frozen[None] if self.fitter.frozen.ndim == 1 else self.fitter.frozen.reshape(n_wave, -1)[:, rows].T
            )
            continuum = continuum + frozen * (1.0 + self.cube.redshift)
        failed = self.found.status[rows] != 0
        each[failed], total[failed] = np.nan, np.nan
        return Spectra(
            rest_wavelength=self.cube.rest_wavelength,
            data=spaxels.values,
            variance=spaxels.variance,
            bad=spaxels.bad,
            stellar=spaxels.stellar,
            continuum=continuum,
            lines=total,
            components=each,
            fitted=np.unpackbits(self.found.fitted[rows], axis=1, count=n_wave).astype(bool),
        )

    def evaluate(self, derived: Derived, rows: np.ndarray | None = None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return further quantities of the fitted spectra, and their 1 sigma errors, from the curvature at the solution.

        Parameters
        ----------
        derived : Derived
            ``(model, params, linear, coords)`` functions of one spectrum; see `ifujax.inference.uncertainty`.
        rows : array of int, optional
            Flat indices ``y * n_x + x``; all spaxels by default.

        Returns
        -------
        values, errors : dict of str to array (rows,)
            NaN where there is no fit.
        """
        rows = np.arange(self.cube.n_spaxels) if rows is None else np.asarray(rows, dtype=int)
        parts = []
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            mine = rows[first : first + _ROWS_AT_ONCE]
            solution = np.where((self.found.status[mine] == 0)[:, None], self.found.solution[mine], np.nan)
            result = self.fitter.evaluate(mine, solution, self.found.unseen[mine], derived)
            parts.append(
                (result.derived, {name: error * self._error_scale[mine] for name, error in result.derived_error.items()})
            )
        names = parts[0][0]
        return tuple({name: np.concatenate([part[k][name] for part in parts]) for name in names} for k in (0, 1))  # type: ignore[return-value]

    @cached_property
    def _error_scale(self) -> np.ndarray:
        """What errors from the curvature are multiplied by, (spaxels,): 1, or the root of chi2 per degree of freedom."""
        return noise_scale(self.fitter, self.found)

    @cached_property
    def worst_stretch(self) -> WorstStretch:
        """Where the residuals of each spaxel are worst: maps ``.wavelength``, ``.width`` (rest Angstrom), ``.share`` of chi2."""
        return worst_stretch(self.structure, self.cube.rest_edges, self.shape)

    @cached_property
    def structure(self) -> Structure:
        """What the residuals of each spaxel show beside noise, one entry a spaxel."""
        return judged(self.fitter, self.found)

    @cached_property
    def noise_correlation(self) -> NoiseCorrelation:
        """The correlation of the noise, measured in the residuals: along wavelength, and between spaxels."""
        from ifujax.lines.spatial_noise import measured

        return measured(self)

    def velocity_width(
        self,
        lines: str | Sequence[str],
        width: float = 80.0,
        *,
        rest_wavelength: float | None = None,
        sigma_factor: float = 5.0,
        clip_negative_flux: bool = False,
        smooth: float | None = None,
    ) -> VelocityWidth:
        """Return the velocity width of a line, W80 by default, with errors: of the model, and read off the data.

        Parameters
        ----------
        lines : str or sequence of str
            A line, or several components of one line together.
        width : float
            Percentage of the flux between the lower and the upper velocity.
        rest_wavelength : float, optional
            What has velocity 0, Angstrom; by default the rest wavelength of the lines, which must then have one.
        sigma_factor : float
            Half-width of the window for the measurement on the data: this many times the distance from the median to the
            velocities below and above which 15.87 % of the model's flux lies, on either side.
        clip_negative_flux : bool
            Set negative flux densities to 0 before measuring the data, as IFSCube does. It turns noise into flux: widths
            come out too large, the more so the fainter the line, and their errors know nothing of it.
        smooth : float, optional
            Standard deviation, in pixels, of a Gaussian with which the data are smoothed first. It broadens lines.

        Returns
        -------
        VelocityWidth
            ``.model.width``, ``.model.lower``, ``.upper``, ``.median``, ``.centroid``, each a [y, x] map in km/s, with
            ``.model.error.width`` and so on; the same of ``.direct`` and, given an LSF, of ``.intrinsic``.
        """
        from ifujax.lines.velocity_width import velocity_width

        return velocity_width(
            self,
            lines,
            width,
            rest_wavelength=rest_wavelength,
            sigma_factor=sigma_factor,
            clip_negative_flux=clip_negative_flux,
            smooth=smooth,
        )

    @cached_property
    def configured_widths(self) -> list[VelocityWidth]:
        """The velocity widths that the configuration asks for (``[velocity_width]``), which go into the products."""
        from ifujax.lines.products.width_planes import configured_widths

        return configured_widths(self)

    def _row(self, x: int, y: int) -> int:
        ny, nx = self.shape
        if not (0 <= x < nx and 0 <= y < ny):
            raise UsageError(f"x, y must lie within 0..{nx - 1}, 0..{ny - 1}; got x={x}, y={y}.")
        return y * nx + x

    def describe(self, x: int, y: int) -> str:
        """Return the fit of one spaxel in words and numbers. 0-based pixels."""
        row = self._row(x, y)
        status, warn = int(self.found.status[row]), int(self.found.warn[row])
        head = f"spaxel x={x}, y={y}: "
        if status:
            return head + "not fitted: " + "; ".join(flag.sentence for flag in decode(status, STATUS_FLAGS)) + "."
        text = [
            head + f"chi2 {self.found.chi2[row]:.1f}, {int(self.found.n_good[row])} pixels, {self.n_free} free parameters, "
            f"{self.dof.flat[row]:.4g} degrees of freedom{self._why_dof}, reduced chi2 {self.reduced_chi2.flat[row]:.3f}"
        ]
        if self.found.draws.shape[1]:
            text.append(f"  errors: scatter of {self.found.draws.shape[1]} Monte Carlo runs")
        units = self.units
        for i, line in enumerate(self.lines):
            text.append(f"  {line} ({self.setup.lines[i].rest_wavelength:g} Angstrom)")
            for name in self.quantities:
                value, error = self.values[name][i, row] + 0.0, self.errors[name][i, row]  # + 0: no "-0"
                shown = f"{value:12.5g}" if name == "snr" else f"{value:12.5g} +- {error:.2g}"
                text.append(f"    {name:<24}{shown} {units[name]}".rstrip())
        text += [f"  note: {flag.sentence}{self._where(flag, x, y)}" for flag in decode(warn, WARN_FLAGS)]
        if self.fitter.correlation is not None and self.fitter.pooled is not None:
            text.append(f"  errors allow for noise that is correlated along wavelength: {in_words(self.fitter.pooled)}")
        if self.config.fit.ifscube_compat and self.cube.uncertainty is None:
            text.append("  note: chi2 is IFSCube's: of residuals over the flux scale, as there is no variance")
        return "\n".join(text)

    def _where(self, flag: Flag, x: int, y: int) -> str:
        if flag != STRUCTURED_RESIDUALS:
            return ""
        at = self.worst_stretch
        return worst_in_words(at.wavelength[y, x], at.width[y, x], at.share[y, x])

    @property
    def units(self) -> dict[str, str]:
        """Unit of each quantity."""
        from ifujax.io.units import fits_unit

        density, flux = fits_unit(self.cube.unit), fits_unit(self.cube.unit, times="Angstrom")
        return {
            "flux": flux,
            "amplitude": density,
            "velocity": "km/s",
            "velocity_dispersion": "km/s",
            "sigma": "km/s",
            "snr": "",
            "equivalent_width": "Angstrom",
            "flux_direct": flux,
            "equivalent_width_direct": "Angstrom",
            "h3": "",
            "h4": "",
            "lorentz_fwhm": "km/s",
        }

    @property
    def _why_dof(self) -> str:
        pixels = self.config.fit.instrument_dispersion
        return "" if pixels == 1 else f" ({pixels:g} pixels count as one datum)"

    def __repr__(self) -> str:
        ny, nx = self.shape
        name = f"{self.cube.path.name}, " if self.cube.path else ""
        return f"<CubeFit {name}{ny} x {nx} spaxels (y, x), lines {', '.join(self.lines)}: {self.summary()}>"

    def summary(self) -> str:
        """Return one line: fitted, failed by reason, median reduced chi2, time."""
        n = self.found.status.size
        fitted = int((self.found.status == 0).sum())
        parts = [f"{fitted} fitted"]
        for flag in STATUS_FLAGS:
            count = int(((self.found.status & flag.value) != 0).sum())
            if count:
                parts.append(f"{count} {flag.name.replace('_', ' ')}")
        chi2 = ""
        if fitted and np.isfinite(self.reduced_chi2).any():
            median = float(np.nanmedian(self.reduced_chi2))
            chi2 = f"; median reduced chi2 {median:.2f}"
            if not _PLAUSIBLE[0] <= median <= _PLAUSIBLE[1]:
                chi2 += " (far from 1: the variance does not match the scatter, or the model the data; see noise='scaled')"
        return f"{n} spaxels: {', '.join(parts)}{chi2}; {self.seconds:.1f} s"

    def plot(self, x: int, y: int) -> Figure:
        """Return a figure of one spaxel: data, model, components, residuals. 0-based pixels."""
        from ifujax.lines.figures import spaxel_figure

        self._row(x, y)
        return spaxel_figure(self, x, y)

    def plot_map(self, line: str, quantity: str) -> Figure:
        """Return a figure of one map."""
        from ifujax.lines.figures import map_figure

        return map_figure(self, line, quantity)

    def plot_page(self, line: str | None = None) -> Figure:
        """Return one page: maps of a line (the strongest by default) and example spaxels."""
        from ifujax.lines.figures import page_figure

        return page_figure(self, line)

    def write(self, path: str | Path, overwrite: bool = False, progress: Callable[[str, int, int], None] | None = None) -> Path:
        """Write the FITS product (IFSCube's extensions, and errors). See the docs for its layout."""
        from ifujax.lines.products.product import write_product

        return write_product(self, Path(path), overwrite=overwrite, progress=progress)

    def write_maps(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one named 2-D extension for each quantity and its error."""
        from ifujax.lines.products.maps import write_maps

        return write_maps(self, Path(path), overwrite=overwrite)
