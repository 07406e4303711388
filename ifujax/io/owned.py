"""What beside an output is ours: never reached through a link, nobody else's, and of names that a run gives.

All that ifujax removes, empties, cuts short or goes on from is decided on here. Folders that lead to an output may be links;
the last part of the name of a file of our own may not.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from ifujax.errors import DataError

TEMPORARY = r"(?:\.partial-[0-9a-f]{12}-)"
"""How the name of a file that is not complete begins."""
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
LOOSE = "can be written to by others"
"""The one complaint of `distrust` that says nothing against removing."""
_IS_LINK = (errno.ELOOP, errno.EMLINK)


class NotOursError(DataError):
    """Something lies in the place of a file of ours that this user's runs have not put there, or others could have changed.

    Attributes
    ----------
    complaint : str
        What is wrong with it, in a few words.
    """

    def __init__(self, message: str, complaint: str = "") -> None:
        super().__init__(message)
        self.complaint = complaint


def distrust(facts: os.stat_result, owner: int | None = None, loose: int = 0) -> str:
    """Return why something may not be trusted to be as this user left it, or nothing.

    Parameters
    ----------
    facts : os.stat_result
        Of ``lstat`` or ``fstat``.
    owner : int, optional
        Whose it has to be: the user of this process by default, root too.
    loose : int, optional
        Bits of `OTHERS_WRITE` that don't matter.
    """
    if not hasattr(os, "geteuid"):
        return ""  # no such notion of owner and mode
    if facts.st_uid != (os.geteuid() if owner is None else owner):
        return "belongs to another user"
    if facts.st_mode & OTHERS_WRITE & ~loose:
        return LOOSE
    return ""


def temporary_name(name: str) -> str:
    """Return the name that a file called `name` has until it is complete. Nobody can guess it, and plant a link there."""
    return f".partial-{secrets.token_hex(6)}-{name}"


def open_regular(path: str | Path, flags: int, mode: int = 0o666, dir_fd: int | None = None) -> int:
    """Return a descriptor of a regular file that no link leads to.

    Raises
    ------
    NotOursError
        If it is a link, a folder, a pipe or a device.
    OSError
        As ``os.open``.
    """
    with suppress(FileNotFoundError):  # first, as to open a device can have effects
        _require_regular(os.stat(path, dir_fd=dir_fd, follow_symlinks=False), path)
    try:
        descriptor = os.open(path, flags | NO_FOLLOW, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _IS_LINK:
            raise _not_a_file(path, "is a link") from None
        raise
    try:
        _require_regular(os.fstat(descriptor), path)
    except NotOursError:
        os.close(descriptor)
        raise
    return descriptor


def require_regular(path: Path) -> None:
    """Raise NotOursError if `path` has become a link, or anything but a file."""
    _require_regular(os.lstat(path), path)


def remove_own(path: Path) -> None:
    """Remove a regular file of this user's; leave anything else. The name must be one that only our runs give."""
    with suppress(FileNotFoundError):
        facts = os.lstat(path)
        if not stat.S_ISREG(facts.st_mode):
            return
        if distrust(facts, loose=OTHERS_WRITE) and distrust(facts, habits(path.parent)[0], OTHERS_WRITE):
            return
        os.unlink(path)


def habits(folder: Path) -> tuple[int | None, int]:
    """Return owner and bits of `OTHERS_WRITE` that a disk gives to a private file of ours, where they aren't as they should be.

    Some disks keep no modes (exFAT, network shares), others no owners (sshfs), or make root nobody (NFS).
    """
    if not hasattr(os, "geteuid"):
        return None, 0
    try:
        here, elsewhere = _private(folder), _private(None)
    except OSError:
        return None, 0
    # If elsewhere too our files aren't ours, then it is not for this disk.
    owner = here.st_uid if elsewhere.st_uid == os.geteuid() else None
    return owner, here.st_mode & OTHERS_WRITE


def _private(folder: Path | None) -> os.stat_result:
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno())


def _require_regular(facts: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise _not_a_file(path, "is a link" if stat.S_ISLNK(facts.st_mode) else "isn't a file")


def _not_a_file(path: str | Path, complaint: str) -> NotOursError:
    message = f"{path} must be a file of a run; it {complaint}. Remove or rename it, or choose another output."
    return NotOursError(message, complaint)
