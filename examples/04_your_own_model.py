"""
Fit a model of your own
=======================

The engine behind every job of ifujax knows nothing about emission lines. It fits any model that is a
differentiable JAX function of named parameters, written for *one* spectrum, to thousands of spectra at once.

Here: absorption troughs of a blackbody-like star, a model defined in ten lines.
"""

# %%
# The model
# ---------
# A frozen dataclass registered with JAX: its numbers are *data* (changing them costs nothing), its names
# and switches are *meta* (changing them compiles anew). Whatever enters linearly goes into `design` and
# is solved exactly at each step: it needs neither a start nor a bound.

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import ifujax
from ifujax import Bounded, LeastSquaresOptions, Normal, Observations, ParameterSpace


@partial(jax.tree_util.register_dataclass, data_fields=["rest"], meta_fields=["linear_names"])
@dataclass(frozen=True)
class Troughs:
    rest: Any  # wavelengths of the absorption lines, micrometre
    linear_names: tuple[str, ...] = ("brightness",)

    def design(self, params: dict, wavelength: Any) -> tuple:
        planck = wavelength**-5.0 / jnp.expm1(14.388 / (wavelength * params["temperature"]))
        centre = self.rest * (1 + params["velocity"] / 299792.458)
        distance = (wavelength[:, None] - centre[None, :]) / params["width"]
        depth = params["depth"] * jnp.sum(jnp.exp(-0.5 * distance**2), axis=1)
        return (planck * jnp.exp(-depth),), jnp.zeros_like(wavelength)


# %%
# Its parameters
# --------------
# Bounds, fixed values, ties, inequalities (``above=``, ``below=``) and Gaussian priors are declared by name.

space = ParameterSpace.build(
    {
        "temperature": Bounded(2, 12),  # 1,000 K
        "velocity": Bounded(-900, 900),  # km/s
        "width": Bounded(0.0003, 0.01, prior=Normal(0.002, 0.001)),  # micrometre
        "depth": Bounded(0, 5),
    },
    scale={"velocity": 100.0, "width": 0.001},
)

# %%
# Two thousand spectra with known truth
# -------------------------------------
# `ivar` is the inverse variance; 0 masks a pixel, whatever its value.

rng = np.random.default_rng(1)
n_spectra, wavelength = 2000, np.linspace(0.55, 0.70, 150)
truth = {
    "temperature": rng.uniform(4, 9, n_spectra),
    "velocity": rng.normal(0, 150, n_spectra),
    "width": rng.uniform(0.0012, 0.0025, n_spectra),
    "depth": rng.uniform(0.3, 1.2, n_spectra),
}
model = Troughs(np.array([0.5893, 0.6496, 0.6563]))
(shape,), _ = jax.vmap(model.design, in_axes=(0, None))(truth, wavelength)
clean = np.asarray(shape / shape.max(axis=1, keepdims=True), dtype=float)
sigma = 0.02
values = clean + rng.normal(scale=sigma, size=clean.shape)
values[:, 40] = np.nan  # a dead pixel
ivar = np.where(np.isfinite(values), sigma**-2, 0.0)

# %%
# The fit
# -------
# One call. Failed fits would be NaN with a reason in `status`; ``status == 0`` keeps every good one.

start = {"temperature": 6.0, "velocity": 0.0, "width": 0.002, "depth": 0.5}
fit = ifujax.fit_batch(
    model, space, Observations(values, ivar, wavelength), start, options=LeastSquaresOptions(linear="eliminate")
)
good = fit.status == 0
print(f"{good.sum()} of {n_spectra} fitted, median reduced chi2 {np.median((fit.chi2 / fit.dof)[good]):.3f}")
for name in truth:
    pull = (fit.params[name] - truth[name])[good] / fit.error[name][good]
    print(f"{name:12s} mean pull {pull.mean():+.2f}, width of pulls {pull.std():.2f}")

# %%
# The errors can be believed: pulls have a width of 1.

figure = Figure(figsize=(9, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
row = int(np.argmax(truth["depth"]))
solution = {name: np.asarray(value[row]) for name, value in fit.params.items()}
(column,), _ = model.design(solution, wavelength)
left.step(wavelength, values[row], where="mid", color="0.6", linewidth=1, label="data")
left.plot(wavelength, fit.linear[row, 0] * np.asarray(column, dtype=float), color="C1", label="fit")
left.set(xlabel="Wavelength [µm]", ylabel="Brightness", title=f"Spectrum {row}")
left.legend(frameon=False)
pull = (fit.params["velocity"] - truth["velocity"]) / fit.error["velocity"]
right.hist(pull[good], bins=40, range=(-4, 4), density=True, color="0.8")
grid = np.linspace(-4, 4, 200)
right.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color="C1")
right.set(xlabel="(velocity - truth) / error", ylabel="Density", title=f"{good.sum()} fits")
if len(sys.argv) > 1:  # run as a script with a file name: save the figure there
    figure.savefig(sys.argv[1])

# %%
# Posteriors
# ----------
# The same model, space and data can be sampled: draws of every parameter, where errors may not be enough. Here are the
# weakest troughs; even of these the errors turn out to be right. `linear_sigma` is the width of the Gaussian prior of what was
# eliminated, the brightness; the other parameters are uniform within their bounds, but for the width, which has its prior above.

from ifujax.inference.sampling.sample import sample_batch  # noqa: E402

faint = np.argsort(truth["depth"] * truth["width"])[:24]
obs = Observations(values[faint], ivar[faint], wavelength)
options = LeastSquaresOptions(linear="eliminate")
fit = ifujax.fit_batch(model, space, obs, start, options=options)
draws = sample_batch(model, space, obs, fit, options=options, linear_sigma=[100.0], seed=1)
print(f"{np.sum(draws.status == 0)} of {len(faint)} posteriors are sound")
for name in ("temperature", "width", "depth"):
    low, high = np.quantile(draws.params[name], [0.16, 0.84], axis=(1, 2))
    ratio = np.median((high - low) / 2 / fit.error[name])
    inside = np.mean((truth[name][faint] > low) & (truth[name][faint] < high))
    print(f"{name:12s} 68 % interval / error of the fit: {ratio:.2f}; holds the truth in {inside:.0%}")
