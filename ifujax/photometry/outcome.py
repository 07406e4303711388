"""What a fit of one image found, whichever method made it: plain numbers and arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ifujax.photometry.goodness import Misfit


@dataclass(frozen=True)
class Outcome:
    """What was found of one pair of images.

    Attributes
    ----------
    values : mapping of str to float
        ``scale``, ``bg``, ``dx``, ``dy``, ``fwhm``, ``beta``, and what else the method fits; fixed ones included. Lengths in
        arcsec along the pixel axes of the MUSE image, `bg` in its unit.
    errors : mapping of str to float
        1 sigma; 0 for fixed ones, NaN for what the data do not constrain.
    covariance : (n, n) array
        Of the free parameters, named by `covariance_names`.
    covariance_names : tuple of str
    chi2 : float
        Of the residuals that were minimised, divided by their errors where the method knows them.
    n_good : int
        Pixels that took part.
    n_free : int
    n_iter : int
    status, warn : int
        Bits of `ifujax.inference.status`.
    rms : float
        Root mean square of ``data - model`` over the pixels that took part.
    data, model : (y, x) array
        What was compared, on the grid of the MUSE image; NaN where pixels took no part.
    low_passed : bool
        Whether these, and `rms`, are of images from which high frequencies were taken out.
    misfit : Misfit or None
        The square arcsecond in which residuals exceed noise most, where that was looked for.
    significance : float
        Of the scene in the image, in sigma: the chance that noise looks as much like it at the best of all shifts that were
        tried, as that of one normal deviate.
    """

    values: Mapping[str, float]
    errors: Mapping[str, float]
    covariance: np.ndarray
    covariance_names: tuple[str, ...]
    chi2: float
    n_good: int
    n_free: int
    n_iter: int
    status: int
    warn: int
    rms: float
    data: np.ndarray
    model: np.ndarray
    low_passed: bool = False
    misfit: Misfit | None = None
    significance: float = math.nan
