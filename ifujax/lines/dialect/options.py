"""The options of IFSCube's configuration files: one table says what each of them does here.

Facts about the dialects come from IFSCube 1.3 and the release of 2018: documentation and behaviour. An option is
honoured, or has no effect here (a warning says why), or is refused where it asks for what can't be had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ifujax.lines.dialect.priors import read_priors
from ifujax.lines.dialect.values import (
    as_written,
    at_least_one,
    boolean,
    count,
    extension,
    half_widths,
    integer,
    not_negative,
    off_or,
    percentage,
    position,
    positive,
    redshift,
    share,
    spaxel,
    string,
    window,
    windows,
    word,
)


@dataclass(frozen=True)
class Option:
    """What one option means here.

    `idle` tells of a value read that it asks for nothing: then neither a warning nor an error is due.
    """

    read: Callable[[str], Any]
    effect: Literal["honoured", "none", "refused"] = "honoured"
    reason: str = ""
    idle: Callable[[Any], bool] = lambda value: not value
    spellings: tuple[str, ...] = ()


def _without_effect(read: Callable[[str], Any], reason: str, idle: Callable[[Any], bool] = lambda value: not value) -> Option:
    return Option(read, "none", reason, idle)


def _never(value: Any) -> bool:
    """Never idle: the option is there, so something is asked for."""
    return False


def shape(text: str) -> str:
    """A shape of line; the names that either dialect has for it."""
    read = word(
        "gaussian",
        "gauss_hermite",
        "lorentzian",
        "voigt",
        gauss="gaussian",
        gausshermite="gauss_hermite",
        lorentz="lorentzian",
    )
    return read(text)


_NAN_SPAXELS = off_or(word("all", "any", "other"))
_DERIVATIVES = "the derivatives are exact, so there is no step to choose"
_EVOLUTION = "it belongs to differential evolution; the fits here start from several points ([fit] starts) and are deterministic"

OPTIONS: dict[str, dict[str, Option]] = {
    "fit": {
        "function": Option(shape),
        "fitting_window": Option(window),
        "fit_continuum": Option(boolean),
        "optimize_fit": Option(boolean),
        "optimization_window": Option(positive),
        "verbose": Option(boolean),
        "write_fits": Option(boolean, spellings=("writefits",)),
        "out_image": Option(string, spellings=("outimage",)),
        "suffix": Option(as_written),
        "overwrite": Option(boolean),
        "method": Option(word("slsqp", "trust-constr", "differential_evolution", trust_constr="trust-constr")),
        "instrument_dispersion": Option(positive, spellings=("inst_disp",)),
        "profile": Option(word("integrated", "sampled")),
        "starts": Option(at_least_one),
        "scale_errors": Option(boolean),
        "noise": Option(word("given", "scaled", "correlated")),
        "lsf": Option(off_or(as_written)),
        "fixed": Option(boolean),
        "monte_carlo": Option(count),
        "seed": Option(count),
        "individual_spec": Option(off_or(spaxel)),
        "refit": Option(boolean),
        "refit_radius": Option(positive),
        "bounds_change": Option(off_or(half_widths, ())),
        "update_bounds": Option(boolean),
        "bound_range": Option(not_negative),
        "spiral_loop": Option(boolean),
        "spiral_center": Option(off_or(position)),
        "coherence": Option(off_or(not_negative, 0.0)),
        "guess_parameters": Option(boolean),
        "trivial": Option(boolean),
        "test_jacobian": Option(boolean),
        "minimum_good_fraction": Option(share),
        "sig_threshold": Option(off_or(not_negative, 0.0)),
        "nan_spaxels": Option(_NAN_SPAXELS),
        "ifscube_compat": Option(boolean),
        "intrinsic_sigma_constr": Option(boolean, "refused", "With lsf, which replaces it, every sigma is the intrinsic one"),
        "debug": _without_effect(boolean, "IFSCube 1.3 ignores it too"),
        "instrument_dispersion_angstrom": _without_effect(
            off_or(positive), "IFSCube 1.3 ignores it too; lsf takes the instrument's width"
        ),
    },
    "loading": {
        "scidata": Option(extension),
        "primary": Option(extension),
        "variance": Option(extension),
        "error": Option(extension),
        "ivar": Option(extension),
        "flags": Option(extension),
        "flags_zero_is_bad": Option(boolean),
        "flag_bits": Option(off_or(at_least_one)),
        "instrument": Option(off_or(word("muse", "manga", "jwst", "pycasso", "gmos"))),
        "stellar": Option(extension),
        "wavelength": Option(extension),
        "redshift": Option(redshift),
        "wcs_axis": Option(off_or(at_least_one), spellings=("spectral_dimension",)),
        "spatial_mask": Option(extension),
        "nan_spaxels": Option(_NAN_SPAXELS),
        "vortab": Option(extension),
        "weights": _without_effect(
            extension,
            "weights beside a variance make chi2 and the errors wrong; name the plane ivar if it is an inverse variance, "
            "or divide the variance by it",
            lambda value: value is None,
        ),
    },
    "minimization": {
        "ftol": Option(positive),
        "maxiter": Option(at_least_one),
        "disp": Option(boolean),
        "eps": _without_effect(positive, _DERIVATIVES, _never),
        "popsize": _without_effect(positive, _EVOLUTION, _never),
        "workers": _without_effect(integer, "--threads sets how many processor cores are used", _never),
        "seed": _without_effect(off_or(integer), _EVOLUTION, lambda value: value is None),
        "tol": _without_effect(not_negative, _EVOLUTION, _never),
        "atol": _without_effect(not_negative, _EVOLUTION, _never),
        "recombination": _without_effect(not_negative, _EVOLUTION, _never),
        "polish": _without_effect(boolean, _EVOLUTION),
    },
    "continuum": {
        "mode": Option(word("joint", "rejection")),
        "degree": Option(count, spellings=("degr",)),
        "n_iterate": Option(count, spellings=("niterate",)),
        "lower_threshold": Option(positive),
        "upper_threshold": Option(positive),
        "line_weight": Option(not_negative),
        "weights": Option(string),
    },
    "equivalent_width": {
        "sigma_factor": Option(positive),
    },
    "velocity_width": {
        "lines": Option(as_written),
        "width": Option(percentage),
    },
}
"""Reserved sections and their options."""

FEATURE_OPTIONS: dict[str, Option] = {
    "rest_wavelength": Option(positive),
    "wavelength": Option(as_written),
    "function": Option(shape),
    "amplitude": Option(as_written),
    "flux": Option(as_written),
    "velocity": Option(as_written),
    "sigma": Option(as_written, spellings=("velocity_dispersion",)),
    "h3": Option(as_written, spellings=("h_3",)),
    "h4": Option(as_written, spellings=("h_4",)),
    "lorentz_fwhm": Option(as_written),
    "prior": Option(read_priors),
    "k_group": Option(integer),
    "fixed": Option(boolean),
    "continuum_windows": Option(off_or(windows)),
}
"""Options of a spectral feature, which every other section is."""
