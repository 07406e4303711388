"""Finished chunks of a long run, kept beside its output, so that a run that was killed goes on where it was."""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.locks import output_lock
from ifujax.io.output import atomic_path, explained, flush, remove_partial

_IDENTITY, _README = "identity.json", "README.txt"
_TOLD = 3
"""Differences that a warning names."""
_EXPLANATION = """\
Finished parts of a run of ifujax that makes {output}. They are removed when that file is complete.
If the run was stopped, the same command goes on from here. To start afresh, delete this folder or use --no-resume.
"""


class ChunkStore:
    """Arrays of finished chunks in a hidden folder ``.<output>.chunks`` beside the output, while its lock is held.

    Use it as `ChunkStore.open` gives it. However a run ends, its chunks stay, until `remove` is called.

    Attributes
    ----------
    folder : Path
        Made with the first chunk.
    resumed : int
        Chunks of an earlier run with the same identity that were found.
    locked : bool
        Whether the output is held for this run alone (False where the file system has no locks).

    Examples
    --------
    >>> with ChunkStore.open("out.fits", {"input": "cube.fits"}) as store:  # doctest: +SKIP
    ...     arrays = store.get("fit-000000")
    ...     if arrays is None:
    ...         arrays = {"flux": fit_chunk(0)}
    ...         store.put("fit-000000", arrays)
    ...     write("out.fits", arrays)
    ...     store.remove()
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], locked: bool) -> None:
        self._target = Path(os.path.realpath(output))
        self._output = output
        self._identity = json.loads(json.dumps(dict(identity)))  # as it will be read back
        self._outputs: dict[str, list[int]] = {}
        self._begun = False
        self.folder = chunk_folder(output)
        self.locked = locked
        self.resumed = 0

    @classmethod
    @contextmanager
    def open(cls, output: str | Path, identity: Mapping[str, Any], *, resume: bool = True) -> Iterator[Self]:
        """Lock `output`, and find the chunks of an earlier run.

        Parameters
        ----------
        output : str or Path
            The file that the run makes.
        identity : mapping
            What the chunks depend on, as JSON has it: input, options, versions. Chunks of a run with another identity are
            discarded, and a warning says why.
        resume : bool
            False discards chunks in any case.

        Raises
        ------
        OutputTakenError
            If another run holds the output.
        DataError
            If its folder can't be written to.
        """
        output = Path(output)
        with output_lock(output) as locked:
            store = cls(output, identity, locked)
            try:
                remove_partial(output)
                store._recover(resume)
            except OSError as error:
                raise explained(error, output) from error
            try:
                yield store
            finally:
                if not store._outputs and not store._names():
                    store.remove()  # nothing that would help the next run

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return a chunk as it was put; None if it isn't there, or is damaged."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            # Not numpy.load: it leaves the file open where the archive is damaged.
            with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
                names = archive.namelist()
                if archive.comment != _count(names):
                    return None
                return {each.removesuffix(".npy"): _read(archive, each) for each in names}
        except Exception:  # noqa: BLE001 - a damaged archive raises nearly anything; the chunk is made again
            return None

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished chunk: whole or not at all.

        Parameters
        ----------
        name : str
            Letters, digits, hyphens and underscores.
        arrays : mapping of str to array
            Numbers, booleans or text: no objects.

        Raises
        ------
        DataError
            If the disk is full or can't be written to; the chunks before stay.
        UsageError
            For another kind of name, or arrays of objects.
        """
        path = self._path(name)
        plain = {key: np.asarray(array) for key, array in arrays.items()}
        for key, array in plain.items():
            if array.dtype.hasobject:
                raise UsageError(f"arrays of a chunk must hold plain numbers or text; got objects in {key!r}. Convert it.")
        self._begin()
        with self._writing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            # numpy.savez would take an array named "file" for the file.
            archive.comment = _count(plain)
            for key, array in plain.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    def announce(self, path: str | Path, draft: Path) -> None:
        """Note that the file `draft` is complete and about to be renamed to `path`.

        A run that is killed before it can `remove` its chunks is thus told from one that never wrote `path`: see `made`.
        """
        flush(draft)  # a network's server may set the time of change only then
        self._outputs[os.path.realpath(path)] = _traits(draft)
        self._begin()
        self._write_identity()

    def made(self, path: str | Path) -> bool:
        """Whether `path` is a file that this run, before it was killed, or now, has written."""
        return _is_as_announced(path, self._outputs)

    def remove(self) -> None:
        """Remove the chunks; call it when all outputs are complete."""
        if not self.folder.is_dir():
            return
        try:
            # What tells the outputs to be ours goes last.
            for path in sorted(self.folder.iterdir(), key=lambda path: path.name == _IDENTITY):
                path.unlink()
            self.folder.rmdir()
        except OSError as error:
            warnings.warn(
                f"{self.folder} could not be removed ({error.strerror}). It isn't needed any more: delete it.",
                IfujaxWarning,
                stacklevel=2,
            )
        self._begun = False

    def _recover(self, resume: bool) -> None:
        names = self._names()
        stored = _stored(self.folder)
        found = stored.get("identity")
        if found == self._identity:
            self._outputs = stored["outputs"]
            if resume:
                for path in self.folder.glob(".partial-*"):
                    path.unlink(missing_ok=True)
                self.resumed, self._begun = len(names), True
                return
        if resume and names:
            warnings.warn(
                f"{len(names)} finished chunks of an earlier run that was to make {self._output} are discarded: "
                f"{_difference(found, self._identity)}.",
                IfujaxWarning,
                stacklevel=4,
            )
        self.remove()
        if self._outputs:
            self._begin()

    def _begin(self) -> None:
        if self._begun:
            return
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise explained(error, self._output) from error
        self._write_identity()
        with self._writing(self.folder / _README) as temporary:
            temporary.write_text(_EXPLANATION.format(output=self._target.name), encoding="utf-8")
        self._begun = True

    def _write_identity(self) -> None:
        with self._writing(self.folder / _IDENTITY) as temporary:
            content = {"identity": self._identity, "outputs": self._outputs}
            temporary.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")

    @contextmanager
    def _writing(self, path: Path) -> Iterator[Path]:
        """As `atomic_path`; its errors speak of the output, since that is the file the user knows."""
        try:
            with atomic_path(path, overwrite=True) as temporary:
                yield temporary
        except DataError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            kept = f"{len(self._names())} finished chunks are kept: the same command goes on from them"
            raise explained(error.__cause__, self._output, kept) from error

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("[!.]*.npz"))

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UsageError(f"name of a chunk must be letters, digits, hyphens and underscores; got {name!r}.")
        return self.folder / f"{name}.npz"


