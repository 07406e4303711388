"""What finished chunks of a run depend on, and who may write its outputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ifujax import __version__

if TYPE_CHECKING:
    from ifujax.io.checkpoint import ChunkStore
    from ifujax.lines.config import LineFitConfig

_SAMPLES, _SAMPLE = 16, 1 << 16
"""Blocks of a file that are looked at, and their bytes: a cube is too large to be read twice."""
_WITHOUT_EFFECT = frozenset(
    f"{section}.{option}"
    for section, options in {
        "fit": ("write_fits", "writefits", "out_image", "outimage", "suffix", "overwrite", "verbose"),
        "minimization": ("disp", "workers"),
    }.items()
    for option in options
)
"""Options that say where results go, not what they are."""


def run_identity(cube: Path, config: LineFitConfig, **options: object) -> dict[str, str]:
    """Return everything that the results of a run depend on, by names that a warning can use.

    Parameters
    ----------
    cube : Path
        Its place, size, time of change and samples of its content.
    config : LineFitConfig
        As written and as understood (with what it reads from other files).
    **options
        Of the command, such as ``chunk_size``: they change the last bits.

    Raises
    ------
    OSError
        If the cube can't be read.
    """
    facts = cube.stat()
    identity = {
        "version of ifujax": __version__,
        "version of jax": version("jax"),
        "version of numpy": version("numpy"),
        "input": os.path.realpath(cube),
        "size of the input": str(facts.st_size),
        "time of the input": str(facts.st_mtime_ns),
        "content of the input": sampled_hash(cube, facts.st_size),
        "order of the lines": ", ".join(config.model.names),
    }
    identity |= {name.replace("_", " "): str(value) for name, value in options.items()}
    # As understood: what comes from other files, such as the table of an LSF, is in there.
    fit = replace(config.fit, verbose=False, disp=False)
    understood = (config.loading, config.continuum, fit, config.equivalent_width, config.model.lsf)
    identity["configuration"] = hashlib.sha256(repr(understood).encode()).hexdigest()[:16]
    for option, value in config.text.items():
        if option not in _WITHOUT_EFFECT:
            identity[f"option {option}"] = value
    return identity


@contextmanager
def claim(outputs: Sequence[Path], identity: dict[str, str], *, resume: bool, lock_files: bool) -> Iterator[ChunkStore]:
    """Hold all `outputs` of a run, and yield the store of its chunks, beside the first of them.

    Parameters
    ----------
    outputs : sequence of Path
        One at least.
    identity : dict
        As of `run_identity`.
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

    with ExitStack() as stack:
        for path in outputs[1:]:
            stack.enter_context(output_lock(path))
        store = stack.enter_context(ChunkStore.open(outputs[0], identity, resume=resume))
        if lock_files:
            stack.enter_context(lock_file(outputs[0], store.locked))
        for path in outputs[1:]:
            remove_partial(path)  # when nothing can refuse this run any more
        yield store


def sampled_hash(path: Path, size: int) -> str:
    """Return a fingerprint of blocks of a file of `size` bytes, from its beginning to its end."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for k in range(_SAMPLES):
            stream.seek(max(size - _SAMPLE, 0) * k // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:16]
