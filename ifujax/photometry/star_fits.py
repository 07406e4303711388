"""Fits of stars in images of one kind: where they start, their bounds, their noise, all in one batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ifujax.inference import status as bits
from ifujax.inference.batching import pad_pixels
from ifujax.inference.declarations import Bounded, Declaration, Fixed
from ifujax.inference.least_squares import fit_batch
from ifujax.inference.observations import Observations
from ifujax.inference.options import Options
from ifujax.inference.parameters import ParameterSpace
from ifujax.inference.precision import working_precision
from ifujax.inference.priors import Prior
from ifujax.inference.results import FitResult
from ifujax.models.psf import SMALLEST_BETA
from ifujax.photometry.star_cutout import Star
from ifujax.photometry.star_models import LINEAR, PER_PIXEL, FilteredStar, MoffatStar, filtered_profile

BETA_RANGE = (SMALLEST_BETA, 30.0)
_ENGINE = Options(linear="eliminate", max_iter=100, warm_up=False)


@dataclass(frozen=True, eq=False)
class StarFit:
    """The fit of one star in one image: `covariance` of `names`; `values` and `errors` of those and of what was fixed."""

    star: Star
    values: dict[str, float]
    errors: dict[str, float]
    names: tuple[str, ...]
    covariance: np.ndarray
    chi2: float
    n_iter: int
    status: int
    warn: int
    model: np.ndarray


@dataclass(frozen=True)
class StarFitter:
    """How the stars of one kind of image are fitted. `nodes` is 0 for filtered profiles, `fwhm` and `beta` what is held."""

    nodes: int
    fwhm: float | None = None
    beta: float | None = None
    prior: Prior | None = None

    def fit(self, stars: list[Star], bucket: int) -> list[StarFit]:
        """Fit stars whose pixels fit into `bucket`."""
        found = self.attempt(stars, bucket)
        # Residuals of images without noise sink to rounding errors, on which nothing converges: once more with values
        # rounded to a ten-millionth.
        again = [i for i, fit in enumerate(found) if fit.status == bits.NOT_CONVERGED.value]
        if again:
            rounded = self.attempt([replace(stars[i], values=_rounded(stars[i].values)) for i in again], bucket)
            for i, fit in zip(again, rounded):
                found[i] = replace(fit, star=stars[i])
        return found

    def attempt(self, stars: list[Star], bucket: int) -> list[StarFit]:
        """Fit once, and where the noise is not known again with what the residuals show."""
        guesses = [_guess(star) for star in stars]
        space, start = self.space(stars, guesses)
        coords = self.coordinates(stars, bucket)
        noise = np.array([guess["noise"] for guess in guesses])
        unknown = np.array([star.variance is None for star in stars])
        fit = fit_batch(self.model, space, _observations(stars, coords, bucket, noise), start, options=_ENGINE)
        if unknown.any():
            # So a prior has its due weight.
            with np.errstate(invalid="ignore", divide="ignore"):
                better = noise * np.sqrt(fit.chi2 / np.maximum(fit.dof, 1))
            floor = np.array([1e-9 * max(float(np.abs(star.values).max()), 1e-300) for star in stars])
            noise = np.where(unknown & np.isfinite(better), np.maximum(better, floor), noise)
            again = {name: np.where(np.isfinite(fit.params[name]), fit.params[name], value) for name, value in start.items()}
            fit = fit_batch(self.model, space, _observations(stars, coords, bucket, noise), again, options=_ENGINE)
        return [self.found(star, i, fit, coords) for i, star in enumerate(stars)]

    def space(self, stars: list[Star], guesses: list[dict[str, float]]) -> tuple[ParameterSpace, dict[str, np.ndarray]]:
        """Declare the parameters, each star with bounds of its own, and say where to start."""
        declared: dict[str, Declaration] = {"dx": Bounded(-1.0, 1.0), "dy": Bounded(-1.0, 1.0)}
        if self.nodes:
            declared["fwhm"] = Bounded(0.0, 1.0) if self.fwhm is None else Fixed(self.fwhm)
            declared["beta"] = Bounded(*BETA_RANGE, prior=self.prior) if self.beta is None else Fixed(self.beta)
        space = ParameterSpace.build(declared)
        names = [name for name, item in declared.items() if isinstance(item, Bounded)]
        reach = np.array([star.reach for star in stars])
        pixel = np.array([min(star.step) for star in stars])
        lower, upper = (np.tile(side, (len(stars), 1)) for side in (space.lower, space.upper))
        lower[:, :2], upper[:, :2] = -reach[:, None], reach[:, None]
        start = {name: np.array([guess[name] for guess in guesses]) for name in names}
        if "fwhm" in names:
            i = names.index("fwhm")
            # Below a fifth of a pixel a sampled function misses its peak, beyond the aperture it is a constant.
            lower[:, i], upper[:, i] = 0.2 * pixel, np.maximum(4.0 * reach, pixel)
            start["fwhm"] = np.clip(start["fwhm"], lower[:, i], upper[:, i])
        if "beta" in names:
            i = names.index("beta")
            start["beta"] = np.clip(start["beta"], lower[:, i], upper[:, i])
        return replace(space, lower=lower, upper=upper), start

    def coordinates(self, stars: list[Star], bucket: int) -> dict[str, np.ndarray]:
        """What the model needs of each star, padded with pixels that do not count."""
        coords = {
            "x": np.stack([pad_pixels(star.x, bucket) for star in stars]),
            "y": np.stack([pad_pixels(star.y, bucket) for star in stars]),
            "step": np.array([star.step for star in stars]),
        }
        if not self.nodes and self.fwhm is not None and self.beta is not None:
            # Offsets stay within the reach along both axes.
            pixels = np.array([math.sqrt(star.step[0] * star.step[1]) for star in stars])
            longest = max(2.5 * star.reach / pixel for star, pixel in zip(stars, pixels))
            points = 1 << math.ceil(math.log2(PER_PIXEL * longest + 2))
            tables = [filtered_profile(self.fwhm, self.beta, float(pixel), points) for pixel in pixels]
            coords["table"] = np.stack([table for table, _ in tables])
            coords["spacing"] = np.array([spacing for _, spacing in tables])
        return coords

    def found(self, star: Star, i: int, fit: FitResult, coords: dict[str, np.ndarray]) -> StarFit:
        """Take one star out of the batch."""
        names = fit.covariance_names
        values = {name: float(value[i]) for name, value in fit.params.items()}
        errors = {name: float(value[i]) for name, value in fit.error.items()}
        for k, name in enumerate(LINEAR):
            values[name], errors[name] = float(fit.linear[i, k]), float(fit.linear_error[i, k])
        if not self.nodes and self.fwhm is not None and self.beta is not None:
            values |= {"fwhm": self.fwhm, "beta": self.beta}
            errors |= {"fwhm": 0.0, "beta": 0.0}
        status, warn = int(fit.status[i]), int(fit.warn[i]) | star.warn
        if star.variance is None:
            warn |= bits.NOISE_ESTIMATED.value
        if np.ptp(star.values) == 0:
            status |= bits.CONSTANT_DATA.value
        if status:
            values, errors, warn = dict.fromkeys(values, math.nan), dict.fromkeys(errors, math.nan), 0
        model = np.full(star.values.size, np.nan)
        if not status:
            with working_precision("float64"):
                row = {name: np.asarray(leaf[i], dtype=np.float64) for name, leaf in coords.items()}
                params = {name: np.float64(value) for name, value in values.items()}
                (shape, _), _ = _design(self.model, params, row)
                model = values["bg"] + values["flux"] * np.asarray(shape)[: star.values.size]
        covariance = np.asarray(fit.covariance)[i] if fit.covariance is not None else np.zeros((0, 0))
        return StarFit(star, values, errors, names, covariance, float(fit.chi2[i]), int(fit.n_iter[i]), status, warn, model)

    @property
    def model(self) -> MoffatStar | FilteredStar:
        return MoffatStar(self.nodes) if self.nodes else FilteredStar()


@jax.jit
def _design(model: Any, params: Any, coords: Any) -> Any:
    return model.design(params, coords)


def _observations(stars: list[Star], coords: dict[str, np.ndarray], bucket: int, noise: np.ndarray) -> Observations:
    """Pixels of all stars, padded; `noise` stands in where a star has no variance."""
    values = np.stack([pad_pixels(star.values, bucket) for star in stars])
    weights = [
        np.full(star.values.shape, sigma**-2) if star.variance is None else 1.0 / star.variance
        for star, sigma in zip(stars, noise)
    ]
    return Observations(values, np.stack([pad_pixels(weight, bucket) for weight in weights]), coords, dict.fromkeys(coords, 0))


def _rounded(values: np.ndarray) -> np.ndarray:
    low, width = float(values.min()), float(np.ptp(values))
    return low + np.round((values - low) / width * 1e7) * (width * 1e-7) if width > 0 else values


def _guess(star: Star) -> dict[str, float]:
    """Return where the fit of a star starts, from the pixels above half of its peak, and the noise of its outskirts."""
    radius = np.hypot(star.x, star.y)
    outside = star.values[radius >= np.quantile(radius, 0.6)]
    level = float(np.median(outside))
    spread = 1.4826 * float(np.median(np.abs(outside - level)))
    excess = star.values - level
    peak = float(excess.max())
    # Pixels next to the brightest one: neighbours elsewhere in the aperture do not count.
    brightest = int(np.argmax(excess))
    bright = excess > 0.5 * peak
    area = star.step[0] * star.step[1]
    width = 2.0 * math.sqrt(np.count_nonzero(bright) * area / math.pi)
    near = np.hypot(star.x - star.x[brightest], star.y - star.y[brightest]) <= max(width, 1.5 * max(star.step))
    weight = np.where(bright & near, excess, 0.0)
    total = float(weight.sum())
    usable = total > 0
    return {
        "dx": float(weight @ star.x) / total if usable else 0.0,
        "dy": float(weight @ star.y) / total if usable else 0.0,
        "fwhm": width,
        "beta": 3.0,
        "noise": spread if spread > 0 else max(abs(peak), 1e-300),
    }
