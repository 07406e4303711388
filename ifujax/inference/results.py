"""What a batch of fits returns: NumPy arrays, one row a fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ifujax.errors import DataError
from ifujax.inference.status import STATUS_FLAGS, decode


@dataclass(frozen=True)
class FitResult:
    """Results of `fit_batch` or `fit_joint`. Rows that failed hold NaN and a non-zero `status`.

    Attributes
    ----------
    params, error : mapping of str to array (batch, ...)
        Every named parameter, tied and fixed ones included, and its 1 sigma error; NaN where
        the data do not constrain it, 0 for what was fixed.
    linear, linear_error : array (batch, K)
        Coefficients of the eliminated linear block.
    covariance : array (batch, m, m) or None
        Covariance of the free parameters, in their units, followed by the linear block:
        `covariance_names`.
    derived, derived_error : mapping of str to array (batch,)
        What was asked for with `derived`.
    chi2, n_good, n_iter, status, warn : array (batch,)
        Objective at the solution, usable pixels, iterations, and the bits of
        `ifujax.inference.status`.
    n_free : int
        Free parameters of one fit, the linear block included.
    x : array (batch, n)
        The fitted vector itself, for `sample` and restarts.
    element_warn : array (batch, n)
        Which bits of `warn` concern each of its elements (the first n of `covariance_names`).
    residuals : array (batch, sums) or None
        With ``options.residual_sums``: see `ifujax.inference.residuals.ResidualSums`.
    absorbed : array or None
        What the first fits of the batch take of the noise on average, for the same.
    """

    params: Mapping[str, np.ndarray]
    error: Mapping[str, np.ndarray]
    linear: np.ndarray
    linear_error: np.ndarray
    covariance: np.ndarray | None
    covariance_names: tuple[str, ...]
    derived: Mapping[str, np.ndarray]
    derived_error: Mapping[str, np.ndarray]
    chi2: np.ndarray
    n_good: np.ndarray
    n_iter: np.ndarray
    status: np.ndarray
    warn: np.ndarray
    n_free: int
    x: np.ndarray
    element_warn: np.ndarray
    residuals: np.ndarray | None = None
    absorbed: np.ndarray | None = None

    @property
    def dof(self) -> np.ndarray:
        """Degrees of freedom: usable pixels less free parameters."""
        return self.n_good - self.n_free

    def of(self, rows: np.ndarray) -> FitResult:
        """Return some rows: their indices, or a bool for each."""
        return replace(self, **{name: _map(value, lambda array: array[rows]) for name, value in self._arrays().items()})

    def replaced(self, rows: np.ndarray, other: FitResult) -> FitResult:
        """Return a copy in which some rows (indices) are those of `other`, one for each."""

        def put(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            mine = np.array(mine)
            mine[rows] = theirs
            return mine

        theirs = other._arrays()
        return replace(self, **{name: _map(value, put, theirs[name]) for name, value in self._arrays().items()})

    def with_warnings(self, element_warn: np.ndarray) -> FitResult:
        """Return a copy with further bits (batch, n) of the elements of `x`, which `warn` gets too."""
        each = self.element_warn | element_warn
        return replace(self, element_warn=each, warn=self.warn | np.bitwise_or.reduce(each, axis=1))

    def _arrays(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "absorbed"}  # of no row
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray | Mapping)}

    def raise_if_failed(self) -> FitResult:
        """Return self, or raise DataError that counts the failed fits by reason."""
        failed = self.status != 0
        if failed.any():
            reasons = [f"{int(((self.status & flag.value) != 0).sum())} {flag.name}" for flag in STATUS_FLAGS]
            first = int(np.flatnonzero(failed)[0])
            sentences = "; ".join(flag.sentence for flag in decode(self.status[first]))
            listed = ", ".join(reason for reason in reasons if not reason.startswith("0 "))
            raise DataError(f"{int(failed.sum())} of {failed.size} fits failed ({listed}); the first, row {first}: {sentences}.")
        return self


def _map(value: Any, function: Callable[..., np.ndarray], *others: Any) -> Any:
    """Apply a function to an array, or to each of a mapping."""
    if isinstance(value, Mapping):
        return {name: function(array, *(other[name] for other in others)) for name, array in value.items()}
    return function(value, *others)
