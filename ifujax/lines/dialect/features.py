"""The feature sections of a configuration file: what each says, and whose kinematics it uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ifujax.errors import UsageError, unknown
from ifujax.lines.config import SHAPE_PARAMETERS, Shape
from ifujax.lines.dialect.grammar import KEYWORDS, Reference, Triple, read_triple
from ifujax.lines.dialect.of_2018 import TO_KMS, in_kms
from ifujax.lines.dialect.priors import WrittenPrior, assign_priors
from ifujax.lines.dialect.values import Unreadable, quoted

MODEL_NAMES = {"sigma": "velocity_dispersion"}
"""Parameters whose name in the model differs from that in a configuration file."""

SHARED = ("velocity", "sigma")
"""What all members of a k_group take from its first member."""

OWN = tuple(dict.fromkeys(name for names in SHAPE_PARAMETERS.values() for name in names[2:]))
"""Parameters of some shapes only."""

_SYNONYMS = {"velocity_dispersion": "sigma", "h_3": "h3", "h_4": "h4"}
_ALIKE = 0.1  # relative difference up to which a group's members agree, once in km/s
_LARGEST = 1e6  # km/s: an infinite bound is unlike a finite one

Note = Callable[[str, str], None]
"""``note(option, reason)`` collects what is to be warned of."""


@dataclass
class Feature:
    """One section.

    `triples` are in the model's units (km/s) whatever the dialect; `written` holds their texts, and `spelling` the names of
    these options in the file where they differ. `owners` names the feature whose declaration a kinematic parameter follows.
    """

    name: str
    rest_wavelength: float
    shape: Shape
    strength: str
    angstrom: bool
    """Whether it is of the 2018 dialect: its centre and sigma are in Angstrom."""
    triples: dict[str, Triple]
    written: Mapping[str, str]
    spelling: Mapping[str, str]
    k_group: int | None
    fixed: bool
    continuum_windows: tuple[float, float, float, float] | None
    priors: dict[str, WrittenPrior] = field(default_factory=dict)
    """As in the file; by the names of `parameters` once owners are assigned."""
    owner: str = ""
    owners: dict[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Its parameters, as a file names them."""
        return (self.strength, *SHARED, *(name for name in OWN if name in SHAPE_PARAMETERS[self.shape]))

    def where(self, option: str) -> str:
        """Section and option, for messages."""
        return f"[{self.name}] {self.spelling.get(option, option)}"

    def synonym(self, parameter: str) -> str:
        """Return how a file's parameter is called elsewhere in its section."""
        parameter = _SYNONYMS.get(parameter, parameter)
        return "flux" if parameter == "amplitude" and self.spelling.get("amplitude") == "flux" else parameter

    def in_units(self, option: str) -> bool:
        """Whether the option is written in Angstrom."""
        return self.angstrom and option in TO_KMS


def read_feature(
    name: str, written: Mapping[str, str], values: Mapping[str, Any], function: Shape, given: Iterable[str], note: Note
) -> Feature:
    """Read one section.

    Parameters
    ----------
    name : str
    written, values : mapping
        Texts and values of its options, by canonical names.
    function : str
        Shape of lines whose section doesn't say.
    given : iterable of str
        The options as spelled in the file.
    note : callable
        Collects warnings.

    Raises
    ------
    UsageError
        For options that are missing, contradict one another, or can't be read.
    """
    angstrom = _is_2018(name, values, given)
    shape: Shape = values.get("function", function)
    strengths = [option for option in ("amplitude", "flux") if option in values]
    if len(strengths) != 1:
        got = "both" if strengths else "none"
        raise UsageError(f"[{name}] must have amplitude or flux, one of the two; got {got}. For example 'amplitude: peak, 0:'.")
    spelling = {"velocity": "wavelength"} if angstrom else {}
    strength = strengths[0]
    if angstrom and strength == "flux" and shape == "gaussian":
        # In 2018 `flux` is the peak of a Gaussian, and the integral of a Gauss-Hermite profile.
        strength, spelling["amplitude"] = "amplitude", "flux"
    texts = {
        option: written[spelling.get(option, option)] for option in (strength, *SHARED, *OWN) if _has(written, spelling, option)
    }
    feature = Feature(
        name,
        math.nan,
        shape,
        strength,
        angstrom,
        {},
        texts,
        spelling,
        values.get("k_group"),
        bool(values.get("fixed", False)),
        values.get("continuum_windows"),
        dict(values.get("prior", {})),
    )
    for option in texts:
        triple = _triple(feature, option)
        if option in feature.parameters:
            feature.triples[option] = triple
        else:
            shapes = " or ".join(each for each, names in SHAPE_PARAMETERS.items() if option in names)
            note(feature.where(option), f"no effect here, because only {shapes} lines have it")
    feature.rest_wavelength = _centre(feature) if angstrom else float(values["rest_wavelength"])
    if angstrom:
        _to_kms(feature)
    _check_widths(feature)
    return feature


