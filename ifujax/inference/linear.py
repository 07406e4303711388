"""`solve_linear`: many linear least-squares problems at once, dense or banded, with clipping.

Normal equations with scaled columns and one step of refinement from the residuals (the corrected
semi-normal equations of Bjorck 1987, Linear Algebra Appl. 88, 31), which brings back most of what
squaring the design loses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike

from ifujax.errors import DataError, UsageError
from ifujax.inference import status as bits
from ifujax.inference.batching import block_size, choose_devices, padded, run_blocks
from ifujax.inference.cholesky import solve_banded_spd, solve_spd
from ifujax.inference.nonnegative import solve_nonnegative
from ifujax.inference.observations import Observations
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.precision import dtype_of
from ifujax.inference.uncertainty import covariance_of

_UNROLLED = 12
"""Largest system solved element by element."""
_SHARED_PRODUCTS = 4_000_000
"""Largest table of products of a shared design's columns."""


@dataclass(frozen=True)
class LinearResult:
    """Results of `solve_linear`, NumPy, one row a fit. Rows that failed hold NaN and a non-zero `status`.

    Attributes
    ----------
    coefficients : array (batch, K)
        0 where the data say nothing about one (its error is NaN and `warn` says so).
    error : array (batch, K) or None
        1 sigma; that of a coefficient at its lower limit is the one it would have without limits.
        None where no covariance was asked for.
    covariance : array (batch, K, K) or None
        Inverse of the normal matrix, penalty included.
    chi2, n_good, status, warn : array (batch,)
        ``sum(ivar * residual**2)`` of the pixels that were used (without the penalty), their number,
        and the bits of `ifujax.inference.status`.
    used : array (batch, n_pix) of bool
        Pixels that were neither masked nor clipped.
    """

    coefficients: np.ndarray
    error: np.ndarray | None
    covariance: np.ndarray | None
    chi2: np.ndarray
    n_good: np.ndarray
    status: np.ndarray
    warn: np.ndarray
    used: np.ndarray

    def model(self, design: ArrayLike) -> np.ndarray:
        """Evaluate the fits, (batch, n): `design` is (n, K), or (batch, n, K), at the points wanted."""
        return np.matmul(np.asarray(design), self.coefficients[:, :, None])[:, :, 0]

    def raise_if_failed(self) -> LinearResult:
        """Return self, or raise DataError that counts the failed rows."""
        failed = np.flatnonzero(self.status)
        if failed.size:
            reason = "; ".join(flag.sentence for flag in bits.decode(int(self.status[failed[0]])))
            raise DataError(f"{failed.size} of {self.status.size} linear fits failed; the first, row {failed[0]}: {reason}.")
        return self


