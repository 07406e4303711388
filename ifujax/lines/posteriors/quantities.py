"""What is worked out of each draw: fluxes, widths and equivalent widths of the lines, velocity widths, ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ifujax.errors import UsageError, unknown
from ifujax.lines.measure import LineQuantities, check_windows
from ifujax.lines.velocity_width import _quantities as velocity_quantities_of
from ifujax.lines.widths import VelocityQuantities, _Profiles
from ifujax.models.emission import EmissionSpectrum, SpectralCoords

if TYPE_CHECKING:
    from ifujax.lines.results import CubeFit

MEASURED = ("flux", "amplitude", "sigma", "equivalent_width")
"""Quantities of a line that follow from its parameters and the continuum."""
BPT = "bpt-n2"
"""Asks for both axes of the [N II] diagram (Baldwin, Phillips & Terlevich 1981, PASP 93, 5)."""
_BPT_LINES = {"ha": 6563.7, "hb": 4862.0, "o3": 5007.5, "n2": 6584.4}
"""Their usual names, and rest wavelengths by which lines of other names are found (midway between air and vacuum, Angstrom)."""
_BPT_APART = 2.5
_HALVINGS, _NEWTON = 14, 2
"""A draw's W80 needs no more digits than 1e-6 of it; Voigt profiles are dear."""


@dataclass(frozen=True)
class DrawQuantities:
    """Quantities of one draw, for the engine's ``derived``; hashable.

    Attributes
    ----------
    lines : LineQuantities
    widths : tuple of VelocityQuantities
        One for each velocity width that is asked for.
    """

    lines: LineQuantities
    widths: tuple[VelocityQuantities, ...] = ()

    def __call__(self, model: EmissionSpectrum, params: Any, linear: Array, coords: SpectralCoords) -> dict[str, Array]:
        """Return ``line.quantity`` of every line (those that aren't parameters), and ``width.k`` of every group, km/s."""
        found = self.lines.from_model(model, params, linear, coords, self.lines.held(model, params, linear, coords))
        result = {}
        for line in model.names:
            for quantity in MEASURED:
                name = f"{line}.{quantity}"
                if name not in params:
                    result[name] = found[name]
        for k, width in enumerate(self.widths):
            result[f"width.{k}"] = velocity_width(width, model, params)
        return result


def velocity_width(quantities: VelocityQuantities, model: EmissionSpectrum, params: Any) -> Array:
    """Return the velocity width (km/s) of the observed profile of one draw; not meant to be differentiated.

    That of `VelocityQuantities`, worked out with a seventh of the evaluations.
    """
    profiles = _Profiles.of(quantities, model, params, model)
    lower, _, upper = quantities.shares
    shares = jnp.asarray([lower, upper], profiles.total.dtype)
    low, high = (jnp.ones_like(shares) * end for end in profiles._ends(shares[0]))

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        less = profiles.cumulative(middle) < shares
        return jnp.where(less, middle, ends[0]), jnp.where(less, ends[1], middle)

    low, high = lax.fori_loop(0, _HALVINGS, halve, (low, high))
    found = 0.5 * (low + high)
    for _ in range(_NEWTON):
        found = jnp.clip(found - (profiles.cumulative(found) - shares) / profiles.slope(found), low, high)
    return found[1] - found[0]


@lru_cache(maxsize=64)
def draw_quantities(lines: LineQuantities, widths: tuple[VelocityQuantities, ...]) -> DrawQuantities:
    """Return the same object for the same options, so that nothing compiles twice."""
    return DrawQuantities(lines, widths)


