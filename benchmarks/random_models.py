"""Line fits of random models, misfits and blends: wrong minima, flags, the order of declaration.

Parts: ``starts`` (default fits against the best of many starts), ``order`` (lines and groups declared in reverse), ``flags``
(false alarms and misses on the random models), ``misfits`` (the same on ten deliberate misfits), ``blends`` (against scipy from
one start). Programs are compiled once for a structure; set JAX_COMPILATION_CACHE_DIR to keep them between runs.

    PYTHONPATH=. python benchmarks/random_models.py --part starts --structures 24 --problems 8 --spectra 5 --reference best.npz
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from fit_records import CLASSES, EQUAL, Fits, bit_names, compare_order, fit_records, flag_tables

import ifujax.inference.batching as batching
from tests.lines.line_problem import LineProblem
from tests.lines.misfits import MISFITS, base, draw_misfit
from tests.lines.random_models import draw_problem, draw_structures
from tests.lines.starts.blends import BLENDS

PARTS = ("starts", "order", "flags", "misfits", "blends")
NEAR = 0.1
"""chi2 within which two ends count as one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="may be repeated; all by default")
    parser.add_argument("--structures", type=int, default=24, help="distinct programs (pairs of mirror images)")
    parser.add_argument("--problems", type=int, default=8, help="problems of each structure")
    parser.add_argument("--spectra", type=int, default=5, help="spectra of each problem, each with its own truth")
    parser.add_argument("--draws", type=int, default=50, help="spectra of each misfit")
    parser.add_argument("--blend-draws", type=int, default=30, help="spectra of each blend")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faintest", type=float, default=0.1, help="least peak of a line over that of the strongest")
    parser.add_argument("--swappable", action="store_true", help="also models in which two groups can change places")
    parser.add_argument("--shuffle", action="store_true", help="order: also one problem of each structure, shuffled (compiles)")
    parser.add_argument("--starts-reference", type=int, default=30)
    parser.add_argument("--reference", type=Path, help="file that keeps the lowest chi2 known; read if it is there, and updated")
    parser.add_argument("--worst", type=int, default=8, help="how many of the worst are listed")
    parser.add_argument("--block", type=int, default=64, help="fits in a block: one size, so that few programs are compiled")
    options = parser.parse_args()
    if options.block:
        batching._CPU_BLOCKS = (options.block,)
    parts = options.part or PARTS
    problems = {}
    if {"starts", "order", "flags"} & set(parts):
        problems = drawn(options)
        fits = fit_all(problems, "default fits")
        print_status(fits)
        if "starts" in parts:
            starts(problems, fits, options)
        if "order" in parts:
            order(problems, fits, {name: range(len(p.rest))[::-1] for name, p in problems.items()}, "reversed")
            if options.shuffle:
                few = {name: p for name, p in problems.items() if name.endswith(".0")}
                rng = np.random.default_rng([options.seed, 6])
                order(few, fits, {name: rng.permutation(len(p.rest)).tolist() for name, p in few.items()}, "shuffled")
        if "flags" in parts:
            print(f"\n## Flags on {sum(map(len, problems.values()))} spectra of random models\n")
            flag_tables(Fits.joined(fits.values()))
    if "misfits" in parts:
        misfits(options)
    if "blends" in parts:
        blends(options)


def drawn(options: argparse.Namespace) -> dict[str, LineProblem]:
    """Return the problems by ``structure.problem``; a number gives the same problem whatever else is drawn."""
    result = {}
    for s, structure in enumerate(draw_structures(options.structures, options.seed)):
        for p in range(options.problems):
            rng = np.random.default_rng([options.seed, 2, s, p])
            result[f"{s}.{p}"] = draw_problem(
                structure, rng, options.spectra, faintest=options.faintest, swappable=options.swappable
            )
    return result


def fit_all(problems: dict[str, LineProblem], title: str, starts: int | None = None) -> dict[str, Fits]:
    """Fit every problem; print what it costs, compilation left out."""
    result, seen, wall, cpu, n = {}, set(), 0.0, 0.0, 0
    for k, (name, problem) in enumerate(problems.items()):
        began = time.perf_counter()
        result[name] = fit_records(problem, starts=starts)
        if problem.structure in seen:
            wall, cpu, n = wall + result[name].wall, cpu + result[name].cpu, n + len(problem)
        elif sys.stderr.isatty() or k % 8 == 0:
            print(
                f"  {title}: {k}/{len(problems)}, structure {problem.structure}: {time.perf_counter() - began:.0f} s", flush=True
            )
        seen.add(problem.structure)
    if n:
        print(f"{title}: {1e3 * wall / n:.1f} ms wall, {1e3 * cpu / n:.1f} ms CPU a spectrum ({n} spectra, without compiling)")
    return result


