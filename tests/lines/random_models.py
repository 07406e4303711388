"""Random emission-line problems: groups, ties, masks, LSF, bounds and guesses of all kinds, on few distinct structures.

Programs are compiled for a structure (`Structure`), not for numbers: problems of one structure share theirs. Structures come in
pairs, each with its mirror image, so that declaring the lines in reverse order compiles nothing either.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.lines.line_problem import C, LineProblem, NumpyLines, Structure

LINES = {
    "[O II] 3726": 3726.03,
    "[O II] 3729": 3728.82,
    "[Ne III] 3869": 3868.76,
    "He I 3889": 3888.65,
    "[Ne III] 3967": 3967.47,
    "H-epsilon": 3970.08,
    "[S II] 4069": 4068.60,
    "[S II] 4076": 4076.35,
    "H-delta": 4101.73,
    "H-gamma": 4340.46,
    "[O III] 4363": 4363.21,
    "He I 4471": 4471.50,
    "[Fe III] 4658": 4658.05,
    "He II 4686": 4685.71,
    "[Ar IV] 4711": 4711.26,
    "[Ar IV] 4740": 4740.12,
    "H-beta": 4861.33,
    "[O III] 4959": 4958.91,
    "[O III] 5007": 5006.84,
    "[N I] 5198": 5197.90,
    "[N I] 5200": 5200.26,
    "[Fe III] 5270": 5270.40,
    "[Fe VII] 5721": 5720.70,
    "[N II] 5755": 5754.64,
    "He I 5876": 5875.62,
    "[Fe VII] 6087": 6087.00,
    "[O I] 6300": 6300.30,
    "[S III] 6312": 6312.06,
    "[O I] 6364": 6363.78,
    "[Fe X] 6375": 6374.51,
    "[N II] 6548": 6548.05,
    "H-alpha": 6562.82,
    "[N II] 6583": 6583.45,
    "He I 6678": 6678.15,
    "[S II] 6716": 6716.44,
    "[S II] 6731": 6730.82,
    "He I 7065": 7065.19,
    "[Ar III] 7136": 7135.79,
    "[Fe II] 7155": 7155.16,
    "He I 7281": 7281.35,
    "[O II] 7320": 7319.99,
    "[O II] 7330": 7330.73,
}
"""Rest wavelengths in air, Angstrom."""
COMPLEXES = ("[N II] 6548", "H-alpha", "[N II] 6583", "[S II] 6716", "[S II] 6731")
"""About one of these half of the windows lie: where groups contend for lines."""
RATIOS = (3.06, 2.98, 0.7)


def draw_structure(rng: np.random.Generator) -> Structure:
    """Return a random structure of 1 to 3 groups and 2 to 8 lines."""
    n_groups = int(rng.choice([1, 2, 3], p=[0.25, 0.42, 0.33]))
    n_lines = int(rng.integers(max(2, n_groups), 9))
    labels = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n_lines - n_groups)])
    rng.shuffle(labels)
    order = list(dict.fromkeys(labels.tolist()))
    group = tuple(order.index(label) for label in labels.tolist())
    ties: list[tuple[int, int, float]] = []
    for _ in range(int(rng.choice([0, 1, 2], p=[0.45, 0.35, 0.2]))):
        taken = {index for tie in ties for index in tie[:2]}
        left = [i for i in range(n_lines) if i not in taken]
        pairs = [(i, j) for i in left for j in left if i != j and group[i] == group[j]]
        if pairs:
            i, j = pairs[int(rng.integers(len(pairs)))]
            ties.append((i, j, float(rng.choice(RATIOS))))
    return Structure(
        group=group,
        ties=tuple(sorted(ties)),
        lsf=str(rng.choice(["none", "constant", "polynomial"], p=[0.3, 0.4, 0.3])),
        degree=int(rng.integers(0, 4)),
        n_pix=int(rng.choice([128, 192, 256])) if n_lines < 4 else 256 if n_lines < 7 else 384,
        resolved=bool(rng.random() < 0.6),
    )


def draw_structures(count: int, seed: int) -> list[Structure]:
    """Return `count` structures (even: a number of pairs), each followed by its mirror image."""
    result: list[Structure] = []
    for k in range(-(-count // 2)):
        structure = draw_structure(np.random.default_rng([seed, 1, k]))
        result += [structure, structure.reordered(range(len(structure.group))[::-1])]
    return result[:count]


def draw_problem(
    structure: Structure, rng: np.random.Generator, n_spectra: int = 4, *, faintest: float = 0.1, swappable: bool = False
) -> LineProblem:
    """Return a random problem of a structure: spectra of one model, each with a truth, a S/N and a mask of its own.

    Two groups of one line each that may take each other's place fit equally well either way: such models are left out unless
    `swappable`.
    """
    redshift = float(rng.choice([0.0, rng.uniform(0.0, 0.08)]))
    n_groups = structure.n_groups
    half = rng.choice([300.0, 400.0, 600.0, 800.0, 1000.0], n_groups)
    half = np.full(n_groups, half[0]) if rng.random() < 0.5 else half
    offset = np.where(rng.random(n_groups) < 0.7, 0.0, rng.uniform(-150.0, 150.0, n_groups))
    velocity_bounds = np.stack([offset - half, offset + half], axis=1)
    for _ in range(100):
        labels, wavelength = _window(structure, redshift, rng)
        if swappable or not _can_swap(labels, structure, velocity_bounds):
            break
    rest = np.array([LINES[label] for label in labels])
    middle = wavelength[len(wavelength) // 2]
    pixel = float(np.diff(wavelength).max())
    lsf: tuple[float, ...] = ()
    if structure.lsf != "none":
        lsf = (float(pixel * rng.uniform(2.2, 4.0)),)
        if structure.lsf == "polynomial":
            lsf = (lsf[0], float(rng.uniform(-3e-4, 3e-4)), float(rng.uniform(-1e-7, 1e-7)))
    least = 15.0
    if structure.lsf == "none" and structure.resolved:
        least = float(C * pixel / (1.0 + redshift) / rest.min() / 1.4)
    dispersion_bounds = np.stack([np.full(n_groups, least), rng.choice([450.0, 600.0, 1000.0], n_groups)], axis=1)
    wrong = rng.random(n_groups) < 0.6
    inside = velocity_bounds[:, 0] + (velocity_bounds[:, 1] - velocity_bounds[:, 0]) * rng.uniform(0.05, 0.95, n_groups)
    problem = LineProblem(
        structure=structure,
        labels=labels,
        rest=rest,
        wavelength=wavelength,
        redshift=redshift,
        lsf=lsf,
        reference=float(middle),
        velocity_bounds=velocity_bounds,
        dispersion_bounds=dispersion_bounds,
        guess_velocity=np.where(wrong, inside, np.clip(0.0, *velocity_bounds.T)),
        guess_dispersion=np.clip(np.exp(rng.uniform(np.log(40), np.log(300), n_groups)), 1.05 * least, 440.0),
        x=np.zeros((0, 0)),
        values=np.zeros((0, 0)),
        sigma=np.zeros((0, 0)),
        bad=np.zeros((0, 0), bool),
        unit=float(rng.choice([1.0, 1e-17, 37.0])),
    )
    return with_spectra(problem, rng, n_spectra, faintest=faintest)


def with_spectra(
    problem: LineProblem,
    rng: np.random.Generator,
    n_spectra: int,
    *,
    snr: tuple[float, float] = (5.0, 50.0),
    dispersion: tuple[float | np.ndarray, float | np.ndarray] = (30.0, 400.0),
    masks: bool = True,
    faintest: float = 0.1,
    absent: float = 0.1,
    fluxes: np.ndarray | None = None,
) -> LineProblem:
    """Return the problem with random truths and data.

    The strongest line's peak has S/N `snr`; the others are fainter by random factors down to `faintest`, a share `absent` is not
    there at all; or peaks relative to each other are `fluxes` (free lines,). `dispersion`: between what true ones lie, km/s,
    for all groups or each.
    """
    lines, structure = NumpyLines(problem), problem.structure
    rows = [_truth(problem, lines, rng, snr, dispersion, faintest, absent, fluxes) for _ in range(n_spectra)]
    x = np.array(rows)
    n_pix = structure.n_pix
    slope = rng.uniform(-0.3, 0.3, (n_spectra, 1)) * np.linspace(-1.0, 1.0, n_pix)
    sigma = 1.0 + slope
    bad = np.zeros((n_spectra, n_pix), bool)
    for k in range(n_spectra if masks else 0):
        for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.4, 0.3, 0.2, 0.1]))):
            _mask(problem, lines, x[k], sigma[k], bad[k], rng)
    clean = np.array([lines(row)[0] for row in x])
    values = clean + sigma * rng.standard_normal(clean.shape)
    return replace(problem, x=x, values=values, sigma=sigma, bad=bad)


def _window(structure: Structure, redshift: float, rng: np.random.Generator) -> tuple[tuple[str, ...], np.ndarray]:
    """Return lines in a random order that suits the structure, and observed wavelengths that hold them."""
    names, rest = list(LINES), np.array(list(LINES.values()))
    n_lines = len(structure.group)
    for _ in range(1000):
        anchor = str(rng.choice(COMPLEXES)) if rng.random() < 0.5 else str(rng.choice(names))
        kind, share = rng.choice(["muse", "log", "linear"]), rng.uniform(0.15, 0.85)
        centre = LINES[anchor] * (1.0 + redshift)
        steps = np.arange(structure.n_pix) - share * structure.n_pix
        if kind == "log":
            wavelength = centre * 10.0 ** (1e-4 * steps)
        else:
            wavelength = centre + (1.25 if kind == "muse" else rng.uniform(0.8, 1.6)) * steps
        inside = (rest > wavelength[0] / (1.0 + redshift) + 12.0) & (rest < wavelength[-1] / (1.0 + redshift) - 12.0)
        if inside.sum() >= n_lines and inside[names.index(anchor)]:
            break
    others = [name for name, here in zip(names, inside) if here and name != anchor]
    # Neighbours of the anchor come first: where lines are close groups contend for them.
    others.sort(key=lambda name: abs(LINES[name] - LINES[anchor]) * rng.uniform(0.3, 3.0))
    chosen = [anchor, *others[: n_lines - 1]]
    orders = [list(rng.permutation(chosen)) for _ in range(60)]
    if rng.random() < 0.85:
        orders.sort(key=lambda order: _unlikely(order, structure))
    return tuple(str(name) for name in orders[0]), wavelength


def _can_swap(labels: tuple[str, ...], structure: Structure, bounds: np.ndarray) -> bool:
    """Whether two groups of one line each can both be fitted to the line of the other."""
    alone = [g for g in range(structure.n_groups) if structure.group.count(g) == 1]
    rest = {g: LINES[labels[structure.group.index(g)]] for g in alone}
    pairs = [(a, b) for a in alone for b in alone if rest[a] < rest[b]]
    return any(C * np.log(rest[b] / rest[a]) < bounds[a, 1] - bounds[b, 0] for a, b in pairs)


def _unlikely(order: list[str], structure: Structure) -> int:
    """How many lines of one ion are in different groups, or tied to those of another."""
    ions = [name.rsplit(" ", 1)[0] for name in order]
    pairs = [(i, j) for i in range(len(ions)) for j in range(i) if ions[i] == ions[j]]
    apart = sum(structure.group[i] != structure.group[j] for i, j in pairs)
    return apart + 2 * sum(ions[i] != ions[j] for i, j, _ in structure.ties)


def _truth(
    problem: LineProblem,
    lines: NumpyLines,
    rng: np.random.Generator,
    snr: tuple[float, float],
    dispersion: tuple[float | np.ndarray, float | np.ndarray],
    faintest: float,
    absent: float,
    fluxes: np.ndarray | None,
) -> np.ndarray:
    structure, n_groups = problem.structure, problem.structure.n_groups
    low, high = problem.velocity_bounds.T
    velocity = low + (high - low) * rng.uniform(0.03, 0.97, n_groups)
    if rng.random() < 0.4:  # one gas, nearly
        velocity = np.clip(velocity[0] + rng.normal(0.0, 60.0, n_groups), low + 5.0, high - 5.0)
    least = np.maximum(dispersion[0], 1.05 * problem.dispersion_bounds[:, 0])
    most = np.minimum(dispersion[1], 0.95 * problem.dispersion_bounds[:, 1])
    width = np.exp(rng.uniform(np.log(least), np.log(most)))
    peak = np.exp(rng.uniform(np.log(faintest), 0.0, lines.n_flux)) if fluxes is None else np.array(fluxes, float)
    strongest = int(rng.integers(lines.n_flux)) if fluxes is None else int(np.argmax(peak))
    if fluxes is None:
        peak[rng.random(lines.n_flux) < absent] = 0.0
        peak[strongest] = 1.0
    x = np.concatenate([np.zeros(lines.n_flux), velocity, width, np.zeros(structure.degree + 1)])
    # A line that is absent stays so; those that are tied follow.
    for k in range(lines.n_flux):
        i = int(np.flatnonzero(lines.spread[:, k] == 1.0)[0])
        g = structure.group[i]
        sigma = lines.observed_sigma(i, velocity[g], width[g])
        x[k] = peak[k] / lines.profile(i, velocity[g], sigma).max() if peak[k] else 0.0
    x[: lines.n_flux] *= np.exp(rng.uniform(*np.log(snr))) * (1.0 if problem.emission else -1.0)
    level = rng.uniform(0.0, 30.0)
    x[lines.n_flux + 2 * n_groups :] = level * np.r_[1.0, rng.normal(0.0, 0.15, structure.degree)]
    return x


def _mask(
    problem: LineProblem, lines: NumpyLines, x: np.ndarray, sigma: np.ndarray, bad: np.ndarray, rng: np.random.Generator
) -> None:
    """Flag a gap, or raise its variance: anywhere, or over a line."""
    centre = int(rng.integers(bad.size))
    if rng.random() < 0.4:
        i = int(rng.integers(len(problem.rest)))
        velocity = lines.split(x)[1][problem.structure.group[i]]
        centre = int(np.clip(np.searchsorted(lines.velocity[i], velocity + rng.normal(0.0, 50.0)), 0, bad.size - 1))
    half = int(rng.integers(0, 7))
    part = slice(max(centre - half, 0), centre + half + 1)
    if rng.random() < 0.6:
        bad[part] = True
    else:
        sigma[part] *= rng.choice([30.0, 1000.0])
