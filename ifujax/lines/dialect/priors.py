"""``prior:`` of a feature: ``velocity ~ normal(0, 100); sigma ~ log_normal(120, 0.5)``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ifujax.errors import UsageError, nearest, unknown
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Tied
from ifujax.inference.parameter_space.priors import HalfNormal, LogNormal, Normal, support_of
from ifujax.lines.dialect.of_2018 import dispersion_of, velocity_at, velocity_per_angstrom
from ifujax.lines.dialect.values import Unreadable, number

if TYPE_CHECKING:
    from ifujax.lines.dialect.features import Feature, Note

_KINDS = {"uniform": (), "normal": ("mean", "sigma"), "half_normal": ("sigma",), "log_normal": ("median", "sigma")}
_FOLDED = {kind.replace("_", ""): kind for kind in _KINDS}
_ENTRY = re.compile(r"(?P<parameter>[^\W\d]\w*)\s*~\s*(?P<kind>[^\W\d][\w-]*)\s*(\((?P<numbers>[^()]*)\))?")
_LIKE = "for example 'velocity ~ normal(0, 100); sigma ~ log_normal(120, 0.5)'"


@dataclass(frozen=True)
class WrittenPrior:
    """One entry as written: its kind and numbers, in the units of its section."""

    kind: str
    numbers: tuple[float, ...]


def read_priors(text: str) -> dict[str, WrittenPrior]:
    """Read ``parameter ~ kind(numbers)``, with semicolons or new lines between, by parameter.

    Raises
    ------
    Unreadable
        With what the value must be.
    """
    found: dict[str, WrittenPrior] = {}
    for entry in re.split(r"[;\n]", text):
        entry = entry.strip()
        if not entry:
            continue
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise Unreadable("consist of 'parameter ~ kind(numbers)' with semicolons between", f"Write it so, {_LIKE}.")
        parameter = match["parameter"].lower()
        if parameter in found:
            raise Unreadable(f"name each parameter once, and {parameter} stands there again", "Remove one.")
        found[parameter] = _read_kind(match["kind"], match["numbers"] or "")
    if not found:
        raise Unreadable("name a parameter", f"Leave the option out, or write it so, {_LIKE}.")
    return found


def _read_kind(written: str, inside: str) -> WrittenPrior:
    kind = _FOLDED.get(written.lower().replace("-", "").replace("_", ""))
    if kind is None:
        raise Unreadable(
            f"be of a known kind, which {written[:40]!r} is not",
            f"{nearest(written, _KINDS)} Known: {', '.join(_KINDS)}.".strip(),
        )
    names = _KINDS[kind]
    form = f"{kind}({', '.join(names)})" if names else kind
    items = inside.split(",") if inside.strip() else []
    requirement = f"have {kind} priors of the form {form}"
    if len(items) != len(names):
        raise Unreadable(requirement, f"Give {len(names)} number{'s' * (len(names) != 1)}." if names else "Remove the numbers.")
    try:
        numbers = tuple(number(item) for item in items)
    except Unreadable:
        raise Unreadable(requirement, "Correct the numbers.") from None
    for name, value in zip(names, numbers):
        if name != "mean" and value <= 0:
            raise Unreadable(f"{requirement} with a positive {name}", "Correct it.")
    return WrittenPrior(kind, numbers)


def assign_priors(features: Mapping[str, Feature], note: Note) -> None:
    """Name the priors of all features by their parameters' names of today.

    Raises
    ------
    UsageError
        For a parameter that the feature hasn't got, or takes from another member of its k_group.
    """
    for feature in features.values():
        named: dict[str, WrittenPrior] = {}
        known = {feature.spelling.get(option, option): option for option in feature.parameters}
        for written, prior in feature.priors.items():
            option = known.get(feature.synonym(written))
            if option is None:
                raise UsageError(f"{feature.where('prior')}: " + unknown(f"parameter of {feature.name}", written, known))
            where = _where(feature, option)
            if option in named:
                raise UsageError(f"{where} must be given once; got it in two spellings. Remove one.")
            owner = feature.owners.get(option, feature.name)
            if feature.fixed:
                note(where, "no effect here, because the feature is fixed")
            elif owner != feature.name:
                raise UsageError(f"{where} must stand in [{owner}], from which its k_group takes it; got it here. Move it there.")
            else:
                named[option] = prior
        feature.priors = named


def _where(feature: Feature, option: str) -> str:
    return f"{feature.where('prior')} of {feature.spelling.get(option, option)}"


def with_prior(feature: Feature, option: str, declared: Declaration, note: Note) -> Declaration:
    """Return a parameter's declaration with the prior that its section gives it, if any."""
    written = feature.priors.get(option)
    if written is None:
        return declared
    where = _where(feature, option)
    if not isinstance(declared, Bounded):
        got = "is tied to others" if isinstance(declared, Tied) else "has one value only"
        raise UsageError(f"{where} must belong to a parameter that is fitted; got one that {got}. Remove it.")
    if written.kind == "uniform":
        lower = declared.lower > float("-inf") or declared.above is not None
        upper = declared.upper < float("inf") or declared.below is not None
        if not (lower and upper):
            raise UsageError(
                f"{where} must have bounds on both sides to be uniform; got an open one. Write low:high after the value."
            )
        return declared
    prior = _prior(feature, option, written, where)
    low, high = support_of(prior)
    start = declared.start
    if isinstance(start, (int, float)) and not low <= start <= high:
        note(where, "the first guess lies where it has no mass, so the fit starts at its edge")
        start = min(max(start, low), high)
    try:
        lower = max(declared.lower, low)
        return replace(declared, lower=lower if lower < declared.upper else declared.lower, start=start, prior=prior)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _prior(feature: Feature, option: str, written: WrittenPrior, where: str) -> Normal | HalfNormal | LogNormal:
    """Return the prior in the model's units; a wavelength's is converted to first order about its mean."""
    numbers, rest = written.numbers, feature.rest_wavelength
    if feature.in_units(option):
        if option == "velocity":
            if written.kind != "normal" or numbers[0] <= 0:
                raise UsageError(f"{where} must be normal(mean, sigma) in Angstrom, or uniform; got {written.kind}. Correct it.")
            numbers = velocity_at(numbers[0], rest), numbers[1] * velocity_per_angstrom(numbers[0], rest)
        elif written.kind == "log_normal":
            numbers = dispersion_of(numbers[0], rest), numbers[1]
        else:
            numbers = tuple(dispersion_of(value, rest) for value in numbers)
    kinds = {"normal": Normal, "half_normal": HalfNormal, "log_normal": LogNormal}
    try:
        return kinds[written.kind](*numbers)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
