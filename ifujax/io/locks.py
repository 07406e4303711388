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
except ImportError:  # no POSIX system
    fcntl = None

from ifujax.errors import DataError, IfujaxWarning
from ifujax.io.output import explained

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class OutputTakenError(DataError):
    """Another run makes this output, or has made it."""


@contextmanager
def output_lock(output: str | Path) -> Iterator[bool]:
    """Hold `output` for this run alone; yield whether it is held.

    The lock is the kernel's (``flock`` on the hidden file ``.<output>.lock`` beside it), so that it ends with the process,
    however that ends, and a file left behind by a killed run locks nobody out. Where the file system's locks do not reach
    other machines, it keeps apart the runs of one machine only.

    Raises
    ------
    OutputTakenError
        At once, if another run holds it.
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
    path = target.with_name(f".{target.name}.lock")
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
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, output: Path) -> int | None:
    """Return an open descriptor of the lock file, locked; None if there are no locks here."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                break
            if _is_named(descriptor, path):
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
    path.unlink(missing_ok=True)
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
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


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
        _create(path, output, held)
    except OSError as error:
        raise explained(error, path) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _create(path: Path, output: Path, held: bool) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        holder = _read(path)
        if not (held and holder.get("program") == "ifujax" and holder.get("host") == socket.gethostname()):
            raise OutputTakenError(
                f"output {output} is being written by another run{_describe(holder)}: {path} is there. "
                "Remove that file if no such run exists."
            ) from None
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        _describe_self(descriptor)
    finally:
        os.close(descriptor)


def _describe_self(descriptor: int) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = {"program": "ifujax", "pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{json.dumps(holder)}\n".encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return _holder(stream.fileno())
    except OSError:
        return {}


def _holder(descriptor: int) -> dict[str, Any]:
    """Return what a lock file says of its holder; nothing where it says nothing that we know."""
    try:
        holder = json.loads(os.read(descriptor, 4096))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _describe(holder: dict[str, Any]) -> str:
    if not {"pid", "host", "since"} <= holder.keys():
        return ""
    return f" (process {holder['pid']} on {holder['host']} since {holder['since']})"
