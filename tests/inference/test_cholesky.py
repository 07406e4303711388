"""Our own factorisations against LAPACK's, and non-negative solutions against scipy's."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.linalg import solveh_banded
from scipy.optimize import nnls

from ifujax.inference.cholesky import inverse_spd, solve_banded_spd, solve_spd
from ifujax.inference.nonnegative import solve_nonnegative


def spd(rng, batch, n):
    root = rng.normal(size=(batch, n, 2 * n + 2))
    matrix = root @ np.swapaxes(root, 1, 2)
    size = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    return matrix / (size[:, :, None] * size[:, None, :])


@pytest.mark.parametrize(("n", "unrolled"), [(1, True), (1, False), (5, True), (5, False), (40, False)])
def test_solve(rng, n, unrolled):
    matrix, rhs = spd(rng, 7, n), rng.normal(size=(7, n, 3))
    with jax.enable_x64(True):
        many = np.asarray(solve_spd(matrix, rhs, unrolled=unrolled))
        one = np.asarray(solve_spd(matrix, rhs[:, :, 0], unrolled=unrolled))
        inverse = np.asarray(inverse_spd(matrix, unrolled=unrolled))
    np.testing.assert_allclose(many, np.linalg.solve(matrix, rhs), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(one, many[:, :, 0], rtol=1e-12)
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("n", "width"), [(1, 0), (6, 0), (6, 1), (50, 3)])
def test_banded(rng, n, width):
    bands = rng.uniform(-1, 1, size=(4, width + 1, n))
    bands[:, 0] = 2 * width + 1
    for d in range(1, width + 1):
        bands[:, d, n - d :] = 0
    rhs = rng.normal(size=(4, n))
    with jax.enable_x64(True):
        ours = np.asarray(solve_banded_spd(bands, rhs))
    theirs = [solveh_banded(one, right, lower=True) for one, right in zip(bands, rhs)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "unrolled"), [(2, True), (6, True), (25, False)])
def test_nonnegative(rng, n, unrolled):
    design = rng.normal(size=(30, n + 10, n)) / np.sqrt(n + 10)
    design /= np.sqrt((design**2).sum(axis=1, keepdims=True))
    values = rng.normal(size=(30, n + 10))
    matrix = np.swapaxes(design, 1, 2) @ design
    with jax.enable_x64(True):
        x, free = map(np.asarray, solve_nonnegative(matrix, np.einsum("bpk,bp->bk", design, values), unrolled=unrolled))
    np.testing.assert_allclose(x, [nnls(d, v)[0] for d, v in zip(design, values)], atol=1e-9)
    assert np.array_equal(free > 0, x > 0)


def test_a_row_that_is_not_positive_definite_changes_no_other(rng):
    matrix = spd(rng, 3, 4)
    bad = matrix.copy()
    bad[1] = np.nan
    rhs = rng.normal(size=(3, 4))
    with jax.enable_x64(True):
        for unrolled in (True, False):
            good = np.asarray(solve_spd(matrix, rhs, unrolled=unrolled))
            mixed = np.asarray(solve_spd(bad, rhs, unrolled=unrolled))
            np.testing.assert_array_equal(mixed[[0, 2]], good[[0, 2]])
