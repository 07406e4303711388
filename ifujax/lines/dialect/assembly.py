"""From the values of the reserved sections to the options of a fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ifujax.errors import UsageError, unknown
from ifujax.lines.config import ContinuumOptions, FitOptions, LoadingOptions, VelocityWidthOptions
from ifujax.lines.dialect.files import read_rows
from ifujax.lines.dialect.values import quoted

MULTI_STARTS = 20
"""Starting points that stand in for ``method: differential_evolution``."""

BOUND_RANGE = 0.1
"""Default of ``bound_range``, where ``update_bounds`` is on."""

_TIGHTEST = 1e-12  # a smaller tolerance would only chase rounding errors

Note = Callable[[str, str], None]


def chosen(values: Mapping[str, Any], target: type) -> dict[str, Any]:
    """Return the values that are fields of a dataclass."""
    return {name: value for name, value in values.items() if name in target.__dataclass_fields__}  # type: ignore[attr-defined]


def continuum_options(values: Mapping[str, Any], compat: bool, source: Path | None) -> ContinuumOptions:
    """Read [continuum]; `compat` freezes the polynomial unless the section says otherwise."""
    options = {"mode": "rejection" if compat else "joint", **chosen(values, ContinuumOptions)}
    name = options.pop("weights", None)
    if name is not None:
        options["weights"] = tuple(read_rows(name, source, "[continuum] weights", 3))
        for low, high, weight in options["weights"]:
            if not low < high or weight < 0:
                raise UsageError(
                    f"[continuum] weights must have lines 'low high weight' with low < high and weight >= 0; "
                    f"got '{low:g} {high:g} {weight:g}' in {name!r}. Correct it."
                )
    return ContinuumOptions(**options)


def fit_options(fit: Mapping[str, Any], minimization: Mapping[str, Any], note: Note) -> FitOptions:
    """Read [fit] and [minimization]."""
    options = chosen(fit, FitOptions)
    options["bound_range"] = _bound_range(fit, note)
    default = FitOptions()
    if "fitting_window" in fit:
        options["window"] = fit["fitting_window"]
    _note_without_neighbours(fit, note)
    if fit.get("method") == "differential_evolution" and "starts" not in fit:
        options["starts"] = MULTI_STARTS
        note(
            "[fit] method: differential_evolution",
            f"each fit starts from {MULTI_STARTS} points instead and keeps the best ([fit] starts sets how many)",
        )
    if "maxiter" in minimization:
        options["max_iter"] = minimization["maxiter"]
    if "disp" in minimization:
        options["disp"] = minimization["disp"]
    if "ftol" in minimization:
        if minimization["ftol"] > default.tolerance:
            note("[minimization] ftol", f"no effect here, because the tolerance may only be tightened from {default.tolerance:g}")
        options["tolerance"] = max(min(minimization["ftol"], default.tolerance), _TIGHTEST)
    return FitOptions(**options)


def _bound_range(fit: Mapping[str, Any], note: Note) -> float:
    if not fit.get("update_bounds", False):
        if "bound_range" in fit:
            note("[fit] bound_range", "no effect here, because only 'update_bounds: yes' uses it")
        return 0.0
    if fit.get("bounds_change"):
        note("[fit] update_bounds", "no effect here, because bounds_change says how the bounds change")
        return 0.0
    return fit.get("bound_range", BOUND_RANGE)


def _note_without_neighbours(fit: Mapping[str, Any], note: Note) -> None:
    """Say which options mean nothing where no fit looks at its neighbours."""
    refit = fit.get("refit", False)
    neighbours = refit or fit.get("coherence", 0.0) > 0
    for option in ("bounds_change", "update_bounds"):
        if fit.get(option) and not refit:
            note(f"[fit] {option}", "no effect here, because only refit uses it, and refit is off")
    if fit.get("refit_radius") and not neighbours:
        note("[fit] refit_radius", "no effect here, because only refit and coherence use it, and both are off")
    for option in ("spiral_loop", "spiral_center"):
        if fit.get(option) and not neighbours:
            note(f"[fit] {option}", "no effect here, because without refit all spaxels are fitted together, in no order")
    if neighbours and fit.get("ifscube_compat") and fit.get("spiral_center") and not fit.get("spiral_loop"):
        note("[fit] spiral_center", "no effect here, because with ifscube_compat only 'spiral_loop: yes' uses it")


def loading_options(loading: Mapping[str, Any], fit: Mapping[str, Any], note: Note) -> LoadingOptions:
    """Read [loading]; ``nan_spaxels`` may stand in [fit] too."""
    planes = [kind for kind in ("variance", "error", "ivar") if loading.get(kind) is not None]
    if len(planes) > 1:
        raise UsageError(f"[loading] must name one of variance, error and ivar; got {' and '.join(planes)}. Remove all but one.")
    options = chosen(loading, LoadingOptions)
    if "nan_spaxels" in fit and options.setdefault("nan_spaxels", fit["nan_spaxels"]) != fit["nan_spaxels"]:
        note("[fit] nan_spaxels", "no effect here, because [loading] nan_spaxels says otherwise")
    if options.get("nan_spaxels") == "other":  # IFSCube's word for neither
        options["nan_spaxels"] = None
    return LoadingOptions(**options)


def velocity_width_options(values: Mapping[str, Any], names: Iterable[str]) -> VelocityWidthOptions:
    """Read [velocity_width]; without ``lines`` each line is a profile of its own."""
    names = list(names)
    groups = tuple((name,) for name in names)
    if values.get("lines"):
        groups = tuple(_group(text, names) for text in values["lines"].rstrip(", ").split(","))
    return VelocityWidthOptions(groups, values.get("width", VelocityWidthOptions.width))


def _group(text: str, names: list[str]) -> tuple[str, ...]:
    """Read ``ha + ha_broad``; names may hold a plus sign themselves, and brackets about them are left out."""
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"\s*(?:\[\s*(?P<a>{known})\s*\]|(?P<b>{known}))\s*(?P<end>\+|$)")
    group: list[str] = []
    position, more = 0, True
    while more:
        match = pattern.match(text, position)
        if match is None:
            wrong = text[position:].partition("+")[0].strip(" []")
            raise UsageError("[velocity_width] lines: " + unknown("feature", wrong[:80], names))
        group.append(match["a"] or match["b"])
        position, more = match.end(), match["end"] == "+"
    if len(set(group)) < len(group):
        raise UsageError(f"[velocity_width] lines must name each line once in a profile; got {quoted(text.strip())}. Remove one.")
    return tuple(group)
