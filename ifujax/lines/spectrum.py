"""`fit_spectrum`: one spectrum, by the same steps as a cube of one spaxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.data.spectrum import Spectrum
from ifujax.errors import UsageError
from ifujax.lines.config import EmissionModel, LineFitConfig, Noise
from ifujax.lines.results import CubeFit, Spectra
from ifujax.lines.run import fit_cube

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.lines.velocity_width import VelocityWidth


def fit_spectrum(
    spectrum: Spectrum,
    model: EmissionModel | LineFitConfig,
    *,
    window: tuple[float, float] | None = None,
    continuum: np.ndarray | None = None,
    starts: int | None = None,
    noise: Noise | None = None,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
) -> SpectrumFit:
    """Fit emission lines in one spectrum.

    Parameters
    ----------
    spectrum : Spectrum
    model, window, starts, noise, precision, devices
        As for `fit_cube`; correlated noise is that of the spectrum's own residuals.
    continuum : array (wave,), optional
        A continuum to take off and freeze, observed frame.

    Returns
    -------
    SpectrumFit

    Raises
    ------
    DataError, UsageError
        As `fit_cube`.

    Examples
    --------
    >>> spectrum = ifujax.read_spectrum("nucleus.fits", redshift=0.0037)  # doctest: +SKIP
    >>> fit = ifujax.fit_spectrum(spectrum, ifujax.read_config("halpha.cfg"))  # doctest: +SKIP
    >>> fit["ha", "flux"], fit.error["ha", "flux"]  # doctest: +SKIP
    """
    if not isinstance(spectrum, Spectrum):
        raise UsageError(f"spectrum must be a Spectrum; got {type(spectrum).__name__}. Use read_spectrum, or fit_cube for cubes.")
    options = {"window": window, "continuum": continuum, "starts": starts, "precision": precision, "devices": devices}
    return SpectrumFit(spectrum, fit_cube(spectrum.as_cube(), model, noise=noise, **options))


class _Errors(Mapping[tuple[str, str], float]):
    """1 sigma errors, indexed like the fit itself."""

    def __init__(self, fit: CubeFit) -> None:
        self._fit = fit

    def __getitem__(self, key: tuple[str, str]) -> float:
        return float(self._fit.error[key][0, 0])

    def __iter__(self) -> Any:
        return iter([(line, quantity) for line in self._fit.lines for quantity in self._fit.quantities])

    def __len__(self) -> int:
        return len(self._fit.lines) * len(self._fit.quantities)


@dataclass(frozen=True, eq=False, repr=False)
class SpectrumFit:
    """A fitted spectrum. ``fit["ha", "velocity"]`` is a number, ``fit.error["ha", "velocity"]`` its error.

    The quantities are those of `CubeFit`.

    Attributes
    ----------
    spectrum : Spectrum
        As it was given.
    as_cube : CubeFit
        The same fit as that of a cube of one spaxel.
    """

    spectrum: Spectrum
    as_cube: CubeFit = field(repr=False)

    def __repr__(self) -> str:
        return f"<SpectrumFit, lines {', '.join(self.lines)}: {self.summary()}>"

    def __getitem__(self, key: tuple[str, str]) -> float:
        return float(self.as_cube[key][0, 0])

    @cached_property
    def error(self) -> Mapping[tuple[str, str], float]:
        """1 sigma errors by line and quantity."""
        return _Errors(self.as_cube)

    @property
    def config(self) -> LineFitConfig:
        return self.as_cube.config

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of the fitted lines."""
        return self.as_cube.lines

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what is reported of each line."""
        return self.as_cube.quantities

    @property
    def units(self) -> dict[str, str]:
        """Unit of each quantity."""
        return self.as_cube.units

    @property
    def status(self) -> int:
        """0 = fitted, else why not (`ifujax.STATUS_FLAGS`)."""
        return int(self.as_cube.status[0, 0])

    @property
    def warn(self) -> int:
        """Advisory bits (`ifujax.WARN_FLAGS`)."""
        return int(self.as_cube.warn[0, 0])

    def line_warn(self, line: str) -> int:
        """Return the advisory bits that concern one line."""
        return int(self.as_cube.line_warn(line)[0, 0])

    @property
    def chi2(self) -> float:
        """Sum of squared residuals over sigma."""
        return float(self.as_cube.chi2[0, 0])

    @property
    def dof(self) -> float:
        """Degrees of freedom: pixels (over `instrument_dispersion`) less free parameters."""
        return float(self.as_cube.dof[0, 0])

    @property
    def reduced_chi2(self) -> float:
        """chi2 over degrees of freedom; NaN where there are none."""
        return float(self.as_cube.reduced_chi2[0, 0])

    @property
    def seconds(self) -> float:
        """Wall time of the fit."""
        return self.as_cube.seconds

    @cached_property
    def spectra(self) -> Spectra:
        """Data and model in the rest frame, each (1, wave); `components` (1, lines, wave)."""
        return self.as_cube.spectra(np.array([0]))

    def velocity_width(self, lines: str | Sequence[str], width: float = 80.0, **options: Any) -> VelocityWidth:
        """Return the velocity width of a line, W80 by default, with errors; numbers in place of maps.

        Parameters and what is returned are those of `CubeFit.velocity_width`.
        """
        return self.as_cube.velocity_width(lines, width, **options).spaxel(0, 0)

    def describe(self) -> str:
        """Return the fit in words and numbers."""
        name = self.spectrum.path.name if self.spectrum.path else "spectrum"
        return self.as_cube.describe(0, 0).replace("spaxel x=0, y=0", name, 1)

    def summary(self) -> str:
        """Return one line: fitted or not, reduced chi2, time."""
        if self.status:
            return self.describe()
        return f"fitted; reduced chi2 {self.reduced_chi2:.2f}, {self.dof:.0f} degrees of freedom; {self.seconds:.1f} s"

    def plot(self, focused: bool = False) -> Figure:
        """Return a figure: data, model, lines, residuals.

        Parameters
        ----------
        focused : bool
            Only the wavelengths about the lines.
        """
        from ifujax.lines.figures import spectrum_figure

        return spectrum_figure(self.as_cube, focused=focused)

    def write(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the FITS product: IFSCube's extensions of a spectrum, and errors."""
        from ifujax.lines.products.product import write_product

        return write_product(self.as_cube, Path(path), overwrite=overwrite, spectrum=True)
