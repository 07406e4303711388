"""Reading the velocity widths of a product back (``VWIDTH_M``, ``VWIDTH_D``, ``VWIDTH_I``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from astropy.io import fits

from ifujax.io.fits import FitsFile, header_text
from ifujax.lines.products.width_planes import QUANTITIES
from ifujax.lines.velocity_width import VelocityWidth, WidthMaps

KINDS = {"model": "VWIDTH_M", "direct": "VWIDTH_D", "intrinsic": "VWIDTH_I"}
"""Extension of each kind of measurement; that of its errors has _ERR added."""


def load_widths(
    file: FitsFile, read: Callable[[str], np.ndarray], percent: float, rest: dict[str, float]
) -> dict[str, VelocityWidth]:
    """Return the velocity widths of each group of lines, by their names joined with ``+``.

    Parameters
    ----------
    file : FitsFile
    read : callable
        Returns the planes (plane, y, x) of an extension.
    percent : float
        Share of the flux that was asked for.
    rest : dict of str to float
        Rest wavelength of each line, Angstrom; groups of several have velocity 0 at the mean.
    """
    names = {hdu.name.upper() for hdu in file.hdus}
    kinds = {kind: name for kind, name in KINDS.items() if {name, f"{name}_ERR"} <= names}
    if not {"model", "direct"} <= kinds.keys():
        return {}
    groups = _groups(file.header(file.find(kinds["model"], "the product")))
    measured: dict[str, list[WidthMaps]] = {}
    for kind, name in kinds.items():
        values, errors = (np.array(read(each), dtype=np.float64) for each in (name, f"{name}_ERR"))
        measured[kind] = [_maps(values, k, _maps(errors, k)) for k in range(len(values) // len(QUANTITIES))]
    found = {}
    for k, group in enumerate(groups[: len(measured["model"])]):
        lines = tuple(group.split("+")) if group not in rest else (group,)
        maps = {kind: each[k] for kind, each in measured.items()}
        reference = float(np.mean([rest.get(line, np.nan) for line in lines]))
        found[group] = VelocityWidth(lines, percent, reference, maps["model"], maps.get("intrinsic"), maps["direct"])
    return found


def _groups(header: fits.Header) -> list[str]:
    """Return the lines of each group from the names of the planes, such as ``narrow+broad width``."""
    planes = [header_text(header, card) for card in header if card.startswith("PLANE") and card[5:].isdigit()]
    return [plane.rpartition(" ")[0] for plane in planes[:: len(QUANTITIES)]]


def _maps(planes: np.ndarray, group: int, error: WidthMaps | None = None) -> WidthMaps:
    return WidthMaps(*planes[group * len(QUANTITIES) : (group + 1) * len(QUANTITIES)], error=error)
