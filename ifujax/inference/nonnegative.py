"""Batched non-negative least squares from normal equations, by block principal pivoting."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from ifujax.inference.cholesky import solve_spd


def solve_nonnegative(matrix: Array, rhs: Array, *, unrolled: bool, max_pivots: int | None = None) -> tuple[Array, Array]:
    """Minimise ``x^T M x / 2 - rhs^T x`` with x >= 0 for each row.

    Parameters
    ----------
    matrix : array (batch, n, n)
        Positive definite, unit diagonal.
    rhs : array (batch, n)
    unrolled : bool
        As for `solve_spd`.
    max_pivots : int, optional
        Exchanges of the active set, 3 n + 10 by default.

    Returns
    -------
    x, free : array (batch, n)
        The solution and 1 where a coefficient is positive.

    Notes
    -----
    Portugal, Judice & Vicente (1994), Math. Comp. 63, 625: all violated indices change sides at
    once while that reduces their number, one at a time (the largest index) afterwards, which
    makes the method finite.
    """
    n = rhs.shape[1]
    limit = 3 * n + 10 if max_pivots is None else max_pivots
    eye = jnp.eye(n, dtype=matrix.dtype)[None]
    tolerance = 10 * jnp.finfo(matrix.dtype).eps * (1.0 + jnp.max(jnp.abs(rhs), axis=1, keepdims=True))

    def solve(free: Array) -> tuple[Array, Array]:
        mask = free.astype(matrix.dtype)
        reduced = matrix * mask[:, :, None] * mask[:, None, :] + eye * (1.0 - mask)[:, None, :]
        x = solve_spd(reduced, rhs * mask, unrolled=unrolled) * mask
        gradient = jnp.sum(matrix * x[:, None, :], axis=2) - rhs
        return x, gradient

    def violated(free: Array, x: Array, gradient: Array) -> Array:
        return jnp.where(free, x < -tolerance, gradient < -tolerance)

    def body(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        free, fewest, patience, step = state
        wrong = violated(free, *solve(free))
        count = jnp.sum(wrong, axis=1)
        better = count < fewest
        patience = jnp.where(better, 3, patience - 1)
        last = n - 1 - jnp.argmax(wrong[:, ::-1], axis=1)
        single = (jnp.arange(n)[None, :] == last[:, None]) & wrong
        change = jnp.where((patience > 0)[:, None], wrong, single)
        return free ^ change, jnp.minimum(fewest, count), patience, step + 1

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        free, _, _, step = state
        return (step < limit) & jnp.any(violated(free, *solve(free)))

    batch = rhs.shape[0]
    start = (rhs > 0, jnp.full((batch,), n + 1), jnp.full((batch,), 3), jnp.zeros((), int))
    free = lax.while_loop(unfinished, body, start)[0]
    x, _ = solve(free)
    return jnp.maximum(x, 0.0), free.astype(rhs.dtype)
