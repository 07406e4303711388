"""The forward fit of prepared images: many at once, weighted by their variances, in real space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from ifujax.inference import status as bits
from ifujax.inference.least_squares import fit_batch
from ifujax.inference.observations import Observations
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import working_precision
from ifujax.inference.results import FitResult
from ifujax.models.psf import ellipse_of
from ifujax.models.scene import Reference, SceneModel
from ifujax.photometry.config import START_BETA, START_FWHM, PhotometryOptions
from ifujax.photometry.detection import without_place
from ifujax.photometry.forward.errors import covariance_under, psf_covariance, psf_response
from ifujax.photometry.forward.preparation import Prepared, turned
from ifujax.photometry.forward.reference import HstTransform
from ifujax.photometry.forward.verdict import robust_factor, verdict
from ifujax.photometry.outcome import Outcome

ENGINE = LeastSquaresOptions(linear="eliminate", warm_up=False, tolerance=1e-5, max_iter=200)
SCALES = {"dx": 0.01, "dy": 0.01, "fwhm": 0.01, "beta": 0.1}
"""Sizes that count as 1 inside the fit."""
_TURNS = 3
_ENOUGH_ROTATION = 0.005
"""Degrees: what the first-order rotation of the model may still differ by, a hundredth of a pixel at 100 pixels from the
centre."""


@dataclass(frozen=True)
class Group:
    """Images that one compiled program fits together, and all that the engine takes."""

    prepared: tuple[Prepared, ...]
    model: SceneModel
    space: ParameterSpace
    obs: Observations
    start: dict[str, np.ndarray]


def model_of(prepared: Prepared, options: PhotometryOptions) -> SceneModel:
    """Return the model of one image."""
    transform = prepared.transform
    return SceneModel(
        transform.grid.shape,
        transform.radial(options.elliptical),
        options.elliptical,
        options.rotation,
        options.integrate_pixels,
        options.fix_scale is None,
        options.fix_bg is None,
    )


def engine_of(model: SceneModel, options: PhotometryOptions) -> LeastSquaresOptions:
    """Return the engine's options for a model, whose linear block may be empty."""
    engine = replace(ENGINE, loss=options.loss)
    return engine if model.linear_names else replace(engine, linear="keep")


def groups_of(prepared: Sequence[Prepared], options: PhotometryOptions) -> Iterator[tuple[list[int], Group]]:
    """Yield groups of images and which of `prepared` they are."""
    by_model: dict[SceneModel, list[int]] = {}
    for i, each in enumerate(prepared):
        by_model.setdefault(model_of(each, options), []).append(i)
    for model, members in by_model.items():
        yield members, make_group([prepared[i] for i in members], model, options)


def make_group(prepared: Sequence[Prepared], model: SceneModel, options: PhotometryOptions) -> Group:
    """Gather images of one model."""
    batch = len(prepared)
    transforms = list({id(each.transform): each.transform for each in prepared}.values())
    coords, axes = transforms[0].coordinates(model.radial), None
    if len(transforms) > 1:
        every = [each.transform.coordinates(model.radial) for each in prepared]
        same = len({each.grid.step for each in prepared}) == 1
        own = {"real", "imag", "x", "y"} if same else set(Reference.__dataclass_fields__)
        names = Reference.__dataclass_fields__
        coords = Reference(**{n: np.stack([getattr(c, n) for c in every]) if n in own else getattr(coords, n) for n in names})
        axes = Reference(**{n: 0 if n in own else None for n in names})
    space = ParameterSpace.stack([ParameterSpace.build(options.declarations(*each.shift), scale=SCALES) for each in prepared])
    start = {
        "dx": np.array([each.shift[0] for each in prepared]),
        "dy": np.array([each.shift[1] for each in prepared]),
        "fwhm": np.full(batch, START_FWHM),
        "beta": np.full(batch, START_BETA),
        "e1": np.zeros(batch),
        "e2": np.zeros(batch),
        "rotation": np.zeros(batch),
    }
    free = {entry.name for entry in space.structure.free}
    obs = Observations(
        np.stack([each.values.ravel() for each in prepared]), np.stack([each.ivar.ravel() for each in prepared]), coords, axes
    )
    return Group(tuple(prepared), model, space, obs, {name: value for name, value in start.items() if name in free})


def fit_prepared(
    prepared: Sequence[Prepared], options: PhotometryOptions, devices: Any = None
) -> Iterator[tuple[int, Outcome, Prepared]]:
    """Fit prepared images; yield which of them, what was found, and what was fitted in the end, as groups of them are done."""
    for members, group in groups_of(prepared, options):
        outcomes = _fitted(group, options, devices)
        for i, outcome in zip(members, outcomes):
            yield i, *_mended(prepared[i], outcome, options, devices)


