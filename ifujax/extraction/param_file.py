"""AutoSpec's ``param.py``, read without running it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from ifujax.errors import DataError, UsageError, unknown
from ifujax.extraction.config import ExtractionConfig

Extension = str | int

_SETTINGS = {
    "SIZE": "size", "APER": "apertures", "REF": "reference", "OBJ_MASK": "object_mask", "USE_IMGS": "use_images",
    "SKY_SUB": "sky_subtraction", "XCOR": "cross_correlation", "CONT_SUB": "continuum_subtraction",
    "CONT_POLY": "continuum_degree", "OUT_SUB": "keep_cubes", "OUT_IMG": "keep_images", "OUT_SEG": "keep_segmentations",
    "OUT_MASK": "keep_masks", "OUT_XCOR": "keep_maps", "OUT_SPEC": "keep_spectra",
}  # fmt: skip
"""AutoSpec's names of settings, and the fields of `ExtractionConfig`."""
_OTHERS = (
    "MODE", "DATACUBE", "CATALOG", "DATA_EXT", "IMG", "SEG", "OUTPUT", "PRE_OUT", "PLOTS", "CMAP", "ORIG_FROM", "ORIG_FROMV",
    "ORIG_CUBE", "ORIGN_CUBEV", "ORIG_CUBEV", "WARNINGS",
)  # fmt: skip
_FLAGS = {name for name in _SETTINGS if name.startswith(("OUT_", "CONT_S", "SKY", "XCOR", "USE"))} | {"PLOTS", "WARNINGS"}
_LARGEST = 1_000_000
"""Bytes; a parameter file has a few thousand."""


@dataclass(frozen=True)
class ParameterFile:
    """What a ``param.py`` says.

    Parameters
    ----------
    config : ExtractionConfig
    from_catalog : bool
        MODE: whether the catalogue's columns ``size`` and ``ref`` count.
    cube, catalog : Path or None
        As seen from the folder of the file; None where not given.
    extensions : tuple
        DATA_EXT: data, variance and flags.
    images, segmentations : tuple of Path
    output : Path
        Folder of the products.
    prefix : str
        Of their names.
    plots : bool
    colormap : str
    origin : mapping
        ``FROM``, ``FROM_V``, ``CUBE``, ``CUBE_V`` of the products.
    notes : tuple of str
        Sentences about what was taken for what.
    """

    config: ExtractionConfig
    from_catalog: bool
    cube: Path | None
    catalog: Path | None
    extensions: tuple[Extension, ...]
    images: tuple[Path, ...]
    segmentations: tuple[Path, ...]
    output: Path
    prefix: str
    plots: bool
    colormap: str
    origin: dict[str, str]
    notes: tuple[str, ...] = ()


def read_param_file(path: str | Path) -> ParameterFile:
    """Read AutoSpec's parameter file: assignments of plain values. Nothing in it is executed.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    DataError
        If it can't be read, isn't Python, or holds anything but assignments of numbers, texts, True, False and tuples or lists
        of these.
    UsageError
        For values that AutoSpec doesn't have.
    """
    path = Path(path)
    values, notes = _assignments(path)
    for name in values:
        if name not in _SETTINGS and name not in _OTHERS:
            notes.append(f"{path.name}: {unknown('parameter', name, (*_SETTINGS, *_OTHERS))} It has no effect.")
    for name in _FLAGS & values.keys():
        if not isinstance(values[name], bool):
            raise UsageError(f"{name} of {path.name} must be True or False; got {values[name]!r}.")
    folder = path.parent
    settings: dict[str, object] = {field: values[name] for name, field in _SETTINGS.items() if name in values}
    settings["apertures"] = radii_of(settings.get("apertures", ()), "APER")
    settings["reference"] = _text(values, "REF", path)
    settings["object_mask"] = str(settings.get("object_mask", "inter")).lower()
    mode = str(values.get("MODE", "param")).lower()
    output = folder / (_text(values, "OUTPUT", path) or "output")
    origin = {
        "FROM": _text(values, "ORIG_FROM", path), "FROM_V": _text(values, "ORIG_FROMV", path),
        "CUBE": _text(values, "ORIG_CUBE", path),
        "CUBE_V": _text(values, "ORIGN_CUBEV", path) or _text(values, "ORIG_CUBEV", path),
    }  # fmt: skip
    return ParameterFile(
        config=ExtractionConfig().with_changes(**settings),
        from_catalog=mode != "param",
        cube=_file(values, "DATACUBE", path),
        catalog=_file(values, "CATALOG", path),
        extensions=extensions_of(values.get("DATA_EXT", ()), "DATA_EXT"),
        images=_files(values.get("IMG", ""), "IMG", path),
        segmentations=_files(values.get("SEG", ""), "SEG", path),
        output=output,
        prefix=_text(values, "PRE_OUT", path) if "PRE_OUT" in values else "Source_",
        plots=bool(values.get("PLOTS", True)),
        colormap=_text(values, "CMAP", path) or "viridis",
        origin=origin,
        notes=tuple(notes),
    )


