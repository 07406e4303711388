"""From the feature sections of a configuration file to the lines of a model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ifujax.errors import UsageError, unknown
from ifujax.inference.constraints import dependency_order
from ifujax.inference.declarations import Bounded, Declaration, Fixed, Tied
from ifujax.lines.config import Kinematics, Line
from ifujax.lines.dialect_grammar import KEYWORDS, MODEL_NAMES, Triple, read_triple, rewrite
from ifujax.lines.dialect_options import Unreadable, number, quoted

LOWEST_SIGMA = 1.0
"""km/s; the lower bound of a sigma that is given none, or one of 0 or less: a width of zero is no profile."""

_KINEMATIC = ("velocity", "sigma")


@dataclass
class _Feature:
    """One section while it is read. `owner` is the feature whose velocity and sigma it uses."""

    name: str
    rest_wavelength: float
    strength: str
    triples: dict[str, Triple]
    written: Mapping[str, str]
    k_group: int | None
    fixed: bool
    owner: str = ""


@dataclass
class _Constraints:
    """The names that each parameter of the model depends on, and where the file says so."""

    depends: dict[str, tuple[str, ...]] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)


Note = Callable[[str, str], None]
"""``note(option, reason)`` collects what is to be warned of."""


def build_lines(
    sections: Mapping[str, Mapping[str, str]], values: Mapping[str, Mapping[str, object]], note: Note
) -> tuple[Line, ...]:
    """Make the lines of a model.

    Parameters
    ----------
    sections : mapping
        ``{feature: {option: text}}``, options by their canonical names.
    values : mapping
        The same with the values read.
    note : callable
        Collects warnings.

    Raises
    ------
    UsageError
        For missing options, bad triples, unknown names in constraints, and cyclic constraints.
    """
    features = {name: _read(name, sections[name], values[name]) for name in sections}
    _assign_owners(features, note)

    def resolver(where: str) -> Callable[[str, str], str]:
        return lambda feature, parameter: _model_name(features, feature, parameter, where)

    constraints = _Constraints()
    kinematics: dict[str, Kinematics] = {}
    for feature in features.values():
        if feature.owner == feature.name:
            velocity, sigma = (_declare(feature, option, features, resolver, constraints, note) for option in _KINEMATIC)
            kinematics[feature.name] = Kinematics(velocity, sigma)
    first_fixed = next((feature for feature in features.values() if feature.fixed), None)
    lines = []
    for feature in features.values():
        if feature.fixed and first_fixed is not None and feature is not first_fixed:
            strength: Declaration = _in_ratio(feature, first_fixed, note)
        else:
            strength = _declare(feature, feature.strength, features, resolver, constraints, note)
        amplitude, flux = (strength if feature.strength == kind else None for kind in ("amplitude", "flux"))
        lines.append(Line(feature.name, feature.rest_wavelength, kinematics[feature.owner], flux=flux, amplitude=amplitude))
    dependency_order(constraints.depends, constraints.where)
    return tuple(lines)


def _read(name: str, written: Mapping[str, str], values: Mapping[str, object]) -> _Feature:
    if "rest_wavelength" not in values:
        raise UsageError(f"[{name}] must have rest_wavelength; got none. Give it in Angstrom (every section is a feature).")
    strengths = [option for option in ("amplitude", "flux") if option in values]
    if len(strengths) != 1:
        got = "both" if strengths else "none"
        raise UsageError(f"[{name}] must have amplitude or flux, one of the two; got {got}. For example 'amplitude: peak, 0:'.")
    triples = {}
    for option in (*strengths, *_KINEMATIC):
        if option in written:
            triples[option] = _triple(name, option, written[option])
    sigma = triples.get("sigma")
    if sigma is not None and not (float(sigma.guess) > 0 and sigma.upper > 0):
        raise UsageError(f"[{name}] sigma must be positive; got {quoted(written['sigma'])}. Give km/s.")
    return _Feature(
        name,
        float(values["rest_wavelength"]),  # type: ignore[arg-type]
        strengths[0],
        triples,
        written,
        values.get("k_group"),  # type: ignore[arg-type]
        bool(values.get("fixed", False)),
    )


def _triple(name: str, option: str, text: str) -> Triple:
    try:
        return read_triple(text, KEYWORDS if option in ("amplitude", "flux") else ())
    except Unreadable as error:
        raise UsageError(f"[{name}] {option} must {error.requirement}; got {quoted(text)}. {error.advice}".rstrip()) from None


def _assign_owners(features: Mapping[str, _Feature], note: Note) -> None:
    """Find whose velocity and sigma each feature uses: those of its group's first member."""
    leaders: dict[int, _Feature] = {}
    fixed_owner: dict[int, _Feature] = {}
    for feature in features.values():
        feature.owner = feature.name
        leader = feature if feature.k_group is None else leaders.setdefault(feature.k_group, feature)
        if leader is feature:
            for option in _KINEMATIC:
                if option not in feature.triples:
                    raise UsageError(
                        f"[{feature.name}] {option} must be given; got none. "
                        "Only the second and later members of a k_group may leave it out."
                    )
            continue
        _note_own_kinematics(feature, leader, note)
        if leader.fixed and not feature.fixed:
            raise UsageError(
                f"[{leader.name}] fixed must be no for the first member of a k_group with members that are not fixed; "
                f"got yes, and [{feature.name}] is not. Fix it too, or give it another k_group."
            )
        if not feature.fixed or leader.fixed:
            feature.owner = leader.name
            continue
        # A fixed member stays at the leader's guess, while the leader is fitted.
        group = feature.k_group if feature.k_group is not None else 0
        feature.owner = fixed_owner.setdefault(group, feature).name
        feature.triples |= {option: replace(leader.triples[option], relation="", expression="") for option in _KINEMATIC}


