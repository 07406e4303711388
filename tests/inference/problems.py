"""Small models with known answers that the tests of the engine share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import OptimizeResult, least_squares

from ifujax import Observations


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["linear_names"])
@dataclass(frozen=True)
class Peak:
    """A Gaussian on a constant; height and level may be eliminated."""

    linear_names: tuple[str, ...] = ("height", "level")

    def design(self, params: Any, x: Any) -> tuple[Any, Any]:
        shape = jnp.exp(-0.5 * ((x - params["centre"]) / params["width"]) ** 2)
        return (shape, jnp.ones_like(x)), jnp.zeros_like(x)

    def __call__(self, params: Any, x: Any) -> Any:
        (shape, level), _ = self.design(params, x)
        return params["height"] * shape + params["level"] * level


X = np.linspace(-6.0, 6.0, 60)
START = {"centre": 0.0, "width": 1.5, "height": 5.0, "level": 0.0}


def peaks(rng: np.random.Generator, batch: int, sigma: float = 0.3) -> tuple[Observations, dict[str, np.ndarray]]:
    """Return noisy peaks and their truth."""
    truth = {
        "centre": rng.uniform(-1.5, 1.5, batch),
        "width": rng.uniform(0.7, 1.6, batch),
        "height": rng.uniform(4.0, 12.0, batch),
        "level": rng.uniform(-1.0, 1.0, batch),
    }
    columns = {name: value[:, None] for name, value in truth.items()}
    clean = columns["height"] * np.exp(-0.5 * ((X - columns["centre"]) / columns["width"]) ** 2) + columns["level"]
    values = clean + rng.normal(scale=sigma, size=clean.shape)
    return Observations(values, np.full_like(values, sigma**-2), X), truth


def peak_numpy(theta: np.ndarray, x: np.ndarray = X) -> np.ndarray:
    """Evaluate the same model; `theta` is centre, width, height, level."""
    return theta[2] * np.exp(-0.5 * ((x - theta[0]) / theta[1]) ** 2) + theta[3]


def scipy_fit(
    residual: Callable[[np.ndarray], np.ndarray], start: Any, low: Any = -np.inf, high: Any = np.inf, **options: Any
) -> OptimizeResult:
    """Fit one problem with scipy to its last digit; ``2 * cost`` is chi2."""
    return least_squares(residual, start, bounds=(low, high), xtol=1e-15, ftol=1e-15, gtol=1e-14, max_nfev=5000, **options)
