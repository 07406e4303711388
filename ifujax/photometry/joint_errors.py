"""What errors of the PSF of HST add to those of a joint fit: all images share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.forward.errors import psf_covariance, psf_steps
from ifujax.photometry.forward.preparation import Prepared

if TYPE_CHECKING:
    from ifujax.models.psf import MoffatPSF
    from ifujax.photometry.joint import JointPhotometry
    from ifujax.photometry.results import ImagePhotometry


def with_errors_of_psf(
    result: JointPhotometry,
    prepared: list[Prepared],
    options: PhotometryOptions,
    fitted: Callable[[list[Prepared]], JointPhotometry],
) -> JointPhotometry:
    """Return a joint fit whose errors know those of the PSF of HST: fitted again with PSFs on either side.

    Parameters
    ----------
    result : JointPhotometry
    prepared : list of Prepared
        What was fitted.
    options : PhotometryOptions
        With `hst_psf_error`.
    fitted : callable
        Fits such a list.
    """
    psf, error = cast("MoffatPSF", options.hst_psf), cast("tuple[float, ...]", options.hst_psf_error)
    shared, own = np.zeros((3, 2)), [np.zeros((len(_all_names(image)), 2)) for image in result.images]
    for k, pair in enumerate(psf_steps(psf, error)):
        if pair is None:
            continue
        (low, high), size = pair
        ends = [fitted([replace(each, transform=each.transform.with_psf(psf, to)) for each in prepared]) for to in (low, high)]
        lines = [np.array([end.fwhm_at(result.reference).value, end.slope.value, end.beta.value]) for end in ends]
        shared[:, k] = (lines[1] - lines[0]) * size
        for moves, image, *pair_of in zip(own, result.images, *(end.images for end in ends)):
            values = [np.array([each.value(name).value for name in _all_names(image)]) for each in pair_of]
            moves[:, k] = (values[1] - values[0]) * size
    names = ("fwhm", "slope", "beta")
    used = [names.index(name) for name in result.covariance_names]
    added = psf_covariance(shared, error)
    changes = {
        name: replace(getattr(result, name), error=float(np.hypot(getattr(result, name).error, np.sqrt(added[i, i]))))
        for i, name in enumerate(names)
        if name in result.covariance_names
    }
    images = tuple(_image_with(image, moves, error) for image, moves in zip(result.images, own))
    return replace(result, covariance=result.covariance + added[np.ix_(used, used)], images=images, **changes)


def _all_names(image: ImagePhotometry) -> tuple[str, ...]:
    return tuple(name for name, error in image.outcome.errors.items() if error != 0.0)


def _image_with(image: ImagePhotometry, moves: np.ndarray, error: tuple[float, ...]) -> ImagePhotometry:
    outcome, names = image.outcome, _all_names(image)
    added = psf_covariance(moves, error)
    errors = {**outcome.errors} | {
        name: float(np.hypot(outcome.errors[name], np.sqrt(added[i, i]))) for i, name in enumerate(names)
    }
    at = [names.index(name) for name in outcome.covariance_names]
    return replace(image, outcome=replace(outcome, errors=errors, covariance=outcome.covariance + added[np.ix_(at, at)]))
