"""How a user declares one parameter: bounded, fixed, or tied to others."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.parameter_space.priors import (
    HalfNormal,
    LogNormal,
    Normal,
    Prior,
    check_prior,
    kind_of,
    location_and_scale,
    spelled,
    support_of,
)


@dataclass(frozen=True, repr=False)
class Bounded:
    """A free parameter within ``[lower, upper]``.

    Parameters
    ----------
    lower, upper : float
        Bounds, infinite where there is none.
    start : float or str, optional
        First guess. None lets the job find one from the data; a word (``"peak"``) is
        interpreted by the job.
    above, below : str, optional
        Expressions of other parameters that the value may not fall below or exceed,
        e.g. ``above="narrow.velocity_dispersion"``.
    prior : Normal, HalfNormal, LogNormal or a distribution, optional
        Truncated to the bounds; uniform between them by default. A distribution is of a single number and has `log_prob` and
        `cdf`, as numpyro's do. Least squares takes `Normal` and `HalfNormal` as one more residual each; the others count in
        posteriors only (`ifujax.sample`). Bounds are narrowed to where the prior has mass: `HalfNormal` and `LogNormal`
        raise `lower` to 0. Where a bound moves (`above`, `below`) the prior is that of this parameter given those that move it.

    Raises
    ------
    UsageError
        For bounds or a start that contradict one another, or a prior that is none or has no mass within the bounds.
    """

    lower: float = -math.inf
    upper: float = math.inf
    start: float | str | None = None
    above: str | None = None
    below: str | None = None
    prior: Prior | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper) or not self.lower < self.upper:
            raise UsageError(
                f"bounds must have lower < upper; got {self.lower:g} and {self.upper:g}. "
                "Use Fixed(value) for a parameter that may not move."
            )
        if self.prior is not None:
            self._narrow_to_prior(self.prior)
        if isinstance(self.start, (int, float)) and not self.lower <= self.start <= self.upper:
            raise UsageError(
                f"start must lie within the bounds [{self.lower:g}, {self.upper:g}]; got {self.start:g}. "
                "Move the start or widen the bounds."
            )

    def _narrow_to_prior(self, prior: Prior) -> None:
        if kind_of(prior) != "distribution" and any(np.ndim(number) for number in location_and_scale(prior)):
            raise UsageError(f"prior must have single numbers where it is declared; got {spelled(prior)}. Give scalars.")
        low, high = support_of(prior)
        low, high = max(self.lower, low), min(self.upper, high)
        if not low < high:
            raise UsageError(
                f"bounds must leave room for the prior; got [{self.lower:g}, {self.upper:g}] with {spelled(prior)}. "
                "Widen the bounds, or correct the prior."
            )
        check_prior(prior, low, high)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    def __repr__(self) -> str:
        # Distributions print their address, which differs from run to run: this is what fits are recognised by.
        shown = {f.name: repr(getattr(self, f.name)) for f in fields(self)} | {"prior": spelled(self.prior, 15)}
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in shown.items())})"


@dataclass(frozen=True)
class Fixed:
    """A parameter held at a value."""

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise UsageError(f"value of a fixed parameter must be finite; got {self.value}.")


@dataclass(frozen=True)
class Tied:
    """A parameter computed from others.

    Parameters
    ----------
    expression : str
        Arithmetic of parameter names and numbers: ``"n2b.flux / 3.06"``,
        ``"sqrt(a.velocity_dispersion**2 + 100**2)"``.
    lower, upper : float
        Bounds that the computed value must keep, infinite where there is none.
    """

    expression: str
    lower: float = -math.inf
    upper: float = math.inf

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper) or not self.lower < self.upper:
            raise UsageError(
                f"bounds of a tied parameter must have lower < upper; got {self.lower:g} and {self.upper:g}. "
                "Use Fixed(value) for a parameter that may not move."
            )


Declaration = Bounded | Fixed | Tied

__all__ = ["Bounded", "Declaration", "Fixed", "HalfNormal", "LogNormal", "Normal", "Prior", "Tied"]
