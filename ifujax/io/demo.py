"""The cube of the demonstration: a piece of a real MUSE cube, from the wheel of ``mpdaf`` on PyPI."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from ifujax.errors import DataError
from ifujax.io.output import atomic_path

REQUIREMENT = "mpdaf==3.6"
WHEEL_SHA256 = "c76e20ae254012669ed966c35f2acd31ced81acc31946d9a04587cce3578ee17"
MEMBER = "mpdaf/data/sdetect/minicube.fits"
CUBE_SHA256 = "d7be532d2e294c1c5ae5a4d83a55c5bf18b3e865ada839b20f5294022bf2c36c"
DATA_DIR_VARIABLE = "IFUJAX_DATA_DIR"
# One fixed file for every machine: nothing in it is run, so that it need not suit this one.
_WHEEL_OPTIONS = (
    "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
    "--platform", "manylinux2014_x86_64",
)  # fmt: skip
_BLOCK = 1 << 20


def minicube_path(progress: Callable[[str, int, int], None] | None = None) -> Path:
    """Return the MUSE cube of Abell 478 (40 x 40 spaxels, 53 MB), fetched from PyPI on first use.

    It holds DATA, STAT and DQ; H-alpha, [N II] and [S II] filaments around the central galaxy lie at redshift 0.0859.

    Parameters
    ----------
    progress : callable, optional
        ``progress("download", done, total)``.

    Returns
    -------
    Path
        ``minicube.fits`` in the folder that the environment variable IFUJAX_DATA_DIR names, or in the user's cache folder.

    Raises
    ------
    DataError
        Without network or pip, or if the file is not the expected one.

    Notes
    -----
    The file belongs to mpdaf 3.6 (BSD-3; Centre de Recherche Astrophysique de Lyon).
    """
    named = os.environ.get(DATA_DIR_VARIABLE)
    folder = Path(named) if named else Path(platformdirs.user_cache_dir("ifujax")) / "data"
    path = folder / "minicube.fits"
    if path.is_file() and _sha256(path) == CUBE_SHA256:
        return path
    if not named:
        # Nobody else may write where compiled programs are kept too.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if progress is not None:
        progress("download", 0, 1)
    with tempfile.TemporaryDirectory(prefix="ifujax-") as temporary, atomic_path(path, overwrite=True) as partial:
        _extract(_download(Path(temporary)), partial)
    if progress is not None:
        progress("download", 1, 1)
    return path


def _download(folder: Path) -> Path:
    """Let pip fetch the wheel into `folder`: it knows the user's proxies, mirrors and certificates."""
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"pip must be there to fetch the demonstration's cube; got a Python without it ({sys.executable}). "
            f"Run '{sys.executable} -m ensurepip', or put minicube.fits into a folder and name that in {DATA_DIR_VARIABLE}."
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *_WHEEL_OPTIONS]
    done = subprocess.run(
        [*command, "--dest", str(folder), REQUIREMENT], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "no wheel came")
        raise DataError(
            f"the demonstration's cube must be fetched from PyPI once (the wheel of {REQUIREMENT}, 60 MB); got: {reason}. "
            f"Check the network, or put minicube.fits into a folder and name that in {DATA_DIR_VARIABLE}."
        )
    return wheels[0]


def _extract(wheel: Path, target: Path) -> None:
    _require(wheel, WHEEL_SHA256, "the wheel of mpdaf")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, _BLOCK)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"the wheel of mpdaf must hold {MEMBER}; got {error}. Remove it and try again.") from None
    _require(target, CUBE_SHA256, "minicube.fits")


def _require(path: Path, expected: str, name: str) -> None:
    found = _sha256(path)
    if found != expected:
        raise DataError(
            f"{name} must have the SHA-256 {expected[:16]}...; got {found[:16]}.... "
            "It was changed on the way, and is not used. Try again, or another network."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