def print_status(fits: dict[str, Fits]) -> None:
    every = Fits.joined(fits.values())
    print(f"{len(every.status)} spectra, {int((every.status != 0).sum())} with status != 0; ", end="")
    print(f"largest |chi2 - numpy's chi2| of a solution: {np.nanmax(np.abs(every.chi2 - every.chi2_numpy)):.2g}")


def starts(problems: dict[str, LineProblem], fits: dict[str, Fits], options: argparse.Namespace) -> None:
    """Default fits against the best of many starts (and of scipy from the truth, which is reported apart)."""
    print(f"\n## Starts: default against the best of {options.starts_reference}\n")
    known = dict(np.load(options.reference)) if options.reference and options.reference.exists() else {}
    key = f"{options.seed}/{options.spectra}/{options.faintest}/{options.swappable}/{options.starts_reference}"
    todo = {name: problem for name, problem in problems.items() if f"{key}/{name}" not in known}
    for name, reference in fit_all(todo, f"{options.starts_reference} starts", options.starts_reference).items():
        known[f"{key}/{name}"] = np.where(reference.status == 0, reference.chi2, np.inf)
    if options.reference:
        np.savez(options.reference, **known)
    every = Fits.joined(fits.values())
    ok = every.status == 0
    best = np.concatenate([known[f"{key}/{name}"] for name in fits])
    n_groups = np.concatenate([np.full(len(p), p.structure.n_groups) for p in problems.values()])
    for title, bar in (
        (f"best of {options.starts_reference}", best),
        ("scipy from the truth", every.chi2_from_truth),
        ("the lower of the two", np.fmin(best, every.chi2_from_truth)),
    ):
        above = every.chi2 - bar
        wrong = ok & (above > NEAR)
        share = [f"{np.mean(~wrong[ok & (n_groups == g)]):.4f} ({g})" for g in np.unique(n_groups)]
        print(f"within {NEAR} of {title}: {np.mean(~wrong[ok]):.4f}; by number of groups {', '.join(share)}")
        print(f"    by the S/N of the faintest group: {_by_class(~wrong, ok, every.group_snr)}")
        if wrong.any():
            flagged = every.quality[wrong]
            print(f"    {int(wrong.sum())} wrong; flagged {flagged.mean():.3f} of them, at_bound alone "
                  f"{np.mean(every.has('at_bound')[wrong] & ~flagged):.3f}; bits: {bit_names(every.warn[wrong])}")  # fmt: skip
    above = np.where(ok, every.chi2 - np.fmin(best, every.chi2_from_truth), -np.inf)
    labels = [f"{name}[{k}]" for name, p in problems.items() for k in range(len(p))]
    for k in np.argsort(-above)[: options.worst]:
        if above[k] > NEAR:
            problem = problems[labels[k].split("[")[0]]
            print(
                f"    {labels[k]}: {above[k]:.2f} above, reduced chi2 {every.chi2[k] / every.dof[k]:.2f}, warn {every.warn[k]}, "
                f"faintest group S/N {every.group_snr[k]:.1f}; {problem.structure}: {', '.join(problem.labels)}"
            )
    lower = every.chi2_from_truth < best - NEAR
    print(f"scipy from the truth lies lower than the best of {options.starts_reference} in {int((lower & ok).sum())}")


def _by_class(right: np.ndarray, ok: np.ndarray, snr: np.ndarray) -> str:
    """Return shares in classes of S/N."""
    parts = []
    for low, high in pairwise(CLASSES):
        here = ok & (snr >= low) & (snr < high)
        if here.any():
            parts.append(f"{low:g}-{high:g}: {right[here].mean():.4f} of {int(here.sum())}")
    return ", ".join(parts)


