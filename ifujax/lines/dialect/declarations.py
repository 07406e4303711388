"""From the features of a configuration file to the lines of a model: bounds, constraints and shared kinematics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ifujax.errors import UsageError
from ifujax.inference.parameter_space.constraints import dependency_order
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed, Tied
from ifujax.lines.config import Kinematics, Line
from ifujax.lines.dialect.features import MODEL_NAMES, OWN, Feature, Note, assign_owners, model_name, resolve
from ifujax.lines.dialect.grammar import Constraint, Reference, Triple, read_constraint
from ifujax.lines.dialect.of_2018 import (
    TO_ANGSTROM,
    TO_KMS,
    dispersion_text,
    velocity_text,
    wavelength_text,
    width_text,
)
from ifujax.lines.dialect.priors import with_prior
from ifujax.lines.dialect.values import quoted

LOWEST_SIGMA = 1.0
"""km/s; the lower bound of a sigma that is given none, or one of 0 or less: a width of zero is no profile."""

_ON_FIXED = "constraints on features with 'fixed: yes' have no effect"


def build_lines(features: Mapping[str, Feature], note: Note) -> tuple[Line, ...]:
    """Make the lines of a model.

    Parameters
    ----------
    features : mapping
        The sections read, by name.
    note : callable
        Collects warnings.

    Raises
    ------
    UsageError
        For unknown names in constraints, cyclic constraints, and bounds that contradict one another.
    """
    assign_owners(features, note)
    return _Builder(features, note).lines()


class _Builder:
    """Turns triples into declarations; `constraints` are the ones that name parameters, by feature and option."""

    def __init__(self, features: Mapping[str, Feature], note: Note) -> None:
        self.features = features
        self.note = note
        self.constraints: dict[tuple[str, str], Constraint] = {}
        for feature in features.values():
            for option, triple in feature.triples.items():
                if triple.relation and self._declares(feature, option):
                    self._read_constraint(feature, option, triple)
        self._hand_bounds_on(self._order())

    def lines(self) -> tuple[Line, ...]:
        kinematics: dict[str, Kinematics] = {}
        for feature in self.features.values():
            if feature.owner == feature.name:
                kinematics[feature.name] = self._kinematics(feature)
        first_fixed = next((feature for feature in self.features.values() if feature.fixed), None)
        lines = []
        for feature in self.features.values():
            if feature.fixed and first_fixed is not None and feature is not first_fixed:
                strength: Declaration = _in_ratio(feature, first_fixed, self.note)
            else:
                strength = self._declare(feature, feature.strength)
            amplitude, flux = (strength if feature.strength == kind else None for kind in ("amplitude", "flux"))
            lines.append(
                Line(
                    feature.name,
                    feature.rest_wavelength,
                    kinematics[feature.owner],
                    flux=flux,
                    amplitude=amplitude,
                    shape=feature.shape,
                    continuum_windows=feature.continuum_windows,
                )
            )
        return tuple(lines)

    def _declares(self, feature: Feature, option: str) -> bool:
        """Whether the feature's own triple counts: it isn't fixed, and no other member of its group speaks for it."""
        return not feature.fixed and feature.owners.get(option, feature.name) == feature.name

    def _kinematics(self, owner: Feature) -> Kinematics:
        declared: dict[str, Declaration] = {
            MODEL_NAMES.get(option, option): self._declare(owner, option) for option in ("velocity", "sigma")
        }
        for feature in self.features.values():
            for option in OWN:
                if feature.owner == owner.name and feature.owners.get(option) == feature.name:
                    declared[option] = self._own(feature, option)
        return Kinematics(**declared)

    def _own(self, feature: Feature, option: str) -> Declaration:
        """Declare a parameter of a shape, which a file may leave out."""
        if option in feature.triples:
            return self._declare(feature, option)
        default: Bounded = Kinematics.__dataclass_fields__[option].default  # type: ignore[assignment]
        start = float(default.start or 0.0)
        said = f"fixed at {start:g}" if feature.fixed else f"fitted from {start:g} within {default.lower:g}:{default.upper:g}"
        self.note(feature.where(option), f"not given, so it is {said}")
        return Fixed(start) if feature.fixed else with_prior(feature, option, default, self.note)

    def _read_constraint(self, feature: Feature, option: str, triple: Triple) -> None:
        where, angstrom = feature.where(option), feature.in_units(option)
        constraint = read_constraint(
            triple.expression,
            self.features,
            feature.spelling.get(option, option) if angstrom else option,
            lambda name, parameter: resolve(self.features, name, parameter, angstrom, where),
            where,
        )
        self.constraints[feature.name, option] = constraint

    def _order(self) -> list[str]:
        """Return the model's names in the order in which they follow from one another; UsageError for a cycle."""
        depends: dict[str, tuple[str, ...]] = {}
        places: dict[str, str] = {}
        for (name, option), constraint in self.constraints.items():
            feature = self.features[name]
            if not constraint.references:
                continue
            target = model_name(self.features, name, option)
            angstrom = feature.in_units(option)
            names = [each for reference in constraint.references for each in self._model_names(reference, angstrom)]
            if angstrom and option == "sigma":
                names.append(model_name(self.features, name, "velocity"))
            depends[target] = tuple(dict.fromkeys(names))
            places[target] = feature.where(option)
        return dependency_order(depends, places)

    def _model_names(self, reference: Reference, angstrom: bool) -> list[str]:
        velocity = model_name(self.features, reference.feature, "velocity")
        if reference.parameter == "wavelength":
            return [velocity]
        own = model_name(self.features, reference.feature, reference.parameter)
        return [own, velocity] if angstrom and reference.parameter == "sigma" else [own]

    def _text(self, feature: Feature, option: str, constraint: Constraint) -> str:
        """Write a constraint in the model's names and units."""
        angstrom = feature.in_units(option)

        def write(reference: Reference) -> str:
            names = self._model_names(reference, angstrom)
            rest = self.features[reference.feature].rest_wavelength
            if reference.parameter == "wavelength":
                return wavelength_text(names[0], rest)
            return width_text(names[0], names[1], rest) if len(names) == 2 else names[0]

        text = constraint.text(write)
        if not angstrom:
            return text
        if option == "velocity":
            return velocity_text(text, feature.rest_wavelength)
        return dispersion_text(text, model_name(self.features, feature.name, "velocity"), feature.rest_wavelength)

    def _hand_bounds_on(self, order: list[str]) -> None:
        """Let the bounds of what is tied in Angstrom limit what it is tied to.

        In km/s such a tie is no straight line, so the parameter space can't do this itself.
        """
        by_target = {model_name(self.features, *key): key for key in self.constraints}
        for target in reversed(order):
            name, option = by_target.get(target, ("", ""))
            if not name or not self.features[name].in_units(option):
                continue
            feature = self.features[name]
            triple = feature.triples[option]
            if triple.relation != "=" or not triple.bounded or not self.constraints[name, option].references:
                continue
            self._hand_on(feature, option, triple)
            feature.triples[option] = replace(triple, lower=-math.inf, upper=math.inf)

    def _hand_on(self, feature: Feature, option: str, triple: Triple) -> None:
        where, written = feature.where(option), quoted(feature.written[option])
        constraint = self.constraints[feature.name, option]
        affine = constraint.expression.affine()
        factors = {name: factor for name, factor in affine[0].items() if factor != 0} if affine else {}
        source = next((each for each in constraint.references if str(each) in factors), None)
        kind = {"wavelength": "velocity", "sigma": "sigma"}.get(source.parameter) if source else None
        if affine is None or len(factors) != 1 or source is None or kind is None:
            raise UsageError(
                f"{where} must be tied to the same parameter of one other feature, in a straight line, to have bounds too; "
                f"got {written}. Remove its bounds."
            )
        factor, constant = factors[str(source)], affine[1]
        other = self.features[source.feature]
        ends = [TO_ANGSTROM[option](end, feature.rest_wavelength) for end in (triple.lower, triple.upper)]
        ends = sorted((end - constant) / factor for end in ends)
        low, high = (TO_KMS[kind](end, other.rest_wavelength) for end in ends)
        owner = self.features[other.owners[kind]]
        limited = owner.triples[kind]
        low, high = max(low, limited.lower), min(high, limited.upper)
        if not (low <= float(limited.guess) <= high if owner.fixed else low < high):
            raise UsageError(
                f"{where} must have bounds that [{owner.name}] {owner.spelling.get(kind, kind)}, to which it is tied, "
                f"can keep; got {written}. Widen one of the two."
            )
        if not owner.fixed:
            owner.triples[kind] = replace(limited, lower=low, upper=high, guess=min(max(float(limited.guess), low), high))

    def _declare(self, feature: Feature, option: str) -> Declaration:
        """Turn one triple, and the prior that goes with it, into a declaration."""
        return with_prior(feature, option, self._of_triple(feature, option), self.note)

    def _of_triple(self, feature: Feature, option: str) -> Declaration:
        where, triple = feature.where(option), feature.triples[option]
        written = feature.written.get(option, "")
        if feature.fixed:
            if triple.relation:
                self.note(where, _ON_FIXED)
                triple = replace(triple, relation="", expression="")
            if option != feature.strength:
                return Fixed(float(triple.guess))
        as_given = triple.lower
        if option == "sigma" and triple.lower <= 0:
            triple = replace(triple, lower=min(LOWEST_SIGMA, 0.01 * min(float(triple.guess), triple.upper)))
        if option == "lorentz_fwhm":
            triple = replace(triple, lower=max(triple.lower, 0.0))
        if not triple.relation:
            return self._bounded(triple, where)
        constraint = self.constraints[feature.name, option]
        if not constraint.references:
            value = constraint.number()
            if feature.in_units(option):
                value = TO_KMS[option](value, feature.rest_wavelength)
            return self._limited(triple, value, where, written)
        text = self._text(feature, option, constraint)
        if triple.relation == "=":
            if triple.lower == triple.upper:
                raise UsageError(
                    f"{where} must have bounds with room between them, or no equality; got {quoted(written)}. "
                    "Remove one of the two."
                )
            return Tied(text, as_given, triple.upper)  # the floor of a sigma is no bound that the user set
        bounded = self._bounded(triple, where)
        if isinstance(bounded, Fixed):
            raise UsageError(f"{where} must have bounds with room between them; got {quoted(written)}. Remove the constraint.")
        return replace(bounded, **{"below" if triple.relation == "<" else "above": text})

    def _limited(self, triple: Triple, value: float, where: str, written: str) -> Bounded | Fixed:
        """Apply a constraint that is a plain number."""
        outside = f"{where} must have a constraint within its bounds; got {quoted(written)}. Correct one of the two."
        if triple.relation == "=":
            if not (triple.lower <= value <= triple.upper and math.isfinite(value)):
                raise UsageError(outside)
            return Fixed(value)
        lower, upper = triple.lower, triple.upper
        lower, upper = (lower, min(upper, value)) if triple.relation == "<" else (max(lower, value), upper)
        if lower > upper:
            raise UsageError(outside)
        return self._bounded(replace(triple, lower=lower, upper=upper), where)

    def _bounded(self, triple: Triple, where: str) -> Bounded | Fixed:
        if triple.lower == triple.upper:
            return Fixed(triple.lower)
        if isinstance(triple.guess, str):
            return Bounded(triple.lower, triple.upper, start=triple.guess)
        start = min(max(triple.guess, triple.lower), triple.upper)
        if start != triple.guess:
            self.note(where, "the first guess lies outside the bounds, so the fit starts at the nearer bound")
        return Bounded(triple.lower, triple.upper, start=start)


