"""The errors and the one warning class that every part of ifujax uses.

Messages follow one form: ``<argument> must <requirement>; got <value>. <What to do.>``
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """The data can't be used as they are (command line: exit code 1)."""


class UsageError(ValueError):
    """A call, option or configuration is wrong (command line: exit code 2)."""


class SwappedImages(UsageError):
    """Images were given in the wrong order: no fault of one of many, but of the call."""


class IfujaxWarning(UserWarning):
    """The one class of warning that ifujax emits."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name most like `name`, or an empty string."""
    by_folded = {item.lower(): item for item in known}
    match = difflib.get_close_matches(name.lower(), list(by_folded), n=1, cutoff=0.5)
    return f" Did you mean {by_folded[match[0]]!r}?" if match else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown `name` of some `kind`, with the nearest and all known ones."""
    known = list(known)
    listed = ", ".join(known) if known else "none"
    return f"unknown {kind} {name!r}.{nearest(name, known)} Known: {listed}."
