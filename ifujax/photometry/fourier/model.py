"""Transforms that the Fourier method compares: that of an HST image seen with another PSF, elsewhere, and its filters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.fft import dct

from ifujax.inference.precision import working_precision

_OVERSAMPLED = 8
"""How much finer than the images the HST PSF is sampled."""


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class FourierModel:
    """``offset W + scale H M exp(-i phase)``: real, then imaginary parts (2 ny (nx / 2 + 1),).

    `coords` holds ``hst`` and ``weight`` (2, ny, nx / 2 + 1), parts of their transforms; ``fy (ny,)`` and
    ``fx (nx / 2 + 1,)`` in radians per arcsec; ``y2 (ny / 2 + 1,)`` and ``x2 (nx / 2 + 1,)``, squared distances from
    the first pixel, arcsec^2. `params`: dx, dy, scale, offset, and two in which the limits of the Moffat function are
    far away or points like any other: ``log_fwhm`` and ``inverse_beta``.
    """

    def __call__(self, params: Any, coords: Any) -> Any:
        mtf = mirrored(moffat_transform(coords["y2"], coords["x2"], jnp.exp(params["log_fwhm"]), params["inverse_beta"]))
        phase_y, phase_x = coords["fy"] * params["dy"], coords["fx"] * params["dx"]
        sides = jnp.stack([jnp.cos(phase_x), jnp.sin(phase_x)])
        cos_y, sin_y = jnp.cos(phase_y), jnp.sin(phase_y)
        # As products of matrices: XLA would compute sums of products from their sines anew for each element.
        cos = jnp.stack([cos_y, -sin_y], axis=1) @ sides
        sin = jnp.stack([sin_y, cos_y], axis=1) @ sides
        real, imaginary = coords["hst"]
        blurred = params["scale"] * mtf
        turned = jnp.stack([blurred * (real * cos + imaginary * sin), blurred * (imaginary * cos - real * sin)])
        return (params["offset"] * coords["weight"] + turned).ravel()


def moffat_transform(y2: Any, x2: Any, fwhm: Any, inverse_beta: Any) -> Any:
    """Return the discrete Fourier transform of a Moffat function sampled at pixel centres, 1 at frequency 0.

    Parameters
    ----------
    y2 : (ny / 2 + 1,) array
    x2 : (nx / 2 + 1,) array
        Squared distances of rows and columns from the centre, arcsec^2, which is pixel 0 of a periodic grid (ny, nx).
    fwhm : scalar, arcsec
    inverse_beta : scalar
        1 / beta: ``(1 + r^2 / a^2)^-beta`` with ``a^2 = fwhm^2 / (4 (2^(1 / beta) - 1))``.

    Returns
    -------
    (ny / 2 + 1, nx / 2 + 1) array
        Real and even, so that a quarter of the plane says all. No integration over pixels: the function is that of
        the PSF as sampled.
    """
    ratio = 4.0 * jnp.expm1(inverse_beta * math.log(2.0)) / fwhm**2 * (y2[:, None] + x2[None, :])
    profile = jnp.exp(-jnp.log1p(ratio) / inverse_beta)
    for _ in range(2):  # along x, then along y
        profile = jnp.real(jnp.fft.rfft(jnp.concatenate([profile, profile[:, -2:0:-1]], axis=1), axis=1)).T
    return profile / profile[0, 0]


def mirrored(quarter: Any) -> Any:
    """Rows of negative frequencies added."""
    return jnp.concatenate([quarter, quarter[-2:0:-1]], axis=0)


@lru_cache(maxsize=8)
def muse_filter(shape: tuple[int, int], step: tuple[float, float], fwhm: float, beta: float) -> np.ndarray:
    """What the MUSE side is multiplied by (ny, nx / 2 + 1): transform of the HST PSF, times the radial Blackman window.

    The PSF is sampled 8 times as finely as the images over the same field. It is even: cosine transforms of a
    quarter, of which the low frequencies are kept.
    """
    squared = [(np.arange(n * _OVERSAMPLED // 2 + 1) * size / _OVERSAMPLED) ** 2 for n, size in zip(shape, step)]
    ratio = 4.0 * math.expm1(math.log(2.0) / beta) / fwhm**2
    psf = (1.0 + ratio * (squared[0][:, None] + squared[1][None, :])) ** -beta
    low = np.asarray(dct(psf, type=1, axis=1))[:, : shape[1] // 2 + 1]
    low = np.asarray(dct(low, type=1, axis=0))[: shape[0] // 2 + 1]
    f = np.hypot(*np.meshgrid(*(np.linspace(0.0, 1.0, n // 2 + 1) for n in shape), indexing="ij"))
    window = np.where(f < 1.0, 0.42 + 0.5 * np.cos(np.pi * f) + 0.08 * np.cos(2 * np.pi * f), 0.0)
    quarter = low / low[0, 0] * window
    whole = np.concatenate([quarter, quarter[-2:0:-1]], axis=0)
    whole.setflags(write=False)
    return whole


def predict(params: dict[str, float], coords: dict[str, np.ndarray]) -> np.ndarray:
    """Return real and imaginary parts of `FourierModel` in float64 (2, ny, nx / 2 + 1)."""
    with working_precision("float64"):
        flat = _evaluate(FourierModel(), {name: np.float64(value) for name, value in params.items()}, coords)
        return np.asarray(flat).reshape(coords["hst"].shape)


@jax.jit
def _evaluate(model: FourierModel, params: Any, coords: Any) -> Any:
    return model(params, coords)
