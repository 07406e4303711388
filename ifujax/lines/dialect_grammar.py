"""The grammar of a feature's options: ``value, bounds, constraint`` and the expressions in it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ifujax.errors import UsageError, unknown
from ifujax.inference.constraints import Expression, parse
from ifujax.lines.dialect_options import Unreadable, number, quoted

KEYWORDS = ("peak", "mean", "median")
"""First guesses of an amplitude by word. All of them let the fit look for its start in the data."""

MODEL_NAMES = {
    "amplitude": "amplitude",
    "flux": "flux",
    "velocity": "velocity",
    "sigma": "velocity_dispersion",
    "velocity_dispersion": "velocity_dispersion",
}
"""Names of parameters in a configuration file, and in the model."""

_FUNCTIONS = ("sqrt", "exp", "log", "abs", "min", "max")
_MAX_LENGTH = 300  # characters: keeps nested brackets far from Python's recursion limit
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?![\w.])", re.ASCII)
_OPERATOR = re.compile(r"\*\*|[-+*/(),]")
_FUNCTION = re.compile(rf"({'|'.join(_FUNCTIONS)})(?=\s*\()")
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?:\.(\w+)(?![\w.]))?")
_WORD = re.compile(r"[\w.]+|\S")


@dataclass(frozen=True)
class Triple:
    """One option as written: guess, bounds and constraint, not yet interpreted."""

    guess: float | str
    lower: float = -math.inf
    upper: float = math.inf
    relation: str = ""
    """``<``, ``>``, ``=``, or empty where there is no constraint."""
    expression: str = ""

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.lower) or math.isfinite(self.upper)


def read_triple(text: str, keywords: Iterable[str] = ()) -> Triple:
    """Read ``value``, ``value, bounds`` or ``value, bounds, constraint``.

    Parameters
    ----------
    text : str
    keywords : iterable of str
        Words allowed instead of a value.

    Raises
    ------
    Unreadable
        With what the value must be.
    """
    value, bounds, constraint = [*(part.strip() for part in text.split(",", 2)), "", ""][:3]
    words = tuple(keywords)
    requirement = "start with a number" + (f" or one of {', '.join(words)}" if words else "")
    guess: float | str = value.lower() if value.lower() in words else number(value, requirement)
    lower, upper = _bounds(bounds, guess)
    constraint = constraint.rstrip(", ")
    relation = constraint[0] if constraint[:1] in ("<", ">") else "=" if constraint else ""
    expression = constraint[1:].strip() if relation in ("<", ">") else constraint
    if relation in ("<", ">"):
        expression = expression.removeprefix("=").strip()  # <= means the same as <
        if not expression:
            raise Unreadable(f"have something to compare with after {relation!r}", f"Write '{relation} feature.parameter'.")
    return Triple(guess, lower, upper, relation, expression)


def _bounds(text: str, guess: float | str) -> tuple[float, float]:
    requirement = "have bounds of the form low:high, low:, :high or +- width"
    if not text:
        return -math.inf, math.inf
    if text.startswith("+-"):
        if isinstance(guess, str):
            raise Unreadable("have bounds of the form low:high where the guess is a word", "+- needs a number to start from.")
        width = number(text[2:], requirement)
        if width <= 0:
            raise Unreadable("have a positive number after +-")
        return guess - width, guess + width
    low, colon, high = text.partition(":")
    if not colon:
        raise Unreadable(requirement)
    lower = _side(low, -math.inf, requirement)
    upper = _side(high, math.inf, requirement)
    if lower > upper:
        raise Unreadable("have a lower bound below the upper one", "Exchange them.")
    return lower, upper


def _side(text: str, missing: float, requirement: str) -> float:
    text = text.strip()
    infinite = ("", "-inf") if missing < 0 else ("", "inf", "+inf")
    return missing if text.lower() in infinite else number(text, requirement)


def rewrite(expression: str, names: Iterable[str], option: str, resolve: Callable[[str, str], str], where: str) -> Expression:
    """Put the model's names in place of the file's, and check the arithmetic.

    Parameters
    ----------
    expression : str
        Arithmetic of numbers and of ``feature.parameter``, ``[feature].parameter``, or a
        feature alone, which means its parameter of the same kind.
    names : iterable of str
        The features.
    option : str
        The parameter that a feature alone stands for.
    resolve : callable
        ``(feature, parameter) -> name`` in the model; raises UsageError for an unknown parameter.
    where : str
        Section and option, for messages.

    Returns
    -------
    Expression
        Its `names` are empty for arithmetic of numbers alone.

    Raises
    ------
    UsageError
        For unknown names (the nearest is suggested) and for what is not arithmetic.
    """
    names = list(names)
    if len(expression) > _MAX_LENGTH:
        raise UsageError(
            f"{where} must have a constraint of at most {_MAX_LENGTH} characters; got {len(expression)}. Shorten it."
        )
    if re.search(r"([-+]\s*){3}", expression):
        raise UsageError(f"{where} must not hold three signs in a row; got {quoted(expression)}. Correct it.")
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    reference = re.compile(rf"({alternatives})(?:\.([^\W\d]\w*))?(?![\w.])")
    pieces: list[str] = []
    used: list[str] = []

    def take(feature: str, parameter: str | None) -> None:
        name = resolve(feature, parameter or option)
        pieces.append(name)
        used.append(name)

    position = 0
    while position < len(expression):
        if expression[position].isspace():
            position += 1
            continue
        match = _BRACKETED.match(expression, position)
        if match:
            feature, _, inner = match[1].strip().partition(".")
            if feature not in names:
                raise UsageError(f"{where}: " + unknown("feature", feature, names))
            take(feature, match[2] or inner or None)
        elif match := _FUNCTION.match(expression, position):
            pieces.append(match[1])
        elif (match := reference.match(expression, position)) and not (match[2] is None and _NUMBER.fullmatch(match[1])):
            take(match[1], match[2])
        elif (match := _NUMBER.match(expression, position)) and math.isfinite(float(match[0])):
            pieces.append(repr(float(match[0])))
        elif match := _OPERATOR.match(expression, position):
            pieces.append(match[0])
        else:
            raise UsageError(_complaint(expression, position, names, where))
        position = match.end()
    text = " ".join(pieces).replace("( ", "(").replace(" )", ")").replace(" ,", ",")
    advice = f"got {quoted(expression)}. Correct it."
    try:
        parsed = parse(text, dict.fromkeys(used), where=where)
        # Values that all differ keep "1 / (a - b)" legal and find "a / 0" before any fit does.
        value = parsed({name: 1.234 + 0.1 * i for i, name in enumerate(dict.fromkeys(used))})
    except UsageError:
        raise UsageError(f"{where} must be arithmetic of feature.parameter and numbers; {advice}") from None
    except ArithmeticError:
        raise UsageError(f"{where} must not divide by zero or overflow; {advice}") from None
    except RecursionError:
        raise UsageError(f"{where} must be less deeply nested; {advice}") from None
    if not used and (isinstance(value, complex) or not math.isfinite(value)):
        raise UsageError(f"{where} must have a finite result; {advice}")
    return parsed


def _complaint(expression: str, position: int, names: list[str], where: str) -> str:
    match = _WORD.match(expression, position)
    token = match[0] if match else expression[position]
    if not re.match(r"[^\W\d]", token):
        return f"{where} must be arithmetic of feature.parameter and numbers; got {token!r} in {quoted(expression)}. Correct it."
    return f"{where}: " + unknown("feature", token.partition(".")[0], names)
