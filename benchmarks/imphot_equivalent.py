"""What imphot computes, in numpy and scipy: its residuals, and scipy's trust-region fit with a numerical Jacobian.

The baseline of the photometry benchmarks. The images are prepared by the package's own Fourier method (masks, crop, taper);
transforms, PSFs and the minimisation are done here as imphot does them, without its file and bookkeeping overhead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ifujax.photometry.fourier.tapering import common_crop, padded_size, shifted, taper_weights

FloatArray = NDArray[np.float64]
NAMES = ("dx", "dy", "bg", "scale", "fwhm", "beta")
MARGIN, TAPER = 2.0, 9
HST_FWHM, HST_BETA = 0.085, 1.6


@dataclass(frozen=True)
class Prepared:
    """Transforms of both images and of the weights (ny, nx / 2 + 1), and what the model needs beside them."""

    muse: NDArray[np.complex128]
    hst: NDArray[np.complex128]
    weight: NDArray[np.complex128]
    radius2: FloatArray  # (ny, nx), of the padded grid, wrapped around pixel 0
    fy: FloatArray
    fx: FloatArray
    moved: tuple[float, float]
    median: float


def moffat_transform(radius2: FloatArray, fwhm: float, beta: float) -> FloatArray:
    """Return the real part of the transform of a Moffat function, 1 at frequency 0."""
    a2 = fwhm**2 / (4.0 * (2.0 ** (1.0 / beta) - 1.0))
    transform = np.fft.rfft2((1.0 + radius2 / a2) ** -beta).real
    return transform / transform[0, 0]


def wrapped_radius2(shape: tuple[int, int], step: tuple[float, float]) -> FloatArray:
    """Return squared distances from pixel 0 of a periodic grid, arcsec^2."""
    y, x = (np.fft.fftfreq(n, 1.0 / (n * size)) for n, size in zip(shape, step))
    return y[:, None] ** 2 + x[None, :] ** 2


def prepare(hst: FloatArray, muse: FloatArray, step: tuple[float, float], start: tuple[float, float]) -> Prepared:
    """Mask, align to whole pixels, cut, pad, taper, transform and filter."""
    whole = [math.floor(offset / size + 0.5) for offset, size in zip(start, step)]
    hst_bad = ~np.isfinite(hst)
    hst, hst_bad = shifted(np.where(hst_bad, 0.0, hst), hst_bad, *whole)
    bad = ~np.isfinite(muse) | hst_bad
    crop = common_crop(bad)
    good = ~bad[crop]
    median = float(np.median(muse[crop][good]))
    shape = tuple(padded_size(n, math.ceil(MARGIN / size)) for n, size in zip(good.shape, step))
    ny, nx = shape
    padded = np.zeros((3, ny, nx))
    for plane, image in zip(padded, (muse - median, hst, np.ones_like(hst))):
        plane[: good.shape[0], : good.shape[1]] = np.where(good, image[crop], 0.0)
    weight = taper_weights(padded[2] > 0, TAPER)
    fine = moffat_transform(wrapped_radius2((8 * ny, 8 * nx), (step[0] / 8, step[1] / 8)), HST_FWHM, HST_BETA)
    psf = fine[np.r_[0 : ny // 2 + 1, 8 * ny - ny // 2 + 1 : 8 * ny]][:, : nx // 2 + 1]
    f = np.hypot(2 * np.fft.fftfreq(ny)[:, None], 2 * np.fft.rfftfreq(nx)[None, :])
    window = np.where(f <= 1, 0.42 + 0.5 * np.cos(np.pi * f) + 0.08 * np.cos(2 * np.pi * f), 0.0)
    return Prepared(
        muse=np.fft.rfft2(padded[0] * weight) * window * psf,
        hst=np.fft.rfft2(padded[1] * weight),
        weight=np.fft.rfft2(weight),
        radius2=wrapped_radius2((ny, nx), step),
        fy=np.fft.fftfreq(ny, step[0])[:, None],
        fx=np.fft.rfftfreq(nx, step[1])[None, :],
        moved=(whole[0] * step[0], whole[1] * step[1]),
        median=median,
    )


def residuals(x: FloatArray, problem: Prepared) -> FloatArray:
    """Return real and imaginary parts of model minus data, for x in the order of `NAMES`."""
    dx, dy, bg, scale, fwhm, beta = x
    phase = np.exp(-2j * np.pi * ((dx - problem.moved[1]) * problem.fx + (dy - problem.moved[0]) * problem.fy))
    model = (bg - problem.median) * problem.weight
    model = model + scale * problem.hst * moffat_transform(problem.radius2, fwhm, beta) * phase
    difference = (model - problem.muse).ravel()
    return np.concatenate([difference.real, difference.imag])


def imphot_equivalent(hst: FloatArray, muse: FloatArray, step: tuple[float, float]) -> tuple[dict[str, float], int]:
    """Fit with beta free, and again where the offset grew by a pixel; return the values and the number of evaluations.

    Parameters
    ----------
    hst, muse : array (y, x)
        On one grid, NaN where masked.
    step : (float, float)
        Pixel sizes (dy, dx), arcsec.
    """
    start, evaluations = (0.0, 0.0), 0
    values: dict[str, float] = {}
    for _ in range(3):
        problem = prepare(hst, muse, step, start)
        scale = abs(problem.muse[0, 0]) / abs(problem.hst[0, 0])
        calls = [0]

        def counted(x: FloatArray, problem: Prepared = problem, calls: list[int] = calls) -> FloatArray:
            calls[0] += 1
            return residuals(x, problem)

        fit = least_squares(
            counted,
            [start[1], start[0], problem.median, scale, 0.5, 5.0],
            jac="2-point",
            bounds=([-np.inf, -np.inf, -np.inf, 0.0, 1e-6, 0.1], [np.inf, np.inf, np.inf, np.inf, np.inf, 1e6]),
            method="trf",
        )
        evaluations += calls[0]
        values = {name: float(value) for name, value in zip(NAMES, fit.x)}
        found = (values["dy"], values["dx"])
        if all(abs(new - old) < size for new, old, size in zip(found, start, step)):
            break
        start = found
    return values, evaluations
