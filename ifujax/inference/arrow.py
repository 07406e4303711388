"""Normal matrices in the shape of an arrow: shared parameters coupled to many blocks of local ones.

The blocks are eliminated by Schur complement, so that the cost grows linearly with their number
(Triggs et al. 2000, "Bundle adjustment: a modern synthesis", section 6). On the host, in float64:
the matrices are small, and there is one of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Arrow:
    """A symmetric matrix: ``shared (s, s)``, ``coupling (blocks, s, l)`` and ``local (blocks, l, l)``."""

    shared: np.ndarray
    coupling: np.ndarray
    local: np.ndarray

    def diagonal(self) -> Pair:
        """Return the diagonal, as a vector."""
        return Pair(np.diagonal(self.shared), np.diagonal(self.local, axis1=1, axis2=2))

    def times(self, vector: Pair) -> Pair:
        """Multiply a vector."""
        shared = self.shared @ vector.shared + np.einsum("bsl,bl->s", self.coupling, vector.local)
        local = np.einsum("bsl,s->bl", self.coupling, vector.shared) + np.einsum("blm,bm->bl", self.local, vector.local)
        return Pair(shared, local)

    def scaled(self, by: Pair) -> Arrow:
        """Multiply rows and columns by a vector."""
        return Arrow(
            self.shared * by.shared[:, None] * by.shared[None, :],
            self.coupling * by.shared[None, :, None] * by.local[:, None, :],
            self.local * by.local[:, :, None] * by.local[:, None, :],
        )

    def with_diagonal(self, diagonal: Pair) -> Arrow:
        """Replace the diagonal."""
        shared, local = self.shared.copy(), self.local.copy()
        s, m = np.arange(shared.shape[0]), np.arange(local.shape[1])
        shared[s, s] = diagonal.shared
        local[:, m, m] = diagonal.local
        return Arrow(shared, self.coupling, local)


@dataclass(frozen=True)
class Pair:
    """A vector of the arrow's space: ``shared (s,)`` and ``local (blocks, l)``."""

    shared: np.ndarray
    local: np.ndarray

    @property
    def flat(self) -> np.ndarray:
        return np.concatenate([self.shared, self.local.ravel()])

    def like(self, flat: np.ndarray) -> Pair:
        """Return `flat` in the shape of this vector."""
        n = len(self.shared)
        return Pair(flat[:n], flat[n:].reshape(self.local.shape))


def solve(matrix: Arrow, rhs: Pair) -> Pair:
    """Solve a positive-definite system; numpy.linalg.LinAlgError where it is singular."""
    n_shared = len(rhs.shared)
    right = np.concatenate([np.swapaxes(matrix.coupling, 1, 2), rhs.local[:, :, None]], axis=2)
    solved = np.linalg.solve(matrix.local, right)  # inverse of each block times its coupling and its right-hand side
    reduced = matrix.shared - np.einsum("bsl,blt->st", matrix.coupling, solved[:, :, :n_shared])
    shared = np.linalg.solve(reduced, rhs.shared - np.einsum("bsl,bl->s", matrix.coupling, solved[:, :, -1]))
    return Pair(shared, solved[:, :, -1] - np.einsum("bls,s->bl", solved[:, :, :n_shared], shared))


def box_step(matrix: Arrow, gradient: Pair, damping: float, x: Pair, low: Pair, high: Pair) -> Pair:
    """Return the damped step that stays within the box: the rules of the batched fits, for one arrow.

    A parameter at its bound whose gradient points outward rests; one whose step would cross its
    bound is put there before the others are solved again.
    """
    at, below, above, slope = x.flat, low.flat, high.flat, gradient.flat
    diagonal = matrix.diagonal().flat
    felt = diagonal > 0
    resting = ((at <= below) & (slope <= 0)) | ((at >= above) & (slope >= 0))
    free = felt & ~resting
    unit = np.where(felt, 1.0 / np.sqrt(np.where(felt, diagonal, 1.0)), 1.0)

    def solved(rhs: np.ndarray, free: np.ndarray) -> np.ndarray:
        by = unit * free
        damped = matrix.scaled(x.like(by)).with_diagonal(x.like(np.full_like(at, 1.0 + damping)))
        return solve(damped, x.like(rhs * by)).flat * by

    room_low, room_high = below - at, above - at
    move = solved(slope, free)
    stopped = free & ((move < room_low) | (move > room_high))
    if stopped.any():
        held = np.where(stopped, np.clip(move, room_low, room_high), 0.0)
        again = solved(slope - matrix.times(x.like(held)).flat, free & ~stopped)
        move = np.clip(np.where(stopped, held, again), room_low, room_high)
    return x.like(move)


def covariance(matrix: Arrow, eps: float) -> tuple[Arrow, Pair]:
    """Invert the arrow: covariance of the shared, of shared with each block's, and of each block's own parameters.

    The blocks' covariance holds what they inherit from the shared parameters. Also returns which
    elements the data constrain; rows and columns of the others are zero.
    """
    diagonal = matrix.diagonal()
    felt = Pair(diagonal.shared > 0, diagonal.local > 0)
    unit = diagonal.like(np.where(felt.flat, 1.0 / np.sqrt(np.where(felt.flat, diagonal.flat, 1.0)), 0.0))
    scaled = matrix.scaled(unit).with_diagonal(diagonal.like(np.ones_like(diagonal.flat)))
    inverse = _inverse(scaled.local)
    gain = inverse @ np.swapaxes(scaled.coupling, 1, 2)  # (blocks, l, s)
    reduced = scaled.shared - np.einsum("bsl,blt->st", scaled.coupling, gain)
    shared = _inverse(reduced[None])[0]
    back = gain @ shared
    local = inverse + back @ np.swapaxes(gain, 1, 2)
    # The inverse's diagonal is the inflation of variance by correlations; near 1/eps it is only rounding.
    limit = 1e-3 / eps
    felt = Pair(felt.shared & (np.diagonal(shared) < limit), felt.local & (np.diagonal(local, axis1=1, axis2=2) < limit))
    result = Arrow(shared, -np.swapaxes(back, 1, 2), local)
    keep = Pair(unit.shared * felt.shared, unit.local * felt.local)
    return result.scaled(keep), felt


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """Invert symmetric matrices of unit size; degenerate directions get a huge variance, not an exception."""
    if matrices.shape[-1] == 0:
        return matrices
    values, vectors = np.linalg.eigh(matrices)
    values = np.maximum(values, np.finfo(float).eps * 1e-2)
    return (vectors / values[:, None, :]) @ np.swapaxes(vectors, 1, 2)
