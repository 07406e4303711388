"""Batched solves of small symmetric positive-definite systems.

Library calls on thousands of tiny matrices cost more than the arithmetic, so matrices up to
about 16 x 16 are factorised element by element, each element an array over the batch. Larger
ones go to LAPACK; banded ones to a scan over rows.
"""

from __future__ import annotations

import jax
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
        Element by element (small n) or LAPACK.

    Returns
    -------
    array of the shape of `rhs`. Rows whose matrix is not positive definite hold large or
    non-finite numbers: check them.
    """
    if rhs.ndim == 2:
        return solve_spd(matrix, rhs[..., None], unrolled=unrolled)[..., 0]
    if not unrolled:
        factor = jnp.linalg.cholesky(matrix, symmetrize_input=False)
        return jax.scipy.linalg.cho_solve((factor, True), rhs)
    n, columns = matrix.shape[-1], rhs.shape[-1]
    factor = _factorise([[matrix[:, i, j] for j in range(i + 1)] for i in range(n)])
    solved = [_substitute(factor, [rhs[:, i, k] for i in range(n)]) for k in range(columns)]
    return jnp.stack([jnp.stack(column, axis=1) for column in solved], axis=2)


def inverse_spd(matrix: Array, *, unrolled: bool) -> Array:
    """Return the inverse of each (n, n) matrix of a batch, symmetric to the last digit."""
    n = matrix.shape[-1]
    eye = jnp.broadcast_to(jnp.eye(n, dtype=matrix.dtype), matrix.shape)
    inverse = solve_spd(matrix, eye, unrolled=unrolled)
    return 0.5 * (inverse + jnp.swapaxes(inverse, 1, 2))


def _factorise(rows: list[list[Array]]) -> list[list[Array]]:
    """Cholesky factor of a lower triangle of batch arrays; its diagonal holds reciprocals."""
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


def _substitute(factor: list[list[Array]], rhs: list[Array]) -> list[Array]:
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
