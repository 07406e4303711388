"""The posteriors of a batch as the samplers take them: models, data, priors, and the Gaussians about the fits."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from ifujax.errors import UsageError
from ifujax.inference.evaluation import as_model, n_linear
from ifujax.inference.observations import Observations, spread_axes
from ifujax.inference.options import LeastSquaresOptions
from ifujax.inference.parameter_space.space import ParameterSpace
from ifujax.inference.precision import dtype_of
from ifujax.inference.results import FitResult
from ifujax.inference.sampling.blocks import Split, split
from ifujax.inference.sampling.laplace import laplace
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.targets import Target, as_numpy

_BLOCK = 8
"""Fits that go through importance sampling together, always: a block's shape must not depend on the batch."""
_LARGE = 4096
"""Pixels from which on a fit goes through it alone."""


class Problem:
    """One batch to be sampled, checked: what all samplers need of it."""

    def __init__(
        self,
        model: Any,
        space: ParameterSpace,
        obs: Observations,
        fit: FitResult,
        options: LeastSquaresOptions,
        sampling: SamplingOptions,
        linear_sigma: ArrayLike | None,
        seed: int,
        ids: ArrayLike | None,
        precision: str,
        devices: list[Any],
    ) -> None:
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise UsageError(f"seed must be a whole number from 0 to 4294967295; got {seed!r}.")
        if options.linear == "nnls":
            raise UsageError(
                "linear must be 'keep' or 'eliminate' for sampling; got 'nnls'. Declare the coefficients as parameters."
            )
        if options.loss != "gaussian" and options.linear != "keep":
            raise UsageError(f"loss must be 'gaussian' where a linear block is eliminated; got {options.loss!r}.")
        space.require_proper()
        self.model, self.space, self.obs, self.fit = as_model(model), space, obs, fit
        self.options, self.sampling, self.seed = options, sampling, int(seed)
        self.precision, self.devices = precision, devices
        self.ids = np.arange(obs.batch) if ids is None else np.asarray(ids, dtype=np.int64)
        if self.ids.shape != (obs.batch,) or (self.ids < 0).any():
            raise UsageError(f"ids must be one number, 0 or more, for each of {obs.batch} fits; got shape {self.ids.shape}.")
        if len(fit.chi2) != obs.batch:
            raise UsageError(f"fit must have one row for each of {obs.batch} spectra; got {len(fit.chi2)}.")
        self.split = split(self.model, space.structure) if options.loss == "gaussian" else _unsplit(space)
        self.k = n_linear(self.model, options)
        self.block = _BLOCK if obs.n_pix < _LARGE else 1
        self.wide = space.broadcast(obs.batch)
        self.linear_root = self._linear_root(linear_sigma)
        self.axes = jax.tree.map(lambda axis: None if axis < 0 else axis, spread_axes(obs.coords, obs.coords_axes))
        self.flat_axes = obs.flat_axes
        self.z, self.covariance = laplace(space, self.wide, fit)

    def _linear_root(self, sigma: ArrayLike | None) -> np.ndarray:
        if sigma is None:
            return np.zeros((self.obs.batch, self.k))
        sigma = np.asarray(sigma, dtype=np.float64)
        if sigma.shape not in ((self.k,), (self.obs.batch, self.k)) or not (sigma > 0).all():
            raise UsageError(
                f"linear_sigma must be ({self.k},) or ({self.obs.batch}, {self.k}), positive; got shape {sigma.shape}."
            )
        return np.broadcast_to(1.0 / sigma, (self.obs.batch, self.k))

    def target(self, rows: np.ndarray) -> Target:
        """Return the problem of some rows, on the host, in working precision."""
        root = np.sqrt(np.asarray(self.obs.ivar[rows], dtype=np.float64))
        parts = self.model, self.obs.values[rows], root, self.obs.coords_of(rows), self.space_of(rows), self.linear_root[rows]
        return as_numpy(Target(*parts, self.options), dtype_of(self.precision))

    def space_of(self, rows: np.ndarray) -> ParameterSpace:
        """Return the space of some rows, with a batch axis."""
        return jax.tree.map(lambda leaf: leaf[rows], self.wide)

    def observations(self, rows: np.ndarray) -> Observations:
        """Return the data of some rows."""
        return Observations(self.obs.values[rows], self.obs.ivar[rows], self.obs.coords_of(rows), self.obs.coords_axes)


def _unsplit(space: ParameterSpace) -> Split:
    return Split(tuple(range(space.n_free)), ())
