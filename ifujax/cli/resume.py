"""What finished chunks of a run depend on, and who may write its outputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ifujax import __version__

if TYPE_CHECKING:
    from ifujax.cli.outputs import Outputs
    from ifujax.io.checkpoint import ChunkStore

_SAMPLES, _SAMPLE = 16, 1 << 16
"""Blocks of a file that are looked at, and their bytes: a cube is too large to be read twice."""


def run_identity(inputs: Mapping[str, Path], facts: Mapping[str, str] | None = None, **options: object) -> dict[str, str]:
    """Return everything that the results of a run depend on, by names that a warning can use.

    Parameters
    ----------
    inputs : mapping of str to Path
        Files by what they are: ``{"input": cube}``, or ``{"input": cube, "catalogue": table}``. Their place, size, time of
        change and samples of their content count.
    facts : mapping of str to str, optional
        What else identifies the job's results, such as its configuration.
    **options
        Of the command, such as ``chunk_size``: they change the last bits.

    Raises
    ------
    OSError
        If a file can't be read.
    """
    identity = {"version of ifujax": __version__, "version of jax": version("jax"), "version of numpy": version("numpy")}
    for name, path in inputs.items():
        status = path.stat()
        identity |= {
            name: os.path.realpath(path),
            f"size of the {name}": str(status.st_size),
            f"time of the {name}": str(status.st_mtime_ns),
            f"content of the {name}": sampled_hash(path, status.st_size),
        }
    return identity | {name.replace("_", " "): str(value) for name, value in options.items()} | dict(facts or {})


@contextmanager
def claim(outputs: Outputs, identity: dict[str, str] | None, *, resume: bool, lock_files: bool) -> Iterator[ChunkStore | None]:
    """Hold all `outputs` of a run, and yield the store of its chunks, beside the first of them.

    Parameters
    ----------
    outputs : Outputs
        Where there are none, nothing is held.
    identity : dict, optional
        As of `run_identity`; without it no chunks are kept, and None is yielded.
    resume : bool
        Use the chunks of an earlier run.
    lock_files : bool
        Also keep ``<output>.lock`` of the first, as IFSCube does.

    Raises
    ------
    OutputTakenError
        If another run holds one of the outputs.
    NotOursError
        If something else lies where the run's chunks and locks belong: see `ifujax.io.owned`.
    DataError
        If they can't be written.
    """
    from ifujax.io.checkpoint import ChunkStore
    from ifujax.io.locks import lock_file, output_lock
    from ifujax.io.output import remove_partial

    if not outputs:
        yield None
        return
    first, *others = outputs.held
    with ExitStack() as stack:
        for path in others:
            stack.enter_context(output_lock(path))
        store: ChunkStore | None = None
        if identity is None:
            locked = stack.enter_context(output_lock(first))
        else:
            store = stack.enter_context(ChunkStore.open(first, identity, resume=resume))
            locked = store.locked
        if lock_files:
            stack.enter_context(lock_file(first, locked))
        remove_partial(*outputs.written)  # when nothing can refuse this run any more
        yield store


def sampled_hash(path: Path, size: int) -> str:
    """Return a fingerprint of blocks of a file of `size` bytes, from its beginning to its end."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for k in range(_SAMPLES):
            stream.seek(max(size - _SAMPLE, 0) * k // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:16]