def _fitted(group: Group, options: PhotometryOptions, devices: Any) -> list[Outcome]:
    found = fit_batch(group.model, group.space, group.obs, group.start, options=engine_of(group.model, options), devices=devices)
    return [_outcome(group, row, prepared, found, options) for row, prepared in enumerate(group.prepared)]


def _fit_one(prepared: Prepared, options: PhotometryOptions, devices: Any) -> Outcome:
    return _fitted(make_group([prepared], model_of(prepared, options), options), options, devices)[0]


def _mended(prepared: Prepared, outcome: Outcome, options: PhotometryOptions, devices: Any) -> tuple[Outcome, Prepared]:
    """Fit again where the first fit could not honour an option: the noise, a least scale, a rotation beyond first order."""
    if outcome.status:
        return outcome, prepared
    outcome, prepared = _mended_shape(prepared, outcome, options, devices)
    factor = 1.0
    if not outcome.status:
        reduced = outcome.chi2 / max(outcome.n_good - outcome.n_free, 1)
        factor = noise_factor(prepared, options, robust_factor(outcome, prepared) if options.loss != "gaussian" else reduced)
    if factor != 1.0:
        # The weight of the data against the prior counts, not the size of errors alone
        prepared = replace(prepared, ivar=prepared.ivar / factor)
        again, prepared = _mended_shape(prepared, _fit_one(prepared, options, devices), options, devices)
        return replace(again, chi2=again.chi2 * factor), prepared
    return outcome, prepared


def noise_factor(prepared: Prepared, options: PhotometryOptions, reduced: float) -> float:
    """Return by what variances are to be multiplied before a second fit: 1 where the first will do."""
    wanted = options.noise != "variance" or prepared.noise_estimated
    return reduced if wanted and reduced > 0 and not 0.9 < reduced < 1.1 else 1.0


def _mended_shape(prepared: Prepared, outcome: Outcome, options: PhotometryOptions, devices: Any) -> tuple[Outcome, Prepared]:
    if options.fix_scale is None and outcome.values["scale"] < options.min_scale:
        again = _fit_one(prepared, replace(options, fix_scale=options.min_scale), devices)
        errors = {**again.errors, "scale": np.nan}  # no error says how far it would go if it could
        return replace(again, errors=errors, warn=again.warn | bits.AT_BOUND.value), prepared
    if options.rotation and not outcome.status:
        for _ in range(_TURNS):
            more = outcome.values["rotation"] - prepared.rotation
            if not abs(more) > _ENOUGH_ROTATION:
                break
            prepared = turned(prepared, outcome.values["rotation"], options)
            outcome = _fit_one(prepared, options, devices)
    return outcome, prepared


def _outcome(group: Group, row: int, prepared: Prepared, found: FitResult, options: PhotometryOptions) -> Outcome:
    model = group.model
    values = {name: float(value[row]) for name, value in found.params.items()}
    values |= dict(zip(model.linear_names, map(float, found.linear[row])))
    names = found.covariance_names
    covariance = np.asarray(found.covariance[row]) if found.covariance is not None else np.full((len(names),) * 2, np.nan)
    status, warn, chi2 = int(found.status[row]), int(found.warn[row]), float(found.chi2[row]) / prepared.noise_share
    if np.ptp(prepared.values[prepared.ivar > 0]) == 0.0:
        status |= bits.CONSTANT_DATA.value
        values, covariance = dict.fromkeys(values, np.nan), np.full_like(covariance, np.nan)
    unit = None
    if not status:
        columns: Any = np.zeros((0, *prepared.ivar.shape))
        more = options.noise == "correlated" or options.loss != "gaussian" or options.hst_psf_error is not None
        free = tuple(name for name in names if name not in model.linear_names) if more else ()
        unit, slopes = render(model, free, values, prepared)
        root = np.sqrt(prepared.ivar)
        residual = (prepared.values - values["scale"] * unit - values["bg"]) * root
        if more and names:
            linear = [unit if name == "scale" else np.ones_like(unit) for name in model.linear_names]
            columns = np.stack([values["scale"] * slope for slope in slopes] + linear) * root
        plain = covariance
        covariance = covariance_under(plain, columns, names, residual, prepared, options, found.n_free)
        if options.hst_psf_error is not None and names:

            def changed(transform: HstTransform) -> np.ndarray:
                return values["scale"] * render(model, (), values, replace(prepared, transform=transform))[0]

            moves = psf_response(plain, columns, residual, prepared, options, changed)
            covariance = covariance + psf_covariance(moves, options.hst_psf_error)
        if options.loss != "gaussian":
            chi2 = float(np.sum(residual**2)) / prepared.noise_share  # the engine's is not one
    errors = dict.fromkeys(values, 0.0)
    errors |= {name: float(np.sqrt(variance)) for name, variance in zip(names, np.diag(covariance))}
    return outcome_of(
        prepared,
        values,
        errors,
        covariance,
        names,
        unit=unit,
        chi2=chi2,
        n_free=found.n_free,
        n_iter=int(found.n_iter[row]),
        status=status,
        warn=warn,
        options=options,
    )


