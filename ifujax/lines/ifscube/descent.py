"""IFSCube's own way to a minimum: scipy's SLSQP on chi2, from its start, by its differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize

from ifujax.inference.parameter_space.constraints import Expression, parse
from ifujax.inference.parameter_space.declarations import Bounded, Tied
from ifujax.lines.config import LineFitConfig
from ifujax.lines.ifscube.adapt import difference_step
from ifujax.lines.ifscube.packing import Packing
from ifujax.lines.ifscube.profiles import line_profiles

_TOLERANCE = 1e-8
"""IFSCube's `ftol` without a [minimization] section."""
_SCIPY_TOLERANCE = 1e-6
"""And with one that leaves it out."""


class Descent:
    """How IFSCube minimises (section 5.1). Ten times slower than our own way: for spectra with two minima only.

    Kept faults: chi2 itself, not its residuals, is minimised by one-sided differences, with an absolute tolerance.
    """

    def __init__(self, packing: Packing, config: LineFitConfig) -> None:
        self.packing, self.step = packing, difference_step(config)
        said = {name: value for name, value in config.text.items() if name.startswith("minimization.")}
        self.tolerance = float(said.get("minimization.ftol", _SCIPY_TOLERANCE if said else _TOLERANCE))
        self.max_iter = config.fit.max_iter
        self.names = packing.setup.model.parameter_names
        items = packing.declared
        self.lower, self.upper = (
            np.array([getattr(item, side) if isinstance(item, (Bounded, Tied)) else sign * np.inf for item in items])
            for side, sign in (("lower", -1.0), ("upper", 1.0))
        )
        self.limits: list[tuple[str, int, float, Expression]] = []
        for q, (name, item) in enumerate(zip(packing.packed_names, items)):
            said_of = (
                [("eq", 1.0, item.expression)]
                if isinstance(item, Tied)
                else [("ineq", sign, text) for sign, text in ((1.0, item.above), (-1.0, item.below)) if text]
                if isinstance(item, Bounded)
                else []
            )
            self.limits += [(kind, q, sign, parse(text, self.names, where=name)) for kind, sign, text in said_of]

    def __call__(
        self,
        wavelength: np.ndarray,
        values: np.ndarray,
        weights: np.ndarray,
        start: np.ndarray,
        scale: float,
        bounds: Mapping[str, tuple[float, float]],
    ) -> float:
        """Return chi2 where the minimiser ends for one spectrum.

        Parameters
        ----------
        wavelength, values, weights : array (wave,)
            The fitted pixels: rest Angstrom, data less continuum, and 1 / variance as chi2 has it.
        start : array (parameters,)
            In the order of the model's `parameter_names`.
        scale : float
            From `flux_scale`.
        bounds : mapping
            Narrower ones, by name.
        """
        packed, shape = self.packing.packed, self.packing.packed.shape[1:]
        unit = np.where(self.packing.is_amplitude, scale, 1.0)
        begin = start.reshape(shape)
        first = np.array([begin[leader] for leader in self.packing.leaders]) / unit
        narrow = [bounds.get(name, (-np.inf, np.inf)) for name in self.packing.packed_names]
        lower, upper = (np.array([pair[k] for pair in narrow]) for k in range(2))
        lower, upper = np.fmax(self.lower, lower) / unit, np.fmin(self.upper, upper) / unit
        rest_lines = np.asarray(self.packing.setup.model.rest_wavelengths)

        def table(p: np.ndarray) -> np.ndarray:
            return begin + np.einsum("q,qlk->lk", (p - first) * unit, packed)

        def chi2(p: np.ndarray) -> float:
            model = line_profiles(wavelength, rest_lines, table(p)[None]).sum(axis=1)[0]
            return float((weights * (values - model) ** 2).sum())

        def limit(q: int, sign: float, expression: Expression, p: np.ndarray) -> float:
            return sign * (p[q] - float(expression(dict(zip(self.names, table(p).ravel())))) / unit[q])

        constraints: list[dict[str, str | Callable[[np.ndarray], float]]] = [
            {"type": kind, "fun": partial(limit, q, sign, expression)} for kind, q, sign, expression in self.limits
        ]
        options: Any = {"eps": self.step, "ftol": self.tolerance, "maxiter": self.max_iter}
        end = minimize(chi2, first, method="SLSQP", bounds=list(zip(lower, upper)), constraints=constraints, options=options)
        return chi2(end.x)