def order(problems: dict[str, LineProblem], fits: dict[str, Fits], orders: dict[str, Sequence[int]], title: str) -> None:
    """Lines, and so groups, declared in another order."""
    print(f"\n## Order of declaration {title}\n")
    other = fit_all({name: problem.reordered(orders[name]) for name, problem in problems.items()}, title)
    rows = [compare_order(fits[name], other[name], orders[name]) for name in problems]
    moved, chi2 = (np.concatenate(parts) for parts in zip(*rows))
    both = np.isfinite(moved)
    shares = ", ".join(f"{limit:g}: {np.mean(moved[both] > limit):.4f}" for limit in (1e-6, 1e-3, 0.1, 1.0))
    print(
        f"{int(both.sum())} spectra fitted both ways: largest difference {np.max(moved[both]):.3g} of an error, "
        f"median {np.median(moved[both]):.2g}; share that moves by more than {shares}"
    )
    apart = np.abs(chi2[both]) > NEAR
    print(f"chi2 differs by more than {NEAR} in {apart.mean():.4f}; status or blanks differ in {int((~both).sum())}")
    equal = both & (moved > 0.1) & (np.abs(chi2) < EQUAL)
    print(f"of those that move by more than 0.1 of an error, {int(equal.sum())} have the same chi2: two solutions equally good")
    labels = [f"{name}[{k}]" for name, p in problems.items() for k in range(len(p))]
    for k in np.argsort(-np.where(both & ~equal, moved, -1.0))[:8]:
        if moved[k] > 0.1:
            structure = problems[labels[k].split("[")[0]].structure
            print(f"    {labels[k]}: {moved[k]:.2f} errors, chi2 {title} {chi2[k]:+.2f}; {structure}")


def misfits(options: argparse.Namespace) -> None:
    """Ten deliberate misfits, and the same model without one."""
    print(f"\n## Misfits, {options.draws} spectra each\n")
    found = {"none": fit_records(base(np.random.default_rng([options.seed, 3]), options.draws))}
    for k, name in enumerate(MISFITS):
        found[name] = fit_records(draw_misfit(name, np.random.default_rng([options.seed, 4, k]), options.draws))
    print("off: a value more than 3 errors from the truth, beyond what chance gives\n")
    print("| misfit | status != 0 | reduced chi2 | any > 3 | off | flagged | off, not flagged | bits |")
    print("|---|---|---|---|---|---|---|---|")
    for name, fit in found.items():
        ok = fit.status == 0
        off, flagged = fit.off[ok], fit.quality[ok]
        missed = f"{np.mean(~flagged[off]):.2f}" if off.any() else "-"
        reduced = np.median(fit.chi2[ok] / fit.dof[ok])
        print(
            f"| {name} | {int((~ok).sum())} | {reduced:.2f} | {np.mean(fit.pull[ok] > 3):.2f} | {off.mean():.2f} "
            f"| {flagged.mean():.2f} | {missed} | {bit_names(fit.warn[ok])} |"
        )
    every = Fits.joined([fit for name, fit in found.items() if name != "none"])
    print("\nall ten together:\n")
    flag_tables(every)


def blends(options: argparse.Namespace) -> None:
    """Ten kinds of blends against scipy's least squares from one start at the guess."""
    print(f"\n## Blends, {options.blend_draws} spectra each, against scipy from a single start at the guess\n")
    print("| blend | worse by > 0.1 | better by > 0.1 | above scipy from the truth | status != 0 | off | flagged | worst |")
    print("|---|---|---|---|---|---|---|---|")
    total, n = 0, 0
    for k, (name, blend) in enumerate(BLENDS.items()):
        problem = blend.draw(np.random.default_rng([options.seed, 5, k]), options.blend_draws)
        fit = fit_records(problem, single_start=True)
        ok = fit.status == 0
        worse, better = fit.chi2 - fit.chi2_scipy, fit.chi2_scipy - fit.chi2
        total, n = total + int((worse[ok] > NEAR).sum()), n + int(ok.sum())
        print(f"| {name} | {int((worse[ok] > NEAR).sum())} | {int((better[ok] > NEAR).sum())} "
              f"| {int((fit.chi2 - fit.chi2_from_truth > NEAR)[ok].sum())} | {int((~ok).sum())} | {int(fit.off[ok].sum())} "
              f"| {int(fit.quality[ok].sum())} | {np.max(worse[ok]):.2f} |", flush=True)  # fmt: skip
    print(f"\nat least as good as scipy (within {NEAR}) in {1 - total / n:.4f} of {n}")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
