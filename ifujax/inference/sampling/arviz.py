"""Draws as ArviZ takes them, whichever version is installed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray


def as_arviz(groups: Mapping[str, xarray.Dataset]) -> Any:
    """Return datasets as ArviZ's container: `arviz.InferenceData` of version 0, `xarray.DataTree` of version 1 and later.

    Both are indexed by the names of the groups: ``found["posterior"]["flux"]``.

    Parameters
    ----------
    groups : mapping of str to `xarray.Dataset`
        By ArviZ's names, such as "posterior" and "sample_stats"; draws have the dimensions ``chain`` and ``draw``.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)  # said at import
        import arviz

    # Not hasattr(arviz, "InferenceData"): version 1 has it, with a warning.
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(**dict(groups))  # type: ignore[operator]
    import xarray

    return xarray.DataTree.from_dict(dict(groups))
