"""Detection settings out of SExtractor's files, ``default.sex`` and ``.conv``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ifujax.errors import DataError


@dataclass(frozen=True)
class DetectionOptions:
    """How objects are found in an image.

    The defaults are those of AutoSpec; the names in capitals are SExtractor's.

    Parameters
    ----------
    threshold : float
        In standard deviations of the background (DETECT_THRESH).
    min_area : int
        Pixels of an object at least (DETECT_MINAREA).
    kernel : (n, n) tuple of tuples, optional
        That the image is smoothed with before detection (FILTER_NAME); a Gaussian of FWHM 5 pixels if None.
    smooth : bool
        FILTER.
    deblend_levels : int
        DEBLEND_NTHRESH.
    deblend_contrast : float
        Share of an object's flux that a peak must have to be an object of its own (DEBLEND_MINCONT); 1: none.
    mesh : int
        Pixels of a piece of the background (BACK_SIZE).
    filter_size : int
        Pieces that the background is smoothed over (BACK_FILTERSIZE).
    """

    threshold: float = 0.75
    min_area: int = 5
    kernel: tuple[tuple[float, ...], ...] | None = None
    smooth: bool = True
    deblend_levels: int = 32
    deblend_contrast: float = 0.01
    mesh: int = 32
    filter_size: int = 3


_USED = {
    "DETECT_THRESH": ("threshold", float), "DETECT_MINAREA": ("min_area", int), "DEBLEND_NTHRESH": ("deblend_levels", int),
    "DEBLEND_MINCONT": ("deblend_contrast", float), "BACK_SIZE": ("mesh", int), "BACK_FILTERSIZE": ("filter_size", int),
}  # fmt: skip
_DEFAULTS = {
    "THRESH_TYPE": "RELATIVE", "CLEAN": "Y", "MASK_TYPE": "CORRECT", "WEIGHT_TYPE": "NONE", "BACK_TYPE": "AUTO",
    "DETECT_TYPE": "CCD", "DETECT_MAXAREA": "0", "BACK_FILTTHRESH": "0.0",
}  # fmt: skip
"""Settings without counterpart that would change a segmentation map, and their values that leave it as it is."""


def read_sextractor_file(path: str | Path) -> tuple[DetectionOptions, tuple[str, ...]]:
    """Read the settings that matter for detection; return them and sentences about others.

    Parameters
    ----------
    path : str or Path
        A ``default.sex``; the kernel that it names lies beside it.

    Raises
    ------
    DataError
        If a file can't be read or a value isn't a number.
    """
    path = Path(path)
    options, notes = DetectionOptions(), []
    values = dict(_pairs(path))
    for name, value in values.items():
        if name in _USED:
            field, kind = _USED[name]
            try:
                options = replace(options, **{field: kind(float(value.split(",")[0]))})
            except ValueError:
                raise DataError(f"{name} of {path} must be a number; got {value!r}.") from None
        elif name in _DEFAULTS and value.split()[0].upper() not in (_DEFAULTS[name], f"{_DEFAULTS[name]}.0"):
            notes.append(f"{path.name}: {name} {value} has no counterpart here, and no effect.")
    if values.get("FILTER", "Y").upper().startswith("N"):
        options = replace(options, smooth=False)
    elif "FILTER_NAME" in values:
        kernel = path.parent / values["FILTER_NAME"]
        if kernel.is_file():
            options = replace(options, kernel=read_kernel(kernel))
        else:
            notes.append(f"{path.name}: the kernel {kernel.name} isn't there; a Gaussian of FWHM 5 pixels smooths instead.")
    return options, tuple(notes)


def read_kernel(path: str | Path) -> tuple[tuple[float, ...], ...]:
    """Read a ``.conv`` file: rows of numbers after a line ``CONV NORM``; return it with sum 1.

    Raises
    ------
    DataError
        If it isn't such a file.
    """
    path = Path(path)
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    try:
        rows = np.array([[float(cell) for cell in line.split()] for line in lines if not line.upper().startswith("CONV")])
        if rows.ndim != 2 or not np.all(np.isfinite(rows)) or rows.sum() <= 0:
            raise ValueError
    except ValueError:
        raise DataError(f"{path} must be a kernel of SExtractor: CONV NORM, then rows of numbers.") from None
    return tuple(tuple(float(cell) for cell in row) for row in rows / rows.sum())


def _pairs(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} must be a file that can be read; got {error.strerror or error}.") from None
    found = []
    for line in text.splitlines():
        words = line.split("#")[0].split(None, 1)
        if len(words) == 2:
            found.append((words[0].upper(), words[1].strip()))
    return found
