"""A hidden folder of files that one run leaves to the next one of the same user, such as finished chunks."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ifujax.errors import IfujaxWarning
from ifujax.io.owned import (
    LOOSE,
    NO_FOLLOW,
    OTHERS_WRITE,
    TEMPORARY,
    NotOursError,
    distrust,
    habits,
    open_regular,
    temporary_name,
)

_FOLDER = NO_FOLLOW | getattr(os, "O_DIRECTORY", 0)
_BY_DESCRIPTOR = os.open in os.supports_dir_fd and os.listdir in os.supports_fd
_ALONE = "Make it yours alone (chmod -R go-w) if nobody has changed it, or start afresh with --no-resume"
_SHOWN = 60
"""Characters of somebody else's name that a message shows."""


class OwnFolder:
    """A hidden folder of files that one run leaves to the next, which nobody but the user can write to.

    It is opened once, and everything in it is then reached by the open folder (``dir_fd``), not by its name: whoever may
    write to the folder around it can put something else in its place, but nothing is read or removed there.

    Parameters
    ----------
    path : Path
    names : str
        A regular expression of the names that a run gives to files there.
    """

    def __init__(self, path: Path, names: str) -> None:
        self.path = path
        self.trusted = False
        """Whether nobody else can have written there."""
        self.opened = False
        self._names = re.compile(f"{TEMPORARY}?(?:{names})")
        self._descriptor: int | None = None
        self._owner: int | None = None
        self._loose = 0

    def find(self, *, discarding: bool = False) -> bool:
        """Open the folder, if it is there; return whether it is.

        Parameters
        ----------
        discarding : bool
            What others could have changed will do: it is to be removed. See `trusted`.

        Raises
        ------
        NotOursError
            If it is a link or no folder, belongs to another user, or holds what no run puts there; or, unless it is to be
            discarded, if others can write to it.
        """
        try:
            facts = os.lstat(self.path)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(facts.st_mode) and distrust(facts):
            self._look_around(facts)
        self._require_folder(facts, discarding)
        self._open()
        try:
            # Again, of what has been opened: the name may stand for something else by now.
            self._require_folder(self._stat(""), discarding)
            self.trusted = not discarding or self._all_trusted()
            self._require_files(discarding)
        except BaseException:
            self.close()
            raise
        return True

    def make(self) -> None:
        """Make the folder, for the user alone whatever the umask.

        Raises
        ------
        NotOursError
            If something has that name.
        """
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            raise self._refused("has been put there during this run", "Remove it") from None
        facts = os.lstat(self.path)
        if distrust(facts):
            self._look_around(facts)
        self._open()
        try:
            self._require_folder(self._stat(""), True)
            if self.names():
                raise self._refused("has been put there during this run", "Remove it")
            if self._descriptor is not None:
                with suppress(OSError):  # a disk without modes
                    os.fchmod(self._descriptor, 0o700)
            self._require_folder(self._stat(""), False)
        except BaseException:
            self.close()
            raise
        self.trusted = True

    def names(self) -> list[str]:
        """Return the names of all that is in there, sorted."""
        return sorted(os.listdir(self.path if self._descriptor is None else self._descriptor))

    def read(self, name: str) -> BinaryIO:
        """Open a file of the folder.

        Raises
        ------
        OSError, NotOursError
            If it isn't there, or isn't a file of ours.
        """
        path, at = self._at(name)
        stream = os.fdopen(open_regular(path, os.O_RDONLY, dir_fd=at), "rb")
        complaint = self._complaint(name, os.fstat(stream.fileno()), not self.trusted)
        if complaint:
            stream.close()
            raise self._refused(f"holds {_short(name)}, which {complaint}", "Move that away")
        return stream

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Write a file of the folder, whole or not at all; one of that name is replaced.

        Raises
        ------
        OSError
            If it can't be written.
        """
        path, at = self._at(name)
        draft, _ = self._at(temporary_name(name))
        descriptor = open_regular(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=at)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())  # some file systems report a full disk only then
            os.replace(draft, path, src_dir_fd=at, dst_dir_fd=at)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=at)

    def remove_drafts(self) -> None:
        """Remove what a killed run was writing."""
        for name in self.names():
            if re.match(TEMPORARY, name):
                self._unlink(name)

    def clear(self, last: str) -> None:
        """Remove all files, that called `last` after the others, and the folder. Where anything isn't ours, nothing is removed.

        Raises
        ------
        OSError, NotOursError
        """
        self._require_files(True)
        for name in sorted(self.names(), key=lambda name: name == last):
            self._unlink(name)
        with suppress(FileNotFoundError):
            if not os.path.samestat(os.lstat(self.path), self._stat("")):
                raise self._refused("has been put in place of the folder of this run", "Look whose it is")
            os.rmdir(self.path)
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self.opened, self.trusted = None, False, False

    def _open(self) -> None:
        if _BY_DESCRIPTOR:
            self._descriptor = os.open(self.path, os.O_RDONLY | _FOLDER)
        self.opened = True

    def _at(self, name: str) -> tuple[str, int | None]:
        return (str(self.path / name), None) if self._descriptor is None else (name, self._descriptor)

    def _stat(self, name: str) -> os.stat_result:
        if not name:
            return os.lstat(self.path) if self._descriptor is None else os.fstat(self._descriptor)
        path, at = self._at(name)
        return os.stat(path, dir_fd=at, follow_symlinks=False)

    def _unlink(self, name: str) -> None:
        path, at = self._at(name)
        os.unlink(path, dir_fd=at)

    def _distrust(self, facts: os.stat_result, discarding: bool) -> str:
        return distrust(facts, self._owner, OTHERS_WRITE if discarding else self._loose)

    def _all_trusted(self) -> bool:
        return not any(self._distrust(self._stat(name), False) for name in ("", *self.names()))

    def _complaint(self, name: str, facts: os.stat_result, discarding: bool) -> str:
        if not self._names.fullmatch(name):
            return "no run puts there"
        if not stat.S_ISREG(facts.st_mode):
            return "is a link" if stat.S_ISLNK(facts.st_mode) else "isn't a file"
        return self._distrust(facts, discarding)

    def _require_folder(self, facts: os.stat_result, discarding: bool) -> None:
        if not stat.S_ISDIR(facts.st_mode):
            raise self._refused("is a link" if stat.S_ISLNK(facts.st_mode) else "is no folder", "Remove or rename it")
        complaint = self._distrust(facts, discarding)
        if complaint:
            raise self._refused(complaint, _ALONE if complaint == LOOSE else "Have it removed")

    def _require_files(self, discarding: bool) -> None:
        for name in self.names():
            complaint = self._complaint(name, self._stat(name), discarding)
            if complaint:
                raise self._refused(
                    f"holds {_short(name)}, which {complaint}", _ALONE if complaint == LOOSE else "Move that away"
                )

    def _look_around(self, facts: os.stat_result) -> None:
        """See what owner and mode are worth on this disk, where those of the folder can't be trusted."""
        self._owner, self._loose = habits(self.path.parent)
        if not self._distrust(facts, False):
            warnings.warn(
                f"the disk of {self.path.parent} does not keep whose a file is and who may write to it: whoever can write there "
                "can change finished chunks.",
                IfujaxWarning,
                stacklevel=2,
            )

    def _refused(self, complaint: str, advice: str) -> NotOursError:
        return NotOursError(
            f"finished chunks must be in a folder that a run of yours has made; {self.path} {complaint}. "
            f"Nothing was changed. {advice}, or choose another output.",
            complaint,
        )


def _short(name: str) -> str:
    text = repr(name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
