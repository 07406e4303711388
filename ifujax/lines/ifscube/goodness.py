"""What IFSCube minimises, in which units, and with how many degrees of freedom."""

from __future__ import annotations

import numpy as np


def flux_scale(data: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return S (n,), by which IFSCube divides each spectrum: the 90th percentile of its fitted ``|data|``.

    ``data (n, wave)`` holds the continuum too; ``good (n, wave)`` are the pixels of the fit. 1 where that is not positive.
    """
    result = np.ones(len(data))
    some = good.any(axis=1)
    if some.any():
        result[some] = np.nanpercentile(np.where(good[some], np.abs(data[some]), np.nan), 90, axis=1)
    return np.where(result > 0, result, 1.0)


def chi_square(residual: np.ndarray, variance: np.ndarray | None, good: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return IFSCube's chi2 of each spectrum (n,).

    Parameters
    ----------
    residual : array (n, wave)
    variance : array (n, wave), optional
        As read. Kept fault: not multiplied by ``(1 + z)^2`` although the data are by ``1 + z``.
    good : array (n, wave)
        Pixels of the fit.
    scale : array (n,)
        From `flux_scale`. Without a variance chi2 is in units of its square (section 5.1).
    """
    per = scale[:, None] ** 2 if variance is None else np.where(good, variance, 1.0)
    return (np.where(good, residual, 0.0) ** 2 / per).sum(axis=1)


def degrees_of_freedom(n_good: np.ndarray, n_packed: int, n_constraints: int, instrument_dispersion: float = 1.0) -> np.ndarray:
    """Return what IFSCube divides chi2 by; it may be 0 or less (section 5.2).

    Kept faults: `n_packed` parameters count although equalities remove some of them, all `n_constraints` count although
    inequalities remove none, one more is taken off, and the continuum's coefficients are not.
    """
    return n_good / instrument_dispersion - n_packed - n_constraints - 1.0
