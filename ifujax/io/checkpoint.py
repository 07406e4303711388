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
from typing import Any, BinaryIO, Self

import numpy as np

from ifujax.errors import IfujaxWarning, UsageError
from ifujax.io.locks import output_lock
from ifujax.io.output import explained, flush, remove_partial
from ifujax.io.own_folder import OwnFolder
from ifujax.io.owned import NotOursError

_IDENTITY, _README, _CHUNK = "identity.json", "README.txt", r"[A-Za-z0-9_-]+"
_TOLD = 3
"""Differences that a warning names."""
_EXPLANATION = """\
Finished parts of a run of ifujax that makes {output}. They are removed when that file is complete.
If the run was stopped, the same command goes on from here. To start afresh, delete this folder or use --no-resume.
"""


class ChunkStore:
    """Arrays of finished chunks in a hidden folder ``.<output>.chunks`` beside the output, while its lock is held.

    Use it as `ChunkStore.open` gives it. However a run ends, its chunks stay, until `remove` is called. The folder is for this
    user alone (`ifujax.io.owned`): one that is a link, that others can write to, or that holds anything else is left as it is.

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
        self._stale = False
        """Whether the chunks that are there are another run's, to be discarded with the first of this."""
        self.folder = chunk_folder(output)
        self._own = _own_folder(output)
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
            discarded when the first new one is put, or the block ends without an error; a warning says so at once, and why.
        resume : bool
            False discards chunks in any case.

        Raises
        ------
        OutputTakenError
            If another run holds the output.
        NotOursError
            If the folder of chunks is a link, or another user's, or others can write to it (that may be discarded), or it
            holds what no run puts there. Nothing is changed.
        DataError
            If the output's folder can't be written to.
        """
        output = Path(output)
        with output_lock(output) as locked:
            store = cls(output, identity, locked)
            try:
                try:
                    store._recover(resume)
                    remove_partial(output)
                except OSError as error:
                    raise explained(error, output) from error
                try:
                    yield store
                    if store._stale:
                        store.remove()
                finally:
                    if not store._stale and not store._outputs and not store._names():
                        store.remove()  # nothing that would help the next run
            finally:
                store._own.close()

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return a chunk as it was put; None if it isn't there, or is damaged."""
        file = _file(name)
        if self._stale or not self._own.opened:
            return None
        try:
            # Not numpy.load: it leaves the file open where the archive is damaged.
            with self._own.read(file) as stream, zipfile.ZipFile(stream) as archive:
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
        file = _file(name)
        plain = {key: np.asarray(array) for key, array in arrays.items()}
        for key, array in plain.items():
            if array.dtype.hasobject:
                raise UsageError(f"arrays of a chunk must hold plain numbers or text; got objects in {key!r}. Convert it.")
        self._begin()
        with self._writing(file) as stream, zipfile.ZipFile(stream, "w") as archive:
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
        """Remove the chunks; call it when all outputs are complete. Where anything else is among them, a warning says so."""
        if not self._own.opened:
            return
        try:
            self._own.clear(last=_IDENTITY)  # which tells the outputs to be ours
        except OSError as error:
            warnings.warn(
                f"{self.folder} could not be removed ({error.strerror}). It isn't needed any more: delete it.",
                IfujaxWarning,
                stacklevel=2,
            )
        except NotOursError as error:
            warnings.warn(
                f"{self.folder} could not be removed: it {error.complaint}. Move away what is needed of it, and delete the rest.",
                IfujaxWarning,
                stacklevel=2,
            )
        self._begun = self._stale = False

    def _recover(self, resume: bool) -> None:
        if not self._own.find(discarding=not resume):
            return
        names = self._names()
        stored = _stored(self._own)
        if not stored and not all(_looks_ours(self._own, _file(name)) for name in names):
            raise NotOursError(
                f"finished chunks must say what run they are of; nothing in {self.folder} does, and some are no files of ours. "
                "Nothing was changed. Move the folder away, or choose another output."
            )
        found = stored.get("identity")
        if found == self._identity and self._own.trusted:
            self._outputs = stored["outputs"]
            if resume:
                self._own.remove_drafts()
                self.resumed, self._begun = len(names), True
                return
        if resume and names:
            warnings.warn(
                f"{len(names)} finished chunks of an earlier run that was to make {self._output} are discarded: "
                f"{_difference(found, self._identity)}.",
                IfujaxWarning,
                stacklevel=4,
            )
        if resume:
            self._stale = True  # the run may yet be refused
            return
        self._own.clear(last=_IDENTITY)
        if self._outputs:
            self._begin()

    def _begin(self) -> None:
        if self._begun:
            return
        try:
            if self._stale:
                self._own.clear(last=_IDENTITY)
                self._stale = False
            if not self._own.opened:
                self._own.make()
        except OSError as error:
            raise explained(error, self._output) from error
        self._write_identity()
        with self._writing(_README) as stream:
            stream.write(_EXPLANATION.format(output=self._target.name).encode())
        self._begun = True

    def _write_identity(self) -> None:
        with self._writing(_IDENTITY) as stream:
            content = {"identity": self._identity, "outputs": self._outputs}
            stream.write(json.dumps(content, indent=1, sort_keys=True).encode())

    @contextmanager
    def _writing(self, file: str) -> Iterator[BinaryIO]:
        """As `OwnFolder.writing`; its errors speak of the output, since that is the file the user knows."""
        try:
            with self._own.writing(file) as stream:
                yield stream
        except OSError as error:
            kept = f"{len(self._names())} finished chunks are kept: the same command goes on from them"
            raise explained(error, self._output, kept) from error

    def _names(self) -> list[str]:
        if self._stale or not self._own.opened:
            return []
        return [name.removesuffix(".npz") for name in self._own.names() if re.fullmatch(rf"{_CHUNK}\.npz", name)]


