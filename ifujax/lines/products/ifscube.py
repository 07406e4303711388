"""What IFSCube's numbers mean, and how they become ours: H4, the 2018 release's Angstrom, status codes.

Two generations of its products differ. Today's (1.3) has velocities in km/s and a Gauss-Hermite profile whose
H4 has the wrong sign in its constant term; July 2018's has wavelengths in Angstrom and the right H4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ifujax.inference.status import NO_DATA, NOT_CONVERGED, NOT_FINITE, SKIPPED
from ifujax.models.doppler import C_KMS, velocity_of

STATUS_SENTENCES: Mapping[int, str] = {
    -1: "not reached by the fit",
    0: "fitted",
    1: "not fitted: masked, held fixed, or stopped by an error",
    2: "more equality constraints than free parameters",
    3: "too many iterations in the least-squares step",
    4: "the inequality constraints contradict each other",
    5: "singular matrix in the least-squares step",
    6: "singular matrix of the constraints",
    7: "rank-deficient equality constraints",
    8: "no direction leads downhill: often at the minimum all the same",
    9: "iteration limit reached: often at the minimum all the same",
    80: "no pixel in the windows of the lines",
    94: "a line has no effect on chi2",
    95: "negative weights",
    96: "a variance that is not positive",
    98: "more than 80 % of the pixels flagged",
}
"""What each of IFSCube's status codes says (SLSQP's 0 to 9; the others are of 2018)."""
_NO_DATA_CODES = (80, 96, 98)
_TRUST_CONSTR = {0: "evaluation limit reached", 1: "converged (gradient)", 2: "converged (step)", 3: "stopped by the caller"}
"""The codes of ``method: trust-constr``, where 0 is not success."""
_ROOT_2PI, _ROOT_24 = math.sqrt(2.0 * math.pi), math.sqrt(24.0)

Values = dict[str, np.ndarray]


def status_sentence(code: int, method: str = "slsqp") -> str:
    """Return what a status code of IFSCube says; `method` is that of ``[fit]``."""
    sentences = {**STATUS_SENTENCES, **_TRUST_CONSTR} if method == "trust-constr" else STATUS_SENTENCES
    return sentences.get(code, "no sentence known for this code")


def translated_status(codes: np.ndarray, solution: np.ndarray, skipped: np.ndarray, *, method: str, fixed: bool) -> np.ndarray:
    """Return `ifujax.STATUS_FLAGS` for IFSCube's status codes, (y, x) int32: 0 is a usable fit.

    Parameters
    ----------
    codes : (y, x) array of int
    solution : (planes, y, x) array
        As in the file: NaN where masked, 0 where the fit raised an error.
    skipped : (y, x) bool array
        Left out by the mask.
    method : str
        Of ``[fit]``: ``trust-constr`` has codes of its own.
    fixed : bool
        ``[fit] fixed``: nothing was fitted, and 1 is the code of every spaxel.
    """
    usable = np.isin(codes, (1, 2)) if method == "trust-constr" else codes == 0
    numbers = np.any(np.isfinite(solution), axis=0)
    usable = usable | (fixed & (codes == 1))
    status = np.where(usable, 0, NOT_CONVERGED.value)
    status = np.where(~usable & np.isin(codes, _NO_DATA_CODES), NO_DATA.value, status)
    status = np.where(~numbers & (status != NO_DATA.value), NOT_FINITE.value, status)
    status = np.where(numbers & ~np.any(np.nan_to_num(solution) != 0, axis=0), NOT_CONVERGED.value, status)
    return np.where(skipped | (codes == -1) | (~numbers & (codes == 1)), SKIPPED.value, status).astype(np.int32)


def textbook_h4(values: Values) -> Values:
    """Return amplitude, h3 and h4 of the textbook's Gauss-Hermite profile (van der Marel & Franx 1993).

    IFSCube 1.3 has ``H4 = (4 w^4 - 12 w^2 - 3) / sqrt(24)``; the textbook's constant is +3. With k = 6 / sqrt(24) the
    same profile is ``A' = A (1 - k h4)``, ``h3' = h3 / (1 - k h4)``, ``h4' = h4 / (1 - k h4)``. NaN where
    ``1 - k h4`` vanishes.
    """
    left = 1.0 - 6.0 / _ROOT_24 * values["h4"]
    left = np.where(np.abs(left) > 1e-6, left, np.nan)
    return values | {"amplitude": values["amplitude"] * left, "h3": values["h3"] / left, "h4": values["h4"] / left}


def from_angstrom(values: Values, rest: np.ndarray, stretch: float) -> Values:
    """Return velocities and peaks for the parameters of the 2018 release: ``A``, ``wl``, ``s`` (Angstrom).

    Parameters
    ----------
    values : dict of (lines, ...) arrays
        ``A`` is the peak of a Gaussian, but the integral of the Gaussian part where there are ``h3`` and ``h4``.
    rest : (lines, 1, ...) array
        Rest wavelengths, Angstrom; NaN where unknown: there is no velocity then.
    stretch : float
        ``1 + z``: what flux densities of 2018 lack.

    Returns
    -------
    dict
        ``amplitude``, ``velocity`` and ``sigma`` (km/s), ``flux`` (of the whole profile; 2018 has no plane for it), and
        ``h3`` and ``h4`` as they were, since its H4 is the textbook's.
    """
    strength, centre, width = values["A"] * stretch, values["wl"], np.abs(values["s"])
    with np.errstate(divide="ignore", invalid="ignore"):
        dispersion = C_KMS * width / centre
        result = {"velocity": velocity_of(centre, rest), "sigma": dispersion}
        if "h4" not in values:
            return result | {"amplitude": strength, "flux": strength * _ROOT_2PI * width}
        result |= {"amplitude": strength / (_ROOT_2PI * width), "flux": strength * (1.0 + 3.0 / _ROOT_24 * values["h4"])}
    return result | {"h3": values["h3"], "h4": values["h4"]}


def flux_of(values: Values, rest: np.ndarray, h4_constant: float) -> np.ndarray:
    """Return the integrated flux of lines given by ``amplitude``, ``sigma`` and perhaps ``h4``; `rest` in Angstrom."""
    flux = values["amplitude"] * _ROOT_2PI * values["sigma"] * rest / C_KMS
    return flux * (1.0 + h4_constant / _ROOT_24 * values["h4"]) if "h4" in values else flux
