"""Files of what a fit of images found: the images compared, the corrected MUSE image, and tables of all results."""

from __future__ import annotations

import json
import math
import platform
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning, UsageError, unknown
from ifujax.images.corrections import Position, apply_corrections
from ifujax.inference.status import NO_DETECTION
from ifujax.io.images import write_image
from ifujax.io.output import atomic_path
from ifujax.photometry.table import photometry_table

if TYPE_CHECKING:
    from astropy.table import Table

    from ifujax.photometry.results import FittedPhotometry, ImagePhotometry

Cards = Mapping[str, tuple[object, str]]
SAVED = ("image", "hst_model", "residual")
TABLE_FORMATS = ("ecsv", "fits", "json")
_PACKAGES = ("ifujax", "numpy", "scipy", "jax", "astropy")
_CARDS = {
    "scale": ("SCALE", "MUSE / HST"),
    "bg": ("BG", "MUSE less scaled HST, in BUNIT"),
    "dx": ("DX", "[arcsec] MUSE less HST along x"),
    "dy": ("DY", "[arcsec] MUSE less HST along y"),
    "dra": ("DRA", "[arcsec] the same in RA, as coordinates"),
    "ddec": ("DDEC", "[arcsec] the same in Dec"),
    "fwhm": ("FWHM", "[arcsec] Moffat PSF of MUSE"),
    "beta": ("BETA", "Moffat PSF of MUSE"),
    "ellipticity": ("ELLIP", "1 - b/a of the PSF"),
    "angle": ("ANGLE", "[deg] of its major axis from +x to +y"),
    "rotation": ("ROTAT", "[deg] MUSE against HST, from +x to +y"),
}
"""Ends of the cards FIT... (value) and ERR... (1 sigma), and what they mean."""
_SIGNIFICANT = 3.0
_EXTRA = ("ellipticity", "angle", "rotation")
"""Not fitted unless asked for."""


def product_path(prefix: str | Path, kind: str, extension: str = "fits") -> Path:
    """Return ``<prefix>_<kind>.<extension>``.

    Examples
    --------
    >>> product_path("out/muse", "residual").as_posix()
    'out/muse_residual.fits'
    """
    prefix = Path(prefix)
    return prefix.with_name(f"{prefix.name}_{kind}.{extension.removeprefix('.')}")


def fit_cards(result: FittedPhotometry) -> dict[str, tuple[object, str]]:
    """Return fitted values, errors and goodness of fit as header cards; what isn't finite is left out."""
    found: dict[str, tuple[object, str]] = {}
    parameters = result.parameters
    for name, (ending, meaning) in _CARDS.items():
        item = parameters.get(name)
        if item is None or (name in _EXTRA and item.fixed and item.value == 0.0):
            continue
        if math.isfinite(item.value):
            found[f"FIT{ending}"] = (item.value, meaning + (" (fixed)" if item.fixed else ""))
            if not item.fixed and math.isfinite(item.error):
                found[f"ERR{ending}"] = (item.error, "1 sigma")
    for card, value, meaning in (
        ("FITRMS", result.rms_error, "of data less model, in BUNIT"),
        ("FITCHI2", result.chi2, "chi2"),
        ("FITDET", result.significance, "Sigma at which the scene is seen"),
        ("FITNPIX", result.n_good, "Pixels that took part"),
        ("FITNFREE", result.n_free, "Parameters that were fitted"),
        ("FITSTAT", result.status, "Status bits: 0 = good"),
        ("FITWARN", result.warn, "Warning bits"),
    ):
        if math.isfinite(value):
            found[card] = (value, meaning)
    options = getattr(result, "options", None)
    found["FITMETH"] = (result.method if options is None else options.method, "Method of the fit")
    return found


def write_images(result: ImagePhotometry, prefix: str | Path, overwrite: bool = False, cards: Cards | None = None) -> list[Path]:
    """Write the data that were compared, the model made of the HST image, and their difference.

    Parameters
    ----------
    result : ImagePhotometry
    prefix : str or Path
        ``<prefix>_image.fits``, ``<prefix>_hst_model.fits`` and ``<prefix>_residual.fits`` are written.
    overwrite : bool
    cards : mapping of str to (value, comment), optional
        More header cards.

    Returns
    -------
    list of Path

    Raises
    ------
    UsageError
        If a file exists and `overwrite` is false.
    DataError
        If the fit failed, or a file can't be written.
    """
    _require_good(result)
    own = {**fit_cards(result), **_ascii_cards(cards or {})}
    paths = []
    for kind, image in zip(SAVED, (result.data, result.model, result.residual)):
        kept = replace(image, header=result.muse.header, cards={**result.muse.cards, **own})
        paths.append(write_image(product_path(prefix, kind), kept, overwrite))
    return paths


def aligned_image(
    result: FittedPhotometry,
    muse: Image | None = None,
    corrections: Sequence[str] = ("xy", "scale", "zero"),
    position: Position = "crpix",
) -> Image:
    """Return a MUSE image with position, flux scale and background corrected by what was found.

    Parameters
    ----------
    result : ImagePhotometry or StarPhotometry
    muse : Image, optional
        The one that was fitted, by default; or another of the same pointing.
    corrections, position
        See `ifujax.images.corrections.apply_corrections`.

    Raises
    ------
    DataError
        If the fit failed, or its scale isn't positive.

    Warns
    -----
    IfujaxWarning
        If nothing is detected, or the scale is less than three times its error.
    """
    _require_good(result)
    if result.warn & NO_DETECTION.value:
        warnings.warn(
            f"{result.name or 'the image'}: corrected by a fit in which nothing is detected ({result.significance:.1f} sigma). "
            "Its shift is that of noise.",
            IfujaxWarning,
            stacklevel=2,
        )
    if "scale" in corrections:
        _require_scale(result)
    of = {name: getattr(result, name).value for name in ("dx", "dy", "dra", "ddec", "bg", "scale")}
    image = result.muse if muse is None else muse
    rotation = result.value("rotation").value
    found = apply_corrections(image, **of, rotation=rotation, corrections=corrections, position=position)
    made = {"ALIGNED": (position, "How the position was corrected")}
    return replace(found, cards={**found.cards, **fit_cards(result), **made})


