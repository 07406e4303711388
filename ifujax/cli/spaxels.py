"""Which spaxels of a cube are asked for: ``--spaxels``, ``--region`` and ``--where``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifujax.cli.resume import sampled_hash
from ifujax.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np

SpaxelsOption = Annotated[
    list[str] | None, typer.Option("--spaxels", metavar="X,Y", help="Only this spaxel, counted from 0; may be given again.")
]
RegionOption = Annotated[
    list[str] | None,
    typer.Option("--region", metavar="X0:X1,Y0:Y1", help="Only the spaxels of a rectangle, ends included; may be given again."),
]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", metavar="FILE", help="Only where a 2-D FITS image is not zero; FILE[NAME] names its extension."),
]

_PAIR = r"\s*(\d+)\s*,\s*(\d+)\s*"
_RANGES = r"\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*"


@dataclass(frozen=True)
class Choice:
    """Spaxels that were asked for: those that any of the options names; all if there is none.

    Attributes
    ----------
    boxes : tuple of (option, text, x0, x1, y0, y1)
        Ends included; `option` and `text` as they were given.
    image : Path, optional
    extension : str, optional
        Of the image; the first that is 2-D otherwise.
    """

    boxes: tuple[tuple[str, str, int, int, int, int], ...] = ()
    image: Path | None = None
    extension: str | None = None

    @classmethod
    def of(cls, spaxels: Sequence[str] | None, regions: Sequence[str] | None, where: str | None) -> Choice:
        """Understand the options.

        Raises
        ------
        UsageError
            For what is no pair of numbers, or no range.
        """
        boxes = []
        for text in spaxels or ():
            match = re.fullmatch(_PAIR, text)
            if match is None:
                raise UsageError(f"--spaxels must be two numbers x,y, counted from 0; got {text!r}. Say --spaxels 10,12.")
            x, y = (int(group) for group in match.groups())
            boxes.append(("--spaxels", text, x, x, y, y))
        for text in regions or ():
            match = re.fullmatch(_RANGES, text)
            if match is None:
                raise UsageError(f"--region must be two ranges x0:x1,y0:y1, ends included; got {text!r}. Say 10:20,5:15.")
            x0, x1, y0, y1 = (int(group) for group in match.groups())
            if x1 < x0 or y1 < y0:
                raise UsageError(f"--region must have ranges that ascend; got {text!r}. Exchange the ends.")
            boxes.append(("--region", text, x0, x1, y0, y1))
        if where is None:
            return cls(tuple(boxes))
        match = re.fullmatch(r"(.+?)(?:\[([^\[\]]+)\])?", where)
        if match is None:
            raise UsageError(f"--where must name a file; got {where!r}. Say --where FILE or --where FILE[NAME].")
        return cls(tuple(boxes), Path(match[1]), match[2])

    def __bool__(self) -> bool:
        return bool(self.boxes) or self.image is not None

    def identity(self) -> str:
        """Return text that differs where the choice does, the content of its image included.

        Raises
        ------
        DataError
            If the image can't be read.
        """
        content = ""
        if self.image is not None:
            try:
                content = sampled_hash(self.image, self.image.stat().st_size)
            except OSError:
                self._read(self.image)  # which says what is wrong with it
                raise
        return f"{[box[2:] for box in self.boxes]} {content} {self.extension}"

    def map(self, shape: tuple[int, int]) -> np.ndarray | None:
        """Return where the chosen spaxels are in an image of `shape` (y, x), bool; None for all.

        Raises
        ------
        UsageError
            For a spaxel outside, and for a choice of none.
        DataError
            If the image isn't one of this shape, or can't be read.
        """
        import numpy as np

        if not self:
            return None
        ny, nx = shape
        chosen = np.zeros(shape, dtype=bool)
        for option, text, x0, x1, y0, y1 in self.boxes:
            if x1 >= nx or y1 >= ny:
                raise UsageError(f"{option} must lie within 0..{nx - 1}, 0..{ny - 1}; got {text}. Spaxels are counted from 0.")
            chosen[y0 : y1 + 1, x0 : x1 + 1] = True
        if self.image is not None:
            picture = self._read(self.image)
            if picture.shape != shape:
                raise DataError(
                    f"--where must be an image of the cube's shape (y, x) = {shape}; got {picture.shape} in {self.image}. "
                    "Make it from a map of the same cube."
                )
            chosen |= np.isfinite(picture) & (picture != 0)
        if not chosen.any():
            raise UsageError(f"--where must be non-zero somewhere; got zero or NaN in all of {self.image}.")
        return chosen

    def _read(self, path: Path) -> np.ndarray:
        """Return the image at `path`, as numbers."""
        import numpy as np

        from ifujax.io.fits import open_fits

        with open_fits(path) as file:
            if self.extension is not None:
                index = file.find(self.extension, "--where")
            else:
                flat = [i for i in range(len(file.hdus)) if len(file.image_shape(i) or ()) == 2]
                if not flat:
                    raise DataError(f"--where must hold a 2-D image; got none in {path}. Name another file.")
                index = flat[0]
            if len(file.image_shape(index) or ()) != 2:
                raise DataError(f"--where must be a 2-D image; got {file.label(index)}. Name another extension.")
            return np.asarray(file.image(index), dtype=np.float64)
