"""The options of IFSCube's configuration files: one table says what each of them does here.

Facts about the dialect come from IFSCube 1.3's documentation and behaviour. An option is honoured,
has no effect here (a warning says why), or is not available yet (an error, where its value asks for
something that would change the result).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


class Unreadable(ValueError):
    """A value that doesn't suit its option: what it must be, and what to do."""

    def __init__(self, requirement: str, advice: str = "") -> None:
        super().__init__(requirement)
        self.requirement = requirement
        self.advice = advice


def quoted(text: str) -> str:
    """Quote a value for a message, in one line of bounded length."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def number(text: str, requirement: str = "be a number") -> float:
    """Read one finite number."""
    text = text.strip()
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise Unreadable(requirement)
    return value


def boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise Unreadable("be yes or no") from None


def string(text: str) -> str | None:
    """A word; empty and ``None`` stand for nothing, as in IFSCube."""
    return None if text in ("", "None") else text


def extension(text: str) -> str | int | None:
    """An HDU: an integer, or a name (with ``NAME, 2`` for a version)."""
    return int(text) if _INTEGER.fullmatch(text) else string(text)


def positive(text: str) -> float:
    value = number(text, "be a positive number")
    if value <= 0:
        raise Unreadable("be a positive number")
    return value


def not_negative(text: str) -> float:
    value = number(text, "be a number, 0 or more")
    if value < 0:
        raise Unreadable("be a number, 0 or more")
    return value


def integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise Unreadable("be an integer")
    return int(text)


def count(text: str) -> int:
    value = integer(text)
    if value < 0:
        raise Unreadable("be an integer, 0 or more")
    return value


def at_least_one(text: str) -> int:
    value = integer(text)
    if value < 1:
        raise Unreadable("be an integer, 1 or more")
    return value


def redshift(text: str) -> float | None:
    value = None if string(text) is None else number(text)
    if value is not None and value <= -1:
        raise Unreadable("be a number above -1")
    return value


def numbers(text: str) -> tuple[float, ...]:
    return tuple(number(item, "be numbers with commas between") for item in text.rstrip(", ").split(","))


def window(text: str) -> tuple[float, float]:
    """``low:high``, in rest-frame Angstrom."""
    low, colon, high = text.partition(":")
    requirement = "be low:high in rest-frame Angstrom, for example 6450:6650"
    ends = number(low, requirement), number(high, requirement)
    if not colon or not 0 <= ends[0] < ends[1]:
        raise Unreadable(requirement)
    return ends


def as_written(text: str) -> str:
    return text


def word(*choices: str, **aliases: str) -> Callable[[str], str]:
    """Return a reader of one of the `choices`, in any case, hyphens or underscores alike."""

    def read(text: str) -> str:
        folded = text.lower().replace("-", "_")
        folded = aliases.get(folded, folded)
        if folded not in choices:
            raise Unreadable(f"be {' or '.join(choices)}")
        return folded

    return read


def off_or(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader that takes ``no`` and ``none`` for None."""
    return lambda text: None if text.lower() in ("", "no", "none") else read(text)


@dataclass(frozen=True)
class Option:
    """What one option means here.

    `idle` tells of a value read that it asks for nothing: then neither a warning nor an error is due.
    """

    read: Callable[[str], Any]
    effect: Literal["honoured", "none", "later"] = "honoured"
    reason: str = ""
    idle: Callable[[Any], bool] = lambda value: not value
    spellings: tuple[str, ...] = ()


def _without_effect(read: Callable[[str], Any], reason: str, idle: Callable[[Any], bool] = lambda value: not value) -> Option:
    return Option(read, "none", reason, idle)


def _later(read: Callable[[str], Any], reason: str, idle: Callable[[Any], bool] = lambda value: not value) -> Option:
    return Option(read, "later", reason, idle)


def _never(value: Any) -> bool:
    """Never idle: the option is there, so something is asked for."""
    return False


_ORDER = "all spaxels are fitted together, so there is no order to choose"
_START = "the start values are found from each spectrum's own data"
_REFIT = "only refit uses this, and refit is off"
_OLD = "IFSCube 1.3 ignores it too"
_DERIVATIVES = "derivatives are exact here, so there is no step to choose"
_EVOLUTION = "it belongs to differential evolution; the fits here start from several points ([fit] starts) and are deterministic"
_HERMITE = "Gauss-Hermite profiles are not available yet; only Gaussian ones are"

