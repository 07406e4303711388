"""A whole cube fitted spaxel by spaxel, in IFSCube's order: its `refit`."""

from __future__ import annotations

import numpy as np

from ifujax.data.cube import Cube
from ifujax.inference.status import NOT_CONVERGED
from ifujax.lines.chunk import Guess
from ifujax.lines.collection import Collection
from ifujax.lines.ifscube.fitter import CompatFitter
from ifujax.lines.ifscube.order import loop_order
from ifujax.lines.ifscube.preparation import raw_data
from ifujax.lines.ifscube.refit import BoundsChange, sequential_refit
from ifujax.progress import Progress

_ROWS_AT_ONCE = 4096


def fit_in_order(
    fitter: CompatFitter, whole: Cube, rows: np.ndarray, collected: Collection, progress: Progress | None = None
) -> None:
    """Fit spaxels one after the other, each from the mean of its fitted neighbours.

    Parameters
    ----------
    fitter : CompatFitter
    whole : Cube
        Not cut to the fitting window: the brightest spaxel is that of all wavelengths.
    rows : array of int
        Flat indices of the spaxels to fit.
    collected : Collection
        Takes the results. Spaxels whose narrowed bounds leave nothing are marked as not converged.
    progress : callable, optional
    """
    options, model, space = fitter.config.fit, fitter.setup.model, fitter.setup.space
    order = spaxel_order(fitter, whole, rows)
    flat = order @ np.array([whole.shape[2], 1])
    names, free = model.parameter_names, space.structure.element_names
    bounds = {name: pair for name, *pair in zip(free, np.asarray(space.lower), np.asarray(space.upper), strict=True)}
    lower, upper = (np.array([bounds.get(name, (-np.inf, np.inf))[side] for name in names]) for side in (0, 1))
    change = None
    if options.bounds_change:
        slots = np.tile(np.arange(len(names) // len(model.names)), len(model.names))
        change = BoundsChange.of_slots(options.bounds_change, slots)
    done = 0

    def fit_some(which: np.ndarray, *given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal done
        guess, low, high = (dict(zip(names, array.T)) for array in given)
        narrow = [{name: side[name] for name in free} for side in (low, high)]
        result = fitter.fit(flat[which], guess=Guess(guess, narrow[0], narrow[1]))
        collected.put(flat[which], result)
        done += len(which)
        if progress is not None:
            progress("fit", done, len(flat))
        return result.solution, result.status

    start = np.array([fitter.guess[name] for name in names])
    collected.all.status[flat] = NOT_CONVERGED.value
    sequential_refit(order, start, lower, upper, fit_some, radius=options.refit_radius, change=change)


def spaxel_order(fitter: CompatFitter, whole: Cube, rows: np.ndarray) -> np.ndarray:
    """Return (row, column) of the spaxels in IFSCube's order, (n, 2)."""
    options = fitter.config.fit
    fitted = np.zeros(whole.n_spaxels, bool)
    fitted[rows] = True
    image = None
    if options.spiral_loop and isinstance(options.spiral_center, str):
        image = np.empty(whole.n_spaxels)
        for first in range(0, whole.n_spaxels, _ROWS_AT_ONCE):
            part = np.arange(first, min(first + _ROWS_AT_ONCE, whole.n_spaxels))
            image[part] = np.nansum(raw_data(whole, part), axis=1)
        image = image.reshape(whole.shape[1:])
    return loop_order(fitted.reshape(whole.shape[1:]), spiral=options.spiral_loop, center=options.spiral_center, image=image)
