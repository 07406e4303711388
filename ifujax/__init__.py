"""Fast, probabilistic modelling of integral-field and slit spectroscopy on JAX.

The public names load when they are first used, so that ``import ifujax`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ifujax import simulate
    from ifujax.data.cube import Cube
    from ifujax.data.image import Image
    from ifujax.data.spectrum import Spectrum
    from ifujax.errors import DataError, IfujaxWarning, UsageError
    from ifujax.inference.declarations import Bounded, Fixed, Tied
    from ifujax.inference.joint import fit_joint
    from ifujax.inference.least_squares import fit_batch
    from ifujax.inference.linear import solve_linear
    from ifujax.inference.observations import Observations
    from ifujax.inference.options import Options
    from ifujax.inference.parameters import ParameterSpace
    from ifujax.inference.priors import HalfNormal, LogNormal, Normal
    from ifujax.inference.results import FitResult
    from ifujax.inference.sampling.draws import Draws
    from ifujax.inference.sampling.options import SamplingOptions
    from ifujax.inference.sampling.sample import sample_batch
    from ifujax.inference.status import POSTERIOR_FLAGS, STATUS_FLAGS, WARN_FLAGS, decode
    from ifujax.io.cubes import read_cube
    from ifujax.io.spectra import read_spectrum
    from ifujax.lines.config import LSF, ContinuumOptions, EmissionModel, FitOptions, Kinematics, Line
    from ifujax.lines.dialect import read_config
    from ifujax.lines.posteriors.results import CubePosterior
    from ifujax.lines.posteriors.run import sample
    from ifujax.lines.posteriors.spectrum import SpectrumPosterior
    from ifujax.lines.products.load import load_fit
    from ifujax.lines.products.loaded import LoadedFit
    from ifujax.lines.results import CubeFit
    from ifujax.lines.run import fit_cube
    from ifujax.lines.selection.results import ComponentFit
    from ifujax.lines.selection.run import fit_components
    from ifujax.lines.spectrum import SpectrumFit, fit_spectrum

_HOME = {
    "Bounded": "inference.declarations",
    "ComponentFit": "lines.selection.results",
    "ContinuumOptions": "lines.config",
    "Cube": "data.cube",
    "CubeFit": "lines.results",
    "CubePosterior": "lines.posteriors.results",
    "DataError": "errors",
    "EmissionModel": "lines.config",
    "Draws": "inference.sampling.draws",
    "FitOptions": "lines.config",
    "FitResult": "inference.results",
    "Fixed": "inference.declarations",
    "HalfNormal": "inference.priors",
    "IfujaxWarning": "errors",
    "Image": "data.image",
    "Kinematics": "lines.config",
    "LSF": "lines.config",
    "Line": "lines.config",
    "LoadedFit": "lines.products.loaded",
    "LogNormal": "inference.priors",
    "Normal": "inference.priors",
    "Observations": "inference.observations",
    "Options": "inference.options",
    "POSTERIOR_FLAGS": "inference.status",
    "ParameterSpace": "inference.parameters",
    "STATUS_FLAGS": "inference.status",
    "SamplingOptions": "inference.sampling.options",
    "Spectrum": "data.spectrum",
    "SpectrumFit": "lines.spectrum",
    "SpectrumPosterior": "lines.posteriors.spectrum",
    "Tied": "inference.declarations",
    "UsageError": "errors",
    "WARN_FLAGS": "inference.status",
    "decode": "inference.status",
    "fit_batch": "inference.least_squares",
    "fit_components": "lines.selection.run",
    "fit_cube": "lines.run",
    "fit_joint": "inference.joint",
    "fit_spectrum": "lines.spectrum",
    "load_fit": "lines.products.load",
    "read_config": "lines.dialect",
    "read_cube": "io.cubes",
    "read_spectrum": "io.spectra",
    "sample": "lines.posteriors.run",
    "sample_batch": "inference.sampling.sample",
    "simulate": "",
    "solve_linear": "inference.linear",
}
"""Where each public name lives; a sub-package has no home but itself."""

__all__ = [
    "LSF",
    "POSTERIOR_FLAGS",
    "STATUS_FLAGS",
    "WARN_FLAGS",
    "Bounded",
    "ComponentFit",
    "ContinuumOptions",
    "Cube",
    "CubeFit",
    "CubePosterior",
    "DataError",
    "Draws",
    "EmissionModel",
    "FitOptions",
    "FitResult",
    "Fixed",
    "HalfNormal",
    "IfujaxWarning",
    "Image",
    "Kinematics",
    "Line",
    "LoadedFit",
    "LogNormal",
    "Normal",
    "Observations",
    "Options",
    "ParameterSpace",
    "SamplingOptions",
    "Spectrum",
    "SpectrumFit",
    "SpectrumPosterior",
    "Tied",
    "UsageError",
    "__version__",
    "decode",
    "fit_batch",
    "fit_components",
    "fit_cube",
    "fit_joint",
    "fit_spectrum",
    "load_fit",
    "read_config",
    "read_cube",
    "read_spectrum",
    "sample",
    "sample_batch",
    "simulate",
    "solve_linear",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'ifujax' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f"ifujax.{home}"), name) if home else importlib.import_module(f"ifujax.{name}")
    globals()[name] = value  # the next look-up finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
