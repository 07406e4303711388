"""One fit of many images: the width of the PSF a straight line in wavelength, its exponent shared, all else of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ifujax.errors import DataError, UsageError
from ifujax.inference import status as bits
from ifujax.inference.joint import fit_joint
from ifujax.inference.joint_result import JointResult
from ifujax.inference.observations import Observations
from ifujax.inference.parameter_space.declarations import Bounded, Fixed
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.models.psf import SMALLEST_BETA, MoffatPSF
from ifujax.models.scene import Reference, SceneModel
from ifujax.photometry.config import FWHM_LIMITS, LARGEST_BETA, START_BETA, START_FWHM, PhotometryOptions
from ifujax.photometry.forward.fit import SCALES, engine_of, make_group, model_of, noise_factor, outcome_of
from ifujax.photometry.forward.preparation import Prepared, TransformCache, prepare
from ifujax.photometry.forward.reference import Grid
from ifujax.photometry.inputs import (
    ImageLike,
    Mask,
    Star,
    check_order,
    in_unit_of,
    load_image,
    options_of,
    pairs_of,
    warn_of_camera,
    warn_of_pixels,
)
from ifujax.photometry.joint_errors import with_errors_of_psf
from ifujax.photometry.masks import masks_of
from ifujax.photometry.outcome import Outcome
from ifujax.photometry.results import FittedValue, ImagePhotometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLOPE_UNIT = 1000.0
"""Angstrom: slopes are arcsec per this inside the fit, where all parameters are of order one."""
_STEEPEST = 1.0
_OF_ANY = bits.CHI2_NOT_1.value | bits.STRUCTURED_RESIDUALS.value | bits.CORRELATED_NOISE.value


@partial(jax.tree_util.register_dataclass, data_fields=["image", "offset"], meta_fields=[])
@dataclass(frozen=True)
class BandCoordinates:
    """Coordinates of `BandModel`: those of the image, and its wavelength less the reference, in `SLOPE_UNIT`."""

    image: Reference
    offset: Any


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["image"])
@dataclass(frozen=True)
class BandModel:
    """`SceneModel` of one band whose ``fwhm`` is ``width + slope * offset``."""

    image: SceneModel

    @property
    def linear_names(self) -> tuple[str, ...]:
        return self.image.linear_names

    def design(self, params: Any, coords: BandCoordinates) -> Any:
        """Return the image's columns and offset."""
        return self.image.design(self._of_image(params, coords), coords.image)

    def __call__(self, params: Any, coords: BandCoordinates) -> Any:
        """Return the image, with ``scale`` and ``bg`` among the parameters."""
        return self.image(self._of_image(params, coords), coords.image)

    def _of_image(self, params: Any, coords: BandCoordinates) -> dict[str, Any]:
        fwhm = jax.numpy.clip(params["width"] + params["slope"] * coords.offset, *FWHM_LIMITS)
        return {**params, "fwhm": fwhm}


