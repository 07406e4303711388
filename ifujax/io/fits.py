"""FITS files: opening them, finding an extension, and reading planes without loading the file."""

from __future__ import annotations

import bz2
import errno
import gzip
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from ifujax.errors import DataError, unknown

Extension = str | int | None
"""How a user names an extension: a name, a number, or ``"NAME, extver"``."""
_IMAGES = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
_OPTIONAL = ("variance", "error", "ivar", "flags", "stellar", "wavelength", "spatial_mask", "vortab")
_DAMAGE = (OSError, EOFError, ValueError, TypeError, IndexError, KeyError, zlib.error, fits.VerifyError)
"""What astropy and the decompressors raise for damaged files."""


@dataclass(frozen=True)
class FitsFile:
    """An open FITS file.

    Attributes
    ----------
    path : Path
    hdus : `~astropy.io.fits.HDUList`
    stream : file object
        Holds the uncompressed content.
    """

    path: Path
    hdus: Any  # HDUList; astropy's types make every item another list
    stream: IO[bytes]

    @property
    def names(self) -> list[str]:
        """One name per HDU: ``NAME``, ``NAME, 2`` for a repeated one, the number where there is none."""
        names: list[str] = []
        for i, hdu in enumerate(self.hdus):
            name = hdu.name or str(i)
            names.append(f"{name}, {hdu.ver}" if name in names else name)
        return names

    def has(self, key: str | int) -> bool:
        """Whether `find` finds it."""
        return self._index(key) is not None

    def find(self, key: str | int, argument: str) -> int:
        """Return the number of the HDU called `key`: a name, a number, or ``"NAME, extver"``.

        Raises
        ------
        DataError
            If there is none; the message names `argument` and the nearest extension.
        """
        index = self._index(key)
        if index is not None:
            return index
        images = [name for i, name in enumerate(self.names) if self.image_shape(i)]
        if argument == "scidata":
            advice = f" Say scidata: {images[0]}." if len(images) == 1 else ""
        else:
            advice = f" Without it: leave {argument} out." if argument in _OPTIONAL else ""
        text = unknown("extension", str(key).strip(), self.names)
        raise DataError(f"{argument} must name an extension of {self.path.name}; got {text}{advice}")

    def _index(self, key: str | int) -> int | None:
        text = str(key).strip()
        names = [hdu.name.upper() for hdu in self.hdus]
        if text.upper() in names:
            return names.index(text.upper())
        if text.upper() == "PRIMARY":  # whatever name it gives itself
            return 0
        if text.isdigit() and int(text) < len(names):
            return int(text)
        name, comma, version = text.rpartition(",")
        if comma and version.strip().isdigit():
            for i, hdu in enumerate(self.hdus):
                if names[i] == name.strip().upper() and hdu.ver == int(version):
                    return i
        return None

    def label(self, index: int) -> str:
        """``file.fits[NAME]``, for messages."""
        return f"{self.path.name}[{self.names[index]}]"

    def header(self, index: int) -> fits.Header:
        return self.hdus[index].header

    def image_shape(self, index: int) -> tuple[int, ...] | None:
        """Shape of an image, from its header alone; None for a table or an empty HDU."""
        hdu = self.hdus[index]
        return tuple(hdu.shape) or None if isinstance(hdu, _IMAGES) else None

    def table(self, index: int) -> Any | None:
        """The table HDU, or None for an image."""
        hdu = self.hdus[index]
        return hdu if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and not isinstance(hdu, _IMAGES) else None

    def image(self, index: int) -> np.ndarray:
        """Return an image: a read-only memory map where the file allows it, else loaded.

        Tile-compressed images, and integers stored with BSCALE, BZERO or BLANK, have to be loaded.

        Raises
        ------
        DataError
            If the data are damaged.
        """
        hdu = self.hdus[index]
        header = hdu.header
        stored_as_is = header.get("BSCALE", 1) == 1 and header.get("BZERO", 0) == 0 and "BLANK" not in header
        if stored_as_is and not isinstance(hdu, fits.CompImageHDU):
            start = hdu.fileinfo()["datLoc"]
            dtype = np.dtype(fits.BITPIX2DTYPE[header["BITPIX"]]).newbyteorder(">")
            # Our own map, not astropy's: it outlives the open file and `Cube.release` can advise on it.
            return np.memmap(self.stream, dtype=dtype, mode="r", offset=start, shape=tuple(hdu.shape))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AstropyWarning)
                data = hdu.data
        except _DAMAGE as error:
            raise _damaged(self.path, error) from error
        return np.asarray(data)


