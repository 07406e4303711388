"""Where IFSCube's minimiser comes to rest: not at the minimum of chi2, but half a difference step beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifujax.lines.ifscube.profiles import line_profiles

DEFAULT_STEP = 1e-3
"""IFSCube's `eps` without a [minimization] section."""
SCIPY_STEP = 1.4901161193847656e-08
"""And with one that leaves `eps` out."""
_ROUNDS = 3
_SETTLED = 0.05
"""The last step must be below this share of the whole shift (in the metric of chi2), else the fit stays where it was."""
_ROUNDING = 1e-5
"""Shifts below this, in that metric, are rounding."""
_LARGEST_RISE = 2.0
"""Rise of chi2, over that of a parabola, beyond which the picture has failed."""
_HIDDEN = 1.0
"""Rise of chi2, over chi2 per degree of freedom, that the noise hides."""
_LARGEST_SHARE = 1e-4
"""Rise of chi2, over that of leaving out the lines, beyond which IFSCube ends elsewhere: a hundredth of the lines, squared."""


@dataclass(frozen=True)
class Moves:
    """How parameters move the table (n, lines, 3 or 5) of amplitude, velocity, sigma[, h3, h4].

    Parameters
    ----------
    packed : array (n_packed, lines, 3 or 5)
        Change of the table with each parameter of IFSCube's minimiser: 1 where it sets an entry (one amplitude a line, the
        rest shared within a k_group), 0 elsewhere.
    unit : array (n, n_packed)
        What counts as 1: the flux scale for amplitudes, 1 for the others.
    tangent : array (n, n_free, lines, 3 or 5)
        Change of the table with each of our free parameters, which equality constraints make fewer.
    value, lower, upper : arrays (n, n_free)
        Our free parameters, in any units, and their bounds.
    """

    packed: np.ndarray
    unit: np.ndarray
    tangent: np.ndarray
    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def forward_difference_point(
    wavelength: np.ndarray,
    rest_lines: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    table: np.ndarray,
    moves: Moves,
    step: float = DEFAULT_STEP,
) -> np.ndarray:
    """Move fits from the minimum of chi2 to where its forward differences vanish, as IFSCube's do.

    Parameters
    ----------
    wavelength : array (wave,)
        Rest frame, Angstrom.
    rest_lines : array (lines,)
    values, weights : arrays (n, wave)
        Data less continuum and stellar spectrum; 1 / variance, 0 for pixels that are not fitted.
    table : array (n, lines, 3 or 5)
        Amplitude, velocity, sigma[, h3, h4] at the minimum.
    moves : Moves
    step : float
        `eps` of [minimization], absolute.

    Returns
    -------
    array (n, lines, 3 or 5)
        Rows stay as they were whose shift does not settle, or is more than a hundredth of the lines and than the noise hides.

    Notes
    -----
    Kept fault (section 5.1): IFSCube gives SLSQP one-sided differences of chi2 itself. For a parabola these vanish at
    ``-step/2 H^-1 diag(H)`` from the minimum, so for an amplitude ``step/2`` flux scales too low: 0.3 % for a line of a
    fifth of the flux scale. Solved by Newton steps on that difference, with the second derivatives at the minimum.
    Coarse steps and degenerate shapes (Gauss-Hermite lines with an `eps` of 1e-2) put that point far up the wall of chi2.
    IFSCube then ends on its way there, where its iteration limit or tolerance catches it; the minimum is never worse.
    """
    leaders = [tuple(np.argwhere(entries == 1.0)[0]) for entries in moves.packed]
    # How our free parameters move IFSCube's, in its units: (n, n_packed, n_free).
    to_packed = np.stack([moves.tangent[:, :, line, slot] for line, slot in leaders], axis=1) / moves.unit[:, :, None]
    x, current = moves.value.copy(), table
    model = line_profiles(wavelength, rest_lines, table).sum(axis=1)
    hessian, best, rise = np.zeros(0), (weights * (values - model) ** 2).sum(axis=1), np.zeros(len(table))
    power = (weights * model**2).sum(axis=1)
    left = reached = np.zeros(len(table))
    for turn in range(_ROUNDS):
        residual = values - model
        slope, bent = [], []
        for q, entries in enumerate(moves.packed):
            ahead = current + entries * (step * moves.unit[:, q, None, None])
            moved = line_profiles(wavelength, rest_lines, ahead).sum(axis=1) - model
            slope.append((weights * moved * (moved - 2.0 * residual)).sum(axis=1) / step)
            bent.append(moved / step)
        gradient = np.einsum("nq,nqf->nf", np.stack(slope, axis=1), to_packed)
        if not turn:  # shifts are so small that it stays the same
            jacobian = np.einsum("qnw,nqf->nfw", np.stack(bent), to_packed)
            hessian = 2.0 * np.einsum("nfw,nw,ngw->nfg", jacobian, weights, jacobian)
            bending = _curvature(wavelength, rest_lines, weights * residual, table)
            hessian -= 2.0 * np.einsum("nfla,nlab,nglb->nfg", moves.tangent, bending, moves.tangent)
        stuck = ((x <= moves.lower) & (gradient > 0)) | ((x >= moves.upper) & (gradient < 0))
        after = np.clip(x + _newton(hessian, gradient, stuck), moves.lower, moves.upper)
        left, x = _length(hessian, after - x), after
        current = table + np.einsum("nf,nflk->nlk", x - moves.value, moves.tangent)
        model = line_profiles(wavelength, rest_lines, current).sum(axis=1)
        rise = (weights * (values - model) ** 2).sum(axis=1) - best
        reached = _length(hessian, x - moves.value)
    settled = (left <= _SETTLED * reached + _ROUNDING) & (rise <= _LARGEST_RISE * (0.5 * reached**2 + _ROUNDING))
    hidden = _HIDDEN * best / np.maximum((weights > 0).sum(axis=1) - x.shape[1], 1)
    settled &= rise <= np.maximum(hidden, _LARGEST_SHARE * power)
    return np.where(settled[:, None, None], current, table)


