"""`minimize_batch`: likelihoods that are not sums of squares, such as those of Poisson counts.

The solvers are those of jaxopt and optax, which are imported here alone and only when called. Inside, parameters
are unconstrained through the bijections of their space. For sums of squares use `fit_batch`, which needs far fewer
evaluations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ifujax.errors import UsageError
from ifujax.inference import status as bits
from ifujax.inference.batching import choose_devices
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace, UnconstrainedSpace
from ifujax.inference.precision import dtype_of, working_precision
from ifujax.inference.runner import inside_line
from ifujax.inference.starts import pack_starts
from ifujax.inference.uncertainty import covariance_of

Method = Literal["lbfgs", "adam"]
_AT_BOUND = 0.01
"""A parameter lies at its bound where it is closer to it than this times its error with the others held: bijections never
reach a bound."""


@dataclass(frozen=True)
class MinimizeResult:
    """Results of `minimize_batch`, NumPy, one row an objective. Rows that failed hold NaN and a non-zero `status`.

    Attributes
    ----------
    params, error : mapping of str to array (batch, ...)
        Every named parameter, tied and fixed ones included, and its 1 sigma error from the curvature of the objective:
        right where the objective is a negative log-likelihood. NaN where the data do not constrain it, 0 for what was
        fixed.
    covariance : array (batch, m, m)
        Inverse of the curvature, of the free parameters in their units: `covariance_names`. Rows and columns of what
        the data do not constrain are 0.
    covariance_names : tuple of str
    value : array (batch,)
        The objective at the solution, Gaussian priors included.
    slope : array (batch,)
        Largest derivative by the unconstrained parameters that is left there.
    n_iter, status, warn : array (batch,)
        Iterations, and the bits of `ifujax.inference.status`. The error of a parameter at its bound (`AT_BOUND`) is what
        the curvature gives there, as in `FitResult`.
    x : array (batch, n)
        The free vector, for restarts.
    """

    params: Mapping[str, np.ndarray]
    error: Mapping[str, np.ndarray]
    covariance: np.ndarray
    covariance_names: tuple[str, ...]
    value: np.ndarray
    slope: np.ndarray
    n_iter: np.ndarray
    status: np.ndarray
    warn: np.ndarray
    x: np.ndarray


def minimize_batch(
    objective: Callable[[Any, Any], Any],
    space: ParameterSpace,
    start: Mapping[str, Any] | Any,
    *,
    data: Any = (),
    batch: int | None = None,
    method: Method = "lbfgs",
    max_iter: int = 500,
    tolerance: float = 1e-5,
    learning_rate: float = 0.05,
    precision: str = "float64",
    device: Any = None,
) -> MinimizeResult:
    """Minimise ``objective(params, data)`` for each row of `data`, such as a negative log-likelihood of your own.

    Parameters
    ----------
    objective : callable
        ``objective(params, data) -> scalar`` for ONE row; `params` maps the names of `space` to values.
        A module-level function: each new function object is compiled anew.
    space : ParameterSpace
        Gaussian priors add half the square of ``(value - mean) / sigma``, as they do to a negative log-likelihood. Other
        priors take no part.
    start : mapping of str to array, or array (batch, n)
        As for `fit_batch`.
    data : pytree of arrays
        Each leaf with a leading batch axis.
    batch : int, optional
        Number of rows; needed where `data` holds no array.
    method : "lbfgs" or "adam"
        Quasi-Newton with a line search (jaxopt), for smooth objectives; or a first-order method
        (optax), for noisy ones, which keeps the lowest value that it met.
    max_iter : int
    tolerance : float
        Ends where the derivatives by the unconstrained parameters fall below this: an objective should be
        of the size of a log-likelihood. An Adam fit that has not come so far says that it has not converged.
    learning_rate : float
        Step of Adam, in unconstrained parameters.
    precision : "float64" or "float32"
    device : JAX device or platform name, optional

    Returns
    -------
    MinimizeResult

    Raises
    ------
    UsageError
        For an unknown method, or starts and data that don't match.

    Examples
    --------
    Counts of two exposures, whose negative log-likelihood (half the statistic of Cash 1979) is that of Poisson:

    >>> import numpy as np, jax.numpy as jnp, ifujax
    >>> def poisson(params, counts):
    ...     mean = params["rate"]
    ...     return jnp.sum(mean - counts * jnp.log(mean))
    >>> space = ifujax.ParameterSpace.build({"rate": ifujax.Bounded(0)})
    >>> counts = np.array([[2, 0, 1, 1], [5, 3, 6, 2]])
    >>> fit = ifujax.minimize_batch(poisson, space, {"rate": 1.0}, data=counts)
    >>> fit.params["rate"].round(3), fit.error["rate"].round(3)
    (array([1., 4.]), array([0.5, 1. ]))
    """
    if method not in get_args(Method):
        raise UsageError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}.")
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(data)}
    if len(lengths | ({batch} if batch is not None else set())) != 1:
        raise UsageError(f"data must have one row a fit in every leaf; got lengths {sorted(lengths)} and batch={batch}.")
    rows = batch if batch is not None else lengths.pop()
    dtype = dtype_of(precision)
    packed = pack_starts(space, start, rows)[0]
    wide = space.broadcast(rows)
    with working_precision("float64"):
        z = np.array(jax.vmap(inside_line)(wide, packed), dtype=dtype)

    def cast(leaf: Any, dtype: Any = dtype) -> Any:
        leaf = np.asarray(leaf)
        return leaf.astype(dtype, copy=False) if leaf.dtype.kind == "f" else leaf

    solve = _lbfgs if method == "lbfgs" else _adam
    place = choose_devices(device if device is None or isinstance(device, str) else [device])[0]
    numbers = (np.asarray(tolerance, dtype), np.asarray(learning_rate, dtype))
    with working_precision(precision), jax.default_device(place):
        end = solve(objective, max_iter, jax.tree.map(cast, wide), jax.tree.map(cast, data), z, *numbers)
        end = jax.tree.map(np.asarray, end)
    with working_precision("float64"), jax.default_device(place):
        exact = jax.tree.map(partial(cast, dtype=np.float64), data)
        curved = jax.tree.map(np.asarray, _curvature(objective, wide, exact, np.array(end["x"], dtype=np.float64)))
    failed = ~(np.isfinite(end["value"]) & np.isfinite(end["z"]).all(axis=1))
    slow = ~failed & ~end["converged"]
    status = np.where(failed, bits.NOT_FINITE.value, 0) | np.where(slow, bits.NOT_CONVERGED.value, 0)

    def blank(array: np.ndarray) -> np.ndarray:
        array = np.array(array, dtype=np.float64)
        array[status != 0] = np.nan
        return array

    return MinimizeResult(
        params={name: blank(value) for name, value in end["params"].items()},
        error={name: blank(value) for name, value in curved["error"].items()},
        covariance=blank(curved["covariance"]),
        covariance_names=space.structure.element_names,
        value=blank(end["value"]),
        slope=blank(end["slope"]),
        n_iter=end["n_iter"].astype(np.int64),
        status=status.astype(np.int32),
        warn=np.where(status == 0, curved["warn"], 0).astype(np.int32),
        x=blank(end["x"]),
    )


def _function_of(objective: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return the objective of one row as a function of its unconstrained vector."""

    def function(z: Any, space: ParameterSpace, data: Any) -> Any:
        return _with_priors(objective, space, UnconstrainedSpace(space).unpack(tuple(z)), data)

    return function


