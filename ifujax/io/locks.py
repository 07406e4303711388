"""One run for one output: the kernel's lock, and lock files as IFSCube makes them."""

from __future__ import annotations

import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

try:
    import fcntl
    import resource
except ImportError:  # no POSIX system
    fcntl = resource = None

from ifujax.errors import DataError, IfujaxWarning
from ifujax.io.output import explained
from ifujax.io.owned import NotOursError, open_regular

_START = b'{"program": "ifujax"'
"""How every lock file of ours begins."""
_SPARE = 256
"""Files that a process opens beside its locks."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class OutputTakenError(DataError):
    """Another run makes this output, or has made it."""


@contextmanager
def output_lock(output: str | Path) -> Iterator[bool]:
    """Hold `output` for this run alone; yield whether it is held.

    The lock is the kernel's (``flock`` on the hidden file ``.<output>.lock`` beside it, or ``.ifujax.lock`` in it if `output` is
    a folder), so that it ends with the process, however that ends, and a file left behind by a killed run locks nobody out.
    Where the file system's locks do not reach other machines, it keeps apart the runs of one machine only. A file there that is
    not ours serves as well, and stays as it is.

    Raises
    ------
    OutputTakenError
        At once, if another run holds it.
    NotOursError
        If a link, or anything but a file, has the name of the hidden file.
    DataError
        If the folder can't be written to.

    Warns
    -----
    IfujaxWarning
        Where the file system or the operating system has no such locks; then False is yielded.

    Examples
    --------
    >>> with output_lock("out.fits"):  # doctest: +SKIP
    ...     ...
    """
    target = Path(os.path.realpath(output))
    path = target / ".ifujax.lock" if target.is_dir() else target.with_name(f".{target.name}.lock")
    try:
        descriptor = _acquire(path, Path(output))
    except OSError as error:
        raise explained(error, Path(output)) from error
    if descriptor is None:
        warnings.warn(
            f"the file system of {target.parent} has no file locks: nothing keeps two runs on one output apart. "
            "Start one only, or use --lock.",
            IfujaxWarning,
            stacklevel=3,
        )
        yield False
        return
    try:
        yield True
    finally:
        # While it is still locked: a lock on a file without a name would keep nobody out.
        _remove(descriptor, path)
        os.close(descriptor)


def allow_open_files(count: int) -> None:
    """Let this process open `count` more files, as far as the system allows: each output that is held is one of them."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _acquire(path: Path, output: Path) -> int | None:
    """Return an open descriptor of the lock file, locked; None if there are no locks here."""
    while True:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            if not _lock(descriptor):
                _remove(descriptor, path)
                break
            if _is_named(descriptor, path):
                if _is_ours(descriptor):
                    _describe_self(descriptor)
                return descriptor
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise OutputTakenError(
                f"output {output} is being written by another run{_describe(holder)}. Wait for it, or choose another output."
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the run before removed its file between our two calls
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _is_ours(descriptor: int) -> bool:
    """Whether a lock file holds what we write, or nothing (so far); another name of some file (a hard link) is not ours."""
    if os.fstat(descriptor).st_nlink > 1:
        return False
    content = _content(descriptor)
    return content.startswith(_START) or _START.startswith(content.rstrip(b"\0"))  # zeros: a power cut


def _remove(descriptor: int, path: Path) -> None:
    """Remove a lock file that is still the one that was opened, and ours."""
    with suppress(OSError):
        if _is_named(descriptor, path) and _is_ours(descriptor):
            path.unlink()


@contextmanager
def lock_file(output: str | Path, held: bool) -> Iterator[None]:
    """Keep ``<output>.lock`` on the disk, which IFSCube's ``--lock`` makes and looks for; remove it at the end.

    Parameters
    ----------
    output : str or Path
    held : bool
        Whether `output_lock` holds the output: a file that a run of ifujax on this machine left behind is then known to be
        a dead run's, and taken over. IFSCube's own stay as they are.

    Raises
    ------
    OutputTakenError
        If the file is there.
    DataError
        If it can't be written.
    """
    output = Path(output)
    path = output.with_name(f"{output.name}.lock")
    try:
        descriptor = _create(path, output, held)
    except OSError as error:
        raise explained(error, path) from error
    try:
        yield
    finally:
        if _is_named(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _create(path: Path, output: Path, held: bool) -> int:
    """Return an open descriptor of the new lock file, or of one that is taken over."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        found = _existing(path)
        holder = {} if found is None else _holder(found)
        mine = held and holder.get("program") == "ifujax" and holder.get("host") == socket.gethostname()
        if found is None or not mine or not _is_ours(found):
            if found is not None:
                os.close(found)
            raise OutputTakenError(
                f"output {output} is being written by another run{_describe(holder)}: {path} is there. "
                "Remove that file if no such run exists."
            ) from None
        descriptor = found
    _describe_self(descriptor)
    return descriptor


def _existing(path: Path) -> int | None:
    """Return a descriptor of a lock file that is there, to be read and, if possible, written; None for links and the like."""
    for flags in (os.O_RDWR, os.O_RDONLY):
        with suppress(OSError, NotOursError):
            return open_regular(path, flags)
    return None


def _describe_self(descriptor: int) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = {"program": "ifujax", "pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{json.dumps(holder)}\n".encode())


def _content(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, 4096)


def _holder(descriptor: int) -> dict[str, Any]:
    """Return what a lock file says of its holder; nothing where it says nothing that we know."""
    try:
        holder = json.loads(_content(descriptor))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _describe(holder: dict[str, Any]) -> str:
    if not {"pid", "host", "since"} <= holder.keys():
        return ""
    return f" (process {holder['pid']} on {holder['host']} since {holder['since']})"