def _newton(hessian: np.ndarray, gradient: np.ndarray, stuck: np.ndarray) -> np.ndarray:
    """Return the Newton step (n, n_free), 0 for parameters that are `stuck` or without effect."""
    size = np.sqrt(np.abs(np.einsum("nff->nf", hessian)))
    held = stuck | (size == 0)
    size = np.where(held, 1.0, size)
    scaled = np.where(held[:, :, None] | held[:, None, :], 0.0, hessian / (size[:, :, None] * size[:, None, :]))
    scaled += np.where(held, 1.0, 1e-10)[:, :, None] * np.eye(hessian.shape[-1])
    return -np.linalg.solve(scaled, (np.where(held, 0.0, gradient) / size)[..., None])[..., 0] / size


def _curvature(wavelength: np.ndarray, rest_lines: np.ndarray, weighted: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the sum of ``weighted (n, wave)`` times each line's second derivatives, (n, lines, k, k), by differences."""
    k = table.shape[-1]
    result = np.zeros((*table.shape, k))
    strongest = np.abs(table[..., 0]).max(axis=1)
    steps = np.tile([1.0, 1.0, 1.0, 0.01, 0.01][:k], (len(table), 1))
    steps[:, 0] = np.where(strongest > 0, strongest, 1.0)

    def total(a: int, b: int, sign_a: float, sign_b: float) -> np.ndarray:
        at = table.copy()
        at[..., a] += sign_a * steps[:, a, None]
        at[..., b] += sign_b * steps[:, b, None]
        return np.einsum("nw,nlw->nl", weighted, line_profiles(wavelength, rest_lines, at))

    for a in range(k):
        for b in range(a, k):
            if a == b and a not in (1, 2):
                continue  # linear: no curvature
            value = total(a, b, 1, 1) - total(a, b, 1, -1) - total(a, b, -1, 1) + total(a, b, -1, -1)
            result[..., a, b] = result[..., b, a] = value / (4.0 * steps[:, a] * steps[:, b])[:, None]
    return result


def _length(hessian: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return each change (n, n_free) in the metric of chi2, which rises by half its square."""
    return np.sqrt(np.maximum(np.einsum("nf,nfg,ng->n", change, hessian, change), 0.0))