@partial(jax.jit, static_argnums=0)
def _curvature(objective: Any, space: ParameterSpace, data: Any, x: Any) -> dict[str, Any]:
    """Return errors and covariance from the second derivatives of the objective by the free vectors `x` (batch, n)."""

    def function(x: Any, space: ParameterSpace, data: Any) -> Any:
        return _with_priors(objective, space, space.unpack(tuple(x)), data)

    hessian = jax.vmap(jax.hessian(function))(x, space, data)
    covariance, felt = covariance_of(hessian, LeastSquaresOptions())
    free = [(entry.name, entry.size) for entry in space.structure.free]

    def row(x: Any, space: ParameterSpace, hessian: Any, covariance: Any, felt: Any) -> tuple[dict[str, Any], Any, Any]:
        slopes = jax.jacfwd(lambda x: space.unpack(tuple(x)))(x)

        def error(slope: Any) -> Any:
            variance = jnp.einsum("...i,ij,...j->...", slope, covariance, slope)
            unknown = jnp.any((slope != 0) & ~jnp.broadcast_to(felt, slope.shape), axis=-1)
            return jnp.where(unknown, jnp.nan, jnp.sqrt(jnp.maximum(variance, 0.0)))

        own = jnp.concatenate([jnp.reshape(slopes[name], (size, x.size)) for name, size in free])
        low, high = (jnp.stack(side) for side in space.box())
        room = jnp.minimum(x - low, high - x)
        near = room * jnp.sqrt(jnp.maximum(jnp.diagonal(hessian), 0.0)) < _AT_BOUND
        near = near & (jnp.diagonal(hessian) > 0)
        warn = jnp.where(jnp.any(near), bits.AT_BOUND.value, 0) | jnp.where(jnp.all(felt), 0, bits.UNCONSTRAINED.value)
        return {name: error(slope) for name, slope in slopes.items()}, own @ covariance @ own.T, warn

    errors, covariance, warn = jax.vmap(row)(x, space, hessian, covariance, felt)
    return {"error": errors, "covariance": covariance, "warn": warn}


