"""Share of spaxels with a line whose draws pass the test of the sampler that made them."""

from __future__ import annotations

import numpy as np
import pytest

import ifujax
from ifujax.errors import DataError
from ifujax.inference.status import POSTERIOR_FLAGS, decode
from ifujax.io.demo import minicube_path
from tests.lines.posteriors.calibration import HERMITE, ONE, TWO, Case, cube_mix, simulated
from tests.lines.posteriors.comparison import REAL_REDSHIFT, REAL_WINDOW, real_model

DETECTED = 3.0


def share_that_passes(title: str, fit: ifujax.CubeFit, where: np.ndarray) -> float:
    post = ifujax.sample(fit, where=where, seed=1)
    status, tier, line = post.status[where], post.tier[where], fit["ha", "snr"][where] > DETECTED
    for some, name in ((line, f"S/N > {DETECTED:g}"), (~line, "fainter")):
        if some.any():
            by_tier = ", ".join(f"tier {k}: {np.mean(tier[some] == k):.1%}" for k in (1, 2))
            print(f"\n{title}, {name}: {some.sum()} spaxels, {by_tier}, pass {np.mean(status[some] == 0):.1%}", end="")
    for value in np.unique(status[status != 0]):
        print(
            f"\n    {np.sum(status == value)} x {'; '.join(flag.sentence for flag in decode(int(value), POSTERIOR_FLAGS))}",
            end="",
        )
    assert line.sum() >= 100
    return float(np.mean(status[line] == 0))


@pytest.mark.slow
@pytest.mark.parametrize("case", [ONE, TWO, HERMITE], ids=lambda case: case.name)
def test_simulated(case: Case) -> None:
    n = 400 if case is TWO else 200  # a third of them has a first component with S/N above 3
    cube, _ = simulated(case, cube_mix(case, n, np.random.default_rng(12), snr=(1.0, 50.0)), 12)
    fit = ifujax.fit_cube(cube, case.model(100.0), starts=8 if case is TWO else 1)
    assert share_that_passes(case.name, fit, np.ones(fit.shape, bool)) >= 0.99


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:noise is correlated")
def test_muse() -> None:
    try:
        cube = ifujax.read_cube(minicube_path(), redshift=REAL_REDSHIFT)
    except DataError as error:
        pytest.skip(f"no MUSE cube here: {error}")
    fit = ifujax.fit_cube(cube, real_model(), window=REAL_WINDOW)
    where = np.zeros(fit.shape, bool)
    where.flat[np.random.default_rng(2).choice(where.size, 200, replace=False)] = True
    assert share_that_passes("MUSE", fit, where) >= 0.99
