"""Batched solves of small symmetric positive-definite systems.

Library calls on thousands of tiny matrices cost more than the arithmetic, so matrices up to
about 4 x 4 are factorised element by element, each element an array over the batch. Larger
ones by a loop over columns; banded ones by a scan over rows. LAPACK is not used: XLA's batched
calls of it from several threads at once can deadlock on a CPU (seen with jax 0.10.2).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax


def solve_spd(matrix: Array, rhs: Array, *, unrolled: bool) -> Array:
    """Solve ``matrix @ x = rhs`` for each row of the batch.

    Parameters
    ----------
    matrix : array (batch, n, n)
        Symmetric, positive definite, with a unit diagonal for the best accuracy.
    rhs : array (batch, n) or (batch, n, m)
    unrolled : bool
        Element by element (small n), or by a loop over columns.

    Returns
    -------
    array of the shape of `rhs`. Rows whose matrix is not positive definite hold large or
    non-finite numbers: check them.
    """
    if rhs.ndim == 2:
        return solve_spd(matrix, rhs[..., None], unrolled=unrolled)[..., 0]
    if matrix.shape[-1] == 0:
        return rhs
    if not unrolled:
        return _solve_by_columns(matrix, rhs)
    n, columns = matrix.shape[-1], rhs.shape[-1]
    factor = factorise([[matrix[:, i, j] for j in range(i + 1)] for i in range(n)])
    solved = [substitute(factor, [rhs[:, i, k] for i in range(n)]) for k in range(columns)]
    return jnp.stack([jnp.stack(column, axis=1) for column in solved], axis=2)


def inverse_spd(matrix: Array, *, unrolled: bool) -> Array:
    """Return the inverse of each (n, n) matrix of a batch, symmetric to the last digit."""
    n = matrix.shape[-1]
    eye = jnp.broadcast_to(jnp.eye(n, dtype=matrix.dtype)[None], matrix.shape)
    inverse = solve_spd(matrix, eye, unrolled=unrolled)
    return 0.5 * (inverse + jnp.swapaxes(inverse, 1, 2))


def factorise(rows: list[list[Array]]) -> list[list[Array]]:
    """Return the Cholesky factor of a lower triangle of arrays (a unit diagonal is expected); its diagonal holds reciprocals."""
    factor: list[list[Array]] = []
    for i, row in enumerate(rows):
        line: list[Array] = []
        for j in range(i):
            dot = row[j]
            for k in range(j):
                dot = dot - line[k] * factor[j][k]
            line.append(dot * factor[j][j])
        pivot = row[i]
        for k in range(i):
            pivot = pivot - line[k] * line[k]
        # A pivot lost to rounding makes the row useless rather than NaN: the step is then rejected.
        line.append(lax.rsqrt(jnp.maximum(pivot, jnp.finfo(pivot.dtype).eps)))
        factor.append(line)
    return factor


def substitute(factor: list[list[Array]], rhs: list[Array]) -> list[Array]:
    """Solve for one right-hand side with what `factorise` returned."""
    n = len(factor)
    forward: list[Array] = []
    for i in range(n):
        value = rhs[i]
        for k in range(i):
            value = value - factor[i][k] * forward[k]
        forward.append(value * factor[i][i])
    solution: list[Array] = [forward[-1]] * n
    for i in reversed(range(n)):
        value = forward[i]
        for k in range(i + 1, n):
            value = value - factor[k][i] * solution[k]
        solution[i] = value * factor[i][i]
    return solution


def _solve_by_columns(matrix: Array, rhs: Array) -> Array:
    """Right-looking Cholesky with the forward substitution alongside, then the backward one."""
    n = matrix.shape[-1]
    index = jnp.arange(n)[None]

    def eliminate(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        left, right, factor = carry
        column = lax.dynamic_index_in_dim(left, j, axis=2, keepdims=False)
        pivot = lax.dynamic_index_in_dim(column, j, axis=1)
        inverse = lax.rsqrt(jnp.maximum(pivot, jnp.finfo(matrix.dtype).eps))
        column = jnp.where(index > j, column * inverse, 0.0)
        solved = lax.dynamic_index_in_dim(right, j, axis=1) * inverse[:, :, None]
        left = left - column[:, :, None] * column[:, None, :]
        right = jnp.where((index > j)[:, :, None], right - column[:, :, None] * solved, right)
        right = lax.dynamic_update_index_in_dim(right, solved, j, axis=1)
        column = jnp.where(index == j, inverse, column)
        return left, right, lax.dynamic_update_index_in_dim(factor, column, j, axis=2)

    _, forward, factor = lax.fori_loop(0, n, eliminate, (matrix, rhs, jnp.zeros_like(matrix)))

    def back(k: Array, right: Array) -> Array:
        j = n - 1 - k
        column = lax.dynamic_index_in_dim(factor, j, axis=2, keepdims=False)
        inverse = lax.dynamic_index_in_dim(column, j, axis=1)
        below = jnp.where(index > j, column, 0.0)
        known = jnp.sum(below[:, :, None] * right, axis=1)
        value = (lax.dynamic_index_in_dim(right, j, axis=1, keepdims=False) - known) * inverse
        return lax.dynamic_update_index_in_dim(right, value[:, None, :], j, axis=1)

    return lax.fori_loop(0, n, back, forward)


def solve_banded_spd(bands: Array, rhs: Array) -> Array:
    """Solve symmetric positive-definite banded systems by Cholesky factorisation.

    Parameters
    ----------
    bands : array (batch, bandwidth + 1, n)
        ``bands[:, d, i]`` is the element (i + d, i): the diagonal first, then each subdiagonal,
        padded with zeros at the end (LAPACK's lower form).
    rhs : array (batch, n)

    Returns
    -------
    array (batch, n)

    Notes
    -----
    n sequential steps of bandwidth^2 work each (Golub & Van Loan, Matrix Computations, 4.3.5).
    """
    width = bands.shape[1] - 1
    eps = jnp.finfo(bands.dtype).eps
    by_row = jnp.moveaxis(bands, 2, 0)  # (n, batch, width + 1)

    def eliminate(pending: tuple[Array, Array], item: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        # pending[:, a, d]: what earlier columns subtract from the element (i + a + d, i + a); carry: from the rhs.
        correction, shift = pending
        column, value = item
        column = column - correction[:, 0, :]
        value = value - shift[:, 0]
        pivot = lax.rsqrt(jnp.maximum(column[:, 0], eps * jnp.abs(column[:, 0]) + jnp.finfo(bands.dtype).tiny))
        factor = column * pivot[:, None]
        solved = value * pivot
        new = jnp.zeros_like(correction)
        new = new.at[:, :-1, :].set(correction[:, 1:, :])
        new_shift = jnp.zeros_like(shift).at[:, :-1].set(shift[:, 1:])
        for a in range(1, width + 1):
            for b in range(a, width + 1):
                new = new.at[:, a - 1, b - a].add(factor[:, a] * factor[:, b])
            new_shift = new_shift.at[:, a - 1].add(factor[:, a] * solved)
        return (new, new_shift), (factor.at[:, 0].set(pivot), solved)

    batch = bands.shape[0]
    start = (jnp.zeros((batch, width + 1, width + 1), bands.dtype), jnp.zeros((batch, width + 1), bands.dtype))
    _, (factor, solved) = lax.scan(eliminate, start, (by_row, rhs.T))

    def back(later: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        column, value = item
        x = (value - jnp.sum(column[:, 1:] * later, axis=1)) * column[:, 0]
        return jnp.concatenate([x[:, None], later[:, :-1]], axis=1) if width else later, x

    _, solution = lax.scan(back, jnp.zeros((batch, width), bands.dtype), (factor, solved), reverse=True)
    return solution.T