def _has(written: Mapping[str, str], spelling: Mapping[str, str], option: str) -> bool:
    return spelling.get(option, option) in written


def _is_2018(name: str, values: Mapping[str, Any], given: Iterable[str]) -> bool:
    """Whether a section gives its line's centre as ``wavelength``."""
    if "rest_wavelength" in values:
        if "wavelength" in values:
            raise UsageError(
                f"[{name}] must have rest_wavelength (sigma in km/s) or wavelength (sigma in Angstrom); got both. Remove one."
            )
        return False
    if "wavelength" not in values:
        raise UsageError(f"[{name}] must have rest_wavelength; got none. Give it in Angstrom (every section is a feature).")
    for option in given:
        if option in ("velocity", "velocity_dispersion"):
            raise UsageError(
                f"[{name}] must not have {option} beside wavelength, with which centre and sigma are in Angstrom; got both. "
                "Write rest_wavelength for velocities in km/s, or bounds after the wavelength."
            )
    return True


def _triple(feature: Feature, option: str) -> Triple:
    text = feature.written[option]
    try:
        return read_triple(text, KEYWORDS if option in ("amplitude", "flux") else ())
    except Unreadable as error:
        raise UsageError(
            f"{feature.where(option)} must {error.requirement}; got {quoted(text)}. {error.advice}".rstrip()
        ) from None


def _centre(feature: Feature) -> float:
    rest = float(feature.triples["velocity"].guess)
    if not rest > 0:
        raise UsageError(
            f"{feature.where('velocity')} must be positive; got {quoted(feature.written['velocity'])}. Give Angstrom."
        )
    return rest


def _to_kms(feature: Feature) -> None:
    for option in SHARED:
        if option not in feature.triples:
            continue
        triple = in_kms(feature.triples[option], option, feature.rest_wavelength)
        if not math.isfinite(float(triple.guess)):
            raise UsageError(
                f"{feature.where(option)} must be a number of Angstrom; got {quoted(feature.written[option])}. Correct it."
            )
        feature.triples[option] = triple


def _check_widths(feature: Feature) -> None:
    sigma, lorentz = feature.triples.get("sigma"), feature.triples.get("lorentz_fwhm")
    unit = "Angstrom" if feature.angstrom else "km/s"
    if sigma is not None and not (float(sigma.guess) > 0 and sigma.upper > 0):
        raise UsageError(f"{feature.where('sigma')} must be positive; got {quoted(feature.written['sigma'])}. Give {unit}.")
    if lorentz is not None and not (float(lorentz.guess) >= 0 and lorentz.upper >= 0):
        got = quoted(feature.written["lorentz_fwhm"])
        raise UsageError(f"{feature.where('lorentz_fwhm')} must not be negative; got {got}. Give km/s.")