def chunk_folder(output: str | Path) -> Path:
    """Return the folder in which the chunks of a run that makes `output` are kept."""
    target = Path(os.path.realpath(output))
    return target.with_name(f".{target.name}.chunks")


def left_by_killed_run(output: str | Path, path: str | Path) -> bool:
    """Whether `path` was written by a run of this user that makes `output` and was killed before its end."""
    if not os.path.exists(path):
        return False
    folder = _own_folder(output)
    try:
        return folder.find() and _is_as_announced(path, _stored(folder).get("outputs", {}))
    except (OSError, NotOursError):
        return False
    finally:
        folder.close()


def _own_folder(output: str | Path) -> OwnFolder:
    return OwnFolder(chunk_folder(output), rf"{re.escape(_IDENTITY)}|{re.escape(_README)}|{_CHUNK}\.npz")


def _file(name: str) -> str:
    if not re.fullmatch(_CHUNK, name):
        raise UsageError(f"name of a chunk must be letters, digits, hyphens and underscores; got {name!r}.")
    return f"{name}.npz"


def _stored(folder: OwnFolder) -> dict[str, Any]:
    """Return the content of the identity file; nothing if it is missing or damaged."""
    try:
        with folder.read(_IDENTITY) as stream:
            content = json.loads(stream.read())
    except (OSError, ValueError):
        return {}
    sound = isinstance(content, dict) and isinstance(content.get("outputs"), dict)
    return content if sound else {}


def _looks_ours(folder: OwnFolder, file: str) -> bool:
    """Whether a file is an archive as `ChunkStore.put` writes them, or what a power cut may have left of one."""
    try:
        with folder.read(file) as stream, zipfile.ZipFile(stream) as archive:
            return re.fullmatch(rb"\d+ arrays", archive.comment) is not None
    except zipfile.BadZipFile:
        with folder.read(file) as stream:
            return not stream.read(1 << 16).strip(b"\0")


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