@dataclass(frozen=True, repr=False)
class JointPhotometry:
    """What `fit_joint_photometry` found.

    Attributes
    ----------
    images : tuple of ImagePhotometry
        Of each image: its own scale, offset and shift, and the PSF that follows from the line; all errors include what
        they share.
    wavelengths : (n,) array
        Angstrom.
    reference : float
        Wavelength in Angstrom at which `fwhm` is given: the weighted middle, where it is independent of `slope`.
    fwhm, slope, beta : FittedValue
        FWHM in arcsec at `reference`, its slope in arcsec per Angstrom, and the Moffat exponent.
    covariance : (n, n) array
        Of those of the three that were fitted: `covariance_names`.
    chi2, n_good, n_free, n_iter, status, warn
        Of the fit as a whole.
    """

    images: tuple[ImagePhotometry, ...]
    wavelengths: np.ndarray
    reference: float
    fwhm: FittedValue
    slope: FittedValue
    beta: FittedValue
    covariance: np.ndarray
    covariance_names: tuple[str, ...]
    chi2: float
    n_good: int
    n_free: int
    n_iter: int
    status: int
    warn: int
    found: JointResult = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"<JointPhotometry of {len(self.images)} images: fwhm {self.fwhm} arcsec at {self.reference:.0f} Angstrom, slope "
            f"{self.slope} arcsec/Angstrom, beta {self.beta}>"
        )

    def fwhm_at(self, wavelength: float) -> FittedValue:
        """Return the FWHM in arcsec at a wavelength in Angstrom."""
        offset = float(wavelength) - self.reference
        slopes = np.array([{"fwhm": 1.0, "slope": offset}.get(name, 0.0) for name in self.covariance_names])
        error = float(np.sqrt(slopes @ self.covariance @ slopes)) if slopes.size else 0.0
        return FittedValue(self.fwhm.value + self.slope.value * offset, error, self.fwhm.fixed and self.slope.fixed)

    def psf_at(self, wavelength: float) -> MoffatPSF:
        """Return the PSF at a wavelength in Angstrom, for other jobs."""
        return MoffatPSF(self.fwhm_at(wavelength).value, self.beta.value, pixel=self.images[0].psf.pixel)

    def fit_report(self) -> str:
        """Return the shared PSF and every image's report as text."""
        lines = [
            f"joint fit of {len(self.images)} images",
            f"  fwhm   {self.fwhm} arcsec at {self.reference:.1f} Angstrom",
            f"  slope  {self.slope} arcsec/Angstrom",
            f"  beta   {self.beta}",
            f"  chi2   {self.chi2:.6g} for {self.n_good} pixels and {self.n_free} parameters",
        ]
        return "\n".join([*lines, *(image.fit_report() for image in self.images)])

    def plot(self) -> Figure:
        """Return a figure of the FWHM against wavelength."""
        from ifujax.photometry.figures import fwhm_figure

        line = (self.fwhm.value - self.slope.value * self.reference, self.slope.value)
        return fwhm_figure(self.images, self.wavelengths.tolist(), line=line, line_covariance=self._line_covariance())

    def _line_covariance(self) -> np.ndarray:
        """Of the line's value at 0 Angstrom and slope."""
        names = self.covariance_names
        where = [names.index(name) if name in names else None for name in ("fwhm", "slope")]
        own = np.zeros((2, 2))
        for i, one in enumerate(where):
            for j, two in enumerate(where):
                if one is not None and two is not None:
                    own[i, j] = self.covariance[one, two]
        turn = np.array([[1.0, -self.reference], [0.0, 1.0]])
        return turn @ own @ turn.T


def fit_joint_photometry(
    hst: ImageLike | Sequence[ImageLike],
    muse: Sequence[ImageLike],
    wavelengths: Sequence[float] | np.ndarray,
    *,
    fix_slope: float | None = None,
    regions: Any = None,
    star: Star | None = None,
    extramask: Mask = None,
    options: PhotometryOptions | None = None,
    devices: Any = None,
    **more: Any,
) -> JointPhotometry:
    """Fit exposures and bands of a field together.

    The FWHM is a straight line in wavelength and beta is shared, as of a PSF that seeing makes; scale, background and shift are
    each image's own.

    Parameters
    ----------
    hst : Image or path, or a sequence of one for each MUSE image
        In the same band as the MUSE image.
    muse : sequence of Image or path
    wavelengths : (n,) array
        Of each MUSE image, Angstrom: the filter's pivot wavelength.
    fix_slope : float, optional
        Arcsec per Angstrom. Images of one wavelength have no slope to fit, and it is 0 then.
    regions, star, extramask, options, devices, **more
        As for `ifujax.fit_image_photometry`, of all images. ``fix_fwhm`` is that at the mean wavelength.

    Returns
    -------
    JointPhotometry

    Raises
    ------
    DataError, UsageError
        As `ifujax.fit_image_photometry`, and for wavelengths that don't match, or images some of which have regridded
        references and some native ones.
    """
    options = options_of(options, more)
    for name in ("method", "rotation", "elliptical", "min_scale", "loss"):
        if getattr(options, name) != getattr(PhotometryOptions(), name):
            raise UsageError(
                f"{name} must be left out in a joint fit; got {getattr(options, name)!r}. Fit the images one by one."
            )
    if options.noise == "correlated":
        raise UsageError("noise must be 'variance' or 'scaled' in a joint fit; got 'correlated'. Fit the images one by one.")
    pairs = pairs_of(hst, muse)
    wavelengths = np.asarray(wavelengths, dtype=np.float64)
    if wavelengths.shape != (len(pairs),) or not (np.isfinite(wavelengths) & (wavelengths > 0)).all():
        raise UsageError(
            f"wavelengths must be one positive number for each of {len(pairs)} images; got shape {wavelengths.shape}."
        )
    prepared = _prepared(pairs, regions, star, extramask, options)
    reference = float(np.mean(wavelengths))
    if np.ptp(wavelengths) == 0 and fix_slope is None:
        fix_slope = 0.0
    shared, local, start = _spaces(prepared, options, fix_slope)

    def fitted(pairs: list[Prepared]) -> JointPhotometry:
        obs, model = _observations(pairs, options, (wavelengths - reference) / SLOPE_UNIT)
        found = fit_joint(model, shared, local, obs, start, options=engine_of(model.image, options), devices=devices)
        return _result(pairs, wavelengths, reference, found, options)

    result = fitted(prepared)
    factor = noise_factor(prepared[0], options, result.chi2 / max(result.n_good - result.n_free, 1))
    if not result.status and factor != 1.0:
        # The weight of the data against the prior counts, not the size of errors alone
        prepared = [replace(each, ivar=each.ivar / factor) for each in prepared]
        again = fitted(prepared)
        images = tuple(replace(each, outcome=replace(each.outcome, chi2=each.outcome.chi2 * factor)) for each in again.images)
        result = replace(again, images=images, chi2=again.chi2 * factor)
    if result.status or options.hst_psf_error is None:
        return result
    return with_errors_of_psf(result, prepared, options, fitted)