def chunk_folder(output: str | Path) -> Path:
    """Return the folder in which the chunks of a run that makes `output` are kept."""
    target = Path(os.path.realpath(output))
    return target.with_name(f".{target.name}.chunks")


def left_by_killed_run(output: str | Path, path: str | Path) -> bool:
    """Whether `path` was written by a run that makes `output` and was killed before its end."""
    return _is_as_announced(path, _stored(chunk_folder(output)).get("outputs", {}))


def _stored(folder: Path) -> dict[str, Any]:
    """Return the content of the identity file; nothing if it is missing or damaged."""
    try:
        content = json.loads((folder / _IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sound = isinstance(content, dict) and isinstance(content.get("outputs"), dict)
    return content if sound else {}


def _count(names: Collection[str]) -> bytes:
    """The comment of an archive: damage to its table of contents can hide members."""
    return f"{len(names)} arrays".encode()


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read():  # to the end, where the checksum is compared
            raise ValueError("more than an array")
        return array


def _traits(path: Path) -> list[int]:
    """What a renamed file keeps, and another file in its place does not have."""
    facts = path.stat()
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns]


def _is_as_announced(path: str | Path, outputs: Mapping[str, list[int]]) -> bool:
    announced = outputs.get(os.path.realpath(path))
    try:
        return announced is not None and announced == _traits(Path(path))
    except OSError:
        return False


def _difference(found: Any, now: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return "nothing tells what they belong to"
    names = [name for name in sorted(found.keys() | now.keys()) if found.get(name) != now.get(name)]
    listed = ", ".join(names[:_TOLD]) + (f" and {len(names) - _TOLD} more" if len(names) > _TOLD else "")
    return f"{listed} {'differs' if len(names) == 1 else 'differ'}"
