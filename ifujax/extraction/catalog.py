"""Catalogues of sources: text, CSV, FITS and ECSV, as AutoSpec's and others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ifujax.errors import DataError
from ifujax.extraction.config import ExtractionConfig

_NAMES = {
    "id": ("id", "source_id", "number", "name", "num", "obj", "object", "objid"),
    "ra": ("ra", "raj2000", "ra_j2000", "alpha_j2000", "alphawin_j2000", "ra_deg", "_raj2000"),
    "dec": ("dec", "dej2000", "dec_j2000", "delta_j2000", "deltawin_j2000", "dec_deg", "_dej2000", "de"),
    "size": ("size",),
    "ref": ("ref", "reference"),
}
_MISSING = ("", "-", "--", "none", "nan", "n/a")


@dataclass(frozen=True)
class CatalogSource:
    """One source of a catalogue.

    Parameters
    ----------
    id : str
        As written; it names the product.
    ra, dec : float
        Degrees.
    size : float or None
        Side of its stamp, arcsec.
    reference : str or None
    settings : mapping
        Settings of its own, from columns named as those of `ExtractionConfig`.
    """

    id: str
    ra: float
    dec: float
    size: float | None = None
    reference: str | None = None
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalog:
    """Sources, and those rows that can't be used with the reason."""

    sources: tuple[CatalogSource, ...]
    rejected: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)


