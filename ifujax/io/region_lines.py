"""The language of DS9 region files: lines become shapes with numbers, or an error that names the line."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ifujax.errors import UsageError, nearest

FRAMES = {
    "fk4": "fk4", "b1950": "fk4", "fk5": "fk5", "j2000": "fk5", "icrs": "icrs", "galactic": "galactic",
    "ecliptic": "barycentricmeanecliptic",
}  # fmt: skip
"""Systems on the sky, and astropy's frames for them."""
PIXELS = ("image", "physical")
_NOT_HERE = ("linear", "amplifier", "detector", "tile", "wcs", *(f"wcs{letter}" for letter in "0abcdefghijklmnopqrstuvwxyz"))
"""Systems that DS9 has and we have not."""
SHAPES = ("circle", "ellipse", "box", "polygon", "annulus")
_NO_AREA = ("point", "line", "vector", "text", "ruler", "compass", "projection", "segment")
_SECTORS = ("panda", "epanda", "bpanda", "composite", "pie", "field", "rotbox")
_ARCSEC = {"": 3600.0, "d": 3600.0, "'": 60.0, '"': 1.0, "r": math.degrees(3600.0)}
"""Arcsec in one of what a size may be given in."""
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SHAPE_LIKE = re.compile(r"\s*[+-]?\s*([A-Za-z]+)\s*(\(|\s[+-]?[\d.])")


@dataclass(frozen=True)
class Length:
    """A size: arcsec where `angular`, else pixels."""

    value: float
    angular: bool


@dataclass(frozen=True)
class Declared:
    """A shape as its line declares it.

    Attributes
    ----------
    shape : one of `SHAPES`
    system : one of `FRAMES` or `PIXELS`
    points : tuple of (float, float)
        Vertices, or the centre alone: degrees on the sky, or 1-based pixels.
    lengths : tuple of Length
        In DS9's order.
    angle : float
        Degrees.
    include : bool
    text : str
        As written.
    where : str
        File and line.
    """

    shape: str
    system: str
    points: tuple[tuple[float, float], ...]
    lengths: tuple[Length, ...]
    angle: float
    include: bool
    text: str
    where: str


def parse_lines(lines: Sequence[str], name: str) -> list[Declared]:
    """Return the shapes of a region file; `name` is what messages call it.

    Raises
    ------
    UsageError
        For what can't be honoured.
    """
    system, include_default = "physical", True
    shapes: list[Declared] = []
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("#"):
            continue
        where = f"{name}, line {number}"
        for command, properties in _commands(line):
            word = command.lower()
            flag = re.search(r"(?i)\binclude\s*=\s*([01])", properties if word.split()[:1] != ["global"] else command)
            if word.split()[:1] == ["global"]:
                include_default = flag is None or flag[1] == "1"
            elif word in FRAMES or word in PIXELS:
                system = word
            elif word in _NOT_HERE or word.split()[0] == "tile":
                raise _refused(command, where, "be in a coordinate system that is known here", f"Use {_known_systems()}.")
            else:
                include = include_default if flag is None else flag[1] == "1"
                shapes.append(_shape(command, system, include, where))
    return shapes


