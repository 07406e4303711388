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
    from ifujax.extraction.catalog import read_catalog
    from ifujax.extraction.run import extract_sources
    from ifujax.extraction.scene.scene import extract_scene
    from ifujax.images.corrections import apply_corrections
    from ifujax.images.filters import HstFilter, hst_filter_info
    from ifujax.images.regrid import images_aligned, regrid_like, rescale_like
    from ifujax.images.wideband import bandpass_image, read_filter_curve
    from ifujax.inference.joint import fit_joint
    from ifujax.inference.least_squares import fit_batch
    from ifujax.inference.linear import solve_linear
    from ifujax.inference.minimize import MinimizeResult, minimize_batch
    from ifujax.inference.observations import Observations
    from ifujax.inference.options import LeastSquaresOptions
    from ifujax.inference.parameter_space.declarations import Bounded, Fixed, Tied
    from ifujax.inference.parameter_space.priors import HalfNormal, LogNormal, Normal
    from ifujax.inference.parameter_space.space import ParameterSpace
    from ifujax.inference.results import FitResult
    from ifujax.inference.sampling.draws import Draws
    from ifujax.inference.sampling.options import SamplingOptions
    from ifujax.inference.sampling.sample import sample_batch
    from ifujax.inference.status import POSTERIOR_FLAGS, STATUS_FLAGS, WARN_FLAGS, decode
    from ifujax.io.cubes import read_cube
    from ifujax.io.images import read_image
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
    from ifujax.models.psf import ImagePSF, MoffatPSF
    from ifujax.photometry.config import PhotometryOptions
    from ifujax.photometry.joint import JointPhotometry, fit_joint_photometry
    from ifujax.photometry.results import FittedValue, ImagePhotometry, StarPhotometry
    from ifujax.photometry.run import fit_image_photometry, iterate_image_photometry
    from ifujax.photometry.run_stars import fit_image_and_star_photometry, fit_star_photometry
    from ifujax.photometry.table import photometry_table

_HOME = {
    "apply_corrections": "images.corrections",
    "bandpass_image": "images.wideband",
    "Bounded": "inference.parameter_space.declarations",
    "ComponentFit": "lines.selection.results",
    "ContinuumOptions": "lines.config",
    "Cube": "data.cube",
    "CubeFit": "lines.results",
    "CubePosterior": "lines.posteriors.results",
    "DataError": "errors",
    "decode": "inference.status",
    "Draws": "inference.sampling.draws",
    "EmissionModel": "lines.config",
    "extract_scene": "extraction.scene.scene",
    "extract_sources": "extraction.run",
    "fit_batch": "inference.least_squares",
    "fit_components": "lines.selection.run",
    "fit_cube": "lines.run",
    "fit_image_and_star_photometry": "photometry.run_stars",
    "fit_image_photometry": "photometry.run",
    "fit_joint": "inference.joint",
    "fit_joint_photometry": "photometry.joint",
    "fit_spectrum": "lines.spectrum",
    "fit_star_photometry": "photometry.run_stars",
    "FitOptions": "lines.config",
    "FitResult": "inference.results",
    "FittedValue": "photometry.results",
    "Fixed": "inference.parameter_space.declarations",
    "HalfNormal": "inference.parameter_space.priors",
    "hst_filter_info": "images.filters",
    "HstFilter": "images.filters",
    "IfujaxWarning": "errors",
    "Image": "data.image",
    "ImagePhotometry": "photometry.results",
    "ImagePSF": "models.psf",
    "images_aligned": "images.regrid",
    "iterate_image_photometry": "photometry.run",
    "JointPhotometry": "photometry.joint",
    "Kinematics": "lines.config",
    "Line": "lines.config",
    "load_fit": "lines.products.load",
    "LoadedFit": "lines.products.loaded",
    "LogNormal": "inference.parameter_space.priors",
    "LSF": "lines.config",
    "minimize_batch": "inference.minimize",
    "MinimizeResult": "inference.minimize",
    "MoffatPSF": "models.psf",
    "Normal": "inference.parameter_space.priors",
    "Observations": "inference.observations",
    "LeastSquaresOptions": "inference.options",
    "ParameterSpace": "inference.parameter_space.space",
    "photometry_table": "photometry.table",
    "PhotometryOptions": "photometry.config",
    "POSTERIOR_FLAGS": "inference.status",
    "read_catalog": "extraction.catalog",
    "read_config": "lines.dialect",
    "read_cube": "io.cubes",
    "read_filter_curve": "images.wideband",
    "read_image": "io.images",
    "read_spectrum": "io.spectra",
    "regrid_like": "images.regrid",
    "rescale_like": "images.regrid",
    "sample": "lines.posteriors.run",
    "sample_batch": "inference.sampling.sample",
    "SamplingOptions": "inference.sampling.options",
    "simulate": "",
    "solve_linear": "inference.linear",
    "Spectrum": "data.spectrum",
    "SpectrumFit": "lines.spectrum",
    "SpectrumPosterior": "lines.posteriors.spectrum",
    "StarPhotometry": "photometry.results",
    "STATUS_FLAGS": "inference.status",
    "Tied": "inference.parameter_space.declarations",
    "UsageError": "errors",
    "WARN_FLAGS": "inference.status",
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
    "FittedValue",
    "Fixed",
    "HalfNormal",
    "HstFilter",
    "IfujaxWarning",
    "Image",
    "ImagePSF",
    "ImagePhotometry",
    "JointPhotometry",
    "Kinematics",
    "LeastSquaresOptions",
    "Line",
    "LoadedFit",
    "LogNormal",
    "MinimizeResult",
    "MoffatPSF",
    "Normal",
    "Observations",
    "ParameterSpace",
    "PhotometryOptions",
    "SamplingOptions",
    "Spectrum",
    "SpectrumFit",
    "SpectrumPosterior",
    "StarPhotometry",
    "Tied",
    "UsageError",
    "__version__",
    "apply_corrections",
    "bandpass_image",
    "decode",
    "extract_scene",
    "extract_sources",
    "fit_batch",
    "fit_components",
    "fit_cube",
    "fit_image_and_star_photometry",
    "fit_image_photometry",
    "fit_joint",
    "fit_joint_photometry",
    "fit_spectrum",
    "fit_star_photometry",
    "hst_filter_info",
    "images_aligned",
    "iterate_image_photometry",
    "load_fit",
    "minimize_batch",
    "photometry_table",
    "read_catalog",
    "read_config",
    "read_cube",
    "read_filter_curve",
    "read_image",
    "read_spectrum",
    "regrid_like",
    "rescale_like",
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
