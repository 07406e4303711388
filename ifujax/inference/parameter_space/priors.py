"""Priors as a user declares them: `Normal`, `HalfNormal`, `LogNormal`, or a distribution with a density and a cdf.

All are truncated to the parameter's bounds. Without a prior a parameter is uniform within its bounds.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ifujax.errors import UsageError

PriorKind = Literal["normal", "half_normal", "log_normal", "distribution"]
LEAST_MASS = 1e-6
"""Share of a prior that must lie within the bounds."""
_LISTED = 8
"""Numbers of an array that are told one by one, at most."""
_ATTRIBUTES = {"base_distribution": "base_dist", "validate_args": "", "support": "", "domain": "", "transform": "inv"}
"""What numpyro's arguments are called as attributes, where that differs; nothing for those that are no numbers."""


class Distribution(Protocol):
    """What a prior of another kind must be able to do, in JAX; numpyro's scalar distributions are such.

    ``icdf(q)`` is used where there is one; else the cdf is inverted by bisection. Bounds are raised and lowered to
    ``support.lower_bound`` and ``support.upper_bound``, where it has them.
    """

    def log_prob(self, value: Any, /) -> Any:
        """Log density, normalised."""
        ...

    def cdf(self, value: Any, /) -> Any:
        """Probability below a value."""
        ...


@dataclass(frozen=True)
class Normal:
    """Gaussian prior on a parameter, in the parameter's own units.

    It counts in fits, as one more residual, and in posteriors.
    """

    mean: Any
    sigma: Any

    def __post_init__(self) -> None:
        if not (_finite(self.mean) and _positive(self.sigma)):
            raise UsageError(f"prior must have a finite mean and a positive sigma; got {self}. Give Normal(mean, sigma).")


@dataclass(frozen=True)
class HalfNormal:
    """The positive half of a Gaussian about 0, in the parameter's own units: a scale for what can't be negative.

    A parameter with this prior has a lower bound of 0. It counts in fits, as one more residual, and in posteriors.
    """

    sigma: Any

    def __post_init__(self) -> None:
        if not _positive(self.sigma):
            raise UsageError(f"prior must have a positive sigma; got {self}. Give HalfNormal(sigma).")


@dataclass(frozen=True)
class LogNormal:
    """Prior whose logarithm is Gaussian.

    A parameter with this prior has a lower bound of 0. It counts in posteriors, not in fits: it is no sum of squares of
    the parameter.

    Parameters
    ----------
    median : float
        In the parameter's own units.
    sigma : float
        Standard deviation of the natural logarithm.
    """

    median: Any
    sigma: Any

    def __post_init__(self) -> None:
        if not (_positive(self.median) and _positive(self.sigma)):
            raise UsageError(f"prior must have a positive median and sigma; got {self}. Give LogNormal(median, sigma).")


Prior = Normal | HalfNormal | LogNormal | Distribution


def _finite(value: Any) -> bool:
    """Whether a number, or each of an array (n,), is finite."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return array.ndim < 2 and bool(np.isfinite(array).all())


def _positive(value: Any) -> bool:
    return _finite(value) and bool((np.asarray(value, dtype=np.float64) > 0).all())


def kind_of(prior: Any) -> PriorKind:
    """Return the kind of a prior."""
    if isinstance(prior, Normal):
        return "normal"
    if isinstance(prior, HalfNormal):
        return "half_normal"
    if isinstance(prior, LogNormal):
        return "log_normal"
    return "distribution"


def location_and_scale(prior: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the two numbers of a Gaussian-like prior: mean and sigma of the value, or of its logarithm for a `LogNormal`."""
    if isinstance(prior, Normal):
        numbers = prior.mean, prior.sigma
    elif isinstance(prior, HalfNormal):
        numbers = np.zeros_like(np.asarray(prior.sigma, dtype=np.float64)), prior.sigma
    else:
        numbers = np.log(np.asarray(prior.median, dtype=np.float64)), prior.sigma
    mean, sigma = np.broadcast_arrays(*(np.asarray(number, dtype=np.float64) for number in numbers))
    return mean, sigma