def _assignments(path: Path) -> tuple[dict[str, object], list[str]]:
    """The values of a file's assignments, by name in capitals."""
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} must be a parameter file of AutoSpec; got {path.stat().st_size:,} bytes.")
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise DataError(f"{path} must be a file that can be read; got {error.strerror or error}.") from None
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{path} must be written as AutoSpec's param.py, NAME = value; got {error}.") from None
    values: dict[str, object] = {}
    for statement in tree.body:
        where = f"line {statement.lineno} of {path}"
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a text on its own is a comment
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
            raise DataError(
                f"{where} must assign one value to one name; got {ast.unparse(statement)[:60]!r}. "
                "Parameter files are read, not run."
            )
        try:
            value = ast.literal_eval(statement.value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            raise DataError(
                f"{where} must be a number, a text, True, False or a tuple of these; got {ast.unparse(statement.value)[:60]!r}. "
                "Parameter files are read, not run: write the value itself."
            ) from None
        values[statement.targets[0].id.upper()] = value
    return values, []


def radii_of(value: object, name: str) -> tuple[float, ...]:
    """Return radii of apertures, from a number, a text, a tuple or a list; messages call them `name`."""
    items = value if isinstance(value, (tuple, list)) else (value,)
    radii: list[float] = []
    for item in items:
        for part in re.split(r"[,\s]+", str(item).strip()):
            if not part:
                continue
            try:
                radii.append(float(part))
            except ValueError:
                raise UsageError(f"{name} must be radii in arcsec, such as 0.6, 1.0; got {value!r}.") from None
    return tuple(radii)


def _text(values: dict[str, object], name: str, path: Path) -> str:
    value = values.get(name, "")
    if isinstance(value, (tuple, list, dict, set, bool)):
        raise UsageError(f"{name} of {path.name} must be a text; got {value!r}.")
    return "" if value is None else str(value).strip()


def _file(values: dict[str, object], name: str, path: Path) -> Path | None:
    text = _text(values, name, path)
    return path.parent / text if text else None


def _files(value: object, name: str, path: Path) -> tuple[Path, ...]:
    items = value if isinstance(value, (tuple, list)) else str(value).split(",")
    if not all(isinstance(item, str) for item in items):
        raise UsageError(f"{name} of {path.name} must be names of files; got {value!r}.")
    return tuple(path.parent / item.strip() for item in items if item.strip())


def extensions_of(value: object, name: str) -> tuple[Extension, ...]:
    """Return extensions of data, variance and flags: names, or numbers; messages call them `name`."""
    items = value if isinstance(value, (tuple, list)) else (value,)
    found: list[Extension] = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise UsageError(f"{name} must hold names or numbers of extensions; got {value!r}.")
        if item != "":
            found.append(int(item) if isinstance(item, str) and item.strip().isdigit() else item)
    if len(found) > 3:
        raise UsageError(f"{name} must name the data, or data and variance, or these and flags; got {value!r}.")
    return tuple(found)
