"""The grammar of a feature's options: ``value, bounds, constraint`` and the expressions in it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ifujax.errors import UsageError, unknown
from ifujax.inference.parameter_space.constraints import Expression, parse
from ifujax.inference.precision import working_precision
from ifujax.lines.dialect.values import Unreadable, number, quoted

KEYWORDS = ("peak", "mean", "median")
"""First guesses of a strength by word. All of them let the fit look for its start in the data."""

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


@dataclass(frozen=True)
class Reference:
    """A parameter as a constraint names it."""

    feature: str
    parameter: str

    def __str__(self) -> str:
        return f"{self.feature}.{self.parameter}"


@dataclass(frozen=True)
class Constraint:
    """The right side of a constraint: arithmetic of references and numbers, in the units of its section."""

    pieces: tuple[str | Reference, ...]
    expression: Expression
    """The same, parsed; it names the references."""

    @property
    def references(self) -> tuple[Reference, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, Reference))

    def text(self, write: Callable[[Reference], str]) -> str:
        """Write it out, with each reference as `write` has it."""
        return _joined([piece if isinstance(piece, str) else write(piece) for piece in self.pieces])

    def number(self) -> float:
        """Return the value of arithmetic of numbers alone."""
        with working_precision("float64"):
            return float(self.expression({}))


def read_constraint(
    expression: str, names: Iterable[str], option: str, resolve: Callable[[str, str], Reference], where: str
) -> Constraint:
    """Find the parameters that an expression names, and check the arithmetic.

    Parameters
    ----------
    expression : str
        As written in the file.
    names : iterable of str
        Names of the features.
    option : str
        The parameter that a feature's name alone stands for.
    resolve : callable
        ``resolve(feature, parameter)`` returns the reference, or raises UsageError for what the feature hasn't got.
    where : str
        Section and option, for messages.

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
    pieces: list[str | Reference] = []

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
            pieces.append(resolve(feature, match[2] or inner or option))
        elif match := _FUNCTION.match(expression, position):
            pieces.append(match[1])
        elif (match := reference.match(expression, position)) and not (match[2] is None and _NUMBER.fullmatch(match[1])):
            pieces.append(resolve(match[1], match[2] or option))
        elif (match := _NUMBER.match(expression, position)) and math.isfinite(float(match[0])):
            pieces.append(repr(float(match[0])))
        elif match := _OPERATOR.match(expression, position):
            pieces.append(match[0])
        else:
            raise UsageError(_complaint(expression, position, names, where))
        position = match.end()
    used = list(dict.fromkeys(str(piece) for piece in pieces if isinstance(piece, Reference)))
    advice = f"got {quoted(expression)}. Correct it."
    try:
        parsed = parse(_joined([str(piece) for piece in pieces]), used, where=where)
        # Values that all differ keep "1 / (a - b)" legal and find "a / 0" before any fit does.
        value = parsed({name: 1.234 + 0.1 * i for i, name in enumerate(used)})
    except UsageError:
        raise UsageError(f"{where} must be arithmetic of feature.parameter and numbers; {advice}") from None
    except ArithmeticError:
        raise UsageError(f"{where} must not divide by zero or overflow; {advice}") from None
    except RecursionError:
        raise UsageError(f"{where} must be less deeply nested; {advice}") from None
    if not used and (isinstance(value, complex) or not math.isfinite(value)):
        raise UsageError(f"{where} must have a finite result; {advice}")
    return Constraint(tuple(pieces), parsed)


def _joined(pieces: Iterable[str]) -> str:
    """Put blanks between the pieces, but not inside brackets."""
    text, previous = "", "("
    for piece in pieces:
        text += piece if previous == "(" or piece in (")", ",") else f" {piece}"
        previous = piece
    return text


def _complaint(expression: str, position: int, names: list[str], where: str) -> str:
    match = _WORD.match(expression, position)
    token = match[0] if match else expression[position]
    if not re.match(r"[^\W\d]", token):
        return f"{where} must be arithmetic of feature.parameter and numbers; got {token!r} in {quoted(expression)}. Correct it."
    return f"{where}: " + unknown("feature", token.partition(".")[0], names)
