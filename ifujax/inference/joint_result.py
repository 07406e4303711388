"""What a joint fit returns: NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ifujax.errors import DataError
from ifujax.inference.status import decode


@dataclass(frozen=True)
class JointResult:
    """Results of `fit_joint`. A fit that failed holds NaN and a non-zero `status`; so does each block that did.

    Attributes
    ----------
    shared, shared_error : mapping of str to array
        Parameters that all blocks share, and their 1 sigma errors.
    covariance : array (s, s)
        Of the free shared parameters, in their units: `covariance_names`.
    local, local_error : mapping of str to array (blocks, ...)
        Parameters of each block; the errors hold what they inherit from the shared ones.
    linear, linear_error : array (blocks, K)
        Coefficients of the eliminated linear block.
    block_covariance : array (blocks, m, m)
        Of each block's free parameters followed by its linear block: `block_covariance_names`.
    derived, derived_error : mapping of str to array (blocks,)
    chi2 : float
        Objective at the solution, priors included.
    block_chi2, n_good : array (blocks,)
        What each block adds to it, and its usable pixels.
    n_iter, status, warn : int
        Iterations, and bits of `ifujax.inference.status` for the fit as a whole.
    block_status, block_warn : array (blocks,)
        Why a block was left out, and advisory facts.
    n_free : int
        Free parameters of the whole fit: shared, local and linear ones of the blocks that take part.
    """

    shared: Mapping[str, np.ndarray]
    shared_error: Mapping[str, np.ndarray]
    covariance: np.ndarray
    covariance_names: tuple[str, ...]
    local: Mapping[str, np.ndarray]
    local_error: Mapping[str, np.ndarray]
    linear: np.ndarray
    linear_error: np.ndarray
    block_covariance: np.ndarray
    block_covariance_names: tuple[str, ...]
    derived: Mapping[str, np.ndarray]
    derived_error: Mapping[str, np.ndarray]
    chi2: float
    block_chi2: np.ndarray
    n_good: np.ndarray
    n_iter: int
    status: int
    warn: int
    block_status: np.ndarray
    block_warn: np.ndarray
    n_free: int

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Every named parameter: shared ones once, local ones (blocks, ...)."""
        return {**self.shared, **self.local}

    @property
    def error(self) -> dict[str, np.ndarray]:
        """1 sigma errors of `params`."""
        return {**self.shared_error, **self.local_error}

    @property
    def dof(self) -> int:
        """Degrees of freedom: usable pixels of the blocks that take part less free parameters."""
        return int(self.n_good[self.block_status == 0].sum()) - self.n_free

    def raise_if_failed(self) -> JointResult:
        """Return self, or raise DataError that says why the fit failed. Blocks left out do not count."""
        if self.status:
            raise DataError(f"the joint fit failed: {'; '.join(flag.sentence for flag in decode(self.status))}.")
        return self
