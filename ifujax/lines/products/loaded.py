"""`LoadedFit`: a product read back, with the reading interface of `CubeFit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ifujax.data.cube import Cube
from ifujax.data.spaxels import gather
from ifujax.errors import DataError, UsageError, unknown
from ifujax.inference.precision import working_precision
from ifujax.inference.status import NOT_CONVERGED, STATUS_FLAGS, STRUCTURED_RESIDUALS, WARN_FLAGS, decode
from ifujax.io.units import fits_unit
from ifujax.lines.noise import worst_in_words
from ifujax.lines.products.ifscube import status_sentence
from ifujax.models.doppler import C_KMS
from ifujax.models.emission import FWHM_OF_SIGMA, EmissionSpectrum

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from matplotlib.figure import Figure

    from ifujax.lines.results import Spectra
    from ifujax.lines.velocity_width import VelocityWidth

Generation = Literal["ifujax", "ifscube", "ifscube-2018"]

_KILOMETRES = ("velocity", "velocity_dispersion", "sigma", "lorentz_fwhm")
_ANGSTROM = ("equivalent_width", "equivalent_width_direct")
_DENSITY, _FLUX = ("amplitude",), ("flux", "flux_direct")


class LoadedErrors:
    """1 sigma errors, indexed like the fit itself: ``fit.error["ha", "velocity"]``."""

    def __init__(self, fit: LoadedFit) -> None:
        self._fit = fit

    def __getitem__(self, key: tuple[str, str]) -> Any:
        fit = self._fit
        fit[key]  # the sentence about an unknown line or quantity comes first
        if key[1] not in fit.errors:
            held = f"those of {', '.join(fit.errors)} only" if fit.errors else "none"
            raise DataError(
                f"{fit.path.name} must hold errors of {key[1]}; got {held}. IFSCube has them of its parameters, after Monte "
                "Carlo runs; fit the data with ifujax to have them of everything."
            )
        return fit._map(fit.errors, key)


@dataclass(frozen=True, eq=False, repr=False)
class LoadedFit:
    """The product of a fit, read from a file. ``fit["ha", "velocity"]`` is a [y, x] map, as of `CubeFit`.

    Flux densities are those of the rest frame, integrated fluxes the observed ones, ``sigma`` holds the
    instrument's width. Of the product of a single spectrum, which is a cube of one spaxel here, ``fit["ha", "velocity"]``,
    its error, `status`, `reduced_chi2` and the like are numbers, as of `SpectrumFit`.

    Attributes
    ----------
    path : Path
    generation : "ifujax", "ifscube" or "ifscube-2018"
        Who wrote the file.
    redshift : float
        Of the rest frame that the data are in.
    lines : tuple of str
    line_wavelengths : tuple of float
        Rest wavelengths, Angstrom; NaN where the file doesn't tell.
    shapes : tuple of str
        Of each line's profile: "gaussian", "gauss_hermite", ...
    profile : "integrated" or "sampled"
        Mean over a pixel, or the value at its centre.
    h4_constant : float
        Constant term of sqrt(24) H4: 3, or IFSCube's -3 where it was not converted.
    unit : str
        Of flux densities, as the file has it.
    config : mapping of str to str
        FITCONFIG: ``section.option`` and what was written there. Empty if the file has none.
    notes : tuple of str
        What was converted, is missing, or must be kept in mind.
    values, errors, draws : mapping of str to array
        By quantity, (lines, y, x); `draws` (realisations, lines, y, x) of Monte Carlo runs, empty without.
    widths : mapping of str to VelocityWidth
        Those that the configuration asked for, by the names of their lines, joined with ``+``.
    maps : mapping of str to (y, x) array
        ``status``, ``warn``, ``reduced_chi2`` and, where the file tells, ``dof`` and ``ifscube_status``; of a choice among
        components also ``choice``, ``ncomp``, ``evidence``, and (candidate, y, x) ``bic`` or ``aic`` and ``weight``. Maps
        that have no other place are here by the names of their extensions.
    celestial : WCS or None
    cube : Cube or None
        Data and variance in the rest frame (its `redshift` is 0); None for a file of maps.
    continuum, model : (wave, y, x) array or None
        `model` is the sum of lines, `continuum` and the cube's `stellar`.
    is_spectrum : bool
    """

    path: Path
    generation: Generation
    redshift: float
    lines: tuple[str, ...]
    line_wavelengths: tuple[float, ...]
    shapes: tuple[str, ...]
    profile: Literal["integrated", "sampled"]
    h4_constant: float = field(repr=False)
    unit: str
    config: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = field(repr=False)
    values: Mapping[str, np.ndarray] = field(repr=False)
    errors: Mapping[str, np.ndarray] = field(repr=False)
    draws: Mapping[str, np.ndarray] = field(repr=False)
    widths: Mapping[str, VelocityWidth] = field(repr=False)
    maps: Mapping[str, np.ndarray] = field(repr=False)
    celestial: WCS | None = field(repr=False)
    cube: Cube | None = field(repr=False)
    continuum: Any | None = field(repr=False)
    model: Any | None = field(repr=False)
    is_spectrum: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)"""
        ny, nx = self.maps["status"].shape
        return ny, nx

    def _shown(self, image: np.ndarray) -> Any:
        """Return a map, or the number that a spectrum has in its place."""
        return image[0, 0] if self.is_spectrum else image

    @property
    def status(self) -> Any:
        """[y, x] int32, as of `CubeFit`: 0 = fitted, else why not (`ifujax.STATUS_FLAGS`).

        Of IFSCube's spaxels with codes 8, 9 and the like, marked ``not_converged`` here, the values are kept.
        """
        return self._shown(self.maps["status"])

    @property
    def warn(self) -> Any:
        """[y, x] int32: advisory bits (`ifujax.WARN_FLAGS`)."""
        return self._shown(self.maps["warn"])

    def line_warn(self, line: str) -> Any:
        """Return the advisory bits [y, x] that concern one line; 0 where the file has none."""
        if line not in self.lines:
            raise UsageError(unknown("line", line, self.lines))
        planes = self.maps.get("linewarn", np.zeros((len(self.lines), *self.shape)))
        return self._shown(planes[self.lines.index(line)].astype(np.int32))

    @property
    def ifscube_status(self) -> Any:
        """[y, x] int32: IFSCube's own codes; None where it did not write the file, or the file has none."""
        return self._shown(self.maps["ifscube_status"]) if "ifscube_status" in self.maps else None

    @property
    def reduced_chi2(self) -> Any:
        """[y, x] chi2 over degrees of freedom, as the file has it."""
        return self._shown(self.maps["reduced_chi2"])

    @property
    def dof(self) -> Any:
        """[y, x] degrees of freedom; DataError where the file keeps reduced chi2 only."""
        if "dof" not in self.maps:
            raise DataError(f"{self.path.name} must hold degrees of freedom; got reduced chi2 alone. Use reduced_chi2.")
        return self._shown(self.maps["dof"])

    @property
    def chi2(self) -> Any:
        """[y, x] sum of squared residuals over sigma; DataError where the file keeps reduced chi2 only."""
        return self.dof * self.reduced_chi2

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what the file holds of each line."""
        return tuple(self.values)

    def _map(self, source: Mapping[str, np.ndarray], key: tuple[str, str]) -> Any:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise UsageError(f"key must be a line and a quantity, such as ['ha', 'flux']; got {key!r}.")
        line, quantity = key
        if line not in self.lines:
            raise UsageError(unknown("line", line, self.lines))
        if quantity not in source:
            raise UsageError(unknown("quantity", quantity, source))
        return self._shown(source[quantity][self.lines.index(line)])

    def __getitem__(self, key: tuple[str, str]) -> Any:
        return self._map(self.values, key)

    @cached_property
    def error(self) -> LoadedErrors:
        """1 sigma errors by line and quantity; DataError where the file has none."""
        return LoadedErrors(self)

    def __repr__(self) -> str:
        return f"<LoadedFit {self.path.name} ({self.generation}), lines {', '.join(self.lines)}: {self.summary()}>"

    def velocity_width(self, lines: str | Sequence[str], width: float | None = None) -> VelocityWidth:
        """Return the velocity widths of a line, or of several together, that the fit was asked for (``[velocity_width]``).

        Parameters
        ----------
        lines : str or sequence of str
        width : float, optional
            Percentage of the flux; that of the file if not given.

        Raises
        ------
        DataError
            If the file has none of these lines, or of another percentage.
        """
        group = lines if isinstance(lines, str) else "+".join(lines)
        if group not in self.widths:
            held = f"those of {', '.join(self.widths)} only" if self.widths else "none"
            raise DataError(
                f"{self.path.name} must hold velocity widths of {group}; got {held}. Ask for them in [velocity_width] of the "
                "configuration, or of a fresh fit with fit.velocity_width."
            )
        found = self.widths[group]
        if width is not None and width != found.percent:
            raise DataError(
                f"{self.path.name} must hold the velocity width of {width:g} percent; got that of {found.percent:g} percent. "
                "Ask for it in [velocity_width] of the configuration, or of a fresh fit with fit.velocity_width."
            )
        return found.spaxel(0, 0) if self.is_spectrum else found

    @property
    def units(self) -> dict[str, str]:
        """Unit of each quantity."""
        density, flux = fits_unit(self.unit), fits_unit(self.unit, times="Angstrom")
        known = dict.fromkeys(_KILOMETRES, "km/s") | dict.fromkeys(_ANGSTROM, "Angstrom")
        known |= dict.fromkeys(_DENSITY, density) | dict.fromkeys(_FLUX, flux)
        return {name: known.get(name, "") for name in self.quantities}

    @property
    def rest_wavelength(self) -> np.ndarray:
        """(wave,) Angstrom."""
        return self._spectral().wavelength

    def _spectral(self) -> Cube:
        if self.cube is None:
            raise DataError(
                f"{self.path.name} must hold spectra and their wavelengths; got none. Load the product with FITSPEC and RESTWAVE."
            )
        return self.cube

    def _row(self, x: int, y: int) -> int:
        ny, nx = self.shape
        if not (0 <= x < nx and 0 <= y < ny):
            raise UsageError(f"x, y must lie within 0..{nx - 1}, 0..{ny - 1}; got x={x}, y={y}.")
        return y * nx + x

    def spectra(self, rows: Any = (0,)) -> Spectra:
        """Return data and model of some spaxels (flat indices ``y * n_x + x``), each (n, wave).

        The lines by themselves are worked out from the parameters; their sum is the file's model less continuum and
        stellar spectrum. After IFSCube's Monte Carlo runs, whose model is that of the last noise realisation, it is
        the parameters'.
        """
        from ifujax.lines.results import Spectra

        cube, rows = self._spectral(), np.asarray(rows, dtype=int)
        spaxels = cube.spaxels(rows)
        n = (len(rows), cube.shape[0])

        def picked(planes: Any | None, missing: float) -> np.ndarray:
            if planes is None:
                return np.full(n, missing)
            return gather(planes, rows, np.float64)

        model = picked(self.model, np.nan)
        stellar = None if cube.stellar is None else picked(cube.stellar, 0.0)
        continuum = picked(self.continuum, 0.0)
        components = np.stack([self._components(int(row)) for row in rows]) if len(rows) else np.empty((0, len(self.lines), n[1]))
        stale = self.generation != "ifujax" and bool(self.errors)
        lines = components.sum(axis=1)
        if self.model is not None and not stale:
            lines = model - continuum - (0.0 if stellar is None else stellar)
        if cube.flags is not None:
            fitted = gather(cube.flags, rows) == 0
        else:
            fitted = ~spaxels.bad & (np.isfinite(model) | (self.model is None))
        return Spectra(
            rest_wavelength=cube.wavelength,
            data=spaxels.values,
            variance=spaxels.variance,
            bad=spaxels.bad,
            stellar=stellar,
            continuum=continuum,
            lines=lines,
            components=components,
            fitted=fitted,
        )

    @cached_property
    def _profiles(self) -> tuple[EmissionSpectrum, Any]:
        cube = self._spectral()
        model = EmissionSpectrum(
            names=self.lines,
            strengths=("amplitude",) * len(self.lines),
            shapes=tuple("voigt" if shape == "lorentzian" else shape for shape in self.shapes),
            profile=self.profile,
            resolved=False,
            n_continuum=0,
            rest_wavelengths=np.array(self.line_wavelengths),
            redshift=0.0,
            spread=None,
            h4_constant=self.h4_constant,
        )
        edges = cube.rest_edges
        return model, model.coords(edges, (edges[0], edges[-1]), cube.shape[0])

    def _components(self, row: int) -> np.ndarray:
        """Return each line of one spaxel by itself, (lines, wave)."""
        if "sigma" not in self.values:
            return np.full((len(self.lines), self._spectral().shape[0]), np.nan)
        model, coords = self._profiles
        flat = {name: np.asarray(self.values[name], np.float64).reshape(len(self.lines), -1)[:, row] for name in self.values}
        if self.generation == "ifscube-2018":
            flat["amplitude"] = flat["amplitude"] * (1.0 + flat["velocity"] / C_KMS)  # its profile isn't divided by 1 + v / c
        params = {}
        for i, line in enumerate(self.lines):
            own = {"amplitude": flat["amplitude"][i], "velocity": flat["velocity"][i], "velocity_dispersion": flat["sigma"][i]}
            if self.shapes[i] == "gauss_hermite":
                own |= {name: flat[name][i] for name in ("h3", "h4")}
            elif self.shapes[i] != "gaussian":
                # sigma is that of the whole Voigt profile (Olivero & Longbothum 1977), the LSF in its Gaussian part.
                whole, intrinsic = FWHM_OF_SIGMA * flat["sigma"][i], FWHM_OF_SIGMA * flat["velocity_dispersion"][i]
                lorentz = intrinsic if self.shapes[i] == "lorentzian" else flat["lorentz_fwhm"][i]
                gauss = np.sqrt(max((whole - 0.5346 * lorentz) ** 2 - 0.2166 * lorentz**2, 0.0))
                own |= {"velocity_dispersion": gauss / FWHM_OF_SIGMA, "lorentz_fwhm": lorentz}
            params |= {f"{line}.{name}": np.asarray(value) for name, value in own.items()}
        with working_precision("float64"):
            return np.stack([np.asarray(model.line(params, coords, i)) for i in range(len(self.lines))])

    def describe(self, x: int = 0, y: int = 0) -> str:
        """Return the fit of one spaxel in words and numbers. 0-based pixels."""
        self._row(x, y)
        head = f"spaxel x={x}, y={y}: " if not self.is_spectrum else f"{self.path.name}: "
        status, chi2 = int(self.maps["status"][y, x]), self.maps["reduced_chi2"][y, x]
        reasons = [flag.sentence for flag in decode(status, STATUS_FLAGS)]
        if "ifscube_status" in self.maps:
            code = int(self.maps["ifscube_status"][y, x])
            told = f"IFSCube's status {code}: {status_sentence(code, self.config.get('fit.method', 'slsqp').strip().lower())}"
            # Its own sentence says more than not_converged, which stands for most of its codes.
            reasons = [told] if code and status == NOT_CONVERGED.value else [*reasons, told] if code else reasons
        if not any(np.isfinite(planes[:, y, x]).any() for planes in self.values.values()):
            return head + "not fitted: " + "; ".join(reasons or ["no values in the file"]) + "."
        text = [f"{head}reduced chi2 {chi2:.3f}", *(f"  note: {reason}" for reason in reasons)]
        if self.draws:
            text.append(f"  errors: scatter of {len(next(iter(self.draws.values())))} Monte Carlo runs")
        units = self.units
        for i, line in enumerate(self.lines):
            text.append(f"  {line} ({self.line_wavelengths[i]:g} Angstrom)")
            for name in self.quantities:
                shown = f"{self.values[name][i, y, x] + 0.0:12.5g}"  # + 0: no "-0"
                if name in self.errors:
                    shown += f" +- {self.errors[name][i, y, x]:.2g}"
                text.append(f"    {name:<24}{shown} {units[name]}".rstrip())
        for flag in decode(int(self.maps["warn"][y, x]), WARN_FLAGS):
            where = (
                worst_in_words(*self.maps["stretch"][:, y, x]) if flag == STRUCTURED_RESIDUALS and "stretch" in self.maps else ""
            )
            text.append(f"  note: {flag.sentence}{where}")
        return "\n".join(text)

    def summary(self) -> str:
        """Return one line: who wrote the file, how many spaxels are fitted, and why the others are not."""
        status, chi2 = self.maps["status"], self.maps["reduced_chi2"]
        counts = [f"{int((status == 0).sum())} fitted"]
        for flag in STATUS_FLAGS:
            count = int(((status & flag.value) != 0).sum())
            if count:
                counts.append(f"{count} {flag.name.replace('_', ' ')}")
        usable = chi2[(status == 0) & np.isfinite(chi2)]
        what = f"; median reduced chi2 {np.median(usable):.2f}" if usable.size else ""
        return f"{self.path.name} ({self.generation}), {status.size} spaxels: {', '.join(counts)}{what}"

    def plot(self, x: int = 0, y: int = 0) -> Figure:
        """Return a figure of one spaxel: data, model, components, residuals. 0-based pixels."""
        from ifujax.lines.products.loaded_figures import spaxel_figure

        self._row(x, y)
        return spaxel_figure(self, x, y)

    def plot_map(self, line: str, quantity: str) -> Figure:
        """Return a figure of one map."""
        from ifujax.lines.products.loaded_figures import map_figure

        return map_figure(self, line, quantity)
