"""`fit_batch`: thousands of small bounded least-squares fits in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ifujax.inference.batching import choose_devices
from ifujax.inference.evaluation import as_model
from ifujax.inference.levenberg_marquardt import CONVERGED, FAILED
from ifujax.inference.observations import Observations
from ifujax.inference.options import DEFAULT_OPTIONS, LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.results import FitResult
from ifujax.inference.runner import Runner
from ifujax.inference.starts import Rivals, lowest_ends, pack_starts
from ifujax.inference.uncertainty import Derived
from ifujax.progress import Progress


def fit_batch(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    start: Mapping[str, Any] | Any,
    *,
    options: LeastSquaresOptions = DEFAULT_OPTIONS,
    derived: Derived | None = None,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
    progress: Progress | None = None,
    race: bool = False,
    blocks_for: int = 1,
) -> FitResult:
    """Fit a model to each row of `obs`.

    Parameters
    ----------
    model : Model
        A hashable callable or registered pytree: ``model(params, coords) -> (n_pix,)`` for ONE row,
        where `params` maps each name of `space` to its value. With ``options.linear`` other than
        ``"keep"`` it has ``design(params, coords) -> (columns, offset)`` and ``linear_names``.
    space : ParameterSpace
    obs : Observations
        (batch, n_pix)
    start : mapping of str to array, or array
        Named values, scalars or (batch,), of all free parameters; or free vectors (batch, n) or,
        for several starts a fit, (starts, batch, n) - NaN rows are no start. The lowest chi2 wins.
    options : LeastSquaresOptions
    derived : Derived, optional
        Further quantities to compute with their errors.
    precision : "float64" or "float32"
    devices : list of JAX devices, or platform name, optional
    progress : callable, optional
        Called with ("fit", rows done, rows).
    race : bool
        Of several starts of a fit, give up those that are behind after a few iterations. Most of the time of the
        others is saved; a start that would have overtaken the rest late is lost.
    blocks_for : int
        Fits of which a larger batch was made before with the same model: its compiled programs serve again.

    Returns
    -------
    FitResult

    Raises
    ------
    UsageError
        For starts of the wrong shape or name, before anything is compiled.

    Notes
    -----
    A compilation is keyed by the model's type and static parts, ``space.structure``, `options`,
    the dtype and the two bucket sizes; numbers never recompile.
    """
    model = as_model(model)
    rows_of_start = pack_starts(space, start, obs.batch)
    batch, n_starts = obs.batch, rows_of_start.shape[0]
    runner = Runner(model, space, obs, options, derived, precision, choose_devices(devices), blocks_for)
    which, row = np.nonzero(np.all(np.isfinite(rows_of_start), axis=2))
    ends = runner.solve(row, rows_of_start[which, row], progress, race=race)
    best, rivals = lowest_ends(ends, which, row, (n_starts, batch))
    return runner.finish(best, rivals)


def evaluate_batch(
    model: Any,
    space: ParameterSpace,
    obs: Observations,
    x: np.ndarray,
    *,
    options: LeastSquaresOptions = DEFAULT_OPTIONS,
    derived: Derived | None = None,
    precision: str = "float64",
    devices: Sequence[Any] | str | None = None,
) -> FitResult:
    """Return what `fit_batch` would say of given solutions, without a step: chi2, errors, derived quantities.

    Parameters
    ----------
    x : array (batch, n)
        Free vectors; rows with NaN have none and come back as not finite.

    Other parameters and the errors raised are those of `fit_batch`. The linear block is solved for.
    """
    model = as_model(model)
    rows = pack_starts(space, x, obs.batch)[0]
    runner = Runner(model, space, obs, options, derived, precision, choose_devices(devices))
    known = np.isfinite(rows).all(axis=1)
    best = {"x": rows, "phase": np.where(known, CONVERGED, FAILED), "n_iter": np.zeros(obs.batch, np.int32)}
    return runner.finish(best, Rivals.none(rows.shape[1]))
