"""Speed of batched least squares: [N II] and H-alpha in 8,192 spectra (targets 1 and 3 of docs/performance.md).

Run ``python benchmarks/three_lines.py --help`` from the root of the repository.
"""

from __future__ import annotations

# One thread everywhere, set before numpy and jax are loaded: CPU seconds are compared, not cores
# isort: off
from single_thread import THREADS

# isort: on
import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from baselines import ThreeLines, measure, numba_lm, scipy_lm, three_lines
from batched import prepare_ifujax, stage_seconds
from multistart import best_of_starts
from numpy.typing import NDArray

from ifujax import simulate
from ifujax.simulate import SimulatedSpectra

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """One way to fit. `prepare` is not timed (compilation, copies); it returns the call that is.

    The call returns chi2 (n,) of the rows it fitted. `fraction` is the share of the spectra that slow ways fit.
    """

    name: str
    prepare: Callable[[SimulatedSpectra, ThreeLines, slice], Callable[[], FloatArray]]
    fraction: float = 1.0


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    cpu_us: float
    wall_us: float
    ratio_to_numba: float
    speedup_over_scipy: float
    within_01: float | None
    stages_us: dict[str, float]


def _scipy(sample: SimulatedSpectra, problem: ThreeLines, rows: slice) -> Callable[[], FloatArray]:
    return lambda: scipy_lm(problem, rows)[1]


def _numba(reach: float) -> Callable[[SimulatedSpectra, ThreeLines, slice], Callable[[], FloatArray]]:
    def prepare(sample: SimulatedSpectra, problem: ThreeLines, rows: slice) -> Callable[[], FloatArray]:
        numba_lm(problem, slice(0, 2), reach=reach)  # compiles
        return lambda: numba_lm(problem, rows, reach=reach)[1]

    return prepare


BAR = "numba, scalar, every pixel (the bar)"
SCIPY = "scipy least_squares(lm), numeric Jacobian"

ENTRIES = [
    Entry(SCIPY, _scipy, fraction=1 / 16),
    Entry(BAR, _numba(37.0)),
    Entry("numba, lines cut at 6 sigma", _numba(6.0)),
    Entry("ifujax, float64: start, fit, errors", prepare_ifujax("float64")),
    Entry("ifujax, float32: start, fit, errors", prepare_ifujax("float32")),
]


def run(n: int, profile: simulate.profiles.Profile, repeat: int, n_reference: int) -> list[Row]:
    """Time every entry on one simulation and compare chi2 with the best of 20 starts."""
    sample = simulate.three_line_problem(n, profile=profile)
    problem = three_lines(sample)
    best = best_of_starts(sample, 20, rows=slice(0, n_reference)).chi2 if n_reference else None
    timings = {}
    for entry in ENTRIES:
        rows = slice(0, max(int(n * entry.fraction), 1))
        timing = measure(entry.prepare(sample, problem, rows), repeat if entry.fraction == 1.0 else 1)
        count = len(timing.result)
        within = None
        if best is not None:
            m = min(count, len(best))
            within = float(np.mean(timing.result[:m] <= best[:m] + 0.1))
        stages = {name: 1e6 * seconds / count for name, seconds in stage_seconds.items()}
        timings[entry.name] = (1e6 * timing.cpu / count, 1e6 * timing.wall / count, within, stages)
    bar, slow = timings[BAR][0], timings[SCIPY][0]
    return [Row(name, cpu, wall, cpu / bar, slow / cpu, within, stages) for name, (cpu, wall, within, stages) in timings.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=8192, help="spectra")
    parser.add_argument("--profile", choices=["sampled", "integrated"], default="sampled", help="line profile, for all ways")
    parser.add_argument("--repeat", type=int, default=3, help="the fastest of so many runs counts (not for scipy)")
    parser.add_argument("--reference", type=int, default=2000, help="spectra fitted from 20 starts; 0 for none")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    table = run(options.n, options.profile, options.repeat, min(options.reference, options.n))
    print(f"{options.n} spectra, 300 pixels, 7 parameters, {options.profile} profile, {THREADS} thread, microseconds per fit")
    print(f"{'':45s} {'CPU':>8s} {'wall':>8s} {'/ numba':>8s} {'x scipy':>8s} {'within 0.1':>11s}")
    for row in table:
        within = "" if row.within_01 is None else f"{100 * row.within_01:.2f} %"
        numbers = f"{row.cpu_us:8.1f} {row.wall_us:8.1f} {row.ratio_to_numba:8.2f} {row.speedup_over_scipy:8.1f}"
        print(f"{row.name:45s} {numbers} {within:>11s}")
        if row.stages_us:
            bar, slow = row.cpu_us / row.ratio_to_numba, row.cpu_us * row.speedup_over_scipy
            fit = row.stages_us["start search"] + row.stages_us["iterations"]
            print("    of which " + ", ".join(f"{name} {value:.1f}" for name, value in row.stages_us.items()))
            print(f"    start search and iterations alone: {fit:.1f}, {fit / bar:.2f} x numba, scipy / {slow / fit:.1f}")
    if options.json:
        settings = {"n": options.n, "profile": options.profile, "threads": THREADS}
        options.json.write_text(json.dumps({"options": settings, "rows": [asdict(row) for row in table]}, indent=1))


if __name__ == "__main__":
    main()
