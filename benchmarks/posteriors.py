"""Posteriors: efficiency, agreement with exact ones, float32 and chunks, as ratios within one job (docs/performance.md).

Spectra like those of a cube: 15 % without lines, H-alpha of S/N 2 to 50 in the others; fluxes ~ HalfNormal(100). One component
of three lines, two components, a Gauss-Hermite line. Run ``python benchmarks/posteriors.py --help`` from the root of the
repository, on a quiet machine.
"""

from __future__ import annotations

# One thread everywhere, set before numpy and jax are loaded: CPU seconds are compared, not cores
# isort: off
from single_thread import THREADS

# isort: on
import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from plain_numpyro import PlainNuts

import ifujax
from ifujax.simulate.profiles import pixel_edges
from tests.lines.posteriors import reference_numpyro
from tests.lines.posteriors.calibration import (
    HA,
    HERMITE,
    LSF_FWHM,
    N2_RATIO,
    N2A,
    N2B,
    ONE,
    TWO,
    WAVELENGTH,
    Case,
    cube_mix,
    draws_of,
    simulated,
)
from tests.lines.posteriors.exact_grid import GridProblem, exact_draws
from tests.lines.posteriors.reference_numpyro import Group, Layout, Problem, bulk_ess

TAU = 100.0
QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)
LAYOUTS = {
    TWO: Layout(
        (Group("ha"), Group("ha_broad", above="ha")),
        ("ha", "n2b", "ha_broad", "n2b_broad"),
        tuple(
            (rest, group, f"{flux}{ending}", ratio)
            for group, ending in (("ha", ""), ("ha_broad", "_broad"))
            for rest, flux, ratio in ((HA, "ha", 1.0), (N2B, "n2b", 1.0), (N2A, "n2b", 1.0 / N2_RATIO))
        ),
    ),
    HERMITE: Layout((Group("ha", hermite=True),), ("ha",), ((HA, "ha", "ha", 1.0),)),
}
BOUNDS = {
    ONE: ({"ha": (-400.0, 400.0)}, {"ha": (10.0, 300.0)}),
    TWO: ({"ha": (-200.0, 200.0), "ha_broad": (-300.0, 300.0)}, {"ha": (20.0, 150.0), "ha_broad": (20.0, 400.0)}),
    HERMITE: ({"ha": (-300.0, 300.0)}, {"ha": (40.0, 250.0)}),
}


@dataclass
class Row:
    """One line of the table: what was measured, what it should be, and whether it is."""

    case: str
    what: str
    measured: str
    target: str = ""
    met: bool | None = None


