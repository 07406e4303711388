"""Which configurations IFSCube could have run, and the cube as it saw it."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from ifujax.data.cube import Cube
from ifujax.data.scaled import Scaled
from ifujax.errors import IfujaxWarning, UsageError
from ifujax.lines.config import FitOptions, LineFitConfig
from ifujax.lines.ifscube.stopping import DEFAULT_STEP, SCIPY_STEP

_SHAPES = ("gaussian", "gauss_hermite")
_IGNORED = ("guess_parameters", "trivial", "test_jacobian", "sig_threshold", "minimum_good_fraction", "starts", "coherence")


def adapted_config(config: LineFitConfig) -> LineFitConfig:
    """Return the configuration as IFSCube 1.3 would obey it: without the options that it ignores.

    Raises
    ------
    UsageError
        For what it could not do.

    Warns
    -----
    IfujaxWarning
        Names the options that are ignored.
    """
    model, fit = config.model, config.fit
    shapes = {line.shape for line in model.lines}
    if len(shapes) > 1 or not shapes <= set(_SHAPES):
        raise UsageError(
            f"ifscube_compat must have one shape for all lines, {' or '.join(_SHAPES)}; got {', '.join(sorted(shapes))}."
        )
    fluxes = [line.name for line in model.lines if line.strength != "amplitude"]
    if fluxes:
        raise UsageError(f"ifscube_compat must have amplitudes; got a flux for {', '.join(fluxes)}. Give the peak instead.")
    if model.profile != "sampled":
        raise UsageError(f"ifscube_compat must have profile: sampled; got {model.profile}. Remove the option.")
    if model.lsf is not None:
        raise UsageError("ifscube_compat must have no lsf, which IFSCube 1.3 does not know; got one. Remove it.")
    if config.continuum.mode == "joint":
        raise UsageError("ifscube_compat must have [continuum] mode: rejection; got joint. Remove the option.")
    default = FitOptions()
    ignored = [name for name in _IGNORED if getattr(fit, name) != getattr(default, name)]
    dropped = [f"[fit] {name}" for name in ignored]
    if config.equivalent_width.sigma_factor != 5.0:
        dropped.append("[equivalent_width] sigma_factor")
    if any(line.continuum_windows is not None for line in model.lines):
        dropped.append("continuum_windows")
    if dropped:
        warnings.warn(f"{', '.join(dropped)}: no effect, because IFSCube 1.3 ignores it.", IfujaxWarning, stacklevel=3)
    lines = tuple(replace(line, continuum_windows=None) for line in model.lines)
    convention = "ifscube" if "gauss_hermite" in shapes else model.h4_convention
    return replace(
        config,
        model=replace(model, lines=lines, h4_convention=convention),
        fit=replace(fit, **{name: getattr(default, name) for name in ignored}),
        equivalent_width=replace(config.equivalent_width, sigma_factor=5.0),
    )


def adapted_cube(cube: Cube) -> Cube:
    """Return the cube with planes that make up for what IFSCube leaves out when it shifts to the rest frame.

    Kept faults: it multiplies the data by ``1 + z`` but not the variance by ``(1 + z)^2``, nor the stellar spectrum by
    ``1 + z``; here these are divided first.
    """
    stretch = 1.0 + cube.redshift
    if stretch == 1.0:
        return cube
    power = {None: 0.0, "variance": -2.0, "error": -1.0, "ivar": 2.0}[cube.uncertainty_kind]
    planes = {}
    for name, factor in (("uncertainty", stretch**power), ("stellar", 1.0 / stretch)):
        plane = getattr(cube, name)
        planes[name] = None if plane is None else Scaled(plane, np.float64(factor))
    return replace(cube, **planes)


def difference_step(config: LineFitConfig) -> float:
    """Return IFSCube's step of forward differences; 0 where its method has none."""
    said = {name: value for name, value in config.text.items() if name.startswith("minimization.")}
    if config.text.get("fit.method", "slsqp") == "differential_evolution":
        return 0.0
    if not said:
        return DEFAULT_STEP
    return float(said.get("minimization.eps", SCIPY_STEP))
