"""Fits of stars in images of one kind: where they start, their bounds, their noise, all in one batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from ifujax.errors import UsageError
from ifujax.inference import status as bits
from ifujax.inference.batching import pad_pixels
from ifujax.inference.least_squares import fit_batch
from ifujax.inference.observations import Observations
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed
from ifujax.inference.parameter_space.priors import Prior
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import working_precision
from ifujax.inference.results import FitResult
from ifujax.models.psf import SMALLEST_BETA
from ifujax.photometry.config import Noise
from ifujax.photometry.detection import PLAIN, gain_of, noise_power, search_of_star
from ifujax.photometry.forward.noise import correlated
from ifujax.photometry.goodness import Misfit, chi2_is_off, judge
from ifujax.photometry.stars.cutout import Star
from ifujax.photometry.stars.models import LINEAR, PER_PIXEL, FilteredStar, MoffatStar, filtered_profile
from ifujax.robust import MAD_TO_SIGMA

BETA_RANGE = (SMALLEST_BETA, 30.0)
_ENGINE = LeastSquaresOptions(linear="eliminate", max_iter=100, warm_up=False)


@dataclass(frozen=True, eq=False)
class StarFit:
    """The fit of one star in one image: `covariance` of `names`; `values` and `errors` of those and of what was fixed.

    `told` are the bits that residuals set, `misfit` is where they are worst, `significance` that of the star, in sigma.
    """

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
    told: int = 0
    misfit: Misfit | None = None
    significance: float = math.nan


@dataclass(frozen=True)
class StarFitter:
    """How the stars of one kind of image are fitted. `nodes` is 0 for filtered profiles, `fwhm` and `beta` what is held."""

    nodes: int
    fwhm: float | None = None
    beta: float | None = None
    prior: Prior | None = None
    noise: Noise = "variance"

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
        """Fit once, and where the noise is not known, or not trusted, again with what the residuals show."""
        guesses = [_guess(star) for star in stars]
        space, start = self.space(stars, guesses)
        coords = self.coordinates(stars, bucket)
        unknown = np.array([star.variance is None for star in stars])
        variances = [
            np.full(star.values.shape, guess["noise"] ** 2) if star.variance is None else star.variance
            for star, guess in zip(stars, guesses)
        ]
        fit = fit_batch(self.model, space, _observations(stars, coords, bucket, variances), start, options=_ENGINE)
        factor = np.ones(len(stars))
        mended = unknown | (self.noise != "variance")
        if mended.any():
            # So a prior has its due weight.
            with np.errstate(invalid="ignore", divide="ignore"):
                reduced = fit.chi2 / np.maximum(fit.dof, 1)
            for i in np.flatnonzero(mended & np.isfinite(reduced)):
                floor = 1e-18 * max(float(np.abs(stars[i].values).max()), 1e-140) ** 2 / float(np.median(variances[i]))
                factor[i] = max(float(reduced[i]), floor)
                variances[i] = variances[i] * factor[i]
            again = {name: np.where(np.isfinite(fit.params[name]), fit.params[name], value) for name, value in start.items()}
            fit = fit_batch(self.model, space, _observations(stars, coords, bucket, variances), again, options=_ENGINE)
        known = np.where(unknown, 1.0, factor)
        return [self.found(star, i, fit, coords, variances[i], float(known[i])) for i, star in enumerate(stars)]

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

    def found(
        self, star: Star, i: int, fit: FitResult, coords: dict[str, np.ndarray], variance: np.ndarray, factor: float
    ) -> StarFit:
        """Take one star out of the batch; its own variances were multiplied by `factor`."""
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
        covariance = np.asarray(fit.covariance)[i] if fit.covariance is not None else np.zeros((0, 0))
        if not status:
            with working_precision("float64"):
                row = {name: np.asarray(leaf[i], dtype=np.float64) for name, leaf in coords.items()}
                params = {name: np.float64(value) for name, value in values.items()}
                model = np.asarray(_predict(self.model, params, row))[: star.values.size]
                if self.noise == "correlated":
                    slopes = _slopes(self.model, {name: params[name] for name in names}, params, row)
                    columns = np.stack([np.asarray(slopes[name])[: star.values.size] for name in names])
                    covariance = under_correlation(covariance, star, model, columns, np.sqrt(variance))
                    errors |= {name: float(np.sqrt(covariance[k, k])) for k, name in enumerate(names)}
        chi2 = float(fit.chi2[i]) * factor
        found = StarFit(star, values, errors, names, covariance, chi2, int(fit.n_iter[i]), status, warn, model)
        return found if status else self.judged(found, np.sqrt(variance))

    def judged(self, found: StarFit, sigma: np.ndarray) -> StarFit:
        """Add what the residuals say, and how significant the star is."""
        star, stated = found.star, found.star.variance is not None and self.noise == "variance"
        if star.at is None:
            off = stated and chi2_is_off(found.chi2, star.values.size - len(found.names))
            return replace(found, told=bits.CHI2_NOT_1.value if off else 0)
        first = star.at.min(axis=0)
        place = partial(_placed, star)
        weight = 1.0 / sigma**2
        shape = found.model - found.values["bg"]
        used = place(np.ones(sigma.size, bool))
        residual = place((star.values - found.model) / sigma)
        said = judge(
            residual,
            used,
            place(shape),
            star.step,
            n_free=len(found.names),
            stated=stated,
            allowed=self.noise == "correlated",
        )
        nothing = place((star.values - weight @ star.values / weight.sum()) / sigma)
        power = noise_power(place((shape - weight @ shape / weight.sum()) / sigma), said.correlation, sigma.size, stated)
        # A hole is no star
        gain = gain_of(nothing, residual) if found.values["flux"] > 0 else 0.0
        u = math.sqrt(max(gain / power, 0.0)) if power > 0 else math.inf
        seen = search_of_star(star.step, star.reach, self.fwhm is None).significance(u) if u < PLAIN else u
        misfit = None if said.misfit is None else said.misfit.moved(-int(first[0]), -int(first[1]))
        return replace(found, told=said.warn, misfit=misfit, significance=seen)

    @property
    def model(self) -> MoffatStar | FilteredStar:
        return MoffatStar(self.nodes) if self.nodes else FilteredStar()


@jax.jit
def _predict(model: Any, params: Any, coords: Any) -> Any:
    (shape, one), _ = model.design(params, coords)
    return params["flux"] * shape + params["bg"] * one


@jax.jit
def _slopes(model: Any, of: Any, params: Any, coords: Any) -> Any:
    return jax.jacfwd(lambda some: _predict(model, {**params, **some}, coords))(of)


def under_correlation(covariance: np.ndarray, star: Star, model: np.ndarray, slopes: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return the covariance if the noise of neighbouring pixels is as correlated as the residuals are.

    Parameters
    ----------
    covariance : (n, n) array
        For independent noise.
    star : Star
    model, sigma : (pixels,) arrays
    slopes : (n, pixels) array

    Raises
    ------
    UsageError
        If the star does not know where its pixels lie.
    """
    if star.at is None:
        raise UsageError("noise='correlated' needs to know where a star's pixels lie; got none. Cut it out by star_pixels.")
    image = partial(_placed, star)
    return correlated(
        covariance, image(slopes / sigma), image((star.values - model) / sigma), image(np.ones(star.values.size, bool))
    )


