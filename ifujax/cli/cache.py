"""Where the command line keeps compiled programs, so that a second run does not compile again.

JAX loads machine code from this folder: it is used only if nobody but the user can write to it.
"""

from __future__ import annotations

import hashlib
import platform
import stat
import warnings
from importlib.metadata import version
from pathlib import Path

from ifujax.errors import IfujaxWarning
from ifujax.io.owned import distrust

SIZE_LIMIT = 512 * 2**20
"""Bytes, over all versions of jax; the files unused for longest go first."""


def compilation_cache(root: Path | None = None) -> Path | None:
    """Return the cache folder of this version of jax on this processor, made and pruned; None if it can't be trusted.

    Parameters
    ----------
    root : Path, optional
        ``ifujax`` in the user's cache folder by default.

    Warns
    -----
    IfujaxWarning
        If the folder belongs to somebody else, others can write to it, or it can't be made.
    """
    if root is None:
        import platformdirs

        root = Path(platformdirs.user_cache_dir("ifujax"))
    folder = root / f"jax-{version('jax')}-{_processor()}"
    try:
        for each in (root, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            complaint = _distrust(each)
            if complaint:
                warnings.warn(
                    f"the compilation cache must be yours alone; {each} {complaint}. It isn't used: remove it or set mode 700.",
                    IfujaxWarning,
                    stacklevel=2,
                )
                return None
        prune(root, SIZE_LIMIT)
    except OSError as error:
        warnings.warn(f"no compilation cache: {folder}: {error.strerror}.", IfujaxWarning, stacklevel=2)
        return None
    return folder


def prune(root: Path, limit: int) -> None:
    """Remove compiled programs under `root`, unused for longest first, until the rest take at most `limit` bytes."""
    found = []
    own = [folder for folder in root.glob("jax-*") if folder.is_dir() and not folder.is_symlink()]  # nor where a link leads
    for path in (path for folder in own for path in folder.iterdir()):
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue  # another run is pruning too
        if stat.S_ISREG(facts.st_mode):
            found.append((max(facts.st_atime, facts.st_mtime), facts.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found, key=lambda item: item[0]):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _distrust(folder: Path) -> str:
    """Return why `folder` may not be trusted, or nothing."""
    facts = folder.lstat()
    return distrust(facts) if stat.S_ISDIR(facts.st_mode) else "is a link, or no folder"


def _processor() -> str:
    """Return a short name of this kind of processor: compiled code may not run on another."""
    facts = [platform.system(), platform.machine(), platform.processor()]
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(("model name", "flags", "Features", "CPU part")):
                facts.append(line)
            elif not line:
                break  # the other cores are alike
    except OSError:
        pass  # not Linux: the names above must do
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
