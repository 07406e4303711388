"""Convergence diagnostics of Markov chains, for many rows and parameters at once.

Rank-normalised split R-hat, bulk and tail effective sample sizes after Vehtari, Gelman, Simpson,
Carpenter & Bürkner (2021, Bayesian Analysis 16, 667), the autocorrelation cut by Geyer's (1992)
initial monotone sequence. Arrays are (..., chain, draw) and results (...). A quantity that holds
a number that is not finite, or the same number throughout, has no diagnostics: NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, special

from ifujax.errors import UsageError

_ROWS = 256
"""Quantities handled together: their transforms stay in the processor's cache and memory stays small."""
_LANES = 16


@dataclass(frozen=True)
class ChainDiagnostics:
    """Diagnostics of each quantity: arrays of the leading axes of the draws.

    Attributes
    ----------
    rhat : array
        Rank-normalised split R-hat, the larger of its bulk and folded forms: 1 when the chains agree.
    ess_bulk, ess_tail : array
        Effective number of independent draws for the centre, and for the 5 % and 95 % quantiles
        (the smaller).
    """

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def diagnose(draws: np.ndarray) -> ChainDiagnostics:
    """Return R-hat and the bulk and tail effective sample sizes.

    Parameters
    ----------
    draws : array (..., chain, draw)
        At least 4 draws a chain.
    """
    found = _by_parts(_diagnose_part, draws, 3)
    return ChainDiagnostics(*(found[..., i] for i in range(3)))


def rhat(draws: np.ndarray) -> np.ndarray:
    """Return the rank-normalised split R-hat (equation 14 and section 4.2 of the paper) of draws (..., chain, draw)."""
    return _by_parts(lambda part: _rhat_of(part, _normal_scores(_split(part))), draws)


def ess_bulk(draws: np.ndarray) -> np.ndarray:
    """Return the effective sample size of the rank-normalised draws (..., chain, draw)."""
    return _by_parts(lambda part: _ess(_normal_scores(_split(part))), draws)


def ess_tail(draws: np.ndarray) -> np.ndarray:
    """Return the smaller of the effective sample sizes of the 5 % and 95 % quantiles of draws (..., chain, draw)."""
    return _by_parts(lambda part: _ess_quantiles(part, (0.05, 0.95)).min(axis=0), draws)


def _by_parts(judge: Callable[[np.ndarray], np.ndarray], draws: np.ndarray, *columns: int) -> np.ndarray:
    """Call ``judge(part (rows, chain, draw)) -> (rows, *columns)`` piece by piece; NaN where there is nothing to judge."""
    draws = np.asarray(draws, dtype=np.float64)
    if draws.ndim < 2 or draws.shape[-1] < 4 or not draws.shape[-2]:
        raise UsageError(f"draws must have the axes (..., chain, draw), with 4 draws a chain at least; got shape {draws.shape}.")
    flat = draws.reshape(-1, *draws.shape[-2:])
    results = np.full((len(flat), *columns), np.nan)
    for first in range(0, len(flat), _ROWS):
        part = flat[first : first + _ROWS]
        low, high = part.min(axis=(1, 2)), part.max(axis=(1, 2))
        # One end or the other is not finite if any number is not.
        rows = np.flatnonzero(np.isfinite(low) & np.isfinite(high) & (high > low))
        if rows.size:
            results[first + rows] = judge(part if rows.size == len(part) else part[rows])
    return results.reshape((*draws.shape[:-2], *columns))


def _diagnose_part(part: np.ndarray) -> np.ndarray:
    scores = _normal_scores(_split(part))
    tails = _ess_quantiles(part, (0.05, 0.95)).min(axis=0)
    return np.stack([_rhat_of(part, scores), _ess(scores), tails], axis=1)


def _split(part: np.ndarray) -> np.ndarray:
    """Halves of the chains as chains; the middle draw of an odd number is left out."""
    half = part.shape[-1] // 2
    return np.concatenate([part[..., :half], part[..., -half:]], axis=-2)