def quantities_of(
    fit: CubeFit, widths: Sequence[str | Sequence[str]] | None
) -> tuple[DrawQuantities, tuple[tuple[str, ...], ...]]:
    """Return what to derive of each draw of a fit, and the groups of lines whose velocity widths these are.

    Parameters
    ----------
    fit : CubeFit
    widths : sequence of line names or of tuples of them, optional
        None: the groups of the configuration's ``[velocity_width]``.

    Raises
    ------
    UsageError
        For unknown lines, or lines of several rest wavelengths in one group that was asked for here.
    """
    options = fit.config.velocity_width
    percent = 80.0 if options is None else options.width
    if isinstance(widths, str):
        raise UsageError(f"widths must be a sequence of lines; got the text {widths!r}. Write [{widths!r}].")
    if widths is None:
        named = () if options is None else options.groups
        groups = tuple(kept for group in named if (kept := tuple(name for name in group if name in fit.lines)))
    else:
        groups = tuple((group,) if isinstance(group, str) else tuple(group) for group in widths)
    if len(set(groups)) < len(groups):
        raise UsageError(f"widths must name each group once; got {', '.join('+'.join(group) for group in groups)}.")
    rest = {line.name: line.rest_wavelength for line in fit.setup.lines}
    found = []
    for group in groups:
        # As in the products: lines of several rest wavelengths have velocity 0 at their mean.
        reference = float(np.mean([rest[name] for name in group])) if widths is None else None
        found.append(velocity_quantities_of(fit, group, percent, reference, 5.0, None))
    windows = check_windows(fit.setup.lines, fit.cube.rest_wavelength)
    return draw_quantities(LineQuantities(fit.config.equivalent_width.sigma_factor, windows), tuple(found)), groups


def ratio_pairs(fit: CubeFit, ratios: Sequence[tuple[str, str] | str] | str) -> tuple[tuple[str, str], ...]:
    """Return the (numerator, denominator) lines of the ratios that were asked for.

    Parameters
    ----------
    fit : CubeFit
    ratios : sequence of pairs of lines, or "bpt-n2" in place of a pair
        "bpt-n2" stands for [N II] over H-alpha and [O III] over H-beta, found by the names n2, ha, o3 and hb, else by their
        rest wavelengths.

    Raises
    ------
    UsageError
        For unknown lines, or what is no pair.
    """
    result: list[tuple[str, str]] = []
    for item in (ratios,) if isinstance(ratios, str) else ratios:
        if isinstance(item, str):
            if item != BPT:
                raise UsageError(unknown("ratio", item, (BPT,)) + " Else give a pair of lines, such as ('n2', 'ha').")
            result += _bpt_pairs(fit)
            continue
        pair = tuple(item)
        if len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise UsageError(f"ratios must be pairs of lines, such as ('n2', 'ha'), or {BPT!r}; got {item!r}.")
        for name in pair:
            if name not in fit.lines:
                raise UsageError(unknown("line", name, fit.lines))
        if pair[0] == pair[1]:
            raise UsageError(f"ratios must be of two different lines; got {pair[0]!r} twice.")
        result.append((pair[0], pair[1]))
    return tuple(dict.fromkeys(result))


def _bpt_pairs(fit: CubeFit) -> list[tuple[str, str]]:
    found = {}
    for name, rest in _BPT_LINES.items():
        near = [line.name for line in fit.setup.lines if abs(line.rest_wavelength - rest) < _BPT_APART]
        if name in fit.lines:
            found[name] = name
        elif len(near) == 1:
            found[name] = near[0]
        else:
            what = f"several lines there ({', '.join(near)})" if near else "none"
            raise UsageError(
                f"ratios must be pairs of lines where {BPT!r} can't tell them: it needs {name} at {rest:g} Angstrom and found "
                f"{what}. Give ratios=[(numerator, denominator), ...], or --ratio NUMERATOR/DENOMINATOR."
            )
    return [(found["n2"], found["ha"]), (found["o3"], found["hb"])]


def log_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the decimal logarithm of a ratio of fluxes; NaN where either of them is not positive."""
    positive = (numerator > 0) & (denominator > 0)
    return np.log10(np.where(positive, numerator, np.nan)) - np.log10(np.where(positive, denominator, np.nan))