def _placed(star: Star, values: np.ndarray) -> np.ndarray:
    """Return values of a star's pixels (..., n) as images (..., y, x), 0 where there are none."""
    at = np.asarray(star.at)
    rows, columns = (at - at.min(axis=0)).T
    whole = np.zeros((*values.shape[:-1], int(rows.max()) + 1, int(columns.max()) + 1), values.dtype)
    whole[..., rows, columns] = values
    return whole


def _observations(stars: list[Star], coords: dict[str, np.ndarray], bucket: int, variances: list[np.ndarray]) -> Observations:
    """Pixels of all stars, padded."""
    values = np.stack([pad_pixels(star.values, bucket) for star in stars])
    weights = np.stack([pad_pixels(1.0 / variance, bucket) for variance in variances])
    return Observations(values, weights, coords, dict.fromkeys(coords, 0))


def _rounded(values: np.ndarray) -> np.ndarray:
    low, width = float(values.min()), float(np.ptp(values))
    return low + np.round((values - low) / width * 1e7) * (width * 1e-7) if width > 0 else values


def _guess(star: Star) -> dict[str, float]:
    """Return where the fit of a star starts, from the pixels above half of its peak, and the noise of its outskirts."""
    radius = np.hypot(star.x, star.y)
    outside = star.values[radius >= np.quantile(radius, 0.6)]
    level = float(np.median(outside))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(outside - level)))
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