def assign_owners(features: Mapping[str, Feature], note: Note) -> None:
    """Find whose kinematics each feature uses: those of its group's first member.

    A parameter that only some shapes have belongs to the first member of such a shape.
    """
    leaders: dict[int, Feature] = {}
    fixed_owner: dict[int, Feature] = {}
    for feature in features.values():
        feature.owner = feature.name
        leader = feature if feature.k_group is None else leaders.setdefault(feature.k_group, feature)
        if leader is feature:
            _require_kinematics(feature)
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
        feature.triples |= {
            option: replace(triple, relation="", expression="")
            for option, triple in leader.triples.items()
            if option in feature.parameters and option != leader.strength
        }
    for feature in features.values():
        members = [other for other in features.values() if other.owner == feature.owner]
        for option in feature.parameters[1:]:
            first = next(other for other in members if option in other.parameters)
            feature.owners[option] = feature.owner if option in SHARED else first.name
            if option in OWN and feature is not first:
                _hand_over(feature, first, option, note)
    assign_priors(features, note)


def _require_kinematics(feature: Feature) -> None:
    for option in SHARED:
        if option not in feature.triples:
            raise UsageError(
                f"{feature.where(option)} must be given; got none. "
                "Only the second and later members of a k_group may leave it out."
            )


def _note_own_kinematics(feature: Feature, leader: Feature, note: Note) -> None:
    for option in SHARED:
        if option in feature.triples:
            _note_difference(feature, leader, option, note)


def _hand_over(feature: Feature, first: Feature, option: str, note: Note) -> None:
    """Give the first member what it has not been given itself, or say that a later member's has no effect."""
    if option not in feature.triples:
        return
    if option not in first.triples:
        first.triples[option] = feature.triples[option]
        first.written = {**first.written, option: feature.written.get(option, "")}
    else:
        _note_difference(feature, first, option, note)


def _note_difference(feature: Feature, leader: Feature, option: str, note: Note) -> None:
    triple, of_leader = feature.triples[option], leader.triples[option]
    where = feature.where(option)
    if triple.relation and triple != of_leader:
        raise UsageError(
            f"{where} must have no constraint: its k_group takes {option} from [{leader.name}]; "
            f"got {quoted(feature.written[option])}. Write the constraint in [{leader.name}]."
        )
    if feature.in_units(option) or leader.in_units(option):
        # In 2018 every member gave its own, in Angstrom; a wavelength without bounds is a rest wavelength and no more.
        said = option != "velocity" or triple.bounded
        if said and not _alike(triple, of_leader):
            note(where, "no effect here, because a k_group takes centre and sigma (once in km/s) from its first member")
    elif triple != of_leader:
        what = "velocity and sigma" if option in SHARED else option
        note(where, f"no effect here, because a k_group takes {what} from its first member")


def _alike(a: Triple, b: Triple) -> bool:
    pairs = [(float(a.guess), float(b.guess)), (a.lower, b.lower), (a.upper, b.upper)]
    return all(x == y or abs(x - y) <= _ALIKE * min(max(abs(x), abs(y)), _LARGEST) for x, y in pairs)


def resolve(features: Mapping[str, Feature], name: str, parameter: str, angstrom: bool, where: str) -> Reference:
    """Return the reference that a constraint means, or raise UsageError for a parameter that the feature hasn't got."""
    feature = features[name]
    parameter = parameter.lower()
    parameter = _SYNONYMS.get(parameter, parameter)
    if parameter == "flux" and feature.spelling.get("amplitude") == "flux":
        parameter = "amplitude"
    known = (*feature.parameters, *(("wavelength",) if angstrom else ()))
    if parameter not in known:
        raise UsageError(f"{where}: " + unknown(f"parameter of {name}", parameter, known))
    return Reference(name, parameter)


def model_name(features: Mapping[str, Feature], name: str, parameter: str) -> str:
    """Return the model's name of a feature's parameter, which is its group's where it is shared."""
    owner = features[name].owners.get(parameter, name)
    return f"{owner}.{MODEL_NAMES.get(parameter, parameter)}"