def _commands(line: str) -> Iterator[tuple[str, str]]:
    """Yield what stands between semicolons, and the properties after its ``#``; neither splits braces or quoted text.

    Comments are free text: after a ``#``, only what looks like a shape or a system is a command again.
    """
    commented = False
    for part in _split(line, ";"):
        command, *rest = _split(part, "#")
        command = command.strip()
        known = command.lower() in (*FRAMES, *PIXELS, *_NOT_HERE)
        if command and (not commented or known or _SHAPE_LIKE.match(command)):
            yield command, "#".join(rest)
        commented = commented or bool(rest)


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator outside of ``{...}``, and outside of quotes that follow an equals sign (`"` also is arcsec)."""
    parts, start, closing, previous = [], 0, "", ""
    for i, character in enumerate(text):
        if closing:
            closing = "" if character == closing else closing
        elif character == "{":
            closing = "}"
        elif character in "\"'" and previous == "=":
            closing = character
        elif character == separator:
            parts.append(text[start:i])
            start = i + 1
        if not character.isspace():
            previous = character
    return [*parts, text[start:]]


def _shape(command: str, system: str, include: bool, where: str) -> Declared:
    match = re.fullmatch(r"([+-]?)\s*([A-Za-z]+)\s*(?:\(([^()]*)\)|(?=[\s+-.\d])([^()]*))\s*(\|\|)?", command)
    if match is None:
        raise _refused(command, where, "be a shape such as circle(100,80,20)", f"Shapes: {', '.join(SHAPES)}.")
    sign, shape = match[1], match[2].lower()
    if shape in _NO_AREA:
        raise _refused(command, where, "have an area", "Remove the line, or use a circle.")
    if shape not in SHAPES:
        hint = "" if shape in _SECTORS else nearest(shape, SHAPES)
        raise _refused(command, where, "be a shape that is known here", f"Shapes: {', '.join(SHAPES)}.{hint}")
    words = _words(match[3] if match[3] is not None else match[4] or "")
    if shape != "polygon" and words and re.fullmatch(r"(?i)n\s*=\s*\d+", words[-1]):
        words.pop()  # into how many rings an annulus is cut: they cover the same pixels
    try:
        points, rest = _points(words, 2 * (len(words) // 2) if shape == "polygon" else 2, system)
        lengths, angle = _sizes(shape, rest, system)
    except ValueError as error:
        raise _refused(command, where, str(error), "Check its numbers and their units.") from None
    if sign == "-":
        include = False
    return Declared(shape, system, points, lengths, angle, include, command, where)


def _words(text: str) -> list[str]:
    """Numbers between commas; between blanks where there are no commas."""
    return [word.strip() for word in text.split(",")] if "," in text else text.split()


def _points(words: list[str], count: int, system: str) -> tuple[tuple[tuple[float, float], ...], list[str]]:
    if len(words) < max(count, 2):
        raise ValueError("have a position")
    read = [_coordinate(word, system, longitude=i % 2 == 0) for i, word in enumerate(words[:count])]
    return tuple(zip(read[::2], read[1::2])), words[count:]


def _coordinate(word: str, system: str, longitude: bool) -> float:
    """A coordinate in degrees, or in 1-based pixels."""
    if system in PIXELS:
        match = re.fullmatch(rf"({_NUMBER})[ip]?", word, re.IGNORECASE)
        if match is None:
            raise ValueError(f"have positions in pixels, as the system is {system}, not {word!r}")
        return float(match[1])
    hours = 15.0 if longitude and system not in ("galactic", "ecliptic") else 1.0
    match = re.fullmatch(rf"({_NUMBER})(d|r)?", word, re.IGNORECASE)
    if match is not None:
        value = float(match[1])
        degrees = math.degrees(value) if (match[2] or "").lower() == "r" else value
    elif (match := re.fullmatch(rf"([+-]?)(\d+)[: ]\s*(\d+)(?:[: ]\s*({_NUMBER}))?", word)) is not None:
        degrees = hours * _sexagesimal(match[1], match[2], match[3], match[4])
    elif (match := re.fullmatch(rf"(?i)([+-]?)(\d+)([hd])\s*(\d+)m\s*(?:({_NUMBER})s)?", word)) is not None:
        factor = 15.0 if match[3].lower() == "h" else 1.0
        degrees = factor * _sexagesimal(match[1], match[2], match[4], match[5])
    else:
        raise ValueError(f"have a position on the sky, as the system is {system}, not {word!r}")
    if not longitude and abs(degrees) > 90:
        raise ValueError(f"have a latitude within 90 degrees, not {word!r}")
    return degrees


def _sexagesimal(sign: str, whole: str, minutes: str, seconds: str | None) -> float:
    rest = float(seconds or 0)
    if int(minutes) >= 60 or not 0 <= rest < 60:
        raise ValueError("have minutes and seconds below 60")
    return (-1.0 if sign == "-" else 1.0) * (int(whole) + int(minutes) / 60 + rest / 3600)


def _length(word: str, system: str) -> Length:
    match = re.fullmatch(rf"({_NUMBER})\s*([dr'\"ip]?)", word, re.IGNORECASE)
    if match is None:
        raise ValueError(f"have sizes in degrees, ', \" or pixels, not {word!r}")
    value, suffix = float(match[1]), match[2].lower()
    if not value >= 0:
        raise ValueError(f"have sizes that are not negative, not {word!r}")
    pixels = suffix in ("i", "p") or (not suffix and system in PIXELS)
    return Length(value, False) if pixels else Length(value * _ARCSEC[suffix], True)


def _sizes(shape: str, words: list[str], system: str) -> tuple[tuple[Length, ...], float]:
    """The sizes of a shape, and its angle in degrees."""
    if shape == "polygon":
        if words:
            raise ValueError("have two coordinates for each vertex")
        return (), 0.0
    angle = 0.0
    if shape in ("ellipse", "box") and len(words) % 2:  # the angle may be left out
        match = re.fullmatch(rf"({_NUMBER})\s*(d|r)?", words[-1], re.IGNORECASE)
        if match is None:
            raise ValueError(f"have an angle in degrees, not {words[-1]!r}")
        angle = math.degrees(float(match[1])) if (match[2] or "").lower() == "r" else float(match[1])
        words = words[:-1]
    lengths = [_length(word, system) for word in words]
    group = 2 if shape in ("ellipse", "box") else 1
    rings = len(lengths) // group
    if rings == 0 or (shape == "circle" and rings > 1) or (shape == "annulus" and rings < 2):
        wanted = {"circle": "one radius", "annulus": "two radii or more", "ellipse": "two radii", "box": "two sides"}[shape]
        raise ValueError(f"have {wanted} after its position, not {len(words)} sizes")
    if len({length.angular for length in lengths}) > 1:
        raise ValueError("have all its sizes in pixels or all in angles")
    for i in range(group):
        each = [length.value for length in lengths[i::group]]
        if any(after <= before for before, after in itertools.pairwise(each)):
            raise ValueError("have sizes that grow from ring to ring")
    if not all(length.value > 0 for length in lengths[-group:]):
        raise ValueError("have a size above 0")
    if rings > 1 and any(length.value == 0 for length in lengths[:group]):
        lengths = lengths[-group:]  # no hole
    return tuple(lengths), angle


def _refused(command: str, where: str, requirement: str, advice: str) -> UsageError:
    return UsageError(f"a region must {requirement}; got {command!r} ({where}). {advice}")


def _known_systems() -> str:
    return ", ".join((*PIXELS, *FRAMES))