def _prepared(
    pairs: list[tuple[ImageLike, ImageLike]], regions: Any, star: Star | None, extramask: Mask, options: PhotometryOptions
) -> list[Prepared]:
    cache: TransformCache = {}
    loaded: dict[Any, Any] = {}

    def once(image: ImageLike) -> Any:
        key = image if isinstance(image, str) else id(image)
        if key not in loaded:
            loaded[key] = load_image(image)
        return loaded[key]

    targets = [load_image(each) for _, each in pairs]
    scaled: dict[Any, Any] = {}
    shapes = [Grid.around(each).shape for each in targets]
    least = max(s[0] for s in shapes), max(s[1] for s in shapes)
    prepared = []
    for (one, _), target in zip(pairs, targets):
        own = once(one)
        check_order(own, target)
        key = (id(own), target.unit)
        if key not in scaled:
            warn_of_camera(own, options.hst_psf)
            warn_of_pixels(own, target, options)
            scaled[key] = in_unit_of(own, target)
        sky, pixel = masks_of(regions, star, extramask, target)
        prepared.append(prepare(scaled[key], target, options, sky, pixel, cache, least))
    if len({each.noise_estimated for each in prepared}) > 1:
        raise DataError(
            "images of a joint fit must all have a variance, or none; got some of each. Leave it out: "
            "dataclasses.replace(image, variance=None)."
        )
    if len({len(each.transform.transform) for each in prepared}) > 1:
        raise UsageError(
            "hst must be all native or all regridded in a joint fit; got some of each. Give HST images with their own pixels."
        )
    return prepared


def _spaces(
    prepared: list[Prepared], options: PhotometryOptions, fix_slope: float | None
) -> tuple[ParameterSpace, ParameterSpace, dict[str, np.ndarray]]:
    fixed = options.fix_fwhm, options.fix_beta
    slope = fix_slope * SLOPE_UNIT if fix_slope is not None else None
    shared = {
        "width": Bounded(*FWHM_LIMITS) if fixed[0] is None else Fixed(fixed[0]),
        "slope": Bounded(-_STEEPEST, _STEEPEST) if slope is None else Fixed(slope),
        "beta": Bounded(SMALLEST_BETA, LARGEST_BETA, prior=options.beta_prior) if fixed[1] is None else Fixed(fixed[1]),
    }
    if all(isinstance(each, Fixed) for each in shared.values()):
        raise UsageError(
            "fwhm, slope or beta must be free in a joint fit; got all fixed. Fit the images one by one: nothing joins them."
        )
    declared = [options.declarations(*each.shift) for each in prepared]
    names = [name for name in declared[0] if name not in ("fwhm", "beta")]
    local = ParameterSpace.stack(
        [ParameterSpace.build({name: each[name] for name in names}, scale=_known(names)) for each in declared]
    )
    start = {"width": np.array(START_FWHM), "slope": np.array(0.0), "beta": np.array(START_BETA)}
    free = {entry.name for space in (local,) for entry in space.structure.free}
    start = {name: value for name, value in start.items() if not isinstance(shared[name], Fixed)}
    shifts = {"dx": np.array([p.shift[0] for p in prepared]), "dy": np.array([p.shift[1] for p in prepared])}
    start |= {name: value for name, value in shifts.items() if name in free}
    return ParameterSpace.build(shared, scale={"width": 0.01, "slope": 0.01, "beta": 0.1}), local, start


def _known(names: Sequence[str]) -> dict[str, float]:
    return {name: size for name, size in SCALES.items() if name in names}


def _observations(prepared: list[Prepared], options: PhotometryOptions, offsets: np.ndarray) -> tuple[Observations, BandModel]:
    models = [model_of(each, options) for each in prepared]
    low, high = min(m.radial.low for m in models), max(m.radial.high for m in models)
    model = replace(models[0], radial=replace(models[0].radial, low=low, high=high))
    group = make_group(prepared, model, options)
    own = group.obs.coords_axes
    axes = BandCoordinates(own, 0)
    return Observations(group.obs.values, group.obs.ivar, BandCoordinates(group.obs.coords, offsets), axes), BandModel(model)


