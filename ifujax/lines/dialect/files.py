"""Text files of a configuration: itself, and the tables that it names."""

from __future__ import annotations

from pathlib import Path

from ifujax.errors import UsageError, nearest
from ifujax.lines.config import LSF
from ifujax.lines.dialect.values import Unreadable, number, numbers, positive, quoted

_MAX_BYTES = 1_000_000


def text_of(path: Path, kind: str) -> str:
    """Return a small text file's content."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(
            f"{kind} must exist; got {str(path)!r}.{nearest(path.name, _names_beside(path))} Check the path."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{kind} must be readable; got {str(path)!r} ({reason}). Check the path.") from None
    if len(raw) > _MAX_BYTES or any(byte < 32 and byte not in b"\t\n\v\f\r" for byte in raw):
        what = "a FITS file" if raw.startswith(b"SIMPLE  =") else "something else"
        raise UsageError(f"{kind} must be a text file of less than 1 MB; got {what} in {str(path)!r}. Check the path.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # accents in old comments


def _names_beside(path: Path) -> list[str]:
    try:
        return sorted(item.name for item in path.parent.iterdir())
    except OSError:
        return []


def read_rows(name: str, source: Path | None, option: str, columns: int) -> list[tuple[float, ...]]:
    """Read a text table whose path is relative to the configuration file or the current directory."""
    path = Path(name)
    beside = path if source is None else source.parent / path
    path = beside if beside.exists() else path
    rows: list[tuple[float, ...]] = []
    for line, text in enumerate(text_of(path, f"{option} file").splitlines(), start=1):
        fields = text.partition("#")[0].split()
        if not fields:
            continue
        try:
            if len(fields) != columns:
                raise Unreadable("")
            rows.append(tuple(number(item) for item in fields))
        except Unreadable:
            raise UsageError(
                f"{option} must have {columns} numbers a line; got {quoted(text)} in line {line} of {name!r}."
            ) from None
    if not rows:
        raise UsageError(f"{option} must have {columns} numbers a line; got an empty file {name!r}. Check the path.")
    return rows


def read_lsf(text: str, source: Path | None) -> LSF:
    """Read ``constant 2.5``, ``2.5``, ``polynomial 2.6, 1e-5 @ 7000`` or ``table FILE`` (observed Angstrom)."""
    kind, _, rest = text.partition(" ")
    rest = rest.strip()
    try:
        if kind.lower() == "table" and rest:
            rows = read_rows(rest, source, "table", 2)
            return LSF.table([row[0] for row in rows], [row[1] for row in rows])
        if kind.lower() == "polynomial":
            coefficients, at, reference = rest.partition("@")
            return LSF.polynomial(numbers(coefficients), number(reference) if at else 0.0)
        return LSF.constant(positive(rest if kind.lower() == "constant" else text))
    except UsageError as error:
        raise UsageError(f"[fit] lsf: {error}") from None
    except Unreadable:
        raise UsageError(
            "[fit] lsf must be 'constant 2.5', 'polynomial 2.6, 1e-5 @ 7000' or 'table FILE' (FWHM, observed Angstrom); "
            f"got {quoted(text)}."
        ) from None
