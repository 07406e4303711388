"""The older tool's own method: two images on one pixel grid, compared in Fourier space with tapered borders.

Steps, starts and quirks are those of imphot (M. Shepherd, musevlt/imphot), so that its published numbers can be
reproduced; the forward model in real space is the better measurement. Known of this method: tapering costs data and
biases small fields, the errors have no noise model behind them, and shifts comparable to the field end in wrong minima.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ifujax.errors import DataError, UsageError
from ifujax.inference import status as bits
from ifujax.inference.joint import fit_joint
from ifujax.inference.observations import Observations
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.detection import DETECTED, PLAIN, gain_of, noise_power, search_of, without_place
from ifujax.photometry.forward.noise import reach_of, residual_correlation
from ifujax.photometry.fourier.model import FourierModel, muse_filter, predict
from ifujax.photometry.fourier.tapering import background_mask, common_crop, padded_size, shifted, taper_weights
from ifujax.photometry.outcome import Outcome

if TYPE_CHECKING:
    from ifujax.models.psf import MoffatPSF

NAMES: tuple[str, ...] = ("scale", "bg", "dx", "dy", "fwhm", "beta")
FIRST_FWHM, FIRST_BETA = 0.5, 5.0
BETA_RANGE = (0.1, 1e6)
TAPER = 9
"""Pixels over which weights rise inside each border, unless an option says otherwise."""
_ENGINE = LeastSquaresOptions(max_iter=200)


def fit_fourier(
    hst: np.ndarray,
    muse: np.ndarray,
    step: tuple[float, float],
    *,
    options: PhotometryOptions = PhotometryOptions(method="fourier"),
    name: str = "",
    max_refits: int = 2,
) -> Outcome:
    """Fit PSF, scale, offset and pointing of a MUSE image to an HST image on the same pixels, in Fourier space.

    Parameters
    ----------
    hst, muse : (y, x) array
        NaN where masked. Same grid, same unit; the HST image low-passed when it was regridded.
    step : (float, float)
        Pixel sizes (dy, dx), arcsec.
    options : PhotometryOptions
        `margin` is the room around the images against wrap-around, before their sizes are rounded up to powers of two.
    name : str
        What to call the pair in messages.
    max_refits : int
        A fit that ends a pixel or more from where it began is repeated from there, at most this often.

    Returns
    -------
    Outcome
        ``dx = x(MUSE) - x(HST)``, arcsec towards larger indices. `chi2` is the plain sum of squares over the half
        plane of frequencies, `rms` that of tapered and smoothed images, several times below the noise of the pixels;
        `data` and `model` are those images, less the median of the MUSE image.

    Raises
    ------
    UsageError
        For images of different shapes, pixel sizes that are not positive, or a start outside the image.
    DataError
        Where the images have no usable pixels in common, or none that tapering leaves.

    Notes
    -----
    The transform of the tapered MUSE image, blurred by the HST PSF and by the radial Blackman window that stands for
    the low-pass filter of the regridded HST image, is compared with ``bg W + scale H M exp(-2 pi i (dx fx + dy fy))``:
    transforms of the weights, of the tapered HST image, and of a Moffat function sampled at pixel centres.

    The errors are ``(J^T J)^-1`` times the reduced chi2. They are 3 to 10 times too small: frequencies outside the
    pass band of the filter dilute the variance, padding samples the plane more finely than the data do, and weights
    correlate what remains. They are there for comparison only; `warn` says so (``noise_estimated``).
    """
    options = replace(options, method="fourier")
    hst, muse = _checked(hst, "hst", name), _checked(muse, "muse", name)
    if hst.shape != muse.shape:
        raise UsageError(
            f"hst and muse{_of(name)} must have one shape; got {hst.shape} and {muse.shape}. "
            "Regrid the HST image like the MUSE image."
        )
    if len(step) != 2 or not all(math.isfinite(size) and size > 0 for size in step):
        raise UsageError(f"step must hold two positive pixel sizes (dy, dx) in arcsec; got {step}.")
    pixel = (float(step[0]), float(step[1]))
    starts = (options.fix_dy, options.init_dy), (options.fix_dx, options.init_dx)
    start = tuple(next((float(value) for value in pair if value is not None), 0.0) for pair in starts)
    refits = 0
    while True:
        outcome = _Problem.prepare(hst, muse, pixel, options, start, name).fit()
        found = (outcome.values["dy"], outcome.values["dx"])
        moved = any(abs(new - old) >= size for new, old, size in zip(found, start, pixel))
        if not moved or refits == max_refits:
            return outcome
        start, refits = found, refits + 1


def _fixed(options: PhotometryOptions) -> dict[str, float]:
    """Return the parameters that are held, and their values."""
    values = {name: getattr(options, f"fix_{name}") for name in NAMES}
    return {name: float(value) for name, value in values.items() if value is not None}


def _of(name: str) -> str:
    return f" of {name}" if name else ""


def _checked(values: np.ndarray, argument: str, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise UsageError(f"{argument}{_of(name)} must have two axes (y, x); got shape {values.shape}. Give an image.")
    if not np.isfinite(values).any():
        raise DataError(f"{argument}{_of(name)} must have usable pixels; got none. Check the mask.")
    return values


@dataclass(frozen=True, eq=False)
class _Problem:
    """Two images cut, tapered and transformed, and where the fit starts.

    `muse`, `hst`, `weight` are transforms (ny, nx / 2 + 1); `good` (y, x) is the usable part of what was cut at
    `crop` from images of `full` shape. `start` and `moved` are (y, x) in arcsec: the start, and by how much the HST
    image was moved in whole pixels. `median` was subtracted from the MUSE image.
    """

    options: PhotometryOptions
    step: tuple[float, float]
    start: tuple[float, ...]
    moved: tuple[float, ...]
    full: tuple[int, ...]
    crop: tuple[slice, slice]
    good: np.ndarray
    shape: tuple[int, int]
    median: float
    muse: np.ndarray
    hst: np.ndarray
    weight: np.ndarray

    @classmethod
    def prepare(
        cls,
        hst: np.ndarray,
        muse: np.ndarray,
        step: tuple[float, float],
        options: PhotometryOptions,
        start: tuple[float, ...],
        name: str,
    ) -> _Problem:
        """Align to whole pixels, mask, cut, pad, taper and transform."""
        psf = cast("MoffatPSF", options.hst_psf)  # as `PhotometryOptions` requires
        hst_bad = ~np.isfinite(hst)
        hst = np.where(hst_bad, 0.0, hst)
        if options.segment:
            hst_bad = hst_bad | background_mask(hst, hst_bad)
        whole = [math.floor(offset / size + 0.5) for offset, size in zip(start, step)]
        hst, hst_bad = shifted(hst, hst_bad, *whole)
        bad = ~np.isfinite(muse) | hst_bad
        crop = common_crop(bad)
        good = ~bad[crop]
        if not good.any():
            raise DataError(f"hst and muse{_of(name)} must have usable pixels in common; got none. Check masks and regions.")
        median = float(np.median(muse[crop][good]))
        cut = [np.where(good, image[crop], 0.0) for image in (muse - median, hst)]
        ny, nx = (padded_size(n, math.ceil(options.margin / size)) for n, size in zip(good.shape, step))
        weight = np.zeros((ny, nx))
        usable = np.zeros((ny, nx), bool)
        usable[: good.shape[0], : good.shape[1]] = good
        taper = TAPER if options.taper is None else options.taper
        weight = taper_weights(usable, taper)
        if not weight.any():
            raise DataError(
                f"hst and muse{_of(name)} must have pixels further than half of taper, {taper}, from every masked one; "
                "got none. Lower taper, or unmask more."
            )
        weighted = np.zeros((2, ny, nx))
        weighted[:, : good.shape[0], : good.shape[1]] = cut
        muse_side, hst_side = np.fft.rfft2(weighted * weight, axes=(1, 2))
        return cls(
            options=options,
            step=step,
            start=start,
            moved=tuple(n * size for n, size in zip(whole, step)),
            full=muse.shape,
            crop=crop,
            good=good,
            shape=(ny, nx),
            median=median,
            muse=muse_side * muse_filter((ny, nx), step, float(psf.fwhm), float(psf.beta)),
            hst=hst_side,
            weight=np.fft.rfft2(weight),
        )

    def fit(self) -> Outcome:
        """Minimise the sum of squares from the older tool's start."""
        options = self.options
        unit = math.sqrt(np.mean(np.abs(self.muse) ** 2) / 2) or 1.0  # numbers of order 1 inside
        coords = self.coordinates(unit)
        target = _parts(self.muse / unit).reshape(1, -1)
        ratio = abs(self.muse[0, 0]) / abs(self.hst[0, 0]) if self.hst[0, 0] else 1.0
        first = {
            "scale": max(float(ratio), options.min_scale),
            "offset": 0.0,
            "dx": self.start[1] - self.moved[1],
            "dy": self.start[0] - self.moved[0],
            "log_fwhm": math.log(FIRST_FWHM),
            "inverse_beta": 1.0 / FIRST_BETA,
        }
        held = self.inside(_fixed(options), unit)
        field = max(n * size for n, size in zip(self.shape, self.step))
        declared: dict[str, Declaration] = {
            "scale": Bounded(options.min_scale, math.inf),
            "offset": Bounded(),
            "dx": Bounded(),
            "dy": Bounded(),
            # Far below a pixel the sampled function no longer changes: a delta. Beyond the field it is a constant.
            "log_fwhm": Bounded(math.log(1e-2 * min(self.step)), math.log(field)),
            "inverse_beta": Bounded(1.0 / BETA_RANGE[1], 1.0 / BETA_RANGE[0]),
        }
        declared |= {name: Fixed(value) for name, value in held.items()}
        free = [name for name in declared if name not in held]
        values, covariance, status, warn, n_iter = held, np.zeros((0, 0)), 0, 0, 0
        if free:
            first = self.with_amplitudes(first | held, free, target[0], coords)
            space = ParameterSpace.build(declared)
            obs = Observations(target, np.ones_like(target), coords)
            fit = fit_joint(FourierModel(), space, None, obs, {name: first[name] for name in free}, options=_ENGINE)
            values = {name: float(value) for name, value in fit.shared.items()}
            covariance, status, warn, n_iter = fit.covariance, fit.status, fit.warn, fit.n_iter
        return self.outcome(values, free, covariance, (status, warn, n_iter), coords, unit)

    def inside(self, fixed: dict[str, float], unit: float) -> dict[str, float]:
        """Return fixed parameters in the terms of the model."""
        held = dict(fixed)
        for axis, name in enumerate(("dy", "dx")):
            if name in held:
                held[name] -= self.moved[axis]
        if "bg" in held:
            held["offset"] = (held.pop("bg") - self.median) / unit
        if "fwhm" in held:
            held["log_fwhm"] = math.log(held.pop("fwhm"))
        if "beta" in held:
            held["inverse_beta"] = 1.0 / held.pop("beta")
        return held

    def with_amplitudes(
        self, first: dict[str, float], free: list[str], target: np.ndarray, coords: dict[str, np.ndarray]
    ) -> dict[str, float]:
        """Return a start whose free scale and offset are the best for the others: a poor scale bends the first steps."""
        linear = [name for name in ("scale", "offset") if name in free]
        nothing = first | dict.fromkeys(linear, 0.0)
        base = predict(nothing, coords).ravel()
        columns = [predict(nothing | {name: 1.0}, coords).ravel() - base for name in linear]
        if not linear:
            return first
        design = np.stack(columns, axis=1)
        solved = np.linalg.lstsq(design.T @ design, design.T @ (target - base), rcond=None)[0]
        best = dict(zip(linear, map(float, solved)))
        if best.get("scale", 1.0) <= self.options.min_scale:
            return first
        return first | best

    def coordinates(self, unit: float) -> dict[str, np.ndarray]:
        """What the model needs; transforms in units of `unit`."""
        ny, nx = self.shape
        dy, dx = self.step
        return {
            "hst": _parts(self.hst / unit),
            "weight": _parts(self.weight),
            "fy": 2 * np.pi * np.fft.fftfreq(ny, dy),
            "fx": 2 * np.pi * np.fft.rfftfreq(nx, dx),
            "y2": (np.arange(ny // 2 + 1) * dy) ** 2,
            "x2": (np.arange(nx // 2 + 1) * dx) ** 2,
        }

    def outcome(
        self,
        inside: dict[str, float],
        free: list[str],
        covariance: np.ndarray,
        ended: tuple[int, int, int],
        coords: dict[str, np.ndarray],
        unit: float,
    ) -> Outcome:
        """Put values and errors in the user's terms, and the two sides back into real space."""
        status, warn, n_iter = ended
        prediction = predict(inside, coords) if status == 0 else np.full(coords["hst"].shape, np.nan)
        model = unit * (prediction[0] + 1j * prediction[1])
        chi2 = float(np.sum(np.abs(self.muse - model) ** 2))
        fwhm, beta = math.exp(inside["log_fwhm"]), 1.0 / inside["inverse_beta"]
        values = {
            "scale": inside["scale"],
            "bg": self.median + unit * inside["offset"],
            "dx": inside["dx"] + self.moved[1],
            "dy": inside["dy"] + self.moved[0],
            "fwhm": fwhm,
            "beta": beta,
        }
        slopes = {"offset": unit, "log_fwhm": fwhm, "inverse_beta": -(beta**2)}
        slope = np.array([slopes.get(name, 1.0) for name in free])
        reduced = chi2 / max(2 * self.muse.size - len(free), 1) / unit**2
        spread = covariance * np.outer(slope, slope) * reduced
        named = [{"offset": "bg", "log_fwhm": "fwhm", "inverse_beta": "beta"}.get(name, name) for name in free]
        order = [named.index(name) for name in NAMES if name in named]
        spread = spread[np.ix_(order, order)]
        names = tuple(named[i] for i in order)
        errors = dict.fromkeys(NAMES, 0.0) | {name: float(np.sqrt(spread[i, i])) for i, name in enumerate(names)}
        images = [np.fft.irfft2(side, s=self.shape)[: self.good.shape[0], : self.good.shape[1]] for side in (self.muse, model)]
        placed = np.full((2, *self.full), np.nan)
        placed[(slice(None), *self.crop)] = np.where(self.good, images, np.nan)
        seen = math.nan
        if free and not status:
            seen = self.significance(placed[0], placed[1])
            if seen < DETECTED:
                warn |= bits.NO_DETECTION.value
                errors, spread = without_place(errors, spread, names)
        return Outcome(
            values=values,
            errors=errors,
            covariance=spread,
            covariance_names=names,
            chi2=chi2,
            n_good=int(self.good.sum()),
            n_free=len(free),
            n_iter=n_iter,
            status=status,
            warn=warn if status else warn | bits.NOISE_ESTIMATED.value,
            rms=float(np.sqrt(np.mean((images[0] - images[1])[self.good] ** 2))),
            data=placed[0],
            model=placed[1],
            low_passed=True,
            significance=seen,
        )

    def significance(self, data: np.ndarray, model: np.ndarray) -> float:
        """Return how significant the scene is in the smoothed image, whose noise is what the residuals show."""
        good = np.isfinite(data)
        data, model = (np.where(good, each, 0.0) for each in (data, model))
        residual = np.where(good, data - model - (data - model)[good].mean(), 0.0)
        size = float(np.sqrt(np.mean(residual[good] ** 2)))
        if not size > 0:
            return math.inf
        centred, nothing = (np.where(good, each - each[good].mean(), 0.0) / size for each in (model, data))
        correlation = residual_correlation(residual / size, good, reach_of(int(good.sum())))
        power = noise_power(centred, correlation, int(good.sum()), stated=False)
        u = math.sqrt(max(gain_of(nothing, residual / size) / power, 0.0))
        if not u < PLAIN:
            return u
        fixed = _fixed(self.options)
        # This fit has no bounds: it may go anywhere
        room = [0.0 if name in fixed else n * step for name, n, step in zip(("dy", "dx"), self.good.shape, self.step)]
        fy, fx = np.fft.fftfreq(self.shape[0], self.step[0]), np.fft.rfftfreq(self.shape[1], self.step[1])
        return search_of(np.abs(self.hst) ** 2, fy, fx, (room[0], room[1]), self.step, "fwhm" not in fixed).significance(u)


def _parts(transform: np.ndarray) -> np.ndarray:
    return np.stack([np.real(transform), np.imag(transform)])
