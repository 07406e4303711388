"""Images too large for memory: space is claimed in a FITS file, then filled piece by piece."""

from __future__ import annotations

import errno
import math
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from ifujax.io.owned import open_regular

_BLOCK = 2880
_BITPIX = {"uint8": 8, "int16": 16, "int32": 32, "int64": 64, "float32": -32, "float64": -64}
_ZEROS = 1 << 20
_NO_FALLOCATE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV)


@dataclass(frozen=True)
class LargeImage:
    """An image extension to be filled later.

    Attributes
    ----------
    name : str
        EXTNAME.
    shape : tuple of int
        NumPy order.
    dtype : str
        "uint8", "int16", "int32", "int64", "float32" or "float64".
    header : `~astropy.io.fits.Header`
        Cards beside the structural ones.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    header: fits.Header = field(default_factory=fits.Header)

    def full_header(self) -> fits.Header:
        """Return the header with the structural cards."""
        full = fits.Header()
        full["XTENSION"] = ("IMAGE", "image extension")
        full["BITPIX"] = (_BITPIX[self.dtype], "array data type")
        full["NAXIS"] = (len(self.shape), "number of array dimensions")
        for i, length in enumerate(reversed(self.shape), start=1):
            full[f"NAXIS{i}"] = length
        full["PCOUNT"] = (0, "number of parameters")
        full["GCOUNT"] = (1, "number of groups")
        full["EXTNAME"] = (self.name, "extension name")
        full.extend(self.header, strip=True)
        return full


def append_large(path: Path, images: Iterable[LargeImage]) -> dict[str, np.memmap]:
    """Append image extensions, all zero, to a FITS file and return them as writable memory maps.

    The space is claimed at once, so that a full disk is an OSError here; writing into a map of a
    sparse file would kill the process.

    Raises
    ------
    OSError
        ENOSPC for a full disk.
    """
    starts = {}
    images = list(images)
    with open(open_regular(path, os.O_RDWR), "r+b") as stream:  # and no link that somebody put there since
        stream.seek(0, os.SEEK_END)
        for image in images:
            stream.write(image.full_header().tostring().encode("ascii"))
            stream.flush()
            starts[image.name] = stream.tell()
            size = math.prod(image.shape) * np.dtype(image.dtype).itemsize
            _claim(stream, starts[image.name], -(-size // _BLOCK) * _BLOCK)
            stream.seek(0, os.SEEK_END)
        stream.flush()
        return {
            image.name: np.memmap(
                stream, np.dtype(image.dtype).newbyteorder(">"), mode="r+", offset=starts[image.name], shape=image.shape
            )
            for image in images
        }


def release(maps: Mapping[str, np.memmap]) -> None:
    """Drop the filled pages from this process's memory; the operating system writes them to the file."""
    for array in maps.values():
        mapped = array.base
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)


def _claim(stream: BinaryIO, start: int, size: int) -> None:
    if size == 0:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(stream.fileno(), start, size)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
        else:
            return
    # macOS, and file systems that can't promise space: zeros on the disk are the promise.
    stream.seek(start)
    zeros = bytes(_ZEROS)
    for first in range(0, size, _ZEROS):
        stream.write(zeros[: min(_ZEROS, size - first)])
    stream.flush()
    os.fsync(stream.fileno())