def write_aligned(
    result: FittedPhotometry,
    prefix: str | Path,
    overwrite: bool = False,
    position: Position = "crpix",
    cards: Cards | None = None,
) -> Path:
    """Write the corrected MUSE image to ``<prefix>_aligned.fits``. Raises as `aligned_image` and `write_images`."""
    image = aligned_image(result, position=position)
    image = replace(image, cards={**image.cards, **_ascii_cards(cards or {})})
    return write_image(product_path(prefix, "aligned"), image, overwrite)


def table_format(path: str | Path) -> str:
    """Return "ecsv", "fits" or "json", by a file's extension.

    Raises
    ------
    UsageError
        For another one.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in TABLE_FORMATS:
        raise UsageError(unknown("table format", Path(path).suffix or str(path), [f".{each}" for each in TABLE_FORMATS]))
    return kind


def write_table(
    results: Iterable[FittedPhotometry], path: str | Path, overwrite: bool = False, command: str | None = None
) -> Path:
    """Write everything but images of some results: ``.ecsv`` or ``.fits``, a row each; ``.json``, with covariances and options.

    Parameters
    ----------
    results : iterable of ImagePhotometry or StarPhotometry
    path : str or Path
    overwrite : bool
    command : str, optional
        What made them; kept in the file.

    Raises
    ------
    UsageError
        For another extension, no results, or a file that exists while `overwrite` is false.
    DataError
        If it can't be written.
    """
    kind, results = table_format(path), list(results)
    if not results:
        raise UsageError("results must hold one at least; got none.")
    about = _provenance(command)
    with atomic_path(path, overwrite) as draft:
        if kind == "json":
            draft.write_text(_json(results, about), encoding="utf-8")
            return Path(path)
        table = photometry_table(results)
        meta = {
            name: text if isinstance(text, str) else ", ".join(f"{k} {v}" for k, v in text.items())
            for name, text in about.items()
        }
        if kind == "ecsv":
            table.meta = meta
            table.write(draft, format="ascii.ecsv")
        else:
            table.meta = {name: _ascii(text) for name, text in meta.items()}
            _with_ascii(table).write(draft, format="fits")
    return Path(path)


def without_pixels(result: Any) -> Any:
    """Return a result that keeps numbers and text only: hundreds of them fit into memory."""
    muse = replace(result.muse, values=np.broadcast_to(np.nan, result.muse.shape), variance=None)
    nothing = np.zeros((0, 0))
    light = {"prepared": None} if hasattr(result, "prepared") else {}
    return replace(result, muse=muse, outcome=replace(result.outcome, data=nothing, model=nothing), **light)


def _require_good(result: FittedPhotometry) -> None:
    if result.status:
        raise DataError(f"the fit of {result.name or 'the image'} must have succeeded to write images; got: {result.reason}.")


def _require_scale(result: FittedPhotometry) -> None:
    name, scale = result.name or "the image", result.scale
    if not scale.value > 0:
        raise DataError(f"the fit of {name} must have a positive scale to correct it; got {scale}. Correct xy and zero only.")
    if scale.value < _SIGNIFICANT * scale.error:
        warnings.warn(
            f"{name}: corrected by a flux scale that is hardly known, {scale}. Compare more of the image, or fix the scale.",
            IfujaxWarning,
            stacklevel=3,
        )


def _provenance(command: str | None) -> dict[str, Any]:
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}
    about: dict[str, Any] = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions}
    return about if command is None else about | {"command": command}


def _json(results: list[FittedPhotometry], about: dict[str, Any]) -> str:
    rows = []
    for result in results:
        row: dict[str, Any] = result.as_dict()
        row["unit"] = result.muse.unit
        if (options := getattr(result, "options", None)) is not None:
            row["options"] = options
        rows.append(row)
    return json.dumps(_plain({**about, "results": rows}), indent=1, ensure_ascii=False) + "\n"


def _plain(item: Any) -> Any:
    """Return what JSON can hold: null for what isn't finite, a dictionary for a declaration."""
    if isinstance(item, Mapping):
        return {str(key): _plain(value) for key, value in item.items()}
    if is_dataclass(item) and not isinstance(item, type):
        return {"type": type(item).__name__} | {each.name: _plain(getattr(item, each.name)) for each in fields(item)}
    if isinstance(item, (str, bool, int)) or item is None:
        return item
    if isinstance(item, (list, tuple)):
        return [_plain(each) for each in item]
    array = np.asarray(item)
    if array.ndim:
        return [_plain(each) for each in array]
    if array.dtype.kind not in "fiub":
        return str(item)
    number = array.item()
    return number if not isinstance(number, float) or math.isfinite(number) else None


def _with_ascii(table: Table) -> Table:
    """FITS holds ASCII only."""
    for name in table.colnames:
        values = [str(each) for each in table[name]]
        if not all(each.isascii() for each in values):
            table[name] = [_ascii(each) for each in values]
    return table


def _ascii_cards(cards: Cards) -> dict[str, tuple[object, str]]:
    return {key: (_ascii(value)[:60] if isinstance(value, str) else value, comment) for key, (value, comment) in cards.items()}


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")