def outcome_of(
    prepared: Prepared,
    values: dict[str, float],
    errors: dict[str, float],
    covariance: np.ndarray,
    names: tuple[str, ...],
    *,
    unit: np.ndarray | None = None,
    chi2: float,
    n_free: int,
    n_iter: int,
    status: int,
    warn: int,
    options: PhotometryOptions,
) -> Outcome:
    """Complete values and errors, and add the images; `unit` is the reference as the image shows it, if that is known."""
    grid, used = prepared.grid, prepared.ivar > 0
    image = np.full(grid.shape, np.nan)
    misfit, significance = None, np.nan
    if not status:
        if unit is None:
            unit, _ = render(model_of(prepared, options), (), values, prepared)
        image = values["scale"] * unit + values["bg"]
        more, misfit, significance = verdict(prepared, unit, values, n_free, options)
        warn |= more
        if more & bits.NO_DETECTION.value:
            errors, covariance = without_place(errors, covariance, names)
    if prepared.noise_estimated:
        warn |= bits.NOISE_ESTIMATED.value
    if prepared.bad_variance:
        warn |= bits.BAD_VARIANCE.value
    if options.rotation:
        values["rotation"] += prepared.rotation
    covariance, names = _with_ellipse(values, errors, covariance, names)
    kept = grid.cut(np.where(used, prepared.values, np.nan))
    shown = grid.cut(np.where(used, image, np.nan))
    return Outcome(
        values=values,
        errors=errors,
        covariance=covariance,
        covariance_names=names,
        chi2=chi2,
        n_good=int(used.sum()),
        n_free=n_free,
        n_iter=n_iter,
        status=status,
        warn=warn,
        rms=float(np.sqrt(np.nanmean((kept - shown) ** 2))) if not status else np.nan,
        data=kept,
        model=shown,
        low_passed=prepared.transform.window is not None,
        misfit=misfit,
        significance=significance,
    )


def _with_ellipse(
    values: dict[str, float], errors: dict[str, float], covariance: np.ndarray, names: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Put ellipticity and angle, to first order, in the place of the components that they were fitted as."""
    if "e1" not in values:
        return covariance, names
    components = np.array([values.pop("e1"), values.pop("e2")])
    for name in ("e1", "e2"):
        errors.pop(name)
    with working_precision("float64"):
        ellipse = [float(np.asarray(each)) for each in ellipse_of(*components)]
        slopes = np.array([[np.asarray(s) for s in row] for row in jax.jacfwd(_ellipse)(components)], dtype=np.float64)
    where = [names.index("e1"), names.index("e2")]
    turn = np.eye(len(names))
    turn[np.ix_(where, where)] = slopes
    covariance = turn @ covariance @ turn.T
    for k, name in enumerate(("ellipticity", "angle")):
        values[name] = ellipse[k]
        errors[name] = float(np.sqrt(covariance[where[k], where[k]]))
    return covariance, tuple({"e1": "ellipticity", "e2": "angle"}.get(name, name) for name in names)


def _ellipse(components: Any) -> Any:
    return jax.numpy.stack(ellipse_of(components[0], components[1]))


def render(
    model: SceneModel, free: tuple[str, ...], values: dict[str, float], prepared: Prepared
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the reference as the image shows it, for unit scale, and its slopes by some parameters, each (n_y, n_x)."""
    with working_precision("float64"):
        unit, slopes = _unit_and_slopes(model, free, values, prepared.transform.coordinates(model.radial))
        return np.asarray(unit).reshape(model.shape), [np.asarray(slope).reshape(model.shape) for slope in slopes]


@partial(jax.jit, static_argnums=(0, 1))
def _unit_and_slopes(model: SceneModel, free: tuple[str, ...], values: dict[str, Any], coords: Reference) -> Any:
    def unit(*of: Any) -> Any:
        return model.unit_image({**values, **dict(zip(free, of))}, coords)

    at = [values[name] for name in free]
    slopes = []
    for k in range(len(free)):
        tangents = tuple(jax.numpy.ones_like(v) if i == k else jax.numpy.zeros_like(v) for i, v in enumerate(at))
        slopes.append(jax.jvp(unit, tuple(at), tangents)[1])
    return unit(*at), slopes