def _result(
    prepared: list[Prepared], wavelengths: np.ndarray, middle: float, found: JointResult, options: PhotometryOptions
) -> JointPhotometry:
    """Put the line's values where width and slope are independent, and give each image what it has of them."""
    names = found.covariance_names
    width, slope, beta = (float(found.shared[name]) for name in ("width", "slope", "beta"))
    covariance = np.array(found.covariance, dtype=np.float64)
    inflated = 1.0
    shares = np.array([each.noise_share for each in prepared])
    used = found.block_status == 0
    chi2 = float(np.sum(found.block_chi2[used] / shares[used])) if not found.status else np.nan
    reduced = chi2 / max(found.dof, 1)
    if options.noise == "scaled" or prepared[0].noise_estimated:
        inflated = reduced
    covariance *= inflated
    reference = middle
    if "width" in names and "slope" in names and not found.status:
        i, j = names.index("width"), names.index("slope")
        shift = -covariance[i, j] / covariance[j, j]
        reference = middle + shift * SLOPE_UNIT
        turn = np.eye(len(names))
        turn[i, j] = shift
        covariance = turn @ covariance @ turn.T
        width += slope * shift
    size = np.array([1.0 / SLOPE_UNIT if name == "slope" else 1.0 for name in names])
    covariance = covariance * np.outer(size, size)
    own = {"width": "fwhm"}
    names = tuple(own.get(name, name) for name in names)

    def value(name: str, number: float) -> FittedValue:
        free = name in names
        return FittedValue(number, float(np.sqrt(covariance[names.index(name), names.index(name)])) if free else 0.0, not free)

    line = JointPhotometry(
        images=(),
        wavelengths=wavelengths,
        reference=reference,
        fwhm=value("fwhm", width),
        slope=value("slope", slope / SLOPE_UNIT),
        beta=value("beta", beta),
        covariance=covariance,
        covariance_names=names,
        chi2=chi2,
        n_good=int(found.n_good[used].sum()),
        n_free=found.n_free,
        n_iter=found.n_iter,
        status=found.status,
        warn=found.warn,
        found=found,
    )
    images = []
    for row, each in enumerate(prepared):
        outcome = _outcome(row, each, line, options, inflated)
        images.append(ImagePhotometry("image", each.muse.name, outcome, each.muse, options=options, prepared=each))
    return _with_warnings(replace(line, images=tuple(images)))


def _with_warnings(joint: JointPhotometry) -> JointPhotometry:
    """Say of the whole what is to be said of one image, and that nothing is detected if that is so in all."""
    warn = joint.warn
    for image in joint.images:
        warn |= image.warn & _OF_ANY
    joint = replace(joint, warn=warn)
    if joint.status or not all(image.warn & bits.NO_DETECTION.value for image in joint.images):
        return joint
    lost = {name: replace(getattr(joint, name), error=np.nan) for name in joint.covariance_names}
    covariance = np.full_like(joint.covariance, np.nan)
    return replace(joint, warn=warn | bits.NO_DETECTION.value, covariance=covariance, **lost)


def _outcome(row: int, prepared: Prepared, line: JointPhotometry, options: PhotometryOptions, factor: float) -> Outcome:
    """Return what the joint fit says of one image."""
    found = line.found
    names = found.block_covariance_names
    fwhm = line.fwhm_at(line.wavelengths[row])
    values = {name: float(value[row]) for name, value in found.local.items()}
    values |= {"fwhm": fwhm.value, "beta": line.beta.value}
    values |= dict(zip(model_of(prepared, options).linear_names, map(float, found.linear[row])))
    errors = {name: float(value[row]) * np.sqrt(factor) for name, value in found.local_error.items()}
    errors |= {"fwhm": fwhm.error, "beta": line.beta.error}
    linear = zip(model_of(prepared, options).linear_names, found.linear_error[row])
    errors |= {name: float(error) * np.sqrt(factor) for name, error in linear}
    status, warn = int(found.block_status[row]) | found.status, int(found.block_warn[row]) | line.warn
    return outcome_of(
        prepared,
        values,
        errors,
        np.asarray(found.block_covariance[row]) * factor,
        names,
        chi2=float(found.block_chi2[row]) / prepared.noise_share,
        n_free=len(names),
        n_iter=found.n_iter,
        status=status,
        warn=warn,
        options=options,
    )
