"""What a user declares for a fit of emission lines: lines, kinematics, continuum, window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ifujax.errors import UsageError, unknown
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Tied

Noise = Literal["given", "scaled", "correlated"]
Shape = Literal["gaussian", "gauss_hermite", "lorentzian", "voigt"]
SHAPE_PARAMETERS: dict[str, tuple[str, ...]] = {
    "gaussian": ("velocity", "velocity_dispersion"),
    "gauss_hermite": ("velocity", "velocity_dispersion", "h3", "h4"),
    "lorentzian": ("velocity", "velocity_dispersion"),
    "voigt": ("velocity", "velocity_dispersion", "lorentz_fwhm"),
}
"""Parameters of each shape of line, beside its strength."""


@dataclass(frozen=True, eq=False)
class Kinematics:
    """Velocity and intrinsic velocity dispersion (km/s), shared by every line that is given this object.

    Two separate objects are two kinematic components, even when they look alike.

    Parameters
    ----------
    velocity, velocity_dispersion : declaration
        km/s. The `velocity_dispersion` of a Lorentzian is its FWHM / 2.3548, so that widths compare.
    h3, h4 : declaration
        Gauss-Hermite coefficients (van der Marel & Franx 1993), of lines of that shape.
    lorentz_fwhm : declaration
        Width of the Lorentzian part of Voigt profiles, km/s.
    """

    velocity: Declaration = Bounded(-1000.0, 1000.0, start=0.0)
    velocity_dispersion: Declaration = Bounded(1.0, 1000.0, start=100.0)
    h3: Declaration = Bounded(-0.3, 0.3, start=0.0)
    h4: Declaration = Bounded(-0.3, 0.3, start=0.0)
    lorentz_fwhm: Declaration = Bounded(0.0, 2000.0, start=50.0)


@dataclass(frozen=True)
class Line:
    """One emission line.

    Parameters
    ----------
    name : str
        A name without a period; it names the line's parameters (``"ha.flux"``).
    rest_wavelength : float
        Angstrom, in the medium (air or vacuum) of the data.
    kinematics : Kinematics
        Shared with every line that has the same object.
    flux : declaration, optional
        Integrated flux (data unit x Angstrom). Non-negative by default.
    amplitude : declaration, optional
        Peak instead of flux, as IFSCube does: ``amplitude = flux c / (sqrt(2 pi) sigma lambda0)``
        with the observed `sigma` (km/s). Give one of the two, not both. The amplitude of a Gauss-Hermite
        line is that of its Gaussian part.
    shape : "gaussian", "gauss_hermite", "lorentzian" or "voigt"
    continuum_windows : (blue0, blue1, red0, red1), optional
        Rest Angstrom: the equivalent width is measured against a straight line through the fitted
        continuum in these two windows, instead of the fitted continuum itself.

    Absorption is a negative flux or amplitude: give bounds that allow it.
    """

    name: str
    rest_wavelength: float
    kinematics: Kinematics
    flux: Declaration | None = None
    amplitude: Declaration | None = None
    shape: Shape = "gaussian"
    continuum_windows: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.shape not in SHAPE_PARAMETERS:
            raise UsageError(unknown("shape", self.shape, SHAPE_PARAMETERS))
        if not self.name or "." in self.name or self.name != self.name.strip():
            raise UsageError(f"line name must be non-empty and hold no period or outer blanks; got {self.name!r}.")
        if not self.rest_wavelength > 0:
            raise UsageError(f"rest_wavelength of {self.name!r} must be positive; got {self.rest_wavelength}. Give Angstrom.")
        if self.flux is not None and self.amplitude is not None:
            raise UsageError(f"line {self.name!r} must have flux or amplitude, not both. Remove one.")
        if self.flux is None and self.amplitude is None:
            object.__setattr__(self, "flux", Bounded(0.0))

    @property
    def strength(self) -> Literal["flux", "amplitude"]:
        """The name of the parameter that sets how strong the line is."""
        return "flux" if self.flux is not None else "amplitude"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the line's parameters: its strength, then those of its shape."""
        return (self.strength, *SHAPE_PARAMETERS[self.shape])

    @property
    def strength_declaration(self) -> Declaration:
        declared = self.flux if self.flux is not None else self.amplitude
        return declared if declared is not None else Bounded(0.0)


