"""What all tests share. Nothing here switches float64 on: the library must do without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

# Silent broadcasting between ranks hides mistakes of axes; set globally, since the engine works in threads.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator with a fixed seed."""
    return np.random.default_rng(20240229)


MANY_MAPS = 20_000


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Drop compiled programs when there are many: each maps memory, and beyond 65,530 pieces, Linux's limit, LLVM crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MANY_MAPS:
        jax.clear_caches()
