"""Writing a product so that it is either whole or not there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ifujax.errors import DataError, UsageError
from ifujax.io.owned import TEMPORARY, open_regular, remove_own, require_regular, temporary_name

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """Return the file that `path` stands for if it can be written; call it before a long computation.

    Raises
    ------
    UsageError
        If it exists and `overwrite` is false, isn't a regular file, or its folder doesn't exist.
    DataError
        If its folder can't be written to.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))  # through a link: the link stays one
    if target.is_dir():
        raise UsageError(f"output must be a file; got the folder {path}. Add a file name.")
    if target.exists() and not target.is_file():
        raise UsageError(f"output must be a regular file; got the device or pipe {path}. Choose another name.")
    if target.exists() and not overwrite:
        raise UsageError(f"output must not exist; got {path}. Use --overwrite (overwrite: yes, overwrite=True) or another name.")
    if not target.parent.is_dir():
        raise UsageError(f"output must be in an existing folder; got {path}. Create {path.parent} first.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise _denied(path)
    return target


@contextmanager
def atomic_path(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it on success, remove it on any failure.

    The temporary name keeps the suffix, since writers look at it (``.fits.gz``, ``.png``), and
    doesn't exist yet.

    Raises
    ------
    UsageError, DataError
        As `check_output`, and DataError if the disk is full or writing fails.

    Examples
    --------
    >>> with atomic_path("out.fits", overwrite=True) as temporary:  # doctest: +SKIP
    ...     hdus.writeto(temporary)
    """
    path = Path(path)
    target = check_output(path, overwrite)
    temporary = target.with_name(temporary_name(target.name))
    try:
        try:
            yield temporary
            require_regular(temporary)  # nobody has put a link there meanwhile
            flush(temporary)
            if not overwrite:
                check_output(path)  # somebody else may have written it meanwhile
            os.replace(temporary, target)
        except OSError as error:
            raise explained(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(*paths: str | Path) -> None:
    """Remove what a killed `atomic_path` of this user left beside `paths`; only for who knows that no run is writing them."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        target = Path(os.path.realpath(path))
        names.setdefault(target.parent, set()).add(target.name)
    for folder, complete in names.items():
        draft = re.compile(rf"{TEMPORARY}+(?:{'|'.join(map(re.escape, complete))})(\.plain)?")
        for each in folder.iterdir():
            if draft.fullmatch(each.name):
                remove_own(each)


def flush(path: Path) -> None:
    """Wait until a file is on the disk. Some file systems report a full disk only then."""
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explained(error: OSError, path: Path, kept: str = "nothing was kept") -> DataError:
    """Return the error to raise where `path` could not be written; `kept` tells what there is of it."""
    path = path.with_name(re.sub(f"^{TEMPORARY}+", "", path.name))  # a product's name, not that of its draft
    codes = set()
    cause: BaseException | None = error
    while cause is not None:  # astropy raises its own OSError, without the number, from the first
        codes.add(getattr(cause, "errno", None))
        cause = cause.__cause__ or cause.__context__
    if codes & set(_FULL):
        return DataError(f"output {path} must fit on its disk; got a full disk ({kept}). Free space or choose another folder.")
    if codes & set(_DENIED):
        return _denied(path)
    reason = " ".join(str(error).split())
    return DataError(f"output {path} could not be written ({kept}): {reason}. Choose another folder.")


def _denied(path: Path) -> DataError:
    return DataError(f"output {path} must be in a folder that you can write to; got no permission. Choose another folder.")
