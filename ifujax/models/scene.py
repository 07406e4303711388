"""Images built from a reference image: moved, blurred to another point-spread function, and sampled more coarsely.

The reference comes as its Fourier transform, divided by its own PSF, at the frequencies that the pixels of the image can hold
and at those beyond that look the same to them (aliases). A Moffat PSF and a shift multiply it there, the aliases are added up,
which is what sampling does, and one small inverse transform gives the image. Slopes by JAX follow the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ifujax.models.psf import RadialGrid, log_moffat_mtf, moffat_alpha, stretch


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["real", "imag", "fx", "fy", "radius", "x", "y", "pixel"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Reference:
    """Coordinates of `SceneModel`: what does not change while an image is fitted.

    Attributes
    ----------
    real, imag : (a, a, n_y, n_x // 2 + 1) array
        Transform of the reference, its PSF divided out, as an unnormalised `rfft2` of the image's pixels would have it: a^2
        aliases.
    fx : (a, n_x // 2 + 1) array
    fy : (a, n_y) array
        Frequencies, cycles per arcsec, rows in the order of `rfft2`.
    radius : (a, a, n_y, n_x // 2 + 1) array
        `RadialGrid.twice_argument` of the radial frequency, that of the smallest one at 0. Elliptical PSFs have radii of their
        own.
    x, y : (n_x,), (n_y,) arrays
        Arcsec from the centre that the image turns about.
    pixel : (2,) array
        Widths (y, x) of a pixel, arcsec.
    """

    real: Any
    imag: Any
    fx: Any
    fy: Any
    radius: Any
    x: Any
    y: Any
    pixel: Any


def _kept(rows: Array) -> Array:
    """Return `rows` (a, n) as they are. The product makes XLA store them; it would take the cosine of every pixel instead."""
    # In full precision: GPUs would round float32 factors
    return jnp.matmul(rows, jnp.eye(rows.shape[1], dtype=rows.dtype), precision=lax.Precision.HIGHEST)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[],
    meta_fields=["shape", "radial", "elliptical", "rotation", "integrate", "scale", "background"],
)
@dataclass(frozen=True)
class SceneModel:
    """``scale * (reference moved by dx, dy and seen through a Moffat PSF) + bg``, for ONE image.

    Parameters (a mapping): ``dx``, ``dy`` in arcsec, towards larger indices; ``fwhm`` in arcsec, ``beta``; with `elliptical` also
    ``e1``, ``e2`` (`ifujax.models.psf.stretch`); with `rotation` also ``rotation``, degrees from +x to +y, to first order
    about the angle for which the reference was made. ``scale`` and ``bg`` are the linear block, or parameters where they are
    not free.

    Attributes
    ----------
    shape : (n_y, n_x)
        Of the image; even numbers.
    radial : RadialGrid
        Over the frequencies of the reference, with room for `elliptical`.
    elliptical, rotation : bool
    integrate : bool
        Whether the PSF is still to be averaged over the pixels.
    scale, background : bool
        Whether they are in the linear block.
    """

    shape: tuple[int, int]
    radial: RadialGrid
    elliptical: bool = False
    rotation: bool = False
    integrate: bool = False
    scale: bool = True
    background: bool = True

    @property
    def linear_names(self) -> tuple[str, ...]:
        return ("scale",) * self.scale + ("bg",) * self.background

    def design(self, params: Any, coords: Reference) -> tuple[tuple[Array, ...], Array]:
        """Return the columns of the linear block, each (n_y n_x,), and the offset."""
        image = self.unit_image(params, coords)
        one = jnp.ones_like(image)
        columns = (image,) * self.scale + (one,) * self.background
        offset = jnp.zeros_like(image)
        if not self.scale:
            offset = offset + params["scale"] * image
        if not self.background:
            offset = offset + params["bg"] * one
        return columns, offset

    def __call__(self, params: Any, coords: Reference) -> Array:
        """Return the image (n_y n_x,), with ``scale`` and ``bg`` among the parameters."""
        return params["scale"] * self.unit_image(params, coords) + params["bg"]

    def unit_image(self, params: Any, coords: Reference) -> Array:
        """Return the reference as the image's PSF and pixels show it, (n_y n_x,)."""
        kernel = self.kernel(params, coords)
        along_x = 2.0 * jnp.pi * params["dx"] * coords.fx
        along_y = 2.0 * jnp.pi * params["dy"] * coords.fy
        # exp(-i (a + b)) from the vectors' sines and cosines
        cx, sx = (_kept(of)[None, :, None, :] for of in (jnp.cos(along_x), jnp.sin(along_x)))
        cy, sy = (_kept(of)[:, None, :, None] for of in (jnp.cos(along_y), jnp.sin(along_y)))
        cosine, sine = cy * cx - sy * sx, sy * cx + cy * sx
        real = kernel * (coords.real * cosine + coords.imag * sine)
        imag = kernel * (coords.imag * cosine - coords.real * sine)
        image = self.sampled(real, imag)
        if self.rotation:
            wx, wy = 2.0 * jnp.pi * coords.fx[None, :, None, :], 2.0 * jnp.pi * coords.fy[:, None, :, None]
            turned = coords.y[:, None] * self.sampled(-imag * wx, real * wx) - coords.x[None] * self.sampled(
                -imag * wy, real * wy
            )
            image = image + jnp.deg2rad(params["rotation"]) * turned
        return image.reshape(-1)

    def kernel(self, params: Any, coords: Reference) -> Array:
        """Return the PSF's transform at the frequencies of the reference."""
        size = jnp.log(jnp.pi * moffat_alpha(params["fwhm"], params["beta"]))
        nodes = jnp.asarray(self.radial.nodes, coords.real.dtype)
        coefficients = self.radial.coefficients(log_moffat_mtf(nodes + size, params["beta"]))
        fx, fy = coords.fx[None, :, None, :], coords.fy[:, None, :, None]
        if self.elliptical:
            xx, xy, yy = stretch(-params["e1"], -params["e2"])
            k2 = xx * fx * fx + 2.0 * xy * fx * fy + yy * fy * fy
            log_k = 0.5 * jnp.log(jnp.where(k2 > 0, k2, math.exp(2.0 * self.radial.low)))
            transform = jnp.exp(self.radial.evaluate(coefficients, self.radial.twice_argument(log_k)))
        else:
            transform = jnp.exp(self.radial.evaluate(coefficients, coords.radius))
        if self.integrate:
            transform = transform * jnp.sinc(fx * coords.pixel[1]) * jnp.sinc(fy * coords.pixel[0])
        # At frequency 0, which has no logarithm, the transform of a PSF is 1
        return transform.at[0, 0, 0, 0].set(1.0)

    def sampled(self, real: Array, imag: Array) -> Array:
        """Return the image (n_y, n_x) whose pixels see all aliases of a transform together."""
        where = [(i, j) for i in range(real.shape[0]) for j in range(real.shape[1])]
        total_real, total_imag = real[0, 0], imag[0, 0]
        # Written out: the compiler turns sums of a few planes into slow loops
        for at in where[1:]:
            total_real, total_imag = total_real + real[at], total_imag + imag[at]
        return jnp.fft.irfft2(lax.complex(total_real, total_imag), s=self.shape)