@dataclass(frozen=True)
class LSF:
    """Instrumental line spread function: full width at half maximum in observed Angstrom.

    Parameters
    ----------
    kind : "constant", "polynomial" or "table"
    values : tuple of float
        The width; polynomial coefficients, lowest order first, in ``wavelength - reference``;
        or the widths of a table.
    wavelengths : tuple of float
        Observed wavelengths (Angstrom, ascending) of a table; linear between, constant outside.
    reference : float
        Zero point of the polynomial (Angstrom).
    """

    kind: Literal["constant", "polynomial", "table"]
    values: tuple[float, ...]
    wavelengths: tuple[float, ...] = ()
    reference: float = 0.0

    @classmethod
    def constant(cls, fwhm: float) -> LSF:
        return cls("constant", (float(fwhm),))

    @classmethod
    def polynomial(cls, coefficients, reference: float = 0.0) -> LSF:
        return cls("polynomial", tuple(float(c) for c in coefficients), reference=float(reference))

    @classmethod
    def table(cls, wavelengths, fwhm) -> LSF:
        return cls("table", tuple(float(v) for v in fwhm), tuple(float(w) for w in wavelengths))

    def __post_init__(self) -> None:
        if self.kind == "table" and (len(self.values) != len(self.wavelengths) or len(self.values) < 2):
            raise UsageError("an LSF table must have as many widths as wavelengths, two at least.")
        if self.kind == "table" and any(b <= a for a, b in zip(self.wavelengths, self.wavelengths[1:])):
            raise UsageError("the wavelengths of an LSF table must ascend. Sort the table.")
        if self.kind != "polynomial" and any(not v > 0 for v in self.values):
            raise UsageError(f"LSF widths must be positive; got {self.values}. Give the FWHM in Angstrom.")


@dataclass(frozen=True)
class EmissionModel:
    """Emission lines on a polynomial continuum.

    Parameters
    ----------
    lines : sequence of Line
    continuum_degree : int or None
        Degree of the polynomial; None adds no continuum.
    profile : "integrated" or "sampled"
        Mean over each pixel (right for any sampling) or the value at its centre (as IFSCube).
    lsf : LSF, optional
        With it, `velocity_dispersion` is intrinsic; without, it is the observed one.
    h4_convention : "textbook" or "ifscube"
        IFSCube 1.3 has the constant of H4 with the wrong sign; for sampled profiles only.
    """

    lines: tuple[Line, ...]
    continuum_degree: int | None = 1
    profile: Literal["integrated", "sampled"] = "integrated"
    lsf: LSF | None = None
    h4_convention: Literal["textbook", "ifscube"] = "textbook"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(self.lines))
        if not self.lines:
            raise UsageError("lines must hold one line at least; got none.")
        names = [line.name for line in self.lines]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"line names must be unique; got {', '.join(twice)} more than once. Rename one.")
        if self.h4_convention not in ("textbook", "ifscube") or (self.h4_convention == "ifscube" and self.profile != "sampled"):
            raise UsageError(
                f"h4_convention must be 'textbook', or 'ifscube' with profile='sampled'; got {self.h4_convention!r} "
                f"and {self.profile!r}."
            )
        if self.profile not in ("integrated", "sampled"):
            raise UsageError(f"profile must be 'integrated' or 'sampled'; got {self.profile!r}.")
        if self.continuum_degree is not None and self.continuum_degree < 0:
            raise UsageError(f"continuum_degree must be 0 or more, or None; got {self.continuum_degree}.")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(line.name for line in self.lines)


@dataclass(frozen=True)
class ContinuumOptions:
    """The rejection polynomial (IFSCube's [continuum]) and what becomes of it.

    ``joint``: it gives the start and the clipped pixels, then its coefficients are fitted with
    the lines. ``rejection``: it is frozen. ``none``: there is no continuum.
    """

    mode: Literal["joint", "rejection", "none"] = "joint"
    n_iterate: int = 5
    lower_threshold: float = 2.0
    upper_threshold: float = 3.0
    line_weight: float = 1.0
    weights: tuple[tuple[float, float, float], ...] = ()
    """Rows (low, high, weight) in rest Angstrom; where given, line_weight is not used."""


