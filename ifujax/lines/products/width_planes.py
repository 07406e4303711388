"""The velocity widths that a configuration asks for, as planes of a product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ifujax.lines.results import CubeFit
    from ifujax.lines.velocity_width import VelocityWidth

QUANTITIES = ("width", "lower", "upper", "median", "centroid")


@dataclass(frozen=True)
class WidthPlanes:
    """One kind of measurement of all groups of lines: (planes, y, x), five planes a group."""

    suffix: str
    meaning: str
    names: tuple[str, ...]
    values: np.ndarray
    errors: np.ndarray


def configured_widths(fit: CubeFit) -> list[VelocityWidth]:
    """Return the velocity widths of the groups of lines in ``[velocity_width]``; lines left out of the fit drop out.

    Lines of several rest wavelengths have velocity 0 at their mean, as in IFSCube.
    """
    options = fit.config.velocity_width
    found = []
    for group in () if options is None else options.groups:
        lines = tuple(name for name in group if name in fit.lines)
        if lines:
            rest = np.mean([line.rest_wavelength for line in fit.setup.lines if line.name in lines])
            found.append(fit.velocity_width(lines, options.width, rest_wavelength=float(rest)))  # type: ignore[union-attr]
    return found


def width_planes(fit: CubeFit) -> list[WidthPlanes]:
    """Return the planes to write: of the model, of the data, and of the model without the instrument where an LSF is known."""
    widths = fit.configured_widths
    if not widths:
        return []
    names = tuple(f"{'+'.join(each.lines)} {quantity}" for each in widths for quantity in QUANTITIES)
    kinds = {"M": ("model", "of the model, as observed"), "D": ("direct", "read off the data")}
    if widths[0].intrinsic is not None:
        kinds["I"] = ("intrinsic", "of the model, LSF taken off")
    planes = []
    for suffix, (kind, meaning) in kinds.items():
        maps = [getattr(each, kind) for each in widths]
        values, errors = (
            np.stack([getattr(each, quantity) for each in source for quantity in QUANTITIES])
            for source in (maps, [each.error for each in maps])
        )
        planes.append(WidthPlanes(suffix, f"W{widths[0].percent:g} and percentiles {meaning}", names, values, errors))
    return planes
