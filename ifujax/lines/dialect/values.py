"""Readers of single values in a configuration file: text to a number, a word, a range."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


class Unreadable(ValueError):
    """A value that doesn't suit its option: what it must be, and what to do."""

    def __init__(self, requirement: str, advice: str = "") -> None:
        super().__init__(requirement)
        self.requirement = requirement
        self.advice = advice


def quoted(text: str) -> str:
    """Quote a value for a message, in one line of bounded length."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def number(text: str, requirement: str = "be a number") -> float:
    """Read one finite number."""
    text = text.strip()
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise Unreadable(requirement)
    return value


def boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise Unreadable("be yes or no") from None


def string(text: str) -> str | None:
    """A word; empty and ``None`` stand for nothing, as in IFSCube."""
    return None if text in ("", "None") else text


def extension(text: str) -> str | int | None:
    """An HDU: an integer, or a name (with ``NAME, 2`` for a version)."""
    return int(text) if _INTEGER.fullmatch(text) else string(text)


def positive(text: str) -> float:
    value = number(text, "be a positive number")
    if value <= 0:
        raise Unreadable("be a positive number")
    return value


def not_negative(text: str) -> float:
    value = number(text, "be a number, 0 or more")
    if value < 0:
        raise Unreadable("be a number, 0 or more")
    return value


def integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise Unreadable("be an integer")
    return int(text)


def count(text: str) -> int:
    value = integer(text)
    if value < 0:
        raise Unreadable("be an integer, 0 or more")
    return value


def at_least_one(text: str) -> int:
    value = integer(text)
    if value < 1:
        raise Unreadable("be an integer, 1 or more")
    return value


def redshift(text: str) -> float | None:
    value = None if string(text) is None else number(text)
    if value is not None and value <= -1:
        raise Unreadable("be a number above -1")
    return value


def numbers(text: str) -> tuple[float, ...]:
    return tuple(number(item, "be numbers with commas between") for item in text.rstrip(", ").split(","))


def window(text: str) -> tuple[float, float]:
    """``low:high``, in rest-frame Angstrom."""
    low, colon, high = text.partition(":")
    requirement = "be low:high in rest-frame Angstrom, for example 6450:6650"
    ends = number(low, requirement), number(high, requirement)
    if not colon or not 0 <= ends[0] < ends[1]:
        raise Unreadable(requirement)
    return ends


def half_widths(text: str) -> tuple[float, ...]:
    """Three or five positive numbers: changes of amplitude, velocity, sigma, and of h3 and h4."""
    values = numbers(text)
    if len(values) not in (3, 5) or min(values) <= 0:
        raise Unreadable("be 3 or 5 positive numbers: share of the amplitude, km/s, km/s, and for h3 and h4")
    return values


def windows(text: str) -> tuple[float, ...]:
    """``blue0, blue1, red0, red1``, in rest-frame Angstrom."""
    requirement = "be blue0, blue1, red0, red1 in rest-frame Angstrom, each pair ascending"
    try:
        values = numbers(text)
    except Unreadable:
        raise Unreadable(requirement) from None
    if len(values) != 4 or not 0 <= values[0] < values[1] or not 0 <= values[2] < values[3]:
        raise Unreadable(requirement)
    return values


def spaxel(text: str) -> tuple[int, int] | str:
    """``x, y`` as 0-based integers, ``peak`` or ``cofm``."""
    items = [item.strip() for item in text.split(",")]
    if len(items) == 2 and all(_INTEGER.fullmatch(item) and int(item) >= 0 for item in items):
        return int(items[0]), int(items[1])
    return _place(text, "be no, peak, cofm, or x, y: integers from 0")


def position(text: str) -> tuple[float, float] | str:
    """``x, y`` in pixels from 0, ``peak`` or ``cofm``."""
    requirement = "be peak, cofm, or x, y: pixels from 0"
    x, comma, y = text.partition(",")
    return (number(x, requirement), number(y, requirement)) if comma else _place(text, requirement)


def _place(text: str, requirement: str) -> str:
    if text.lower() not in ("peak", "cofm"):
        raise Unreadable(requirement)
    return text.lower()


def share(text: str) -> float:
    value = number(text, "be a number from 0 to 1")
    if not 0 <= value <= 1:
        raise Unreadable("be a number from 0 to 1")
    return value


def percentage(text: str) -> float:
    value = number(text, "be a number between 0 and 100")
    if not 0 < value < 100:
        raise Unreadable("be a number between 0 and 100")
    return value


def as_written(text: str) -> str:
    return text


def word(*choices: str, **aliases: str) -> Callable[[str], str]:
    """Return a reader of one of the `choices`, in any case, hyphens or underscores alike."""

    def read(text: str) -> str:
        folded = text.lower().replace("-", "_")
        folded = aliases.get(folded, folded)
        if folded not in choices:
            raise Unreadable(f"be {' or '.join(choices)}")
        return folded

    return read


def off_or(read: Callable[[str], Any], off: Any = None) -> Callable[[str], Any]:
    """Return a reader that takes ``no`` and ``none`` for `off`."""
    return lambda text: off if text.lower() in ("", "no", "none") else read(text)