def read_catalog(path: str | Path) -> Catalog:
    """Read a catalogue of sources: identifier, right ascension and declination, and perhaps size and reference.

    Columns are known by their names (``id``, ``ra``, ``dec``, ``size``, ``ref``, in any case, and those of SExtractor and VizieR)
    or, in a text without names, by their order, as AutoSpec's. Angles are degrees; sexagesimal ones (``04:13:25.4``,
    ``+10 27 55``) and right ascensions in hours, where the unit of the column says so, are understood.

    Parameters
    ----------
    path : str or Path
        Text (white space or commas; ``#`` begins a comment), CSV, ECSV or a FITS table.

    Raises
    ------
    DataError
        If the file can't be read or holds no source. Rows that can't be used are in ``rejected`` with their reason.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"the catalogue must be a file; got {path}, which isn't there.")
    rows, notes = _rows_of_table(path) if _is_table(path) else _rows_of_text(path)
    sources: list[CatalogSource] = []
    rejected: list[tuple[str, str]] = []
    taken: set[str] = set()
    for number, row in enumerate(rows, 1):
        name = str(row.get("id", number)).strip()
        try:
            source = _source(name, row)
        except DataError as error:
            rejected.append((name, str(error)))
            continue
        if source.id in taken:
            rejected.append((name, "id must be unique; got one that an earlier row has. Rename one of the two."))
            continue
        taken.add(source.id)
        sources.append(source)
    if not sources and not rejected:
        raise DataError(f"{path} must hold a source: id, ra, dec in degrees; got no row.")
    return Catalog(tuple(sources), tuple(rejected), tuple(notes))


def _is_table(path: Path) -> bool:
    name = path.name.lower()
    if re.search(r"\.(fits|fit|fts)(\.(gz|bz2|fz))?$", name) or name.endswith((".ecsv", ".vot", ".xml")):
        return True
    with path.open("rb") as stream:
        return stream.read(7) == b"# %ECSV"


def _rows_of_table(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    from astropy import units
    from astropy.io.registry import IORegistryError
    from astropy.table import Table

    try:
        name = path.name.lower()
        table = Table.read(path, format="ascii.ecsv" if not re.search(r"\.(fits|fit|fts|vot|xml)\b", name) else None)
    except (OSError, ValueError, KeyError, TypeError, IORegistryError) as error:
        raise DataError(f"{path} must be a table of sources; got {type(error).__name__}: {error}.") from None
    columns = _named(list(table.colnames))
    _require(columns, path, table.colnames)
    rows: list[dict[str, Any]] = [{} for _ in range(len(table))]
    for key, column in columns.items():
        unit = table[column].unit
        turns = 1.0
        if key in {"ra", "dec"} and unit is not None:
            try:
                turns = float(np.asarray(units.Unit(unit).to(units.deg)))
            except (ValueError, TypeError, units.UnitConversionError):
                turns = 1.0
        for row, value in zip(rows, table[column], strict=True):
            if np.ma.is_masked(value):
                continue
            value = value.decode() if isinstance(value, bytes) else value
            row[key] = value * turns if turns != 1.0 and isinstance(value, (int, float, np.number)) else value
    return rows, []


def _rows_of_text(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    header: list[str] | None = None
    cells: list[list[str]] = []
    comment: list[str] | None = None
    commas = any("," in line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if text.startswith("#"):
            words = _split(text.lstrip("#").strip(), "," in text)
            found = _named(words)
            if {"id", "ra", "dec"} <= found.keys() and not cells:
                comment = words
            continue
        text = text.split("#", 1)[0].strip()
        words = _split(text, commas)
        if not cells and header is None and _is_header(words):
            header = words
            continue
        cells.append(words)
    widest = max((len(row) for row in cells), default=0)
    names = header if header is not None else comment if comment is not None and len(comment) >= widest else None
    if names is not None:
        columns = _named(names)
        _require(columns, path, names)
        places = {key: names.index(column) for key, column in columns.items()}
    else:
        if widest and widest < 3:
            raise DataError(f"{path} must have three columns at least: id, ra, dec; got {widest}.")
        places = {"id": 0, "ra": 1, "dec": 2} | ({"size": 3, "ref": 4} if widest in (4, 5) else {})
    return [{key: row[at] for key, at in places.items() if at < len(row)} for row in cells], []


def _is_header(words: list[str]) -> bool:
    """Whether a first row names columns: it has ra and dec, or words where those would be."""
    return {"ra", "dec"} <= _named(words).keys() or (
        len(words) > 2 and all(word.replace("_", "").isalpha() for word in words[1:3])
    )


def _split(text: str, commas: bool) -> list[str]:
    return [cell.strip().strip("\"'") for cell in text.split(",")] if commas else text.split()


def _named(names: list[str]) -> dict[str, str]:
    """What the columns are, and the settings of `ExtractionConfig` among them."""
    lower = {name.strip().lower(): name for name in reversed(names)}
    found = {key: lower[each] for key, several in _NAMES.items() for each in reversed(several) if each in lower}
    own = {each.name for each in fields(ExtractionConfig)} - {
        "size",
        "reference",
        "scene",
        "scene_images",
        "image_fwhm",
        "name_prefix",
    }
    return found | {each: lower[each] for each in own if each in lower}


def _require(columns: dict[str, str], path: Path, names: list[str]) -> None:
    missing = [key for key in ("ra", "dec") if key not in columns]
    if missing:
        raise DataError(f"{path} must have columns ra and dec; got {', '.join(names)}. Rename yours.")


def _source(name: str, row: dict[str, Any]) -> CatalogSource:
    if not name or not re.fullmatch(r"[\w.+\-]+", name):
        raise DataError(f"id must be a number or a name for a file; got {name!r}. Use letters, digits, ., +, - and _.")
    for key in ("ra", "dec"):
        if key not in row:
            raise DataError(f"{key} must be there; got none.")
    ra, dec = _angle(row["ra"], hours=True), _angle(row["dec"], hours=False)
    if not -90 <= dec <= 90:
        raise DataError(f"dec must lie between -90 and 90 degrees; got {dec:g}.")
    if not -360 <= ra <= 360:
        raise DataError(f"ra must lie between 0 and 360 degrees; got {ra:g}.")
    size = _optional_number("size", row.get("size"))
    reference = row.get("ref")
    reference = None if reference is None or str(reference).strip().lower() in _MISSING else str(reference).strip()
    settings = {key: value for key, value in row.items() if key not in _NAMES}
    return CatalogSource(name, ra, dec, size, reference, settings)


def _angle(value: Any, *, hours: bool) -> float:
    """An angle in degrees; sexagesimal right ascensions are hours."""
    text = str(value).strip()
    try:
        angle = float(text)
    except ValueError:
        pass
    else:
        return _finite(angle)
    from astropy import units
    from astropy.coordinates import Angle

    try:
        return _finite(float(np.asarray(Angle(text, unit=units.hourangle if hours else units.deg).degree)))
    except (ValueError, TypeError):
        kind = "right ascension" if hours else "declination"
        raise DataError(f"{kind} must be degrees or sexagesimal; got {text!r}.") from None


def _finite(value: float) -> float:
    if not np.isfinite(value):
        raise DataError(f"coordinates must be finite; got {value}.")
    return value


def _optional_number(name: str, value: Any) -> float | None:
    if value is None or str(value).strip().lower() in _MISSING:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be arcsec; got {value!r}.") from None
    if not (np.isfinite(number) and number > 0):
        raise DataError(f"{name} must be a positive number of arcsec; got {value!r}.")
    return number