def _note_own_kinematics(feature: _Feature, leader: _Feature, note: Note) -> None:
    for option in _KINEMATIC:
        triple = feature.triples.get(option)
        if triple is None or triple == leader.triples[option]:
            continue
        if triple.relation:
            raise UsageError(
                f"[{feature.name}] {option} must have no constraint: its k_group takes {option} from [{leader.name}]; "
                f"got {quoted(feature.written[option])}. Write the constraint in [{leader.name}]."
            )
        note(f"[{feature.name}] {option}", "no effect here, because a k_group takes velocity and sigma from its first member")


def _model_name(features: Mapping[str, _Feature], name: str, parameter: str, where: str) -> str:
    feature = features[name]
    known = (feature.strength, *_KINEMATIC)
    parameter = parameter.lower()
    if parameter == "velocity_dispersion":
        parameter = "sigma"
    if parameter not in known:
        raise UsageError(f"{where}: " + unknown(f"parameter of {name}", parameter, known))
    owner = feature.owner if parameter in _KINEMATIC else name
    return f"{owner}.{MODEL_NAMES[parameter]}"


def _declare(
    feature: _Feature,
    option: str,
    features: Mapping[str, _Feature],
    resolver: Callable[[str], Callable[[str, str], str]],
    constraints: _Constraints,
    note: Note,
) -> Declaration:
    """Turn one triple into a declaration."""
    where = f"[{feature.name}] {option}"
    triple = feature.triples[option]
    if feature.fixed:
        if triple.relation:
            note(where, "constraints on features with 'fixed: yes' have no effect")
            triple = replace(triple, relation="", expression="")
        if option in _KINEMATIC:
            return Fixed(float(triple.guess))
    if option == "sigma" and triple.lower <= 0:
        triple = replace(triple, lower=min(LOWEST_SIGMA, 0.01 * min(float(triple.guess), triple.upper)))
    if not triple.relation:
        return _bounded(triple, where, feature.written.get(option, ""), note)
    expression = rewrite(triple.expression, features, option, resolver(where), where)
    if not expression.names:
        return _limited(triple, float(expression({})), where, feature.written[option], note)
    target = _model_name(features, feature.name, option, where)
    constraints.depends[target] = expression.names
    constraints.where[target] = where
    if triple.relation == "=":
        if triple.lower == triple.upper:
            raise UsageError(
                f"{where} must have bounds with room between them, or no equality; "
                f"got {quoted(feature.written[option])}. Remove one of the two."
            )
        lower = feature.triples[option].lower  # the floor of a sigma is no bound that the user set
        return Tied(expression.text, lower, triple.upper)
    bounded = _bounded(triple, where, feature.written[option], note)
    if isinstance(bounded, Fixed):
        raise UsageError(
            f"{where} must have bounds with room between them; got {quoted(feature.written[option])}. Remove the constraint."
        )
    return replace(bounded, **{"below" if triple.relation == "<" else "above": expression.text})