@contextmanager
def open_fits(path: str | Path) -> Iterator[FitsFile]:
    """Open a FITS file: plain, .gz, .bz2, or with tile-compressed images (.fz).

    All headers are read, no data. Arrays from `FitsFile.image` stay valid afterwards.

    Raises
    ------
    DataError
        If the file is missing, empty, truncated, damaged or not FITS.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} must be an existing FITS file; got no file of that name. Check the path.")
    if path.is_dir():
        raise DataError(f"{path} must be a FITS file; got a folder. Name the file in it.")
    with _content(path) as stream:
        if stream.read(6) != b"SIMPLE":
            raise DataError(
                f"{path} must be a FITS file; got one that doesn't begin with SIMPLE. Check that it is the right file."
            )
        stream.seek(0)
        hdus: Any = None
        try:
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", AstropyWarning)
                    hdus = fits.open(stream, memmap=False)
                    len(hdus)  # reads every header
            except _DAMAGE as error:
                raise _damaged(path, error) from error
            # Astropy stops at a broken extension with a warning only: planes would vanish without a word.
            for warning in caught:
                if "corrupt" in str(warning.message):
                    raise _damaged(path, warning.message)
            _require_whole(path, hdus, os.fstat(stream.fileno()).st_size)
            yield FitsFile(path, hdus, stream)
        finally:
            if hdus is not None:
                hdus.close()


@contextmanager
def _content(path: Path) -> Iterator[IO[bytes]]:
    """Open the file, or a nameless temporary copy of what is in it if it is compressed as a whole.

    The copy is complete or refused (astropy takes a cut .gz for a file with fewer extensions), and can
    be memory-mapped: a large cube needs room in the temporary folder then, not in memory.
    """
    with ExitStack() as stack:
        try:
            stream: IO[bytes] = stack.enter_context(path.open("rb"))
            start = stream.read(4)
        except OSError as error:
            raise DataError(f"{path} must be readable; got: {error.strerror or error}. Check its permissions.") from error
        if not start:
            raise DataError(f"{path} must be a FITS file; got an empty file. Copy or download it again.")
        opener = gzip.open if start.startswith(b"\x1f\x8b") else bz2.open if start.startswith(b"BZh") else None
        if opener is not None:
            copy = stack.enter_context(tempfile.TemporaryFile())
            try:
                with opener(path, "rb") as packed:
                    shutil.copyfileobj(packed, copy, 1 << 20)
                copy.flush()
            except (OSError, EOFError, zlib.error) as error:
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise DataError(
                        f"{path} must fit uncompressed into {tempfile.gettempdir()}; got a full disk. "
                        "Set TMPDIR to a folder with room, or decompress the file."
                    ) from error
                raise _damaged(path, error) from error
            stream = stack.enter_context(open(copy.fileno(), "rb", closefd=False))  # astropy insists on the mode
        stream.seek(0)
        yield stream


def _require_whole(path: Path, hdus: Any, size: int) -> None:
    for hdu in hdus:
        info = hdu.fileinfo()
        # Missing padding after the last plane does no harm; missing data do. The span counts both.
        needed = info["datLoc"] + info["datSpan"] - _padding(hdu)
        if needed > size:
            raise DataError(
                f"{path} must be a complete FITS file; got {size} bytes of {needed} (truncated in {hdu.name or 'an extension'}). "
                "Copy or download it again."
            )


def header_text(header: fits.Header, card: str) -> str:
    """Return a card as stripped text; empty if it is absent or has no value."""
    value: Any = header.get(card, "")
    return "" if value is None or isinstance(value, fits.card.Undefined) else str(value).strip()


def _padding(hdu: Any) -> int:
    """Bytes of padding after the data of an image HDU; 0 for others, whose size isn't in `NAXISn` alone."""
    if not isinstance(hdu, _IMAGES) or isinstance(hdu, fits.CompImageHDU):
        return 0
    return -int(hdu.size) % 2880


def _damaged(path: Path, error: object) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"{path} must be a complete FITS file; got a truncated or damaged one ({reason[:120]}). Copy or download it again."
    )
