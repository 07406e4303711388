"""Where the reference data lie: beside the repository, and not on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "shared" / "data"


def reference_data(*parts: str) -> Path:
    """Return the path of a reference file, or skip the test that asks for it.

    Parameters
    ----------
    *parts : str
        Path below the folder of reference data, such as ``"line_fitting", "ifscube", "minicube_a478.npz"``.
    """
    path = ROOT.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no reference data here: {'/'.join(parts)}")
    return path
