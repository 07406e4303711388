"""Errors of a fit to data from which something was subtracted that had been fitted to the same data before.

Whitened noise e moves the coefficients of the first fit, which is linear, by ``b = D e``, and what is subtracted by ``B b`` (B
its whitened basis). The second fit sees ``e - B b`` and moves by ``C J^T (e - B b) = C J^T e + F b`` with ``F = -C J^T B``. So
the coefficients count as further parameters, whose covariance with the others is known, and errors of whatever is derived are
carried from all of them. The terms that mix ``C J^T e`` and b come from the pixels that both fits used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ifujax.inference.correlated import correlated


@partial(jax.tree_util.register_dataclass, data_fields=["basis", "weight", "inverse", "extra"], meta_fields=["shifted"])
@dataclass(frozen=True)
class Subtracted:
    """What was subtracted from the data of a batch of fits: ``coefficients @ basis``, fitted to the same data.

    Attributes
    ----------
    basis : array (K, n_pix)
        The same for all fits.
    weight : array (batch, n_pix)
    inverse : array (batch, K, K)
        One standard deviation of noise in pixel p moves the coefficients by ``inverse @ basis[:, p] * weight[p]``. The weight is
        0 in the pixels that had no part in it; it may be positive in those that are masked now.
    extra : array (batch,)
        Variance that the coefficients have beyond that, of noise which the second fit doesn't feel, as a share of it.
    shifted : callable, optional
        ``(coords, shift)`` -> `coords` that know of ``shift (n_pix,)`` more subtracted; a module-level function. For derived
        quantities that depend on it.
    """

    basis: Any
    weight: Any
    inverse: Any
    extra: Any
    shifted: Callable[[Any, Any], Any] | None = None

    def of(self, rows: np.ndarray) -> Subtracted:
        """Return some rows."""
        return Subtracted(self.basis, self.weight[rows], self.inverse[rows], self.extra[rows], self.shifted)

    def in_units(self, unit: np.ndarray, dtype: np.dtype) -> Subtracted:
        """Return this for coefficients that count in units of 1 / `unit` (batch,), in working precision."""
        scaled = Subtracted(self.basis, self.weight * unit[:, None], self.inverse, self.extra, self.shifted)
        return jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype, copy=False), scaled)

    @property
    def response(self) -> Any:
        """(batch, K, n_pix) by what a standard deviation of noise in each pixel moves the coefficients."""
        return (self.inverse @ self.basis[None]) * self.weight[:, None, :]

    def moved(self, noise: np.ndarray, more: np.ndarray) -> np.ndarray:
        """Return by how much noise moves what was subtracted, (batch, n_pix), on the host.

        Parameters
        ----------
        noise, more : array (batch, n_pix)
            In standard deviations, and other noise of the same kind, for the extra variance.
        """
        felt = (noise + np.sqrt(self.extra)[:, None] * more) * self.weight
        return np.einsum("bij,bj->bi", self.inverse, felt @ np.asarray(self.basis).T) @ self.basis


class TwoSteps(NamedTuple):
    """Errors of both fits together, of m parameters and K subtracted coefficients.

    `columns` are the K whitened basis functions (batch, n_pix), `response` (batch, K, n_pix) is D, and `passed`
    (batch, m + K, K) by what the coefficients move the parameters and themselves. `covariance` (batch, m + K, m + K) is that of
    all; `extra` (batch, K, K) is the part of the coefficients' own that is no noise in the pixels.
    """

    columns: list[Array]
    response: Array
    passed: Array
    covariance: Array
    extra: Array


def two_steps(
    subtracted: Subtracted,
    root: Array,
    columns: Sequence[Array],
    naive: Array,
    covariance: Array,
    correlation: Array | None,
) -> TwoSteps:
    """Return the errors of parameters and subtracted coefficients, the latter in the units that `subtracted` has them in.

    Parameters
    ----------
    subtracted : Subtracted
    root : array (batch, n_pix)
        Root weights of the pixels, in the same units.
    columns : sequence of m arrays (batch, n_pix)
        Whitened slopes of the second fit.
    naive, covariance : array (batch, m, m)
        Inverse curvature, and covariance if nothing had been subtracted: the same, unless noise is correlated.
    correlation : array (batch, lags), optional
        Of the noise along the pixels, 1 first.
    """
    size, batch = subtracted.basis.shape[0], root.shape[0]
    whitened = subtracted.basis[None] * root[:, None, :]
    response = subtracted.response
    felt = response if correlation is None else correlated(response, correlation)
    plain = jnp.einsum("bkp,blp->bkl", response, response)
    extra = subtracted.extra[:, None, None] * plain
    own = (plain if correlation is None else jnp.einsum("bkp,blp->bkl", felt, response)) + extra
    eye = jnp.broadcast_to(jnp.eye(size, dtype=root.dtype)[None], (batch, size, size))
    if columns:
        slopes = jnp.stack(columns, axis=1)
        onto = -jnp.einsum("bij,bjk->bik", naive, jnp.einsum("bjp,bkp->bjk", slopes, whitened))
        passed = jnp.concatenate([onto, eye], axis=1)
        shared = jnp.einsum("bij,bjk->bik", naive, jnp.einsum("bjp,bkp->bjk", slopes, felt))
        cross = jnp.einsum("bik,blk->bil", jnp.pad(shared, [(0, 0), (0, size), (0, 0)]), passed)
        base = jnp.pad(covariance, [(0, 0), (0, size), (0, size)]) + cross + jnp.swapaxes(cross, 1, 2)
    else:
        passed, base = eye, 0.0
    carried = jnp.einsum("bik,bkl,bjl->bij", passed, own, passed)
    return TwoSteps([whitened[:, k] for k in range(size)], response, passed, base + carried, extra)
