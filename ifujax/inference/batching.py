"""Running many fits in blocks: bucket sizes, devices, threads, and who is still unfinished.

Converged rows leave the batch: after a few iterations the unfinished ones of all blocks are
gathered into fewer blocks of the same size, so that nobody waits for the slowest and one shape
is compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from ifujax.errors import UsageError
from ifujax.inference.precision import working_precision

_CPU_BLOCKS = (8, 64)
_GPU_BLOCKS = (256, 4096, 65536)
_IMAGE_PIXELS = 4096
"""From this many pixels on a fit fills the caches of a CPU by itself."""
_CPU_IMAGE_BLOCKS = (1,)
_GPU_IMAGE_BLOCKS = (1, 8, 32)
_PIXEL_BUCKET = 16


def block_size(n_rows: int, platform: str, n_pix: int) -> int:
    """Return how many fits of `n_pix` pixels go into one block: a few sizes only, so that few shapes are compiled."""
    if n_pix >= _IMAGE_PIXELS:
        sizes = _CPU_IMAGE_BLOCKS if platform == "cpu" else _GPU_IMAGE_BLOCKS
    else:
        sizes = _CPU_BLOCKS if platform == "cpu" else _GPU_BLOCKS
    return next((size for size in sizes if size >= n_rows), sizes[-1])


def pixel_bucket(n_pix: int) -> int:
    """Return the padded number of pixels."""
    return -(-n_pix // _PIXEL_BUCKET) * _PIXEL_BUCKET


def pad_pixels(array: np.ndarray, n_pix: int) -> np.ndarray:
    """Pad the last axis with zeros to `n_pix`."""
    missing = n_pix - array.shape[-1]
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)]) if missing else array


def choose_devices(devices: Sequence[Any] | str | None) -> list[Any]:
    """Return JAX devices: all of the default kind, of a named platform, or those given."""
    if devices is None:
        return list(jax.local_devices())
    if isinstance(devices, str):
        try:
            return list(jax.local_devices(backend=devices))
        except RuntimeError:
            raise UsageError(
                f"device must be one that JAX finds here; got {devices!r}, found {jax.default_backend()!r}. "
                "Install the jax build for it, or leave the option out."
            ) from None
    if not devices:
        raise UsageError("devices must name one device at least; got none.")
    return list(devices)


def usable_cores() -> int:
    """Number of processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_blocks(
    task: Callable[[np.ndarray, Any], Any],
    rows: np.ndarray,
    size: int,
    devices: Sequence[Any],
    precision: str,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Call ``task(row_indices, device)`` for each block of `size` rows; yield results as they come in order.

    `task` runs in a worker thread, inside the precision context; a short block is the task's to
    pad. Blocks go round the devices; on a CPU as many run at once as there are cores.
    """
    blocks = [rows[i : i + size] for i in range(0, len(rows), size)]
    workers = max(len(devices), usable_cores() if devices[0].platform == "cpu" else 2 * len(devices))

    def work(i: int) -> Any:
        device = devices[i % len(devices)]
        with working_precision(precision), jax.default_device(device):
            return task(blocks[i], device)

    if len(blocks) == 1:
        yield blocks[0], work(0)
        return
    with ThreadPoolExecutor(max_workers=min(workers, len(blocks))) as pool:
        yield from zip(blocks, pool.map(work, range(len(blocks))))


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Repeat the last row index until the block is full."""
    return np.concatenate([rows, np.full(size - len(rows), rows[-1], dtype=rows.dtype)]) if len(rows) < size else rows
