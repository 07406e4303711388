"""Images of one star as models of the engine: a Moffat function, or a known PSF seen through a low-pass filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from ifujax.models.psf import moffat

LINEAR = ("flux", "bg")
PER_PIXEL = 20
"""Points of a tabulated profile per pixel: interpolation is then good to 1e-6 of the peak."""


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["nodes", "linear_names"])
@dataclass(frozen=True)
class MoffatStar:
    """Flux per pixel of a Moffat function (``dx, dy, fwhm, beta``) of unit flux, and a constant.

    Parameters
    ----------
    nodes : int
        Gauss-Legendre points along each side of a pixel over which the function is averaged. 1 is its value at the pixel's
        centre: it then is the PSF as sampled, the pixel included.

    `coords` holds ``x`` and ``y`` (n,), pixel centres, and ``step (2,)``, pixel sizes (dy, dx).
    """

    nodes: int = 1
    linear_names: tuple[str, ...] = LINEAR

    def design(self, params: Any, coords: Any) -> tuple[Any, Any]:
        step = coords["step"]
        x, y = coords["x"] - params["dx"], coords["y"] - params["dy"]
        if self.nodes == 1:
            mean = moffat(x, y, params["fwhm"], params["beta"])
        else:
            places, weights = (0.5 * each for each in np.polynomial.legendre.leggauss(self.nodes))
            at_y, at_x = (each.ravel() for each in np.meshgrid(places, places, indexing="ij"))
            share = np.outer(weights, weights).ravel()
            inside = moffat(
                x[:, None] + step[1] * at_x[None, :], y[:, None] + step[0] * at_y[None, :], params["fwhm"], params["beta"]
            )
            mean = inside @ share.astype(x.dtype)
        return (step[0] * step[1] * mean, jnp.ones_like(x)), jnp.zeros_like(x)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["linear_names"])
@dataclass(frozen=True)
class FilteredStar:
    """Flux per pixel of a star of unit flux whose radial profile is tabulated (``dx, dy``), and a constant.

    `coords` is that of `MoffatStar`, with ``table (2, m)``: the profile, and its slope times `spacing`, every ``spacing ()``
    from the centre outwards.
    """

    linear_names: tuple[str, ...] = LINEAR

    def design(self, params: Any, coords: Any) -> tuple[Any, Any]:
        step, (value, slope) = coords["step"], coords["table"]
        # The profile is flat at the centre, the distance from it is not smooth there: a hair more than nothing.
        r2 = (coords["x"] - params["dx"]) ** 2 + (coords["y"] - params["dy"]) ** 2 + (1e-9 * step[0]) ** 2
        place = jnp.minimum(jnp.sqrt(r2) / coords["spacing"], value.size - 1.001)
        i = jax.lax.stop_gradient(jnp.floor(place)).astype(jnp.int32)
        t = place - i
        # Cubic between points whose values and slopes are known
        far = t * t * (3.0 - 2.0 * t)
        bend = t * (1.0 - t) * ((1.0 - t) * slope[i] - t * slope[i + 1])
        profile = (1.0 - far) * value[i] + far * value[i + 1] + bend
        return (step[0] * step[1] * profile, jnp.ones_like(place)), jnp.zeros_like(place)


@lru_cache(maxsize=32)
def filtered_profile(fwhm: float, beta: float, pixel: float, points: int) -> tuple[np.ndarray, float]:
    """Return the radial profile of a Moffat PSF that was low-passed and regridded, and the spacing of its points.

    Parameters
    ----------
    fwhm, beta : float
        The PSF before that, arcsec.
    pixel : float
        Size of the new pixels, arcsec: the radial Blackman window ``0.42 + 0.5 cos(pi f) + 0.08 cos(2 pi f)`` falls to zero
        at their Nyquist frequency, f = 1.
    points : int
        Where it is wanted, `PER_PIXEL` to a pixel, from the centre outwards.

    Returns
    -------
    table : array (2, points)
        Flux per arcsec^2 of unit flux, and its derivative by radius times the spacing.
    spacing : float
        arcsec

    Notes
    -----
    The Hankel transform of window times Moffat transform ``2 (z / 2)^(b - 1) K_(b-1)(z) / Gamma(b - 1)``, z = 2 pi f alpha
    (Gradshteyn & Ryzhik 6.565.4), by Gauss-Legendre quadrature: the window ends at a finite frequency.
    """
    nyquist = 0.5 / pixel
    nodes, weights = np.polynomial.legendre.leggauss(64 + math.ceil(2 * points / PER_PIXEL))
    f = 0.5 * (nodes + 1.0)
    alpha = fwhm / (2.0 * math.sqrt(2.0 ** (1.0 / beta) - 1.0))
    z = 2.0 * np.pi * f * nyquist * alpha
    mtf = 2.0 * (0.5 * z) ** (beta - 1.0) * special.kv(beta - 1.0, z) / special.gamma(beta - 1.0)
    window = 0.42 + 0.5 * np.cos(np.pi * f) + 0.08 * np.cos(2.0 * np.pi * f)
    wave = 2.0 * np.pi * f * nyquist
    power = 0.5 * nyquist * weights * wave * mtf * window
    spacing = pixel / PER_PIXEL
    r = spacing * np.arange(points)
    table = np.stack([special.j0(r[:, None] * wave) @ power, -spacing * (special.j1(r[:, None] * wave) @ (power * wave))])
    table.setflags(write=False)
    return table, spacing
