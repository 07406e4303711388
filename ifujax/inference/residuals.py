"""Sums over the residuals of fits along their pixels: what tells noise from structure, small enough to be kept of every fit.

Residuals leave the device as these sums alone. They are taken of whitened residuals (divided by their errors), clipped at 4
standard deviations of their own so that single outliers weigh little. What a fit has taken of the noise is worked out for few
fits, which stand for the others: with the hat matrix H = J C J^T residuals of noise with the covariance R have
``(1 - H) R (1 - H)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

REACH = 8
"""Pixels up to which correlation is measured."""
WIDTHS = (2, 4, 8, 16, 32, 64)
"""Widths of stretches whose summed power is looked at, pixels."""
CELLS = (1, 1, 1, 4, 4, 8)
"""Pixels of which the residuals are added up first, for each width."""
SCANNED = (4, 8, 16, 32, 64)
"""Widths of the stretches of which the worst is looked for."""
STEPS = (2, 2, 4, 4, 4)
"""Pixels from one such stretch to the next."""
_CLIP = 4.0
_LAGS = range(REACH + 1)
_LAG_PAIRS = np.triu_indices(REACH + 1)
_SIZES = {
    "pairs": REACH + 1,
    "products": REACH + 1,
    "wide_power": 3,
    "peak": len(SCANNED),
    "peak_at": len(SCANNED),
    "pile": len(SCANNED),
    "pile_at": len(SCANNED),
}
_ABSORBED = {"absorbed": REACH + 1, "taken": len(WIDTHS), "hidden": len(_LAG_PAIRS[0])}
_PARTS = {
    name: slice(int(b) - size, int(b))
    for sizes in (_SIZES, _ABSORBED)
    for (name, size), b in zip(sizes.items(), np.cumsum([*sizes.values()]))
}
N_SUMS = sum(_SIZES.values())
"""Numbers kept of a fit."""
N_ABSORBED = sum(_ABSORBED.values())
"""Numbers that say what a fit takes of the noise."""
SAMPLE = 16
"""Fits for which that is worked out: they are much alike, and it is dear."""


def residual_sums(residual: Array, used: Array) -> Array:
    """Return the sums over the residuals of a batch of fits, (batch, `N_SUMS`), in the order that `ResidualSums` reads.

    Parameters
    ----------
    residual : array (batch, n_pix)
        Whitened; 0 where a pixel is masked.
    used : bool array (batch, n_pix)
        Pixels that count.
    """
    # Pixels go first: sums over them then run over all fits side by side, several times as fast.
    residual, used = residual.T, used.T.astype(jnp.float32)
    count = jnp.maximum(jnp.sum(used, axis=0, keepdims=True), 1.0)
    spread = jnp.sqrt(jnp.sum(residual * residual, axis=0, keepdims=True) / count)
    # In units of their own: single precision then has room for any.
    whole = jnp.where(spread > 0, residual / jnp.where(spread > 0, spread, 1.0), 0.0).astype(jnp.float32)
    whole = jnp.clip(whole, -_CLIP, _CLIP)
    room = -len(whole) % 8
    if room:
        whole = jnp.pad(whole, [(0, room), (0, 0)])
    products = _products(whole, REACH + 1)
    cells = {2: _added(whole, 2), 4: _added(whole, 4), 8: _added(whole, 8)}
    squares = {size: _added(whole * whole, size) for size in (2, 4)}
    in_cells = {size: _products(cells[size], 8) for size in (4, 8)}
    powers = [_triangle(in_cells[cell], width // cell) for width, cell in zip(WIDTHS, CELLS) if cell > 1]
    total = jnp.maximum(products[0], 1e-30)
    found: dict[str, list[Array]] = {"peak": [], "peak_at": [], "pile": [], "pile_at": []}
    for width, step in zip(SCANNED, STEPS):
        sums, piles = (_slid(each[step], width // step) for each in (cells, squares))
        for name, value in (("peak", sums * sums / width), ("pile", piles)):
            share, at = _highest(value / total[None])
            found[name].append(share)
            found[f"{name}_at"].append(at)
    level = (spread[0] ** 2).astype(residual.dtype)
    scaled = [each.astype(residual.dtype) * level for each in (*products, *powers)]
    shares = [each.astype(residual.dtype) for several in found.values() for each in several]
    return jnp.stack([each.astype(residual.dtype) for each in _products(used, REACH + 1)] + scaled + shares, axis=1)


def _products(values: Array, lags: int) -> list[Array]:
    """Return the sums of products of each column with itself, moved by 0, 1, ... pixels."""
    n = len(values)
    return [jnp.sum(values[: n - k] * values[k:], axis=0) if k < n else jnp.zeros(values.shape[1]) for k in range(lags)]


def _triangle(products: list[Array], width: int) -> Array:
    """Return the sum of the squared sums over all stretches of a width, from products at lags."""
    total = width * products[0]
    for k in range(1, width):
        total = total + 2.0 * (width - k) * products[k]
    return total


def _added(values: Array, size: int) -> Array:
    """Return sums over cells of neighbouring pixels."""
    return jnp.sum(values.reshape(-1, size, values.shape[1]), axis=1)


def _slid(cells: Array, count: int) -> Array:
    """Return the sums over `count` cells, a power of two, at every cell; beyond the last there are none."""
    n, half = len(cells), 1
    while half < count:
        cells = cells + jnp.pad(cells[half:], [(0, min(half, n)), (0, 0)])
        half *= 2
    return cells


def _highest(shares: Array) -> tuple[Array, Array]:
    """Return the highest of each column of numbers between 0 and 1, and where it is: as one maximum of whole numbers, which is
    far cheaper than a search."""
    n = len(shares)
    bits = max(int(n - 1).bit_length(), 1)
    largest = 2.0 ** (30 - bits)
    place = jnp.arange(n, dtype=jnp.int32)[:, None]
    keys = (jnp.clip(shares, 0.0, 1.0) * (largest - 1.0)).astype(jnp.int32) * (1 << bits) + place
    best = jnp.max(keys, axis=0)
    return (best >> bits).astype(jnp.float32) / (largest - 1.0), (best & ((1 << bits) - 1)).astype(jnp.float32)


def absorption(slopes: np.ndarray, covariance: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return what one fit takes of the noise, (`N_ABSORBED`,), in the order that `ResidualSums` reads.

    Parameters
    ----------
    slopes : array (m, n_pix)
        Whitened slopes of the model by everything that was fitted; 0 where a pixel is masked.
    covariance : array (m, m)
        Of what was fitted.
    used : bool array (n_pix,)
    """
    spread, n = covariance @ slopes, slopes.shape[1]
    room = [(0, 0), (REACH, REACH)]
    slopes_roomy, spread_roomy = np.pad(slopes, room), np.pad(spread, room)

    def moved(array: np.ndarray, by: int) -> np.ndarray:
        return array[:, REACH + by : REACH + by + n]

    absorbed = [float((spread * moved(slopes_roomy, k)).sum()) for k in range(REACH + 1)]
    taken = [_taken(slopes, spread, width, cell) for width, cell in zip(WIDTHS, CELLS)]
    # Sums along diagonals of H T + T H - H T H, T noise that is correlated at lags l and -l alone, halved.
    both, others = (np.stack([moved(a, k) + moved(a, -k) for k in range(REACH + 1)]) for a in (slopes_roomy, spread_roomy))
    single = 0.5 * (others * used).reshape(REACH + 1, -1) @ both.reshape(REACH + 1, -1).T
    hats = 0.5 * np.einsum("ij,kjl->kil", covariance, np.einsum("ip,kjp->kij", slopes, both))
    double = np.einsum("kij,lji->kl", hats, hats)
    return np.concatenate([absorbed, taken, (single - double)[_LAG_PAIRS]])


