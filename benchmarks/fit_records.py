"""Fits of problems with known truth, as numbers: how far from the truth, from the lowest chi2, and what the bits say."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from scipy.stats import chi2 as chi2_law
from scipy.stats import norm

import ifujax
from ifujax.inference.status import WARN_FLAGS
from tests.lines.line_problem import LineProblem

CHANCE = 1e-4
"""Probability below which a distance from the truth is no chance."""
CLASSES = (0.0, 3.0, 5.0, 10.0, 20.0, np.inf)
"""Of the S/N of the faintest group."""
EQUAL = 1e-3
"""chi2 within which two solutions are equally good."""
REPORTED = ("flux", "velocity", "velocity_dispersion")
QUALITY = ("other_minimum", "chi2_not_1", "structured_residuals", "errors_not_trusted", "correlated_noise", "undecided")
"""Bits that say that a fit may be wrong; at_bound and the like are facts that sound fits have too."""


@dataclass(frozen=True)
class Fits:
    """One entry a spectrum.

    `pull`: the largest |value - truth| / error of `n_values` reported ones; `distance` and `n_free`: the squared distance from
    the truth by the information, and its degrees of freedom; `chi2_from_truth`, `chi2_scipy`: where scipy ends from the truth
    and from the guess, on the same pixels; `group_snr`: the true S/N of the faintest group in the pixels fitted. `values`,
    `errors`: a row (lines x 3,) for each spectrum. One entry a line of each spectrum, one after the other: `line_pull`, whether
    a bit of the line or of the whole spectrum says that it may be wrong, and the S/N of its group.
    """

    status: np.ndarray
    warn: np.ndarray
    chi2: np.ndarray
    chi2_numpy: np.ndarray
    dof: np.ndarray
    pull: np.ndarray
    n_values: np.ndarray
    distance: np.ndarray
    n_free: np.ndarray
    chi2_from_truth: np.ndarray
    chi2_scipy: np.ndarray
    group_snr: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    line_pull: np.ndarray
    line_flagged: np.ndarray
    line_snr: np.ndarray
    wall: float = 0.0
    cpu: float = 0.0

    @classmethod
    def joined(cls, parts: Iterable[Fits]) -> Fits:
        """Return all in one, without `values` and `errors`."""
        parts = list(parts)
        names = [item.name for item in fields(cls) if item.name not in ("values", "errors", "wall", "cpu")]
        none = np.zeros((0, 0))
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}, values=none, errors=none)

    def has(self, name: str) -> np.ndarray:
        """Whether a bit of `warn` is set."""
        return (self.warn & next(flag.value for flag in WARN_FLAGS if flag.name == name)) != 0

    @property
    def quality(self) -> np.ndarray:
        """Whether any bit says that the fit may be wrong."""
        return np.any([self.has(name) for name in QUALITY], axis=0)

    @property
    def pulled(self) -> np.ndarray:
        """Whether the largest pull is beyond chance, of as many values as there are."""
        return self.pull > norm.isf(CHANCE / 2 / np.maximum(self.n_values, 1))

    @property
    def distant(self) -> np.ndarray:
        """Whether all parameters together are farther from the truth than chance allows."""
        return self.distance > chi2_law.isf(CHANCE, np.maximum(self.n_free, 1))

    @property
    def off(self) -> np.ndarray:
        """Whether a value is more than 3 errors off and that is no chance."""
        return (self.pull > 3.0) & (self.distant | self.pulled)


def fit_records(problem: LineProblem, *, starts: int | None = None, single_start: bool = False) -> Fits:
    """Fit a problem by default (or with `starts`) and hold it against the truth; `single_start`: scipy from the guess too."""
    cube, model = problem.cube(), problem.model()
    wall, cpu = time.perf_counter(), time.process_time()
    fit = ifujax.fit_cube(cube, model, starts=starts)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    lines, truth, k = problem.lines, problem.truth(), len(problem)
    used = np.unpackbits(fit.found.fitted, axis=1)[:, : problem.structure.n_pix].astype(bool)
    weight = np.where(used, 1.0 / problem.sigma, 0.0)
    keys = [(name, quantity) for name in problem.names for quantity in REPORTED]
    values = np.stack([fit[key][0] for key in keys], axis=1)
    errors = np.stack([fit.error[key][0] for key in keys], axis=1)
    true = np.stack([truth[f"{name}.{quantity}"] for name, quantity in keys], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        pulls = np.abs(values - true) / errors
    found = _vectors(problem, fit)
    m = lines.n_flux + 2 * problem.structure.n_groups
    group = np.array(problem.structure.group)
    snr = np.full((k, problem.structure.n_groups), np.nan)
    rows = {name: np.full(k, np.nan) for name in ("chi2_numpy", "distance", "chi2_from_truth", "chi2_scipy", "group_snr")}
    for row in range(k):
        snr[row] = lines.group_snr(problem.x[row], weight[row])
        rows["group_snr"][row] = snr[row].min()
        data = problem.values[row], weight[row]
        if starts is None:
            rows["chi2_from_truth"][row] = 2.0 * lines.scipy(problem.x[row], *data).cost
        if single_start:
            rows["chi2_scipy"][row] = 2.0 * lines.scipy(lines.guess(*data), *data).cost
        if fit.found.status[row] == 0:
            rows["chi2_numpy"][row] = lines.chi2(found[row], *data)
            rows["distance"][row] = lines.distance(found[row], problem.x[row], weight[row])
    return Fits(
        status=np.array(fit.found.status),
        warn=np.array(fit.found.warn),
        chi2=np.array(fit.found.chi2),
        dof=fit.dof[0],
        pull=np.nanmax(np.where(np.isfinite(pulls), pulls, 0.0), axis=1),
        n_values=np.isfinite(pulls).sum(axis=1),
        n_free=np.full(k, m),
        values=values,
        errors=errors,
        line_pull=np.nan_to_num(np.where(fit.found.status[:, None, None] == 0, pulls.reshape(k, -1, 3), 0.0)).max(axis=2).ravel(),
        line_flagged=_flagged(fit).ravel(),
        line_snr=snr[:, group].ravel(),
        wall=wall,
        cpu=cpu,
        **rows,
    )


def _flagged(fit: ifujax.CubeFit) -> np.ndarray:
    """Return whether something says that a line may be wrong, (spectra, lines)."""
    of_line = sum(flag.value for flag in WARN_FLAGS if flag.name in ("other_minimum", "errors_not_trusted"))
    of_all = sum(flag.value for flag in WARN_FLAGS if flag.name in QUALITY) & ~of_line
    return ((fit.found.line_warn & of_line) != 0) | ((fit.found.warn & of_all) != 0)[:, None]


def _vectors(problem: LineProblem, fit: ifujax.CubeFit) -> np.ndarray:
    """Return solutions as free vectors of the problem, the continuum left at 0."""
    found = dict(zip(fit.setup.model.parameter_names, fit.found.solution.T))
    tied = {i for i, _, _ in problem.structure.ties}
    group = problem.structure.group
    first = [group.index(g) for g in range(problem.structure.n_groups)]
    columns = [found[f"l{i}.flux"] / problem.unit for i in range(len(group)) if i not in tied]
    columns += [found[f"l{i}.{quantity}"] for quantity in ("velocity", "velocity_dispersion") for i in first]
    columns += [np.zeros(len(problem))] * (problem.structure.degree + 1)
    return np.stack(columns, axis=1)


def compare_order(a: Fits, b: Fits, order: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest difference from the fit with lines in `order`, in errors of `a` (NaN: not comparable), and of chi2."""
    k, n = a.values.shape
    back = np.argsort(np.array(order))
    others = b.values.reshape(k, n // 3, 3)[:, back].reshape(k, n)
    same = ((np.isfinite(a.values) & np.isfinite(a.errors)) == np.isfinite(others)).all(axis=1)
    same &= (a.status == 0) & (b.status == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = np.abs(a.values - others) / a.errors
    return np.where(same, np.where(np.isfinite(moved), moved, 0.0).max(axis=1), np.nan), b.chi2 - a.chi2


def bit_names(warn: np.ndarray) -> str:
    """Return each bit with the share of fits that have it."""
    shares = {flag.name: float(np.mean((warn & flag.value) != 0)) for flag in WARN_FLAGS}
    return ", ".join(f"{name} {share:.2f}" for name, share in shares.items() if share) or "none"


def flag_tables(fits: Fits) -> None:
    """Print false alarms and misses by bit, with "off" meant in three ways."""
    ok = fits.status == 0
    ways = {
        "a value > 3 errors": fits.pull > 3.0,
        f"largest pull, p < {CHANCE:g}": fits.pulled,
        f"> 3 errors and no chance (p < {CHANCE:g})": fits.off,
    }
    print(f"{int(ok.sum())} fits ({int((~ok).sum())} with status != 0 left out)\n")
    print("| off means | off | off: flagged | off: missed | all within 3 errors: false alarms |\n|---|---|---|---|---|")
    for title, off in ways.items():
        bad, good = ok & off, ok & ~(fits.pull > 3.0)
        hit = f"{fits.quality[bad].mean():.3f} | {1 - fits.quality[bad].mean():.3f}" if bad.any() else "- | -"
        print(f"| {title} | {int(bad.sum())} | {hit} | {fits.quality[good].mean():.4f} |")
    bad, good = ok & fits.off, ok & (fits.pull <= 3.0)
    print("\n| bit | of fits within 3 errors | of fits off (no chance) |\n|---|---|---|")
    for flag in WARN_FLAGS:
        mark = "" if flag.name in QUALITY else " (a fact, not counted as a flag)"
        set_ = fits.has(flag.name)
        print(f"| {flag.name}{mark} | {set_[good].mean():.4f} | {set_[bad].mean() if bad.any() else np.nan:.4f} |")
    equal = bad & (np.abs(fits.chi2 - fits.chi2_from_truth) < EQUAL)
    lower = bad & (fits.chi2 < fits.chi2_from_truth - EQUAL)
    print(
        f"\nof {int(bad.sum())} fits off, {int(equal.sum())} have the chi2 of the solution at the truth "
        f"(the same, or another equally good), {int(lower.sum())} a lower one"
    )
    print("\n| S/N of the faintest group | within 3 errors: fits, false alarms | off: fits, missed |\n|---|---|---|")
    for low, high in pairwise(CLASSES):
        here = (fits.group_snr >= low) & (fits.group_snr < high)
        cells = [
            f"{int(some.sum())}, {share:.4f}" if some.any() else "0, -" for some, share in _shares(fits, good & here, bad & here)
        ]
        if (here & ok).any():
            print(f"| {low:g} to {high:g} | {cells[0]} | {cells[1]} |")
    line_table(fits)


def line_table(fits: Fits) -> None:
    """Print false alarms and misses line by line: an astronomer looks at maps of one line."""
    off = fits.line_pull > norm.isf(CHANCE / 2 / len(REPORTED))
    good = fits.line_pull <= 3.0
    print(f"\nline by line (off: more than {norm.isf(CHANCE / 2 / len(REPORTED)):.1f} errors, p < {CHANCE:g}):\n")
    print("| S/N of the line's group | within 3 errors: lines, false alarms | off: lines, missed |\n|---|---|---|")
    for low, high in [*pairwise(CLASSES), (5.0, np.inf), (0.0, np.inf)]:
        here = (fits.line_snr >= low) & (fits.line_snr < high)
        a, b = fits.line_flagged[good & here], fits.line_flagged[off & here]
        cells = [f"{len(a)}, {a.mean():.4f}" if len(a) else "0, -", f"{len(b)}, {1 - b.mean():.4f}" if len(b) else "0, -"]
        print(f"| {low:g} to {high:g} | {cells[0]} | {cells[1]} |")


def _shares(fits: Fits, good: np.ndarray, bad: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Return the share of false alarms in `good` and of misses in `bad`."""
    return [
        (good, float(fits.quality[good].mean()) if good.any() else np.nan),
        (bad, 1.0 - float(fits.quality[bad].mean()) if bad.any() else np.nan),
    ]
