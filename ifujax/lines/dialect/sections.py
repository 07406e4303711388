"""From the text of a configuration file to its sections, and from a section to values."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from typing import Any

from ifujax.errors import UsageError, nearest, unknown
from ifujax.lines.dialect.options import FEATURE_OPTIONS, OPTIONS, Option
from ifujax.lines.dialect.values import Unreadable, quoted

_FEATURE_NAME = re.compile(r'\w(?:(?![.\[\],"])[ -~])*', re.ASCII)


def split_sections(text: str) -> dict[str, dict[str, str]]:
    """Split a file into ``{section: {option: value}}``; [DEFAULT] goes where its options are known.

    Raises
    ------
    UsageError
        For what is no such file.
    """
    if "\0" in text:
        raise UsageError("configuration must be text; got binary data. Check the path.")
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text.replace("\r\n", "\n").replace("\r", "\n"))
    except configparser.DuplicateSectionError as error:
        raise UsageError(f"sections must be unique; got [{error.section}] again in line {error.lineno}. Join the two.") from None
    except configparser.DuplicateOptionError as error:
        raise UsageError(
            f"[{error.section}] must give each option once; got {error.option!r} again in line {error.lineno}. Remove one."
        ) from None
    except configparser.MissingSectionHeaderError as error:
        raise UsageError(
            f"line {error.lineno} must come after a section such as [fit]; got {quoted(error.line.strip())}."
        ) from None
    except configparser.ParsingError as error:
        line, what = error.errors[0] if error.errors else ("?", "")  # `what` is quoted already
        raise UsageError(f"line {line} must be '[section]' or 'option: value'; got {what[:80]}.") from None
    except configparser.Error as error:
        raise UsageError(f"configuration must consist of sections and 'option: value' lines; got {quoted(str(error))}.") from None
    found: dict[str, dict[str, str]] = {}
    for raw in parser.sections():
        name = raw.strip()
        if name in found:
            raise UsageError(f"sections must be unique; got [{name}] twice. Join the two.")
        found[name] = {option: value.replace("%%", "%") for option, value in parser.items(raw)}
    defaults = found.pop("DEFAULT", {})
    everywhere = [FEATURE_OPTIONS, *OPTIONS.values()]
    for option, value in defaults.items():
        if not any(_canonical(option, table) for table in everywhere):
            raise UsageError(
                "[DEFAULT]: " + unknown("option", option, sorted({known for table in everywhere for known in table}))
            )
        for name, section in found.items():
            table = OPTIONS.get(name, FEATURE_OPTIONS)
            canonical = _canonical(option, table)
            if canonical and canonical not in {_canonical(given, table) for given in section}:
                section[option] = value
    return found


def _canonical(option: str, table: Mapping[str, Option]) -> str | None:
    return option if option in table else next((name for name in table if option in table[name].spellings), None)


def check_feature_name(name: str, section: Mapping[str, str]) -> None:
    """Raise UsageError for a name that no line can have, or that seems to be a reserved section's misspelt."""
    reserved = {known.lower(): known for known in [*OPTIONS, "DEFAULT"]}
    if name.lower() in reserved:
        raise UsageError(f"section [{name}] must be written [{reserved[name.lower()]}]: capital letters count in section names.")
    if "rest_wavelength" not in section and "wavelength" not in section and nearest(name, OPTIONS):
        known = any(_canonical(option, table) for option in section for table in OPTIONS.values())
        if known or not section:
            raise UsageError(
                f"section [{name}] must be a reserved section or a feature with a rest_wavelength; got neither."
                f"{nearest(name, OPTIONS)} Reserved: {', '.join(OPTIONS)}."
            )
    if not _FEATURE_NAME.fullmatch(name):
        raise UsageError(
            "name of a feature must be ASCII, begin with a letter or digit, and hold no periods, commas, quotes, brackets; "
            f"got {quoted(name)}. Rename the section."
        )


def read_section(
    name: str, written: Mapping[str, str], table: Mapping[str, Option], notes: dict[str, list[str]]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return a section's texts and values by canonical option, and note what has no effect."""
    texts: dict[str, str] = {}
    values: dict[str, Any] = {}
    for given, text in written.items():
        option = _canonical(given, table)
        if option is None:
            raise UsageError(f"[{name}]: " + unknown("option", given, table))
        if option in values:
            raise UsageError(f"[{name}] {option} must be given once; got it in two spellings. Remove one.")
        entry = table[option]
        try:
            value = entry.read(text)
        except Unreadable as error:
            raise UsageError(f"[{name}] {given} must {error.requirement}; got {quoted(text)}.{_hint(text, error)}") from None
        texts[option], values[option] = text, value
        if entry.effect == "honoured" or entry.idle(value):
            continue
        if entry.effect == "refused":
            raise UsageError(f"[{name}] {given} must be left out; got {quoted(text)}. {entry.reason}.")
        notes.setdefault(f"no effect here, because {entry.reason}", []).append(f"[{name}] {given}")
    return texts, values


def _hint(text: str, error: Unreadable) -> str:
    if error.advice:
        return f" {error.advice}"
    if "\n" in text:
        return " A line that begins with a blank continues the one before: remove the blank."
    if re.search("[#;]", text):
        return " Put comments on lines of their own."
    return ""
