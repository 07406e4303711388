"""The baseline of `posteriors.py`: numpyro's NUTS as its documentation has it, on the profiles that ifujax fits.

Every parameter is sampled, the continuum too (in units of its error); diagonal mass matrix, 500 + 500 iterations, four
chains, started at the fit. All spectra and chains are one ``jit(vmap(...))``; or a loop over spectra with ``jit_model_args``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import ifujax

CHAINS = 4


@dataclass(frozen=True)
class PlainNuts:
    """Spectra of a fit with fluxes ~ HalfNormal(tau), and how to sample them."""

    fit: ifujax.CubeFit
    tau: float
    warmup: int = 500
    draws: int = 500

    def model(self, values: Any, weight: Any, zero: Any, unit: Any) -> None:
        """Declare one spectrum: uniform priors within bounds, moving ones included."""
        setup, coords = self.fit.setup, self._coords
        space = setup.space
        x = []
        for i, entry in enumerate(space.structure.free):
            low, high = space.lower[i], space.upper[i]
            if entry.moving:
                x.append(numpyro.sample(entry.name, dist.Uniform(0.0, 1.0)))
            elif np.isfinite(high):
                x.append(numpyro.sample(entry.name, dist.Uniform(low, high)))
            else:
                x.append(numpyro.sample(entry.name, dist.HalfNormal(self.tau)))
        params = space.unpack(x)
        total = setup.model.lines(params, coords)
        for k in range(setup.model.n_continuum):
            raw = numpyro.sample(f"continuum.{k}", dist.Normal(-zero[k] / unit[k], 1e4 / unit[k]))
            total = total + (zero[k] + unit[k] * raw) * coords.basis[k]
        pull = (values - total) * weight
        numpyro.factor("likelihood", -0.5 * jnp.sum(pull * pull))

    @property
    def _coords(self) -> Any:
        return jax.tree.map(np.asarray, self.fit.fitter.coords)

    def arrays(self) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Return the model's arguments (n, ...) and unconstrained starts {name: (n, chains)} about the fits."""
        fit = self.fit
        n = fit.found.status.size
        prepared = fit.fitter.preparation(np.arange(n))
        weight = np.sqrt(prepared.ivar)
        basis = np.asarray(fit.fitter.coords.basis)
        gram = np.einsum("kw,nw,jw->nkj", basis, weight**2, basis)
        unit = np.sqrt(np.diagonal(np.linalg.inv(gram), axis1=1, axis2=2))
        solution = dict(zip(fit.setup.model.parameter_names, fit.found.solution.T))
        rng = np.random.default_rng(1)
        start: dict[str, np.ndarray] = {}
        space = fit.setup.space
        for i, entry in enumerate(space.structure.free):
            low, high, value = space.lower[i], space.upper[i], solution[entry.name]
            if entry.moving:
                low = np.clip(solution[entry.above.text], low, high - 1e-3)  # type: ignore[union-attr]
            if np.isfinite(high):
                share = ((value - low) / (high - low)).clip(0.02, 0.98)
                start[entry.name] = np.log(share) - np.log1p(-share)
            else:
                start[entry.name] = np.log(np.maximum(value, 0.1))
        for k in range(basis.shape[0]):
            start[f"continuum.{k}"] = np.zeros(n)
        start = {name: z[:, None] + 0.1 * rng.standard_normal((n, CHAINS)) for name, z in start.items()}
        return [prepared.values, weight, fit.found.linear, unit], start

    def batched(self) -> tuple[dict[str, np.ndarray], float]:
        """Sample all spectra and chains at once: draws {name: (n, chain, draw)} and CPU seconds, compilation apart."""
        arguments, start = self.arrays()

        def one(key: Any, arguments: list[Any], start: dict[str, Any]) -> dict[str, Any]:
            mcmc = MCMC(NUTS(self.model), num_warmup=self.warmup, num_samples=self.draws, num_chains=1, progress_bar=False)
            mcmc.run(key, *arguments, init_params=start)
            return mcmc.get_samples()

        with jax.enable_x64(True):
            run = jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, None, 0)), in_axes=(0, 0, 0)))
            keys = jax.random.split(jax.random.key(0), (len(arguments[0]), CHAINS))
            compiled = run.lower(keys, arguments, start).compile()
            began = time.process_time()
            found = jax.block_until_ready(compiled(keys, arguments, start))
            seconds = time.process_time() - began
            return {name: np.asarray(value) for name, value in found.items()}, seconds

    def loop(self, spectra: int) -> float:
        """Return CPU seconds a spectrum of a loop over spectra, one compiled program for all; the first one is not counted."""
        arguments, start = self.arrays()
        with jax.enable_x64(True):
            mcmc = MCMC(
                NUTS(self.model),
                num_warmup=self.warmup,
                num_samples=self.draws,
                num_chains=CHAINS,
                chain_method="vectorized",
                progress_bar=False,
                jit_model_args=True,
            )
            began = 0.0
            for i in range(spectra + 1):
                if i == 1:
                    began = time.process_time()
                mine = [jnp.asarray(array[i]) for array in arguments]
                mcmc.run(jax.random.key(i), *mine, init_params={name: jnp.asarray(z[i]) for name, z in start.items()})
                jax.block_until_ready(mcmc.get_samples())
            return (time.process_time() - began) / spectra
