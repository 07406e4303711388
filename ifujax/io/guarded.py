"""A file for HDF5, whose library crashes the process where a write fails."""

from __future__ import annotations

import os
from pathlib import Path


class GuardedFile:
    """A new binary file that no write into fails; the first failure is kept until `check` raises it.

    After a failed write (a full disk) HDF5 can neither go on nor close its file, and takes the process with it at its end. So
    what can't be written, and all that follows, stays in memory: close the HDF5 file soon after.

    Examples
    --------
    >>> raw = GuardedFile(path)  # doctest: +SKIP
    >>> with h5py.File(raw, "w") as file:  # doctest: +SKIP
    ...     file["x"] = values
    >>> raw.close()  # doctest: +SKIP
    >>> raw.check()  # doctest: +SKIP
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b", buffering=0)
        self._error: BaseException | None = None
        self._unwritten: list[tuple[int, bytes]] = []
        self._at = 0

    def check(self) -> None:
        """Raise what stopped the first write that failed."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += max([self._file.seek(0, os.SEEK_END), *(at + len(part) for at, part in self._unwritten)])
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read up to the end, or `size` bytes."""
        if size < 0:
            at = self._at
            size = max(self.seek(0, os.SEEK_END) - at, 0)
            self._at = at
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: bytearray | memoryview) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._at)
        done = 0
        while done < len(view):
            got = self._file.readinto(view[done:])
            if not got:
                break
            done += got
        for at, part in self._unwritten:
            first, last = max(at, self._at), min(at + len(part), self._at + len(view))
            if first < last:
                view[first - self._at : last - self._at] = part[first - at : last - at]
                done = max(done, last - self._at)
        self._at += done
        return done

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                self._file.seek(self._at)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:]) or 0
            except BaseException as error:  # noqa: BLE001 - an interrupt too: it must not pass through HDF5
                self._error = error
        if self._error is not None:
            self._unwritten.append((self._at, bytes(view)))
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        end = self._at if size is None else size
        if self._error is None:
            try:
                self._file.truncate(end)
            except BaseException as error:  # noqa: BLE001
                self._error = error
        return end

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""