def _in_ratio(feature: Feature, first: Feature, note: Note) -> Tied:
    """Tie a fixed feature to the first fixed one, in the ratio of their guesses."""
    where = feature.where(feature.strength)
    triple, reference = feature.triples[feature.strength], first.triples.get(feature.strength)
    if triple.relation:
        note(where, _ON_FIXED)
    if triple.bounded:
        note(where, f"bounds have no effect on features with 'fixed: yes', which keep their ratio to [{first.name}]")
    if reference is None:
        raise UsageError(
            f"{where} must be {first.strength}: fixed features keep their ratio to [{first.name}]. Give {first.strength} in both."
        )
    a, b = triple.guess, reference.guess
    if isinstance(a, str) or isinstance(b, str):
        if a != b:
            raise UsageError(
                f"{where} must give its ratio to [{first.name}], as all fixed features do; "
                f"got {a} and {b}. Give numbers in both, or the same word."
            )
        ratio = 1.0
    elif b == 0 or not math.isfinite(a / b):
        raise UsageError(
            f"{first.where(feature.strength)} must not be {b:g}: other fixed features keep their ratio to it. "
            "Give another first guess."
        )
    else:
        ratio = a / b
    factor = repr(ratio) if ratio >= 0 else f"({ratio!r})"
    return Tied(f"{first.name}.{feature.strength} * {factor}")
