"""`fit_components`: several candidate models of a cube, and which of them each spaxel calls for."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ifujax.data.cube import Cube
from ifujax.errors import IfujaxWarning, UsageError
from ifujax.lines.config import EmissionModel, LineFitConfig
from ifujax.lines.results import CubeFit
from ifujax.lines.run import as_config, fit_cube
from ifujax.lines.selection.comparison import Comparison
from ifujax.lines.selection.criteria import Criterion, check_criterion
from ifujax.lines.selection.results import ComponentFit, components_per_line
from ifujax.lines.setup import prepare
from ifujax.progress import Progress

if TYPE_CHECKING:
    from ifujax.io.checkpoint import ChunkStore

STARTS = 8
"""Starting points, beside those from simpler candidates, where components overlap and no number was asked for."""
_ALIKE = (
    "window",
    "instrument_dispersion",
    "optimize_fit",
    "optimization_window",
    "minimum_good_fraction",
    "individual_spec",
    "noise",
)
"""Options of the fit that say which data count, and how much."""


def fit_components(
    cube: Cube,
    candidates: Sequence[EmissionModel | LineFitConfig],
    *,
    criterion: Criterion = "bic",
    threshold: float | None = None,
    names: Sequence[str] | None = None,
    window: tuple[float, float] | None = None,
    continuum: np.ndarray | None = None,
    starts: int | None = None,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    chunk_size: int | None = None,
    progress: Progress | None = None,
    checkpoint: ChunkStore | None = None,
) -> ComponentFit:
    """Fit candidate models with different numbers of components, and choose one in each spaxel.

    The simplest candidate is kept unless another one lowers the criterion by more than `threshold`. All of them are fitted to
    the same pixels with the same noise: outliers are masked, and noise is estimated where there is no variance, away from the
    lines of all candidates. A candidate that holds a simpler one also starts from that one's solution, so that its chi2
    is never higher.

    Parameters
    ----------
    cube : Cube
    candidates : sequence of EmissionModel or LineFitConfig
        Two or more, in any order; such as the same lines with one, two and three components.
    criterion : "bic" or "aic"
        See `ifujax.lines.selection.criteria.criterion_of`.
    threshold : float, optional
        Zero takes the lowest criterion. By default 10 (bic) or 15 (aic): the documentation says what these miss and mistake.
    names : sequence of str, optional
        What to call the candidates: by default their files' names, or "1", "2", ...
    starts : int, optional
        Starting points per spaxel. By default what each candidate says, but 8 at least where components overlap.
    window, continuum, precision, devices, chunk_size, progress, checkpoint
        As for `fit_cube`.

    Returns
    -------
    ComponentFit

    Raises
    ------
    DataError
        As `fit_cube`.
    UsageError
        For fewer than two candidates, for candidates that don't look at the same data in the same way, and as `fit_cube`.

    Examples
    --------
    >>> chosen = ifujax.fit_components(cube, [one, two], names=["one", "two"])  # doctest: +SKIP
    >>> chosen.choice, chosen.evidence, chosen["ha", "velocity"]  # doctest: +SKIP
    """
    allowed = check_criterion(criterion, threshold)
    if isinstance(candidates, (EmissionModel, LineFitConfig)) or len(candidates) < 2:
        raise UsageError("candidates must be two or more models; got one or none. Use fit_cube for one.")
    configs = tuple(as_config(candidate) for candidate in candidates)
    if window is not None:
        configs = tuple(replace(each, fit=replace(each.fit, window=(float(window[0]), float(window[1])))) for each in configs)
    names = candidate_names(configs, names)
    check_alike(configs, names)
    began = time.perf_counter()
    cut = cube.cut(*configs[0].fit.window) if configs[0].fit.window is not None else cube
    order, overlap = _by_size(configs, cut)
    fits: dict[int, CubeFit] = {}
    for step, k in enumerate(order):
        with warnings.catch_warnings():
            if step < len(order) - 1:
                # What a model with too few components leaves passes for noise: the richest one says how that is.
                warnings.filterwarnings("ignore", "noise is correlated", IfujaxWarning)
            fits[k] = fit_cube(
                cube,
                configs[k],
                continuum=continuum,
                starts=max(configs[k].fit.starts, STARTS) if starts is None and overlap[k] else starts,
                precision=precision,
                devices=devices,
                chunk_size=chunk_size,
                progress=_step_of(progress, step, len(order)),
                checkpoint=None if checkpoint is None else cast("ChunkStore", _Shelf(checkpoint, f"candidate{k}-")),
                comparison=Comparison(configs, tuple(fits.values())),
            )
    ordered = tuple(fits[k] for k in range(len(configs)))
    return ComponentFit(ordered, names, criterion, allowed, time.perf_counter() - began)


def candidate_names(configs: Sequence[LineFitConfig], names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the names of candidates: as given, else those of their files, else numbers.

    Raises
    ------
    UsageError
        For names that are not one for each, different and not empty.
    """
    if names is not None:
        named = tuple(str(name) for name in names)
        if len(named) != len(configs) or len(set(named)) != len(named) or not all(name.strip() for name in named):
            raise UsageError(f"names must be {len(configs)} different texts, one a candidate; got {list(names)}.")
        return named
    stems = [Path(config.source).stem if config.source is not None else "" for config in configs]
    if all(stems) and len(set(stems)) == len(stems):
        return tuple(stems)
    return tuple(str(k + 1) for k in range(len(configs)))


def check_alike(configs: Sequence[LineFitConfig], names: Sequence[str]) -> None:
    """Check that candidates look at the same data in the same way.

    Raises
    ------
    UsageError
        For the first difference, by name.
    """
    first = configs[0]
    for config, name in zip(configs, names):
        for option, refused in (("fixed", config.fit.fixed), ("ifscube_compat", config.fit.ifscube_compat)):
            if refused:
                raise UsageError(f"{option} must not be set in a candidate; got it in {name}. Remove it.")
        pairs = [(f"[fit] {item}", getattr(first.fit, item), getattr(config.fit, item)) for item in _ALIKE]
        pairs.append(("the degree of the continuum", first.model.continuum_degree, config.model.continuum_degree))
        pairs += [
            (f"[continuum] {item}", getattr(first.continuum, item), getattr(config.continuum, item))
            for item in first.continuum.__dataclass_fields__
        ]
        for what, ours, theirs in pairs:
            if ours != theirs:
                raise UsageError(
                    f"{what} must be the same in all candidates, which are judged by the same data; got {ours} in {names[0]} "
                    f"and {theirs} in {name}. Change one."
                )


def _by_size(configs: Sequence[LineFitConfig], cut: Cube) -> tuple[list[int], list[bool]]:
    """Return the candidates' order, fewest free parameters first, and whether any of their components overlap."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)
        setups = [prepare(config, cut.rest_edges, cut.redshift) for config in configs]
    order = sorted(range(len(configs)), key=lambda k: (setups[k].space.n_free, k))
    return order, [components_per_line(setup.lines) > 1 for setup in setups]


def _step_of(progress: Progress | None, step: int, steps: int) -> Progress | None:
    """Return what counts the spaxels of one candidate as a part of all."""
    if progress is None:
        return None

    def report(stage: str, done: int, total: int) -> None:
        counted = stage == "fit"
        progress(stage, step * total + done if counted else done, steps * total if counted else total)

    return report


class _Shelf:
    """One candidate's part of a store of chunks."""

    def __init__(self, store: ChunkStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        return self._store.get(self._prefix + name)

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        self._store.put(self._prefix + name, arrays)
