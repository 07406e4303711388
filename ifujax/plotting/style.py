"""Colours, sizes and unit texts that all figures share.

Set on each artist: matplotlib's global rcParams are the user's.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import AutoMinorLocator
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE_SIZE = 9.0
LABEL_SIZE = 8.5
TICK_SIZE = 7.5

DATA_COLOR = "0.15"
MODEL_COLOR = "#d62728"
CONTINUUM_COLOR = "#7f7f7f"
MASKED_COLOR = "0.88"

# Okabe & Ito (2008), told apart with any colour vision; black and vermilion are taken by data and model
COMPONENT_COLORS = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#8C6D31", "#6A51A3", "#B8B000")
STATUS_COLORS = ("#D55E00", "#E69F00", "#CC79A7", "#0072B2", "#F0E442", "#56B4E9", "#8C6D31", "#000000")
USABLE_COLOR = "#8FD3BE"
MARKER_COLORS = ("#E6007E", "#00B3E6", "#7AC900", "#FF8C00", "#7B4DFF")


class NotebookFigure(Figure):
    """A figure that a notebook shows by itself; pyplot, which usually sees to that, is not loaded here."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=100)
        return stream.getvalue()


def style_axes(ax: Axes, *, minor: bool = True) -> None:
    """Give axes the look of a paper: ticks inwards on all four sides, small labels."""
    ax.tick_params(which="both", direction="in", top=True, right=True, labelsize=TICK_SIZE, width=0.6)
    ax.tick_params(which="major", length=3.5)
    ax.tick_params(which="minor", length=1.8)
    if minor:
        ax.xaxis.set_minor_locator(AutoMinorLocator())
        ax.yaxis.set_minor_locator(AutoMinorLocator())
    for spine in ax.spines.values():
        spine.set_linewidth(0.6)


def decade(values: ArrayLike) -> int:
    """Return the power of ten to take out of the numbers of an axis: 0 unless they are very large or small."""
    finite = np.abs(np.asarray(values, dtype=np.float64))
    largest = np.max(finite, where=np.isfinite(finite), initial=0.0)
    return 0 if largest == 0 or 1e-2 <= largest < 1e5 else math.floor(math.log10(largest))


def unit_text(unit: str, exponent: int = 0) -> str:
    """Return a unit as short text for an axis: FITS spellings become exponents, an unknown one stays as it is.

    `exponent` is a power of ten that was taken out of the numbers.

    Examples
    --------
    >>> unit_text("km/s")
    'km s$^{-1}$'
    """
    if not unit:
        return f"$10^{{{exponent}}}$" if exponent else ""
    from astropy import units

    # "10**(-20)*erg/s/cm**2/Angstrom" (MUSE): the power of ten apart, since not every parser takes it
    found = re.match(r"^\s*10(?:\*\*|\^)\(?\s*([+-]?\d+)\s*\)?[\s*]*", unit)
    rest = unit[found.end() :] if found else unit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", units.UnitsWarning)  # several slashes: discouraged, not wrong
            parsed = units.Unit(rest)
        scale = float(parsed.scale.real)
    except (ValueError, TypeError, AttributeError):
        return f"$10^{{{exponent}}}$ {unit}" if exponent else unit
    power_of_ten = math.log10(scale) + exponent + (int(found.group(1)) if found else 0)
    bases = [(str(base.to_string("unicode")), power) for base, power in zip(parsed.bases, parsed.powers, strict=True)]
    # numerator first, then the habit of the field: s-1 cm-2 A-1
    order = ["s", "cm", "\u00c5"]
    bases.sort(key=lambda item: (item[1] < 0, order.index(item[0]) if item[0] in order else -1))
    texts = [name if power == 1 else f"{name}$^{{{_power_text(power)}}}$" for name, power in bases]
    whole = round(power_of_ten)
    if abs(power_of_ten - whole) > 1e-9:
        texts.insert(0, f"{10.0**power_of_ten:g}")
    elif whole:
        texts.insert(0, f"$10^{{{whole}}}$")
    return " ".join(texts)


def _power_text(power: Any) -> str:
    return f"{power:g}" if isinstance(power, float) else str(power)


def save(figure: Figure, path: str | Path, *, dpi: float = 150.0) -> Path:
    """Save a figure (PNG, PDF or SVG by the suffix) and return its path."""
    figure.savefig(path, dpi=dpi)
    return Path(path)