def _with_priors(objective: Callable[[Any, Any], Any], space: ParameterSpace, params: Any, data: Any) -> Any:
    """Return the objective of one row, with half the squares of its Gaussian priors."""
    value = objective(params, data)
    for pull in space.prior_residuals(params):
        value = value + 0.5 * pull**2
    return value


def _ended(
    function: Callable[..., Any], space: ParameterSpace, data: Any, z: Any, n_iter: Any, last_slope: Any, tolerance: Any
) -> dict[str, Any]:
    value, slope = jax.value_and_grad(function)(z, space, data)
    x = space.from_unconstrained(tuple(z))[0]
    return {
        "z": z,
        "x": jnp.stack(x),
        "params": space.unpack(x),
        "value": value,
        "slope": jnp.max(jnp.abs(slope)),
        "n_iter": n_iter,
        "converged": last_slope <= tolerance,
    }


@partial(jax.jit, static_argnums=(0, 1))
def _lbfgs(objective: Any, max_iter: int, space: ParameterSpace, data: Any, z: Any, tolerance: Any, _rate: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
        import jaxopt
    function = _function_of(objective)

    def row(space: ParameterSpace, data: Any, z: Any) -> dict[str, Any]:
        # Its default line search stalls where the minimum lies at a bound, and the bijection is flat.
        solver = jaxopt.LBFGS(function, maxiter=max_iter, tol=tolerance, implicit_diff=False, linesearch="hager-zhang")
        end = solver.run(z, space, data)
        return _ended(function, space, data, end.params, end.state.iter_num, end.state.error, tolerance)

    return jax.vmap(row)(space, data, z)


@partial(jax.jit, static_argnums=(0, 1))
def _adam(objective: Any, max_iter: int, space: ParameterSpace, data: Any, z: Any, tolerance: Any, rate: Any) -> dict[str, Any]:
    import optax

    function = _function_of(objective)

    def row(space: ParameterSpace, data: Any, z: Any) -> dict[str, Any]:
        # A cosine lets it settle: at a constant rate Adam keeps stepping about the minimum.
        solver = optax.inject_hyperparams(optax.adam)(learning_rate=optax.cosine_decay_schedule(rate, max_iter))

        def step(carry: Any) -> Any:
            z, state, lowest, best, _, k = carry
            value, slope = jax.value_and_grad(function)(z, space, data)
            better = (value < lowest) | (jnp.max(jnp.abs(slope)) <= tolerance)
            lowest, best = jnp.where(better, value, lowest), jnp.where(better, z, best)
            update, state = solver.update(slope, state, z)
            return optax.apply_updates(z, update), state, lowest, best, jnp.max(jnp.abs(slope)), k + 1

        def going(carry: Any) -> Any:
            return (carry[5] < max_iter) & (carry[4] > tolerance)

        start = (z, solver.init(z), jnp.full((), jnp.inf, z.dtype), z, jnp.full((), jnp.inf, z.dtype), jnp.zeros((), jnp.int32))
        end = lax.while_loop(going, step, start)
        return _ended(function, space, data, end[3], end[5], end[4], tolerance)

    return jax.vmap(row)(space, data, z)
