"""How a fit is done: static options, part of what a compilation is keyed by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ifujax.errors import UsageError

Loss = Literal["gaussian", "student_t"]
Bounds = Literal["active_set", "transform"]
Linear = Literal["keep", "eliminate", "nnls"]
Normal = Literal["auto", "unrolled", "dense"]


@dataclass(frozen=True)
class LeastSquaresOptions:
    """Options of the least-squares engine.

    Parameters
    ----------
    loss : "gaussian" or "student_t"
        Sum of squares, or ``(nu + 1) log(1 + r^2 / nu)`` summed, with `degrees` as nu
        (robust against outliers; solved by reweighting).
    bounds : "active_set" or "transform"
        Boxes kept by an active set on x, or every box a bijection to the line. With the latter a fit
        whose optimum lies on a bound may stop well short of it: slopes vanish there.
    linear : "keep", "eliminate" or "nnls"
        What becomes of a model's linear block: nothing (the model has none), solved exactly at
        each step, or solved with non-negative coefficients (a start at which all of these are zero
        has no slope, and ends there: begin where the model touches the data).
    normal : "auto", "unrolled" or "dense"
        Normal matrices of up to `unrolled_limit` parameters are factorised element by element,
        each an array over the batch; larger ones by a loop over their columns, a twentieth slower
        for 7 parameters but half as long to compile.
    max_iter : int
        Iterations after which an unfinished fit is given up (status bit).
    tolerance : float
        A fit ends when the next step would lower chi2 by less than this times chi2 per degree of
        freedom: the parameters then are within about ``sqrt(tolerance)`` of their errors.
    degrees : float
        Degrees of freedom of the Student-t loss.
    warm_up : bool
        Where float64 is asked for, iterate in float32 first, at a third of the cost. Every fit is
        then finished and judged in float64; one that float32 can't follow starts afresh.
    residual_sums : bool
        Also return sums over the residuals along the pixel axis (`FitResult.residuals`), which must be one axis such as
        wavelength.
    """

    loss: Loss = "gaussian"
    bounds: Bounds = "active_set"
    linear: Linear = "keep"
    normal: Normal = "auto"
    max_iter: int = 50
    tolerance: float = 1e-7
    degrees: float = 4.0
    warm_up: bool = True
    unrolled_limit: int = 4
    residual_sums: bool = False

    def __post_init__(self) -> None:
        for name, accepted in (("loss", Loss), ("bounds", Bounds), ("linear", Linear), ("normal", Normal)):
            if getattr(self, name) not in get_args(accepted):
                raise UsageError(f"{name} must be one of {', '.join(get_args(accepted))}; got {getattr(self, name)!r}.")
        if self.max_iter < 1:
            raise UsageError(f"max_iter must be 1 or more; got {self.max_iter}.")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"tolerance must lie between 0 and 1; got {self.tolerance}.")
        if not self.degrees > 0:
            raise UsageError(f"degrees must be positive; got {self.degrees}.")

    def unrolled(self, n: int) -> bool:
        """Whether a normal matrix of `n` parameters is handled element by element."""
        return self.normal == "unrolled" or (self.normal == "auto" and n <= self.unrolled_limit)


DEFAULT_OPTIONS = LeastSquaresOptions()
