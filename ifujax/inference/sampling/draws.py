"""Draws from the posteriors of a batch of fits, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

TIERS = ("none", "importance", "nuts")
"""What made the draws of a fit; `Draws.tier` indexes this."""


@dataclass(frozen=True)
class Draws:
    """Draws of every parameter, NumPy, one row a fit. Rows without draws hold NaN and a non-zero `status`.

    Attributes
    ----------
    params : mapping of str to array (batch, chain, draw, ...)
        Every named parameter, tied and fixed ones included.
    linear : array (batch, chain, draw, K)
        Coefficients of the eliminated linear block.
    derived : mapping of str to array (batch, chain, draw)
    tier : array (batch,) of int8
        Index into `TIERS`. Draws of importance sampling are independent of each other and merely dealt to chains.
    khat : array (batch,)
        Pareto k-hat of importance sampling; NaN where there was none. Kept where NUTS took over.
    ess : array (batch,)
        Effective number of the draws that are returned, of the worst parameter, in its centre and its tails
        (`ifujax.inference.sampling.trust`, or the diagnostics of chains).
    rhat, ess_bulk, ess_tail : array (batch,)
        Of NUTS, each of the worst parameter and of the whole chains (Vehtari et al. 2021); NaN for importance sampling.
    divergences : array (batch,) of int
    status : array (batch,) of int32
        0 = trustworthy, else bits of `ifujax.inference.status.POSTERIOR_FLAGS`.
    """

    params: Mapping[str, np.ndarray]
    linear: np.ndarray
    derived: Mapping[str, np.ndarray]
    tier: np.ndarray
    khat: np.ndarray
    ess: np.ndarray
    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    divergences: np.ndarray
    status: np.ndarray
