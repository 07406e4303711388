"""What must be settled before jax is imported: device, threads, compilation cache."""

from __future__ import annotations

import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from ifujax.cli.cache import compilation_cache
from ifujax.errors import IfujaxWarning, UsageError

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_MAX_HOST_DEVICES = 256
_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


@dataclass(frozen=True)
class Device:
    """What ``--device`` asks for."""

    platform: Literal["cpu", "gpu"]
    count: int | None = None
    """Number of host devices; None leaves it to jax."""


def parse_device(text: str) -> Device:
    """Understand ``cpu``, ``gpu`` or ``cpu:4`` (the processor shown to jax as four devices)."""
    match = re.fullmatch(r"(cpu|gpu)(?::([0-9]{1,3}))?", text.strip().lower())
    count = int(match[2]) if match and match[2] else None
    if match is None or (match[1] == "gpu" and count is not None) or (count is not None and not 1 <= count <= _MAX_HOST_DEVICES):
        raise UsageError(f"--device must be cpu, gpu or cpu:N with N from 1 to {_MAX_HOST_DEVICES}; got {text!r}.")
    return Device("gpu" if match[1] == "gpu" else "cpu", count)


def prepare(device: str | None = None, threads: int | None = None, use_cache: bool = True) -> None:
    """Set the process up; call it once, before anything imports jax or numpy.

    Parameters
    ----------
    device : str, optional
        ``cpu``, ``gpu`` or ``cpu:N``; jax's own choice by default.
    threads : int, optional
        Processor cores to use, all by default.
    use_cache : bool
        Keep compiled programs for the next run.

    Raises
    ------
    UsageError
        For a device that this machine has not.
    """
    asked = None if device is None else parse_device(device)
    if threads is not None:
        limit_threads(threads)
    if "jax" not in sys.modules:
        os.environ.update(_settings(asked, use_cache))
    if asked is not None:
        _check(asked, device or "")


@dataclass
class CompilationTime:
    """Wall time in which XLA compiled something, or loaded what an earlier run compiled."""

    spans: list[tuple[float, float]] = field(default_factory=list)

    def add(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Take note of an event of jax's that has just ended."""
        if event in _COMPILING:
            now = time.monotonic()
            self.spans.append((now - duration_secs, now))

    @property
    def seconds(self) -> float:
        """Seconds so far; what several threads compile at once counts once."""
        total, reached = 0.0, 0.0
        for begin, end in sorted(self.spans):
            total += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total


@contextmanager
def compilation_time() -> Iterator[CompilationTime]:
    """Count the time that goes into compilation within the block. It imports jax."""
    import jax

    count = CompilationTime()
    jax.monitoring.register_event_duration_secs_listener(count.add)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(count.add)


def limit_threads(threads: int) -> None:
    """Keep this process on `threads` processor cores, whatever starts threads in it.

    Raises
    ------
    UsageError
        Unless `threads` is at least 1.
    """
    if threads < 1:
        raise UsageError(f"--threads must be 1 or more; got {threads}.")
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if threads > len(allowed):
            warnings.warn(f"--threads {threads}: only {len(allowed)} cores can be used here.", IfujaxWarning, stacklevel=2)
            threads = len(allowed)
        os.sched_setaffinity(0, allowed[:threads])
    else:
        os.environ["NPROC"] = str(threads)  # the size of XLA's own thread pool
    for name in _POOLS:
        os.environ[name] = str(threads)


def _settings(asked: Device | None, use_cache: bool) -> dict[str, str]:
    """Return the environment variables to set; those that the user has set win, unless an option says otherwise."""
    settings = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # leave the rest of a shared GPU to others
        "TF_CPP_MIN_LOG_LEVEL": "2",  # XLA's notes to its developers
    }
    if use_cache and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = compilation_cache()
        if folder is not None:
            settings |= {
                "JAX_COMPILATION_CACHE_DIR": str(folder),
                # Every kernel is kept: many small ones are what the second run would wait for.
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
    settings = {name: value for name, value in settings.items() if name not in os.environ}
    if not use_cache:
        settings["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if asked is not None and asked.platform == "cpu":
        settings["JAX_PLATFORMS"] = "cpu"
        if asked.count is not None:
            settings["JAX_NUM_CPU_DEVICES"] = str(asked.count)
    return settings


def _check(asked: Device, text: str) -> None:
    import jax

    try:
        found = jax.devices(asked.platform)
    except RuntimeError:
        have = ", ".join(sorted({each.platform for each in jax.devices()}))
        raise UsageError(
            f"--device must be one that jax finds on this machine ({have}); got {text!r}. "
            "For an NVIDIA GPU, install ifujax[gpu] and its driver, or leave the option out."
        ) from None
    if asked.count is not None and len(found) != asked.count:
        raise UsageError(f"--device must be set before jax starts; got {text!r}, and jax runs with {len(found)} already.")
