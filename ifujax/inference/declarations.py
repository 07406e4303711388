"""How a user declares one parameter: bounded, fixed, or tied to others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ifujax.errors import UsageError


@dataclass(frozen=True)
class Normal:
    """Gaussian prior on a parameter, in the parameter's own units."""

    mean: float
    sigma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.sigma) and self.sigma > 0):
            raise UsageError(f"prior must have a finite mean and a positive sigma; got {self}. Give Normal(mean, sigma).")


@dataclass(frozen=True)
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
    prior : Normal, optional
        Gaussian prior, used as one more residual.
    """

    lower: float = -math.inf
    upper: float = math.inf
    start: float | str | None = None
    above: str | None = None
    below: str | None = None
    prior: Normal | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper) or not self.lower < self.upper:
            raise UsageError(
                f"bounds must have lower < upper; got {self.lower:g} and {self.upper:g}. "
                "Use Fixed(value) for a parameter that may not move."
            )
        if isinstance(self.start, (int, float)) and not self.lower <= self.start <= self.upper:
            raise UsageError(
                f"start must lie within the bounds [{self.lower:g}, {self.upper:g}]; got {self.start:g}. "
                "Move the start or widen the bounds."
            )


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
