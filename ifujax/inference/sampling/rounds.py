"""Importance sampling of a batch: a pilot, a search for other solutions, and rounds until the draws can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifujax.inference.batching import padded, run_blocks
from ifujax.inference.sampling.importance import ROUNDS, ImportanceSampler, Pilot, Weighted
from ifujax.inference.sampling.problem import Problem
from ifujax.inference.sampling.proposals import Mixture
from ifujax.inference.sampling.solutions import Solutions, find_solutions
from ifujax.progress import Progress

_GROUP = 256
"""Fits whose pilots are held in memory together."""
_PILOT = 3
"""Sets its random numbers apart from those of the rounds (0), of NUTS (1) and of what is completed (2)."""


@dataclass
class Found:
    """What importance sampling found of each fit of a batch; NaN where it was not tried.

    Attributes
    ----------
    x : array (batch, draws, n)
        Equally weighted draws of the free vector.
    khat, ess : array (batch,)
    bits : int array (batch,)
        What speaks against them.
    solutions : Solutions
        Distinct ones of each fit.
    """

    x: np.ndarray
    khat: np.ndarray
    ess: np.ndarray
    bits: np.ndarray
    solutions: Solutions

    @classmethod
    def nothing(cls, problem: Problem) -> Found:
        batch, n = problem.z.shape
        nan = np.full(batch, np.nan)
        x = np.full((batch, problem.sampling.draws, n), np.nan)
        return cls(x, nan, nan.copy(), np.zeros(batch, np.int32), Solutions.single(problem.z, problem.covariance))

    def take(self, r: int, found: Weighted, i: int, bits: int, needed: float) -> None:
        """Keep row `i` of a round for fit `r` if it is better than what there is."""
        better = np.isnan(self.khat[r]) or (bits == 0, found.ess[i] > needed, -found.khat[i]) > (
            self.bits[r] == 0,
            self.ess[r] > needed,
            -self.khat[r],
        )
        if better:
            self.x[r], self.khat[r], self.ess[r], self.bits[r] = found.x[i], found.khat[i], found.ess[i], bits


def importance(problem: Problem, rows: np.ndarray, rounds: int, progress: Progress | None) -> Found:
    """Return what importance sampling finds of some fits, in so many rounds at most; with none, what solutions there are."""
    return _Importance(problem, rows, min(rounds, len(ROUNDS)), progress).found


class _Importance:
    def __init__(self, problem: Problem, rows: np.ndarray, rounds: int, progress: Progress | None) -> None:
        self.problem, self.rows, self.progress = problem, rows, progress
        self.found = Found.nothing(problem)
        self.mixtures: dict[int, Mixture] = {}
        waiting = []
        for first in range(0, len(rows), _GROUP):
            group = rows[first : first + _GROUP]
            pilots = self._pilots(group)
            self._search(group, pilots)
            if rounds:
                waiting.append(self._first_round(group, pilots))
        left = np.concatenate(waiting) if waiting else rows[:0]
        for k in range(1, rounds):
            if not left.size:
                break
            left = self._round(k, left)

    def _blocks(self, task: Callable[[np.ndarray, ImportanceSampler, np.ndarray], Any], rows: np.ndarray) -> Any:
        """Call ``task(full block of rows, sampler, covariance of what is sampled)`` for each block."""
        problem = self.problem
        at = list(problem.split.sampled)

        def work(mine: np.ndarray, device: Any) -> Any:
            full = padded(mine, problem.block)
            sampler = ImportanceSampler(problem.split, problem.sampling, problem.target(full), problem.flat_axes)
            return task(full, sampler, problem.covariance[full][:, at][:, :, at])

        return run_blocks(work, rows, problem.block, problem.devices, problem.precision)

    def _generators(self, rows: np.ndarray, *stream: int) -> list[np.random.Generator]:
        return [np.random.default_rng([self.problem.seed, int(self.problem.ids[r]), *stream]) for r in rows]

    def _pilots(self, group: np.ndarray) -> dict[int, Pilot]:
        at = list(self.problem.split.sampled)

        def task(full: np.ndarray, sampler: ImportanceSampler, covariance: np.ndarray) -> Pilot:
            return sampler.pilot(self.problem.z[full][:, at], covariance, self._generators(full, _PILOT))

        return {int(r): pilot.of([i]) for mine, pilot in self._blocks(task, group) for i, r in enumerate(mine)}

    def _search(self, group: np.ndarray, pilots: dict[int, Pilot]) -> None:
        """Look for other solutions of a group from what its pilots saw."""
        problem, solutions = self.problem, self.found.solutions
        starts = np.concatenate([pilots[int(r)].starts for r in group])
        if not starts.shape[1]:
            return
        other = find_solutions(
            problem.model,
            problem.space_of(group),
            problem.observations(group),
            solutions.of(group),
            problem.fit.x[group],
            starts,
            options=problem.options,
            precision=problem.precision,
            devices=problem.devices,
        )
        solutions.z[group], solutions.covariance[group], solutions.share[group] = other.z, other.covariance, other.share

    def _first_round(self, group: np.ndarray, pilots: dict[int, Pilot]) -> np.ndarray:
        def task(full: np.ndarray, sampler: ImportanceSampler, covariance: np.ndarray) -> Weighted:
            pilot = Pilot.stacked([pilots[int(r)] for r in full])
            mixture = sampler.first_mixture(pilot, self.found.solutions.of(full), covariance)
            return sampler.round(0, mixture, pilot.points, covariance, self._generators(full, 0, 0))

        return self._judged(self._blocks(task, group), report=True)

    def _round(self, k: int, rows: np.ndarray) -> np.ndarray:
        def task(full: np.ndarray, sampler: ImportanceSampler, covariance: np.ndarray) -> Weighted:
            mixture = Mixture.stacked([self.mixtures[int(r)] for r in full])
            return sampler.round(k, mixture, None, covariance, self._generators(full, 0, k))

        return self._judged(self._blocks(task, rows))

    def _judged(self, blocks: Any, *, report: bool = False) -> np.ndarray:
        """Keep what is better than before; return the rows that are not good enough yet."""
        options, failed = self.problem.sampling, []
        for mine, found in blocks:
            bits = found.bits(options)
            for i, r in enumerate(mine):
                self.found.take(r, found, i, int(bits[i]), options.needed)
                self.mixtures.pop(int(r), None)
                if self.found.bits[r] and found.next is not None:
                    self.mixtures[int(r)] = found.next.of(slice(i, i + 1))
                    failed.append(r)
            if report and self.progress is not None:
                self.progress("importance", int(np.isfinite(self.found.khat[self.rows]).sum()), len(self.rows))
        return np.array(failed, dtype=int)