def absorption_of_two(slopes: np.ndarray, spread: np.ndarray, more: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return what two fits, one after the other, take of the noise, like `absorption`.

    Together they leave ``(1 - H) R (1 - H)^T + Q R Q^T`` of noise of the covariance R, with ``H = slopes^T spread`` and
    ``Q = slopes^T more``. H is no symmetric matrix, nor is what they take of products at one lag from noise at another; the mean
    of both ways stands for them.

    Parameters
    ----------
    slopes : array (m, n_pix)
        Whitened slopes of the model by everything that was fitted; 0 where a pixel is masked.
    spread, more : array (m, n_pix)
        By what the noise in each pixel moves it, and other noise of the same kind.
    used : bool array (n_pix,)
    """
    n = slopes.shape[1]
    room = [(0, 0), (REACH, REACH)]

    def both(array: np.ndarray) -> np.ndarray:
        roomy = np.pad(array, room)
        return np.stack([0.5 * (roomy[:, REACH + k : REACH + k + n] + roomy[:, REACH - k : REACH - k + n]) for k in _LAGS])

    def products(array: np.ndarray, several: np.ndarray) -> np.ndarray:
        """Inner products (lags, m, m), as one product of matrices."""
        flat = array @ several.reshape(-1, n).T
        return flat.reshape(len(array), *several.shape[:2]).swapaxes(0, 1)

    near, far, farther = both(slopes), both(spread), both(more)
    total = 2.0 * spread - (spread @ spread.T + more @ more.T) @ slopes
    absorbed = near.reshape(REACH + 1, -1) @ total.ravel()
    taken = [_taken(slopes, total, width, cell) for width, cell in zip(WIDTHS, CELLS)]
    single = 2.0 * (far * used).reshape(REACH + 1, -1) @ near.reshape(REACH + 1, -1).T
    kept = products(spread, far) + products(more, farther)
    double = kept.reshape(REACH + 1, -1) @ products(slopes, near).reshape(REACH + 1, -1).T
    hidden = single - double
    return np.concatenate([absorbed, taken, 0.5 * (hidden + hidden.T)[_LAG_PAIRS]])


def _taken(slopes: np.ndarray, spread: np.ndarray, width: int, cell: int) -> float:
    room = [(0, 0), (0, -slopes.shape[1] % cell)]
    a, b = (np.pad(each, room).reshape(len(each), -1, cell).sum(axis=2) for each in (slopes, spread))
    total = width // cell * (a * b).sum()
    for k in range(1, width // cell):
        total += (width // cell - k) * ((a[:, k:] * b[:, :-k]).sum() + (b[:, k:] * a[:, :-k]).sum())
    return float(total)


@dataclass(frozen=True)
class ResidualSums:
    """Sums over the residuals of fits by name, and what a typical one of them takes of the noise.

    Attributes
    ----------
    array : array (n, N_SUMS)
        NaN for fits that failed.
    typical : array (N_ABSORBED,)
    """

    array: np.ndarray
    typical: np.ndarray

    def of(self, rows: np.ndarray) -> ResidualSums:
        """Return some rows."""
        return ResidualSums(self.array[rows], self.typical)

    def _part(self, name: str) -> np.ndarray:
        return np.asarray(self.array[:, _PARTS[name]], dtype=np.float64)

    @property
    def pairs(self) -> np.ndarray:
        """(n, lags) pairs of used pixels at each lag."""
        return self._part("pairs")

    @property
    def products(self) -> np.ndarray:
        """(n, lags) sums of products of residuals at each lag."""
        return self._part("products")

    @property
    def power(self) -> np.ndarray:
        """(n, widths) sums of the squared sums over all stretches of each width, of whole cells."""
        products = self.products
        narrow = [
            width * products[:, 0] + 2.0 * products[:, 1:width] @ (width - np.arange(1.0, width))
            for width, cell in zip(WIDTHS, CELLS)
            if cell == 1
        ]
        return np.column_stack([*narrow, self._part("wide_power")])

    def stretch(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the highest stretch of each of the scanned widths, (n, widths) each.

        Parameters
        ----------
        kind : "peak" or "pile"
            By the squared sum over the number of pixels, or by the sum of squares.

        Returns
        -------
        share, first : array
            Its value as a share of all squared residuals, and its first pixel.
        """
        return self._part(kind), self._part(f"{kind}_at") * np.array(STEPS)

    @property
    def absorbed(self) -> np.ndarray:
        """(lags,) sums of a fit's hat matrix along its diagonals, the first of them the number of parameters."""
        return self.typical[_PARTS["absorbed"]]

    @property
    def taken(self) -> np.ndarray:
        """(widths,) what is missing of `power` by a fit, for independent noise of variance 1."""
        return self.typical[_PARTS["taken"]]

    @property
    def hidden(self) -> np.ndarray:
        """(lags, lags) what a fit takes of the products at each lag, of noise that is correlated at each lag alone: at lags l
        and -l together, halved."""
        matrix = np.zeros((REACH + 1, REACH + 1))
        matrix[_LAG_PAIRS] = self.typical[_PARTS["hidden"]]
        return matrix + np.triu(matrix, 1).T