def solve_linear(
    design: ArrayLike,
    values: ArrayLike,
    ivar: ArrayLike,
    *,
    penalty: ArrayLike | None = None,
    lower: ArrayLike | None = None,
    bandwidth: int | None = None,
    clip: tuple[float, float] | None = None,
    n_iterate: int = 5,
    covariance: bool | None = None,
    precision: str = "float64",
    devices: Any = None,
) -> LinearResult:
    """Minimise ``sum(ivar * (values - design @ a)**2) + a @ penalty @ a`` for each row.

    Parameters
    ----------
    design : array (n_pix, K) or (batch, n_pix, K)
    values, ivar : array (batch, n_pix)
        Data, which may be NaN where `ivar`, 1 / sigma^2, is 0.
    penalty : array (K, K) or (batch, K, K), optional
        Symmetric, added to the normal matrix: smoothness of a spline, say. It has the unit of ``1 / a**2``.
    lower : float or array (K,), optional
        Lower limits of the coefficients; 0 for non-negative ones.
    bandwidth : int, optional
        The normal matrix has no elements beyond this many below the diagonal (the degree, for
        B-splines): solved in ``K * bandwidth**2`` steps.
    clip : (float, float), optional
        Pixels whose whitened residual lies below ``-clip[0]`` or above ``clip[1]`` times the standard
        deviation of the whitened residuals in use are dropped for good, and the rest is fitted again.
        A row is clipped no further where fewer than K + 1 pixels would be left.
    n_iterate : int
        Rounds of clipping at most.
    covariance : bool, optional
        By default only for systems that are not banded.
    precision : "float64" or "float32"
    devices : list of JAX devices, or platform name, optional

    Returns
    -------
    LinearResult

    Raises
    ------
    UsageError
        For shapes that don't match, a design or penalty wider than `bandwidth`, or limits of a banded system.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 50)
    >>> design = np.stack([np.ones_like(x), x], axis=1)
    >>> fit = solve_linear(design, [2 + 3 * x, 1 - x], np.ones((2, 50)))
    >>> fit.coefficients.round(6).tolist()
    [[2.0, 3.0], [1.0, -1.0]]
    """
    obs = Observations(np.asarray(values, dtype=np.float64), np.asarray(ivar, dtype=np.float64))
    batch, n_pix = obs.batch, obs.n_pix
    matrix = np.asarray(design, dtype=np.float64)
    if matrix.ndim not in (2, 3) or matrix.shape[-2] != n_pix or (matrix.ndim == 3 and matrix.shape[0] != batch):
        raise UsageError(f"design must have shape ({n_pix}, K) or ({batch}, {n_pix}, K); got {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise UsageError("design must be finite everywhere; got NaN or infinity. Use ivar = 0 to mask a pixel.")
    size = matrix.shape[-1]
    extra = _checked_penalty(penalty, batch, size)
    floor = _checked_lower(lower, size)
    if bandwidth is not None:
        _check_bands(matrix, extra, bandwidth, floor)
    if clip is not None and not (len(clip) == 2 and clip[0] > 0 and clip[1] > 0):
        raise UsageError(f"clip must hold two positive thresholds; got {clip!r}. Use inf for none.")
    wanted = bandwidth is None if covariance is None else covariance

    # Numbers of order 1 inside: weights relative to each row's largest, data in units of its sigma, columns by their size.
    root = np.sqrt(obs.ivar)
    top = root.max(axis=1, initial=0.0)
    top = np.where(top > 0, top, 1.0)
    column = np.abs(matrix).max(axis=-2, initial=0.0)
    column = np.where(column > 0, column, 1.0)
    unit = np.broadcast_to(column, (batch, size)) * top[:, None]  # a_inside = a * unit
    dtype = dtype_of(precision)
    inside = {
        "design": matrix / column[..., None, :],
        "values": obs.values * top[:, None],
        "weight": root / top[:, None],
        "penalty": None if extra is None else extra / (unit[:, :, None] * unit[:, None, :]),
        "floor": None if floor is None else floor * unit,
    }
    inside = {name: None if array is None else array.astype(dtype) for name, array in inside.items()}
    thresholds = np.asarray(clip if clip is not None else (np.inf, np.inf), dtype)
    rounds = np.int32(n_iterate if clip is not None else 0)
    places = choose_devices(devices)
    block = block_size(batch, places[0].platform, obs.n_pix)

    def task(rows: np.ndarray, device: Any) -> Any:
        full = padded(rows, block)
        cut = {
            name: array if array is None or (name == "design" and array.ndim == 2) else array[full]
            for name, array in inside.items()
        }
        end = _solve(cut, thresholds, rounds, bandwidth, wanted)
        return {name: np.asarray(array)[: len(rows)] for name, array in end.items()}

    parts = [part for _, part in run_blocks(task, np.arange(batch), block, places, precision)]
    end = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    used = end["used"]
    n_good = (obs.ivar > 0).sum(axis=1)
    status = np.where(n_good == 0, bits.NO_DATA.value, 0)
    if penalty is None:
        status |= np.where((n_good > 0) & (n_good < size), bits.TOO_FEW_PIXELS.value, 0)
    finite = np.isfinite(end["coefficients"]).all(axis=1) & np.isfinite(end["chi2"])
    status |= np.where((status == 0) & ~finite, bits.NOT_FINITE.value, 0)
    lost = status != 0
    warn = np.where(end["unconstrained"], bits.UNCONSTRAINED.value, 0) | np.where(end["at_limit"], bits.AT_BOUND.value, 0)

    def blank(array: np.ndarray) -> np.ndarray:
        array = np.array(array, dtype=np.float64)
        array[lost] = np.nan
        return array

    spread = blank(end["covariance"]) / (unit[:, :, None] * unit[:, None, :]) if wanted else None
    coefficients = end["coefficients"].astype(np.float64) / unit
    if floor is not None:
        coefficients = np.maximum(coefficients, floor)
    return LinearResult(
        coefficients=blank(coefficients),
        error=None if spread is None else np.sqrt(np.diagonal(spread, axis1=1, axis2=2)),
        covariance=spread,
        chi2=blank(end["chi2"]),
        n_good=np.where(lost, n_good, used.sum(axis=1)),
        status=status.astype(np.int32),
        warn=np.where(lost, 0, warn).astype(np.int32),
        used=used,
    )


def _checked_penalty(penalty: ArrayLike | None, batch: int, size: int) -> np.ndarray | None:
    if penalty is None:
        return None
    matrix = np.asarray(penalty, dtype=np.float64)
    if matrix.shape not in ((size, size), (batch, size, size)):
        raise UsageError(f"penalty must have shape ({size}, {size}) or ({batch}, {size}, {size}); got {matrix.shape}.")
    if not np.allclose(matrix, np.swapaxes(matrix, -1, -2)):
        raise UsageError("penalty must be symmetric; got a matrix that is not. Use (P + P.T) / 2.")
    return np.broadcast_to(matrix, (batch, size, size))


def _checked_lower(lower: ArrayLike | None, size: int) -> np.ndarray | None:
    if lower is None:
        return None
    floor = np.asarray(lower, dtype=np.float64)
    if floor.shape not in ((), (size,)) or not np.isfinite(floor).all():
        raise UsageError(f"lower must be a finite number or {size} of them; got {lower!r}.")
    return np.broadcast_to(floor, (size,))


def _check_bands(matrix: np.ndarray, penalty: np.ndarray | None, width: int, floor: np.ndarray | None) -> None:
    size = matrix.shape[-1]
    if not 0 <= width < size:
        raise UsageError(f"bandwidth must lie between 0 and {size - 1}; got {width}.")
    if floor is not None:
        raise UsageError("lower must be None for a banded system; got limits. Leave bandwidth out.")
    filled = matrix != 0
    first, last = filled.argmax(axis=-1), size - 1 - filled[..., ::-1].argmax(axis=-1)
    reach = int(np.where(filled.any(axis=-1), last - first, 0).max(initial=0))
    if reach > width:
        raise UsageError(f"bandwidth must be {reach} or more for this design; got {width}.")
    if penalty is not None and np.any(np.where(np.abs(np.subtract.outer(range(size), range(size))) > width, penalty, 0)):
        raise UsageError(f"penalty must be zero beyond {width} places from the diagonal; got more. Widen bandwidth.")


@partial(jax.jit, static_argnums=(3, 4))
def _solve(problem: dict[str, Any], thresholds: Array, rounds: Array, bandwidth: int | None, wanted: bool) -> dict[str, Array]:
    """Clip and solve a block of rows; everything in units of order 1."""
    design, values, weight = problem["design"], problem["values"], problem["weight"]
    size = design.shape[-1]

    def fitted(keep: Array) -> tuple[Array, Array]:
        coefficients = _coefficients(problem, weight * keep, bandwidth)
        return coefficients, (values - _predict(design, coefficients)) * weight

    def clip(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        keep, _, k = carry
        residual = fitted(keep)[1]
        alive = keep > 0
        count = jnp.maximum(jnp.sum(keep, axis=1, keepdims=True), 1.0)
        mean = jnp.sum(residual * keep, axis=1, keepdims=True) / count
        spread = jnp.sqrt(jnp.sum((residual - mean) ** 2 * keep, axis=1, keepdims=True) / count)
        left = alive & (residual >= -thresholds[0] * spread) & (residual <= thresholds[1] * spread)
        left = jnp.where(jnp.sum(left, axis=1, keepdims=True) > size, left, alive)
        return left.astype(keep.dtype), jnp.any(left != alive), k + 1

    def going(carry: tuple[Array, Array, Array]) -> Array:
        return carry[1] & (carry[2] < rounds)

    start = ((weight > 0).astype(weight.dtype), jnp.array(True), jnp.zeros((), jnp.int32))
    keep = lax.while_loop(going, clip, start)[0]
    coefficients, residual = fitted(keep)
    normal = _normal(problem, (weight * keep) ** 2)
    result = {
        "coefficients": coefficients,
        "chi2": jnp.sum(residual**2 * keep, axis=1),
        "used": keep > 0,
        "at_limit": jnp.zeros(len(values), bool),
        "unconstrained": jnp.any(jnp.diagonal(normal, axis1=1, axis2=2) <= 0, axis=1),
    }
    if problem["floor"] is not None:
        result["at_limit"] = jnp.any(coefficients <= problem["floor"], axis=1)
    if wanted:
        matrix, felt = covariance_of(normal, LeastSquaresOptions())
        result["covariance"] = jnp.where(felt[:, :, None] & felt[:, None, :], matrix, jnp.nan)
        result["unconstrained"] = jnp.any(~felt, axis=1)
    return result


def _predict(design: Array, coefficients: Array) -> Array:
    return jnp.einsum("pk,bk->bp" if design.ndim == 2 else "bpk,bk->bp", design, coefficients)


def _projected(design: Array, vector: Array) -> Array:
    return jnp.einsum("pk,bp->bk" if design.ndim == 2 else "bpk,bp->bk", design, vector)


def _normal(problem: dict[str, Any], square: Array) -> Array:
    design = problem["design"]
    if design.ndim == 2 and design.size * design.shape[1] <= _SHARED_PRODUCTS:
        size = design.shape[1]
        products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)  # shared, so one matrix product serves all
        normal = (square @ products).reshape(-1, size, size)
    else:
        other = "pj" if design.ndim == 2 else "bpj"
        normal = jnp.einsum(f"bpi,{other}->bij", design * square[:, :, None], design)
    return normal if problem["penalty"] is None else normal + problem["penalty"]


def _bands(problem: dict[str, Any], square: Array, width: int) -> Array:
    """Diagonal and sub-diagonals of the normal matrix, as `solve_banded_spd` takes them."""
    design, penalty = problem["design"], problem["penalty"]
    size = design.shape[-1]
    rows = []
    for d in range(width + 1):
        row = _projected(design[..., d:] * design[..., : size - d], square)
        if penalty is not None:
            row = row + jnp.diagonal(penalty, offset=-d, axis1=1, axis2=2)
        rows.append(jnp.pad(row, ((0, 0), (0, d))))
    return jnp.stack(rows, axis=1)


def _coefficients(problem: dict[str, Any], weight: Array, bandwidth: int | None) -> Array:
    """Solve the weighted problem, then once more for what its residuals still hold."""
    design, values, penalty, floor = (problem[name] for name in ("design", "values", "penalty", "floor"))
    square = weight**2
    size = design.shape[-1]

    def downhill(coefficients: Array) -> Array:
        slope = _projected(design, square * (values - _predict(design, coefficients)))
        return slope if penalty is None else slope - jnp.einsum("bij,bj->bi", penalty, coefficients)

    if bandwidth is not None:
        bands = _bands(problem, square, bandwidth)
        diagonal = bands[:, 0]
    else:
        bands = None
        normal = _normal(problem, square)
        diagonal = jnp.diagonal(normal, axis1=1, axis2=2)
    live = diagonal > 0
    scale = jnp.sqrt(jnp.where(live, diagonal, 1.0))
    if bands is not None:
        ahead = jnp.stack([jnp.pad(scale[:, d:], ((0, 0), (0, d)), constant_values=1.0) for d in range(bands.shape[1])], axis=1)
        scaled = (bands / (scale[:, None, :] * ahead)).at[:, 0].set(1.0)

        def solve(rhs: Array) -> Array:
            return jnp.where(live, solve_banded_spd(scaled, rhs / scale) / scale, 0.0)
    else:
        eye = jnp.eye(size, dtype=weight.dtype)[None]
        scaled = jnp.where(eye > 0, 1.0, normal / (scale[:, :, None] * scale[:, None, :]))
        unrolled = size <= _UNROLLED

        def solve(rhs: Array) -> Array:
            return jnp.where(live, solve_spd(scaled, rhs / scale, unrolled=unrolled) / scale, 0.0)

        if floor is not None:
            above, _ = solve_nonnegative(scaled, downhill(floor) / scale, unrolled=unrolled)
            return floor + jnp.where(live, above / scale, 0.0)
    first = solve(downhill(jnp.zeros_like(scale)))
    return first + solve(downhill(first))