def _limited(triple: Triple, value: float, where: str, written: str, note: Note) -> Bounded | Fixed:
    """Apply a constraint that is a plain number."""
    outside = f"{where} must have a constraint within its bounds; got {quoted(written)}. Correct one of the two."
    if triple.relation == "=":
        if not triple.lower <= value <= triple.upper:
            raise UsageError(outside)
        return Fixed(value)
    lower, upper = triple.lower, triple.upper
    lower, upper = (lower, min(upper, value)) if triple.relation == "<" else (max(lower, value), upper)
    if lower > upper:
        raise UsageError(outside)
    return _bounded(replace(triple, lower=lower, upper=upper), where, written, note)


def _bounded(triple: Triple, where: str, written: str, note: Note) -> Bounded | Fixed:
    if triple.lower == triple.upper:
        return Fixed(triple.lower)
    if isinstance(triple.guess, str):
        return Bounded(triple.lower, triple.upper, start="peak" if where.endswith("amplitude") else None)
    start = min(max(triple.guess, triple.lower), triple.upper)
    if start != triple.guess:
        note(where, "the first guess lies outside the bounds, so the fit starts at the nearer bound")
    return Bounded(triple.lower, triple.upper, start=start)


def _in_ratio(feature: _Feature, first: _Feature, note: Note) -> Tied:
    """Tie a fixed feature to the first fixed one, in the ratio of their guesses."""
    where = f"[{feature.name}] {feature.strength}"
    triple, reference = feature.triples[feature.strength], first.triples.get(feature.strength)
    if triple.relation:
        note(where, "constraints on features with 'fixed: yes' have no effect")
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
            f"[{first.name}] {feature.strength} must not be {b:g}: other fixed features keep their ratio to it. "
            "Give another first guess."
        )
    else:
        ratio = a / b
    factor = repr(ratio) if ratio >= 0 else f"({ratio!r})"
    return Tied(f"{first.name}.{feature.strength} * {factor}")


def check_not_2018(sections: Mapping[str, Mapping[str, str]]) -> None:
    """Raise UsageError for a section of the 2018 dialect, which has ``wavelength`` in place of ``rest_wavelength``."""
    for name, written in sections.items():
        if "wavelength" in written and "rest_wavelength" not in written:
            raise UsageError(_in_2018(name, written))


def _in_2018(name: str, written: Mapping[str, str]) -> str:
    """Say how to write a section of the 2018 dialect today, with its own numbers where they can be read."""
    speed_of_light = 299792.458
    advice = "'rest_wavelength', 'velocity' and 'sigma' in km/s"
    try:
        centre = read_triple(written["wavelength"])
        rest = float(centre.guess)
        parts = [f"'rest_wavelength: {rest:g}'" if rest == float(f"{rest:g}") else f"'rest_wavelength: {rest!r}'"]
        ends = ["" if math.isinf(end) else f"{speed_of_light * (end / rest - 1):.5g}" for end in (centre.lower, centre.upper)]
        parts.append("'velocity: 0" + (f", {ends[0]}:{ends[1]}'" if centre.bounded else "'"))
        width = number(re.split(",", written.get("sigma", ""))[0], "")
        parts.append(f"'sigma: {speed_of_light * width / rest:.4g}' (km/s, its bounds too)")
        advice = ", ".join(parts)
    except (Unreadable, ArithmeticError):
        pass
    strength = ", and 'amplitude' instead of 'flux'" if "flux" in written else ""
    return (
        f"[{name}] must have rest_wavelength; got 'wavelength', which IFSCube's 2018 dialect has and which is not read yet. "
        f"Write {advice} instead{strength}."
    )
