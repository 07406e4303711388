"""What all tests share. Nothing here switches float64 on: the library must do without."""

from __future__ import annotations

import jax
import numpy as np
import pytest

# Silent broadcasting between ranks hides mistakes of axes; set globally, since the engine works in threads.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator with a fixed seed."""
    return np.random.default_rng(20240229)
