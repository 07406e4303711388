"""Status and warning bits: what each value means, defined once.

`status` is 0 for a usable fit and non-zero otherwise, with the reasons; `warn` holds advisory
facts, so that ``status == 0`` keeps every good fit. Posteriors have a status of their own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """One bit: its value, its short name, and a sentence for people and FITS headers."""

    value: int
    name: str
    sentence: str


NO_DATA = Flag(1, "no_data", "no usable pixel in the fitting window")
TOO_FEW_PIXELS = Flag(2, "too_few_pixels", "fewer usable pixels than free parameters")
NOT_CONVERGED = Flag(4, "not_converged", "iteration limit reached before convergence")
NOT_FINITE = Flag(8, "not_finite", "model not finite at the start or at the solution")
SKIPPED = Flag(16, "skipped", "spaxel left out: masked, or not asked for")
CONSTANT_DATA = Flag(32, "constant_data", "all usable pixels hold one value: nothing to fit")
FEW_GOOD_PIXELS = Flag(64, "few_good_pixels", "a smaller share of usable pixels than minimum_good_fraction")

STATUS_FLAGS = (NO_DATA, TOO_FEW_PIXELS, NOT_CONVERGED, NOT_FINITE, SKIPPED, CONSTANT_DATA, FEW_GOOD_PIXELS)

AT_BOUND = Flag(1, "at_bound", "a parameter lies at its bound")
NOISE_ESTIMATED = Flag(2, "noise_estimated", "no variance given: noise estimated from residuals")
UNCONSTRAINED = Flag(4, "unconstrained", "a parameter is not constrained by the data")
BAD_VARIANCE = Flag(8, "bad_variance", "pixels with zero, negative or non-finite variance were masked")
NO_DETECTION = Flag(16, "no_detection", "nothing is detected above 3 times its error")
CONTINUUM_NOT_POSITIVE = Flag(32, "cont_not_positive", "continuum not positive under a line: no equivalent width")
OTHER_MINIMUM = Flag(64, "other_minimum", "a second minimum lies within 1 of the lowest chi2")
CHI2_NOT_1 = Flag(128, "chi2_not_1", "chi2 per degree of freedom far from 1: variance or model is wrong")
STRUCTURED_RESIDUALS = Flag(256, "structured_residuals", "residuals are no noise: they are correlated, or piled up in one place")
ERRORS_NOT_TRUSTED = Flag(512, "errors_not_trusted", "chi2 rises too little within 2 errors: an error is too small")
CORRELATED_NOISE = Flag(1024, "correlated_noise", "noise is correlated between pixels, and the errors do not allow for it")
UNDECIDED = Flag(2048, "undecided", "another number of components does about as well")

WARN_FLAGS = (
    AT_BOUND, NOISE_ESTIMATED, UNCONSTRAINED, BAD_VARIANCE, NO_DETECTION, CONTINUUM_NOT_POSITIVE, OTHER_MINIMUM, CHI2_NOT_1,
    STRUCTURED_RESIDUALS, ERRORS_NOT_TRUSTED, CORRELATED_NOISE, UNDECIDED,
)  # fmt: skip

NO_FIT = Flag(1, "no_fit", "no fit to start from: see the status of the fit")
NO_DRAWS = Flag(2, "no_draws", "posterior density not finite where the fit is: no draws")
UNEVEN_WEIGHTS = Flag(4, "uneven_weights", "Pareto k-hat of importance sampling too high")
FEW_EFFECTIVE = Flag(8, "few_effective", "effective sample size too small")
CHAINS_DISAGREE = Flag(16, "chains_disagree", "R-hat of NUTS too high: chains have not mixed")
DIVERGENT = Flag(32, "divergent", "NUTS had divergent transitions")
ROUNDS_DISAGREE = Flag(64, "rounds_disagree", "independent rounds of importance sampling differ in the tails")

NOT_ASKED = Flag(1024, "not_asked", "not asked for")

POSTERIOR_FLAGS = (
    NO_FIT, NO_DRAWS, UNEVEN_WEIGHTS, FEW_EFFECTIVE, CHAINS_DISAGREE, DIVERGENT, ROUNDS_DISAGREE, NOT_ASKED,
)  # fmt: skip


def decode(value: int, flags: tuple[Flag, ...] = STATUS_FLAGS) -> list[Flag]:
    """Return the flags whose bits are set in `value`.

    Parameters
    ----------
    value : int
        A status or warning value; 0 gives an empty list.
    flags : tuple of Flag
        `STATUS_FLAGS`, `WARN_FLAGS` or `POSTERIOR_FLAGS`.

    Examples
    --------
    >>> [flag.name for flag in decode(5)]
    ['no_data', 'not_converged']
    """
    return [flag for flag in flags if int(value) & flag.value]