OPTIONS: dict[str, dict[str, Option]] = {
    "fit": {
        "function": Option(
            word("gaussian", "gauss_hermite", gausshermite="gauss_hermite", gauss="gaussian"),
            "later",
            _HERMITE,
            lambda value: value == "gaussian",
        ),
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
        "instrument_dispersion": Option(positive),
        "profile": Option(word("integrated", "sampled")),
        "starts": Option(at_least_one),
        "scale_errors": Option(boolean),
        "lsf": Option(off_or(as_written)),
        "fixed": _later(boolean, "evaluating the first guess without a fit is not available yet"),
        "monte_carlo": _later(count, "Monte Carlo runs are not available yet; the errors come from each fit's covariance"),
        "individual_spec": _later(off_or(as_written), "fitting a single spaxel is not available yet"),
        "refit": _later(boolean, "refitting from neighbouring spaxels is not available yet"),
        "sig_threshold": _later(off_or(not_negative), "a threshold of signal to noise is not available yet"),
        "intrinsic_sigma_constr": _later(boolean, "it is replaced by lsf, with which every sigma is the intrinsic one"),
        "refit_radius": _without_effect(positive, _REFIT, _never),
        "bounds_change": _without_effect(numbers, _REFIT, _never),
        "update_bounds": _without_effect(boolean, _REFIT),
        "bound_range": _without_effect(not_negative, _REFIT, _never),
        "spiral_loop": _without_effect(boolean, _ORDER),
        "spiral_center": _without_effect(off_or(as_written), _ORDER),
        "guess_parameters": _without_effect(boolean, _START),
        "trivial": _without_effect(boolean, _START),
        "test_jacobian": _without_effect(boolean, "status and warn already tell of parameters that the data do not constrain"),
        "minimum_good_fraction": _without_effect(not_negative, "bad pixels have no weight, however many they are", _never),
        "debug": _without_effect(boolean, _OLD),
        "instrument_dispersion_angstrom": _without_effect(off_or(positive), f"{_OLD}; lsf takes the instrument's width"),
        "nan_spaxels": _without_effect(
            as_written, "spaxels without any good pixel are skipped, and it belongs in [loading]", lambda value: value == "all"
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
        "stellar": Option(extension),
        "wavelength": Option(extension),
        "redshift": Option(redshift),
        "wcs_axis": Option(off_or(at_least_one)),
        "spatial_mask": Option(extension),
        "nan_spaxels": _later(
            as_written,
            "skipping spaxels for some NaN pixels is not available yet; NaN pixels have no weight",
            lambda value: value != "any",
        ),
        "vortab": _later(off_or(as_written), "Voronoi tables are not available yet"),
        "weights": _later(off_or(as_written), "an extension of weights is not available yet; name a variance, error or ivar"),
        "spectral_dimension": _later(at_least_one, "it is now called wcs_axis", _never),
    },
    "minimization": {
        "ftol": Option(positive),
        "maxiter": Option(at_least_one),
        "eps": _without_effect(positive, _DERIVATIVES, _never),
        "disp": _without_effect(boolean, "the fits run in batches and print nothing one by one"),
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
        "sigma_factor": _later(
            positive, "widths of the flux window other than 5 sigma are not available yet", lambda value: value == 5.0
        ),
    },
}
"""Reserved sections and their options."""

FEATURE_OPTIONS: dict[str, Option] = {
    "rest_wavelength": Option(positive),
    "amplitude": Option(as_written),
    "flux": Option(as_written),
    "velocity": Option(as_written),
    "sigma": Option(as_written, spellings=("velocity_dispersion",)),
    "k_group": Option(integer),
    "fixed": Option(boolean),
    "h_3": Option(as_written, "later", _HERMITE, spellings=("h3",)),
    "h_4": Option(as_written, "later", _HERMITE, spellings=("h4",)),
    "continuum_windows": _without_effect(
        off_or(numbers), "equivalent widths are measured against the fitted continuum (IFSCube 1.3 ignores these windows too)"
    ),
}
"""Options of a spectral feature, which every other section is."""