def support_of(prior: Any) -> tuple[float, float]:
    """Return between which values a prior has its mass."""
    if isinstance(prior, Normal):
        return -math.inf, math.inf
    if isinstance(prior, (HalfNormal, LogNormal)):
        return 0.0, math.inf
    support = getattr(prior, "support", None)
    ends = []
    for name, none in (("lower_bound", -math.inf), ("upper_bound", math.inf)):
        end = np.asarray(getattr(support, name, none), dtype=np.float64)
        ends.append(float(end) if end.ndim == 0 and not np.isnan(end) else none)
    return ends[0], ends[1]


def mass_within(prior: Any, lower: Any, upper: Any) -> Any:
    """Return the share of a prior between bounds, a number or one for each of its numbers."""
    if kind_of(prior) == "distribution":
        from ifujax.inference.parameter_space.distributions import cdf_at

        return cdf_at(prior, upper) - cdf_at(prior, lower)
    mean, sigma = location_and_scale(prior)
    if isinstance(prior, LogNormal):
        with np.errstate(divide="ignore"):
            lower, upper = (np.log(np.maximum(end, 0.0)) for end in (lower, upper))
    a, b = (lower - mean) / sigma, (upper - mean) / sigma
    # On the side of the smaller tail, so that the difference keeps its digits.
    a, b = np.where(a > 0, -b, a), np.where(a > 0, -a, b)
    share = 0.5 * (_erfc(-b / math.sqrt(2.0)) - _erfc(-a / math.sqrt(2.0)))
    return 2.0 * share if isinstance(prior, HalfNormal) else share


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def check_prior(prior: Any, lower: Any, upper: Any) -> None:
    """Check a prior against the bounds, numbers or arrays with one for each of its numbers.

    Raises
    ------
    UsageError
        For what is no prior, a distribution of several numbers, of whole numbers, or without a density or cdf; and for a
        prior with next to no mass within the bounds.
    """
    if kind_of(prior) == "distribution":
        from ifujax.inference.parameter_space.distributions import check_distribution

        check_distribution(prior)
    share = mass_within(prior, lower, upper)
    if not np.all(share >= LEAST_MASS):
        bounds = f"[{number_text(lower)}, {number_text(upper)}]"
        raise UsageError(
            f"prior must have at least {LEAST_MASS:g} of its mass within the bounds {bounds}; "
            f"got {float(np.min(share)):.2g} with {spelled(prior)}. Widen the bounds, or correct the prior."
        )


def spelled(prior: Any, digits: int = 6) -> str:
    """Return a prior in words that are the same in each run: ``Normal(0, 100)``, ``Gamma(2, 1)``.

    A distribution made of others, or of transforms, is told with these: ``LeftTruncatedDistribution(Normal(100, 50), 0)``.
    """
    if prior is None:
        return "None"
    if isinstance(prior, (Normal, HalfNormal, LogNormal)):
        parts = [number_text(getattr(prior, name), digits) for name in prior.__dataclass_fields__]
    elif _is_numpyro(prior):
        given = (_ATTRIBUTES.get(name, name) for name in inspect.signature(type(prior).__init__).parameters)
        parts = [_part_text(getattr(prior, name), digits) for name in given if getattr(prior, name, None) is not None]
    else:
        own = repr(prior)
        return own if " at 0x" not in own else type(prior).__name__
    return f"{type(prior).__name__}({', '.join(parts)})"


def _is_numpyro(value: Any) -> bool:
    """Whether it is a distribution of numpyro, or a transform of one: both keep their arguments as attributes."""
    kind = type(value)
    return isinstance(getattr(kind, "arg_constraints", None), dict) or hasattr(kind, "log_abs_det_jacobian")


def _part_text(value: Any, digits: int) -> str:
    if _is_numpyro(value):
        return spelled(value, digits)
    if isinstance(value, (list, tuple)) or (np.ndim(value) == 1 and 1 < len(value) <= _LISTED):
        return f"[{', '.join(_part_text(each, digits) for each in value)}]"
    return number_text(value, digits)


def number_text(value: Any, digits: int = 6) -> str:
    """Return a number as short text, or the range of several."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return type(value).__name__
    if array.size == 0:
        return "none"
    low, high = float(array.min()), float(array.max())
    return f"{low:.{digits}g}" if low == high else f"{low:.3g} to {high:.3g}"
