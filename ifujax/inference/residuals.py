"""Sums over the residuals of fits along their pixels: what tells noise from structure, small enough to be kept of every fit.

Residuals leave the device as these sums alone. They are taken of whitened residuals (divided by their errors), clipped at 4
standard deviations of their own so that single outliers weigh little. Noise of which a fit has taken its part has the
covariance M R M with M = 1 - H and the hat matrix H = J C J^T; the sums of H say how much is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

REACH = 8
"""Pixels up to which correlation is measured."""
WIDTHS = (2, 4, 8, 16, 32, 64)
"""Widths of stretches that are looked at, pixels: each twice the one before."""
_CLIP = 4.0
_PER_LAG = ("pairs", "products", "absorbed")
_PER_WIDTH = ("power", "taken", "peak", "peak_at", "peak_count", "peak_sum", "pile", "pile_at", "pile_count")
N_SUMS = len(_PER_LAG) * (REACH + 1) + len(_PER_WIDTH) * len(WIDTHS)
"""Numbers kept of a fit."""


def residual_sums(residual: Array, used: Array, columns: Sequence[Array], covariance: Array) -> Array:
    """Return the sums of a batch of fits, (batch, `N_SUMS`), in the order that `ResidualSums` reads.

    Parameters
    ----------
    residual : array (batch, n_pix)
        Whitened; 0 where a pixel is masked.
    used : array (batch, n_pix)
        1 for pixels that count, else 0.
    columns : sequence of array (batch, n_pix)
        Whitened slopes of the model by everything that was fitted.
    covariance : array (batch, m, m)
        Of what was fitted.
    """
    count = jnp.maximum(jnp.sum(used, axis=1, keepdims=True), 1.0)
    spread = jnp.sqrt(jnp.sum(residual * residual, axis=1, keepdims=True) / count)
    residual = jnp.clip(residual, -_CLIP * spread, _CLIP * spread)
    room = [(0, 0), (0, WIDTHS[-1])]
    # Zeros behind the last pixel: whatever is moved round the end meets nothing.
    residual, used = jnp.pad(residual, room), jnp.pad(used, room)
    slopes = jnp.pad(jnp.stack(columns, axis=1), [(0, 0), *room]) if columns else jnp.zeros((len(residual), 0, used.shape[1]))
    spread_slopes = jnp.einsum("bij,bjp->bip", covariance, slopes)
    sums = {
        "pairs": [jnp.sum(used * _moved(used, k), axis=1) for k in range(REACH + 1)],
        "products": [jnp.sum(residual * _moved(residual, k), axis=1) for k in range(REACH + 1)],
        "absorbed": [jnp.einsum("bip,bip->b", spread_slopes, _moved(slopes, k)) for k in range(REACH + 1)],
    }
    sums |= {name: [] for name in _PER_WIDTH}
    total, square, filled = residual, residual * residual, used
    own, others, half = slopes, spread_slopes, 1
    for _ in WIDTHS:
        total, square, filled, own, others = (each + _moved(each, half) for each in (total, square, filled, own, others))
        half *= 2
        sums["power"].append(jnp.sum(total * total, axis=1))
        sums["taken"].append(jnp.einsum("bip,bip->b", own, others))
        enough = filled >= 0.5 * half
        height = jnp.where(enough, total * total / jnp.maximum(filled, 1.0), 0.0)
        for kind, what in (("peak", height), ("pile", jnp.where(enough, square, 0.0))):
            at = jnp.argmax(what, axis=1)
            sums[kind].append(_at(what, at))
            sums[f"{kind}_at"].append(at.astype(residual.dtype))
            sums[f"{kind}_count"].append(_at(filled, at))
            if kind == "peak":
                sums["peak_sum"].append(_at(square, at))
    return jnp.stack([each for name in (*_PER_LAG, *_PER_WIDTH) for each in sums[name]], axis=1)


def _moved(array: Array, by: int) -> Array:
    """Return the array with pixel p + `by` at p."""
    return jnp.roll(array, -by, axis=-1) if by else array


def _at(array: Array, index: Array) -> Array:
    return jnp.take_along_axis(array, index[:, None], axis=1)[:, 0]


@dataclass(frozen=True)
class ResidualSums:
    """Sums over the residuals of fits, (n, `N_SUMS`), by name.

    Attributes
    ----------
    array : array (n, N_SUMS)
        NaN for fits that failed.
    n_pix : int
        Pixels of a spectrum. What began before the first pixel is counted from there.
    """

    array: np.ndarray
    n_pix: int

    def _part(self, name: str) -> np.ndarray:
        if name in _PER_LAG:
            first, size = _PER_LAG.index(name) * (REACH + 1), REACH + 1
        else:
            first, size = len(_PER_LAG) * (REACH + 1) + _PER_WIDTH.index(name) * len(WIDTHS), len(WIDTHS)
        return np.asarray(self.array[:, first : first + size], dtype=np.float64)

    @property
    def pairs(self) -> np.ndarray:
        """(n, lags) pairs of used pixels at each lag."""
        return self._part("pairs")

    @property
    def products(self) -> np.ndarray:
        """(n, lags) sums of products of residuals at each lag."""
        return self._part("products")

    @property
    def absorbed(self) -> np.ndarray:
        """(n, lags) sums of the hat matrix along each of its diagonals."""
        return self._part("absorbed")

    @property
    def power(self) -> np.ndarray:
        """(n, widths) sums of the squared sums over all stretches of each width."""
        return self._part("power")

    @property
    def taken(self) -> np.ndarray:
        """(n, widths) what is missing of `power` by the fit, for independent noise of variance 1."""
        return self._part("taken")

    def stretch(self, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the highest stretch of each width, (n, widths) each.

        Parameters
        ----------
        kind : "peak" or "pile"
            By the squared sum over the number of pixels, or by the sum of squares.

        Returns
        -------
        value, count, squares, first : array (n, widths)
            The value; how many pixels it holds; their sum of squares; and its first pixel, negative before the spectrum.
        """
        value = self._part(kind)
        squares = self._part("peak_sum") if kind == "peak" else value
        at = self._part(f"{kind}_at")
        return value, self._part(f"{kind}_count"), squares, np.where(at >= self.n_pix, at - self.n_pix - WIDTHS[-1], at)