@dataclass(frozen=True)
class FitOptions:
    """How the fit is done. `window` and `optimization_window` are IFSCube's."""

    window: tuple[float, float] | None = None
    """Rest Angstrom, inclusive."""
    optimize_fit: bool = False
    optimization_window: float = 10.0
    """Half-width of each line's window in units of its guessed sigma, about its guessed velocity."""
    starts: int = 1
    """Starting points tried per spaxel; the lowest chi2 is kept."""
    max_iter: int = 100
    tolerance: float = 1e-6
    """A fit ends when another step could lower chi2 by less than this times chi2 per degree of freedom."""
    noise: Noise = "given"
    """What the noise is: the variances that were given; these times the reduced chi2 of each fit; or these, and correlated along
    wavelength as the residuals of the whole cube are."""
    scale_errors: bool = False
    """The same as ``noise="scaled"``, by its older name: True where that is so."""
    instrument_dispersion: float = 1.0
    """Pixels per independent datum: divides the pixel count in the degrees of freedom only."""
    fixed: bool = False
    """Evaluate the declared guesses without a fit."""
    guess_parameters: bool = False
    """Try moments of the data about each guess (within 3 sigma) as one more start."""
    trivial: bool = False
    """Try lines at the noise level with the declared guesses as one more start."""
    test_jacobian: bool = False
    """Blank every quantity of a line that has a parameter without any effect on chi2."""
    minimum_good_fraction: float = 0.0
    """Spaxels with a smaller share of usable pixels in the window are not fitted."""
    sig_threshold: float = 0.0
    """Lines whose flux is below this times its error are blanked."""
    individual_spec: tuple[int, int] | Literal["peak", "cofm"] | None = None
    """Fit one spaxel only: ``(x, y)``, 0-based; the brightest; or the centre of light."""
    refit: bool = False
    """Fit all spaxels again, started from the median of their neighbours."""
    refit_radius: float = 3.0
    """Pixels."""
    bounds_change: tuple[float, ...] = ()
    """Half-widths of the bounds about the neighbours' median: share of the amplitude, km/s, km/s[, h3, h4]; () leaves them."""
    bound_range: float = 0.0
    """Half-width of the same bounds as a share of what the neighbours have, for all but velocities; 0 leaves them."""
    spiral_center: tuple[float, float] | Literal["peak", "cofm"] | None = None
    """Where the rings of a refit begin: ``(x, y)``, 0-based; None is the middle of the image."""
    spiral_loop: bool = False
    """With `ifscube_compat`: a refit goes in rings, not row by row."""
    coherence: float = 0.0
    """Among minima of a spaxel whose chi2 is within this of the lowest, the one closest to the neighbours is kept."""
    monte_carlo: int = 0
    """Noise realisations whose scatter replaces the errors."""
    seed: int = 0
    """Of the Monte Carlo noise."""
    ifscube_compat: bool = False
    """Reproduce IFSCube 1.3, its faults included."""
    verbose: bool = False
    disp: bool = False
    """Print the solution of every spectrum."""

    def __post_init__(self) -> None:
        if self.noise not in get_args(Noise):
            raise UsageError(unknown("noise", str(self.noise), get_args(Noise)))
        if self.scale_errors and self.noise == "given":
            object.__setattr__(self, "noise", "scaled")
        object.__setattr__(self, "scale_errors", self.noise == "scaled")
        if self.noise == "correlated" and (self.ifscube_compat or self.fixed):
            option = "ifscube_compat" if self.ifscube_compat else "fixed"
            raise UsageError(f"noise must be 'given' or 'scaled' with {option}; got 'correlated'. Change one of them.")


@dataclass(frozen=True)
class LoadingOptions:
    """Which planes of the file are what. Exactly one of variance, error, ivar, or none."""

    scidata: str | int | None = None
    primary: str | int | None = None
    variance: str | int | None = None
    error: str | int | None = None
    ivar: str | int | None = None
    flags: str | int | None = None
    stellar: str | int | None = None
    wavelength: str | int | None = None
    redshift: float | None = None
    wcs_axis: int | None = None
    spatial_mask: str | int | None = None
    flags_zero_is_bad: bool = False
    nan_spaxels: Literal["all", "any"] | None = None
    """Also skip spaxels whose data or stellar spectrum are all NaN, or hold any NaN."""
    vortab: str | int | None = None
    """Table of Voronoi bins: every bin is fitted once."""
    flag_bits: int | None = None
    """Sum of the bits of `flags` that are bad; None: those of the instrument, else any."""
    instrument: Literal["muse", "manga", "jwst", "pycasso", "gmos"] | None = None
    """Read the file as this instrument's."""


@dataclass(frozen=True)
class EquivalentWidthOptions:
    """How fluxes and equivalent widths are read off the data."""

    sigma_factor: float = 5.0
    """Half-width of the window, in observed sigma."""


@dataclass(frozen=True)
class VelocityWidthOptions:
    """Widths that hold a share of the flux (W80 and the like), of lines one by one or summed."""

    groups: tuple[tuple[str, ...], ...]
    """Names of the lines that make up one profile each."""
    width: float = 80.0
    """Per cent of the flux."""


@dataclass(frozen=True)
class OutputOptions:
    """Where the product goes."""

    write_fits: bool = True
    out_image: str | None = None
    suffix: str = "_linefit"
    overwrite: bool = False


@dataclass(frozen=True)
class LineFitConfig:
    """Everything that a configuration file says."""

    model: EmissionModel
    continuum: ContinuumOptions = ContinuumOptions()
    fit: FitOptions = FitOptions()
    loading: LoadingOptions = LoadingOptions()
    equivalent_width: EquivalentWidthOptions = EquivalentWidthOptions()
    velocity_width: VelocityWidthOptions | None = None
    output: OutputOptions = OutputOptions()
    source: Path | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    """The options as written, ``{"section.option": value}``, for the product."""


__all__ = [
    "LSF",
    "SHAPE_PARAMETERS",
    "ContinuumOptions",
    "EmissionModel",
    "EquivalentWidthOptions",
    "FitOptions",
    "Kinematics",
    "Line",
    "LineFitConfig",
    "LoadingOptions",
    "OutputOptions",
    "Shape",
    "Tied",
    "VelocityWidthOptions",
]
