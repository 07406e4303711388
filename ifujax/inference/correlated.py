"""Errors under noise that is correlated along the pixels.

A fit that took the noise for independent moves by ``C J^T W^1/2 dy`` whatever the noise is. With R the correlation of whitened
noise, a Toeplitz matrix of few lags, its covariance is ``C (J^T R J + P) C`` (whitened slopes J, curvature P of priors), the
sandwich of Huber (1967, Proc. 5th Berkeley Symp. 1, 221). Masked pixels have slopes of zero and drop out.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array


def sandwich(covariance: Array, columns: Sequence[Array], correlation: Array) -> Array:
    """Return the covariance (batch, m, m) of a fit under correlated noise.

    Parameters
    ----------
    covariance : array (batch, m, m)
        For independent noise.
    columns : sequence of m arrays (batch, n_pix)
        Whitened slopes.
    correlation : array (batch, lags)
        1 first.
    """
    if not columns:
        return covariance
    slopes = jnp.stack(columns, axis=1)
    # C (J^T R J + P) C = C + C J^T (R - 1) J C
    excess = jnp.einsum("bip,bjp->bij", slopes, correlated(slopes, correlation) - slopes)
    found = covariance + jnp.einsum("bij,bjk,bkl->bil", covariance, excess, covariance)
    return 0.5 * (found + jnp.swapaxes(found, 1, 2))


def quadratic(weights: Array, correlation: Array | None) -> Array:
    """Return the variance (batch, q) of sums of whitened noise with `weights` (batch, q, n_pix), independent if None."""
    if correlation is None:
        return jnp.sum(weights * weights, axis=2)
    return jnp.maximum(jnp.sum(weights * correlated(weights, correlation), axis=2), 0.0)


def correlated(array: Array, correlation: Array) -> Array:
    """Return R times each row of an array (batch, q, n_pix)."""
    n = array.shape[-1]
    total = array * correlation[:, 0, None, None]
    for k in range(1, min(correlation.shape[1], n)):
        after = jnp.pad(array[..., k:], [(0, 0), (0, 0), (0, k)])
        before = jnp.pad(array[..., :-k], [(0, 0), (0, 0), (k, 0)])
        total = total + correlation[:, k, None, None] * (after + before)
    return total
