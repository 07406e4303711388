"""A race of several starts of each fit: those that run after another one, or fall behind, are given up on the way."""

from __future__ import annotations

import numpy as np

from ifujax.inference.levenberg_marquardt import CONVERGED, RUNNING, State
from ifujax.inference.starts import UNSURE

BEHIND = 4
"""Phase of a start that was given up."""
_ROUNDING = 1e-3
"""Of chi2 in single precision, with room to spare."""
_CUTS = ((3, 30.0, 8), (6, 12.0, 4), (9, 4.0, 3))
"""From how many iterations on a start must be how close to the lowest (in chi2 per degree of freedom), among how many."""
_MOST_LEADERS = 4
_ALIKE, _SLACK, _FAR = 0.2, 0.05, 10.0
"""A start follows another if its chi2 is higher by what the other's parabola says of its distance: to within this share of
it, and this much more; for parabolas up to the last."""
_LEAST_REDUCED = 1e-2


def give_up(state: State, rows: np.ndarray, dof: np.ndarray) -> None:
    """Give up running starts, in place: those that follow a lower one of their fit, and those that are behind.

    Parameters
    ----------
    state : State
        One row a start, NumPy arrays; its `phase` becomes BEHIND.
    rows : int array (starts,)
        The fit that each start belongs to.
    dof : array (fits,)
        Degrees of freedom of each fit.

    Notes
    -----
    What a start's next step promises is counted for it twice.
    """
    alive = np.flatnonzero((state.phase != BEHIND) & np.isfinite(state.chi2))
    alive = alive[(np.bincount(rows[alive], minlength=len(dof)) > 1)[rows[alive]]]  # those that have someone to race against
    if not (state.phase[alive] == RUNNING).any():
        return
    chi2 = state.chi2.astype(np.float64)
    order = alive[np.lexsort((chi2[alive], rows[alive]))]
    first = np.r_[True, rows[order][1:] != rows[order][:-1]]
    rank = np.arange(len(order)) - np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    unit = np.maximum(chi2[order[first]] / dof[rows[order[first]]], _LEAST_REDUCED)  # of each fit
    fit = np.cumsum(first) - 1
    best = chi2[order[first]]
    leaders = np.full((first.sum(), _MOST_LEADERS), -1)
    count = np.zeros(first.sum(), int)
    for k in range(int(rank.max()) + 1):
        mine = order[rank == k]
        own = fit[rank == k]
        behind = chi2[mine] - 2 * _promise(state, mine) - best[own]
        lost = np.zeros(len(mine), bool)
        for leader in leaders.T if k else ():
            known = leader[own] >= 0
            lost[known] |= _follows(state, mine[known], leader[own[known]], unit[own[known]])
        for iterations, margin, most in _CUTS if k else ():
            lost |= (state.n_iter[mine] >= iterations) & ((behind > margin * unit[own]) | (count[own] >= most))
        running = state.phase[mine] == RUNNING
        state.phase[mine[lost & running]] = BEHIND
        kept = ~lost
        place = np.minimum(count[own[kept]], _MOST_LEADERS - 1)
        leaders[own[kept], place] = mine[kept]
        count[own[kept]] += 1


def give_up_high_ends(state: State, rows: np.ndarray) -> None:
    """Give up starts that ended too high for their minimum to matter, in place: they need not be followed in full precision."""
    ended = np.flatnonzero(state.phase == CONVERGED)
    chi2 = state.chi2[ended].astype(np.float64)
    lowest = np.full(rows.max(initial=-1) + 1, np.inf)
    np.minimum.at(lowest, rows[ended], chi2)
    bar = lowest[rows[ended]]
    state.phase[ended[chi2 > bar + 2 * UNSURE + _ROUNDING * bar]] = BEHIND


def _promise(state: State, mine: np.ndarray) -> np.ndarray:
    """By how much the next step of some starts is to lower chi2."""
    step, bent = state.move[mine], state.hessian[mine] + state.curvature[mine]
    with np.errstate(invalid="ignore", over="ignore"):
        promise = np.einsum("si,si->s", step, 2 * state.gradient[mine] - np.einsum("sij,sj->si", bent, step))
    return np.maximum(np.nan_to_num(promise), 0).astype(np.float64)


def _follows(state: State, mine: np.ndarray, leader: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Whether starts lie on the parabola about their leaders, so that they would end in the same place."""
    apart = (state.x[mine] - state.x[leader]).astype(np.float64)
    bow = np.einsum("si,sij,sj->s", apart, state.hessian[leader].astype(np.float64), apart)
    said = bow - 2 * np.einsum("si,si->s", apart, state.gradient[leader].astype(np.float64))
    higher = state.chi2[mine].astype(np.float64) - state.chi2[leader]
    with np.errstate(invalid="ignore"):
        return (np.abs(higher - said) < _ALIKE * bow + _SLACK * unit) & (bow < _FAR * unit)