def _normal_scores(part: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks over all chains, ties sharing their mean rank (equation 14)."""
    total = part.shape[1] * part.shape[2]
    flat = part.reshape(len(part), total)
    # Mean ranks are multiples of a half: a table saves most evaluations of the normal quantile.
    table = special.ndtri((0.5 * np.arange(2, 2 * total + 1) - 0.375) / (total + 0.25))
    order = np.argsort(flat, axis=1)
    ascending = np.take_along_axis(flat, order, axis=1)
    in_order = np.broadcast_to(table[::2], flat.shape)
    changes = ascending[:, 1:] != ascending[:, :-1]
    if not changes.all():
        place, edge = np.arange(total), np.ones((len(flat), 1), bool)
        first = np.maximum.accumulate(np.where(np.hstack([edge, changes]), place, 0), axis=1)
        last = np.minimum.accumulate(np.where(np.hstack([changes, edge]), place, total)[:, ::-1], axis=1)[:, ::-1]
        in_order = table[first + last]
    scores = np.empty_like(flat)
    np.put_along_axis(scores, order, in_order, axis=1)
    return scores.reshape(part.shape)


def _rhat_of(part: np.ndarray, scores: np.ndarray) -> np.ndarray:
    chains = _split(part)
    median = np.median(chains, axis=(1, 2), keepdims=True)
    # Folded, chains of two values are constant: only the bulk then counts.
    return np.fmax(_plain_rhat(scores), _plain_rhat(_normal_scores(np.abs(chains - median))))


def _plain_rhat(chains: np.ndarray) -> np.ndarray:
    """Return the root of the pooled variance over the mean variance within chains."""
    n_draw = chains.shape[-1]
    within = chains.var(axis=-1, ddof=1).mean(axis=-1)
    between = chains.mean(axis=-1).var(axis=-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(between / within + (n_draw - 1) / n_draw)


def _ess_quantiles(part: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """Effective sample size of the indicator of being below each quantile: (probability, rows)."""
    cuts = np.quantile(part.reshape(len(part), -1), probabilities, axis=1)
    sizes = []
    for cut in cuts:
        below = _split(part <= cut[:, None, None]).astype(np.float64)
        # Ties at the largest value can put everything below: nothing varies, nothing is lost.
        sizes.append(np.where(below.min(axis=(1, 2)) < 1, _ess(below), below.shape[1] * below.shape[2]))
    return np.stack(sizes)


def _ess(chains: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean of each row of (rows, chain, draw)."""
    rows, n_chain, n_draw = chains.shape
    # Transforms are done several at once, and round otherwise in what is left over: nothing is.
    chains = np.concatenate([chains, np.zeros((-rows % _LANES, n_chain, n_draw))])
    means = chains.mean(axis=-1)
    length = fft.next_fast_len(2 * n_draw, real=True)
    power = np.abs(np.asarray(fft.rfft(chains - means[..., None], n=length, axis=-1))) ** 2
    # The transform is linear: the mean over the chains costs one inverse transform instead of one each.
    covariance = np.asarray(fft.irfft(power.mean(axis=1), n=length, axis=-1))[:, :n_draw] / n_draw
    within = covariance[:, :1] * n_draw / (n_draw - 1)
    pooled = covariance[:, :1] + (means.var(axis=1, ddof=1)[:, None] if n_chain > 1 else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = 1.0 - (within - covariance) / pooled
    correlation[:, 0] = 1.0
    even, odd = correlation[:, 0 : 2 * (n_draw // 2) : 2], correlation[:, 1::2]
    pairs = even + odd
    # Lags beyond the first pair with a negative sum are noise; the last pairs of all are not looked at.
    n_pair = max((n_draw - 3) // 2, 0)
    negative = ~(pairs[:, : n_pair + 1] > 0)
    negative[:, -1] = True
    last = np.argmax(negative, axis=1)
    kept = np.arange(pairs.shape[1])[None] < last[:, None]
    monotone = np.minimum.accumulate(pairs, axis=1)
    total = n_chain * n_draw
    tau = -1.0 + 2.0 * np.sum(np.where(kept, monotone, 0.0), axis=1)
    tau = tau + np.maximum(np.take_along_axis(even, last[:, None], axis=1)[:, 0], 0.0)
    # Antithetic chains may do better than independent draws, by a factor that is kept within reason.
    return (total / np.maximum(tau, 1.0 / np.log10(total)))[:rows]