def seconds_of(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns the second time, and its CPU seconds then: the first time compiles."""
    call()
    began = time.process_time()
    result = call()
    return result, time.process_time() - began


def quantiles(draws: np.ndarray) -> np.ndarray:
    """Quantiles (5, n) of draws (n, chain, draw)."""
    return np.quantile(draws.reshape(len(draws), -1), QUANTILES, axis=1)


def sampled_names(case: Case) -> tuple[str, ...]:
    return tuple(name for name in case.ranked if not name.endswith(".amplitude"))


def make_fit(case: Case, n: int, seed: int = 1, precision: str = "float64") -> ifujax.CubeFit:
    cube, _ = simulated(case, cube_mix(case, n, np.random.default_rng(seed)), seed)
    return ifujax.fit_cube(cube, case.model(TAU), starts=8 if case is TWO else 1, precision=precision)


def efficiency(case: Case, n: int, loop: int, iterations: int) -> list[Row]:
    """Effective draws for a CPU second against plain numpyro; CPU of NUTS against a loop."""
    fit = make_fit(case, n)
    post, ours = seconds_of(lambda: ifujax.sample(fit, method="importance"))
    plain = PlainNuts(fit, TAU, iterations, iterations)
    draws, theirs = plain.batched()
    worst = np.where(np.isfinite(post.ess), post.ess, 0.0).ravel()
    handed_out = np.array([_distinct(post, i) for i in range(n)])
    chains = np.array([min(bulk_ess(values[i]) for values in draws.values()) for i in range(n)])
    rows = [
        Row(case.name, f"CPU seconds for {n} spaxels: importance sampling, plain NUTS", f"{ours:.2f}, {theirs:.1f}"),
        Row(case.name, "ESS min/5 %/median, importance sampling (worst parameter, tails included)", _spread(worst)),
        Row(case.name, "ESS min/5 %/median, importance sampling (of repeated draws alone)", _spread(handed_out)),
        Row(case.name, "ESS min/5 %/median, plain NUTS (bulk, worst parameter)", _spread(chains)),
    ]
    for name, share, least in (("smallest", 0.0, 12.0), ("5th percentile", 0.05, 15.0)):
        for kind, ess in (("", worst), (" of repeated draws alone", handed_out)):
            ratio = (np.quantile(ess, share) / ours) / (np.quantile(chains, share) / theirs)
            first = case is ONE and not kind
            row = Row(case.name, f"{name} ESS{kind} per CPU second, over plain NUTS", f"{ratio:.1f}")
            rows.append(Row(row.case, row.what, row.measured, f">= {least:g}", ratio >= least) if first else row)
    good = (post.khat < 0.7) & (post.ess > 200)
    share = float(np.mean(good))
    rows.append(
        Row(case.name, "share that passes importance sampling", f"{share:.1%}", ">= 90 %", share >= 0.9)
        if case is ONE
        else Row(case.name, "share that passes importance sampling", f"{share:.1%}")
    )
    # As many draws a chain as the loop, whatever the chains look like then; ours warm up for 300 iterations
    same = ifujax.SamplingOptions(chain_draws=iterations, max_rhat=1e9, min_chain_ess=1e-9)
    _, nuts = seconds_of(lambda: ifujax.sample(fit, method="nuts", draws=4 * iterations, sampling=same))
    one_by_one = plain.loop(loop)
    ratio = one_by_one / (nuts / n)
    text = f"{one_by_one:.2f} / {nuts / n:.3f} = {ratio:.0f}"
    rows.append(
        Row(case.name, "CPU a spaxel, loop with jit_model_args over our NUTS", text, ">= 20", ratio >= 20)
        if case is ONE
        else Row(case.name, "CPU a spaxel, loop with jit_model_args over our NUTS", text)
    )
    rows.append(Row(case.name, "CPU a spaxel, plain vmapped NUTS", f"{theirs / n:.3f}"))
    return rows


def _distinct(post: ifujax.CubePosterior, i: int) -> float:
    times = np.unique(draws_of(post, "ha.velocity")[i], return_counts=True)[1]
    return times.sum() ** 2 / float(np.sum(times.astype(float) ** 2))


def _spread(ess: np.ndarray) -> str:
    return "{:.0f} / {:.0f} / {:.0f}".format(*np.quantile(ess, [0.0, 0.05, 0.5]))


def accuracy(case: Case, n: int) -> list[Row]:
    """Quantiles against exact ones (one component) or a long run of an independent model (the others)."""
    fit = make_fit(case, n, seed=2)
    importance, automatic = (ifujax.sample(fit, method=method) for method in ("importance", "auto"))
    passes = ((importance.khat < 0.7) & (importance.ess > 200)).ravel()
    names = sampled_names(case)
    error = {"importance": np.full(n, np.nan), "auto": np.full(n, np.nan)}
    left_out = 0
    for i in range(n):
        exact = _exact(case, fit, i)
        if exact is None:
            left_out += 1
            continue
        for kind, post in (("importance", importance), ("auto", automatic)):
            off = [
                np.quantile(draws_of(post, name)[i], QUANTILES) - np.quantile(exact[name], QUANTILES) for name in names
            ] / np.array([exact[name].std() for name in names])[:, None]
            error[kind][i] = np.abs(off).max()
    worst = float(np.nanmax(np.where(passes, error["importance"], np.nan)))
    reference = "the exact grid" if case is ONE else "a long NUTS run"
    rows = [
        Row(
            case.name,
            f"worst quantile error among passes of importance sampling, sd of {reference} ({passes.sum()} spaxels)",
            f"{worst:.2f}, median {np.nanmedian(error['importance'][passes]):.2f}",
            "<= 0.6",
            worst <= 0.6,
        ),
        Row(case.name, f"worst quantile error, method auto ({n - left_out} spaxels)", f"{np.nanmax(error['auto']):.2f}"),
    ]
    if left_out:
        rows.append(Row(case.name, "spaxels left out: the reference itself did not converge", f"{left_out} of {n}"))
    return rows


def _exact(case: Case, fit: ifujax.CubeFit, i: int) -> dict[str, np.ndarray] | None:
    data = fit.spectra(np.array([i]))
    velocity, dispersion = BOUNDS[case]
    values, sigma, good = data.data[0], np.sqrt(data.variance[0]), data.fitted[0]  # type: ignore[index]
    if case is ONE:
        lines = ((N2A, 1, 1.0 / N2_RATIO), (HA, 0, 1.0), (N2B, 1, 1.0))
        problem = GridProblem(WAVELENGTH, values, sigma, good, lines, (TAU, TAU), velocity["ha"], dispersion["ha"], LSF_FWHM)
        found = exact_draws(problem, seed=i)
        found |= {"ha.flux": found["flux0"], "n2b.flux": found["flux1"]}
        return found | {f"ha.{name}": found[name] for name in ("velocity", "velocity_dispersion")}
    layout = LAYOUTS[case]
    start = dict(zip(fit.setup.model.parameter_names, fit.found.solution[i]))
    tau = dict.fromkeys(layout.fluxes, TAU)
    problem = Problem(pixel_edges(WAVELENGTH), values, sigma, good, tau, velocity, dispersion, LSF_FWHM, start)
    reference = reference_numpyro.sample(layout, problem, draws=5000, seed=i)
    if reference.rhat > 1.01 or reference.ess < 1000:
        reference = reference_numpyro.sample(layout, problem, warmup=2000, draws=20000, seed=i)
    return None if reference.rhat > 1.01 or reference.ess < 1000 else reference.draws


def float32(case: Case, n: int) -> list[Row]:
    """How far float32 quantiles are from float64 ones, against two float64 runs of different seeds."""
    double, single = make_fit(case, n, seed=3), make_fit(case, n, seed=3, precision="float32")
    one, two = (ifujax.sample(double, method="importance", seed=seed) for seed in (1, 2))
    third, ours = seconds_of(lambda: ifujax.sample(single, method="importance", seed=3))
    _, theirs = seconds_of(lambda: ifujax.sample(double, method="importance", seed=1))
    passes = (one.khat < 0.7) & (two.khat < 0.7) & (third.khat < 0.7)
    off: dict[str, list[np.ndarray]] = {"float32": [], "seed": []}
    for name in sampled_names(case):
        first, again, low = (quantiles(draws_of(post, name).astype(float)) for post in (one, two, third))
        sd = draws_of(one, name).astype(float).reshape(n, -1).std(axis=1)
        off["float32"].append((np.abs(low - first) / sd)[:, passes.ravel()])
        off["seed"].append((np.abs(again - first) / sd)[:, passes.ravel()])
    median, high = ({kind: float(np.quantile(np.stack(values), q)) for kind, values in off.items()} for q in (0.5, 0.95))
    ratio = max(median["float32"] / median["seed"], high["float32"] / high["seed"])
    text = f"{ratio:.2f} (median {median['float32']:.3f} / {median['seed']:.3f}, 95 % {high['float32']:.3f} / {high['seed']:.3f})"
    return [
        Row(case.name, "float32 less float64, over two float64 seeds", text, "<= 1.15", ratio <= 1.15),
        Row(case.name, "CPU of float64 over float32, importance sampling", f"{theirs / ours:.2f}"),
    ]


def chunks(case: Case, n: int) -> list[Row]:
    """Cost a spaxel of the default chunks against chunks of 64, and whether chunks change draws."""
    fit = make_fit(case, n, seed=4)
    by_default, usual = seconds_of(lambda: ifujax.sample(fit))
    small, least = seconds_of(lambda: ifujax.sample(fit, chunk_size=64))
    odd = ifujax.sample(fit, chunk_size=max(n // 3 - 1, 1))
    where = np.zeros(fit.shape, bool)
    where.flat[1::3] = True
    some = ifujax.sample(fit, where=where)
    same = True
    for name in sampled_names(case):
        whole = draws_of(by_default, name)
        for other, expected in ((small, whole), (odd, whole), (some, whole[1::3])):
            same &= np.array_equal(draws_of(other, name), expected, equal_nan=True)
    ratio = usual / least
    text = f"{1e6 * usual / n:.0f} / {1e6 * least / n:.0f} = {ratio:.2f}"
    return [
        Row(case.name, f"CPU us a spaxel, default chunks over chunks of 64 ({n} spaxels, auto)", text, "<= 1.5", ratio <= 1.5),
        Row(case.name, "draws bit for bit the same at any chunk size and selection", "yes" if same else "no", "yes", same),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=64, help="spaxels of each measurement")
    parser.add_argument("--iterations", type=int, default=500, help="of the baseline's warm-up, and draws of each of its chains")
    parser.add_argument("--quick", action="store_true", help="12 spaxels, one component only unless --case says otherwise")
    parser.add_argument("--case", action="append", choices=[case.name for case in (ONE, TWO, HERMITE)], help="only these")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    n = 12 if options.quick else options.n
    names = options.case or ([ONE.name] if options.quick else [case.name for case in (ONE, TWO, HERMITE)])
    table: list[Row] = []
    for case in (ONE, TWO, HERMITE):
        if case.name not in names:
            continue
        few = n if case is ONE else max(n // 4, 4)  # their reference takes a minute a spaxel
        for part in (
            lambda case=case: efficiency(case, n, 2 if options.quick else 6, options.iterations),
            lambda case=case, few=few: accuracy(case, few),
            lambda case=case: float32(case, n),
            lambda case=case: chunks(case, n if options.quick else 5 * n),
        ):
            rows = part()
            table += rows
            for row in rows:
                verdict = "" if row.met is None else f"   target {row.target}: {'met' if row.met else 'NOT MET'}"
                print(f"{row.case:<16} {row.what:<90} {row.measured}{verdict}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"n": n, "threads": THREADS, "rows": [asdict(row) for row in table]}, indent=1))


if __name__ == "__main__":
    main()
